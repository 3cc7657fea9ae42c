"""`python -m clients`: what it writes as it ends."""

from __future__ import annotations

import io
import subprocess
import sys

import pytest

from clients import __main__ as program
from clients.peer.last_word import message_in
from dogo_fed.assignment import Assignment
from dogo_fed.contracts import Ending, Outcome
from tests.support.command_line import REPOSITORY

ASSIGNMENT = Assignment(
    peer="wide",
    run_id="first",
    run_dir="",
    address="",
    credential="",
    checkpoint_step=None,
    config={},
)


def run(monkeypatch, ending: Ending) -> int:
    monkeypatch.setattr(sys, "stdin", io.StringIO(ASSIGNMENT.to_json()))
    monkeypatch.setattr(program, "run_assignment", lambda assignment: ending)
    return program.main()


@pytest.mark.parametrize("message", ["", "why", "caf\u00e9 \u2028 and", "x" * 7000])
def test_its_message_is_found_among_other_output(message, monkeypatch, capsys) -> None:
    sys.stderr.write("half a line")
    assert run(monkeypatch, Ending(Outcome.FAILED, message)) == Outcome.FAILED.value
    told = message_in(capsys.readouterr().err + "dogo-fed: a thread says goodbye\n")
    assert told is not None and told[:4] == message[:4] and len(told) <= 8000


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (AttributeError("no attribute 'projector'"), "AttributeError: no attribute 'projector'"),
        (SystemExit(0), "SystemExit: 0"),
    ],
)
def test_a_failure_that_nobody_expected_is_no_ending_and_has_a_cause(
    error, told, monkeypatch, capsys
) -> None:
    """Also where the user's own code ends the process, as if all were well."""

    def fail(assignment):
        raise error

    monkeypatch.setattr(sys, "stdin", io.StringIO(ASSIGNMENT.to_json()))
    monkeypatch.setattr(program, "run_assignment", fail)
    assert program.main() == 1
    said = capsys.readouterr().err
    assert message_in(said) == told and "Traceback" in said


def test_a_disk_that_is_full_does_not_change_how_it_ended(monkeypatch) -> None:
    class Full(io.StringIO):
        def write(self, text: str) -> int:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(sys, "stderr", Full())
    assert run(monkeypatch, Ending(Outcome.FINISHED)) == 0


HANGS = """
import sys, threading
from concurrent.futures import ThreadPoolExecutor
from clients import __main__ as program
program._ENDS_WITHIN_S = 0.1
ThreadPoolExecutor(1).submit(threading.Event().wait)
sys.stderr.write("its last word")
program.leave(5)
"""


def test_a_thread_that_never_ends_does_not_keep_the_process() -> None:
    """It reads from a disk that hangs. Who is to start the peer again waits for its end."""
    ended = subprocess.run(
        [sys.executable, "-c", HANGS],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (ended.returncode, ended.stderr) == (5, "its last word")


@pytest.mark.parametrize("output", ["", "a step\nanother", "dogo-fed peer has ended: torn"])
def test_output_without_a_message_has_none(output) -> None:
    assert message_in(output) is None
