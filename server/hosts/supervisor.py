"""Starts peers that live in processes of their own, watches them, and starts them again if they die.

Where the processes come from is a `PeerLauncher`'s business: this machine, or Ray. Nothing here
waits
without a deadline: peers that say nothing for too long are ended, and so is a stop that takes too
    long.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Protocol, TypeAlias, TypeVar

from dogo_fed.assignment import Assignment
from dogo_fed.config_text import to_mapping
from dogo_fed.contracts import Ending, Outcome, PeerId, Record
from dogo_fed.coordination.coordinator import Coordinator
from dogo_fed.engine.loaded_run import LoadedRun
from dogo_fed.errors import DogoError, ExchangeError
from dogo_fed.reporting.sink import Sink, TeeSink
from dogo_fed.storage.run_folder import RunFolder
from dogo_fed.wire.secret import new_secret
from server.coordinator.service import CoordinatorService, ServiceSettings, read_certificate

logger = logging.getLogger(__name__)

T = TypeVar("T")

_POLL_EVERY_S = 0.1
_STOP_GRACE_S = 30.0
_MAX_TOLD_FAILURES = 3


class PeerHandle(Protocol):
    """A peer's running process."""

    def where(self) -> str:
        """Returns node, process and GPU, for people."""
        ...

    def ending(self) -> Ending | str | None:
        """Returns how it ended, a sentence if it died, or None while it runs. Does not wait."""
        ...

    def kill(self) -> None:
        """Ends it at once; a second call does nothing."""
        ...


class PeerLauncher(Protocol):
    """Starts peers' processes."""

    def listen_address(self) -> str:
        """Returns the address of this machine that all peers can reach."""
        ...

    def start(self, peer: PeerId, number: int, assignment: Assignment) -> PeerHandle:
        """Starts a process for `peer`; `number` counts its starts from 0.

        Raises:
            PlacementError: there is no room for it.
        """
        ...

    def wait(self, seconds: float) -> None:
        """Lets about so much time pass, and does meanwhile what the peers need of this process."""
        ...


class Coordination(Protocol):
    """Makes the coordinator reachable for peers."""

    def start(self) -> str:
        """Returns the address for peers, host:port; empty if the launcher's messages reach it.

        Raises:
            ConfigError: it can't listen there.
        """
        ...

    def call(self, action: Callable[[Coordinator], T]) -> T:
        """Runs `action` on the state machine, in the one thread that may touch it."""
        ...

    def stop(self) -> None:
        """Is not reachable any more; a second call does nothing."""
        ...


Serve: TypeAlias = Callable[[Coordinator, ServiceSettings, Sink], Coordination]


class _ActivitySink:
    """A sink that remembers when something was last reported."""

    def __init__(self) -> None:
        self.at_s = time.monotonic()

    def emit(self, record: Record) -> None:
        self.at_s = time.monotonic()

    def flush(self) -> None:
        """Has nothing to deliver."""

    def close(self) -> None:
        """Has nothing to finish."""


@dataclass(slots=True)
class _Watched:
    """One peer under supervision."""

    handle: PeerHandle
    num_starts: int = 1
    is_over: bool = False


