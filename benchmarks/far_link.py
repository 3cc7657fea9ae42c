"""What a far coordinator costs a run: steps/s of the slowest peer behind a delay and a bandwidth.

    python -m benchmarks.far_link [--peers pair] [--batch-sizes 256] [--delays 0 20 100]
        [--mbit 0 100 10] [--lookahead 0 1] [--every-steps 1 4] [--rounds 2] [--steps 30] [--full]
        [key=value]

Each peer is a process of its own and reaches the coordinator through a relay on this machine, which holds
back what it carries: half of the round trip in each direction, and no more than so many megabits a second
(0: no limit). All combinations take turns. --peers names sets of peers (`settings.py`); with --full every
combination is measured, else some. Further arguments are overrides, see `settings.py`.

How a step is timed: see benchmarks.exchange_tax. Many more peers: see benchmarks.round_trip.
"""

from __future__ import annotations

import argparse
import io
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, TypeAlias

import rich

from benchmarks.exchange_tax import PeerTiming, run_once, slowest
from benchmarks.grid import Cell, Ways, add_ways, cells
from benchmarks.machine import Result
from benchmarks.relay import Relay, free_port
from benchmarks.settings import run_of_processes
from benchmarks.turns import spread, take_turns, told

Run: TypeAlias = Mapping[str, PeerTiming]

FULL_BATCH_SIZES = (128, 256, 1024)

HOW = (
    "All combinations took turns, each in a run of its own; the spread is over rounds. Processor "
    "seconds are of the slowest peer's process."
)


def run_cell(cell: Cell[str], steps: int, overrides: Sequence[str]) -> Run:
    """Does a run of this combination."""
    port = free_port()
    with Relay(port, cell.distance) as relay:
        settings = [
            f"batch_size={cell.batch_size}",
            f"exchange.lookahead={cell.lookahead}",
            f"exchange.every_steps={cell.every_steps}",
            f"coordinator.port={port}",
            f"coordinator.public_address={relay.address}",
        ]
        return run_once(run_of_processes(cell.peers, steps, [*overrides, *settings]))


def row(
    cell: Cell[str], rounds: Sequence[Run], beside: Sequence[tuple[Run, Run]]
) -> dict[str, Any]:
    """Returns the figures of a combination.

    Args:
        cell: the combination.
        rounds: its runs.
        beside: those of them that have a run of the nearest beside them in their round.
    """
    speeds = [slowest(one) for one in rounds]
    shares = [slowest(one) / slowest(near) for one, near in beside]
    last = [min(one.values(), key=lambda timing: timing.steps_per_s) for one in rounds]
    return {
        **cell.to_plain(),
        "steps_per_s": spread(speeds),
        "share_of_near": spread(shares) if shares else None,
        "step_cpu_ms": spread([timing.processor_ms for timing in last]),
    }


def main() -> None:
    """Lets all combinations take turns, prints a table and writes the figures."""
    assert __doc__ is not None, "this module has a docstring"
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--peers", nargs="+", default=["pair"])
    parser.add_argument("--batch-sizes", type=int, nargs="+", help="256; with --full more")
    add_ways(parser)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("overrides", nargs="*")
    asked = parser.parse_args()
    rich.reconfigure(file=io.StringIO())  # the live view would take its share of the processor
    sizes = asked.batch_sizes or (FULL_BATCH_SIZES if asked.full else (256,))
    grid = cells(sizes, asked.peers, Ways.asked(asked), full=asked.full)
    with Result("far_link", HOW, parser, asked, named_by=["full"]) as result:
        result.settings["batch_sizes"] = list(sizes)
        found = take_turns(
            {cell: partial(run_cell, cell, asked.steps, asked.overrides) for cell in grid},
            asked.rounds,
        )
        result.failed.update(found.failed)
        result.found["rows"] = rows = []
        print(f"{'':<60} {'steps/s':<28} of the nearest")
        for cell, rounds in found.rounds().items():
            one = row(cell, rounds, found.pairs(cell, cell.nearest))
            rows.append(one)
            print(f"{cell!s:<60} {told(one['steps_per_s']):<28} {told(one['share_of_near'])}")


if __name__ == "__main__":
    main()
