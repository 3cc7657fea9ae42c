"""A name for the exact state of a module: equal digests mean equal tensors, bit for bit."""

from __future__ import annotations

import hashlib
import json

import torch


def tensor_digests(module: torch.nn.Module) -> dict[str, str]:
    """Returns a hex digest per parameter and buffer, in name order.

    A digest covers name, dtype, shape and raw bytes, not the device. Buffers that are not saved
    (`persistent=False`) count too, and a shared tensor counts under each of its names.
    """
    tensors: dict[str, torch.Tensor] = dict(module.named_parameters(remove_duplicate=False))
    tensors.update(module.named_buffers(remove_duplicate=False))
    return {name: _tensor_digest(name, tensors[name]) for name in sorted(tensors)}


def state_digest(module: torch.nn.Module) -> str:
    """Returns 64 hex digits over all parameters and buffers of `module`, in name order.

    The same on every device and in every process; one flipped bit, another dtype or another name
    gives another digest.
    """
    hasher = hashlib.blake2b(digest_size=32)
    for digest in tensor_digests(module).values():
        hasher.update(bytes.fromhex(digest))
    return hasher.hexdigest()


def _tensor_digest(name: str, tensor: torch.Tensor) -> str:
    """Returns the digest of one tensor; its header is JSON with the length in front."""
    header = json.dumps([name, str(tensor.dtype), list(tensor.shape)]).encode()
    flat = tensor.detach().to("cpu").contiguous().reshape(-1)
    hasher = hashlib.blake2b(len(header).to_bytes(8, "little") + header, digest_size=32)
    hasher.update(flat.view(torch.uint8).numpy().data)
    return hasher.hexdigest()
