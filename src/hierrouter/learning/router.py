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
from hierrouter.learning.actions import SOLVE, action_count, allowed_actions
from hierrouter.learning.network import Network, Projection, arrays, from_arrays
from hierrouter.routes.outcomes import Moves  # noqa: TC001

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from hierrouter.routes.outcomes import Outcomes

FORMAT_VERSION = 1
WEIGHTS = "router.safetensors"
LARGEST = 256_000_000
"""Bytes of the largest file of a router that is read: the hashes of ten million queries."""
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
    activation: Literal["tanh", "relu"]
    alpha_range: tuple[Alpha, Alpha]
    cost_unit_usd: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    encoder: dict[str, Any]
    """The encoder's configuration and identity (revision, digest)."""
    dimensions: dict[str, int]
    """Widths of the embedding, the projection and the action space."""
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
    """Reward on the validation queries, over the alpha grid, and the iteration it is from."""
    weights_sha256: str = ""


class Router:
    """A trained policy with all that is needed to ask it. Acts by argmax."""

    def __init__(self, info: RouterInfo, projection: Projection, network: Network) -> None:
        """Puts a router together from its parts."""
        self.info = info
        self.projection = projection
        self.network = network
        self.allowed = allowed_actions(len(info.models), info.hops, info.moves)
        """L x (2 M + 1) flags: which actions each hop allows."""

    def save(self, folder: Path, learning_curve: list[dict[str, Any]], card: str) -> None:
        """Writes the artifact; what was a router of ours before is replaced.

        Args:
            folder: where to.
            learning_curve: one entry an iteration: `iteration`, `transitions`, `metrics`.
            card: the model card, Markdown.
        """
        claim_folder(folder, "router.json")
        with atomic_path(folder / WEIGHTS) as temporary:
            save_file(arrays(self.projection, self.network), temporary)
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
            if file.exists() and file.stat().st_size > LARGEST:
                raise DamagedFileError(
                    f"{file} has {file.stat().st_size:,} bytes, no router has that many; copy the "
                    "router again or train it anew"
                )
        raw = read_json(folder / "router.json")
        version = raw.get("format_version") if isinstance(raw, dict) else None
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
            projection, network = from_arrays(load_file(weights))
        except (SafetensorError, KeyError) as error:
            raise DamagedFileError(f"{weights} is not a router's weights ({error})") from error
        _check_arrays(info, projection, network, weights)
        return cls(info, projection, network)

    def scores(
        self,
        embeddings: NDArray[np.float32],
        hop: int,
        cost_usd: NDArray[np.float64],
        alpha: float,
        allowed: NDArray[np.bool_] | None = None,
    ) -> NDArray[np.float32]:
        """The policy's log-probabilities of the actions in a context.

        Args:
            embeddings: N x D vectors of the contexts, as the encoder gives them.
            hop: the hop index, 0..L-1.
            cost_usd: N dollars spent so far.
            alpha: quality given up for one cost unit saved; brought into the router's range.
            allowed: 2 M + 1 flags, of the actions that are possible at present; none: all that
                the hop allows.

        Returns:
            N x (2 M + 1); minus infinity where the hop does not allow the action, or it is not
            possible.
        """
        lam = np.full(len(embeddings), self.lambda_of(alpha), dtype=np.float32)
        cost = np.asarray(cost_usd) / self.info.cost_unit_usd
        return self.state_scores(self.projection(embeddings), hop, cost, lam, allowed)

    def lambda_of(self, alpha: float) -> float:
        """Alpha / (1 + alpha), of an alpha brought into the router's range."""
        low, high = self.info.alpha_range
        alpha = min(max(alpha, low), high)
        return alpha / (1 + alpha)

    def state_scores(
        self,
        state: NDArray[np.float32],
        hop: int,
        cost: NDArray[np.float64],
        lam: NDArray[np.float32],
        allowed: NDArray[np.bool_] | None = None,
    ) -> NDArray[np.float32]:
        """As `scores`, of N x K projected embeddings, N relative costs and N lambdas.

        `allowed` may also have a row for each of the N.
        """
        relative = cost.astype(np.float32)
        logits = self.network.logits(state, relative, lam, hop, self.info.activation)
        possible = self.allowed[hop] if allowed is None else self.allowed[hop] & allowed
        logits = np.where(possible, logits, -np.inf)
        shifted = logits - logits.max(axis=1, keepdims=True)
        return np.asarray(
            shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True)), dtype=np.float32
        )

    def follow(self, outcomes: Outcomes, alpha: float) -> NDArray[np.int64]:
        """The route that argmax takes for each recorded query.

        Args:
            outcomes: N queries of the same pool.
            alpha: quality given up for one cost unit saved.

        Returns:
            N columns of `outcomes.routes(self.info.moves)`.

        Raises:
            ConfigError: the outcomes are of another pool or another encoder.
        """
        if outcomes.models != self.info.models or outcomes.hops != self.info.hops:
            raise ConfigError(
                f"the router routes over {', '.join(self.info.models)} with {self.info.hops} hops, "
                f"the tree has {', '.join(outcomes.models)} with {outcomes.hops}"
            )
        width, read = outcomes.embeddings.shape[2], self.projection.mean.shape[0]
        if width != read:
            raise ConfigError(
                f"the router reads embeddings {read} wide, the tree's are {width} wide: "
                "another encoder; embed the tree with the router's, or train the router anew"
            )
        column = np.full((len(outcomes.contexts), len(outcomes.models)), -1)
        for index, path in enumerate(outcomes.routes(self.info.moves).paths):
            column[outcomes.contexts.index(path[:-1]), path[-1]] = index
        context = np.zeros(len(outcomes), dtype=np.int64)
        chosen = np.full(len(outcomes), -1, dtype=np.int64)
        for hop in range(outcomes.hops):
            going = np.flatnonzero(chosen < 0)
            if not len(going):
                break
            at = context[going]
            scores = self.scores(
                outcomes.embeddings[going, at], hop, outcomes.spent[going, at], alpha
            )
            action = scores.argmax(axis=1)
            model, solved = action // 2, action % 2 == SOLVE
            chosen[going] = np.where(solved, column[at, model], -1)
            context[going] = np.where(solved, at, outcomes.child[at, model])
        return chosen


def _check_arrays(info: RouterInfo, projection: Projection, network: Network, path: Path) -> None:
    """Makes sure that the arrays fit each other and the description, and hold numbers."""
    try:
        width, embedding, actions = (
            info.dimensions[key] for key in ("projection", "embedding", "actions")
        )
    except KeyError as error:
        raise DamagedFileError(
            f"{path.with_name('router.json')}: dimensions lacks {error}; train the router anew"
        ) from error
    stage = network.stage.shape[-1] if network.stage.ndim else 0
    first, second = network.first_bias.size, network.second_bias.size
    expected = {
        "projection.mean": (embedding,),
        "projection.components": (width, embedding),
        "projection.scale": (),
        "network.stage": (info.hops, stage),
        "network.first_weight": (first, width + 2 + stage),
        "network.first_bias": (first,),
        "network.second_weight": (second, first),
        "network.second_bias": (second,),
        "network.action_weight": (actions, second),
        "network.action_bias": (action_count(len(info.models)),),
    }
    for name, array in arrays(projection, network).items():
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
