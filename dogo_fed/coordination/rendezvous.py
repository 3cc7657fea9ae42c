"""Gathers the distributions of one ticket and gives each peer the mean of the others'.

A rendezvous never waits: it holds what has come, is closed by the coordinator, and answers from
then on. The mean is summed in peer-name order, so it does not depend on the order of arrival.
"""

# N = images in the step's batch

from __future__ import annotations

import numpy as np

from dogo_fed.contracts import FloatMatrix, PeerId, SimilarityDistribution, TeacherSignal
from dogo_fed.errors import StaleTicket


class Rendezvous:
    """One step's meeting point."""

    def __init__(self, step: int, opened_at_s: float) -> None:
        self.step = step
        self.opened_at_s = opened_at_s
        self.closed_at_s: float | None = None
        self.stop = False
        self._contributions: dict[PeerId, SimilarityDistribution] = {}
        self._arrived_at_s: dict[PeerId, float] = {}

    @property
    def contributors(self) -> tuple[PeerId, ...]:
        """The peers whose distributions count, in name order."""
        return tuple(sorted(self._contributions))

    def add(self, peer: PeerId, distribution: SimilarityDistribution, now_s: float) -> None:
        """Takes a peer's distribution; a repetition of the same one changes nothing.

        Raises:
            StaleTicket: the peer has already given another distribution for this ticket.
        """
        earlier = self._contributions.get(peer)
        if earlier is not None:
            is_same = earlier.negative_entropy == distribution.negative_entropy
            if not (is_same and np.array_equal(earlier.p_NN, distribution.p_NN)):
                raise StaleTicket(
                    f"peer {peer!r} has already published another distribution for step {self.step}"
                )
            return
        assert self.closed_at_s is None, "a closed rendezvous takes nothing new"
        self._contributions[peer] = distribution
        self._arrived_at_s[peer] = now_s

    def withdraw(self, peer: PeerId) -> None:
        """Forgets what a peer gave, if it gave anything: another process of it takes its place."""
        assert self.closed_at_s is None, "what has been answered can't be taken back"
        self._contributions.pop(peer, None)
        self._arrived_at_s.pop(peer, None)

    def close(self, now_s: float, *, stop: bool) -> None:
        """Ends the gathering; every answer from now on is final."""
        self.closed_at_s = now_s
        self.stop = stop

    def signal_for(self, peer: PeerId, next_step: int) -> TeacherSignal:
        """Returns the mean of the other peers' distributions, for a contributor or a latecomer."""
        assert self.closed_at_s is not None, "only a closed rendezvous answers"
        teachers = tuple(name for name in self.contributors if name != peer)
        others = [self._contributions[name] for name in teachers]
        waited_s = self.closed_at_s - self._arrived_at_s.get(peer, self.closed_at_s)
        return TeacherSignal(
            mean_NN=_mean([other.p_NN for other in others]),
            negative_entropy=float(np.mean([other.negative_entropy for other in others]))
            if others
            else 0.0,
            teachers=teachers,
            next_step=next_step,
            stop=self.stop,
            waited_s=waited_s,
        )


def _mean(matrices: list[FloatMatrix]) -> FloatMatrix | None:
    """Returns the mean in the order given; the matrix itself, not a copy, where there is but one."""
    if len(matrices) < 2:
        return matrices[0] if matrices else None
    total_NN = matrices[0] + matrices[1]
    for p_NN in matrices[2:]:
        total_NN += p_NN
    total_NN *= np.float32(1.0 / len(matrices))
    return total_NN
