"""The momentum encoder: equation by equation, its own statistics, and what it can't copy."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import nn

from dogo_fed.data.roles import StepImages
from dogo_fed.engine.step import absorb, propose
from dogo_fed.evaluation import state_digest
from dogo_fed.objectives.momentum import MomentumEncoder, momentum_at
from tests.support.toy_peers import WITH_TARGET, ToyBackbone, toy_images, toy_objective, toy_peer


def copied(momentum: float = 0.75, total_updates: int | None = None):
    """Returns a backbone, a projector and their momentum encoder."""
    backbone, projector = ToyBackbone(), nn.Sequential(nn.Linear(6, 4), nn.BatchNorm1d(4))
    return backbone, projector, MomentumEncoder(backbone, projector, momentum, total_updates)


def move(*modules: nn.Module) -> None:
    for module in modules:
        for parameter in module.parameters():
            nn.init.normal_(parameter)


def test_it_starts_as_equal_and_shares_nothing():
    backbone, projector, target = copied()
    for mine, followed in ((target.backbone, backbone), (target.projector, projector)):
        for old, new in zip(mine.parameters(), followed.parameters(), strict=True):
            assert torch.equal(old, new)
            assert old.data_ptr() != new.data_ptr()
            assert not old.requires_grad
            assert new.requires_grad


def test_every_parameter_follows_by_the_equation():
    backbone, projector, target = copied(momentum=0.75)
    old = copy.deepcopy(dict(target.named_parameters()))
    move(backbone, projector)
    target.follow(backbone, projector)
    for name, parameter in target.named_parameters():
        part, _, rest = name.partition(".")
        followed = dict({"backbone": backbone, "projector": projector}[part].named_parameters())
        expected = 0.75 * old[name] + 0.25 * followed[rest]
        torch.testing.assert_close(parameter, expected, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize(("momentum", "share"), [(0.0, 0.0), (1.0, 1.0)])
def test_the_extremes_copy_and_stay(momentum, share):
    backbone, projector, target = copied(momentum)
    old = target.backbone.conv.weight.clone()
    move(backbone, projector)
    target.follow(backbone, projector)
    assert torch.equal(target.backbone.conv.weight, old if share else backbone.conv.weight)


def test_running_statistics_are_the_targets_own():
    backbone, projector, target = copied()
    before = copy.deepcopy(dict(target.named_buffers()))
    nn.init.normal_(backbone.bn.running_mean)
    target.follow(backbone, projector)
    for name, buffer in target.named_buffers():
        if name != "num_updates":
            assert torch.equal(buffer, before[name]), name
    target(torch.randn(4, 3, 8, 8))
    assert not torch.equal(target.backbone.bn.running_mean, before["backbone.bn.running_mean"])
    assert target.backbone.bn.num_batches_tracked == 1
    assert backbone.bn.num_batches_tracked == 0


def test_it_is_normalised_by_its_own_batch_in_train_mode():
    _, _, target = copied()
    images = torch.randn(16, 3, 8, 8)
    z_ND = target(images)
    assert z_ND.mean(dim=0).abs().max() < 1e-5
    target.eval()
    assert target(images).mean(dim=0).abs().max() > 1e-3


def test_the_momentum_rises_on_a_cosine_or_stays():
    assert [momentum_at(0.9, k, None) for k in (0, 5, 100)] == [0.9] * 3
    assert momentum_at(0.996, 0, 100) == pytest.approx(0.996)
    assert momentum_at(0.996, 50, 100) == pytest.approx(0.998)
    assert momentum_at(0.996, 25, 100) == pytest.approx(1 - 0.004 * (math.sqrt(0.5) + 1) / 2)
    assert momentum_at(0.996, 100, 100) == momentum_at(0.996, 250, 100) == 1


@pytest.mark.parametrize("kind", ["byol", "moco_v3"])
def test_the_schedule_counts_updates_and_comes_back_with_the_state(kind):
    def follow(objective):
        move(objective.backbone)
        objective.after_update()

    def scheduled():
        objective = toy_objective(kind)
        objective.target.total_updates = 4
        return objective

    torch.manual_seed(0)
    objective = scheduled()
    follow(objective)
    follow(objective)
    assert objective.target.num_updates == 2
    resumed = scheduled()
    resumed.load_state_dict(objective.state_dict())
    for one in (objective, resumed):
        torch.manual_seed(1)
        follow(one)
    assert state_digest(objective) == state_digest(resumed)
    fresh = scheduled()
    fresh.load_state_dict({**objective.state_dict(), "target.num_updates": torch.tensor(0)})
    follow(objective)  # the last of the schedule
    still = state_digest(objective.target.backbone)
    follow(objective)
    assert state_digest(objective.target.backbone) == still
    before = state_digest(fresh.target.backbone)
    follow(fresh)
    assert state_digest(fresh.target.backbone) != before


@pytest.mark.parametrize("total_updates", [4, None])
def test_an_update_reads_nothing_from_the_device(total_updates):
    """Whoever reads a number from a GPU waits for it; from the device "meta" nothing can be read."""
    backbone, projector, target = copied(0.9, total_updates)
    known = set(target.state_dict())
    for module in (backbone, projector, target):
        module.to("meta")
    target.follow(backbone, projector)
    target.follow(backbone, projector)
    assert target.num_updates == 2 and target.num_updates.device.type == "cpu"
    assert set(target.state_dict()) == known
    others = {name: one for name, one in target.named_buffers() if name != "num_updates"}
    assert {one.device.type for one in (*target.parameters(), *others.values())} == {"meta"}


@pytest.mark.parametrize("kind", WITH_TARGET)
def test_an_update_moves_the_target_after_the_weights(kind):
    peer = toy_peer(kind)
    old = peer.objective.target.backbone.conv.weight.clone()
    absorb(peer, propose(peer, StepImages(toy_images()), 0), None)
    new = peer.objective.backbone.conv.weight
    expected = 0.9 * old + 0.1 * new
    torch.testing.assert_close(
        peer.objective.target.backbone.conv.weight, expected.detach(), rtol=1e-6, atol=1e-7
    )
    assert not torch.equal(old, new)


@pytest.mark.parametrize("kind", WITH_TARGET)
def test_the_digest_covers_the_target(kind):
    objective = toy_objective(kind)
    before = state_digest(objective)
    with torch.no_grad():
        objective.target.projector[0].weight[0, 0] += 1e-3
    assert state_digest(objective) != before


def test_a_backbone_that_cant_be_copied_is_an_error_that_says_why():
    backbone = ToyBackbone()
    backbone.cached = backbone.conv.weight * 2  # torch copies no tensor in the middle of a graph
    with pytest.raises(ValueError, match=r"backbone can't be copied.*RuntimeError"):
        MomentumEncoder(backbone, nn.Identity(), 0.9, None)
