"""Checks of options and shapes that objectives share; each raises a ValueError of one sentence."""

# N = images in the step's batch, D = embedding dimension

from __future__ import annotations

import functools
from collections.abc import Sequence

import torch


def check_sizes(**sizes: int) -> None:
    """Checks that sizes and counts, given by name, are at least 1.

    Raises:
        ValueError: one is below 1.
    """
    for name, size in sizes.items():
        if size < 1:
            raise ValueError(f"{name} must be at least 1, not {size}")


def check_positive(**values: float) -> None:
    """Checks that temperatures and the like, given by name, are above 0.

    Raises:
        ValueError: one is not greater than 0, or is not finite.
    """
    for name, value in values.items():
        if not 0 < value < float("inf"):
            raise ValueError(f"{name} must be greater than 0, not {value}")


def check_not_negative(**values: float) -> None:
    """Checks that weights of terms, given by name, are not negative.

    Raises:
        ValueError: one is below 0, or is not finite.
    """
    for name, value in values.items():
        if not 0 <= value < float("inf"):
            raise ValueError(f"{name} must be 0 or more, not {value}")


def check_publish(publish: str, choices: Sequence[str]) -> None:
    """Checks that an objective has the embeddings that it is told to publish.

    Raises:
        ValueError: it has no such embeddings.
    """
    if publish not in choices:
        *others, last = (f'"{choice}"' for choice in choices)
        listed = f"{', '.join(others)} or {last}" if others else last
        raise ValueError(f"publish must be {listed}, not {publish!r}")


def check_views(a_ND: torch.Tensor, b_ND: torch.Tensor, *, min_images: int, name: str) -> None:
    """Checks that two batches of embeddings fit together.

    Args:
        a_ND: embeddings of one view.
        b_ND: embeddings of the other, or of another network.
        min_images: the smallest N for which the loss is defined.
        name: the loss, for the message.

    Raises:
        ValueError: they are not two N x D matrices of one shape, or N is too small.
    """
    if a_ND.shape != b_ND.shape or a_ND.ndim != 2 or len(a_ND) < min_images:
        raise ValueError(
            f"{name} needs two N x D matrices of one shape with N >= {min_images}, not "
            f"{tuple(a_ND.shape)} and {tuple(b_ND.shape)}"
        )


def widened(*tensors: torch.Tensor) -> list[torch.Tensor]:
    """Returns the tensors in one precision, float32 or wider.

    Sums over a batch may exceed the range of half precision.
    """
    dtype = functools.reduce(
        torch.promote_types, (tensor.dtype for tensor in tensors), torch.float32
    )
    return [tensor.to(dtype) for tensor in tensors]
