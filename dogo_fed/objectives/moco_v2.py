"""MoCo v2: a view must match its image's key, and none of the keys of earlier images in a queue.

Source: He et al., "Momentum Contrast for Unsupervised Visual Representation Learning", CVPR 2020,
equations 1 and 2 and algorithm 1; the head and the temperature of Chen et al., "Improved Baselines
with Momentum Contrastive Learning", 2020. The keys come from a momentum encoder.

The paper's shuffling BN (section 3.3) is left out. It mixes images between GPUs, so that a query
and its key do not share batch statistics. A peer has one device, and there queries and keys are
normalised by different networks over different views.
"""

# N = images in the step's batch, D = embedding dimension, K = keys in the queue
# C, H, W = channels and pixels

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from dogo_fed.objectives.base import Embeddings, Objective
from dogo_fed.objectives.checks import (
    check_positive,
    check_publish,
    check_sizes,
    check_views,
    widened,
)
from dogo_fed.objectives.contrast import contrast_cross_entropy
from dogo_fed.objectives.heads import moco_v2_projector
from dogo_fed.objectives.momentum import MomentumEncoder


def queue_contrast(
    query_ND: torch.Tensor, key_ND: torch.Tensor, queue_KD: torch.Tensor, temperature: float
) -> torch.Tensor:
    """Returns the mean over images of -log(e^(q.k+ / t) / sum_k e^(q.k / t)), in nats.

    The sum is over the positive key k+ and the keys of the queue. Source: equation 1 of He et al.
    2020. Queries and keys are normalised here. Gradients flow to the queries only.

    Args:
        query_ND: one view's embeddings.
        key_ND: the other view's, by the momentum encoder, same shape.
        queue_KD: keys of earlier images, of unit length.
        temperature: t, greater than 0.

    Raises:
        ValueError: shapes do not fit, or the temperature is not positive.
    """
    check_views(query_ND, key_ND, min_images=1, name="the contrast with a queue")
    check_positive(temperature=temperature)
    if queue_KD.ndim != 2 or queue_KD.shape[1] != query_ND.shape[1]:
        raise ValueError(
            f"the queue must be K x {query_ND.shape[1]} as the queries are, not "
            f"{tuple(queue_KD.shape)}"
        )
    with torch.autocast(device_type=query_ND.device.type, enabled=False):
        query_ND, key_ND, queue_KD = widened(query_ND, key_ND.detach(), queue_KD.detach())
        query_ND, key_ND = F.normalize(query_ND, dim=1), F.normalize(key_ND, dim=1)
    is_first_N = torch.zeros(len(query_ND), dtype=torch.int64, device=query_ND.device)

    def logits_of(rows: slice) -> torch.Tensor:
        with torch.autocast(device_type=query_ND.device.type, enabled=False):
            positive_n1 = (query_ND[rows] * key_ND[rows]).sum(dim=1, keepdim=True)
            return torch.cat([positive_n1, query_ND[rows] @ queue_KD.T], dim=1) / temperature

    return contrast_cross_entropy(logits_of, is_first_N, 1 + len(queue_KD))


class MoCoV2(Objective):
    """MoCo v2 over a backbone. It learns with the projector's output and publishes it.

    The paper's loss has one direction: the first view's query and the second view's key. The second
    view passes through the backbone as well, since a similarity distribution needs both views.

    The queue is a ring of K keys. It starts with random directions, as in the paper's code, and
    every update replaces the oldest keys by the step's. Queue and position are buffers.
    """

    moved_by_update = ("queue_KD", "queue_position", "target.num_updates")

    queue_KD: torch.Tensor
    queue_position: torch.Tensor

    def __init__(
        self,
        backbone: nn.Module,
        feature_dim: int,
        *,
        temperature: float = 0.2,
        hidden_dim: int = 2048,
        output_dim: int = 128,
        queue_size: int = 65536,
        momentum: float = 0.999,
        publish: str = "projector",
    ) -> None:
        """Builds the projector, the momentum encoder and the queue.

        Args:
            backbone: images to pooled features of `feature_dim`; it is copied for the keys.
            feature_dim: F.
            temperature: divisor of the cosines in the loss, greater than 0.
            hidden_dim: width of the projector's hidden layer.
            output_dim: D.
            queue_size: K.
            momentum: share of its old weights that the momentum encoder keeps at an update.
            publish: "projector", or "target" for the momentum encoder's projector.

        Raises:
            ValueError: an option is out of range, or the backbone can't be copied.
        """
        check_positive(temperature=temperature)
        check_sizes(hidden_dim=hidden_dim, output_dim=output_dim, queue_size=queue_size)
        check_publish(publish, ("projector", "target"))
        super().__init__(backbone)
        self.temperature = temperature
        self.publish = publish
        self.projector = moco_v2_projector(feature_dim, hidden_dim, output_dim)
        self.target = MomentumEncoder(backbone, self.projector, momentum, None)
        self.register_buffer("queue_KD", F.normalize(torch.randn(queue_size, output_dim), dim=1))
        self.register_buffer("queue_position", torch.zeros((), dtype=torch.int64))
        self._new_keys: torch.Tensor | None = None

    def embed(self, view_a_NCHW: torch.Tensor, view_b_NCHW: torch.Tensor) -> Embeddings:
        """Returns projections and the second view's keys; the first view's too if published."""
        seen = {**super().embed(view_a_NCHW, view_b_NCHW), "target_b": self.target(view_b_NCHW)}
        if self.publish == "target":
            seen["target_a"] = self.target(view_a_NCHW)
        return seen

    def loss(self, seen: Embeddings, labels_N: torch.Tensor | None = None) -> torch.Tensor:
        """Returns the loss of the first view's queries, and keeps the keys for `after_update`."""
        key_b_ND = seen["target_b"]
        self._new_keys = key_b_ND if self.training else None
        return queue_contrast(seen["projector_a"], key_b_ND, self.queue_KD, self.temperature)

    def after_update(self) -> None:
        """Moves the momentum encoder (equation 2) and puts the step's keys into the queue."""
        self.target.follow(self.backbone, self.projector)
        if self._new_keys is not None:
            self._enqueue(self._new_keys)
            self._new_keys = None

    @torch.no_grad()
    def _enqueue(self, keys_ND: torch.Tensor) -> None:
        """Overwrites the oldest keys; if there are more than K new ones, the last K stay."""
        size = len(self.queue_KD)
        (newest_ND,) = widened(keys_ND[-size:])
        unit_ND = F.normalize(newest_ND, dim=1)
        offsets_N = torch.arange(len(unit_ND), device=self.queue_position.device)
        places_N = (self.queue_position + offsets_N) % size
        self.queue_KD[places_N] = unit_ND.to(self.queue_KD.dtype)
        self.queue_position.copy_((self.queue_position + len(unit_ND)) % size)
