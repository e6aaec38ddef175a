"""What a model is, for generation keys and trees."""

from hierrouter.config import ModelSpec
from hierrouter.pool.open import identity


def test_a_number_format_makes_another_model_of_the_same_weights(tiny, tmp_path, monkeypatch):
    """As configured: what `auto` comes to differs between the machines that share a tree."""
    monkeypatch.setenv("HIERROUTER_HOME", str(tmp_path))
    auto, half = (
        identity(ModelSpec(name="m", model=str(tiny), base_rate=1, dtype=dtype))
        for dtype in ("auto", "bfloat16")
    )
    assert auto["weights_digest"] == half["weights_digest"]
    assert (auto["generation"]["dtype"], half["generation"]["dtype"]) == ("auto", "bfloat16")
    assert {**auto["generation"], "dtype": ""} == {**half["generation"], "dtype": ""}
