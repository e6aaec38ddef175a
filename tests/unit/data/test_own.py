"""Own tasks: files of questions, what is refused in them, and what a sample of them depends on."""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hierrouter.config import BENCHMARK_TASKS, Config, DataConfig
from hierrouter.configfile import dump_config, load_config
from hierrouter.data import own
from hierrouter.data.own import own_questions
from hierrouter.data.queries import Query, read_queries
from hierrouter.data.sample import sample_queries
from hierrouter.data.sources import download_bytes, most_queries
from hierrouter.errors import ConfigError
from hierrouter.files import sha256_file
from hierrouter.quality import maths
from hierrouter.quality.numbers import numbers_equal, parse_number
from hierrouter.quality.score import score_reply
from hierrouter.routes.scores import expected_of

Row = dict[str, Any]


@pytest.fixture(autouse=True)
def in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def config(metric: str = "exact_match", **more: Any) -> DataConfig:
    return DataConfig.model_validate(
        {"own": {"support": {"file": "support.jsonl", "metric": metric}}, **more}
    )


def write(*rows: Row, name: str = "support.jsonl") -> None:
    lines = [json.dumps(row, ensure_ascii=False) for row in rows]
    Path(name).write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def sampled(data: DataConfig, out: str = "queries") -> list[Query]:
    return read_queries(sample_queries(data, Path(out)))


def only(metric: str, **row: Any) -> Query:
    """The query of a file with one line."""
    write(row)
    (query,) = sampled(config(metric))
    return query


def complaint(metric: str = "exact_match") -> str:
    with pytest.raises(ConfigError) as caught:
        sample_queries(config(metric), Path("queries"))
    text = str(caught.value)
    assert "\n" not in text
    return text


def many(count: int) -> list[Row]:
    return [{"question": f"What is item {n}?", "reference": f"thing {n}"} for n in range(count)]


# --- which tasks are sampled


def test_own_tasks_alone_need_no_list() -> None:
    assert config().tasks == ["support"]
    assert DataConfig().tasks == list(BENCHMARK_TASKS)
    assert config(tasks=["gsm8k", "support"]).tasks == ["gsm8k", "support"]


def test_own_tasks_stand_beside_others_in_the_order_of_the_list() -> None:
    write(*many(5))
    queries = sampled(config(source="scripted", tasks=["arithmetic", "support"]))
    tasks = [query.task for query in queries]
    assert tasks == ["arithmetic"] * 300 + ["support"] * 5


def test_a_task_that_the_list_leaves_out_is_not_read(capsys: pytest.CaptureFixture[str]) -> None:
    queries = sampled(config(source="scripted", tasks=["arithmetic"], queries_per_task=3))
    assert {query.task for query in queries} == {"arithmetic"}
    assert "not sampled, as data.tasks does not name it: support" in capsys.readouterr().err


def test_nothing_is_downloaded_for_own_tasks_and_their_lines_bound_the_queries() -> None:
    write(*many(7))
    assert download_bytes(config()) == 0
    assert most_queries(config(tasks=["support", "gsm8k"])) == {"support": 7, "gsm8k": 300}
    assert most_queries(config(queries_per_task=4)) == {"support": 4}


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ({"own": {"gsm8k": {}}}, "data.own.gsm8k.file: this key is missing"),
        (
            {"own": {"math": {"file": "f", "metric": "math"}}},
            "data.own.math: is the name of a benchmark; choose another",
        ),
        ({"own": {"a b": {"file": "f", "metric": "math"}}}, 'own.a b: "a b" is not'),
        ({"own": {"2024": {"file": "f", "metrik": "math"}}}, "metrik: unknown key (did you mean"),
        (
            {"own": {"faq": {"file": "f", "metric": "f1"}}},
            "data.own.faq.metric: \"f1\" is not allowed; should be 'exact_match', 'token_f1'",
        ),
        (
            {"own": {"faq": {"file": "f", "metric": "math"}}, "revisions": {"faq": "main"}},
            "data.revisions.faq: is a task of your own, which has a file",
        ),
    ],
)
def test_a_wrong_own_task_is_named(data: Row, words: str) -> None:
    Path("config.yaml").write_text(
        json.dumps(
            {"data": data, "pool": {"models": [{"name": "m", "model": "m", "base_rate": 1}]}}
        )
    )
    with pytest.raises(ConfigError) as caught:
        load_config(Path("config.yaml"))
    assert words in str(caught.value)


