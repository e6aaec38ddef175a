"""Synthetic queries for the scripted pool: sums, with a topic and a marker.

The scripted models read the topic (their skill differs by task) and the marker (it says whose
analysis reveals the clue). The words around them give the encoder something to tell tasks apart by.
Everything is decided by hashes, so that the same seed gives the same world everywhere.
"""

from __future__ import annotations

from hashlib import sha256

from hierrouter.data.tasks import Question

MARKERS = ("amber", "cobalt", "jade")
"""The marker words; which one a query has does not depend on its task."""
VOCABULARY_WORDS = 30

_ONSETS = ("b", "br", "d", "dr", "f", "g", "gl", "k", "l", "m", "n", "p", "pl", "r", "s", "st", "t")
_VOWELS = ("a", "e", "i", "o", "u")
_CODAS = ("l", "m", "n", "r", "s", "t", "x")


def _draw(count: int, *key: object) -> int:
    """A number in 0..count-1 that the key decides."""
    digest = sha256("\x1f".join(str(part) for part in key).encode()).digest()
    return int.from_bytes(digest[:8], "big") % count


def vocabulary(task: str) -> list[str]:
    """The task's own made-up words, the same for every seed."""
    words: list[str] = []
    attempt = 0
    while len(words) < VOCABULARY_WORDS:
        syllables = []
        for place in range(2):
            key = ("word", task, attempt, place)
            onset = _ONSETS[_draw(len(_ONSETS), *key, "onset")]
            vowel = _VOWELS[_draw(len(_VOWELS), *key, "vowel")]
            syllables.append(onset + vowel)
        word = "".join(syllables) + _CODAS[_draw(len(_CODAS), "word", task, attempt, "coda")]
        attempt += 1
        if word not in words and word not in MARKERS:
            words.append(word)
    return words


def scripted_question(task: str, number: int, seed: int) -> Question:
    """Query `number` of a task in the world of this data seed."""
    key = ("scripted", seed, task, number)
    words = vocabulary(task)
    filler = " ".join(
        words[_draw(len(words), *key, "filler", place)]
        for place in range(6 + _draw(5, *key, "length"))
    )
    marker = MARKERS[_draw(len(MARKERS), *key, "marker")]
    a, b = (10 + _draw(9_990, *key, name) for name in "ab")
    return Question(
        query_id=f"{task}/{number}",
        task=task,
        prompt=f"Topic: {task}. {filler}. Marker: {marker}. What is {a} plus {b}?",
        reference=(str(a + b),),
        reference_text=f"The sum is {a + b}.",
        tests=(),
        metadata={"kind": "number", "marker": marker},
    )


def scripted_questions(task: str, count: int, seed: int) -> list[Question]:
    """The first `count` queries of a task in the world of this data seed."""
    return [scripted_question(task, number, seed) for number in range(count)]
