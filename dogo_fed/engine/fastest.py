"""precision=auto: a few steps in each arithmetic, on this machine, and the fastest is taken.

It is chosen once, before the run, and written into its settings. So a run that goes on does not
choose again, and the same choice holds for all peers.
"""

from __future__ import annotations

import copy
import dataclasses
import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from dogo_fed.config import MemoryFormat, Precision
from dogo_fed.engine.loaded_run import LoadedRun
from dogo_fed.engine.numerics import resolve_device
from dogo_fed.engine.trial import do_with_itself

logger = logging.getLogger(__name__)

CANDIDATES = (
    (Precision.FP32, MemoryFormat.CONTIGUOUS),
    (Precision.FP32, MemoryFormat.CHANNELS_LAST),
    (Precision.BF16, MemoryFormat.CHANNELS_LAST),
)
"""The first is the reference, and is kept unless another is clearly faster."""

_WORTH_IT = 0.95
_STEPS = 3


def with_fastest(run: LoadedRun) -> LoadedRun:
    """Returns the run with the fastest arithmetic in its settings, and a note that says why.

    Each candidate does a few steps of all peers with the run's own images. Nothing of them is kept.

    Args:
        run: with precision=auto.

    Raises:
        TrainingError: a step has diverged.
    """
    seconds = {candidate: _seconds_of(run, *candidate) for candidate in CANDIDATES}
    reference = seconds[CANDIDATES[0]]
    best = min(seconds, key=lambda candidate: seconds[candidate])
    if seconds[best] > _WORTH_IT * reference:
        best = CANDIDATES[0]
    told = ", ".join(
        f"{_words(*candidate)} {1e3 * taken:.0f} ms" for candidate, taken in seconds.items()
    )
    note = f"precision=auto takes {_words(*best)}; a step of all peers, one after the other: {told}"
    logger.info("%s", note)
    return dataclasses.replace(_in(run, *best), notes=(*run.notes, note))


def _in(run: LoadedRun, precision: Precision, memory_format: MemoryFormat) -> LoadedRun:
    config = dataclasses.replace(run.config, precision=precision, memory_format=memory_format)
    return dataclasses.replace(run, config=config)


def _words(precision: Precision, memory_format: MemoryFormat) -> str:
    return f"{precision.value}, {memory_format.value}"


def _seconds_of(run: LoadedRun, precision: Precision, memory_format: MemoryFormat) -> float:
    """Returns the least seconds of a step over all peers; of the processor, where it computes."""
    device = resolve_device(run.config.device)
    trial = _in(run, precision, memory_format)
    total = 0.0
    with _threads(run.config.threads_per_peer):
        for peer_id in run.peer_ids:
            own = {name: copy.deepcopy(module) for name, module in run.backbones.items()}
            peer = dataclasses.replace(trial, backbones=own).build_peer(peer_id, device)
            taken = []
            for step in range(1 + _STEPS):
                peer.synchronise()
                started_s = _now_s(device)
                images = trial.images_of(peer_id, step, with_labels=peer.objective.uses_labels)
                do_with_itself(peer, images, step)
                peer.synchronise()
                taken.append(_now_s(device) - started_s)
            total += min(taken[1:])
    return total


def _now_s(device: torch.device) -> float:
    """Returns a clock: that of the processor, which other programs do not slow, or of the wall."""
    return time.process_time() if device.type == "cpu" else time.perf_counter()


@contextmanager
def _threads(number: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)
