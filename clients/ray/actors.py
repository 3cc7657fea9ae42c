"""The Ray actor that a peer lives in, on the GPU that Ray gave it (host=ray).

What takes seconds to import (torch) is imported when it is needed: an actor answers as soon as Ray has
given it its place.
"""

from __future__ import annotations

import os

import ray

NAMESPACE = "dogo-fed"
"""Of all our actors; given explicitly, since Ray's default differs from process to process."""


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
        from clients.peer.run import run_assignment
        from dogo_fed.assignment import Assignment

        ending = run_assignment(Assignment.from_json(assignment_json))
        return ending.outcome.value, ending.message
