"""Small networks with a property that a test needs, and a peer with one."""

from __future__ import annotations

import copy

import torch
from torch import nn

from configs.compose import compose_run
from dogo_fed.data.synthetic import synthetic
from dogo_fed.engine.loaded_run import LoadedRun, load_run
from dogo_fed.engine.peer import Peer
from tests.support.tiny_run import TINY


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


def wide_peer(*settings: str, backbone: nn.Module | None = None) -> tuple[LoadedRun, Peer]:
    """Returns the peer "wide" of a tiny run, trained by plain SGD, and the run.

    With a backbone of 12 features of one's own it gets a head in which no image sees another.
    """
    config = compose_run([*TINY, "optimizer@peers.wide.optimizer=sgd", *settings])
    backbones = {} if backbone is None else {"wide": copy.deepcopy(backbone)}
    run = load_run(config, synthetic(size=96, test_size=16), backbones)
    peer = run.build_peer("wide", torch.device("cpu"))
    if backbone is not None:
        torch.manual_seed(1)
        peer.objective.projector = nn.Linear(12, 8)
    return run, peer
