"""Registering in a real MLflow: what is recorded, aliases, once only, and failures."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import mlflow
import numpy as np
import pandas as pd
import pytest

from hierrouter.data.queries import read_queries, write_queries
from hierrouter.errors import (
    ConfigError,
    DamagedFileError,
    HierRouterError,
    UnreachableError,
)
from hierrouter.learning.router import Router
from hierrouter.routes.encoder import HashingEncoder
from hierrouter.tracking import register
from hierrouter.tracking.origin import git_commit, process
from hierrouter.tracking.record import read_record
from hierrouter.tracking.register import register_router
from hierrouter.tracking.resolve import fetch_router
from hierrouter.tracking.store import shown_uri, ui_command

from .conftest import CONFIG, MODELS, WIDTH, Stage

if TYPE_CHECKING:
    from collections.abc import Iterator


def client() -> mlflow.MlflowClient:
    here = f"sqlite:///{Path.cwd()}/mlflow.db"
    return mlflow.MlflowClient(os.environ.get("MLFLOW_TRACKING_URI", here))


def test_everything_is_recorded(here: Path, stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_COMMIT", "c0ffee")
    done = register_router(CONFIG, stage.router, stage.evaluation, stage.tree)
    assert (done.name, done.version, done.uri) == ("hierrouter", 1, "models:/hierrouter/1")
    assert done.aliases == ("challenger", "champion")
    assert not done.reused

    run = client().get_run(done.run_id)
    metrics = json.loads((stage.evaluation / "metrics.json").read_text())
    expected = metrics["policies"]["router"]["reward"]["mean"]
    assert run.info.status == "FINISHED"
    assert run.data.metrics["router/reward"] == pytest.approx(expected)
    assert {"single:small/cost", "oracle/quality", "router/facts/reward"} <= set(run.data.metrics)
    assert not any("path:" in name for name in run.data.metrics)
    assert run.data.params["pool.models.large.model"] == "org/large"
    assert run.data.tags["mlflow.source.git.commit"] == "c0ffee"
    assert run.data.tags["hierrouter.tree_digest"] == "2" * 64
    assert "| router |" in run.data.tags["mlflow.note.content"]

    history = client().get_metric_history(done.run_id, "training/reward")
    assert [(point.step, point.value) for point in history] == [(1, 0.1), (2, 0.2), (3, 0.3)]
    assert [point.step for point in client().get_metric_history(done.run_id, "training/loss")] == [
        2,
        3,
    ]

    inputs = {entry.dataset.name: entry for entry in run.inputs.dataset_inputs}
    assert set(inputs) == {"queries-train", "queries-test"}
    assert json.loads(inputs["queries-test"].dataset.profile)["num_rows"] == 10
    assert inputs["queries-train"].tags[0].value == "train"

    files = {
        entry.path
        for folder in ("router", "evaluation")
        for entry in client().list_artifacts(done.run_id, folder)
    }
    assert files == {
        "router/router.json",
        "router/router.safetensors",
        "router/learning_curve.json",
        "router/README.md",
        "evaluation/metrics.json",
        "evaluation/per_query.parquet",
        "evaluation/report.html",
    }
    assert {path.name for path in here.iterdir()} == {"mlflow.db", "mlruns"}


def test_a_card_that_is_too_long_for_a_tag_is_cut_at_a_line(stage: Stage) -> None:
    record = read_record(CONFIG, stage.router, stage.evaluation, None)
    assert record.tags()["mlflow.note.content"] == record.card
    rows = "".join(f"| model {number} | weights | (none) |\n" for number in range(300))
    told = replace(record, card=rows).tags()["mlflow.note.content"]
    assert 7_500 < len(told) < 8_000
    kept, _, rest = told.rpartition("\n\n")
    assert rows.startswith(kept + "\n")
    assert rest == "The rest is in router/README.md."


def test_the_same_is_registered_once(here: Path, stage: Stage) -> None:
    first = register_router(CONFIG, stage.router, stage.evaluation, stage.tree)
    moved = stage.router.with_name("elsewhere")
    stage.router.rename(moved)
    second = register_router(CONFIG, moved, stage.evaluation, stage.tree)
    assert second.reused
    assert (second.run_id, second.version) == (first.run_id, 1)
    assert second.aliases == first.aliases
    assert len(client().search_runs([first.experiment_id])) == 1


def test_the_newest_is_challenger_and_the_champion_stays(
    here: Path, stage: Stage, other_stage: Stage
) -> None:
    register_router(CONFIG, stage.router, stage.evaluation)
    second = register_router(CONFIG, other_stage.router, other_stage.evaluation)
    assert (second.version, second.aliases) == (2, ("challenger",))
    aliases = client().get_registered_model("hierrouter").aliases
    assert {name: int(version) for name, version in aliases.items()} == {
        "champion": 1,
        "challenger": 2,
    }
    # Registering the first again moves nothing; a person's choice of champion stands.
    client().set_registered_model_alias("hierrouter", "champion", "2")
    first = register_router(CONFIG, stage.router, stage.evaluation)
    assert first.reused
    assert first.aliases == ()
    aliases = client().get_registered_model("hierrouter").aliases
    assert {int(version) for version in aliases.values()} == {2}


def test_the_same_under_another_name(here: Path, stage: Stage) -> None:
    register_router(CONFIG, stage.router, stage.evaluation)
    other = CONFIG.model_copy(update={"registered_name": "team-b"})
    done = register_router(other, stage.router, stage.evaluation)
    assert (done.uri, done.reused, done.aliases) == (
        "models:/team-b/1",
        False,
        ("challenger", "champion"),
    )


def test_a_failure_leaves_nothing_and_the_same_call_goes_on(
    here: Path, stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(register, "headline_metrics", interrupted)  # the run is half filled
        with pytest.raises(KeyboardInterrupt):
            register_router(CONFIG, stage.router, stage.evaluation)
    experiment = client().get_experiment_by_name("hierrouter").experiment_id
    assert client().search_runs([experiment]) == []
    assert client().search_logged_models([experiment]) == []
    assert client().search_registered_models() == []
    assert register_router(CONFIG, stage.router, stage.evaluation).version == 1


def test_a_deleted_version_is_made_again_of_the_same_run(here: Path, stage: Stage) -> None:
    first = register_router(CONFIG, stage.router, stage.evaluation)
    client().delete_model_version("hierrouter", "1")
    second = register_router(CONFIG, stage.router, stage.evaluation)
    assert (second.run_id, second.version, second.reused) == (first.run_id, 2, False)
    assert second.aliases == ("challenger", "champion")
    (run,) = client().search_runs([first.experiment_id])
    assert run.info.run_id == first.run_id
    mlflow.pyfunc.load_model("models:/hierrouter@champion")


@pytest.mark.parametrize(
    ("tags", "minutes", "stays"),
    [
        ({}, 0, True),  # this process: another registration at the same time
        ({}, 16, False),
        ({"hierrouter.process": "elsewhere/1"}, 16, True),
        ({"mlflow.user": "somebody-else"}, 16, True),
    ],
)
def test_a_run_that_may_be_in_the_making_is_left_alone(
    here: Path,
    stage: Stage,
    monkeypatch: pytest.MonkeyPatch,
    tags: dict[str, str],
    minutes: int,
    stays: bool,
) -> None:
    done = register_router(CONFIG, stage.router, stage.evaluation)
    finished = client().get_run(done.run_id)
    assert finished.data.tags["hierrouter.process"] == process()
    # As the run was a moment before it was complete.
    client().delete_model_version("hierrouter", "1")
    client().delete_tag(done.run_id, register.COMPLETE)
    for name, value in tags.items():
        client().set_tag(done.run_id, name, value)
    later = (finished.info.start_time + minutes * 60_000 + 1000) / 1000
    monkeypatch.setattr(register.time, "time", lambda: later)
    again = register_router(CONFIG, stage.router, stage.evaluation)
    assert again.run_id != done.run_id
    assert (client().get_run(done.run_id).info.lifecycle_stage == "active") is stays


def test_data_sets_named_later_are_recorded(here: Path, stage: Stage) -> None:
    first = register_router(CONFIG, stage.router, stage.evaluation)
    assert client().get_run(first.run_id).inputs.dataset_inputs == []
    second = register_router(CONFIG, stage.router, stage.evaluation, stage.tree)
    assert (second.version, second.reused) == (2, False)
    assert len(client().get_run(second.run_id).inputs.dataset_inputs) == 2
    assert register_router(CONFIG, stage.router, stage.evaluation, stage.tree).reused


@pytest.mark.parametrize("moment", ["_fill", "_create_version", "settle"])
def test_a_kill_at_any_moment_is_made_good(here: Path, stage: Stage, moment: str) -> None:
    code = (
        "import os, sys; from pathlib import Path\n"
        "from hierrouter.config import EvaluationConfig\n"
        "from hierrouter.tracking import register\n"
        f"setattr(register, {moment!r}, lambda *_, **__: os._exit(9))\n"
        "config = EvaluationConfig.model_validate_json(sys.argv[1])\n"
        "register.register_router(config, Path(sys.argv[2]), Path(sys.argv[3]))\n"
    )
    done = subprocess.run(
        [
            *(sys.executable, "-c", code, CONFIG.model_dump_json()),
            *(str(stage.router), str(stage.evaluation)),
        ],
        check=False,
    )
    assert done.returncode == 9
    again = register_router(CONFIG, stage.router, stage.evaluation)
    assert (again.version, again.aliases) == (1, ("challenger", "champion"))
    (run,) = client().search_runs([again.experiment_id])
    assert run.info.status == "FINISHED"
    assert len(client().search_model_versions("name = 'hierrouter'")) == 1


def test_the_pyfunc_decides_as_the_router_does(here: Path, stage: Stage) -> None:
    register_router(CONFIG, stage.router, stage.evaluation)
    model = mlflow.pyfunc.load_model("models:/hierrouter@champion")
    prompts = [f"sums: what about item {number}?" for number in range(20)]
    alphas = np.linspace(0, 1, 20)
    answer = model.predict(pd.DataFrame({"prompt": prompts, "alpha": alphas}))

    router = Router.load(stage.router)
    vectors = HashingEncoder(WIDTH).encode(prompts)
    scores = np.concatenate(
        [
            router.scores(vectors[[row]], vectors[[row]], 0, np.zeros(1), float(alpha))
            for row, alpha in enumerate(alphas)
        ]
    )
    best = scores.argmax(axis=1)
    assert answer["model"].tolist() == [MODELS[action // 2] for action in best]
    assert answer["role"].tolist() == [("analyze", "solve")[action % 2] for action in best]
    assert len(set(best)) > 1  # or the comparison would say little
    names = ["small/analyze", "small/solve", "large/analyze", "large/solve"]
    np.testing.assert_allclose(answer[names], np.exp(scores[:, :4]), rtol=1e-4, atol=1e-7)
    np.testing.assert_allclose(answer[names].sum(axis=1), 1, rtol=1e-5)

    for alpha in (-0.1, 1e40):
        with pytest.raises(HierRouterError, match="alpha: give numbers from 0 to 1,000,000"):
            model.predict(pd.DataFrame({"prompt": prompts[:1], "alpha": [alpha]}))

    # Without an alpha, the headline alpha of the evaluation is taken.
    plain = model.predict(pd.DataFrame({"prompt": prompts}))
    headline = model.predict(pd.DataFrame({"prompt": prompts, "alpha": 0.1}))
    pd.testing.assert_frame_equal(plain, headline)


def test_the_pyfunc_carries_its_own_code(here: Path, stage: Stage) -> None:
    register_router(CONFIG, stage.router, stage.evaluation)
    code = (
        "import site, sys; site.main()\n"
        "import importlib.util\n"
        "home = importlib.util.find_spec('hierrouter')\n"
        "if home:\n"
        "    source = home.submodule_search_locations[0].rsplit('/', 1)[0]\n"
        "    sys.path[:] = [path for path in sys.path if path != source]\n"
        "sys.meta_path[:] = [f for f in sys.meta_path if '__editable__' not in f.__module__]\n"
        "importlib.invalidate_caches()\n"
        "assert importlib.util.find_spec('hierrouter') is None\n"
        "import mlflow, pandas as pd\n"
        "model = mlflow.pyfunc.load_model('models:/hierrouter/1')\n"
        "print(model.predict(pd.DataFrame({'prompt': ['one']}))['model'][0])\n"
        "import hierrouter; print(hierrouter.__file__)\n"
    )
    done = subprocess.run(
        [sys.executable, "-S", "-c", code], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    model, file = done.stdout.splitlines()
    assert model in MODELS
    assert file.startswith(str(here / "mlruns"))


def test_fetching_gives_the_folder_and_runs_nothing(
    here: Path, stage: Stage, other_stage: Stage, tmp_path: Path
) -> None:
    register_router(CONFIG, stage.router, stage.evaluation)
    register_router(CONFIG, other_stage.router, other_stage.evaluation)
    for code in (here / "mlruns").rglob("*.py"):
        code.write_text("raise SystemExit('code of the model was run')")
    dest = tmp_path / "fetched"
    assert fetch_router("models:/hierrouter@champion", dest) == dest
    assert Router.load(dest).info == Router.load(stage.router).info
    assert {path.name for path in dest.iterdir()} == {
        "registered.json",
        "router.json",
        "router.safetensors",
        "learning_curve.json",
        "README.md",
    }
    assert json.loads((dest / "registered.json").read_text())["version"] == 1
    fetch_router("models:/hierrouter/2", dest)  # over the other
    assert Router.load(dest).info == Router.load(other_stage.router).info
    assert fetch_router(str(stage.router), tmp_path / "unused") == stage.router
    assert not (tmp_path / "unused").exists()


def test_a_version_is_fetched_once_and_a_moved_alias_is_followed(
    here: Path, stage: Stage, other_stage: Stage, tmp_path: Path
) -> None:
    register_router(CONFIG, stage.router, stage.evaluation)
    register_router(CONFIG, other_stage.router, other_stage.evaluation)
    dest = fetch_router("models:/hierrouter@champion", tmp_path / "fetched")
    stored = list((here / "mlruns").rglob("router.json"))
    assert stored
    for path in stored:
        path.rename(path.with_suffix(".away"))  # a download would fail now
    fetch_router("models:/hierrouter@champion", dest)
    assert Router.load(dest).info == Router.load(stage.router).info
    for path in stored:
        path.with_suffix(".away").rename(path)
    client().set_registered_model_alias("hierrouter", "champion", "2")
    fetch_router("models:/hierrouter@champion", dest)
    assert Router.load(dest).info == Router.load(other_stage.router).info
    (dest / "router.safetensors").write_bytes(b"damaged")
    fetch_router("models:/hierrouter@champion", dest)
    assert Router.load(dest).info == Router.load(other_stage.router).info


def test_fetching_what_is_not_there(here: Path, stage: Stage, tmp_path: Path) -> None:
    register_router(CONFIG, stage.router, stage.evaluation)
    for uri in ("models:/hierrouter/7", "models:/hierrouter@nobody", "models:/none/1"):
        with pytest.raises(HierRouterError, match="is not a router in MLflow at") as caught:
            fetch_router(uri, tmp_path / "fetched")
        assert "\n" not in str(caught.value)
    with pytest.raises(ConfigError, match="name models:/NAME@ALIAS"):
        fetch_router("models:/hierrouter", tmp_path / "fetched")
    with pytest.raises(ConfigError, match="name a router's folder"):
        fetch_router("s3://bucket/router", tmp_path / "fetched")
    with pytest.raises(HierRouterError, match="holds no router"):
        fetch_router(str(tmp_path / "none"), tmp_path / "fetched")
    (tmp_path / "busy").mkdir()
    (tmp_path / "busy" / "file").write_text("")
    with pytest.raises(ConfigError, match="not empty"):
        fetch_router("models:/hierrouter@champion", tmp_path / "busy")


def test_a_registered_router_that_cannot_be_read_is_named_by_its_address(
    here: Path, stage: Stage, tmp_path: Path
) -> None:
    register_router(CONFIG, stage.router, stage.evaluation)
    for stored in (here / "mlruns").rglob("router.json"):
        said = json.loads(stored.read_text())
        stored.write_text(json.dumps(said | {"format_version": 1}))
    dest = tmp_path / "fetched"
    with pytest.raises(HierRouterError, match=r"^models:/hierrouter@champion has router format 1"):
        fetch_router("models:/hierrouter@champion", dest)
    assert not dest.exists()
    dest.mkdir()
    with pytest.raises(HierRouterError):
        fetch_router("models:/hierrouter@champion", dest)
    assert dest.is_dir()


def test_a_real_server(server: str, stage: Stage, tmp_path: Path) -> None:
    done = register_router(CONFIG, stage.router, stage.evaluation, stage.tree)
    assert done.aliases == ("challenger", "champion")
    assert register_router(CONFIG, stage.router, stage.evaluation, stage.tree).reused
    fetched = fetch_router("models:/hierrouter@challenger", tmp_path / "fetched")
    assert Router.load(fetched).info == Router.load(stage.router).info
    assert ui_command() == f"open {server}"


@pytest.fixture
def dead_port(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """A port that refuses connections: bound, so that nobody takes it, but not listening."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://me:secret@127.0.0.1:{port}")
        yield port


