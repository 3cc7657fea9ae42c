"""The log files of a run folder: what our packages log during the run."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from dogo_fed.atomic import is_no_room


class _LogFile(logging.FileHandler):
    """A log file; lines for which the disk has no room are left out, without a traceback for each.

    What must be kept is in other files, whose owners say that there is no room.
    """

    def handleError(self, record: logging.LogRecord) -> None:
        error = sys.exc_info()[1]
        if not (isinstance(error, OSError) and is_no_room(error)):
            super().handleError(record)


@contextmanager
def log_file(path: str | os.PathLike[str], packages: Sequence[str]) -> Iterator[None]:
    """Appends what these packages log to the file, whose folder is made if it is not there.

    Args:
        path: coordinator.log of a run, or peer.log of a peer.
        packages: top-level packages of ours, by name.

    Raises:
        OSError: the file can't be written.
    """
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    handler = _LogFile(path, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s %(message)s"))
    loggers = [logging.getLogger(name) for name in packages]
    for one in loggers:
        one.addHandler(handler)
        one.setLevel(logging.INFO)
    try:
        yield
    finally:
        for one in loggers:
            one.removeHandler(handler)
        handler.close()
