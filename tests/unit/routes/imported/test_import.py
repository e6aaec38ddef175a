"""Importing outcomes: the same tree from every format, and what becomes of each value."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from hierrouter.config import ModelSpec, PoolConfig
from hierrouter.data.queries import digest_queries, read_queries
from hierrouter.data.sample import hash_unit, normalise
from hierrouter.errors import ConfigError, DamagedFileError, HierRouterError
from hierrouter.files import read_json
from hierrouter.routes.encoder import HashingEncoder
from hierrouter.routes.imported import files as files_module
from hierrouter.routes.imported import vectors as vectors_module
from hierrouter.routes.imported.importing import import_outcomes
from hierrouter.routes.imported.names import valid_name, valid_names
from hierrouter.routes.load import load_outcomes, tree_info
from hierrouter.routes.tree import RouteTree, pool_of
from hierrouter.routes.upkeep import merge_trees
from hierrouter.routes.verify import verify_tree

if TYPE_CHECKING:
    from pathlib import Path

Row = dict[str, Any]
FORMATS = ("log.csv", "log.jsonl", "log.ndjson", "log.parquet", "log.csv.gz", "log.jsonl.gz")


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "tree"


def same_of(tree: Path) -> tuple[Any, ...]:
    """What does not depend on the file's format."""
    info = tree_info(tree)
    return info["query_digest"], info["tree_digest"], info["pool"], info["data"]


@pytest.mark.parametrize("name", FORMATS[1:])
def test_every_format_gives_the_same_tree(name, saved, make_rows, config, tmp_path) -> None:
    rows = make_rows()
    first = import_outcomes(saved(rows), tmp_path / "csv", config)
    other = import_outcomes(saved(rows, name), tmp_path / "other", config)
    assert same_of(first) == same_of(other)
    assert np.array_equal(
        load_outcomes(first, "accuracy").embeddings, load_outcomes(other, "accuracy").embeddings
    )


def test_values_are_those_of_the_file(saved, make_rows, config, out) -> None:
    rows = make_rows()
    import_outcomes(saved(rows), out, config)
    found = load_outcomes(out, "accuracy", moves="direct")
    assert found.models == ("local", "openai-large", "openai-small")
    assert found.hops == 1
    assert len(found) == 40
    called = {"local": "local", "openai-large": "openai/large", "openai-small": "openai/small"}
    known = {(row["query_id"], row["model"]): row for row in rows}
    for at, query_id in enumerate(found.query_ids):
        for number, model in enumerate(found.models):
            row = known[query_id, called[model]]
            assert found.solve_quality[at, 0, number] == row["score"]
            assert found.solve_cost[at, 0, number] == row["cost"]
            assert found.tasks[at] == row["task"]
    assert read_json(out / "tree.json")["outcomes"]["called"] == called
    encoder = HashingEncoder(32)
    prompts = {row["query_id"]: row["prompt"] for row in rows}
    exact = encoder.encode([prompts[name] for name in found.query_ids])
    np.testing.assert_allclose(found.embeddings[:, 0], exact, atol=0.005)
    two_part = load_outcomes(out, "accuracy", "two_part")
    assert two_part.embeddings.shape == (40, 1, 64)
    assert verify_tree(out) == []


def test_order_of_the_rows_does_not_matter(saved, make_rows, config, tmp_path) -> None:
    rows = make_rows()
    first = import_outcomes(saved(rows), tmp_path / "one", config)
    random.Random(3).shuffle(rows)
    assert same_of(import_outcomes(saved(rows), tmp_path / "two", config)) == same_of(first)


def test_queries_are_a_table_like_any_other(saved, make_rows, config, out) -> None:
    import_outcomes(saved(make_rows()), out, config)
    queries = read_queries(out / "queries.parquet")
    assert digest_queries(queries) == tree_info(out)["query_digest"]
    assert [query.task for query in queries] == ["code"] * 20 + ["law"] * 20
    for task in ("code", "law"):
        units = [hash_unit("sample", 42, normalise(q.prompt)) for q in queries if q.task == task]
        assert units == sorted(units)


def test_sides_follow_the_rules_of_a_sample(saved, make_rows, config, out) -> None:
    import_outcomes(saved(make_rows(400)), out, config)
    queries = read_queries(out / "queries.parquet")
    for query in queries:
        text = normalise(query.prompt)
        assert (query.split == "train") == (hash_unit("split", 42, text) < 0.7)
        assert query.fold == int(5 * hash_unit("fold", 42, text))
    assert 0.6 < sum(query.split == "train" for query in queries) / 400 < 0.8


