"""What the service keeps of the queries that it answers."""

from __future__ import annotations

import asyncio
from contextlib import aclosing

import pytest
from prometheus_client import CollectorRegistry

from hierrouter.errors import UnreachableError
from hierrouter.serving.calls import Question
from hierrouter.serving.events import NobodyAnswersError, Route
from hierrouter.serving.gauges import Gauges
from hierrouter.serving.knobs import Knobs, terms_of
from hierrouter.serving.service import Identity, Service

SECRET = "Dear Mrs Smith, what my doctor told me yesterday"


@pytest.mark.parametrize("log_texts", [False, True])
def test_the_log_tells_which_calls_failed_and_only_if_asked_what_servers_said(
    make_pool, make_router, make_player, told, caplog, log_texts
) -> None:
    pool = make_pool(models=2, hops=1)
    error = UnreachableError(f"no chat completion ({SECRET})")
    error.refused_with = 503
    failing = [error] * 2
    player = make_player(pool, make_router(pool), [told(does=failing), told(does=failing)])
    for member in player.members:
        member._retries = 0
    identity = Identity("hierrouter", "1", "0" * 64)
    gauges = Gauges(CollectorRegistry())
    service = Service(player, identity, 0.1, gauges, most=1, log_texts=log_texts)
    terms = terms_of(Knobs(), 0.1, service.info)

    async def ask() -> None:
        asking = service.answer(Question("Why?"), terms, Route(0.1), api="v1", request_id="one")
        async with aclosing(asking) as events:
            async for _ in events:
                pass

    with caplog.at_level("INFO", "hierrouter.serving"), pytest.raises(NobodyAnswersError):
        asyncio.run(ask())
    (line,) = [record.told for record in caplog.records if record.message == "request"]
    assert sorted(each["model"] for each in line["failures"]) == ["A", "B"]
    assert {each["kind"] for each in line["failures"]} == {"UnreachableError"}
    assert {each["status"] for each in line["failures"]} == {503}
    assert (SECRET in str(line)) == log_texts
