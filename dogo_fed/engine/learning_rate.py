"""The learning rate at a step, as a share of its full value: a pure function, so a run can go on anywhere."""

from __future__ import annotations

import math
from dataclasses import dataclass

from dogo_fed.config import OptimizerConfig, RateSchedule

DROPS_AT = (0.6, 0.8)
"""Shares of the run after which the schedule `step` divides the rate by 10."""


@dataclass(frozen=True, slots=True)
class LearningRate:
    """The schedule of one run.

    Attributes:
        settings: which schedule.
        total_steps: of the run; a run that is made longer has another cosine from there on.
    """

    settings: OptimizerConfig
    total_steps: int

    @property
    def is_constant(self) -> bool:
        """Whether the rate never changes."""
        settings = self.settings
        return settings.schedule is RateSchedule.CONSTANT and settings.warmup_steps == 0

    def share_at(self, step: int) -> float:
        """Returns the share of the full rate at a step, counted from 0; above 0 at every step."""
        warmup = self.settings.warmup_steps
        if step < warmup:
            return (step + 1) / warmup
        done = (step - warmup) / max(1, self.total_steps - warmup)
        if self.settings.schedule is RateSchedule.COSINE:
            return 0.5 * (1.0 + math.cos(math.pi * min(1.0, done)))
        if self.settings.schedule is RateSchedule.STEP:
            return 0.1 ** sum(step >= share * self.total_steps for share in DROPS_AT)
        return 1.0
