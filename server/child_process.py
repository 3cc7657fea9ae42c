"""A process that is started here, in a session of its own, with its output in a file."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

from dogo_fed.text import one_line

_PR_SET_PDEATHSIG = 1
_KILL_WAIT_S = 10.0
_MOST_READ = 256 * 1024
_LONGEST_LINE = 500


def start_process(
    command: Sequence[str],
    environment: Mapping[str, str],
    output: IO[bytes] | int,
    *,
    given: IO[bytes] | int = subprocess.DEVNULL,
    ends_with_parent: bool,
) -> subprocess.Popen[bytes]:
    """Starts a process in a session of its own, so that Ctrl-C in the terminal does not reach it.

    Args:
        command: program and arguments.
        environment: its whole environment.
        output: takes its standard output and standard error.
        given: its standard input.
        ends_with_parent: whether the kernel sends it SIGTERM when this process dies, however that
            happens. Only on Linux.
    """
    is_linux = sys.platform == "linux"
    return subprocess.Popen(
        command,
        env=dict(environment),
        stdin=given,
        stdout=output,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        preexec_fn=_end_with_parent if ends_with_parent and is_linux else None,
    )


class ChildProcess:
    """A process that was started here, with the file that takes its output."""

    def __init__(self, process: subprocess.Popen[bytes], output: Path | IO[bytes]) -> None:
        self._process = process
        self._output = output
        self.pid = process.pid

    def status(self) -> int | None:
        """Returns its exit status, negative for a signal; None while it runs."""
        return self._process.poll()

    def said(self) -> str:
        """Returns the end of its output so far, which may be far longer.

        It is empty if the file can't be read or `kill` has closed it.
        """
        try:
            if isinstance(self._output, Path):
                with self._output.open("rb") as file:
                    content = _end_of(file)
            else:
                content = _end_of(self._output)
        except (OSError, ValueError):
            return ""
        return content.decode(errors="replace").strip()

    def last_line(self) -> str:
        """Returns the last line of its output that is not empty, or an empty text."""
        lines = (line.strip() for line in reversed(self.said().splitlines()))
        return one_line(next((line for line in lines if line), ""), _LONGEST_LINE)

    def terminate(self) -> None:
        """Asks it to end."""
        if self._process.poll() is None:
            self._process.terminate()

    def kill(self) -> None:
        """Kills it and waits for its end; a second call does nothing."""
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait(timeout=_KILL_WAIT_S)
        if not isinstance(self._output, Path):
            self._output.close()


def _end_of(file: IO[bytes]) -> bytes:
    """Returns the end of a file. Moves no position in it: the process may share it, and still write."""
    number = file.fileno()
    start = max(0, os.fstat(number).st_size - _MOST_READ)
    return os.pread(number, _MOST_READ, start)


def how_it_ended(status: int) -> str:
    """Returns an exit status in words."""
    return f"died of {signal.Signals(-status).name}" if status < 0 else f"exited with {status}"


def prctl(option: int, value: int) -> None:
    """Sets an attribute of this process, on Linux.

    Raises:
        OSError: the kernel does not know it.
    """
    if ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), f"prctl({option}) failed")


def _end_with_parent() -> None:
    prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
