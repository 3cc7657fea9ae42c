"""Which GPUs of this machine each peer's process sees (host=processes)."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

import torch

from dogo_fed.config import RunConfig
from dogo_fed.engine.numerics import resolve_device
from dogo_fed.errors import ConfigError


def gpus_of_peers(config: RunConfig) -> dict[str, str]:
    """Returns CUDA_VISIBLE_DEVICES for the process of each peer; empty if they compute on the CPU.

    Raises:
        ConfigError: peers that split their passes among GPUs have too few of them here.
    """
    gpus = visible_gpus() if resolve_device(config.device).type == "cuda" else []
    if not gpus:
        return {}
    parts = {name: peer.data_parallel for name, peer in sorted(config.peers.items())}
    return {name: ",".join(its) for name, its in shared_out(gpus, parts).items()}


def visible_gpus() -> list[str]:
    """Returns the GPUs that this process sees, as CUDA_VISIBLE_DEVICES names them.

    They are counted without a context on them, which would take memory of each.
    """
    count = torch.cuda.device_count()
    names = [name.strip() for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")]
    named = [name for name in names if name]
    return named[:count] if named else [str(index) for index in range(count)]


def shared_out(gpus: Sequence[str], parts: Mapping[str, int]) -> dict[str, list[str]]:
    """Returns the GPUs of each peer.

    Each has GPUs of its own while there are enough. If there are not, peers that need only one share
    what the others leave, or all if they leave none.

    Args:
        gpus: what there is; one at least.
        parts: for each peer, among how many GPUs it splits its passes.

    Raises:
        ConfigError: there are too few for those that need several.
    """
    is_enough = sum(parts.values()) <= len(gpus)
    found: dict[str, list[str]] = {}
    left = list(gpus)
    for name, number in parts.items():
        if number > 1 or is_enough:
            found[name], left = left[:number], left[number:]
    several = {name: number for name, number in parts.items() if number > 1}
    if sum(several.values()) > len(gpus):
        told = ", ".join(f"peers.{name}.data_parallel={number}" for name, number in several.items())
        raise ConfigError(
            f"{told} needs {sum(several.values())} GPUs, and this process sees {len(gpus)}; lower "
            "data_parallel, or run fewer such peers"
        )
    shared = left or list(gpus)
    for turn, name in enumerate(name for name in parts if name not in found):
        found[name] = [shared[turn % len(shared)]]
    return found
