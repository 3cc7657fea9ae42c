"""From finished cells to the answer: scores by peer, method and seed, what they cost, what they show."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import cast

from dogo_fed.compare.cost import Cost, costs_of
from dogo_fed.compare.experiment import (
    BASELINE_METHODS,
    DOGO,
    OFFLINE,
    SOLO,
    Cell,
    Column,
    Experiment,
    Method,
)
from dogo_fed.compare.origin import check_images, check_targets, origins
from dogo_fed.compare.protocols import read_protocol
from dogo_fed.compare.standing import finished_cells
from dogo_fed.compare.statistics import (
    PairedDifference,
    Spread,
    Verdict,
    paired_difference,
    spread,
)
from dogo_fed.reporting.summary import PeerSummary, RunSummary

ACCURACIES = {"linear_top1": "linear probe", "knn_top1": "kNN"}
HEALTH = {
    "rankme": "effective rank",
    "feature_std": "spread of the features",
    "alignment": "alignment",
    "uniformity": "uniformity",
}
"""Taken where a run has no accuracy, because its images have no labels."""
RUN_METRICS = {**ACCURACIES, **HEALTH}
"""Scores of every run's summary, and how they are called; any other metric is "protocol/condition"."""


@dataclass(frozen=True, slots=True)
class Unit:
    """How a metric is written.

    Attributes:
        name: goes behind its title.
        scale: what its values are multiplied by.
        digits: decimals.
        is_judged: whether more is better, so that a difference helps or hurts.
    """

    name: str
    scale: float
    digits: int
    is_judged: bool


PERCENT = Unit("top-1, %", 100.0, 1, is_judged=True)
NO_LABELS = Unit("no labels, so not judged", 1.0, 3, is_judged=False)


def unit_of(metric: str) -> Unit:
    """Returns how the scores of a metric are written."""
    return NO_LABELS if metric in HEALTH else PERCENT


PRIVATE, CENTRAL = Column(Method.PRIVATE), Column(Method.CENTRAL)
TEACHER = Column(Method.TEACHER)

ALONE = (PRIVATE, SOLO)
"""How a peer learns with nobody else: from its private images, and with the anchors too."""

_OTHERS = (OFFLINE, TEACHER, *map(Column, BASELINE_METHODS), CENTRAL)
"""What else DoGo and its variants are held against."""

LEAST_LOSS = 0.003
"""A loss that does not count as one: 0.3 percentage points."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One peer in all columns, by one metric.

    Attributes:
        scores: column to seed to score; accuracies are 0 to 1.
        backbone, objective: what the peer is.
    """

    peers: str
    data: str
    metric: str
    peer: str
    backbone: str
    objective: str
    scores: Mapping[Column, Mapping[int, float]]

    @property
    def unit(self) -> Unit:
        """How its scores are written."""
        return unit_of(self.metric)

    def spread(self, column: Column) -> Spread:
        """Returns mean and deviation of a column's scores over its seeds."""
        return spread(list(self.scores.get(column, {}).values()))

    def difference(self, column: Column, other: Column) -> PairedDifference:
        """Returns the column minus the other, over the seeds that both have."""
        return paired_difference(self.scores.get(column, {}), self.scores.get(other, {}))


@dataclass(frozen=True, slots=True, kw_only=True)
class OverPeers:
    """What DoGo, a variant of it or a baseline does for the learners of a table, against each alone.

    Attributes:
        alone: how they learn alone: "solo", or "private" without the anchors.
        not_below: learners whose mean over seeds is not below that of learning alone.
        safe: learners the interval of whose gain does not reach below -LEAST_LOSS.
        peers: how many learners there are; those that do not count are none of them.
        worst: the learner with the smallest gain.
        worst_gain: its mean gain.
        mean_gain: of the mean over the learners, paired by seed.
        central_gain: the same of all images in one place, over the seeds that all three have.
        way_to_central: the mean gain as a share of that, over the same seeds; NaN unless it is shown to
            be a gain.
    """

    alone: Column
    not_below: int
    safe: int
    peers: int
    worst: str
    worst_gain: float
    mean_gain: PairedDifference
    central_gain: PairedDifference
    way_to_central: float


