"""The router as KServe's v1 and v2 protocols ask it.

v1: `{"instances": ["question", {"query": "…", "alpha": 0.2}]}`.
v2: a BYTES tensor `query`, and by request parameters, or a tensor each of one number or one for
each query, `alpha`, `max_cost`, `max_hops`, `deadline_ms`, `max_tokens`.
"""

from __future__ import annotations

import asyncio
import json
import uuid
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

import numpy as np
from kserve import InferOutput, InferRequest, InferResponse, Model

from hierrouter.serving.calls import Question
from hierrouter.serving.events import Route
from hierrouter.serving.knobs import KnobError, Knobs, parse_knobs, terms_of
from hierrouter.serving.problems import RequestError
from hierrouter.serving.told import route_object

if TYPE_CHECKING:
    from hierrouter.serving.knobs import Terms
    from hierrouter.serving.service import Service

MOST_QUERIES = 64
"""Queries of one request."""
NUMBERS = ("alpha", "max_cost", "max_hops", "deadline_ms", "max_tokens")
"""What a query may set by a number."""
WHOLE = ("max_hops", "deadline_ms", "max_tokens")
"""Which of these are whole numbers."""
OUTPUTS = {
    "answer": "BYTES",
    "route": "BYTES",
    "cost_usd": "FP64",
    "relative_cost": "FP64",
    "tokens_in": "INT64",
    "tokens_out": "INT64",
    "detail": "BYTES",
}
"""The tensors of an answer, one element a query; `detail` is the `hierrouter` object as JSON."""


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

    async def predict(
        self, payload: Any, headers: dict[str, str] | None = None, *_: Any
    ) -> dict[str, Any] | InferResponse:
        """Answers every query of a request, side by side.

        Raises:
            RequestError: it holds no queries, or too many.
            KnobError: a setting cannot be followed.
            HierRouterError: as `Service.answer`.
        """
        if isinstance(payload, InferRequest):
            asked, api = _v2_questions(payload), "v2"
        else:
            asked, api = _v1_questions(payload), "v1"
        if not 0 < len(asked) <= MOST_QUERIES:
            raise RequestError(f"a request holds 1 to {MOST_QUERIES} queries, not {len(asked)}")
        service = self._service
        known = [
            (question, terms_of(knobs, service.presets[self.name], service.info))
            for question, knobs in asked
        ]
        request_id = (headers or {}).get("x-request-id") or uuid.uuid4().hex
        tasks = [
            asyncio.ensure_future(self._answer(question, terms, api, f"{request_id}-{number}"))
            for number, (question, terms) in enumerate(known)
        ]
        try:
            answers = await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
        if api == "v1":
            return {"predictions": [_v1_prediction(answer) for answer in answers]}
        return _v2_response(payload, answers, self.name)

    def get_input_types(self) -> list[dict[str, Any]]:
        """The tensors of a v2 request."""
        numbers = [
            {"name": name, "datatype": "INT64" if name in WHOLE else "FP64", "shape": [-1]}
            for name in NUMBERS
        ]
        return [{"name": "query", "datatype": "BYTES", "shape": [-1]}, *numbers]

    def get_output_types(self) -> list[dict[str, Any]]:
        """The tensors of a v2 answer."""
        return [
            {"name": name, "datatype": datatype, "shape": [-1]}
            for name, datatype in OUTPUTS.items()
        ]

    async def _answer(
        self, question: Question, terms: Terms, api: str, request_id: str
    ) -> dict[str, Any]:
        route = Route(terms.alpha)
        service = self._service
        playing = service.answer(question, terms, route, api=api, request_id=request_id)
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


def _v1_questions(payload: Any) -> list[tuple[Question, Knobs]]:
    instances = payload.get("instances") if isinstance(payload, dict) else None
    if not isinstance(instances, list):
        raise RequestError('the body has to be {"instances": [QUESTION, …]}', "instances")
    return [_v1_question(instance, number) for number, instance in enumerate(instances)]


