"""Host "processes": one process per peer on this machine."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time

from dogo_fed.assignment import Assignment
from dogo_fed.contracts import Ending, Outcome, PeerId
from dogo_fed.errors import PlacementError
from dogo_fed.process_setup import thread_environment

_KILL_WAIT_S = 10.0


class ProcessHandle:
    """A peer's process. It has a session of its own, so Ctrl-C in the terminal does not reach it."""

    def __init__(self, assignment: Assignment, threads: int) -> None:
        environment = {**os.environ, **thread_environment(threads)}
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "clients"],
                stdin=subprocess.PIPE,
                stderr=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                env=environment,
                start_new_session=True,
            )
        except OSError as error:
            raise PlacementError(f"no process for peer {assignment.peer}: {error}") from error
        self._errors: list[bytes] = []
        self._reader = threading.Thread(target=self._read_errors, daemon=True)
        self._reader.start()
        assert self._process.stdin is not None, "the process was given a pipe"
        try:
            self._process.stdin.write(assignment.to_json().encode())
            self._process.stdin.close()
        except BrokenPipeError:
            pass  # it died at once; `ending` tells
        self.pid = self._process.pid

    def where(self) -> str:
        """Returns the process id."""
        return f"process {self.pid} on this machine"

    def ending(self) -> Ending | str | None:
        """Returns how it ended, a sentence if it died, or None while it runs."""
        status = self._process.poll()
        if status is None:
            return None
        self._reader.join(timeout=_KILL_WAIT_S)
        message = b"".join(self._errors).decode(errors="replace").strip()
        if status in {outcome.value for outcome in Outcome}:
            return Ending(Outcome(status), message)
        how = f"died of {signal.Signals(-status).name}" if status < 0 else f"exited with {status}"
        last_line = message.splitlines()[-1] if message else ""
        return f"{how} ({last_line})" if last_line else how

    def kill(self) -> None:
        """Ends the process at once; a second call does nothing."""
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait(timeout=_KILL_WAIT_S)
        self._reader.join(timeout=_KILL_WAIT_S)
        if self._process.stderr is not None:
            self._process.stderr.close()

    def _read_errors(self) -> None:
        assert self._process.stderr is not None, "the process was given a pipe"
        for line in self._process.stderr:
            self._errors = [*self._errors[-50:], line]


class ProcessLauncher:
    """Starts peers as processes of this machine; they reach the coordinator over loopback."""

    def __init__(self, threads_per_peer: int) -> None:
        self._threads_per_peer = threads_per_peer

    def listen_address(self) -> str:
        """Returns the loopback address: nobody else has business here."""
        return "127.0.0.1"

    def start(self, peer: PeerId, number: int, assignment: Assignment) -> ProcessHandle:
        """Starts a process for `peer`."""
        return ProcessHandle(assignment, self._threads_per_peer)

    def wait(self, seconds: float) -> None:
        """Lets time pass; the processes need nothing of this one."""
        time.sleep(seconds)
