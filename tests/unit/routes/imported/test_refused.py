"""What is wrong with a file ends in one line that says where and what would be right."""

from __future__ import annotations

import gzip
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from hierrouter.config import ModelSpec
from hierrouter.errors import ConfigError
from hierrouter.routes.imported import files as files_module
from hierrouter.routes.imported.importing import import_outcomes

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

Row = dict[str, Any]
FORMATS = ("log.csv", "log.jsonl", "log.parquet")


@pytest.fixture
def refused(saved, config, tmp_path) -> Callable[..., str]:
    """The line in which importing rows (or a file) ends; nothing is left behind."""

    def run(given: list[Row] | Path, name: str = "log.csv", **options: Any) -> str:
        path = saved(given, name) if isinstance(given, list) else given
        out = tmp_path / "tree"
        with pytest.raises(ConfigError) as caught:
            import_outcomes(path, out, options.pop("config", config), **options)
        assert caught.value.exit_code == 2
        assert not out.exists() or [p.name for p in out.iterdir() if p.name != ".tmp-lock"] == []
        line = str(caught.value)
        assert "\n" not in line
        return line.replace(str(tmp_path), "").lstrip("/")

    return run


def place(name: str, row: int) -> str:
    """Where a row from 0 is: prompts hold a line break, which CSV keeps."""
    return {
        "log.csv": f"line {2 + 2 * row}",
        "log.jsonl": f"line {1 + row}",
        "log.parquet": f"row {1 + row}",
    }[name]


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("score", 1.25, "score: 1.25 is not in [0, 1]; bring scores to that range"),
        ("score", -0.5, "score: -0.5 is not in [0, 1]"),
        ("score", 1.0000001, "score: 1.0000001 is not in [0, 1]"),
        ("score", float("nan"), "score: NaN is not in [0, 1]"),
        ("score", None, "score: is missing; every row needs one"),
        ("cost", -1.0, "cost: -1 is not allowed; should be a number from 0"),
        ("cost", float("inf"), "cost: inf is not allowed"),
        ("cost", None, "cost: is missing"),
        ("prompt", "", "prompt: is missing"),
        ("prompt", " \n ", "prompt: is blank"),
        ("query_id", "", "query_id: is missing"),
        ("task", None, "task: is missing"),
        ("model", None, "model: is missing"),
        ("split", "valid", 'split: "valid" is not allowed; should be train or test, or empty'),
        ("latency_s", -2.0, "latency_s: -2 is not allowed"),
    ],
)
def test_a_wrong_value_is_named_with_its_place(name, key, value, words, make_rows, refused) -> None:
    rows = make_rows(6)
    if key in ("split", "latency_s"):
        for row in rows:
            row[key] = "train" if key == "split" else 0.5
    rows[7][key] = value
    if key == "prompt" and name == "log.parquet" and not value.strip():
        rows[7][key] = value or ""
    line = refused(rows, name)
    assert line.startswith(f"{name}: {place(name, 7)}: ")
    assert words in line.replace("is blank", "is missing" if value == "" else "is blank")


@pytest.mark.parametrize(
    ("name", "key", "value", "words"),
    [
        ("log.csv", "score", "good", 'score: "good" is not a number'),
        ("log.csv", "cost", "$0.1", 'cost: "$0.1" is not a number'),
        ("log.jsonl", "score", "0.5x", 'score: "0.5x" is not a number'),
        ("log.jsonl", "score", [1], "score: [1] is not a number"),
        ("log.jsonl", "prompt", 7, "prompt: 7 is not text"),
        ("log.jsonl", "prompt", [{"role": "user"}], 'prompt: [{"role": "user"}] is not text'),
        ("log.jsonl", "model", {"a": 1}, 'model: {"a": 1} is not text'),
    ],
)
def test_a_wrong_type_is_named_with_its_place(name, key, value, words, make_rows, refused) -> None:
    rows = make_rows(6)
    rows[7][key] = value
    line = refused(rows, name)
    assert line.startswith(f"{name}: {place(name, 7)}: {words}")


