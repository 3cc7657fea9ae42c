"""A name for the exact state of a module: equal digests mean equal tensors, bit for bit."""

from __future__ import annotations

import torch

from dogo_fed.models.digest import tensor_digest, tensors_digest


def tensor_digests(module: torch.nn.Module) -> dict[str, str]:
    """Returns a hex digest per parameter and buffer, in name order; see `models.digest`.

    Buffers that are not saved (`persistent=False`) count too, and a shared tensor counts under each
    of its names.
    """
    tensors = _tensors_of(module)
    return {name: tensor_digest(name, tensors[name]) for name in sorted(tensors)}


def state_digest(module: torch.nn.Module) -> str:
    """Returns 64 hex digits over all parameters and buffers of `module`, in name order."""
    return tensors_digest(_tensors_of(module))


def _tensors_of(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    tensors: dict[str, torch.Tensor] = dict(module.named_parameters(remove_duplicate=False))
    tensors.update(module.named_buffers(remove_duplicate=False))
    return tensors
