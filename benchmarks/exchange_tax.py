"""What the exchange costs a training run: steps/s of the slowest peer with exchange and without.

    python -m benchmarks.exchange_tax [--batch-size 256] [--pairs 5] [--steps 40] [--peers pair] [key=value]

Runs with exchange and runs without take turns, on, off, on, off; each "on" is compared with the "off" that
follows it, so that a machine that gets slower or faster in between does little harm. Both have the same peers
in processes of their own, one torch thread each. Further arguments are overrides, see `settings.py`.

How a step is timed. The peers' augmentation is wrapped, and the wrapper notes the clock once a step, when the
views are drawn. With exchange a peer draws the views of its next step while it waits for an answer, so the
note lies in the middle of the step before; without, it lies at the step's beginning. Either way a step is all
that lies between two notes: computing, waiting, exchanging, reporting. The wrapper also lets all peers begin
their first step together. Only steps count that lie within the window in which every peer trains: from the
end of the last warm-up to the first peer's last note. Evaluations and checkpoints lie outside of it. Nor does
it hold the time in which a faster peer is done and leaves the others a quieter machine. The parts of a step
are means of the step reports of the same steps.

A ratio near or above 1 does not mean that an exchange is free: a faster peer that waits leaves its cache
and memory bandwidth to the slower one, which then computes faster than beside a peer that never waits. So
the computing time with and without exchange is printed as well, and the exchange's own time without waiting.

On a machine with other work to do, the ratios are noise: look at their spread, and at how far the processor
time of a step is below its wall-clock time without exchange.
"""

from __future__ import annotations

import argparse
import dataclasses
import io
import statistics
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import rich
import torch

from benchmarks.machine import Result
from benchmarks.settings import run_of_processes
from benchmarks.stamps import Stamps, read_stamps, with_stamps
from benchmarks.turns import spread, take_turns, told
from dogo_fed.config import RunConfig
from dogo_fed.contracts import StepReport
from dogo_fed.reporting.sinks.metrics import read_records
from dogo_fed.reporting.units import human_bytes, percent
from server.hosts.launch import launch

WARM_UP = 5
"""Steps at the beginning of each run that are left out."""
FEWEST_TIMED = 5
"""Fewer steps of a peer than this within the window are no measurement."""
IDLE_MACHINE_SHARE = 0.9
"""A peer that never waits and has a core to itself has the processor for more of its step than this."""

HOW = (
    "Runs with exchange and without took turns; the spread is over the pairs of them. The parts of a step "
    "are medians over the runs; processor_ms is of the peer's process."
)


@dataclass(frozen=True)
class PeerTiming:
    """A peer's steps within the window; times are means per step.

    Attributes:
        steps: how many were counted.
        step_ms: wall clock from the drawing of one step's views to that of the next one's.
        step_median_ms: a mean is easily spoilt by one slow step.
        processor_ms: processor time of the peer's process; not of the coordinator's.
        compute_ms, wait_ms, exchange_ms: of the step reports.
        exchange_median_ms: as for the step.
        wait_share, exchange_share: of step_ms.
        bytes_up, bytes_down: of messages on the wire, per step.
    """

    steps: int
    steps_per_s: float
    step_ms: float
    step_median_ms: float
    processor_ms: float
    compute_ms: float
    wait_ms: float
    exchange_ms: float
    exchange_median_ms: float
    wait_share: float
    exchange_share: float
    bytes_up: float
    bytes_down: float


def run_once(config: RunConfig) -> dict[str, PeerTiming]:
    """Runs `config` in a folder that is removed afterwards, and returns each peer's timing."""
    with tempfile.TemporaryDirectory(prefix="exchange-tax-") as folder:
        run_dir, stamps_dir = Path(folder) / "run", Path(folder) / "stamps"
        stamps_dir.mkdir()
        launch(with_stamps(dataclasses.replace(config, run_dir=str(run_dir)), stamps_dir))
        stamps = {peer: read_stamps(stamps_dir / f"{peer}.stamps") for peer in config.peers}
        records = read_records(run_dir / "metrics.jsonl")
    reports = {
        peer: {one.step: one for one in records if isinstance(one, StepReport) and one.peer == peer}
        for peer in config.peers
    }
    for peer in config.peers:
        if not len(stamps[peer].wall_s) == len(reports[peer]) == config.steps:
            raise RuntimeError(f"peer {peer} has not made every step once; nothing was measured")
    start_s = max(one.wall_s[WARM_UP] for one in stamps.values())
    end_s = min(one.wall_s[-1] for one in stamps.values())
    return {
        peer: _timing(peer, stamps[peer], reports[peer], start_s, end_s) for peer in config.peers
    }


