"""The log files of a run folder: what our packages log during the run."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path


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
    handler = logging.FileHandler(path, encoding="utf-8")
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
