"""The coordinator where Flower's messages reach it: no address, no port, no thread of its own."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from server.coordinator.calls import CoordinatorCalls

T = TypeVar("T")


class InThread:
    """An `Endpoint` for the thread that turns the messages over."""

    def __init__(self, calls: CoordinatorCalls) -> None:
        self._calls = calls

    def start(self) -> str:
        """Returns no address."""
        return ""

    def call(self, action: Callable[[CoordinatorCalls], T]) -> T:
        """Runs `action` here and now."""
        return action(self._calls)

    def stop(self) -> None:
        """Has nothing to stop."""
