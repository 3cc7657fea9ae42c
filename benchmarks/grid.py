"""The combinations of settings that the benchmarks of the exchange measure: some, or all."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Generic, TypeVar

from benchmarks.relay import Distance

P = TypeVar("P", int, str)


@dataclass(frozen=True)
class Cell(Generic[P]):
    """One combination.

    Attributes:
        peers: how many there are, or the name of their set.
        lookahead, every_steps: of the exchange's settings.
    """

    batch_size: int
    peers: P
    distance: Distance
    lookahead: int = 0
    every_steps: int = 1

    def to_plain(self) -> dict[str, object]:
        """Returns its settings for a result, all at one level."""
        plain = dataclasses.asdict(self)
        distance = plain.pop("distance")
        return {
            "batch_size": plain["batch_size"],
            "peers": plain["peers"],
            **distance,
            "lookahead": plain["lookahead"],
            "every_steps": plain["every_steps"],
        }

    def __str__(self) -> str:
        words = [f"B {self.batch_size}", f"{self.peers} peers", str(self.distance)]
        words += ["lookahead"] if self.lookahead else []
        words += [f"every {self.every_steps} steps"] if self.every_steps > 1 else []
        return ", ".join(words)

    @property
    def nearest(self) -> Cell[P]:
        """The same peers beside their coordinator, exchanging at every step: what others are shares of."""
        return Cell(self.batch_size, self.peers, NEAR)


NEAR = Distance(0.0, 0.0)


@dataclass(frozen=True)
class Ways:
    """How the coordinator is reached, each value by itself.

    Attributes:
        delays_ms: round trips.
        mbit: bandwidths; 0 is without a limit.
        lookahead, every_steps: of the exchange's settings.
    """

    delays_ms: Sequence[float] = (0.0, 20.0, 100.0)
    mbit: Sequence[float] = (0.0, 100.0, 10.0)
    lookahead: Sequence[int] = (0, 1)
    every_steps: Sequence[int] = (1, 4)

    @classmethod
    def asked(cls, arguments: argparse.Namespace) -> Ways:
        """Returns what a command line asks for; see `add_ways`."""
        return cls(arguments.delays, arguments.mbit, arguments.lookahead, arguments.every_steps)


def add_ways(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of `Ways.asked`, and --full."""
    usual = Ways()
    parser.add_argument("--delays", type=float, nargs="+", default=usual.delays_ms, help="ms")
    parser.add_argument("--mbit", type=float, nargs="+", default=usual.mbit, help="0: no limit")
    parser.add_argument("--lookahead", type=int, nargs="+", default=usual.lookahead)
    parser.add_argument("--every-steps", type=int, nargs="+", default=usual.every_steps)
    parser.add_argument(
        "--full", action="store_true", help="every combination of all these values; hours"
    )


def cells(
    batch_sizes: Sequence[int], peers: Sequence[P], ways: Ways, *, full: bool
) -> list[Cell[P]]:
    """Returns the combinations to measure, each once, for all batch sizes and peers.

    Args:
        batch_sizes: images of a step.
        peers: how many there are, or the names of their sets.
        ways: how the coordinator is reached.
        full: whether every combination is measured. Else it is every delay without a limit of the
            bandwidth, every bandwidth at the longest delay, both with and without lookahead, and an
            exchange at some of the steps at the longest delay, with and without lookahead too.
    """
    chosen = list(_every(ways) if full else _some(ways))
    found = [
        Cell(batch_size, number, distance, ahead, every)
        for batch_size, number in product(batch_sizes, peers)
        for distance, ahead, every in chosen
    ]
    nearest = [one.nearest for one in found]
    return list(dict.fromkeys([*nearest, *found]))


def _every(ways: Ways) -> Iterator[tuple[Distance, int, int]]:
    for delay, mbit in product(ways.delays_ms, ways.mbit):
        yield from (
            (Distance(delay, mbit), *one) for one in product(ways.lookahead, ways.every_steps)
        )


def _some(ways: Ways) -> Iterator[tuple[Distance, int, int]]:
    far, usual = max(ways.delays_ms), min(ways.every_steps)
    distances = [Distance(delay, 0.0) for delay in ways.delays_ms]
    distances += [Distance(far, mbit) for mbit in ways.mbit if mbit]
    yield from ((distance, ahead, usual) for distance, ahead in product(distances, ways.lookahead))
    for every in ways.every_steps:
        if every > usual:
            yield from ((Distance(far, 0.0), ahead, every) for ahead in ways.lookahead)
