"""Contestants that take turns, and two clocks: seconds of this process's processor, and of the wall.

A machine that gets slower or faster in between harms no contestant more than another if they take
turns. Processor time tells a busy machine from slow code.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch

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


def take_turns(
    contestants: Mapping[K, Callable[[], R]], rounds: int, *, warm_up: int = 0
) -> dict[K, list[R]]:
    """Lets all contestants do a turn in each round.

    Args:
        contestants: what does a turn, and returns what it found.
        rounds: how many there are.
        warm_up: rounds before these, of which nothing is kept.

    Returns:
        What each of them found, by round.
    """
    found: dict[K, list[R]] = {name: [] for name in contestants}
    for number in range(warm_up + rounds):
        for name, turn in contestants.items():
            one = turn()
            if number >= warm_up:
                found[name].append(one)
        which = f"round {number - warm_up + 1} of {rounds}" if number >= warm_up else "warm-up"
        print(f"{which} done", file=sys.stderr, flush=True)
    return found


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


def told(one: Mapping[str, float]) -> str:
    """Returns a spread for people."""
    return f"{one['median']:.4g} ({one['min']:.4g} to {one['max']:.4g})"
