"""The Ray actors that host one peer each, on the GPU that Ray gave them."""

from __future__ import annotations

import os
import threading
import time

import ray

from clients.assignment import Assignment
from clients.peer_host import PeerHost
from clients.peer_main import Ending, run_assignment

NAMESPACE = "dogo-fed"
"""Of all our actors; given explicitly, since Ray's default differs from process to process."""

_LEASE_LOOKS_S = 1.0


class PeerActor:
    """One peer. Its process is the peer's process; killing it is all it takes to lose the peer."""

    def where(self) -> dict[str, str]:
        """Returns Ray's id of the node, process id and the GPUs that this process may see."""
        return {
            "node_id": ray.get_runtime_context().get_node_id(),
            "pid": str(os.getpid()),
            "cuda_visible_devices": os.environ.get("CUDA_VISIBLE_DEVICES", ""),
        }

    def run(self, assignment_json: str) -> tuple[int, str]:
        """Runs the peer to its end; returns the value of its `Outcome` and a sentence."""
        ending: Ending = run_assignment(Assignment.from_json(assignment_json))
        return ending.outcome.value, ending.message


class HostActor:
    """One peer that is driven by messages and outlives them.

    It is detached, so nobody but its messages keeps it: when none comes for `lease_s` seconds, it
    lets the peer save itself and ends its process, and its GPU is free for others.
    """

    def __init__(self, lease_s: float) -> None:
        self._lease_s = lease_s
        self._asked_at_s = time.monotonic()
        gpus = os.environ.get("CUDA_VISIBLE_DEVICES", "")
        node_id = ray.get_runtime_context().get_node_id()[:8]
        self._host = PeerHost(f"Ray node {node_id} process {os.getpid()} GPU {gpus or 'none'}")
        threading.Thread(target=self._watch, name="lease", daemon=True).start()

    def handle(self, body: bytes) -> bytes:
        """See `PeerHost.handle`."""
        self._asked_at_s = time.monotonic()
        return self._host.handle(body)

    def _watch(self) -> None:
        while time.monotonic() - self._asked_at_s < self._lease_s:
            time.sleep(_LEASE_LOOKS_S)
        self._host.close()
        os._exit(0)
