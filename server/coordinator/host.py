"""The coordinator of one run, from its start to its end: state machine, secret, address, service.

A supervisor, or other code that starts peers, is a client of it. It can be started by itself, and
its state can be written to a file and read back. A coordinator made from that file has the same
address and the same secret, and gives the same answers.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from types import TracebackType
from typing import Protocol, TypeAlias, TypeVar

from dogo_fed.contracts import EventKind, PeerId, Record
from dogo_fed.coordination.coordinator import Coordinator, CoordinatorSettings
from dogo_fed.engine.loaded_run import LoadedRun
from dogo_fed.reporting.background import BackgroundSink
from dogo_fed.reporting.sink import Sink, TeeSink
from dogo_fed.storage.run_folder import RunFolder
from dogo_fed.wire.format import WireFormat
from dogo_fed.wire.secret import credential_of
from server.coordinator.calls import CoordinatorCalls
from server.coordinator.service import (
    CoordinatorService,
    ServerCertificate,
    ServiceSettings,
    read_certificate,
)
from server.coordinator.state_file import SavedCoordinator, read_state, write_state

logger = logging.getLogger(__name__)

T = TypeVar("T")


class Endpoint(Protocol):
    """Makes a coordinator reachable for peers."""

    def start(self) -> str:
        """Starts, and returns the address for peers, host:port.

        The address is empty if peers reach the coordinator by a framework's messages.

        Raises:
            ConfigError: it can't listen there.
        """
        ...

    def call(self, action: Callable[[CoordinatorCalls], T]) -> T:
        """Runs `action` in the one thread that may touch the state machine."""
        ...

    def stop(self) -> None:
        """Stops; peers can't reach the coordinator any more. A second call does nothing."""
        ...


Written: TypeAlias = Callable[[], Future[None]]
"""Returns a future that is done when all that was reported so far is written."""

Serve: TypeAlias = Callable[[CoordinatorCalls, ServiceSettings, Written], Endpoint]


def serve_grpc(calls: CoordinatorCalls, settings: ServiceSettings, written: Written) -> Endpoint:
    """Makes a coordinator reachable over gRPC."""
    return CoordinatorService(calls, settings, written=written)


