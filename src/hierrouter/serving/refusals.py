"""How KServe's application tells failures: in our words, and without a word of the request logged.

KServe's own handlers write the traceback of every failure, and with it what the request held.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from hierrouter.errors import HierRouterError
from hierrouter.serving.kserve_import import no_arguments
from hierrouter.serving.problems import SERVER, Problem, RequestError, problem_of
from hierrouter.serving.visits import current
from hierrouter.serving.wording import wrong

with no_arguments():
    from kserve import errors as kserve

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from fastapi import FastAPI, Request

log = logging.getLogger("hierrouter.serving")
STATUSES: Mapping[type[Exception], int] = {
    kserve.InvalidInput: 400,
    kserve.ModelNotFound: 404,
    kserve.UnsupportedProtocol: 501,
    NotImplementedError: 501,
    kserve.ModelNotReady: 503,
    kserve.ServerNotLive: 503,
    kserve.ServerNotReady: 503,
}
"""Of what KServe's routes raise."""
SHOWN = 80
"""Characters of a name that is told back."""


def tell_failures(app: FastAPI) -> None:
    """Lets every failure that an application has a handler for be told by ours.

    Args:
        app: with KServe's handlers.
    """
    ours = (HierRouterError, HTTPException, RequestValidationError, Exception)
    for kind in dict.fromkeys([*app.exception_handlers, *ours]):
        app.add_exception_handler(kind, _tell)


async def _tell(_: Request, error: Exception) -> JSONResponse:
    visit = current()
    visit.problem = problem = told_of(error)
    if problem.status == 500 and visit.failure is not error:
        visit.failure = error
        log.error("request %s failed", visit.request_id, exc_info=error)
    return JSONResponse(problem.body(visit.api), problem.status, problem.headers)


def told_of(error: Exception) -> Problem:
    """What a client is told of a failure of the router, of FastAPI or of KServe."""
    if isinstance(error, HTTPException):
        told = problem_of(RequestError(str(error.detail), status=error.status_code))
        return Problem(told.status, told.message, headers=dict(error.headers or {}))
    if isinstance(error, RequestValidationError):
        return problem_of(RequestError(*unreadable(error.errors(), error.body)))
    for kind, status in STATUSES.items():
        if isinstance(error, kind):
            if status < 500:
                return Problem(status, str(error))
            return Problem(status, str(error) or "this is not offered", SERVER)
    return problem_of(error)


def unreadable(errors: Sequence[Any], body: Any) -> tuple[str, str | None]:
    """What is wrong with the body of a v2 request, and where.

    Args:
        errors: as pydantic tells them.
        body: what was read, as far as it was.
    """
    first = errors[0]
    if first["type"] == "json_invalid":
        return f"the body is no JSON ({first.get('ctx', {}).get('error', first['msg'])})", None
    # KServe takes an object or bytes, and pydantic tells how it is neither.
    taken = [each for each in errors if "bytes" not in each["loc"]] or errors
    where, told = wrong(taken, "body", "InferenceRequest", "bytes")
    place = ".".join(map(str, where))
    line = f"{place or 'the body'} {told}"
    if where[:1] != ("inputs",) or len(where) < 2:
        wanted = '{"inputs": [{"name", "shape", "datatype", "data"}, …]}'
        return f"{line}; the body has to be {wanted}", place or None
    try:
        name = body["inputs"][where[1]]["name"]
    except (KeyError, IndexError, TypeError):
        name = None
    tensor = f"tensor {name[:SHOWN]!r}: " if isinstance(name, str) else ""
    return f"{tensor}{line}; a tensor has name, shape, datatype and data", place
