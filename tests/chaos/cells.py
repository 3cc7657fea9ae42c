"""One disturbance each: what is done to a live run, and what came of it.

A run of two peers is disturbed at a random step. It must come to its end, by itself or when it is
gone on with, and where no peer missed a step its weights must be those of a run that nobody touched.
"""

from __future__ import annotations

import os
import random
import signal
import statistics
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.support.command_line import dogo_fed, start
from tests.support.run_watch import (
    descendants,
    digests,
    events,
    kill,
    peer_pids,
    records,
    wait_for_step,
    wait_until_gone,
)

TOTAL_STEPS = 150
DEADLINE_S = 6.0
FROZEN_S = 14.0
FROZEN_LONG_S = 40.0
"""Longer than a peer waits for the answer to a report (30 s), so that it has to ask again."""

EVERY_STEPS = 10
"""Steps between two checkpoints: the most that may be lost where nobody could save himself."""

RUN = (
    "data=synthetic",
    "peers=pair",
    f"steps={TOTAL_STEPS}",
    f"steps_per_round={TOTAL_STEPS}",
    "batch_size=32",
    "eval.knn_k=20",
    "eval.linear=false",
    f"checkpoint.every_steps={EVERY_STEPS}",
    f"exchange.deadline_s={DEADLINE_S}",
)
SOLO = ("exchange.enabled=false",)
RARE = ("exchange.every_steps=25",)

_STARTED_WITHIN_S = 240.0
_ENDED_WITHIN_S = 400.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """What came of one disturbance. None where there is nothing to measure.

    Attributes:
        steps_lost: steps that a peer missed, or that were done and had to be done again.
        on_s: the longest that another peer waited at a step, from the disturbance on.
        back_s: from the loss of a peer to its return, or from going on to the first new step.
        is_equal: whether all weights are those of the undisturbed run; None if steps were missed.
    """

    steps_lost: int
    on_s: float | None = None
    back_s: float | None = None
    is_equal: bool | None = None


class Bench:
    """A place for runs on one host, and the weights of the runs that nobody disturbs."""

    def __init__(self, folder: Path, host: str, seed: int) -> None:
        self.folder = folder
        self.host = host
        self.random = random.Random(seed)
        self._wanted: dict[tuple[str, ...], dict[str, str]] = {}
        self._number = 0

    def run_dir(self, below: Path | None = None) -> Path:
        """Returns a folder for another run."""
        self._number += 1
        return (below or self.folder) / f"run-{self._number}"

    def wanted(self, settings: tuple[str, ...]) -> dict[str, str]:
        """Returns the weights of the undisturbed run, as digests by peer."""
        if settings not in self._wanted:
            run_dir = self.run_dir()
            dogo_fed(
                "train", *RUN, *settings, "host=local", f"run_dir={run_dir}",
                timeout_s=_ENDED_WITHIN_S,
            )  # fmt: skip
            self._wanted[settings] = digests(run_dir)
        return self._wanted[settings]

    @contextmanager
    def disturbed(
        self, run_dir: Path, *settings: str, from_step: int = 3
    ) -> Iterator[tuple[subprocess.Popen[str], int]]:
        """Starts a run and yields it with the random step that it has come to; nobody is left."""
        process = start("train", *RUN, *settings, f"host={self.host}", f"run_dir={run_dir}")
        known: list[int] = []
        try:
            step = self.random.randrange(from_step, TOTAL_STEPS - 60)
            wait_for_step(run_dir, step, process, within_s=_STARTED_WITHIN_S)
            known += [*descendants(process.pid), *peer_pids(run_dir).values()]
            yield process, step
        finally:
            for pid in [process.pid, *known, *descendants(process.pid)]:
                kill(pid)
            process.communicate(timeout=30)

    def goes_on(self, run_dir: Path, *settings: str) -> tuple[int, float | None]:
        """Goes on with a run to its end; returns the steps done again, and when the first step came.

        No step comes if the peers had saved themselves at the last one.
        """
        done = {peer: steps[-1] + 1 for peer, steps in _steps_told(run_dir).items()}
        began_s = time.monotonic()
        process = start("train", f"resume={run_dir}")
        try:
            while not (resumed := events(run_dir, "resumed")):
                _check_runs(process, began_s)
            at, back_s = resumed[-1]["step"], None
            if at < TOTAL_STEPS:
                while not any(
                    one["type"] == "step" and one["step"] >= at for one in records(run_dir)
                ):
                    _check_runs(process, began_s)
                back_s = time.monotonic() - began_s
            output, _ = process.communicate(timeout=_ENDED_WITHIN_S)
        finally:
            process.kill()
        assert process.returncode == 0, output
        # Each from where it goes on itself: without an exchange that is not the same step for all.
        since = _steps_told(run_dir, since_resumed=True)
        again = [done[peer] - steps[0] for peer, steps in since.items() if peer in done]
        return max([0, *again]), back_s


