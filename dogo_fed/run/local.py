"""Host "local": all peers in this process, in lock-step. The reference that the other hosts must equal."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable

from dogo_fed.contracts import PeerId
from dogo_fed.coordination.coordinator import Coordinator
from dogo_fed.engine.build import build_session, fix_numerics
from dogo_fed.engine.session import PeerSession, run_lockstep
from dogo_fed.exchange.in_process import InProcessExchange
from dogo_fed.reporting.sink import Sink
from dogo_fed.run.prepare import PreparedRun
from dogo_fed.storage.run_folder import RunFolder


def run_local(
    run: PreparedRun, folder: RunFolder, sink: Sink, stop_requested: Callable[[], bool]
) -> None:
    """Runs all peers to their end."""
    fix_numerics(run.config.threads_per_peer)
    clock = time.monotonic
    coordinator = Coordinator(
        run.coordinator_settings(folder.run_id, folder.first_step), clock(), sink.emit
    )
    exchanges: list[InProcessExchange] = []

    def session_of(peer_id: PeerId) -> PeerSession:
        peer = run.build_peer(peer_id)
        peer_folder = folder.peer(
            peer_id,
            keep_checkpoints=run.config.checkpoint.keep,
            lag_steps=run.plan.exchange_every_steps,
        )
        progress = peer_folder.checkpoints.restore(
            folder.checkpoint_step, peer.objective, peer.optimizer, peer.device
        )
        incarnation = uuid.uuid4().hex
        coordinator.join(peer_id, incarnation, run.agreement, clock())
        exchange = InProcessExchange(coordinator, peer_id, incarnation, run.wire_format, clock)
        exchanges.append(exchange)
        return build_session(
            peer,
            run.config,
            run.frame(folder.run_id),
            exchange=exchange if run.config.exchanges else None,
            sink=sink,
            folder=peer_folder,
            progress=progress,
        )

    def stop_or_go_on() -> bool:
        if stop_requested():
            coordinator.stop("stopped by the user", clock())
        return coordinator.stop_requested

    run_lockstep([session_of(peer_id) for peer_id in run.peer_ids], stop_or_go_on)
    for exchange in exchanges:
        exchange.close()
