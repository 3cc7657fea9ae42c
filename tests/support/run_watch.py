"""Looks at a run folder while the run goes on, and ends processes by their id."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import psutil

WAIT_S = 120.0
GONE_WITHIN_S = 60.0


def records(run_dir: Path) -> list[dict[str, Any]]:
    """Returns the whole lines of metrics.jsonl so far."""
    path = run_dir / "metrics.jsonl"
    if not path.exists():
        return []
    lines = path.read_text().split("\n")[:-1]
    return [json.loads(line) for line in lines]


def events(run_dir: Path, kind: str) -> list[dict[str, Any]]:
    """Returns the events of this kind so far."""
    return [one for one in records(run_dir) if one["type"] == "event" and one["kind"] == kind]


def peer_pids(run_dir: Path) -> dict[str, int]:
    """Returns the process id of every peer's latest start."""
    found = {}
    for event in events(run_dir, "peer_started"):
        match = re.search(r"process (\d+)", event["message"])
        assert match, event
        found[event["peer"]] = int(match.group(1))
    return found


def wait_for_step(
    run_dir: Path, step: int, process: subprocess.Popen[str], within_s: float = WAIT_S
) -> None:
    """Returns when every peer that is there has reported `step`; fails if it takes too long."""
    deadline_s = time.monotonic() + within_s
    while time.monotonic() < deadline_s:
        reached = [one["step"] for one in records(run_dir) if one["type"] == "step"]
        if reached and max(reached) >= step:
            return
        assert process.poll() is None, f"the run ended before step {step}:\n{process.stdout.read()}"
        time.sleep(0.02)
    raise AssertionError(f"step {step} was not reached in {within_s} s")


def is_alive(pid: int) -> bool:
    """Whether a process of this id exists and is no zombie."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def wait_until_gone(pids: list[int], within_s: float = GONE_WITHIN_S) -> list[int]:
    """Returns the processes that are still there after `within_s`."""
    deadline_s = time.monotonic() + within_s
    while time.monotonic() < deadline_s:
        left = [pid for pid in pids if is_alive(pid)]
        if not left:
            return []
        time.sleep(0.05)
    return [pid for pid in pids if is_alive(pid)]


def state(pid: int) -> str:
    """Returns what a process is doing, for a test that fails because it is there."""
    try:
        process = psutil.Process(pid)
        threads = [
            (path / "stat").read_text().rpartition(")")[2].split()[0]  # R, S, D, Z
            for path in Path(f"/proc/{pid}/task").glob("*")
        ]
        return f"{process.status()} {' '.join(process.cmdline())} (threads {' '.join(threads)})"
    except (psutil.Error, OSError) as error:
        return f"{pid}: {error!r}"


def kill(pid: int) -> None:
    """Ends a process at once, if it is still there."""
    if is_alive(pid):
        os.kill(pid, signal.SIGKILL)


def descendants(pid: int) -> list[int]:
    """Returns the ids of all processes below `pid`."""
    try:
        return [process.pid for process in psutil.Process(pid).children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def digests(run_dir: Path) -> dict[str, str]:
    """Returns the state digest of every peer of a finished run."""
    summary = json.loads((run_dir / "summary.json").read_text())
    return {name: peer["state_digest"] for name, peer in summary["peers"].items()}
