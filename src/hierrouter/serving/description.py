"""`/openapi.json`: every route that can be asked, what it takes, and what it answers.

KServe's own routes say little of themselves, and that in words for its developers.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from hierrouter.serving.chat import ChatRequest
from hierrouter.serving.gate import OPEN, REFUSED
from hierrouter.serving.knobs import Knobs
from hierrouter.serving.shapes import schemas
from hierrouter.serving.tensors import MOST_QUERIES, NUMBERS, OUTPUTS, QUERY, REPLIES, WHOLE

if TYPE_CHECKING:
    from collections.abc import Callable

    from hierrouter.serving.gate import Rules

CHAT = "/openai/v1/chat/completions"
V1, V2 = "/v1/models/{model_name}:predict", "/v2/models/{model_name}/infer"
ASKING = frozenset({CHAT, V1, V2})
"""Routes that answer questions."""
NEVER = (REFUSED, "/v1/models/{model_name}:explain", "/v2/models/{model_name}/versions")
"""Begins of routes that refuse everybody."""
REASONS = {
    "400": "The request cannot be understood or followed.",
    "401": "No valid key.",
    "403": "Asked by another name than localhost.",
    "404": "There is no such model.",
    "408": "The body was not whole in time.",
    "413": "The body is too long.",
    "415": "The body is sent as something else than JSON.",
    "429": "Too many queries are under way; Retry-After says when to come back.",
    "500": "The server failed; its log says where.",
    "503": "No allowed model answers at present, or the server ends; Retry-After says when to come "
    "back.",
    "504": "The deadline has passed.",
}
TOLD = {
    "/": "Whether the server is there.",
    "/metrics": "Numbers for Prometheus.",
    "/v1/models": "The router's name.",
    "/v1/models/{model_name}": "Whether the router can be asked.",
    "/v2": "What the server is.",
    "/v2/health/live": "Whether the server is there.",
    "/v2/health/ready": "Whether at least one model of the pool can be asked.",
    "/v2/models": "The router's name.",
    "/v2/models/{model_name}": "The tensors of requests and answers.",
    "/v2/models/{model_name}/ready": "Whether the router can be asked.",
    V1: f"Answers 1 to {MOST_QUERIES} queries (KServe's v1). An instance is a question, or an "
    "object with `query` and what is to hold for it: `max_tokens`, and the settings that chat "
    "completions have in `hierrouter`.",
    V2: f"Answers 1 to {MOST_QUERIES} queries (KServe's v2). The tensor `{QUERY}` (BYTES) holds "
    f"them. {', '.join(f'`{name}`' for name in NUMBERS)} are tensors of one number or one for each "
    f"query, or parameters of the request; `{REPLIES}` is a parameter. A shape is [N] or [N, 1]. "
    "The answer has the tensors "
    f"{', '.join(f'`{name}` ({kind})' for name, kind in OUTPUTS.items())}, one element a query; "
    "`detail` is the `hierrouter` object of chat completions as JSON. `outputs` picks some.",
}
NAMED = re.compile(r"#/components/schemas/(\w+)")
EXAMPLE = "What is 17 plus 25?"


def describe(openapi: Callable[[], dict[str, Any]], rules: Rules) -> dict[str, Any]:
    """The description of all routes that can be asked, and of the key that they ask for.

    Args:
        openapi: gives what the application tells of itself; it is changed in place.
        rules: of the gate.
    """
    described = openapi()
    paths = described["paths"]
    for path in [path for path in paths if path.startswith(NEVER)]:
        del paths[path]
    parts = described.setdefault("components", {}).setdefault("schemas", {})
    for schema in parts.values():
        schema.pop("description", None)
    chat = ChatRequest.model_json_schema(ref_template="#/components/schemas/{model}")
    parts |= {**chat.pop("$defs", {}), **schemas(), **_bodies()}
    for path, methods in paths.items():
        for told in methods.values():
            _tell(path, told, rules)
    used = _named(paths, parts)
    for unused in parts.keys() - used:
        del parts[unused]
    if rules.keys is not None:
        described["components"]["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
        described["security"] = [{"key": []}]
        for path in OPEN & paths.keys():
            for told in paths[path].values():
                told["security"] = []
    return described


def _tell(path: str, told: dict[str, Any], rules: Rules) -> None:
    """Completes what is told of a route."""
    if path in TOLD:
        told["description"] = TOLD[path]
        told.pop("summary", None)
    answers = told["responses"]
    answers.pop("422", None)
    for name, taken in (("V1Request", V1), ("V2Request", V2)):
        if path == taken:
            told["requestBody"] = {"required": True, **_json(name)}
    for name, given in (("Predictions", V1), ("V2Answer", V2)):
        if path == given:
            answers["200"] = {"description": "The answers.", **_json(name)}
    if path == "/metrics":
        text = {"text/plain": {"schema": {"type": "string"}}}
        answers["200"] = {"description": "The numbers.", "content": text}
    if path == "/":
        alive = {"type": "object", "properties": {"status": {"type": "string"}}}
        answers["200"] = {
            "description": "It is.",
            "content": {"application/json": {"schema": alive}},
        }
    kserve = path.startswith(("/v1", "/v2"))
    for status in _statuses(path, rules):
        failure = _json("KServeError" if kserve else "OpenAIError")
        answers[status] = {"description": REASONS[status], **failure}


def _statuses(path: str, rules: Rules) -> list[str]:
    """The failures with which a route may end."""
    found = []
    if path in ASKING:
        found += ["400", "404", "408", "413", "415", "429", "500", "503", "504"]
    elif "{" in path:
        found += ["404"]
    if path.endswith(("/ready", "/v1/models/{model_name}")):
        found += ["503"]
    if rules.keys is not None and path not in OPEN:
        found += ["401"]
    if rules.only_loopback:
        found += ["403"]
    return sorted(found)


def _json(name: str) -> dict[str, Any]:
    schema = {"$ref": f"#/components/schemas/{name}"}
    return {"content": {"application/json": {"schema": schema}}}


def _named(paths: dict[str, Any], parts: dict[str, Any]) -> set[str]:
    """The parts that routes name, and that these name in turn."""
    found: set[str] = set()
    looked = set(NAMED.findall(json.dumps(paths)))
    while looked:
        found |= looked
        looked = set(NAMED.findall(json.dumps([parts[name] for name in looked]))) - found
    return found


def _bodies() -> dict[str, Any]:
    """The bodies that KServe's routes take, and the one that KServe does not tell."""
    whole = {"type": "integer", "minimum": 1}
    properties = Knobs.model_json_schema()["properties"]
    instance = {
        "type": "object",
        "required": ["query"],
        "additionalProperties": False,
        "properties": {"query": {"type": "string"}, "max_tokens": whole, **properties},
    }
    number = {name: whole if name in WHOLE else {"type": "number"} for name in NUMBERS}
    flat = {"type": "array", "maxItems": MOST_QUERIES}
    tensor = {
        "type": "object",
        "required": ["name", "shape", "datatype"],
        "properties": {
            "name": {"enum": [QUERY, *NUMBERS]},
            "shape": {
                "type": "array",
                "items": {"type": "integer"},
                "description": "[N] or [N, 1]",
            },
            "datatype": {
                "type": "string",
                "description": f"of `{QUERY}` BYTES; of the others a kind of number",
            },
            "data": {**flat, "description": "flat, or nested as the shape says"},
            "parameters": {"type": "object"},
        },
    }
    query = {"name": QUERY, "datatype": "BYTES", "shape": [1], "data": [EXAMPLE]}
    return {
        "V1Request": {
            "type": "object",
            "required": ["instances"],
            "additionalProperties": False,
            "properties": {
                "instances": {
                    **flat,
                    "minItems": 1,
                    "items": {"anyOf": [{"type": "string"}, instance]},
                }
            },
            "example": {"instances": [EXAMPLE, {"query": EXAMPLE, "alpha": 0.5}]},
        },
        "V2Request": {
            "type": "object",
            "required": ["inputs"],
            "properties": {
                "id": {"type": "string"},
                "parameters": {
                    "type": "object",
                    "properties": {**number, REPLIES: {"type": "boolean"}},
                },
                "inputs": {"type": "array", "items": tensor},
                "outputs": {
                    "type": "array",
                    "items": {
                        "type": "object",
                        "required": ["name"],
                        "properties": {"name": {"enum": list(OUTPUTS)}},
                    },
                },
            },
            "example": {"inputs": [query], "parameters": {"alpha": 0.5}},
        },
        "V2Answer": {
            "type": "object",
            "required": ["id", "model_name", "outputs"],
            "properties": {
                "id": {"type": "string"},
                "model_name": {"type": "string"},
                "outputs": {
                    "type": "array",
                    "items": {
                        "type": "object",
                        "required": ["name", "shape", "datatype", "data"],
                        "properties": {
                            "name": {"enum": list(OUTPUTS)},
                            "shape": {"type": "array", "items": {"type": "integer"}},
                            "datatype": {"enum": sorted(set(OUTPUTS.values()))},
                            "data": flat,
                        },
                    },
                },
            },
        },
    }
