"""Which checkpoints of a run a site has and can read.

To know that, each is read in full once. That may take longer than a message waits, so what was found
out is remembered, and the next message goes on from there.
"""

from __future__ import annotations

import threading
import time
from pathlib import Path

from dogo_fed.storage.checkpoint import CheckpointStore
from dogo_fed.storage.going_on import FarCheckpoints


class KeptCheckpoints:
    """What a process knows of checkpoints. Several threads may ask."""

    def __init__(self) -> None:
        self._lock = threading.Lock()  # else two messages would read the same files at once
        self._is_readable: dict[tuple[Path, int, int], bool] = {}

    def look(self, store: CheckpointStore, until_s: float) -> FarCheckpoints | None:
        """Returns the steps whose checkpoints can be read, and those whose can't, in ascending order.

        Args:
            store: the checkpoints of a peer.
            until_s: when to give up, by `time.monotonic`; one more of them is looked at in any case.

        Returns:
            None if that was not enough time; asking again goes on from there.
        """
        if not self._lock.acquire(timeout=max(0.0, until_s - time.monotonic())):
            return None
        try:
            readable: list[int] = []
            broken: list[int] = []
            is_late = False
            for step in store.steps():
                key = _as_it_is(store.folder / f"step-{step:09d}.pt")
                if key is None:
                    continue
                if key not in self._is_readable:
                    if is_late:
                        return None
                    self._is_readable[key] = store.problem_with(step) is None
                    is_late = time.monotonic() > until_s
                (readable if self._is_readable[key] else broken).append(step)
            return FarCheckpoints(tuple(readable), tuple(broken))
        finally:
            self._lock.release()


def _as_it_is(path: Path) -> tuple[Path, int, int] | None:
    """Returns what changes when a file does: path, size and time; None if it has just gone."""
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    return path, status.st_size, status.st_mtime_ns
