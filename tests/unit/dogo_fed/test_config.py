"""Configuration: what is right comes back as it was, and what is wrong is named in one ConfigError."""

from __future__ import annotations

import copy
import dataclasses

import pytest

from configs.compose import compose_run
from dogo_fed import config_text
from dogo_fed.config import (
    ComponentConfig,
    DataConfig,
    ExchangeConfig,
    PeerConfig,
)
from dogo_fed.config_text import from_mapping, load_yaml, to_mapping
from dogo_fed.errors import ConfigError
from dogo_fed.objectives.mutual import Reduction
from tests.support.config_errors import the_error

PEER = {
    "backbone": {"name": "small_cnn", "options": {"width": 4}},
    "objective": {"name": "simclr", "options": {}},
    "augmentation": {"name": "none", "options": {}},
    "optimizer": {"name": "adam", "options": {"lr": 0.001}},
}
MINIMAL = {"peers": {"one": PEER, "two": PEER}, "data": {"name": "synthetic"}}


def changed(key: str, value: object) -> dict:
    """Returns a valid mapping with one thing changed or added; dots lead down."""
    content = copy.deepcopy(MINIMAL)
    *path, last = key.split(".")
    inner = content
    for part in path:
        inner = inner.setdefault(part, {})
    inner[last] = value
    return content


def test_the_minimal_mapping_is_right():
    """The errors below come from the one thing that each changes."""
    assert from_mapping(MINIMAL).batch_size is None  # follows from the number of images


UNKNOWN = ["foo", "eval.foo", "peers.one.foo", "peers.one.backbone.foo", "data.foo", "ray.foo"]


@pytest.mark.parametrize("key", UNKNOWN)
def test_an_unknown_key_is_named(key):
    assert f"'{key}'" in the_error(lambda: from_mapping(changed(key, 1)))


WRONG_TYPES = [
    ("steps", 1.5),
    ("steps", True),
    ("steps", "abc"),
    ("rounds", "3"),
    ("batch_size", 2.0),
    ("seed", True),
    ("seed", None),
    ("threads_per_peer", True),
    ("device", 0),
    ("run_dir", 5),
    ("host", "mars"),
    ("host", None),
    ("ray.placement", "HERE"),
    ("exchange.enabled", 1),
    ("exchange.enabled", "no"),
    ("exchange.deadline_s", "abc"),
    ("exchange.deadline_s", True),
    ("exchange.symmetric", 1),
    ("exchange.every_steps", 1.5),
    ("exchange.every_steps", True),
    ("exchange.graph", "chain"),
    ("exchange.graph", ["one", "two"]),
    ("exchange.graph", {"one": "two"}),
    ("exchange.graph", {"one": {"two": "much"}}),
    ("exchange.graph", {"one": {"two": True}}),
    ("peers.one.distill_warmup_steps", 0.5),
    ("eval", "all"),
    ("eval", None),
    ("eval.knn_k", 1.0),
    ("checkpoint.every_steps", 1.5),
    ("data", None),
    ("data.name", 5),
    ("peers", None),
    ("peers", []),
    ("peers.one", "resnet"),
    ("peers.one.backbone", "resnet18"),
    ("peers.one.backbone.options", None),
    ("peers.one.distill_weight", "heavy"),
    ("peers.one.kl_temperature", True),
    ("peers.one.distill_reduction", "sum"),
]


@pytest.mark.parametrize(("key", "value"), WRONG_TYPES, ids=[f"{k}={v}" for k, v in WRONG_TYPES])
def test_a_wrong_type_is_named(key, value):
    assert key.split(".")[-1] in the_error(lambda: from_mapping(changed(key, value)))


NAN, INFINITY = float("nan"), float("inf")
IMPOSSIBLE = [
    ("batch_size", 1),
    ("batch_size", -8),
    ("seed", -1),
    ("seed", 2**63),
    ("rounds", 0),
    ("steps", 0),
    ("steps", -5),
    ("steps_per_round", 0),
    ("threads_per_peer", 0),
    ("device", "tpu"),
    ("peers", {}),
    ("exchange.deadline_s", 0),
    ("exchange.deadline_s", INFINITY),
    ("exchange.join_deadline_s", -1),
    ("exchange.reconnect_s", NAN),
    ("exchange.every_steps", 0),
    ("exchange.graph", {}),
    ("exchange.graph", {"one": {}}),
    ("exchange.graph", {"one": {"two": -1.0}}),
    ("exchange.graph", {"one": {"two": NAN}}),
    ("exchange.graph", {"one": {"two": INFINITY}}),
    ("exchange.graph", {"one": {"two": 0.0}}),
    ("exchange.graph", {"one": {"one": 1.0}}),
    ("exchange.graph", {"three": {"two": 1.0}}),
    ("exchange.graph", {"one": {"three": 1.0}}),
    ("peers.one.distill_warmup_steps", -1),
    ("eval.knn_every_rounds", 0),
    ("eval.knn_k", 0),
    ("eval.knn_temperature", 0),
    ("eval.linear_epochs", 0),
    ("eval.batch_size", 0),
    ("checkpoint.every_steps", 0),
    ("checkpoint.keep", 1),
    ("recovery.max_restarts", -1),
    ("recovery.silence_s", 0),
    ("coordinator.port", -1),
    ("coordinator.port", 65536),
    ("ray.gpus_per_peer", 1.5),
    ("ray.gpus_per_peer", -1),
    ("ray.gpus_per_peer", INFINITY),
    ("ray.cpus_per_peer", -1),
    ("ray.cpus_per_peer", INFINITY),
    ("ray.placement_timeout_s", 0),
    ("data.default_rounds", 0),
    ("data.name", ""),
    ("peers.one.kl_temperature", 0),
    ("peers.one.kl_temperature", -0.1),
    ("peers.one.kl_temperature", INFINITY),
    ("peers.one.distill_weight", -1),
    ("peers.one.rare_distill_weight", -1),
    ("peers.one.distill_weight", NAN),
    ("peers.one.distill_weight", INFINITY),
    ("peers.one.objective.name", " "),
]