def test_an_unknown_task_lists_the_own_ones() -> None:
    with pytest.raises(ConfigError, match=r"unknown task suport; known are gsm8k.*mmlu, support"):
        sample_queries(config(tasks=["suport"]), Path("queries"))


def test_limits_and_skills_may_name_own_tasks() -> None:
    model = {"name": "m", "model": "m", "base_rate": 1.0, "limits": {"solve_by_task": {"faq": 9}}}
    data = {"own": {"faq": {"file": "f", "metric": "math"}}}
    whole = Config.model_validate({"data": data, "pool": {"models": [model]}})
    assert whole.pool.models[0].limits.solve_by_task == {"faq": 9}
    Path("again.yaml").write_text(dump_config(whole))
    assert load_config(Path("again.yaml")) == whole
    other = {"own": {"fac": data["own"]["faq"]}}
    with pytest.raises(ValueError, match="no task has this name"):
        Config.model_validate({"data": other, "pool": {"models": [model]}})


def test_keys_of_an_own_task_can_be_set_from_the_command_line() -> None:
    Path("config.yaml").write_text("pool: {models: [{name: m, model: m, base_rate: 1.0}]}")
    overrides = ["data.own.faq.file=faq.jsonl", "data.own.faq.metric=letter"]
    loaded = load_config(Path("config.yaml"), overrides).data
    assert loaded.tasks == ["faq"]
    assert (loaded.own["faq"].file, loaded.own["faq"].kind) == ("faq.jsonl", "letter")


# --- what a line becomes


def test_a_text_question() -> None:
    query = only("exact_match", question=" Capital of France?\r\n", reference=["Paris", "paris!"])
    assert (query.task, query.prompt) == ("support", "Capital of France?")
    assert query.reference == ("Paris", "paris!")
    assert query.reference_text == "Paris"
    assert query.metadata == {"kind": "text", "metric": "exact_match"}


def test_a_letter_question_is_written_as_the_benchmarks_are() -> None:
    query = only("letter", question="Which?", choices=["one", "two", "three"], reference="b")
    assert query.prompt == "Which?\nA. one\nB. two\nC. three"
    assert query.reference == ("B",)
    assert query.metadata == {"kind": "letter", "metric": "letter", "choices": "3"}
    assert expected_of(query).choices == 3


def test_a_program_needs_tests_and_no_reference() -> None:
    tests = ["import math", "assert area(1) == math.pi"]
    query = only("unit_tests", question="Write area(r).", tests=tests)
    assert (query.tests, query.reference, query.reference_text) == (tuple(tests), (), "")
    solved = "```python\nimport math\ndef area(r):\n    return math.pi * r * r\n```"
    assert score_reply(solved, expected_of(query)).accuracy == 1
    assert score_reply(solved.replace("* r\n", "\n"), expected_of(query)).accuracy == 1
    assert score_reply(solved.replace("math.pi", "3"), expected_of(query)).accuracy == 0


@pytest.mark.parametrize(
    ("written", "stands_for"),
    [
        ("42", Fraction(42)),
        ("-1,234.50", Fraction(-123450, 100)),
        ("0.10", Fraction(1, 10)),
        ("1e-3", Fraction(1, 1000)),
        ("2E+10", Fraction(2 * 10**10)),
        ("7/4", Fraction(7, 4)),
        ("-1/3", Fraction(-1, 3)),
        (".5", Fraction(1, 2)),
    ],
)
def test_a_reference_number_means_the_same_to_the_scorer(
    written: str, stands_for: Fraction
) -> None:
    query = only("number", question="How many?", reference=written)
    assert parse_number(query.reference[0]) == stands_for


@given(st.integers() | st.decimals(allow_nan=False, allow_infinity=False, places=4))
def test_a_number_of_json_is_taken_digit_by_digit(value: Any) -> None:
    text = str(value)
    if len(text) > 40 or "E" in text:
        return
    Path("support.jsonl").write_text(f'{{"question": "q", "reference": {text}}}\n')
    (question,) = own_questions("support", config("number").own["support"]).questions
    assert parse_number(question.reference[0]) == Fraction(text)
    assert numbers_equal(text, question.reference[0])


def test_a_stated_reference_text_is_what_f1_is_measured_against() -> None:
    query = only("number", question="q", reference=3, reference_text="one and two are three")
    assert query.reference == ("3",)
    assert score_reply("one two three", expected_of(query)).token_f1 == pytest.approx(3 * 2 / 8)