def test_a_dead_server_is_one_line(dead_port: int, stage: Stage, tmp_path: Path) -> None:
    before = dict(os.environ)
    for call in (
        lambda: register_router(CONFIG, stage.router, stage.evaluation),
        lambda: fetch_router("models:/hierrouter@champion", tmp_path / "fetched"),
    ):
        with pytest.raises(UnreachableError) as caught:
            call()
        text = str(caught.value)
        assert text.startswith(f"MLflow at http://127.0.0.1:{dead_port} does not answer; ")
        assert "\n" not in text
        assert "secret" not in text
    changed = {key for key in {*before, *os.environ} if before.get(key) != os.environ.get(key)}
    assert changed <= {"MLFLOW_DISABLE_TELEMETRY"}


def test_an_unusable_store_is_one_line(
    here: Path, stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    (here / "mlflow.db").write_bytes(b"this is no database, however long it may be" * 50)
    with pytest.raises(HierRouterError, match=r"^MLflow at sqlite:///mlflow.db: ") as caught:
        register_router(CONFIG, stage.router, stage.evaluation)
    assert "\n" not in str(caught.value)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "gopher://x")
    with pytest.raises(HierRouterError, match=r"^MLflow at gopher://x: "):
        register_router(CONFIG, stage.router, stage.evaluation)