def _timing(
    peer: str, stamps: Stamps, reports: Mapping[int, StepReport], start_s: float, end_s: float
) -> PeerTiming:
    """Returns the means over the steps whose notes lie within the window."""
    begun_s = stamps.wall_s
    steps = [
        step
        for step in range(WARM_UP, len(begun_s) - 1)
        if begun_s[step] >= start_s and begun_s[step + 1] <= end_s
    ]
    if len(steps) < FEWEST_TIMED:
        raise RuntimeError(
            f"only {len(steps)} steps of peer {peer} lie within the time in which all peers train; "
            "raise --steps"
        )
    chosen = [reports[step] for step in steps]
    step_s = (begun_s[steps[-1] + 1] - begun_s[steps[0]]) / len(steps)
    processor_s = stamps.processor_s[steps[-1] + 1] - stamps.processor_s[steps[0]]
    wait_s = statistics.fmean(one.wait_s for one in chosen)
    exchange_s = statistics.fmean(one.exchange_s for one in chosen)
    return PeerTiming(
        steps=len(steps),
        steps_per_s=1 / step_s,
        step_ms=step_s * 1e3,
        step_median_ms=statistics.median(begun_s[step + 1] - begun_s[step] for step in steps) * 1e3,
        processor_ms=processor_s / len(steps) * 1e3,
        compute_ms=statistics.fmean(one.compute_s for one in chosen) * 1e3,
        wait_ms=wait_s * 1e3,
        exchange_ms=exchange_s * 1e3,
        exchange_median_ms=statistics.median(one.exchange_s for one in chosen) * 1e3,
        wait_share=wait_s / step_s,
        exchange_share=exchange_s / step_s,
        bytes_up=statistics.fmean(one.bytes_up for one in chosen),
        bytes_down=statistics.fmean(one.bytes_down for one in chosen),
    )


@dataclass(frozen=True)
class Pair:
    """A run with exchange and the run without that followed it."""

    on: dict[str, PeerTiming]
    off: dict[str, PeerTiming]

    @property
    def ratio(self) -> float:
        """Steps/s of the slowest peer with exchange, divided by the same without."""
        return slowest(self.on) / slowest(self.off)

    @property
    def ratio_of_medians(self) -> float:
        """The same from median steps, which a few slow steps don't change."""
        return max(one.step_median_ms for one in self.off.values()) / max(
            one.step_median_ms for one in self.on.values()
        )


def slowest(run: Mapping[str, PeerTiming]) -> float:
    """Returns the steps/s of the slowest peer."""
    return min(timing.steps_per_s for timing in run.values())


def median_timing(timings: Sequence[PeerTiming]) -> PeerTiming:
    """Returns the medians over runs, field by field."""
    return PeerTiming(
        **{
            field.name: statistics.median(getattr(one, field.name) for one in timings)
            for field in dataclasses.fields(PeerTiming)
        }
    )


def summarise(pairs: Sequence[Pair]) -> dict[str, object]:
    """Returns what the benchmark found: the ratio, and each peer's medians over the runs."""
    return {
        "ratio": spread([pair.ratio for pair in pairs]),
        "ratio_of_median_steps": spread([pair.ratio_of_medians for pair in pairs]),
        "slowest_steps_per_s": {
            "on": round(statistics.median(slowest(pair.on) for pair in pairs), 3),
            "off": round(statistics.median(slowest(pair.off) for pair in pairs), 3),
        },
        "peers": {
            peer: {
                "on": _rounded(median_timing([pair.on[peer] for pair in pairs])),
                "off": _rounded(median_timing([pair.off[peer] for pair in pairs])),
            }
            for peer in pairs[0].on
        },
        "pairs": [
            {
                "ratio": round(pair.ratio, 4),
                "ratio_of_median_steps": round(pair.ratio_of_medians, 4),
                "on": {peer: _rounded(timing) for peer, timing in pair.on.items()},
                "off": {peer: _rounded(timing) for peer, timing in pair.off.items()},
            }
            for pair in pairs
        ],
    }


def _rounded(timing: PeerTiming) -> dict[str, float]:
    return {name: round(value, 4) for name, value in dataclasses.asdict(timing).items()}


