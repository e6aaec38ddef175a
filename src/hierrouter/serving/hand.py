"""The answers that a live route has in hand, where it may go on after one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from hierrouter.learning.answers import shown
from hierrouter.quality.stated import stated_answer

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from hierrouter.pool.backend import Completion


@dataclass(frozen=True)
class Answer:
    """An answer that was paid for."""

    hop: int
    """The hop index l of its call."""
    completion: Completion
    """What the model said."""
    text: str
    """The same as it would be passed on, stop sequences applied."""
    finish_reason: str
    """"stop", "length" or "content_filter"."""


class Hand:
    """Answers by model index, and what they show."""

    def __init__(self) -> None:
        """Begins with none."""
        self._answers: dict[int, Answer] = {}

    def __len__(self) -> int:
        return len(self._answers)

    def __getitem__(self, model: int) -> Answer:
        return self._answers[model]

    def add(self, model: int, answer: Answer) -> None:
        """Takes another one."""
        self._answers[model] = answer

    @property
    def models(self) -> list[int]:
        """Who answered, ascending."""
        return sorted(self._answers)

    def shown(self, most: int) -> NDArray[np.float64]:
        """What they show, 1 x W, as of recorded ones (`answers.shown`).

        Args:
            most: J, the most answers that there can be.
        """
        completions = [self._answers[model].completion for model in self.models]
        signals = [
            (each.logprob_mean, each.logprob_min, each.tokens_out, each.finish_reason == "stop")
            for each in completions
        ]
        numbers: dict[str, int] = {}
        said = [
            -1 if answer is None else numbers.setdefault(answer, len(numbers))
            for answer in (stated_answer(each.reply) for each in completions)
        ]
        return shown(np.array([signals], dtype=np.float64), np.array([said]), most)
