"""What a step costs beside the published recipe, beside lightly's loop, and beside the bare networks.

    python -m benchmarks.step [--networks wide resnet18] [--batch-size 256] [--rounds 5] [--steps N]
        [--workers N] [--threads 1] [--device auto] [--only NAME ...]

The networks are WRN-10-2 and WRN-16-2 (wide), and on a GPU also two ResNet-18 (resnet18), with SimCLR's head,
on images of 32 x 32 in memory. Contestants take turns. What counts is processor time; wall time stands beside
it. On a GPU wall time counts, and a step ends when the device is done.

pair:
  published     the published recipe as its users would write it: torchvision's transforms image by image,
                cosines by broadcasting, softmax and then its logarithm, both networks in one process
  dogo          this project's sessions, fp32: feed, step, exchange by calls in this process, reports
  dogo fast     the same with precision=bf16 and memory_format=channels_last
  dogo auto     the same with precision=auto: what that takes here, and why, stands in the result
  bare          forward and backward pass and update of both networks on views that are ready
  bare fast     the same in bf16, channels_last
one peer (the last of the networks), nobody teaches:
  lightly       lightly's transform, head and loss in its usual loop; left out if it is not installed
  dogo alone, dogo alone fast

On a CPU those two make their views in this process, whose seconds count. On a GPU they have a DataLoader with
a process for each core and pinned memory, as their users would; what those have made ahead before a turn is
left out, and a turn has 32 steps. --workers and --steps say otherwise.

This project's steps are repeatable bit for bit. The others are not asked for that: they may use any kernel,
and on a GPU the fastest that cuDNN finds (torch.backends.cudnn.benchmark). There, the published recipe and
lightly have TF32 in their convolutions, as torch has unless told otherwise; this project and the bare
networks have it not.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from benchmarks.images import pictures, torchvision_view
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
from dogo_fed.config import ComponentConfig, DataConfig, MemoryFormat, PeerConfig, Precision
from dogo_fed.engine.build import build_backbone
from dogo_fed.engine.fastest import with_fastest
from dogo_fed.engine.loaded_run import load_run
from dogo_fed.engine.numerics import fix_numerics, resolve_device
from dogo_fed.objectives.simclr import SimCLR
from dogo_fed.process_setup import keep_freed_memory

LEARNING_RATE, WEIGHT_DECAY = 3e-4, 1e-6
IMAGE_SIZE = 32
NUM_IMAGES = 2048
AHEAD = 2
"""Batches that each worker makes ahead, as torch's DataLoader has it unless told otherwise."""
STEPS_WITH_WORKERS = 32
"""Of a turn: so many that the workers' speed counts, and not what they had ready."""

HOW = (
    "Contestants took turns; the spread is over rounds, and of the ratios over those within a round. This "
    "project's steps use deterministic kernels, the others any. On a CPU, views from pictures are made in "
    "the process that counts; on a GPU by a worker process for each core, ahead of the step."
)


@dataclass(frozen=True)
class Task:
    """What all contestants do.

    Attributes:
        peers: the pair; a single peer is the last of it.
        workers: processes that make views image by image, for those who do; 0 makes them in this one.
    """

    peers: Mapping[str, PeerConfig]
    batch_size: int
    device: torch.device
    num_images: int = NUM_IMAGES
    workers: int = 0

    @property
    def backbones(self) -> list[ComponentConfig]:
        """The networks of the pair."""
        return [peer.backbone for peer in self.peers.values()]

    @property
    def alone(self) -> Task:
        """The same for one peer."""
        last = list(self.peers)[-1]
        return dataclasses.replace(self, peers={last: self.peers[last]})


def network(backbone: ComponentConfig, device: torch.device) -> SimCLR:
    """Returns a backbone with SimCLR's head."""
    built = build_backbone(backbone, IMAGE_SIZE, 3)
    with torch.no_grad():
        feature_dim = built.eval()(torch.zeros(1, 3, IMAGE_SIZE, IMAGE_SIZE)).shape[1]
    return SimCLR(built.train(), feature_dim).to(device)


def adam(module: nn.Module) -> torch.optim.Optimizer:
    """Returns the published optimizer."""
    return torch.optim.Adam(module.parameters(), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY)


def views_of(transform: Callable[[Any], torch.Tensor], number: int, picture: Any) -> list[Any]:
    """Returns so many views of a picture."""
    return [transform(picture) for _ in range(number)]


class _Transformed(torch.utils.data.Dataset[list[torch.Tensor]]):
    """The views of pictures, image by image."""

    def __init__(self, shown: Sequence[Any], views: Callable[[Any], Sequence[Any]]) -> None:
        self._shown, self._views = shown, views

    def __len__(self) -> int:
        return len(self._shown)

    def __getitem__(self, row: int) -> list[torch.Tensor]:
        return list(self._views(self._shown[row]))


