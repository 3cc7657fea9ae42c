"""How numbers get from the CPU to the images' device and back, waiting as little as can be."""

from __future__ import annotations

import functools
import itertools
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch


def to_device(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Returns the tensor on the device.

    On the way to a GPU nobody waits for what that still does: a copy from pinned memory takes its
    turn there, and torch keeps the memory until then. A copy from other memory would wait.
    """
    if device.type == "cuda" and tensor.device.type == "cpu":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


def shared_with(array: npt.NDArray[Any]) -> torch.Tensor:
    """Returns a tensor in the memory of an array, which may be read-only: nobody may write there."""
    _hear_about_read_only()
    return torch.from_numpy(array)


@functools.cache
def _hear_about_read_only() -> None:
    """Lets torch say to nobody, what it says once in a process, that an array is read-only."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.from_numpy(np.frombuffer(bytes(4), np.float32))


def arrays_of(tensors: Sequence[torch.Tensor]) -> list[npt.NDArray[Any]]:
    """Returns tensors of one device as arrays, by one copy: the device is waited for once."""
    if tensors[0].device.type == "cpu":
        return [tensor.numpy() for tensor in tensors]
    return unpacked(packed(tensors).cpu(), tensors)


def packed(tensors: Sequence[torch.Tensor]) -> torch.Tensor:
    """Returns the bytes of several tensors in a row, on their device."""
    return torch.cat([tensor.reshape(-1).view(torch.uint8) for tensor in tensors])


def unpacked(packed_B: torch.Tensor, tensors: Sequence[torch.Tensor]) -> list[npt.NDArray[Any]]:
    """Returns arrays like these tensors from their bytes in a row."""
    ends = list(itertools.accumulate(tensor.nbytes for tensor in tensors))
    whole = packed_B.numpy()
    return [
        whole[end - tensor.nbytes : end].view(_numpy_type(tensor)).reshape(tensor.shape)
        for end, tensor in zip(ends, tensors, strict=True)
    ]


def _numpy_type(tensor: torch.Tensor) -> np.dtype[Any]:
    return torch.empty(0, dtype=tensor.dtype).numpy().dtype
