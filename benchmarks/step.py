"""What a step costs beside the published recipe, beside lightly's loop, and beside the bare networks.

    python -m benchmarks.step [--batch-size 256] [--rounds 5] [--steps 2] [--threads 1] [--only NAME ...]

The networks are WRN-10-2 and WRN-16-2 with SimCLR's head, on images of 32 x 32 in memory. Contestants take
turns, so that a machine that gets slower in between harms none of them. What counts is processor time; wall
time stands beside it. On a GPU there is wall time alone, and a step ends when the device is done.

pair:
  published     the published recipe, written plainly: torchvision's transforms image by image, cosines by
                broadcasting, softmax and then its logarithm, both networks in one process
  dogo          this project's step, fp32
  dogo fast     the same with precision=bf16 and memory_format=channels_last
  bare          forward and backward pass and update of both networks on views that are ready
  bare fast     the same in bf16, channels_last
one peer (WRN-16-2), nobody teaches:
  lightly       lightly's transform, head and loss in its usual loop; left out if it is not installed
  dogo alone, dogo alone fast
"""

from __future__ import annotations

import argparse
import shlex
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import nn

from benchmarks.images import pictures, torchvision_view
from benchmarks.machine import write_result
from dogo_fed.config import (
    ComponentConfig,
    DataConfig,
    Host,
    MemoryFormat,
    OptimizerConfig,
    PeerConfig,
    Precision,
    RunConfig,
)
from dogo_fed.contracts import SimilarityDistribution, TeacherSignal
from dogo_fed.engine.loaded_run import load_run
from dogo_fed.engine.numerics import fix_numerics, resolve_device
from dogo_fed.engine.step import absorb, propose, show
from dogo_fed.models.wide_resnet import WideResNet
from dogo_fed.objectives.simclr import SimCLR

LEARNING_RATE, WEIGHT_DECAY = 3e-4, 1e-6
DEPTHS = {"one": 10, "two": 16}
IMAGE_SIZE = 32
NUM_IMAGES = 2048


@dataclass
class Contestant:
    """A way to do a step.

    Attributes:
        step: does one, given its number.
        cpu_s, wall_s: seconds of a step in each round.
    """

    step: Callable[[int], None]
    cpu_s: list[float] = field(default_factory=list)
    wall_s: list[float] = field(default_factory=list)


def network(depth: int, device: torch.device) -> SimCLR:
    """Returns a backbone with SimCLR's head."""
    backbone = WideResNet(depth=depth, width=2, stem_stride=1, image_size=IMAGE_SIZE, in_channels=3)
    with torch.no_grad():
        feature_dim = backbone.eval()(torch.zeros(1, 3, IMAGE_SIZE, IMAGE_SIZE)).shape[1]
    return SimCLR(backbone.train(), feature_dim).to(device)


def adam(module: nn.Module) -> torch.optim.Optimizer:
    """Returns the published optimizer."""
    return torch.optim.Adam(module.parameters(), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY)


class Published:
    """The published recipe as its users would write it, without this project's code in the step."""

    def __init__(self, depths: Sequence[int], batch_size: int, device: torch.device) -> None:
        self.transform = torchvision_view(IMAGE_SIZE)
        self.pictures = pictures(NUM_IMAGES, IMAGE_SIZE)
        self.models = [network(depth, device) for depth in depths]
        self.optimizers = [adam(model) for model in self.models]
        self.batch_size, self.device = batch_size, device

    def __call__(self, step: int) -> None:
        """Does a step of all models."""
        chosen = torch.randperm(NUM_IMAGES)[: self.batch_size].tolist()
        losses, logits = [], []
        for model in self.models:
            a_NCHW, b_NCHW = (
                torch.stack([self.transform(self.pictures[row]) for row in chosen]).to(self.device)
                for _ in "ab"
            )
            z_a, z_b = (model.projector(model.backbone(view)) for view in (a_NCHW, b_NCHW))
            losses.append(self.nt_xent(z_a, z_b))
            logits.append(F.cosine_similarity(z_a[:, None], z_b[None], dim=2) / 0.1)
        for me, other in ((0, 1), (1, 0)):
            theirs = logits[other].detach().softmax(dim=1)
            kl = F.kl_div(logits[me].softmax(dim=1).log(), theirs, reduction="mean")
            losses[me] = losses[me] + 100 * kl
        for optimizer, loss in zip(self.optimizers, losses, strict=True):
            optimizer.zero_grad()
            loss.backward()
        for optimizer in self.optimizers:
            optimizer.step()

    @staticmethod
    def nt_xent(z_a: torch.Tensor, z_b: torch.Tensor) -> torch.Tensor:
        """Returns SimCLR's loss with cosines by broadcasting."""
        z = torch.cat([z_a, z_b])
        cosines = F.cosine_similarity(z[:, None], z[None], dim=2) / 0.5
        cosines = cosines.masked_fill(torch.eye(len(z), dtype=torch.bool, device=z.device), -1e9)
        positives = torch.arange(len(z), device=z.device).roll(len(z_a))
        return F.cross_entropy(cosines, positives)