class Batches:
    """Views by torch's DataLoader, on the task's device; with `workers`, made ahead by processes."""

    def __init__(self, task: Task, views: Callable[[Any], Sequence[Any]]) -> None:
        data = _Transformed(pictures(task.num_images, IMAGE_SIZE), views)
        endless = torch.utils.data.RandomSampler(data, replacement=True, num_samples=2**40)
        ahead: dict[str, Any] = {"prefetch_factor": AHEAD} if task.workers else {}
        loader = torch.utils.data.DataLoader(
            data,
            task.batch_size,
            sampler=endless,
            num_workers=task.workers,
            pin_memory=task.device.type == "cuda",
            **ahead,
        )
        self._device, self._ahead = task.device, AHEAD * task.workers
        self._batches = iter(loader)

    def take(self) -> list[torch.Tensor]:
        """Returns the views of the next batch."""
        return [view.to(self._device, non_blocking=True) for view in next(self._batches)]

    def drop_ahead(self) -> None:
        """Leaves out what was made while others had their turn: it would cost a step nothing."""
        for _ in range(self._ahead):
            next(self._batches)


class Published:
    """The published recipe as its users would write it, without this project's code in the step."""

    def __init__(self, task: Task) -> None:
        # Two views for each model.
        views = partial(views_of, torchvision_view(IMAGE_SIZE), 2 * len(task.backbones))
        self.batches = Batches(task, views)
        self.models = [network(one, task.device) for one in task.backbones]
        self.optimizers = [adam(model) for model in self.models]

    def __call__(self) -> None:
        """Does a step of all models."""
        losses, logits = [], []
        views = self.batches.take()
        for model, a_NCHW, b_NCHW in zip(self.models, views[::2], views[1::2], strict=True):
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

    def __init__(self, task: Task) -> None:
        from lightly.loss import NTXentLoss
        from lightly.models.modules import SimCLRProjectionHead
        from lightly.transforms import SimCLRTransform

        transform = SimCLRTransform(input_size=IMAGE_SIZE, gaussian_blur=0.0)
        self.batches = Batches(task, transform)
        (backbone,) = task.backbones
        whole = network(backbone, task.device)
        self.backbone = whole.backbone
        width = next(one for one in whole.projector.modules() if isinstance(one, nn.Linear))
        self.head = SimCLRProjectionHead(width.in_features, 512, 128).to(task.device)
        self.loss = NTXentLoss(temperature=0.5)
        self.optimizer = adam(nn.ModuleList([self.backbone, self.head]))

    def __call__(self) -> None:
        """Does a step."""
        a_NCHW, b_NCHW = self.batches.take()
        loss = self.loss(self.head(self.backbone(a_NCHW)), self.head(self.backbone(b_NCHW)))
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()


class Bare:
    """Forward and backward pass and update on views that are ready."""

    def __init__(self, task: Task, *, is_fast: bool) -> None:
        layout = torch.channels_last if is_fast else torch.contiguous_format
        self.models = [network(one, task.device).to(memory_format=layout) for one in task.backbones]
        self.optimizers = [adam(model) for model in self.models]
        shape = (task.batch_size, 3, IMAGE_SIZE, IMAGE_SIZE)
        self.views = [
            torch.randn(shape, device=task.device).contiguous(memory_format=layout) for _ in "ab"
        ]
        self.device, self.is_fast = task.device, is_fast

    def __call__(self) -> None:
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
    """This project's sessions; with one peer, nobody teaches it."""

    note: str | None = None
    """What precision=auto has taken, and why; None if it was not asked."""

    def __init__(self, task: Task, *, is_fast: bool = False, is_auto: bool = False) -> None:
        config = steps_alone(
            task.peers,
            DataConfig(
                name="synthetic",
                options={"size": task.num_images, "test_size": 16, "image_size": IMAGE_SIZE},
            ),
            batch_size=task.batch_size,
            device=task.device.type,
            precision=Precision.BF16 if is_fast else Precision.FP32,
            memory_format=MemoryFormat.CHANNELS_LAST if is_fast else MemoryFormat.CONTIGUOUS,
        )
        if is_auto:
            auto = dataclasses.replace(config, precision=Precision.AUTO)
            chosen = with_fastest(load_run(auto))
            config, self.note = chosen.config, chosen.notes[-1]
        self.sessions = Sessions(config)

    def __call__(self) -> None:
        """Does a step of all peers, which teach each other."""
        self.sessions.step()
        self.sessions.reports.clear()


def contestants(task: Task) -> dict[str, Callable[[], Callable[[], None]]]:
    """Returns how to make each of them, by name."""
    return {
        "published": partial(Published, task),
        "dogo": partial(Dogo, task, is_fast=False),
        "dogo fast": partial(Dogo, task, is_fast=True),
        "dogo auto": partial(Dogo, task, is_auto=True),
        "bare": partial(Bare, task, is_fast=False),
        "bare fast": partial(Bare, task, is_fast=True),
        "lightly": partial(Lightly, task.alone),
        "dogo alone": partial(Dogo, task.alone, is_fast=False),
        "dogo alone fast": partial(Dogo, task.alone, is_fast=True),
    }


