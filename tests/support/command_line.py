"""Runs the program as a user would: the command line, in a process of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent.parent

SMALL_RUN = (
    "data=synthetic",
    "steps=50",
    "steps_per_round=20",
    "batch_size=32",
    "eval.knn_k=20",
    "eval.linear_epochs=2",
)
"""50 steps over two full rounds and a short one, seconds long."""

TIMEOUT_S = 400.0


def environment() -> dict[str, str]:
    """Returns the environment of a program under test: warnings of ours are errors there too."""
    return {**os.environ, "PYTHONUNBUFFERED": "1", "RAY_USAGE_STATS_ENABLED": "0"}


def start(*arguments: str, cwd: Path | None = None) -> subprocess.Popen[str]:
    """Starts `dogo-fed` in a process group of its own, which takes signals as from a terminal.

    Else `nohup make chaos` would start runs that take no SIGHUP, and `make test &` in a script some
    that take no Ctrl-C.
    """
    return subprocess.Popen(
        [sys.executable, "-m", "server", *arguments],
        cwd=cwd or REPOSITORY,
        env=environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        preexec_fn=_take_signals,
    )


def _take_signals() -> None:
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


def dogo_fed(
    *arguments: str,
    expect: int = 0,
    cwd: Path | None = None,
    timeout_s: float = TIMEOUT_S,
) -> str:
    """Runs `dogo-fed` to its end and returns what it printed.

    Raises:
        AssertionError: another exit status than expected; shows what was printed.
    """
    process = start(*arguments, cwd=cwd)
    try:
        output, _ = process.communicate(timeout=timeout_s)
    except subprocess.TimeoutExpired:
        process.kill()
        output, _ = process.communicate(timeout=10)
        raise AssertionError(f"{arguments} took longer than {timeout_s} s:\n{output}") from None
    assert process.returncode == expect, f"{arguments} ended with {process.returncode}:\n{output}"
    return output


def run_python(arguments: Sequence[str], cwd: Path, timeout_s: float = TIMEOUT_S) -> str:
    """Runs a Python script to its end and returns what it printed."""
    finished = subprocess.run(
        [sys.executable, *arguments],
        cwd=cwd,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )
    assert finished.returncode == 0, finished.stdout + finished.stderr
    return finished.stdout
