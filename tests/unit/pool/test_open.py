"""What a model is, for generation keys and trees."""

import pytest

from hierrouter.config import ModelSpec
from hierrouter.errors import ConfigError
from hierrouter.pool import open as opening
from hierrouter.pool.open import choose_kind, identity


def spec(folder, **changes):
    return ModelSpec(**{"name": "m", "model": str(folder), "base_rate": 1, **changes})


@pytest.fixture
def on(monkeypatch, tmp_path):
    """Says which device there is, and whether openvino is installed."""
    monkeypatch.setenv("HIERROUTER_HOME", str(tmp_path))

    def arrange(device="cpu", installed=True):
        monkeypatch.setattr("hierrouter.pool.devices.choose_device", lambda: device)
        monkeypatch.setattr(opening, "find_spec", lambda _: object() if installed else None)

    return arrange


@pytest.mark.parametrize(
    ("device", "installed", "changes", "kind"),
    [
        ("cpu", True, {}, "openvino"),
        ("cpu", False, {}, "transformers"),
        ("cuda", True, {}, "transformers"),
        ("cpu", True, {"dtype": "bfloat16"}, "transformers"),
        ("cuda", True, {"dtype": "int8"}, "openvino"),
        ("cuda", True, {"backend": "openvino"}, "openvino"),
        ("cpu", True, {"backend": "transformers"}, "transformers"),
    ],
)
def test_auto_takes_openvino_on_a_processor_where_it_is(tiny, on, device, installed, changes, kind):
    on(device, installed)
    assert choose_kind(spec(tiny, **changes)) == kind


def test_what_a_tree_was_recorded_with_stays_on_another_machine(tiny, on):
    """A router of the accelerator's weights is asked on a laptop, and the other way round."""
    on("cuda")
    plain = identity(spec(tiny))["weights_digest"]
    on("cpu")
    packed = identity(spec(tiny))["weights_digest"]
    assert plain != packed
    assert choose_kind(spec(tiny), plain) == "transformers"
    assert identity(spec(tiny), plain)["weights_digest"] == plain
    on("cuda")
    assert choose_kind(spec(tiny), packed) == "openvino"
    assert identity(spec(tiny), packed)["weights_digest"] == packed


def test_openvino_that_is_not_installed_is_named_with_its_remedy(tiny, on):
    on(installed=False)
    with pytest.raises(ConfigError, match=r"pip install -e '\.\[openvino\]'"):
        choose_kind(spec(tiny, backend="openvino"))


def test_an_endpoint_is_known_by_its_model_and_not_by_its_address():
    here, there, other = (
        identity(spec("org/m", backend="openai", endpoint={"url": url}, revision=revision))
        for url, revision in (("http://a/v1", "1"), ("http://b/v1", "1"), ("http://a/v1", "2"))
    )
    assert here["weights_digest"] == there["weights_digest"] != other["weights_digest"]


def test_a_number_format_makes_another_model_of_the_same_weights(tiny, tmp_path, monkeypatch):
    """As configured: what `auto` comes to differs between the machines that share a tree."""
    monkeypatch.setenv("HIERROUTER_HOME", str(tmp_path))
    auto, half = (
        identity(
            ModelSpec(name="m", model=str(tiny), base_rate=1, dtype=dtype, backend="transformers")
        )
        for dtype in ("auto", "bfloat16")
    )
    assert auto["weights_digest"] == half["weights_digest"]
    assert (auto["generation"]["dtype"], half["generation"]["dtype"]) == ("auto", "bfloat16")
    assert {**auto["generation"], "dtype": ""} == {**half["generation"], "dtype": ""}
