"""Data parallelism inside a peer: each pass is split between processes with a GPU of their own.

The peer's process does the first part of a pass, and each helper does another one. A helper keeps
nothing: it gets the peer's weights and its part of the views, and gives embeddings back. So the loss
and the similarities are those of the whole batch. In the backward pass a helper gets the gradient
of its embeddings and gives that of the weights, and the peer adds up all parts.

A part is normalised by its own statistics, as a chunk is with `chunk_size`, unless `sync_batchnorm`
is set. The running statistics are those of the first part.

The helpers run on the peer's own machine. Tensors go through torch.distributed (NCCL between GPUs,
else gloo), bound to the loopback device. Orders and errors go through a pipe. So a helper that dies
is noticed at once, and a helper ends when its peer does.
"""

# N = images of a pass, n = images of one part, D = numbers of all embeddings of an image
# C, H, W = channels and pixels

from __future__ import annotations

import copy
import datetime
import multiprocessing
import os
import pickle
import signal
import sys
import tempfile
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import torch
from torch import distributed as dist
from torch import nn

from dogo_fed import seeding
from dogo_fed.components import error_in_words
from dogo_fed.contracts import PeerId
from dogo_fed.engine.numerics import compile_backbone, fix_numerics
from dogo_fed.errors import ConfigError, TrainingError
from dogo_fed.objectives.base import Embeddings, EmbedPart, Objective

WITHIN_S = 600.0
"""So long may a helper take to start, or to do its part of a pass."""

_ENDS_WITHIN_S = 5.0
_FIRST = 0  # the rank of the peer's own process
_DONE = True


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
class _Order:
    """What a helper is asked for: its part of a pass.

    Attributes:
        shape: of its part of either view, n x C x H x W.
        is_training: the mode of the networks.
        is_learning: whether the gradient of the weights may be asked for.
    """

    step: int
    shape: tuple[int, ...]
    is_training: bool
    is_learning: bool


