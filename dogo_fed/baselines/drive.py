"""Drives sessions in one process that train together by a baseline, without an exchange."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from dogo_fed.baselines.base import Baseline
from dogo_fed.contracts import PeerResult
from dogo_fed.engine.session import PeerSession


def run_together(
    sessions: Sequence[PeerSession], stop_requested: Callable[[int], bool], baseline: Baseline
) -> list[PeerResult | None]:
    """Drives several peers in one process, which train together without an exchange.

    Args:
        sessions: the peers, in name order, all at the same step.
        stop_requested: asked before every step, with its number.
        baseline: how they train together.

    Returns:
        The peers' results in the order of the sessions, None for each if the run was stopped early.
    """
    if sessions[0].next_step == 0:
        baseline.begin()
    for session in sessions:
        session.start()
    while not sessions[0].is_finished:
        step = sessions[0].next_step
        if stop_requested(step):
            for session in sessions:
                session.stop()
            break
        baseline.begin_step(step)
        for session in sessions:
            session.begin_step()
        proposals = {session.peer.id: session.proposal for session in sessions}
        losses = baseline.losses(step, proposals)
        for session in sessions:
            session.take_other_loss(*losses[session.peer.id])
            session.update()
        baseline.end_step(step)  # so what is evaluated and saved is what the method leaves
        for session in sessions:
            session.conclude()
    return [session.finish() for session in sessions]
