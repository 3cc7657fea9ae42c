"""Runs one peer from its assignment to its end, in any host."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from clients.peer.ahead_link import AheadLink
from clients.peer.grpc_link import Connection, GrpcLink
from clients.peer.link import CoordinatorLink
from clients.peer.report_sink import ReportSink
from dogo_fed import layout
from dogo_fed.assignment import Assignment
from dogo_fed.atomic import room_for
from dogo_fed.config import RunConfig
from dogo_fed.config_text import from_mapping
from dogo_fed.contracts import Ending, Outcome, PeerId
from dogo_fed.engine.drive import run_peer
from dogo_fed.engine.loaded_run import load_run
from dogo_fed.engine.numerics import fix_numerics
from dogo_fed.engine.open import open_session
from dogo_fed.engine.session import PeerSession
from dogo_fed.errors import (
    ConfigError,
    CoordinatorLost,
    DogoError,
    EvaluationError,
    ExchangeTimeout,
    HelperLost,
    MalformedDistribution,
    Refused,
    StaleTicket,
    StorageFull,
    TrainingError,
    outside,
    own_failure,
)
from dogo_fed.private_files import private_files
from dogo_fed.process_setup import keep_freed_memory
from dogo_fed.reporting.log_file import log_file
from dogo_fed.storage.run_lock import read_lock
from dogo_fed.wire.format import WireFormat

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerEnvironment:
    """What a peer's host decides. The defaults suit a process that runs only this peer.

    Attributes:
        open_link: makes the link to the coordinator; None opens one over gRPC.
        await_turn: called with the next step; returns when the peer may do it. The second argument
            asks the coordinator whether it wants an early end.
        stop_requested: whether the host wants an early end; the coordinator may want one too.
        root_certificates: PEM, to check the coordinator's certificate. With it, a peer does not
            speak in the clear.
        is_site: whether the peer's settings are this site's own. Then its terminal tells what there
            is to know about the peer's weights and images; elsewhere whoever started the run has told it,
            or the peer's log does.
    """

    open_link: Callable[[PeerId, RunConfig], CoordinatorLink] | None = None
    await_turn: Callable[[int, Callable[[], bool]], None] = lambda step, is_stop_wanted: None
    stop_requested: Callable[[], bool] = lambda: False
    root_certificates: bytes | None = None
    is_site: bool = False


def run_assignment(assignment: Assignment, around: PeerEnvironment | None = None) -> Ending:
    """Runs a peer to its end and returns how it ended; does not raise a `DogoError`."""
    around = PeerEnvironment() if around is None else around
    folder = layout.peer_folder(Path(assignment.run_dir), assignment.peer)
    try:
        with (
            private_files(),
            room_for("the peer's files", folder),
            log_file(folder / layout.PEER_LOG, ("dogo_fed", "clients")),
        ):
            try:
                return _run(assignment, around)
            except Exception:  # a module of the user's own may fail in any way; its process dies
                logger.exception("peer=%s failed", assignment.peer)
                raise
    except StorageFull as error:  # starting it again would not help
        return _ending(Outcome.FAILED, error)


def _run(assignment: Assignment, around: PeerEnvironment) -> Ending:
    try:
        session, link, sink = _open(assignment, around)
    except (CoordinatorLost, ExchangeTimeout) as error:
        logger.error("peer=%s %s", assignment.peer, error)
        return _ending(Outcome.CUT_OFF, error)
    except DogoError as error:
        logger.error("peer=%s %s", assignment.peer, error, exc_info=own_failure(error))
        return _ending(Outcome.UNFIT, error)
    try:
        result = run_peer(
            session,
            lambda: sink.stop_requested() or around.stop_requested(),
            lambda step: around.await_turn(step, sink.ask),
            lambda: sink.ask() or around.stop_requested(),
        )
        sink.close()
        link.close()
    except DogoError as error:
        return _ended_by(error, session, assignment)
    if result is not None and result.steps_trained == 0 and not session.peer.is_frozen:
        message = "has made no update: it was not there until the others had done all steps"
        logger.error("peer=%s %s", assignment.peer, message)
        return Ending(Outcome.FAILED, message, outside=message)
    return Ending(Outcome.STOPPED if result is None else Outcome.FINISHED)


def _open(
    assignment: Assignment, around: PeerEnvironment
) -> tuple[PeerSession, CoordinatorLink, ReportSink]:
    config = from_mapping(assignment.config)
    keep_freed_memory()
    fix_numerics(config.threads_per_peer)
    peer_id = PeerId(assignment.peer)
    run = load_run(config, peers=(peer_id,))
    link: CoordinatorLink
    if around.open_link is not None:
        link = around.open_link(peer_id, config)
    else:
        link = _grpc_link(peer_id, config, assignment, around.root_certificates)
    if config.exchanges and config.exchange.lookahead:
        link = AheadLink(link)
    sink = ReportSink(link)
    session = open_session(
        run,
        Path(assignment.run_dir),
        peer_id,
        link,
        sink,
        checkpoint_step=assignment.checkpoint_step,
        takes_newest=assignment.takes_newest,
        is_site=around.is_site,
    )
    for notice in session.peer.notices:
        logger.log(
            logging.WARNING if around.is_site else logging.INFO, "peer=%s %s", peer_id, notice
        )
    return session, link, sink


def _grpc_link(
    peer_id: PeerId, config: RunConfig, assignment: Assignment, root_certificates: bytes | None
) -> GrpcLink:
    """Returns a link to the coordinator.

    Raises:
        Refused: one side wants TLS, and the other does not.
    """
    # Refused, and not a wrong setting: both sides have to be told, for either can mend it.
    if assignment.is_tls and root_certificates is None:
        raise Refused(
            f"the coordinator at {assignment.address} shows a certificate, but this site has "
            "nothing to check it by; start `dogo-fed peer` with root_certificates=<PEM file>"
        )
    if root_certificates is not None and not assignment.is_tls:
        raise Refused(
            f"this site was started with root_certificates=, but the coordinator at "
            f"{assignment.address} shows no certificate, so nothing would be encrypted; start the "
            "run with coordinator.certificate= and coordinator.private_key=, or `dogo-fed peer` "
            "without root_certificates="
        )
    connection = Connection(
        address=assignment.address,
        credential=assignment.credential,
        wire=WireFormat.of(config),
        answer_within_s=config.exchange.answer_within_s,
        reconnect_s=config.exchange.reconnect_s,
        root_certificates=root_certificates,
    )
    return GrpcLink(peer_id, assignment.run_id, connection)


def _ended_by(error: DogoError, session: PeerSession, assignment: Assignment) -> Ending:
    """Saves the peer if its state can be trusted, and returns how it ended."""
    peer = assignment.peer
    logger.error("peer=%s %s: %s", peer, type(error).__name__, error)
    if isinstance(error, TrainingError | HelperLost | StorageFull | EvaluationError):
        return _ending(Outcome.FAILED, error)
    lasting = isinstance(error, Refused | MalformedDistribution | ConfigError)
    would_be_again = lasting and not isinstance(error, StaleTicket)
    ending = _ending(Outcome.FAILED if would_be_again else Outcome.CUT_OFF, error)
    owner = read_lock(Path(assignment.run_dir))
    if owner and assignment.lock and owner != assignment.lock:
        logger.error("peer=%s is not saved: another start of the run goes on in its folder", peer)
        return ending
    try:
        session.save(is_cut_off=True)  # at once: nobody waits for its last reports any more
    except (DogoError, OSError) as saving_error:
        logger.error("peer=%s could not save itself: %s", peer, saving_error)
    return ending


def _ending(outcome: Outcome, error: DogoError) -> Ending:
    return Ending(outcome, str(error), outside=outside(error))
