"""What an exchange costs the peers: alone, and in the steps of simulated peers behind a far link.

    python -m benchmarks.round_trip [--batch-sizes 256 1024] [--peers 2 8 64] [--contributions 640]
        [--step-batch-sizes 256] [--step-peers 8] [--delays 0 20 100] [--mbit 0 100 10]
        [--lookahead 0 1] [--every-steps 1 4] [--compute-ms 250] [--steps 8] [--rounds 3] [--full]

The coordinator runs in this process. The peers live in other processes of this machine, several in one
where there are many; each has a connection of its own.

exchanges   peers do nothing but exchange, beside the coordinator. A round trip includes waiting for the
            slowest of them: with more peers than cores they queue for a core, and that is in the figure.
steps       peers sleep while real ones would compute, and exchange in between as a session does, over a
            relay that holds back what it carries. So 64 peers need no 64 cores.

--full measures 2 to 64 peers and batches of 128 to 4096, over all combinations of the other settings. It
takes hours. Combinations that would need too much memory, or too long for a step, are left out and named.
"""

from __future__ import annotations

import argparse
import contextlib
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from benchmarks.grid import NEAR, Cell, Ways, add_ways, cells
from benchmarks.machine import Result
from benchmarks.relay import Relay
from benchmarks.simulated import Done, Job, coordinator_of, let_go, settings_of
from benchmarks.turns import Took, spread, take_turns, told
from benchmarks.workers import Workers
from dogo_fed.process_setup import keep_freed_memory
from dogo_fed.wire.format import WireFormat

FULL_BATCH_SIZES = (128, 256, 512, 1024, 2048, 4096)
FULL_PEERS = (2, 4, 8, 16, 32, 64)
WARM_UP = 4
FEWEST_STEPS = 8
MOST_PROCESSES = 8
"""Of peers; each loads torch, which takes memory and a few seconds."""
MOST_S_PER_STEP = 20.0
"""Combinations whose bytes alone take longer than this are left out."""

HOW = (
    "All combinations took turns. Exchanges alone: the spread is over rounds, of each round's median, p10 "
    "and p90 over its exchanges; processor seconds are of the coordinator and of the peers, for each "
    "contribution. Steps: the spread is over rounds, of the mean step of the slowest peer; the peers "
    "sleep where real ones compute."
)


@dataclass(frozen=True)
class Round:
    """What one turn of a combination has found.

    Attributes:
        contributions: of all peers, in the steps that count.
        coordinator: what this process had to do meanwhile; the relay is in it, if there is one.
    """

    done: list[Done]
    contributions: int
    coordinator: Took


def measure(cell: Cell[int], steps: int, compute_s: float, workers: Workers) -> Round:
    """Does one turn of a combination."""
    settings = settings_of(cell.peers, WARM_UP + steps, cell.every_steps)
    with contextlib.ExitStack() as opened:
        host = opened.enter_context(coordinator_of(settings, cell.batch_size))
        address = host.address
        if cell.distance != NEAR:
            port = int(address.rpartition(":")[2])
            address = opened.enter_context(Relay(port, cell.distance)).address
        job = Job(
            peers=list(settings.peers),
            address=address,
            batch_size=cell.batch_size,
            warm_up=WARM_UP,
            steps=steps,
            compute_s=compute_s,
            lookahead=cell.lookahead,
            every_steps=cell.every_steps,
        )
        done, took = let_go(workers, job)
    return Round(done, cell.peers * steps, took)


def exchanges_row(cell: Cell[int], rounds: Sequence[Round]) -> dict[str, Any]:
    """Returns the figures of exchanges alone, in milliseconds."""
    deciles = [
        statistics.quantiles([one for done in each.done for one in done.exchange_s], n=10)
        for each in rounds
    ]
    return {
        "batch_size": cell.batch_size,
        "peers": cell.peers,
        "median_ms": _ms([one[4] for one in deciles]),
        "p10_ms": _ms([one[0] for one in deciles]),
        "p90_ms": _ms([one[-1] for one in deciles]),
        "coordinator_cpu_ms": _ms([one.coordinator.cpu_s / one.contributions for one in rounds]),
        "peer_cpu_ms": _ms([_peer_cpu_s(one) for one in rounds]),
        "bytes_up": WireFormat(cell.batch_size).payload_bytes,
    }


def steps_row(
    cell: Cell[int], rounds: Sequence[Round], beside: Sequence[tuple[Round, Round]]
) -> dict[str, Any]:
    """Returns the figures of steps of simulated peers.

    Args:
        cell: the combination.
        rounds: its turns.
        beside: those of them that have one of the nearest beside them in their round.
    """
    shares = [slowest_step_s(near) / slowest_step_s(one) for one, near in beside]
    return {
        **cell.to_plain(),
        "step_ms": _ms([slowest_step_s(one) for one in rounds]),
        "speed_of_nearest": spread(shares) if shares else None,
        "peer_cpu_ms": _ms([_peer_cpu_s(one) for one in rounds]),
    }