class CoordinatorHost:
    """Owns a coordinator. It is a context manager; inside it, peers can reach the coordinator.

    No command writes or reads its state yet; docs/architecture.md says what one would take.
    """

    def __init__(
        self,
        settings: CoordinatorSettings,
        wire: WireFormat,
        service: ServiceSettings,
        sink: Sink,
        serve: Serve = serve_grpc,
        state: SavedCoordinator | None = None,
    ) -> None:
        """Prepares a coordinator that cannot be reached yet.

        Args:
            settings: the coordinator's settings for this run.
            wire: the form of the run's distributions.
            service: where to listen, and the secret.
            sink: gets the peers' reports and the coordinator's events.
            serve: makes it reachable.
            state: the state of an earlier coordinator of this run.

        Raises:
            CheckpointError: the state is of another run.
        """
        self._activity = _ActivitySink()
        # In a thread of its own: files and pictures must not hold up the peers' exchange.
        self._writer = BackgroundSink(sink)
        heard = TeeSink(self._writer, self._activity)
        now_s = time.monotonic()
        if state is None:
            coordinator = Coordinator(settings, now_s, heard.emit)
        else:
            coordinator = Coordinator.restored(settings, state.coordinator, now_s, heard.emit)
        self._calls = CoordinatorCalls(
            coordinator,
            settings.run_id,
            wire,
            heard,
            time.monotonic,
            reported=None if state is None else state.reported,
        )
        self._run_id = settings.run_id
        self._service = service
        self._endpoint = serve(self._calls, service, self._writer.written)
        self._address = ""

    @classmethod
    def of(
        cls,
        run: LoadedRun,
        folder: RunFolder,
        sink: Sink,
        listen_address: Callable[[], str],
        serve: Serve = serve_grpc,
    ) -> CoordinatorHost:
        """Returns the coordinator of a run that starts, or goes on at the folder's step.

        Args:
            run: its settings and data.
            folder: the run folder.
            sink: gets the peers' reports and the coordinator's events.
            listen_address: returns the interface to listen on; called if the settings name none.
            serve: makes it reachable.

        Raises:
            ConfigError: the coordinator's certificate can't be read.
        """
        config = run.config
        service = ServiceSettings(
            address=config.coordinator.address or listen_address(),
            port=config.coordinator.port,
            answer_within_s=config.exchange.answer_within_s,
            tls=read_certificate(config.coordinator),
        )
        settings = run.coordinator_settings(folder.run_id, folder.first_step)
        return cls(settings, run.wire_format, service, sink, serve)

    def __enter__(self) -> CoordinatorHost:
        """Makes the coordinator reachable.

        Raises:
            ConfigError: it can't listen at its address.
        """
        self._address = self._endpoint.start()
        logger.info("run=%s coordinator listens on %s", self._run_id, self._address)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Ends the service and writes what is left to write; the coordinator keeps its state."""
        self._endpoint.stop()
        self._writer.close()

    @property
    def address(self) -> str:
        """The address for peers, host:port; empty if they reach it by a framework's messages."""
        return self._address

    @property
    def secret(self) -> str:
        """The run's secret, from which the peers' credentials are derived; no peer gets it."""
        return self._service.secret

    def credential_of(self, peer: PeerId) -> str:
        """Returns the credential that this peer's calls must carry; it is for this peer alone."""
        return credential_of(self.secret, self._run_id, peer)

    @property
    def last_report_s(self) -> float:
        """When a peer last reported or said that it evaluates, or the coordinator did something.

        By `time.monotonic`.
        """
        return self._activity.at_s

    def has_joined(self, peer: PeerId) -> bool:
        """Whether any process of this peer has joined the run."""
        return self.ask(lambda coordinator: coordinator.has_joined(peer))

    def lose(self, peer: PeerId, reason: str) -> None:
        """Marks a peer as lost, so that no step waits for it."""
        self.ask(lambda coordinator: coordinator.lose(peer, reason, time.monotonic()))

    def request_stop(self, reason: str) -> None:
        """Asks for an early end: the step that closes next is the last one."""
        self.ask(lambda coordinator: coordinator.stop(reason, time.monotonic()))

    def note(self, kind: EventKind, message: str, peer: PeerId | None) -> None:
        """Emits an event at the run's present step."""
        self.ask(lambda coordinator: coordinator.note(kind, message, peer, time.monotonic()))

    def ask(self, action: Callable[[Coordinator], T]) -> T:
        """Runs `action` on the state machine, in the one thread that may touch it."""
        return self._endpoint.call(lambda calls: action(calls.coordinator))

    def write(self, path: Path) -> None:
        """Writes the coordinator's present state; only the file's owner may read it."""

        def look(calls: CoordinatorCalls) -> SavedCoordinator:
            return SavedCoordinator(
                coordinator=calls.coordinator.snapshot(time.monotonic()),
                reported=calls.reported,
                secret=self.secret,
                address=self._address,
            )

        write_state(path, self._endpoint.call(look))

    @classmethod
    def read(
        cls,
        path: Path,
        settings: CoordinatorSettings,
        wire: WireFormat,
        sink: Sink,
        *,
        answer_within_s: float,
        tls: ServerCertificate | None = None,
    ) -> CoordinatorHost:
        """Returns a coordinator that goes on from the state in a file.

        Args:
            path: a file of `write`.
            settings: the coordinator's settings for this run.
            wire: the form of the run's distributions.
            sink: gets the peers' reports and the coordinator's events.
            answer_within_s: longest time that an answer is held back.
            tls: the certificate; address, port and secret are in the file.

        Raises:
            CheckpointError: the file can't be used, or is of another run.
        """
        state = read_state(path, wire)
        host, _, port = state.address.rpartition(":")
        again = ServiceSettings(
            address=host,
            port=int(port or 0),
            answer_within_s=answer_within_s,
            secret=state.secret,
            tls=tls,
        )
        return cls(settings, wire, again, sink, state=state)


class _ActivitySink(Sink):
    """Remembers the time of the last record, or other sign of life."""

    def __init__(self) -> None:
        self.at_s = time.monotonic()

    def emit(self, record: Record) -> None:
        """Notes the time."""
        self.alive()

    def alive(self) -> None:
        """Notes the time."""
        self.at_s = time.monotonic()
