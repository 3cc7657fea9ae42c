"""metrics.jsonl: every record of a run, one JSON object a line, appended as it happens."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TextIO

from dogo_fed.atomic import write_atomic
from dogo_fed.contracts import Record
from dogo_fed.errors import CheckpointError
from dogo_fed.reporting.sink import Sink
from dogo_fed.reporting.sinks.records import record_from_json, record_to_json


class MetricsLog(Sink):
    """A sink that appends every record to a file; line-buffered, safe to use from several threads.

    A run that was killed may leave half a line at the end; opening the log removes it.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._path = Path(path)
        self._lock = threading.Lock()
        if self._path.exists() and not _ends_cleanly(self._path):
            _rewrite(self._path, read_metrics(self._path))
        self._file = self._open()

    def emit(self, record: Record) -> None:
        """Appends one record; when this returns, it survives a kill, though not a power cut."""
        line = _line(record_to_json(record))
        with self._lock:
            self._file.write(line)

    def truncate_after(self, step: int) -> None:
        """Forgets what a run that resumes at `step` will do again; atomically.

        Dropped: step records from `step` on, round records that were made after more than `step`
        steps, and all final results. Events stay: what happened to the run did happen.

        Args:
            step: number of steps done in the state that is resumed.
        """
        with self._lock:
            self._file.close()
            kept = [entry for entry in read_metrics(self._path) if _is_before(entry, step)]
            _rewrite(self._path, kept)
            self._file = self._open()

    def close(self) -> None:
        """Closes the file; a second call does nothing."""
        with self._lock:
            self._file.close()

    def _open(self) -> TextIO:
        return self._path.open("a", buffering=1, encoding="ascii")


def read_metrics(path: str | os.PathLike[str]) -> list[dict[str, object]]:
    """Returns the JSON objects of a metrics.jsonl in order; half a line at the end is left out.

    Raises:
        CheckpointError: the file can't be read, or a line before the last is not a JSON object.
    """
    try:
        lines = Path(path).read_bytes().split(b"\n")
    except OSError as error:
        raise CheckpointError(f"{path} can't be read: {error}") from error
    filled = [(number, line) for number, line in enumerate(lines, start=1) if line.strip()]
    entries = []
    for position, (number, line) in enumerate(filled, start=1):
        entry = _parse(line)
        if entry is not None:
            entries.append(entry)
        elif position < len(filled):
            raise CheckpointError(
                f"{path}, line {number}: not a JSON object; only the last line of a run that was "
                "killed may be broken, so something else wrote to this file"
            )
    return entries


def read_records(path: str | os.PathLike[str]) -> list[Record]:
    """Returns the records of a metrics.jsonl in order, see `read_metrics`."""
    return [record_from_json(entry) for entry in read_metrics(path)]


def _parse(line: bytes) -> dict[str, object] | None:
    """Returns the JSON object of a line; None if it isn't one."""
    try:
        entry = json.loads(line)
    except ValueError:
        return None
    return entry if isinstance(entry, dict) else None


def _is_before(entry: Mapping[str, object], step: int) -> bool:
    """Returns whether a run that resumes after `step` steps keeps this entry."""
    match entry:
        case {"type": "step", "step": int(at)}:
            return at < step
        case {"type": "round", "step": int(done)}:
            return done <= step
        case {"type": "result"}:
            return False
        case _:
            return True


def _line(entry: Mapping[str, object]) -> str:
    return json.dumps(entry, allow_nan=False, separators=(",", ":")) + "\n"


def _rewrite(path: Path, entries: Iterable[Mapping[str, object]]) -> None:
    write_atomic(path, "".join(_line(entry) for entry in entries))


def _ends_cleanly(path: Path) -> bool:
    """Returns whether the file is empty or its last line is whole."""
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        if size == 0:
            return True
        file.seek(max(0, size - 65536))
        tail = file.read()
    return tail.endswith(b"\n") and _parse(tail.rstrip(b"\n").rsplit(b"\n", 1)[-1]) is not None
