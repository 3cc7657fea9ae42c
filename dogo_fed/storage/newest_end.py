"""Whether an exported encoder is of its run's newest end.

A run that begins again, or goes on, keeps the encoders of its earlier end until it comes to another.
The digest of a peer's state, which its encoder and summary.json both have, tells them apart. A start
that was killed has written no summary; metrics.jsonl has its steps.
"""

from __future__ import annotations

import shlex
from pathlib import Path

from dogo_fed import layout
from dogo_fed.contracts import EventKind
from dogo_fed.errors import CheckpointError
from dogo_fed.reporting.summary import read_summary

_RESUMED, _STEP = f'"kind":"{EventKind.RESUMED}"'.encode(), b'"type":"step"'
"""What a line of metrics.jsonl has in it; within a text it would be escaped."""


def check_newest_end(folder: Path, peer: str, state_digest: object) -> None:
    """Checks that an encoder is what its peer had when its run came to its end for the last time.

    A folder without a summary tells nothing: a site has none.

    Args:
        folder: the run folder.
        peer: whose encoder.
        state_digest: of the peer's state, as the encoder has it.

    Raises:
        CheckpointError: the run has begun again, or gone on, since.
    """
    summary = read_summary(folder)
    if summary is None:
        return
    told = summary["peers"][peer].get("state_digest") if peer in summary["peers"] else None
    num_resumed = sum(event["kind"] == EventKind.RESUMED for event in summary["events"])
    if told != state_digest or _has_gone_on(folder / layout.METRICS, num_resumed):
        raise CheckpointError(
            f"the encoder of peer {peer!r} in {folder} is of an earlier end of the run, which has begun "
            f"again or gone on since. Let it come to its end by resume={shlex.quote(str(folder))}, or "
            "evaluate the encoder as a file (checkpoint=...)"
        )


def _has_gone_on(metrics: Path, num_resumed: int) -> bool:
    """Whether a step was done after the run had been resumed more often than this."""
    left = num_resumed
    try:
        with metrics.open("rb") as lines:
            for line in lines:
                if _RESUMED in line:
                    left -= 1
                elif left < 0 and _STEP in line:
                    return True
    except OSError:
        return False
    return False
