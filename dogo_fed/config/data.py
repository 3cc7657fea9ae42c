"""Which images a run is about."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from dogo_fed.config.checks import require_positive
from dogo_fed.config.component import ComponentConfig
from dogo_fed.scope import DecidedBy, Decides, scope

MOVABLE = ("root", "path", "labels", "base_options.root")
"""Options that say where images are, and the table of their classes."""

OTHER_DATA = scope(
    DecidedBy.SITE,
    Decides.TRAINING,
    movable=tuple(f"options.{option}" for option in MOVABLE),
)
"""Scope of a setting that names a data set beside the run's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DataConfig(ComponentConfig):
    """The data set every peer sees.

    Attributes:
        default_rounds: length of a run that names neither `rounds` nor `steps`.
    """

    name: str = field(metadata=scope(DecidedBy.SITE, Decides.TRAINING, agreed=True))
    options: Mapping[str, Any] = field(
        default_factory=lambda: MappingProxyType({}),
        metadata=scope(DecidedBy.SITE, Decides.TRAINING, movable=MOVABLE),
    )
    default_rounds: int = field(
        default=10, metadata=scope(DecidedBy.SITE, Decides.LENGTH, agreed=True)
    )

    def __post_init__(self) -> None:
        ComponentConfig.__post_init__(self)
        require_positive("data.", default_rounds=self.default_rounds)
