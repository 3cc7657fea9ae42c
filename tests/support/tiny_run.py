"""The smallest run that is one: 3 steps over a whole round and a short one, under a second in one process."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from dogo_fed.config import RunConfig
from dogo_fed.objectives.base import Embeddings
from dogo_fed.objectives.simclr import SimCLR
from dogo_fed.reporting.summary import RunSummary
from dogo_fed.run.local import run_local
from dogo_fed.run.prepare import prepare
from dogo_fed.run.train import conduct

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


def run_here(config: RunConfig) -> RunSummary:
    """Runs it in this process, without the picture, which takes as long as all the rest."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("dogo_fed.run.train.draw_curves", lambda *arguments: None)
        return conduct(prepare(config), run_local)


class Restless(SimCLR):
    """Counts its forward passes, in eval mode too: as a frozen peer it would not stand still."""

    def __init__(self, backbone: nn.Module, feature_dim: int) -> None:
        super().__init__(backbone, feature_dim, hidden_dim=8, output_dim=4)
        self.register_buffer("count", torch.zeros(()))

    def embed(self, view_a_NCHW: torch.Tensor, view_b_NCHW: torch.Tensor) -> Embeddings:
        self.count += 1
        return super().embed(view_a_NCHW, view_b_NCHW)
