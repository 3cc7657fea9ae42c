"""Small networks with a property that a test needs."""

from __future__ import annotations

import torch
from torch import nn


class NoBatchStatistics(nn.Module):
    """A network in which no image sees another."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(3, 8, 3, stride=2),
            nn.GroupNorm(2, 8),
            nn.ReLU(),
            nn.Flatten(),
            nn.LazyLinear(12),
        )
        self.layers(torch.zeros(1, 3, 16, 16))

    def forward(self, x_NCHW: torch.Tensor) -> torch.Tensor:
        features_NF: torch.Tensor = self.layers(x_NCHW)
        return features_NF
