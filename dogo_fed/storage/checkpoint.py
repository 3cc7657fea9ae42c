"""Saves and loads one peer: weights, optimizer, progress. Written atomically, loaded as weights only.

A checkpoint after step s has everything that step s + 1 depends on, since random streams are named
by the step and sample order by the epoch; a run that goes on from it gives the numbers of one that
never stopped.
"""

from __future__ import annotations

import dataclasses
import logging
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from dogo_fed.atomic import atomic_path
from dogo_fed.errors import CheckpointError

logger = logging.getLogger(__name__)

FORMAT_VERSION = 1

_FILE_NAME = re.compile(r"step-(\d{9})\.pt")


@dataclass(slots=True)
class Progress:
    """How far a peer is, and the running values that its final report needs.

    Attributes:
        step: the next step to do.
        steps_trained: updates made; fewer than `step` if the peer was away for a while.
        knn_top1_untrained, knn_top1: latest values, NaN before the first evaluation.
        round_steps, ssl_loss_sum, mutual_kl_sum: over the steps of the current or last round.
        round_exchanges: how many of these steps exchanged.
    """

    step: int = 0
    steps_trained: int = 0
    knn_top1_untrained: float = float("nan")
    knn_top1: float = float("nan")
    round: int = 0
    round_steps: int = 0
    ssl_loss_sum: float = 0.0
    mutual_kl_sum: float = 0.0
    round_exchanges: int = 0


class CheckpointStore:
    """The checkpoints of one peer, in one folder."""

    def __init__(self, folder: Path, *, keep: int, lag_steps: int = 1) -> None:
        """Opens the folder, which need not be there yet.

        Args:
            folder: of this peer alone.
            keep: how many checkpoints stay at least.
            lag_steps: by how many steps another peer of the run may be behind this one. It has only
                the checkpoints up to there, so the newest of these stays, and all later ones.
        """
        self._folder = folder
        self._keep = keep
        self._lag_steps = lag_steps

    def steps(self) -> list[int]:
        """Returns the steps that there are checkpoints for, in ascending order."""
        if not self._folder.is_dir():
            return []
        matches = (_FILE_NAME.fullmatch(path.name) for path in self._folder.iterdir())
        return sorted(int(match.group(1)) for match in matches if match)

    def save(
        self, objective: nn.Module, optimizer: torch.optim.Optimizer, progress: Progress
    ) -> Path:
        """Writes a checkpoint and removes those that nobody will need to go on from."""
        self._folder.mkdir(parents=True, exist_ok=True)
        path = self._path(progress.step)
        with atomic_path(path) as temporary:
            torch.save(
                {
                    "format_version": FORMAT_VERSION,
                    "progress": dataclasses.asdict(progress),
                    "objective": objective.state_dict(),
                    "optimizer": optimizer.state_dict(),
                },
                temporary,
            )
        for step in self._not_needed():
            self._path(step).unlink(missing_ok=True)
        return path

    def load(
        self,
        step: int,
        objective: nn.Module,
        optimizer: torch.optim.Optimizer,
        device: torch.device,
    ) -> Progress:
        """Puts the checkpoint of `step` into `objective` and `optimizer`, and returns the progress.

        Raises:
            CheckpointError: there is none, it can't be read, or it is of another model.
        """
        return self._load(step, objective, optimizer, device)

    def load_weights(self, objective: nn.Module, device: torch.device) -> int | None:
        """Puts the newest checkpoint's weights into `objective`, and leaves all else alone.

        Returns:
            The checkpoint's step, or None if there is no checkpoint.

        Raises:
            CheckpointError: the newest one can't be read, or is of another model.
        """
        steps = self.steps()
        return self._load(steps[-1], objective, None, device).step if steps else None

    def _load(
        self,
        step: int,
        objective: nn.Module,
        optimizer: torch.optim.Optimizer | None,
        device: torch.device,
    ) -> Progress:
        path = self._path(step)
        try:
            content: dict[str, Any] = torch.load(path, map_location=device, weights_only=True)
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
        except CheckpointError:
            raise
        except FileNotFoundError as error:
            raise CheckpointError(f"there is no checkpoint {path}") from error
        except Exception as error:  # torch.load fails in many ways on a broken file
            raise CheckpointError(
                f"checkpoint {path} can't be used: {type(error).__name__}: "
                f"{str(error).splitlines()[0] if str(error) else 'no details'}. It is broken or of "
                "another model; remove it to go on from an earlier one"
            ) from error
        return progress

    def load_latest(
        self, objective: nn.Module, optimizer: torch.optim.Optimizer, device: torch.device
    ) -> Progress | None:
        """Loads the newest checkpoint that can be read; None if there is none at all.

        Raises:
            CheckpointError: there are checkpoints, but none can be read.
        """
        last_error: CheckpointError | None = None
        for step in reversed(self.steps()):
            try:
                return self.load(step, objective, optimizer, device)
            except CheckpointError as error:
                logger.warning("%s", error)
                last_error = error
        if last_error is not None:
            raise last_error
        return None

    def is_readable(self, step: int) -> bool:
        """Whether the checkpoint of `step` can be read whole; says in the log what is wrong if not."""
        try:
            torch.load(self._path(step), map_location="cpu", weights_only=True)
        except Exception as error:  # torch.load fails in many ways on a broken file
            logger.warning("%s is passed over: %s", self._path(step), type(error).__name__)
            return False
        return True

    def remove_after(self, step: int) -> None:
        """Removes checkpoints of later steps: the run goes on from `step` and will write them again."""
        for later in self.steps():
            if later > step:
                self._path(later).unlink()

    def _not_needed(self) -> list[int]:
        steps = self.steps()
        all_have = [step for step in steps if step <= steps[-1] - self._lag_steps]
        return [step for step in steps[: -self._keep] if all_have and step < all_have[-1]]

    def _path(self, step: int) -> Path:
        return self._folder / f"step-{step:09d}.pt"


def latest_common_step(stores: Iterable[CheckpointStore]) -> int | None:
    """Returns the latest step that every peer has a readable checkpoint of; None if there is none."""
    stores = list(stores)
    common = set.intersection(*(set(store.steps()) for store in stores))
    for step in sorted(common, reverse=True):
        if all(store.is_readable(step) for store in stores):
            return step
    return None
