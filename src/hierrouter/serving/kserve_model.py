"""The router as KServe's v1 and v2 protocols ask it.

v1: `{"instances": ["question", {"query": "…", "alpha": 0.2}]}`.
v2: a BYTES tensor `query`, and by request parameters, or a tensor each of one number or one for
each query, `alpha`, `max_cost`, `max_hops`, `deadline_ms`, `max_tokens`; by a parameter, `replies`.
"""

from __future__ import annotations

import asyncio
import json
import time
import uuid
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

from hierrouter.serving.calls import Question, check_length
from hierrouter.serving.events import Route
from hierrouter.serving.knobs import KnobError, Knobs, parse_knobs, terms_of
from hierrouter.serving.kserve_import import no_arguments
from hierrouter.serving.problems import RequestError
from hierrouter.serving.refusals import SHOWN
from hierrouter.serving.tensors import (
    MOST_QUERIES,
    NUMBERS,
    OUTPUTS,
    REPLIES,
    input_types,
    number,
    output_types,
    read_binary,
    read_tensors,
    require_no_settings_beside,
    wanted_outputs,
)
from hierrouter.serving.told import route_object

with no_arguments():
    from kserve import InferOutput, InferRequest, InferResponse, Model
    from kserve.constants.constants import INFERENCE_CONTENT_LENGTH_HEADER, PredictorProtocol
    from kserve.errors import InvalidInput
    from kserve.protocol.dataplane import DataPlane
    from kserve.protocol.rest.v2_datamodels import InferenceRequest

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hierrouter.serving.knobs import Terms
    from hierrouter.serving.service import Service

Asked = list[tuple[Question, Knobs]]
V1_SETTINGS = ("query", *Knobs.model_fields, "max_tokens")
"""What an instance may hold."""
V2_SETTINGS = (*NUMBERS, REPLIES)
"""What a request's parameters may set."""
LOADING = "model_repository_extension"
"""What KServe's server tells of itself, and the gate refuses."""


class RouterPlane(DataPlane):  # type: ignore[misc]
    """KServe's way from routes to models, truthful about the router, strict with requests."""

    def __init__(self, models: Any, service: Service) -> None:
        """Takes KServe's models, and the service behind the one there is."""
        super().__init__(model_registry=models)
        self._service = service

    async def ready(self) -> bool:
        """Whether a request would find a model that answers; KServe's is ready always."""
        return self._service.ready

    def metadata(self) -> dict[str, Any]:
        """What the server is, without extensions that are refused."""
        told: dict[str, Any] = super().metadata()
        return {**told, "extensions": [each for each in told["extensions"] if each != LOADING]}

    def decode(
        self,
        body: Any,
        headers: dict[str, str],
        protocol_version: str = PredictorProtocol.REST_V1.value,
        model_name: str | None = None,
    ) -> tuple[Any, dict[str, Any]]:
        """Reads a request's body.

        Raises:
            RequestError: it is none.
        """
        length = headers.get(INFERENCE_CONTENT_LENGTH_HEADER)
        if protocol_version == PredictorProtocol.REST_V2.value and isinstance(body, bytes):
            if length is None:
                raise RequestError(
                    "the body is no JSON; send content-type: application/json, or with tensors "
                    f"after the JSON the header {INFERENCE_CONTENT_LENGTH_HEADER}"
                )
            return read_binary(body, length, model_name or ""), {}
        if isinstance(body, InferenceRequest):
            require_no_settings_beside(body)
        # KServe knows content types without parameters only.
        kind = headers.get("content-type", "").partition(";")[0].strip().lower()
        try:
            decoded: tuple[Any, dict[str, Any]] = super().decode(
                body, {**headers, "content-type": kind}, protocol_version, model_name
            )
        except InvalidInput:
            raise
        except Exception as error:  # cloud events of other forms
            raise RequestError("the body cannot be read; send the request as JSON") from error
        return decoded


