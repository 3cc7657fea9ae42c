"""`dogo-fed peer`: keeps a site's peer process alive.

This process only watches, and imports no torch and no CUDA that could crash it. The model lives in
a child process, which is started again if it dies and then goes on from its checkpoint.
"""

from __future__ import annotations

import collections
import subprocess
import sys
import time
from collections.abc import Callable, Sequence

from clients.flower.site.options import USAGE, SiteOptions
from clients.flower.site.worker import SAVE_WITHIN_S
from dogo_fed.errors import ConfigError, StartError
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
    """Runs what the command line says, and exits with the status of `watch`."""
    arguments = sys.argv[1:]
    if any(argument in ("-h", "--help") for argument in arguments):
        sys.stdout.write(USAGE)
        return
    sys.exit(watch(arguments))


def watch(arguments: Sequence[str], worker: Sequence[str] = WORKER) -> int:
    """Runs the worker until it is told to end.

    Args:
        arguments: the command line, which the worker gets too.
        worker: Python's arguments that start the worker.

    Returns:
        0 after one signal, 130 after two; 1 if the worker kept dying or did not end well; 2 if it
        can't be run at all.
    """
    try:
        SiteOptions.parse(arguments)
    except ConfigError as error:
        return say(error, EXIT_UNUSABLE)
    with stop_on_signal() as stop_requested:
        try:
            return _keep_alive([sys.executable, *worker, *arguments], stop_requested)
        except StartError as error:
            return say(error, EXIT_FAILED)
        except KeyboardInterrupt:
            return EXIT_STOPPED


def _keep_alive(command: Sequence[str], stop_requested: Callable[[], bool]) -> int:
    """Starts the worker, and again when it dies, until a stop or too many deaths in a minute."""
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
                f"the peer process has died {_MOST_DEATHS} times within {_WITHIN_S:g} s, the last "
                f"time with status {status}; what it wrote is above. Given up",
                EXIT_FAILED,
            )
        pause_s = min(_FIRST_PAUSE_S * 2 ** (len(recent) - 1), _LONGEST_PAUSE_S)
        say(f"the peer process died with status {status}; started again in {pause_s:g} s", 0)
        _pause(pause_s, stop_requested)
        if stop_requested():
            return 0


def _ended(status: int) -> int:
    """Returns the watcher's status after a stop, for the worker's status."""
    if status == 0:
        return 0
    return say(
        f"the peer process ended with status {status}, maybe without saving the newest steps",
        EXIT_FAILED,
    )


def _run_once(command: Sequence[str], stop_requested: Callable[[], bool]) -> int:
    """Runs the worker to its end, or ends it when a stop is asked for; returns its status.

    Raises:
        StartError: the operating system does not start another process.
    """
    try:
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,  # closes however this process ends, and so ends the worker
            start_new_session=True,  # Ctrl-C reaches only this process, which ends the worker well
        )
    except OSError as error:
        raise StartError(f"the peer process can't be started: {error}") from error
    try:
        while process.poll() is None and not stop_requested():
            _pause(_POLL_S, stop_requested)
        return _end(process)
    finally:
        if process.poll() is None:
            process.kill()
            process.wait(_KILL_WAIT_S)


def _end(process: subprocess.Popen[bytes]) -> int:
    """Lets the worker save itself and returns its status; kills it if that takes too long."""
    assert process.stdin is not None, "the process was given a pipe"
    process.stdin.close()
    try:
        return process.wait(_END_WITHIN_S)
    except subprocess.TimeoutExpired:
        say(f"the peer process did not end within {_END_WITHIN_S:g} s and is killed", 0)
        process.kill()
        return process.wait(_KILL_WAIT_S)


def _pause(seconds: float, stop_requested: Callable[[], bool]) -> None:
    """Sleeps in short pieces, so that a stop is noticed soon."""
    deadline_s = time.monotonic() + seconds
    while time.monotonic() < deadline_s and not stop_requested():
        time.sleep(min(_POLL_S, seconds))
