"""Host "ray": one actor per peer, in a placement group, on a local Ray or a running cluster."""

from __future__ import annotations

import logging
import math
import os
import signal
import socket
import threading
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import grpc
import ray
from ray.exceptions import GetTimeoutError, RayActorError, RayError
from ray.util.placement_group import PlacementGroup, placement_group, remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from clients.ray.authentication import own_token, read_environment
from clients.ray.failures import cause_of, death_of, has_traceback
from clients.ray.peer_actor import NAMESPACE, PeerActor
from clients.ray.room import live_nodes, num_gpus_of_peers, room
from dogo_fed.assignment import Assignment
from dogo_fed.config import RayConfig, RunConfig
from dogo_fed.contracts import Ending, Outcome, PeerId
from dogo_fed.errors import StartError
from dogo_fed.process_setup import thread_environment
from dogo_fed.run.stop_signal import hangups_are_ours

logger = logging.getLogger(__name__)

_ACTOR_START_S = 120.0
_PROBE_S = 10.0
_NODE_ID_SHOWN = 8
_FIRST_CALL = "/ray.rpc.NodeInfoGcsService/GetClusterId"  # of everybody who joins


@contextmanager
def ray_cluster(settings: RayConfig, num_peers: int) -> Iterator[None]:
    """Joins the cluster at `settings.address`, or starts a local one; leaves or ends it at the end.

    A local one has a token of its own, so that nobody else can use it. A warning tells of a cluster
    that asks nobody for a token.

    Raises:
        StartError: there is no cluster at this address, no local one can be started, or this
            process uses a Ray already.
    """
    if ray.is_initialized():
        raise StartError(
            "this process uses a Ray already, which may be open to others and would end with the "
            "run; call ray.shutdown() first"
        )
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    own = settings.address is None
    options: dict[str, Any] = {"address": "local" if own else settings.address}
    if own:
        cpus = max(os.cpu_count() or 1, math.ceil(settings.cpus_per_peer * num_peers))
        options |= {"num_cpus": cpus, "include_dashboard": False}
    with own_token() if own else nullcontext():
        try:
            if settings.address is not None:
                read_environment()  # it may say more of the cluster's token than at our import
                _probe(settings.address)
            with warnings.catch_warnings():
                # The tip is about actors without GPUs, which may see all of them in a later Ray.
                warnings.filterwarnings("ignore", message="Tip: In future versions of Ray")
                with _keep_sigterm(), hangups_are_ours():
                    ray.init(
                        namespace=NAMESPACE, log_to_driver=False, configure_logging=False, **options
                    )
        except Exception as error:  # ray.init fails in many ways
            what = (
                "a Ray can't be started"
                if own
                else f"no Ray cluster at ray.address={settings.address}"
            )
            raise StartError(f"{what}: {cause_of(error)}") from error
        try:
            if not own:
                warn_if_open()
            elif _is_open(ray.get_runtime_context().gcs_address):
                raise StartError("this Ray takes calls without its token, so it is not used")
            yield
        finally:
            ray.shutdown()


