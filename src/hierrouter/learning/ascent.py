"""The decomposed policy as PPO of stable-baselines3 moves it, and the critic beside it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from sb3_contrib.common.maskable.policies import MaskableActorCriticPolicy
from torch import nn

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class HeadsExtractor(nn.Module):
    """Action logits of the two heads, and a critic's features that know alpha and the stage."""

    def __init__(
        self,
        quality: NDArray[np.float32],
        cost: NDArray[np.float32],
        tau: float,
        hidden: list[int],
    ) -> None:
        """Starts from the heads given.

        Args:
            quality: S x A x F.
            cost: S x A x F.
            tau: of the logits.
            hidden: the two widths of the critic.
        """
        super().__init__()
        self.quality = nn.Parameter(torch.tensor(quality))
        self.cost = nn.Parameter(torch.tensor(cost))
        self.tau = tau
        stages, actions, width = quality.shape
        self.stage = nn.Embedding(stages, 8)
        self.critic = nn.Sequential(
            nn.Linear(width + 2 + 8, hidden[0]),
            nn.Tanh(),
            nn.Linear(hidden[0], hidden[1]),
            nn.Tanh(),
        )
        self.latent_dim_pi, self.latent_dim_vf = actions, hidden[1]

    def forward(self, observations: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Logits (B x A) and the critic's features of B x (F + 3) observations, or (F + A + 3)."""
        return self.forward_actor(observations), self.forward_critic(observations)

    def forward_actor(self, observations: torch.Tensor) -> torch.Tensor:
        """Logits, B x A."""
        width = self.quality.shape[2]
        state, changed, lam = (
            observations[:, :width],
            observations[:, width:-3],
            observations[:, -2:-1],
        )
        stage = observations[:, -1].long()
        alpha = lam / (1 - lam)
        rows = torch.arange(len(state))
        # Every stage's scores, then each row's own: two products instead of one a row.
        shape = (len(state), *self.quality.shape[:2])
        quality, cost = (
            (state @ head.flatten(0, 1).T).reshape(shape)[rows, stage]
            for head in (self.quality, self.cost)
        )
        value = quality - alpha * cost
        logits: torch.Tensor = (value + changed if changed.shape[1] else value) / self.tau
        return logits

    def forward_critic(self, observations: torch.Tensor) -> torch.Tensor:
        """Features, B x H."""
        stage = self.stage(observations[:, -1].long())
        seen = observations[:, : self.quality.shape[2]], observations[:, -3:-1]
        features: torch.Tensor = self.critic(torch.cat([*seen, stage], dim=1))
        return features


class DecomposedPolicy(MaskableActorCriticPolicy):
    """SB3's policy whose logits are those of the heads, with nothing between."""

    def __init__(self, *args: Any, heads: dict[str, Any], **kwargs: Any) -> None:
        """As SB3's; `heads` are the arguments of `HeadsExtractor`."""
        self._heads = heads
        super().__init__(*args, **kwargs)

    def _build_mlp_extractor(self) -> None:
        self.mlp_extractor = HeadsExtractor(**self._heads)  # type: ignore[assignment]

    def _build(self, lr_schedule: Any) -> None:
        super()._build(lr_schedule)
        self.action_net = nn.Identity()
        # The optimizer must not hold the layer that was replaced.
        arguments = {"lr": lr_schedule(1), **self.optimizer_kwargs}
        self.optimizer = self.optimizer_class(self.parameters(), **arguments)