class Helpers:
    """The processes that do parts of one peer's passes. A process has the helpers of one peer."""

    def __init__(self, objective: Objective, num_parts: int, settings: PassSettings) -> None:
        """Starts them; returns when all are ready.

        Args:
            objective: the peer's, on its device.
            num_parts: parts of a pass, the peer's own included; at least 2.
            settings: those of the peer's passes.

        Raises:
            ConfigError: there are too few GPUs, this process has the helpers of another peer, or the
                peer can't be copied to another process.
            TrainingError: a helper can't be started.
        """
        _check(num_parts, settings)
        self._num_parts = num_parts
        self._peer = settings.peer
        self._processes: list[BaseProcess] = []
        self._pipes: list[Connection] = []
        folder = tempfile.TemporaryDirectory(prefix="dogo-fed-helpers-")
        self._end = weakref.finalize(self, _end, self._processes, self._pipes, folder)
        meeting, content = str(Path(folder.name) / "meeting"), _packed_copy(objective, self._peer)
        context = multiprocessing.get_context("spawn")
        for rank in range(1, num_parts):
            here, there = context.Pipe()
            process = context.Process(
                target=_help,
                args=(rank, num_parts, meeting, content, settings, there),
                name=f"{settings.peer} part {rank}",
                daemon=True,
            )
            process.start()
            there.close()
            self._processes.append(process)
            self._pipes.append(here)
        try:
            with self._failures():
                self._hear()
                _meet(_FIRST, num_parts, meeting, settings.device_type)
                self._hear()
        except TrainingError:
            self.close()
            raise

    def close(self) -> None:
        """Ends them; nothing to do if that is done."""
        self._end()

    def embed(
        self,
        embed: EmbedPart,
        view_a_NCHW: torch.Tensor,
        view_b_NCHW: torch.Tensor,
        *,
        objective: Objective,
        step: int,
    ) -> Embeddings:
        """Returns the embeddings of all images of a pass, with a graph where gradients are on.

        Args:
            embed: does a part of the pass in this process.
            view_a_NCHW: the first view.
            view_b_NCHW: the second.
            objective: the peer's, whose weights the helpers get.
            step: the run's step.

        Raises:
            TrainingError: a helper has failed, or has not answered in time.
        """
        parts = list(
            zip(
                view_a_NCHW.tensor_split(self._num_parts),
                view_b_NCHW.tensor_split(self._num_parts),
                strict=True,
            )
        )
        sizes = [len(view_nCHW) for view_nCHW, _ in parts[1:]]
        learning = _learning(objective) if torch.is_grad_enabled() else []
        with self._failures():
            for pipe, (view_nCHW, _) in zip(self._pipes, parts[1:], strict=True):
                shape = tuple(view_nCHW.shape)
                pipe.send(_Order(step, shape, objective.training, bool(learning)))
            for flat in _flat(_state(objective)):
                dist.broadcast(flat, src=_FIRST)
            for rank, part in enumerate(parts[1:], start=1):
                for view_nCHW in part:
                    dist.send(view_nCHW.contiguous(), dst=rank)
        # One node of the graph is made before this process' part, and one after it. So the backward
        # pass first gives the helpers their gradients, then does this part, and then takes theirs.
        token = _TakeGradients.apply(self, *learning) if learning else None
        own = embed(*parts[0])
        names = sorted(own)
        with self._failures():
            self._hear()
            theirs = self._take_embeddings([own[name] for name in names], sizes)
        if token is not None:
            theirs = _GiveGradients.apply(self, sizes, token, *theirs)
        joined = zip(names, theirs, strict=True)
        return {name: torch.cat([own[name], their_part]) for name, their_part in joined}

    def _take_embeddings(
        self, own: Sequence[torch.Tensor], sizes: Sequence[int]
    ) -> tuple[torch.Tensor, ...]:
        """Returns the helpers' embeddings by head, without a graph, like those of the first part."""
        widths = [one.shape[1] for one in own]
        parts = [torch.empty(size, sum(widths), device=own[0].device) for size in sizes]
        for rank, part_nD in enumerate(parts, start=1):
            dist.recv(part_nD, src=rank)
        by_head = torch.split(torch.cat(parts), widths, dim=1)
        return tuple(one.to(like.dtype) for one, like in zip(by_head, own, strict=True))

    def give_gradients(self, sizes: Sequence[int], by_head: Sequence[torch.Tensor]) -> None:
        """Gives every helper the gradient of its embeddings."""
        all_ND = torch.cat([one.float() for one in by_head], dim=1)
        with self._failures():
            for pipe in self._pipes:
                pipe.send(_DONE)
            for rank, part_nD in enumerate(torch.split(all_ND, list(sizes)), start=1):
                dist.send(part_nD.contiguous(), dst=rank)

    def take_gradients(self, like: Sequence[torch.Tensor]) -> list[torch.Tensor | None]:
        """Returns the sum of the helpers' gradients by weight; None for one that no part uses."""
        sums = [torch.zeros_like(one) for one in like]
        is_used = torch.zeros(len(sums), dtype=torch.int32, device=like[0].device)
        with self._failures():
            self._hear()
            _add_up(sums, is_used)
        return [one if used else None for one, used in zip(sums, is_used.tolist(), strict=True)]

    def _hear(self) -> None:
        """Returns when every helper has said that it has done its part.

        Raises:
            TrainingError: one has failed, or has not answered in time.
        """
        for number, pipe in enumerate(self._pipes, start=1):
            if not pipe.poll(WITHIN_S):
                raise self._failure(f"helper {number} has not answered for {WITHIN_S:g} s")
            answer = pipe.recv()
            if answer is not _DONE:
                raise self._failure(str(answer))

    @contextmanager
    def _failures(self) -> Iterator[None]:
        """Turns what goes wrong between processes into one error, with a helper's own words."""
        try:
            yield
        except (RuntimeError, EOFError, OSError) as error:
            raise self._failure(self._last_words() or error_in_words(error)) from error

    def _last_words(self) -> str:
        """Returns why a helper has ended; "" if none has said so."""
        for pipe in self._pipes:
            try:
                while pipe.poll(1.0):
                    answer = pipe.recv()
                    if answer is not _DONE:
                        return str(answer)
            except (EOFError, OSError):
                continue
        return ""

    def _failure(self, why: str) -> TrainingError:
        ended = [one.name for one in self._processes if not one.is_alive()]
        also = f" (ended: {', '.join(ended)})" if ended else ""
        return TrainingError(
            f"a process that does a part of the passes of peer {self._peer!r} "
            f"(peers.{self._peer}.data_parallel) has failed: {why}{also}. If a script of your own "
            'starts the run, what it does must stand under `if __name__ == "__main__":`'
        )


