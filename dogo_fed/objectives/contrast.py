"""The cross entropy of a contrast, in blocks of rows where its whole matrix would need much memory.

A contrast compares each query with its positive and with all negatives, so it has a matrix with a
row for each query. Where that matrix is large, a block of its rows is computed at a time, and again
in the backward pass, so that no more than a block is ever kept.
"""

# N = queries, M = keys of each, the positive among them

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch.utils.checkpoint import checkpoint

MOST_AT_ONCE = 2**25
"""Entries of a matrix that is computed as a whole: 128 MiB in float32, and 2896 images for NT-Xent."""
BLOCK = 2**23
"""Entries of a block of a larger one."""


def contrast_cross_entropy(
    logits_of: Callable[[slice], torch.Tensor], positives_N: torch.Tensor, num_keys: int
) -> torch.Tensor:
    """Returns the mean over the queries of -log softmax at the positive, in nats.

    Args:
        logits_of: the logits of some queries, n x M; called with one slice of all queries, or with
            several that follow each other. It must be a function of its argument alone.
        positives_N: the place of each query's positive among the M keys.
        num_keys: M.
    """
    num_queries = len(positives_N)
    if num_queries * num_keys <= MOST_AT_ONCE:
        return F.cross_entropy(logits_of(slice(None)), positives_N)
    size = max(1, BLOCK // num_keys)

    def summed(rows: slice) -> torch.Tensor:
        return F.cross_entropy(logits_of(rows), positives_N[rows], reduction="sum")

    blocks = [
        checkpoint(
            summed,
            slice(first, min(first + size, num_queries)),
            use_reentrant=False,
            preserve_rng_state=False,
        )
        for first in range(0, num_queries, size)
    ]
    return torch.stack(blocks).sum() / num_queries
