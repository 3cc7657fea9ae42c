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
import statistics
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch

from dogo_fed.config import MemoryFormat, Precision
from dogo_fed.contracts import PeerId
from dogo_fed.data.roles import StepImages
from dogo_fed.engine.loaded_run import LoadedRun
from dogo_fed.engine.numerics import fix_numerics, resolve_device
from dogo_fed.engine.peer import Peer
from dogo_fed.engine.trial import do_with_itself

logger = logging.getLogger(__name__)

CANDIDATES = (
    (Precision.FP32, MemoryFormat.CONTIGUOUS),
    (Precision.FP32, MemoryFormat.CHANNELS_LAST),
    (Precision.BF16, MemoryFormat.CHANNELS_LAST),
)
"""The first is the reference, and is kept unless another is clearly faster."""

_WORTH_IT = 0.95
_ROUNDS = 3
_LONG_S = 2.0
"""A step that takes longer is timed once."""
_HOPELESS = 1.5
"""So many times the seconds of the best, and a candidate is given up."""
_HOPELESS_AT_FIRST = 3.0
"""The same for a first step, which has other things to do too."""

_Candidate = tuple[Precision, MemoryFormat]
_Shapes = tuple[PeerId, tuple[int, ...], int, int]

_chosen: dict[tuple[str, tuple[_Shapes, ...]], tuple[_Candidate, str]] = {}
"""What this process has measured: all runs of a sweep over seeds (-m) get the same."""


def with_fastest(run: LoadedRun) -> LoadedRun:
    """Returns the run with the fastest arithmetic in its settings, and a note that says why.

    Each candidate does a few steps of every peer with the run's own images. Nothing of them is kept.
    The candidates take turns, and what counts is the median of their ratios within a turn, so
    another program on the machine harms none more than another. One that is much slower gets no
    further turn. One that needs more memory than there is can't be taken, unless that holds for all.

    A process measures once for runs that differ in nothing but seed, length and folder, and whose
    passes have the same shapes: images may be given in place of those that the settings name.

    Args:
        run: with precision=auto.

    Raises:
        TrainingError: a step has diverged.
    """
    alike = dataclasses.replace(run.config, seed=0, run_dir=None, steps=None, rounds=None)
    key = (repr(alike), tuple(_shapes(run, peer_id) for peer_id in run.peer_ids))
    known = None if run.backbones else _chosen.get(key)
    if known is None:
        known = _measured(run)
        if not run.backbones:
            _chosen[key] = known
    best, note = known
    return dataclasses.replace(_in(run, *best), notes=(*run.notes, note))


def _shapes(run: LoadedRun, peer_id: PeerId) -> _Shapes:
    """Returns the shapes of what a peer computes with: its pass, and side and channels of its views."""
    images_NCHW = run.images_of(peer_id, 0, with_labels=False).images_NCHW
    own = run.data_of(peer_id).own
    return peer_id, tuple(images_NCHW.shape), own.image_size, len(own.mean)


def _measured(run: LoadedRun) -> tuple[_Candidate, str]:
    """Returns the candidate to take, and why."""
    names = ", ".join(_words(*one) for one in CANDIDATES)
    logger.info("precision=auto tries a few steps of each peer before the run: %s", names)
    device = resolve_device(run.config.device)
    seconds = dict.fromkeys(CANDIDATES, 0.0)
    with _as_in_a_run(run.config.threads_per_peer):
        for peer_id in run.peer_ids:
            for candidate, taken in _seconds_of(run, peer_id, device).items():
                seconds[candidate] += taken
    reference = seconds[CANDIDATES[0]]
    best = min(seconds, key=lambda candidate: seconds[candidate])
    if seconds[best] > _WORTH_IT * reference:
        best = CANDIDATES[0]
    told = ", ".join(f"{_words(*one)} {_time(taken)}" for one, taken in seconds.items())
    clock = "processor time, all threads together" if device.type == "cpu" else "time"
    note = f"precision=auto takes {_words(*best)}; {clock} of a step, all peers together: {told}"
    split = [name for name, peer in run.config.peers.items() if peer.data_parallel > 1]
    if split:
        note += f". It was tried without data_parallel, on one device ({', '.join(split)})"
    if run.config.memory_format is not MemoryFormat.CONTIGUOUS:
        note += ". memory_format is chosen with it, so the one that was given has no effect"
    logger.info("%s", note)
    return best, note


