"""Evaluations after training, as a comparison reads them from a cell's folder."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from dogo_fed import layout
from dogo_fed.config import RunConfig
from dogo_fed.contracts import PeerId
from dogo_fed.errors import CheckpointError
from dogo_fed.evaluation.protocols import complete_options, protocol_title
from dogo_fed.evaluation.protocols.ood import with_targets
from dogo_fed.storage.peer_folder import PeerFolder

METRIC = "top1"
"""The one metric of a protocol that is compared: a share, of which more is better."""


def has_protocol(
    folder: Path, config: RunConfig, name: str, options: Mapping[str, Any], peers: Iterable[str]
) -> bool:
    """Whether the protocol has been run on the encoders in this folder, with these options.

    Scores of an earlier end of the run are not of these encoders, and neither are those of a version
    that did not write of which end they are.
    """
    sheet = _sheet(folder, name)
    if sheet is None:
        return False
    wanted = complete_options(name, with_targets(name, options, config.data))
    is_same = sheet["options"] == json.loads(json.dumps(wanted))
    states = sheet.get("states")
    if not (is_same and isinstance(states, dict) and isinstance(sheet["encoders"], dict)):
        return False
    return all(
        peer in sheet["encoders"]
        and peer in states
        and states[peer] == PeerFolder(folder, PeerId(peer)).encoder_state()
        for peer in peers
    )


def protocol_origin(folder: Path, name: str) -> dict[str, str]:
    """Returns what computed a protocol's scores, see `ScoreSheet.origin`; nothing if there are none."""
    origin = (_sheet(folder, name) or {}).get("origin")
    if not isinstance(origin, dict):
        return {}
    return {str(what): str(value) for what, value in origin.items()}


def read_protocol(folder: Path, name: str) -> dict[str, dict[str, float]]:
    """Returns peer to "protocol/condition" to score, the mean over draws: see docs/design/evidence.md.

    Raises:
        CheckpointError: the protocol's file is not what `evaluate_run` writes.
    """
    sheet = _sheet(folder, name)
    if sheet is None:
        return {}
    try:
        return {
            peer: {
                f"{protocol_title(name)}/{mean['condition']}": float(mean["mean"])
                for mean in found["means"]
                if mean["metric"] == METRIC and mean["mean"] is not None
            }
            for peer, found in sheet["encoders"].items()
        }
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise CheckpointError(
            f"{_path(folder, name)} has no scores as this version writes them; remove it, and it is "
            "made again"
        ) from error


def _path(folder: Path, name: str) -> Path:
    return folder / layout.EVALUATION / f"{protocol_title(name)}.json"


def _sheet(folder: Path, name: str) -> dict[str, Any] | None:
    try:
        content = json.loads(_path(folder, name).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    is_sheet = isinstance(content, dict) and {"options", "encoders"} <= content.keys()
    return content if is_sheet else None
