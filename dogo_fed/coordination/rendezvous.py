"""Collects the distributions of one step and returns to each peer the mean of its teachers'.

A rendezvous never waits: it keeps what arrives, the coordinator closes it, and from then on it
answers. The mean does not depend on the order of arrival: where teachers count alike, their sum is
exact (`exact_sum.py`); else it is summed in the order of their names.

Where all other peers teach alike, each contribution is added once, and an answer takes away the
learner's own. So the work of a step grows with the number of peers, and not with its square: two
passes over each matrix, and one over the sums for each answer. With unequal weights, or weights of
the rows, each answer is a pass over the matrices of its teachers. All matrices are kept as long as
the step is, since a call may be repeated.
"""

# N = images in the step's batch

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from dogo_fed.contracts import (
    FloatMatrix,
    PeerId,
    SimilarityDistribution,
    TeacherSignal,
    Weighting,
)
from dogo_fed.coordination.exact_sum import Units, in_units, mean_of
from dogo_fed.coordination.state import RendezvousState
from dogo_fed.coordination.weighting import weighted_by_row
from dogo_fed.errors import StaleTicket

_FEWEST_SUMMED = 3


class Rendezvous:
    """The distributions of one step, open until `close`."""

    def __init__(self, step: int, opened_at_s: float) -> None:
        self.step = step
        self.opened_at_s = opened_at_s
        self.closed_at_s: float | None = None
        self.stop = False
        self._contributions: dict[PeerId, SimilarityDistribution] = {}
        self._arrived_at_s: dict[PeerId, float] = {}
        self._totals: list[Units] = []  # by view direction
        self._summed: set[PeerId] = set()

    @classmethod
    def restored(cls, state: RendezvousState, started_at_s: float) -> Rendezvous:
        """Returns the rendezvous of a snapshot."""
        made = cls(state.step, state.opened_s + started_at_s)
        if state.closed_s is not None:
            made.close(state.closed_s + started_at_s, stop=state.stop)
        made._contributions = dict(state.contributions)
        made._sum_up()
        made._arrived_at_s = {peer: at_s + started_at_s for peer, at_s in state.arrived_s.items()}
        return made

    def snapshot(self, started_at_s: float) -> RendezvousState:
        """Returns what has arrived and when, for `restored`."""
        closed_at_s = self.closed_at_s
        return RendezvousState(
            step=self.step,
            opened_s=self.opened_at_s - started_at_s,
            closed_s=None if closed_at_s is None else closed_at_s - started_at_s,
            stop=self.stop,
            contributions=dict(self._contributions),
            arrived_s={peer: at_s - started_at_s for peer, at_s in self._arrived_at_s.items()},
        )

    @property
    def contributors(self) -> tuple[PeerId, ...]:
        """The peers whose distributions count, in name order."""
        return tuple(sorted(self._contributions))

    def add(self, peer: PeerId, distribution: SimilarityDistribution, now_s: float) -> None:
        """Adds a peer's distribution; adding the same one again changes nothing.

        Raises:
            StaleTicket: the peer has already published another distribution for this step.
        """
        earlier = self._contributions.get(peer)
        if earlier is not None:
            if not _is_same(earlier, distribution):
                raise StaleTicket(
                    f"peer {peer!r} has already published another distribution for step {self.step}"
                )
            return
        assert self.closed_at_s is None, "a closed rendezvous takes nothing new"
        self._contributions[peer] = distribution
        self._arrived_at_s[peer] = now_s
        self._sum_up()

    def withdraw(self, peer: PeerId) -> None:
        """Removes a peer's distribution, if there is one, because a new process replaces it."""
        assert self.closed_at_s is None, "what has been answered can't be taken back"
        gone = self._contributions.pop(peer, None)
        self._arrived_at_s.pop(peer, None)
        if gone is not None and peer in self._summed:
            self._summed.remove(peer)
            self._totals = _added(self._totals, [gone], sign=-1)

    def close(self, now_s: float, *, stop: bool) -> None:
        """Closes the step; every answer from now on is final."""
        self.closed_at_s = now_s
        self.stop = stop

    def signal_for(
        self,
        peer: PeerId,
        next_step: int,
        weights: Mapping[str, float] | None = None,
        weighting: Weighting = Weighting.UNIFORM,
    ) -> TeacherSignal:
        """Returns the mean of the distributions of a peer's teachers.

        The peer itself need not have contributed.

        Args:
            peer: the learner.
            next_step: the step that the answer tells the peer to do next.
            weights: the weights of its teachers, relative to each other. A teacher that did not
                take part, or has weight 0, does not count. None takes all other peers with equal
                weights.
            weighting: how much each of them counts on top of that, image by image.
        """
        assert self.closed_at_s is not None, "only a closed rendezvous answers"
        weight_of = {
            name: 1.0 if weights is None else weights.get(name, 0.0)
            for name in self.contributors
            if name != peer
        }
        teachers = tuple(name for name, weight in weight_of.items() if weight > 0)
        mean = self._mean_of(teachers, [weight_of[name] for name in teachers], weighting)
        waited_s = self.closed_at_s - self._arrived_at_s.get(peer, self.closed_at_s)
        return TeacherSignal(
            mean_NN=None if mean is None else mean.p_NN,
            negative_entropy=0.0 if mean is None else mean.negative_entropy,
            teachers=teachers,
            next_step=next_step,
            stop=self.stop,
            waited_s=waited_s,
            reverse=None if mean is None else mean.reverse,
        )

    def _sum_up(self) -> None:
        """Adds what is not in the totals yet; of two contributions nobody needs one."""
        if len(self._contributions) < _FEWEST_SUMMED:
            return
        new = self._contributions.keys() - self._summed
        self._totals = _added(self._totals, [self._contributions[peer] for peer in new])
        self._summed |= new

    def _mean_of(
        self, teachers: Sequence[PeerId], weights: Sequence[float], weighting: Weighting
    ) -> SimilarityDistribution | None:
        """Returns the weighted mean, or None without a teacher; of one teacher, its very matrix."""
        given = [self._contributions[name] for name in teachers]
        if len(given) < 2:
            return given[0] if given else None
        if weighting is not Weighting.UNIFORM:
            return weighted_by_row(given, weights, weighting)
        if min(weights) < max(weights):
            return _weighted_mean(given, weights)
        others = [self._contributions[name] for name in self._summed.difference(teachers)]
        if self._summed.issuperset(teachers) and len(others) < len(given):
            totals = _added([total_NN.copy() for total_NN in self._totals], others, sign=-1)
        else:
            totals = _added([], given)
        return _with_entropies([mean_of(total_NN, len(given)) for total_NN in totals], given)


