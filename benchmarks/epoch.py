"""What an epoch costs a GPU: 50,000 images of 32 x 32, one peer, a pair, and the pair's exchange.

    python -m benchmarks.epoch [--device cuda] [--peers resnet18] [--images 50000] [--batch-size 256]
        [--steps 40] [--rounds 5] [--precisions fp32 bf16] [--compile]

The images are made up, of CIFAR-10's size and number. Peers are this project's sessions in one process, in
lock-step, without evaluation. They exchange with a coordinator over gRPC on this machine. A round does some
steps, and an epoch is counted from them. It needs neither ray, flwr, hydra nor kornia.

alone           one peer (the last of the set)
pair apart      all peers, without exchange
pair            all peers, which teach each other

The exchange's share is all that the peers' reports call exchange or waiting, by the wall clock: the message
with the distribution, the coordinator's work, and the answer. The coordinator's thread shares this process
with the peers, which costs both a little. Without a GPU nothing is measured unless --device cpu says so.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from benchmarks.images import images_uint8
from benchmarks.machine import Result
from benchmarks.sessions import Sessions
from benchmarks.settings import peers_named, steps_alone
from benchmarks.turns import (
    Found,
    Took,
    both_clocks,
    clocked,
    entered,
    finish,
    spread,
    take_turns,
    told,
)
from dogo_fed.config import DataConfig, MemoryFormat, PeerConfig, Precision
from dogo_fed.data.map_style import dataset_from_arrays
from dogo_fed.data.source import DataSet
from dogo_fed.engine.numerics import fix_numerics, resolve_device

IMAGE_SIZE = 32
WARM_UP_STEPS = 10
NAME = "images of CIFAR-10's size"

HOW = (
    "Contestants took turns; the spread is over rounds. Seconds are of an epoch of all peers of the "
    "contestant, one after the other on one device, counted from the steps of a round."
)


@dataclass(frozen=True)
class Round:
    """What one turn has found.

    Attributes:
        step: of all peers together.
        exchange_share: of the wall time of their steps.
    """

    step: Took
    exchange_share: float


def made_up(number: int) -> DataSet:
    """Returns so many images, which all contestants share."""
    labels = torch.arange(number) % 10
    images = images_uint8(number, IMAGE_SIZE)
    return dataset_from_arrays(NAME, images, labels, images[:10], labels[:10], 10)


def sessions_of(
    peers: Mapping[str, PeerConfig],
    dataset: DataSet,
    *,
    exchanges: bool,
    **settings: Any,
) -> Sessions:
    """Returns the sessions of one contestant."""
    config = steps_alone(peers, DataConfig(name=NAME), exchanges=exchanges, **settings)
    return Sessions(config, dataset, over_grpc=config.exchanges)


def turn(sessions: Sessions, steps: int, device: torch.device) -> Round:
    """Does some steps of a contestant."""
    sessions.reports.clear()
    step = clocked(sessions.step, steps, partial(finish, device))
    wait_s = sum(one.exchange_s + one.wait_s for one in sessions.reports)
    whole_s = sum(one.compute_s + one.exchange_s + one.wait_s for one in sessions.reports)
    return Round(step, wait_s / whole_s if whole_s else 0.0)


def measure(
    peers: Mapping[str, PeerConfig],
    dataset: DataSet,
    device: torch.device,
    *,
    steps: int,
    rounds: int,
    precisions: Sequence[str] = ("fp32",),
    **settings: Any,
) -> Found[str, Round]:
    """Lets the contestants take turns, in each precision.

    Args:
        peers: the pair.
        dataset: what they see.
        device: where they compute.
        steps: of a round.
        rounds: how many there are.
        precisions: bf16 comes with channels_last.
        settings: more of the run.
    """
    last = list(peers)[-1]
    kinds = {
        "alone": ({last: peers[last]}, False),
        "pair apart": (dict(peers), False),
        "pair": (dict(peers), True),
    }

    def warmed_up(kind: str, precision: str) -> Sessions:
        some, exchanges = kinds[kind]
        is_half = Precision(precision) is not Precision.FP32
        sessions = sessions_of(
            some,
            dataset,
            exchanges=exchanges,
            device=device.type,
            precision=Precision(precision),
            memory_format=MemoryFormat.CHANNELS_LAST if is_half else MemoryFormat.CONTIGUOUS,
            **settings,
        )
        try:
            for _ in range(min(WARM_UP_STEPS, steps)):
                sessions.step()
        except BaseException:
            sessions.close()
            raise
        return sessions

    made, failed = entered(
        {
            f"{kind}, {precision}": partial(warmed_up, kind, precision)
            for precision in precisions
            for kind in kinds
        }
    )
    try:
        found = take_turns(
            {name: partial(turn, one, steps, device) for name, one in made.items()}, rounds
        )
        found.failed.update(failed)
        return found
    finally:
        for one in made.values():
            one.close()


def row(name: str, rounds: Sequence[Round], steps_per_epoch: float) -> dict[str, Any]:
    """Returns the figures of a contestant: seconds of an epoch, and the exchange's share."""
    epochs = [
        Took(one.step.cpu_s * steps_per_epoch, one.step.wall_s * steps_per_epoch) for one in rounds
    ]
    clocks = both_clocks(epochs)
    return {
        "contestant": name,
        "epoch_wall_s": clocks["wall"],
        "epoch_cpu_s": clocks["cpu"],
        "exchange_percent": spread([100 * one.exchange_share for one in rounds]),
    }


def main() -> None:
    """Measures, prints a table and writes the figures; without a GPU it says that there is none."""
    assert __doc__ is not None, "this module has a docstring"
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--device", default="cuda", help="cuda or cpu")
    parser.add_argument("--peers", default="resnet18")
    parser.add_argument("--images", type=int, default=50_000)
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--steps", type=int, default=40, help="of a round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--precisions", nargs="+", default=["fp32", "bf16"])
    parser.add_argument("--compile", action="store_true", help="the backbones, by torch.compile")
    parser.add_argument("--threads", type=int, default=1)
    asked = parser.parse_args()
    if asked.device == "cuda" and not torch.cuda.is_available():
        print("epoch is for a GPU, and there is none here; --device cpu measures the processor")
        return
    fix_numerics(asked.threads)
    device = resolve_device(asked.device)
    with Result("epoch", HOW, parser, asked) as result:
        found = measure(
            peers_named(asked.peers),
            made_up(asked.images),
            device,
            steps=asked.steps,
            rounds=asked.rounds,
            precisions=asked.precisions,
            batch_size=asked.batch_size,
            compile=asked.compile,
        )
        result.failed.update(found.failed)
        steps_per_epoch = asked.images / asked.batch_size
        result.found["rows"] = [
            row(name, rounds, steps_per_epoch) for name, rounds in found.rounds().items()
        ]
        print(
            f"\nan epoch of {asked.images:,} images, batch size {asked.batch_size}, {asked.peers}"
        )
        for one in result.found["rows"]:
            print(
                f"{one['contestant']:<20} wall s {told(one['epoch_wall_s']):<28} CPU s "
                f"{told(one['epoch_cpu_s']):<28} exchange % {told(one['exchange_percent'])}"
            )
        for precision in asked.precisions:
            beside = found.pairs(f"pair, {precision}", f"pair apart, {precision}")
            taxes = [one.step.wall_s / other.step.wall_s - 1 for one, other in beside]
            if taxes:
                print(f"{precision}: with exchange a step takes {statistics.median(taxes):+.1%}")


if __name__ == "__main__":
    main()
