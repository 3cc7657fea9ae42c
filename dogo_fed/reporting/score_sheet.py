"""What a protocol found, as values: a sheet of scores, and the means over draws."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from dogo_fed.contracts import Score
from dogo_fed.provenance import DataFacts

_SHARES = ("top1", "rankme_share")
"""Metrics that people read as percentages."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoreSheet:
    """What one protocol found, for one or more encoders.

    Attributes:
        protocol: by name.
        source: the run's name, or the weights file.
        dataset: what it was measured on.
        fingerprint: of that data set.
        seed: of subsets and noise.
        options: of the protocol, defaults included; plain values.
        scores: by encoder, in the order of the protocol.
        origin: what computed them: digest of the source, device and libraries, each with its version.
        states: by encoder, the digest of the peer's state that it is of; None if not known.
        targets: by title, the facts of other data sets that the protocol measured on.
    """

    protocol: str
    source: str
    dataset: str
    fingerprint: str
    seed: int
    options: Mapping[str, object]
    scores: Mapping[str, Sequence[Score]]
    origin: Mapping[str, str]
    states: Mapping[str, str | None]
    targets: Mapping[str, DataFacts] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoreMean:
    """One condition over its draws.

    Attributes:
        mean: over the draws.
        std: sample deviation over the draws; NaN for one draw.
        low, high: the interval of the measurement if there is one draw, otherwise NaN.
    """

    condition: str
    metric: str
    group: str
    level: float
    level_name: str
    level_is_share: bool
    num_draws: int
    mean: float
    std: float
    low: float
    high: float


def means(scores: Sequence[Score]) -> list[ScoreMean]:
    """Returns a mean per condition and metric, in the order of their first score."""
    cells: dict[tuple[str, str], list[Score]] = {}
    for score in scores:
        cells.setdefault((score.condition, score.metric), []).append(score)
    return [_mean(members) for members in cells.values()]


def is_share(metric: str) -> bool:
    """Whether a metric is a share from 0 to 1."""
    return metric in _SHARES


def _mean(members: Sequence[Score]) -> ScoreMean:
    first, values = members[0], [score.value for score in members]
    is_one = len(members) == 1
    return ScoreMean(
        condition=first.condition,
        metric=first.metric,
        group=first.group,
        level=first.level,
        level_name=first.level_name,
        level_is_share=first.level_is_share,
        num_draws=len(members),
        mean=statistics.fmean(values),
        std=math.nan if is_one else statistics.stdev(values),
        low=first.low if is_one else math.nan,
        high=first.high if is_one else math.nan,
    )
