"""Sampling: what a sample depends on, and what it must not depend on."""

from __future__ import annotations

import json
import math
import random
from collections import Counter
from typing import TYPE_CHECKING

import pytest

from hierrouter import mirror
from hierrouter.config import BENCHMARK_TASKS, DataConfig
from hierrouter.data import sample
from hierrouter.data.near_duplicates import leaders, shingles
from hierrouter.data.queries import Query, read_queries
from hierrouter.data.sample import choose, hash_unit, normalise, sample_queries
from hierrouter.data.scripted import scripted_questions
from hierrouter.data.sources import TaskQuestions
from hierrouter.data.tasks import Question
from hierrouter.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path


def question(query_id: str, prompt: str, subject: str = "") -> Question:
    task = query_id.split("/")[0]
    return Question(query_id, task, prompt, ("1",), "1", (), {"kind": "number", "subject": subject})


def source(task: str, questions: list[Question], balanced_by: str = "") -> TaskQuestions:
    return TaskQuestions(task, questions, {"source": "scripted"}, balanced_by)


def world(tasks: int, count: int) -> list[TaskQuestions]:
    return [source(f"t{n}", scripted_questions(f"t{n}", count, 0)) for n in range(tasks)]


def chosen(sources: list[TaskQuestions], **config: object) -> list[Query]:
    return choose(DataConfig.model_validate(config), sources)[0]


def test_order_of_the_source_does_not_matter() -> None:
    sources = world(2, 300)
    shuffled = []
    for one in sources:
        questions = list(one.questions)
        random.Random(1).shuffle(questions)
        shuffled.append(source(one.task, questions))
    assert chosen(sources, queries_per_task=100) == chosen(shuffled, queries_per_task=100)


def test_larger_sample_contains_the_smaller_with_its_sides() -> None:
    sources = world(3, 400)
    small = chosen(sources, queries_per_task=70)
    large = chosen(sources, queries_per_task=300)
    for task in ("t0", "t1", "t2"):
        few = [query for query in small if query.task == task]
        many = [query for query in large if query.task == task]
        assert many[:70] == few


def test_sample_is_the_smallest_hashes() -> None:
    (one,) = sources = world(1, 200)
    hashes = {q.query_id: hash_unit("sample", 42, normalise(q.prompt)) for q in one.questions}
    expected = sorted(hashes, key=lambda query_id: hashes[query_id])[:50]
    assert [query.query_id for query in chosen(sources, queries_per_task=50)] == expected


def test_another_seed_is_another_sample() -> None:
    sources = world(1, 1000)
    one = {query.query_id for query in chosen(sources, queries_per_task=500, seed=1)}
    two = {query.query_id for query in chosen(sources, queries_per_task=500, seed=2)}
    # Two independent halves share half: 250 with a standard deviation under 8.
    assert 210 < len(one & two) < 290


@pytest.mark.parametrize("share", [0.5, 0.7, 0.9])
def test_split_and_folds_of_any_prefix(share: float) -> None:
    queries = chosen(world(1, 3000), queries_per_task=3000, train_share=share, folds=5)
    for size in (200, 1000, 3000):
        prefix = queries[:size]
        train = sum(query.split == "train" for query in prefix)
        # Five standard deviations of a binomial: wrong once in two million.
        assert abs(train - share * size) < 5 * math.sqrt(size * share * (1 - share))
        for fold in range(5):
            count = sum(query.fold == fold for query in prefix)
            assert abs(count - size / 5) < 5 * math.sqrt(size * 0.2 * 0.8)


def test_split_is_independent_of_the_fold_and_the_sampling() -> None:
    queries = chosen(world(1, 4000), queries_per_task=4000)
    for fold in range(5):
        part = [query.split == "train" for query in queries if query.fold == fold]
        assert abs(sum(part) - 0.7 * len(part)) < 5 * math.sqrt(len(part) * 0.21)


