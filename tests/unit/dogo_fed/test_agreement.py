"""What processes must agree on: what counts, what does not, and how a difference is told."""

from __future__ import annotations

import re

import pytest

from dogo_fed import agreement
from dogo_fed.agreement import differences, make_agreement
from dogo_fed.config_text import from_mapping
from dogo_fed.contracts import PeerId
from dogo_fed.coordination.coordinator import Coordinator
from dogo_fed.data.synthetic import synthetic
from dogo_fed.errors import SchemaMismatch
from tests.support.distributions import settings

COMPONENT = {"name": "x"}
PEER = dict.fromkeys(("backbone", "objective", "augmentation", "optimizer"), COMPONENT)


@pytest.fixture(autouse=True)
def _same_source(monkeypatch):
    """Every process runs the same source here, which takes a while to read."""
    monkeypatch.setattr(agreement, "source_digest", lambda: "0" * 32)


def config(**settings):
    content = {
        "peers": {"one": PEER, "two": PEER},
        "data": {"name": "synthetic", "options": {"size": 16}},
        **settings,
    }
    return from_mapping(content)


@pytest.fixture(scope="module")
def dataset():
    return synthetic(size=16, test_size=4)


def told_apart(mine, theirs):
    return differences(mine, theirs, my_name="the coordinator", their_name="peer 'one'")


def test_equal_runs_agree(dataset):
    mine, theirs = make_agreement(config(), dataset), make_agreement(config(), dataset)
    assert mine == theirs
    assert told_apart(mine, theirs) == []
    assert all(isinstance(value, str) and value for value in mine.values())


@pytest.mark.parametrize(
    ("key", "settings", "mine", "theirs"),
    [
        ("seed", {"seed": 3}, "0", "3"),
        ("batch_size", {"batch_size": 8}, "None", "8"),
        ("rounds", {"rounds": 2}, "None", "2"),
        ("steps", {"steps": 2}, "None", "2"),
        ("steps_per_round", {"steps_per_round": 5}, "None", "5"),
        ("data.name", {"data": {"name": "digits_m"}}, "synthetic", "digits_m"),
        ("data.default_rounds", {"data": {"name": "synthetic", "default_rounds": 3}}, "10", "3"),
        ("exchange.enabled", {"exchange": {"enabled": False}}, "True", "False"),
        ("exchange.deadline_s", {"exchange": {"deadline_s": 5}}, "120.0", "5.0"),
        ("exchange.encoding", {"exchange": {"encoding": "log8"}}, "float32", "log8"),
        ("exchange.symmetric", {"exchange": {"symmetric": True}}, "False", "True"),
        ("exchange.every_steps", {"exchange": {"every_steps": 3}}, "1", "3"),
        (
            "exchange.graph",
            {"exchange": {"graph": {"two": {"one": 2}}}},
            "None",
            "two<-one:2.0",
        ),
        ("peers", {"peers": {"one": PEER, "three": PEER}}, "one,two", "one,three"),
    ],
)
def test_a_shared_setting_that_differs_is_named_with_both_values(
    dataset, key, settings, mine, theirs
):
    phrases = told_apart(
        make_agreement(config(), dataset), make_agreement(config(**settings), dataset)
    )
    assert phrases == [f"{key} is {theirs} at peer 'one' and {mine} at the coordinator"]


@pytest.mark.parametrize(
    "settings",
    [
        {"peers": {"two": PEER, "one": PEER}},
        {"peers": {"one": {**PEER, "backbone": {"name": "y"}, "distill_weight": 5}, "two": PEER}},
        {"peers": {"one": {**PEER, "kl_temperature": 3, "distill_warmup_steps": 9}, "two": PEER}},
        {"data": {"name": "synthetic", "options": {"folder": "elsewhere"}}},
        {"host": "local"},
        {"device": "cuda"},
        {"eval": {"knn_k": 3}},
        {"ray": {"cpus_per_peer": 2}},
    ],
    ids=lambda settings: next(iter(settings)),
)
def test_what_is_a_peers_own_business_does_not_count(dataset, settings):
    mine, theirs = make_agreement(config(), dataset), make_agreement(config(**settings), dataset)
    assert told_apart(mine, theirs) == []