def near(rows: list[Row]) -> list[Row]:
    """The queries, and of each one more that differs in its last words."""
    more = []
    for row in rows:
        words = " ".join(f"{row['query_id']}{k}" for k in range(60))
        for copy in ("", "again"):
            more.append(
                {**row, "query_id": row["query_id"] + copy, "prompt": f"{words} {copy} end."}
            )
    return more


def test_near_duplicates_never_straddle(saved, make_rows, config, out) -> None:
    import_outcomes(saved(near(make_rows(200))), out, config)
    sides = {q.query_id: (q.split, q.fold) for q in read_queries(out / "queries.parquet")}
    assert len(sides) == 400
    assert {split for split, _ in sides.values()} == {"train", "test"}
    for name, side in sides.items():
        assert sides[name.removesuffix("again")] == side


def test_a_given_split_is_kept_and_near_duplicates_follow_it(
    saved, make_rows, config, out, capsys
) -> None:
    rows = near(make_rows(60))
    for row in rows:
        number = int(row["query_id"].removesuffix("again").split("/")[1])
        given = ("train", "test", "test")[number % 3]
        row["split"] = "" if row["query_id"].endswith("again") else given
    import_outcomes(saved(rows), out, config)
    for query in read_queries(out / "queries.parquet"):
        number = int(query.query_id.removesuffix("again").split("/")[1])
        assert query.split == ("train", "test", "test")[number % 3]
    assert "near-duplicate on the other side" not in capsys.readouterr().err
    for row in rows:
        if row["query_id"] == "code/0again":
            row["split"] = "test"
    import_outcomes(saved(rows), out, config)
    said = " ".join(capsys.readouterr().err.split())
    assert "note: 1 queries have a near-duplicate on the other side" in said


def test_prompts_from_one_template_are_told_of(saved, make_rows, config, out, capsys) -> None:
    rows = make_rows(20)
    long = " ".join(f"rule{k}" for k in range(300))
    for row in rows:
        row["prompt"] = f"{long} {row['query_id']}"
    import_outcomes(saved(rows), out, config)
    said = " ".join(capsys.readouterr().err.split())
    assert "note: 20 of 20 prompts are near-duplicates" in said
    assert "note: there is no t" in said


@pytest.mark.parametrize("looked_at", [1000, 5])
def test_keys_may_be_left_out_of_json_where_they_are_optional(
    looked_at, saved, make_rows, config, out, monkeypatch
) -> None:
    monkeypatch.setattr(files_module, "LOOKED_AT", looked_at)
    rows = make_rows(6)
    late = {"split": "test", "latency_s": 1, "choices": 4, "tokens_in": 100, "tokens_out": 300}
    rows = [*rows[:9], *({**row, **late} for row in rows[9:])]
    import_outcomes(saved(rows, "log.jsonl"), out, config)
    sides = {q.query_id: q.split for q in read_queries(out / "queries.parquet")}
    assert {sides["law/3"], sides["code/4"], sides["law/5"]} == {"test"}
    assert "local:latency_s" in pq.read_schema(out / "outcomes.parquet").names
    info = tree_info(out)
    assert info["outcomes"]["choices"]
    assert {spec["name"]: spec["base_rate"] for spec in info["pool"]["models"]} == pytest.approx(
        {"local": 0.0075, "openai-large": 0.005, "openai-small": 0.0025}
    )


def test_optional_columns_that_no_line_of_json_has_are_none(
    saved, make_rows, config, tmp_path
) -> None:
    plain, other = (
        import_outcomes(saved(make_rows(6), name), tmp_path / f"t-{name}", config)
        for name in FORMATS[:2]
    )
    schemas = [pq.read_schema(tree / "outcomes.parquet") for tree in (plain, other)]
    assert schemas[0].names == schemas[1].names
    assert tree_info(plain)["pool"] == tree_info(other)["pool"]
    assert not tree_info(other)["outcomes"]["choices"]


def test_scores_may_be_true_and_false(saved, make_rows, config, tmp_path) -> None:
    rows = make_rows()
    first = import_outcomes(saved(rows), tmp_path / "numbers", config)
    passed = [{**row, "score": bool(row["score"])} for row in rows]
    for name in ("log.csv", "log.jsonl", "log.parquet"):
        tree = import_outcomes(saved(passed, name), tmp_path / f"t-{name}", config)
        assert tree_info(tree)["tree_digest"] == tree_info(first)["tree_digest"]


