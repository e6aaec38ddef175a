"""The paper's recipe (section 3.3, Appendix C), as one of the policies that others are held to.

`configs/paper.yaml` is the whole experiment, with the source of every number; a test holds the two
together.
"""

from __future__ import annotations

from hierrouter.config import TrainingConfig

PAPER_RECIPE = TrainingConfig(
    policy="mlp",
    start="nothing",
    moves="paper",
    metric="token_f1",
    alpha=0.005,
    alpha_warmup=0,
    limited_share=0,
    cost_unit_usd=1.0,
    iterations=8,
    rollouts=128,
    steps=None,
    minibatches=16,
    epochs=4,
    learning_rate=1e-4,
    learning_rate_decay=False,
    adam_eps=1e-4,
    gamma=0.99,
    gae_lambda=0.95,
    clip_range=0.2,
    value_coefficient=0.5,
    entropy_coefficient=0.01,
    max_grad_norm=0.3,
    projection=None,
    keep="last",
    validation_share=0,
    seed=42,
)
"""1,024 episodes and 512 gradient steps: expect a policy that is close to random."""