def test_further_columns_null_values_blank_lines_and_a_byte_order_mark_do_no_harm() -> None:
    row = {"question": "q\u2028r", "reference": "a", "id": None, "team": "billing"}
    text = "\ufeff\n" + json.dumps(row, ensure_ascii=False) + "\r\n\n"
    Path("support.jsonl").write_bytes(text.encode())
    (query,) = sampled(config())
    assert query.prompt == "q\u2028r"


# --- the named metric


def test_exact_match_looks_past_case_punctuation_and_spacing() -> None:
    expected = expected_of(only("exact_match", question="q", reference=["Room 4, East", "4E"]))
    assert score_reply("Answer: room 4 east.", expected).accuracy == 1
    assert score_reply("4e", expected).accuracy == 1
    assert score_reply("Answer: room 4", expected).accuracy == 0


def test_token_f1_gives_the_share_of_words_in_the_stated_answer() -> None:
    expected = expected_of(only("token_f1", question="q", reference=["restart the router", "wait"]))
    reply = "The light is red, so this is needed.\nAnswer: restart router"
    # Of two words both are right, and the nearer reference has three: 2 * 2 / (2 + 3).
    assert score_reply(reply, expected).accuracy == pytest.approx(0.8)
    assert score_reply("Answer: Wait!", expected).accuracy == 1
    assert score_reply("Answer: call us", expected).accuracy == 0
    assert score_reply("", expected).accuracy == 0


# --- ids


def test_ids_stay_whatever_the_order_and_the_other_lines() -> None:
    rows = many(40)
    write(*rows)
    first = sampled(config(), "first")
    write(*many(45)[::-1])
    second = sampled(config(), "second")
    by_id = {query.query_id: query for query in second}
    assert len({query.query_id for query in first}) == 40
    assert all(by_id[query.query_id].prompt == query.prompt for query in first)
    write(*rows[::-1])
    assert sampled(config(), "third") == first


def test_a_stated_id_is_used() -> None:
    assert only("number", question="q", reference=1, id="ticket-7").query_id == "support/ticket-7"


def test_a_number_serves_as_id_and_equal_lines_are_taken_once() -> None:
    write({"question": "q", "reference": "a"}, {"question": "q", "reference": "a"})
    assert len(own_questions("support", config().own["support"]).questions) == 1
    write({"question": "q", "reference": "a", "id": 7})
    (question,) = own_questions("support", config().own["support"]).questions
    assert question.query_id == "support/7"


# --- what is refused