def _added(
    totals: list[Units], given: Iterable[SimilarityDistribution], *, sign: int = 1
) -> list[Units]:
    """Adds distributions to the totals by direction, in place, or takes them away; returns these."""
    add: np.ufunc = np.add if sign > 0 else np.subtract
    for distribution in given:
        terms = [in_units(p_NN) for p_NN in _directions(distribution)]
        for total_NN, term_NN in zip(totals, terms, strict=False):
            add(total_NN, term_NN, out=total_NN)
        totals = totals or terms
    return totals


def _directions(distribution: SimilarityDistribution) -> list[FloatMatrix]:
    """Returns its matrices: that of the first view to the second, and the reverse if there is one."""
    reverse = distribution.reverse
    return [distribution.p_NN] if reverse is None else [distribution.p_NN, reverse.p_NN]


def _with_entropies(
    means: Sequence[FloatMatrix], given: Sequence[SimilarityDistribution]
) -> SimilarityDistribution:
    """Returns the distribution of the mean matrices, with the mean negative entropies of `given`."""
    reverses = [distribution.reverse for distribution in given if distribution.reverse is not None]
    return SimilarityDistribution(
        p_NN=means[0],
        negative_entropy=float(
            np.average([distribution.negative_entropy for distribution in given])
        ),
        reverse=_with_entropies(means[1:], reverses) if reverses else None,
    )


def _is_same(first: SimilarityDistribution, second: SimilarityDistribution) -> bool:
    if first.negative_entropy != second.negative_entropy:
        return False
    if not np.array_equal(first.p_NN, second.p_NN):
        return False
    if first.reverse is None or second.reverse is None:
        return first.reverse is second.reverse
    return _is_same(first.reverse, second.reverse)


def _weighted_mean(
    given: Sequence[SimilarityDistribution], weights: Sequence[float]
) -> SimilarityDistribution:
    """Returns the weighted mean of two or more, summed in the given order.

    Weights are divided by the largest one, so that neither tiny nor huge ones overflow.
    """
    relative = [weight / max(weights) for weight in weights]
    reverses = [distribution.reverse for distribution in given if distribution.reverse is not None]
    return SimilarityDistribution(
        p_NN=_weighted_sum([distribution.p_NN for distribution in given], relative),
        negative_entropy=float(
            np.average([distribution.negative_entropy for distribution in given], weights=relative)
        ),
        reverse=_weighted_mean(reverses, weights) if reverses else None,
    )


def _weighted_sum(matrices: Sequence[FloatMatrix], relative: Sequence[float]) -> FloatMatrix:
    """Returns sum_k w_k P_k / sum_k w_k, in float32, in the order given."""
    total_NN = _times(matrices[0], relative[0]) + _times(matrices[1], relative[1])
    for p_NN, weight in zip(matrices[2:], relative[2:], strict=True):
        total_NN += _times(p_NN, weight)
    total_NN *= np.float32(1.0 / sum(relative))
    return total_NN


def _times(p_NN: FloatMatrix, weight: float) -> FloatMatrix:
    """Returns weight * P; with weight 1, the usual case, P itself without a copy."""
    return p_NN if weight == 1.0 else p_NN * np.float32(weight)
