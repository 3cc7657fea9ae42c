"""Real Ray clusters with GPUs that exist on paper only; each is ended by its own processes."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.support.command_line import REPOSITORY, environment
from tests.support.ports import LOOPBACK, free_port, is_listening
from tests.support.run_watch import descendants, events, kill, wait_until_gone

_OTHER_PORTS = (
    *("dashboard-agent-listen", "dashboard-agent-grpc", "runtime-env-agent", "metrics-export"),
    *("node-manager", "object-manager", "ray-client-server"),
)
START_S = 300.0  # beside sixteen peers that start at once

_FREE_AGAIN = """
import json, sys, time, ray
from ray.util import placement_group_table
ray.init(address=sys.argv[1], log_to_driver=False, configure_logging=False)
for _ in range(100):
    have, free = ray.cluster_resources(), ray.available_resources()
    names = [name for name in have if name in ("CPU", "GPU")]
    busy = {name: have[name] - free.get(name, 0.0) for name in names}
    if not any(busy.values()):
        break
    time.sleep(0.1)
actors = [one for one in ray._private.state.actors().values() if one["State"] != "DEAD"]
groups = [one for one in placement_group_table().values() if one["state"] != "REMOVED"]
print(json.dumps({"busy": busy, "actors": len(actors), "groups": len(groups)}))
"""

_TWO_NODES = """
import json, sys
from ray.cluster_utils import Cluster
cluster = Cluster()
for node in json.loads(sys.argv[1]):
    cluster.add_node(include_dashboard=False, **node)
print(cluster.address, flush=True)
sys.stdin.read()
cluster.shutdown()
"""


@dataclass(frozen=True)
class Running:
    """A cluster that answers."""

    address: str
    dashboard: str | None
    temp_dir: Path
    environment: dict[str, str]

    def busy(self) -> dict[str, object]:
        """Returns what of the cluster is in use, after a moment for it to settle."""
        finished = subprocess.run(
            [sys.executable, "-c", _FREE_AGAIN, self.address],
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=START_S,
            check=False,
        )
        assert finished.returncode == 0, finished.stderr
        found: dict[str, object] = json.loads(finished.stdout.splitlines()[-1])
        return found


IDLE = {"busy": {"CPU": 0.0, "GPU": 0.0}, "actors": 0, "groups": 0}


@dataclass(frozen=True)
class Seat:
    """Where a peer's actor was started."""

    address: str
    node_id: str
    pid: int
    gpu: str


def seats(run_dir: Path) -> list[tuple[str, Seat]]:
    """Returns peer and place of every start, in the order of the starts."""
    found = []
    for event in events(run_dir, "peer_started"):
        match = re.search(r"node (\S+) \((\w+)\) process (\d+) GPU (\S+)$", event["message"])
        assert match, event
        address, node_id, pid, gpu = match.groups()
        found.append((event["peer"], Seat(address, node_id, int(pid), gpu)))
    return found


@contextmanager
def head(*, num_cpus: int, num_gpus: int) -> Iterator[Running]:
    """Runs `ray start --head --block` with the job server, on loopback and free ports."""
    with short_temp_dir() as temp:
        gcs, dashboard = free_port(), free_port()
        command = [
            str(Path(sys.executable).with_name("ray")),
            *("start", "--head", "--block", f"--num-cpus={num_cpus}", f"--num-gpus={num_gpus}"),
            *(f"--node-ip-address={LOOPBACK}", f"--port={gcs}", f"--temp-dir={temp}"),
            *(f"--dashboard-port={dashboard}", "--min-worker-port=0", "--max-worker-port=0"),
            # Those that Ray would draw for itself may be taken before it listens there.
            *(f"--{name}-port={free_port()}" for name in _OTHER_PORTS),
            *("--object-store-memory=100000000", "--disable-usage-stats"),
        ]
        # What runs as a job finds its commands where this Python has them.
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
        around = {**_environment(temp), "PATH": path}
        with _running(command, around) as process:
            running = Running(
                f"{LOOPBACK}:{gcs}", f"http://{LOOPBACK}:{dashboard}", Path(temp), around
            )
            _wait_until_well(running, dashboard, process)
            yield running


@contextmanager
def nodes(*each: dict[str, object]) -> Iterator[Running]:
    """Runs a cluster of several nodes on this machine."""
    with short_temp_dir() as temp:
        around = _environment(temp)
        command = [sys.executable, "-c", _TWO_NODES, json.dumps(each)]
        with _running(command, around) as process:
            assert process.stdout is not None
            address = process.stdout.readline().strip()
            assert address, "the cluster did not start"
            yield Running(address, None, Path(temp), around)


def _environment(temp: str) -> dict[str, str]:
    around = {**environment(), "RAY_TMPDIR": temp}
    around.pop("RAY_ADDRESS", None)
    return around


@contextmanager
def short_temp_dir() -> Iterator[str]:
    """A folder for Ray."""
    # Ray's sockets live in it, and a socket's path has 107 characters at most.
    temp = tempfile.mkdtemp(prefix="r", dir="/tmp")
    try:
        yield temp
    finally:
        shutil.rmtree(temp, ignore_errors=True)


@contextmanager
def _running(command: Sequence[str], around: dict[str, str]) -> Iterator[subprocess.Popen[str]]:
    """Runs a program that stays until it is told to end; ends everything below it, by process id."""
    process = subprocess.Popen(
        command,
        cwd=REPOSITORY,
        env=around,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        below = descendants(process.pid)
        process.send_signal(signal.SIGTERM)
        try:
            process.communicate(timeout=20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate(timeout=10)
        for pid in wait_until_gone(below, within_s=10):
            kill(pid)
        assert wait_until_gone(below) == []


def _wait_until_well(running: Running, dashboard: int, process: subprocess.Popen[str]) -> None:
    """Waits for the job server and then for the node, which Ray starts after it."""
    deadline_s = time.monotonic() + START_S
    found: object = "the job server did not come"
    while found != IDLE:
        assert process.poll() is None, f"ray start ended\n{_ends_of_logs(running.temp_dir)}"
        assert time.monotonic() < deadline_s, f"{found}\n{_ends_of_logs(running.temp_dir)}"
        time.sleep(0.2)
        if is_listening(dashboard):
            # On a machine at its limit a node takes longer than `ray.init` waits for one.
            try:
                found = running.busy()
            except AssertionError as error:
                found = error


def _ends_of_logs(temp_dir: Path) -> str:
    """Returns the last lines of what the head's processes wrote, by file."""
    return "\n".join(
        f"{path.name}: ...{path.read_text(errors='replace')[-1000:]}"
        for pattern in ("gcs_server.*", "raylet.*", "dashboard.*")
        for path in sorted((temp_dir / "session_latest" / "logs").glob(pattern))
        if path.stat().st_size
    )
