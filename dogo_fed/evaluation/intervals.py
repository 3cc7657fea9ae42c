"""How sure an accuracy is, given how many test images it was counted on."""

from __future__ import annotations

import math

Z_95 = 1.959963984540054
"""Quantile of the normal distribution that leaves 2.5 % on each side."""


def wilson(num_correct: int, num_test: int, z: float = Z_95) -> tuple[float, float]:
    """Returns the Wilson score interval of a proportion, both ends from 0 to 1.

    The test images are taken as independent draws. Unlike the textbook interval it stays within
    0..1 and does not shrink to a point when everything, or nothing, is correct.

    Args:
        num_correct: successes, 0 to num_test.
        num_test: trials, at least 1.
        z: normal quantile; the default gives 95 %.

    Source: Wilson, "Probable inference, the law of succession, and statistical inference", JASA
    1927; Brown, Cai, DasGupta, "Interval estimation for a binomial proportion", Statist. Sci. 2001.
    """
    share = num_correct / num_test
    spread = z * z / num_test
    centre = (share + spread / 2) / (1 + spread)
    half = math.sqrt(spread * (share * (1 - share) + spread / 4)) / (1 + spread)
    return max(0.0, centre - half), min(1.0, centre + half)
