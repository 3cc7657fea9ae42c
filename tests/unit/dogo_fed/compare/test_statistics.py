"""Paired differences: against scipy, by hand, and at the borders of a verdict."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from dogo_fed.compare.statistics import (
    PairedDifference,
    Verdict,
    paired_difference,
    spread,
)

SCORES = st.lists(
    st.tuples(st.floats(0, 1, allow_subnormal=False), st.floats(0, 1, allow_subnormal=False)),
    min_size=2,
    max_size=12,
)


def by_seed(values):
    return dict(enumerate(values))


def of(low: float | None, high: float | None) -> Verdict:
    return PairedDifference(n=3, mean=0.0, std=1.0, low=low, high=high).verdict


@given(SCORES)
def test_the_interval_is_scipys(pairs) -> None:
    first, second = zip(*pairs, strict=True)
    found = paired_difference(by_seed(first), by_seed(second))
    differences = np.subtract(first, second)
    error = scipy.stats.sem(differences)
    assert found.n == len(pairs)
    assert found.mean == pytest.approx(differences.mean(), abs=1e-12)
    low, high = found.mean, found.mean
    if error > 1e-9:
        low, high = scipy.stats.ttest_rel(first, second).confidence_interval(0.95)
    assert found.low == pytest.approx(low, abs=1e-7)
    assert found.high == pytest.approx(high, abs=1e-7)


@given(SCORES)
def test_exchanging_the_two_turns_everything_round(pairs) -> None:
    first, second = (by_seed(values) for values in zip(*pairs, strict=True))
    there, back = paired_difference(first, second), paired_difference(second, first)
    assert (there.low, there.high) == pytest.approx((-back.high, -back.low), abs=1e-12)
    turned = {Verdict.HELPS: Verdict.HURTS, Verdict.HURTS: Verdict.HELPS}
    assert back.verdict is turned.get(there.verdict, Verdict.NOT_SHOWN)


def test_by_hand() -> None:
    # Differences 1, 2, 3, 6: mean 3, variance (4 + 1 + 0 + 9) / 3, t(3) = 3.182 from a printed table.
    found = paired_difference({0: 11, 1: 22, 2: 33, 3: 46}, {0: 10, 1: 20, 2: 30, 3: 40})
    assert found.mean == 3
    assert found.std == pytest.approx(math.sqrt(14 / 3))
    half = 3.182 * math.sqrt(14 / 3) / 2
    assert found.low == pytest.approx(3 - half, abs=1e-3)
    assert found.high == pytest.approx(3 + half, abs=1e-3)
    assert found.verdict is Verdict.NOT_SHOWN


@pytest.mark.parametrize(
    ("degrees", "t"), [(1, 12.706), (2, 4.303), (4, 2.776), (9, 2.262), (30, 2.042)]
)
def test_t_is_that_of_a_printed_table(degrees: int, t: float) -> None:
    scores = by_seed(np.random.default_rng(degrees).normal(size=degrees + 1))
    found = paired_difference(scores, dict.fromkeys(scores, 0.0))
    half = t * found.std / math.sqrt(found.n)
    assert (found.low, found.high) == pytest.approx(
        (found.mean - half, found.mean + half), abs=5e-4 * found.std
    )


def test_pairing_sees_what_the_spread_over_seeds_hides() -> None:
    solo = by_seed([0.60, 0.70, 0.80, 0.90])
    dogo = by_seed([0.61, 0.712, 0.811, 0.91])
    assert spread(list(solo.values())).std > 0.1
    assert paired_difference(dogo, solo).verdict is Verdict.HELPS


def test_only_seeds_that_both_have_are_pairs() -> None:
    found = paired_difference({0: 0.5, 1: 0.7, 5: 0.9}, {1: 0.6, 2: 0.1, 5: 0.8})
    assert found.n == 2
    assert found.mean == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [
        (0.01, 0.02, Verdict.HELPS),
        (-0.02, -0.01, Verdict.HURTS),
        (-0.01, 0.01, Verdict.NOT_SHOWN),
        (0.0, 0.01, Verdict.NOT_SHOWN),
        (-0.01, 0.0, Verdict.NOT_SHOWN),
        (0.0, 0.0, Verdict.NOT_SHOWN),
        (5e-324, 1.0, Verdict.HELPS),
        (None, None, Verdict.NOT_SHOWN),
    ],
)
def test_borders_of_the_verdict(low, high, verdict) -> None:
    assert of(low, high) is verdict


def test_equal_differences_know_nothing_of_their_spread() -> None:
    """A test of 32 images has steps of 3 points; two seeds soon agree on one."""
    found = paired_difference({0: 0.83, 1: 0.93}, {0: 0.80, 1: 0.90})
    assert found.low == pytest.approx(0.03) and found.verdict is Verdict.NOT_SHOWN
    assert paired_difference({0: 0.8, 1: 0.9}, {0: 0.8, 1: 0.9}).verdict is Verdict.NOT_SHOWN


@pytest.mark.parametrize("right", [(282, 730, 1247), (1346, 406, 924)])
def test_equal_means_are_no_loss_whatever_rounding_makes_of_them(right) -> None:
    """The first two seeds gain what the third loses, in whole images of a test of 2,000."""
    alone = by_seed([number / 2000 for number in right])
    taught = by_seed(
        [(number + more) / 2000 for number, more in zip(right, (1, 2, -3), strict=True)]
    )
    found = paired_difference(taught, alone)
    assert -1e-15 < found.mean < 0 and found.is_not_below
    assert not paired_difference({0: 0.5, 1: 0.5}, {0: 0.5, 1: 0.5005}).is_not_below


def test_an_interval_without_width_shows_nothing_but_that_scores_are_the_same() -> None:
    limit = -0.003
    assert not paired_difference({0: 0.81, 1: 0.91}, {0: 0.80, 1: 0.90}).is_shown_above(limit)
    assert paired_difference({0: 0.8, 1: 0.9}, {0: 0.8, 1: 0.9}).is_shown_above(limit)
    assert paired_difference({0: 0.81, 1: 0.9102}, {0: 0.80, 1: 0.90}).is_shown_above(limit)
    assert not paired_difference({0: 0.81, 1: 0.95}, {0: 0.80, 1: 0.90}).is_shown_above(limit)
    assert not paired_difference({0: 0.8}, {0: 0.8}).is_shown_above(limit), "no interval"


def test_without_two_pairs_there_is_no_interval() -> None:
    one = paired_difference({3: 0.9}, {3: 0.1})
    assert (one.n, one.mean, one.low, one.high) == (1, pytest.approx(0.8), None, None)
    assert one.verdict is Verdict.NOT_SHOWN and math.isnan(one.std)
    none = paired_difference({0: 0.9}, {1: 0.1})
    assert none.n == 0 and math.isnan(none.mean) and none.low is None


def test_spread_is_that_of_a_sample() -> None:
    found = spread([1.0, 2.0, 4.0])
    assert (found.n, found.mean) == (3, pytest.approx(7 / 3))
    assert found.std == pytest.approx(float(np.std([1, 2, 4], ddof=1)))
    assert math.isnan(spread([]).mean) and math.isnan(spread([2.0]).std)


@pytest.mark.parametrize("level", [0, 1, -1, 95, math.nan])
def test_an_impossible_level_is_refused(level: float) -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        paired_difference({0: 1.0, 1: 2.0}, {0: 1.0, 1: 1.0}, level)
