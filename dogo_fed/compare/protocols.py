"""Evaluations after training, as a comparison sees them: run one on a cell's folder, read its scores back.

The only module of the comparison that knows how protocols are run and stored.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from dogo_fed.errors import ConfigError

KNOWN: tuple[str, ...] = ()


def check_protocols(protocols: Mapping[str, Mapping[str, Any]]) -> None:
    """Checks the names.

    Raises:
        ConfigError: there is no such protocol.
    """
    for name in protocols:
        if name not in KNOWN:
            raise ConfigError(
                f"there is no evaluation protocol {name!r}; known are {', '.join(KNOWN) or 'none'}"
            )


def has_protocol(folder: Path, name: str, peers: Iterable[str]) -> bool:
    """Whether the protocol has been run on this folder."""
    return (folder / "evaluation" / f"{name}.json").is_file()


def run_protocol(folder: Path, name: str, options: Mapping[str, Any]) -> None:
    """Evaluates the peers of a finished run; writes <folder>/evaluation/<name>.json."""
    check_protocols({name: options})


def read_protocol(folder: Path, name: str) -> dict[str, dict[str, float]]:
    """Returns peer to "protocol/condition" to score; repeated draws are averaged, see evidence.md."""
    return {}
