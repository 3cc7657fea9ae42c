"""Peers on different nodes: the same numbers; a node that goes takes its peer along, not the run."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.command_line import dogo_fed, start
from tests.support.ray_clusters import IDLE, LOOPBACK, Running, nodes, seats
from tests.support.run_watch import digests, events, kill, records, wait_for_step

ONE_EACH = {"num_cpus": 1, "num_gpus": 1}
ELSEWHERE = {**ONE_EACH, "node_ip_address": "127.0.0.2"}

pytestmark = [pytest.mark.ray, pytest.mark.slow]


@pytest.fixture(scope="module")
def cluster() -> Iterator[Running]:
    with nodes(ONE_EACH, ELSEWHERE) as running:
        yield running


@pytest.mark.parametrize("placement", ["STRICT_SPREAD", "PACK"])
def test_peers_on_two_nodes_equal_one_process(
    placement: str,
    cluster: Running,
    run_settings: tuple[str, ...],
    reference: dict[str, str],
    tmp_path: Path,
) -> None:
    run_dir = tmp_path / "run"
    dogo_fed(
        "train",
        *run_settings,
        f"ray.address={cluster.address}",
        f"ray.placement={placement}",
        f"run_dir={run_dir}",
    )
    first, second = (seat for _, seat in seats(run_dir))
    assert first.node_id != second.node_id
    assert first.address != second.address
    assert first.gpu == second.gpu == "0", "each is the only one of its node"
    log = (run_dir / "coordinator.log").read_text()
    assert "coordinator listens on" in log
    assert f"coordinator listens on {LOOPBACK}" not in log, "others could not reach it there"
    assert digests(run_dir) == reference
    assert cluster.busy() == IDLE


@pytest.mark.kill
def test_a_peer_comes_back_on_another_node(tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    with nodes({**ONE_EACH, "num_gpus": 0, "num_cpus": 0}, *[ONE_EACH] * 3) as three:
        process = start(
            *("train", "data=synthetic", "steps=1000", "steps_per_round=1000", "batch_size=32"),
            *("eval.knn_k=20", "eval.linear=false", "checkpoint.every_steps=10", "device=cpu"),
            *(f"ray.address={three.address}", "ray.placement=STRICT_SPREAD", f"run_dir={run_dir}"),
        )
        try:
            wait_for_step(run_dir, 15, process)
            kill(parent(dict(seats(run_dir))["wide"].pid))  # the raylet: what makes it a node
            output, _ = process.communicate(timeout=400)
        finally:
            process.kill()
        assert process.returncode == 0, output
        starts = seats(run_dir)
        assert [peer for peer, _ in starts] == ["resnet", "wide", "wide"]
        assert len({seat.node_id for _, seat in starts}) == 3
        assert [event["peer"] for event in events(run_dir, "peer_lost")] == ["wide"]
        summary = json.loads((run_dir / "summary.json").read_text())
        assert summary["peers"]["resnet"]["steps_trained"] == 1000
        last = {one["peer"]: one["step"] for one in records(run_dir) if one["type"] == "step"}
        assert last == {"resnet": 999, "wide": 999}


def parent(pid: int) -> int:
    """Returns the id of the process that started `pid`."""
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
