"""The learning rate over a run, clipping, and what weight decay is for; all as a run resumes it."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch

from configs.compose import compose_run
from dogo_fed.config import ComponentConfig, OptimizerConfig, RateSchedule
from dogo_fed.contracts import PeerId
from dogo_fed.engine.learning_rate import LearningRate
from dogo_fed.engine.loaded_run import load_run
from dogo_fed.errors import ConfigError
from dogo_fed.storage.checkpoint import CheckpointStore, Progress

WIDE = PeerId("wide")


def rate(schedule, warmup=0, total=100):
    settings = OptimizerConfig(name="adam", schedule=RateSchedule(schedule), warmup_steps=warmup)
    return LearningRate(settings, total)


def built(*overrides):
    run = load_run(
        compose_run(["data=synthetic", "host=local", "steps=20", "batch_size=16", *overrides])
    )
    return run.build_peer(WIDE)


def step(peer, number, seed=0):
    """Makes one update from a loss whose gradient is the same each time."""
    torch.manual_seed(seed)
    loss = sum((torch.randn_like(one) * one).sum() for one in peer.objective.parameters())
    peer.update(loss, number)


def weights(peer):
    return torch.cat([one.detach().flatten() for one in peer.objective.parameters()])


def test_constant_is_constant_and_touches_nothing():
    assert rate("constant").is_constant and not rate("constant", warmup=1).is_constant
    assert {rate("constant").share_at(step) for step in range(200)} == {1.0}
    peer = built()
    step(peer, 3)
    assert all("initial_lr" not in group for group in peer.optimizer.param_groups)


def test_a_warm_up_rises_linearly_to_the_full_rate_and_is_never_zero():
    shares = [rate("constant", warmup=4).share_at(step) for step in range(6)]
    assert shares == [0.25, 0.5, 0.75, 1.0, 1.0, 1.0]


def test_a_cosine_falls_to_zero_at_the_end():
    one = rate("cosine", warmup=20)
    assert one.share_at(20) == 1.0
    assert one.share_at(60) == pytest.approx(0.5)
    assert 0 < one.share_at(99) == pytest.approx(0.5 * (1 + math.cos(math.pi * 79 / 80)))
    assert one.share_at(100) == one.share_at(500) == pytest.approx(0.0, abs=1e-12)
    falling = [one.share_at(step) for step in range(20, 100)]
    assert falling == sorted(falling, reverse=True)


def test_steps_divide_by_ten():
    shares = [rate("step").share_at(step) for step in (0, 59, 60, 79, 80, 99)]
    assert shares == pytest.approx([1, 1, 0.1, 0.1, 0.01, 0.01])


def test_the_optimizer_has_the_rate_of_the_step_whatever_came_before():
    settings = "peers.wide.optimizer.schedule=cosine"
    peer = built(settings, "peers.wide.optimizer.options.lr=0.5")
    for number in (0, 7, 19, 3):
        step(peer, number)
        share = LearningRate(OptimizerConfig(name="adam", schedule=RateSchedule.COSINE), 20)
        (group,) = peer.optimizer.param_groups
        assert group["lr"] == 0.5 * share.share_at(number)


def test_a_run_that_goes_on_has_the_rates_of_one_that_never_stopped(tmp_path):
    overrides = (
        "peers.wide.optimizer.schedule=cosine", "peers.wide.optimizer.warmup_steps=3",
        "peers.wide.optimizer.clip_norm=1", "peers.wide.optimizer.decay_all=false",
    )  # fmt: skip
    whole, first, second = built(*overrides), built(*overrides), built(*overrides)
    for number in range(10):
        step(whole, number, seed=number)
    for number in range(5):
        step(first, number, seed=number)
    store = CheckpointStore(tmp_path, keep=2)
    store.save(first.objective, first.optimizer, Progress(step=5))
    store.load(5, second.objective, second.optimizer)
    for number in range(5, 10):
        step(second, number, seed=number)
    assert torch.equal(weights(whole), weights(second))


def test_a_long_gradient_is_cut_and_a_short_one_is_not():
    sgd = (
        "optimizer@peers.wide.optimizer=sgd", "peers.wide.optimizer.options.lr=1.0",
        "peers.wide.optimizer.options.momentum=0", "peers.wide.optimizer.options.weight_decay=0",
    )  # fmt: skip
    moved = {}
    for clip in ("null", "0.25", "1e9"):
        peer = built(*sgd, f"peers.wide.optimizer.clip_norm={clip}")
        before = weights(peer)
        step(peer, 0)
        moved[clip] = weights(peer) - before
    assert moved["0.25"].norm() == pytest.approx(0.25, rel=1e-3)
    assert torch.equal(moved["null"], moved["1e9"]) and moved["null"].norm() > 1
    cosine = torch.nn.functional.cosine_similarity(moved["0.25"], moved["null"], dim=0)
    assert float(cosine) == pytest.approx(1.0, abs=1e-5)


def test_biases_and_norms_are_left_out_of_the_decay_if_asked():
    peer = built(
        "peers.wide.optimizer.decay_all=false", "peers.wide.optimizer.options.weight_decay=0.1"
    )
    decayed, others = peer.optimizer.param_groups
    assert decayed["weight_decay"] == 0.1 and others["weight_decay"] == 0.0
    assert all(one.ndim > 1 for one in decayed["params"])
    assert others["params"] and all(one.ndim <= 1 for one in others["params"])
    (all_of_them,) = built("peers.wide.optimizer.options.weight_decay=0.1").optimizer.param_groups
    both = len(decayed["params"]) + len(others["params"])
    assert len(all_of_them["params"]) == both


@pytest.mark.parametrize("name", ["adamw", "lars", "sgd", "adam_published"])
def test_every_optimizer_makes_a_step(name):
    if name == "lars":
        pytest.importorskip("timm")
    peer = built(f"optimizer@peers.wide.optimizer={name}")
    before = weights(peer)
    step(peer, 5)
    assert torch.isfinite(weights(peer)).all() and not torch.equal(weights(peer), before)


def test_a_name_with_options_is_an_optimizer_too():
    config = compose_run(["data=synthetic"])
    plain = ComponentConfig(name="sgd", options={"lr": 0.1})
    peer = dataclasses.replace(config.peers["wide"], optimizer=plain)
    assert peer.optimizer == OptimizerConfig(name="sgd", options={"lr": 0.1})


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("clip_norm=0", "optimizer.clip_norm must be greater than 0"),
        ("warmup_steps=-1", "optimizer.warmup_steps must be 0 or more"),
        ("schedule=linear", "schedule"),
    ],
)
def test_impossible_settings_are_refused(override, says):
    with pytest.raises(ConfigError, match=says):
        compose_run(["data=synthetic", f"peers.wide.optimizer.{override}"])