RATIOS = (
    ("published", "dogo"),
    ("published", "dogo fast"),
    ("published", "dogo auto"),
    ("dogo", "bare"),
    ("dogo fast", "bare fast"),
    ("lightly", "dogo alone"),
    ("lightly", "dogo alone fast"),
)
"""What is divided by what, in the same round."""


def seeded(make: Callable[[], Callable[[], None]]) -> Callable[[], None]:
    """Makes a contestant from the same random numbers as the others."""
    torch.manual_seed(0)
    return make()


@contextmanager
def kernels_for(step: Callable[[], None]) -> Iterator[None]:
    """Lets a contestant use the kernels that it may use."""
    cudnn, is_ours = torch.backends.cudnn, isinstance(step, Dogo)
    before = torch.are_deterministic_algorithms_enabled(), cudnn.benchmark
    try:
        torch.use_deterministic_algorithms(is_ours)
        cudnn.benchmark = not is_ours
        if torch.cuda.is_available():
            cudnn.allow_tf32 = not isinstance(step, Dogo | Bare)
        yield
    finally:
        torch.use_deterministic_algorithms(before[0])
        cudnn.benchmark = before[1]
        if torch.cuda.is_available():
            cudnn.allow_tf32 = False  # as `fix_numerics` has it


def turn(step: Callable[[], None], steps: int, device: torch.device) -> Took:
    """Does some steps of a contestant."""
    if isinstance(step, Published | Lightly):
        step.batches.drop_ahead()
    with kernels_for(step):
        return clocked(step, steps, partial(finish, device))


def ratios(found: Found[str, Took], device: torch.device) -> dict[str, dict[str, float]]:
    """Returns the medians and the spread of the ratios within rounds, by the clock that counts."""

    def seconds(one: Took) -> float:
        return one.wall_s if device.type == "cuda" else one.cpu_s

    return {
        f"{slow} / {fast}": spread([seconds(one) / seconds(other) for one, other in pairs])
        for slow, fast in RATIOS
        if (pairs := found.pairs(slow, fast))
    }


def measure(task: Task, rounds: int, steps: int, only: Sequence[str] = ()) -> dict[str, Any]:
    """Lets the contestants take turns; the first round warms up and is not kept."""
    made, failed = entered(
        {
            name: partial(seeded, make)
            for name, make in contestants(task).items()
            if not only or name in only
        }
    )
    turns = {name: partial(turn, step, steps, task.device) for name, step in made.items()}
    try:
        found = take_turns(turns, rounds, warm_up=1)
    finally:
        for one in made.values():
            if isinstance(one, Dogo):
                one.sessions.close()
    return {
        "seconds": {name: both_clocks(each) for name, each in found.rounds().items()},
        "ratios": ratios(found, task.device),
        "notes": {
            name: one.note
            for name, one in made.items()
            if isinstance(one, Dogo) and one.note is not None
        },
        "failed": failed | found.failed,
    }


def main() -> None:
    """Measures, prints tables, and writes the figures to benchmarks/results/."""
    assert __doc__ is not None, "this module has a docstring"
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--networks", nargs="+", choices=("wide", "resnet18"))
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, help="of each contestant in a round")
    parser.add_argument("--workers", type=int, help="processes that make views from pictures")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    parser.add_argument("--only", nargs="*", default=(), help="some of the contestants")
    asked = parser.parse_args()
    fix_numerics(asked.threads)
    keep_freed_memory()  # as a peer's process does; all contestants have it
    device = resolve_device(asked.device)
    networks = asked.networks or (("wide", "resnet18") if device.type == "cuda" else ("wide",))
    workers = asked.workers
    if workers is None:
        workers = (os.cpu_count() or 1) if device.type == "cuda" else 0
    steps = asked.steps or (STEPS_WITH_WORKERS if workers else 1)
    with Result("step", HOW, parser, asked) as result:
        result.settings |= {
            "networks": list(networks),
            "steps": steps,
            "workers": workers,
            "device": device.type,
        }
        result.found["networks"] = {}
        for name in networks:
            task = Task(peers_named(name), asked.batch_size, device, workers=workers)
            found = measure(task, asked.rounds, steps, asked.only)
            for contestant, why in found.pop("failed").items():
                result.failed[f"{name}, {contestant}"] = why
            if not found["seconds"]:
                continue
            result.found["networks"][name] = found
            print(f"\n{name}, batch size {asked.batch_size}, seconds a step")
            for contestant, clocks in found["seconds"].items():
                print(f"{contestant:<16} CPU {told(clocks['cpu']):<28} wall {told(clocks['wall'])}")
            for contestant, note in found["notes"].items():
                print(f"{contestant}: {note}")
            print("\nratios within a round")
            for pair, values in found["ratios"].items():
                print(f"{pair:<28} {told(values)}")


if __name__ == "__main__":
    main()
