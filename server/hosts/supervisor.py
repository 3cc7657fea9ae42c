"""Starts peers that live in their own processes, watches them, and starts them again if they die.

A `PeerLauncher` starts the processes: on this machine, by Ray, or at Flower's nodes. The supervisor
is a client of the coordinator. Nothing here waits without a deadline: peers that report nothing for
too long are killed, and so are peers that do not stop in time.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Protocol

from dogo_fed import layout
from dogo_fed.assignment import Assignment
from dogo_fed.config_text import to_mapping
from dogo_fed.contracts import Ending, EventKind, Outcome, PeerId
from dogo_fed.engine.loaded_run import LoadedRun
from dogo_fed.errors import DogoError, ExchangeError
from dogo_fed.storage.going_on import passed_over
from dogo_fed.storage.peer_folder import PeerFolder
from dogo_fed.storage.run_folder import RunFolder
from dogo_fed.storage.run_lock import read_lock
from server.coordinator.host import CoordinatorHost
from server.hosts.watch import Overdue, Watch, Watchable

logger = logging.getLogger(__name__)

_POLL_S = 0.1
_STOP_GRACE_S = 30.0
_MAX_TOLD_FAILURES = 3


class PeerHandle(Watchable[Ending | str], Protocol):
    """A peer's process. Its ending is an `Ending`, or a sentence if the process died."""

    def where(self) -> str:
        """Returns node, process and GPU, for people."""
        ...


class PeerLauncher(Protocol):
    """Starts peers' processes."""

    def listen_address(self) -> str:
        """Returns the address to listen on, so that all peers can reach this machine."""
        ...

    def start(self, peer: PeerId, number: int, assignment: Assignment) -> PeerHandle:
        """Starts a process for `peer`; `number` counts its starts from 0.

        Raises:
            StartError: the machine or the cluster has no room for it.
        """
        ...

    def wait(self, seconds: float) -> None:
        """Returns after about this time; meanwhile does what the peers need of this process."""
        ...


class Supervisor:
    """Runs the peers' processes until all of them have ended."""

    def __init__(
        self,
        run: LoadedRun,
        folder: RunFolder,
        launcher: PeerLauncher,
        coordinator: CoordinatorHost,
        stop_requested: Callable[[], bool],
    ) -> None:
        """Prepares a run; nothing is started yet.

        Args:
            run: its settings and data.
            folder: the run folder.
            launcher: starts the peers' processes.
            coordinator: the run's coordinator, which peers can reach already.
            stop_requested: whether the user has asked for an end.
        """
        self._run = run
        self._folder = folder
        self._launcher = launcher
        self._coordinator = coordinator
        self._stop_requested = stop_requested
        self._num_starts = dict.fromkeys(run.peer_ids, 0)
        self._failures: dict[PeerId, str] = {}
        self._watch: Watch[PeerId, Ending | str] = Watch(
            silence_s=run.config.recovery.silence_s,
            silence_setting="recovery.silence_s",
            stop_within_s=run.config.exchange.deadline_s + _STOP_GRACE_S,
            clock=lambda: time.monotonic(),
        )

    def run(self) -> None:
        """Runs the peers to their end.

        Raises:
            DogoError: a peer could not be started, or could not go on. In the latter case the
                others have run to their end, unless a wrong setting ended them too.
        """
        try:
            for peer in self._run.peer_ids:
                self._start(peer)
            while self._watch.running:
                self._look()
                self._launcher.wait(_POLL_S)
        finally:
            self._watch.kill_all()  # whatever was raised: no process is left behind
        if self._failures:
            raise ExchangeError(self._told_failures())

    def _start(self, peer: PeerId) -> None:
        number = self._num_starts[peer]
        self._num_starts[peer] += 1
        coordinator = self._coordinator
        takes_newest = coordinator.has_joined(peer)
        if takes_newest:
            self._tell_passed_over(peer)
        public_address = self._run.config.coordinator.public_address
        assignment = Assignment(
            peer=peer,
            run_id=self._folder.run_id,
            run_dir=str(self._folder.path),
            address=(public_address or coordinator.address) if coordinator.address else "",
            credential=coordinator.credential_of(peer),
            is_tls=self._run.config.coordinator.certificate is not None,
            number=number,
            checkpoint_step=self._folder.checkpoints.get(peer),
            takes_newest=takes_newest,
            lock=read_lock(self._folder.path),
            config=to_mapping(self._run.config),
        )
        handle = self._launcher.start(peer, number, assignment)
        self._watch.add(peer, handle)
        how = "started" if number == 0 else "started again"
        message = f"peer {peer} {how}: {handle.where()}"
        logger.info("run=%s peer=%s %s", self._folder.run_id, peer, message)
        coordinator.note(EventKind.PEER_STARTED, message, peer)

    def _tell_passed_over(self, peer: PeerId) -> None:
        """Reports the checkpoints that a peer that is started again will not be able to read."""
        store = PeerFolder(self._folder.path, peer).checkpoints
        for problem in store.newest_readable()[1]:
            self._coordinator.note(
                EventKind.CHECKPOINT_PASSED_OVER, passed_over(peer, problem), peer
            )

    def _look(self) -> None:
        """Looks at every peer once.

        Any peer's report counts as a sign of life of all: a peer that waits for others is silent
        too.
        """
        for peer, ending in self._watch.look(lambda peer: self._coordinator.last_report_s):
            if isinstance(ending, Ending):
                self._ended(peer, ending)
            elif isinstance(ending, Overdue):
                self._failures[peer] = f"{ending.reason} and was ended"
                self._coordinator.lose(peer, ending.reason)
            else:
                self._died(peer, ending)
        if self._stop_requested():
            self._stop("stopped by the user")

    def _ended(self, peer: PeerId, ending: Ending) -> None:
        if ending.outcome in (Outcome.FINISHED, Outcome.STOPPED):
            return
        if ending.outcome is Outcome.CUT_OFF:  # this process lives, so it may well be let in again
            self._died(peer, f"was cut off: {ending.message}")
            return
        self._failures[peer] = f"can't go on: {ending.message}"
        self._coordinator.lose(peer, self._failures[peer])
        if ending.outcome is Outcome.UNFIT:
            self._stop(f"peer {peer} {self._failures[peer]}")

    def _died(self, peer: PeerId, how: str) -> None:
        self._coordinator.lose(peer, how)
        if self._watch.is_stopping:
            return
        if self._num_starts[peer] > self._run.config.recovery.max_restarts:
            self._failures[peer] = (
                f"{how}, and has been started again as often as recovery.max_restarts allows; "
                f"its log is in {layout.PEERS}/{peer}/{layout.PEER_LOG}"
            )
            return
        self._watch.kill(peer)  # what is left of it could still write to the peer's folder
        try:
            self._start(peer)
        except DogoError as error:
            self._failures[peer] = f"can't be started again: {error}"

    def _stop(self, reason: str) -> None:
        if self._watch.begin_stop():
            self._coordinator.request_stop(reason)

    def _told_failures(self) -> str:
        """Returns a sentence for each different failure, with the peers that it happened to."""
        peers: dict[str, list[PeerId]] = {}
        for peer, what in self._failures.items():
            peers.setdefault(what, []).append(peer)
        phrases = [f"peer {', '.join(names)} {what}" for what, names in peers.items()]
        if len(phrases) > _MAX_TOLD_FAILURES:
            left_out = len(phrases) - _MAX_TOLD_FAILURES
            phrases = [
                *phrases[:_MAX_TOLD_FAILURES],
                f"and {left_out} more ({layout.COORDINATOR_LOG} has all)",
            ]
        return "; ".join(phrases)