@pytest.mark.parametrize(("key", "value"), IMPOSSIBLE, ids=[f"{k}={v}" for k, v in IMPOSSIBLE])
def test_an_impossible_value_is_named(key, value):
    assert key.split(".")[-1] in the_error(lambda: from_mapping(changed(key, value)))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("batch_size", 2),
        ("seed", 2**63 - 1),
        ("peers.one.distill_weight", 0),
        ("ray.gpus_per_peer", 0.5),
        ("ray.gpus_per_peer", 2),
        ("ray.cpus_per_peer", 0),
        ("recovery.max_restarts", 0),
        ("coordinator.port", 65535),
        ("checkpoint.keep", 2),
        ("exchange.deadline_s", 1),
        ("exchange.every_steps", 1),
        ("exchange.graph", {"one": {"two": 1}}),
        ("exchange.graph", {"one": {"two": 0.5}, "two": {}}),
        ("peers.one.distill_warmup_steps", 0),
    ],
)
def test_the_borders_of_what_is_possible_are_possible(key, value):
    config = from_mapping(changed(key, value))
    found = to_mapping(config)
    for part in key.split("."):
        found = found[part]
    assert found == value


def test_rounds_and_steps_together_are_refused():
    content = {**MINIMAL, "rounds": 1, "steps": 1}
    assert "rounds=1, steps=1" in the_error(lambda: from_mapping(content))
    assert "rounds=1, steps=1" in the_error(lambda: compose_run(["rounds=1", "steps=1"]))


@pytest.mark.parametrize("names", [("cnn", "CNN"), ("a", "b", "A"), ("Straße", "STRASSE")])
def test_names_that_share_a_folder_are_refused(names):
    message = the_error(lambda: from_mapping(changed("peers", dict.fromkeys(names, PEER))))
    assert names[0] in message


@pytest.mark.parametrize("name", ["", ".", "..", "../up", "a/b", "a b", "-x", "x" * 65, "é", "a\n"])
def test_names_that_are_no_folder_names_are_refused(name):
    assert repr(name) in the_error(lambda: from_mapping(changed("peers", {name: PEER})))


@pytest.mark.parametrize("name", ["a", "resnet-18_v2.0", "0", "x" * 64])
def test_names_that_are_folder_names_are_accepted(name):
    assert list(from_mapping(changed("peers", {name: PEER})).peers) == [name]


@pytest.mark.parametrize("key", ["peers", "data", "peers.one.backbone", "peers.one.backbone.name"])
def test_what_is_missing_is_named(key):
    content = copy.deepcopy(MINIMAL)
    *path, last = key.split(".")
    inner = content
    for part in path:
        inner = inner[part]
    del inner[last]
    assert last in the_error(lambda: from_mapping(content))


@pytest.mark.parametrize("text", [None, "a: [", "- 1\n- 2\n", "just text", ""])
def test_a_file_that_is_no_configuration_is_named(tmp_path, text):
    path = tmp_path / "config.yaml"
    if text is not None:
        path.write_text(text)
    with pytest.raises(ConfigError, match=r"config\.yaml"):
        load_yaml(path)


def test_whoever_builds_it_directly_is_checked_too():
    component = ComponentConfig(name="x")
    with pytest.raises(ConfigError, match="kl_temperature"):
        PeerConfig(
            backbone=component,
            objective=component,
            augmentation=component,
            optimizer=component,
            kl_temperature=0.0,
        )
    with pytest.raises(ConfigError, match="default_rounds"):
        DataConfig(name="x", default_rounds=0)


def test_a_config_can_not_be_changed():
    config = from_mapping(MINIMAL)
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.seed = 1  # type: ignore[misc]
    with pytest.raises(TypeError):
        ComponentConfig(name="x").options["width"] = 1  # type: ignore[index]


def test_whether_anything_is_exchanged():
    assert from_mapping(MINIMAL).exchanges
    assert not from_mapping(changed("exchange.enabled", False)).exchanges
    assert not from_mapping(changed("peers", {"one": PEER})).exchanges


