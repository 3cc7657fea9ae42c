"""precision=auto: a few steps in each arithmetic, on this machine, and the fastest is taken.

It is chosen once, before the run, and written into its settings. So a run that goes on does not
choose again, and the same choice holds for all peers.

It is measured in the process that starts the run, with the kernels of a run. On a GPU that process
gives the memory back, but for what CUDA itself keeps there (some hundred MB) until the run ends.
"""

from __future__ import annotations

import copy
import dataclasses
import gc
import logging
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from dogo_fed.config import MemoryFormat, Precision
from dogo_fed.contracts import PeerId
from dogo_fed.data.roles import StepImages
from dogo_fed.engine.loaded_run import LoadedRun
from dogo_fed.engine.numerics import fix_numerics, resolve_device
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
    One that needs more memory than there is can't be taken, unless that holds for all.

    Args:
        run: with precision=auto.

    Raises:
        TrainingError: a step has diverged.
    """
    with _as_in_a_run(run.config.threads_per_peer):
        seconds = {candidate: _seconds_of(run, *candidate) for candidate in CANDIDATES}
    reference = seconds[CANDIDATES[0]]
    best = min(seconds, key=lambda candidate: seconds[candidate])
    if seconds[best] > _WORTH_IT * reference:
        best = CANDIDATES[0]
    told = ", ".join(f"{_words(*candidate)} {_time(taken)}" for candidate, taken in seconds.items())
    note = f"precision=auto takes {_words(*best)}; a step of all peers, one after the other: {told}"
    logger.info("%s", note)
    return dataclasses.replace(_in(run, *best), notes=(*run.notes, note))


def _in(run: LoadedRun, precision: Precision, memory_format: MemoryFormat) -> LoadedRun:
    config = dataclasses.replace(run.config, precision=precision, memory_format=memory_format)
    return dataclasses.replace(run, config=config)


def _words(precision: Precision, memory_format: MemoryFormat) -> str:
    return f"{precision.value}, {memory_format.value}"


def _time(seconds: float) -> str:
    return f"{1e3 * seconds:.0f} ms" if math.isfinite(seconds) else "runs out of memory"


def _seconds_of(run: LoadedRun, precision: Precision, memory_format: MemoryFormat) -> float:
    """Returns the least seconds of a step over all peers; infinity if its memory does not do."""
    device = resolve_device(run.config.device)
    try:
        return sum(
            _of_peer(_in(run, precision, memory_format), peer_id, device)
            for peer_id in run.peer_ids
        )
    except torch.OutOfMemoryError:
        return math.inf
    finally:
        if device.type == "cuda":
            gc.collect()  # a compiled network holds itself
            torch.cuda.empty_cache()


def _of_peer(trial: LoadedRun, peer_id: PeerId, device: torch.device) -> float:
    """Returns the least seconds of a step of one peer; of the processor, where it computes."""
    own = {name: copy.deepcopy(module) for name, module in trial.backbones.items()}
    peer = dataclasses.replace(trial, backbones=own).build_peer(peer_id, device)
    taken = []
    for step in range(1 + _STEPS):
        peer.synchronise()
        started_s = _now_s(device)
        images = trial.images_of(peer_id, step, with_labels=peer.objective.uses_labels)
        do_with_itself(peer, _with_rows(images), step)
        peer.synchronise()
        taken.append(_now_s(device) - started_s)
    return min(taken[1:])


def _with_rows(images: StepImages) -> StepImages:
    """Returns the images of a pass such that some are published; a pass may hold no anchors."""
    has_none = images.shared is not None and len(images.images_NCHW[images.shared]) == 0
    return dataclasses.replace(images, shared=None) if has_none else images


def _now_s(device: torch.device) -> float:
    """Returns a clock: that of the processor, which other programs do not slow, or of the wall."""
    return time.process_time() if device.type == "cpu" else time.perf_counter()


@contextmanager
def _as_in_a_run(threads: int) -> Iterator[None]:
    """Computes as peers do in the block; afterwards, with as many threads as before."""
    before = torch.get_num_threads()
    fix_numerics(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)