def test_exact_duplicates_are_dropped_whatever_their_order() -> None:
    twins = [
        question("t/7", "What  is THIS?"),
        question("t/2", "what is this?"),
        question("t/3", "x"),
    ]
    for questions in (twins, twins[::-1]):
        queries, tasks = choose(DataConfig(), [source("t", questions)])
        assert {query.query_id for query in queries} == {"t/2", "t/3"}
        assert tasks["t"]["available"] == 3
        assert tasks["t"]["distinct"] == 2


def long_text(number: int) -> list[str]:
    draw = random.Random(number)
    return [f"w{draw.randrange(10_000)}" for _ in range(60)]


def test_near_duplicates_share_split_and_fold_across_tasks() -> None:
    ones, twos = [], []
    for number in range(150):
        words = long_text(number)
        ones.append(question(f"a/{number}", " ".join(words)))
        words[30] = "changed"  # 3 of 58 shingles: similarity 55/61
        twos.append(question(f"b/{number}", " ".join(words)))
    queries = chosen([source("a", ones), source("b", twos)], queries_per_task=150)
    side = {query.query_id: (query.split, query.fold) for query in queries}
    assert all(side[f"a/{n}"] == side[f"b/{n}"] for n in range(150))
    assert len({side[f"a/{n}"] for n in range(150)}) == 10
    apart = chosen(
        [source("a", ones), source("b", twos)], queries_per_task=150, near_duplicate_jaccard=0.95
    )
    side = {query.query_id: (query.split, query.fold) for query in apart}
    assert any(side[f"a/{n}"] != side[f"b/{n}"] for n in range(150))


def test_group_follows_the_member_that_a_smaller_sample_has() -> None:
    words = long_text(1)
    questions = []
    for number in range(40):
        words[59] = f"v{number}"
        questions.append(question(f"t/{number}", " ".join(words)))
    few = chosen([source("t", questions)], queries_per_task=1)
    many = chosen([source("t", questions)], queries_per_task=40)
    assert {(query.split, query.fold) for query in many} == {(few[0].split, few[0].fold)}


def test_leaders_measure_exactly() -> None:
    ten = " ".join("abcdefghijkl")  # 10 shingles
    assert len(shingles(ten)) == 10
    assert shingles("two words") == {"two words"}
    assert shingles("") == {""}
    longer = ten + " m n"  # 12 shingles, 10 shared: 0.833
    longest = ten + " m n o"  # 13 shingles: 0.769 of the first, 0.923 of the second
    assert leaders([ten, longer], 0.83) == [0, 0]
    assert leaders([ten, longer], 0.84) == [0, 1]
    assert leaders([ten, longest], 0.8) == [0, 1]
    assert leaders([ten, longest, longer], 0.8) == [0, 0, 0]  # joined by a chain
    assert leaders([], 0.8) == []


