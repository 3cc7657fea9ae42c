"""Saves and loads one peer: weights, optimizer, progress.

Files are written atomically and read without running code from them (`weights_only`). Each carries
a digest of its content, which is checked before it is read (`storage.seal`). A checkpoint
after step s has everything that step s + 1 depends on, since random streams are named by the step
and the sample order by the epoch. A run that goes on from it gets the numbers of a run that never
stopped.
"""

from __future__ import annotations

import dataclasses
import functools
import io
import logging
import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from dogo_fed.atomic import (
    is_no_room,
    keep_room,
    room_for,
    room_of,
    write_atomic,
    write_over,
)
from dogo_fed.errors import CheckpointError
from dogo_fed.storage.seal import check_seal, seal

logger = logging.getLogger(__name__)

FORMAT_VERSION = 1

_FILE_NAME = re.compile(r"step-(\d{9})\.pt")
_HEADS_OF_STATE = 2**16
"""Names and the like of an optimizer's state, in bytes."""
_AHEAD = "ahead"


@dataclass(slots=True)
class Progress:
    """How far a peer is, and the running values that its final report needs.

    Attributes:
        step: the next step to do.
        steps_trained: number of updates; fewer than `step` if the peer was away for a while.
        knn_top1_untrained, knn_top1: accuracies of the untrained encoder and of the latest
            evaluation, 0 to 1; NaN before it.
        rankme_untrained: effective rank of the untrained encoder's features; NaN if not measured.
        round: the round of the last step, from 1; 0 before the first.
        round_steps: number of steps done in that round.
        ssl_loss_sum, mutual_kl_sum: sums over these steps.
        round_exchanges: number of these steps that exchanged.
        evaluation_due: the round whose evaluation is still to be made, with these weights; None if
            there is none.
        evaluation_s: how long the latest evaluation took, in seconds; 0 before the first.
        undelivered: the peer's reports of steps before this one that nobody has received, as JSON
            objects; see `reporting.sinks.records`.
    """

    step: int = 0
    steps_trained: int = 0
    knn_top1_untrained: float = float("nan")
    knn_top1: float = float("nan")
    rankme_untrained: float = float("nan")
    round: int = 0
    round_steps: int = 0
    ssl_loss_sum: float = 0.0
    mutual_kl_sum: float = 0.0
    round_exchanges: int = 0
    evaluation_due: int | None = None
    evaluation_s: float = 0.0
    undelivered: list[dict[str, object]] = field(default_factory=list)