def print_pair(number: int, pair: Pair) -> None:
    """Prints the line of one pair of runs."""
    counted = min(timing.steps for run in (pair.on, pair.off) for timing in run.values())
    print(
        f"{number:>4} {slowest(pair.on):>9.3f} {slowest(pair.off):>9.3f} {pair.ratio:>8.3f} "
        f"{counted:>8}"
    )


def print_summary(pairs: Sequence[Pair]) -> None:
    """Prints the ratio, the waiting, the exchange itself and the bytes."""
    print("\n1. steps/s of the slowest peer, on / off")
    for name, ratios in (
        ("mean steps", [pair.ratio for pair in pairs]),
        ("median steps", [pair.ratio_of_medians for pair in pairs]),
    ):
        print(f"   {name:<12} median {told(spread(ratios))} in {len(ratios)} pairs")
    print("\nMedians over the runs, per step:")
    print(
        f"{'peer':<12} {'exchange':<8} {'step ms':>9} {'compute':>9} {'wait':>9} {'exchange':>9} "
        f"{'cpu ms':>9}"
    )
    medians = {
        (peer, mode): median_timing([getattr(pair, mode)[peer] for pair in pairs])
        for peer in pairs[0].on
        for mode in ("on", "off")
    }
    for (peer, mode), one in medians.items():
        print(
            f"{peer:<12} {mode:<8} {one.step_ms:>9.2f} {one.compute_ms:>9.2f} {one.wait_ms:>9.2f} "
            f"{one.exchange_ms:>9.2f} {one.processor_ms:>9.2f}"
        )
    on = {peer: one for (peer, mode), one in medians.items() if mode == "on"}
    busy = min(medians[peer, "off"].processor_ms / medians[peer, "off"].step_ms for peer in on)
    if busy < IDLE_MACHINE_SHARE and not torch.cuda.is_available():
        print(
            f"without exchange, a peer had the processor {percent(busy, 0)} of the time: other work was "
            "going on here"
        )
    print("\n2. waiting for a slower peer, share of the step")
    for peer, one in on.items():
        print(f"   {peer:<12} {percent(one.wait_share)}")
    print("\n3. the exchange itself")
    for peer, one in on.items():
        print(
            f"   {peer:<12} {one.exchange_ms:.2f} ms per step (median {one.exchange_median_ms:.2f}), "
            f"{percent(one.exchange_share)} of the step"
        )
    print("\n4. bytes on the wire per step")
    for peer, one in on.items():
        print(f"   {peer:<12} {human_bytes(one.bytes_up)} up, {human_bytes(one.bytes_down)} down")


def main() -> None:
    """Runs the pairs, prints the findings and writes them to benchmarks/results/."""
    assert __doc__ is not None, "this module has a docstring"
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--steps", type=int, default=40, help="of each run, warm-up included")
    parser.add_argument("--peers", default="pair", help="a set of peers of benchmarks/settings.py")
    parser.add_argument("overrides", nargs="*", help="e.g. data=synthetic, exchange.top_k=8")
    arguments = parser.parse_args()
    if arguments.pairs < 1 or arguments.steps < WARM_UP + FEWEST_TIMED + 1:
        parser.error(f"needs 1 pair and {WARM_UP + FEWEST_TIMED + 1} steps at least")
    overrides = [f"batch_size={arguments.batch_size}", *arguments.overrides]
    on, off = (
        run_of_processes(
            arguments.peers, arguments.steps, [*overrides, f"exchange.enabled={enabled}"]
        )
        for enabled in ("true", "false")
    )
    if not on.exchanges:
        parser.error("needs peers that have somebody to exchange with")
    rich.reconfigure(file=io.StringIO())  # the live view would take its share of the processor
    print(
        f"{on.data.name}, batch size {on.batch_size}, peers "
        + ", ".join(f"{name}: {peer.backbone}" for name, peer in on.peers.items())
    )
    with Result("exchange_tax", HOW, parser, arguments) as result:
        result.settings["warm_up_steps"] = WARM_UP
        turns = {"on": partial(run_once, on), "off": partial(run_once, off)}
        found = take_turns(turns, arguments.pairs)
        result.failed.update(found.failed)
        pairs = [Pair(*runs) for runs in found.pairs("on", "off")]
        if not pairs:
            return
        print(f"{'pair':>4} {'on st/s':>9} {'off st/s':>9} {'ratio':>8} {'counted':>8}")
        for number, pair in enumerate(pairs, start=1):
            print_pair(number, pair)
        print_summary(pairs)
        result.found |= summarise(pairs)


if __name__ == "__main__":
    main()
