"""Toy peers and images, small enough for loops, with every kind of layer that matters."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn

from dogo_fed.config import Rows
from dogo_fed.contracts import PeerId, SimilarityDistribution, TeacherSignal
from dogo_fed.engine.peer import Peer
from dogo_fed.objectives.barlow_twins import BarlowTwins
from dogo_fed.objectives.base import Objective
from dogo_fed.objectives.byol import BYOL
from dogo_fed.objectives.moco_v2 import MoCoV2
from dogo_fed.objectives.moco_v3 import MoCoV3
from dogo_fed.objectives.mutual import Reduction
from dogo_fed.objectives.simclr import SimCLR
from dogo_fed.objectives.simsiam import SimSiam
from dogo_fed.objectives.vicreg import VICReg

RUN_SEED = 11
FEATURES = 6

TOY_OBJECTIVES: dict[str, tuple[type[Objective], dict[str, Any]]] = {
    "barlow_twins": (BarlowTwins, {"hidden_dim": 8, "output_dim": 7}),
    "byol": (BYOL, {"hidden_dim": 8, "output_dim": 5, "momentum": 0.9}),
    "moco_v2": (MoCoV2, {"hidden_dim": 8, "output_dim": 5, "queue_size": 40, "momentum": 0.9}),
    "moco_v3": (MoCoV3, {"hidden_dim": 8, "output_dim": 6, "momentum": 0.9}),
    "simclr": (SimCLR, {"hidden_dim": 7, "output_dim": 5}),
    "simsiam": (
        SimSiam,
        {"hidden_dim": 8, "output_dim": 9, "bottleneck_dim": 4, "num_layers": 2},
    ),
    "vicreg": (VICReg, {"hidden_dim": 8, "output_dim": 6}),
}
"""Class and small sizes of every objective with a short name."""

WITH_TARGET = ("byol", "moco_v2", "moco_v3")
"""Objectives with a momentum encoder."""


class ToyBackbone(nn.Module):
    """Convolution, BN, ReLU, pooling; with dropout where it is asked for."""

    def __init__(self, channels: int = FEATURES, dropout: float = 0.0) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, channels, 3, stride=2, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(channels)
        self.dropout = nn.Dropout(dropout)

    def forward(self, images_NCHW: torch.Tensor) -> torch.Tensor:
        features = torch.relu(self.bn(self.conv(images_NCHW))).mean(dim=(2, 3))
        return self.dropout(features)


def noisy_views(dtype: torch.dtype) -> Callable[[torch.Tensor], tuple[torch.Tensor, torch.Tensor]]:
    """Returns an augmentation that adds noise of torch's default generator, in this precision."""

    def views(images_NCHW: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        scaled = images_NCHW.to(dtype) / 255 - 0.5
        return (
            scaled + 0.2 * torch.randn(scaled.shape, dtype=dtype),
            scaled + 0.2 * torch.randn(scaled.shape, dtype=dtype),
        )

    return views


def toy_objective(
    kind: str, dropout: float = 0.0, publish: str = "projector", seed: int | None = None
) -> Objective:
    """Returns an objective over a toy backbone; the initial weights are those of `kind` or `seed`."""
    made, options = TOY_OBJECTIVES[kind]
    if publish != "projector":
        options = {**options, "publish": publish}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(len(kind) if seed is None else seed)
        return made(ToyBackbone(dropout=dropout), FEATURES, **options)


def toy_peer(
    kind: str,
    *,
    name: str | None = None,
    dtype: torch.dtype = torch.float32,
    dropout: float = 0.0,
    weight: float = 0.4,
    reduction: Reduction = Reduction.BATCHMEAN,
    publish: str = "projector",
    rows: Rows | None = None,
    optimizer: Callable[[Objective], torch.optim.Optimizer] | None = None,
    seed: int | None = None,
) -> Peer:
    """Returns a peer named after its objective, e.g. "simclr"."""
    objective = toy_objective(kind, dropout, publish, seed).to(dtype)
    if rows is not None:
        objective.learn_with = objective.publish = rows.value
    if optimizer is None:
        made: torch.optim.Optimizer = torch.optim.Adam(objective.parameters(), lr=1e-3)
    else:
        made = optimizer(objective)
    return Peer(
        id=PeerId(name or kind),
        objective=objective,
        optimizer=made,
        augmentation=noisy_views(dtype),
        distill_weight=weight,
        reduction=reduction,
        temperature=0.05 if rows is Rows.FEATURES else 0.1,
        run_seed=RUN_SEED,
        device=torch.device("cpu"),
    )


def toy_images(number: int = 6, seed: int = 0, size: int = 8) -> torch.Tensor:
    """Returns uint8 images."""
    generator = torch.Generator().manual_seed(seed)
    shape = (number, 3, size, size)
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)


def state_of(peer: Peer) -> dict[str, torch.Tensor]:
    """Returns a copy of all parameters and buffers."""
    return copy.deepcopy(dict(peer.objective.state_dict()))


def same_bits(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return first.keys() == second.keys() and all(
        torch.equal(value, second[key]) for key, value in first.items()
    )


def signal_of(*others: SimilarityDistribution) -> TeacherSignal:
    """Returns the mean of distributions, as a coordinator would."""
    return TeacherSignal(
        mean_NN=np.mean([other.p_NN for other in others], axis=0, dtype=np.float32),
        negative_entropy=float(np.mean([other.negative_entropy for other in others])),
        teachers=tuple(PeerId(f"teacher{index}") for index in range(len(others))),
        next_step=1,
    )