def test_ids_may_be_numbers_and_texts_may_hold_anything(saved, make_rows, config, tmp_path) -> None:
    rows = make_rows(6)
    for row in rows:
        row["query_id"] = int(row["query_id"].split("/")[1])
        row["prompt"] = f"Ünï, \"{row['query_id']}\"\n\nnew 'line'\t漢字 😀 "
    trees = [import_outcomes(saved(rows, name), tmp_path / f"t-{name}", config) for name in FORMATS]
    assert len({tree_info(tree)["tree_digest"] for tree in trees}) == 1
    prompts = {query.query_id: query.prompt for query in read_queries(trees[0] / "queries.parquet")}
    assert prompts["3"] == "Ünï, \"3\"\n\nnew 'line'\t漢字 😀 "


def test_a_byte_order_mark_and_blank_lines_do_not_matter(
    saved, make_rows, config, tmp_path
) -> None:
    rows = make_rows(6)
    first = import_outcomes(saved(rows), tmp_path / "plain", config)
    for name in ("log.csv", "log.jsonl"):
        path = saved(rows, name)
        content = path.read_bytes()
        path.write_bytes(b"\xef\xbb\xbf" + content + b"\n\n")
        assert same_of(import_outcomes(path, tmp_path / f"t-{name}", config)) == same_of(first)


def test_tokens_are_priced_by_the_config(saved, make_rows, config, out) -> None:
    rows = make_rows()
    for row in rows:
        del row["cost"]
        row |= {"tokens_in": 700, "tokens_out": 300}
    models = [
        ModelSpec(name="S", model="openai/small", backend="imported", base_rate=0.5),
        ModelSpec(name="local", model="x", backend="imported", base_rate=2.0),
    ]
    pool = config.pool.model_copy(update={"models": models})
    import_outcomes(saved(rows), out, config.model_copy(update={"pool": pool}))
    found = load_outcomes(out, "accuracy")
    assert found.models == ("S", "local")  # those of the pool, in its order; the third is left out
    assert found.solve_cost[:, 0].tolist() == [[0.5, 2.0]] * 40


def test_rates_follow_from_costs_and_tokens(saved, make_rows, config, out) -> None:
    rows = [{**row, "tokens_in": 100, "tokens_out": 300} for row in make_rows()]
    import_outcomes(saved(rows), out, config)
    pool = PoolConfig.model_validate(tree_info(out)["pool"])
    rates = {spec.name: spec.rate for spec in pool.models}
    expected = {"local": 0.0075, "openai-large": 0.005, "openai-small": 0.0025}
    assert rates == pytest.approx(expected)
    assert {spec.backend for spec in pool.models} == {"imported"}


def test_a_config_that_names_models_goes_with_the_tree_whatever_its_hops(
    saved, make_rows, config, out
) -> None:
    models = [
        ModelSpec(name=name, model=model, backend="imported", base_rate=1)
        for name, model in (("m0", "local"), ("m1", "openai/large"))
    ]
    pool = config.pool.model_copy(update={"models": models, "hops": 2})
    import_outcomes(saved(make_rows()), out, config.model_copy(update={"pool": pool}))
    assert pool_of(out, pool).hops == 1
    others = pool.model_copy(update={"models": models[:1]})
    with pytest.raises(ConfigError, match="the config's pool is m0"):
        pool_of(out, others)


def test_references_are_measured_beside_the_pool(saved, make_rows, config, out) -> None:
    rows = make_rows()
    reference = ModelSpec(name="big", model="openai/large", backend="imported", base_rate=1)
    pool = config.pool.model_copy(update={"references": [reference]})
    import_outcomes(saved(rows), out, config.model_copy(update={"pool": pool}))
    found = load_outcomes(out, "accuracy")
    assert found.models == ("local", "openai-small")
    assert found.references == ("big",)
    known = {row["query_id"]: row for row in rows if row["model"] == "openai/large"}
    assert found.reference_quality is not None
    assert found.reference_quality[:, 0].tolist() == [known[q]["score"] for q in found.query_ids]


