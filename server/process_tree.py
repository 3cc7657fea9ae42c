"""All processes that a piece of code starts, and all that these start: found, and ended.

Flower and Ray start theirs in sessions of their own and rename some, so neither a process group nor
an environment variable finds them all. On Linux, this process adopts the orphans of its descendants,
so that every process which came of it stays below it. Elsewhere orphans are lost.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import IO

import psutil

from server.child_process import prctl, start_process

_PR_SET_CHILD_SUBREAPER = 36
_KILL_WAIT_S = 10.0
_POLL_S = 0.1
_EMPTY_LOOKS = 3


class ProcessTree:
    """Starts processes, and knows all that came of them."""

    def __init__(self) -> None:
        self._started: list[subprocess.Popen[bytes]] = []
        self._not_ours = psutil.Process().children(recursive=True)

    def start(
        self, command: Sequence[str], environment: Mapping[str, str], output: IO[bytes] | int
    ) -> subprocess.Popen[bytes]:
        """Starts a process that ends with this one; see `child_process.start_process`.

        Args:
            command: program and arguments.
            environment: all of it.
            output: takes what it writes to standard output and error.
        """
        process = start_process(command, environment, output, ends_with_parent=True)
        self._started.append(process)
        return process

    def alive(self) -> list[psutil.Process]:
        """Returns all that have not ended; collects those that have.

        Until they are collected, they look alive to whoever watches them.
        """
        started = {process.pid for process in self._started}
        for process in self._started:
            process.poll()  # collects it, and keeps its exit status
        found = set(psutil.Process().children(recursive=True)).difference(self._not_ours)
        for other in self._not_ours:
            with suppress(psutil.NoSuchProcess):
                found.difference_update(other.children(recursive=True))
        living = {process for process in found if _is_alive(process)}
        ended = [process for process in found - living if process.pid not in started]
        psutil.wait_procs(ended, timeout=0)
        return list(living)

    def children(self, pid: int) -> list[psutil.Process]:
        """Returns the living children of a process; none if it has ended."""
        try:
            return [child for child in psutil.Process(pid).children() if _is_alive(child)]
        except psutil.NoSuchProcess:
            return []

    def end(self, patience_s: float) -> list[psutil.Process]:
        """Asks what was started here to end, waits, then kills whatever is left.

        Args:
            patience_s: how long to wait before killing; 0 kills at once.

        Returns:
            Those that would not die.
        """
        if patience_s > 0:
            for process in self._started:
                if process.poll() is None:
                    process.terminate()
            self._wait_for_all(patience_s)
        return self._wait_for_all(_KILL_WAIT_S, psutil.Process.kill)

    def _wait_for_all(
        self, seconds: float, until_then: Callable[[psutil.Process], None] | None = None
    ) -> list[psutil.Process]:
        """Returns who is still alive after so many seconds; `until_then` is done to each meanwhile.

        One empty look is not enough: a process whose parent ends during the look is missed.
        """
        deadline_s = time.monotonic() + seconds
        empty_looks = 0
        alive: list[psutil.Process] = []
        while empty_looks < _EMPTY_LOOKS and time.monotonic() < deadline_s:
            alive = self.alive()
            empty_looks = 0 if alive else empty_looks + 1
            for process in alive:
                if until_then is not None:
                    with suppress(psutil.NoSuchProcess):
                        until_then(process)
            time.sleep(_POLL_S)
        return alive


@contextmanager
def process_tree() -> Iterator[ProcessTree]:
    """Adopts the orphans of all descendants while the block runs; ends nothing by itself."""
    if _is_linux():
        prctl(_PR_SET_CHILD_SUBREAPER, 1)
    try:
        yield ProcessTree()
    finally:
        if _is_linux():
            prctl(_PR_SET_CHILD_SUBREAPER, 0)


def _is_alive(process: psutil.Process) -> bool:
    try:
        return process.status() not in (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD)
    except psutil.NoSuchProcess:
        return False


def _is_linux() -> bool:
    return sys.platform == "linux"
