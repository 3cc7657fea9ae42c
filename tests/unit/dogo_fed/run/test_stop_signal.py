"""What asks for an end: Ctrl-C, SIGTERM, and a terminal that is closed; who is impatient ends at once."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import termios

import pytest

from dogo_fed.run.stop_signal import hangups_are_ours, interrupts_at_once, stop_on_signal


@pytest.fixture(autouse=True)
def handlers():
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.getsignal(number) for number in numbers}
    yield
    for number, handler in before.items():
        assert signal.getsignal(number) == handler, "it was put back"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_the_first_signal_asks(number) -> None:
    with stop_on_signal() as asked:
        assert not asked()
        os.kill(os.getpid(), number)
        assert asked()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_second_ends_at_once(number) -> None:
    with pytest.raises(KeyboardInterrupt), stop_on_signal():
        os.kill(os.getpid(), number)
        os.kill(os.getpid(), number)


def test_a_terminal_that_is_closed_is_not_impatient() -> None:
    """The kernel and the shell may both send the signal."""
    with stop_on_signal() as asked:
        for _ in range(3):
            os.kill(os.getpid(), signal.SIGHUP)
        assert asked()


def test_who_was_told_to_ignore_closed_terminals_goes_on() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with stop_on_signal() as asked:
            os.kill(os.getpid(), signal.SIGHUP)
            assert not asked()
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_work_that_keeps_nothing_half_done_ends_at_once(number) -> None:
    with pytest.raises(KeyboardInterrupt), interrupts_at_once():
        os.kill(os.getpid(), number)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_part_of_it_may_end_well(number) -> None:
    with interrupts_at_once():
        with stop_on_signal() as asked:
            os.kill(os.getpid(), number)
            assert asked()
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), number)


def test_processes_that_peers_need_outlive_a_closed_terminal() -> None:
    wait = [sys.executable, "-c", "print('ready', flush=True); input()"]
    with hangups_are_ours():
        process = subprocess.Popen(wait, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdin is not None and process.stdout is not None
    try:
        assert process.stdout.readline() == b"ready\n"
        process.send_signal(signal.SIGHUP)
        process.communicate(b"\n", timeout=60)
        assert process.returncode == 0, "it lived until it was told to end"
    finally:
        process.kill()
        process.wait(timeout=10)
    assert signal.SIGHUP not in signal.pthread_sigmask(signal.SIG_BLOCK, [])


SCRIPT = """
import sys, time
from dogo_fed.run.stop_signal import stop_on_signal
with stop_on_signal() as asked:
    print("ready", flush=True)
    deadline_s = time.monotonic() + 60
    while not asked() and time.monotonic() < deadline_s:
        time.sleep(0.01)
    for stream in (sys.stdout, sys.stderr):
        print("saved", file=stream, flush=True)
sys.exit(7 if asked() else 1)
"""


def test_what_is_written_to_a_terminal_that_is_gone_is_no_error() -> None:
    ours, theirs = os.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT],
        stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
    )  # fmt: skip
    try:
        os.close(theirs)
        assert os.read(ours, 100).strip() == b"ready"
        os.close(ours)
        assert process.wait(timeout=90) == 7
    finally:
        process.kill()
        process.wait(timeout=10)
