"""The tensors of KServe's v2 protocol: which there are, and what is in those of a request."""

from __future__ import annotations

import math
from itertools import chain
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from hierrouter.serving.kserve_import import no_arguments
from hierrouter.serving.problems import RequestError
from hierrouter.serving.refusals import SHOWN, unreadable

with no_arguments():
    from kserve import InferInput, InferRequest
    from kserve.protocol.infer_type import RequestedOutput
    from kserve.protocol.rest.v2_datamodels import InferenceRequest, RequestInput

if TYPE_CHECKING:
    from collections.abc import Sequence

MOST_QUERIES = 64
"""Queries of one request."""
QUERY = "query"
NUMBERS = ("alpha", "max_cost", "max_hops", "deadline_ms", "max_tokens")
"""What a query may set by a number."""
REPLIES = "replies"
"""A parameter, true or false: whether `detail` has the texts of earlier hops."""
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
NUMERIC = frozenset(
    [f"{sign}INT{bits}" for sign in ("", "U") for bits in (8, 16, 32, 64)]
    + ["FP16", "FP32", "FP64"]
)


# KServe leaves out what it does not know, so that nobody would see a limit in the wrong place.
InferenceRequest.model_config["extra"] = "allow"
InferenceRequest.model_rebuild(force=True)


class _Tensor(RequestInput):  # type: ignore[misc]
    """A tensor whose data may follow the JSON."""

    data: list[Any] | None = None


class _Request(InferenceRequest):  # type: ignore[misc]
    """What stands before the data of a binary request."""

    inputs: list[_Tensor]


def input_types() -> list[dict[str, Any]]:
    """The tensors of a request, as KServe describes them."""
    numbers = [
        {"name": name, "datatype": "INT64" if name in WHOLE else "FP64", "shape": [-1]}
        for name in NUMBERS
    ]
    return [{"name": QUERY, "datatype": "BYTES", "shape": [-1]}, *numbers]


def output_types() -> list[dict[str, Any]]:
    """The tensors of an answer, as KServe describes them."""
    return [
        {"name": name, "datatype": datatype, "shape": [-1]} for name, datatype in OUTPUTS.items()
    ]


def read_tensors(request: InferRequest) -> tuple[list[str], dict[str, list[int | float]]]:
    """The queries of a request, and the numbers that it sets for each of them.

    Raises:
        RequestError: a tensor has a name, a datatype, a shape or data that there is no use for.
    """
    tensors: dict[str, list[Any]] = {}
    for tensor in request.inputs:
        _check(tensor.name, tensor.datatype, tensor.shape)
        if tensor.name in tensors:
            raise RequestError(f"there are two tensors {tensor.name!r}; give one", tensor.name)
        tensors[tensor.name] = _elements(tensor)
    if QUERY not in tensors:
        raise RequestError(f"there is no tensor {QUERY!r}; it holds the questions, as BYTES", QUERY)
    texts = [_text(value) for value in tensors.pop(QUERY)]
    columns = {}
    for name, values in tensors.items():
        if len(values) not in (1, len(texts)):
            raise RequestError(
                f"tensor {name!r} has {_elements_of(len(values))}; give 1 or {len(texts)}, one a "
                "query",
                name,
            )
        values = values * len(texts) if len(values) == 1 else values
        columns[name] = [number(name, value) for value in values]
    return texts, columns


def wanted_outputs(request: InferRequest) -> list[str]:
    """The tensors that a request wants of the answer; all where it names none.

    Raises:
        RequestError: it names one that there is not.
    """
    names = [output.name for output in request.request_outputs or ()]
    for name in names:
        if name not in OUTPUTS:
            raise RequestError(
                f"there is no output {name[:SHOWN]!r}; there are {', '.join(OUTPUTS)}", name
            )
    return names or list(OUTPUTS)


def number(name: str, value: Any) -> int | float:
    """A number that a request sets.

    Raises:
        RequestError: it is none.
    """
    try:
        if isinstance(value, bool | str | bytes):
            raise TypeError
        found = float(value)
    except (TypeError, ValueError, OverflowError) as error:
        raise RequestError(f"{name!r} holds what is no usable number; give one", name) from error
    return int(found) if name in WHOLE and found.is_integer() else found


def require_no_settings_beside(request: InferenceRequest) -> None:
    """Refuses settings beside `inputs`: KServe heeds none there, and clients write other things.

    Raises:
        RequestError: there is one.
    """
    for name in request.model_extra or ():
        if name in (*NUMBERS, REPLIES):
            line = "would do nothing beside inputs; settings are parameters, or tensors of inputs"
            raise RequestError(f"{name!r} {line}", name)


