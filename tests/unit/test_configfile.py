"""Configuration files: what is accepted, and the one line that each mistake ends in."""

from __future__ import annotations

import os
from pathlib import Path
from types import UnionType
from typing import Any, Union, get_args, get_origin

import pytest

from hierrouter import config as config_module
from hierrouter.config import (
    AnswerFormats,
    AnswerKind,
    Config,
    EvaluationConfig,
    PoolConfig,
    Section,
)
from hierrouter.configfile import dump_config, explain, load_config, load_part
from hierrouter.errors import ConfigError

CONFIGS = Path(__file__).parents[2] / "configs"
MINIMAL = """\
pool:
  models:
    - {name: small, model: org/small, base_rate: 1e-3}
    - {name: large, model: org/large, base_rate: 0.004, limits: {solve: 100}}
training:
  iterations: 7
"""


@pytest.fixture
def minimal(tmp_path: Path) -> Path:
    path = tmp_path / "minimal.yaml"
    path.write_text(MINIMAL)
    return path


def complaint(path: Path, *overrides: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load_config(path, overrides)
    assert caught.value.exit_code == 2
    text = str(caught.value)
    assert "\n" not in text
    return text


def written(tmp_path: Path, text: str | bytes) -> Path:
    path = tmp_path / "bad.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_values_and_defaults(minimal: Path) -> None:
    config = load_config(minimal)
    assert [model.base_rate for model in config.pool.models] == [0.001, 0.004]
    assert config.training.iterations == 7
    assert config.training.epochs == 4  # a default


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_shipped_config_loads_and_round_trips(path: Path, tmp_path: Path) -> None:
    open_pool = path.stem == "outcomes"  # imported outcomes bring their models along
    config = load_config(path, any_pool=open_pool)
    assert bool(config.pool.models) != open_pool
    again = tmp_path / "again.yaml"
    again.write_text(dump_config(config))
    assert load_config(again, any_pool=open_pool) == config


@pytest.mark.parametrize(
    ("override", "read", "value"),
    [
        ("training.iterations=20", lambda c: c.training.iterations, 20),
        ("training.learning_rate=1e-4", lambda c: c.training.learning_rate, 1e-4),
        ("training.learning_rate=1", lambda c: c.training.learning_rate, 1.0),
        ("training.alpha=sampled", lambda c: c.training.alpha, "sampled"),
        ("training.alpha=.2", lambda c: c.training.alpha, 0.2),
        ("training.projection=null", lambda c: c.training.projection, None),
        ("pool.models.1.base_rate=0.001", lambda c: c.pool.models[1].base_rate, 0.001),
        ("pool.models.1.limits.analyze=9", lambda c: c.pool.models[1].limits.analyze, 9),
        ('pool.models.0.instruction="a: b=c"', lambda c: c.pool.models[0].instruction, "a: b=c"),
        ("evaluation.alphas=[0, .1]", lambda c: c.evaluation.alphas, [0, 0.1]),
        ("evaluation.alphas.1=.07", lambda c: c.evaluation.alphas[:3], [0, 0.07, 0.1]),
        (
            "pool.models.0.limits.solve_by_task.math=600",
            lambda c: c.pool.models[0].limits.solve_by_task,
            {"math": 600},
        ),
        (
            "pool.prompts.answer_formats.text=Short.",
            lambda c: c.pool.prompts.answer_formats.text,
            "Short.",
        ),
        ("pool.models=[{name: b, model: m, base_rate: 0}]", lambda c: len(c.pool.models), 1),
    ],
)
def test_overrides(minimal: Path, override: str, read: Any, value: Any) -> None:
    assert read(load_config(minimal, [override])) == value


def test_later_overrides_win_and_keep_what_was_written(minimal: Path) -> None:
    config = load_config(
        minimal, ["pool.models.1.limits.analyze=5", "training.epochs=2", "training.epochs=3"]
    )
    assert config.training.epochs == 3
    assert config.pool.models[1].limits.solve == 100
    assert config.pool.models[1].limits.analyze == 5


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("training.iteratoins=3", "training.iteratoins: unknown key (did you mean iterations?)"),
        ("trainig.iterations=3", "trainig: unknown key (did you mean training?)"),
        ("zzz=3", "zzz: unknown key (known: data, pool, training, evaluation)"),
        ("pool.models.0.nmae=x", "pool.models.0.nmae: unknown key (did you mean name?)"),
        ("pool.models.2.name=x", "pool.models has 2 entries; name one by its number from 0"),
        ("pool.models.first.name=x", "pool.models has 2 entries"),
        (
            "training.iterations=many",
            'training.iterations: "many" is not allowed; should be a whole number',
        ),
        ("training.temperature=1000", "1000 is not allowed; should be at most 10"),
        ("training.iterations=true", "true is not allowed; should be a whole number"),
        ("training.iterations=2.5", "2.5 is not allowed; should be a whole number"),
        ("training.iterations=0", "training.iterations: 0 is not allowed; should be above 0"),
        ("training.iterations.x=0", "training.iterations is 7, which has no keys"),
        (
            "training.alpha=-1",
            "training.alpha: -1 is not allowed; should be at least 0 or 'sampled'",
        ),
        ("training.alpha=.inf", ".inf is not a finite number"),
        ("training.seed=-1", "training.seed: -1 is not allowed; should be at least 0"),
        ("evaluation.seed=-1", "evaluation.seed: -1 is not allowed; should be at least 0"),
        ("evaluation.alphas.0=-.1", "evaluation.alphas.0: -0.1 is not allowed; should be at least"),
        ("evaluation.alpha=.3", "evaluation: alpha 0.3 must be one of alphas"),
        ("training.alpha=1e8", "training.alpha: 100000000.0 is not allowed; should be"),
        ("training.lambda_max=.99999", "training.lambda_max: 0.99999 is not allowed; should be"),
        ("training.validation_alphas=[1e8]", "training.validation_alphas.0: 100000000.0 is not"),
        ("evaluation.alphas=[.1, 1e8]", "evaluation.alphas.1: 100000000.0 is not allowed; should"),
        ("evaluation.alpha=1e8", "evaluation.alpha: 100000000.0 is not allowed; should be"),
        ("evaluation.alphas=[0, .5]", "evaluation: alpha 0.1 must be one of alphas"),
        (
            "training.moves=jump",
            "training.moves: \"jump\" is not allowed; should be 'direct', 'paper', 'early_exit', "
            "'cascade' or 'escalate'",
        ),
        ("pool.models.0.name=a b", 'pool.models.0.name: "a b" is not allowed; should be text that'),
        ("pool.models.0.model=7", "pool.models.0.model: 7 is not allowed; should be text"),
        ("pool.models.0.backend=scripted", "pool.models.0: model small: `scripted` goes with"),
        ("pool.models.1.name=small", "pool: model names must differ; twice: small"),
        ("data.train_share=1", "data.train_share: 1 is not allowed; should be below 1"),
        (
            "pool.models.0.limits.solve_by_task={mbppp: 96}",
            "pool.models.0.limits.solve_by_task.mbppp: no task has this name (did you mean mbpp?)",
        ),
        (
            "pool.references=[{name: r, model: m, base_rate: 0, limits: {solve_by_task: {go: 9}}}]",
            "pool.references.0.limits.solve_by_task.go: no task has this name (known: arc_chall",
        ),
        (
            "data.revisions.gsm9k=v1",
            "data.revisions.gsm9k: no task has this name (did you mean gsm8k?)",
        ),
        ("data.revisions.gsm8k=7", "data.revisions.gsm8k: 7 is not allowed; should be text"),
        ("pool.prompts.answer_formats.txt=x", "txt: unknown key (did you mean text?)"),
        ("training.validation_share=0", "training: keep: best chooses on validation queries"),
        ("training.validation_share=1", "validation_share: 1 is not allowed; should be below 1"),
        ("pool={}", "pool.models: this key is missing and has no default"),
        ("training", "write it as KEY=VALUE"),
        ("training..seed=1", "write it as KEY=VALUE"),
        ("training.seed=[", "not usable YAML"),
        ("pool.models.0.instruction=a: b", "should be text (quote it)"),
    ],
)
def test_a_wrong_override_is_named(minimal: Path, override: str, words: str) -> None:
    text = complaint(minimal, override)
    assert text.startswith(f"--set {override}: ")
    assert words in text


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            MINIMAL.replace("iterations", "iteratoins"),
            "training.iteratoins: unknown key (did you mean iterations?)",
        ),
        (MINIMAL.replace("7", "seven"), 'training.iterations: "seven" is not allowed'),
        (MINIMAL + "  iterations: 8\n", "line 7: not usable YAML: the key iterations stands twice"),
        (MINIMAL + "data: [\n", "not usable YAML"),
        (MINIMAL + "data:\n  seed: .nan\n", "line 8: not usable YAML: .nan is not a finite number"),
        (MINIMAL + "data:\n\tseed: 1\n", "line 8: not usable YAML"),
        ("", "the file is empty"),
        ("# only a comment\n", "the file is empty"),
        ("- 1\n- 2\n", "holds no keys"),
        ("pool: !!python/object:os.system {}\n", "not usable YAML"),
        (b"pool: \xff\xff", "not usable YAML"),
        ("[" * 5000, "nested too deeply"),
        (MINIMAL + "training2: {}\nzz: 1\n", "(and 1 more)"),
    ],
)
def test_a_wrong_file_is_named(tmp_path: Path, text: str | bytes, words: str) -> None:
    path = written(tmp_path, text)
    said = complaint(path)
    assert said.startswith(f"{path}: ")
    assert words in said


