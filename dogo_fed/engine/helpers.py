"""Data parallelism inside a peer: each pass is split between processes with a GPU of their own.

The peer's process does the first part of a pass, and each helper does another one. A helper keeps
nothing: it gets the peer's weights and its part of the views, and gives embeddings back. So the loss
and the similarities are those of the whole batch. In the backward pass a helper gets the gradient
of its embeddings and gives that of the weights, and the peer adds up all parts.

A part is normalised by its own statistics, as a chunk is with `chunk_size`, unless `sync_batchnorm`
is set. The running statistics are those of the first part.

The helpers run on the peer's own machine (`helper_process.py`). Tensors go through torch.distributed
(`helper_tensors.py`), orders and errors through a pipe. So a helper that dies is noticed at once, and
a helper ends when its peer does.
"""

# N = images of a pass, n = images of one part, D = numbers of all embeddings of an image
# C, H, W = channels and pixels

from __future__ import annotations

import copy
import multiprocessing
import pickle
import tempfile
import weakref
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import torch
from torch import distributed as dist
from torch import nn

from dogo_fed.components import error_in_words
from dogo_fed.contracts import PeerId
from dogo_fed.engine.helper_process import Done, GradientOrder, PassOrder, PassSettings, help_peer
from dogo_fed.engine.helper_tensors import (
    FIRST,
    WITHIN_S,
    add_up,
    give_state,
    joined,
    learning,
    meet,
)
from dogo_fed.errors import ConfigError, HelperLost
from dogo_fed.objectives.base import Embeddings, EmbedPart, Objective, num_chunks

_ENDS_WITHIN_S = 5.0
_LAST_WORDS_S = 1.0


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
            HelperLost: a helper can't be started.
        """
        _check(num_parts, settings)
        self._num_parts = num_parts
        self._peer = settings.peer
        self._chunk_size = settings.chunk_size
        self._processes: list[BaseProcess] = []
        self._pipes: list[Connection] = []
        folder = tempfile.TemporaryDirectory(prefix="dogo-fed-helpers-")
        self._end = weakref.finalize(self, _end, self._processes, self._pipes, folder)
        meeting, content = str(Path(folder.name) / "meeting"), _packed_copy(objective, self._peer)
        context = multiprocessing.get_context("spawn")
        for rank in range(1, num_parts):
            here, there = context.Pipe()
            process = context.Process(
                target=help_peer,
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
                meet(FIRST, num_parts, meeting, settings.device_type)
                self._hear()
        except HelperLost:
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
            embed: does a part of the pass in this process, in so many chunks.
            view_a_NCHW: the first view.
            view_b_NCHW: the second.
            objective: the peer's, whose weights the helpers get.
            step: the run's step.

        Raises:
            HelperLost: a helper has failed, or has not answered in time.
        """
        parts = list(
            zip(
                view_a_NCHW.tensor_split(self._num_parts),
                view_b_NCHW.tensor_split(self._num_parts),
                strict=True,
            )
        )
        sizes = [len(view_nCHW) for view_nCHW, _ in parts[1:]]
        # The first part is the largest, and the last one the smallest.
        chunks = num_chunks(len(parts[0][0]), self._chunk_size, len(parts[-1][0]))
        weights = learning(objective) if torch.is_grad_enabled() else []
        with self._failures():
            for pipe, (view_nCHW, _) in zip(self._pipes, parts[1:], strict=True):
                shape = tuple(view_nCHW.shape)
                pipe.send(PassOrder(step, shape, chunks, objective.training, bool(weights)))
            give_state(objective)
            for rank, views in enumerate(parts[1:], start=1):
                for view_nCHW in views:
                    dist.send(view_nCHW.contiguous(), dst=rank)
        # One node of the graph is made before this process' part, and one after it. So the backward
        # pass first gives the helpers their gradients, then does this part, and then takes theirs.
        token = _TakeGradients.apply(self, *weights) if weights else None
        own = embed(*parts[0], chunks)
        names = sorted(own)
        with self._failures():
            self._hear()
            theirs = self._take_embeddings([own[name] for name in names], sizes)
        if token is not None:
            theirs = _GiveGradients.apply(self, names, sizes, token, *theirs)
        return {
            name: torch.cat([own[name], their_nD])
            for name, their_nD in zip(names, theirs, strict=True)
        }

    def _take_embeddings(
        self, own: Sequence[torch.Tensor], sizes: Sequence[int]
    ) -> tuple[torch.Tensor, ...]:
        """Returns the helpers' embeddings by head, without a graph, like those of the first part."""
        widths = [head_nD.shape[1] for head_nD in own]
        parts = [torch.empty(size, sum(widths), device=own[0].device) for size in sizes]
        for rank, part_nD in enumerate(parts, start=1):
            dist.recv(part_nD, src=rank)
        by_head = torch.split(torch.cat(parts), widths, dim=1)
        return tuple(head_nD.to(like.dtype) for head_nD, like in zip(by_head, own, strict=True))

    def give_gradients(self, sizes: Sequence[int], by_head: Mapping[str, torch.Tensor]) -> None:
        """Gives every helper the gradient of its embeddings.

        Args:
            sizes: the images of each helper's part.
            by_head: the gradients of all parts; heads that the loss does not use have none.
        """
        with self._failures():
            for pipe in self._pipes:
                pipe.send(GradientOrder(tuple(by_head)))
            if not by_head:
                return
            all_ND = joined(list(by_head.values()))
            for rank, part_nD in enumerate(torch.split(all_ND, list(sizes)), start=1):
                dist.send(part_nD.contiguous(), dst=rank)

    def take_gradients(self, like: Sequence[torch.Tensor]) -> list[torch.Tensor | None]:
        """Returns the sum of the helpers' gradients by weight; None for one that no part uses."""
        sums = [torch.zeros_like(weight) for weight in like]
        with self._failures():
            parts = [done.used for done in self._hear()]
            add_up(sums)
        return [
            gradient if any(used) else None
            for gradient, used in zip(sums, zip(*parts, strict=True), strict=True)
        ]

    def _hear(self) -> list[Done]:
        """Returns what the helpers say, when every one has done its part.

        Raises:
            HelperLost: one has failed, or has not answered in time.
        """
        heard = []
        for number, pipe in enumerate(self._pipes, start=1):
            if not pipe.poll(WITHIN_S):
                raise self._failure(f"helper {number} has not answered for {WITHIN_S:g} s")
            answer = pipe.recv()
            if not isinstance(answer, Done):
                raise self._failure(str(answer))
            heard.append(answer)
        return heard

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
                while pipe.poll(_LAST_WORDS_S):
                    answer = pipe.recv()
                    if not isinstance(answer, Done):
                        return str(answer)
            except (EOFError, OSError):
                continue
        return ""

    def _ended(self) -> list[str]:
        """Returns the names of the helpers that have ended, or are just about to."""
        # The pipes of a process are closed a moment before the process itself is seen to have ended.
        closed = wait([process.sentinel for process in self._processes], timeout=_LAST_WORDS_S)
        for process in self._processes:
            if process.sentinel in closed:
                process.join(_ENDS_WITHIN_S)
        return [process.name for process in self._processes if not process.is_alive()]

    def _failure(self, why: str) -> HelperLost:
        ended = self._ended()
        also = f" (ended: {', '.join(ended)})" if ended else ""
        return HelperLost(
            f"a process that does a part of the passes of peer {self._peer!r} "
            f"(peers.{self._peer}.data_parallel) has failed: {why}{also}. If a script of your own "
            'starts the run, what it does must stand under `if __name__ == "__main__":`'
        )


