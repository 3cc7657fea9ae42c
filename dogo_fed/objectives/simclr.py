"""SimCLR: two views of an image attract, all other images of the batch repel.

Source: Chen et al., "A Simple Framework for Contrastive Learning of Visual Representations", ICML
2020, equation 1 (NT-Xent) and algorithm 1.
"""

# N = images in the step's batch, D = embedding dimension

from __future__ import annotations

import torch
from torch import nn

from dogo_fed.objectives.base import Embeddings, Objective
from dogo_fed.objectives.checks import check_positive, check_sizes, check_views
from dogo_fed.objectives.contrast import contrast_cross_entropy
from dogo_fed.objectives.heads import simclr_projector
from dogo_fed.objectives.similarity import products, unit_rows


def nt_xent(z_a_ND: torch.Tensor, z_b_ND: torch.Tensor, temperature: float) -> torch.Tensor:
    """Returns the NT-Xent loss of 2N embeddings, mean over the 2N anchors, in nats (equation 1).

    Each anchor has one positive (the other view of its image) and 2N - 2 negatives.

    Args:
        z_a_ND: embeddings of the first view.
        z_b_ND: embeddings of the second view, same shape, N >= 2.
        temperature: divisor of the cosines, greater than 0; DoGo uses 0.5.

    Raises:
        ValueError: the shapes differ, N < 2, or the temperature is not positive.
    """
    check_views(z_a_ND, z_b_ND, min_images=2, name="NT-Xent")
    check_positive(temperature=temperature)
    num_images = len(z_a_ND)
    z_2ND = torch.cat([z_a_ND, z_b_ND])
    anchor_2ND, other_2ND = unit_rows(z_2ND), unit_rows(z_2ND)
    places = torch.arange(2 * num_images, device=z_2ND.device)

    def logits_of(rows: slice) -> torch.Tensor:
        logits = products(anchor_2ND[rows], other_2ND) / temperature
        is_itself = places[rows, None] == places
        return logits.masked_fill(is_itself, float("-inf"))

    return contrast_cross_entropy(logits_of, places.roll(num_images), 2 * num_images)


class SimCLR(Objective):
    """SimCLR over a backbone. It learns with the projector's output and publishes it."""

    can_look_ahead = True

    def __init__(
        self,
        backbone: nn.Module,
        feature_dim: int,
        *,
        temperature: float = 0.5,
        hidden_dim: int = 512,
        output_dim: int = 128,
    ) -> None:
        """Builds the projector.

        Args:
            backbone: images to pooled features of `feature_dim`.
            feature_dim: F.
            temperature: divisor of the cosines in NT-Xent, greater than 0.
            hidden_dim: width of the projector's hidden layer.
            output_dim: D.

        Raises:
            ValueError: the temperature is not positive, or a size is below 1.
        """
        check_positive(temperature=temperature)
        check_sizes(hidden_dim=hidden_dim, output_dim=output_dim)
        super().__init__(backbone)
        self.temperature = temperature
        self.projector = simclr_projector(feature_dim, hidden_dim, output_dim)

    def loss(self, seen: Embeddings, labels_N: torch.Tensor | None = None) -> torch.Tensor:
        """Returns the NT-Xent loss of both views' projections."""
        return nt_xent(seen["projector_a"], seen["projector_b"], self.temperature)
