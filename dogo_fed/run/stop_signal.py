"""Ctrl-C, SIGTERM and SIGHUP: the first asks the run to end well, the second ends it at once."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from types import FrameType

STOP_SIGNALS = tuple(
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)
)
"""The signals that ask for an end. Systems without terminals of the Unix kind have no SIGHUP."""

_STANDARD_STREAMS = (0, 1, 2)


@contextmanager
def stop_on_signal() -> Iterator[Callable[[], bool]]:
    """Yields a function that says whether the user has asked for an end.

    A terminal that is closed asks for an end too (SIGHUP), unless the process was told to ignore
    that (nohup). It may send more than one signal, so these never end the run at once. What is
    written to it from then on is lost, and is no error.

    Outside the main thread Python delivers no signals, and the answer is always no.

    Raises:
        KeyboardInterrupt: at the second signal.
    """
    asked = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield asked.is_set
        return
    terminals = [stream for stream in _STANDARD_STREAMS if os.isatty(stream)]

    # Sets a flag only: it interrupts the main thread between two bytecodes, maybe inside a lock.
    def take(number: int, frame: FrameType | None) -> None:
        if signal.Signals(number).name == "SIGHUP":
            _leave(terminals)
        elif asked.is_set():
            raise KeyboardInterrupt
        asked.set()

    with _handled_by(take):
        yield asked.is_set


@contextmanager
def interrupts_at_once() -> Iterator[None]:
    """Lets SIGTERM and SIGHUP raise KeyboardInterrupt, as Ctrl-C does.

    It is for work that keeps nothing half done, around `stop_on_signal`, which puts its own handlers
    in place of these. Outside the main thread it does nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    with _handled_by(signal.default_int_handler):
        yield


@contextmanager
def hangups_are_ours() -> Iterator[None]:
    """Keeps SIGHUP from the processes that this thread starts in the block.

    A terminal that is closed sends it to all processes of its job. Those that peers need must live
    until the peers have saved themselves. Here it is delivered after the block.
    """
    if not hasattr(signal, "SIGHUP"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})  # children inherit the mask
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def _handled_by(take: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """Lets a function take the signals that ask for an end, but for those that are ignored."""
    earlier = {
        number: signal.signal(number, take)
        for number in STOP_SIGNALS
        if signal.getsignal(number) is not signal.SIG_IGN
    }
    try:
        yield
    finally:
        for number, handler in earlier.items():
            signal.signal(number, handler)


def _leave(terminals: Sequence[int]) -> None:
    """Redirects to nowhere those streams whose terminal is gone."""
    gone = [stream for stream in terminals if not os.isatty(stream)]
    if gone:
        with suppress(OSError):
            nowhere = os.open(os.devnull, os.O_RDWR)
            for stream in gone:
                os.dup2(nowhere, stream)
            os.close(nowhere)