def _steps_told(run_dir: Path, *, since_resumed: bool = False) -> dict[str, list[int]]:
    """Returns the steps that each peer has reported, in ascending order."""
    told: dict[str, list[int]] = {}
    for one in records(run_dir):
        if since_resumed and one.get("kind") == "resumed":
            told = {}
        elif one["type"] == "step":
            told.setdefault(one["peer"], []).append(one["step"])
    return {peer: sorted(steps) for peer, steps in told.items()}


def _check_runs(process: subprocess.Popen[str], began_s: float) -> None:
    assert process.poll() is None, process.communicate()[0]
    assert time.monotonic() - began_s < _STARTED_WITHIN_S, "the run does not go on"
    time.sleep(0.02)


def _finished(process: subprocess.Popen[str]) -> str:
    output, _ = process.communicate(timeout=_ENDED_WITHIN_S)
    assert process.returncode == 0, output
    assert "Traceback" not in output, output
    return output


def _told_in_full(run_dir: Path) -> None:
    """Checks that each peer has reported each step, and none twice."""
    for peer, found in _steps_told(run_dir).items():
        assert found == list(range(TOTAL_STEPS)), f"{peer} reported {found}"


def _missed(run_dir: Path) -> int:
    """Returns how many steps a peer has not done, the most of all peers."""
    return max(TOTAL_STEPS - len(set(found)) for found in _steps_told(run_dir).values())


def _waited_s(run_dir: Path, peer: str, from_step: int) -> float:
    waits = [
        one["wait_s"]
        for one in records(run_dir)
        if one["type"] == "step" and one["peer"] == peer and one["step"] >= from_step
    ]
    return max(waits)


def _step_s(run_dir: Path) -> float:
    """Returns how long a step takes."""
    parts = ("compute_s", "wait_s", "exchange_s")
    steps = [one for one in records(run_dir) if one["type"] == "step"]
    return statistics.median(sum(one[part] for part in parts) for one in steps)


def _away_s(run_dir: Path, peer: str) -> float | None:
    """Returns how long a peer was lost, by the coordinator's clock."""
    lost = [one["at_s"] for one in events(run_dir, "peer_lost") if one["peer"] == peer]
    back = [one["at_s"] for one in events(run_dir, "peer_rejoined") if one["peer"] == peer]
    return float(back[-1]) - float(lost[0]) if lost and back else None


def kill_a_peer(bench: Bench) -> Ending:
    """kill -9 of a peer; the other goes on, and it comes back."""
    return _without_a_peer(bench, kill)


def freeze_a_peer(bench: Bench) -> Ending:
    """A peer is stopped for longer than its deadline, and goes on."""

    def freeze(pid: int) -> None:
        os.kill(pid, signal.SIGSTOP)
        time.sleep(FROZEN_S)
        os.kill(pid, signal.SIGCONT)

    return _without_a_peer(bench, freeze)


def _without_a_peer(bench: Bench, disturb: Callable[[int], None]) -> Ending:
    run_dir = bench.run_dir()
    with bench.disturbed(run_dir) as (process, step):
        peers = peer_pids(run_dir)
        victim = bench.random.choice(sorted(peers))
        disturb(peers[victim])
        _finished(process)
    (other,) = set(peers) - {victim}
    return Ending(
        steps_lost=_missed(run_dir),
        on_s=_waited_s(run_dir, other, step),
        back_s=_away_s(run_dir, victim),
    )


def freeze_the_launcher(bench: Bench) -> Ending:
    """The launcher, and with it the coordinator, is stopped for longer than a step's deadline."""
    return _frozen(bench, FROZEN_S)


