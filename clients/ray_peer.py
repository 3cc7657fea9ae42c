"""The Ray actor that hosts one peer, on the GPU that Ray gave it."""

from __future__ import annotations

import os

import ray

from clients.assignment import Assignment
from clients.peer_main import Ending, run_assignment


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
