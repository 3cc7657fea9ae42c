"""Settings that change nothing are told, and those that change something are not."""

from __future__ import annotations

import pytest

from configs.compose import compose_run
from configs.shorthand import in_full
from dogo_fed.config.without_effect import without_effect
from dogo_fed.engine.loaded_run import load_run
from dogo_fed.run.prepare import notes_of
from tests.support.tiny_run import TINY


def told(*settings: str) -> list[str]:
    words = list(without_effect(compose_run([*TINY, *in_full(["peers=pair", *settings])])))
    assert all(" has no effect: " in one for one in words)
    return [one.partition(" ")[0] for one in words]


@pytest.mark.parametrize(
    ("setting", "gives_it_effect"),
    [
        ("exchange.top_k=4", ["exchange.encoding=top_k"]),
        ("exchange.dense_steps=2", ["exchange.every_steps=3"]),
        ("peers.wide.teacher_momentum=0.9", ["peers.wide.teacher=ema"]),
        ("peers.wide.kl_temperature=0.3", ["exchange.rows=null"]),
        ("peers.wide.features_temperature=0.3", ["exchange.rows=features"]),
        ("partition.anchors=0.5", ["partition=iid"]),
        ("partition.least_images=4", ["partition=iid"]),
        ("partition.alpha=1", ["partition=dirichlet"]),
        ("partition.classes_per_peer=1", ["partition=classes"]),
        ("anchors_at=exchanges", ["exchange.every_steps=2", "partition=iid"]),
    ],
)
def test_a_setting_without_effect_is_told_and_with_it_is_not(setting, gives_it_effect) -> None:
    without = ["exchange.rows=features"] if "kl_temperature" in setting else []
    assert told(setting, *without) == [setting.partition("=")[0]]
    assert told(setting, *gives_it_effect) == []


def test_settings_of_one_partition_have_none_in_another() -> None:
    assert told("partition=iid", "partition.alpha=1") == ["partition.alpha"]
    assert told("partition=dirichlet", "partition.classes_per_peer=1") == [
        "partition.classes_per_peer"
    ]


def test_a_wish_for_private_passes_between_exchanges_has_none_where_all_steps_exchange() -> None:
    assert told("anchors_at=exchanges", "partition=iid") == ["anchors_at"]


def test_a_coordinator_does_not_say_of_its_sites_that_they_have_no_private_images() -> None:
    far = ["host=flower", "anchors_at=exchanges", "exchange.every_steps=4", "anchor_share=1"]
    assert told(*far) == []


RARE = "peers.wide.rare_distill_weight=1"


def test_weights_of_dense_and_of_rare_exchanges_are_told_where_there_are_none_of_them() -> None:
    assert told(RARE) == ["peers.wide.distill_weight"], "it is replaced at all steps"
    assert told(RARE, "exchange.every_steps=2") == ["peers.wide.distill_weight"]
    assert told(RARE, "exchange.every_steps=2", "exchange.dense_steps=1") == []
    assert told(RARE, "exchange.dense_steps=1") == [], "the weight changes after one step"
    dense = ["exchange.every_steps=2", "exchange.dense_steps=3"]  # of three steps
    assert told(*dense, RARE) == ["exchange.every_steps", "peers.wide.rare_distill_weight"]


def test_looking_ahead_hides_nothing_in_rounds_of_one_step() -> None:
    assert told("exchange.lookahead=1") == []
    assert told("exchange.lookahead=1", "steps_per_round=1") == ["exchange.lookahead"]


def test_whether_an_epoch_is_one_step_is_known_when_the_images_are() -> None:
    config = compose_run([*TINY, "exchange.lookahead=1", "steps_per_round=null", "batch_size=96"])
    assert not list(without_effect(config))
    (note,) = [one for one in notes_of(load_run(config)) if "has no effect" in one]
    assert note.startswith("exchange.lookahead has no effect")


def test_one_teacher_is_not_weighed_against_another() -> None:
    certain = "exchange.weighting=certain"
    assert told(certain) == ["exchange.weighting"]
    assert told(certain, "peers=trio") == []
    assert told(certain, "peers=trio", "+exchange/graph=trio_ring") == ["exchange.weighting"]


def test_a_chunk_that_holds_a_whole_pass_is_told() -> None:
    assert told("peers.wide.chunk_size=16") == ["peers.wide.chunk_size"]
    assert told("peers.wide.chunk_size=8") == []
    parts = "peers.wide.data_parallel=3"  # of 6, 5 and 5 images
    assert told("peers.wide.chunk_size=6", parts) == ["peers.wide.chunk_size"]
    assert told("peers.wide.chunk_size=5", parts) == []


def test_peers_that_exchange_nothing_are_told_what_is_about_an_exchange() -> None:
    alone = ("exchange.enabled=false", "exchange.top_k=4", "peers.wide.gate=agreement")
    assert told(*alone, "exchange.every_steps=2", "exchange.lookahead=1") == [
        "exchange.lookahead",
        "exchange.top_k",
        "exchange.every_steps",
        "peers.wide.gate",
    ]
    anchors = ("partition=iid", "anchors_at=exchanges", "exchange.every_steps=2")
    assert told("exchange.enabled=false", *anchors) == [], "that is where passes hold anchors"


def test_nothing_is_told_of_the_defaults() -> None:
    assert told() == []
    assert told("exchange.enabled=false") == []
