"""The model card that travels with a router."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hierrouter.learning.router import RouterInfo

LONGEST_CELL = 100
"""Characters of an instruction; router.json has all of it."""


def model_card(info: RouterInfo, table: str = "") -> str:
    """The card, in Markdown.

    Args:
        info: the router's description.
        table: the evaluation table in Markdown; none before the router was evaluated.
    """
    models = "\n".join(
        f"| {spec['name']} | {spec['model']} | {_cell(spec['instruction'] or '(none)')} |"
        for spec in info.config["pool"]["models"]
    )
    low, high = info.alpha_range
    by = "regression" if info.config.get("training", {}).get("learner") == "regression" else "PPO"
    evaluated = table or "Not evaluated yet: `hierrouter evaluate` writes metrics.json."
    kept_back = ""
    if "reward" in info.validation:
        refitted = info.validation.get("refitted")
        kept_back = (
            f"; on {info.validation['queries']:.0f} of them, kept back, the mean reward over\n"
            f"the alpha grid {'was' if refitted else 'is'} {info.validation['reward']:.3f}"
            f"{' before it was fitted to these, too' if refitted else ''}"
        )
    return f"""# HierRouter router

Chooses which model to call at each of at most {info.hops} hops, so that {info.metric} minus alpha
times relative cost is highest (moves `{info.moves}`, alpha from {low:g} to {high:g}, one cost unit
is {info.cost_unit_usd:.6g} dollars).

| model | weights | instruction |
|---|---|---|
{models}

Encoder: {info.encoder["config"]["model"]}. Trained by {by} on {len(info.training_query_hashes)}
queries (data seed {info.data_seed}, training seed {info.training_seed}){kept_back}.

## Evaluation

{evaluated}

## Load it

```python
from pathlib import Path
from hierrouter.learning.router import Router

router = Router.load(Path("."))  # reads JSON and safetensors, runs no code from this folder
```

Queries digest `{info.query_digest[:16]}`, tree digest `{info.tree_digest[:16]}`, hierrouter
{info.library_version}, router format {info.format_version}.
"""


def _cell(text: str) -> str:
    """A text as the cell of a table: in one line, without what would end the cell."""
    line = " ".join(text.split())
    shown = line if len(line) <= LONGEST_CELL else line[:LONGEST_CELL] + " …"
    return shown.replace("|", "\\|")
