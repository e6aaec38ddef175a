"""The typed configuration: every number of an experiment, documented where it is defined.

A config has four parts. A stage reads only its own part and what its inputs came from:
`data` (sampling), `pool` (collecting), `training` and `evaluation`. `hierrouter config --explain`
prints this file's descriptions.
"""

from __future__ import annotations

import difflib
import re
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

if TYPE_CHECKING:
    from collections.abc import Mapping

BENCHMARK_TASKS = ("gsm8k", "math", "mbpp", "arc_easy", "arc_challenge", "mmlu")
"""The paper's six benchmarks (section 4)."""

ALPHA_GRID = (0.0, 0.05, 0.1, 0.2, 0.5, 1.0)
"""The alphas at which routers are chosen and reported."""

MOST_HOPS = 4
"""The greatest L."""

NAME_PATTERN = r"^[A-Za-z0-9._-]+$"
Name = Annotated[str, Field(pattern=NAME_PATTERN, max_length=64)]
Share = Annotated[float, Field(gt=0, lt=1)]
Positive = Annotated[int, Field(gt=0)]
MetricName = Literal["accuracy", "token_f1", "token_f1_multiset"]
View = Literal["paper", "two_part"]
AnswerKind = Literal["letter", "number", "math", "unit_tests", "text"]
Recipe = Literal["one_hop", "router_ppo_paper"]
OwnMetric = Literal["exact_match", "token_f1", "letter", "number", "math", "unit_tests"]


class KeyedError(ValueError):
    """A broken rule over several keys, to be reported at one of them."""

    def __init__(self, keys: tuple[str, ...], text: str) -> None:
        """Takes the path from the section that has the rule to the culprit, and what is wrong."""
        super().__init__(text)
        self.keys = keys


class Section(BaseModel):
    """A part of the configuration: unknown keys are refused, values never change."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class OwnTask(Section):
    """A task of your own: questions with references, and how an answer is judged."""

    file: Annotated[str, Field(min_length=1)]
    """JSON lines with `question` and `reference` (docs/own_tasks.md). A relative path is taken
    from the folder in which the command runs, like every other path."""
    metric: OwnMetric
    """What `accuracy` means on this task. `letter`, `number`, `math`, `unit_tests`: as on the
    benchmarks. `exact_match`: the answer is an accepted text, but for case, punctuation and
    spacing. `token_f1`: the share of words, in [0, 1], that it has in common with one."""

    @property
    def kind(self) -> AnswerKind:
        """The kind of its answers."""
        if self.metric == "exact_match" or self.metric == "token_f1":
            return "text"
        return self.metric


class DataConfig(Section):
    """Which queries are asked (section 4 of the paper)."""

    source: Literal["benchmarks", "scripted"] = "benchmarks"
    """`benchmarks`: the public data sets, from the hub or else a mirror. `scripted`: synthetic
    queries that the scripted pool understands."""
    tasks: Annotated[list[Name], Field(min_length=1)] = list(BENCHMARK_TASKS)
    """Tasks to sample: benchmarks and those of `own`. Not given: those of `own`, if there are any,
    else the six benchmarks. With `source: scripted` any names will do."""
    own: dict[Name, OwnTask] = {}
    """Tasks of your own, by name."""
    revisions: dict[Name, Annotated[str, Field(min_length=1)]] = {}
    """Commit, tag or branch of a task's data set on the hub, by task; tasks not named: main. The
    commit is recorded with the sample. A mirror holds one version only, so it serves for main."""
    queries_per_task: Annotated[int, Field(gt=0, le=100_000)] = 300
    """At most this many queries a task: those with the smallest hash of seed and text."""
    train_share: Share = 0.7
    """Share of queries in the training split, by a second hash of the text."""
    folds: Annotated[int, Field(ge=2, le=50)] = 5
    """Number of folds for cross-fitting, by a third hash of the text."""
    near_duplicate_jaccard: Annotated[float, Field(ge=0.5, le=1)] = 0.8
    """Queries whose word shingles are at least this similar stay on one side of the split."""
    seed: int = 42
    """The data seed: which queries, which split, which folds."""

    withheld: list[Name] = []
    """Tasks whose questions may not be passed on with the recorded replies: what a reply repeats of
    them is stored as a place in the question. To pass such a tree on, leave out its tables of
    queries; whoever opens it takes the questions from their source."""

    @model_validator(mode="before")
    @classmethod
    def _own_alone(cls, values: Any) -> Any:
        """Takes the own tasks where none are named; a wrong name is left to be reported in own."""
        if not isinstance(values, dict) or "tasks" in values:
            return values
        own = values.get("own")
        if not own or not isinstance(own, dict):
            return values
        named = all(isinstance(name, str) and re.match(NAME_PATTERN, name) for name in own)
        return {**values, "tasks": list(own)} if named else values

    @model_validator(mode="after")
    def _own_named(self) -> Self:
        for task in self.own:
            if task in BENCHMARK_TASKS:
                raise KeyedError(("own", task), "is the name of a benchmark; choose another")
        return self

    @model_validator(mode="after")
    def _withheld_asked(self) -> Self:
        for task in self.withheld:
            if task not in self.tasks:
                near = _nearest(task, {*self.tasks})
                raise KeyedError(("withheld",), f"{task} is not among the tasks{near}")
        return self

    @model_validator(mode="after")
    def _pinned(self) -> Self:
        if self.revisions and self.source == "scripted":
            raise KeyedError(("revisions",), "goes with `source: benchmarks` only")
        for task in self.revisions:
            if task in self.own:
                raise KeyedError(("revisions", task), "is a task of your own, which has a file")
            if task not in (known := {*self.tasks, *BENCHMARK_TASKS} - self.own.keys()):
                raise KeyedError(
                    ("revisions", task), f"no task has this name{_nearest(task, known)}"
                )
        return self


class TokenLimits(Section):
    """How long a reply may be, in new tokens."""

    solve: Positive = 512
    """Most new tokens of an answer."""
    solve_by_task: dict[Name, Positive] = {}
    """Other limits for the answers of some tasks."""
    analyze: Positive = 256
    """Most new tokens of an analysis."""


class ScriptedSkills(Section):
    """What a scripted model can do. Each chance is decided by a hash, so runs repeat exactly."""

    solve: dict[Name, Annotated[float, Field(ge=0, le=1)]] = {}
    """Chance of a right direct answer, by task. Tasks not named: `solve_otherwise`."""
    solve_otherwise: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Chance of a right direct answer on every other task."""
    reads_marker: str = ""
    """The marker word in a query that lets this model's analysis reveal the query's clue."""
    uses_clue: str = ""
    """The clue word in an earlier reply with which this model always solves the query."""
    words: Positive = 20
    """Length of its answers, in words (a scripted token is a word)."""


