"""`training`: how the router learns."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from hierrouter.config.base import ALPHA_GRID, Alpha, MetricName, Positive, Section, Seed, View

MOST_TRAINED = 10_000
"""The greatest alpha that is trained for: PPO masks actions by logits of -1e8, and alpha * cost /
temperature must stay far from that where single calls cost much more than most, too."""


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
    alpha: Annotated[float, Field(ge=0, le=MOST_TRAINED)] | Literal["sampled"] = "sampled"
    """Quality given up for one cost unit saved. `sampled`: lambda = alpha / (1 + alpha) is drawn
    for each episode."""
    lambda_max: Annotated[float, Field(gt=0, le=1 - 1 / MOST_TRAINED)] = 0.5
    """With `alpha: sampled`, lambda is uniform on [0, lambda_max]; 0.5 is alpha = 1."""
    alpha_warmup: Annotated[float, Field(ge=0, le=1)] = 0.5
    """Share of the iterations in which the greatest sampled lambda grows from 0 to lambda_max.
    While calls are nearly free, the policy learns what a second hop can give; after that, when it
    pays. 0: the whole range from the start."""
    temperature: Annotated[float, Field(gt=0, le=10)] = 0.05
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
    validation_alphas: Annotated[list[Alpha], Field(min_length=1)] = list(ALPHA_GRID)
    """The alpha grid over which the reward on the validation queries is averaged."""
    evaluate_every: Positive = 5
    """Iterations between exact evaluations on the validation queries."""
    keep: Literal["best", "last"] = "best"
    """Which checkpoint becomes the router: best on validation, or the last."""
    seed: Seed = 42
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
