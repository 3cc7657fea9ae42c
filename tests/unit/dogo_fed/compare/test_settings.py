"""Which settings a variant may have, and a solo cell may differ in."""

from __future__ import annotations

import dataclasses

import pytest

from configs.compose import compose_run
from dogo_fed.compare.settings import differing, is_of_teaching
from dogo_fed.config import AnchorsAt

RUN = compose_run([])


@pytest.mark.parametrize(
    "path",
    [
        "exchange.every_steps",
        "exchange.graph.wide.resnet",
        "peers.wide.distill_weight",
        "peers.wide.distill_reduction",
        "peers.wide.distill_warmup_steps",
        "peers.wide.kl_temperature",
        "peers.wide.objective.options.publish",
    ],
)
def test_settings_of_the_teaching(path: str) -> None:
    assert is_of_teaching(path, RUN)


@pytest.mark.parametrize(
    "path",
    [
        "exchange.enabled",
        "exchange",
        "batch_size",
        "peers.wide.frozen_from",
        "peers.wide.objective.name",
        "peers.wide.objective.options.temperature",
        "peers.wide.objective.options.kl_temperature",
        "peers.wide.backbone.options.distill_weight",
        "peers.wide.objective.options.published",
        "data.options.exchange.every_steps",
    ],
)
def test_settings_that_a_peer_alone_has_too(path: str) -> None:
    assert not is_of_teaching(path, RUN)


@pytest.mark.parametrize("path", ["exchange.every_steps", "exchange.dense_steps"])
def test_which_steps_exchange_matters_to_a_peer_alone_where_anchors_come_with_them(
    path: str,
) -> None:
    run = dataclasses.replace(RUN, anchors_at=AnchorsAt.EXCHANGES)
    assert is_of_teaching(path, RUN) and not is_of_teaching(path, run)


def test_what_is_null_is_as_not_set() -> None:
    assert differing({"a": 1, "b": None, "c": 2}, {"a": 1, "c": 3, "d": 4}) == ["c", "d"]