def test_the_order_in_which_a_graph_is_written_does_not_count(dataset):
    def agreed(graph):
        peers = dict.fromkeys(("one", "two", "three"), PEER)
        return make_agreement(config(peers=peers, exchange={"graph": graph}), dataset)

    mine = agreed({"one": {"two": 1, "three": 2}, "two": {"one": 1}})
    assert told_apart(mine, agreed({"two": {"one": 1}, "one": {"three": 2, "two": 1}})) == []
    (phrase,) = told_apart(mine, agreed({"one": {"two": 1, "three": 2.5}, "two": {"one": 1}}))
    assert phrase == (
        "exchange.graph is one<-three:2.5,one<-two:1.0,two<-one:1.0 at peer 'one' and "
        "one<-three:2.0,one<-two:1.0,two<-one:1.0 at the coordinator"
    )


def test_other_images_are_told_apart(dataset):
    mine = make_agreement(config(), dataset)
    other = synthetic(size=16, test_size=4, seed=1)
    phrases = told_apart(mine, make_agreement(config(), other))
    assert [phrase.split()[0] for phrase in phrases] == ["data_fingerprint"]
    fewer = synthetic(size=12, test_size=4)
    phrases = told_apart(mine, make_agreement(config(), fewer))
    assert {phrase.split()[0] for phrase in phrases} == {"data_fingerprint", "data_size"}


def test_another_protocol_version_is_told_apart(dataset, monkeypatch):
    mine = make_agreement(config(), dataset)
    monkeypatch.setattr(agreement, "PROTOCOL_VERSION", 99)
    (phrase,) = told_apart(mine, make_agreement(config(), dataset))
    assert phrase.startswith("protocol_version is 99 at peer")


def test_the_configuration_hash_is_told_only_where_nothing_else_tells(dataset):
    mine = make_agreement(config(), dataset)
    theirs = make_agreement(config(seed=3), dataset)
    assert mine["configuration_hash"] != theirs["configuration_hash"]
    assert not any("configuration_hash" in phrase for phrase in told_apart(mine, theirs))
    (phrase,) = told_apart(mine, {**mine, "configuration_hash": "0"})
    assert phrase.startswith("configuration_hash is 0 at peer 'one'")


def test_a_value_that_only_one_side_has_is_missing_at_the_other():
    assert told_apart({"a": "1"}, {}) == ["a is missing at peer 'one' and 1 at the coordinator"]
    assert told_apart({}, {"a": "1"}) == ["a is 1 at peer 'one' and missing at the coordinator"]


def test_many_and_long_differences_stay_readable():
    theirs = {str(index): "x" * 500 for index in range(9)}
    phrases = told_apart({}, theirs)
    assert len(phrases) == 6
    assert phrases[-1] == "and 4 more differ"
    assert all(len(phrase) < 200 for phrase in phrases)


@pytest.mark.parametrize(
    ("encoding", "named"),
    [
        ({"encoding": "float16"}, "exchange.encoding is float16 at peer one and top_k at the"),
        ({"encoding": "top_k", "top_k": 4}, "exchange.top_k is 4 at peer one and 8 at the"),
    ],
)
def test_a_join_with_another_encoding_is_refused_by_that_name(dataset, encoding, named):
    """Both sides would read other numbers out of the bytes."""
    ours, theirs = (
        make_agreement(config(exchange=exchange), dataset)
        for exchange in ({"encoding": "top_k", "top_k": 8}, encoding)
    )
    peers = (PeerId("one"), PeerId("two"))
    coordinator = Coordinator(settings(peers, agreement=ours), 0.0, lambda event: None)
    coordinator.join(peers[1], "two-1", ours, 0.0)
    with pytest.raises(SchemaMismatch, match=re.escape(named)):
        coordinator.join(peers[0], "one-1", theirs, 0.0)
