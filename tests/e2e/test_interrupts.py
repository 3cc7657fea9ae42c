"""A command that is interrupted, or may not write where it must, ends with a line and no traceback."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import psutil
import pytest

from tests.support.command_line import start


@pytest.mark.skipif(
    signal.getsignal(signal.SIGINT) is signal.SIG_IGN, reason="children would ignore it too"
)
@pytest.mark.parametrize("later_s", [0.0, 0.2, 0.5, 0.8])
def test_an_interrupt_while_it_is_loaded_is_one_line(later_s: float) -> None:
    process = start("train", "data=synthetic", "steps=2", "host=local")
    try:
        _wait_for_torch(process.pid)
        time.sleep(later_s)
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130
    assert output == "dogo-fed: stopped before it had begun\n"


def _wait_for_torch(pid: int) -> None:
    """Returns when the process has begun to load torch, which takes seconds."""
    deadline_s = time.monotonic() + 60
    program = psutil.Process(pid)
    while not any("libtorch" in one.path for one in program.memory_maps()):
        assert time.monotonic() < deadline_s
        time.sleep(0.01)


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may write anywhere")
@pytest.mark.parametrize(
    ("command", "status", "said"),
    [
        ("data", 1, "can't be used: Permission denied"),
        ("train", 2, "can't be made: [Errno 13] Permission denied"),
        ("compare", 1, "can't be used: Permission denied"),
    ],
)
def test_a_folder_that_may_not_be_written_is_named(
    command: str, status: int, said: str, tmp_path: Path
) -> None:
    tmp_path.chmod(0o500)
    process = start(command, "data=synthetic", cwd=tmp_path)
    try:
        output, _ = process.communicate(timeout=60)
    finally:
        process.kill()
        tmp_path.chmod(0o700)
    assert process.returncode == status
    assert said in output and "Traceback" not in output


@pytest.mark.parametrize(
    ("command", "folder", "status", "said"),
    [
        ("train", "run_dir", 2, "can't be made: [Errno 20] Not a directory"),
        ("compare", "out", 1, "can't be used: Not a directory"),
    ],
)
def test_a_folder_that_can_not_be_made_is_named(
    command: str, folder: str, status: int, said: str, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    process = start(command, "data=synthetic", f"{folder}={tmp_path}/file/runs", cwd=tmp_path)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == status
    assert said in output and "Traceback" not in output
