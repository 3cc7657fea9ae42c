"""A site's worker that has no peer: it replies with its process id and what it was sent.

It notes what happens to it in the file that DOGO_TEST_NOTES names.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from clients.flower.site.worker import run_worker


class EchoHost:
    """Stands in for `clients.flower.peer_host.PeerHost`."""

    def handle(self, body: bytes) -> bytes:
        if body == b"die":
            os._exit(7)
        if body == b"fail":
            raise ValueError("told to fail")
        return f"{os.getpid()} ".encode() + body

    def close(self) -> None:
        notes = Path(os.environ["DOGO_TEST_NOTES"])
        notes.write_text(f"closed {os.getpid()}")


if __name__ == "__main__":
    sys.exit(run_worker(sys.argv[1:], lambda options: EchoHost()))
