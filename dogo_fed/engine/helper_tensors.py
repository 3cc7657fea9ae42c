"""The tensors that go between the processes of one peer: all send and take them in one order.

Tensors go through torch.distributed (NCCL between GPUs, else gloo), bound to the loopback device.
"""

# n = images of one part, D = numbers of the embeddings that are sent, of an image

from __future__ import annotations

import datetime
import os
import sys
from collections.abc import Sequence

import torch
from torch import distributed as dist

from dogo_fed.objectives.base import Objective

FIRST = 0
"""The rank of the peer's own process."""
WITHIN_S = 600.0
"""So long may a helper take to start, or to do its part of a pass."""


def meet(rank: int, num_parts: int, meeting: str, device_type: str) -> None:
    """Joins the processes of the peer; they find each other by a file."""
    loopback = "lo0" if sys.platform == "darwin" else "lo"
    os.environ["GLOO_SOCKET_IFNAME"] = os.environ["NCCL_SOCKET_IFNAME"] = loopback
    dist.init_process_group(
        "nccl" if device_type == "cuda" else "gloo",
        init_method=f"file://{meeting}",
        rank=rank,
        world_size=num_parts,
        timeout=datetime.timedelta(seconds=WITHIN_S),
    )


def learning(objective: Objective) -> list[torch.Tensor]:
    """Returns the weights that learn, in the order that all processes know."""
    return [parameter for parameter in objective.parameters() if parameter.requires_grad]


def give_state(objective: Objective) -> None:
    """Gives the helpers what a pass may depend on."""
    for flat in _flat(_state(objective)):
        dist.broadcast(flat, src=FIRST)


def take_state(objective: Objective) -> None:
    """Takes what the peer's own process gives by `give_state`."""
    state = _state(objective)
    for flat, group in zip(_flat(state), _by_type(state), strict=True):
        dist.broadcast(flat, src=FIRST)
        _put(flat, group)


def joined(by_head: Sequence[torch.Tensor]) -> torch.Tensor:
    """Returns the heads' embeddings of each image side by side, or their gradients; n x D."""
    return torch.cat([head_nD.float() for head_nD in by_head], dim=1)


def add_up(gradients: Sequence[torch.Tensor]) -> None:
    """Adds up all processes' gradients; the first process has the sums, in place."""
    for flat, group in zip(_flat(gradients), _by_type(gradients), strict=True):
        dist.reduce(flat, dst=FIRST)
        _put(flat, group)


def _state(objective: Objective) -> list[torch.Tensor]:
    """Returns what a pass may depend on: all weights and buffers, but those of the average."""
    named = [*objective.named_parameters(), *objective.named_buffers()]
    return [
        tensor.detach()
        for name, tensor in named
        if tensor.is_floating_point() and not name.startswith("average.")
    ]


def _by_type(tensors: Sequence[torch.Tensor]) -> list[list[torch.Tensor]]:
    groups: dict[torch.dtype, list[torch.Tensor]] = {}
    for tensor in tensors:
        groups.setdefault(tensor.dtype, []).append(tensor)
    return list(groups.values())


def _flat(tensors: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """Returns all numbers of the tensors in a row, one row for each type."""
    return [torch.cat([tensor.reshape(-1) for tensor in group]) for group in _by_type(tensors)]


def _put(flat: torch.Tensor, group: Sequence[torch.Tensor]) -> None:
    """Writes the numbers of a row back to where they belong."""
    with torch.no_grad():
        values = torch.split(flat, [tensor.numel() for tensor in group])
        for tensor, value in zip(group, values, strict=True):
            tensor.copy_(value.view_as(tensor))
