"""How sure an accuracy is, given how many test images it was counted on."""

from __future__ import annotations

import math
from statistics import NormalDist

LEVEL = 0.95
"""Of the intervals."""


def wilson(num_correct: int, num_test: int) -> tuple[float, float]:
    """Returns the Wilson score interval of a proportion, both ends from 0 to 1.

    The test images are taken as independent draws. Unlike the textbook interval it stays within
    0..1 and does not shrink to a point when everything, or nothing, is correct.

    Args:
        num_correct: successes, 0 to num_test.
        num_test: trials, at least 1.

    It is written out, since scipy.stats has it too but takes more than a second to be imported, and
    every process that evaluates needs it.

    Source: Wilson, "Probable inference, the law of succession, and statistical inference", JASA
    1927; Brown, Cai, DasGupta, "Interval estimation for a binomial proportion", Statist. Sci. 2001.
    """
    z = NormalDist().inv_cdf((1 + LEVEL) / 2)
    centre = (num_correct + z**2 / 2) / (num_test + z**2)
    spread = math.sqrt(num_correct * (num_test - num_correct) / num_test + z**2 / 4)
    half = z * spread / (num_test + z**2)
    low = 0.0 if num_correct == 0 else centre - half  # which rounding would miss
    return low, 1.0 if num_correct == num_test else centre + half
