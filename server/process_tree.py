"""All processes that a piece of code starts, and all that these start: found, and ended.

Flower and Ray start theirs in sessions of their own, and rename some, so neither a process group nor
an environment variable finds them all. On Linux, this process takes in the orphans of its
descendants; then whoever descends from it is its own, and nobody else is. On other systems, only
the processes that are started here by name are ended, and they end theirs.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_KILL_WAIT_S = 10.0
_LOOK_EVERY_S = 0.1
_EMPTY_LOOKS = 3


class OwnProcesses:
    """Starts processes, and knows all that came of them."""

    def __init__(self) -> None:
        self._started: list[subprocess.Popen[bytes]] = []
        self._not_ours: frozenset[int] = frozenset()
        if _is_linux():
            parents, ended = _family(os.getpid())
            self._not_ours = frozenset(_descendants(os.getpid(), parents, frozenset())) | ended

    def start(
        self, command: Sequence[str], environment: Mapping[str, str], output: IO[bytes] | int
    ) -> subprocess.Popen[bytes]:
        """Starts a process in a session of its own, so that Ctrl-C in the terminal does not reach it.

        It is asked to end when this process dies, whatever this dies of.

        Args:
            command: program and arguments.
            environment: all of it.
            output: takes what it writes to standard output and error.
        """
        process = subprocess.Popen(
            command,
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=_end_with_parent if _is_linux() else None,
        )
        self._started.append(process)
        return process

    def alive(self) -> list[int]:
        """Returns the process ids of all that have not ended; collects those that have.

        Until they are collected, they look alive to whoever watches them.
        """
        started = [process.pid for process in self._started if process.poll() is None]
        if not _is_linux():
            return started
        parents, ended = _family(os.getpid())
        for pid in ended - self._not_ours - {process.pid for process in self._started}:
            _collect(pid)
        return _descendants(os.getpid(), parents, without=self._not_ours)

    def children(self, pid: int) -> list[int]:
        """Returns the process ids of the living children of one of them; elsewhere than on Linux, none."""
        if not _is_linux():
            return []
        parents, _ = _family(os.getpid())
        return [child for child, parent in parents.items() if parent == pid]

    def end(self, patience_s: float) -> list[int]:
        """Asks what was started here to end, waits, then kills whatever is left.

        Args:
            patience_s: how long to wait before killing; 0 kills at once.

        Returns:
            The process ids of those that would not die.
        """
        if patience_s > 0:
            for process in self._started:
                if process.poll() is None:
                    process.terminate()
            self._wait_for_all(patience_s)
        return self._wait_for_all(_KILL_WAIT_S, _kill)

    def _wait_for_all(
        self, seconds: float, until_then: Callable[[int], None] | None = None
    ) -> list[int]:
        """Returns who is still alive after so many seconds; `until_then` is done to each meanwhile.

        A single look is not enough: whose parent dies while we look is in nobody's family.
        """
        deadline = time.monotonic() + seconds
        empty_looks = 0
        alive: list[int] = []
        while empty_looks < _EMPTY_LOOKS and time.monotonic() < deadline:
            alive = self.alive()
            empty_looks = 0 if alive else empty_looks + 1
            for pid in alive:
                if until_then is not None:
                    until_then(pid)
            time.sleep(_LOOK_EVERY_S)
        return alive


@contextmanager
def own_processes() -> Iterator[OwnProcesses]:
    """Takes in the orphans of all descendants while the block runs; ends nothing by itself."""
    if _is_linux():
        _prctl(_PR_SET_CHILD_SUBREAPER, 1)
    try:
        yield OwnProcesses()
    finally:
        if _is_linux():
            _prctl(_PR_SET_CHILD_SUBREAPER, 0)


def _is_linux() -> bool:
    return sys.platform == "linux"


def _prctl(option: int, value: int) -> None:
    if ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), f"prctl({option}) failed")


def _end_with_parent() -> None:
    _prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def _kill(pid: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def _collect(pid: int) -> None:
    with suppress(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)


def _family(of: int) -> tuple[dict[int, int], set[int]]:
    """Returns the parent of every process, and the children of `of` that have ended uncollected."""
    parents: dict[int, int] = {}
    ended = set()
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit():
            continue
        try:
            status = (folder / "stat").read_text(errors="replace")
        except OSError:  # it ended while we looked
            continue
        state, parent = status.rpartition(")")[2].split()[:2]
        if state not in "ZX":
            parents[int(folder.name)] = int(parent)
        elif int(parent) == of:
            ended.add(int(folder.name))
    return parents, ended


def _descendants(of: int, parents: Mapping[int, int], without: frozenset[int]) -> list[int]:
    found = [pid for pid, parent in parents.items() if parent == of and pid not in without]
    for one in found:  # grows while it is gone through: breadth first
        found += [pid for pid, parent in parents.items() if parent == one]
    return found
