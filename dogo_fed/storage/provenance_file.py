"""provenance.json in a run folder: where the numbers of each start of the run come from.

It is a list, for a run may go on with other code or on another machine. An entry has the first step
that it is about. A start that changes nothing adds no entry.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dogo_fed import layout
from dogo_fed.atomic import write_json_atomic
from dogo_fed.errors import CheckpointError
from dogo_fed.provenance import Provenance


@dataclass(frozen=True, slots=True)
class Start:
    """From which step on a run's numbers have this provenance."""

    step: int
    provenance: Provenance

    def to_plain(self) -> dict[str, Any]:
        """Returns this as plain values, for JSON."""
        return {"step": self.step, **self.provenance.to_plain()}

    @classmethod
    def from_plain(cls, plain: Any) -> Start:
        """Returns what `to_plain` has written.

        Raises:
            CheckpointError: these are not values of `to_plain`.
        """
        try:
            return cls(int(plain["step"]), Provenance.from_plain(plain))
        except (KeyError, TypeError, ValueError) as error:
            raise CheckpointError(f"this is no start of a run: {error!r}") from error


def read_starts(folder: Path) -> tuple[Start, ...]:
    """Returns the starts of a run, earliest first; none if its version did not write them.

    Raises:
        CheckpointError: the file is broken.
    """
    path = folder / layout.PROVENANCE
    try:
        return tuple(Start.from_plain(start) for start in json.loads(path.read_text("utf-8")))
    except FileNotFoundError:
        return ()
    except (OSError, ValueError, TypeError, CheckpointError) as error:
        raise CheckpointError(
            f"{path} can't be read ({error}). It says which images the run was made with; put it "
            "back, or remove it to go on without that check"
        ) from error


def with_start(earlier: Sequence[Start], step: int, now: Provenance) -> tuple[Start, ...]:
    """Returns the starts of a run that goes on, or begins, at `step` with this provenance.

    Those from this step on are left out, since their steps are done again.
    """
    kept = [start for start in earlier if start.step < step]
    if not kept or kept[-1].provenance != now:
        kept.append(Start(step, now))
    return tuple(kept)


def write_starts(folder: Path, starts: Sequence[Start]) -> None:
    """Writes the starts of a run into its folder, all or nothing."""
    write_json_atomic(folder / layout.PROVENANCE, [start.to_plain() for start in starts])
