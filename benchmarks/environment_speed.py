"""How many transitions a second the environment gives Stable-Baselines3, masks included.

    python benchmarks/environment_speed.py [--episodes 128] [--steps 2000] [--repeats 5]

Random allowed actions, no policy: the loop asks for the masks as MaskablePPO does
(`get_action_masks`) and steps. Outcomes are made up; their values do not matter for the speed.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
from _report import mean_interval, print_header
from sb3_contrib.common.maskable.utils import get_action_masks

from hierrouter.learning.contexts import RecordedContexts
from hierrouter.learning.environment import Game, TreeVecEnv
from hierrouter.routes.outcomes import Outcomes, context_paths


def made_up(queries: int, models: int, hops: int) -> Outcomes:
    """Arbitrary outcomes."""
    rng = np.random.default_rng(0)
    shape = (queries, len(context_paths(models, hops)), models)
    return Outcomes(
        query_ids=tuple(map(str, range(queries))),
        tasks=np.array(["t"] * queries),
        train=np.ones(queries, dtype=np.bool_),
        folds=np.zeros(queries, dtype=np.int64),
        models=tuple(f"m{k}" for k in range(models)),
        hops=hops,
        metric="accuracy",
        embeddings=np.zeros((*shape[:2], 1), dtype=np.float32),
        analyze_cost=rng.uniform(size=shape),
        solve_cost=rng.uniform(size=shape),
        solve_quality=rng.uniform(size=shape),
    )


def transitions_per_second(game: Game, episodes: int, steps: int) -> float:
    """Plays `steps` steps of `episodes` slots."""
    environment = TreeVecEnv(game, episodes, seed=0)
    environment.reset()
    # Drawn beforehand: choosing among the allowed actions is the policy's work.
    noise = np.random.default_rng(1).random((64, episodes, game.action_space().n))
    started = time.perf_counter()
    for step in range(steps):
        masks = get_action_masks(environment)
        environment.step(np.where(masks, noise[step % 64], -1.0).argmax(axis=1))
    return episodes * steps / (time.perf_counter() - started)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--episodes", type=int, default=128, help="episodes side by side (128)")
    parser.add_argument("--steps", type=int, default=2000, help="steps of each in a run (2000)")
    parser.add_argument("--repeats", type=int, default=5, help="runs of each case (5)")
    given = parser.parse_args()
    print_header("TreeVecEnv with masks", "numpy", "stable-baselines3", "sb3-contrib", "gymnasium")
    print(f"{given.episodes} episodes side by side, {given.steps} steps, {given.repeats} runs\n")
    print(f"{'M':>2} {'L':>2} {'inputs':>7}  transitions/s")
    for models, hops, width in ((3, 2, 600), (3, 2, 768), (8, 2, 600), (3, 3, 600)):
        outcomes = made_up(1260, models, hops)
        state = np.zeros((1260, len(outcomes.contexts), width), dtype=np.float32)
        game = Game(RecordedContexts(outcomes, state, 1.0), "early_exit", 0.0, 0.5)
        speeds = [
            transitions_per_second(game, given.episodes, given.steps) / 1e3
            for _ in range(given.repeats)
        ]
        print(f"{models:>2} {hops:>2} {width + 3:>7}  {mean_interval(speeds)} thousand", flush=True)


if __name__ == "__main__":
    main()