def freeze_the_launcher_for_long(bench: Bench) -> Ending:
    """It is stopped for longer than any answer is waited for; peers have to ask again."""
    return _frozen(bench, FROZEN_LONG_S)


def freeze_it_without_exchange(bench: Bench) -> Ending:
    """The same where peers only report."""
    return _frozen(bench, FROZEN_LONG_S, *SOLO)


def _frozen(bench: Bench, seconds: float, *settings: str) -> Ending:
    run_dir = bench.run_dir()
    with bench.disturbed(run_dir, *settings) as (process, _):
        os.kill(process.pid, signal.SIGSTOP)
        time.sleep(seconds)
        before = len(records(run_dir))
        os.kill(process.pid, signal.SIGCONT)
        began_s = time.monotonic()
        while len(records(run_dir)) == before:
            _check_runs(process, began_s)
        back_s = time.monotonic() - began_s
        _finished(process)
    lost = events(run_dir, "peer_lost")
    assert lost == [], f"lost after {back_s:.1f} s: {lost}"
    _told_in_full(run_dir)
    is_equal = digests(run_dir) == bench.wanted(settings)
    return Ending(steps_lost=_missed(run_dir), back_s=back_s, is_equal=is_equal)


def kill_the_launcher(bench: Bench) -> Ending:
    """kill -9 of the launcher alone; the peers save themselves, and the run is gone on with."""
    run_dir = bench.run_dir()
    with bench.disturbed(run_dir, "exchange.reconnect_s=2") as (process, _):
        peers = list(peer_pids(run_dir).values())
        kill(process.pid)
        assert wait_until_gone(peers) == []
    return _gone_on(bench, run_dir)


def kill_everything(bench: Bench) -> Ending:
    """kill -9 of all processes at once, as a power cut does."""
    run_dir = bench.run_dir()
    with bench.disturbed(run_dir) as (process, _):
        _kill_all(process, run_dir)
    return _gone_on(bench, run_dir)


def kill_everything_with_rare_exchanges(bench: Bench) -> Ending:
    """The same where most steps exchange nothing, so that peers go on from different steps."""
    run_dir = bench.run_dir()
    with bench.disturbed(run_dir, *RARE) as (process, _):
        _kill_all(process, run_dir)
    return _gone_on(bench, run_dir, *RARE)


def torn_checkpoint(bench: Bench) -> Ending:
    """As a power cut, and the newest checkpoint of a peer is cut short."""
    return _damaged(bench, lambda content: content[: bench.random.randrange(len(content))])


def flipped_checkpoint(bench: Bench) -> Ending:
    """As a power cut, and one bit of the newest checkpoint of a peer is another."""

    def flip(content: bytes) -> bytes:
        changed = bytearray(content)
        changed[bench.random.randrange(len(changed))] ^= 1 << bench.random.randrange(8)
        return bytes(changed)

    return _damaged(bench, flip)


def _damaged(bench: Bench, change: Callable[[bytes], bytes]) -> Ending:
    run_dir = bench.run_dir()
    # Of a peer that has one checkpoint only, of step 0, nothing is left: that is an error.
    with bench.disturbed(run_dir, from_step=EVERY_STEPS + 3) as (process, _):
        _kill_all(process, run_dir)
    peer = bench.random.choice(sorted(one.name for one in (run_dir / "peers").iterdir()))
    newest = max((run_dir / "peers" / peer / "checkpoints").glob("step-*.pt"))
    newest.write_bytes(change(newest.read_bytes()))
    return _gone_on(bench, run_dir)


def sigterm(bench: Bench) -> Ending:
    """SIGTERM to the launcher, as a scheduler sends it."""
    return _stopped(bench, signal.SIGTERM)


def sighup(bench: Bench) -> Ending:
    """SIGHUP to the launcher, as a terminal that closes sends it."""
    return _stopped(bench, signal.SIGHUP)


def no_exchange(bench: Bench) -> Ending:
    """Ctrl-C of a run whose peers are not in step, since each trains alone."""
    return _stopped(bench, signal.SIGINT, *SOLO)


def _stopped(bench: Bench, number: signal.Signals, *settings: str) -> Ending:
    run_dir = bench.run_dir()
    with bench.disturbed(run_dir, *settings) as (process, _):
        process.send_signal(number)
        output, _ = process.communicate(timeout=_ENDED_WITHIN_S)
        assert process.returncode == 130, output
    return _gone_on(bench, run_dir, *settings)


