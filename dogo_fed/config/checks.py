"""Checks that several sections of the settings make."""

from __future__ import annotations

import math

from dogo_fed.errors import ConfigError


def require(condition: bool, message: str) -> None:
    """Raises ConfigError with this message if the condition does not hold."""
    if not condition:
        raise ConfigError(message)


def require_positive(owner: str, **values: float | None) -> None:
    """Raises ConfigError for the first value that is not above 0; None is no value.

    Args:
        owner: the path in front of the names, e.g. "eval.".
        **values: by the names of the settings.
    """
    for key, value in values.items():
        if value is not None and not (math.isfinite(value) and value > 0):
            raise ConfigError(f"{owner}{key} must be greater than 0, not {value}")