class Lightly:
    """One peer in lightly's loop."""

    def __init__(self, depth: int, batch_size: int, device: torch.device) -> None:
        from lightly.loss import NTXentLoss
        from lightly.models.modules import SimCLRProjectionHead
        from lightly.transforms import SimCLRTransform

        self.transform = SimCLRTransform(input_size=IMAGE_SIZE, gaussian_blur=0.0)
        self.pictures = pictures(NUM_IMAGES, IMAGE_SIZE)
        whole = network(depth, device)
        self.backbone = whole.backbone
        width = next(one for one in whole.projector.modules() if isinstance(one, nn.Linear))
        self.head = SimCLRProjectionHead(width.in_features, 512, 128).to(device)
        self.loss = NTXentLoss(temperature=0.5)
        self.optimizer = adam(nn.ModuleList([self.backbone, self.head]))
        self.batch_size, self.device = batch_size, device

    def __call__(self, step: int) -> None:
        """Does a step."""
        chosen = torch.randperm(NUM_IMAGES)[: self.batch_size].tolist()
        pairs = [self.transform(self.pictures[row]) for row in chosen]
        a_NCHW, b_NCHW = (torch.stack(views).to(self.device) for views in zip(*pairs, strict=True))
        loss = self.loss(self.head(self.backbone(a_NCHW)), self.head(self.backbone(b_NCHW)))
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()


class Bare:
    """Forward and backward pass and update on views that are ready."""

    def __init__(
        self, depths: Sequence[int], batch_size: int, device: torch.device, *, is_fast: bool
    ) -> None:
        layout = torch.channels_last if is_fast else torch.contiguous_format
        self.models = [network(depth, device).to(memory_format=layout) for depth in depths]
        self.optimizers = [adam(model) for model in self.models]
        shape = (batch_size, 3, IMAGE_SIZE, IMAGE_SIZE)
        self.views = [
            torch.randn(shape, device=device).contiguous(memory_format=layout) for _ in "ab"
        ]
        self.device, self.is_fast = device, is_fast

    def __call__(self, step: int) -> None:
        """Does a step of all networks."""
        for model, optimizer in zip(self.models, self.optimizers, strict=True):
            half = (
                torch.autocast(self.device.type, torch.bfloat16) if self.is_fast else nullcontext()
            )
            with half:
                loss = model(*self.views).ssl_loss
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()


class Dogo:
    """This project's step; with one peer, nobody teaches it."""

    def __init__(
        self, depths: Sequence[int], batch_size: int, device: torch.device, *, is_fast: bool
    ) -> None:
        names = list(DEPTHS)[-len(depths) :]
        config = RunConfig(
            peers={
                name: PeerConfig(
                    backbone=ComponentConfig(
                        name="wide_resnet", options={"depth": depth, "width": 2, "stem_stride": 1}
                    ),
                    objective=ComponentConfig(name="simclr"),
                    augmentation=ComponentConfig(name="simclr"),
                    optimizer=OptimizerConfig(
                        name="adam", options={"lr": LEARNING_RATE, "weight_decay": WEIGHT_DECAY}
                    ),
                )
                for name, depth in zip(names, depths, strict=True)
            },
            data=DataConfig(
                name="synthetic",
                options={"size": NUM_IMAGES, "test_size": 16, "image_size": IMAGE_SIZE},
            ),
            host=Host.LOCAL,
            batch_size=batch_size,
            rounds=1000,
            device=device.type,
            precision=Precision.BF16 if is_fast else Precision.FP32,
            memory_format=MemoryFormat.CHANNELS_LAST if is_fast else MemoryFormat.CONTIGUOUS,
        )
        self.run = load_run(config)
        self.peers = [self.run.build_peer(peer) for peer in self.run.peer_ids]

    def __call__(self, step: int) -> None:
        """Does a step of all peers, which teach each other."""
        proposals = [
            propose(peer, self.run.images_of(peer.id, step, with_labels=False), step)
            for peer in self.peers
        ]
        shown = [show(peer, one) for peer, one in zip(self.peers, proposals, strict=True)]
        for index, (peer, proposal) in enumerate(zip(self.peers, proposals, strict=True)):
            teachers = [one for other, one in enumerate(shown) if other != index]
            absorb(peer, proposal, _signal(teachers, step) if teachers else None)


