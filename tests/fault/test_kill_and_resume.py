"""A run that is killed and goes on ends with the very weights of one that was never interrupted."""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path

import pytest

from tests.support.command_line import SMALL_RUN, dogo_fed, start
from tests.support.run_watch import (
    descendants,
    digests,
    events,
    kill,
    peer_pids,
    records,
    wait_for_step,
    wait_until_gone,
)

RUN = (*SMALL_RUN, "peers=simclr_simsiam", "checkpoint.every_steps=7")
TOTAL_STEPS = 50

pytestmark = [pytest.mark.kill, pytest.mark.grpc]


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    run_dir = tmp_path_factory.mktemp("uninterrupted") / "run"
    dogo_fed("train", *RUN, "host=local", f"run_dir={run_dir}")
    return digests(run_dir)


def kill_whole_run(run_dir: Path, host: str, step: int, *changes: str) -> None:
    """Starts a run and ends all its processes at once when it has reached `step`."""
    process = start("train", *RUN, *changes, f"host={host}", f"run_dir={run_dir}")
    try:
        wait_for_step(run_dir, step, process)
    finally:
        victims = [process.pid, *descendants(process.pid), *peer_pids(run_dir).values()]
        for pid in victims:
            kill(pid)
        process.communicate(timeout=10)
    assert wait_until_gone(victims) == []
    assert not (run_dir / "summary.json").exists(), "it was killed before its end"


def resume_and_compare(run_dir: Path, uninterrupted: dict[str, str]) -> None:
    dogo_fed("train", f"resume={run_dir}")
    assert digests(run_dir) == uninterrupted
    steps = {}
    for record in records(run_dir):
        if record["type"] == "step":
            steps.setdefault(record["peer"], []).append(record["step"])
    # Nothing is told twice and nothing is missing, although the run was told in two parts.
    assert {name: sorted(found) for name, found in steps.items()} == {
        name: list(range(TOTAL_STEPS)) for name in uninterrupted
    }
    assert events(run_dir, "resumed")
    summary = json.loads((run_dir / "summary.json").read_text())
    assert all(peer["steps_trained"] == TOTAL_STEPS for peer in summary["peers"].values())


@pytest.mark.slow
def test_peers_of_a_killed_launcher_leave_by_themselves(
    uninterrupted: dict[str, str], tmp_path: Path
) -> None:
    run_dir = tmp_path / "run"
    process = start("train", *RUN, "host=processes", "exchange.reconnect_s=2", f"run_dir={run_dir}")
    try:
        wait_for_step(run_dir, 12, process)
        peers = list(peer_pids(run_dir).values())
    finally:
        kill(process.pid)
        process.communicate(timeout=10)
    assert wait_until_gone(peers) == []
    resume_and_compare(run_dir, uninterrupted)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2))
def test_killed_at_a_random_step(seed: int, uninterrupted: dict[str, str], tmp_path: Path) -> None:
    kill_whole_run(tmp_path / "run", "processes", step=random.Random(seed).randrange(1, 45))
    resume_and_compare(tmp_path / "run", uninterrupted)


@pytest.mark.slow
def test_killed_where_peers_exchange_at_every_third_step(tmp_path: Path) -> None:
    """With a checkpoint at every step, so that peers have newest ones of different steps."""
    changes = ("exchange.every_steps=3", "checkpoint.every_steps=1")
    dogo_fed("train", *RUN, *changes, "host=local", f"run_dir={tmp_path / 'whole'}")
    step = random.Random(2).randrange(1, 40)
    kill_whole_run(tmp_path / "run", "processes", step, *changes)
    resume_and_compare(tmp_path / "run", digests(tmp_path / "whole"))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("host", "peers"),
    [
        ("processes", "simclr_simsiam"),
        ("processes", "sites"),
        pytest.param("ray", "simclr_simsiam", marks=pytest.mark.ray),
        pytest.param("ray", "sites", marks=pytest.mark.ray),
    ],
)
def test_killed_with_private_images(host: str, peers: str, tmp_path: Path) -> None:
    """With anchors at the steps that exchange alone, so that passes differ from step to step."""
    changes = (
        f"peers={peers}", "partition=dirichlet", "partition.alpha=0.1", "anchors_at=exchanges",
        "exchange.every_steps=3",
    )  # fmt: skip
    dogo_fed("train", *RUN, *changes, "host=local", f"run_dir={tmp_path / 'whole'}")
    step = random.Random(f"{host} {peers}").randrange(1, 40)
    kill_whole_run(tmp_path / "run", host, step, *changes)
    resume_and_compare(tmp_path / "run", digests(tmp_path / "whole"))


@pytest.mark.slow
@pytest.mark.ray
def test_killed_with_ray(uninterrupted: dict[str, str], tmp_path: Path) -> None:
    kill_whole_run(tmp_path / "run", "ray", step=random.Random(9).randrange(1, 45))
    resume_and_compare(tmp_path / "run", uninterrupted)


@pytest.mark.slow
def test_a_torn_checkpoint_is_not_the_end(uninterrupted: dict[str, str], tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    dogo_fed("train", *RUN, "host=local", f"run_dir={run_dir}", expect=0)
    newest = max((run_dir / "peers" / "simclr" / "checkpoints").iterdir())
    newest.write_bytes(newest.read_bytes()[:100])
    assert newest.name in dogo_fed("train", f"resume={run_dir}")
    assert events(run_dir, "resumed")[-1]["step"] == 49
    assert digests(run_dir) == uninterrupted


@pytest.mark.slow
def test_a_finished_run_can_be_made_longer(tmp_path: Path) -> None:
    short, long = tmp_path / "short", tmp_path / "long"
    run = [part for part in RUN if not part.startswith("steps=")]
    dogo_fed("train", *run, "host=local", "rounds=1", f"run_dir={short}")
    dogo_fed("train", f"resume={short}", "rounds=2", "host=processes")
    dogo_fed("train", *run, "host=local", "rounds=2", f"run_dir={long}")
    assert digests(short) == digests(long)


@pytest.mark.slow
def test_another_run_is_not_resumed(tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    dogo_fed("train", *RUN, "host=local", "steps=2", f"run_dir={run_dir}")
    assert "seed" in dogo_fed("train", f"resume={run_dir}", "seed=5", expect=2)
    copy = tmp_path / "copy"
    shutil.copytree(run_dir, copy)
    (copy / "config.yaml").unlink()
    assert "config.yaml" in dogo_fed("train", f"resume={copy}", expect=2)
    assert "exists already" in dogo_fed("train", *RUN, f"run_dir={run_dir}", expect=2)