class _TakeGradients(torch.autograd.Function):
    """From the weights to nothing: its backward pass takes the helpers' gradients of the weights."""

    @staticmethod
    def forward(ctx: Any, helpers: Helpers, *weights: torch.Tensor) -> torch.Tensor:
        ctx.helpers, ctx.weights = helpers, [one.detach() for one in weights]
        return torch.zeros((), device=weights[0].device)

    @staticmethod
    def backward(ctx: Any, _: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        return (None, *ctx.helpers.take_gradients(ctx.weights))


class _GiveGradients(torch.autograd.Function):
    """From nothing to the helpers' embeddings: its backward pass gives the helpers their gradients."""

    @staticmethod
    def forward(
        ctx: Any, helpers: Helpers, sizes: Sequence[int], token: torch.Tensor, *theirs: torch.Tensor
    ) -> tuple[torch.Tensor, ...]:
        ctx.helpers, ctx.sizes, ctx.device = helpers, sizes, token.device
        return tuple(one.view_as(one) for one in theirs)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        ctx.helpers.give_gradients(ctx.sizes, gradients)
        return (None, None, torch.zeros((), device=ctx.device), *[None] * len(gradients))


def with_synchronised_statistics(objective: Objective, peer: PeerId, device: torch.device) -> None:
    """Lets layers that normalise by the batch see the parts of all processes.

    Raises:
        ConfigError: there is no GPU, without which torch can't do it.
    """
    if device.type != "cuda":
        raise ConfigError(
            f"peers.{peer}.sync_batchnorm=true needs GPUs, and this peer computes on {device.type}; "
            "leave it out"
        )
    for name, module in objective.named_children():
        if name != "average":  # its pass is that of one process
            converted = nn.SyncBatchNorm.convert_sync_batchnorm(module)  # type: ignore[no-untyped-call]
            setattr(objective, name, converted)


# ---- in a helper's process ----


def _help(
    rank: int,
    num_parts: int,
    meeting: str,
    content: bytes,
    settings: PassSettings,
    pipe: Connection,
) -> None:
    """Does its part of passes until the peer's end of the pipe is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the peer decides what Ctrl-C means
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
        pipe.send(_DONE)
        _meet(rank, num_parts, meeting, device.type)
        pipe.send(_DONE)
        part: _Part | None = None
        while True:
            order = pipe.recv()
            if isinstance(order, _Order):
                part = _Part(objective, order, rank, settings, device)
                part.embed(pipe)
            elif part is not None:
                part.give_gradients(pipe)
                part = None
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return  # the peer has ended
    except Exception as error:
        pipe.send(error_in_words(error))


class _Part:
    """A helper's part of one pass."""

    def __init__(
        self,
        objective: Objective,
        order: _Order,
        rank: int,
        settings: PassSettings,
        device: torch.device,
    ) -> None:
        self._objective = objective
        self._order = order
        self._rank = rank
        self._settings = settings
        self._device = device
        self._made_nD = torch.empty(0)

    def embed(self, pipe: Connection) -> None:
        """Takes weights and views, and gives the embeddings."""
        order, settings = self._order, self._settings
        state = _state(self._objective)
        for flat, group in zip(_flat(state), _by_type(state), strict=True):
            dist.broadcast(flat, src=_FIRST)
            with torch.no_grad():
                sizes = [one.numel() for one in group]
                for one, value in zip(group, torch.split(flat, sizes), strict=True):
                    one.copy_(value.view_as(one))
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
            seen = self._objective.embed_in_chunks(view_a_nCHW, view_b_nCHW, settings.chunk_size)
            self._made_nD = torch.cat([seen[name].float() for name in sorted(seen)], dim=1)
        pipe.send(_DONE)
        dist.send(self._made_nD.detach().contiguous(), dst=_FIRST)

    def _take_view(self) -> torch.Tensor:
        view_nCHW = torch.empty(self._order.shape, device=self._device)
        dist.recv(view_nCHW, src=_FIRST)
        return view_nCHW.contiguous(memory_format=self._settings.memory_format)

    def give_gradients(self, pipe: Connection) -> None:
        """Takes the gradient of the embeddings, and gives that of the weights."""
        gradient_nD = torch.empty_like(self._made_nD)
        dist.recv(gradient_nD, src=_FIRST)
        learning = _learning(self._objective)
        found = torch.autograd.grad(self._made_nD, learning, gradient_nD, allow_unused=True)
        is_used = torch.tensor(
            [one is not None for one in found], dtype=torch.int32, device=self._device
        )
        pipe.send(_DONE)
        _add_up(
            [
                torch.zeros_like(weight) if one is None else one
                for weight, one in zip(learning, found, strict=True)
            ],
            is_used,
        )


# ---- in both ----


def _meet(rank: int, num_parts: int, meeting: str, device_type: str) -> None:
    """Joins the processes of the peer; they find each other by a file."""
    loopback = "lo0" if sys.platform == "darwin" else "lo"
    os.environ["GLOO_SOCKET_IFNAME"] = os.environ["NCCL_SOCKET_IFNAME"] = loopback
    dist.init_process_group(
        "nccl" if device_type == "cuda" else "gloo",
        init_method=f"file://{meeting}",
        rank=rank,
        world_size=num_parts,
        timeout=datetime.timedelta(seconds=WITHIN_S),
    )


def _learning(objective: Objective) -> list[torch.Tensor]:
    """Returns the weights that learn, in the order that all processes know."""
    return [one for one in objective.parameters() if one.requires_grad]


def _state(objective: Objective) -> list[torch.Tensor]:
    """Returns what a pass may depend on: all weights and buffers, but those of the average."""
    named = [*objective.named_parameters(), *objective.named_buffers()]
    return [
        one.detach()
        for name, one in named
        if one.is_floating_point() and not name.startswith("average.")
    ]


def _by_type(tensors: Sequence[torch.Tensor]) -> list[list[torch.Tensor]]:
    groups: dict[torch.dtype, list[torch.Tensor]] = {}
    for one in tensors:
        groups.setdefault(one.dtype, []).append(one)
    return list(groups.values())


def _flat(tensors: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """Returns all numbers of the tensors in a row, one row for each type."""
    return [torch.cat([one.reshape(-1) for one in group]) for group in _by_type(tensors)]


def _add_up(gradients: Sequence[torch.Tensor], is_used: torch.Tensor) -> None:
    """Adds up all processes' gradients; the first process has the sums, in place."""
    dist.reduce(is_used, dst=_FIRST, op=dist.ReduceOp.MAX)
    for flat, group in zip(_flat(gradients), _by_type(gradients), strict=True):
        dist.reduce(flat, dst=_FIRST)
        for one, value in zip(
            group, torch.split(flat, [each.numel() for each in group]), strict=True
        ):
            one.copy_(value.view_as(one))


def _check(num_parts: int, settings: PassSettings) -> None:
    """Checks that the helpers have room here.

    Raises:
        ConfigError: see `Helpers`.
    """
    setting = f"peers.{settings.peer}.data_parallel"
    if settings.device_type == "cuda" and torch.cuda.device_count() < num_parts:
        raise ConfigError(
            f"{setting}={num_parts} needs {num_parts} GPUs, and this process sees "
            f"{torch.cuda.device_count()}. On Ray, type ray.gpus_per_peer={num_parts}"
        )
    if dist.is_initialized():
        raise ConfigError(
            f"{setting}={num_parts}: this process has a group of torch.distributed already, that of "
            "another peer or your own. Give each peer a process of its own: type host=processes or "
            "host=ray"
        )


def _packed_copy(objective: Objective, peer: PeerId) -> bytes:
    """Returns a copy for other processes; the average of the weights stays here.

    Raises:
        ConfigError: a part of it can't be copied.
    """
    average, objective.average = objective.average, None
    try:
        return pickle.dumps(copy.deepcopy(objective).cpu())
    except Exception as error:  # a module of the user's own may hold anything
        raise ConfigError(
            f"peers.{peer}.data_parallel copies the peer to other processes, which can't be done: "
            f"{error_in_words(error)}"
        ) from error
    finally:
        objective.average = average


def _end(
    processes: Sequence[BaseProcess],
    pipes: Sequence[Connection],
    folder: tempfile.TemporaryDirectory[str],
) -> None:
    for pipe in pipes:
        pipe.close()  # upon which a helper that waits ends by itself
    for process in processes:
        process.join(_ENDS_WITHIN_S)
        if process.is_alive():
            process.kill()
            process.join(_ENDS_WITHIN_S)
    if processes and dist.is_initialized():
        dist.destroy_process_group()
    folder.cleanup()