def _signal(teachers: Sequence[SimilarityDistribution], step: int) -> TeacherSignal:
    (teacher,) = teachers
    return TeacherSignal(teacher.p_NN, teacher.negative_entropy, (), step + 1)


def contestants(batch_size: int, device: torch.device) -> dict[str, Callable[[], Contestant]]:
    """Returns how to make each of them, by name."""
    both, one = tuple(DEPTHS.values()), (DEPTHS["two"],)

    def of(kind: Callable[..., Callable[[int], None]], *given: object, **how: object):
        return lambda: Contestant(kind(*given, batch_size, device, **how))

    return {
        "published": of(Published, both),
        "dogo": of(Dogo, both, is_fast=False),
        "dogo fast": of(Dogo, both, is_fast=True),
        "bare": of(Bare, both, is_fast=False),
        "bare fast": of(Bare, both, is_fast=True),
        "lightly": of(Lightly, one[0]),
        "dogo alone": of(Dogo, one, is_fast=False),
        "dogo alone fast": of(Dogo, one, is_fast=True),
    }


RATIOS = (
    ("published", "dogo"),
    ("published", "dogo fast"),
    ("dogo", "bare"),
    ("dogo fast", "bare fast"),
    ("lightly", "dogo alone"),
    ("lightly", "dogo alone fast"),
)
"""What is divided by what, in the same round."""


def measure(entered: dict[str, Contestant], rounds: int, steps: int, device: torch.device) -> None:
    """Lets all take turns; the first round warms up and is not kept."""
    number = 0
    for round_number in range(rounds + 1):
        for one in entered.values():
            _finish(device)
            wall_s, cpu_s = time.perf_counter(), time.process_time()
            for _ in range(steps):
                one.step(number)
                number += 1
            _finish(device)
            if round_number > 0:
                one.cpu_s.append((time.process_time() - cpu_s) / steps)
                one.wall_s.append((time.perf_counter() - wall_s) / steps)
        print(f"round {round_number} of {rounds} done", file=sys.stderr, flush=True)


def _finish(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def ratios(entered: dict[str, Contestant], device: torch.device) -> dict[str, dict[str, float]]:
    """Returns the medians and the spread of the ratios within rounds."""
    found = {}
    for slow, fast in RATIOS:
        if slow in entered and fast in entered:
            pairs = zip(_times(entered[slow], device), _times(entered[fast], device), strict=True)
            values = [one / other for one, other in pairs]
            found[f"{slow} / {fast}"] = _spread(values)
    return found


def _times(one: Contestant, device: torch.device) -> list[float]:
    """Returns what is compared: processor seconds, or wall seconds where a GPU computes."""
    return one.wall_s if device.type == "cuda" else one.cpu_s


def _spread(values: Sequence[float]) -> dict[str, float]:
    found = {"median": statistics.median(values), "min": min(values), "max": max(values)}
    return {name: round(value, 4) for name, value in found.items()}


def main() -> None:
    """Measures, prints a table, and writes the figures to benchmarks/results/."""
    assert __doc__ is not None, "this module has a docstring"
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=2, help="of each contestant in a round")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--only", nargs="*", help="some of the contestants")
    arguments = parser.parse_args()
    fix_numerics(arguments.threads)
    device = resolve_device("auto")
    entered: dict[str, Contestant] = {}
    for name, make in contestants(arguments.batch_size, device).items():
        if arguments.only and name not in arguments.only:
            continue
        torch.manual_seed(0)
        try:
            entered[name] = make()
        except ImportError as error:
            print(f"{name} is left out: {error}")
    measure(entered, arguments.rounds, arguments.steps, device)
    print(f"\nbatch size {arguments.batch_size}, seconds a step, median (least to most)")
    for name, one in entered.items():
        cpu, wall = _spread(one.cpu_s), _spread(one.wall_s)
        print(
            f"{name:<16} CPU {cpu['median']:7.3f} ({cpu['min']:.3f} to {cpu['max']:.3f})   "
            f"wall {wall['median']:7.3f}"
        )
    found = ratios(entered, device)
    print("\nratios within a round, median (least to most)")
    for name, spread in found.items():
        print(f"{name:<28} {spread['median']:6.2f} ({spread['min']:.2f} to {spread['max']:.2f})")
    content = {
        "command": shlex.join(["python", "-m", "benchmarks.step", *sys.argv[1:]]),
        "batch_size": arguments.batch_size,
        "threads": arguments.threads,
        "seconds": {
            name: {"cpu": _spread(one.cpu_s), "wall": _spread(one.wall_s)}
            for name, one in entered.items()
        },
        "ratios": found,
    }
    print(f"\nwritten to {write_result('step', content).name} in benchmarks/results/")


if __name__ == "__main__":
    main()
