"""What a model is asked: layout, shortening, instructions and limits."""

import pytest

from hierrouter.config import ModelSpec, Prompts, TokenLimits
from hierrouter.errors import HierRouterError
from hierrouter.pool.prompts import (
    GAP,
    build_message,
    encoder_text,
    instruction_for,
    limit_for,
)

SPEC = ModelSpec(
    name="m",
    model="m",
    base_rate=1,
    instruction="Be brief.",
    limits=TokenLimits(solve=50, solve_by_task={"mbpp": 90}, analyze=30),
)
PROMPTS = Prompts()


def words(text: str) -> int:
    return len(text.split())


def test_a_direct_answer_is_question_instruction_and_format():
    message = build_message("What?", [], "Be brief.", 'End with "Answer: X".', words, 100)
    assert message == 'What?\n\nBe brief.\nEnd with "Answer: X".'


def test_without_instruction_and_format_the_message_is_the_question():
    assert build_message("What?", [], "", "", words, 100) == "What?"


def test_replies_are_labelled_and_numbered_where_there_are_several():
    one = build_message("Q", [("analyze", "plan")], "Go.", "", words, 100)
    two = build_message("Q", [("analyze", "plan"), ("solve", "42")], "Go.", "", words, 100)
    assert one == "Q\n\nAnalysis:\nplan\n\nGo."
    assert two == "Q\n\nAnalysis 1:\nplan\n\nAnswer 2:\n42\n\nGo."


def test_the_encoder_sees_question_and_replies_only():
    assert encoder_text("Q") == "Q"
    assert encoder_text("Q", [("analyze", "plan")]) == "Q\n\nAnalysis:\nplan"


@pytest.mark.parametrize("room", [1, 2, 7, 40, 99])
def test_a_long_reply_loses_exactly_as_much_of_its_middle_as_needed(room):
    """Counting characters, the shortened message fills the limit to the last one."""
    reply = "".join(chr(ord("a") + i % 26) for i in range(100 + len(GAP)))
    frame = len(build_message("Q", [("analyze", GAP)], "Go.", "", len, 1000))
    message = build_message("Q", [("analyze", reply)], "Go.", "", len, frame + room)
    head, tail = reply[: room - room // 2], reply[len(reply) - room // 2 :]
    assert message == f"Q\n\nAnalysis:\n{head}{GAP}{tail}\n\nGo."
    assert len(message) == frame + room


def test_a_message_that_just_fits_is_left_alone():
    whole = build_message("Q", [("analyze", "x" * 50)], "Go.", "", len, 10_000)
    assert build_message("Q", [("analyze", "x" * 50)], "Go.", "", len, len(whole)) == whole


def test_the_oldest_reply_is_shortened_first_and_the_next_only_if_need_be():
    replies = [("analyze", "#" * 100), ("analyze", "%" * 100)]
    whole = len(build_message("Q", replies, "", "", len, 10_000))
    little = build_message("Q", replies, "", "", len, whole - 50)
    assert len(little) == whole - 50
    assert little.count("%") == 100
    assert little.count("#") == 50 - len(GAP)
    much = build_message("Q", replies, "", "", len, whole - 150)
    assert len(much) == whole - 150
    assert much.count("#") == 0
    assert much.count("%") == 50 - 2 * len(GAP)
    assert much.count(GAP) == 2


def test_a_question_is_never_cut():
    with pytest.raises(HierRouterError, match=r"max_context_tokens is 20; raise it"):
        build_message("long " * 30, [("analyze", "short")], "Go.", "", words, 20)


@pytest.mark.parametrize(
    ("hop", "role", "any_before", "expected"),
    [
        (0, "analyze", False, PROMPTS.analyze),
        (1, "analyze", True, PROMPTS.refine),
        (1, "solve", True, f"{PROMPTS.solve} Be brief."),
        (0, "solve", False, "Be brief."),
        (1, "solve", False, "Be brief."),
    ],
)
def test_instructions_follow_hop_and_role(hop, role, any_before, expected):
    assert instruction_for(PROMPTS, SPEC, hop, role, any_before) == expected


def test_limits_follow_role_and_task():
    assert limit_for(SPEC, "analyze", "mbpp") == 30
    assert limit_for(SPEC, "solve", "mbpp") == 90
    assert limit_for(SPEC, "solve", "gsm8k") == 50
    assert limit_for(SPEC, "solve", None) == 50
