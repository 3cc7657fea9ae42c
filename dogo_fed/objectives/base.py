"""What every self-supervised objective gives the engine: its loss, and two named pairs of embeddings."""

# N = images in the step's batch, D = embedding dimension, C, H, W = channels and pixels

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import nn


@dataclass(frozen=True, slots=True)
class ViewPair:
    """Embeddings of the two views of a batch, each N x D."""

    a_ND: torch.Tensor
    b_ND: torch.Tensor

    def swapped(self) -> ViewPair:
        """Returns the same embeddings with the second view first."""
        return ViewPair(self.b_ND, self.a_ND)


@dataclass(frozen=True, slots=True)
class ObjectiveOutput:
    """One forward pass over two views.

    Attributes:
        ssl_loss: the objective's own loss, a scalar with a gradient.
        learn_with: embeddings whose similarity distribution is pulled towards the other peers'.
        publish: embeddings whose similarity distribution the other peers receive; no gradient is
            needed.
    """

    ssl_loss: torch.Tensor
    learn_with: ViewPair
    publish: ViewPair


class Objective(nn.Module, ABC):
    """A backbone, the heads an objective needs, and the loss over two views.

    The backbone is registered here, so that one module is all there is of a peer's state. State of an
    objective's own (a momentum encoder, a queue) is registered too, as parameters that require no
    gradient or as buffers: then checkpoints hold it, digests cover it and no optimizer touches it.
    `forward` leaves it as it is, `after_update` moves it.

    Attributes:
        uses_labels: whether it is given the classes of the batch as a third argument, int64, shape N,
            and the number of classes as `num_classes` when it is built.
    """

    uses_labels: ClassVar[bool] = False

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone

    @abstractmethod
    def forward(self, view_a_NCHW: torch.Tensor, view_b_NCHW: torch.Tensor) -> ObjectiveOutput:
        """Returns the loss and the two pairs of embeddings for two views of the same images."""

    def after_update(self) -> None:
        """Called once after every optimizer step; for state that follows the weights."""
