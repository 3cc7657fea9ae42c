"""Host "processes": one process per peer on this machine."""

from __future__ import annotations

import os
import sys
import tempfile
import time

from dogo_fed.assignment import Assignment
from dogo_fed.contracts import Ending, Outcome, PeerId
from dogo_fed.errors import StartError
from dogo_fed.process_setup import thread_environment
from server.child_process import ChildProcess, how_it_ended, start_process


class ProcessHandle:
    """A peer's process. If this process dies, the peer lives on and saves itself.

    It then ends as `Outcome.CUT_OFF`.
    """

    def __init__(self, assignment: Assignment, threads: int) -> None:
        """Starts the process.

        Raises:
            StartError: the operating system does not start another process.
        """
        # Thread counts go into the environment: the libraries read them when they are loaded.
        environment = {**os.environ, **thread_environment(threads)}
        output = tempfile.TemporaryFile()  # noqa: SIM115 - read when the process has ended
        try:
            # A file and not a pipe: writing to a pipe could wait for a process that does not read.
            with tempfile.TemporaryFile() as given:
                given.write(assignment.to_json().encode())
                given.seek(0)
                command = [sys.executable, "-m", "clients"]
                process = start_process(
                    command, environment, output, given=given, ends_with_parent=False
                )
        except OSError as error:
            raise StartError(f"no process for peer {assignment.peer}: {error}") from error
        self._process = ChildProcess(process, output)
        self.pid = process.pid

    def where(self) -> str:
        """Returns the process id, for people."""
        return f"process {self.pid} on this machine"

    def ending(self) -> Ending | str | None:
        """Returns how it ended, a sentence if it died, or None while it runs."""
        status = self._process.status()
        if status is None:
            return None
        if status in {outcome.value for outcome in Outcome}:
            return Ending(Outcome(status), self._process.said())
        last_line = self._process.last_line()
        return f"{how_it_ended(status)} ({last_line})" if last_line else how_it_ended(status)

    def kill(self) -> None:
        """Kills the process; a second call does nothing."""
        self._process.kill()


class ProcessLauncher:
    """Starts peers as processes of this machine; they reach the coordinator over loopback."""

    def __init__(self, threads_per_peer: int) -> None:
        self._threads_per_peer = threads_per_peer

    def listen_address(self) -> str:
        """Returns the loopback address, since all peers are on this machine."""
        return "127.0.0.1"

    def start(self, peer: PeerId, number: int, assignment: Assignment) -> ProcessHandle:
        """Starts a process for `peer`."""
        return ProcessHandle(assignment, self._threads_per_peer)

    def wait(self, seconds: float) -> None:
        """Sleeps; the processes need nothing of this one meanwhile."""
        time.sleep(seconds)
