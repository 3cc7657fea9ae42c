"""Everything a run can be told, as frozen dataclasses that check themselves.

YAML and command line compose these (see `configs`). A library user builds them directly. Each
dataclass checks its values when it is made, and raises a `ConfigError` that names the setting. Each
setting declares its scope as the metadata of its field: who decides it and what it decides (see
`dogo_fed.scope`).
"""

from __future__ import annotations

from dogo_fed.config.component import ComponentConfig, OptimizerConfig, RateSchedule
from dogo_fed.config.data import DataConfig
from dogo_fed.config.evaluation import EvalConfig
from dogo_fed.config.exchange import Encoding, ExchangeConfig, Rows, Transport
from dogo_fed.config.host import (
    CheckpointConfig,
    CoordinatorConfig,
    Host,
    Placement,
    RayConfig,
    RecoveryConfig,
)
from dogo_fed.config.partition import PartitionConfig, PartitionKind
from dogo_fed.config.peer import PUBLISHED_DISTILL_WEIGHT, Gate, LossOn, PeerConfig, Teacher
from dogo_fed.config.run import (
    USUAL_ANCHOR_SHARE,
    AnchorsAt,
    MemoryFormat,
    Precision,
    RunConfig,
)

__all__ = [
    "PUBLISHED_DISTILL_WEIGHT",
    "USUAL_ANCHOR_SHARE",
    "AnchorsAt",
    "CheckpointConfig",
    "ComponentConfig",
    "CoordinatorConfig",
    "DataConfig",
    "Encoding",
    "EvalConfig",
    "ExchangeConfig",
    "Gate",
    "Host",
    "LossOn",
    "MemoryFormat",
    "OptimizerConfig",
    "PartitionConfig",
    "PartitionKind",
    "PeerConfig",
    "Placement",
    "Precision",
    "RateSchedule",
    "RayConfig",
    "RecoveryConfig",
    "Rows",
    "RunConfig",
    "Teacher",
    "Transport",
]
