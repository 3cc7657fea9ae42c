"""A Ray of one's own lets nobody else in; a cluster that lets everybody in is told."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import pytest

from configs.compose import compose_run
from tests.support import ray_intruder
from tests.support.command_line import REPOSITORY, dogo_fed, environment, start
from tests.support.ray_clusters import nodes, short_temp_dir
from tests.support.run_watch import descendants, digests, peer_pids, wait_for_step
from tests.support.tiny_run import TINY, run_here

RUN = [part for part in TINY if not part.startswith(("host=", "steps"))]
RUN += ["steps=60", "steps_per_round=30", "device=cpu", "exchange.deadline_s=900"]
STEP_WITHIN_S = 240.0
WRONG = "0" * 64
WARNING = "asks for no token"
TWICE = """
import os, sys

import ray

from dogo_fed.config import RayConfig
from dogo_fed.errors import StartError
from server.hosts.ray_actors import ray_cluster


@ray.remote(num_cpus=0)
def token():
    return os.environ.get("RAY_AUTH_TOKEN", "")


os.environ.update(RAY_AUTH_MODE="disabled", RAY_AUTH_TOKEN_PATH="/mine", RAY_USAGE_STATS_ENABLED="0")
before = {name: value for name, value in os.environ.items() if name.startswith("RAY_")}
tokens = []
for address in (None, None, sys.argv[1]):
    with ray_cluster(RayConfig(address=address), 1):
        tokens.append(ray.get(token.remote(), timeout=60))
        try:
            with ray_cluster(RayConfig(), 1):
                pass
        except StartError as error:
            assert "ray.shutdown()" in str(error)
        else:
            sys.exit("a Ray inside a Ray")
    assert before == {name: value for name, value in os.environ.items() if name.startswith("RAY_")}
