"""A run's records as arrays per peer: what the curves are drawn from."""

# S = steps from a peer's first to its last, R = rounds reported by a peer

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from dogo_fed.contracts import Event, PeerResult, Record, RoundReport, StepReport

FloatArray: TypeAlias = npt.NDArray[np.float64]

_MOST_STEPS = 5_000_000
_LARGEST = 1e12


@dataclass(slots=True)
class PeerSeries:
    """What one peer reported, in step order.

    Attributes:
        steps_S: every step number from the peer's first to its last; those of a long absence are
            left out but for one.
        ssl_loss_S: the objective's value; NaN where the peer was away.
        mutual_kl_S: nats; NaN where the peer was away or nobody taught it.
        compute_s, wait_s, exchange_s: seconds per step, means over all steps.
        bytes_up, bytes_down: bytes per step, means over all steps.
        measured_R: steps done at each evaluation.
        knn_top1_R: 0 to 1.
        untrained: accuracy before training; NaN if not measured.
        rankme_R, rankme_untrained: the same for the effective rank of the features.
        label: name, and backbone and objective if they are known.
    """

    name: str
    steps_S: FloatArray
    ssl_loss_S: FloatArray
    mutual_kl_S: FloatArray
    compute_s: float
    wait_s: float
    exchange_s: float
    bytes_up: float
    bytes_down: float
    measured_R: FloatArray
    knn_top1_R: FloatArray
    untrained: float
    rankme_R: FloatArray
    rankme_untrained: float
    label: str

    @property
    def last_step(self) -> float:
        """The last step or evaluation of this peer; 0 if there was none."""
        return float(max([0.0, *self.steps_S[-1:], *self.measured_R[-1:]]))


@dataclass(slots=True)
class _Reports:
    """The records of one peer, sorted into kinds; of several for the same step the last counts."""

    steps: dict[int, StepReport] = field(default_factory=dict)
    rounds: dict[int, RoundReport] = field(default_factory=dict)
    result: PeerResult | None = None


def collect_series(records: Iterable[Record]) -> tuple[list[PeerSeries], list[Event]]:
    """Returns the series of every peer in name order, and the events as they come."""
    reports: dict[str, _Reports] = {}
    events: list[Event] = []
    for record in records:
        if isinstance(record, Event):
            events.append(record)
            continue
        peer = reports.setdefault(record.peer, _Reports())
        if isinstance(record, StepReport):
            peer.steps[record.step] = record
        elif isinstance(record, RoundReport):
            peer.rounds[record.step] = record
        else:
            peer.result = record
    return [_series(name, reports[name]) for name in sorted(reports)], events


def _series(name: str, reports: _Reports) -> PeerSeries:
    steps = list(reports.steps.values())
    span = _span(reports.steps)
    present = [reports.steps.get(step) for step in span]
    rounds = [reports.rounds[done] for done in sorted(reports.rounds)]
    result = reports.result
    first = rounds[0] if rounds and rounds[0].round == 0 else None
    return PeerSeries(
        name=name,
        steps_S=_array(span),
        ssl_loss_S=_drawable(r.ssl_loss if r else np.nan for r in present),
        mutual_kl_S=_drawable(r.mutual_kl if r and r.num_teachers else np.nan for r in present),
        compute_s=_mean(report.compute_s for report in steps),
        wait_s=_mean(report.wait_s for report in steps),
        exchange_s=_mean(report.exchange_s for report in steps),
        bytes_up=_mean(report.bytes_up for report in steps),
        bytes_down=_mean(report.bytes_down for report in steps),
        measured_R=_array(report.step for report in rounds),
        knn_top1_R=_drawable(report.knn_top1 for report in rounds),
        untrained=_untrained("knn_top1", first, result),
        rankme_R=_drawable(report.rankme for report in rounds),
        rankme_untrained=_untrained("rankme", first, result),
        label=name if result is None else f"{name}  ({result.backbone}, {result.objective})",
    )


def _untrained(metric: str, first: RoundReport | None, result: PeerResult | None) -> float:
    """Returns the value before training, from the result or from the report of round 0."""
    if result is not None:
        return float(getattr(result, f"{metric}_untrained"))
    return float("nan") if first is None else float(getattr(first, metric))


def at_exchanges(steps_S: FloatArray, values_S: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Returns the series at the steps that exchange, where only every k-th does.

    Between them there is no value, and a line through single values is invisible. Exchanges at which
    nobody taught stay gaps.
    """
    known = np.flatnonzero(np.isfinite(values_S))
    every = int(np.diff(known).min()) if len(known) > 1 else 1
    chosen = slice(int(known[0]) % every, None, every) if every > 1 else slice(None)
    return steps_S[chosen], values_S[chosen]


def smoothed(values_S: FloatArray, window: int) -> FloatArray:
    """Returns the centred moving mean over `window` values; what is not finite is left out of it.

    At the ends the window is cut off, so no value is invented. NaN where the window holds nothing.
    """
    known_S = np.isfinite(values_S)
    kernel = np.ones(window)
    total_S = np.convolve(np.where(known_S, values_S, 0.0), kernel, mode="full")
    count_S = np.convolve(known_S.astype(np.float64), kernel, mode="full")
    start = (window - 1) // 2
    inside = slice(start, start + len(values_S))
    count_S, total_S = np.round(count_S[inside]), total_S[inside]
    mean_S: FloatArray = np.full(len(values_S), np.nan)
    np.divide(total_S, count_S, out=mean_S, where=count_S > 0)
    return mean_S


def thinned(values_S: FloatArray, most: int = 2000) -> FloatArray:
    """Returns at most `most` of the values, evenly spaced, for drawing."""
    return values_S[:: max(1, -(-len(values_S) // most))]


def _span(steps: Collection[int]) -> Sequence[int]:
    """Returns every step from the first to the last, or few of those that nobody reported.

    A step that lies far outside, by mistake or on purpose, must not cost memory.
    """
    if not steps:
        return ()
    first, last = min(steps), max(steps)
    if last - first < _MOST_STEPS:
        return range(first, last + 1)
    return sorted({*steps, *(step + 1 for step in steps)} - {last + 1})


def _drawable(values: Iterable[float]) -> FloatArray:
    """Returns the values; NaN, a gap, in place of one that no axis can show."""
    array = _array(values)
    return np.where(np.abs(array) <= _LARGEST, array, np.nan)


def _array(values: Iterable[float]) -> FloatArray:
    return np.fromiter(values, dtype=np.float64)


def _mean(values: Iterable[float]) -> float:
    array = _array(values)
    array = array[np.abs(array) <= _LARGEST]
    return float(array.mean()) if len(array) else 0.0
