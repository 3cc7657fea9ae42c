"""TensorBoard: a run per peer, so that one chart shows the same quantity of every peer."""

from __future__ import annotations

import logging
import math
import os
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from dogo_fed.atomic import is_no_room, no_room
from dogo_fed.contracts import Event, PeerResult, Record, RoundReport, StepReport
from dogo_fed.reporting.sink import Sink

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

logger = logging.getLogger(__name__)

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
        self._writers: dict[str, SummaryWriter] = {}
        self._lock = threading.Lock()

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
                self._writers.clear()  # one whose thread has failed raises that error for ever
                if not self._is_incomplete:
                    logger.warning("%s", no_room("TensorBoard's files", self._folder, error))
                self._is_incomplete = True

    def _write(self, record: Record) -> None:
        if isinstance(record, Event):
            writer = self._writer(record.peer or _WHOLE_RUN)
            writer.add_text(record.kind, record.message, max(record.step, 0))
            return
        writer = self._writer(record.peer)
        step, scalars = _scalars(record)
        for tag, value in scalars.items():
            if math.isfinite(value):
                writer.add_scalar(tag, value, step)

    def close(self) -> None:
        """Writes what is pending; a second call does nothing."""
        with self._lock:
            for writer in self._writers.values():
                try:
                    writer.close()
                except OSError as error:
                    if not is_no_room(error):
                        raise
                    logger.warning("%s", no_room("TensorBoard's files", self._folder, error))
            self._writers.clear()

    def _writer(self, name: str) -> SummaryWriter:
        """Returns the writer of a peer; the import takes seconds and is needed here only."""
        if name not in self._writers:
            from torch.utils.tensorboard import SummaryWriter

            folder = self._folder / quote(name, safe=" ")
            self._writers[name] = SummaryWriter(str(folder), purge_step=self._resumed_at.get(name))
        return self._writers[name]


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
        return record.step, {"eval/knn_top1": record.knn_top1, "time/evaluation_s": record.seconds}
    return record.steps_trained, {
        "final/knn_top1": record.knn_top1,
        "final/knn_top1_untrained": record.knn_top1_untrained,
        "final/linear_top1": record.linear_top1,
    }
