"""How what was drawn or looked up on the CPU gets to the images' device, without waiting for it."""

from __future__ import annotations

import torch


def to_device(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Returns the tensor on the device.

    On the way to a GPU nobody waits for what that still does: a copy from pinned memory takes its
    turn there, and torch keeps the memory until then. A copy from other memory would wait.
    """
    if device.type == "cuda" and tensor.device.type == "cpu":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)
