"""How sure an accuracy is, given how many test images it was counted on."""

from __future__ import annotations

LEVEL = 0.95
"""Of the intervals."""


def wilson(num_correct: int, num_test: int) -> tuple[float, float]:
    """Returns the Wilson score interval of a proportion, both ends from 0 to 1.

    The test images are taken as independent draws. Unlike the textbook interval it stays within
    0..1 and does not shrink to a point when everything, or nothing, is correct.

    Args:
        num_correct: successes, 0 to num_test.
        num_test: trials, at least 1.

    Source: Wilson, "Probable inference, the law of succession, and statistical inference", JASA
    1927; Brown, Cai, DasGupta, "Interval estimation for a binomial proportion", Statist. Sci. 2001.
    """
    from scipy.stats import (
        binomtest,  # here, since it takes half a second and training does without
    )

    interval = binomtest(num_correct, num_test).proportion_ci(LEVEL, method="wilson")
    return float(interval.low), float(interval.high)