def test_latencies_are_kept(saved, make_rows, config, out) -> None:
    rows = [{**row, "latency_s": 1.5} for row in make_rows(4)]
    rows[0]["latency_s"] = None
    import_outcomes(saved(rows, "log.jsonl"), out, config)
    table = pq.read_table(out / "outcomes.parquet")
    column = table["openai-small:latency_s"].to_pylist()
    assert sorted(column, key=str) == [1.5, 1.5, 1.5, None]


# Vectors at hand


@pytest.mark.parametrize("way", ["column", "list_json", "parquet", "npy"])
def test_vectors_at_hand_need_no_encoder(way, saved, make_rows, tmp_path, out) -> None:
    rows = make_rows()
    ids = list(dict.fromkeys(row["query_id"] for row in rows))
    exact = np.random.default_rng(1).normal(size=(len(ids), 6)).astype(np.float32)
    file = None
    if way in ("column", "list_json"):
        rows = [{**row, "embedding": exact[ids.index(row["query_id"])].tolist()} for row in rows]
    elif way == "parquet":
        file = tmp_path / "vectors.parquet"
        order = [*range(len(ids))][::-1]
        table = {"query_id": [ids[k] for k in order] + ["other"]}
        table["embedding"] = [exact[k].tolist() for k in order] + [[1.0]]
        pq.write_table(pa.table(table), file)
    else:
        file = tmp_path / "vectors.npy"
        np.save(file, exact)
    # The default encoder is a real one, which would have to be downloaded.
    name = {"column": "log.parquet", "list_json": "log.jsonl"}.get(way, "log.csv")
    import_outcomes(saved(rows, name), out, embeddings=file)
    found = load_outcomes(out, "accuracy")
    at = [ids.index(query_id) for query_id in found.query_ids]
    np.testing.assert_allclose(found.embeddings[:, 0], exact[at], atol=0.02)
    described = tree_info(out)["encoder"]
    assert (described["model"], described["dimensions"]) == ("imported", 6)
    assert verify_tree(out) == []


def test_vectors_of_the_configs_own_encoder_are_believed_when_they_are(
    saved, make_rows, config, tmp_path, out
) -> None:
    rows, file = make_rows(), tmp_path / "vectors.npy"
    prompts = list(dict.fromkeys(row["prompt"] for row in rows))
    exact = HashingEncoder(32).encode(prompts)
    np.save(file, exact)
    import_outcomes(saved(rows), out, config, embeddings=file, same_encoder=True)
    assert tree_info(out)["encoder"] == {"model": "hashing", "dimensions": 32}
    np.save(file, exact[::-1].copy())
    with pytest.raises(ConfigError, match=r"hashing .* does not make the vectors"):
        import_outcomes(saved(rows), out, config, embeddings=file, same_encoder=True)


@pytest.mark.parametrize(
    ("table", "words"),
    [
        (
            {"query_id": ["code/0"], "embedding": [[1.0]]},
            "39 queries have no vector: law/1, code/2",
        ),
        ({"query_id": ["code/0"]}, "no column embedding"),
        (
            {"query_id": ["code/0", "law/1"], "embedding": [[1.0], [1.0, 2.0]]},
            "law/1 has 2 numbers",
        ),
        ({"query_id": ["code/0"], "embedding": [[float("nan")]]}, "not finite"),
    ],
)
def test_wrong_vectors_are_refused(table, words, saved, make_rows, config, tmp_path, out) -> None:
    file = tmp_path / "vectors.parquet"
    pq.write_table(pa.table(table), file)
    with pytest.raises(ConfigError, match=words):
        import_outcomes(saved(make_rows()), out, config, embeddings=file)
    assert list(out.glob("*.parquet")) == []


# Interruptions


class StoppedError(Exception):
    """A kill."""


def test_an_interrupted_import_goes_on(saved, make_rows, config, out, monkeypatch, capsys) -> None:
    monkeypatch.setattr(vectors_module, "PART", 8)
    whole, asked = HashingEncoder.encode, []

    def encode(self: HashingEncoder, texts: list[str]) -> np.ndarray:
        if len(asked) == 3 and stops:
            raise StoppedError
        asked.append(len(texts))
        return whole(self, texts)

    monkeypatch.setattr(HashingEncoder, "encode", encode)
    stops = True
    log = saved(make_rows())
    with pytest.raises(StoppedError):
        import_outcomes(log, out, config)
    assert sum(asked) == 24
    with pytest.raises(HierRouterError, match="16 of 40 prompts have no vector yet"):
        load_outcomes(out, "accuracy")
    assert verify_tree(out)
    before = (out / "outcomes.parquet").stat().st_mtime_ns
    stops = False
    import_outcomes(log, out, config)
    assert sum(asked) == 40  # none twice
    assert (out / "outcomes.parquet").stat().st_mtime_ns == before
    assert len(load_outcomes(out, "accuracy")) == 40
    capsys.readouterr()
    import_outcomes(log, out, config)
    assert "are kept" in capsys.readouterr().err
    assert sum(asked) == 40


