"""A gate: what is learned from others may not work against what a peer learns by itself.

For each image and view, o is the gradient of the peer's own loss by its embedding, and g that of
the distillation. Where they point away from each other, the part of g along o is taken out:

    g' = g - min(0, <g, o>) / <o, o> o

Source: the projection of Yu et al., "Gradient Surgery for Multi-Task Learning", NeurIPS 2020,
algorithm 1, applied in one direction, and to embeddings instead of weights. The gradients by
embeddings are had from the heads alone, so this costs no second pass through the backbone.
"""

# N = images in the step's batch, D = embedding dimension

from __future__ import annotations

from typing import Any

import torch


def agreeing(z_ND: torch.Tensor, own_gradient_ND: torch.Tensor) -> torch.Tensor:
    """Returns the same embeddings; of their gradient, what works against the own loss is taken out.

    Args:
        z_ND: embeddings with a graph.
        own_gradient_ND: the gradient of the own loss by them, times any positive number. Where it is
            not finite, nobody knows what works against it, and nothing passes.
    """
    gated_ND: torch.Tensor = _Agreeing.apply(z_ND, own_gradient_ND)
    return gated_ND


class _Agreeing(torch.autograd.Function):
    """The identity, with the projection in its backward pass."""

    @staticmethod
    def forward(ctx: Any, z_ND: torch.Tensor, own_gradient_ND: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(own_gradient_ND)
        return z_ND.view_as(z_ND)

    @staticmethod
    def backward(ctx: Any, gradient_ND: torch.Tensor) -> tuple[torch.Tensor, None]:
        (own_gradient_ND,) = ctx.saved_tensors
        wide = torch.promote_types(gradient_ND.dtype, torch.float32)
        g_ND, o_ND = gradient_ND.to(wide), own_gradient_ND.to(wide)
        against_N1 = (g_ND * o_ND).sum(dim=1, keepdim=True).clamp(max=0.0)
        length_N1 = o_ND.square().sum(dim=1, keepdim=True)
        share_N1 = torch.where(length_N1 > 0, against_N1 / length_N1, torch.zeros_like(length_N1))
        gated_ND = g_ND - share_N1 * o_ND
        gated_ND = torch.where(length_N1.isfinite(), gated_ND, torch.zeros_like(gated_ND))
        return gated_ND.to(gradient_ND.dtype), None