class _TakeGradients(torch.autograd.Function):
    """From the weights to nothing: its backward pass takes the helpers' gradients of the weights."""

    @staticmethod
    def forward(ctx: Any, helpers: Helpers, *weights: torch.Tensor) -> torch.Tensor:
        ctx.helpers, ctx.weights = helpers, [weight.detach() for weight in weights]
        return torch.zeros((), device=weights[0].device)

    @staticmethod
    def backward(ctx: Any, _: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        return (None, *ctx.helpers.take_gradients(ctx.weights))


class _GiveGradients(torch.autograd.Function):
    """From nothing to the helpers' embeddings: its backward pass gives the helpers their gradients.

    This process goes back through the heads that the loss uses, and so must the helpers: layers that
    see all parts meet there.
    """

    @staticmethod
    def forward(
        ctx: Any,
        helpers: Helpers,
        names: Sequence[str],
        sizes: Sequence[int],
        token: torch.Tensor,
        *theirs: torch.Tensor,
    ) -> tuple[torch.Tensor, ...]:
        ctx.set_materialize_grads(False)  # a head that the loss does not use has None, not zeros
        ctx.helpers, ctx.names, ctx.sizes, ctx.device = helpers, names, sizes, token.device
        return tuple(head_nD.view_as(head_nD) for head_nD in theirs)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor | None) -> tuple[torch.Tensor | None, ...]:
        by_head = {
            name: gradient_ND
            for name, gradient_ND in zip(ctx.names, gradients, strict=True)
            if gradient_ND is not None
        }
        ctx.helpers.give_gradients(ctx.sizes, by_head)
        return (None, None, None, torch.zeros((), device=ctx.device), *[None] * len(gradients))


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


def _check(num_parts: int, settings: PassSettings) -> None:
    """Checks that the helpers have room here.

    Raises:
        ConfigError: see `Helpers`.
    """
    setting = f"peers.{settings.peer}.data_parallel"
    if settings.device_type == "cuda" and torch.cuda.device_count() < num_parts:
        raise ConfigError(
            f"{setting}={num_parts} needs {num_parts} GPUs, and this process sees "
            f"{torch.cuda.device_count()}. On Ray, leave ray.gpus_per_peer out"
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
