"""The room that a Ray cluster has for peers."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from typing import Any

import ray

from dogo_fed.config import RayConfig, RunConfig
from dogo_fed.errors import StartError

logger = logging.getLogger(__name__)

_ROUNDING = 1e-9


def num_gpus_of_peers(config: RunConfig) -> dict[str, float]:
    """Returns the number of GPUs for each peer of a run.

    `ray.gpus_per_peer` is for all peers alike. Where it is null, and the cluster has GPUs, each peer
    gets as many as it splits its passes among (`data_parallel`).

    Raises:
        StartError: the cluster does not have these GPUs for all peers.
    """
    parts = {name: peer.data_parallel for name, peer in config.peers.items()}
    gpus_by_node = [float(node["Resources"].get("GPU", 0.0)) for node in live_nodes()]
    is_own_matter = config.ray.gpus_per_peer is None and max(gpus_by_node, default=0.0) > 0
    if not is_own_matter or set(parts.values()) == {1}:
        return dict.fromkeys(parts, gpus_per_peer(config.ray, len(parts)))
    _check_room(parts, gpus_by_node)
    return {name: float(number) for name, number in parts.items()}


def _check_room(parts: Mapping[str, int], gpus_by_node: list[float]) -> None:
    """Checks what can be told without Ray, which knows what is taken and packs the peers.

    Raises:
        StartError: the peers can't have these GPUs, however they are packed.
    """
    available, largest = sum(gpus_by_node), max(gpus_by_node)
    for name, number in parts.items():
        if number > largest:
            raise StartError(
                f"peers.{name}.data_parallel={number} needs {number} GPUs on one node, but no node "
                f"of the cluster has more than {largest:g}; lower it"
            )
    if sum(parts.values()) > available:
        told = ", ".join(f"{name} {number}" for name, number in parts.items())
        raise StartError(
            f"the peers need {sum(parts.values())} GPUs ({told}; peers.<name>.data_parallel), but "
            f"the cluster has {available:g}; lower data_parallel, or run fewer peers"
        )


def gpus_per_peer(settings: RayConfig, num_peers: int) -> float:
    """Returns the number of GPUs for each peer, where all have as many.

    A fraction means a share of one GPU. Where `ray.gpus_per_peer` is null and there are fewer GPUs
    than peers, they share them, and a line says so.

    Raises:
        StartError: the cluster does not have these GPUs for all peers.
    """
    gpus_by_node = [float(node["Resources"].get("GPU", 0.0)) for node in live_nodes()]
    available = sum(gpus_by_node)
    share = settings.gpus_per_peer
    if share is None:
        share = 1.0 if available > 0 else 0.0
        if share > 0 and sum(num_fitting(gpus, share) for gpus in gpus_by_node) < num_peers:
            share = _fitting_share(num_peers, available) or share
            logger.warning(
                "%d peers share the %g GPUs of the cluster (ray.gpus_per_peer=%g). Ray does not divide "
                "their memory",
                num_peers,
                available,
                share,
            )
    largest = max(gpus_by_node, default=0.0)
    if largest < share and share * num_peers <= available:
        raise StartError(
            f"a peer needs {share:g} GPUs, but no node of the cluster has more than {largest:g}; "
            f"choose ray.gpus_per_peer={largest:g} or less"
        )
    if share > 0 and sum(num_fitting(gpus, share) for gpus in gpus_by_node) < num_peers:
        raise StartError(
            f"{num_peers} peers need {share:g} GPU each, but the cluster has {available:g}, and a "
            "fraction does not span two; share them by "
            f"ray.gpus_per_peer={_fitting_share(num_peers, available):g}, or run fewer peers"
        )
    return share


def num_fitting(gpus: float, share: float) -> int:
    """Returns how many peers of this share fit on a node; a fraction does not span two GPUs."""
    if share > 1:
        return math.floor(gpus / share)
    return math.floor(gpus) * math.floor(1 / share + _ROUNDING)


def _fitting_share(num_peers: int, available: float) -> float:
    """Returns the largest share, in hundredths, with which all peers fit; 0 without a GPU."""
    if available < 1:
        return 0.0
    peers_per_gpu = math.ceil(num_peers / math.floor(available))
    return math.floor(100 / peers_per_gpu) / 100


def live_nodes() -> list[dict[str, Any]]:
    """Returns Ray's descriptions of the nodes that are alive."""
    return [node for node in ray.nodes() if node["Alive"]]


def room() -> str:
    """Returns a phrase with the CPUs and GPUs of the cluster and those that are free."""
    has = _cpus_and_gpus(ray.cluster_resources())
    free = _cpus_and_gpus(ray.available_resources())
    return f"Ray has {has} on {len(live_nodes())} node(s), of which free: {free}"


def _cpus_and_gpus(resources: dict[str, float]) -> dict[str, float]:
    return {name: amount for name, amount in resources.items() if name in ("CPU", "GPU")}
