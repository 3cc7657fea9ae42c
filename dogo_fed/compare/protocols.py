"""Evaluations after training, as a comparison reads them from a cell's folder."""

from __future__ import annotations

import glob
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
from dogo_fed.provenance import DataFacts
from dogo_fed.storage.peer_folder import PeerFolder
from dogo_fed.storage.provenance_file import read_starts

METRIC = "top1"
"""The one metric of a protocol that is compared: a share, of which more is better."""


def has_protocol(
    folder: Path, config: RunConfig, name: str, options: Mapping[str, Any], peers: Iterable[str]
) -> bool:
    """Whether the protocol has been run on the encoders in this folder, with these options.

    Scores of an earlier end of the run are not of these encoders, and neither are those of a version
    that did not write of which end they are.
    """
    wanted = json.loads(
        json.dumps(complete_options(name, with_targets(name, options, config.data)))
    )
    sheets = _sheets(folder, name)
    return all(
        peer in sheets
        and sheets[peer]["options"] == wanted
        and peer in _plain(sheets[peer].get("states"))
        and sheets[peer]["states"][peer] == PeerFolder(folder, PeerId(peer)).encoder_state()
        and sheets[peer].get("seed", config.seed) == config.seed
        for peer in peers
    )


def protocol_origins(folder: Path, name: str) -> list[dict[str, str]]:
    """Returns what computed a protocol's scores, see `ScoreSheet.origin`; one for each sheet."""
    sheets = {id(sheet): sheet for sheet in _sheets(folder, name).values()}
    return [
        {str(what): str(value) for what, value in _plain(sheet.get("origin")).items()}
        for sheet in sheets.values()
    ]


def protocol_targets(folder: Path, name: str) -> list[tuple[dict[str, Any], dict[str, DataFacts]]]:
    """Returns the options of a protocol's sheets, each with what it says of its targets' images.

    Raises:
        CheckpointError: what it says is not what `evaluate_run` writes.
    """
    sheets = {id(sheet): sheet for sheet in _sheets(folder, name).values()}
    try:
        return [
            (
                dict(_plain(sheet["options"])),
                {
                    title: DataFacts.from_plain(facts)
                    for title, facts in _plain(sheet.get("targets")).items()  # not in earlier ones
                },
            )
            for sheet in sheets.values()
        ]
    except (KeyError, TypeError, ValueError) as error:
        raise _not_as_written(folder, name) from error


def read_protocol(folder: Path, name: str) -> dict[str, dict[str, float]]:
    """Returns peer to "protocol/condition" to score, the mean over draws: see docs/design/evidence.md.

    Raises:
        CheckpointError: the protocol's file is not what `evaluate_run` writes.
    """
    scores = {}
    for peer, sheet in _sheets(folder, name).items():
        try:
            scores[peer] = {
                f"{protocol_title(name)}/{mean['condition']}": float(mean["mean"])
                for mean in sheet["encoders"][peer]["means"]
                if mean["metric"] == METRIC and mean["mean"] is not None
            }
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise _not_as_written(folder, name) from error
    return scores


def _sheets(folder: Path, name: str) -> dict[str, dict[str, Any]]:
    """Returns for each encoder the newest sheet of a protocol that has it, on the run's own images.

    Encoders on the same images share a sheet. Where peers have images of their own, there are more,
    and their names stand in the files' names (`dogo_fed.run.evaluate`). The user may have evaluated
    on other images as well.
    """
    title, starts = protocol_title(name), read_starts(folder)
    shared = (
        starts[-1].provenance.data.fingerprint if starts else None
    )  # earlier versions wrote none
    of_encoder: dict[str, dict[str, Any]] = {}
    paths = (folder / layout.EVALUATION).glob(f"{glob.escape(title)}*.json")
    for path in sorted(paths, key=lambda one: one.stat().st_mtime_ns):
        try:
            sheet = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        if not (isinstance(sheet, dict) and {"options", "encoders"} <= sheet.keys()):
            continue
        if sheet.get("protocol", title) != title:  # "linear" is the beginning of other names too
            continue
        for encoder in _plain(sheet["encoders"]):
            private = PeerFolder(folder, PeerId(encoder)).private_images()
            own = shared if private is None else private.fingerprint
            if own is None or sheet.get("fingerprint", own) == own:
                of_encoder[encoder] = sheet
    return of_encoder


def _not_as_written(folder: Path, name: str) -> CheckpointError:
    return CheckpointError(
        f"the scores of {protocol_title(name)} in {folder / layout.EVALUATION} are not as this version "
        "writes them; remove the file, and it is made again"
    )


def _plain(value: object) -> Mapping[str, Any]:
    """Returns a mapping as it is, and an empty one for all else."""
    return value if isinstance(value, Mapping) else {}
