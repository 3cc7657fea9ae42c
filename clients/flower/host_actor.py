"""The Ray actor that hosts a peer in Flower's simulation, driven by messages.

Torch takes seconds to import, so a thread does that. The actor answers as soon as Ray has placed
it, so that a caller can tell a peer without a GPU from one that is only starting.
"""

from __future__ import annotations

import os
import threading
import time
from typing import TYPE_CHECKING

import ray

if TYPE_CHECKING:
    from clients.flower.peer_host import PeerHost

_POLL_S = 1.0


class HostActor:
    """One peer that is driven by messages and outlives them.

    It is detached, so no other process ends it. If no message comes for `lease_s` seconds, it lets
    the peer save itself and ends its process, so that its GPU is free again.
    """

    def __init__(self, lease_s: float) -> None:
        """Starts to load what a peer needs, and to watch the lease; both in threads."""
        self._lease_s = lease_s
        self._asked_at_s = time.monotonic()
        self._host: PeerHost | None = None
        self._trouble: str | None = None
        for work in (self._get_ready, self._watch):
            threading.Thread(target=work, name=work.__name__, daemon=True).start()

    def handle(self, body: bytes) -> bytes:
        """Returns the reply of `PeerHost.handle`; empty while this process is not ready for a peer.

        Raises:
            RuntimeError: the peer's code can't be loaded here.
        """
        self._asked_at_s = time.monotonic()
        if self._trouble is not None:
            raise RuntimeError(f"a peer can't live here: {self._trouble}")
        return b"" if self._host is None else self._host.handle(body)

    def _get_ready(self) -> None:
        gpus = os.environ.get("CUDA_VISIBLE_DEVICES", "")
        node_id = ray.get_runtime_context().get_node_id()[:8]
        where = f"Ray node {node_id} process {os.getpid()} GPU {gpus or 'none'}"
        try:
            from clients.flower.peer_host import PeerHost

            self._host = PeerHost(where)
        except Exception as error:  # in a thread, no caller would see it
            self._trouble = f"{type(error).__name__}: {error}"

    def _watch(self) -> None:
        """Ends the process when its lease has run out."""
        while time.monotonic() - self._asked_at_s < self._lease_s:
            time.sleep(_POLL_S)
        if self._host is not None:
            self._host.close()
        os._exit(0)  # from a thread, `sys.exit` would end only the thread and keep the GPU