@pytest.mark.parametrize(
    ("name", "key", "first", "value", "words"),
    [
        (
            "log.jsonl",
            "score",
            True,
            1,
            "score: 1 is a number, and the first row has true or false",
        ),
        (
            "log.jsonl",
            "score",
            1,
            True,
            "score: true is no number, as the first row has one; write",
        ),
        ("log.jsonl", "score", 1, "0.5", 'score: "0.5" is text; write it as a plain number'),
        ("log.jsonl", "cost", 1, "0.5", 'cost: "0.5" is text; write it as a plain number'),
        ("log.jsonl", "query_id", "a", 5, "query_id: 5 is a number, and the first row has text;"),
        ("log.jsonl", "query_id", 5, "a", 'query_id: "a" is text, and the first row has a number'),
        ("log.jsonl", "query_id", 5, 2**63, f"query_id: {2**63} is too large a number; write"),
        ("log.csv", "score", 1, "true", 'score: "true" is no number, as the first row has one'),
        ("log.csv", "score", "true", 0.5, 'score: "0.5" is a number, and the first row has true'),
        ("log.csv", "cost", 1, "1_000", 'cost: "1_000" is text; write it as a plain number'),
    ],
)
def test_a_value_of_another_kind_than_the_first_is_named_with_its_place(
    name, key, first, value, words, make_rows, refused
) -> None:
    rows = make_rows(6)
    for row in rows:
        row[key] = first
    rows[7][key] = value
    line = refused(rows, name)
    assert line.startswith(f"{name}: {place(name, 7)}: {words}")


@pytest.mark.parametrize(
    ("column", "kind", "words"),
    [
        ("score", pa.string(), "the column score holds string; should be numbers"),
        ("prompt", pa.list_(pa.string()), "the column prompt holds list"),
        ("cost", pa.date32(), "the column cost holds date32[day]; should be numbers"),
    ],
)
def test_a_parquet_column_of_another_type_is_refused(
    column, kind, words, make_rows, saved, refused
) -> None:
    path = saved(make_rows(6), "log.parquet")
    table = pq.read_table(path)
    at = table.column_names.index(column)
    pq.write_table(table.set_column(at, column, pa.nulls(len(table), kind)), path)
    assert words in refused(path)


@pytest.mark.parametrize("name", FORMATS)
def test_a_pair_that_stands_twice_is_named_with_both_places(name, make_rows, refused) -> None:
    rows = make_rows(6)
    rows.append({**rows[4], "score": 0.25})
    line = refused(rows, name)
    assert line.startswith(f"{name}: {place(name, 18)}: query law/1 has an outcome of openai/large")
    assert f"on {place(name, 4)} already; keep one row" in line
    assert "already; keep one row" in refused(rows, name, partial=True)


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize(
    ("key", "value"), [("prompt", "Another?\nYes"), ("task", "law"), ("split", "test")]
)
def test_a_query_has_one_prompt_task_and_split(name, key, value, make_rows, refused) -> None:
    rows = [{**row, "split": "train"} for row in make_rows(6)]
    rows[8][key] = value
    line = refused(rows, name)
    assert line.startswith(f"{name}: {place(name, 8)}: {key}: query code/2 has another {key} on ")
    assert f"on {place(name, 6)}; a query has one {key}" in line


def test_missing_pairs_are_counted_and_some_named(make_rows, refused) -> None:
    rows = make_rows(6)
    line = refused([row for k, row in enumerate(rows) if k not in (1, 5, 9, 10)])
    assert "4 of 18 outcomes are missing: code/0 of openai/large, law/1 of local" in line
    assert "law/3 of openai/large and 1 more; add them, or import what there is with --partial" in (
        line
    )


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize(
    ("renamed", "words"),
    [
        ({"score": "scores"}, "no column score (is it scores? rename that)"),
        ({"score": "quality"}, "no column score (is it quality? rename that)"),
        ({"cost": "spend"}, "no column cost, or tokens_in and tokens_out (is it spend?"),
        ({"cost": "tokens_in"}, "no column tokens_out"),
        ({"prompt": "Question"}, "no column prompt (is it Question?"),
        ({"model": "weather"}, "no column model; its columns are: query_id, task, prompt, weather"),
    ],
)
def test_a_missing_column_is_named_with_the_nearest(
    name, renamed, words, make_rows, refused
) -> None:
    rows = [{renamed.get(key, key): value for key, value in row.items()} for row in make_rows(6)]
    assert words in refused(rows, name)