def test_a_file_error_is_not_blamed_on_an_override(tmp_path: Path) -> None:
    path = written(tmp_path, MINIMAL.replace("7", "-7"))
    assert complaint(path, "training.epochs=3").startswith(f"{path}: training.iterations: -7")


def test_a_misnamed_task_in_a_file_is_not_blamed_on_an_override(tmp_path: Path) -> None:
    limits = "limits: {solve: 100, solve_by_task: {mbppp: 9}}"
    path = written(tmp_path, MINIMAL.replace("limits: {solve: 100}", limits))
    said = complaint(path, "training.epochs=3")
    assert said.startswith(f"{path}: pool.models.1.limits.solve_by_task.mbppp: no task")


SCRIPTED = """\
data: {source: scripted, tasks: [arithmetic, history]}
pool:
  models:
    - name: m
      model: m
      base_rate: 0
      backend: scripted
      scripted: {solve: {SKILLS}}
"""


@pytest.mark.parametrize(
    ("skills", "words"),
    [
        ("arithmetic: 1, histroy: 1", "histroy: no task has this name (did you mean history?)"),
        ("mbppp: 1", "mbppp: no task has this name (did you mean mbpp?)"),
        # A pool may know tasks that this experiment does not ask.
        ("arithmetic: 1, counting: 1", ""),
        ("history: 1, history2: 1", ""),
    ],
)
def test_scripted_skills_for_a_misspelt_task(tmp_path: Path, skills: str, words: str) -> None:
    path = written(tmp_path, SCRIPTED.replace("SKILLS", skills))
    if words:
        assert complaint(path) == f"{path}: pool.models.0.scripted.solve.{words}"
    else:
        assert set(load_config(path).pool.models[0].scripted.solve) >= {skills.split(":")[0]}


