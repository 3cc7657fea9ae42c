"""One process that is started here: what it says, how it ended, and that it is ended for certain."""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from server.child_process import ChildProcess, how_it_ended, start_process
from tests.support.run_watch import wait_until_gone

WAIT_S = 20.0


@pytest.fixture
def started(tmp_path: Path) -> Iterator[list[ChildProcess]]:
    made: list[ChildProcess] = []
    yield made
    for one in made:
        one.kill()


def start(program: str, started: list[ChildProcess], given: bytes = b"") -> ChildProcess:
    output = tempfile.TemporaryFile()  # noqa: SIM115 - closed by `kill`
    with tempfile.TemporaryFile() as text:
        text.write(given)
        text.seek(0)
        process = start_process(
            [sys.executable, "-c", program], os.environ, output, given=text, ends_with_parent=True
        )
    started.append(ChildProcess(process, output))
    return started[-1]


def ended(process: ChildProcess) -> int:
    deadline_s = time.monotonic() + WAIT_S
    while (status := process.status()) is None:
        assert time.monotonic() < deadline_s
        time.sleep(0.01)
    return status


def test_it_reads_what_it_is_given_and_both_outputs_are_kept(started) -> None:
    program = "import sys; print(len(sys.stdin.read())); print('why', file=sys.stderr); sys.exit(3)"
    process = start(program, started, b"x" * 300_000)
    assert ended(process) == 3
    assert sorted(process.said().splitlines()) == ["300000", "why"]


@pytest.mark.parametrize(
    ("program", "last"),
    [("print('one'); print('two'); print(' ')", "two"), ("pass", ""), ("print('   ')", "")],
)
def test_its_last_line_is_the_last_that_says_something(started, program, last) -> None:
    process = start(program, started)
    assert ended(process) == 0
    assert process.last_line() == last


def test_it_has_a_session_of_its_own(started) -> None:
    process = start("import os; print(os.getsid(0) == os.getpid())", started)
    assert ended(process) == 0 and process.said() == "True"


def test_it_can_be_asked_to_end_and_be_ended(started) -> None:
    asked, killed = (start("import time; time.sleep(60)", started) for _ in range(2))
    asked.terminate()
    assert how_it_ended(ended(asked)) == "died of SIGTERM"
    killed.kill()
    killed.kill()
    assert how_it_ended(ended(killed)) == "died of SIGKILL"
    assert wait_until_gone([asked.pid, killed.pid], WAIT_S) == []
    assert killed.said() == "", "its file is closed"


def test_a_log_that_is_gone_says_nothing(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with log.open("wb") as output:
        process = ChildProcess(
            start_process(
                [sys.executable, "-c", "print('hello')"], os.environ, output, ends_with_parent=True
            ),
            log,
        )
    assert ended(process) == 0 and process.last_line() == "hello"
    log.unlink()
    assert process.last_line() == ""
    process.kill()


def test_an_exit_status_in_words() -> None:
    assert how_it_ended(3) == "exited with 3"
