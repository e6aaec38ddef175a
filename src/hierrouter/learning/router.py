"""The router artifact: a folder with weights, description and card, loadable without SB3.

Loading reads JSON and safetensors; no code from the folder is run.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from hierrouter import __version__
from hierrouter.config import MOST_HOPS, Name, View
from hierrouter.errors import ConfigError, DamagedFileError, HierRouterError
from hierrouter.files import (
    atomic_path,
    claim_folder,
    read_json,
    sha256_file,
    sha256_text,
    write_json,
    write_text,
)
from hierrouter.learning.actions import action_count, allowed_actions, best_of
from hierrouter.learning.heads import Heads
from hierrouter.learning.policy import Policy, PolicyName, policy_from
from hierrouter.learning.rests import Left, Rests
from hierrouter.learning.stages import Stages, too_many_stages
from hierrouter.routes.outcomes import Moves, cascade_name

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from hierrouter.routes.outcomes import Outcomes

FORMAT_VERSION = 2
WEIGHTS = "router.safetensors"
LARGEST = 256_000_000
"""Bytes of the largest file of a router that is read: the hashes of ten million queries."""
DIVISORS = ("scale", "tau")
"""Arrays by which a policy divides."""
Alpha = Annotated[float, Field(ge=0, allow_inf_nan=False)]


def query_hash(query_id: str) -> str:
    """A short hash by which a router remembers its training queries."""
    return sha256_text(query_id)[:16]


class RouterInfo(BaseModel):
    """What `router.json` says."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format_version: int = FORMAT_VERSION
    library_version: str = __version__
    models: Annotated[tuple[Name, ...], Field(min_length=1)]
    hops: Annotated[int, Field(ge=1, le=MOST_HOPS)]
    moves: Moves
    metric: str
    view: View
    policy: PolicyName
    """`decomposed`, or the paper's `mlp`."""
    activation: Literal["tanh", "relu"]
    """Of an MLP."""
    alpha_range: tuple[Alpha, Alpha]
    """The least and greatest alpha met in training."""
    cost_unit_usd: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    encoder: dict[str, Any]
    """The encoder's configuration and identity (revision, digest)."""
    dimensions: dict[str, int]
    """Widths of the embedding, the policy's state and the action space."""
    config: dict[str, Any]
    """The config's data, pool and training parts."""
    weights: dict[str, str]
    """Digest of each model's weights, by the model's name."""
    scorer_version: int
    """Version of the metrics that the rewards came from."""
    query_digest: str
    tree_digest: str
    training_query_hashes: tuple[str, ...]
    data_seed: int
    training_seed: int
    validation: dict[str, float]
    """Reward on the validation queries, over the alpha grid, and the iteration it is from;
    `refitted` where the policy was fitted to these queries, too, after that."""
    weights_sha256: str = ""

    def alpha_of(self, alpha: float) -> float:
        """The alpha that a decision is made at: any, or of an MLP the one it was trained for."""
        low, high = self.alpha_range
        return min(max(alpha, low), high) if self.policy == "mlp" else alpha


