"""The coordinator's endpoint if Flower's messages carry the steps: no port and no thread."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from server.coordinator.calls import CoordinatorCalls

T = TypeVar("T")


class InThread:
    """An `Endpoint` whose calls run in the caller's thread, the one that delivers the messages."""

    def __init__(self, calls: CoordinatorCalls) -> None:
        self._calls = calls

    def start(self) -> str:
        """Returns an empty address."""
        return ""

    def call(self, action: Callable[[CoordinatorCalls], T]) -> T:
        """Runs `action` in the caller's thread."""
        return action(self._calls)

    def stop(self) -> None:
        """Does nothing: there is no server."""
