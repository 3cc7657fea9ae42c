"""A pass that is split between processes: the gradient of the whole batch, and no process left."""

from __future__ import annotations

import dataclasses
import multiprocessing
import os
import signal
import time

import psutil
import pytest
import torch
from torch import distributed as dist
from torch import nn

from configs.compose import compose_run
from dogo_fed.engine import open as opening
from dogo_fed.engine.helpers import Helpers
from dogo_fed.engine.step import absorb, propose, show
from dogo_fed.errors import ConfigError, HelperLost
from dogo_fed.objectives.catalog import OBJECTIVES
from tests.support.distributions import distribution
from tests.support.networks import NoBatchStatistics, wide_peer
from tests.support.run_watch import digests
from tests.support.tiny_run import TINY, run_here
from tests.support.toy_peers import signal_of

TWO_PARTS = "peers.wide.data_parallel=2"
SAME_AS_CHUNKS = "peers.wide.chunk_size=8"
"""A batch of 16 in two chunks is normalised as in two parts."""


def peer_of(*settings, backbone=None):
    run, peer = wide_peer(*settings, backbone=backbone)
    return run, opening._with_helpers(peer, run)


def trained(run, peer, steps=1):
    """Trains with a fixed teacher; returns what was shown at each step, and ends the helpers."""
    shown = []
    try:
        for step in range(steps):
            proposal = propose(peer, run.images_of("wide", step, with_labels=False), step)
            shown.append(show(peer, proposal))
            absorb(peer, proposal, signal_of(distribution(seed=5, size=16)))
    finally:
        if peer.helpers is not None:
            peer.helpers.close()
    return shown


def gradients(peer):
    return [one.grad for one in peer.objective.parameters() if one.requires_grad]


def assert_like(first, second):
    """The two peers have the same gradients, but for rounding."""
    for one, two in zip(gradients(first), gradients(second), strict=True):
        assert (one is None) == (two is None)
        if one is not None:
            torch.testing.assert_close(one, two, rtol=2e-3, atol=1e-5)


def test_the_gradient_is_that_of_the_whole_batch_and_no_process_is_left():
    torch.manual_seed(0)
    backbone = NoBatchStatistics()
    before = {process.pid for process in multiprocessing.active_children()}
    run, split = peer_of(TWO_PARTS, backbone=backbone)
    (pid,) = {process.pid for process in multiprocessing.active_children()} - before
    helper = psutil.Process(pid)
    listening = [
        one.laddr.ip
        for process in (psutil.Process(), helper)
        for one in process.net_connections()
        if one.status == psutil.CONN_LISTEN
    ]
    assert listening and set(listening) <= {"127.0.0.1", "::1"}
    shown = trained(run, split)
    assert not helper.is_running() and not dist.is_initialized()

    run, whole = peer_of(backbone=backbone)
    expected = trained(run, whole)
    assert_like(split, whole)
    assert abs(shown[0].p_NN - expected[0].p_NN).max() < 1e-6


@pytest.mark.slow
@pytest.mark.parametrize(
    ("objective", "more"),
    [
        *((name, ()) for name in sorted(set(OBJECTIVES) - {"supervised"})),
        ("simclr", ("precision=bf16", "memory_format=channels_last")),
    ],
)
def test_every_objective_learns_as_in_chunks(objective, more):
    name = objective if objective == "simclr" else f"{objective}_small"
    chosen = (f"objective@peers.wide.objective={name}", *more)
    run, split = peer_of(TWO_PARTS, *chosen)
    shown = trained(run, split)
    run, chunked = peer_of(SAME_AS_CHUNKS, *chosen)
    expected = trained(run, chunked)
    assert abs(shown[0].p_NN - expected[0].p_NN).max() < 1e-4
    if not more:  # in half precision the sum over parts is rounded otherwise
        assert_like(split, chunked)


@pytest.mark.slow
def test_parts_in_chunks_with_an_average_and_three_processes_train_and_repeat(tmp_path):
    settings = (
        "peers.wide.data_parallel=3", "peers.wide.chunk_size=3", "peers.wide.teacher=ema",
        "steps=4", "exchange.symmetric=true",
    )  # fmt: skip
    short = [one for one in TINY if not one.startswith("steps")]
    for name in "ab":
        run_here(compose_run([*short, *settings, f"run_dir={tmp_path}/{name}"]))
    assert digests(tmp_path / "a") == digests(tmp_path / "b")


@pytest.mark.slow
def test_a_run_goes_on_bit_for_bit(tmp_path):
    from configs.resume import resumed

    short = [one for one in TINY if not one.startswith("steps")]
    run_here(compose_run([*short, TWO_PARTS, "steps=4", f"run_dir={tmp_path}/one"]))
    run_here(compose_run([*short, TWO_PARTS, "steps=2", f"run_dir={tmp_path}/two"]))
    again = [f"resume={tmp_path}/two", "steps=4"]
    run_here(resumed(compose_run(again), again))
    assert digests(tmp_path / "one") == digests(tmp_path / "two")