@pytest.mark.parametrize(
    ("metric", "line", "words"),
    [
        (
            "exact_match",
            '{"question": "q", "reference"}',
            "is not JSON (Expecting ':' delimiter at",
        ),
        ("exact_match", '["q", "a"]', '["q", "a"] is not a JSON object; one a line is wanted'),
        ("exact_match", "[" * 100_000, "is not usable JSON (nested too deeply)"),
        ("number", '{"question": "q", "reference": NaN}', "NaN is no number of JSON"),
        ("exact_match", '{"reference": "a"}', "question: this key is missing"),
        ("exact_match", '{"question": "q"}', "reference: this key is missing"),
        ("exact_match", '{"question": "q", "reference": null}', "reference: this key is missing"),
        ("exact_match", '{"question": " ", "reference": "a"}', "question: is empty"),
        (
            "exact_match",
            '{"question": 3, "reference": "a"}',
            "question: 3 is not allowed; should be",
        ),
        ("exact_match", '{"question": "q", "reference": ""}', "reference: is empty"),
        ("exact_match", '{"question": "q", "reference": []}', "reference: is empty; should be an"),
        ("exact_match", '{"question": "q", "reference": 4}', "reference: 4 is not allowed"),
        ("exact_match", '{"question": "q", "reference": "?!"}', '"?!" has no letter or digit'),
        ("token_f1", '{"question": "q", "reference": ["a", "-"]}', '"-" has no letter or digit'),
        ("exact_match", r'{"question": "\ud800", "reference": "a"}', "half of a surrogate pair"),
        (
            "exact_match",
            '{"question": "q", "reference": "a", "reference_txt": "b"}',
            "reference_txt: unknown key (did you mean reference_text?)",
        ),
        ("exact_match", '{"question": "q", "referense": "a"}', "(did you mean reference?)"),
        ("exact_match", '{"question": "q", "reference": "a", "id": "a b"}', 'id: "a b" is not'),
        ("exact_match", '{"question": "q", "reference": "a", "id": true}', "id: true is not"),
        (
            "exact_match",
            '{"question": "q", "reference": "A", "choices": ["x", "y"]}',
            "choices: goes with `metric: letter`; this task's is exact_match",
        ),
        (
            "number",
            '{"question": "q", "reference": 1, "tests": ["pass"]}',
            "tests: goes with `metric: unit_tests`",
        ),
        ("letter", '{"question": "q", "reference": "A"}', "choices: this key is missing (`metric:"),
        (
            "letter",
            '{"question": "q", "reference": "A", "choices": ["x"]}',
            'choices: ["x"] is not allowed; should be a list of 2 to 26 texts',
        ),
        (
            "letter",
            '{"question": "q", "reference": "D", "choices": ["x", "y", "z"]}',
            'reference: "D" is no choice; should be a letter, A to C',
        ),
        ("letter", '{"question": "q", "reference": "x", "choices": ["x", "y"]}', "no choice"),
        ("letter", '{"question": "q", "reference": "AB", "choices": ["x", "y"]}', "no choice"),
        (
            "number",
            '{"question": "q", "reference": "12 km"}',
            'reference: "12 km" is no number; should be one without unit',
        ),
        ("number", '{"question": "q", "reference": "1/0"}', '"1/0" is no number'),
        ("number", '{"question": "q", "reference": "1,23"}', '"1,23" is no number'),
        ("number", '{"question": "q", "reference": true}', "true is not allowed"),
        ("number", '{"question": "q", "reference": [1, "two"]}', '"two" is no number'),
        (
            "math",
            json.dumps({"question": "q", "reference": "x" * 401}),
            "reference: is longer than 400 characters",
        ),
        ("unit_tests", '{"question": "q", "reference": "r"}', "tests: this key is missing"),
        ("unit_tests", '{"question": "q", "tests": []}', "tests: [] is not allowed"),
        ("unit_tests", '{"question": "q", "tests": ["assert f("]}', '"assert f(" is not Python'),
    ],
)
def test_a_wrong_line_is_named(metric: str, line: str, words: str) -> None:
    good = {
        "letter": {"choices": ["x", "y"], "reference": "A"},
        "unit_tests": {"tests": ["pass"]},
    }.get(metric, {"reference": "1"})
    write({"question": "a good one", **good})
    with Path("support.jsonl").open("a", encoding="utf-8") as file:
        file.write(f"\n{line}\n")
    text = complaint(metric)
    assert text.startswith("support.jsonl: line 3: ")
    assert words in text


def test_two_lines_that_cannot_both_be_are_refused() -> None:
    write(
        {"question": "q", "reference": "a", "id": 1}, {"question": "r", "reference": "b", "id": 1}
    )
    assert complaint() == "support.jsonl: line 2: id: 1 is that of line 1 too"
    write({"question": "q", "reference": "a"}, {"question": "q", "reference": "b"})
    assert complaint() == (
        "support.jsonl: line 2: question: is that of line 1, but what goes with it differs"
    )


def test_a_file_that_cannot_be_read_is_named() -> None:
    assert complaint() == (
        f"data.own.support.file: support.jsonl: there is no such file "
        f"(relative paths are taken from {Path.cwd()})"
    )
    Path("support.jsonl").write_text("\n \n")
    assert complaint().startswith("support.jsonl: holds no questions; it needs a JSON object")
    Path("support.jsonl").write_bytes('{"question": "q", "reference": "a"}\n{"é'.encode("latin-1"))
    assert complaint() == "support.jsonl: line 2: is not UTF-8; save it as UTF-8"
    Path("support.jsonl").unlink()
    Path("support.jsonl").mkdir()
    assert complaint().endswith("support.jsonl: is a folder; name a file of JSON lines")


def test_the_longest_formula_is_the_scorers() -> None:
    assert own.LONGEST_MATH == maths.LONGEST_ANSWER


# --- what a second sampling does


def test_a_changed_file_is_sampled_anew_and_one_that_is_gone_leaves_the_sample() -> None:
    write(*many(5))
    before = sampled(config())
    told = json.loads(Path("queries/queries.json").read_text())["tasks"]["support"]
    assert (told["source"], told["file"]) == ("file", "support.jsonl")
    assert told["sha256"] == sha256_file(Path("support.jsonl"))
    assert (told["available"], told["taken"]) == (5, 5)
    written = Path("queries/queries.parquet").stat().st_mtime_ns
    assert sampled(config()) == before
    assert Path("queries/queries.parquet").stat().st_mtime_ns == written
    write(*many(6))
    assert len(sampled(config())) == 6
    Path("support.jsonl").unlink()
    assert len(sampled(config())) == 6
