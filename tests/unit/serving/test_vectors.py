"""Encoding live: each text once, off the event loop, failures to whoever waits."""

from __future__ import annotations

import asyncio
import threading

import numpy as np
import pytest

from hierrouter.errors import UnreachableError
from hierrouter.serving.vectors import Vectors


class Counting:
    """An encoder that keeps what it was asked and where; it waits for `go`."""

    device = "cpu"

    def __init__(self) -> None:
        self.asked: list[list[str]] = []
        self.threads: set[int] = set()
        self.go = threading.Event()
        self.go.set()

    def encode(self, texts):
        self.go.wait()
        self.asked.append(list(texts))
        self.threads.add(threading.get_ident())
        if "bad" in texts:
            raise ValueError("cannot be read")
        return np.array([[float(len(text)), 1.0] for text in texts], dtype=np.float32)


def test_each_text_is_encoded_once_whoever_asks_and_never_on_the_loop() -> None:
    encoder = Counting()
    vectors = Vectors(encoder)

    async def run() -> None:
        encoder.go.clear()
        asking = [asyncio.ensure_future(vectors.of(["same", "other"])) for _ in range(5)]
        await asyncio.sleep(0)
        encoder.go.set()
        answers = await asyncio.gather(*asking)
        assert [float(vector[0]) for vector in answers[3]] == [4.0, 5.0]
        await vectors.of(["same"])

    asyncio.run(run())
    assert sorted(text for texts in encoder.asked for text in texts) == ["other", "same"]
    assert threading.get_ident() not in encoder.threads


def test_the_vectors_asked_for_last_are_kept() -> None:
    encoder = Counting()
    vectors = Vectors(encoder, kept=2)

    async def run() -> None:
        for text in ("a", "b", "a", "c", "a", "b"):
            await vectors.of([text])

    asyncio.run(run())
    assert [texts for (texts,) in encoder.asked] == ["a", "b", "c", "b"]


def test_an_accelerator_gets_what_waits_together() -> None:
    encoder = Counting()
    encoder.device = "cuda"
    vectors = Vectors(encoder)

    async def run() -> None:
        encoder.go.clear()
        asking = [asyncio.ensure_future(vectors.of([str(number)])) for number in range(20)]
        while not vectors._waiting:
            await asyncio.sleep(0)
        for _ in range(50):
            await asyncio.sleep(0)
        encoder.go.set()
        await asyncio.gather(*asking)

    asyncio.run(run())
    assert max(len(texts) for texts in encoder.asked) > 1
    assert sum(len(texts) for texts in encoder.asked) == 20


def test_a_text_that_fails_fails_for_its_callers_alone_and_may_be_tried_again() -> None:
    encoder = Counting()
    vectors = Vectors(encoder)

    async def run() -> None:
        bad, good = await asyncio.gather(
            vectors.of(["bad"]), vectors.of(["good"]), return_exceptions=True
        )
        assert isinstance(bad, ValueError)
        assert float(good[0][0]) == 4.0
        with pytest.raises(ValueError, match="cannot be read"):
            await vectors.of(["bad"])

    asyncio.run(run())


def test_a_caller_who_goes_away_takes_nothing_from_the_others() -> None:
    encoder = Counting()
    vectors = Vectors(encoder)

    async def run() -> None:
        encoder.go.clear()
        first = asyncio.ensure_future(vectors.of(["same"]))
        second = asyncio.ensure_future(vectors.of(["same"]))
        await asyncio.sleep(0)
        first.cancel()
        encoder.go.set()
        assert float((await second)[0][0]) == 4.0

    asyncio.run(run())


def test_what_nobody_waits_for_any_more_is_not_encoded() -> None:
    encoder = Counting()
    vectors = Vectors(encoder)

    async def run() -> None:
        encoder.go.clear()
        asked = [asyncio.ensure_future(vectors.of([text])) for text in ("one", "two", "three")]
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        asked[1].cancel()
        await asyncio.wait({asked[1]})
        encoder.go.set()
        await asyncio.gather(asked[0], asked[2])
        assert encoder.asked == [["one"], ["three"]]
        assert float((await vectors.of(["two"]))[0][0]) == 3.0

    asyncio.run(run())


def test_who_waits_when_it_closes_is_told() -> None:
    encoder = Counting()
    vectors = Vectors(encoder)

    async def run() -> None:
        encoder.go.clear()
        asked = [asyncio.ensure_future(vectors.of([text])) for text in ("one", "two")]
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        vectors.close()
        failures = await asyncio.gather(*asked, return_exceptions=True)
        assert [type(failure) for failure in failures] == [UnreachableError] * 2
        encoder.go.set()

    asyncio.run(run())