class Supervisor:
    """Runs the coordinator's service and the peers' processes until all of them have ended."""

    def __init__(
        self,
        run: LoadedRun,
        folder: RunFolder,
        sink: Sink,
        launcher: PeerLauncher,
        stop_requested: Callable[[], bool],
        serve: Serve = CoordinatorService,
    ) -> None:
        """Prepares a run; nothing is started yet.

        Args:
            run: what is to be run.
            folder: where.
            sink: gets what peers and coordinator report.
            launcher: where the peers' processes come from.
            stop_requested: whether the user has asked for an end.
            serve: what makes the coordinator reachable.

        Raises:
            ConfigError: the coordinator's certificate can't be read.
        """
        self._run = run
        self._folder = folder
        self._last_word = _ActivitySink()
        self._sink = TeeSink(sink, self._last_word)
        self._launcher = launcher
        self._stop_requested = stop_requested
        self._watched: dict[PeerId, _Watched] = {}
        self._failures: dict[PeerId, str] = {}
        self._stopping_since_s: float | None = None
        self._secret = new_secret()
        self._service = serve(
            Coordinator(
                run.coordinator_settings(folder.run_id, folder.first_step),
                time.monotonic(),
                self._sink.emit,
            ),
            ServiceSettings(
                address=run.config.coordinator.address or launcher.listen_address(),
                port=run.config.coordinator.port,
                run_id=folder.run_id,
                secret=self._secret,
                wire=run.wire_format,
                answer_within_s=run.config.exchange.answer_within_s,
                tls=read_certificate(run.config.coordinator),
            ),
            self._sink,
        )

    def run(self) -> None:
        """Runs the peers to their end.

        Raises:
            DogoError: a peer could not be started or could not go on; the others have gone on to
                their end where that made sense.
        """
        address = self._service.start()
        logger.info("run=%s coordinator listens on %s", self._folder.run_id, address)
        try:
            for peer in self._run.peer_ids:
                self._watched[peer] = _Watched(self._start(peer, 0, address))
            while not all(one.is_over for one in self._watched.values()):
                self._look(address)
                self._launcher.wait(_POLL_EVERY_S)
        finally:
            with ExitStack() as ending:  # one that can't be ended must not save the others
                ending.callback(self._service.stop)
                for watched in self._watched.values():
                    ending.callback(watched.handle.kill)
        if self._failures:
            raise ExchangeError(self._told_failures())

    def _told_failures(self) -> str:
        """Returns a sentence for each thing that went wrong, with the peers that it happened to."""
        peers: dict[str, list[PeerId]] = {}
        for peer, what in self._failures.items():
            peers.setdefault(what, []).append(peer)
        phrases = [f"peer {', '.join(names)} {what}" for what, names in peers.items()]
        if len(phrases) > _MAX_TOLD_FAILURES:
            left_out = len(phrases) - _MAX_TOLD_FAILURES
            phrases = [
                *phrases[:_MAX_TOLD_FAILURES],
                f"and {left_out} more (coordinator.log has all)",
            ]
        return "; ".join(phrases)

    def _start(self, peer: PeerId, number: int, address: str) -> PeerHandle:
        assignment = Assignment(
            peer=peer,
            run_id=self._folder.run_id,
            run_dir=str(self._folder.path),
            address=(self._run.config.coordinator.public_address or address) if address else "",
            secret=self._secret,
            is_tls=self._run.config.coordinator.certificate is not None,
            number=number,
            checkpoint_step=self._folder.checkpoint_step,
            takes_newest=self._service.call(lambda coordinator: coordinator.has_joined(peer)),
            config=to_mapping(self._run.config),
        )
        handle = self._launcher.start(peer, number, assignment)
        verb = "started" if number == 0 else "started again"
        self._event("peer_started", f"peer {peer} {verb}: {handle.where()}", peer)
        return handle

    def _look(self, address: str) -> None:
        """One look at everybody."""
        for peer, watched in self._watched.items():
            if watched.is_over:
                continue
            ending = watched.handle.ending()
            if isinstance(ending, Ending):
                self._ended(peer, watched, ending)
            elif ending is not None:
                self._died(peer, watched, ending, address)
        self._stop_if_asked()
        self._end_silence()

    def _ended(self, peer: PeerId, watched: _Watched, ending: Ending) -> None:
        watched.is_over = True
        if ending.outcome in (Outcome.FINISHED, Outcome.STOPPED):
            return
        self._failures[peer] = f"can't go on: {ending.message}"
        self._lose(peer, self._failures[peer])
        if ending.outcome is Outcome.UNFIT:
            self._stop(f"peer {peer} {self._failures[peer]}")

    def _died(self, peer: PeerId, watched: _Watched, how: str, address: str) -> None:
        self._lose(peer, how)
        left = self._run.config.recovery.max_restarts - (watched.num_starts - 1)
        if self._stopping_since_s is not None or left <= 0:
            watched.is_over = True
            if self._stopping_since_s is None:
                self._failures[peer] = (
                    f"{how}, and has been started again as often as recovery.max_restarts allows; "
                    f"its log is in peers/{peer}/peer.log"
                )
            return
        watched.handle.kill()
        try:
            watched.handle = self._start(peer, watched.num_starts, address)
        except DogoError as error:
            watched.is_over = True
            self._failures[peer] = f"can't be started again: {error}"
        watched.num_starts += 1

    def _lose(self, peer: PeerId, reason: str) -> None:
        self._service.call(lambda coordinator: coordinator.lose(peer, reason, time.monotonic()))

    def _stop(self, reason: str) -> None:
        if self._stopping_since_s is None:
            self._stopping_since_s = time.monotonic()
            self._service.call(lambda coordinator: coordinator.stop(reason, time.monotonic()))

    def _stop_if_asked(self) -> None:
        if self._stop_requested():
            self._stop("stopped by the user")
        if self._stopping_since_s is None:
            return
        allowed_s = self._run.config.exchange.deadline_s + _STOP_GRACE_S
        if time.monotonic() - self._stopping_since_s > allowed_s:
            self._kill_rest(f"did not stop within {allowed_s:g} s")

    def _end_silence(self) -> None:
        allowed_s = self._run.config.recovery.silence_s
        if time.monotonic() - self._last_word.at_s > allowed_s:
            self._kill_rest(f"said nothing for {allowed_s:g} s (recovery.silence_s)")

    def _kill_rest(self, reason: str) -> None:
        for peer, watched in self._watched.items():
            if not watched.is_over:
                watched.handle.kill()
                watched.is_over = True
                self._failures[peer] = f"{reason} and was ended"
                self._lose(peer, reason)

    def _event(self, kind: str, message: str, peer: PeerId) -> None:
        logger.info("run=%s peer=%s %s", self._folder.run_id, peer, message)
        self._service.call(lambda one: one.note(kind, message, peer, time.monotonic()))
