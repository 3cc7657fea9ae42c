"""Notices that this process did not run for a while: it was stopped, or its machine was asleep."""

from __future__ import annotations

_LONGEST_PAUSE_S = 10.0
"""A loop that comes by every second, on a busy machine, is never away for so long."""


class Standstill:
    """The times at which a loop came by. Times are of the caller's clock, in seconds.

    Whoever measures other processes' silence must not count the time in which it did not listen.
    """

    def __init__(self, now_s: float) -> None:
        self._came_by_at_s = now_s

    def lasted_s(self, now_s: float) -> float:
        """Returns how long the process did not run since the last call; 0 if it did.

        It is to be called about once a second or more often.
        """
        away_s, self._came_by_at_s = now_s - self._came_by_at_s, now_s
        return away_s if away_s > _LONGEST_PAUSE_S else 0.0
