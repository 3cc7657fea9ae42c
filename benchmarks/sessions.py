"""The product's own sessions of a run's peers in this process, a step at a time."""

from __future__ import annotations

import tempfile
import time
import uuid
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path

from benchmarks.settings import PATIENCE_S
from clients.peer.grpc_link import Connection, GrpcLink
from dogo_fed.config import RunConfig
from dogo_fed.contracts import PeerId, Record, StepReport
from dogo_fed.coordination.coordinator import Coordinator
from dogo_fed.data.source import DataSet
from dogo_fed.engine.loaded_run import load_run
from dogo_fed.engine.open import open_session
from dogo_fed.engine.session import PeerSession
from dogo_fed.exchange.base import Link
from dogo_fed.exchange.in_process import InProcessExchange
from dogo_fed.reporting.sink import Sink, TeeSink
from server.coordinator.host import CoordinatorHost
from server.coordinator.service import ServiceSettings

_RECONNECT_S = 10.0


class Sessions:
    """Peers in lock-step, as host=local has them, without evaluation and checkpoint.

    Attributes:
        run: their run.
        reports: what they have reported of their steps; whoever reads it may empty it.
    """

    def __init__(
        self, config: RunConfig, dataset: DataSet | None = None, *, over_grpc: bool = False
    ) -> None:
        """Builds the peers and lets them join.

        Args:
            config: the run.
            dataset: in place of the one that it names.
            over_grpc: whether they reach a coordinator by its service on this machine; else it is
                called.
        """
        self.run = load_run(config, dataset)
        self.reports: list[StepReport] = []
        self._opened = ExitStack()
        try:
            folder = Path(self._opened.enter_context(tempfile.TemporaryDirectory()))
            links = self._served(folder.name) if over_grpc else self._here(folder.name)
            for link in links.values():
                self._opened.callback(link.close)
            sink = _Reports(self.reports)
            self.sessions: list[PeerSession] = []
            for peer, link in links.items():
                one = open_session(self.run, folder, peer, link, sink, checkpoint_step=None)
                self._opened.callback(one.close)
                self.sessions.append(one)
        except BaseException:
            self._opened.close()
            raise

    def step(self) -> None:
        """Does one step of all peers."""
        for session in self.sessions:
            session.begin_step()
        for session in self.sessions:
            session.end_step()

    def close(self) -> None:
        """Lets the peers leave; a second call does nothing."""
        self._opened.close()

    def _here(self, run_id: str) -> Mapping[PeerId, Link]:
        coordinator = Coordinator(
            self.run.coordinator_settings(run_id, 0), time.monotonic(), lambda event: None
        )
        return {
            peer: InProcessExchange(coordinator, peer, uuid.uuid4().hex, self.run.wire_format)
            for peer in self.run.peer_ids
        }

    def _served(self, run_id: str) -> Mapping[PeerId, Link]:
        wire = self.run.wire_format
        service = ServiceSettings(address="127.0.0.1", port=0, answer_within_s=PATIENCE_S)
        host = CoordinatorHost(self.run.coordinator_settings(run_id, 0), wire, service, TeeSink())
        self._opened.enter_context(host)

        def link_of(peer: PeerId) -> GrpcLink:
            connection = Connection(
                address=host.address,
                credential=host.credential_of(peer),
                wire=wire,
                answer_within_s=PATIENCE_S,
                reconnect_s=_RECONNECT_S,
            )
            return GrpcLink(peer, run_id, connection)

        return {peer: link_of(peer) for peer in self.run.peer_ids}


class _Reports(Sink):
    """Keeps what is reported of steps."""

    def __init__(self, reports: list[StepReport]) -> None:
        self._reports = reports

    def emit(self, record: Record) -> None:
        """Keeps the record, if it is of a step."""
        if isinstance(record, StepReport):
            self._reports.append(record)
