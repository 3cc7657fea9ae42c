"""What every objective gives the engine: its loss, and two named pairs of embeddings."""

# N = images in the pass, D = embedding dimension, C, H, W = channels and pixels

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import ClassVar, TypeAlias

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from dogo_fed.objectives.gate import agreeing

Embeddings: TypeAlias = Mapping[str, torch.Tensor]
"""Embeddings of one pass, N x D each, by head and view: "projector_a", "predictor_b", ..."""


EmbedPart: TypeAlias = Callable[[torch.Tensor, torch.Tensor, int], Embeddings]
"""Two views of some images of a pass, and a number of chunks, to their embeddings."""

_SCALE_IN_HALF_PRECISION = 2.0**12
"""The gate's factor of the own loss in half precision. Many gradients by an embedding are too small
for float16, which ends at 6e-8. With the factor, those from 1.5e-11 to 16 are numbers of it."""


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
        ssl_loss: the objective's own loss, a scalar with a graph.
        learn_with: embeddings whose similarity distribution is pulled towards the other peers'.
        publish: embeddings whose similarity distribution the other peers receive; they need no
            graph.
    """

    ssl_loss: torch.Tensor
    learn_with: ViewPair
    publish: ViewPair


class Objective(nn.Module, ABC):
    """A backbone, the heads an objective needs, and the loss over two views.

    `embed` computes the embeddings of two views, and `loss` computes the loss from embeddings. The
    loss and the published pair may use different images of one pass. An objective whose only head
    is a projector needs no `embed` of its own.

    The backbone is registered here, so one module holds the whole state of a peer. A subclass
    registers its further state (a momentum encoder, a queue) too, as parameters that require no
    gradient or as buffers. Then checkpoints hold it, digests cover it and no optimizer touches it.
    `embed` and `loss` leave it as it is; `after_update` moves it.

    Attributes:
        uses_labels: whether `loss` needs the classes of its images. If so, the constructor gets
            their number as `num_classes`.
        moved_by_update: names of the buffers that `after_update` moves. No pass moves them.
        can_look_ahead: whether a pass may come before the `after_update` of the pass before
            (exchange.lookahead): `loss` leaves nothing behind for `after_update`.
        learn_with: the head whose embeddings are pulled towards the other peers'.
        publish: the head whose embeddings the other peers learn from.
        projector: features to embeddings.
        average: a copy whose weights follow this one's, and which publishes in its place; None if
            there is none. Its parameters require no gradient.
    """

    projector: nn.Module
    uses_labels: ClassVar[bool] = False
    moved_by_update: ClassVar[Collection[str]] = ()
    can_look_ahead: ClassVar[bool] = False
    learn_with: str = "projector"
    publish: str = "projector"

    average: Objective | None

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone
        self.average = None

    def embed(self, view_a_NCHW: torch.Tensor, view_b_NCHW: torch.Tensor) -> Embeddings:
        """Returns the heads' embeddings of two views of the same images: features and projections.

        Each view is a pass of its own, so that it is normalised by its own statistics. `learn_with`
        and `publish` name a pair of the result, e.g. "projector" for "projector_a" and
        "projector_b".
        """
        seen = {}
        for view, view_NCHW in (("a", view_a_NCHW), ("b", view_b_NCHW)):
            seen[f"features_{view}"] = self.backbone(view_NCHW)
            seen[f"projector_{view}"] = self.projector(seen[f"features_{view}"])
        return seen

    @abstractmethod
    def loss(self, seen: Embeddings, labels_N: torch.Tensor | None = None) -> torch.Tensor:
        """Returns the objective's own loss, a scalar with a graph.

        Args:
            seen: embeddings from `embed`, of all images of the pass or of some.
            labels_N: classes of these images, int64; given if `uses_labels`.
        """

    def forward(
        self,
        view_a_NCHW: torch.Tensor,
        view_b_NCHW: torch.Tensor,
        labels_N: torch.Tensor | None = None,
        *,
        own: slice | None = None,
        shared: slice | None = None,
        chunk_size: int | None = None,
        split: Callable[[EmbedPart, torch.Tensor, torch.Tensor], Embeddings] | None = None,
        gated: bool = False,
    ) -> ObjectiveOutput:
        """Returns the loss and the two pairs of embeddings for two views of the same images.

        Args:
            view_a_NCHW: the first view.
            view_b_NCHW: the second.
            labels_N: classes of the images that the loss uses.
            own: rows that the loss uses; None is all of them.
            shared: rows that go into the two pairs; None is all of them.
            chunk_size: images that pass through the networks at a time; None is all of them.
            split: embeds all images, of which it gives this process some (`engine.helpers`); None
                if this process embeds all of them.
            gated: whether what is learned with passes the gate of `objectives.gate`.
        """
        if split is None:
            number = num_chunks(len(view_a_NCHW), chunk_size)
            seen = self.embed_in_chunks(view_a_NCHW, view_b_NCHW, number)
        else:
            seen = split(self.embed_in_chunks, view_a_NCHW, view_b_NCHW)
        loss = self.loss(_rows(seen, own), labels_N)
        learned = self._gated(seen, loss) if gated else seen
        return ObjectiveOutput(
            loss,
            learn_with=_pair(_rows(learned, shared), self.learn_with),
            publish=_pair(_rows(seen, shared), self.publish),
        )

    def _gated(self, seen: Embeddings, loss: torch.Tensor) -> Embeddings:
        """Returns the embeddings that are learned with, whose gradient passes the gate.

        The gate asks for the direction of the own gradient alone, so the loss may be scaled for it.
        Under autocast the backward pass of the loss would be in half precision too, so it is off.

        Raises:
            ValueError: the loss does not depend on them, so the gate would be open.
        """
        names = [f"{self.learn_with}_a", f"{self.learn_with}_b"]
        device_type = loss.device.type
        is_half = torch.is_autocast_enabled(device_type)
        with torch.autocast(device_type=device_type, enabled=False):
            own = torch.autograd.grad(
                loss,
                [seen[name] for name in names],
                torch.full_like(loss, _SCALE_IN_HALF_PRECISION if is_half else 1.0),
                retain_graph=True,
                allow_unused=True,
            )
        if all(gradient is None for gradient in own):
            raise ValueError(
                f"gate=agreement: the own loss does not depend on {' and '.join(names)}, with which the "
                "peer learns; leave out the gate, or choose other exchange.rows"
            )
        return {
            name: seen[name] if gradient is None else agreeing(seen[name], gradient)
            for name, gradient in zip(names, own, strict=True)
        }

    def embed_in_chunks(
        self, view_a_NCHW: torch.Tensor, view_b_NCHW: torch.Tensor, number: int
    ) -> Embeddings:
        """Returns the embeddings of all images, of which the graph keeps one chunk at a time.

        Each chunk's pass is done again in the backward pass, with the same random numbers: gradient
        caching (Gao et al., "Scaling Deep Contrastive Learning Batch Size under Memory Limited
        Setup", 2021). The chunks are of equal size, but for one image.

        Args:
            view_a_NCHW: the first view.
            view_b_NCHW: the second.
            number: of chunks.
        """
        if number == 1:
            return self.embed(view_a_NCHW, view_b_NCHW)
        parts: list[Embeddings] = [
            checkpoint(self.embed, a_NCHW, b_NCHW, use_reentrant=False)
            for a_NCHW, b_NCHW in zip(
                view_a_NCHW.tensor_split(number), view_b_NCHW.tensor_split(number), strict=True
            )
        ]
        return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}

    def after_update(self) -> None:
        """Moves state that follows the weights; called once after every optimizer step."""

    def published(
        self,
        view_a_NCHW: torch.Tensor,
        view_b_NCHW: torch.Tensor,
        *,
        chunk_size: int | None = None,
    ) -> ViewPair:
        """Returns the pair of embeddings that is published, of images that are all shared."""
        number = num_chunks(len(view_a_NCHW), chunk_size)
        return _pair(self.embed_in_chunks(view_a_NCHW, view_b_NCHW, number), self.publish)

    def keep_average(self) -> None:
        """Begins to average the weights; they are what they are now."""
        self.average = copy.deepcopy(self).requires_grad_(False)

    def move_average(self, momentum: float) -> None:
        """Moves the average towards the weights: momentum * average + (1 - momentum) * weights.

        Running statistics are the average's own: they are those of what it has computed.
        """
        assert self.average is not None, "begun by keep_average"
        own = dict(self.named_parameters())
        with torch.no_grad():
            for name, averaged in self.average.named_parameters():
                averaged.lerp_(own[name], 1.0 - momentum)


def num_chunks(num_images: int, chunk_size: int | None, least_images: int | None = None) -> int:
    """Returns in how many chunks images pass through the networks.

    No chunk has a single image, of which there are no statistics. So one may have an image more than
    `chunk_size`, where the others would leave one alone.

    Args:
        num_images: of the pass; of its largest part, if processes share it.
        chunk_size: images of a chunk; None is all of them.
        least_images: of the smallest part, which is done in as many chunks; None is `num_images`.
    """
    if chunk_size is None:
        return 1
    least_images = num_images if least_images is None else least_images
    return max(1, min(-(-num_images // chunk_size), least_images // 2))


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
