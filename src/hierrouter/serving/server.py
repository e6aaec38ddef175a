"""KServe's ModelServer with the router's routes, the gate before them, and our own address.

KServe reads the command line when it is imported and binds every interface; both are taken from
it here, and nothing else is changed: its v1 and v2 routes, health and metrics are its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import signal
from functools import partial
from typing import TYPE_CHECKING, Any

from uvicorn.config import STARTUP_FAILURE

from hierrouter.errors import ConfigError
from hierrouter.interrupts import end_at_once
from hierrouter.serving.bounded import BoundedHeads
from hierrouter.serving.description import describe
from hierrouter.serving.gate import Gate
from hierrouter.serving.kserve_import import no_arguments

if TYPE_CHECKING:
    from collections.abc import Callable

    from fastapi import APIRouter, FastAPI

    from hierrouter.serving.gate import Rules
    from hierrouter.serving.service import Service
    from hierrouter.serving.visits import Visit

log = logging.getLogger("hierrouter.serving")
LAST_WORDS_S = 5.0
"""For what is cut at the end of the grace period to tell its clients so."""


def run_server(
    service: Service,
    routers: Callable[[], list[APIRouter]],
    rules: Rules,
    host: str,
    port: int,
    grace_s: int,
    said: str,
) -> None:
    """Serves until it is told to end; requests under way are finished first.

    Args:
        service: answers.
        routers: makes the routes beside KServe's.
        rules: of the gate.
        host: the address to listen at.
        port: its port; 0: any that is free.
        grace_s: seconds for requests under way when it is told to end.
        said: what to say once it listens, after its address.

    Raises:
        ConfigError: others have taken the port meanwhile.
    """
    with no_arguments():
        from kserve import ModelServer
        from kserve.model_server import app

        from hierrouter.serving.kserve_model import RouterModel, RouterPlane
        from hierrouter.serving.refusals import tell_failures

    class RouterServer(ModelServer):  # type: ignore[misc]
        """Loads the models in the loop that serves them, then listens where it was told."""

        def register_signal_handler(self) -> None:
            """Ends at once while models load; KServe's own would only forget its models.

            Once it listens, uvicorn sees to signals, and hands them on here when all is done.
            """
            told = False

            def end(*_: Any) -> None:
                nonlocal told
                if self._rest_server._server.should_exit:
                    return
                if told:
                    end_at_once()
                told = True
                raise KeyboardInterrupt

            for number in (signal.SIGINT, signal.SIGTERM):
                signal.signal(number, end)

        async def _serve(self) -> None:
            try:
                await service.player.fleet.start()
                uvicorn = self._rest_server._server
                self._rest_server.config.host = host
                self._rest_server.config.http = partial(BoundedHeads, refused=service.refused)
                # It only times requests, for a log that is off.
                self._rest_server._add_middlewares = lambda _: None
                theirs = self._rest_server._add_exception_handlers

                def handlers(app: FastAPI) -> None:
                    theirs(app)
                    tell_failures(app)

                self._rest_server._add_exception_handlers = handlers
                telling = asyncio.ensure_future(_tell_when_up(uvicorn, host, said))
                ending = asyncio.ensure_future(_note_the_end(uvicorn, service))
                try:
                    await super()._serve()
                    if cut := _cut(uvicorn):
                        await asyncio.wait(cut, timeout=LAST_WORDS_S)
                    if uvicorn.force_exit:
                        # Left out in a hurry, and then told as a failure with its traceback.
                        await uvicorn.lifespan.shutdown()
                finally:
                    telling.cancel()
                    ending.cancel()
            finally:
                for coroutine in self.servers:
                    coroutine.close()
                await service.close()

    server = RouterServer(
        http_port=port,
        workers=1,
        enable_grpc=False,
        enable_docs_url=False,
        enable_latency_logging=False,
        access_log_format=None,
        event_loop="auto",
        grace_period=grace_s,
    )
    server.dataplane = RouterPlane(server.registered_models, service)
    # KServe's own, and asyncio's, would log what an error says; it may quote a question.
    server.register_exception_handler(_note_failure)
    prepare_app(app, routers(), rules, service.refused)
    with contextlib.suppress(ImportError):
        import uvloop

        uvloop.install()
    asyncio.set_event_loop(asyncio.new_event_loop())
    try:
        server.start([RouterModel(service)])
    except SystemExit as error:
        if error.code != STARTUP_FAILURE:
            raise
        # It was free when the models began to load.
        raise ConfigError(
            f"--host {host} --port {port} cannot be listened at any more, as the line before says; "
            "choose another"
        ) from error


def prepare_app(
    app: FastAPI, routers: list[APIRouter], rules: Rules, refused: Callable[[Visit, int], None]
) -> None:
    """Adds the router's routes, its gate and its description to KServe's application.

    Args:
        app: of `kserve.model_server`.
        routers: the routes beside KServe's.
        rules: of the gate.
        refused: is told of each request that is not let in.
    """
    for router in routers:
        app.include_router(router)
    app.add_middleware(Gate, rules=rules, refused=refused)
    app.title, app.version = "HierRouter", _version()
    app.openapi = partial(describe, app.openapi, rules)  # type: ignore[method-assign]


def _note_failure(_: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Logs what failed in the loop and nobody waited for."""
    log.error("%s", context["message"], exc_info=context.get("exception"))


def _version() -> str:
    from hierrouter import __version__

    return __version__


async def _tell_when_up(uvicorn: Any, host: str, said: str) -> None:
    """Says the address once it can be asked."""
    while not uvicorn.started:
        await asyncio.sleep(0.02)
    port = uvicorn.servers[0].sockets[0].getsockname()[1]
    shown = f"[{host}]" if ":" in host else host
    # What is there now stays; not to look through it again and again saves processor time.
    gc.collect()
    gc.freeze()
    log.info("serving at http://%s:%d%s", shown, port, said)


async def _note_the_end(uvicorn: Any, service: Service) -> None:
    """Stops being ready as soon as the server is told to end, while it still answers.

    Told a second time, it cuts what is under way; uvicorn itself only waits no longer for it.
    """
    while not uvicorn.should_exit:
        await asyncio.sleep(0.1)
    service.ending = True
    log.info("ending; requests under way are finished first")
    while not uvicorn.force_exit:
        await asyncio.sleep(0.1)
    _cut(uvicorn)


def _cut(uvicorn: Any) -> list[asyncio.Task[None]]:
    """Ends the requests under way, each of them once: another time would cut its last words."""
    tasks: list[asyncio.Task[None]] = list(uvicorn.server_state.tasks)
    if going := [task for task in tasks if not task.cancelling()]:
        for task in going:
            task.cancel()
        log.info("ending at once; requests under way are cut")
    return tasks
