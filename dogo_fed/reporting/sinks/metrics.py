"""metrics.jsonl: every record of a run, one JSON object a line, appended as it happens."""

from __future__ import annotations

import json
import logging
import os
import threading
import time
from collections.abc import Iterable, Mapping
from io import FileIO
from pathlib import Path

from dogo_fed.atomic import append_whole, is_no_room, keep_room, no_room, write_atomic
from dogo_fed.contracts import Record
from dogo_fed.errors import CheckpointError
from dogo_fed.reporting.sink import Sink
from dogo_fed.reporting.sinks.records import record_from_json, record_to_json

logger = logging.getLogger(__name__)

_TRY_AGAIN_S = 1.0


class MetricsLog(Sink):
    """A sink that appends every record to a file; safe to use from several threads.

    A run that was killed may leave half a line at the end; opening the log removes it. Room is kept for
    what is still to come, where the system can do that. On a disk that is full beyond it, records are
    kept in memory, and written when there is room again.
    """

    def __init__(self, path: str | os.PathLike[str], reserve_bytes: int = 0) -> None:
        """Opens the log, or makes it.

        Args:
            path: the file.
            reserve_bytes: how much room is kept for what is still to come; 0 keeps none.
        """
        self._path = Path(path)
        self._reserve_bytes = reserve_bytes
        self._lock = threading.Lock()  # records come from the peers' and the coordinator's threads
        self._pending: list[bytes] = []
        self._tries_again_at_s: float | None = None
        if self._path.exists() and not _ends_cleanly(self._path):
            _rewrite(self._path, read_metrics(self._path))
        self._file = self._open()

    def emit(self, record: Record) -> None:
        """Appends one record; when this returns, it survives a kill, though not a power cut."""
        line = _line(record_to_json(record)).encode()
        with self._lock:
            self._pending.append(line)
            again_at_s = self._tries_again_at_s
            if again_at_s is None or time.monotonic() >= again_at_s:
                self._write_pending()

    def alive(self) -> None:
        """Renews the file's time: whoever watches this run from outside looks at it."""
        with self._lock:
            if not self._file.closed:
                os.utime(self._file.fileno())

    def truncate_after(self, steps: Mapping[str, int]) -> None:
        """Forgets what the peers of a run that goes on will do again; atomically.

        Dropped: a peer's step records from its step on, its round records that were made after more
        steps, and all final results. Events stay: what happened to the run did happen.

        Args:
            steps: for each peer the number of steps done in the state that it goes on from.
        """
        with self._lock:
            self._file.close()
            kept = [
                entry
                for entry in read_metrics(self._path)
                if _is_before(entry, steps.get(str(entry.get("peer")), 0))
            ]
            _rewrite(self._path, kept)
            self._file = self._open()

    def close(self) -> None:
        """Closes the file; a second call does nothing."""
        with self._lock:
            if self._pending and not self._file.closed:
                self._write_pending()
                if self._pending:
                    logger.error(
                        "%d records are not in %s, since there was no room for them",
                        len(self._pending),
                        self._path,
                    )
            if not self._file.closed:
                os.ftruncate(self._file.fileno(), os.fstat(self._file.fileno()).st_size)
            self._file.close()

    def _write_pending(self) -> None:
        """Writes what is pending, in full or not at all.

        Raises:
            OSError: it can't be written, and that is not for want of room.
        """
        try:
            append_whole(self._file, b"".join(self._pending))
        except OSError as error:
            if not is_no_room(error):
                raise
            if self._tries_again_at_s is None:
                logger.warning(
                    "%s. Records are kept, and written when there is room again",
                    no_room(self._path.name, self._path.parent, error),
                )
            self._tries_again_at_s = time.monotonic() + _TRY_AGAIN_S
            return
        self._pending.clear()
        self._tries_again_at_s = None

    def _open(self) -> FileIO:
        file = self._path.open("ab", buffering=0)
        if self._reserve_bytes > 0:
            keep_room(self._path, self._reserve_bytes)
        return file


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
