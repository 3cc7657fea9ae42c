"""trace.json: the sampled steps of a peer, or of all peers of a run, on a time line.

The format is the Trace Event Format, which https://ui.perfetto.dev and chrome://tracing open.
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from dogo_fed import layout
from dogo_fed.atomic import write_json_atomic
from dogo_fed.ledger import Ledger, Part

logger = logging.getLogger(__name__)

_EVENTS, _MEAN_MS = "traceEvents", "mean_ms"


def write_trace(path: Path, peer: str, ledger: Ledger) -> None:
    """Writes the steps of one peer, in full or not at all; without any, removes those of before."""
    if ledger.num_steps == 0:
        path.unlink(missing_ok=True)
        return
    events: list[dict[str, Any]] = [
        {
            "name": span.part.value,
            "ph": "X",
            "ts": 1e6 * span.started_s,
            "dur": 1e6 * span.seconds,
            "pid": 0,
            "tid": int(span.is_beside),
            "args": {"step": span.step},
        }
        for span in ledger.spans
    ]
    if any(span.is_beside for span in ledger.spans):
        events.append(
            {"name": "thread_name", "ph": "M", "pid": 0, "tid": 1, "args": {"name": "exchange"}}
        )
    write_json_atomic(path, {_EVENTS: [_named(0, peer), *events], _MEAN_MS: ledger.mean_ms()})


def merge_traces(run_dir: Path, peers: Iterable[str]) -> dict[str, dict[str, float]]:
    """Writes the traces of all peers that have left one here into the run's, one below the other.

    Returns:
        The mean milliseconds of each part of a step, by peer and part. A trace that is missing is
        none, for instance of a peer at another site, or of one that did too few steps.
    """
    events: list[dict[str, Any]] = []
    found = {}
    for row, peer in enumerate(sorted(peers)):
        content = _read(layout.peer_folder(run_dir, peer) / layout.TRACE)
        if content is None:
            continue
        found[peer] = _means(content)
        events += [{**event, "pid": row} for event in content[_EVENTS]]
    if events:
        write_json_atomic(run_dir / layout.TRACE, {_EVENTS: events})
    return found


def drop_traces(run_dir: Path, peers: Iterable[str]) -> None:
    """Removes the traces of a run and of its peers here: they are of an earlier start."""
    for folder in (run_dir, *(layout.peer_folder(run_dir, peer) for peer in peers)):
        (folder / layout.TRACE).unlink(missing_ok=True)


def _named(row: int, peer: str) -> dict[str, Any]:
    return {"name": "process_name", "ph": "M", "pid": row, "args": {"name": peer}}


def _read(path: Path) -> dict[str, Any] | None:
    """Returns a peer's trace; None if there is none, or it is no trace."""
    try:
        content = json.loads(path.read_text("utf-8"))
        if all(isinstance(event, dict) for event in content[_EVENTS]) and content[_MEAN_MS]:
            return dict(content)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, KeyError) as error:
        logger.warning("%s is left out of the run's trace: %r", path, error)
    return None


def _means(content: Mapping[str, Any]) -> dict[str, float]:
    """Returns the known parts that are numbers."""
    given = content[_MEAN_MS]
    return {
        part.value: float(given[part.value])
        for part in Part
        if isinstance(given.get(part.value), int | float) and math.isfinite(given[part.value])
    }
