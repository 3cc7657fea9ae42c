"""Drives sessions to their end: one that has a process of its own, or several in lock-step."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from dogo_fed.contracts import PeerResult
from dogo_fed.engine.numerics import failed_compiling_told
from dogo_fed.engine.session import PeerSession
from dogo_fed.errors import StaleTicket


@failed_compiling_told()
def run_peer(
    session: PeerSession,
    stop_requested: Callable[[], bool],
    await_turn: Callable[[int], None] = lambda step: None,
    ask_for_stop: Callable[[], bool] = lambda: False,
) -> PeerResult | None:
    """Drives one peer to its end.

    Args:
        session: the peer in its run.
        stop_requested: asked before every step that does not exchange; at one that does, a signal
            tells to stop.
        ask_for_stop: the same, asked anew: when the coordinator refuses an exchange.
        await_turn: called before every step; returns when the peer may do it. A host that drives
            rounds waits here.

    Returns:
        The peer's result, or None if the run was stopped early.

    Raises:
        ConfigError: its network can't be compiled, as compile=true asks.
    """
    session.start()
    while not session.is_finished:
        await_turn(session.next_step)
        if session.can_stop_here and stop_requested():
            session.stop()
            break
        session.begin_step()
        session.prepare_next()  # while the others' distributions are on their way
        try:
            session.end_step()
        except StaleTicket:
            if not ask_for_stop():
                raise
            session.undo_steps()
            session.stop()
    return session.finish()


@failed_compiling_told()
def run_lockstep(
    sessions: Sequence[PeerSession], stop_requested: Callable[[], bool]
) -> list[PeerResult | None]:
    """Drives several peers in one process: all propose, then all absorb. Other hosts must equal it.

    Peers that go on from different steps are caught up with first: those that are behind move.

    Args:
        sessions: the peers, in name order.
        stop_requested: asked once before every step.

    Returns:
        The peers' results in the order of the sessions, None for each if the run was stopped early.

    Raises:
        ConfigError: see `run_peer`.
    """
    _start_all(sessions)
    while not all(session.is_finished for session in sessions):
        is_stop_asked = stop_requested()
        for session in sessions:
            if is_stop_asked and session.can_stop_here:
                session.stop()
        left = [session for session in sessions if not session.is_finished]
        running = [
            session
            for session in left
            if session.next_step == min(other.next_step for other in left)
        ]
        for session in running:
            try:
                session.begin_step()
            except StaleTicket:
                if not is_stop_asked:
                    raise
                session.undo_steps()
                session.stop()
        for session in running:
            if not session.is_finished:
                session.end_step()
    return [session.finish() for session in sessions]


def _start_all(sessions: Sequence[PeerSession]) -> None:
    """Starts the peers; one that is stopped while it evaluates stops all, since none waits yet."""
    for session in sessions:
        session.start()
    if any(session.is_stopped for session in sessions):
        for session in sessions:
            session.stop()
