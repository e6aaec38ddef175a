"""Scores a reply by every quality metric, so that the reward can be switched without generating."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hierrouter.quality.f1 import normalise, token_f1
from hierrouter.quality.letters import extract_letter
from hierrouter.quality.maths import extract_math, math_equal
from hierrouter.quality.numbers import extract_number, numbers_equal
from hierrouter.quality.programs import extract_program
from hierrouter.quality.sandbox import DEFAULT_LIMITS, SandboxLimits, passes_tests
from hierrouter.quality.statements import extract_text

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from hierrouter.config import AnswerKind

SCORER_VERSION = 1
"""Raised whenever a metric or an extraction changes: stored scores of another version are stale."""

METRICS = ("accuracy", "token_f1", "token_f1_multiset")
"""The quality metrics, each in [0, 1]."""


@dataclass(frozen=True, slots=True)
class Expected:
    """What a reply is held against."""

    kind: AnswerKind
    """How the answer is stated and compared."""
    accepted: tuple[str, ...]
    """Accepted answers: a letter ("B"), a number ("42"), LaTeX, or plain text."""
    text: str
    """What token F1 is measured against: rationale, solution or code, else the letter."""
    tests: tuple[str, ...] = ()
    """Python source run after a `unit_tests` reply, in order: set-up snippets and asserts."""
    choices: int = 5
    """How many choices a `letter` question may have: A is the first."""
    partial: bool = False
    """Whether a `text` answer that has words in common with an accepted one is worth their share
    (token F1 over sets) instead of nothing."""


@dataclass(frozen=True, slots=True)
class Scored:
    """What a reply is worth."""

    answer: str | None
    """The extracted answer; none where the reply states none."""
    accuracy: float
    """The task's own metric, 0 or 1; between them only where the task gives partial credit."""
    token_f1: float
    """Token F1 over sets (Algorithm 3)."""
    token_f1_multiset: float
    """Token F1 over multisets."""


def score_reply(reply: str, expected: Expected, limits: SandboxLimits = DEFAULT_LIMITS) -> Scored:
    """Scores one reply by every metric; whatever the reply holds, it gets a score.

    Args:
        reply: What a model wrote.
        expected: What it is held against.
        limits: What the program of a `unit_tests` reply may use.

    Raises:
        HierRouterError: a helper process cannot be started on this machine.
    """
    answer = _extract(reply, expected)
    return Scored(
        answer=answer,
        accuracy=0.0 if answer is None else _worth(answer, expected, limits),
        token_f1=token_f1(reply, expected.text),
        token_f1_multiset=token_f1(reply, expected.text, multiset=True),
    )


MOST_AT_ONCE = 8
"""Programs and formulas that are judged at the same time; a program may take .5 GiB."""


def score_replies(
    items: Sequence[tuple[str, Expected]],
    on_done: Callable[[int], None] | None = None,
    limits: SandboxLimits = DEFAULT_LIMITS,
) -> list[Scored]:
    """Scores many replies; unit tests and formulas run side by side, one on each processor.

    Args:
        items: Replies and what each is held against.
        on_done: Called, in this thread, with the number of replies newly scored (as
            `Progress.advance` takes it).
        limits: What the program of a `unit_tests` reply may use.

    Returns:
        A score for each item, in order.

    Raises:
        HierRouterError: a helper process cannot be started on this machine.
    """
    scored: dict[int, Scored] = {}
    with ThreadPoolExecutor(min(_processors(), MOST_AT_ONCE), "score") as pool:
        waiting = {}
        try:
            for index, (reply, expected) in enumerate(items):
                if expected.kind in ("unit_tests", "math"):
                    waiting[pool.submit(score_reply, reply, expected, limits)] = index
                    continue
                scored[index] = score_reply(reply, expected, limits)
                if on_done is not None:
                    on_done(1)
            for future in as_completed(waiting):
                scored[waiting[future]] = future.result()
                if on_done is not None:
                    on_done(1)
        except BaseException:
            # An error or Ctrl-C waits for the few that run, not for all that are queued.
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return [scored[index] for index in range(len(items))]


def _processors() -> int:
    """Processors that this process may use: a pod may have few of its node's."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _extract(reply: str, expected: Expected) -> str | None:
    match expected.kind:
        case "letter":
            return extract_letter(reply, expected.choices)
        case "number":
            return extract_number(reply)
        case "math":
            return extract_math(reply)
        case "unit_tests":
            return extract_program(reply, expected.tests)
        case "text":
            return extract_text(reply)


def _worth(answer: str, expected: Expected, limits: SandboxLimits) -> float:
    if expected.kind == "text" and expected.partial:
        return token_f1(answer, expected.accepted)
    return float(_right(answer, expected, limits))


def _right(answer: str, expected: Expected, limits: SandboxLimits) -> bool:
    match expected.kind:
        case "letter":
            return answer in {accepted.strip().upper() for accepted in expected.accepted}
        case "number":
            return any(numbers_equal(answer, accepted) for accepted in expected.accepted)
        case "math":
            return any(math_equal(answer, accepted) for accepted in expected.accepted)
        case "unit_tests":
            return bool(expected.tests) and passes_tests(answer, expected.tests, limits)
        case "text":
            return normalise(answer) in {normalise(accepted) for accepted in expected.accepted}
