"""Host "local": all peers in this process, in lock-step. The other hosts must equal it."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable

from dogo_fed.baselines.catalog import make_baseline
from dogo_fed.baselines.drive import run_together
from dogo_fed.contracts import Record
from dogo_fed.coordination.coordinator import Coordinator
from dogo_fed.engine.drive import run_lockstep
from dogo_fed.engine.loaded_run import LoadedRun
from dogo_fed.engine.numerics import fix_numerics
from dogo_fed.engine.open import open_session
from dogo_fed.exchange.in_process import InProcessExchange
from dogo_fed.reporting.sink import Sink, TeeSink
from dogo_fed.storage.run_folder import RunFolder


class _StopRequests(Sink):
    """Takes nothing; lets peers that evaluate know that the user has asked for an end."""

    def __init__(self, stop_requested: Callable[[], bool]) -> None:
        self._stop_requested = stop_requested

    def emit(self, record: Record) -> None:
        """Does nothing."""

    def stop_requested(self) -> bool:
        return self._stop_requested()


def run_local(
    run: LoadedRun, folder: RunFolder, sink: Sink, stop_requested: Callable[[], bool]
) -> None:
    """Runs all peers to their end.

    Args:
        run: its settings and data.
        folder: the run folder.
        sink: gets the reports.
        stop_requested: whether the user has asked for an end; asked before every step.
    """
    fix_numerics(run.config.threads_per_peer)
    clock = time.monotonic
    coordinator = Coordinator(
        run.coordinator_settings(folder.run_id, folder.first_step), clock(), sink.emit
    )
    links = {
        peer: InProcessExchange(coordinator, peer, uuid.uuid4().hex, run.wire_format, clock)
        for peer in run.peer_ids
    }
    if run.config.baseline is None:  # a baseline stops between rounds only
        sink = TeeSink(sink, _StopRequests(stop_requested))
    sessions = [
        open_session(
            run, folder.path, peer, link, sink, checkpoint_step=folder.checkpoints.get(peer)
        )
        for peer, link in links.items()
    ]

    def stop_or_go_on() -> bool:
        if stop_requested():
            coordinator.stop("stopped by the user", clock())
        return coordinator.stop_requested

    if run.config.baseline is None:
        if None in run_lockstep(sessions, stop_or_go_on):
            stop_or_go_on()  # an evaluation was left off after the last step
    else:
        baseline = make_baseline(run, [session.peer for session in sessions])

        def stop_between_rounds(step: int) -> bool:
            return baseline.begins_round(step) and stop_or_go_on()

        run_together(sessions, stop_between_rounds, baseline)
    for link in links.values():
        link.close()