def test_mmlu_is_balanced_in_every_prefix() -> None:
    questions = [
        question(f"mmlu/{subject}/{n}", f"{subject} asks {n} {n * 7}", subject)
        for subject, count in (("big", 400), ("middle", 100), ("small", 5))
        for n in range(count)
    ]
    queries = chosen([source("mmlu", questions, "subject")], queries_per_task=200)
    for size in (3, 9, 15):
        counts = Counter(query.metadata["subject"] for query in queries[:size])
        assert set(counts.values()) == {size // 3}
    counts = Counter(query.metadata["subject"] for query in queries)
    assert counts["small"] == 5
    assert abs(counts["big"] - counts["middle"]) == 1


def test_fewer_rows_than_asked_for_are_all_taken(capsys: pytest.CaptureFixture[str]) -> None:
    queries = chosen([source("t", [question("t/1", "a"), question("t/2", "b")])])
    assert len(queries) == 2
    assert "t: 2 queries, all there are (300 asked for)" in capsys.readouterr().err


SCRIPTED = DataConfig(source="scripted", tasks=["x", "y"], queries_per_task=40)


def test_stage_writes_table_and_summary(tmp_path: Path) -> None:
    path = sample_queries(SCRIPTED, tmp_path / "out")
    queries = read_queries(path)
    summary = json.loads((path.parent / "queries.json").read_text())
    assert path == tmp_path / "out" / "queries.parquet"
    assert Counter(query.task for query in queries) == {"x": 40, "y": 40}
    assert summary["format_version"] == 1
    assert summary["config"]["tasks"] == ["x", "y"]
    assert summary["tasks"]["x"]["source"] == "scripted"
    assert summary["train"] + summary["test"] == 80
    assert summary["digest"] == sample.digest_queries(queries)


def test_second_call_keeps_what_is_there(tmp_path: Path) -> None:
    path = sample_queries(SCRIPTED, tmp_path)
    before = path.stat().st_mtime_ns
    sample_queries(SCRIPTED, tmp_path)
    assert path.stat().st_mtime_ns == before


def test_another_config_is_sampled_anew(tmp_path: Path) -> None:
    sample_queries(SCRIPTED, tmp_path)
    more = SCRIPTED.model_copy(update={"queries_per_task": 60})
    assert len(read_queries(sample_queries(more, tmp_path))) == 120
    assert json.loads((tmp_path / "queries.json").read_text())["config"]["queries_per_task"] == 60


@pytest.mark.parametrize("damage", ["cut", "removed", "older", "summary"])
def test_mixed_or_damaged_folder_is_made_anew(tmp_path: Path, damage: str) -> None:
    path = sample_queries(SCRIPTED, tmp_path)
    whole = read_queries(path)
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:500])
    elif damage == "removed":
        path.unlink()
    elif damage == "older":  # as after a kill between the summary and the table
        other = SCRIPTED.model_copy(update={"seed": 7})
        older = sample_queries(other, tmp_path / "other").read_bytes()
        path.write_bytes(older)
    else:
        (tmp_path / "queries.json").write_text('{"format_version": 1')
    assert read_queries(sample_queries(SCRIPTED, tmp_path)) == whole


def test_foreign_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("precious")
    with pytest.raises(ConfigError, match="not empty"):
        sample_queries(SCRIPTED, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_unknown_and_repeated_tasks(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="known are gsm8k"):
        sample_queries(DataConfig(tasks=["gsm8k", "sudoku"]), tmp_path)
    with pytest.raises(ConfigError, match="gsm8k twice"):
        sample_queries(DataConfig(tasks=["gsm8k", "gsm8k"]), tmp_path)


@pytest.mark.real_model
def test_six_benchmarks_from_the_mirror(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = sample_queries(DataConfig(), tmp_path)
    queries = read_queries(path)
    assert Counter(query.task for query in queries) == dict.fromkeys(BENCHMARK_TASKS, 300)
    summary = json.loads((tmp_path / "queries.json").read_text())
    available = {task: part["available"] for task, part in summary["tasks"].items()}
    assert available == {
        "gsm8k": 1319,
        "math": 5000,
        "mbpp": 500,
        "arc_easy": 2376,
        "arc_challenge": 1172,
        "mmlu": 14042,
    }
    subjects = Counter(query.metadata["subject"] for query in queries if query.task == "mmlu")
    assert len(subjects) == 57
    assert set(subjects.values()) == {5, 6}
    for query in queries:
        assert query.prompt
        assert all(query.reference)
        assert query.reference_text
        if query.metadata["kind"] == "letter":
            letters = [line[0] for line in query.prompt.split("\n") if line[1:3] == ". "]
            assert query.reference[0] in letters
        assert bool(query.tests) == (query.task == "mbpp")
    train = sum(query.split == "train" for query in queries)
    assert abs(train - 0.7 * 1800) < 5 * math.sqrt(1800 * 0.21)
    # Kept without a look at hub or mirror: an empty cache folder stays empty.
    monkeypatch.setenv("HIERROUTER_HOME", str(tmp_path / "empty"))
    assert read_queries(sample_queries(DataConfig(), tmp_path)) == queries
    assert not mirror.home().exists()