def read_binary(body: bytes, length: str, model: str) -> InferRequest:
    """A request whose tensors follow its JSON as bytes.

    Args:
        body: all of it.
        length: bytes of the JSON, as the header says it.
        model: the name under which the router was asked.

    Raises:
        RequestError: it is none, or a tensor is not as the JSON says.
    """
    if not length.isdecimal() or not 0 < int(length) <= len(body):
        raise RequestError(
            f"inference-header-content-length is {length[:SHOWN]}, of a body of {len(body)} bytes; "
            "give the bytes of the JSON before the tensors"
        )
    end = int(length)
    try:
        read = _Request.model_validate_json(body[:end])
    except ValidationError as error:
        raise RequestError(*unreadable(error.errors(), None)) from error
    require_no_settings_beside(read)
    inputs = []
    for tensor in read.inputs:
        _check(tensor.name, tensor.datatype, tensor.shape)
        made = InferInput(tensor.name, tensor.shape, tensor.datatype, data=tensor.data)
        if tensor.data is None:
            size = (tensor.parameters or {}).get("binary_data_size")
            if type(size) is not int or not 0 <= size <= len(body) - end:
                raise RequestError(
                    f"tensor {tensor.name!r} has neither data nor a binary_data_size that the body "
                    f"holds ({len(body) - end} bytes are left)",
                    tensor.name,
                )
            made.data = _decoded(tensor, body[end : end + size])
            end += size
        inputs.append(made)
    outputs = [RequestedOutput(each.name, each.parameters) for each in read.outputs or ()]
    return InferRequest(model, inputs, read.id, parameters=read.parameters, request_outputs=outputs)


def _decoded(tensor: _Tensor, raw: bytes) -> list[Any]:
    made = InferInput(tensor.name, tensor.shape, tensor.datatype)
    made._raw_data = raw
    try:
        values: list[Any] = made.as_numpy().reshape(-1).tolist()
    except Exception as error:  # whatever reading bytes of another form ends in
        raise RequestError(
            f"tensor {tensor.name!r}: its {len(raw)} bytes are not {tensor.datatype} of shape "
            f"{tensor.shape}",
            tensor.name,
        ) from error
    return values


def _check(name: str, datatype: str, shape: Sequence[int]) -> None:
    """Makes sure that a tensor is one that there is, and such as it has to be."""
    if name not in (QUERY, *NUMBERS):
        known = ", ".join((QUERY, *NUMBERS))
        raise RequestError(f"there is no tensor {name[:SHOWN]!r}; there are {known}", name)
    if name == QUERY and datatype.upper() != "BYTES":
        raise RequestError(
            f"tensor {name!r} has the datatype {datatype[:SHOWN]!r}; give BYTES", name
        )
    if name != QUERY and datatype.upper() not in NUMERIC:
        raise RequestError(
            f"tensor {name!r} has the datatype {datatype[:SHOWN]!r}; give "
            f"{'INT64' if name in WHOLE else 'FP64'}",
            name,
        )
    if not (shape and 1 <= shape[0] <= MOST_QUERIES and list(shape[1:]) in ([], [1])):
        raise RequestError(
            f"tensor {name!r} has the shape {str(list(shape))[:SHOWN]}; give [N] or [N, 1], the "
            f"number of its elements, 1 to {MOST_QUERIES}",
            name,
        )


def _elements_of(count: int) -> str:
    return "1 element" if count == 1 else f"{count} elements"


def _elements(tensor: InferInput) -> list[Any]:
    """A tensor's elements, flat or nested as its shape says."""
    values: list[Any] = list(tensor.data or ())
    for _ in tensor.shape[1:]:
        nested = (value if isinstance(value, list) else [value] for value in values)
        values = list(chain.from_iterable(nested))
    wanted = math.prod(tensor.shape)
    if len(values) != wanted:
        raise RequestError(
            f"tensor {tensor.name!r} has {_elements_of(len(values))}, and its shape "
            f"{list(tensor.shape)} says {wanted}",
            tensor.name,
        )
    return values


def _text(value: Any) -> str:
    try:
        text = value.decode("utf-8") if isinstance(value, bytes) else value
    except UnicodeDecodeError:
        raise RequestError(f"tensor {QUERY!r} holds bytes that are no UTF-8", QUERY) from None
    if not isinstance(text, str):
        raise RequestError(f"tensor {QUERY!r} holds something else than text", QUERY)
    if not text.isascii() and text != text.encode("utf-8", "replace").decode("utf-8"):
        raise RequestError(f"tensor {QUERY!r} holds half of a character", QUERY)
    return text
