"""What is left of the processes that a test started, whatever sessions and names they gave themselves.

On Linux a process can take in the orphans of its descendants. While it does, whoever came of a test is
below the test's own process, and nothing of anybody else's is.
"""

from __future__ import annotations

import ctypes
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.support.run_watch import kill

_SET_CHILD_SUBREAPER = 36
_GET_CHILD_SUBREAPER = 37
_LOOK_EVERY_S = 0.1
_END_WITHIN_S = 20.0


class Started:
    """All processes that came of this one since then."""

    def __init__(self) -> None:
        self._earlier = set(_children(os.getpid(), _parents()))

    def alive(self) -> dict[int, str]:
        """Returns the command line of each that has not ended, by process id."""
        parents = _parents()
        found = [pid for pid in _children(os.getpid(), parents) if pid not in self._earlier]
        for pid in found:  # grows while it is gone through
            found += _children(pid, parents)
        return {pid: _command(pid) for pid in found if parents[pid][1] not in "ZX"}

    def left(self, within_s: float, but: tuple[str, ...] = ()) -> list[str]:
        """Returns who is still there after a while, less those whose command line has one of these words."""
        deadline_s = time.monotonic() + within_s
        while True:
            commands = [
                one for one in self.alive().values() if not any(word in one for word in but)
            ]
            if not commands or time.monotonic() > deadline_s:
                return commands
            time.sleep(_LOOK_EVERY_S)

    def end(self) -> None:
        """Ends all of them at once; fails if one would not end."""
        deadline_s = time.monotonic() + _END_WITHIN_S
        while alive := self.alive():
            assert time.monotonic() < deadline_s, alive
            for pid in alive:
                kill(pid)
            time.sleep(_LOOK_EVERY_S)
        for pid in _children(os.getpid(), _parents()):
            if pid not in self._earlier:
                with suppress(ChildProcessError):
                    os.waitpid(pid, os.WNOHANG)


@contextmanager
def started_here() -> Iterator[Started]:
    """Yields what the block starts; ends at its end what is left of it."""
    libc = ctypes.CDLL(None, use_errno=True)
    before = ctypes.c_int()
    assert libc.prctl(_GET_CHILD_SUBREAPER, ctypes.byref(before), 0, 0, 0) == 0
    assert libc.prctl(_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0
    started = Started()
    try:
        yield started
    finally:
        started.end()
        libc.prctl(_SET_CHILD_SUBREAPER, before.value, 0, 0, 0)


def _parents() -> dict[int, tuple[int, str]]:
    """Returns parent and state of every process."""
    found = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                told = (entry / "stat").read_text(errors="replace")
            except OSError:
                continue  # it has ended
            state, parent = told.rpartition(")")[2].split()[:2]
            found[int(entry.name)] = (int(parent), state)
    return found


def _children(pid: int, parents: dict[int, tuple[int, str]]) -> list[int]:
    return [child for child, (parent, _) in parents.items() if parent == pid]


def _command(pid: int) -> str:
    try:
        told = Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return "has just ended"
    return f"{pid} " + told.decode(errors="replace").replace("\0", " ").strip()