class Endpoint(Section):
    """An OpenAI-compatible server that answers for a model."""

    url: str
    """Its base address, up to and including /v1, for example http://localhost:8000/v1. No user and
    password in it: it is recorded."""
    served_name: str = ""
    """What the server calls the model; empty: the model's own id."""
    api_key_env: Annotated[str, Field(pattern=r"^([A-Za-z_][A-Za-z0-9_]*)?$")] = ""
    """The environment variable that holds the key; empty, or not set: none is sent."""
    concurrency: Annotated[int, Field(gt=0, le=1000)] = 32
    """Calls under way at the same time."""
    timeout_s: Annotated[float, Field(gt=0)] = 300.0
    """Seconds that one try of a call may take, until the reply is complete."""
    retries: Annotated[int, Field(ge=0, le=100)] = 20
    """Further tries after a refused or broken connection, a time-out (6 at most), and 408, 409, 429
    and 5xx: after growing waits of up to 8 seconds, some 2 minutes in all, or when the server's
    Retry-After of up to 2 minutes says; where it says more the call fails at once. Live, where
    somebody waits, 2 at most."""

    @field_validator("url")
    @classmethod
    def _address(cls, url: str) -> str:
        parts = urlsplit(url)
        # Reading the port says whether it is one.
        usable = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
        if not usable or "@" in parts.netloc or any(letter.isspace() for letter in url):
            raise ValueError("give http(s)://HOST[:PORT]/v1, without user and password")
        return url


