"""What the paper reports, as it stands in its tables.

Source: "HierRouter: Coordinated Routing of Specialized LLMs via Reinforcement Learning", Table 1
(token F1) and Table 2 (mean cost of a query in dollars), both on test queries. Its Figure 3 shows
the net reward Q - alpha * C, which follows from the two tables.
"""

from __future__ import annotations

ALPHA = 0.005
"""Section 4; reward given up for a dollar."""
SEED = 42
"""The one seed of Appendix C."""
QUERIES = 300
"""Most examples of a task (section 4)."""
TEST_SHARE = 0.3
"""Share of them that is tested on (section 4)."""

TASKS = ("mmlu", "gsm8k", "mbpp", "math", "arc_easy", "arc_challenge")
"""The columns of its tables, by our names."""
LETTER_TASKS = ("mmlu", "arc_easy", "arc_challenge")
"""Those whose reference is one letter."""

REFERENCE = "Qwen2.5-14B"
CODER = "Qwen2.5-Coder-3B"
CODER_RATE = 0.003
"""Dollars of 1,000 tokens of the pool's dearest models (section 4)."""
POOL = (CODER, "DeepSeek-R1-Distill-1.5B", "Phi-3.5-mini")
ROUTER = "HierRouter"

F1 = {
    REFERENCE: (0.003, 0.077, 0.028, 0.076, 0.003, 0.003),
    "Llama-3.1-8B": (0.005, 0.060, 0.025, 0.057, 0.006, 0.003),
    CODER: (0.002, 0.067, 0.030, 0.069, 0.003, 0.003),
    "DeepSeek-R1-Distill-1.5B": (0.003, 0.054, 0.016, 0.053, 0.002, 0.002),
    "Phi-3.5-mini": (0.004, 0.067, 0.044, 0.068, 0.003, 0.003),
    ROUTER: (0.005, 0.139, 0.029, 0.105, 0.009, 0.010),
}
"""Table 1, in the order of `TASKS`."""

COST = {
    REFERENCE: (0.0095, 0.0089, 0.0092, 0.0098, 0.0086, 0.0100),
    "Llama-3.1-8B": (0.0071, 0.0078, 0.0048, 0.0077, 0.0071, 0.0096),
    CODER: (0.0025, 0.0030, 0.0028, 0.0031, 0.0029, 0.0030),
    "DeepSeek-R1-Distill-1.5B": (0.0013, 0.0015, 0.0012, 0.0016, 0.0016, 0.0017),
    "Phi-3.5-mini": (0.0025, 0.0027, 0.0021, 0.0029, 0.0027, 0.0030),
    ROUTER: (0.0178, 0.0163, 0.0183, 0.0159, 0.0184, 0.0188),
}
"""Table 2, in dollars."""


def table() -> dict[str, dict[str, dict[str, float]]]:
    """By model and task: `f1`, `cost` and `net_reward`."""
    return {
        name: {
            task: {"f1": f1, "cost": cost, "net_reward": round(f1 - ALPHA * cost, 9)}
            for task, f1, cost in zip(TASKS, F1[name], COST[name], strict=True)
        }
        for name in F1
    }
