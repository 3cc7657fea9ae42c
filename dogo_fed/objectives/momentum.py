"""A momentum encoder: a copy of backbone and projector that follows them and is never trained.

Source: He et al., "Momentum Contrast", CVPR 2020, equation 2. The same rule is equation 1 of Grill
et al., "Bootstrap Your Own Latent", NeurIPS 2020, which calls the copy the target network.
"""

# N = images in the step's batch, D = embedding dimension, C, H, W = channels and pixels

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Self

import torch
from torch import nn

from dogo_fed.objectives.checks import check_sizes


def momentum_at(base: float, num_updates: int, total_updates: int | None) -> float:
    """Returns the momentum of the next update, in 0..1.

    It rises from `base` to 1. Source: Grill et al. 2020, section 3.3:
    1 - (1 - base) (cos(pi k / K) + 1) / 2.

    Args:
        base: the momentum at the beginning.
        num_updates: k, the number of updates made so far.
        total_updates: K, the length of the run; None keeps `base`. After K the momentum is 1.
    """
    if total_updates is None:
        return base
    progress = min(num_updates / total_updates, 1.0)
    return 1.0 - (1.0 - base) * (math.cos(math.pi * progress) + 1.0) / 2.0


class MomentumEncoder(nn.Module):
    """Copies of a backbone and a projector, and their exponential moving average.

    Parameters follow the originals. Running statistics of the normalisation do not: as in the
    papers, the copy runs in train mode, is normalised by its own batch, and gathers its own
    statistics. All state, the number of updates included, is registered, so checkpoints and digests
    cover it.
    """

    num_updates: torch.Tensor

    def __init__(
        self, backbone: nn.Module, projector: nn.Module, momentum: float, total_updates: int | None
    ) -> None:
        """Copies both modules; the copies start equal to them.

        Args:
            backbone: images to features.
            projector: features to embeddings.
            momentum: share of the old weights in each update, 0 <= momentum <= 1.
            total_updates: updates over which the momentum rises to 1; None leaves it constant.

        Raises:
            ValueError: a value is out of range, or the backbone can't be copied.
        """
        if not 0 <= momentum <= 1:
            raise ValueError(f"momentum must be between 0 and 1, not {momentum}")
        if total_updates is not None:
            check_sizes(momentum_steps=total_updates)
        super().__init__()
        try:
            self.backbone, self.projector = copy.deepcopy((backbone, projector))
        except Exception as error:  # a user's module may fail in any way
            raise ValueError(
                "the backbone can't be copied, and a momentum encoder is a copy: "
                f"{type(error).__name__}: {error}"
            ) from error
        self.requires_grad_(False)
        self.momentum = momentum
        self.total_updates = total_updates
        self.register_buffer("num_updates", torch.zeros((), dtype=torch.int64))

    def _apply(self, fn: Callable[..., torch.Tensor], recurse: bool = True) -> Self:
        """Moves all but the number of updates, which stays on the CPU: to read it waits for nothing."""
        num_updates = self.num_updates
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        self.num_updates = num_updates
        return self

    @torch.no_grad()
    def forward(self, view_NCHW: torch.Tensor) -> torch.Tensor:
        """Returns the embeddings of a view, N x D, without a graph."""
        embeddings_ND: torch.Tensor = self.projector(self.backbone(view_NCHW))
        return embeddings_ND

    @torch.no_grad()
    def follow(self, backbone: nn.Module, projector: nn.Module) -> None:
        """Moves every parameter: new = momentum * old + (1 - momentum) * original (equation 2)."""
        momentum = self.momentum
        if self.total_updates is not None:
            momentum = momentum_at(momentum, int(self.num_updates), self.total_updates)
        for mine, followed in ((self.backbone, backbone), (self.projector, projector)):
            for old, new in zip(mine.parameters(), followed.parameters(), strict=True):
                old.mul_(momentum).add_(new, alpha=1.0 - momentum)
        self.num_updates += 1
