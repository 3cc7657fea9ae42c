"""What room a Ray cluster has for peers."""

from __future__ import annotations

import math
from typing import Any

import ray

from dogo_fed.config import RayConfig
from dogo_fed.errors import PlacementError


def gpus_per_peer(settings: RayConfig, num_peers: int) -> float:
    """Returns each peer's share of GPUs.

    Raises:
        PlacementError: the cluster has fewer GPUs than that takes.
    """
    available = float(ray.cluster_resources().get("GPU", 0.0))
    share = settings.gpus_per_peer
    if share is None:
        share = 1.0 if available > 0 else 0.0
    if share * num_peers > available:
        fitting = math.floor(available / num_peers * 100) / 100
        advice = (
            f"ray.gpus_per_peer={min(fitting, 1.0):g}" if fitting > 0 else "ray.gpus_per_peer=0"
        )
        raise PlacementError(
            f"{num_peers} peers need {share:g} GPU each, but the cluster has {available:g}; share them by "
            f"{advice}, or run fewer peers"
        )
    largest = max((float(node["Resources"].get("GPU", 0.0)) for node in live_nodes()), default=0.0)
    if share > largest:
        raise PlacementError(
            f"a peer needs {share:g} GPUs, but no node of the cluster has more than {largest:g}; "
            f"choose ray.gpus_per_peer={largest:g} or less"
        )
    return share


def live_nodes() -> list[dict[str, Any]]:
    """Returns the nodes that are alive."""
    return [node for node in ray.nodes() if node["Alive"]]


def is_out_of_gpus() -> bool:
    """Whether the cluster has GPUs, and none of them is free."""
    has = float(ray.cluster_resources().get("GPU", 0.0))
    return has > 0 and float(ray.available_resources().get("GPU", 0.0)) < 1.0


def room() -> str:
    """Returns what the cluster has and what of it is free, for people."""
    has = _cpus_and_gpus(ray.cluster_resources())
    free = _cpus_and_gpus(ray.available_resources())
    return f"Ray has {has} on {len(live_nodes())} node(s), of which free: {free}"


def _cpus_and_gpus(resources: dict[str, float]) -> dict[str, float]:
    return {name: amount for name, amount in resources.items() if name in ("CPU", "GPU")}