def _in(run: LoadedRun, precision: Precision, memory_format: MemoryFormat) -> LoadedRun:
    config = dataclasses.replace(run.config, precision=precision, memory_format=memory_format)
    return dataclasses.replace(run, config=config)


def _words(precision: Precision, memory_format: MemoryFormat) -> str:
    return f"{precision.value}, {memory_format.value}"


def _time(seconds: float) -> str:
    return f"{1e3 * seconds:.0f} ms" if math.isfinite(seconds) else "runs out of memory"


def _seconds_of(run: LoadedRun, peer_id: PeerId, device: torch.device) -> dict[_Candidate, float]:
    """Returns the seconds of a step of one peer; infinity for a candidate that memory does not do for."""
    trials = {one: _Trial(_in(run, *one), peer_id, device) for one in CANDIDATES}
    for _ in range(_ROUNDS):
        for trial in trials.values():
            best_s = min((one.least_s for one in trials.values() if one.times), default=math.inf)
            others = [one for one in trials.values() if one is not trial]
            trial.take_turn(best_s, others)
        if best_s > _LONG_S:
            break
    for trial in trials.values():
        trial.let_go()
    reference = trials[CANDIDATES[0]]
    return {one: trial.beside(reference) for one, trial in trials.items()}


class _Trial:
    """One candidate, as one peer.

    Attributes:
        times: seconds of its turns; of the processor, where it computes.
        is_out: whether it gets no further turn.
    """

    def __init__(self, run: LoadedRun, peer_id: PeerId, device: torch.device) -> None:
        self._run, self._peer_id, self._device = run, peer_id, device
        self._peer: Peer | None = None
        self._step = 0
        self.times: list[float] = []
        self.is_out = False

    @property
    def least_s(self) -> float:
        """The shortest of its turns."""
        return min(self.times)

    def beside(self, reference: _Trial) -> float:
        """Returns the seconds of a step: the median of the ratios, by the reference's median."""
        if not self.times:
            return math.inf
        if not reference.times:
            return statistics.median(self.times)
        ratios = [mine / other for mine, other in zip(self.times, reference.times, strict=False)]
        return statistics.median(ratios) * statistics.median(reference.times)

    def take_turn(self, best_s: float, others: Sequence[_Trial]) -> None:
        """Does a step, unless it is out.

        Args:
            best_s: the seconds of the fastest so far.
            others: let go of what they hold if this one lacks memory, since a run has one alone.
        """
        if self.is_out:
            return
        try:
            taken = self._turn(best_s)
        except torch.OutOfMemoryError:
            for one in (self, *others):
                one.let_go()
            try:
                taken = self._turn(best_s)
            except torch.OutOfMemoryError:
                self.is_out, self.times = True, []
                self.let_go()
                return
        self.times.append(taken)
        self.is_out = self.is_out or taken > _HOPELESS * best_s

    def _turn(self, best_s: float) -> float:
        if self._peer is None:
            own = {name: copy.deepcopy(one) for name, one in self._run.backbones.items()}
            run = dataclasses.replace(self._run, backbones=own)
            self._peer = run.build_peer(self._peer_id, self._device)
            first_s = self._seconds_of_a_step()
            hopeless_s = max(_LONG_S, _HOPELESS_AT_FIRST * best_s)
            if first_s > hopeless_s and not self._run.config.compile:
                self.is_out = True
                return first_s
            if not self.times and math.isinf(best_s) and first_s > _LONG_S:
                logger.info(
                    "precision=auto: a step of peer %s takes %.0f s here, so this may take minutes; "
                    "precision=fp32 or bf16 spares it",
                    self._peer_id,
                    first_s,
                )
        return self._seconds_of_a_step()

    def _seconds_of_a_step(self) -> float:
        assert self._peer is not None, "it was just made"
        peer, step = self._peer, self._step
        self._step += 1
        peer.synchronise()
        started_s = _now_s(self._device)
        labels = peer.objective.uses_labels
        images = self._run.images_of(self._peer_id, step, with_labels=labels)
        do_with_itself(peer, _with_rows(images), step)
        peer.synchronise()
        return _now_s(self._device) - started_s

    def let_go(self) -> None:
        """Gives the memory back."""
        self._peer = None
        if self._device.type == "cuda":
            gc.collect()  # a compiled network holds itself
            torch.cuda.empty_cache()


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
