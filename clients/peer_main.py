"""Runs one peer from its assignment to its end, whatever process it lives in."""

from __future__ import annotations

import enum
import logging
from dataclasses import dataclass
from pathlib import Path

from clients.assignment import Assignment
from clients.grpc_exchange import Connection, CoordinatorClient, ReportSink
from configs.compose import from_mapping
from dogo_fed.agreement import make_agreement
from dogo_fed.config import RunConfig
from dogo_fed.contracts import PeerId
from dogo_fed.data.datasets import build_dataset
from dogo_fed.engine.build import build_peer, build_session, fix_numerics, resolve_device
from dogo_fed.engine.plan import make_plan, make_schedule
from dogo_fed.engine.session import PeerSession, RunFrame, run_peer
from dogo_fed.errors import DogoError, TrainingError
from dogo_fed.memory import keep_freed_memory
from dogo_fed.peer_folder import PeerFolder

logger = logging.getLogger(__name__)


class Outcome(enum.Enum):
    """How a peer's process ended on its own; the value is its exit status.

    FINISHED: all steps done, result delivered.
    STOPPED: the run was stopped early; a checkpoint is there.
    FAILED: this peer can't go on, and starting it again would not help.
    UNFIT: it should never have started: a setting is wrong or the coordinator refused it.
    CUT_OFF: the coordinator is gone; the last checkpoint is there.
    """

    FINISHED = 0
    STOPPED = 3
    FAILED = 4
    UNFIT = 5
    CUT_OFF = 6


@dataclass(frozen=True, slots=True)
class Ending:
    """How a peer's process ended, with a sentence for people."""

    outcome: Outcome
    message: str = ""


def run_assignment(assignment: Assignment) -> Ending:
    """Runs a peer to its end; never raises a `DogoError`, but says how it ended."""
    _start_log(Path(assignment.run_dir) / "peers" / assignment.peer)
    try:
        session, client, sink = _prepare(assignment)
    except DogoError as error:
        logger.error("peer=%s %s", assignment.peer, error)
        return Ending(Outcome.UNFIT, str(error))
    try:
        result = run_peer(session, sink.stop_requested)
        sink.close()
        client.close()
    except DogoError as error:
        return _ended_by(error, session, assignment.peer)
    return Ending(Outcome.STOPPED if result is None else Outcome.FINISHED)


def _prepare(assignment: Assignment) -> tuple[PeerSession, CoordinatorClient, ReportSink]:
    config = from_mapping(assignment.config)
    keep_freed_memory()
    fix_numerics(config.threads_per_peer)
    peer_id = PeerId(assignment.peer)
    dataset = build_dataset(config.data.name, config.data.options)
    schedule = make_schedule(config, len(dataset.train))
    frame = RunFrame(
        run_id=assignment.run_id,
        dataset=dataset,
        schedule=schedule,
        plan=make_plan(config, schedule),
        checkpoint_every_steps=config.checkpoint.every_steps,
        knn_every_rounds=config.eval.knn_every_rounds,
    )
    peer = build_peer(
        peer_id,
        config.peers[peer_id],
        dataset=dataset,
        run_seed=config.seed,
        device=resolve_device(config.device),
    )
    folder = PeerFolder(Path(assignment.run_dir), peer_id, keep_checkpoints=config.checkpoint.keep)
    progress = folder.checkpoints.restore(
        assignment.checkpoint_step, peer.objective, peer.optimizer, peer.device
    )
    client = CoordinatorClient(peer_id, assignment.run_id, _connection(config, assignment))
    next_step = client.join(make_agreement(config, dataset))
    if config.exchanges and next_step > progress.step:
        logger.warning(
            "peer=%s goes on at step %d; its checkpoint is of step %d",
            peer_id,
            next_step,
            progress.step,
        )
        progress.step = next_step
    sink = ReportSink(client)
    session = build_session(
        peer,
        config,
        frame,
        exchange=client if config.exchanges else None,
        sink=sink,
        folder=folder,
        progress=progress,
    )
    return session, client, sink


def _connection(config: RunConfig, assignment: Assignment) -> Connection:
    return Connection(
        address=assignment.address,
        secret=assignment.secret,
        batch_size=config.batch_size,
        answer_within_s=config.exchange.answer_within_s,
        reconnect_s=config.exchange.reconnect_s,
    )


def _ended_by(error: DogoError, session: PeerSession, peer: str) -> Ending:
    logger.error("peer=%s %s: %s", peer, type(error).__name__, error)
    if isinstance(error, TrainingError):
        return Ending(Outcome.FAILED, str(error))
    try:
        session.save()
    except (DogoError, OSError) as saving_error:
        logger.error("peer=%s could not save itself: %s", peer, saving_error)
    return Ending(Outcome.CUT_OFF, str(error))


def _start_log(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    handler = logging.FileHandler(folder / "peer.log", encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s %(message)s"))
    for name in ("dogo_fed", "clients"):
        package_logger = logging.getLogger(name)
        package_logger.addHandler(handler)
        package_logger.setLevel(logging.INFO)
