"""From settings to a peer: errors name the peer, and initial weights depend on seed and name only."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from dogo_fed.config_text import from_mapping
from dogo_fed.data.roles import StepImages
from dogo_fed.data.synthetic import synthetic
from dogo_fed.engine.build import build_peer
from dogo_fed.engine.numerics import resolve_device
from dogo_fed.engine.step import absorb, propose
from dogo_fed.errors import ConfigError
from dogo_fed.objectives.mutual import Reduction
from dogo_fed.objectives.simclr import SimCLR
from tests.support.toy_peers import TOY_OBJECTIVES, WITH_TARGET, ToyBackbone, same_bits, state_of

SIMCLR = ("simclr", {"hidden_dim": 8, "output_dim": 4})
SIMSIAM = ("simsiam", {"hidden_dim": 8, "output_dim": 8, "bottleneck_dim": 4, "num_layers": 2})
OBJECTIVES = [(kind, options) for kind, (_, options) in TOY_OBJECTIVES.items()]
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def dataset():
    return synthetic(size=32, test_size=8)


def run_config(peers=None, **others):
    content = {"peers": peers or {"cnn": peer_content()}, "data": {"name": "synthetic"}, **others}
    return from_mapping(content)


def peer_content(**changes):
    """Returns a peer's settings; components change as (name, options), other settings as values."""
    content = {
        "backbone": ("small_cnn", {"width": 2}),
        "objective": SIMCLR,
        "augmentation": ("none", {}),
        "optimizer": ("adam", {"lr": 0.001}),
        **changes,
    }
    return {
        key: {"name": value[0], "options": value[1]} if isinstance(value, tuple) else value
        for key, value in content.items()
    }


def build(dataset, *, name="cnn", seed=0, **changes):
    peer = run_config({name: peer_content(**changes)}).peers[name]
    return build_peer(name, peer, dataset=dataset, run_seed=seed, device=CPU)


def test_settings_reach_the_peer(dataset):
    peer = build(
        dataset,
        name="mine",
        seed=9,
        optimizer=("sgd", {"lr": 0.25, "momentum": 0.5}),
        objective=SIMSIAM,
        distill_weight=3,
        distill_reduction="mean_over_elements",
        distill_warmup_steps=30,
        kl_temperature=0.2,
    )
    assert (peer.id, peer.run_seed, peer.device) == ("mine", 9, CPU)
    assert (peer.distill_warmup_steps, peer.is_symmetric) == (30, False)
    assert (peer.distill_weight, peer.temperature) == (3.0, 0.2)
    assert peer.reduction is Reduction.MEAN_OVER_ELEMENTS
    assert isinstance(peer.optimizer, torch.optim.SGD)
    assert peer.optimizer.param_groups[0]["lr"] == 0.25
    assert peer.optimizer.param_groups[0]["momentum"] == 0.5
    assert peer.objective.predictor[0].in_features == 8


@pytest.mark.parametrize("objective", OBJECTIVES, ids=str)
def test_the_optimizer_has_every_trained_parameter_once_and_no_other(dataset, objective):
    peer = build(dataset, objective=objective)
    (group,) = peer.optimizer.param_groups
    named = dict(peer.objective.named_parameters())
    expected = [id(one) for name, one in named.items() if not name.startswith("target.")]
    assert [id(one) for one in group["params"]] == expected
    assert (len(expected) < len(named)) == (objective[0] in WITH_TARGET)


def test_weight_decay_leaves_a_momentum_encoder_alone(dataset):
    """With a momentum of 1 it stays as it was, whatever the optimizer does to the rest."""
    options = {"hidden_dim": 8, "output_dim": 4, "momentum": 1.0}
    peer = build(
        dataset,
        objective=("byol", options),
        optimizer=("sgd", {"lr": 0.1, "weight_decay": 0.5}),
    )
    before = state_of(peer)
    images = dataset.train.images(range(8))
    absorb(peer, propose(peer, StepImages(images), 0), None)
    after = state_of(peer)
    parameters = [name for name, _ in peer.objective.named_parameters()]
    moved = {name for name in parameters if not torch.equal(before[name], after[name])}
    assert moved == {name for name in parameters if not name.startswith("target.")}


WRONG = [
    ("backbone", ("resnet19", {}), "resnet18"),
    ("backbone", ("small_cnn", {"widht": 2}), "did you mean 'width'"),
    ("backbone", ("small_cnn", {"image_size": 8}), "image_size"),
    ("backbone", ("small_cnn", {"width": 0}), "width"),
    ("backbone", ("small_cnn", {"width": "two"}), "whole number, not 'two'"),
    ("backbone", ("wide_resnet", {"depth": 11}), "6 n"),
    ("backbone", ("no.such.module:thing", {}), "no.such.module"),
    ("backbone", ("torch:no_such_thing", {}), "no_such_thing"),
    ("objective", ("simclear", {}), "simclr"),
    ("objective", ("simclr", {"temprature": 0.5}), "did you mean 'temperature'"),
    ("objective", ("simclr", {"feature_dim": 3}), "feature_dim"),
    ("objective", ("simclr", {"temperature": 0}), "temperature"),
    ("objective", ("simsiam", {"publish": "backbone"}), "publish"),
    ("objective", ("simsiam", {"num_layers": 0}), "num_layers"),
    ("objective", ("byol", {"momentum": 2}), "momentum must be between 0 and 1"),
    ("objective", ("moco_v2", {"queue_size": 0}), "queue_size"),
    ("objective", ("moco_v3", {"publish": "queue"}), '"predictor" or "target"'),
    ("objective", ("vicreg", {"variance_weight": -1}), "variance_weight"),
    ("objective", ("barlow_twins", {"lambda": 0.1}), "off_diagonal_weight"),
    ("objective", ("collections:Counter", {}), "Counter"),
    ("optimizer", ("adamm", {"lr": 0.1}), "adam"),
    ("optimizer", ("adam", {"momentum": 0.9}), "momentum"),
    ("optimizer", ("adam", {"lr": -1.0}), "learning rate"),
    ("optimizer", ("adam", {"params": []}), "params"),
    ("augmentation", ("blur", {}), "simclr"),
    ("augmentation", ("digits", {"min_scale": 2}), "min_scale"),
]


