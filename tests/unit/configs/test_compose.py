"""Presets and overrides: all that is shipped composes, and what is wrong is named in one ConfigError."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import get_type_hints

import pytest
import yaml

import configs
from configs.compose import compose_run
from dogo_fed import components
from dogo_fed.config import (
    ComponentConfig,
    Host,
    OptimizerConfig,
    PeerConfig,
    Placement,
    RunConfig,
)
from dogo_fed.config_text import from_mapping, load_yaml, to_mapping, to_yaml
from dogo_fed.data.augment import RECIPES, Recipe
from dogo_fed.data.catalog import DATASETS
from dogo_fed.engine.catalog import OPTIMIZERS
from dogo_fed.models.catalog import BACKBONES
from dogo_fed.objectives.catalog import OBJECTIVES
from dogo_fed.plain import from_plain
from tests.support.config_errors import the_error

FOLDER = Path(configs.__file__).parent


def names_in(group: str) -> list[str]:
    """Returns the group's files, but for "own", whose name the user fills in."""
    return sorted(path.stem for path in (FOLDER / group).glob("*.yaml") if path.stem != "own")


@pytest.mark.parametrize("peers", names_in("peers"))
def test_every_set_of_peers_composes_and_comes_back_from_its_mapping_and_text(peers, tmp_path):
    config = compose_run([f"peers={peers}"])
    assert len(config.peers) >= 1
    assert from_mapping(to_mapping(config)) == config
    (tmp_path / "config.yaml").write_text(to_yaml(config))
    assert load_yaml(tmp_path / "config.yaml") == config


@pytest.mark.parametrize("data", names_in("data"))
def test_every_data_set_composes(data):
    config = compose_run([f"data={data}"])
    components.check_options(
        "data set",
        config.data.name,
        components.resolve("data set", config.data.name, DATASETS),
        config.data.options,
    )


@pytest.mark.parametrize(
    ("group", "known", "reserved"),
    [
        ("backbone", BACKBONES, ("image_size", "in_channels")),
        ("objective", OBJECTIVES, ("backbone", "feature_dim", "num_classes")),
        ("optimizer", OPTIMIZERS, ("params",)),
        ("augmentation", None, ()),
    ],
)
def test_every_component_file_names_options_that_exist(group, known, reserved):
    assert names_in(group)
    for name in names_in(group):
        content = yaml.safe_load((FOLDER / group / f"{name}.yaml").read_text())
        kind = OptimizerConfig if group == "optimizer" else ComponentConfig
        component = from_plain(kind, content)
        if known is None:
            assert component.name in RECIPES
            factory = Recipe
        else:
            factory = components.resolve(group, component.name, known)
        components.check_options(group, component.name, factory, component.options, reserved)


@pytest.mark.parametrize("peer", [name for name in names_in("peer") if name != "base"])
def test_every_peer_file_can_be_used(peer):
    config = compose_run(["peers=solo", f"+peer@peers.another={peer}"])
    assert isinstance(config.peers["another"], PeerConfig)


def test_every_backbone_and_objective_can_be_chosen_for_a_peer():
    (name,) = compose_run(["peers=solo"]).peers
    for kind in ("backbone", "objective", "optimizer", "augmentation"):
        for choice in names_in(kind):
            config = compose_run(["peers=solo", f"{kind}@peers.{name}.{kind}={choice}"])
            content = yaml.safe_load((FOLDER / kind / f"{choice}.yaml").read_text())
            assert getattr(config.peers[name], kind).name == content["name"]


def test_yaml_and_dataclass_defaults_are_the_same():
    """Somebody who builds a RunConfig directly gets the run that the command line gives."""
    composed = compose_run([])
    direct = RunConfig(peers=composed.peers, data=composed.data)
    for field in dataclasses.fields(RunConfig):
        assert getattr(composed, field.name) == getattr(direct, field.name), field.name


def test_run_yaml_shows_every_setting():
    shown = yaml.safe_load((FOLDER / "run.yaml").read_text())
    shown["exchange"] |= yaml.safe_load((FOLDER / "exchange" / "grpc.yaml").read_text())
    shown["partition"] = yaml.safe_load((FOLDER / "partition" / "shared.yaml").read_text())
    sections = 0
    for name, kind in get_type_hints(RunConfig).items():
        if name in ("peers", "data"):
            continue
        assert name in shown
        if dataclasses.is_dataclass(kind):
            assert set(shown[name]) == {item.name for item in dataclasses.fields(kind)}
            sections += 1
    assert sections == 7


def test_overrides_reach_the_config():
    config = compose_run(
        ["host=local", "seed=7", "eval.knn_k=20", "exchange.deadline_s=5", "ray.placement=SPREAD"]
    )
    assert config.host is Host.LOCAL
    assert config.seed == 7
    assert config.eval.knn_k == 20
    assert config.exchange.deadline_s == 5.0
    assert isinstance(config.exchange.deadline_s, float)
    assert config.ray.placement is Placement.SPREAD


@pytest.mark.parametrize("override", ["foo=1", "+foo=1", "eval.foo=1", "+peers.{name}.foo=1"])
def test_an_unknown_override_is_named(override):
    (name,) = compose_run(["peers=solo"]).peers
    assert "foo" in the_error(lambda: compose_run(["peers=solo", override.format(name=name)]))


@pytest.mark.parametrize("override", ["steps=1.5", "steps=true", "steps=abc", "rounds=[1]"])
def test_a_wrong_type_on_the_command_line_is_named(override):
    key = override.split("=")[0]
    message = the_error(lambda: compose_run([override]))
    assert key in message
    assert "whole number" in message


@pytest.mark.parametrize(
    "override", ["peers=nope", "data=nope", "data=null", "a b c", "=", "batch_size="]
)
def test_an_override_that_makes_no_sense_is_a_config_error(override):
    the_error(lambda: compose_run([override]))


GRAPHS = sorted(path.stem for path in (FOLDER / "exchange" / "graph").glob("*.yaml"))


@pytest.mark.parametrize("name", GRAPHS)
@pytest.mark.parametrize("exchange", ["grpc", "flower"])
def test_every_ready_made_graph_fits_its_peers(name, exchange):
    overrides = [f"peers={name.split('_')[0]}", f"exchange={exchange}", f"+exchange/graph={name}"]
    config = compose_run([*overrides, "host=flower"])
    assert config.exchange.graph
    assert from_mapping(to_mapping(config)) == config


def test_a_graph_can_be_given_on_the_command_line():
    config = compose_run(["peers=pair", "exchange.graph={wide: {resnet: 2}}"])
    assert config.exchange.graph == {"wide": {"resnet": 2.0}}
    assert "nobody" in the_error(
        lambda: compose_run(["peers=pair", "exchange.graph={wide: {nobody: 2}}"])
    )


HARDLY_LISTENS = {
    "pair": ("resnet",),
    "trio": ("cnn", "resnet"),
    "simclr_simsiam": ("simclr",),
    **{
        f"simclr_with_{objective}": ("resnet",)
        for objective in ("barlow_twins", "byol", "moco_v2", "moco_v3", "simsiam", "vicreg")
    },
}
"""Peers that learn well without their teachers: docs/results says what that was measured on."""


@pytest.mark.parametrize("peers", sorted(path.stem for path in (FOLDER / "peers").glob("*.yaml")))
def test_no_variant_is_on_by_default_but_some_weights(peers: str):
    expected = {f"peers.{name}.distill_weight": 1 / 256 for name in HARDLY_LISTENS.get(peers, ())}
    assert compose_run([f"peers={peers}"]).variants == expected
