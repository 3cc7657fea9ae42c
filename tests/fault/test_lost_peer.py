"""A peer that dies is started again from its checkpoint; the others go on; the run tells what happened."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest

from tests.support.command_line import dogo_fed, start
from tests.support.run_watch import (
    descendants,
    events,
    is_alive,
    kill,
    peer_pids,
    records,
    wait_for_step,
    wait_until_gone,
)

RUN = (
    "data=synthetic",
    "peers=pair",
    "steps=400",
    "steps_per_round=400",
    "batch_size=32",
    "eval.knn_k=20",
    "eval.linear=false",
    "checkpoint.every_steps=10",
    "exchange.deadline_s=60",
)

HOSTS = [
    pytest.param("processes", marks=pytest.mark.grpc),
    pytest.param("ray", marks=[pytest.mark.ray, pytest.mark.slow]),
]

pytestmark = pytest.mark.kill


@pytest.mark.slow
@pytest.mark.parametrize("host", HOSTS)
@pytest.mark.parametrize(
    "images", [(), ("partition=dirichlet", "partition.alpha=1")], ids=["shared", "private"]
)
def test_a_killed_peer_comes_back(host: str, images: tuple[str, ...], tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    process = start("train", *RUN, *images, f"host={host}", f"run_dir={run_dir}")
    try:
        wait_for_step(run_dir, 15, process)
        victim = peer_pids(run_dir)["wide"]
        kill(victim)
        output, _ = process.communicate(timeout=150)
    finally:
        process.kill()
    assert process.returncode == 0, output
    assert [event["peer"] for event in events(run_dir, "peer_lost")] == ["wide"]
    assert [event["peer"] for event in events(run_dir, "peer_started")] == [
        "resnet",
        "wide",
        "wide",
    ]
    summary = json.loads((run_dir / "summary.json").read_text())
    assert {event["kind"] for event in summary["events"]} >= {"peer_lost", "peer_started"}
    # The survivor has done every step; the one that was away has missed some, and came back.
    assert summary["peers"]["resnet"]["steps_trained"] == 400
    assert summary["peers"]["wide"]["steps_trained"] <= 400
    last = {one["peer"]: one["step"] for one in records(run_dir) if one["type"] == "step"}
    assert last == {"resnet": 399, "wide": 399}
    survivor = [
        one for one in records(run_dir) if one["type"] == "step" and one["peer"] == "resnet"
    ]
    assert [one["step"] for one in survivor] == list(range(400))
    taught = [one["num_teachers"] for one in survivor]
    assert taught[0] == 1 and taught[-1] == 1, "it was taught before the loss and after the return"
    assert is_alive(victim) is False


@pytest.mark.slow
@pytest.mark.grpc
def test_a_peer_that_keeps_dying_is_given_up_and_the_other_finishes(tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    process = start(
        "train", *RUN, "host=processes", "recovery.max_restarts=0", f"run_dir={run_dir}"
    )
    try:
        wait_for_step(run_dir, 15, process)
        kill(peer_pids(run_dir)["wide"])
        output, _ = process.communicate(timeout=150)
    finally:
        process.kill()
    assert process.returncode == 1
    assert "max_restarts" in output
    summary = json.loads((run_dir / "summary.json").read_text())
    assert summary["peers"]["resnet"]["steps_trained"] == 400


@pytest.mark.slow
@pytest.mark.parametrize("host", ["local", *HOSTS])
def test_ctrl_c_leaves_checkpoints_and_no_processes(host: str, tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    process = start(
        "train", *RUN, "checkpoint.every_steps=null", f"host={host}", f"run_dir={run_dir}"
    )
    try:
        wait_for_step(run_dir, 15, process)
        below = descendants(process.pid)
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate(timeout=90)
    finally:
        process.kill()
    assert process.returncode == 130, output
    assert wait_until_gone(below) == []
    saved = {
        name: sorted(path.name for path in (run_dir / "peers" / name / "checkpoints").iterdir())
        for name in ("resnet", "wide")
    }
    # All peers stop after the same step, which is saved although no checkpoint was due.
    assert saved["wide"] == saved["resnet"]
    assert len(saved["wide"]) == 2
    assert events(run_dir, "stopped")
    stopped_at = int(saved["wide"][-1][5:14])
    assert stopped_at < 400
    dogo_fed("train", f"resume={run_dir}", f"steps={stopped_at + 3}", "host=local")
    last = {one["peer"]: one["step"] for one in records(run_dir) if one["type"] == "step"}
    assert last == {"resnet": stopped_at + 2, "wide": stopped_at + 2}
