"""Paired differences over seeds: mean, Student t interval, and what they show.

Two methods that are run with the same seed share initial weights, order of images and augmentations, so
their difference varies less over seeds than either of them. See docs/design/evidence.md.
"""

# n = seeds

from __future__ import annotations

import enum
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from scipy.special import stdtrit

from dogo_fed.evaluation.intervals import LEVEL

_NO_SPREAD = 1e-12
"""Below any true spread of accuracies, above what rounding makes of equal ones."""

_ROUNDING = 1e-9
"""The same of a mean difference: one image in a test of a million would be a thousand times as much."""


class Verdict(enum.Enum):
    """What a paired difference shows, for a score of which more is better.

    HELPS: the interval lies above 0.
    HURTS: the interval lies below 0.
    NOT_SHOWN: it holds 0, or there is no interval, or all differences are equal, so that nothing is
        known of their spread. Not the same as "makes no difference".
    """

    HELPS = "helps"
    HURTS = "hurts"
    NOT_SHOWN = "not shown"


@dataclass(frozen=True, slots=True)
class Spread:
    """Values over seeds.

    Attributes:
        n: how many.
        mean: NaN if there is none.
        std: sample standard deviation (divisor n - 1); NaN for n < 2.
    """

    n: int
    mean: float
    std: float


@dataclass(frozen=True, slots=True)
class PairedDifference:
    """First minus second, over the seeds that both have.

    Attributes:
        n: pairs.
        mean: of the differences; NaN if there is none.
        std: sample standard deviation of the differences; NaN for n < 2.
        low, high: ends of the interval for the mean difference; None for n < 2.
    """

    n: int
    mean: float
    std: float
    low: float | None
    high: float | None

    @property
    def verdict(self) -> Verdict:
        """What the interval shows."""
        if self.low is None or self.high is None or self.std < _NO_SPREAD:
            return Verdict.NOT_SHOWN
        if self.low > 0:
            return Verdict.HELPS
        return Verdict.HURTS if self.high < 0 else Verdict.NOT_SHOWN

    @property
    def is_not_below(self) -> bool:
        """Whether the mean is not below 0; equal means are not, whatever rounding makes of them."""
        return self.mean > -_ROUNDING

    def is_shown_above(self, limit: float) -> bool:
        """Whether the interval does not reach below a limit that is below 0.

        Of differences that are all equal only those of 0 show it, for then the scores are the same.
        """
        if self.low is None:
            return False
        return abs(self.mean) < _ROUNDING if self.std < _NO_SPREAD else self.low >= limit


def spread(values_n: Sequence[float]) -> Spread:
    """Returns mean and sample standard deviation."""
    n = len(values_n)
    mean = statistics.fmean(values_n) if n > 0 else math.nan
    return Spread(n, mean, statistics.stdev(values_n) if n > 1 else math.nan)


def paired_difference(
    first: Mapping[int, float], second: Mapping[int, float], level: float = LEVEL
) -> PairedDifference:
    """Returns first - second with its Student t interval, mean +- t(n - 1) * std / sqrt(n).

    Args:
        first: seed to score.
        second: likewise; seeds that only one of them has are left out.
        level: of the interval, between 0 and 1.

    Raises:
        ValueError: the level is not between 0 and 1.
    """
    if not 0 < level < 1:
        raise ValueError(f"the level of an interval is between 0 and 1, not {level}")
    differences = spread([first[seed] - second[seed] for seed in sorted(first.keys() & second)])
    n, mean, std = differences.n, differences.mean, differences.std
    if n < 2:
        return PairedDifference(n, mean, std, None, None)
    # ttest_rel of scipy.stats would warn, and give NaN, where all differences are equal
    half = float(stdtrit(n - 1, (1 + level) / 2)) * std / math.sqrt(n)
    return PairedDifference(n, mean, std, mean - half, mean + half)
