"""A command that is interrupted, or may not write where it must, ends with a line and no traceback."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from tests.support.command_line import start


@pytest.mark.skipif(
    signal.getsignal(signal.SIGINT) is signal.SIG_IGN, reason="children would ignore it too"
)
def test_an_interrupt_while_it_is_loaded_is_one_line() -> None:
    process = start("train", "data=synthetic", "steps=2", "host=local")
    try:
        time.sleep(1.0)  # torch alone takes longer
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130
    assert output == "dogo-fed: stopped before it had begun\n"


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may write anywhere")
def test_a_folder_that_may_not_be_written_is_named(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    process = start("data", "data=synthetic", cwd=tmp_path)
    try:
        output, _ = process.communicate(timeout=60)
    finally:
        process.kill()
        tmp_path.chmod(0o700)
    assert process.returncode == 1
    assert "can't be used: Permission denied" in output and "Traceback" not in output
