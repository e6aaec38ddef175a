"""What an answer tells of how it came about: the `hierrouter` object and its headers."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hierrouter.serving.events import Accepted, Decision, Failure, Hop, Route
    from hierrouter.serving.knobs import Terms


def decision_event(decision: Decision) -> dict[str, Any]:
    """A decision, as a progress event tells it."""
    return {"event": "decision", **_decision(decision)}


def hop_event(hop: Hop) -> dict[str, Any]:
    """A finished hop, as a progress event tells it."""
    return {"event": "hop", **hop_object(hop, replies=False)}


def accepted_event(accepted: Accepted) -> dict[str, Any]:
    """That an answer was accepted, as a progress event tells it."""
    return {"event": "accepted", "model": accepted.model, "hop": accepted.hop}


def hop_object(hop: Hop, replies: bool) -> dict[str, Any]:
    """One hop of an answer.

    Args:
        hop: the hop.
        replies: whether its text is told.
    """
    completion = hop.completion
    told = {
        **_decision(hop.decision),
        "tokens_in": completion.tokens_in,
        "tokens_out": completion.tokens_out,
        "finish_reason": completion.finish_reason,
        "cost_usd": hop.cost_usd,
        "latency_ms": _ms(hop.latency_s),
        "decision_ms": _ms(hop.decided_s),
    }
    if hop.first_s is not None:
        told["first_token_ms"] = _ms(hop.first_s)
    if replies:
        told["reply"] = completion.reply
    return told


def route_object(
    route: Route,
    terms: Terms,
    router: dict[str, Any],
    cost_unit_usd: float,
    unheeded: tuple[str, ...],
) -> dict[str, Any]:
    """The whole route of an answer.

    Args:
        route: what the request took.
        terms: what it asked for.
        router: name, version and digest of the router.
        cost_unit_usd: dollars in one cost unit.
        unheeded: settings of the request that do nothing.
    """
    told: dict[str, Any] = {
        "router": router,
        "route": route.path,
        "alpha": route.alpha,
        "cost_usd": route.cost_usd,
        "relative_cost": route.cost_usd / cost_unit_usd,
        "degraded": route.degraded,
        "hops": [
            hop_object(hop, terms.replies and at != route.returned)
            for at, hop in enumerate(route.hops)
        ],
    }
    if route.returned is not None:
        told["returned"] = route.returned
    if route.lost:
        told["lost_usd"] = route.lost_usd
    if terms.max_cost is not None:
        told["max_cost"] = terms.max_cost
    if unheeded:
        told["unheeded"] = list(unheeded)
    return told


def request_entry(route: Route, request_id: str, api: str, status: int) -> dict[str, Any]:
    """A finished request, as the log and its trace have it: no texts.

    Args:
        route: what the request took.
        request_id: of the request.
        api: the interface.
        status: with which it ended.
    """
    told = {
        "request_id": request_id,
        "api": api,
        "status": status,
        "route": route.path,
        "alpha": route.alpha,
        "cost_usd": route.cost_usd,
        "tokens_in": route.tokens_in,
        "tokens_out": route.tokens_out,
        "degraded": route.degraded,
    }
    if route.asking:
        told["asking"] = route.asking
    return told


def failure_entry(failure: Failure, texts: bool) -> dict[str, Any]:
    """A call that went wrong, as the log has it.

    Args:
        failure: the call.
        texts: whether what the error says may be written.
    """
    told: dict[str, Any] = {"model": failure.model, "kind": failure.kind}
    if failure.status is not None:
        told["status"] = failure.status
    return {**told, "told": failure.told} if texts else told


def usage_object(route: Route) -> dict[str, int]:
    """OpenAI's token counts, over all hops."""
    return {
        "prompt_tokens": route.tokens_in,
        "completion_tokens": route.tokens_out,
        "total_tokens": route.tokens_in + route.tokens_out,
    }


def route_headers(
    route: Route, router: dict[str, Any], unheeded: tuple[str, ...], path: str, whole: bool
) -> dict[str, str]:
    """What the headers tell; of a stream they come before it ends, so without its cost.

    Args:
        route: what the request took so far.
        router: name, version and digest of the router.
        unheeded: settings of the request that do nothing.
        path: the route, where it is known.
        whole: whether the answer is whole.
    """
    told = {
        "x-hierrouter-router": f"{router['name']}/{router['version']}",
        "x-hierrouter-alpha": f"{route.alpha:g}",
    }
    if path:
        told["x-hierrouter-route"] = path
        told["x-hierrouter-hops"] = str(len(re.findall("[:!]", path)) + 1)
    if whole:
        told["x-hierrouter-cost-usd"] = f"{route.cost_usd:.9f}"
    if route.degraded:
        told["x-hierrouter-degraded"] = "true"
    if unheeded:
        told["x-hierrouter-unheeded"] = ",".join(unheeded)
    return told


def _decision(decision: Decision) -> dict[str, Any]:
    return {
        "index": decision.index,
        "model": decision.model,
        "role": decision.role,
        "scores": {name: round(chance, 6) for name, chance in decision.chances.items()},
        "fallback": decision.fallback,
    }


def _ms(seconds: float) -> float:
    return round(seconds * 1000, 3)
