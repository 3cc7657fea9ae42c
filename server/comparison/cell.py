"""One cell of a comparison: trains and evaluates it, in a process or in a Ray task.

The process is `python -m server.comparison.cell JOB.json`.
"""

from __future__ import annotations

import dataclasses
import json
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dogo_fed import layout
from dogo_fed.config_text import from_mapping
from dogo_fed.engine.numerics import fix_numerics
from dogo_fed.errors import ConfigError, DogoError
from dogo_fed.evaluation.pulse import listening
from dogo_fed.exit_status import EXIT_STOPPED, status_of
from dogo_fed.process_setup import keep_freed_memory
from dogo_fed.reporting.summary import was_stopped
from dogo_fed.run.evaluate import evaluate_run
from dogo_fed.run.stop_signal import interrupts_at_once
from server.hosts.launch import launch
from server.terminal_log import log_to_terminal

_ALIVE_EVERY_S = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class CellJob:
    """The work that is left to do for a cell.

    Attributes:
        folder: the cell's run folder, absolute.
        config: the run's configuration, as plain nested dicts.
        is_trained: whether the run is finished.
        protocols: the evaluations that are still to be done, with their options.
        learners: the peers to evaluate.
    """

    folder: str
    config: Mapping[str, Any]
    is_trained: bool
    protocols: Mapping[str, Mapping[str, Any]]
    learners: Sequence[str]

    def to_json(self) -> str:
        """Returns the job as text."""
        return json.dumps(dataclasses.asdict(self), indent=1) + "\n"

    @classmethod
    def from_json(cls, text: str) -> CellJob:
        """Returns the job.

        Raises:
            ConfigError: the text is not a job.
        """
        try:
            return cls(**json.loads(text))
        except (TypeError, ValueError) as error:
            raise ConfigError(f"this is no cell of a comparison: {error}") from error


class _SignOfLife:
    """Renews the time of a file of the cell, which is looked at from outside.

    While it trains, a cell writes reports. While it is evaluated, it writes nothing for hours.
    """

    def __init__(self, folder: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self._log = folder / layout.COORDINATOR_LOG  # its time tells that the cell lives
        self._clock = clock
        self._next_s = clock()

    def __call__(self) -> None:
        now_s = self._clock()
        if now_s < self._next_s:
            return
        self._next_s = now_s + _ALIVE_EVERY_S
        with suppress(OSError):  # the cell is none the worse
            os.utime(self._log)


def run_cell(text: str) -> tuple[int, str]:
    """Does a job, given as JSON.

    Returns:
        An exit status and, if it is not 0, a sentence. A `DogoError` is caught.
    """
    stopped = (EXIT_STOPPED, "stopped by the user")
    try:
        with interrupts_at_once():
            return (0, "") if _do(CellJob.from_json(text)) else stopped
    except DogoError as error:
        return status_of(error), str(error)
    except KeyboardInterrupt:
        return stopped


def _do(job: CellJob) -> bool:
    """Does a job; returns whether it is done, and was not stopped in its training."""
    config = from_mapping(job.config)
    keep_freed_memory()
    fix_numerics(config.threads_per_peer)
    if not job.is_trained and was_stopped(launch(config)):
        return False
    folder = Path(job.folder)
    with listening(_SignOfLife(folder)):
        for name, options in job.protocols.items():
            evaluate_run(folder, config, name, options, peers=job.learners)
    return True


def main() -> None:
    """Runs the job in the file that the command line names; exits with its status."""
    log_to_terminal()
    status, message = run_cell(Path(sys.argv[1]).read_text(encoding="utf-8"))
    if status:
        sys.stdout.write(f"{message}\n")
    sys.exit(status)


if __name__ == "__main__":
    main()
