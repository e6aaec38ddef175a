"""What real logs look like: other separators, empty columns, rows without a score."""

from __future__ import annotations

import csv
import gzip
import io
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from hierrouter.config import EvaluationConfig, ModelSpec, PoolConfig, TrainingConfig
from hierrouter.errors import ConfigError, HierRouterError
from hierrouter.evaluation.evaluate import evaluate_router
from hierrouter.files import read_json
from hierrouter.learning.train import train_router
from hierrouter.routes.imported.importing import import_outcomes
from hierrouter.routes.load import load_outcomes, tree_info

if TYPE_CHECKING:
    from pathlib import Path

Row = dict[str, Any]
TRAINING = TrainingConfig(moves="direct", learner="regression")
EVALUATION = EvaluationConfig(alphas=[0.1], bootstrap=100, cross_fit=False)


def text_of(rows: list[Row], separator: str) -> str:
    file = io.StringIO(newline="")
    writer = csv.DictWriter(file, list(rows[0]), delimiter=separator)
    writer.writeheader()
    writer.writerows(rows)
    return file.getvalue()


def said(capsys) -> str:
    return " ".join(capsys.readouterr().err.split())


def refusal(path: Path, config: Any, out: Path, **options: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        import_outcomes(path, out, config, **options)
    return str(caught.value).removeprefix(f"{path}: ")


# Texts


@pytest.mark.parametrize(
    ("encoding", "words"),
    [
        ("cp1252", "line 2: is not UTF-8; save it as UTF-8"),
        ("utf-16", "is UTF-16; save it as UTF-8"),
    ],
)
@pytest.mark.parametrize("name", ["log.csv", "log.jsonl"])
def test_other_encodings_are_named(name, encoding, words, saved, make_rows, config, tmp_path):
    rows = make_rows(6)
    rows[0]["task"] = "Prüfung"
    path = saved(rows, name)
    text = path.read_text().replace("\\u00fc", "ü")
    path.write_bytes(text.encode(encoding))
    line = refusal(path, config, tmp_path / "tree")
    assert line == (words if name == "log.csv" else words.replace("line 2", "line 1"))


@pytest.mark.parametrize(
    ("separator", "name"),
    [(";", "log.csv"), ("\t", "log.csv"), ("\t", "log.tsv"), (",", "log.tsv"), (";", "log.csv.gz")],
)
def test_separators_are_found(separator, name, saved, make_rows, config, tmp_path) -> None:
    rows = make_rows(12)
    first = import_outcomes(saved(rows, "plain.csv"), tmp_path / "plain", config)
    content = text_of(rows, separator).encode()
    path = tmp_path / name
    path.write_bytes(gzip.compress(content) if name.endswith("gz") else content)
    other = import_outcomes(path, tmp_path / "other", config)
    assert tree_info(other)["tree_digest"] == tree_info(first)["tree_digest"]
    rows[4]["score"] = 7
    path.write_bytes(text_of(rows, separator).encode())
    if not name.endswith("gz"):
        assert refusal(path, config, tmp_path / "other").startswith("line 10: score: 7 is not in")


def test_a_missing_column_is_named_whatever_the_separator(make_rows, config, tmp_path) -> None:
    path = tmp_path / "log.csv"
    path.write_text(text_of([{**row, "quality": 1} for row in make_rows(2)], ";"))
    path.write_text(path.read_text().replace("score", "points", 1))
    assert "no column score (is it quality?" in refusal(path, config, tmp_path / "tree")


def test_decimal_commas_are_told_of(make_rows, config, tmp_path) -> None:
    rows = make_rows(2)
    rows[1]["score"] = "0,5"
    path = tmp_path / "log.csv"
    path.write_text(text_of(rows, ";"))
    line = refusal(path, config, tmp_path / "tree")
    assert line == 'line 4: score: "0,5" is not a number; write decimals with a point'


# Columns


@pytest.mark.parametrize("name", ["log.csv", "log.jsonl", "log.parquet"])
def test_tokens_may_be_missing_where_costs_are_there(
    name, saved, make_rows, config, tmp_path
) -> None:
    rows = [{**row, "tokens_in": 100, "tokens_out": 300} for row in make_rows()]
    for number, row in enumerate(rows):
        if number % 4 == 1:
            row["tokens_in"] = None
        if number % 5 == 1:
            row |= {"tokens_out": None, "cost": 9.0}
    tree = import_outcomes(saved(rows, name), tmp_path / "tree", config)
    pool = PoolConfig.model_validate(tree_info(tree)["pool"])
    rates = {spec.name: spec.rate for spec in pool.models}
    expected = {"local": 0.0075, "openai-large": 0.005, "openai-small": 0.0025}
    assert rates == pytest.approx(expected)  # of the rows that tell both


@pytest.mark.parametrize("column", ["latency_ms", "latency", "tokens", "choice"])
def test_columns_of_a_like_name_are_passed_over_with_a_word(
    column, saved, make_rows, config, tmp_path, capsys
) -> None:
    import_outcomes(saved([{**row, column: 3} for row in make_rows(6)]), tmp_path / "tree", config)
    near = {"choice": "choices", "tokens": "tokens_in"}.get(column, "latency_s")
    assert f"the column {column} is passed over; if it is {near}, rename it" in said(capsys)


@pytest.mark.parametrize("column", ["splits", "Split", "embeddings", "Latency_S", "split "])
def test_slips_of_case_and_plural_are_refused(column, saved, make_rows, config, tmp_path) -> None:
    path = saved([{**row, column: "train"} for row in make_rows(6)])
    assert "rename it" in refusal(path, config, tmp_path / "tree")


def test_a_parquet_column_of_nothing_is_none(saved, make_rows, config, tmp_path) -> None:
    plain = import_outcomes(saved(make_rows(6)), tmp_path / "plain", config)
    path = saved(make_rows(6), "log.parquet")
    table = pq.read_table(path)
    for column in ("split", "latency_s", "tokens_in", "embedding", "choices"):
        table = table.append_column(column, pa.nulls(len(table)))
    pq.write_table(table, path)
    tree = import_outcomes(path, tmp_path / "tree", config)
    assert tree_info(tree)["tree_digest"] == tree_info(plain)["tree_digest"]
    for column, words in (("cost", "no column cost"), ("score", "score holds null")):
        at = table.column_names.index(column)
        pq.write_table(table.set_column(at, column, pa.nulls(len(table))), path)
        assert words in refusal(path, config, tmp_path / "tree")


def test_without_costs_quality_alone_is_compared(saved, make_rows, config, tmp_path) -> None:
    rows = make_rows(60)
    for row in rows:
        del row["cost"]
    line = refusal(saved(rows), config, tmp_path / "tree")
    assert line.endswith("where costs do not matter, give each row a cost of 0")
    free = saved([{**row, "cost": 0} for row in rows])
    tree = import_outcomes(free, tmp_path / "tree", config)
    router = train_router(TRAINING, tree, tmp_path / "router")
    judged = evaluate_router(EVALUATION, tree, router, tmp_path / "evaluation")
    policies = read_json(judged / "metrics.json")["policies"]
    assert policies["router"]["reward"]["mean"] == policies["router"]["quality"]["mean"]


# Rows without a score, and models that are not wanted


@pytest.mark.parametrize("name", ["log.csv", "log.jsonl", "log.parquet"])
def test_partial_leaves_out_rows_without_a_score(
    name, saved, make_rows, config, tmp_path, capsys
) -> None:
    rows = make_rows()
    left = [number for number in range(120) if number % 7 == 0]
    first = import_outcomes(
        saved([row for number, row in enumerate(rows) if number not in left], name),
        tmp_path / "without",
        config,
        partial=True,
    )
    for number in left:
        rows[number] |= {"score": None, "cost": None}
    path = saved(rows, name)
    line = refusal(path, config, tmp_path / "tree")
    assert "score: is missing; every row needs one, or import with --partial" in line
    capsys.readouterr()
    tree = import_outcomes(path, tmp_path / "tree", config, partial=True)
    assert f"note: {len(left)} rows without a score are left out" in said(capsys)
    assert tree_info(tree)["tree_digest"] == tree_info(first)["tree_digest"]
    rows.append({**rows[5], "score": 0.25})
    line = refusal(saved(rows, name), config, tmp_path / "tree", partial=True)
    # The rows of the file are counted, with those that are left out.
    lines = {"log.csv": (242, 12), "log.jsonl": (121, 6), "log.parquet": (121, 6)}[name]
    word = "row" if name == "log.parquet" else "line"
    assert line.startswith(f"{word} {lines[0]}: query law/1 has an outcome of local on")
    assert f"on {word} {lines[1]} already" in line


def test_scores_of_true_and_false_may_begin_with_none(saved, make_rows, config, tmp_path) -> None:
    rows = [{**row, "score": bool(row["score"])} for row in make_rows()]
    rows[0]["score"] = None
    for name in ("log.csv", "log.jsonl", "log.parquet"):
        tree = import_outcomes(saved(rows, name), tmp_path / f"t-{name}", config, partial=True)
        assert read_json(tree / "tree.json")["outcomes"]["outcomes"] == 119


def test_vectors_stay_with_their_queries_where_rows_are_left_out(
    saved, make_rows, tmp_path
) -> None:
    rows = make_rows()
    rows = [*rows[3:], *rows[:3]]
    rows[0]["score"] = rows[1]["score"] = rows[2]["score"] = None
    again = [{**row, "score": 1.0} for row in rows[:3]]
    ids = list(dict.fromkeys(row["query_id"] for row in rows))
    exact = np.random.default_rng(1).normal(size=(40, 6)).astype(np.float32)
    np.save(tmp_path / "vectors.npy", exact)
    tree = import_outcomes(
        saved([*rows, *again]),
        tmp_path / "tree",
        partial=True,
        embeddings=tmp_path / "vectors.npy",
    )
    found = load_outcomes(tree, "accuracy")
    assert len(found) == 40
    at = [ids.index(query_id) for query_id in found.query_ids]
    np.testing.assert_allclose(found.embeddings[:, 0], exact[at], atol=0.02)


@pytest.mark.parametrize("name", ["log.csv", "log.jsonl", "log.parquet"])
def test_a_file_without_any_score_is_refused(name, saved, make_rows, config, tmp_path) -> None:
    rows = make_rows(6)
    for row in rows:
        row["score"] = None
    if name == "log.parquet":
        rows[0]["score"] = float("nan")
    line = refusal(saved(rows, name), config, tmp_path / "tree", partial=True)
    assert "holds no rows with a score" in line


def test_what_is_said_of_models_that_are_left_out_may_be_anything(
    saved, make_rows, config, tmp_path, capsys
) -> None:
    rows = make_rows()
    for row in rows:
        if row["model"] == "local":
            row |= {"score": 55, "cost": None}
    models = [
        ModelSpec(name="S", model="openai/small", backend="imported", base_rate=0.5),
        ModelSpec(name="L", model="openai/large", backend="imported", base_rate=2.0),
    ]
    pool = config.pool.model_copy(update={"models": models})
    path = saved(rows)
    tree = import_outcomes(path, tmp_path / "tree", config.model_copy(update={"pool": pool}))
    assert load_outcomes(tree, "accuracy").models == ("S", "L")
    assert "left out, as the pool does not name them: local" in said(capsys)
    assert "score: 55 is not in" in refusal(path, config, tmp_path / "all")


# What cannot be judged, and what says little


def test_a_partial_log_without_whole_test_queries_says_what_to_add(
    saved, make_rows, config, tmp_path, capsys
) -> None:
    rows = [
        {**row, "split": ("train", "train", "test")[number // 3 % 3]}
        for number, row in enumerate(make_rows(60))
        if number // 3 % 3 < 2 or number % 3
    ]
    tree = import_outcomes(saved(rows), tmp_path / "tree", config, partial=True)
    assert "note: no test query has the outcomes of all models" in said(capsys)
    router = train_router(TRAINING, tree, tmp_path / "router")
    with pytest.raises(HierRouterError, match="no test query has the outcomes") as caught:
        evaluate_router(EVALUATION, tree, router, tmp_path / "evaluation")
    assert "queries_per_task" not in str(caught.value)
    few = saved([{**row, "split": "test"} for row in make_rows(6)], "few.csv")
    thin = import_outcomes(few, tmp_path / "few", config)
    with pytest.raises(ConfigError, match="import more of them"):
        train_router(TRAINING, thin, tmp_path / "none")


def test_many_small_tasks_are_told_of(saved, make_rows, config, tmp_path, capsys) -> None:
    import_outcomes(saved(make_rows(40)), tmp_path / "few", config)
    assert " tasks, " not in said(capsys)
    rows = [{**row, "task": row["query_id"]} for row in make_rows(40)]
    import_outcomes(saved(rows, "many.csv"), tmp_path / "many", config)
    assert "note: 40 tasks, 40 with under 10 queries" in said(capsys)


# Numbers of choices


@pytest.mark.parametrize("name", ["log.csv", "log.jsonl", "log.parquet"])
def test_numbers_of_choices_correct_the_oracle_for_guesses(
    name, saved, make_rows, config, tmp_path
) -> None:
    rows = make_rows(120)
    for row in rows:
        row["choices"] = 4 if row["task"] == "law" else None
    tree = import_outcomes(saved(rows, name), tmp_path / "tree", config)
    found = load_outcomes(tree, "accuracy")
    assert found.choices is not None
    assert found.choices.tolist() == [4 if task == "law" else 0 for task in found.tasks]
    router = train_router(TRAINING, tree, tmp_path / "router")
    judged = evaluate_router(EVALUATION, tree, router, tmp_path / "evaluation")
    quality = {
        policy: each["quality"]["mean"]
        for policy, each in read_json(judged / "metrics.json")["policies"].items()
    }
    assert quality["oracle_corrected"] < quality["oracle"]


def test_choices_of_graded_answers_are_passed_over(
    saved, make_rows, config, tmp_path, capsys
) -> None:
    rows = [{**row, "choices": 4} for row in make_rows(12)]
    rows[4]["score"] = 0.5
    tree = import_outcomes(saved(rows), tmp_path / "tree", config)
    assert "note: the choices of 1 queries are passed over" in said(capsys)
    found = load_outcomes(tree, "accuracy")
    assert found.choices is not None
    assert sorted(found.choices.tolist()) == [0, *[4] * 11]


@pytest.mark.parametrize("name", ["log.csv", "log.jsonl", "log.parquet"])
def test_a_column_of_the_choices_themselves_is_passed_over(
    name, saved, make_rows, config, tmp_path, capsys
) -> None:
    rows = [{**row, "choices": ["yes", "no"]} for row in make_rows(6)]
    tree = import_outcomes(saved(rows, name), tmp_path / "tree", config)
    assert "the column choices is passed over" in said(capsys)
    assert load_outcomes(tree, "accuracy").choices is None


@pytest.mark.parametrize(("value", "words"), [(2.5, "2.5 is not allowed"), (-1, "-1 is not")])
def test_choices_are_whole_numbers(value, words, saved, make_rows, config, tmp_path) -> None:
    rows = [{**row, "choices": 4} for row in make_rows(6)]
    rows[4]["choices"] = value
    assert words in refusal(saved(rows), config, tmp_path / "tree")
    rows[4]["choices"] = 3
    assert "has another choices on" in refusal(saved(rows), config, tmp_path / "tree")