class RayHandle:
    """A peer's actor."""

    def __init__(self, peer: PeerId, actor: Any, assignment: Assignment) -> None:
        """Waits until the actor has started, and starts the peer in it.

        Raises:
            StartError: the actor did not start.
        """
        self._actor = actor
        try:
            self._where = ray.get(actor.where.remote(), timeout=_ACTOR_START_S)
        except GetTimeoutError as error:
            ray.kill(actor)
            raise StartError(
                f"the actor of peer {peer} did not start within {_ACTOR_START_S:g} s"
            ) from error
        except RayError as error:
            raise StartError(
                f"the actor of peer {peer} can't be started: {cause_of(error)}"
            ) from error
        self._run = actor.run.remote(assignment.to_json())  # a future; `ending` polls it

    def where(self) -> str:
        """Returns the node's address and Ray id, the process id and the GPUs, for people."""
        node_id, gpus = self._where["node_id"], self._where["cuda_visible_devices"]
        return (
            f"node {_address_of(node_id)} ({node_id[:_NODE_ID_SHOWN]}) "
            f"process {self._where['pid']} GPU {gpus or 'none'}"
        )

    def ending(self) -> Ending | str | None:
        """Returns how it ended, a sentence if it died, or None while it runs."""
        ready, _ = ray.wait([self._run], timeout=0)
        if not ready:
            return None
        try:
            # The result is ready, but `get` may have to fetch it from a node that does not answer.
            value, message = ray.get(ready[0], timeout=_ACTOR_START_S)
        except RayActorError as error:
            if has_traceback(error):
                return f"failed: {cause_of(error)}"
            why = death_of(error)
            gone = f"died (its actor's process {self._where['pid']} is gone)"
            return f"{gone}. Ray says: {why}" if why else gone
        except RayError as error:
            return f"failed: {cause_of(error)}"
        return Ending(Outcome(value), message)

    def kill(self) -> None:
        """Kills the actor; a second call does nothing."""
        ray.kill(self._actor, no_restart=True)


class RayLauncher:
    """Starts peers as actors, each in its own bundle of one placement group."""

    def __init__(self, config: RunConfig, peers: tuple[PeerId, ...], run_id: str) -> None:
        """Reserves room for all peers.

        Args:
            config: the run's settings.
            peers: its peers; the first bundle is for the first of them.
            run_id: the run's name.

        Raises:
            StartError: the cluster has no room; the message says what is missing.
        """
        self._settings = config.ray
        self._peers = peers
        self._run_id = run_id
        self._threads_per_peer = config.threads_per_peer
        self._gpus = num_gpus_of_peers(config)
        self._group = self._reserve()

    def listen_address(self) -> str:
        """Returns loopback if the cluster has only this node, else this node's address."""
        return address_for_peers()

    def start(self, peer: PeerId, number: int, assignment: Assignment) -> RayHandle:
        """Starts an actor for `peer` in its bundle."""
        actor = (
            ray.remote(PeerActor)
            .options(
                name=f"{self._run_id}/{peer}/{number}",
                namespace=NAMESPACE,
                num_cpus=self._settings.cpus_per_peer,
                num_gpus=self._gpus[peer],
                max_restarts=0,  # the supervisor decides about a new start, with another assignment
                scheduling_strategy=PlacementGroupSchedulingStrategy(
                    placement_group=self._group,
                    placement_group_bundle_index=self._peers.index(peer),
                ),
                runtime_env={"env_vars": thread_environment(self._threads_per_peer)},
            )
            .remote()
        )
        return RayHandle(peer, actor, assignment)

    def wait(self, seconds: float) -> None:
        """Sleeps; the actors need nothing of this process meanwhile."""
        time.sleep(seconds)

    def release(self) -> None:
        """Removes the placement group."""
        remove_placement_group(self._group)

    def _reserve(self) -> PlacementGroup:
        bundles = bundles_of(
            self._settings.cpus_per_peer, [self._gpus[peer] for peer in self._peers]
        )
        group = placement_group(bundles, strategy=self._settings.placement.value)
        if not group.wait(timeout_seconds=self._settings.placement_timeout_s):
            remove_placement_group(group)
            is_same = all(bundle == bundles[0] for bundle in bundles)
            wanted = f"{bundles[0]} each" if is_same else ", ".join(map(str, bundles))
            raise StartError(
                f"Ray has no room for {len(self._peers)} peers of {wanted}, placement "
                f"{self._settings.placement.value} after {self._settings.placement_timeout_s:g} s; "
                f"{room()}. Lower ray.cpus_per_peer or ray.gpus_per_peer, or choose another "
                "ray.placement"
            )
        return group


