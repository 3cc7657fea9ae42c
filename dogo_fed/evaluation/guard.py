"""The proof that an evaluation leaves the backbone alone."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from dogo_fed.errors import EvaluationError
from dogo_fed.evaluation.digest import tensor_digests


@contextmanager
def frozen(backbone: torch.nn.Module) -> Iterator[None]:
    """Checks that the block changes no parameter and no buffer of `backbone`.

    An exception from the block itself passes through unchanged.

    Raises:
        EvaluationError: something changed; names the first such tensor in name order.
    """
    before = tensor_digests(backbone)
    yield
    after = tensor_digests(backbone)
    names = sorted(before.keys() | after.keys())
    changed = [name for name in names if before.get(name) != after.get(name)]
    if changed:
        raise EvaluationError(
            f"the evaluation changed the backbone, which must stay frozen: {changed[0]!r} "
            f"{_what_happened(changed[0], before, after)} ({len(changed)} of {len(names)} tensors "
            "in all); evaluate in eval mode, without an optimizer on the backbone"
        )


def _what_happened(name: str, before: dict[str, str], after: dict[str, str]) -> str:
    """Returns how a tensor differs, for the message."""
    if name not in before:
        return "is new"
    return "is different" if name in after else "is gone"
