"""What can't be placed is an error that says so, soon; a Ray of one's own leaves nothing behind."""

from __future__ import annotations

import http.server
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.command_line import dogo_fed, start
from tests.support.ray_clusters import IDLE, Running, nodes, seats, short_temp_dir
from tests.support.run_watch import descendants, digests, events, wait_for_step, wait_until_gone

ONE_EACH = {"num_cpus": 1, "num_gpus": 1}
SOON_S = 60.0

pytestmark = pytest.mark.ray


@pytest.fixture(scope="module")
def cluster() -> Iterator[Running]:
    with nodes(ONE_EACH, ONE_EACH) as running:
        yield running


def refused(tmp_path: Path, *settings: str) -> str:
    """Runs what can't be placed; returns the last line of what was said."""
    started_s = time.monotonic()
    output = dogo_fed(
        "train", "data=synthetic", "steps=3", f"run_dir={tmp_path / 'run'}", *settings, expect=2
    )
    assert time.monotonic() - started_s < SOON_S
    assert "Traceback" not in output
    return output.strip().splitlines()[-1]


@pytest.mark.slow
def test_strict_pack_finds_no_room_on_nodes_of_one_gpu(cluster: Running, tmp_path: Path) -> None:
    said = refused(
        tmp_path,
        f"ray.address={cluster.address}",
        "ray.placement=STRICT_PACK",
        "ray.placement_timeout_s=2",
    )
    assert "no room for 2 peers" in said
    assert "STRICT_PACK after 2 s" in said
    assert "on 2 node(s)" in said
    assert cluster.busy() == IDLE


@pytest.mark.slow
def test_too_many_gpus_are_refused_without_waiting(cluster: Running, tmp_path: Path) -> None:
    said = refused(tmp_path, f"ray.address={cluster.address}", "ray.gpus_per_peer=2")
    assert "2 peers need 2 GPU each, but the cluster has 2" in said
    assert "ray.gpus_per_peer=1" in said


@pytest.mark.slow
def test_a_peer_can_t_have_the_gpus_of_two_nodes(cluster: Running, tmp_path: Path) -> None:
    said = refused(
        tmp_path,
        f"ray.address={cluster.address}",
        "ray.gpus_per_peer=2",
        "peers=pair",
        "~peers.wide",
    )
    assert "no node of the cluster has more than 1" in said


@pytest.mark.slow
def test_two_peers_share_one_gpu(
    cluster: Running, run_settings: tuple[str, ...], reference: dict[str, str], tmp_path: Path
) -> None:
    run_dir = tmp_path / "run"
    halves = ("ray.gpus_per_peer=0.5", "ray.cpus_per_peer=0.5", "ray.placement=STRICT_PACK")
    dogo_fed(
        "train", *run_settings, f"ray.address={cluster.address}", *halves, f"run_dir={run_dir}"
    )
    first, second = (seat for _, seat in seats(run_dir))
    assert (first.node_id, first.gpu) == (second.node_id, second.gpu)
    assert first.pid != second.pid
    assert digests(run_dir) == reference
    assert cluster.busy() == IDLE


@pytest.mark.slow
@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("127.0.0.1:1", "nothing answers at"),
        ("nonsense", "Invalid address"),
        ("ray://127.0.0.1:10001", "Ray Client is not supported"),
    ],
)
def test_no_cluster_is_told_soon(address: str, said: str, tmp_path: Path) -> None:
    last = refused(tmp_path, f"ray.address={address}")
    assert f"no Ray cluster at ray.address={address}" in last
    assert said in last


@pytest.mark.slow
def test_another_service_at_the_address_is_told_soon(tmp_path: Path) -> None:
    class Silent(http.server.BaseHTTPRequestHandler):
        def log_message(self, *args: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("0.0.0.0", 0), Silent) as service:
        threading.Thread(target=service.serve_forever, daemon=True).start()
        last = refused(tmp_path, f"ray.address=127.0.0.1:{service.server_address[1]}")
        service.shutdown()
    assert "is not Ray's GCS" in last


@pytest.mark.slow
def test_a_ray_of_its_own_leaves_no_process(
    run_settings: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_dir = tmp_path / "run"
    with short_temp_dir() as temp:
        monkeypatch.setenv("RAY_TMPDIR", temp)
        process = start("train", *run_settings, f"run_dir={run_dir}")
        try:
            wait_for_step(run_dir, 1, process)
            below = descendants(process.pid)
            output, _ = process.communicate(timeout=100)
        finally:
            process.kill()
        assert process.returncode == 0, output
        assert len(below) > 3, "Ray's own processes and the actors'"
        assert wait_until_gone(below) == []
        assert users_of(temp) == []


@pytest.mark.slow
def test_sigterm_lets_all_peers_stop_after_the_same_step(cluster: Running, tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    process = start(
        *("train", "data=synthetic", "steps=4000", "steps_per_round=4000", "batch_size=32"),
        *("eval.knn_k=20", "eval.linear=false", "device=cpu"),
        *(f"ray.address={cluster.address}", f"run_dir={run_dir}"),
    )
    try:
        wait_for_step(run_dir, 5, process)
        process.send_signal(signal.SIGTERM)
        output, _ = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130, output
    assert events(run_dir, "stopped")
    saved = {
        name: sorted(path.name for path in (run_dir / "peers" / name / "checkpoints").iterdir())
        for name in ("resnet", "wide")
    }
    assert saved["resnet"] == saved["wide"]
    assert cluster.busy() == IDLE


def users_of(folder: str) -> list[str]:
    """Returns the command lines of processes that were started with, work in or hold this folder."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            told = (entry / "cmdline").read_bytes().decode(errors="replace").replace("\0", " ")
            held = [str(one.readlink()) for one in (entry / "fd").iterdir()]
        except OSError:
            continue  # it has ended, or is somebody else's
        if any(one.startswith(folder) for one in held) or folder in told:
            found.append(told)
    return found
