"""The stage that judges a router: reads tree and router, writes metrics, records and report."""

from __future__ import annotations

import platform
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from hierrouter.errors import ConfigError, DamagedFileError, HierRouterError
from hierrouter.evaluation.filled import fill_routes
from hierrouter.evaluation.measure import FORMAT_VERSION, measure
from hierrouter.evaluation.paper.tables import side_by_side
from hierrouter.evaluation.records import write_records
from hierrouter.evaluation.report import render_report
from hierrouter.evaluation.report.examples import examples_of
from hierrouter.evaluation.report.learning import read_curves
from hierrouter.files import claim_folder, digest_of, read_json, sha256_file, write_json, write_text
from hierrouter.learning.router import Router
from hierrouter.routes.encoder import IMPORTED
from hierrouter.routes.load import load_outcomes, tree_info

if TYPE_CHECKING:
    from pathlib import Path

    from hierrouter.config import EvaluationConfig, PoolConfig
    from hierrouter.learning.router import RouterInfo

MARKER = "evaluation.json"
"""Says what was evaluated; written first, it also says that the folder is an evaluation's."""
METRICS = "metrics.json"
"""Written last: a folder without it holds an evaluation that was cut short."""
RECORDS = "per_query.parquet"
REPORT = "report.html"
ROUTERS = "routers"
"""Holds what was trained for the evaluation alone."""
RESULTS = (METRICS, RECORDS, REPORT)
"""What a whole evaluation consists of, beside the marker."""
VERSIONS = ("hierrouter", "numpy", "torch", "stable-baselines3", "sb3-contrib")


def evaluate_router(
    config: EvaluationConfig,
    tree: Path,
    router: Path,
    out: Path,
    max_dollars: float | None = None,
    pool: PoolConfig | None = None,
) -> Path:
    """Judges a router and its baselines on the test queries of a route tree.

    For a router that was trained by filling (`training.fill`), the routes that it takes are filled
    in too; policies that need all routes are left out then, unless the tree is whole.

    Args:
        config: alphas, resamples, confidence, and what is trained to compare with.
        tree: the folder of the route tree, training and test queries.
        router: the folder of the router.
        out: new, empty or an earlier evaluation's folder. Gets `evaluation.json` (what was
            evaluated), `routers/` (trained to compare with), `per_query.parquet`, `report.html`
            and, last, `metrics.json`.
        max_dollars: for such a router, what its calls may cost by the pool's rates.
        pool: for such a router, says where servers are asked; none: where the tree was recorded.

    Returns:
        `out`, now with these files.

    Raises:
        ConfigError: `out` holds something else, or `max_dollars` is of no use.
        HierRouterError: router and tree do not fit (other models, weights or encoder), there are
            no test or training queries, or filling stopped.
        DamagedFileError: a file of the router or the tree cannot be read.
    """
    # With torch, which those who only name an evaluation's files can do without.
    from hierrouter.evaluation.policies.contenders import Workshop

    claim_folder(out, MARKER)
    judged = Router.load(router)
    check_origin(judged.info, tree_info(tree))
    # Before anything else is read: should the tree grow meanwhile, this is judged again, not kept.
    evaluated = _evaluated(tree)
    info, filled = judged.info, None
    if info.config.get("training", {}).get("fill"):
        alphas = sorted(set(config.alphas))
        outcomes, filled = fill_routes(tree, judged, alphas, max_dollars, pool)
        evaluated = _evaluated(tree)
    elif max_dollars is not None:
        raise ConfigError(
            f"--max-dollars: {router} was trained on a recorded tree and is judged without calls; "
            "leave it out"
        )
    else:
        # As training reads them; what can be judged of them is picked out later.
        outcomes = load_outcomes(tree, info.metric, info.view, info.moves, whole=False)
    workshop = Workshop(judged, tree_info(tree), config.seeds, config.recipes, out / ROUTERS)
    measured = measure(outcomes, judged, config, filled, workshop)
    origin = {
        "router": _origin(judged.info, router),
        "tree": evaluated,
        "versions": {
            **{name: version(name) for name in VERSIONS},
            "python": platform.python_version(),
        },
        "evaluation": config.model_dump(mode="json"),
    }
    paper = side_by_side(tree, measured)
    metrics = {**measured.metrics, **({} if paper is None else {"paper": paper}), **origin}
    # In this order: cut short here, no earlier metrics can pass for those of this router.
    (out / METRICS).unlink(missing_ok=True)
    write_json(out / MARKER, origin)
    write_records(out / RECORDS, measured.test, measured.played, judged.info.cost_unit_usd)
    curves = read_curves(
        {
            f"seed {seed}": router if number == 0 else workshop.folder("split", "router", seed)
            for number, seed in enumerate(workshop.seeds[: measured.metrics["seeds"]])
        }
    )
    plays = measured.played[config.alpha]
    examples = examples_of(tree, measured.test, plays, judged.info.cost_unit_usd)
    write_text(out / REPORT, render_report(metrics, curves, examples))
    write_json(out / METRICS, metrics)
    return out