def test_a_slip_of_an_optional_column_is_refused_and_others_are_passed_over(
    make_rows, refused, saved, config, tmp_path
) -> None:
    rows = make_rows(6)
    assert "unknown column splits (did you mean split?)" in refused(
        [{**row, "splits": "train"} for row in rows]
    )
    others = [{**row, "user": "u", "metadata": {"a": [1, {"b": 2}]}} for row in rows]
    import_outcomes(saved(others, "other.jsonl"), tmp_path / "other", config)


def test_a_column_that_stands_twice_is_refused(saved, make_rows, refused) -> None:
    path = saved(make_rows(6))
    text = path.read_text().replace("model,score", "score,score", 1)
    path.write_text(text)
    assert "the column score stands twice" in refused(path)


def test_a_key_that_a_line_lacks_is_missing_there(saved, make_rows, refused) -> None:
    rows = make_rows(6)
    del rows[7]["model"]
    assert refused(rows, "log.jsonl").startswith("log.jsonl: line 8: model: is missing")


@pytest.mark.parametrize("name", ["log.csv", "log.jsonl", "log.jsonl.gz", "log.csv.gz"])
def test_an_empty_file_is_refused(name, saved, tmp_path, refused) -> None:
    path = tmp_path / name
    path.write_bytes(gzip.compress(b"\n") if name.endswith("gz") else b"")
    words = refused(path)
    assert "holds no rows" in words or "no column" in words
    path.write_bytes(b"")
    assert "holds no rows" in refused(path)


def test_files_without_rows_are_refused(saved, make_rows, tmp_path, refused) -> None:
    path = saved(make_rows(2), "log.parquet")
    pq.write_table(pq.read_table(path).slice(0, 0), path)
    assert "holds no rows" in refused(path)
    header = tmp_path / "log.csv"
    header.write_text("query_id,task,prompt,model,score,cost\n")
    assert "holds no rows" in refused(header)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b'{"query_id": ', "log.jsonl: line 1: is not JSON"),
        (b"GOOD\n{broken}\n", "log.jsonl: line 2: is not JSON"),
        (b"GOOD\n\n[1]\n", "log.jsonl: line 3: is not a JSON object"),
        (b"GOOD\n" + b'{"prompt": "\xff"}\n', "log.jsonl: line 2: is not UTF-8"),
        (
            b'GOOD\n\n{"a": {"b": 1}, "task": "x", "task": "y"}\n',
            "log.jsonl: line 3: has task twice",
        ),
        (
            b'GOOD\n{"user": "\\ud83d\\ude00", "b": ["\\uDC00"]}\n',
            "log.jsonl: line 2: holds half of a surrogate pair",
        ),
    ],
)
@pytest.mark.parametrize("looked_at", [1000, 1])
def test_broken_lines_are_named(
    looked_at, content, words, saved, make_rows, refused, tmp_path, monkeypatch
) -> None:
    monkeypatch.setattr(files_module, "LOOKED_AT", looked_at)
    good = saved(make_rows(1), "good.jsonl").read_bytes().splitlines()[0]
    path = tmp_path / "log.jsonl"
    path.write_bytes(content.replace(b"GOOD", good))
    assert refused(path).startswith(words)


def test_a_wrong_value_below_lines_that_the_parser_alone_takes_is_named_by_its_row(
    saved, make_rows, refused, monkeypatch
) -> None:
    monkeypatch.setattr(files_module, "LOOKED_AT", 3)
    rows = make_rows(6)
    rows[7]["score"] = 7
    path = saved(rows, "log.jsonl")
    lines = path.read_text().splitlines()
    path.write_text("\n".join([*lines[:4], lines[4] + lines[5], *lines[6:], ""]))
    assert refused(path).startswith("log.jsonl: row 8: score: 7 is not in [0, 1]")


def test_keys_that_are_not_ours_may_stand_twice(saved, make_rows, config, tmp_path) -> None:
    path = saved([{**row, "user": "\U0001f600"} for row in make_rows(6)], "log.jsonl")
    twice = '{"user": {"task": 1, "task": 2}, "user": 2, '
    path.write_text("".join(twice + line[1:] for line in path.read_text().splitlines(True)))
    import_outcomes(path, tmp_path / "tree", config)


