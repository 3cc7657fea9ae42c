"""Watches processes: notices how they end, and ends those that are silent or do not stop.

The owner of the watch starts the processes and decides what an ending means. Owners are the
supervisor of a run's peers, and the loop over the cells of a comparison.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from dogo_fed.coordination.standstill import Standstill

Key = TypeVar("Key")
End = TypeVar("End")
End_co = TypeVar("End_co", covariant=True)


class Watchable(Protocol[End_co]):
    """A process that can be watched, on this machine or another."""

    def ending(self) -> End_co | None:
        """Returns how it ended, or None while it runs. Does not wait."""
        ...

    def kill(self) -> None:
        """Ends it at once; a second call does nothing."""
        ...


@dataclass(frozen=True, slots=True)
class Overdue:
    """The ending of a process that the watch has killed, with the reason for people."""

    reason: str


class Watch(Generic[Key, End]):
    """The watched processes, by key. Not thread-safe: its owner polls `look` from one thread."""

    def __init__(
        self,
        *,
        silence_s: float,
        silence_setting: str,
        stop_within_s: float,
        clock: Callable[[], float],
    ) -> None:
        """Makes a watch without processes.

        Args:
            silence_s: seconds after which a process without a sign of life is killed.
            silence_setting: the name of that setting, for the message.
            stop_within_s: seconds that processes have to end after `begin_stop`.
            clock: the time in seconds; `look` gets times of the same clock.
        """
        self._silence_s = silence_s
        self._silence_setting = silence_setting
        self._stop_within_s = stop_within_s
        self._clock = clock
        self._standstill = Standstill(clock())
        self._excused_until_s = -math.inf
        self._all: dict[Key, Watchable[End]] = {}
        self._running: dict[Key, Watchable[End]] = {}
        self._stopping_since_s: float | None = None

    @property
    def running(self) -> Mapping[Key, Watchable[End]]:
        """The processes that have not ended."""
        return self._running

    @property
    def is_stopping(self) -> bool:
        """Whether `begin_stop` was called."""
        return self._stopping_since_s is not None

    def add(self, key: Key, process: Watchable[End]) -> None:
        """Watches a process; it replaces an earlier one of the same key."""
        self._all[key] = self._running[key] = process

    def begin_stop(self) -> bool:
        """Starts the time that a stop may take; returns whether this is the first call."""
        if self._stopping_since_s is not None:
            return False
        self._stopping_since_s = self._clock()
        return True

    def look(self, last_word_s: Callable[[Key], float]) -> list[tuple[Key, End | Overdue]]:
        """Looks at every process once, kills the overdue ones, and returns those that have ended.

        It is to be called about once a second or more often. A time in which it was not, because
        this process did not run, counts as nobody's silence.

        Args:
            last_word_s: returns when a process last gave a sign of life.
        """
        # Collected first and handled by the caller: the report that one peer was lost would else
        # count as a sign of life of the others.
        ended: list[tuple[Key, End | Overdue]] = []
        if self._standstill.lasted_s(self._clock()):
            self._excused_until_s = self._clock()
        for key, process in list(self._running.items()):
            ending: End | Overdue | None = process.ending()
            if ending is None:
                ending = self._overdue(last_word_s(key))
                if ending is not None:
                    process.kill()
            if ending is not None:
                del self._running[key]
                ended.append((key, ending))
        return ended

    def kill(self, key: Key) -> None:
        """Kills a process, or what is left of one that has ended."""
        self._all[key].kill()
        self._running.pop(key, None)

    def kill_all(self) -> None:
        """Kills all of them; if that fails for one, the others are killed all the same."""
        with ExitStack() as ending:
            for process in self._all.values():
                ending.callback(process.kill)

    def _overdue(self, last_word_s: float) -> Overdue | None:
        now_s, since_s, excused_s = self._clock(), self._stopping_since_s, self._excused_until_s
        if since_s is not None and now_s - max(since_s, excused_s) > self._stop_within_s:
            return Overdue(f"did not stop within {self._stop_within_s:g} s")
        if now_s - max(last_word_s, excused_s) > self._silence_s:
            return Overdue(f"said nothing for {self._silence_s:g} s ({self._silence_setting})")
        return None