class ModelSpec(Section):
    """One model of the pool: weights, how it is asked for an answer, limits and price."""

    name: Name
    """What it is called in routes, metrics and pictures."""
    model: Annotated[str, Field(min_length=1)]
    """A Hugging Face model id, or a local folder with safetensors and a tokenizer. For the
    `scripted` backend any word."""
    revision: str = "main"
    """Commit, tag or branch on the hub; resolved to a commit at first use and recorded. With
    `backend: openai` model and revision are all that tells one model from another: change the
    revision when the server runs other weights."""
    backend: Literal["auto", "transformers", "openvino", "openai", "scripted", "imported"] = "auto"
    """What runs it. `auto`: openvino on a processor where it is installed and `dtype` leaves it
    the choice, else transformers; what an existing tree or router was made with stays. `openai`:
    the server at `endpoint`. `imported`: nothing; its outcomes are imported
    (`hierrouter import-outcomes`)."""
    endpoint: Endpoint | None = None
    """Where the model is served; only with `backend: openai`."""
    dtype: Literal["auto", "float32", "bfloat16", "float16", "int8"] = "auto"
    """Number format of the weights. `auto`: int8 with openvino; with transformers bfloat16 where
    the processor is fast at it. `int8` goes with openvino alone."""
    instruction: str = ""
    """Added after the question when an answer is wanted, for example "Think step by step."."""
    limits: TokenLimits = TokenLimits()
    """How long its replies may be."""
    billion_parameters: Annotated[float, Field(gt=0)] | None = None
    """Size; gives the rate (0.001 dollars per billion parameters) where none is stated."""
    base_rate: Annotated[float, Field(ge=0)] | None = None
    """Dollars per 1,000 tokens, read and written alike (the paper's base_rate(m))."""
    scripted: ScriptedSkills | None = None
    """Skills of a scripted model; only with `backend: scripted`."""

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if self.base_rate is None and self.billion_parameters is None:
            raise ValueError(f"model {self.name}: give base_rate or billion_parameters")
        if (self.backend == "scripted") != (self.scripted is not None):
            raise ValueError(f"model {self.name}: `scripted` goes with `backend: scripted`")
        if (self.backend == "openai") != (self.endpoint is not None):
            raise ValueError(f"model {self.name}: `endpoint` goes with `backend: openai`")
        if self.backend == "openvino" and self.dtype not in ("auto", "int8"):
            raise ValueError(f"model {self.name}: with `backend: openvino` dtype is int8")
        if self.backend == "transformers" and self.dtype == "int8":
            raise ValueError(f"model {self.name}: `dtype: int8` goes with `backend: openvino`")
        return self

    @property
    def rate(self) -> float:
        """Dollars per 1,000 tokens."""
        if self.base_rate is not None:
            return self.base_rate
        return 0.001 * (self.billion_parameters or 0.0)


class AnswerFormats(Section):
    """How the answer to a benchmark query is to be written, by kind of answer."""

    letter: str = 'End with a line "Answer: X", where X is the letter of the right choice.'
    """Multiple choice: arc_easy, arc_challenge, mmlu."""
    number: str = 'End with a line "Answer: X", where X is the number.'
    """A number: gsm8k, and the scripted queries."""
    math: str = 'End with a line "Answer: X", where X is the result in LaTeX.'
    """A formula: math."""
    unit_tests: str = "Give the complete function in one Python code block."
    """A program that unit tests judge: mbpp."""
    text: str = 'End with a line "Answer: X", where X is the answer.'
    """Any other answer: own tasks with metric exact_match or token_f1."""


class Prompts(Section):
    """What a model is asked at each hop (Appendix B of the paper)."""

    analyze: str = (
        "Describe the problem in detail, then plan how you would solve it. Analyze the problem "
        "step by step, identifying key constraints and requirements."
    )
    """The instruction of the first `analyze` hop (the paper's hop 0)."""
    refine: str = (
        "Check the analysis so far, correct what is wrong in it, and make the plan more precise. "
        "Do not give the final answer yet."
    )
    """The instruction of every later `analyze` hop (the paper states none)."""
    solve: str = (
        "Using the previous analysis and plan, verify if the approach is correct and solve the "
        "problem methodically. Ensure completeness and correctness in your solution."
    )
    """The instruction of a `solve` hop after an analysis (the paper's hop 1)."""
    answer_formats: AnswerFormats = AnswerFormats()
    """How a task's query is to be answered, by kind of answer. Served queries get none."""
    max_context_tokens: Positive = 2048
    """Most tokens of the message to a model (question, replies, instruction, answer format),
    before its chat template; beyond it the oldest reply loses its middle. With the template and
    the reply it must fit into the model's window."""