assert len(tokens[0]) == len(tokens[1]) == 64 and tokens[0] != tokens[1], tokens
assert tokens[2] == "", tokens
"""

pytestmark = [pytest.mark.ray, pytest.mark.timeout(600)]


@pytest.fixture
def ray_files(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    """Where Ray keeps its files, and a home of one's own; nothing says how to use a Ray."""
    for name in [name for name in os.environ if name.startswith("RAY_A")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    with short_temp_dir() as temp:
        monkeypatch.setenv("RAY_TMPDIR", temp)
        yield Path(temp)


@contextmanager
def held(run_dir: Path) -> Iterator[int]:
    """A live run of host=ray that waits until the block has ended, and then ends as any other."""
    process = start("train", *RUN, "host=ray", f"run_dir={run_dir}")
    waits_for = None
    try:
        wait_for_step(run_dir, 1, process, within_s=STEP_WITHIN_S)
        waits_for = next(iter(peer_pids(run_dir).values()))
        os.kill(waits_for, signal.SIGSTOP)
        yield process.pid
    finally:
        if waits_for is not None:
            os.kill(waits_for, signal.SIGCONT)
        output, _ = process.communicate(timeout=120)
    assert process.returncode == 0, output
    (run_dir / "output").write_text(output)
    reference = run_dir.with_name("reference")
    run_here(compose_run([*RUN, "host=local", f"run_dir={reference}"]))
    assert digests(run_dir) == digests(reference)


@pytest.mark.slow
def test_no_port_of_a_ray_of_ones_own_takes_orders_from_others(
    ray_files: Path, tmp_path: Path
) -> None:
    run_dir, mark, home = tmp_path / "run", tmp_path / "mark", tmp_path / "home"
    with held(run_dir) as pid:
        ports = ray_intruder.ports_of_a_whole_ray(pid)
        token = ray_intruder.token_of(pid)
        for wrong, status in ((None, 401), (WRONG, 403)):
            statuses = ray_intruder.submit_jobs(ports, mark, wrong)
            refused = statuses[ray_intruder.AGENT] & {401, 403}
            assert refused == ({status} if ray_intruder.takes_jobs(ports) else set()), statuses
            assert statuses["ray::RuntimeEnvAgent"] == {status}
            assert set().union(*statuses.values()) <= {status, 405}  # some only give figures
            endings = ray_intruder.call(ports, wrong)
            endings["ray::PeerActor.run"].discard("DEADLINE_EXCEEDED")  # of the peer that is held
            assert endings == {name: {"UNAUTHENTICATED"} for name in ray_intruder.CALLS}
        assert not mark.exists()
        commands = [psutil.Process(one).cmdline() for one in descendants(pid)]
        files = ray_intruder.files_with(token, [ray_files, run_dir])
        # That it is the token which makes the difference:
        right = set().union(*ray_intruder.submit_jobs(ports, mark, token).values())
        assert 401 not in right and 403 not in right
        assert (200 in right) is ray_intruder.takes_jobs(ports)
    assert len(token) == 64
    assert files == ray_intruder.files_with(token, [run_dir]) == []
    assert not any(token in part for command in commands for part in command)
    assert not (home / ".ray").exists()


@pytest.mark.slow
def test_a_driver_without_the_token_can_not_join(ray_files: Path, tmp_path: Path) -> None:
    with held(tmp_path / "run") as pid:
        ports = ray_intruder.listening(pid)
        for token, succeeds in (
            (None, False),
            (WRONG, False),
            (ray_intruder.token_of(pid), True),
        ):
            mark = tmp_path / "mark"
            driver = ray_intruder.run_task(ports, mark, token)
            assert (driver.returncode == 0) is mark.exists() is succeeds, driver.stderr


def a_cell(pid: int) -> int:
    """Returns the process that runs a cell of a comparison, as soon as there is one."""
    until_s = time.monotonic() + STEP_WITHIN_S
    while time.monotonic() < until_s:
        for one in descendants(pid):
            with suppress(psutil.Error):
                title = " ".join(psutil.Process(one).cmdline())
                if title.startswith("ray::") and "/synthetic/" in title:  # named by its cell
                    return one
        time.sleep(0.1)
    raise AssertionError("no cell has begun")


@pytest.mark.slow
def test_the_ray_of_a_comparison_has_a_token_too(ray_files: Path, tmp_path: Path) -> None:
    parts = [part for part in RUN if not part.startswith("steps=")]
    process = start("compare", *parts, "steps=60", "runner=ray", "seeds=0", f"out={tmp_path}/out")
    held_back = None
    try:
        held_back = a_cell(process.pid)
        os.kill(held_back, signal.SIGSTOP)  # else the comparison ends before the drivers give up
        ports = ray_intruder.ports_of_a_whole_ray(process.pid)
        token = ray_intruder.token_of(process.pid)
        for wrong in (None, WRONG):
            driver = ray_intruder.run_task(ports, tmp_path / "mark", wrong)
            assert driver.returncode != 0 and not (tmp_path / "mark").exists(), driver.stdout
    finally:
        if held_back is not None:
            os.kill(held_back, signal.SIGCONT)
        process.send_signal(signal.SIGTERM)
        output, _ = process.communicate(timeout=120)
    assert len(token) == 64 and token not in output
    assert ray_intruder.files_with(token, [ray_files, tmp_path / "out"]) == []


@pytest.mark.slow
def test_the_process_is_left_as_it_was_and_an_open_cluster_is_told(
    ray_files: Path, tmp_path: Path
) -> None:
    with nodes({"num_cpus": 2}) as cluster:
        done = subprocess.run(
            [sys.executable, "-c", TWICE, cluster.address],
            cwd=REPOSITORY,
            env=environment(),
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        said = dogo_fed("train", *RUN, f"ray.address={cluster.address}", f"run_dir={tmp_path}/run")
        assert said.count(WARNING) == 1 and cluster.address in said


@pytest.mark.slow
def test_a_cluster_with_a_token_is_joined_with_it_and_not_without(
    ray_files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setenv("RAY_AUTH_TOKEN", "1" * 64)
    with nodes({"num_cpus": 2}) as cluster:
        join = ("train", *RUN, f"ray.address={cluster.address}")
        assert WARNING not in dogo_fed(*join, f"run_dir={tmp_path}/run")
        monkeypatch.delenv("RAY_AUTH_MODE")
        said = dogo_fed(*join, f"run_dir={tmp_path}/refused", expect=2)
        assert "RAY_AUTH_MODE=token" in said.splitlines()[-1]
