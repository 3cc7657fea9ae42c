"""Host "processes": one process per peer on this machine."""

from __future__ import annotations

import os
import sys
import tempfile
import time

from clients.peer.last_word import message_in
from dogo_fed.assignment import Assignment
from dogo_fed.config import RunConfig
from dogo_fed.contracts import Ending, Outcome, PeerId
from dogo_fed.errors import StartError
from dogo_fed.process_setup import thread_environment
from server.child_process import ChildProcess, how_it_ended, start_process
from server.hosts.gpus import gpus_of_peers

_MOST_SHOWN = 1000


class ProcessHandle:
    """A peer's process. If this process dies, the peer lives on and saves itself.

    It then ends as `Outcome.CUT_OFF`.
    """

    def __init__(self, assignment: Assignment, threads: int, gpus: str | None = None) -> None:
        """Starts the process.

        Args:
            assignment: what the peer is told.
            threads: of the numerical libraries.
            gpus: CUDA_VISIBLE_DEVICES of the process; None leaves it as it is here.

        Raises:
            StartError: the operating system does not start another process.
        """
        # Both go into the environment: the libraries read them when they are loaded.
        environment = {**os.environ, **thread_environment(threads)}
        if gpus is not None:
            environment["CUDA_VISIBLE_DEVICES"] = gpus
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
        self._gpus = gpus
        self.pid = process.pid

    def where(self) -> str:
        """Returns the process id and the GPUs, for people."""
        gpus = f", GPU {self._gpus}" if self._gpus else ""
        return f"process {self.pid} on this machine{gpus}"

    def ending(self) -> Ending | str | None:
        """Returns how it ended, a sentence if it died, or None while it runs."""
        status = self._process.status()
        if status is None:
            return None
        said = self._process.said()
        message = message_in(said)
        if status in {outcome.value for outcome in Outcome}:
            return Ending(Outcome(status), said[-_MOST_SHOWN:] if message is None else message)
        why = message or self._process.last_line()
        return f"{how_it_ended(status)} ({why})" if why else how_it_ended(status)

    def kill(self) -> None:
        """Kills the process; a second call does nothing."""
        self._process.kill()


class ProcessLauncher:
    """Starts peers as processes of this machine; they reach the coordinator over loopback."""

    def __init__(self, config: RunConfig) -> None:
        """Shares out the GPUs, if the peers compute on any.

        Raises:
            ConfigError: there are too few of them.
        """
        self._threads_per_peer = config.threads_per_peer
        self._gpus = gpus_of_peers(config)

    def listen_address(self) -> str:
        """Returns the loopback address, since all peers are on this machine."""
        return "127.0.0.1"

    def start(self, peer: PeerId, number: int, assignment: Assignment) -> ProcessHandle:
        """Starts a process for `peer`."""
        return ProcessHandle(assignment, self._threads_per_peer, self._gpus.get(peer))

    def wait(self, seconds: float) -> None:
        """Sleeps; the processes need nothing of this one meanwhile."""
        time.sleep(seconds)