class EncoderConfig(Section):
    """The frozen encoder of the context (section 3.2)."""

    model: str = "sentence-transformers/all-mpnet-base-v2"
    """A sentence-transformers model (hub id or folder), or `hashing`: scikit-learn's
    HashingVectorizer, which needs no model."""
    revision: str = "main"
    """Commit, tag or branch on the hub; resolved at first use and recorded."""
    max_tokens: Positive = 512
    """Longest text it reads; the rest is cut (section 3.2)."""
    dimensions: Positive = 1024
    """Width of the `hashing` encoder; other encoders have their own."""
    views: Annotated[list[View], Field(min_length=1)] = ["paper", "two_part"]
    """Which views of a context are encoded when a tree is recorded (see `training.view`)."""


class PoolConfig(Section):
    """Whom the router may call, and how."""

    models: list[ModelSpec] = []
    """The M candidate models, in the order of the action space. Only imported outcomes bring models
    of their own along; everything else needs at least one."""
    references: list[ModelSpec] = []
    """Models measured beside the pool by a direct answer, never routed to."""
    hops: Annotated[int, Field(ge=1, le=MOST_HOPS)] = 2
    """L, the most calls a route may make."""
    prompts: Prompts = Prompts()
    """What is asked at each hop."""
    encoder: EncoderConfig = EncoderConfig()
    """What turns a context into the router's state."""
    batch_tokens: Positive = 32_768
    """Most tokens, prompts and replies with padding, that the transformers backend holds at once on
    a processor; a token of a 1.5 billion parameter model takes about 60 kB."""
    queries_per_unit: Positive = 24
    """Queries whose replies are committed together; a kill loses at most one unit of work."""

    @model_validator(mode="after")
    def _distinct(self) -> Self:
        names = [spec.name for spec in (*self.models, *self.references)]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"model names must differ; twice: {', '.join(twice)}")
        return self