def test_what_only_the_parser_sees_names_no_row(saved, make_rows, refused) -> None:
    path = saved([{**row, "other": "LARGE"} for row in make_rows(6)], "log.jsonl")
    path.write_text(path.read_text().replace('"LARGE"', "1e999"))
    assert refused(path).endswith("(JSON parse error: Number too big to be stored in double.)")


def test_a_row_of_csv_with_too_few_values_is_named(saved, make_rows, refused) -> None:
    path = saved(make_rows(4))
    path.write_text(path.read_text() + "x,y,z\n")
    assert refused(path).startswith("log.csv: line 26: has 3 values, the header 6 columns; quote")


def test_what_is_no_such_file_is_refused(tmp_path, refused) -> None:
    assert "there is no such file" in refused(tmp_path / "gone.csv")
    assert "is a folder" in refused(tmp_path)
    (tmp_path / "log.json").write_text("[]")
    assert "an object a line, saved as .jsonl" in refused(tmp_path / "log.json")
    (tmp_path / "log.parquet").write_text("no")
    assert "not a whole Parquet file" in refused(tmp_path / "log.parquet")
    (tmp_path / "log.csv.gz").write_text("no")
    assert "cannot be read" in refused(tmp_path / "log.csv.gz")


def test_models_and_rates_that_are_missing_are_named(make_rows, refused, config) -> None:
    def pool_of(*models: ModelSpec) -> Any:
        return config.model_copy(
            update={"pool": config.pool.model_copy(update={"models": list(models)})}
        )

    rows = make_rows(6)
    gone = ModelSpec(name="gone", model="vendor/gone", backend="imported", base_rate=1)
    line = refused(rows, config=pool_of(gone))
    assert "no outcomes of gone, which the config's pool names; the models there are local" in line
    tokens = [{**row, "tokens_in": 1, "tokens_out": 2} for row in rows]
    for row in tokens:
        del row["cost"]
    assert "no rate for local, openai/large, openai/small" in refused(tokens)
    del tokens[0]["tokens_out"]
    assert "line 1: tokens_out: is missing" in refused(tokens, "log.jsonl")


def test_wrong_options_are_refused(make_rows, refused, tmp_path) -> None:
    assert "--same-encoder: there are no vectors" in refused(make_rows(6), same_encoder=True)
    assert "no such file" in refused(make_rows(6), embeddings=tmp_path / "gone.npy")


def test_vectors_in_the_file_need_one_width(make_rows, refused) -> None:
    rows = [{**row, "embedding": [0.5, 1.0]} for row in make_rows(6)]
    rows[3]["embedding"] = [1.0]
    line = refused(rows, "log.jsonl")
    assert line.startswith("log.jsonl: line 4: embedding: has 1 numbers, that of the first row 2")
    for name, value in (("parquet", float("nan")), ("parquet", None), ("jsonl", None)):
        rows[3]["embedding"] = [1.0, value]
        assert "4: embedding: is not a list of numbers" in refused(rows, f"log.{name}")
    for row in (3, 0):
        rows[row]["embedding"] = None
        line = refused(rows, "log.jsonl")
        assert line == (
            f"log.jsonl: line {row + 1}: embedding: is missing; the first row of each query needs "
            "its vector"
        )


def test_lists_of_one_size_of_which_some_are_missing_are_told_of(
    saved, make_rows, refused, config
) -> None:
    rows = [{**row, "embedding": [0.5, 1.0]} for row in make_rows(6)]
    rows[1]["embedding"] = None
    path = saved(rows, "log.parquet")
    import_outcomes(path, path.parent / "any", config)  # below a query's first row none is needed
    table = pq.read_table(path)
    sized = table["embedding"].cast(pa.list_(pa.float32(), 2))
    pq.write_table(table.set_column(table.num_columns - 1, "embedding", sized), path)
    line = refused(path)
    assert line.startswith("log.parquet: embedding: is missing in some rows")
    assert "save the column as lists of any size" in line


def test_an_earlier_import_stays_when_the_new_file_is_wrong(
    make_rows, saved, config, tmp_path
) -> None:
    out = import_outcomes(saved(make_rows(6)), tmp_path / "kept", config)
    before = {path.name: path.read_bytes() for path in out.glob("*.*")}
    rows = make_rows(6)
    rows[3]["score"] = 7
    with pytest.raises(ConfigError):
        import_outcomes(saved(rows), out, config)
    assert {path.name: path.read_bytes() for path in out.glob("*.*")} == before