@pytest.mark.slow
def test_a_helper_that_is_killed_ends_the_peer_with_one_line():
    run, peer = peer_of(TWO_PARTS)
    try:
        images = run.images_of("wide", 0, with_labels=False)
        proposal = propose(peer, images, 0)
        os.kill(peer.helpers._processes[0].pid, signal.SIGKILL)
        started_s = time.monotonic()
        with pytest.raises(HelperLost, match=r"peers\.wide\.data_parallel.*has failed") as caught:
            absorb(peer, proposal, signal_of(show(peer, proposal)))
        assert time.monotonic() - started_s < 60
        assert "ended: wide part 1" in str(caught.value) and "\n" not in str(caught.value)
    finally:
        peer.helpers.close()
    assert not dist.is_initialized()


class FailsElsewhere(NoBatchStatistics):
    """Works in the process that made it, and nowhere else."""

    def __init__(self) -> None:
        super().__init__()
        self.made_in = os.getpid()

    def forward(self, x_NCHW):
        if os.getpid() != self.made_in:
            raise ValueError("not the process that made me")
        return super().forward(x_NCHW)


@pytest.mark.slow
def test_what_went_wrong_in_a_helper_is_told():
    run, peer = peer_of(TWO_PARTS, backbone=FailsElsewhere())
    with pytest.raises(HelperLost, match="ValueError: not the process that made me"):
        trained(run, peer)


def test_what_fails_between_processes_is_no_fault_of_the_numbers():
    helpers = Helpers.__new__(Helpers)
    helpers._peer, helpers._processes, helpers._pipes = "wide", [], []
    with pytest.raises(HelperLost, match="RuntimeError: connection reset"), helpers._failures():
        raise RuntimeError("connection reset")


class IsEnding:
    """A process of which only the pipes are closed so far, until it is waited for."""

    name = "wide part 1"

    def __init__(self) -> None:
        self.sentinel, write = os.pipe()
        os.close(write)
        self.is_there = True

    def join(self, within_s: float) -> None:
        self.is_there = False

    def is_alive(self) -> bool:
        return self.is_there


def test_a_helper_that_is_just_ending_is_named():
    helpers = Helpers.__new__(Helpers)
    ending = IsEnding()
    helpers._peer, helpers._processes, helpers._pipes = "wide", [ending], []
    with pytest.raises(HelperLost, match="ended: wide part 1"), helpers._failures():
        raise RuntimeError("connection reset")
    os.close(ending.sentinel)


# ---- what can't be, without a process ----


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (["peers.wide.data_parallel=0"], "data_parallel must be 1 or more, not 0"),
        (["peers.wide.sync_batchnorm=true"], "set data_parallel too"),
        ([TWO_PARTS, "exchange.lookahead=1"], "leave one of them out"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(settings, words):
    with pytest.raises(ConfigError, match=words):
        compose_run([*TINY, *settings])


def test_parts_of_one_image_are_refused():
    with pytest.raises(ConfigError, match="type batch_size=18 or more"):
        peer_of("peers.wide.data_parallel=9")


@pytest.mark.parametrize(
    ("settings", "holds", "instead"),
    [
        (["anchor_share=0.5"], 8, "4 or less"),
        (["partition=iid", "partition.anchors=0.93", "partition.least_images=2"], 11, "5 or less"),
        (["partition=iid", "anchor_share=0.1", "anchors_at=exchanges", "exchange.every_steps=2",
          "partition.anchors=0.93", "partition.least_images=2"], 3, "1"),
    ],
)  # fmt: skip
def test_parts_of_the_passes_that_a_peer_really_has_are_refused(settings, holds, instead):
    """Without private images a pass is the anchors alone; with few, it has few of them."""
    told = rf"some pass .* holds {holds} .* type peers\.wide\.data_parallel={instead}$"
    with pytest.raises(ConfigError, match=told):
        peer_of("peers.wide.data_parallel=6", *settings)


def test_synchronised_statistics_are_for_gpus():
    with pytest.raises(ConfigError, match=r"peers\.wide\.sync_batchnorm=true needs GPUs"):
        peer_of(TWO_PARTS, "peers.wide.sync_batchnorm=true")


def test_synchronised_statistics_reach_all_but_the_average():
    _, peer = peer_of("peers.wide.teacher=ema")
    opening.with_synchronised_statistics(peer.objective, peer.id, torch.device("cuda"))
    kinds = {
        name.startswith("average."): type(module)
        for name, module in peer.objective.named_modules()
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d | nn.SyncBatchNorm)
    }
    assert kinds[False] is nn.SyncBatchNorm and kinds[True] is not nn.SyncBatchNorm


def test_too_few_gpus_are_told_with_what_to_do(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    run, peer = peer_of()
    config = dataclasses.replace(run.config.peers["wide"], data_parallel=4)
    peers = {**run.config.peers, "wide": config}
    run = dataclasses.replace(run, config=dataclasses.replace(run.config, peers=peers))
    peer = dataclasses.replace(peer, device=torch.device("cuda"))
    with pytest.raises(
        ConfigError, match=r"needs 4 GPUs, and .* sees 1\..*leave ray.gpus_per_peer out"
    ):
        opening._with_helpers(peer, run)


def test_one_process_has_the_helpers_of_one_peer(monkeypatch):
    monkeypatch.setattr(dist, "is_initialized", lambda: True)
    with pytest.raises(ConfigError, match="type host=processes or host=ray"):
        peer_of(TWO_PARTS)


def test_a_peer_that_can_not_be_copied_is_told():
    class Local(NoBatchStatistics):
        """A class that another process can't import."""

    with pytest.raises(ConfigError, match="copies the peer to other processes"):
        peer_of(TWO_PARTS, backbone=Local())