class Router:
    """A trained policy with all that is needed to ask it. Acts by argmax."""

    def __init__(self, info: RouterInfo, policy: Policy) -> None:
        """Puts a router together from its parts."""
        self.info = info
        self.policy = policy
        self.allowed = allowed_actions(len(info.models), info.hops, info.moves)
        """L x (2 M + 1) flags: which actions each hop allows."""
        self.stages = Stages(len(info.models), info.hops, info.moves)
        """Where decisions are made, and what may be done there."""
        self.rests = Rests(self.stages)
        """Which calls' values hang on what is left of the rest of a route."""

    @property
    def knows_limits(self) -> bool:
        """Whether it knows what limits of the rest of a route change."""
        return isinstance(self.policy, Heads) and len(self.policy.rest_quality) > 0

    def save(self, folder: Path, learning_curve: list[dict[str, Any]], card: str) -> None:
        """Writes the artifact; what was a router of ours before is replaced.

        Args:
            folder: where to.
            learning_curve: one entry an iteration: `iteration`, `transitions`, `metrics`.
            card: the model card, Markdown.
        """
        claim_folder(folder, "router.json")
        with atomic_path(folder / WEIGHTS) as temporary:
            # safetensors writes the memory as it lies. (`ascontiguousarray` makes a scalar 1-D.)
            named = {name: np.array(each, order="C") for name, each in self.policy.arrays().items()}
            save_file(named, temporary)
            digest = sha256_file(temporary)
            # The description goes first and the weights last: cut short in between, the folder is
            # known as ours, and the digest tells that it is not whole.
            info = self.info.model_copy(update={"weights_sha256": digest})
            write_json(folder / "router.json", info.model_dump(mode="json"))
            write_json(folder / "learning_curve.json", learning_curve)
            write_text(folder / "README.md", card)

    @classmethod
    def load(cls, folder: Path) -> Router:
        """Reads the artifact in `folder`.

        Raises:
            HierRouterError: there is no router, or a newer version of us made it.
            DamagedFileError: a file is truncated, altered or foreign.
        """
        if not (folder / "router.json").exists():
            raise HierRouterError(f"{folder} holds no router; make one with `hierrouter train`")
        for file in (folder / "router.json", folder / WEIGHTS):
            if file.exists() and not file.is_file():
                # Reading a pipe, for one, would wait for whoever writes into it.
                raise DamagedFileError(
                    f"{file} is no regular file; copy the router again or train it anew"
                )
            if file.exists() and file.stat().st_size > LARGEST:
                raise DamagedFileError(
                    f"{file} has {file.stat().st_size:,} bytes, no router has that many; copy the "
                    "router again or train it anew"
                )
        raw = read_json(folder / "router.json")
        version = raw.get("format_version") if isinstance(raw, dict) else None
        if version is None:
            raise HierRouterError(f"{folder} holds no router: its router.json is something else")
        if version != FORMAT_VERSION:
            raise HierRouterError(
                f"{folder} has router format {version}, this version ({__version__}) reads "
                f"{FORMAT_VERSION}; train anew or use the version that made it"
            )
        try:
            info = RouterInfo.model_validate(raw)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"]))
            raise DamagedFileError(
                f"{folder / 'router.json'}: {where}: {first['msg']}; train the router anew"
            ) from error
        weights = folder / WEIGHTS
        if not weights.exists() or sha256_file(weights) != info.weights_sha256:
            raise DamagedFileError(
                f"{weights} is missing or not the file that router.json describes; "
                "copy the router again or train it anew"
            )
        try:
            policy = policy_from(info.policy, load_file(weights), info.activation)
        except (SafetensorError, KeyError) as error:
            raise DamagedFileError(f"{weights} is not a router's weights ({error})") from error
        _check_arrays(info, policy, weights)
        return cls(info, policy)

    def scores(
        self,
        query: NDArray[np.float32],
        context: NDArray[np.float32],
        stage: int,
        cost_usd: NDArray[np.float64],
        alpha: float,
        allowed: NDArray[np.bool_] | None = None,
        answers: NDArray[np.float64] | None = None,
        left: Left | None = None,
    ) -> NDArray[np.float32]:
        """The policy's log-probabilities of the actions in a context.

        Args:
            query: N x D vectors of the bare queries, as the encoder gives them.
            context: N x D vectors of the contexts; before the first call the queries again.
            stage: where on the route (`Stages.of`), the same for all.
            cost_usd: N dollars spent so far.
            alpha: quality given up for one cost unit saved.
            allowed: 2 M + 1 flags, of the actions that are possible at present; none: all that
                the stage allows.
            answers: N x W, what the answers in hand show (`answers.shown`); none: there is none.
            left: who may be asked in the rest of the route, and how many calls it may make; none:
                all that have an action in `allowed`, and L.

        Returns:
            N x (2 M + 1); minus infinity where the stage does not allow the action, or it is
            not possible.
        """
        count = len(query)
        cost = np.asarray(cost_usd) / self.info.cost_unit_usd
        state = self.policy.state(query, context, answers)
        alphas = np.full(count, alpha, dtype=np.float64)
        return self.state_scores(state, np.full(count, stage), cost, alphas, allowed, left)

    def state_scores(
        self,
        state: NDArray[np.float32],
        stage: NDArray[np.int64],
        cost: NDArray[np.float64],
        alpha: NDArray[np.float64],
        allowed: NDArray[np.bool_] | None = None,
        left: Left | None = None,
    ) -> NDArray[np.float32]:
        """As `scores`, of N x K states, N stages, N relative costs and N alphas.

        `allowed` may also have a row for each of the N.
        """
        logits = self.policy.logits(state, cost, alpha, stage)
        may = possible = self.stages.allowed[stage]
        if allowed is not None:
            possible = may & allowed
            left = Left.of(may, possible, self.info.hops) if left is None else left
        if left is not None and isinstance(self.policy, Heads):
            changed = self.rests.changes(self.policy, state, stage, alpha, left)
            logits = logits + changed / self.policy.tau
        logits = np.where(possible, logits, -np.inf)
        shifted = logits - logits.max(axis=1, keepdims=True)
        return np.asarray(
            shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True)), dtype=np.float32
        )

    def beliefs(
        self,
        query: NDArray[np.float32],
        context: NDArray[np.float32],
        stage: int,
        answers: NDArray[np.float64],
    ) -> NDArray[np.float32]:
        """How good each answer in hand is believed to be; arguments as of `scores`.

        Returns:
            N x M; minus infinity where a model gave no answer.
        """
        state = self.policy.state(query, context, answers)
        found = self.policy.believed(state, np.full(len(query), stage))
        _, who = self.stages.answered[stage - self.stages.before]
        others = np.setdiff1d(np.arange(len(self.info.models)), who)
        found[:, others] = -np.inf
        return found

    def follow(self, outcomes: Outcomes, alpha: float) -> NDArray[np.int64]:
        """The route that argmax takes for each recorded query.

        Args:
            outcomes: N queries of the same pool.
            alpha: quality given up for one cost unit saved.

        Returns:
            N columns of `outcomes.every_route(self.info.moves)`.

        Raises:
            ConfigError: the outcomes are of another pool or another encoder.
        """
        from hierrouter.learning.cascading import recorded_contexts  # needs torch's threads
        from hierrouter.learning.greedy import walk

        if outcomes.models != self.info.models or outcomes.hops != self.info.hops:
            raise ConfigError(
                f"the router routes over {', '.join(self.info.models)} with {self.info.hops} hops, "
                f"the tree has {', '.join(outcomes.models)} with {outcomes.hops}"
            )
        width, read = outcomes.embeddings.shape[2], self.policy.width
        if width != read:
            raise ConfigError(
                f"the router reads embeddings {read} wide, the tree's are {width} wide: "
                "another encoder; embed the tree with the router's, or train the router anew"
            )
        contexts = recorded_contexts(
            outcomes, self.policy.state, self.info.cost_unit_usd, self.stages
        )
        names = outcomes.every_route(self.info.moves).names
        column = {name: number for number, name in enumerate(names)}
        taken = walk(self, contexts, (alpha,)).routes[0]
        return np.array(
            [column[cascade_name(*route, outcomes.models)] for route in taken], dtype=np.int64
        )

    def foretell(self, outcomes: Outcomes, alpha: float) -> NDArray[np.float64] | None:
        """The reward that it expects of what `follow` takes, as told before the first call.

        Args:
            outcomes: N queries of the same pool; only their own embeddings are looked at.
            alpha: quality given up for one cost unit saved.

        Returns:
            N times quality - alpha * relative cost, of the first call and what it leads to; none
            of a policy that predicts neither (`mlp`).
        """
        if not isinstance(self.policy, Heads):
            return None
        query = outcomes.embeddings[:, 0]
        state = self.policy.state(query, query)
        start, spent = np.zeros(len(query), dtype=np.int64), np.zeros(len(query))
        alphas = np.full(len(query), alpha, dtype=np.float64)
        first = best_of(self.state_scores(state, start, spent, alphas))
        quality, cost = self.policy.predicted(state, start)
        reward = quality.astype(np.float64) - alpha * cost
        return np.asarray(reward[np.arange(len(first)), first], dtype=np.float64)


