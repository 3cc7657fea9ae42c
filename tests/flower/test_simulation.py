"""Flower's simulation by the wrapper `dogo-fed flower`: the same numbers, and nothing left behind."""

from __future__ import annotations

import functools
import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.support.command_line import SMALL_RUN, dogo_fed, start
from tests.support.flower_simulation import (
    checkpoints,
    copy_app,
    listen_somewhere,
    placements,
    wait_for_step,
    was_called,
)
from tests.support.leftover_processes import Started, started_here
from tests.support.run_watch import digests, events, kill, records

EXCHANGES = ("grpc", "flower")
WAYS = tuple(pytest.param(way, marks=pytest.mark.slow) for way in EXCHANGES)
"""The first opens a port and the peers' conversation is that of host=ray; the second is Flower's own."""
PAIR = ("simclr", "simsiam")
RUN = (*SMALL_RUN, "device=cpu")
LONG_RUN = (
    "data=synthetic",
    "peers=simclr_simsiam",
    "steps=400",
    "steps_per_round=100",
    "batch_size=32",
    "eval.knn_k=20",
    "eval.linear=false",
    "device=cpu",
)
IMAGES = pytest.mark.parametrize(
    "images", [(), ("partition=dirichlet", "partition.alpha=0.1")], ids=["shared", "private"]
)
RUN_WITHIN_S = 600.0
GONE_WITHIN_S = 10.0
RAYS_AGENTS_GONE_WITHIN_S = 180.0
"""Where nobody ends them, they notice by themselves that their raylet is dead, and take their time."""

pytestmark = [
    pytest.mark.flower,
    pytest.mark.timeout(1800),
    pytest.mark.skipif(sys.platform != "linux", reason="orphans are taken in on Linux only"),
]


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return copy_app(tmp_path_factory.mktemp("simulation") / "app")


@pytest.fixture
def started() -> Iterator[Started]:
    """What a test starts; nothing of it may be left at its end."""
    with started_here() as family:
        yield family
        assert family.left(GONE_WITHIN_S) == []


@dataclass(frozen=True)
class Done:
    """A run of the wrapper that has ended."""

    folder: Path
    output: str
    left: list[str]
    was_port_used: bool

    def summary(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.folder / "summary.json").read_text())
        return found

    def says(self) -> str:
        """Returns where the coordinator says it listens."""
        log = (self.folder / "coordinator.log").read_text()
        found = re.search(r"coordinator listens on(.*)", log)
        assert found, log
        return found[1].strip()


def carry_out(app: Path, folder: Path, *settings: str) -> Done:
    """Runs the wrapper to its end; with exchange=flower, the coordinator's port is not free."""
    with started_here() as family, listen_somewhere() as taken:
        if "exchange=flower" in settings:
            settings = (*settings, f"coordinator.port={taken.getsockname()[1]}")
        output = dogo_fed("flower", *settings, f"run_dir={folder}", cwd=app, timeout_s=RUN_WITHIN_S)
        return Done(folder, output, family.left(GONE_WITHIN_S), was_called(taken))


