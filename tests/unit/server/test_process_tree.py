"""All that came of a process is found and ended, and nobody else."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import psutil
import pytest

from server.process_tree import ProcessTree, process_tree
from tests.support.run_watch import is_alive

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="orphans are adopted on Linux only")

WITHIN_S = 20.0
ORPHANS = ["bash", "-c", "setsid sleep 300 & setsid bash -c 'trap \"\" TERM; sleep 301; :' &"]
"""Starts two processes in sessions of their own, one of which starts a third, and dies."""


def pids_of(
    processes: ProcessTree, number: int, but: subprocess.Popen[bytes] | None = None
) -> list[int]:
    """Returns the ids of those alive, once `but` has ended and there are so many."""
    deadline_s = time.monotonic() + WITHIN_S
    while True:
        has_ended = but is None or but.poll() is not None
        alive = processes.alive()
        if has_ended and len(alive) == number:
            return [process.pid for process in alive]
        assert time.monotonic() < deadline_s, alive
        time.sleep(0.05)


def start(processes: ProcessTree, *command: str) -> subprocess.Popen[bytes]:
    return processes.start(command, os.environ, subprocess.DEVNULL)


def test_orphans_in_sessions_of_their_own_are_ended_and_collected() -> None:
    with process_tree() as processes:
        parent = start(processes, *ORPHANS)
        found = pids_of(processes, 3, but=parent)
        assert parent.pid not in found and parent.returncode == 0
        assert processes.end(patience_s=0.3) == []
        assert not processes.alive()
    assert not any(psutil.pid_exists(pid) for pid in found), "none is left as a zombie"


def test_who_was_there_before_is_left_alone_with_what_it_starts_later() -> None:
    earlier = subprocess.Popen(
        ["bash", "-c", "read; sleep 300 & echo $!; wait"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert earlier.stdin is not None and earlier.stdout is not None
    try:
        with process_tree() as processes:
            mine = start(processes, "sleep", "300")
            earlier.stdin.write(b"\n")
            earlier.stdin.flush()
            later = int(earlier.stdout.readline())
            assert pids_of(processes, 1) == [mine.pid]
            assert processes.end(patience_s=5) == []
        assert mine.poll() == -signal.SIGTERM
        assert earlier.poll() is None and is_alive(later)
        os.kill(later, signal.SIGKILL)
    finally:
        earlier.kill()
        earlier.communicate(timeout=10)


def test_no_patience_kills_at_once() -> None:
    with process_tree() as processes:
        mine = start(processes, "sleep", "300")
        assert processes.end(patience_s=0) == []
    assert mine.returncode == -signal.SIGKILL


def test_an_exit_status_is_kept_for_who_started_it() -> None:
    with process_tree() as processes:
        mine = start(processes, "bash", "-c", "exit 7")
        pids_of(processes, 0)
        assert mine.wait(timeout=10) == 7


def test_children_are_the_living_ones_of_one_process() -> None:
    with process_tree() as processes:
        mine = start(processes, "bash", "-c", "sleep 300 & sleep 301 & wait")
        found = pids_of(processes, 3)
        children = [child.pid for child in processes.children(mine.pid)]
        assert sorted(children) == sorted(set(found) - {mine.pid})
        processes.end(patience_s=0)
        assert processes.children(mine.pid) == []


def test_it_ends_when_who_started_it_is_killed() -> None:
    script = (
        "import os, subprocess, time; from server.process_tree import process_tree\n"
        "with process_tree() as processes:\n"
        "    mine = processes.start(['sleep', '300'], os.environ, subprocess.DEVNULL)\n"
        "    print(mine.pid, flush=True)\n"
        "    time.sleep(300)\n"
    )
    owner = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE)
    assert owner.stdout is not None
    pid = int(owner.stdout.readline())
    assert is_alive(pid)
    owner.kill()
    owner.communicate(timeout=10)
    deadline_s = time.monotonic() + WITHIN_S
    while is_alive(pid):
        assert time.monotonic() < deadline_s, "it outlives the process that started it"
        time.sleep(0.05)
