"""A name for the exact values of tensors: equal digests mean equal tensors, bit for bit."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping

import torch


def tensor_digest(name: str, tensor: torch.Tensor) -> str:
    """Returns 64 hex digits over name, dtype, shape and raw bytes of a tensor, not its device.

    The header in front of the bytes is JSON, with its length before it.
    """
    header = json.dumps([name, str(tensor.dtype), list(tensor.shape)]).encode()
    flat = tensor.detach().to("cpu").contiguous().reshape(-1)
    hasher = hashlib.blake2b(len(header).to_bytes(8, "little") + header, digest_size=32)
    hasher.update(flat.view(torch.uint8).numpy().data)
    return hasher.hexdigest()


def tensors_digest(tensors: Mapping[str, torch.Tensor]) -> str:
    """Returns 64 hex digits over all tensors, in name order.

    The same on every device and in every process; one flipped bit, another dtype or another name
    gives another digest.
    """
    hasher = hashlib.blake2b(digest_size=32)
    for name in sorted(tensors):
        hasher.update(bytes.fromhex(tensor_digest(name, tensors[name])))
    return hasher.hexdigest()
