"""Which settings decide a cell's numbers, and which of them are about teaching only."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

_NOT_OF_NUMBERS = ("host", "run_dir", "resume", "checkpoint", "recovery", "coordinator", "ray")
"""Settings that say where and how safely a run happens."""

_OF_TEACHING = re.compile(
    r"exchange\.(?!enabled$).+"
    r"|peers\.[^.]+\.(distill_weight|distill_reduction|distill_warmup_steps|kl_temperature"
    r"|objective\.options\.publish)"
)
"""Settings, as paths, without effect on a peer that learns alone."""

TEACHING_SETTINGS = (
    "exchange.*, and of a peer distill_weight, distill_reduction, distill_warmup_steps, kl_temperature "
    "and objective.options.publish"
)
"""What `is_of_teaching` accepts, in words."""


def is_of_teaching(path: str) -> bool:
    """Whether the setting at this path has no effect on a peer that learns alone."""
    return _OF_TEACHING.fullmatch(path) is not None


def flat(settings: Mapping[str, Any], path: str = "") -> dict[str, object]:
    """Returns the settings that decide a cell's numbers, one level deep, by their path.

    The path of frozen teachers is cut to their place within the comparison, so that its folder can be
    moved.
    """
    found: dict[str, object] = {}
    for key, value in settings.items():
        if not path and key in _NOT_OF_NUMBERS:
            continue
        if isinstance(value, Mapping) and value:
            found |= flat(value, f"{path}{key}.")
        elif key == "frozen_from" and isinstance(value, str):
            found[path + key] = "/".join(Path(value).parts[-4:])
        else:
            found[path + key] = value
    return found


def differing(one: Mapping[str, object], other: Mapping[str, object]) -> list[str]:
    """Returns the paths of the settings that two flat sets do not share, in order; null counts as not set."""
    return [key for key in sorted(one.keys() | other.keys()) if one.get(key) != other.get(key)]
