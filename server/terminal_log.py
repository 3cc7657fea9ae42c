"""What a run's terminal shows: the reports and all warnings. The rest is in log files."""

from __future__ import annotations

import logging
import sys

from rich import get_console
from rich.logging import RichHandler

from dogo_fed.reporting.log_file import LineFormatter

_SHOWN = ("dogo_fed.reporting", "dogo_fed.engine.fastest")
"""Whose plain lines are shown: the reports, and what takes its time before there are any."""


def log_to_terminal() -> None:
    """Sends our reports, and warnings of all libraries, to the terminal."""
    console = get_console()
    handler: logging.Handler = logging.StreamHandler(sys.stdout)
    if console.is_terminal:  # shares the terminal with the live view
        handler = RichHandler(console=console, show_time=False, show_level=False, show_path=False)
    handler.setFormatter(LineFormatter("%(message)s"))
    handler.addFilter(
        lambda record: record.levelno >= logging.WARNING or record.name.startswith(_SHOWN)
    )
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
