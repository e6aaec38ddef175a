"""Prompts that cannot fit, found before anything is generated."""

import pytest

from hierrouter.config import AnswerFormats, ModelSpec, Prompts, ScriptedSkills, TokenLimits
from hierrouter.errors import HierRouterError
from hierrouter.pool.fit import require_fit
from hierrouter.pool.open import open_backend
from hierrouter.pool.transformers_backend import TransformersBackend

SKILLS = ScriptedSkills(solve_otherwise=1)


def member(name: str, instruction: str = "", **limits: int) -> ModelSpec:
    return ModelSpec(
        name=name,
        model="m",
        backend="scripted",
        base_rate=0,
        scripted=SKILLS,
        instruction=instruction,
        limits=TokenLimits(**limits),
    )


def prompts(most: int, **more: str) -> Prompts:
    usual = {"analyze": "plan it", "refine": "refine", "solve": "verify"}
    formats = AnswerFormats(number="as a number", text="")
    return Prompts(max_context_tokens=most, answer_formats=formats, **{**usual, **more})


def check(most: int, hops: int, specs: list[ModelSpec], words: int = 10, kind="number", **more):
    """Tokens of the scripted backend are words."""
    asked = prompts(most, **more)
    backend = open_backend(specs[0], asked, 1000)
    require_fit(backend, specs, asked, hops, [("word " * words, kind), ("one", "text")])


@pytest.mark.parametrize(
    ("hops", "specs", "kind", "more", "needed"),
    [
        (1, [member("a")], "number", {}, 10 + 3),  # the format
        (1, [member("a")], "text", {}, 10),
        (1, [member("a", "be brief")], "number", {}, 10 + 2 + 3),
        # Of two members with one tokenizer the wordier counts.
        (1, [member("a", "be brief"), member("b", "x " * 6)], "number", {}, 10 + 6 + 3),
        # At the second hop: "Analysis:" and what stands for the reply; "verify".
        (2, [member("a", "be brief")], "number", {}, 10 + 2 + 1 + 2 + 3),
        (3, [member("a", "be brief")], "number", {}, 10 + 2 * 3 + 1 + 2 + 3),
        # An analysis has no answer format.
        (2, [member("a")], "text", {"analyze": "y " * 20}, 10 + 20),
        (3, [member("a")], "text", {"refine": "z " * 20}, 10 + 2 + 20),
    ],
)
def test_the_longest_call_with_every_reply_left_out_must_fit(hops, specs, kind, more, needed):
    check(needed, hops, specs, kind=kind, **more)
    with pytest.raises(HierRouterError) as caught:
        check(needed - 1, hops, specs, kind=kind, **more)
    text = str(caught.value)
    assert text.startswith(f"1 of 2 questions are too long for {', '.join(s.name for s in specs)}:")
    assert f"up to {needed} tokens" in text
    assert f"max_context_tokens is {needed - 1}; raise it to {needed}" in text
    assert "\n" not in text


def test_a_window_is_held_against_the_longest_message_and_reply(tiny):
    """The tiny model reads 512 tokens (bytes); its template adds 21 of them."""
    made = TransformersBackend(tiny, "tiny", 1000, "float32")
    template = len("[user]  [assistant]") + 1
    spec = member("a", solve=100, analyze=90)
    most = 512 - template - 100
    question = [("Why?", "text")]
    require_fit(made, [spec], prompts(most), 2, question)
    with pytest.raises(HierRouterError, match=r"model tiny: a prompt of .* lower .* by 1$"):
        require_fit(made, [spec], prompts(most + 1), 2, question)
    # One hop: only the question stands in a message, however many tokens are allowed.
    require_fit(made, [spec], prompts(10_000), 1, question)
    with pytest.raises(HierRouterError, match=r"a reply of 505 do not fit into its window of 512"):
        require_fit(made, [member("a", solve=505)], prompts(10_000), 1, question)
    assert made._model is None  # no weights were loaded
