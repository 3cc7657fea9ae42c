"""What every self-supervised objective gives the engine: its loss, and two named pairs of embeddings."""

# N = images in the pass, D = embedding dimension, C, H, W = channels and pixels

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, TypeAlias

import torch
from torch import nn

Embeddings: TypeAlias = Mapping[str, torch.Tensor]
"""What one pass gives, N x D each, by head and view: "projector_a", "projector_b", "predictor_a", ..."""


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

    An objective says what it sees (`embed`) and what it makes of that (`loss`). The two may look at
    different images of one pass: the loss at some, the published pair at others. One that has nothing
    but a projector needs no `embed` of its own.

    The backbone is registered here, so that one module is all there is of a peer's state. State of an
    objective's own (a momentum encoder, a queue) is registered too, as parameters that require no
    gradient or as buffers: then checkpoints hold it, digests cover it and no optimizer touches it.
    `embed` and `loss` leave it as it is, `after_update` moves it.

    Attributes:
        uses_labels: whether `loss` needs the classes of its images; then it is built with the number of
            classes as `num_classes`.
        learn_with: the head whose embeddings are pulled towards the other peers'.
        publish: the head whose embeddings the other peers learn from.
        projector: features to embeddings.
    """

    projector: nn.Module
    uses_labels: ClassVar[bool] = False
    learn_with: str = "projector"
    publish: str = "projector"

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone

    def embed(self, view_a_NCHW: torch.Tensor, view_b_NCHW: torch.Tensor) -> Embeddings:
        """Returns what the heads make of two views of the same images: here, the projections.

        Each view is a pass of its own, so that normalisation sees them apart. `learn_with` and `publish`
        name pairs of what is returned, e.g. "projector" for "projector_a" and "projector_b".
        """
        return {
            "projector_a": self.projector(self.backbone(view_a_NCHW)),
            "projector_b": self.projector(self.backbone(view_b_NCHW)),
        }

    @abstractmethod
    def loss(self, seen: Embeddings, labels_N: torch.Tensor | None = None) -> torch.Tensor:
        """Returns the objective's own loss, a scalar with a gradient.

        Args:
            seen: embeddings by `embed`, of all images of the pass or of some.
            labels_N: classes of these images, int64, where the objective uses them.
        """

    def forward(
        self,
        view_a_NCHW: torch.Tensor,
        view_b_NCHW: torch.Tensor,
        labels_N: torch.Tensor | None = None,
        *,
        own: slice | None = None,
        shared: slice | None = None,
    ) -> ObjectiveOutput:
        """Returns the loss and the two pairs of embeddings for two views of the same images.

        Args:
            view_a_NCHW: the first view.
            view_b_NCHW: the second.
            labels_N: classes of the images that the loss sees.
            own: rows that the loss sees; None is all of them.
            shared: rows of the two pairs; None is all of them.
        """
        seen = self.embed(view_a_NCHW, view_b_NCHW)
        shown = _rows(seen, shared)
        return ObjectiveOutput(
            self.loss(_rows(seen, own), labels_N),
            learn_with=_pair(shown, self.learn_with),
            publish=_pair(shown, self.publish),
        )

    def after_update(self) -> None:
        """Called once after every optimizer step; for state that follows the weights."""


def with_predictions(seen: Embeddings, predictor: nn.Module) -> dict[str, torch.Tensor]:
    """Returns the embeddings with those that a predictor makes of the projections."""
    return {
        **seen,
        "predictor_a": predictor(seen["projector_a"]),
        "predictor_b": predictor(seen["projector_b"]),
    }


def _rows(embeddings: Embeddings, rows: slice | None) -> Embeddings:
    if rows is None:
        return embeddings
    return {name: z_ND[rows] for name, z_ND in embeddings.items()}


def _pair(embeddings: Embeddings, head: str) -> ViewPair:
    return ViewPair(embeddings[f"{head}_a"], embeddings[f"{head}_b"])