def test_more_rows_encode_only_what_is_new(saved, make_rows, config, out, monkeypatch) -> None:
    import_outcomes(saved(make_rows(40)), out, config)
    whole, asked = HashingEncoder.encode, []
    monkeypatch.setattr(
        HashingEncoder, "encode", lambda self, texts: asked.extend(texts) or whole(self, texts)
    )
    import_outcomes(saved(make_rows(48)), out, config)
    assert len(asked) == 8
    assert len(load_outcomes(out, "accuracy")) == 48


def test_tables_of_two_imports_are_never_mixed(saved, make_rows, config, tmp_path) -> None:
    one = import_outcomes(saved(make_rows(40)), tmp_path / "one", config)
    two = import_outcomes(saved(make_rows(40, seed=1)), tmp_path / "two", config)
    (one / "outcomes.parquet").write_bytes((two / "outcomes.parquet").read_bytes())
    with pytest.raises(DamagedFileError, match="of another import"):
        load_outcomes(one, "accuracy")
    assert verify_tree(one)
    import_outcomes(saved(make_rows(40)), one, config)
    assert verify_tree(one) == []


def test_damage_is_found(saved, make_rows, config, out) -> None:
    import_outcomes(saved(make_rows()), out, config)
    path = out / "outcomes.parquet"
    path.write_bytes(path.read_bytes()[:200])
    assert "not the file that tree.json describes" in verify_tree(out)[0]
    with pytest.raises(DamagedFileError, match="import-outcomes"):
        load_outcomes(out, "accuracy")
    path.unlink()
    with pytest.raises(DamagedFileError, match="missing"):
        load_outcomes(out, "accuracy")


# What such a tree is not


def test_what_needs_replies_says_so(saved, make_rows, config, tmp_path, out) -> None:
    import_outcomes(saved(make_rows()), out, config)
    for use in (
        lambda: RouteTree(out),
        lambda: merge_trees([out], tmp_path / "merged"),
        lambda: load_outcomes(out, "token_f1"),
    ):
        with pytest.raises(HierRouterError, match="imported outcomes"):
            use()
    assert not (tmp_path / "merged" / "tree.json").exists()


def test_a_recorded_tree_is_never_replaced(saved, make_rows, config, tmp_path) -> None:
    folder = tmp_path / "recorded"
    folder.mkdir()
    (folder / "tree.json").write_text('{"format_version": 1}')
    with pytest.raises(ConfigError, match="recorded tree"):
        import_outcomes(saved(make_rows()), folder, config)


# Names


@pytest.mark.parametrize(
    ("original", "name"),
    [
        ("gpt-4o", "gpt-4o"),
        ("openai/gpt-4o", "openai-gpt-4o"),
        ("meta-llama/Llama-3.1-8B", "meta-llama-Llama-3.1-8B"),
        ("a  b:c/", "a-b-c"),
        ("x" * 70, "x" * 55 + "-c71bd109"),
    ],
)
def test_names_are_made_to_fit(original: str, name: str) -> None:
    assert valid_name(original) == name


def test_names_stay_apart() -> None:
    assert valid_name("x" * 70) != valid_name("x" * 71)
    assert valid_name("模型") != valid_name("型模")
    with pytest.raises(ConfigError, match="a/b and a:b would both be called a-b"):
        valid_names("model", ["a/b", "a:b"])
    given = {"a:b": "other"}
    assert valid_names("model", ["a/b", "a:b"], given) == {"a/b": "a-b", "a:b": "other"}


def test_equal_names_are_refused_before_anything_is_written(saved, make_rows, config, out) -> None:
    rows = make_rows()
    for row in rows:
        row["model"] = row["model"].replace("local", "openai:small")
    with pytest.raises(ConfigError, match="would both be called openai-small"):
        import_outcomes(saved(rows), out, config)
    assert not (out / "tree.json").exists()
