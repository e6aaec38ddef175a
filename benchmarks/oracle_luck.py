"""How much of an oracle's quality is luck, and how much of that luck is taken off?

    python benchmarks/oracle_luck.py [--worlds 40] [--queries 300] [--seed 1]

In each simulated world routes know the answer of a multiple choice question (four choices) or guess
it. Worlds differ in how much who knows depends on the question: not at all, as among questions of
mixed ease, and up to questions that all routes know or none does. Printed: the mean quality of an
oracle that knows who knows (the truth), and the bias of three estimates with its standard deviation
over worlds: the plain oracle; each right answer taken for lucky by the error rate of its route
alone; and the one in use (`hierrouter.evaluation.policies.luck`).
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

import numpy as np
from _report import print_header

from hierrouter.evaluation.policies.luck import guessing

if TYPE_CHECKING:
    from numpy.typing import NDArray

CHOICES = 4
ALL_OR_NONE = 100.0
"""A spread of ease at which a question is known to all routes or to none."""


def known_and_right(
    rng: np.random.Generator, queries: int, routes: int, spread: float | None, shared: float
) -> tuple[NDArray, NDArray]:
    """Who knows and who is right, queries x routes; no spread: nobody knows anything."""
    known = np.zeros((queries, routes), dtype=bool)
    if spread is not None:
        logits = rng.uniform(-0.5, 1.0, routes) + spread * rng.standard_normal((queries, 1))
        known = rng.random((queries, routes)) < 1 / (1 + np.exp(-np.clip(logits, -50, 50)))
    guessed = rng.random((queries, routes)) < 1 / CHOICES
    alike = rng.random((queries, 1)) < 1 / CHOICES
    guessed = np.where(rng.random((queries, routes)) < shared, alike, guessed)
    return known, known | guessed


def by_error_rate(right: NDArray) -> float:
    """The oracle where a right answer is lucky with a chance of errors / (k - 1) / rights."""
    rights = right.mean(axis=0)
    lucky = np.clip((1 - rights) / (CHOICES - 1) / np.maximum(rights, 1e-9), 0, 1)
    none = np.where(right, lucky, 1.0).prod(axis=1)
    return float((1 - none * (1 - 1 / CHOICES)).mean())


def corrected(right: NDArray) -> float:
    """The oracle by the library."""
    tasks, choices = np.full(len(right), "task"), np.full(len(right), CHOICES)
    fitted = guessing(right.astype(np.float64), tasks, choices)
    return float(fitted.oracle(np.ones(right.shape), 0.0).quality.mean())


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--worlds", type=int, default=40, help="of each kind (40)")
    parser.add_argument("--queries", type=int, default=300, help="of each world (300)")
    parser.add_argument("--seed", type=int, default=1, help="of the simulation (1)")
    given = parser.parse_args()
    print_header("The luck of the oracle, and what is taken off", "numpy")
    print(f"{'routes':>6} {'who knows depends on the question':36} {'truth':>6}", end="")
    print(f" {'plain':>14} {'by error rate':>14} {'in use':>14}")
    kinds = (
        ("nobody knows anything", None, 0.0),
        ("not at all", 0.0, 0.0),
        ("ease spreads by 1.5", 1.5, 0.0),
        ("ease spreads by 4", 4.0, 0.0),
        ("all know or none", ALL_OR_NONE, 0.0),
        ("by 1.5; three guesses in ten alike", 1.5, 0.3),
    )
    for routes in (3, 12):
        for name, spread, shared in kinds:
            rng = np.random.default_rng([given.seed, routes])
            rows = []
            for _ in range(given.worlds):
                known, right = known_and_right(rng, given.queries, routes, spread, shared)
                truth = float(np.where(known.any(axis=1), 1.0, 1 / CHOICES).mean())
                found = (float(right.any(axis=1).mean()), by_error_rate(right), corrected(right))
                rows.append((truth, *(each - truth for each in found)))
            mean, spread_of = np.mean(rows, axis=0), np.std(rows, axis=0)
            print(f"{routes:6} {name:36} {mean[0]:6.3f}", end="")
            print("".join(f"  {mean[k]:+.3f} ({spread_of[k]:.3f})" for k in (1, 2, 3)), flush=True)


if __name__ == "__main__":
    main()
