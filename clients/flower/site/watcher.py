"""`dogo-fed peer`: keeps a site's peer process alive.

This process only watches, and loads nothing that could fail; the model lives in a process of its own
below it, which is started again when it dies and goes on from its checkpoint.
"""

from __future__ import annotations

import collections
import subprocess
import sys
import time
from collections.abc import Callable, Sequence

from clients.flower.site.options import USAGE, SiteOptions
from clients.flower.site.worker import SAVE_WITHIN_S
from dogo_fed.errors import ConfigError, PlacementError
from dogo_fed.exit_status import EXIT_FAILED, EXIT_STOPPED, EXIT_UNUSABLE, say
from dogo_fed.run.stop_signal import stop_on_signal

WORKER = ("-m", "clients.flower.site.worker")

_MOST_DEATHS = 5
_WITHIN_S = 60.0
_FIRST_PAUSE_S = 0.5
_LONGEST_PAUSE_S = 8.0
_POLL_S = 0.1
_KILL_WAIT_S = 10.0
_END_WITHIN_S = SAVE_WITHIN_S + 15.0


def main() -> None:
    """Runs what the command line says; leaves the process with a status that tells how it ended."""
    arguments = sys.argv[1:]
    if any(argument in ("-h", "--help") for argument in arguments):
        sys.stdout.write(USAGE)
        return
    sys.exit(watch(arguments))


def watch(arguments: Sequence[str], worker: Sequence[str] = WORKER) -> int:
    """Watches over the worker until told to end.

    Args:
        arguments: the command line, which the worker gets too.
        worker: what Python is to run.

    Returns:
        0 when told to end, 130 when told so twice, 1 if the worker kept dying or did not end well, 2 if
        it can't be run at all.
    """
    try:
        SiteOptions.parse(arguments)
    except ConfigError as error:
        return say(error, EXIT_UNUSABLE)
    with stop_on_signal() as stop_requested:
        try:
            return _keep_alive([sys.executable, *worker, *arguments], stop_requested)
        except PlacementError as error:
            return say(error, EXIT_FAILED)
        except KeyboardInterrupt:
            return EXIT_STOPPED


def _keep_alive(command: Sequence[str], stop_requested: Callable[[], bool]) -> int:
    """Starts the worker, again if it dies, until it should end or keeps dying."""
    deaths: collections.deque[float] = collections.deque(maxlen=_MOST_DEATHS)
    while True:
        status = _run_once(command, stop_requested)
        if stop_requested():
            return _ended(status)
        if status == EXIT_UNUSABLE:
            return EXIT_UNUSABLE
        deaths.append(time.monotonic())
        recent = [at_s for at_s in deaths if at_s > time.monotonic() - _WITHIN_S]
        if len(recent) == _MOST_DEATHS:
            return say(
                f"the peer process has died {_MOST_DEATHS} times within {_WITHIN_S:g} s, the last time "
                f"with status {status}; what it wrote is above. Given up",
                EXIT_FAILED,
            )
        pause_s = min(_FIRST_PAUSE_S * 2 ** (len(recent) - 1), _LONGEST_PAUSE_S)
        say(f"the peer process died with status {status}; started again in {pause_s:g} s", 0)
        _pause(pause_s, stop_requested)
        if stop_requested():
            return 0


def _ended(status: int) -> int:
    """Returns our own status after a stop, given the worker's."""
    if status == 0:
        return 0
    return say(
        f"the peer process ended with status {status}, maybe without saving the newest steps",
        EXIT_FAILED,
    )


def _run_once(command: Sequence[str], stop_requested: Callable[[], bool]) -> int:
    """Runs the worker to its end, or to the end of its time when a stop is asked for.

    Raises:
        PlacementError: there is no room for another process.
    """
    try:
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,  # closes when this process ends, however it ends
            start_new_session=True,  # Ctrl-C reaches this process only
        )
    except OSError as error:
        raise PlacementError(f"the peer process can't be started: {error}") from error
    try:
        while process.poll() is None and not stop_requested():
            _pause(_POLL_S, stop_requested)
        return _end(process)
    finally:
        if process.poll() is None:
            process.kill()
            process.wait(_KILL_WAIT_S)


def _end(process: subprocess.Popen[bytes]) -> int:
    """Lets the worker save itself and returns its status; ends it at once if that takes too long."""
    assert process.stdin is not None, "the process was given a pipe"
    process.stdin.close()
    try:
        return process.wait(_END_WITHIN_S)
    except subprocess.TimeoutExpired:
        say(f"the peer process did not end within {_END_WITHIN_S:g} s and is killed", 0)
        process.kill()
        return process.wait(_KILL_WAIT_S)


def _pause(seconds: float, stop_requested: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + seconds
    while time.monotonic() < deadline_s and not stop_requested():
        time.sleep(min(_POLL_S, seconds))
