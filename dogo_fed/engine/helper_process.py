"""The side of a helper: a process that does parts of one peer's passes and keeps nothing of them.

Orders come through a pipe, and the helper says through it that it is done, or what went wrong.
Weights, views, embeddings and gradients go as tensors (`helper_tensors`). A helper ends when its
peer does.
"""

# n = images of one part, D = numbers of the embeddings that are sent, of an image
# C, H, W = channels and pixels

from __future__ import annotations

import pickle
import signal
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection

import torch
from torch import distributed as dist

from dogo_fed import seeding
from dogo_fed.components import error_in_words
from dogo_fed.contracts import PeerId
from dogo_fed.engine.helper_tensors import FIRST, add_up, joined, learning, meet, take_state
from dogo_fed.engine.numerics import compile_backbone, fix_numerics
from dogo_fed.objectives.base import Objective


@dataclass(frozen=True, slots=True)
class Done:
    """What a helper says when it has done what it was asked for.

    Attributes:
        used: of a backward pass, for each weight that learns, whether the part has a gradient of it.
            It goes through the pipe, since whoever reads a tensor waits for the device.
    """

    used: tuple[bool, ...] = ()


DONE = Done()


@dataclass(frozen=True, slots=True, kw_only=True)
class PassSettings:
    """What makes a pass in another process one as it is here.

    Attributes:
        half: the type of the networks' products and convolutions; None is their weights' own.
        memory_format: how views and feature maps lie in memory.
        chunk_size: images that pass through the networks at a time; None is all of a part.
        is_compiled, uses_cuda_graphs: whether the backbone is compiled, and recorded.
        threads: of torch.
    """

    peer: PeerId
    run_seed: int
    device_type: str
    half: torch.dtype | None
    memory_format: torch.memory_format
    chunk_size: int | None
    is_compiled: bool
    uses_cuda_graphs: bool
    threads: int


@dataclass(frozen=True, slots=True)
class PassOrder:
    """What a helper is asked for: its part of a pass.

    Attributes:
        shape: of its part of either view, n x C x H x W.
        num_chunks: in which it does its part; all parts of a pass have as many, so that layers that
            see all parts meet equally often.
        is_training: the mode of the networks.
        is_learning: whether the gradient of the weights may be asked for.
    """

    step: int
    shape: tuple[int, ...]
    num_chunks: int
    is_training: bool
    is_learning: bool


@dataclass(frozen=True, slots=True)
class GradientOrder:
    """What a helper may be asked for next: the gradient of the weights.

    Attributes:
        heads: those whose embeddings have a gradient, in the order in which it comes.
    """

    heads: tuple[str, ...]


def help_peer(
    rank: int,
    num_parts: int,
    meeting: str,
    content: bytes,
    settings: PassSettings,
    pipe: Connection,
) -> None:
    """Does its part of passes until the peer's end of the pipe is closed."""
    _leave_signals_to_the_peer()
    try:
        fix_numerics(settings.threads)
        device = torch.device(settings.device_type)
        if device.type == "cuda":
            device = torch.device("cuda", rank)
            torch.cuda.set_device(device)
        objective: Objective = pickle.loads(content)  # from the process that started this one
        objective.to(device=device)
        objective.to(memory_format=settings.memory_format)
        if settings.is_compiled:
            compile_backbone(objective.backbone, uses_cuda_graphs=settings.uses_cuda_graphs)
        pipe.send(DONE)
        meet(rank, num_parts, meeting, device.type)
        pipe.send(DONE)
        begun: PartOfPass | None = None
        while True:
            order = pipe.recv()
            if isinstance(order, PassOrder):
                begun = PartOfPass(objective, order, rank, settings, device)
                begun.embed(pipe)
            elif begun is not None:
                begun.give_gradients(order.heads, pipe)
                begun = None
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return  # the peer has ended
    except Exception as error:
        pipe.send(error_in_words(error))


def _leave_signals_to_the_peer() -> None:
    """Ignores what a terminal sends to all of its processes: the peer decides what it means."""
    for name in ("SIGINT", "SIGHUP"):
        if hasattr(signal, name):  # not every system has SIGHUP
            signal.signal(getattr(signal, name), signal.SIG_IGN)


class PartOfPass:
    """A helper's part of one pass."""

    def __init__(
        self,
        objective: Objective,
        order: PassOrder,
        rank: int,
        settings: PassSettings,
        device: torch.device,
    ) -> None:
        self._objective = objective
        self._order = order
        self._rank = rank
        self._settings = settings
        self._device = device
        self._made: dict[str, torch.Tensor] = {}  # embeddings by head

    def embed(self, pipe: Connection) -> None:
        """Takes weights and views, and gives the embeddings."""
        order, settings = self._order, self._settings
        take_state(self._objective)
        view_a_nCHW, view_b_nCHW = self._take_view(), self._take_view()
        self._objective.train(order.is_training)
        if settings.uses_cuda_graphs:
            torch.compiler.cudagraph_mark_step_begin()  # type: ignore[no-untyped-call]
        with (
            seeding.stream(
                settings.run_seed,
                settings.peer,
                order.step,
                f"forward of part {self._rank}",
                device=self._device,
            ),
            torch.set_grad_enabled(order.is_learning),
            torch.autocast(self._device.type, settings.half, enabled=settings.half is not None),
        ):
            seen = self._objective.embed_in_chunks(view_a_nCHW, view_b_nCHW, order.num_chunks)
            self._made = {name: seen[name].float() for name in sorted(seen)}
        made_nD = joined([head_nD.detach() for head_nD in self._made.values()])
        pipe.send(DONE)
        dist.send(made_nD.contiguous(), dst=FIRST)

    def _take_view(self) -> torch.Tensor:
        view_nCHW = torch.empty(self._order.shape, device=self._device)
        dist.recv(view_nCHW, src=FIRST)
        return view_nCHW.contiguous(memory_format=self._settings.memory_format)

    def give_gradients(self, heads: Sequence[str], pipe: Connection) -> None:
        """Takes the gradient of the embeddings, and gives that of the weights.

        No other head is gone back through, as in the peer's own process: layers that see all parts
        meet in the backward pass too.

        Args:
            heads: those that have a gradient.
            pipe: to the peer.
        """
        weights = learning(self._objective)
        found: Sequence[torch.Tensor | None] = [None] * len(weights)
        gradients = self._take_gradients(heads) if heads else ()
        with_graph = [
            (self._made[name], gradient_nD)
            for name, gradient_nD in zip(heads, gradients, strict=True)
            if self._made[name].requires_grad  # not that of a momentum encoder
        ]
        if with_graph:
            found = torch.autograd.grad(
                [made_nD for made_nD, _ in with_graph],
                weights,
                [gradient_nD for _, gradient_nD in with_graph],
                allow_unused=True,
            )
        pipe.send(Done(tuple(gradient is not None for gradient in found)))
        add_up(
            [
                torch.zeros_like(weight) if gradient is None else gradient
                for weight, gradient in zip(weights, found, strict=True)
            ]
        )

    def _take_gradients(self, heads: Sequence[str]) -> tuple[torch.Tensor, ...]:
        widths = [self._made[name].shape[1] for name in heads]
        all_nD = torch.empty(self._order.shape[0], sum(widths), device=self._device)
        dist.recv(all_nD, src=FIRST)
        return torch.split(all_nD, widths, dim=1)
