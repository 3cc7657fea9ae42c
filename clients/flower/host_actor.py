"""The Ray actor that hosts a peer in Flower's simulation, driven by messages.

What takes seconds to import (torch) is imported when it is needed: an actor answers as soon as Ray has
given it its place, so that whoever asks can tell a peer without room from one that is only starting.
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

    It is detached, so nobody but its messages keeps it: when none comes for `lease_s` seconds, it
    lets the peer save itself and ends its process, and its GPU is free for others.
    """

    def __init__(self, lease_s: float) -> None:
        self._lease_s = lease_s
        self._asked_at_s = time.monotonic()
        self._host: PeerHost | None = None
        self._why_not: str | None = None
        for work in (self._get_ready, self._watch):
            threading.Thread(target=work, name=work.__name__, daemon=True).start()

    def handle(self, body: bytes) -> bytes:
        """See `PeerHost.handle`; while this process is not ready for a peer, the answer is empty.

        Raises:
            RuntimeError: it will never be ready.
        """
        self._asked_at_s = time.monotonic()
        if self._why_not is not None:
            raise RuntimeError(f"a peer can't live here: {self._why_not}")
        return b"" if self._host is None else self._host.handle(body)

    def _get_ready(self) -> None:
        gpus = os.environ.get("CUDA_VISIBLE_DEVICES", "")
        node_id = ray.get_runtime_context().get_node_id()[:8]
        where = f"Ray node {node_id} process {os.getpid()} GPU {gpus or 'none'}"
        try:
            from clients.flower.peer_host import PeerHost

            self._host = PeerHost(where)
        except Exception as error:  # nobody else would hear of it
            self._why_not = f"{type(error).__name__}: {error}"

    def _watch(self) -> None:
        while time.monotonic() - self._asked_at_s < self._lease_s:
            time.sleep(_POLL_S)
        if self._host is not None:
            self._host.close()
        os._exit(0)