def bundles_of(cpus: float, gpus: Sequence[float]) -> list[dict[str, float]]:
    """Returns what Ray is to reserve for each peer; Ray takes no bundle that is empty."""
    bundles = [{"CPU": cpus, "GPU": number} for number in gpus]
    wanted = [{name: amount for name, amount in bundle.items() if amount > 0} for bundle in bundles]
    return [bundle or {"CPU": 0.001} for bundle in wanted]


@contextmanager
def _keep_sigterm() -> Iterator[None]:
    """Restores the handler of SIGTERM, which `ray.init` replaces by one that ends the process."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    earlier = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, earlier)


def _probe(address: str) -> None:
    """Checks that a gRPC server answers; without one `ray.init` would try for twelve minutes.

    Raises:
        ValueError: this is not an address, or one of Ray Client.
        OSError: nothing answers there, or not a gRPC server, or it asks for a token.
    """
    from ray._private.services import canonicalize_bootstrap_address  # what "auto" stands for

    if "://" in address:
        raise ValueError(
            "Ray Client is not supported, because peers have to reach the coordinator in this "
            "process: submit a job instead (docs/ray.md)"
        )
    found = str(canonicalize_bootstrap_address(address))
    host, _, port = found.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_PROBE_S).close()
    except OSError as error:
        raise ConnectionError(f"nothing answers at {found} ({error})") from error
    if os.environ.get("RAY_USE_TLS", "0") != "0":
        return  # the check would need the cluster's certificates
    with _channel(found) as channel:
        try:
            grpc.channel_ready_future(channel).result(timeout=_PROBE_S)
        except grpc.FutureTimeoutError as error:
            raise ConnectionError(
                f"what answers at {found} is not Ray's GCS; its port is 6379 unless `ray start` "
                "was told otherwise (8265 is the dashboard's, 10001 Ray Client's)"
            ) from error
        told = _told_without_token(channel)
        is_without = os.environ.get("RAY_AUTH_MODE", "disabled") == "disabled"
        if is_without and told is grpc.StatusCode.UNAUTHENTICATED:
            raise PermissionError(
                "it asks for a token: set RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN or "
                "RAY_AUTH_TOKEN_PATH unless the token is in ~/.ray/auth_token"
            )


def warn_if_open() -> None:
    """Warns if the cluster that this process has joined asks nobody for a token."""
    address = ray.get_runtime_context().gcs_address
    if _is_open(address):
        logger.warning(
            "the Ray cluster at %s asks for no token: whoever reaches its ports can run code as its "
            "user and read this run's secret. Start it with RAY_AUTH_MODE=token (docs/ray.md)",
            address,
        )


def _is_open(address: str) -> bool:
    """Whether the GCS at this address is known to answer callers without a token."""
    if os.environ.get("RAY_USE_TLS", "0") != "0":
        return False  # callers need a certificate of the cluster's
    with _channel(address) as channel:
        return _told_without_token(channel) is grpc.StatusCode.OK


def _told_without_token(channel: grpc.Channel) -> grpc.StatusCode:
    """Returns how Ray's GCS answers the first call of whoever joins, without a token."""
    try:
        channel.unary_unary(_FIRST_CALL)(b"", timeout=_PROBE_S)  # an empty message
    except grpc.RpcError as error:
        return error.code()
    return grpc.StatusCode.OK


def _channel(address: str) -> grpc.Channel:
    return grpc.insecure_channel(address, options=[("grpc.enable_http_proxy", 0)])


def address_for_peers() -> str:
    """Returns loopback if the cluster has only this node, else this node's address."""
    mine = _address_of(ray.get_runtime_context().get_node_id())
    is_alone = {node["NodeManagerAddress"] for node in live_nodes()} <= {mine}
    return "127.0.0.1" if is_alone else mine


def _address_of(node_id: str) -> str:
    """Returns the address by which the cluster knows a node."""
    for node in ray.nodes():
        if node["NodeID"] == node_id:
            return str(node["NodeManagerAddress"])
    return str(ray.util.get_node_ip_address())
