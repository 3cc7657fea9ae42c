"""What is left of the processes that a test started, whatever sessions and names they gave themselves.

On Linux a process can take in the orphans of its descendants. While it does, whoever came of a test is
below the test's own process, and nothing of anybody else's is.
"""

from __future__ import annotations

import ctypes
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import psutil

from tests.support.run_watch import is_alive, kill

_SET_CHILD_SUBREAPER = 36
_GET_CHILD_SUBREAPER = 37
_POLL_S = 0.1
_END_WITHIN_S = 20.0


class Started:
    """All processes that came of this one since then."""

    def __init__(self) -> None:
        self._earlier = set(psutil.Process().children())

    def _children(self) -> set[psutil.Process]:
        return set(psutil.Process().children()) - self._earlier

    def alive(self) -> dict[int, str]:
        """Returns the command line of each that has not ended, by process id."""
        found = self._look()
        if not found:
            # Whoever's parent ends during a look is seen neither below it nor below this process.
            time.sleep(_POLL_S)
            found = self._look()
        return found

    def _look(self) -> dict[int, str]:
        found = []
        for child in self._children():
            with suppress(psutil.NoSuchProcess):
                found += [child, *child.children(recursive=True)]
        return {one.pid: _command(one) for one in found if is_alive(one.pid)}

    def left(self, within_s: float, but: tuple[str, ...] = ()) -> list[str]:
        """Returns who is still there after a while, less those whose command line has one of these words."""
        deadline_s = time.monotonic() + within_s
        while True:
            commands = [
                one for one in self.alive().values() if not any(word in one for word in but)
            ]
            if not commands or time.monotonic() > deadline_s:
                return commands
            time.sleep(_POLL_S)

    def end(self) -> None:
        """Ends all of them at once; fails if one would not end."""
        deadline_s = time.monotonic() + _END_WITHIN_S
        while alive := self.alive():
            assert time.monotonic() < deadline_s, alive
            for pid in alive:
                kill(pid)
            time.sleep(_POLL_S)
        psutil.wait_procs(self._children(), timeout=0)


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


def _command(process: psutil.Process) -> str:
    try:
        return f"{process.pid} {' '.join(process.cmdline())}"
    except psutil.Error:
        return "has just ended"
