"""The smallest run that is one: 3 steps over a whole round and a short one, under a second in one process."""

from __future__ import annotations

import torch
from torch import nn

from dogo_fed.objectives.base import ObjectiveOutput
from dogo_fed.objectives.simclr import SimCLR

TINY = (
    "data=synthetic",
    "data.options.size=96",
    "data.options.test_size=32",
    "steps=3",
    "steps_per_round=2",
    "batch_size=16",
    "eval.knn_k=5",
    "eval.linear_epochs=1",
    "host=local",
)


class Restless(SimCLR):
    """Counts its forward passes, in eval mode too: as a frozen peer it would not stand still."""

    def __init__(self, backbone: nn.Module, feature_dim: int) -> None:
        super().__init__(backbone, feature_dim, hidden_dim=8, output_dim=4)
        self.register_buffer("count", torch.zeros(()))

    def forward(self, view_a_NCHW: torch.Tensor, view_b_NCHW: torch.Tensor) -> ObjectiveOutput:
        self.count += 1
        return super().forward(view_a_NCHW, view_b_NCHW)
