"""The pulse of an evaluation: each piece of work beats, so that a long one differs from a hung one.

An evaluation has no steps that anybody could report, and it may take hours. Its loops call `beat`
after each batch or update. Whoever started it listens, and tells others that it goes on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_listener: ContextVar[Callable[[], None]] = ContextVar("listener", default=lambda: None)


@contextmanager
def listening(on_beat: Callable[[], None]) -> Iterator[None]:
    """Calls `on_beat` at every beat inside the block, in this thread."""
    token = _listener.set(on_beat)
    try:
        yield
    finally:
        _listener.reset(token)


def beat() -> None:
    """Says that a piece of the evaluation is done; costs next to nothing if nobody listens."""
    _listener.get()()