def full_disk(bench: Bench) -> Ending:
    """The disk is full for a part of the steps; training goes on, and all is written afterwards."""
    with small_disk(bench.folder / "disk") as disk:
        run_dir = bench.run_dir(disk)
        with bench.disturbed(run_dir, from_step=EVERY_STEPS + 3) as (process, step):
            left_s = (TOTAL_STEPS - step) * _step_s(run_dir)
            filler = fill(disk)
            time.sleep(left_s * bench.random.uniform(0.1, 0.7))
            filler.unlink()
            _finished(process)
        _told_in_full(run_dir)
        is_equal = digests(run_dir) == bench.wanted(())
        return Ending(steps_lost=_missed(run_dir), is_equal=is_equal)


def full_disk_to_the_end(bench: Bench) -> Ending:
    """The disk stays full; the run ends with a sentence, and is gone on with when there is room.

    Where older checkpoints give enough room, it ends well.
    """
    with small_disk(bench.folder / "disk") as disk:
        run_dir = bench.run_dir(disk)
        # A peer with one checkpoint only has no room to save itself over an older one.
        with bench.disturbed(run_dir, from_step=EVERY_STEPS + 3) as (process, _):
            filler = fill(disk)
            output, _ = process.communicate(timeout=_ENDED_WITHIN_S)
            filler.unlink()
            assert "Traceback" not in output, output
            if process.returncode == 0:
                _told_in_full(run_dir)
                is_equal = digests(run_dir) == bench.wanted(())
                return Ending(steps_lost=_missed(run_dir), is_equal=is_equal)
            assert process.returncode == 1 and "no room for" in output, output
        return _gone_on(bench, run_dir)


@contextmanager
def small_disk(folder: Path) -> Iterator[Path]:
    """Makes a disk of 64 MB in memory; only the superuser may."""
    folder.mkdir(exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", folder], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)


def fill(disk: Path) -> Path:
    """Writes a file that leaves no room on a disk; returns its path."""
    path = disk / "filler"
    with path.open("wb", buffering=0) as file:
        for size in (1 << 20, 1 << 12, 1):
            try:
                while True:
                    file.write(bytes(size))
            except OSError:
                continue
    return path


def _kill_all(process: subprocess.Popen[str], run_dir: Path) -> None:
    victims = [process.pid, *descendants(process.pid), *peer_pids(run_dir).values()]
    for pid in victims:
        kill(pid)
    process.communicate(timeout=30)
    assert wait_until_gone(victims) == []


def _gone_on(bench: Bench, run_dir: Path, *settings: str) -> Ending:
    steps_lost, back_s = bench.goes_on(run_dir)
    _told_in_full(run_dir)
    is_equal = digests(run_dir) == bench.wanted(tuple(settings))
    return Ending(steps_lost=max(steps_lost, _missed(run_dir)), back_s=back_s, is_equal=is_equal)


Cell = Callable[[Bench], Ending]

CELLS: dict[str, Cell] = {
    one.__name__: one
    for one in (
        kill_a_peer,
        freeze_a_peer,
        freeze_the_launcher,
        freeze_the_launcher_for_long,
        freeze_it_without_exchange,
        kill_the_launcher,
        kill_everything,
        kill_everything_with_rare_exchanges,
        torn_checkpoint,
        flipped_checkpoint,
        sigterm,
        sighup,
        no_exchange,
        full_disk,
        full_disk_to_the_end,
    )
}
"""All disturbances, by name."""

ON_RAY = ("kill_a_peer", "kill_everything", "sigterm")
"""Those that are tried on Ray too."""

MOST_LOST: dict[str, int] = {
    "freeze_the_launcher": 0,
    "freeze_the_launcher_for_long": 0,
    "freeze_it_without_exchange": 0,
    "full_disk": 0,
    "kill_the_launcher": 1,
    "sigterm": 0,
    "sighup": 0,
    "no_exchange": 0,
    "kill_everything": EVERY_STEPS,
    "kill_everything_with_rare_exchanges": 2 * EVERY_STEPS,
    "torn_checkpoint": 2 * EVERY_STEPS,
    "flipped_checkpoint": 2 * EVERY_STEPS,
}
"""The most steps that may be missed, or have to be done again."""
