"""The scripted world: texts of one shape, decided by the seed."""

from __future__ import annotations

import re
from collections import Counter

from hierrouter.data.scripted import MARKERS, scripted_question, scripted_questions, vocabulary

SHAPE = re.compile(
    r"Topic: (?P<task>[\w.-]+)\. (?P<filler>[a-z]+(?: [a-z]+){5,9})\. "
    r"Marker: (?P<marker>\w+)\. What is (?P<a>\d+) plus (?P<b>\d+)\?"
)


def test_every_query_has_the_shape_and_the_right_answer() -> None:
    for question in scripted_questions("task-1.b", 500, 3):
        found = SHAPE.fullmatch(question.prompt)
        assert found is not None
        assert found["task"] == question.task == "task-1.b"
        assert set(found["filler"].split()) <= set(vocabulary("task-1.b"))
        assert 10 <= int(found["a"]) <= 9999
        assert 10 <= int(found["b"]) <= 9999
        assert question.reference == (str(int(found["a"]) + int(found["b"])),)
        assert question.reference_text == f"The sum is {question.reference[0]}."
        assert question.metadata["marker"] == found["marker"]


def test_same_seed_same_world_and_number_alone_decides() -> None:
    assert scripted_questions("a", 50, 1) == scripted_questions("a", 80, 1)[:50]
    assert scripted_question("a", 5, 1).prompt != scripted_question("a", 5, 2).prompt


def test_markers_are_even_and_independent_of_the_task() -> None:
    for task in ("a", "b"):
        counts = Counter(q.metadata["marker"] for q in scripted_questions(task, 3000, 0))
        assert set(counts) == set(MARKERS)
        assert all(870 < count < 1130 for count in counts.values())  # five standard deviations


def test_vocabularies_tell_tasks_apart() -> None:
    words = {task: set(vocabulary(task)) for task in ("gsm8k", "math", "mbpp", "arc_easy")}
    assert all(len(own) == 30 for own in words.values())
    assert len(set().union(*words.values())) >= 118