@pytest.mark.parametrize(
    ("kind", "change", "says"), WRONG, ids=[f"{kind}-{change}" for kind, change, _ in WRONG]
)
def test_a_wrong_component_is_an_error_that_names_the_peer(dataset, kind, change, says):
    with pytest.raises(ConfigError) as caught:
        build(dataset, name="third", **{kind: change})
    assert str(caught.value).startswith("peer 'third': ")
    assert says in str(caught.value)


OWN = """
import torch
from torch import nn

def flat(*, image_size, in_channels, width=3):
    return nn.Sequential(nn.Flatten(), nn.Linear(in_channels * image_size**2, width))

def maps(*, image_size, in_channels):
    return nn.Conv2d(in_channels, 4, 3)

def grey(*, image_size, in_channels):
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())

def pair(*, image_size, in_channels):
    class Pair(nn.Module):
        def forward(self, images):
            return images, images
    return Pair()

def no_module(*, image_size, in_channels):
    return "features"

def fixed():
    return nn.Flatten()
"""


@pytest.fixture
def own(tmp_path, monkeypatch):
    (tmp_path / "dogo_test_backbones.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    return "dogo_test_backbones"


def test_a_backbone_of_ones_own_is_chosen_by_its_import_path(dataset, own):
    config = run_config({"mine": peer_content(backbone=(f"{own}:flat", {"width": 7}))})
    peer = build_peer("mine", config.peers["mine"], dataset=dataset, run_seed=0, device=CPU)
    assert peer.objective.backbone[1].in_features == 3 * 16 * 16
    assert peer.objective.projector[0].in_features == 7


@pytest.mark.parametrize("name", ["maps", "grey", "pair", "no_module", "fixed"])
def test_a_backbone_that_gives_no_features_is_an_error_that_names_the_peer(dataset, own, name):
    settings_of = run_config({"mine": peer_content(backbone=(f"{own}:{name}", {}))}).peers["mine"]
    with pytest.raises(ConfigError, match=rf"^peer 'mine': .*(backbone|{name}\()"):
        build_peer("mine", settings_of, dataset=dataset, run_seed=0, device=CPU)


def test_a_module_of_ones_own_is_used_as_it_is(dataset):
    backbone = ToyBackbone(channels=5).train()
    backbone.dropout.eval()
    before = copy.deepcopy(backbone.state_dict())
    settings_of = run_config().peers["cnn"]
    peer = build_peer(
        "cnn", settings_of, dataset=dataset, run_seed=0, device=CPU, backbone=backbone
    )
    assert peer.objective.backbone is backbone
    assert same_bits(dict(backbone.state_dict()), dict(before))
    assert peer.objective.projector[0].in_features == 5
    assert backbone.training
    assert not backbone.dropout.training


# ---------------------------------------------------------------------------------------------------
# Initial weights


@pytest.mark.parametrize("objective", OBJECTIVES, ids=str)
def test_initial_weights_depend_on_seed_and_name_only(dataset, objective):
    expected = state_of(build(dataset, name="b", seed=3, objective=objective))

    torch.manual_seed(12345)
    build(dataset, name="a", seed=3)
    torch.randn(17)
    after_others = build(dataset, name="b", seed=3, objective=objective)
    assert same_bits(state_of(after_others), expected)

    taught_otherwise = build(
        dataset,
        name="b",
        seed=3,
        objective=objective,
        distill_weight=7,
        optimizer=("sgd", {"lr": 1.0}),
        augmentation=("digits", {}),
    )
    assert same_bits(state_of(taught_otherwise), expected)

    for name, seed in (("a", 3), ("b", 4)):
        other = state_of(build(dataset, name=name, seed=seed, objective=objective))
        assert not torch.equal(
            other["backbone.layers.0.weight"], expected["backbone.layers.0.weight"]
        )


def test_building_leaves_the_global_random_state_alone(dataset):
    before = torch.get_rng_state()
    build(dataset)
    assert torch.equal(torch.get_rng_state(), before)


def test_building_leaves_running_statistics_alone(dataset):
    peer = build(dataset)
    for module in peer.objective.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            assert module.num_batches_tracked == 0
            assert (module.running_mean == 0).all()
    assert peer.objective.training
    assert isinstance(peer.objective, SimCLR)


# ---------------------------------------------------------------------------------------------------
# Device


def test_the_device_is_what_there_is(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert resolve_device("auto") == resolve_device("cpu") == CPU
    with pytest.raises(ConfigError, match="no GPU"):
        resolve_device("cuda")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert resolve_device("auto") == resolve_device("cuda") == torch.device("cuda")
