"""The cells of `make attack`: each attacks a live run, and says what became of it."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.attack import attacks
from tests.attack.attacks import Insider
from tests.attack.scene import STARTED_WITHIN_S, Actors, Honest, Target

_GOES_ON_STEPS = 20
MIB = 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """A row of the table.

    Attributes:
        who: stranger or insider; and which run, if it is not of `host=processes`.
        attack: what was sent.
        answers: how the calls were answered.
        steps: that the honest peers did meanwhile.
        longest_s: the longest of these steps, in seconds.
        on_in_s: seconds that the next 20 steps took.
        written_bytes: by how much all files of the run grew, the honest peers' reports included.
        log_lines: by how many lines log and terminal grew.
    """

    who: str
    attack: str
    answers: str
    steps: int
    longest_s: float
    on_in_s: float
    written_bytes: int
    log_lines: int


CALLS: tuple[tuple[str, str, Callable[[Target], str]], ...] = (
    ("stranger", "2,000 calls without a credential, or a wrong one", attacks.calls_of_a_stranger),
    ("stranger", "300 connections with noise", attacks.noise),
    (
        "stranger",
        "2,048 messages over 64 connections, none of them finished",
        attacks.unfinished_messages,
    ),
)

DEEDS: tuple[tuple[str, Callable[[Insider], str]], ...] = (
    ("a message of 12,500 round reports", attacks.many_rounds),
    ("steps 2**28 and 2**64-1, a time of 1e308, infinite losses", attacks.absurd_numbers),
    ("a formula, escape sequences and forged lines as names", attacks.names_that_are_formulas),
    ("wrong joins with 30 KB of text, 5 s", attacks.wrong_joins),
    ("joining and leaving as ever new processes, 5 s", attacks.coming_and_going),
    ("all four calls in the name of another peer", attacks.another_s_seat),
    ("512 step reports a message, as ever new processes, 5 s", attacks.many_reports),
)


def strangers_and_insiders(folder: Path) -> list[Outcome]:
    """Attacks one run with everything but mutated messages and idle connections; ends it well."""
    with Target(folder) as target:
        with Honest(target) as honest:
            insider = Insider(target)
            rows = _all_of(target, honest, insider)
            insider.close()
        target.end()
        assert_clean(target)
    return rows


def on_ray(folder: Path) -> list[Outcome]:
    """Does the same to a run with `host=ray`, whose honest peers are its actors; and asks its Ray."""
    with Target(folder, host="ray") as target:
        insider = Insider(target)
        honest = Actors(target)
        honest.wait_for(1, STARTED_WITHIN_S)
        attack = "a job and Ray's own calls at all ports of Ray, without token or a wrong one"
        rows = [
            _row(target, honest, "stranger", attack, lambda: attacks.ray_s_ports(target)),
            *_all_of(target, honest, insider),
        ]
        insider.close()
        target.end()
        assert_clean(target)
    return [dataclasses.replace(row, who=f"{row.who}, host=ray") for row in rows]


def _all_of(target: Target, honest: Honest | Actors, insider: Insider) -> list[Outcome]:
    rows = [
        _row(target, honest, who, attack, lambda deed=deed: deed(target))
        for who, attack, deed in CALLS
    ]
    rows += [
        _row(target, honest, "insider", attack, lambda act=act: act(insider))
        for attack, act in DEEDS
    ]
    return rows


def mutated(folder: Path, num_messages: int) -> tuple[Outcome, dict[str, int]]:
    """Sends mutated messages to a run that never tells the insider to wait.

    Returns:
        The row, and the resident bytes after a tenth of the messages and after all of them.
    """
    resident: dict[str, int] = {}

    def send() -> str:
        answers = attacks.mutated_messages(insider, num_messages // 10)
        resident["after a tenth"] = target.resident_bytes()
        for seed in range(1, 10):
            answers += attacks.mutated_messages(insider, num_messages // 10, seed)
        resident["after all"] = target.resident_bytes()
        return attacks.counted(answers)

    with Target(folder, is_patient=True) as target:
        with Honest(target) as honest:
            insider = Insider(target)
            row = _row(target, honest, "insider", f"{num_messages:,} mutated messages", send)
            insider.close()
        target.end()
        assert_clean(target)
    return row, resident


def idle(folder: Path, num_connections: int = 1100, descriptors: int = 1024) -> Outcome:
    """Holds more idle connections than the run's process may have descriptors."""

    def hold() -> str:
        with attacks.idle_connections(target, num_connections) as held:
            honest.wait_for(_GOES_ON_STEPS)
        return f"{held} held"

    with Target(folder, descriptors=descriptors) as target:
        with Honest(target) as honest:
            Insider(target).close()  # joins and leaves, so that the others do not wait for it
            attack = f"{num_connections:,} idle connections, ulimit -n {descriptors}"
            row = _row(target, honest, "stranger", attack, hold)
        target.end()
        assert_clean(target)
    return row


def assert_clean(target: Target) -> None:
    """Checks that nobody else's text has got through to log and terminal.

    Raises:
        AssertionError: there is a traceback, an escape sequence, or a forged line.
    """
    text = target.written()
    assert "Traceback" not in text, text[-3000:]
    assert "\x1b" not in text and "\x07" not in text and "\u202e" not in text
    assert not any(line.startswith("2026-11-28 12:00:00,000") for line in text.splitlines())


def _row(
    target: Target, honest: Honest | Actors, who: str, attack: str, act: Callable[[], str]
) -> Outcome:
    honest.wait_for(_GOES_ON_STEPS)
    steps, size, lines = honest.steps, target.folder_bytes(), len(target.written().splitlines())
    honest.longest_s = 0.0
    answers = act()
    done, longest_s = honest.steps - steps, honest.longest_s
    on_in_s = honest.wait_for(_GOES_ON_STEPS)
    assert target.is_alive()
    time.sleep(0.2)  # what is held back for the disk gets there
    return Outcome(
        who=who,
        attack=attack,
        answers=answers,
        steps=done,
        longest_s=longest_s,
        on_in_s=on_in_s,
        written_bytes=target.folder_bytes() - size,
        log_lines=len(target.written().splitlines()) - lines,
    )
