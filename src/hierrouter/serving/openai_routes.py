"""`/openai/v1`: chat completions, plain and streamed, and the list of names to ask under."""

from __future__ import annotations

import asyncio
import time
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

import orjson
from fastapi import APIRouter, Request, Response
from fastapi.responses import StreamingResponse

from hierrouter.serving.chat import Asked, ChatRequest, parse_chat
from hierrouter.serving.events import Accepted, Decision, Hop, Route, Text
from hierrouter.serving.problems import RequestError, ending, problem_of
from hierrouter.serving.told import (
    accepted_event,
    decision_event,
    hop_event,
    route_headers,
    route_object,
    usage_object,
)
from hierrouter.serving.visits import current

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator

    from starlette.types import Receive, Scope, Send

    from hierrouter.serving.player import Event
    from hierrouter.serving.service import Service

PREFIX = "/openai/v1"
API = "openai"
DONE = b"data: [DONE]\n\n"
DESCRIBED = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {
                "schema": ChatRequest.model_json_schema(ref_template="#/components/schemas/{model}")
            }
        },
    }
}


def _answers(text: str, name: str, stream: str = "") -> dict[int | str, dict[str, Any]]:
    """What the description tells of a route's answers."""
    content: dict[str, Any] = {
        "application/json": {"schema": {"$ref": f"#/components/schemas/{name}"}}
    }
    if stream:
        content["text/event-stream"] = {"schema": {"type": "string", "description": stream}}
    return {200: {"description": text, "content": content}}


STREAM = (
    "With `stream`: chunks of the answer as `data:` lines, then `data: [DONE]`. The last chunk has "
    "`hierrouter`. What fails after the first piece is an event with `error`, among them "
    "`answer_broken_off`, `deadline_exceeded` and `shutting_down`."
)


def openai_router(service: Service) -> APIRouter:
    """The routes of OpenAI's interface for one service."""
    router = APIRouter(prefix=PREFIX, tags=["OpenAI"])

    @router.get("/models", response_model=None, responses=_answers("The names.", "ModelList"))
    async def models() -> dict[str, Any]:
        """The names under which the router is asked."""
        return {"object": "list", "data": [_model(service, name) for name in service.presets]}

    @router.get("/models/{name}", response_model=None, responses=_answers("The name.", "ModelTold"))
    async def model(name: str) -> dict[str, Any]:
        """One of these names."""
        if name not in service.presets:
            known = ", ".join(service.presets)
            text = f"there is no model {name!r}; there are {known}"
            raise RequestError(text, "model", 404, "model_not_found")
        return _model(service, name)

    @router.post(
        "/chat/completions",
        response_model=None,
        openapi_extra=DESCRIBED,
        responses=_answers("The answer.", "ChatCompletion", STREAM),
    )
    async def chat_completions(request: Request) -> Response:
        """Answers a conversation: picks a model at each hop, and returns the last one's reply."""
        asked = parse_chat(await request.body(), service.presets, service.info)
        return await Completion(service, asked, request.state.request_id).response()

    return router


def _model(service: Service, name: str) -> dict[str, Any]:
    info = service.info
    return {
        "id": name,
        "object": "model",
        "created": service.started,
        "owned_by": "hierrouter",
        "hierrouter": {
            "router": service.identity.told(),
            "alpha": service.presets[name],
            "alpha_range": list(info.alpha_range),
            "models": list(info.models),
            "hops": info.hops,
            "moves": info.moves,
            "cost_unit_usd": info.cost_unit_usd,
        },
    }


class EventStream(StreamingResponse):
    """A stream; the gate ends it when its client goes away, so nothing here need look out."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Sends it."""
        await self.stream_response(send)