@dataclass(frozen=True, slots=True, kw_only=True)
class CellReport:
    """How a cell ended: "finished", or "failed", "blocked", "stopped", "missing" with a sentence."""

    id: str
    folder: str
    outcome: str
    message: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """The answer.

    Attributes:
        methods: the columns of the main table, in order.
        variants: those of the second table, all of DoGo; may be none.
        rows: grouped by peers, data set and metric.
        origins: for source, device and each package its values, each with the cells it is about.
    """

    experiment: Experiment
    methods: tuple[Column, ...]
    variants: tuple[Column, ...]
    rows: tuple[Row, ...]
    costs: tuple[Cost, ...]
    cells: tuple[CellReport, ...]
    origins: Mapping[str, Mapping[str, Sequence[str]]]

    @property
    def columns(self) -> tuple[Column, ...]:
        """All of them, methods first."""
        return self.methods + self.variants

    def references(self, column: Column) -> tuple[Column, ...]:
        """Returns what a column is compared with: DoGo, a variant of it, or a baseline; else nothing."""
        if column == DOGO and DOGO in self.methods:
            wanted: tuple[Column, ...] = (*ALONE, *_OTHERS)
        elif column in self.variants:
            wanted = (*ALONE, DOGO, *_OTHERS)
        elif column.method.is_baseline:
            wanted = ALONE
        elif column == TEACHER:
            wanted = (SOLO,)
        else:
            wanted = ()
        return tuple(reference for reference in wanted if reference in self.methods)

    def counted(self, rows: Sequence[Row]) -> list[Row]:
        """Returns the rows of a table without those of peers that do not count."""
        return [row for row in rows if row.peer not in self.experiment.not_counted]

    def over_peers(self, rows: Sequence[Row], column: Column) -> list[OverPeers]:
        """Returns what DoGo, a variant or a baseline does for all learners of a table together.

        There is one for each way of learning alone that is among the methods; none of them if fewer than
        two learners count, or nothing is judged.
        """
        if not self._is_summed_up(rows):
            return []
        alone = [one for one in self.references(column) if one in ALONE]
        found = (self._over_peers(self.counted(rows), column, one) for one in alone)
        return [one for one in found if one is not None]

    def against_others(
        self, rows: Sequence[Row], column: Column
    ) -> Mapping[Column, PairedDifference]:
        """Returns a column minus each method that is no learning alone, of the mean over the learners.

        Only those that can be told; none of them where `over_peers` tells nothing either.
        """
        if not self._is_summed_up(rows):
            return {}
        others = [one for one in self.references(column) if one not in ALONE]
        found = {other: self.mean_difference(rows, column, other) for other in others}
        return {other: paired for other, paired in found.items() if paired.n > 0}

    def _is_summed_up(self, rows: Sequence[Row]) -> bool:
        """Whether anything is said of the learners of a table together."""
        return len(self.counted(rows)) > 1 and rows[0].unit.is_judged

    def _over_peers(self, rows: Sequence[Row], column: Column, other: Column) -> OverPeers | None:
        """Returns the same against one way of learning alone; None if no peer has scores of both."""
        gains = {row.peer: row.difference(column, other) for row in rows}
        known = {peer: gain for peer, gain in gains.items() if math.isfinite(gain.mean)}
        if not known:
            return None
        worst = min(known, key=lambda peer: known[peer].mean)
        mine, alone, pooled = (_mean_over(rows, one) for one in (column, other, CENTRAL))
        central_gain = paired_difference(
            {seed: score for seed, score in pooled.items() if seed in mine}, alone
        )
        way = math.nan
        if central_gain.verdict is Verdict.HELPS:
            over_the_same = {seed: score for seed, score in mine.items() if seed in pooled}
            way = paired_difference(over_the_same, alone).mean / central_gain.mean
        return OverPeers(
            alone=other,
            not_below=sum(gain.is_not_below for gain in known.values()),
            safe=sum(gain.is_shown_above(-LEAST_LOSS) for gain in known.values()),
            peers=len(known),
            worst=worst,
            worst_gain=known[worst].mean,
            mean_gain=paired_difference(mine, alone),
            central_gain=central_gain,
            way_to_central=way,
        )

    def mean_difference(
        self, rows: Sequence[Row], column: Column, other: Column
    ) -> PairedDifference:
        """Returns the column minus the other, of the mean over the learners of a table, paired by seed."""
        counted = self.counted(rows)
        return paired_difference(_mean_over(counted, column), _mean_over(counted, other))

    def tables(self) -> list[tuple[str, list[Row]]]:
        """Returns title and rows of each pair of peers and data set and each metric."""
        return [
            (f"{peers}, {data}: {RUN_METRICS.get(metric, metric)}", list(rows))
            for (peers, data, metric), rows in groupby(
                self.rows, lambda row: (row.peers, row.data, row.metric)
            )
        ]


