"""From a router to a player: descriptions that do not hold together are told in one line."""

from __future__ import annotations

import copy

import pytest

from hierrouter.config import Endpoint
from hierrouter.errors import ConfigError, DamagedFileError, HierRouterError
from hierrouter.learning.router import Router
from hierrouter.pool.live.endpoint import EndpointLive
from hierrouter.pool.live.scripted import ScriptedLive
from hierrouter.serving.open import open_player


@pytest.fixture
def router(make_pool, make_router):
    return make_router(make_pool())


def changed(router, change):
    """The router with another description."""
    raw = copy.deepcopy(router.info.model_dump())
    change(raw)
    return Router(type(router.info).model_validate(raw), router.policy)


def test_servers_answer_for_the_models_that_are_named(router, capfd) -> None:
    player = open_player(router, {"B": Endpoint(url="http://localhost:1/v1")})
    kinds = [type(member.backend) for member in player.members]
    assert kinds == [ScriptedLive, EndpointLive, ScriptedLive]
    assert player.members[1].spec.rate == 3.0
    assert "B is answered for by http://localhost:1/v1\n" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("moves", "looks"), [("early_exit", False), ("cascade", True), ("escalate", True)]
)
def test_servers_are_asked_for_log_probabilities_where_the_router_looks_at_answers(
    make_pool, make_router, moves, looks
) -> None:
    router = make_router(make_pool(), moves)
    backend = open_player(router, {"B": Endpoint(url="http://localhost:1/v1")}).members[1].backend
    assert ("logprobs" in backend._settings.of(5)) is looks


def test_a_key_is_told_of_only_where_there_is_one(router, capfd, monkeypatch) -> None:
    endpoint = Endpoint(url="http://localhost:1/v1", api_key_env="SOME_KEY")
    monkeypatch.delenv("SOME_KEY", raising=False)
    open_player(router, {"B": endpoint})
    assert "key" not in capfd.readouterr().err
    monkeypatch.setenv("SOME_KEY", "secret")
    open_player(router, {"B": endpoint})
    assert "B is answered for by http://localhost:1/v1, key from SOME_KEY" in capfd.readouterr().err


def test_a_router_of_direct_answers_serves_with_a_pool_that_allows_more_hops(router) -> None:
    def fewer(raw) -> None:
        raw.update(hops=1, moves="direct")

    assert router.info.hops > 1
    player = open_player(changed(router, fewer))
    assert (player.router.info.hops, len(player.members)) == (1, 3)


def test_a_server_for_no_model_is_refused(router) -> None:
    with pytest.raises(ConfigError, match="A, B, C"):
        open_player(router, {"D": Endpoint(url="http://localhost:1/v1")})


def test_addresses_that_the_router_names_are_shown(router, capfd, monkeypatch) -> None:
    monkeypatch.setenv("MY_KEY", "secret")

    def name_server(raw) -> None:
        spec = raw["config"]["pool"]["models"][0]
        endpoint = {"url": "http://elsewhere/v1", "api_key_env": "MY_KEY"}
        spec.update(backend="openai", scripted=None, endpoint=endpoint)

    named = changed(router, name_server)
    with pytest.raises(ConfigError, match=r"MY_KEY to http://elsewhere/v1 .*--endpoint-key MY_KEY"):
        open_player(named, keys=["OTHER_KEY"])
    open_player(named, keys=["MY_KEY"])
    shown = capfd.readouterr().err
    assert "A is answered for by http://elsewhere/v1, key from MY_KEY" in shown


@pytest.mark.parametrize(
    "change",
    [
        lambda raw: raw["config"].pop("pool"),
        lambda raw: raw["config"].update(pool=3),
        lambda raw: raw["config"]["pool"]["models"].pop(),
        lambda raw: raw["config"]["pool"]["models"][0].update(name="Z"),
        lambda raw: raw["config"]["pool"]["models"][0].update(surprise=1),
        lambda raw: raw["config"]["pool"].update(hops=1),
        lambda raw: raw["weights"].pop("A"),
        lambda raw: raw["encoder"].pop("identity"),
        lambda raw: raw["encoder"].update(config={"model": 5}),
    ],
)
def test_a_description_that_does_not_hold_together_is_damage(router, change) -> None:
    with pytest.raises(DamagedFileError) as caught:
        open_player(changed(router, change))
    assert "router.json" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_field_of_a_description_that_is_wrong_is_named(router) -> None:
    hostile = changed(router, lambda raw: raw["encoder"]["config"].update(trust_remote_code=True))
    with pytest.raises(DamagedFileError, match=r"\('trust_remote_code': "):
        open_player(hostile)
    escape = "\x1b[2J" + "x" * 500
    hostile = changed(router, lambda raw: raw["config"]["pool"]["models"][0].update({escape: 1}))
    with pytest.raises(DamagedFileError, match=r"\('models\.0\.\\x1b\[2Jx+': ") as caught:
        open_player(hostile)
    assert "\x1b" not in str(caught.value)
    assert len(str(caught.value)) < 300

    def quote_itself(raw) -> None:
        endpoint = {"url": "http://x/v1", "api_key_env": "\x1b[2J" + "x" * 500}
        raw["config"]["pool"]["models"][0].update(
            backend="openai", scripted=None, endpoint=endpoint
        )

    with pytest.raises(DamagedFileError) as caught:
        open_player(changed(router, quote_itself))
    assert "\x1b" not in str(caught.value)
    assert len(str(caught.value)) < 300


def test_other_weights_and_another_encoder_are_refused(router) -> None:
    other = changed(router, lambda raw: raw["weights"].update(A="0" * 64))
    with pytest.raises(HierRouterError, match="other weights"):
        open_player(other)
    other = changed(router, lambda raw: raw["encoder"]["identity"].update(dimensions=5))
    with pytest.raises(HierRouterError, match="not the encoder"):
        open_player(other)