def test_scripted_queries_have_no_revision(tmp_path: Path) -> None:
    path = written(tmp_path, SCRIPTED.replace("SKILLS", "history: 1"))
    said = complaint(path, "data.revisions={history: v1}")
    assert said.endswith("data.revisions: goes with `source: benchmarks` only")


def test_answer_formats_that_are_not_written_keep_their_defaults(tmp_path: Path) -> None:
    text = MINIMAL.replace("pool:", "pool:\n  prompts: {answer_formats: {letter: Only X.}}")
    formats = load_config(written(tmp_path, text)).pool.prompts.answer_formats
    assert formats == AnswerFormats(letter="Only X.")
    assert formats.number == AnswerFormats().number != ""


def test_every_kind_of_answer_has_a_format() -> None:
    assert set(AnswerFormats.model_fields) == set(get_args(AnswerKind))


def test_nothing_may_be_kept_back_where_the_last_checkpoint_is_kept(minimal: Path) -> None:
    config = load_config(minimal, ["training.keep=last", "training.validation_share=0"])
    assert config.training.validation_share == 0


def test_missing_files_and_folders(minimal: Path) -> None:
    assert "there is no such file (did you mean minimal.yaml?)" in complaint(
        minimal.with_name("minimum.yaml")
    )
    assert complaint(minimal.parent / "none" / "x.yaml").endswith("there is no such file")
    assert "is a folder" in complaint(minimal.parent)


