"""What commands print and how failures end: an exit code and one line, never a traceback."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
import typer
import yaml

from hierrouter.cli.main import app
from hierrouter.config import Config
from hierrouter.configfile import explain

if TYPE_CHECKING:
    from pathlib import Path

COMMAND = (sys.executable, "-m", "hierrouter.cli.main")


def all_commands() -> list[tuple[str, ...]]:
    """Every command with its group, `hierrouter` itself first."""
    found: list[tuple[str, ...]] = [()]

    def walk(command, path: tuple[str, ...]) -> None:
        for name, each in getattr(command, "commands", {}).items():
            found.append((*path, name))
            walk(each, (*path, name))

    walk(typer.main.get_command(app), ())
    return found


@pytest.mark.parametrize("command", all_commands(), ids=" ".join)
def test_every_command_explains_itself(hierrouter, command: tuple[str, ...]) -> None:
    result = hierrouter(*command, "--help")
    assert result.code == 0
    assert f"Usage: hierrouter{' ' if command else ''}{' '.join(command)}" in result.out
    assert result.err == ""


def test_the_commands_of_the_spine_are_there() -> None:
    names = {" ".join(command) for command in all_commands()}
    assert names >= {
        *(
            "run",
            "sample",
            "plan",
            "collect",
            "train",
            "evaluate",
            "register",
            "ask",
            "doctor",
            "config",
        ),
        *("tree info", "tree rescore"),
    }


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys; from hierrouter.cli.main import main\n"
        "sys.argv = ['hierrouter', '--help']\n"
        "try: main()\n"
        "except SystemExit as end: assert not end.code\n"
        "heavy = {'torch', 'transformers', 'mlflow', 'pyarrow', 'sklearn', 'numpy', 'datasets'}\n"
        "print(sorted(heavy & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "Usage: hierrouter" in done.stdout
    assert done.stderr.strip() == "[]"


def test_no_arguments_show_the_help(hierrouter) -> None:
    result = hierrouter()
    assert "Usage: hierrouter" in result.out + result.err
    assert result.code == 2


def test_version(hierrouter) -> None:
    from hierrouter import __version__

    assert hierrouter("--version").out == f"hierrouter {__version__}\n"


def test_config_explain_prints_every_key_with_its_meaning(hierrouter) -> None:
    result = hierrouter("config", "--explain")
    assert result.code == 0
    lines = result.out.splitlines()
    entries = list(explain(Config))
    assert len(entries) > 80
    for key, _, _, meaning in entries:
        at = next(number for number, line in enumerate(lines) if line.startswith(f"{key}  "))
        assert lines[at + 1].strip() == meaning
        assert meaning


def test_config_prints_a_file_in_full_that_reads_back(hierrouter, finished, tmp_path) -> None:
    printed = hierrouter("config", *finished.config)
    assert printed.code == 0
    assert yaml.safe_load(printed.out)["training"]["iterations"] == 2
    (tmp_path / "full.yaml").write_text(printed.out)
    assert hierrouter("config", "--config", tmp_path / "full.yaml").out == printed.out


def test_ask_prints_the_answer_alone_on_standard_output(hierrouter, finished) -> None:
    result = hierrouter("ask", "What is 17 plus 25?", "--router", finished.router)
    assert result.code == 0
    assert result.out == "Answer: unknown\n"
    assert re.search(r"^hop 0: \w+ (solve|analyze), \d+ \+ \d+ tokens, \$0\.\d+", result.err, re.M)
    assert re.search(
        r"^path [\w:]+, cost \$0\.\d+ \([\d.]+ cost units\), alpha 0\.1$", result.err, re.M
    )


def test_tree_info_and_rescore(hierrouter, experiment) -> None:
    before = (experiment.tree / "scores.parquet").read_bytes()
    assert "40 queries, 600 nodes, L = 2" in hierrouter("tree", "info", experiment.tree).out
    assert hierrouter("tree", "rescore", experiment.tree, *experiment.config).code == 0
    assert (experiment.tree / "scores.parquet").read_bytes() == before


# Failures: a command line that cannot be used (2), or one that failed at its work (1).


def with_config(tmp_path: Path, text: str) -> tuple[str, ...]:
    (tmp_path / "mine.yaml").write_text(text)
    return ("sample", "--config", str(tmp_path / "mine.yaml"), "--out", str(tmp_path / "out"))


POOL = "pool: {models: [{name: A, model: a, base_rate: 1}]}\n"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "the file is empty"),
        ("data: [\n", "mine.yaml"),
        (POOL + "dta: {}\n", "dta"),
        (POOL + "data: {sed: 7}\n", "data.sed"),
        (POOL + "training: {iterations: many}\n", "training.iterations"),
        (POOL + "training: {alpha: -0.5}\n", "training.alpha"),
        (POOL + "evaluation: {alphas: [-1, 0.1]}\n", "evaluation.alphas"),
        (POOL + "data: {tasks: [nosuch]}\n", "unknown task nosuch"),
        ("pool: {models: [{name: a b, model: a, base_rate: 1}]}\n", "pool.models.0.name"),
    ],
)
def test_a_wrong_config_is_named_in_one_line(hierrouter, tmp_path, text: str, said: str) -> None:
    result = hierrouter(*with_config(tmp_path, text))
    assert result.code == 2
    assert said in result.line
    assert len(result.err.splitlines()) == 1
    assert not (tmp_path / "out" / "queries.parquet").exists()


def test_a_missing_config_file(hierrouter, tmp_path) -> None:
    result = hierrouter("sample", "--config", tmp_path / "no.yaml", "--out", tmp_path / "out")
    assert result.code == 2
    assert result.line == f"error: {tmp_path / 'no.yaml'}: there is no such file"


def test_a_wrong_override_is_named(hierrouter, finished, tmp_path) -> None:
    result = hierrouter("sample", *finished.config, "--set", "data.seed=x", "--out", tmp_path / "o")
    assert result.code == 2
    assert "--set data.seed=x" in result.line


@pytest.mark.parametrize(("model", "code"), [("nobody/nothing-like-it", 1), ("{tmp}/nowhere", 2)])
def test_a_model_that_does_not_exist(
    hierrouter, finished, tmp_path, monkeypatch, model: str, code: int
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    model = model.format(tmp=tmp_path)
    models = [{"name": "A", "model": model, "base_rate": 1}]
    text = yaml.safe_dump({"pool": {"encoder": {"model": "hashing"}, "models": models}})
    (tmp_path / "mine.yaml").write_text(text)
    result = hierrouter(
        *("collect", "--config", tmp_path / "mine.yaml", "--queries", finished.queries),
        *("--out", tmp_path / "tree"),
    )
    assert result.code == code
    assert model in result.line


@pytest.mark.parametrize("stage", ["sample", "collect", "train", "evaluate", "run"])
def test_a_folder_that_is_not_ours_is_refused(hierrouter, finished, tmp_path, stage: str) -> None:
    inputs = {
        "collect": ("--queries", finished.queries),
        "train": ("--tree", finished.tree),
        "evaluate": ("--tree", finished.tree, "--router", finished.router),
    }
    foreign = tmp_path / "thesis"
    foreign.mkdir()
    (foreign / "chapter.tex").write_text("mine")
    result = hierrouter(stage, *finished.config, *inputs.get(stage, ()), "--out", foreign)
    assert result.code == 2
    assert f"{foreign} is not empty" in result.line
    assert [path.name for path in foreign.iterdir()] == ["chapter.tex"]


def test_a_file_as_output_folder(hierrouter, finished, tmp_path) -> None:
    (tmp_path / "file").write_text("")
    result = hierrouter("sample", *finished.config, "--out", tmp_path / "file")
    assert result.code == 2
    assert "is a file" in result.line


def test_the_tree_of_another_pool(hierrouter, experiment) -> None:
    result = hierrouter(
        *("collect", *experiment.config, "--set", "pool.models.0.instruction=Be brief."),
        *("--queries", experiment.queries, "--out", experiment.tree),
    )
    assert result.code == 2
    assert "other instruction of model small" in result.line


def test_truncated_nodes_then_the_same_command_again(hierrouter, experiment) -> None:
    path = sorted((experiment.tree / "nodes").glob("*.parquet"))[0]
    path.write_bytes(path.read_bytes()[:-10])
    collect = (
        *("collect", *experiment.config, "--queries", experiment.queries),
        *("--out", experiment.tree),
    )
    failed = hierrouter(*collect)
    assert failed.code == 1
    assert path.name in failed.line
    again = hierrouter(*collect)
    assert again.code == 0
    # 48 nodes were in the file; 72 more stand on its analyses and turn out the same.
    assert "recording 120 of 600 nodes" in again.err


@pytest.mark.parametrize(
    ("command", "missing"),
    [
        (("train", "--tree", "{nowhere}", "--out", "{out}"), "holds no route tree"),
        (
            ("evaluate", "--tree", "{tree}", "--router", "{nowhere}", "--out", "{out}"),
            "holds no router",
        ),
        (
            ("collect", "--queries", "{nowhere}", "--out", "{out}"),
            "does not exist; make it with `hierrouter sample`",
        ),
    ],
)
def test_a_missing_input_is_named(hierrouter, finished, tmp_path, command, missing) -> None:
    places = {"nowhere": tmp_path / "nowhere", "out": tmp_path / "out", "tree": finished.tree}
    result = hierrouter(*(part.format(**places) for part in command), *finished.config)
    assert result.code == 1
    assert missing in result.line
    assert str(tmp_path / "nowhere") in result.line


def test_missing_folders_of_commands_without_a_config(hierrouter, finished, tmp_path) -> None:
    nowhere = tmp_path / "nowhere"
    for command, said in (
        (("ask", "Why?", "--router", nowhere), "holds no router"),
        (("register", "--router", finished.router, "--evaluation", nowhere), "does not exist"),
        (("tree", "info", nowhere), "holds no route tree"),
        (("tree", "rescore", nowhere), "holds no route tree"),
    ):
        result = hierrouter(*command)
        assert result.code == 1
        assert said in result.line
    assert not nowhere.exists()


@pytest.mark.parametrize("command", ["ask", "evaluate"])
def test_altered_weights_are_refused(hierrouter, experiment, command: str) -> None:
    weights = experiment.router / "router.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    arguments = {
        "ask": ("Why?", "--router", experiment.router),
        "evaluate": (
            *(*experiment.config, "--tree", experiment.tree),
            *("--router", experiment.router, "--out", experiment.evaluation),
        ),
    }
    result = hierrouter(command, *arguments[command])
    assert result.code == 1
    assert "router.safetensors is missing or not the file" in result.line


def test_a_router_on_another_pools_tree(hierrouter, experiment, tmp_path) -> None:
    fewer = (*experiment.config, "--set", "pool.hops=1")
    assert (
        hierrouter(
            *("collect", *fewer, "--queries", experiment.queries, "--out", tmp_path / "tree")
        ).code
        == 0
    )
    result = hierrouter(
        *("evaluate", *fewer, "--tree", tmp_path / "tree"),
        *("--router", experiment.router, "--out", tmp_path / "evaluation"),
    )
    assert result.code in (1, 2)
    assert "hops" in result.line
    assert not (tmp_path / "evaluation" / "metrics.json").exists()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("pool.hops=1", "large, medium, small with L = 1"),
        ("pool.models.0.name=tiny", "large, medium, tiny with L = 2"),
    ],
)
def test_a_config_of_other_models_than_the_trees(hierrouter, experiment, tmp_path, change, said):
    other = (*experiment.config, "--set", change)
    tree, out = ("--tree", experiment.tree), ("--out", tmp_path / "out")
    for command in (
        ("train", *other, *tree, *out),
        ("evaluate", *other, *tree, "--router", experiment.router, *out),
        ("run", *other, *tree, *out),
    ):
        result = hierrouter(*command)
        assert result.code == 2
        assert f"{experiment.tree} is the tree of large, medium, small with L = 2" in result.line
        assert said in result.line
        assert not (tmp_path / "out").exists()


def test_changes_of_a_config_that_is_not_named(hierrouter, experiment) -> None:
    result = hierrouter("tree", "rescore", experiment.tree, "--set", "pool.hops=1")
    assert result.code == 2
    assert "name one with --config" in result.line


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("ask", "", "--router", "{router}"), "the question is empty"),
        (("ask", " \n", "--router", "{router}"), "the question is empty"),
        (("ask", "Why?", "--router", "{router}", "--alpha", "inf"), "--alpha is inf"),
        (("ask", "Why?", "--router", "{router}", "--alpha", "1e40"), "--alpha is 1e+40; give"),
        (("serve", "--router", "{router}", "--alpha", "inf"), "--alpha is inf; give"),
    ],
)
def test_questions_that_cannot_be_asked(hierrouter, finished, arguments, said: str) -> None:
    result = hierrouter(*(part.format(router=finished.router) for part in arguments))
    assert result.code == 2
    assert said in result.line


def test_config_without_a_wish(hierrouter) -> None:
    result = hierrouter("config")
    assert result.code == 2
    assert "--explain" in result.line


def test_an_evaluation_of_a_damaged_folder_cannot_be_registered(hierrouter, experiment) -> None:
    (experiment.evaluation / "evaluation.json").write_text("{")
    result = hierrouter(
        *("register", "--router", experiment.router, "--evaluation", experiment.evaluation)
    )
    assert result.code == 1
    assert "evaluation.json cannot be read" in result.line


def test_an_evaluation_by_other_settings_cannot_be_registered(hierrouter, experiment) -> None:
    file = experiment.evaluation / "evaluation.json"
    made = json.loads(file.read_text())
    made["evaluation"]["mood"] = "good"  # as another version may have it
    file.write_text(json.dumps(made))
    result = hierrouter(
        *("register", "--router", experiment.router, "--evaluation", experiment.evaluation)
    )
    assert result.code == 1
    assert "evaluation.json: mood:" in result.line
    assert "evaluate the router again" in result.line


@pytest.mark.parametrize(
    "arguments",
    [
        ("bogus",),
        ("run",),
        ("train", "--config", "x.yaml"),
        ("run", "--config", "x.yaml", "--nonsense"),
        ("ask", "Why?", "--router", "r", "--alpha", "-1"),
        ("ask", "Why?", "--router", "r", "--alpha", "nan"),
        ("ask", "Why?", "--router", "r", "--alpha", "much"),
        ("tree", "bogus"),
    ],
    ids=" ".join,
)
def test_wrong_usage_ends_with_code_2_and_the_usage(hierrouter, arguments) -> None:
    result = hierrouter(*arguments)
    assert result.code == 2
    assert "Usage: hierrouter" in result.err
    assert "Traceback" not in result.err


def test_as_processes() -> None:
    """The real command: exit codes reach the shell, and results go to standard output."""
    printed = subprocess.run([*COMMAND, "config", "--explain"], capture_output=True, text=True)
    assert (printed.returncode, printed.stderr) == (0, "")
    assert "pool.models[].name" in printed.stdout
    failed = subprocess.run(
        [*COMMAND, "train", "--config", "no.yaml", "--tree", "t", "--out", "o"],
        capture_output=True,
        text=True,
    )
    assert failed.returncode == 2
    assert failed.stderr == "error: no.yaml: there is no such file\n"
    assert failed.stdout == ""


# When an evaluation is kept.


def test_an_evaluation_stands_for_one_router_tree_and_config(hierrouter, experiment) -> None:
    from hierrouter.config import EvaluationConfig
    from hierrouter.evaluation.evaluate import is_evaluated

    recorded = json.loads((experiment.evaluation / "evaluation.json").read_text())
    assert recorded["tree"].keys() == {
        "query_digest",
        "tree_digest",
        "scorer_version",
        "pool_digest",
    }
    config = EvaluationConfig.model_validate(recorded["evaluation"])
    folders = (experiment.tree, experiment.router, experiment.evaluation)
    assert is_evaluated(config, *folders)
    assert not is_evaluated(config.model_copy(update={"seed": 1}), *folders)
    dearer = (*experiment.config, "--set", "pool.models.0.base_rate=9")
    assert hierrouter("tree", "rescore", experiment.tree, *dearer).code == 0
    assert not is_evaluated(config, *folders)
    assert hierrouter("tree", "rescore", experiment.tree, *experiment.config).code == 0
    assert is_evaluated(config, *folders)
    further = (*experiment.config, "--set", "data.queries_per_task=22")
    assert hierrouter("sample", *further, "--out", experiment.queries).code == 0
    collect = ("--queries", experiment.queries, "--out", experiment.tree)
    assert hierrouter("collect", *further, *collect).code == 0
    assert not is_evaluated(config, *folders)


@pytest.mark.parametrize("name", ["metrics.json", "per_query.parquet", "report.html"])
def test_an_evaluation_that_lacks_a_file_is_not_kept(experiment, name: str) -> None:
    from hierrouter.config import EvaluationConfig
    from hierrouter.evaluation.evaluate import is_evaluated

    recorded = json.loads((experiment.evaluation / "evaluation.json").read_text())
    config = EvaluationConfig.model_validate(recorded["evaluation"])
    (experiment.evaluation / name).unlink()
    assert not is_evaluated(config, experiment.tree, experiment.router, experiment.evaluation)


def test_truncated_metrics_are_not_kept(experiment) -> None:
    from hierrouter.config import EvaluationConfig
    from hierrouter.evaluation.evaluate import is_evaluated

    recorded = json.loads((experiment.evaluation / "evaluation.json").read_text())
    config = EvaluationConfig.model_validate(recorded["evaluation"])
    (experiment.evaluation / "metrics.json").write_text('{"metric": ')
    assert not is_evaluated(config, experiment.tree, experiment.router, experiment.evaluation)
