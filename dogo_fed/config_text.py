"""Turns a `RunConfig` into plain nested dicts or YAML, and back. Does not import Hydra."""

from __future__ import annotations

import functools
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from dogo_fed.config import PeerConfig, RunConfig
from dogo_fed.errors import ConfigError
from dogo_fed.plain import from_plain, to_plain

logger = logging.getLogger(__name__)


_FORMER_HOSTS = {"grpc": "processes"}
"""Former names of hosts, to their names now; command lines and old config.yaml files have them."""


@functools.cache  # so that a process says it once
def _hint_at_former_host(name: str) -> None:
    former = next(old for old, new in _FORMER_HOSTS.items() if new == name)
    logger.warning("host=%s is called host=%s now, and means the same", former, name)


def to_mapping(config: RunConfig) -> dict[str, Any]:
    """Returns the configuration as plain nested dicts."""
    plain = to_plain(config)
    assert isinstance(plain, dict), "a RunConfig is a mapping"
    return plain


def to_yaml(config: RunConfig) -> str:
    """Returns the text of a config.yaml."""
    text: str = yaml.safe_dump(to_mapping(config), sort_keys=False)
    return text


def from_mapping(content: Mapping[str, Any]) -> RunConfig:
    """Returns the checked configuration for plain nested dicts, such as a run's config.yaml.

    Raises:
        ConfigError: an unknown key, a wrong type or an impossible value; the message names the key.
    """
    content = dict(content)
    host = content.get("host")
    if isinstance(host, str) and host in _FORMER_HOSTS:
        content["host"] = _FORMER_HOSTS[host]
        _hint_at_former_host(content["host"])
    peers = content.pop("peers", None)
    if not isinstance(peers, Mapping):
        raise ConfigError(f"peers must be a mapping of names to settings, not {peers!r}")
    content["peers"] = {
        str(name): from_plain(PeerConfig, peer, path=f"peers.{name}.")
        for name, peer in peers.items()
    }
    return from_plain(RunConfig, content)


def load_yaml(path: Path) -> RunConfig:
    """Returns the configuration in a run's config.yaml.

    Raises:
        ConfigError: the file is missing, is no YAML, or has settings this version does not know.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"the configuration {path} can't be read: {error}") from error
    if not isinstance(content, dict):
        raise ConfigError(f"the configuration {path} is not a mapping of settings")
    return from_mapping(content)


def load_run_config(folder: str | Path) -> RunConfig:
    """Returns the configuration of the run in a folder.

    Raises:
        ConfigError: there is no run in this folder, or its config.yaml can't be used (`load_yaml`).
    """
    folder = Path(folder)
    if not (folder / "config.yaml").is_file():
        there = "it has no config.yaml" if folder.is_dir() else "there is no such folder"
        raise ConfigError(f"{folder} is no run folder: {there}")
    return load_yaml(folder / "config.yaml")
