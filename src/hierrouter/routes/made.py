"""What the replies of a tree depend on, and whether others may stand beside them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hierrouter.catalogue import READ_MORE
from hierrouter.errors import ConfigError
from hierrouter.pool.open import identity

if TYPE_CHECKING:
    from pathlib import Path

    from hierrouter.config import PoolConfig
    from hierrouter.routes.tree import RouteTree


def identities_of(pool: PoolConfig, known: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """What each model is here and now; `known` is what a tree knows them by."""
    return {
        spec.name: identity(spec, known.get(spec.name, {}).get("weights"))
        for spec in (*pool.models, *pool.references)
    }


def refuse_other_models(tree: RouteTree, pool: PoolConfig) -> None:
    """Makes sure that the models of `pool` are here what `tree` was recorded with.

    Raises:
        ConfigError: weights, settings or limits differ.
    """
    made = tree.info["made"]
    refuse_other_pool(tree.folder, made, made_with(pool, identities_of(pool, made["models"])))


def made_with(pool: PoolConfig, identities: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """What replies depend on: a tree refuses another one."""
    return {
        "prompts": pool.prompts.model_dump(mode="json"),
        "models": {
            spec.name: {
                "weights": identities[spec.name]["weights_digest"],
                "generation": identities[spec.name]["generation"],
                "instruction": spec.instruction,
                "limits": spec.limits.model_dump(mode="json"),
            }
            for spec in (*pool.models, *pool.references)
        },
    }


def refuse_other_pool(folder: Path, earlier: dict[str, Any], now: dict[str, Any]) -> None:
    """Makes sure that replies made as `now` says may stand beside those of the tree in `folder`.

    Args:
        folder: the tree.
        earlier: `made` of its tree.json.
        now: `made` of what is to be recorded or added.

    Raises:
        ConfigError: prompts, weights, settings or limits differ.
    """
    if not earlier["models"].keys() & now["models"].keys():
        raise ConfigError(
            f"{folder} was recorded with other models ({', '.join(earlier['models'])}); name "
            "another folder"
        )
    if earlier["prompts"] != now["prompts"]:
        raise ConfigError(
            f"{folder} was recorded with other pool.prompts; name another folder or restore them"
        )
    for name, model in now["models"].items():
        before = earlier["models"].get(name)
        if before is None or before == model:
            continue
        what = next(key for key in model if model[key] != before[key])
        origin = f" ({READ_MORE} says where weights come from)" if what == "weights" else ""
        raise ConfigError(
            f"{folder} was recorded with other {what} of model {name} "
            f"({_short(before[what])}, now {_short(model[what])}); "
            f"name another folder, or give the changed model another name{origin}"
        )


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 60 else text[:57] + "..."