def slowest_step_s(one: Round) -> float:
    """Returns the mean step of the slowest peer."""
    return max(step_s for done in one.done for step_s in done.step_s)


def _peer_cpu_s(one: Round) -> float:
    return statistics.fmean(done.cpu_s for done in one.done)


def _ms(seconds: Sequence[float]) -> dict[str, float]:
    return spread([1e3 * one for one in seconds])


def steps_for(contributions: int, peers: int) -> int:
    """Returns the steps in which so many contributions are made, but no fewer than a few."""
    return max(FEWEST_STEPS, -(-contributions // peers))


def why_left_out(cell: Cell[int], most_mib: float) -> str | None:
    """Returns why a combination is not measured; None if it is."""
    payload = WireFormat(cell.batch_size).payload_bytes
    mib = cell.peers * payload / 2**20
    if mib > most_mib:
        return f"{mib:.0f} MiB in each direction at a step, more than --most-mib {most_mib:g}"
    mbit = cell.distance.mbit_per_s
    seconds = 2 * payload * 8 / (mbit * 1e6) if mbit else 0.0
    if seconds > MOST_S_PER_STEP:
        return f"{seconds:.0f} s of transfer at a step"
    return None


def kept(found: Sequence[Cell[int]], most_mib: float) -> tuple[list[Cell[int]], dict[str, str]]:
    """Returns the combinations that are measured, and why others are not."""
    reasons = {one: why_left_out(one, most_mib) for one in found}
    left_out = {str(one): reason for one, reason in reasons.items() if reason is not None}
    for name, reason in left_out.items():
        print(f"left out: {name}: {reason}")
    return [one for one, reason in reasons.items() if reason is None], left_out


def main() -> None:
    """Measures both kinds, prints tables and writes the figures."""
    assert __doc__ is not None, "this module has a docstring"
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--batch-sizes", type=int, nargs="+")
    parser.add_argument("--peers", type=int, nargs="+")
    parser.add_argument("--contributions", type=int, default=640, help="of a round, about")
    parser.add_argument("--step-batch-sizes", type=int, nargs="+")
    parser.add_argument("--step-peers", type=int, nargs="+")
    add_ways(parser)
    parser.add_argument("--compute-ms", type=float, default=250.0, help="of a step")
    parser.add_argument("--steps", type=int, default=8, help="of simulated peers, in a round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--most-mib", type=float, default=512.0, help="at a step, of all peers")
    asked = parser.parse_args()
    full, ways = asked.full, Ways.asked(asked)
    batch_sizes = asked.batch_sizes or (FULL_BATCH_SIZES if full else (256, 1024))
    peers = asked.peers or (FULL_PEERS if full else (2, 8, 64))
    alone, left_out = kept(
        [Cell(size, number, NEAR) for size in batch_sizes for number in peers], asked.most_mib
    )
    step_sizes = asked.step_batch_sizes or (FULL_BATCH_SIZES if full else (256,))
    step_peers = asked.step_peers or (FULL_PEERS if full else (8,))
    grid, more = kept(cells(step_sizes, step_peers, ways, full=full), asked.most_mib)
    keep_freed_memory()
    most_peers = max(cell.peers for cell in [*alone, *grid])
    with (
        Result("round_trip", HOW, parser, asked, named_by=["full"]) as result,
        Workers("benchmarks.simulated", min(MOST_PROCESSES, most_peers)) as workers,
    ):
        result.settings |= {
            "batch_sizes": list(batch_sizes),
            "peers": list(peers),
            "step_batch_sizes": list(step_sizes),
            "step_peers": list(step_peers),
        }
        exchanges = take_turns(
            {
                cell: partial(
                    measure, cell, steps_for(asked.contributions, cell.peers), 0.0, workers
                )
                for cell in alone
            },
            asked.rounds,
        )
        result.failed |= {f"exchanges, {name}": why for name, why in exchanges.failed.items()}
        result.found["rows"] = [
            exchanges_row(cell, rounds) for cell, rounds in exchanges.rounds().items()
        ]
        print(f"{'B':>6} {'peers':>6}  round trip, ms, and processor ms of the coordinator")
        for row in result.found["rows"]:
            print(
                f"{row['batch_size']:>6} {row['peers']:>6}  {told(row['median_ms']):<28} "
                f"{told(row['coordinator_cpu_ms'])}"
            )
        steps = take_turns(
            {
                cell: partial(measure, cell, asked.steps, asked.compute_ms / 1e3, workers)
                for cell in grid
            },
            asked.rounds,
        )
        result.failed |= {f"steps, {name}": why for name, why in steps.failed.items()}
        result.found["step_rows"] = step_rows = []
        print(f"\nsteps of simulated peers that compute {asked.compute_ms:g} ms")
        for cell, rounds in steps.rounds().items():
            row = steps_row(cell, rounds, steps.pairs(cell, cell.nearest))
            step_rows.append(row)
            print(f"{cell!s:<60} {told(row['step_ms']):<28} {told(row['speed_of_nearest'])}")
        result.found["left_out"] = left_out | more


if __name__ == "__main__":
    main()