def test_an_unreadable_file(minimal: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    minimal.chmod(0)
    minimal.parent.chmod(0o755)
    monkeypatch.chdir(minimal.parent)
    user = os.geteuid()
    try:
        if user == 0:  # root reads everything
            os.seteuid(65534)
        assert "cannot be read" in complaint(Path(minimal.name))
    finally:
        os.seteuid(user)


def sections() -> list[type[Section]]:
    return [
        value
        for value in vars(config_module).values()
        if isinstance(value, type) and issubclass(value, Section)
    ]


def test_every_field_is_described() -> None:
    missing = [
        f"{section.__name__}.{name}"
        for section in sections()
        for name, field in section.model_fields.items()
        if not field.description
    ]
    assert missing == []


def paths_of(section: type[Section], prefix: str = "") -> set[str]:
    """Every dotted path, by an independent walk over the annotations."""
    found = set()
    for name, field in section.model_fields.items():
        found.add(prefix + name)
        members = [field.annotation]
        if get_origin(field.annotation) in (Union, UnionType):
            members = list(get_args(field.annotation))
        for member in members:
            if isinstance(member, type) and issubclass(member, Section):
                found |= paths_of(member, f"{prefix}{name}.")
            elif get_origin(member) is list and name != "references":
                (entry,) = get_args(member)
                if isinstance(entry, type) and issubclass(entry, Section):
                    found |= paths_of(entry, f"{prefix}{name}[].")
            elif get_origin(member) is dict:
                _, entry = get_args(member)
                if isinstance(entry, type) and issubclass(entry, Section):
                    found |= paths_of(entry, f"{prefix}{name}.NAME.")
    return found


def test_explain_names_every_path_once() -> None:
    rows = list(explain())
    paths = [path for path, *_ in rows]
    assert len(paths) == len(set(paths))
    assert set(paths) == paths_of(Config)
    assert all(kind and description for _, kind, _, description in rows)


def test_explain_speaks_plainly() -> None:
    rows = {path: (kind, default) for path, kind, default, _ in explain()}
    assert rows["training.iterations"] == ("whole number (> 0)", "60")
    assert rows["training.alpha"] == ("number (>= 0, <= 10000) or sampled", '"sampled"')
    assert rows["training.projection"] == ("whole number (> 0) or null", "256")
    assert rows["training.policy"] == ("decomposed or mlp", '"decomposed"')
    assert rows["training.centres"] == ("whole number (>= 0)", "64")
    assert rows["pool.models[].name"][1] == "required"
    assert rows["pool.models[].limits.solve_by_task"][0].startswith("map from text")
    assert rows["training.learning_rate_decay"] == ("true or false", "true")


def test_the_paper_config_has_the_papers_numbers() -> None:
    """The expected values are the paper's (sections 3 and 4, Table 2, Appendix B and C)."""
    config = load_config(CONFIGS / "paper.yaml")
    assert config.data.tasks == ["gsm8k", "math", "mbpp", "arc_easy", "arc_challenge", "mmlu"]
    assert (config.data.queries_per_task, config.data.train_share) == (300, 0.7)
    pool = [(model.model, model.rate) for model in config.pool.models]
    assert pool == [
        ("Qwen/Qwen2.5-Coder-3B-Instruct", 0.003),
        ("deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B", 0.002),
        ("microsoft/Phi-3.5-mini-instruct", 0.003),
    ]
    references = [(model.model, model.rate) for model in config.pool.references]
    assert references == [
        ("meta-llama/Llama-3.1-8B-Instruct", 0.008),
        ("Qwen/Qwen2.5-14B-Instruct", 0.014),
    ]
    assert config.pool.hops == 2
    assert config.pool.encoder.model == "sentence-transformers/all-mpnet-base-v2"
    assert config.pool.encoder.max_tokens == 512
    assert config.pool.prompts.analyze == (
        "Describe the problem in detail, then plan how you would solve it. Analyze the problem "
        "step by step, identifying key constraints and requirements."
    )
    assert config.pool.prompts.solve == (
        "Using the previous analysis and plan, verify if the approach is correct and solve the "
        "problem methodically. Ensure completeness and correctness in your solution."
    )
    training = config.training
    # A two-layer MLP that learns by PPO alone, and no limits of models or hops.
    assert (training.policy, training.learner, training.start) == ("mlp", "ppo", "nothing")
    assert training.limited_share == 0
    assert (training.moves, training.metric, training.view) == ("paper", "token_f1", "paper")
    assert (training.alpha, training.cost_unit_usd) == (0.005, 1.0)
    assert (training.iterations, training.rollouts) == (8, 128)
    assert training.steps in (None, 2)  # a rollout is an episode of L = 2 hops
    assert (training.minibatches, training.epochs) == (16, 4)
    assert (training.gamma, training.gae_lambda, training.clip_range) == (0.99, 0.95, 0.2)
    assert (training.value_coefficient, training.entropy_coefficient) == (0.5, 0.01)
    assert (training.max_grad_norm, training.learning_rate) == (0.3, 1e-4)
    assert training.learning_rate_decay is False
    assert training.adam_eps == 1e-4
    assert training.seed == 42
    assert training.projection is None
    # No choice of a checkpoint and no change of alpha is described: all queries are trained on.
    assert (training.keep, training.validation_share, training.alpha_warmup) == ("last", 0, 0)
    assert config.evaluation.alpha == 0.005


def test_a_part_by_itself_is_read_with_the_same_words() -> None:
    """As a pipeline's stage gets it; a slip is held against that part's keys."""
    pool = "{hops: 3, models: [{name: A, model: a/b, base_rate: 1.0}]}"
    assert load_part(PoolConfig, pool, "pool").hops == 3
    with pytest.raises(ConfigError, match=r"^pool: hop: unknown key \(did you mean hops\?\)"):
        load_part(PoolConfig, "{hop: 3}", "pool")
    with pytest.raises(ConfigError, match=r"^evaluation: holds no keys; give the config's part"):
        load_part(EvaluationConfig, "hello", "evaluation")


def test_settings_are_finite_wherever_they_come_from() -> None:
    with pytest.raises(ValueError, match="finite"):
        EvaluationConfig(alphas=[0.1, float("inf")])