def _check_arrays(info: RouterInfo, policy: Policy, path: Path) -> None:
    """Makes sure that the arrays fit each other and the description, and hold numbers."""
    try:
        embedding, state, actions = (
            info.dimensions[key] for key in ("embedding", "state", "actions")
        )
    except KeyError as error:
        raise DamagedFileError(
            f"{path.with_name('router.json')}: dimensions lacks {error}; train the router anew"
        ) from error
    models = len(info.models)
    if too_many := too_many_stages(models, info.hops, info.moves):
        raise DamagedFileError(f"{path.with_name('router.json')}: {too_many}")
    if actions != action_count(models):
        raise DamagedFileError(
            f"{path.with_name('router.json')}: dimensions says {actions} actions, {models} models "
            f"have {action_count(models)}; train the router anew"
        )
    try:
        expected = policy.shapes(Stages(models, info.hops, info.moves), embedding)
    except (TypeError, IndexError) as error:  # a number stands where rows should
        raise DamagedFileError(
            f"{path} does not hold arrays of a router's shapes ({error}); copy the router again or "
            "train it anew"
        ) from error
    arrays = policy.arrays()
    if wrong := sorted(set(arrays) ^ set(expected)):
        raise DamagedFileError(
            f"{path} does not hold what moves {info.moves} need ({', '.join(wrong)}); copy the "
            "router again or train it anew"
        )
    for name, array in arrays.items():
        if array.shape != expected[name]:
            raise DamagedFileError(
                f"{path}: {name} has shape {array.shape}, expected {expected[name]}; "
                "copy the router again or train it anew"
            )
        if array.dtype != np.float32 or not np.isfinite(array).all():
            raise DamagedFileError(
                f"{path}: {name} holds {array.dtype} that are not all finite float32 numbers; "
                "copy the router again or train it anew"
            )
        if name.rpartition(".")[2] in DIVISORS and (array <= 0).any():
            raise DamagedFileError(
                f"{path}: {name} is {array.min():g}, and has to be above 0; copy the router again "
                "or train it anew"
            )
    blank = np.zeros((1, embedding), dtype=np.float32)
    if (width := policy.state(blank, blank).shape[1]) != state:
        raise DamagedFileError(
            f"{path.with_name('router.json')}: dimensions says a state of {state} numbers, the "
            f"weights make {width}; train the router anew"
        )