def test_a_deleted_experiment_is_named(here: Path, stage: Stage) -> None:
    done = register_router(CONFIG, stage.router, stage.evaluation)
    client().delete_experiment(done.experiment_id)
    with pytest.raises(HierRouterError, match="experiment hierrouter was deleted"):
        register_router(CONFIG, stage.router, stage.evaluation)


def test_inputs_are_looked_at_before_mlflow_is_asked(
    dead_port: int, stage: Stage, other_stage: Stage
) -> None:
    with pytest.raises(HierRouterError, match="is the evaluation of another router"):
        register_router(CONFIG, stage.router, other_stage.evaluation)
    with pytest.raises(HierRouterError, match="holds no router"):
        register_router(CONFIG, stage.tree, stage.evaluation)
    queries = read_queries(stage.tree / "queries.parquet")
    write_queries(stage.tree / "queries.parquet", queries[1:])
    with pytest.raises(HierRouterError, match="holds other queries than"):
        register_router(CONFIG, stage.router, stage.evaluation, stage.tree)
    (stage.evaluation / "report.html").unlink()
    with pytest.raises(HierRouterError, match=r"holds no report\.html"):
        register_router(CONFIG, stage.router, stage.evaluation)
    (other_stage.evaluation / "metrics.json").write_text("{}")
    with pytest.raises(DamagedFileError, match="evaluate the router anew"):
        register_router(CONFIG, other_stage.router, other_stage.evaluation)