def _v1_question(instance: Any, number: int) -> tuple[Question, Knobs]:
    where = f"instances.{number}"
    if isinstance(instance, str):
        instance = {"query": instance}
    if not isinstance(instance, dict):
        raise RequestError(f"{where} is neither a question nor an object with `query`", where)
    settings = dict(instance)
    return _question(settings.pop("query", None), settings, where)


def _question(text: Any, settings: dict[str, Any], where: str) -> tuple[Question, Knobs]:
    if not isinstance(text, str) or not text.strip():
        raise RequestError(f"{where}: the query is missing or empty", where)
    most = settings.pop("max_tokens", None)
    if most is not None and (not isinstance(most, int) or isinstance(most, bool) or most < 1):
        raise RequestError(f"{where}: max_tokens is {most!r}; give a whole number from 1", where)
    try:
        knobs = parse_knobs(settings)
    except KnobError as error:
        raise RequestError(f"{where}: {error}", where) from error
    return Question(text, max_tokens=most), knobs


def _v1_prediction(answer: dict[str, Any]) -> dict[str, Any]:
    told = {name: answer[name] for name in ("answer", "route", "cost_usd", "relative_cost")}
    return {**told, "detail": answer["detail"]}


def _v2_questions(request: InferRequest) -> list[tuple[Question, Knobs]]:
    tensors = {tensor.name: tensor for tensor in request.inputs}
    if "query" not in tensors:
        raise RequestError("there is no tensor `query`; it holds the questions, as BYTES", "query")
    for name in tensors:
        if name not in ("query", *NUMBERS):
            known = ", ".join(("query", *NUMBERS))
            raise RequestError(f"there is no input {name!r}; there are {known}", name)
    texts = [_text(value) for value in _flat(tensors["query"])]
    columns: dict[str, list[Any]] = {}
    for name in NUMBERS:
        if name not in tensors:
            continue
        values = _flat(tensors[name])
        if len(values) not in (1, len(texts)):
            raise RequestError(
                f"{name} has {len(values)} elements; give 1 or {len(texts)}, one a query", name
            )
        values = values * len(texts) if len(values) == 1 else values
        columns[name] = [_number(name, value) for value in values]
    shared = {
        name: _number(name, value) if name in NUMBERS else value
        for name, value in (request.parameters or {}).items()
        if name not in ("binary_data_output",)
    }
    return [
        _question(
            text, {**shared, **{name: each[number] for name, each in columns.items()}}, "query"
        )
        for number, text in enumerate(texts)
    ]


def _flat(tensor: Any) -> list[Any]:
    """A tensor's elements; KServe's own reading of BYTES fails on flat lists of text."""
    data = tensor.data
    if data is None or (isinstance(data, bytes | bytearray)):
        return list(tensor.as_numpy().reshape(-1).tolist())
    values: list[Any] = list(np.asarray(data, dtype=object).reshape(-1))
    return values


def _text(value: Any) -> str:
    try:
        text = value.decode("utf-8") if isinstance(value, bytes) else value
    except UnicodeDecodeError:
        raise RequestError("query holds bytes that are no UTF-8", "query") from None
    if not isinstance(text, str):
        raise RequestError("query holds something else than text", "query")
    return text


def _number(name: str, value: Any) -> int | float:
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError) as error:
        raise RequestError(f"{name} is no usable number; give one", name) from error
    return int(number) if name in WHOLE and number.is_integer() else number


def _v2_response(request: InferRequest, answers: list[dict[str, Any]], name: str) -> InferResponse:
    outputs = []
    for output, datatype in OUTPUTS.items():
        values = [answer[output] for answer in answers]
        if output == "detail":
            values = [json.dumps(value) for value in values]
        outputs.append(InferOutput(output, [len(values)], datatype, data=values))
    return InferResponse(request.id or str(uuid.uuid4()), name, outputs)
