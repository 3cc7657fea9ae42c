"""A log of complaints that whoever causes them can't fill: many of them become one counted line."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass

from dogo_fed.text import one_line

_MOST_SUBJECTS = 100
_LONGEST_COMPLAINT = 1000


@dataclass(slots=True)
class _Held:
    """What is held back about one subject: how many, the last of them, and until when."""

    until_s: float
    count: int = 0
    last: str = ""


class CountedLog:
    """Logs the first complaint about a subject at once, and later ones as one line per interval.

    Not thread-safe: one thread complains.
    """

    def __init__(
        self,
        logger: logging.Logger,
        clock: Callable[[], float] = time.monotonic,
        every_s: float = 10.0,
    ) -> None:
        """Makes a log without complaints.

        Args:
            logger: gets the lines, as warnings.
            clock: the time in seconds.
            every_s: the shortest time between two lines about a subject.
        """
        self._logger = logger
        self._clock = clock
        self._every_s = every_s
        self._held: dict[str, _Held] = {}

    def warn(self, subject: str, complaint: object) -> None:
        """Logs a complaint, or counts it if there was one about this subject just before."""
        if subject not in self._held and len(self._held) >= _MOST_SUBJECTS:
            subject = "others"
        now_s, text = self._clock(), one_line(complaint, _LONGEST_COMPLAINT)
        held = self._held.get(subject)
        if held is None:
            self._held[subject] = _Held(now_s + self._every_s)
            self._logger.warning("%s %s", subject, text)
            return
        held.count, held.last = held.count + 1, text
        if now_s >= held.until_s:
            self._tell(subject, held)

    def flush(self) -> None:
        """Tells what has been held back long enough; forgets subjects without complaints."""
        now_s = self._clock()
        for subject, held in list(self._held.items()):
            if now_s < held.until_s:
                continue
            if held.count:
                self._tell(subject, held)
            else:
                del self._held[subject]

    def close(self) -> None:
        """Tells all that is held back."""
        for subject, held in self._held.items():
            if held.count:
                self._tell(subject, held)
        self._held.clear()

    def _tell(self, subject: str, held: _Held) -> None:
        self._logger.warning("%s %d more times; the last: %s", subject, held.count, held.last)
        held.until_s, held.count = self._clock() + self._every_s, 0
