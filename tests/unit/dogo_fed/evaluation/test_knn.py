"""How many neighbours vote where nobody has said it."""

from __future__ import annotations

import pytest

from dogo_fed.evaluation.knn import fitting_k, usual_k


@pytest.mark.parametrize("number", [1, 2, 9, 10, 19, 54, 200, 1999, 2000, 2001, 50_000])
def test_the_usual_neighbours_are_a_tenth_of_the_bank_up_to_the_published_number(number):
    k = usual_k(number)
    assert 1 <= k <= min(number, 200)
    assert k == 1 or 10 * k <= number
    assert k == 200 or 10 * (k + 1) > number


@pytest.mark.parametrize(
    ("given", "number", "k"), [(5, 9, 5), (9, 9, 9), (50, 9, 9), (None, 90, 9)]
)
def test_no_more_neighbours_vote_than_there_are(given, number, k):
    assert fitting_k(given, number) == k
