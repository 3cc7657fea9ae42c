"""Turns a `RunConfig` into plain nested dicts or YAML, and back. Does not import Hydra."""

from __future__ import annotations

import functools
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from dogo_fed import layout
from dogo_fed.config import PeerConfig, RunConfig
from dogo_fed.errors import ConfigError
from dogo_fed.plain import from_plain, to_plain
from dogo_fed.trust import check_trust, code_in, places_in

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
    """Returns the configuration in a run's config.yaml, to look at: it may be somebody else's.

    Raises:
        ConfigError: the file is missing, is no YAML, or has settings this version does not know.
    """
    return _parse(path, _read(path))


def load_run_config(
    folder: str | Path,
    *,
    trust: bool = False,
    to_go_on: bool = False,
) -> RunConfig:
    """Returns the configuration of the run in a folder, which may be followed.

    Args:
        folder: the run folder.
        trust: whether code that the settings name may run here, although no run of this user has
            had these settings. It is remembered.
        to_go_on: whether the run is to go on, so that the Ray cluster and the coordinator's address
            that it names count as well.

    Raises:
        ConfigError: there is no run in this folder, its config.yaml can't be used (`load_yaml`), it
            names code that this user has not said to trust (`dogo_fed.trust`), or it is to go on and
            is the folder of a site.
    """
    folder = Path(folder)
    path = folder / layout.CONFIG
    if not path.is_file() and (folder / layout.SITE_CONFIG).is_file():
        path = folder / layout.SITE_CONFIG
        if to_go_on:
            raise ConfigError(
                f"{folder} is a site's part of a run, which goes on from the coordinator's folder; the "
                "site keeps its peer ready by `dogo-fed peer`, as before"
            )
    if not path.is_file():
        there = f"it has no {layout.CONFIG}" if folder.is_dir() else "there is no such folder"
        raise ConfigError(f"{folder} is no run folder: {there}")
    text = _read(path)
    config = _parse(path, text)
    reaches = list(code_in(config)) + (list(places_in(config)) if to_go_on else [])
    check_trust(path, text, reaches, says_so=trust)
    return config


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"the configuration {path} can't be read: {error}") from error


def _parse(path: Path, text: str) -> RunConfig:
    try:
        content = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"the configuration {path} can't be read: {error}") from error
    if not isinstance(content, dict):
        raise ConfigError(f"the configuration {path} is not a mapping of settings")
    return from_mapping(content)
