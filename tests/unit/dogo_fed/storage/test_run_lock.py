"""One start of a run at a time: who owns a folder is told, and an owner that is gone is recognised."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from dogo_fed import layout
from dogo_fed.atomic import atomic_path
from dogo_fed.errors import ConfigError
from dogo_fed.storage.run_lock import is_unused, read_lock, run_lock

HOLD = """
import sys
from pathlib import Path
from dogo_fed.storage.run_lock import run_lock
with run_lock(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def owner(tmp_path: Path):
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdout is not None and process.stdin is not None
    assert process.stdout.readline() == b"held\n"
    yield process
    process.kill()
    process.wait(timeout=10)
    process.stdin.close()
    process.stdout.close()


def refused(folder: Path, why: str) -> None:
    with pytest.raises(ConfigError, match=why), run_lock(folder):
        pass


def test_a_second_start_is_refused_and_told_who_is_there(owner, tmp_path) -> None:
    refused(tmp_path, rf"process {owner.pid} on \S+ writes there")
    owner.stdin.close()
    assert owner.wait(timeout=10) == 0
    with run_lock(tmp_path):
        assert (tmp_path / layout.LOCK).exists()
    assert list(tmp_path.iterdir()) == []


def test_the_lock_of_a_killed_owner_is_taken_over(owner, tmp_path) -> None:
    owner.kill()
    owner.wait(timeout=10)
    assert (tmp_path / layout.LOCK).exists()
    with run_lock(tmp_path):
        refused(tmp_path, "writes there")


def test_an_owner_that_has_ended_unnoticed_by_its_parent_is_gone(owner, tmp_path) -> None:
    """Its id is still taken. In a container, where nobody waits for orphans, for ever."""
    os.kill(owner.pid, signal.SIGKILL)  # and nobody waits for it
    os.waitid(os.P_PID, owner.pid, os.WEXITED | os.WNOWAIT)
    assert psutil.Process(owner.pid).status() == psutil.STATUS_ZOMBIE
    with run_lock(tmp_path):
        refused(tmp_path, "writes there")


def test_such_an_owner_is_gone_however_filelock_writes_the_machines_name(
    owner, tmp_path, monkeypatch
) -> None:
    """In a container it adds the namespace of the process ids; here it escapes the blank."""
    monkeypatch.setattr(socket, "gethostname", lambda: "two words")
    (tmp_path / "elsewhere").mkdir()
    with run_lock(tmp_path / "elsewhere"):
        written = read_lock(tmp_path / "elsewhere").split("\n")[1]
    assert written != socket.gethostname()
    path = tmp_path / layout.LOCK
    process, _, *rest = path.read_text().split("\n")
    path.write_text("\n".join([process, written, *rest]))
    os.kill(owner.pid, signal.SIGKILL)
    os.waitid(os.P_PID, owner.pid, os.WEXITED | os.WNOWAIT)
    with run_lock(tmp_path):
        refused(tmp_path, "writes there")


def test_what_a_start_leaves_that_was_killed_at_once_is_no_run(tmp_path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    assert is_unused(folder)
    with atomic_path(folder / "config.yaml") as partial:
        (folder / partial.name).write_text("half")
        (folder / layout.LOCK).touch()
        (folder / f"{layout.LOCK}.break.7.{'0' * 32}").touch()
        assert is_unused(folder)
    assert not is_unused(folder), "now config.yaml is whole"


def test_another_process_of_the_same_id_is_not_the_owner(owner, tmp_path) -> None:
    """Process ids come again, after a restart of the machine for example."""
    path = tmp_path / layout.LOCK
    lines = path.read_text().split("\n")
    owner.kill()
    owner.wait(timeout=10)
    path.write_text("\n".join(["1", lines[1], str(int(lines[2]) + 1), ""]))
    with run_lock(tmp_path):
        pass


def test_of_an_owner_on_another_machine_nothing_is_assumed(owner, tmp_path) -> None:
    path = tmp_path / layout.LOCK
    lines = path.read_text().split("\n")
    owner.kill()
    owner.wait(timeout=10)
    path.write_text("\n".join([lines[0], "elsewhere", *lines[2:]]))
    refused(tmp_path, rf"on elsewhere writes there.*remove {path} and type")
    path.unlink()
    with run_lock(tmp_path):
        pass