@pytest.mark.parametrize(
    ("graph", "said"),
    [
        ({"one": {"two": 1.0, "one": 1.0}}, "exchange.graph.one.one: a peer can't be its own"),
        ({"one": {"two": -3.0}}, "exchange.graph.one.two must be a weight of 0 or more, not -3.0"),
        ({"one": {"two": 0.0}}, "exchange.graph.one has only weights of 0"),
        ({}, "no edge, so no peer would learn from another; say exchange.enabled=false"),
        ({"one": {"zoe": 1.0}}, "names 'zoe', but the peers of the run are one, two"),
        ({"zoe": {"one": 1.0}}, "names 'zoe', but the peers of the run are one, two"),
    ],
)
def test_what_is_wrong_with_a_graph_is_said(graph, said):
    assert said in the_error(lambda: from_mapping(changed("exchange.graph", graph)))


AS_PUBLISHED = ("peers=pair", "peers.resnet.distill_weight=0.390625")


def test_variants_are_named_as_the_settings_are():
    config = compose_run(
        [
            "peers=pair",
            "exchange.symmetric=true",
            "exchange.every_steps=3",
            "exchange.graph={wide: {resnet: 2}}",
            "peers.wide.distill_warmup_steps=5",
            "peers.resnet.kl_temperature=0.2",
            "peers.resnet.distill_reduction=mean_over_elements",
            "peers.resnet.distill_weight=0.390625",
            "exchange.deadline_s=7",
        ]
    )
    assert config.variants == {
        "exchange.symmetric": True,
        "exchange.every_steps": 3,
        "exchange.graph": {"wide": {"resnet": 2.0}},
        "peers.resnet.distill_reduction": "mean_over_elements",
        "peers.resnet.kl_temperature": 0.2,
        "peers.wide.distill_warmup_steps": 5,
    }
    assert dataclasses.replace(config, exchange=ExchangeConfig(enabled=False)).variants == {}


def test_another_teacher_is_a_variant_where_it_is_used():
    ours = {
        "peers.wide.teacher": "ema",
        "peers.wide.teacher_momentum": 0.9,
        "peers.wide.teacher_temperature": 0.2,
        "peers.wide.teacher_temperature_end": 0.05,
    }
    settings = [f"{path}={value}" for path, value in ours.items()]
    config = compose_run([*AS_PUBLISHED, *settings])
    assert config.variants == ours
    alone = dataclasses.replace(config, exchange=ExchangeConfig(enabled=False))
    assert alone.variants == {}


def test_settings_that_sites_decide_are_no_variants_of_the_run():
    settings = ["exchange.symmetric=true", "peers.wide.teacher=ema", "peers.resnet.gate=agreement"]
    config = compose_run([*AS_PUBLISHED, *settings])
    named = set(config.variants)
    assert named == {"exchange.symmetric", "peers.wide.teacher", "peers.resnet.gate"}
    assert config.variants_without(()) == config.variants
    assert set(config.variants_without(["wide"])) == named - {"peers.wide.teacher"}
    assert config.variants_without(["wide", "resnet"]) == {"exchange.symmetric": True}


def test_what_a_peer_publishes_is_a_variant_unless_it_is_the_default():
    config = compose_run(AS_PUBLISHED)

    def variants(publish):
        objective = ComponentConfig(name="simsiam", options={"publish": publish})
        peers = {
            name: dataclasses.replace(peer, objective=objective, distill_weight=0.390625)
            for name, peer in config.peers.items()
        }
        return dataclasses.replace(config, peers=peers).variants

    assert variants("projector") == {}
    assert variants("predictor") == {
        f"peers.{name}.objective.options.publish": "predictor" for name in config.peers
    }


def test_a_baseline_is_named_where_dogos_variants_are():
    config = compose_run(["exchange.enabled=false", "host=local"])
    baseline = ComponentConfig(name="fedavg", options={"heads": False})
    found = dataclasses.replace(config, baseline=baseline).variants
    assert found == {"baseline": "fedavg", "baseline.options.heads": False}


def test_the_weight_of_the_published_code_by_default():
    peer = from_mapping(MINIMAL).peers["one"]
    assert peer.distill_weight == 100 / 256
    assert peer.distill_reduction is Reduction.BATCHMEAN
    assert peer.kl_temperature == 0.1


def test_a_component_says_what_it_is():
    assert str(ComponentConfig(name="cnn")) == "cnn"
    assert str(ComponentConfig(name="cnn", options={"width": 4, "d": 1})) == "cnn(width=4, d=1)"


def test_the_former_name_of_a_host_is_taken_with_a_hint(caplog):
    config_text._hint_at_former_host.cache_clear()
    saved = to_mapping(compose_run(["host=processes"]))
    for _ in range(2):
        assert from_mapping({**saved, "host": "grpc"}) == from_mapping(saved)
    hints = [one for one in caplog.messages if "host=grpc is called host=processes now" in one]
    assert len(hints) == 1, "once is enough"


@pytest.mark.parametrize("host", [None, [], {}, 3, "smoke_signals"])
def test_a_host_that_is_none_is_refused_with_those_there_are(host):
    saved = to_mapping(compose_run(["host=processes"]))
    with pytest.raises(ConfigError, match="host must be one of local, processes, ray, flower"):
        from_mapping({**saved, "host": host})
