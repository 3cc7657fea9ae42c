"""Flower's simulation on a Ray cluster that was there before and is there after: its GPUs are given back.

The GPUs exist on paper only.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.command_line import SMALL_RUN, dogo_fed
from tests.support.flower_simulation import copy_app, placements
from tests.support.leftover_processes import Started, started_here
from tests.support.ray_clusters import IDLE, Running, head
from tests.support.run_watch import digests

RUN = (
    *(part for part in SMALL_RUN if not part.startswith("steps")),
    *("steps=10", "steps_per_round=5", "device=cpu"),
)
HOLD_A_GPU = """
import sys
import ray

ray.init(address=sys.argv[1], log_to_driver=False, configure_logging=False)


@ray.remote(num_cpus=0, num_gpus=1)
class Holder:
    def is_here(self):
        return True


holder = Holder.remote()
assert ray.get(holder.is_here.remote(), timeout=60)
print("held", flush=True)
sys.stdin.read()
"""
SLOW_TO_IMPORT = """
import importlib.abc, os, pathlib, sys, time


class Slow(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name == "clients.flower.peer_host" and "ray" in sys.modules:
            sys.meta_path.remove(self)
            pathlib.Path(__file__).with_name(f"waited-{os.getpid()}").touch()
            time.sleep(25)
        return None


sys.meta_path.insert(0, Slow())
"""
RUN_WITHIN_S = 600.0
SOON_S = 300.0
GONE_WITHIN_S = 10.0

pytestmark = [
    pytest.mark.slow,
    pytest.mark.flower,
    pytest.mark.ray,
    pytest.mark.timeout(1800),
    pytest.mark.skipif(sys.platform != "linux", reason="orphans are taken in on Linux only"),
]


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return copy_app(tmp_path_factory.mktemp("existing") / "app")


@pytest.fixture(scope="module")
def cluster() -> Iterator[Running]:
    with head(num_cpus=2, num_gpus=2) as running:
        yield running


@pytest.fixture
def started(cluster: Running, monkeypatch: pytest.MonkeyPatch) -> Iterator[Started]:
    """What a test starts, less what the cluster starts; nothing of it may be left."""
    monkeypatch.setenv("RAY_ADDRESS", cluster.address)
    with started_here() as family:
        yield family
        assert family.left(GONE_WITHIN_S) == []
    assert cluster.busy() == IDLE


@contextmanager
def gpu_taken(cluster: Running) -> Iterator[None]:
    """Another user of the cluster has one of its GPUs."""
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD_A_GPU, cluster.address],
        env=cluster.environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        assert holder.stdout is not None and holder.stdout.readline().strip() == "held"
        yield
    finally:
        try:
            holder.communicate(timeout=30)
        except subprocess.TimeoutExpired:
            holder.kill()
            holder.communicate(timeout=10)


def reference(app: Path, folder: Path, *settings: str) -> dict[str, str]:
    dogo_fed("train", *RUN, *settings, "host=local", f"run_dir={folder}", cwd=app)
    return digests(folder)


def test_each_peer_has_a_gpu_of_its_own_run_after_run(
    app: Path, cluster: Running, started: Started, tmp_path: Path
) -> None:
    expected = reference(app, tmp_path / "reference", "peers=simclr_simsiam")
    for name, way in (("first", "grpc"), ("second", "flower")):
        run_dir = tmp_path / name
        dogo_fed(
            *("flower", *RUN, "peers=simclr_simsiam", f"exchange={way}", f"run_dir={run_dir}"),
            cwd=app,
            timeout_s=RUN_WITHIN_S,
        )
        assert digests(run_dir) == expected
        assert sorted(place.gpu for place in placements(run_dir).values()) == ["0", "1"]
        assert cluster.busy() == IDLE, "neither a GPU nor an actor is held"


def test_more_gpus_than_there_are_is_refused_with_what_to_do(
    app: Path, started: Started, tmp_path: Path
) -> None:
    output = dogo_fed(
        *("flower", *RUN, "peers=trio", "ray.gpus_per_peer=1", f"run_dir={tmp_path / 'run'}"),
        expect=1,
        cwd=app,
        timeout_s=SOON_S,
    )
    line = output.strip().splitlines()[-1]
    assert line.startswith("dogo-fed: ")
    assert "3 peers need 1 GPU each, but the cluster has 2" in line
    assert "ray.gpus_per_peer=0.5" in line, "0.66 would fit twice only"
    assert line.count("need 1 GPU each") == 1, "said once, not once for each peer"


def test_three_peers_share_two_gpus(app: Path, started: Started, tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    dogo_fed(
        *("flower", *RUN, "peers=trio", f"run_dir={run_dir}"),
        cwd=app,
        timeout_s=RUN_WITHIN_S,
    )
    gpus = [place.gpu for place in placements(run_dir).values()]
    assert len(gpus) == 3 and set(gpus) <= {"0", "1"}
    assert digests(run_dir) == reference(app, tmp_path / "reference", "peers=trio")


def test_a_fraction_that_does_not_fit_is_refused(
    app: Path, started: Started, tmp_path: Path
) -> None:
    output = dogo_fed(
        *("flower", *RUN, "peers=trio", "ray.gpus_per_peer=0.66", f"run_dir={tmp_path / 'run'}"),
        expect=1,
        cwd=app,
        timeout_s=SOON_S,
    )
    line = output.strip().splitlines()[-1]
    assert "a fraction does not span two" in line and "ray.gpus_per_peer=0.5" in line


def test_a_peer_that_starts_slowly_is_not_taken_for_one_without_a_gpu(
    app: Path, started: Started, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Ray gives it its GPU at once; what it has to import takes longer than room may take to come.
    slow = tmp_path / "slow"
    slow.mkdir()
    (slow / "sitecustomize.py").write_text(SLOW_TO_IMPORT)
    monkeypatch.setenv("PYTHONPATH", f"{slow}{os.pathsep}{app}")
    run_dir = tmp_path / "run"
    dogo_fed(
        *("flower", *RUN, "peers=simclr_simsiam", "ray.placement_timeout_s=18"),
        f"run_dir={run_dir}",
        cwd=app,
        timeout_s=RUN_WITHIN_S,
    )
    assert len(placements(run_dir)) == 2
    assert len(list(slow.glob("waited-*"))) >= 2, "somebody was slow"


def test_a_peer_that_finds_no_free_gpu_is_told_with_what_is_there(
    app: Path, cluster: Running, started: Started, tmp_path: Path
) -> None:
    with gpu_taken(cluster):
        output = dogo_fed(
            *("flower", *RUN, "peers=simclr_simsiam", "ray.placement_timeout_s=5"),
            f"run_dir={tmp_path / 'run'}",
            expect=1,
            cwd=app,
            timeout_s=SOON_S,
        )
    line = output.strip().splitlines()[-1]
    assert "there is no GPU for it" in line and "'GPU': 2.0" in line, line
