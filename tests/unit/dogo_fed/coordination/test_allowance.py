"""An allowance: full at first, refilled by time, never more than full."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dogo_fed.coordination.allowance import Allowance


@given(st.lists(st.tuples(st.floats(0, 5), st.integers(1, 10)), max_size=60))
def test_no_stretch_of_time_gives_more_than_the_store_and_what_came_back(asked):
    allowance, now_s, taken = Allowance(per_s=2.0, most=10.0), 100.0, []
    for pause_s, amount in asked:
        now_s += pause_s
        if allowance.take(amount, now_s):
            taken.append((now_s, amount))
    for index, (start_s, _) in enumerate(taken):
        total = 0
        for at_s, amount in taken[index:]:
            total += amount
            assert total <= 10.0 + 2.0 * (at_s - start_s) + 1e-6


def test_what_is_owed_has_to_come_back_first():
    allowance = Allowance(per_s=2.0, most=10.0)
    assert allowance.wait_s(10, 0.0) == 0.0
    allowance.owe(30, 0.0)
    assert not allowance.take(1, 10.0)
    assert allowance.wait_s(1, 10.0) == pytest.approx(0.5)
    assert allowance.take(1, 10.5)
    assert allowance.wait_s(1_000_000, 1000.0) == 0.0, "a full store is enough for anything"