def test_mlflow_is_quiet(here: Path, stage: Stage, capfd: pytest.CaptureFixture[str]) -> None:
    register_router(CONFIG, stage.router, stage.evaluation, stage.tree)
    out, err = capfd.readouterr()
    assert out == ""
    registered, reason = err.splitlines()
    assert registered == (
        "router registered as models:/hierrouter/1 (challenger, champion) in MLflow at "
        "sqlite:///mlflow.db"
    )
    assert reason.startswith("version 1: becomes champion, for there was none; ")


def test_the_ui_command_is_short_where_the_program_is_near(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert ui_command().endswith("mlflow server --backend-store-uri sqlite:///mlflow.db")
    monkeypatch.setattr(sys, "executable", str(here / ".venv" / "bin" / "python"))
    assert ui_command().startswith(".venv/bin/mlflow server ")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://user:word@mlflow.example/base")
    assert shown_uri() == "https://mlflow.example/base"
    assert "word" not in ui_command()


def test_the_commit_is_that_of_the_packages_checkout(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("GIT_COMMIT", raising=False)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    package = tmp_path / "src" / "hierrouter"
    installed = tmp_path / ".venv" / "hierrouter"
    for folder in (package, installed):
        folder.mkdir(parents=True)
        (folder / "__init__.py").write_text("")
    assert git_commit(package) is None

    def git(*words: str) -> str:
        identity = ["-c", "user.name=a", "-c", "user.email=a@b"]
        done = subprocess.run(
            ["git", "-C", str(tmp_path), *identity, *words],
            check=True,
            capture_output=True,
            text=True,
        )
        return done.stdout.strip()

    git("init", "-q")
    git("add", "src")
    assert git_commit(package) is None  # no commit yet
    git("commit", "-q", "-m", "x")
    git("tag", "-a", "v1", "-m", "x")
    commit = git("rev-parse", "HEAD")
    assert git_commit(package) == commit
    assert git_commit(installed) is None  # it merely lies there
    (package / "__init__.py").write_text("changed")
    assert git_commit(package) == f"{commit}-dirty"
    monkeypatch.setenv("GIT_COMMIT", "c0ffee")
    assert git_commit(package) == "c0ffee"


def test_mlflow_is_imported_only_when_it_is_needed() -> None:
    code = (
        "import sys, hierrouter.tracking.register, hierrouter.tracking.resolve\n"
        "sys.exit('mlflow' in sys.modules or 'torch' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
