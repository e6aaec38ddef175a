"""The scripted pool: skills as stated, clues, exact repetition."""

import math

import pytest

from hierrouter.config import ModelSpec, Prompts, ScriptedSkills
from hierrouter.errors import ConfigError
from hierrouter.pool.open import identity, open_backend
from hierrouter.pool.prompts import build_message, instruction_for
from hierrouter.pool.scripted import CLUES, ScriptedBackend, clue_of

PROMPTS = Prompts()


def model(name: str = "m", **skills) -> ModelSpec:
    return ModelSpec(
        name=name, model=name, backend="scripted", base_rate=1, scripted=ScriptedSkills(**skills)
    )


def question(number: int, task: str = "algebra", marker: str = "jade") -> str:
    return f"Topic: {task}. Some words {number}. Marker: {marker}. What is {number} plus 7?"


def ask(spec: ModelSpec, text: str, role="solve", replies=(), limit: int = 100):
    backend = ScriptedBackend(spec, PROMPTS)
    hop = len(replies)
    instruction = instruction_for(PROMPTS, spec, hop, role, any_before=hop > 0)
    message = build_message(text, list(replies), instruction, "", backend.count_tokens, 10_000)
    return backend.generate([backend.render(message)], [limit])[0]


def right(spec: ModelSpec, number: int, task: str = "algebra") -> bool:
    return ask(spec, question(number, task)).reply.endswith(f"Answer: {number + 7}")


@pytest.mark.parametrize(("task", "skill"), [("algebra", 0.9), ("history", 0.3)])
def test_answers_are_right_as_often_as_stated(task, skill):
    spec = model(solve={"algebra": 0.9}, solve_otherwise=0.3)
    share = sum(right(spec, i, task) for i in range(2000)) / 2000
    assert abs(share - skill) < 4 * math.sqrt(skill * (1 - skill) / 2000)


def test_skills_of_nought_and_one_are_exact():
    assert all(right(model(solve_otherwise=1), i) for i in range(200))
    assert not any(right(model(solve_otherwise=0), i) for i in range(200))


def test_models_err_independently_and_each_repeats_exactly():
    one, other = model("one", solve_otherwise=0.5), model("other", solve_otherwise=0.5)
    pairs = [(right(one, i), right(other, i)) for i in range(2000)]
    assert abs(sum(a == b for a, b in pairs) / 2000 - 0.5) < 4 * math.sqrt(0.25 / 2000)
    assert ask(one, question(3)) == ask(one, question(3))


def test_the_clue_is_revealed_to_the_reader_of_the_marker_only():
    reader = model(reads_marker="jade")
    text = question(5, marker="jade")
    revealed = ask(reader, text, "analyze").reply
    assert revealed == f"Plan: add the two numbers. Clue: {clue_of(text)}."
    assert ask(reader, question(5, marker="amber"), "analyze").reply.endswith("Clue: none.")
    assert ask(model(), text, "analyze").reply.endswith("Clue: none.")


def test_clues_are_spread_evenly_and_do_not_follow_the_marker():
    for marker in ("amber", "jade"):
        clues = [clue_of(question(i, marker=marker)) for i in range(3000)]
        for word in CLUES:
            assert abs(clues.count(word) / 3000 - 1 / 3) < 4 * math.sqrt(2 / 9 / 3000)


def test_a_clue_makes_its_user_right_and_nobody_else():
    user, other = model(uses_clue="north"), model(uses_clue="south")
    told = [("analyze", "Plan: add the two numbers. Clue: north.")]
    assert ask(user, question(8), "solve", told).reply.endswith("Answer: 15")
    assert not ask(other, question(8), "solve", told).reply.endswith("Answer: 15")
    silent = [("analyze", "Plan: add the two numbers. Clue: none.")]
    assert not ask(user, question(8), "solve", silent).reply.endswith("Answer: 15")


def test_a_clue_word_in_the_query_itself_is_no_clue():
    text = "Topic: algebra. Clue: north. Marker: jade. What is 8 plus 7?"
    assert not ask(model(uses_clue="north"), text).reply.endswith("Answer: 15")


def test_a_middle_hop_is_an_analysis_too():
    reply = ask(model(), question(1), "analyze", [("analyze", "Clue: none.")]).reply
    assert reply.startswith("Plan:")


def test_tokens_are_words_and_limits_cut():
    spec = model(solve_otherwise=1, words=12)
    whole = ask(spec, question(4))
    assert whole.tokens_out == len(whole.reply.split()) == 12
    assert whole.tokens_in == len(question(4).split())
    assert whole.finish_reason == "stop"
    assert (whole.logprob_mean, whole.logprob_min) == (-0.1, -0.2)
    cut = ask(spec, question(4), limit=5)
    assert cut.reply == " ".join(whole.reply.split()[:5])
    assert (cut.tokens_out, cut.finish_reason) == (5, "length")


def test_another_text_gets_unknown():
    assert ask(model(solve_otherwise=1), "What is love?").reply == "Answer: unknown"


def test_identity_follows_name_and_skills():
    def digest(spec: ModelSpec) -> str:
        return str(identity(spec)["weights_digest"])

    assert digest(model(words=9)) == digest(model(words=9))
    assert len({digest(model()), digest(model("n")), digest(model(words=9))}) == 3


def test_it_is_opened_by_its_spec_and_reports_replies():
    backend = open_backend(model(), PROMPTS, 100)
    told = {}
    made = backend.generate([question(1), question(2)], [9, 9], told.__setitem__)
    assert backend.name == "scripted"
    assert told == dict(enumerate(made))


def test_analyses_need_an_instruction_to_be_known_by():
    with pytest.raises(ConfigError, match=r"pool\.prompts\.analyze"):
        ScriptedBackend(model(), Prompts(analyze=""))
