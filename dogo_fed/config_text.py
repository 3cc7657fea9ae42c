"""From a `RunConfig` to plain nested dicts and YAML; `configs.compose` reads them back and checks them."""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Mapping
from typing import Any

import yaml

from dogo_fed.config import RunConfig


def to_mapping(config: RunConfig) -> dict[str, Any]:
    """Returns the configuration as plain nested dicts; `configs.compose.from_mapping` takes them back."""
    plain = _plain(config)
    assert isinstance(plain, dict), "a RunConfig is a mapping"
    return plain


def to_yaml(config: RunConfig) -> str:
    """Returns the text of a config.yaml."""
    text: str = yaml.safe_dump(to_mapping(config), sort_keys=False)
    return text


def _plain(value: object) -> object:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {item.name: _plain(getattr(value, item.name)) for item in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value.value if isinstance(value, enum.Enum) else value
