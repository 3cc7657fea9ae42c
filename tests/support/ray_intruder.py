"""Somebody who reaches the ports of a Ray and wants to run code there."""

from __future__ import annotations

import http.client
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path

import grpc
import psutil

from tests.support.command_line import environment
from tests.support.ports import is_listening

GCS = "gcs_server"
CALLS = {
    "gcs_server": ("/ray.rpc.NodeInfoGcsService/GetClusterId", "/ray.rpc.JobInfoGcsService/AddJob"),
    "raylet": ("/ray.rpc.NodeManagerService/GetNodeStats", "/ray.rpc.ObjectManagerService/Pull"),
    "ray::DashboardAgent": ("/ray.rpc.ReporterService/GetTraceback",),
    "ray::PeerActor.run": ("/ray.rpc.CoreWorkerService/PushTask",),
}
"""A call of Ray's, at least, that each of its programs answers; the first part of its name."""

AGENT = "ray::DashboardAgent"
JOBS_PORT = 52365
"""Where the agent of every Ray wants to take jobs, and does not if another one has that port."""

_AGENTS = (AGENT, "ray::RuntimeEnvAgent")
"""What each Ray has, and starts last: on a busy machine a run may have done steps before."""

_ASK_WITHIN_S = 5.0
_ASK_AGENTS_WITHIN_S = 30.0
"""They do answer; what else listens may never say a word of HTTP."""
_AGENTS_WITHIN_S = 120.0
_JOBS_WITHIN_S = 60.0
_JOBS_TRIES_S = 10.0
"""Longer than an agent that listens already tries to get the port of jobs."""
_DRIVER_WITHIN_S = 90.0
_JOBS = "/api/job_agent/jobs/"
_DRIVER = """
import os, pathlib, sys
import ray

ray.init(address=sys.argv[1], log_to_driver=False, configure_logging=False)


@ray.remote(num_cpus=0)
def intrude(path):
    pathlib.Path(path).touch()


ray.get(intrude.remote(sys.argv[2]), timeout=60)
"""


def listening(pid: int) -> dict[int, tuple[str, str]]:
    """Returns the TCP ports of a process's descendants: program, and an address to reach it by."""
    found = {}
    for process in psutil.Process(pid).children(recursive=True):
        try:
            connections, name = process.net_connections(kind="tcp"), process.name()
        except psutil.Error:  # has just ended
            continue
        for one in connections:
            if one.status == psutil.CONN_LISTEN:
                is_any = one.laddr.ip in ("::", "0.0.0.0", "127.0.0.1", "::1")
                found[one.laddr.port] = (name, "127.0.0.1" if is_any else one.laddr.ip)
    return found


def ports_of_a_whole_ray(pid: int) -> dict[int, tuple[str, str]]:
    """Returns what `listening` does, once all of Ray's agents listen.

    A second Ray on the machine never takes jobs, for all of them want the same port. So after a while,
    a short one if another Ray has that port, the ports are returned without.

    Raises:
        AssertionError: an agent did not come.
    """
    began_s = time.monotonic()
    complete_s: float | None = None
    while True:
        is_taken, ports, now_s = is_listening(JOBS_PORT), listening(pid), time.monotonic()
        missing = _missing_agents(ports)
        if not missing:
            complete_s = now_s if complete_s is None else complete_s
            wait_s = _JOBS_TRIES_S if is_taken and JOBS_PORT not in ports else _JOBS_WITHIN_S
            if takes_jobs(ports) or now_s - complete_s > wait_s:
                return ports
        assert now_s - began_s < _AGENTS_WITHIN_S + _JOBS_WITHIN_S, f"{missing} of Ray did not come"
        time.sleep(0.5)


def _missing_agents(ports: dict[int, tuple[str, str]]) -> set[str]:
    """Returns the agents that do not listen yet."""
    return set(_AGENTS) - {name for name, _ in ports.values()}


def takes_jobs(ports: dict[int, tuple[str, str]]) -> bool:
    """Whether one of these ports is there to submit jobs to."""
    return any(port == JOBS_PORT and name == AGENT for port, (name, _) in ports.items())


def submit_jobs(
    ports: dict[int, tuple[str, str]], mark: Path, token: str | None
) -> dict[str, set[int]]:
    """Tries to submit a job that makes a file, at each port; returns the HTTP statuses by program."""
    body = json.dumps({"entrypoint": f"touch {mark}"})
    headers = {"Content-Type": "application/json"}
    if token is not None:
        headers["Authorization"] = f"Bearer {token}"
    statuses: dict[str, set[int]] = {}
    for port, (name, address) in ports.items():
        within_s = _ASK_AGENTS_WITHIN_S if name in _AGENTS else _ASK_WITHIN_S
        connection = http.client.HTTPConnection(address, port, timeout=within_s)
        try:
            connection.request("POST", _JOBS, body, headers)
            statuses.setdefault(name, set()).add(connection.getresponse().status)
        except (OSError, http.client.HTTPException):
            continue  # speaks something else than HTTP
        finally:
            connection.close()
    return statuses


def call(ports: dict[int, tuple[str, str]], token: str | None) -> dict[str, set[str]]:
    """Tries Ray's own calls; returns how they ended by program, those that it does not have left out."""
    metadata = () if token is None else (("authorization", f"Bearer {token}"),)
    endings: dict[str, set[str]] = {}
    for port, (name, address) in ports.items():
        with grpc.insecure_channel(
            f"{address}:{port}", options=[("grpc.enable_http_proxy", 0)]
        ) as channel:
            for method in CALLS.get(name, ()):
                try:
                    channel.unary_unary(method)(b"", timeout=_ASK_WITHIN_S, metadata=metadata)
                    ending = "OK"
                except grpc.RpcError as error:
                    ending = error.code().name
                if ending not in ("UNIMPLEMENTED", "UNAVAILABLE"):
                    endings.setdefault(name, set()).add(ending)
    return endings


def run_task(
    ports: dict[int, tuple[str, str]], mark: Path, token: str | None
) -> subprocess.CompletedProcess[str]:
    """Tries to join as a driver, and to run a task that makes a file."""
    (gcs,) = (port for port, (name, _) in ports.items() if GCS in name)
    around = {key: value for key, value in environment().items() if not key.startswith("RAY_AUTH")}
    if token is not None:
        around |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": token}
    return subprocess.run(
        [sys.executable, "-c", _DRIVER, f"127.0.0.1:{gcs}", str(mark)],
        env=around,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=_DRIVER_WITHIN_S,
        check=False,
    )


def token_of(pid: int) -> str:
    """Returns the token that the GCS below this process was started with, as only its user can."""
    for process in psutil.Process(pid).children(recursive=True):
        if GCS in process.name():
            return process.environ().get("RAY_AUTH_TOKEN", "")
    return ""


def files_with(text: str, folders: Iterable[Path]) -> list[Path]:
    """Returns the regular files below these folders that hold this text."""
    found = []
    for folder in folders:
        for parent, _, names in os.walk(folder):
            for path in (Path(parent) / name for name in names):
                if path.is_file() and not path.is_symlink() and text.encode() in path.read_bytes():
                    found.append(path)
    return found