@pytest.fixture(scope="module")
def reference(app: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("reference") / "run"
    settings = (*RUN, "peers=simclr_simsiam", f"run_dir={folder}")
    dogo_fed("train", *settings, "host=local", cwd=app)
    return folder


@pytest.fixture(scope="module")
def done(app: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Done]:
    """Returns a function that gives the run of an exchange, carried out once."""
    folder = tmp_path_factory.mktemp("pair")

    @functools.cache
    def carried_out(way: str) -> Done:
        return carry_out(app, folder / way, *RUN, "peers=simclr_simsiam", f"exchange={way}")

    return carried_out


class TestPair:
    """Two runs, and all that is said about them."""

    @pytest.mark.parametrize("way", WAYS)
    def test_the_numbers_are_those_of_one_process(
        self, way: str, done: Callable[[str], Done], reference: Path
    ) -> None:
        expected = digests(reference)
        assert sorted(expected) == list(PAIR) and len(set(expected.values())) == 2
        assert digests(done(way).folder) == expected

    @pytest.mark.parametrize("way", WAYS)
    def test_every_round_is_evaluated_and_every_step_told(
        self, way: str, done: Callable[[str], Done], reference: Path
    ) -> None:
        def told(folder: Path, kind: str, *names: str) -> list[tuple[Any, ...]]:
            of_kind = [one for one in records(folder) if one["type"] == kind]
            return sorted(tuple(one[name] for name in names) for one in of_kind)

        rounds = told(done(way).folder, "round", "peer", "round", "step", "knn_top1")
        assert len(rounds) == 2 * 4, "before the first and after each of the three"
        assert rounds == told(reference, "round", "peer", "round", "step", "knn_top1")
        steps = told(done(way).folder, "step", "peer", "step", "num_teachers")
        assert steps == [(peer, step, 1) for peer in PAIR for step in range(50)]

    @pytest.mark.parametrize("way", WAYS)
    def test_its_report_is_in_the_folder_that_the_user_named(
        self, way: str, done: Callable[[str], Done]
    ) -> None:
        summary = done(way).summary()
        assert (summary["host"], summary["run_id"], summary["steps"]) == ("flower", way, 50)
        assert f"run folder: {done(way).folder}" in done(way).output
        assert summary["exchange"]["bytes_up_per_step"] > 32 * 32 * 4
        names = {path.name for path in done(way).folder.iterdir()}
        assert {"config.yaml", "curves.png", "metrics.jsonl", "peers"} <= names
        for peer in PAIR:
            told = summary["peers"][peer]
            assert told["steps_trained"] == 50
            assert told["knn_top1"] > 0.25 and told["linear_top1"] > 0.25

    @pytest.mark.parametrize("way", WAYS)
    def test_each_peer_had_a_process_of_its_own_which_is_gone_like_all_others(
        self, way: str, done: Callable[[str], Done]
    ) -> None:
        placed = placements(done(way).folder)
        assert sorted(placed) == list(PAIR)
        assert len({place.pid for place in placed.values()}) == 2
        assert not any(psutil.pid_exists(place.pid) for place in placed.values())
        assert done(way).left == []

    @pytest.mark.slow
    def test_only_the_exchange_over_grpc_opens_a_port(self, done: Callable[[str], Done]) -> None:
        assert re.fullmatch(r"127\.0\.0\.1:\d+", done("grpc").says())
        # The port that it was told to listen on was taken, and nobody minded or called there.
        assert done("flower").says() == ""
        assert not done("flower").was_port_used


def last_line(output: str) -> str:
    """Returns the last line, which is ours and one line."""
    line = output.strip().splitlines()[-1]
    assert line.startswith("dogo-fed: "), output
    return line


@pytest.mark.slow
def test_the_exchange_over_grpc_needs_the_port_that_it_is_told(
    app: Path, started: Started, tmp_path: Path
) -> None:
    # Without this, that exchange=flower goes through with the same setting would prove nothing.
    with listen_somewhere() as taken:
        port = taken.getsockname()[1]
        output = dogo_fed(
            *("flower", *RUN, "peers=simclr_simsiam", f"coordinator.port={port}"),
            *("coordinator.address=127.0.0.1", f"run_dir={tmp_path / 'run'}"),
            expect=1,
            cwd=app,
            timeout_s=RUN_WITHIN_S,
        )
    assert str(port) in last_line(output)


@pytest.mark.slow
def test_three_peers_have_the_numbers_of_one_process(
    app: Path, started: Started, tmp_path: Path
) -> None:
    settings = (*RUN, "peers=trio")
    dogo_fed("train", *settings, "host=local", f"run_dir={tmp_path / 'reference'}", cwd=app)
    done = carry_out(app, tmp_path / "run", *settings, "exchange=flower")
    assert digests(done.folder) == digests(tmp_path / "reference")
    assert len(done.summary()["peers"]) == len(placements(done.folder)) == 3
    assert done.left == []


@pytest.mark.slow
@pytest.mark.kill
@IMAGES
def test_a_run_that_is_stopped_by_ctrl_c_goes_on_to_the_same_numbers(
    images: tuple[str, ...], app: Path, started: Started, tmp_path: Path
) -> None:
    run_dir = tmp_path / "run"
    settings = [part for part in LONG_RUN if not part.startswith("steps")]
    settings += ["steps_per_round=1000", *images]
    process = start(
        *("flower", *settings, "exchange=flower", "steps=4000", f"run_dir={run_dir}"), cwd=app
    )
    try:
        wait_for_step(run_dir, 15, lambda: process.poll() is not None)
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate(timeout=120)
    finally:
        process.kill()
    assert process.returncode == 130, output
    assert f"dogo-fed flower resume={run_dir}" in output
    assert started.left(GONE_WITHIN_S) == []
    assert events(run_dir, "stopped")
    saved = {peer: checkpoints(run_dir, peer)[-1] for peer in PAIR}
    assert len(set(saved.values())) == 1, "all peers stop after the same step"
    stopped_at = saved["simclr"]
    assert 15 <= stopped_at < 4000
    steps = f"steps={stopped_at + 20}"
    dogo_fed("flower", f"resume={run_dir}", steps, cwd=app, timeout_s=RUN_WITHIN_S)
    reference = tmp_path / "reference"
    dogo_fed("train", *settings, steps, "host=local", f"run_dir={reference}", cwd=app)
    assert digests(run_dir) == digests(reference)
    assert events(run_dir, "resumed")[-1]["step"] == stopped_at
    for peer in PAIR:
        mine = [one for one in records(run_dir) if one["type"] == "step" and one["peer"] == peer]
        assert [one["step"] for one in mine] == list(range(stopped_at + 20))
        assert all(one["num_teachers"] == 1 for one in mine)


@pytest.mark.slow
@pytest.mark.kill
@IMAGES
def test_a_peer_whose_process_is_killed_comes_back(
    images: tuple[str, ...], app: Path, started: Started, tmp_path: Path
) -> None:
    run_dir = tmp_path / "run"
    process = start(
        *("flower", *LONG_RUN, *images, "checkpoint.every_steps=10", "exchange=flower"),
        f"run_dir={run_dir}",
        cwd=app,
    )
    try:
        wait_for_step(run_dir, 15, lambda: process.poll() is not None)
        victim = placements(run_dir)["simsiam"].pid
        assert victim in started.alive()
        kill(victim)
        output, _ = process.communicate(timeout=RUN_WITHIN_S)
    finally:
        process.kill()
    assert process.returncode == 0, output
    assert [event["peer"] for event in events(run_dir, "peer_lost")] == ["simsiam"]
    assert sorted(event["peer"] for event in events(run_dir, "peer_started")) == [
        "simclr",
        "simsiam",
        "simsiam",
    ]
    assert placements(run_dir)["simsiam"].pid != victim
    assert "peer simsiam started again" in output
    told: dict[str, list[dict[str, Any]]] = {peer: [] for peer in PAIR}
    for one in records(run_dir):
        if one["type"] == "step":
            told[one["peer"]].append(one)
    assert [one["step"] for one in told["simclr"]] == list(range(400))
    assert told["simsiam"][-1]["step"] == 399
    taught = [one["num_teachers"] for one in told["simclr"]]
    assert taught[0] == 1 and taught[-1] == 1, "it was taught before the loss and after the return"


BROKEN = """
from torch import nn


class Broken(nn.Module):
    def __init__(self, after: int, image_size: int, in_channels: int) -> None:
        super().__init__()
        self.layer = nn.Conv2d(in_channels, 8, 3, stride=2)
        self.left = after

    def forward(self, images):
        if self.training:
            self.left -= 1
        if self.left < 0:
            raise ValueError("broken on purpose")
        return self.layer(images).mean(dim=(2, 3))
"""

UNEQUAL = """
import sys

import numpy as np

import dogo_fed


def load() -> dogo_fed.DataSet:
    draw = np.random.default_rng(int("clients.flower.peer_host" in sys.modules))

    def images(number):
        return draw.integers(0, 255, (number, 3, 16, 16)).astype(np.uint8), np.arange(number) % 4

    return dogo_fed.dataset_from_arrays("unequal", *images(128), *images(32), 4)
"""


class TestFailures:
    """Each ends with status 1 and one line that says what is wrong, and leaves nothing."""

    @pytest.fixture
    def own(self, app: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        """A folder with modules of the user's own, in which the user is."""
        (tmp_path / "own_model.py").write_text(BROKEN)
        (tmp_path / "own_data.py").write_text(UNEQUAL)
        monkeypatch.setenv("PYTHONPATH", str(app))
        return tmp_path

    def fails(self, own: Path, *settings: str) -> str:
        output = dogo_fed(
            *("flower", *RUN, "peers=simclr_simsiam", *settings, f"run_dir={own / 'run'}"),
            expect=1,
            cwd=own,
            timeout_s=RUN_WITHIN_S,
        )
        return last_line(output)

    @pytest.mark.slow
    def test_a_loss_that_is_not_finite(self, own: Path, started: Started) -> None:
        line = self.fails(
            own, "peers.simsiam.optimizer.options.lr=1e30", "exchange=flower", "steps=5"
        )
        assert "peer simsiam can't go on" in line and "finite" in line
        # The other one has gone on without it.
        summary = json.loads((own / "run" / "summary.json").read_text())
        assert summary["peers"]["simclr"]["steps_trained"] == 5

    @pytest.mark.slow
    def test_a_model_of_one_s_own_that_raises(self, own: Path, started: Started) -> None:
        line = self.fails(
            own,
            "backbone@peers.simsiam.backbone=own",
            "peers.simsiam.backbone.name=own_model:Broken",
            "+peers.simsiam.backbone.options.after=8",
        )
        assert "peer simsiam can't go on: ValueError: broken on purpose" in line
        summary = json.loads((own / "run" / "summary.json").read_text())
        assert summary["peers"]["simclr"]["steps_trained"] == 50

    @pytest.mark.slow
    def test_data_that_are_not_equal_everywhere(self, own: Path, started: Started) -> None:
        line = self.fails(own, "data=own", "data.name=own_data:load", "exchange=flower")
        assert "data_fingerprint is" in line
        assert not any(one["type"] == "step" for one in records(own / "run"))


@pytest.mark.slow
@pytest.mark.kill
def test_nothing_outlives_a_wrapper_that_is_killed(
    app: Path, started: Started, tmp_path: Path
) -> None:
    run_dir = tmp_path / "run"
    process = start("flower", *LONG_RUN, "steps=4000", f"run_dir={run_dir}", cwd=app)
    try:
        wait_for_step(run_dir, 5, lambda: process.poll() is not None)
        assert len(started.alive()) > 5
    finally:
        kill(process.pid)
        process.communicate(timeout=60)
    assert started.left(RAYS_AGENTS_GONE_WITHIN_S) == []
    assert all(checkpoints(run_dir, peer) for peer in PAIR)


def test_what_is_left_is_found_even_in_a_session_of_its_own() -> None:
    script = "setsid sleep 300 & setsid bash -c 'exec -a somebody sleep 300' &"
    with started_here() as family:
        subprocess.run(["bash", "-c", script], check=True, timeout=20)
        deadline_s = time.monotonic() + 20
        while True:  # the second one is called bash until it has become the other
            found = family.left(within_s=0)
            if sorted(one.partition(" ")[2] for one in found) == ["sleep 300", "somebody 300"]:
                break
            assert time.monotonic() < deadline_s, found
            time.sleep(0.05)
        assert family.left(within_s=0, but=("sleep",)) == [one for one in found if "body" in one]
    assert family.alive() == {}


class MissesOnce(Started):
    """Looks first when a process is just ending, so that its children are below nobody known."""

    num_looks = 0

    def _children(self) -> set[psutil.Process]:
        self.num_looks += 1
        return set() if self.num_looks == 1 else super()._children()


def test_who_loses_its_parent_during_a_look_is_found() -> None:
    family = MissesOnce()
    with subprocess.Popen(["sleep", "300"]) as sleeper:
        try:
            assert family.left(within_s=0) == [f"{sleeper.pid} sleep 300"]
        finally:
            sleeper.kill()
