"""How far a cell is, and whether what lies in its folder is this cell: read from the run folder alone."""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping
from typing import Any

from dogo_fed import layout
from dogo_fed.compare.experiment import Cell
from dogo_fed.compare.protocols import has_protocol
from dogo_fed.compare.settings import differing, flat, is_of_teaching
from dogo_fed.config_text import load_yaml
from dogo_fed.errors import ConfigError
from dogo_fed.reporting.summary import RunSummary, read_summary, was_stopped
from dogo_fed.storage.run_lock import is_unused

_MOST_NAMED = 3


class Standing(enum.Enum):
    """How far a cell is.

    NEW: no run has begun in its folder, or there is none.
    INTERRUPTED: it has begun, and goes on from its checkpoints.
    TRAINED: the run is finished; an evaluation is missing.
    FINISHED: nothing is left to do.
    """

    NEW = "new"
    INTERRUPTED = "interrupted"
    TRAINED = "trained"
    FINISHED = "finished"


def standing_of(cell: Cell, protocols: Mapping[str, Mapping[str, Any]]) -> Standing:
    """Returns how far the cell is.

    Raises:
        ConfigError: its folder holds something else: another run, or the same with other settings.
    """
    folder = cell.folder
    if not folder.exists() or (folder.is_dir() and is_unused(folder)):
        return Standing.NEW
    _check_settings(cell)
    summary = finished_summary(cell)
    if summary is None:
        return Standing.INTERRUPTED
    return Standing.TRAINED if missing_protocols(cell, protocols) else Standing.FINISHED


def missing_protocols(
    cell: Cell, protocols: Mapping[str, Mapping[str, Any]]
) -> dict[str, dict[str, Any]]:
    """Returns the evaluations, with their options, that a trained cell has not had with these options."""
    return {
        name: dict(options)
        for name, options in protocols.items()
        if not has_protocol(cell.folder, cell.config, name, options, cell.learners)
    }


def finished_cells(cells: Iterable[Cell]) -> list[tuple[Cell, RunSummary]]:
    """Returns the cells whose runs came to their end, with their summaries."""
    return [(cell, summary) for cell in cells if (summary := finished_summary(cell)) is not None]


def finished_summary(cell: Cell) -> RunSummary | None:
    """Returns the summary of a cell whose run came to its end; None of any other."""
    summary = read_summary(cell.folder)
    is_whole = summary is not None and set(summary["peers"]) == set(cell.config.peers)
    return summary if summary is not None and is_whole and not was_stopped(summary) else None


def _check_settings(cell: Cell) -> None:
    path = cell.folder / layout.CONFIG
    try:
        saved = load_yaml(path)
    except ConfigError as error:
        raise ConfigError(
            f"the cell {cell.id} has a folder without a readable config.yaml ({error}); choose another "
            f"out=, or move {cell.folder} away"
        ) from error
    theirs, mine = flat(saved), flat(cell.config)
    keys = differing(mine, theirs)
    if not cell.config.exchange.enabled:
        keys = [key for key in keys if not is_of_teaching(key, cell.config)]
    if keys:
        phrases = [
            f"{key} is {_shown(theirs, key)} there and {_shown(mine, key)} now" for key in keys
        ]
        more = [f"and {len(keys) - _MOST_NAMED} more differ"] if len(keys) > _MOST_NAMED else []
        raise ConfigError(
            f"the cell {cell.id} was run with other settings: "
            f"{'; '.join([*phrases[:_MOST_NAMED], *more])}. Choose another out= for the changed "
            "experiment, or give the settings that were used"
        )


def _shown(settings: Mapping[str, object], key: str) -> str:
    return str(settings[key]) if key in settings else "not set"