def check_origin(info: RouterInfo, tree: dict[str, Any]) -> None:
    """Makes sure that a tree was recorded with the encoder and the weights of a router's own.

    Names and widths may agree where they differ: another revision, another quantisation.

    Args:
        info: the router's description.
        tree: what `tree_info` says of the tree.

    Raises:
        HierRouterError: the encoder or the weights of a model differ.
    """
    mine, other = info.encoder["identity"], tree["encoder"]
    if mine != other and mine["model"] == other["model"] == IMPORTED:
        raise HierRouterError(
            f"the router was trained on imported vectors ({mine.get('named', 'not named')}, "
            f"{mine['dimensions']} wide), the tree holds others ({other.get('named', 'not named')}"
            f", {other['dimensions']} wide); train the router anew, or, if one encoder made both, "
            "name it with --encoder-name at each import"
        )
    if mine != other:
        parts = sorted(key for key in {*mine, *other} if mine.get(key) != other.get(key))
        raise HierRouterError(
            f"the router was trained with the encoder {mine['model']}, the tree is embedded with "
            f"{other['model']} (different: {', '.join(parts)}); collect again with the router's "
            "encoder, or train the router anew"
        )
    for name in info.models:
        weights = tree["weights"].get(name)
        if weights is not None and weights != info.weights[name]:
            raise HierRouterError(
                f"the router was trained with other weights of {name} ({info.weights[name][:12]}) "
                f"than the tree was recorded with ({weights[:12]}); evaluate it on a tree of its "
                "own pool, or train the router anew"
            )


def _origin(info: RouterInfo, folder: Path) -> dict[str, Any]:
    """Which router it was and what it came from."""
    return {
        "description_sha256": sha256_file(folder / "router.json"),
        "weights_sha256": info.weights_sha256,
        "query_digest": info.query_digest,
        "tree_digest": info.tree_digest,
        "data_seed": info.data_seed,
        "training_seed": info.training_seed,
        "alpha_range": list(info.alpha_range),
        "library_version": info.library_version,
    }


def _evaluated(tree: Path) -> dict[str, Any]:
    """What it was judged on: which replies, to which queries, scored and priced how."""
    info = tree_info(tree)
    names = ("query_digest", "tree_digest", "scorer_version")
    return {**{name: info[name] for name in names}, "pool_digest": digest_of(info["pool"])}


def read_metrics(evaluation: Path) -> dict[str, Any]:
    """The content of an evaluation's metrics.json.

    Raises:
        DamagedFileError: it cannot be read, or another version of us, with another format, made it.
    """
    found = read_json(evaluation / METRICS)
    known = found.get("format_version") if isinstance(found, dict) else None
    if known != FORMAT_VERSION:
        raise DamagedFileError(
            f"{evaluation / METRICS} has format {known}, this version reads {FORMAT_VERSION}; "
            "evaluate the router anew"
        )
    return dict(found)


def is_evaluated(config: EvaluationConfig, tree: Path, router: Path, evaluation: Path) -> bool:
    """Whether `evaluation` holds what `evaluate_router` would make of this router and tree."""
    if not all((evaluation / name).exists() for name in RESULTS):
        return False
    try:
        known = read_metrics(evaluation)
        judged = Router.load(router).info
    except HierRouterError:
        return False
    now = {
        "router": _origin(judged, router),
        "tree": _evaluated(tree),
        "evaluation": config.model_dump(mode="json"),
    }
    return all(known.get(key) == now[key] for key in now)