class CheckpointStore:
    """The checkpoints of one peer, in one folder."""

    def __init__(self, folder: Path, *, keep: int, lag_steps: int = 1) -> None:
        """Opens the folder, which need not be there yet.

        Args:
            folder: used by this peer only.
            keep: how many checkpoints are kept at least.
            lag_steps: how many steps another peer of the run may be behind this one. That peer has
                no later checkpoint, so the newest one that is that old is kept, and all later ones.
                The one before it is kept too: the other's newest may turn out to be broken.
        """
        self.folder = folder
        self._keep = keep
        self._lag_steps = lag_steps

    def steps(self) -> list[int]:
        """Returns the steps that there are checkpoints for, in ascending order."""
        return _steps_in(self.folder)

    def save(
        self,
        objective: nn.Module,
        optimizer: torch.optim.Optimizer,
        progress: Progress,
        *,
        scaler: torch.amp.GradScaler | None = None,
    ) -> Path:
        """Writes a checkpoint, removes those that no run will go on from, and returns its path.

        Checkpoints that were set aside are removed when the peer has got as far again. On a full disk
        the oldest one that is not needed any more gives its room, so peers of unlike size stay in step.

        Args:
            objective: its weights and buffers.
            optimizer: its state.
            progress: how far the peer is.
            scaler: scale of the loss, if the peer has one (precision=fp16).

        Raises:
            StorageFull: there is no room for it. No checkpoint that a run may need is gone.
        """
        # In memory first: torch turns the errors of a file into some of its own, without a cause.
        content = io.BytesIO()
        torch.save(
            {
                "format_version": FORMAT_VERSION,
                "progress": dataclasses.asdict(progress),
                "objective": objective.state_dict(),
                "optimizer": optimizer.state_dict(),
                **({} if scaler is None else {"scaler": scaler.state_dict()}),
            },
            content,
        )
        seal(content)
        path = self._path(progress.step)
        with room_for(f"checkpoint {path.name}", self.folder, len(content.getbuffer())):
            self._write(progress.step, content.getbuffer())
        if progress.step == 0:  # the optimizer gets its state later, in the room of this file
            keep_room(path, _bytes_to_come(optimizer))
        for step in self._not_needed(self.steps(), spare=1):
            self._path(step).unlink(missing_ok=True)
        for step in _steps_in(self.folder / _AHEAD):
            if step <= progress.step:
                (self.folder / _AHEAD / self._path(step).name).unlink(missing_ok=True)
        return path

    def load(
        self,
        step: int,
        objective: nn.Module,
        optimizer: torch.optim.Optimizer | None,
        scaler: torch.amp.GradScaler | None = None,
    ) -> Progress:
        """Loads the checkpoint of `step` into the parts of a peer; returns the progress.

        Args:
            step: of the checkpoint.
            objective: gets its weights.
            optimizer: gets its state; None if only the weights are wanted.
            scaler: of half precision; gets its state.

        Raises:
            CheckpointError: there is none, it can't be read, or it is of another model.
        """
        path = self._path(step)
        try:
            _check(path)
            # The parts bring their numbers to their device. Adam's count of steps stays on the CPU: on
            # a GPU each step would wait for it.
            content: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
            if content["format_version"] != FORMAT_VERSION:
                raise CheckpointError(
                    f"{path} has format version {content['format_version']}, this program reads "
                    f"{FORMAT_VERSION}"
                )
            saved = content["progress"]
            # Runs from before exchange.every_steps exchanged at every step.
            progress = Progress(**{"round_exchanges": saved["round_steps"], **saved})
            objective.load_state_dict(content["objective"])
            if optimizer is not None:
                optimizer.load_state_dict(content["optimizer"])
            if scaler is not None and "scaler" in content:
                scaler.load_state_dict(content["scaler"])
        except CheckpointError:
            raise
        except FileNotFoundError as error:
            raise CheckpointError(f"there is no checkpoint {path}") from error
        except Exception as error:  # torch.load fails in many ways on a broken file
            raise CheckpointError(
                f"checkpoint {path} can't be used: {_first_line(error)}. It is broken or of another "
                "model"
            ) from error
        return progress

    def load_weights(self, objective: nn.Module) -> int | None:
        """Loads the weights of the newest checkpoint into `objective`.

        Returns:
            The checkpoint's step, or None if there is no checkpoint.

        Raises:
            CheckpointError: the newest one can't be read, or is of another model.
        """
        steps = self.steps()
        return self.load(steps[-1], objective, None).step if steps else None

    def load_latest(
        self,
        objective: nn.Module,
        optimizer: torch.optim.Optimizer,
        scaler: torch.amp.GradScaler | None = None,
    ) -> Progress | None:
        """Loads the newest checkpoint that can be read; None if there is none at all.

        Those that can't be are set aside: a peer that gets as far again writes them anew.

        Raises:
            CheckpointError: there are checkpoints, but none can be read.
        """
        last_error: CheckpointError | None = None
        for step in reversed(self.steps()):
            try:
                progress = self.load(step, objective, optimizer, scaler)
            except CheckpointError as error:
                logger.warning("%s", error)
                last_error = error
                continue
            self.set_aside_after(step)
            return progress
        if last_error is not None:
            raise last_error
        return None

    def newest_readable(self) -> tuple[int | None, list[str]]:
        """Returns the newest step whose checkpoint can be read, and why each later one can't be."""
        problems: list[str] = []
        for step in reversed(self.steps()):
            problem = self.problem_with(step)
            if problem is None:
                return step, problems
            problems.append(problem)
        return None, problems

    def problem_with(self, step: int) -> str | None:
        """Returns why the checkpoint of `step` can't be read, as a sentence; None if it can."""
        path = self._path(step)
        try:
            if not _check(path):
                torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:  # torch.load fails in many ways on a broken file
            return f"checkpoint {path} can't be read ({_first_line(error)})"
        return None

    def set_aside_after(self, step: int) -> None:
        """Moves the checkpoints of later steps to the subfolder "ahead".

        A run from `step` on writes them again, and `save` then removes those that lie there.
        """
        ahead = self.folder / _AHEAD
        for later in self.steps():
            if later > step:
                ahead.mkdir(exist_ok=True)
                os.replace(self._path(later), ahead / self._path(later).name)

    def _write(self, step: int, content: memoryview) -> None:
        """Writes a checkpoint; where there is no room, over one that is not needed with it.

        Raises:
            OSError: it can't be written.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        try:
            write_atomic(self._path(step), content)
        except OSError as error:
            not_needed = self._not_needed(sorted({*self.steps(), step}), spare=0)
            large = [old for old in not_needed if room_of(self._path(old)) >= len(content)]
            if not is_no_room(error) or not large:
                raise
            write_over(self._path(large[0]), self._path(step), content)

    def _not_needed(self, steps: list[int], spare: int) -> list[int]:
        """Returns those of some steps whose checkpoints no run will go on from, in ascending order.

        Args:
            steps: of all checkpoints, in ascending order.
            spare: how many more are needed, since newer ones may turn out to be broken.
        """
        all_have = [step for step in steps if step <= steps[-1] - self._lag_steps]
        return [step for step in steps[: -self._keep] if step in all_have[: -1 - spare]]

    def _path(self, step: int) -> Path:
        return self.folder / f"step-{step:09d}.pt"


def _check(path: Path) -> bool:
    """Whether the file carries a digest, which is right; says once if one of earlier versions does not.

    Raises:
        OSError: there is no such file, or it can't be read.
        ValueError: the file is not as it was written.
    """
    is_sealed = check_seal(path)
    if not is_sealed:
        _say_unsealed(path.parent)
    return is_sealed


@functools.cache
def _say_unsealed(folder: Path) -> None:
    logger.warning(
        "checkpoints in %s are of a version that wrote no digests; they are read all the same, but "
        "a flipped bit in them would not be noticed",
        folder,
    )


def _first_line(error: Exception) -> str:
    lines = str(error).splitlines()
    return f"{type(error).__name__}: {lines[0] if lines else 'no details'}"


def _steps_in(folder: Path) -> list[int]:
    """Returns the steps that a folder has checkpoints of, in ascending order."""
    if not folder.is_dir():
        return []
    matches = (_FILE_NAME.fullmatch(path.name) for path in folder.iterdir())
    return sorted(int(match.group(1)) for match in matches if match)


def _bytes_to_come(optimizer: torch.optim.Optimizer) -> int:
    """Returns how much state an optimizer may get: two numbers for each that it learns, as Adam has."""
    learning: list[torch.Tensor] = [
        one for group in optimizer.param_groups for one in group["params"]
    ]
    return 2 * sum(one.numel() * one.element_size() for one in learning) + _HEADS_OF_STATE
