"""Things that are built by name: any component, and the optimizer with its schedule."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from dogo_fed.config.checks import require, require_positive


@dataclass(frozen=True, slots=True, kw_only=True)
class ComponentConfig:
    """Something built by name, with its options.

    Attributes:
        name: a short name, or an import path "package.module:name".
        options: keyword arguments for what the name stands for.
    """

    name: str
    options: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))

    def __post_init__(self) -> None:
        require(bool(self.name.strip()), "the name of a component must not be empty")

    def __str__(self) -> str:
        """Returns the name with its options, e.g. "resnet18(width=16)"."""
        options = ", ".join(f"{key}={value}" for key, value in self.options.items())
        return f"{self.name}({options})" if options else self.name


class RateSchedule(enum.Enum):
    """How the learning rate goes on after its warm-up.

    CONSTANT: as published; the published code's schedule does nothing.
    COSINE: to zero at the run's end, along half a cosine (Loshchilov and Hutter 2017, without
        restarts).
    STEP: a tenth of it after 60 % of the run, and a tenth of that after 80 %.
    """

    CONSTANT = "constant"
    COSINE = "cosine"
    STEP = "step"


@dataclass(frozen=True, slots=True, kw_only=True)
class OptimizerConfig(ComponentConfig):
    """How a peer's weights are updated. Its scope is that of `PeerConfig.optimizer`.

    Attributes:
        schedule: of the learning rate.
        warmup_steps: the rate rises linearly to its full value over the run's first steps.
        clip_norm: a longer gradient is cut to this length; null cuts none.
        decay_all: whether weight decay is for all parameters, as published, or only for those of more
            than one dimension, without biases and normalisations.
    """

    schedule: RateSchedule = RateSchedule.CONSTANT
    warmup_steps: int = 0
    clip_norm: float | None = None
    decay_all: bool = True

    def __post_init__(self) -> None:
        ComponentConfig.__post_init__(self)
        require_positive("optimizer.", clip_norm=self.clip_norm)
        require(
            self.warmup_steps >= 0,
            f"optimizer.warmup_steps must be 0 or more, not {self.warmup_steps}",
        )