class RouterModel(Model):  # type: ignore[misc]
    """KServe's model over a service."""

    def __init__(self, service: Service) -> None:
        """Takes the service; its models are loaded when the server starts."""
        super().__init__(service.identity.name)
        self._service = service
        self.ready = True

    async def healthy(self) -> bool:
        """Whether a request now would find a model that answers."""
        return self._service.ready

    def load(self) -> bool:
        """Nothing is loaded on demand."""
        return self.ready

    def validate(self, payload: Any) -> Any:
        """All of it is looked at where it is read."""
        return payload

    async def predict(
        self, payload: Any, headers: dict[str, str] | None = None, *_: Any
    ) -> dict[str, Any] | InferResponse:
        """Answers every query of a request, as many at once as there is room for.

        Raises:
            RequestError: it holds no queries, or too many.
            KnobError: a setting cannot be followed.
            TooLongError: a query is too long for every model.
            HierRouterError: as `Service.query`.
        """
        if isinstance(payload, InferRequest):
            asked, api, names = _v2_questions(payload), "v2", wanted_outputs(payload)
        else:
            asked, api, names = _v1_questions(payload), "v1", []
        if not 0 < len(asked) <= MOST_QUERIES:
            raise RequestError(f"a request holds 1 to {MOST_QUERIES} queries, not {len(asked)}")
        service = self._service
        known = [
            (question, terms_of(knobs, service.presets[self.name], service.info))
            for question, knobs in asked
        ]
        # One query's failure is the request's: no other is paid for that need not be.
        for question, _knobs in asked:
            check_length(question, service.player.pool)
        request_id = (headers or {}).get("x-request-id") or uuid.uuid4().hex
        with service.admitted(api, len(known)) as places:
            room, began, least = asyncio.Semaphore(places.held), time.perf_counter(), places.held

            async def answer(place: int, question: Question, terms: Terms) -> dict[str, Any]:
                async with room:
                    waited_s = time.perf_counter() - began if place >= least else 0.0
                    name = f"{request_id}-{place}"
                    answered = await self._answer(question, terms, api, name, waited_s)
                    places.done()
                    return answered

            tasks = [
                asyncio.ensure_future(answer(place, question, terms))
                for place, (question, terms) in enumerate(known)
            ]
            try:
                answers = await asyncio.gather(*tasks)
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.wait(tasks)
        if api == "v1":
            return {"predictions": [_v1_prediction(answer) for answer in answers]}
        return _v2_response(payload, answers, self.name, names)

    async def explain(self, payload: Any, headers: dict[str, str] | None = None) -> Any:
        """There are no explanations.

        Raises:
            NotImplementedError: always.
        """
        raise NotImplementedError(
            "explanations are not offered; `detail` of an answer tells how it came about"
        )

    def get_input_types(self) -> list[dict[str, Any]]:
        """The tensors of a v2 request."""
        return input_types()

    def get_output_types(self) -> list[dict[str, Any]]:
        """The tensors of a v2 answer."""
        return output_types()

    async def _answer(
        self, question: Question, terms: Terms, api: str, request_id: str, waited_s: float
    ) -> dict[str, Any]:
        route = Route(terms.alpha)
        service = self._service
        playing = service.query(
            question, terms, route, api=api, request_id=request_id, waited_s=waited_s
        )
        async with aclosing(playing) as events:
            async for _ in events:
                pass
        detail = route_object(route, terms, service.identity.told(), service.info.cost_unit_usd, ())
        return {
            "answer": route.answer,
            "route": route.path,
            "cost_usd": route.cost_usd,
            "relative_cost": detail["relative_cost"],
            "tokens_in": route.tokens_in,
            "tokens_out": route.tokens_out,
            "detail": detail,
        }


def _v1_questions(payload: Any) -> Asked:
    instances = payload.get("instances") if isinstance(payload, dict) else None
    if not isinstance(instances, list):
        raise RequestError('the body has to be {"instances": [QUESTION, …]}', "instances")
    for name in payload.keys() - {"instances"}:
        raise RequestError(
            f"{name[:SHOWN]!r} is not known beside instances; settings stand in an instance: "
            '{"query": QUESTION, "alpha": 0.2}',
            name,
        )
    return [_v1_question(instance, place) for place, instance in enumerate(instances)]


def _v1_question(instance: Any, place: int) -> tuple[Question, Knobs]:
    where = f"instances.{place}"
    if isinstance(instance, str):
        instance = {"query": instance}
    if not isinstance(instance, dict):
        raise RequestError(f"{where} is neither a question nor an object with `query`", where)
    settings = dict(instance)
    return _question(settings.pop("query", None), settings, where, V1_SETTINGS)


def _question(
    text: Any, settings: dict[str, Any], where: str, known: Sequence[str]
) -> tuple[Question, Knobs]:
    for name in settings:
        if name not in known:
            line = f"{where}: {name[:SHOWN]!r} is no setting; there are {', '.join(known)}"
            raise RequestError(line, where)
    if not isinstance(text, str) or not text.strip():
        raise RequestError(f"{where}: the query is missing or empty", where)
    most = settings.pop("max_tokens", None)
    if most is not None and (not isinstance(most, int) or isinstance(most, bool) or most < 1):
        raise RequestError(f"{where}: max_tokens is {most!r}; give a whole number from 1", where)
    try:
        knobs = parse_knobs(settings)
    except KnobError as error:
        # Here no object is called so.
        told = str(error).removeprefix("hierrouter.")
        raise RequestError(f"{where}: {told}", where) from error
    return Question(text, max_tokens=most), knobs


def _v1_prediction(answer: dict[str, Any]) -> dict[str, Any]:
    told = {name: answer[name] for name in ("answer", "route", "cost_usd", "relative_cost")}
    return {**told, "detail": answer["detail"]}


def _v2_questions(request: InferRequest) -> Asked:
    texts, columns = read_tensors(request)
    shared = {
        name: number(name, value) if name in NUMBERS else value
        for name, value in (request.parameters or {}).items()
        if name not in ("binary_data_output",)
    }
    return [
        _question(
            text,
            {**shared, **{name: each[place] for name, each in columns.items()}},
            "query",
            V2_SETTINGS,
        )
        for place, text in enumerate(texts)
    ]


def _v2_response(
    request: InferRequest, answers: list[dict[str, Any]], name: str, outputs: list[str]
) -> InferResponse:
    made = []
    for output in outputs:
        values = [answer[output] for answer in answers]
        if output == "detail":
            values = [json.dumps(value) for value in values]
        made.append(InferOutput(output, [len(values)], OUTPUTS[output], data=values))
    return InferResponse(request.id or str(uuid.uuid4()), name, made)
