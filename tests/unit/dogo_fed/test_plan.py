"""The plan of a run: which steps exchange, and where rounds end."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from dogo_fed.plan import Plan


@settings(max_examples=100, derandomize=True)
@given(st.integers(1, 40), st.integers(1, 9), st.integers(0, 50))
def test_the_first_steps_exchange_as_well(total_steps, every_steps, dense_steps):
    plan = Plan(total_steps, 10, every_steps, dense_steps)
    exchanging = [step for step in range(100) if step < dense_steps or step % every_steps == 0]
    assert [step for step in range(100) if plan.exchanges_at(step)] == exchanging
    assert plan.num_exchanges == len([step for step in exchanging if step < total_steps])
    for step in range(80):
        assert plan.next_exchange(step) == min(one for one in exchanging if one >= step)


@settings(max_examples=50, derandomize=True)
@given(st.integers(1, 60), st.integers(1, 20))
def test_rounds_cut_the_steps_without_gap_or_overlap(total_steps, steps_per_round):
    plan = Plan(total_steps, steps_per_round)
    rounds = [plan.round_of(step) for step in range(total_steps)]
    assert rounds[0] == 1
    assert rounds[-1] == plan.num_rounds
    ends = [step for step in range(total_steps) if plan.ends_round(step)]
    assert ends == [step for step in range(total_steps) if rounds[step] not in rounds[step + 1 :]]
    assert all(rounds.count(number) == steps_per_round for number in range(1, plan.num_rounds))