def compare(
    experiment: Experiment, cells: Sequence[Cell], reports: Sequence[CellReport]
) -> Comparison:
    """Returns the comparison of all cells that are finished.

    Args:
        experiment: what is compared.
        cells: all of it.
        reports: how each cell ended.

    Raises:
        ConfigError: cells with the same data settings were trained, or evaluated, on different images.
        CheckpointError: a cell's files are not as this version writes them.
    """
    methods = tuple(Column(method) for method in Method if method in set(experiment.methods))
    variants = tuple(Column(Method.DOGO, name) for name in experiment.variants)
    finished = finished_cells(cells)
    check_images(finished)
    check_targets(finished, experiment.protocols)
    return Comparison(
        experiment=experiment,
        methods=methods,
        variants=variants,
        rows=tuple(_rows(experiment, methods + variants, finished)),
        costs=tuple(costs_of(experiment, methods + variants, finished)),
        cells=tuple(reports),
        origins=origins(finished, experiment.protocols),
    )


@dataclass(slots=True)
class _Gathered:
    """The scores of one peer by one metric, while they are gathered."""

    scores: dict[Column, dict[int, float]] = field(default_factory=dict)
    backbone: str = ""
    objective: str = ""


def _rows(
    experiment: Experiment, columns: Sequence[Column], finished: Iterable[tuple[Cell, RunSummary]]
) -> Iterable[Row]:
    found: dict[tuple[str, str, str, str], _Gathered] = {}
    for cell, summary in finished:
        if cell.column not in columns:
            continue
        protocols = [read_protocol(cell.folder, name) for name in experiment.protocols]
        for name in cell.learners:
            peer = summary["peers"][name]
            for metric, score in _scores(name, peer, protocols):
                key = (cell.peers, cell.data, metric, name)
                gathered = found.setdefault(key, _Gathered())
                gathered.scores.setdefault(cell.column, {})[cell.seed] = score
                gathered.backbone = peer["backbone"]
                if not cell.column.method.has_own_loss or not gathered.objective:
                    gathered.objective = peer["objective"]
    order = {metric: place for place, metric in enumerate(dict.fromkeys(key[2] for key in found))}
    for key in sorted(found, key=lambda key: (key[0], key[1], order[key[2]], key[3])):
        gathered = found[key]
        yield Row(
            peers=key[0],
            data=key[1],
            metric=key[2],
            peer=key[3],
            backbone=gathered.backbone,
            objective=gathered.objective,
            scores=gathered.scores,
        )


def _mean_over(rows: Sequence[Row], column: Column) -> dict[int, float]:
    """Returns the mean over the rows by seed, for the seeds that all of them have."""
    scores = [row.scores.get(column, {}) for row in rows]
    seeds = set.intersection(*map(set, scores)) if scores else set[int]()
    return {seed: spread([by_seed[seed] for by_seed in scores]).mean for seed in sorted(seeds)}


def _scores(
    name: str, peer: PeerSummary, protocols: Iterable[Mapping[str, Mapping[str, float]]]
) -> Iterable[tuple[str, float]]:
    values = cast(Mapping[str, float | None], peer)
    known = [metric for metric in ACCURACIES if values[metric] is not None]
    for metric in known or HEALTH:
        value = values.get(metric)
        if value is not None:
            yield metric, value
    for protocol in protocols:
        for metric, value in protocol.get(name, {}).items():
            if math.isfinite(value):
                yield metric, value
