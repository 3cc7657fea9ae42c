"""TensorBoard: a run per peer, so that one chart shows the same quantity of every peer."""

from __future__ import annotations

import io
import itertools
import logging
import math
import os
import socket
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from dogo_fed.atomic import append_whole, is_no_room, no_room
from dogo_fed.contracts import Event, PeerResult, Record, RoundReport, StepReport
from dogo_fed.reporting.sink import Sink

logger = logging.getLogger(__name__)

_FILE_VERSION = "brain.Event:2"
_NUMBERS = itertools.count()

_WHOLE_RUN = "run"
"""Folder of the events that are about no peer."""


class TensorBoardSink(Sink):
    """A sink that writes scalars, in one folder a peer, and events as text."""

    def __init__(
        self, folder: str | os.PathLike[str], resumed_at: Mapping[str, int] | None = None
    ) -> None:
        """Writes below `folder`.

        Args:
            folder: made if it does not exist.
            resumed_at: for each peer the number of steps done in the state that it goes on from;
                what an earlier process wrote for later steps is hidden. None for a new run.
        """
        self._folder = Path(folder)
        self._resumed_at = resumed_at or {}
        self._is_incomplete = False
        self._files: dict[str, _EventFile] = {}
        self._lock = threading.Lock()  # records come from the peers' and the coordinator's threads

    def emit(self, record: Record) -> None:
        """Writes one record; numbers that are not finite are left out.

        On a full disk the record is left out, which is said once: metrics.jsonl keeps all of them.
        """
        with self._lock:
            try:
                self._write(record)
            except OSError as error:
                if not is_no_room(error):
                    raise
                if not self._is_incomplete:
                    logger.warning("%s", no_room("TensorBoard's files", self._folder, error))
                self._is_incomplete = True

    def _write(self, record: Record) -> None:
        from torch.utils.tensorboard import summary  # takes seconds and is needed here only

        if isinstance(record, Event):
            text = summary.text(record.kind, record.message)  # type: ignore[no-untyped-call]
            self._file(record.peer or _WHOLE_RUN).write(max(record.step, 0), [text])
            return
        step, scalars = _scalars(record)
        finite = [
            summary.scalar(tag, value)  # type: ignore[no-untyped-call]
            for tag, value in scalars.items()
            if math.isfinite(value)
        ]
        self._file(record.peer).write(step, finite)

    def close(self) -> None:
        """Closes the files; a second call does nothing."""
        with self._lock:
            for file in self._files.values():
                file.close()
            self._files.clear()

    def _file(self, name: str) -> _EventFile:
        if name not in self._files:
            folder = self._folder / quote(name, safe=" ")
            self._files[name] = _EventFile(folder, self._resumed_at.get(name))
        return self._files[name]


class _EventFile:
    """A file of events as TensorBoard reads it, whole after each write.

    TensorBoard's own writer has a thread with a buffer. On a full disk the thread ends with a
    traceback, and what is written after that goes nowhere.
    """

    def __init__(self, folder: Path, purge_step: int | None) -> None:
        """Makes a file.

        Args:
            folder: made if it does not exist.
            purge_step: what other files of the folder have from this step on is hidden.

        Raises:
            OSError: it can't be made; then there is no file.
        """
        from tensorboard.compat.proto.event_pb2 import Event as FileEvent
        from tensorboard.compat.proto.event_pb2 import SessionLog

        folder.mkdir(parents=True, exist_ok=True)
        began_s = time.time()
        name = f"events.out.tfevents.{began_s:010.0f}.{socket.gethostname()}.{os.getpid()}.{next(_NUMBERS)}"
        self._event = FileEvent
        path = folder / name
        self._file = path.open("ab", buffering=0)
        first = [FileEvent(wall_time=began_s, file_version=_FILE_VERSION)]
        if purge_step is not None:
            log = SessionLog(status=SessionLog.START)
            first.append(FileEvent(wall_time=began_s, step=purge_step, session_log=log))
        try:
            self._append(first)
        except OSError:
            self._file.close()
            path.unlink(missing_ok=True)
            raise

    def write(self, step: int, summaries: Sequence[Any]) -> None:
        """Writes summaries of a step, all or none.

        Raises:
            OSError: they can't be written.
        """
        now_s = time.time()
        self._append([self._event(wall_time=now_s, step=step, summary=one) for one in summaries])

    def close(self) -> None:
        """Closes the file."""
        self._file.close()

    def _append(self, events: Sequence[Any]) -> None:
        from tensorboard.summary.writer.record_writer import RecordWriter

        content = io.BytesIO()
        records = RecordWriter(content)
        for event in events:
            records.write(event.SerializeToString())
        append_whole(self._file, content.getvalue())


def _scalars(record: StepReport | RoundReport | PeerResult) -> tuple[int, dict[str, float]]:
    """Returns the step and the value for every tag."""
    if isinstance(record, StepReport):
        scalars: dict[str, float] = {
            "loss/ssl": record.ssl_loss,
            "time/compute_s": record.compute_s,
            "time/wait_s": record.wait_s,
            "time/exchange_s": record.exchange_s,
            "exchange/teachers": record.num_teachers,
            "exchange/bytes_up": record.bytes_up,
            "exchange/bytes_down": record.bytes_down,
        }
        if record.num_teachers > 0:
            scalars["loss/mutual_kl"] = record.mutual_kl
        return record.step, scalars
    if isinstance(record, RoundReport):
        return record.step, {
            "eval/knn_top1": record.knn_top1,
            "health/feature_std": record.feature_std,
            "health/rankme": record.rankme,
            "health/alignment": record.alignment,
            "health/uniformity": record.uniformity,
            "time/evaluation_s": record.seconds,
        }
    return record.steps_trained, {
        "final/knn_top1": record.knn_top1,
        "final/knn_top1_untrained": record.knn_top1_untrained,
        "final/linear_top1": record.linear_top1,
    }
