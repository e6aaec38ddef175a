"""A deterministic pool without a model: known skill per task, answers in no time.

It understands the queries of `data.source: scripted`,

    Topic: <task>. <filler>. Marker: <amber|cobalt|jade>. What is <a> plus <b>?

and answers anything else with "Answer: unknown". Each chance is decided by a hash of the model's
name and the question, so every run repeats exactly and models err independently of each other.
How to build worlds with it: docs/scripted.md.
"""

from __future__ import annotations

import hashlib
import re
from itertools import cycle, islice
from typing import TYPE_CHECKING, Any

from hierrouter.errors import ConfigError
from hierrouter.pool.backend import Completion

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hierrouter.config import ModelSpec, Prompts, ScriptedSkills
    from hierrouter.pool.backend import OnReply

CLUES = ("north", "south", "east")
"""The words an analysis can reveal; which one belongs to a question only its hash tells."""

VERSION = 1
"""Changes with any reply: part of the digest that stands for a scripted model's weights."""

_QUESTION = re.compile(
    r"Topic: (?P<task>[A-Za-z0-9._-]+)\. .*?Marker: (?P<marker>\w+)\. "
    r"What is (?P<a>\d+) plus (?P<b>\d+)\?",
    re.DOTALL,
)
_FILLER = "Let me look at this with care and write down what I find"
_RIGHT, _WRONG, _ANALYSIS = (-0.1, -0.2), (-0.5, -1.0), (-0.3, -0.6)


def clue_of(question: str) -> str:
    """The clue word of a question, not to be guessed from its text.

    Args:
        question: from "Topic:" to the question mark.
    """
    return CLUES[int(_chance("clue", question) * len(CLUES))]


def would_solve(spec: ModelSpec, question: str, task: str) -> bool:
    """Whether a model's direct answer to a question is right: hash below skill."""
    skills = _skills(spec)
    skill = skills.solve.get(task, skills.solve_otherwise)
    return _chance("solve", spec.name, question) < skill


class ScriptedBackend:
    """One scripted model. Tokens are words, `render` changes nothing, latency is 0."""

    name = "scripted"

    def __init__(self, spec: ModelSpec, prompts: Prompts) -> None:
        """Takes the model's skills and the instructions by which it knows what is wanted.

        Raises:
            ConfigError: the model has no `scripted` section, or the instructions of an analysis
                are empty, so that it could not be told from an answer.
        """
        _skills(spec)
        if not prompts.analyze or not prompts.refine:
            raise ConfigError(
                "pool.prompts.analyze and pool.prompts.refine must not be empty: a scripted model "
                "knows by them that an analysis is wanted"
            )
        self.device = "cpu"
        self.dtype = "none"
        self._spec = spec
        self._analyses = (prompts.analyze, prompts.refine)

    def render(self, message: str) -> str:
        """The message itself."""
        return message

    def count_tokens(self, text: str) -> int:
        """Number of words."""
        return len(text.split())

    def require_window(self, message_tokens: int, max_new_tokens: int) -> None:
        """Everything fits."""

    def generate(
        self,
        prompts: Sequence[str],
        max_new_tokens: Sequence[int],
        on_reply: OnReply | None = None,
    ) -> list[Completion]:
        """Replies by the rules of the module, cut after `max_new_tokens` words."""
        completions = [
            self._complete(prompt, limit)
            for prompt, limit in zip(prompts, max_new_tokens, strict=True)
        ]
        if on_reply is not None:
            for position, completion in enumerate(completions):
                on_reply(position, completion)
        return completions

    def close(self) -> None:
        """Nothing to free."""

    def _complete(self, prompt: str, limit: int) -> Completion:
        reply, (mean, least) = self._reply(prompt)
        words = reply.split(" ")
        return Completion(
            reply=" ".join(words[:limit]),
            tokens_in=self.count_tokens(prompt),
            tokens_out=min(len(words), limit),
            finish_reason="stop" if len(words) <= limit else "length",
            latency_s=0.0,
            logprob_mean=mean,
            logprob_min=least,
        )

    def _reply(self, prompt: str) -> tuple[str, tuple[float, float]]:
        """The whole reply, and the mean and least log-probability of its tokens."""
        found = _QUESTION.search(prompt)
        if found is None:
            return "Answer: unknown", _WRONG
        question, rest = found.group(), prompt[found.end() :]
        skills = _skills(self._spec)
        if any(instruction in rest for instruction in self._analyses):
            clue = clue_of(question) if found["marker"] == skills.reads_marker else "none"
            return f"Plan: add the two numbers. Clue: {clue}.", _ANALYSIS
        total = int(found["a"]) + int(found["b"])
        told = skills.uses_clue and re.search(rf"\bClue: {re.escape(skills.uses_clue)}\b", rest)
        if told or would_solve(self._spec, question, found["task"]):
            return self._padded(f"Answer: {total}"), _RIGHT
        off = 1 + int(_chance("wrong", self._spec.name, question) * 9)
        return self._padded(f"Answer: {total + off}"), _WRONG

    def _padded(self, answer: str) -> str:
        """The answer after as many filler words as make the reply as long as the model's are."""
        fill = max(_skills(self._spec).words - len(answer.split()), 0)
        return " ".join([*islice(cycle(_FILLER.split()), fill), answer])


def scripted_identity(spec: ModelSpec) -> dict[str, Any]:
    """What determines a scripted model's replies, in place of weights."""
    return {
        "version": VERSION,
        "name": spec.name,
        "skills": _skills(spec).model_dump(mode="json"),
    }


def _skills(spec: ModelSpec) -> ScriptedSkills:
    if spec.scripted is None:
        raise ConfigError(f"model {spec.name}: the scripted backend needs its `scripted` section")
    return spec.scripted


def _chance(*parts: str) -> float:
    """A number in [0, 1) that depends on the parts alone."""
    digest = hashlib.sha256("\x00".join(parts).encode("utf-8")).digest()
    return int.from_bytes(digest[:8], "big") / 2**64
