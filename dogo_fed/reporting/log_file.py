"""The log files of a run folder, and how a line of a log looks in a file and in a terminal."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import TypeAlias

from dogo_fed.atomic import is_no_room
from dogo_fed.text import block, one_line

_LONGEST_LINE = 4000
_Raised: TypeAlias = (
    tuple[type[BaseException], BaseException, TracebackType | None] | tuple[None, None, None]
)


class LineFormatter(logging.Formatter):
    """A formatter that no message can break: one line a message, printable, of bounded length.

    The lines of a traceback are indented, so none of them can be taken for a message.
    """

    def format(self, record: logging.LogRecord) -> str:
        """Returns the message's line, and the lines of a traceback if there is one."""
        record.exc_text = None  # may be the text of another formatter, not cleaned
        try:
            return super().format(record)
        finally:
            record.exc_text = None

    def formatMessage(self, record: logging.LogRecord) -> str:
        """Returns the message's line."""
        return one_line(super().formatMessage(record), _LONGEST_LINE)

    def formatException(self, ei: _Raised) -> str:
        """Returns the traceback, indented."""
        return _indented(super().formatException(ei))

    def formatStack(self, stack_info: str) -> str:
        """Returns the stack, indented."""
        return _indented(super().formatStack(stack_info))


def warnings_to_stderr() -> None:
    """Lets warnings of this process appear on standard error, as what a command says does."""
    handler = logging.StreamHandler()
    handler.setFormatter(LineFormatter("dogo-fed: %(message)s"))
    logging.basicConfig(level=logging.WARNING, handlers=[handler])


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
    handler.setFormatter(LineFormatter("%(asctime)s %(levelname)s %(name)s %(message)s"))
    loggers = [logging.getLogger(name) for name in packages]
    for logger in loggers:
        logger.addHandler(handler)
        logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        for logger in loggers:
            logger.removeHandler(handler)
        handler.close()


def _indented(text: str) -> str:
    return f"    {block(text, _LONGEST_LINE)}"
