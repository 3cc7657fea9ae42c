"""Drives sessions to their end: one that has a process of its own, or several in lock-step."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import torch

from dogo_fed.contracts import PeerId, PeerResult
from dogo_fed.engine.session import PeerSession
from dogo_fed.engine.step import Proposal
from dogo_fed.errors import StaleTicket
from dogo_fed.exchange.base import Traffic


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
    """
    for session in sessions:
        session.start()
    while not all(session.is_finished for session in sessions):
        is_stop_asked = stop_requested()
        for session in sessions:
            if is_stop_asked and session.can_stop_here:
                session.stop()
        left = [session for session in sessions if not session.is_finished]
        running = [
            session for session in left if session.next_step == min(one.next_step for one in left)
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


class Together(Protocol):
    """How the peers of one process train together without an exchange (`dogo_fed.baselines`)."""

    def begin_step(self, step: int) -> None:
        """Prepares the peers for a step that all of them are about to do."""
        ...

    def losses(
        self, step: int, proposals: Mapping[PeerId, Proposal]
    ) -> Mapping[PeerId, tuple[torch.Tensor, Traffic]]:
        """Returns what each peer minimises at the step, and what a site would send and get for it."""
        ...

    def end(self) -> None:
        """Prepares the peers for their last evaluation."""
        ...


def run_together(
    sessions: Sequence[PeerSession], stop_requested: Callable[[int], bool], together: Together
) -> list[PeerResult | None]:
    """Drives several peers in one process, which train together without an exchange.

    Args:
        sessions: the peers, in name order, all at the same step.
        stop_requested: asked before every step, with its number.
        together: how they train together.

    Returns:
        The peers' results in the order of the sessions, None for each if the run was stopped early.
    """
    for session in sessions:
        session.start()
    while not sessions[0].is_finished:
        step = sessions[0].next_step
        if stop_requested(step):
            for session in sessions:
                session.stop()
            break
        together.begin_step(step)
        for session in sessions:
            session.begin_step()
        proposals = {session.peer.id: session.proposal for session in sessions}
        losses = together.losses(step, proposals)
        for session in sessions:
            session.take_other_loss(*losses[session.peer.id])
            session.end_step()
    else:
        together.end()
        for session in sessions:
            session.save(again=True)
    return [session.finish() for session in sessions]
