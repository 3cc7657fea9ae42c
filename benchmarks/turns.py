"""Contestants that take turns, and two clocks: seconds of this process's processor, and of the wall.

A machine that gets slower or faster in between harms no contestant more than another if they take
turns. Processor time tells a busy machine from slow code.
"""

from __future__ import annotations

import statistics
import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

import torch

C = TypeVar("C")
K = TypeVar("K")
R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class Took:
    """Seconds of one piece of work, on the two clocks."""

    cpu_s: float
    wall_s: float


def finish(device: torch.device) -> None:
    """Returns when a device has done what it was told to; a CPU has."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def clocked(
    work: Callable[[], object], times: int = 1, finish: Callable[[], None] = lambda: None
) -> Took:
    """Returns what a piece of work takes, as a mean.

    Args:
        work: does it once.
        times: how often it is done.
        finish: returns when a device has done what it was told to.
    """
    finish()
    wall_s, cpu_s = time.perf_counter(), time.process_time()
    for _ in range(times):
        work()
    finish()
    return Took((time.process_time() - cpu_s) / times, (time.perf_counter() - wall_s) / times)


@dataclass(frozen=True)
class Found(Generic[K, R]):
    """What contestants have found in their turns.

    Attributes:
        by_round: by contestant, what it has found by number of the round; a turn that failed is missing.
        failed: why a turn has failed, the last of each contestant that had one.
    """

    by_round: dict[K, dict[int, R]] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)

    def rounds(self) -> dict[K, list[R]]:
        """Returns what each of them has found, without those that have found nothing."""
        return {name: list(each.values()) for name, each in self.by_round.items() if each}

    def pairs(self, one: K, other: K) -> list[tuple[R, R]]:
        """Returns what two have found in the same rounds: those in which neither turn failed."""
        ours, theirs = self.by_round.get(one, {}), self.by_round.get(other, {})
        return [(ours[number], theirs[number]) for number in ours if number in theirs]


def entered(
    makers: Mapping[str, Callable[[], C]],
) -> tuple[dict[str, C], dict[str, str]]:
    """Makes contestants. One whose library is missing is left out, and one that fails is noted.

    Returns:
        Those that were made; and why others could not be.
    """
    made, failed = {}, {}
    for name, make in makers.items():
        try:
            made[name] = make()
        except ImportError as error:
            print(f"{name} is left out: {error}")
        except Exception as error:
            failed[name] = noted(name, error)
    return made, failed


def take_turns(
    contestants: Mapping[K, Callable[[], R]], rounds: int, *, warm_up: int = 0
) -> Found[K, R]:
    """Lets all contestants do a turn in each round; if one fails, the others go on.

    Args:
        contestants: what does a turn, and returns what it found.
        rounds: how many there are.
        warm_up: rounds before these, of which nothing is kept.
    """
    found: Found[K, R] = Found({name: {} for name in contestants})
    for number in range(warm_up + rounds):
        which = f"round {number - warm_up + 1} of {rounds}" if number >= warm_up else "warm-up"
        for name, turn in contestants.items():
            try:
                one = turn()
            except Exception as error:
                found.failed[str(name)] = noted(f"{name}, {which}", error)
                continue
            if number >= warm_up:
                found.by_round[name][number - warm_up] = one
        print(f"{which} done", file=sys.stderr, flush=True)
    return found


def noted(what: str, error: BaseException) -> str:
    """Prints what has failed with its trace, and returns why, in a line."""
    traceback.print_exception(error)
    why = f"{type(error).__name__}: {error}".strip().splitlines()[0]
    print(f"failed: {what}: {why}", file=sys.stderr, flush=True)
    return why


def spread(values: Sequence[float]) -> dict[str, float]:
    """Returns the median with the least and the most, in four digits."""
    found = {"median": statistics.median(values), "min": min(values), "max": max(values)}
    return {name: float(f"{value:.4g}") for name, value in found.items()}


def both_clocks(rounds: Sequence[Took]) -> dict[str, dict[str, float]]:
    """Returns the spread over the rounds, by clock."""
    return {
        "cpu": spread([one.cpu_s for one in rounds]),
        "wall": spread([one.wall_s for one in rounds]),
    }


def told(one: Mapping[str, float] | None) -> str:
    """Returns a spread for people; of nothing, that nothing was measured."""
    if one is None:
        return "not measured"
    return f"{one['median']:.4g} ({one['min']:.4g} to {one['max']:.4g})"
