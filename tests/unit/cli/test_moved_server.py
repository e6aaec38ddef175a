"""A server moves after the tree was recorded: commands that fill the tree ask it where it is."""

from __future__ import annotations

from pathlib import Path

from hierrouter.routes.tree import RouteTree

SCRIPTED = Path(__file__).parents[3] / "configs" / "scripted.yaml"
MODEL = (
    "{{name: {0}, model: {0}, backend: openai, base_rate: 0.001, "
    "endpoint: {{url: {1}, retries: 0, concurrency: {2}}}}}"
)


def config(url: str, concurrency: int) -> tuple[str, ...]:
    """Two models of one server."""
    models = ", ".join(MODEL.format(name, url, concurrency) for name in "AB")
    settings = (
        *(f"pool.models=[{models}]", "pool.references=[]", "training.fill=true"),
        *("data.queries_per_task=8", "data.tasks=[arithmetic, history]"),
        *("training.moves=paper", "training.iterations=2", "training.rollouts=8"),
        *("training.steps=4", "evaluation.bootstrap=100", "evaluation.recipes=[]"),
    )
    return ("--config", str(SCRIPTED), *(part for each in settings for part in ("--set", each)))


def test_correcting_the_address_in_the_config_helps(hierrouter, endpoint, tmp_path) -> None:
    present = ["first"]

    def play(call) -> None:
        if call.path.startswith(f"/{present[0]}/"):
            call.complete(f"pondered {len(call.prompt)}. Answer: 7")
        else:
            call.refuse(404, "moved")

    endpoint.play = play
    first, second, third = (
        config(endpoint.url.replace("/v1", f"/{name}/v1"), concurrency)
        for concurrency, name in enumerate(("first", "second", "third"), start=8)
    )
    queries, tree, router = (tmp_path / name for name in ("queries", "tree", "router"))
    training = ("--tree", tree, "--out", router)
    judging = ("--tree", tree, "--router", router, "--out", tmp_path / "evaluation")
    assert hierrouter("sample", *first, "--out", queries).code == 0
    collect = ("collect", *first, "--queries", queries, "--out", tree, "--direct")
    assert hierrouter(*collect).code == 0
    present[0] = "second"
    assert "/first/v1 refused the call" in hierrouter("train", *first, *training).line
    assert hierrouter("train", *second, *training).code == 0
    for spec in RouteTree(tree).info["pool"]["models"]:
        assert spec["endpoint"]["url"] == endpoint.url.replace("/v1", "/second/v1")
        assert spec["endpoint"]["concurrency"] == 9
    present[0] = "third"
    assert "/second/v1 refused the call" in hierrouter("evaluate", *second, *judging).line
    assert hierrouter("evaluate", *third, *judging).code == 0