class TrainingConfig(Section):
    """How the router learns (section 3.3 and Appendix A)."""

    policy: Literal["decomposed", "mlp"] = "decomposed"
    """How actions are scored. `decomposed`: what each call would give and cost, linear in what is
    seen of the context; one router serves every alpha and any of the models. `mlp`: the paper's
    two-layer network (section 3.2), trained for one alpha."""
    learner: Literal["ppo", "regression"] = "ppo"
    """What it learns by. `ppo`: from episodes (section 3.3), beginning at `start`. `regression`:
    from the recorded outcomes at once, backwards over the hops."""
    start: Literal["regression", "nothing"] = "regression"
    """What PPO begins with: the regression's policy, or one that knows nothing."""
    moves: Literal["direct", "paper", "early_exit", "cascade", "escalate"] = "early_exit"
    """Which routes are allowed. `direct`: one call, a solve, whatever L is. `paper`: analyze on
    hops 0..L-2, solve on hop L-1. `early_exit`: a solve on any hop ends the route. `cascade`: early
    exit, and after a solve the router sees the answer and accepts it or asks another model.
    `escalate`: a cascade without analyses, which needs direct answers alone."""
    metric: MetricName = "accuracy"
    """The quality Q in the reward. `accuracy` is each task's own metric (of your own tasks:
    `data.own.NAME.metric`)."""
    view: View = "paper"
    """What the encoder sees. `paper`: one text, the query followed by all replies. `two_part`: the
    query, and the newest reply by itself."""
    fill: bool = False
    """Whether what episodes visit is recorded when they visit it: for pools with too many routes
    to record them all. Needs direct answers only; calls models while it trains."""
    alpha: Annotated[float, Field(ge=0)] | Literal["sampled"] = "sampled"
    """Quality given up for one cost unit saved. `sampled`: lambda = alpha / (1 + alpha) is drawn
    for each episode."""
    lambda_max: Annotated[float, Field(gt=0, lt=1)] = 0.5
    """With `alpha: sampled`, lambda is uniform on [0, lambda_max]; 0.5 is alpha = 1."""
    alpha_warmup: Annotated[float, Field(ge=0, le=1)] = 0.5
    """Share of the iterations in which the greatest sampled lambda grows from 0 to lambda_max.
    While calls are nearly free, the policy learns what a second hop can give; after that, when it
    pays. 0: the whole range from the start."""
    temperature: Annotated[float, Field(gt=0)] = 0.05
    """Tau of the decomposed policy: how much better a call must look to be clearly chosen. PPO
    tries the more, the higher it is; a router acts by argmax, whatever it is."""
    limited_share: Annotated[float, Field(ge=0, le=1)] = 0.25
    """Share of PPO's episodes in which only some models may be asked, and fewer hops be made."""
    centres: Annotated[int, Field(ge=0)] = 64
    """Typical training queries whose closeness the decomposed policy sees, at most; 0: none."""
    cost_unit_usd: Annotated[float, Field(gt=0)] | Literal["auto"] = "auto"
    """Dollars in one cost unit. `auto`: the highest mean cost of one direct answer among the
    pool models on the training queries."""
    iterations: Positive = 60
    """PPO iterations (rollout, then update)."""
    rollouts: Positive = 64
    """Episodes that run side by side (B)."""
    steps: Positive | None = 16
    """Environment steps of each of them in one iteration, so B x steps transitions; none: L, so
    that a rollout is one full-length episode, as in the paper."""
    minibatches: Positive = 4
    """Mini-batches an iteration's transitions are split into."""
    epochs: Positive = 4
    """Passes over an iteration's transitions."""
    learning_rate: Annotated[float, Field(gt=0)] = 3e-4
    """Adam's step size."""
    learning_rate_decay: bool = True
    """Whether the step size falls linearly to zero."""
    adam_eps: Annotated[float, Field(gt=0)] = 1e-5
    """Adam's epsilon."""
    gamma: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Discount. Below 1 a longer route is paid less for the same result."""
    gae_lambda: Annotated[float, Field(ge=0, le=1)] = 0.95
    """Lambda of generalised advantage estimation."""
    clip_range: Annotated[float, Field(gt=0)] = 0.2
    """PPO's clip range."""
    value_coefficient: Annotated[float, Field(ge=0)] = 0.5
    """Weight of the value loss."""
    entropy_coefficient: Annotated[float, Field(ge=0)] = 0.01
    """Weight of the entropy bonus."""
    max_grad_norm: Annotated[float, Field(gt=0)] = 0.5
    """Longest gradient (Euclidean norm)."""
    normalize_advantage: bool = True
    """Whether advantages are standardised in each mini-batch."""
    hidden: Annotated[list[Positive], Field(min_length=2, max_length=2)] = [64, 64]
    """Widths of the MLP's two layers; in the decomposed policy, of PPO's critic."""
    activation: Literal["tanh", "relu"] = "tanh"
    """Activation of the MLP."""
    stage_dimensions: Positive = 8
    """Width of the MLP's learned embedding of the hop index."""
    projection: Positive | None = 256
    """Principal components (fitted on the training contexts, brought to one scale) that the
    policy sees of an embedding; none: the embedding as it is."""
    validation_share: Annotated[float, Field(ge=0, lt=1)] = 0.2
    """Share of the training queries kept back to choose the checkpoint; 0, which needs
    `keep: last`: none, all of them are trained on."""
    validation_alphas: Annotated[list[Annotated[float, Field(ge=0)]], Field(min_length=1)] = list(
        ALPHA_GRID
    )
    """The alpha grid over which the reward on the validation queries is averaged."""
    evaluate_every: Positive = 5
    """Iterations between exact evaluations on the validation queries."""
    keep: Literal["best", "last"] = "best"
    """Which checkpoint becomes the router: best on validation, or the last."""
    seed: int = 42
    """The training seed: weights, samples and the validation queries."""

    @model_validator(mode="after")
    def _choosable(self) -> Self:
        if self.policy == "mlp" and (self.learner, self.start) != ("ppo", "nothing"):
            raise ValueError(
                "policy: mlp learns by PPO from nothing; set learner: ppo and start: nothing"
            )
        if self.policy == "mlp" and self.alpha == "sampled":
            raise ValueError(
                "policy: mlp does not see alpha and is trained for one; give alpha a number, or "
                "set policy: decomposed"
            )
        if self.fill and self.learner == "regression":
            raise ValueError(
                "learner: regression needs every outcome recorded, and fill: true records what "
                "episodes visit; set learner: ppo"
            )
        if self.keep == "best" and self.validation_share == 0:
            raise ValueError(
                "keep: best chooses on validation queries, and validation_share: 0 keeps none "
                "back; give a share above 0, or set keep: last"
            )
        if self.fill and self.moves in ("direct", "escalate"):
            raise ValueError(
                f"fill: true records analyses and what follows them, and moves: {self.moves} makes "
                "none; set fill: false"
            )
        if self.fill and self.moves == "cascade":
            raise ValueError(
                "fill: true looks at no answers, and moves: cascade does; set fill: false, or "
                "moves: early_exit"
            )
        if self.policy == "mlp" and self.moves in ("cascade", "escalate"):
            raise ValueError(
                f"policy: mlp looks at no answers, and moves: {self.moves} does; set policy: "
                "decomposed"
            )
        return self

    @property
    def alpha_range(self) -> tuple[float, float]:
        """The least and greatest alpha met in training."""
        if self.alpha == "sampled":
            return 0.0, self.lambda_max / (1 - self.lambda_max)
        return self.alpha, self.alpha


