"""From settings and the number of images to a run's schedule and plan."""

from __future__ import annotations

import pytest

from dogo_fed.config_text import from_mapping
from dogo_fed.engine.fit import make_plan, make_schedule
from dogo_fed.errors import ConfigError
from dogo_fed.plan import Plan

PEER = {
    "backbone": {"name": "small_cnn", "options": {"width": 2}},
    "objective": {"name": "simclr", "options": {"hidden_dim": 8, "output_dim": 4}},
    "augmentation": {"name": "none", "options": {}},
    "optimizer": {"name": "adam", "options": {"lr": 0.001}},
}


def run_config(**others):
    return from_mapping({"peers": {"cnn": PEER}, "data": {"name": "synthetic"}, **others})


def test_a_batch_larger_than_the_data_set_is_refused():
    with pytest.raises(ConfigError, match=r"batch_size=33 .*synthetic.* 32 training images"):
        make_schedule(run_config(batch_size=33), 32)
    assert make_schedule(run_config(batch_size=32), 32).steps_per_epoch == 1


def test_the_schedule_is_that_of_the_runs_seed():
    first, second, other = (
        make_schedule(run_config(batch_size=8, seed=seed), 32) for seed in (1, 1, 2)
    )
    assert first.digest(3) == second.digest(3) != other.digest(3)


@pytest.mark.parametrize(
    ("others", "total_steps", "steps_per_round"),
    [
        ({}, 40, 4),  # the data set's default of 10 rounds, an epoch each
        ({"rounds": 3}, 12, 4),
        ({"steps": 7}, 7, 4),
        ({"steps": 7, "steps_per_round": 5}, 7, 5),
        ({"rounds": 3, "steps_per_round": 5}, 15, 5),
    ],
)
def test_the_plan_is_as_long_as_asked_for(others, total_steps, steps_per_round):
    config = run_config(batch_size=8, **others)
    assert make_plan(config, make_schedule(config, 32)) == Plan(total_steps, steps_per_round)


@pytest.mark.parametrize("every_steps", [1, 2, 3, 7])
def test_every_kth_step_from_the_first_on_exchanges(every_steps):
    config = run_config(batch_size=8, exchange={"every_steps": every_steps})
    plan = make_plan(config, make_schedule(config, 32))
    exchanging = [step for step in range(30) if plan.exchanges_at(step)]
    assert exchanging == list(range(0, 30, every_steps))
    for step in range(20):
        assert plan.next_exchange(step) == min(one for one in exchanging if one >= step)
