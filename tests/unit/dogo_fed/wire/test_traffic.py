"""What a whole run moves, by its settings: how often, how much, and to whom."""

from __future__ import annotations

import pytest

from dogo_fed.config import RunConfig
from dogo_fed.plan import Plan
from dogo_fed.wire.traffic import RunTraffic
from tests.support.comparison_cells import shared_config

NAMES = ("big", "middle", "small")
PLAN = Plan(total_steps=10, steps_per_round=10, exchange_every_steps=4)
MATRIX = 4 * 256**2


def config(**exchange: object) -> RunConfig:
    return shared_config(0, NAMES, exchange=exchange)


@pytest.mark.parametrize(
    ("graph", "learners"),
    [
        (None, NAMES),
        ({"big": {"small": 1.0}}, ("big",)),
        ({"big": {"small": 1.0, "middle": 0.0}, "small": {}}, ("big",)),
    ],
)
def test_who_has_a_teacher_gets_as_much_as_it_sends(graph, learners) -> None:
    traffic = RunTraffic.of(config(graph=graph), PLAN)
    assert traffic is not None
    assert (traffic.exchanges, traffic.each, traffic.learners) == (3, MATRIX, learners)
    assert traffic.sent == 3 * MATRIX
    assert traffic.both_ways == pytest.approx(3 * MATRIX * (1 + len(learners) / 3))


def test_without_an_exchange_nothing_travels() -> None:
    assert RunTraffic.of(config(enabled=False), PLAN) is None
