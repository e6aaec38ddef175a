"""The policy network's shared trunk (section 3.2), as a features extractor of SB3."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from torch import nn

if TYPE_CHECKING:
    import gymnasium as gym

ACTIVATIONS: dict[str, type[nn.Module]] = {"tanh": nn.Tanh, "relu": nn.ReLU}


class SharedTrunk(BaseFeaturesExtractor):
    """Embedding and cost beside a learned embedding of the hop, then a two-layer MLP.

    With `net_arch=[]` the action logits and the value are linear in its output.
    """

    def __init__(
        self,
        observation_space: gym.spaces.Box,
        models: int,
        hops: int,
        stage_dimensions: int,
        hidden: list[int],
        activation: str,
    ) -> None:
        """Makes the layers.

        Args:
            observation_space: K + 3 numbers: state, cost, lambda (which is not looked at), stage.
            models: M.
            hops: L, the number of stages.
            stage_dimensions: width of the stage embedding.
            hidden: the two widths of the MLP.
            activation: `tanh` or `relu`.
        """
        super().__init__(observation_space, features_dim=hidden[1])
        width = observation_space.shape[0] - 2
        self.models = models
        self.stage = nn.Embedding(hops, stage_dimensions)
        act = ACTIVATIONS[activation]
        self.first = nn.Linear(width + stage_dimensions, hidden[0])
        self.second = nn.Linear(hidden[0], hidden[1])
        self.act = act()

    def forward(self, observations: torch.Tensor) -> torch.Tensor:
        """Maps B x (K + 3) observations to B x H features."""
        hop = (observations[:, -1].long() + self.models - 1) // self.models
        inputs = torch.cat([observations[:, :-2], self.stage(hop)], dim=1)
        first = self.act(self.first(inputs))
        features: torch.Tensor = self.act(self.second(first))
        return features