class Completion:
    """One request under way."""

    def __init__(self, service: Service, asked: Asked, request_id: str) -> None:
        """Starts nothing yet."""
        self._service, self._asked = service, asked
        self._route = Route(asked.terms.alpha)
        self._router = service.identity.told()
        self._id = f"chatcmpl-{request_id}"
        self._created = int(time.time())
        self._path = ""
        self._playing = service.answer(
            asked.question,
            asked.terms,
            self._route,
            api=API,
            request_id=request_id,
            stop=asked.stop,
            pieces=asked.stream,
        )

    async def response(self) -> Response:
        """The answer, whole or as a stream that has begun.

        A stream's response begins with the first piece of the answer, so that whatever fails
        before has a status of its own; with progress events it begins with the first decision.
        """
        if not self._asked.stream:
            async with aclosing(self._playing) as events:
                async for _ in events:
                    pass
            return Response(
                orjson.dumps(self._whole()),
                media_type="application/json",
                headers=self._headers(whole=True),
            )
        begun: list[Event] = []
        try:
            async for event in self._playing:
                self._follow(event)
                begun.append(event)
                if self._asked.terms.progress or isinstance(event, Text):
                    break
        except BaseException:
            await self._playing.aclose()
            raise
        return EventStream(
            self._events(begun),
            media_type="text/event-stream",
            headers={
                **self._headers(whole=False),
                "cache-control": "no-cache",
                "x-accel-buffering": "no",
            },
        )

    def _follow(self, event: Event) -> None:
        if isinstance(event, Decision):
            before = [hop.decision.model for hop in self._route.hops]
            self._path = ":".join([*before, event.model])
        elif isinstance(event, Accepted):
            self._path = self._route.path

    def _headers(self, whole: bool) -> dict[str, str]:
        # The first decision of several is no route yet.
        begun = "" if self._asked.terms.progress else self._path
        path = self._route.path if whole else begun
        return route_headers(self._route, self._router, self._asked.unheeded, path, whole)

    def _head(self, kind: str) -> dict[str, Any]:
        return {
            "id": self._id,
            "object": kind,
            "created": self._created,
            "model": self._asked.model,
            "system_fingerprint": f"hierrouter-{self._router['version']}",
        }

    def _told(self) -> dict[str, Any]:
        unit = self._service.info.cost_unit_usd
        return route_object(
            self._route, self._asked.terms, self._router, unit, self._asked.unheeded
        )

    def _whole(self) -> dict[str, Any]:
        return {
            **self._head("chat.completion"),
            "choices": [
                {
                    "index": 0,
                    "message": {
                        "role": "assistant",
                        "content": self._route.answer,
                        "refusal": None,
                    },
                    "logprobs": None,
                    "finish_reason": self._route.finish_reason,
                }
            ],
            "usage": usage_object(self._route),
            "hierrouter": self._told(),
        }

    async def _events(self, begun: list[Event]) -> AsyncIterator[bytes]:
        """The stream: the answer's pieces, between them progress if wanted, at last the route."""
        head = self._head("chat.completion.chunk")
        # All pieces look alike but for their text; it is put between two constant ends.
        before, _, after = orjson.dumps(
            {**head, "choices": [_choice({"content": "\x00"}, None)]}
        ).partition(b'"\\u0000"')
        # What is known at the same time is sent at the same time.
        held = _data({**head, "choices": [_choice({"role": "assistant", "content": ""}, None)]})
        try:
            async with aclosing(self._rest(begun)) as events:
                async for event in events:
                    if isinstance(event, Text):
                        text = orjson.dumps(event.text)
                        yield b"".join((held, b"data: ", before, text, after, b"\n\n"))
                        held = b""
                    elif self._asked.terms.progress:
                        told = _progress(event)
                        yield held + _data({**head, "choices": [], "hierrouter": told})
                        held = b""
        except asyncio.CancelledError:
            if not current().cut:
                raise
            # The server ends, and this is all it has time for.
            yield held + _data(ending().body()) + DONE
            return
        except Exception as error:  # the status is sent already: it is an event now
            yield held + _data(problem_of(error).body()) + DONE
            return
        last = {**head, "choices": [_choice({}, self._route.finish_reason)]}
        if self._asked.usage:
            held += _data(last)
            last = {**head, "choices": [], "usage": usage_object(self._route)}
        yield held + _data({**last, "hierrouter": self._told()}) + DONE

    async def _rest(self, begun: list[Event]) -> AsyncGenerator[Event, None]:
        async with aclosing(self._playing) as events:
            for event in begun:
                yield event
            async for event in events:
                self._follow(event)
                yield event


def _progress(event: Decision | Hop | Accepted) -> dict[str, Any]:
    if isinstance(event, Decision):
        return decision_event(event)
    return hop_event(event) if isinstance(event, Hop) else accepted_event(event)


def _choice(delta: dict[str, Any], finish_reason: str | None) -> dict[str, Any]:
    return {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}


def _data(event: dict[str, Any]) -> bytes:
    return b"data: " + orjson.dumps(event) + b"\n\n"