class EvaluationConfig(Section):
    """How routers are judged and where they are registered."""

    alphas: Annotated[list[Annotated[float, Field(ge=0)]], Field(min_length=1)] = list(ALPHA_GRID)
    """The alpha grid of reports."""
    alpha: Annotated[float, Field(ge=0)] = 0.1
    """The headline alpha; one of the grid."""
    bootstrap: Annotated[int, Field(ge=100, le=1_000_000)] = 2000
    """Resamples of the paired bootstrap over test queries, stratified by task (small tasks
    together)."""
    confidence: Share = 0.95
    """Coverage of the intervals."""
    seed: int = 42
    """Seed of the bootstrap, and of what else is drawn in evaluating."""
    seeds: Annotated[int, Field(ge=1, le=100)] = 1
    """Training seeds that the recipe is judged by: the router's own and the next ones, whose
    routers are trained for the evaluation. From 2 on intervals hold what other seeds would give."""
    recipes: list[Recipe] = ["one_hop", "router_ppo_paper"]
    """Further recipes that are trained for comparison. `one_hop`: the router's own with direct
    answers alone. `router_ppo_paper`: the paper's numbers (section 3.3, Appendix C)."""
    cross_fit: bool = False
    """Whether everything is also judged on all queries: fold by fold, trained on the others."""
    leave_one_task_out: bool = False
    """Whether a router is also trained without each task, to see what is left when it is new."""
    experiment: Name = "hierrouter"
    """MLflow experiment that runs go to."""
    registered_name: Name = "hierrouter"
    """Name of the registered router in MLflow."""

    @model_validator(mode="after")
    def _headline(self) -> Self:
        if self.alpha not in self.alphas:
            raise ValueError(f"alpha {self.alpha:g} must be one of alphas {self.alphas}")
        return self


class Config(Section):
    """A whole experiment."""

    data: DataConfig = DataConfig()
    """Which queries are asked."""
    pool: PoolConfig
    """Whom the router may call, and how."""
    training: TrainingConfig = TrainingConfig()
    """How the router learns."""
    evaluation: EvaluationConfig = EvaluationConfig()
    """How routers are judged."""

    @model_validator(mode="after")
    def _tasks_named(self) -> Self:
        for part, specs in (("models", self.pool.models), ("references", self.pool.references)):
            for index, spec in enumerate(specs):
                at = ("pool", part, str(index))
                self._refuse_unknown((*at, "limits", "solve_by_task"), spec.limits.solve_by_task)
                if spec.scripted is not None:
                    self._refuse_unknown((*at, "scripted", "solve"), spec.scripted.solve)
        return self

    def _refuse_unknown(self, keys: tuple[str, ...], by_task: Mapping[str, object]) -> None:
        """Refuses task names that would be passed over in silence.

        Scripted tasks have free names, and an experiment may ask only some of those that its pool
        knows; there only what looks like a slip of a task's name is refused.
        """
        known = {*self.data.tasks, *self.data.own, *BENCHMARK_TASKS}
        for task in by_task:
            slips = difflib.get_close_matches(task, sorted(known - set(by_task)), n=1, cutoff=0.8)
            if task not in known and (slips or self.data.source == "benchmarks"):
                raise KeyedError((*keys, task), f"no task has this name{_nearest(task, known)}")


def _nearest(word: str, known: set[str]) -> str:
    near = difflib.get_close_matches(word, sorted(known), n=1)
    return f" (did you mean {near[0]}?)" if near else f" (known: {', '.join(sorted(known))})"
