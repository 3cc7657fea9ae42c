"""A peer's process on this machine: what it is given, and what is told of its ending."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator

import pytest

from clients.peer.last_word import last_word
from configs.compose import compose_run
from dogo_fed.assignment import Assignment
from dogo_fed.contracts import Ending, Outcome, PeerId
from server.child_process import start_process
from server.hosts import processes
from server.hosts.processes import ProcessHandle, ProcessLauncher

WIDE = PeerId("wide")
WAIT_S = 20.0
ASSIGNMENT = Assignment(
    peer="wide",
    run_id="first",
    run_dir="",
    address="",
    credential="",
    checkpoint_step=None,
    config={},
)
FLOOD = "for step in range(100_000): print('step', step)\n"
TRICKLE = "for step in range(1000): print('step', step)\n"


@pytest.fixture
def ended(monkeypatch) -> Iterator[Callable[[str], Ending | str]]:
    """Returns how a peer ends whose process runs this program."""
    handles: list[ProcessHandle] = []

    def run(program: str) -> Ending | str:
        def start(command, environment, output, **others):
            return start_process([sys.executable, "-c", program], environment, output, **others)

        monkeypatch.setattr(processes, "start_process", start)
        handle = ProcessHandle(ASSIGNMENT, 1)
        handles.append(handle)
        deadline_s = time.monotonic() + WAIT_S
        while (ending := handle.ending()) is None:
            assert time.monotonic() < deadline_s
            time.sleep(0.01)
        return ending

    yield run
    for handle in handles:
        handle.kill()


def ends_with(message: str, status: int, after: str = "") -> str:
    said = last_word(message)
    return f"{FLOOD}import sys\nsys.stderr.write({said!r}); sys.stderr.flush()\n{after}sys.exit({status})"


def test_the_cause_is_told_and_not_what_the_user_s_code_prints(ended) -> None:
    ending = ended(ends_with("the loss is nan at step 7\nlower the learning rate", 4))
    assert ending == Ending(
        Outcome.FAILED, "the loss is nan at step 7\n    lower the learning rate"
    )


def test_what_is_printed_after_the_cause_does_not_hide_it(ended) -> None:
    assert ended(ends_with("no such head", 5, TRICKLE)) == Ending(Outcome.UNFIT, "no such head")


def test_who_ends_well_says_nothing(ended) -> None:
    assert ended(ends_with("", 0)) == Ending(Outcome.FINISHED)


def test_of_a_process_that_says_no_cause_the_end_is_shown(ended) -> None:
    ending = ended(f"{FLOOD}print('the last of it')\nraise SystemExit(4)")
    assert isinstance(ending, Ending) and ending.outcome is Outcome.FAILED
    assert ending.message.endswith("the last of it") and len(ending.message) <= 1000


def test_of_one_that_died_the_last_line_is_shown_and_not_more(ended) -> None:
    told = ended(f"{FLOOD}print('x' * 1_000_000)\nraise SystemExit(9)")
    assert isinstance(told, str) and told.startswith("exited with 9 (xxx") and len(told) < 600


def test_of_one_that_died_the_cause_is_told_and_not_what_is_printed_after_it(ended) -> None:
    assert ended(ends_with("KeyError: 'mean'", 1, TRICKLE)) == "exited with 1 (KeyError: 'mean')"


def test_a_peer_s_process_sees_its_gpus_and_tells_them(monkeypatch) -> None:
    monkeypatch.setattr(processes, "gpus_of_peers", lambda config: {WIDE: "5,7"})
    seen = given_to(monkeypatch, WIDE)
    assert (seen["CUDA_VISIBLE_DEVICES"], seen["where"]) == ("5,7", "on this machine, GPU 5,7")


def test_without_gpus_nothing_is_set(monkeypatch) -> None:
    monkeypatch.setattr(processes, "gpus_of_peers", lambda config: {})
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    seen = given_to(monkeypatch, WIDE)
    assert "CUDA_VISIBLE_DEVICES" not in seen and seen["where"] == "on this machine"


def given_to(monkeypatch, peer: PeerId) -> dict[str, str]:
    """Returns the environment that a peer's process is given, and what is told of where it is."""
    found: dict[str, str] = {}

    def start(command, environment, output, **others):
        found.update(environment)
        return start_process([sys.executable, "-c", "pass"], os.environ, output, **others)

    monkeypatch.setattr(processes, "start_process", start)
    config = compose_run(["data=synthetic", "peers=pair", "host=processes"])
    handle = ProcessLauncher(config).start(peer, 0, ASSIGNMENT)
    found["where"] = handle.where().partition(f"process {handle.pid} ")[2]
    handle.kill()
    return found
