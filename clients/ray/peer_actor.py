"""The Ray actor of a peer, on the GPU that Ray gave it (host=ray).

Torch takes seconds to import, so it is imported only when the peer is run: an actor answers as soon
as Ray has placed it.
"""

from __future__ import annotations

import os

import ray

NAMESPACE = "dogo-fed"
"""Ray's namespace for all our actors; Ray's default would differ from process to process."""


class PeerActor:
    """One peer. The actor's process is the peer's process, so killing the actor ends the peer."""

    def where(self) -> dict[str, str]:
        """Returns the node's Ray id, the process id and the GPUs that this process may see."""
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
