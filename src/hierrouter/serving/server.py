"""KServe's ModelServer with the router's routes, the gate before them, and our own address.

KServe reads the command line when it is imported and binds every interface; both are taken from
it here, and nothing else is changed: its v1 and v2 routes, health and metrics are its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
from typing import TYPE_CHECKING, Any

from hierrouter.progress import say
from hierrouter.serving.bounded import BoundedHeads
from hierrouter.serving.gate import Gate
from hierrouter.serving.kserve_import import no_arguments
from hierrouter.serving.problems import RequestError, problem_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from fastapi import APIRouter, FastAPI, Request

    from hierrouter.serving.gate import Rules
    from hierrouter.serving.service import Service


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
    """
    with no_arguments():
        from kserve import ModelServer
        from kserve.model_server import app
        from kserve.protocol.dataplane import DataPlane

        from hierrouter.serving.kserve_model import RouterModel

    class TruthfulDataPlane(DataPlane):  # type: ignore[misc]
        """Ready when a request would find a model that answers; KServe's is ready always."""

        async def ready(self) -> bool:
            return service.ready

    class RouterServer(ModelServer):  # type: ignore[misc]
        """Loads the models in the loop that serves them, then listens where it was told."""

        def register_signal_handler(self) -> None:
            """Ends at once while models load; KServe's own would only forget its models.

            Once it listens, uvicorn sees to signals, and hands them on here when all is done.
            """

            def end(number: int, _: Any) -> None:
                if not self._rest_server._server.should_exit:
                    raise KeyboardInterrupt

            for number in (signal.SIGINT, signal.SIGTERM):
                signal.signal(number, end)

        async def _serve(self) -> None:
            try:
                await service.player.fleet.start()
                uvicorn = self._rest_server._server
                self._rest_server.config.host = host
                self._rest_server.config.http = BoundedHeads
                # It only times requests, for a log that is off.
                self._rest_server._add_middlewares = lambda _: None
                telling = asyncio.ensure_future(_tell_when_up(uvicorn, host, said))
                ending = asyncio.ensure_future(_note_the_end(uvicorn, service))
                try:
                    await super()._serve()
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
    server.dataplane = TruthfulDataPlane(model_registry=server.registered_models)
    prepare_app(app, routers(), rules)
    with contextlib.suppress(ImportError):
        import uvloop

        uvloop.install()
    asyncio.set_event_loop(asyncio.new_event_loop())
    server.start([RouterModel(service)])


def prepare_app(app: FastAPI, routers: list[APIRouter], rules: Rules) -> None:
    """Adds the router's routes, its gate and its way of telling failures to KServe's application.

    Args:
        app: of `kserve.model_server`.
        routers: the routes beside KServe's.
        rules: of the gate.
    """
    from fastapi.responses import JSONResponse
    from starlette.exceptions import HTTPException

    from hierrouter.errors import HierRouterError
    from hierrouter.serving.chat import ChatRequest

    async def tell(_: Request, error: Exception) -> JSONResponse:
        problem = problem_of(error)
        return JSONResponse(problem.body(), problem.status, problem.headers)

    async def tell_http(_: Request, error: HTTPException) -> JSONResponse:
        body = problem_of(RequestError(str(error.detail), status=error.status_code)).body()
        return JSONResponse(body, error.status_code, error.headers)

    for router in routers:
        app.include_router(router)
    app.add_middleware(Gate, rules=rules)
    app.add_exception_handler(HierRouterError, tell)
    app.add_exception_handler(HTTPException, tell_http)  # type: ignore[arg-type]
    app.title, app.version = "HierRouter", _version()
    described = app.openapi

    def openapi() -> dict[str, Any]:
        schema = described()
        parts = ChatRequest.model_json_schema(ref_template="#/components/schemas/{model}")
        schema.setdefault("components", {}).setdefault("schemas", {}).update(parts.get("$defs", {}))
        return schema

    app.openapi = openapi  # type: ignore[method-assign]


def _version() -> str:
    from hierrouter import __version__

    return __version__


async def _tell_when_up(uvicorn: Any, host: str, said: str) -> None:
    """Says the address once it can be asked."""
    while not uvicorn.started:
        await asyncio.sleep(0.02)
    port = uvicorn.servers[0].sockets[0].getsockname()[1]
    shown = f"[{host}]" if ":" in host else host
    say(f"serving at http://{shown}:{port}{said}")


async def _note_the_end(uvicorn: Any, service: Service) -> None:
    """Stops being ready as soon as the server is told to end, while it still answers."""
    while not uvicorn.should_exit:
        await asyncio.sleep(0.1)
    service.ending = True
    say("ending; requests under way are finished first")
