"""Remembers which reports have arrived, so that a repeated report counts once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from dogo_fed.errors import Refused

_RESULT = -1
_MOST_TIMES = 10
"""How often a peer's processes together may report as much as a whole run has.

A process that was started again reports the steps since its checkpoint once more.
"""


@dataclass(slots=True)
class _Known:
    """What the latest process of a peer has reported."""

    incarnation: str
    last_step: int = -1
    rounds: set[int] = field(default_factory=set)


class Reported:
    """The reports that have arrived of each peer's latest process, and how many there were."""

    def __init__(self) -> None:
        self._known: dict[str, _Known] = {}
        self._num_taken: dict[str, int] = {}

    def is_new_step(self, peer: str, incarnation: str, step: int) -> bool:
        """Notes a step's report; returns whether its step is later than all steps before."""
        known = self._of(peer, incarnation)
        if step <= known.last_step:
            return False
        known.last_step = step
        return True

    def is_new_round(self, peer: str, incarnation: str, number: int) -> bool:
        """Notes a round's report; returns whether it is the first."""
        rounds = self._of(peer, incarnation).rounds
        is_new = number not in rounds
        rounds.add(number)
        return is_new

    def is_new_result(self, peer: str, incarnation: str) -> bool:
        """Notes the last report of a peer; returns whether it is the first."""
        return self.is_new_round(peer, incarnation, _RESULT)

    def count(self, peer: str, num_records: int, num_in_run: int) -> None:
        """Counts records of a peer, repeated ones too.

        Args:
            peer: the peer.
            num_records: how many there are in its message.
            num_in_run: how many a process of a peer has to report in a whole run.

        Raises:
            Refused: all its processes together have reported ten times as much.
        """
        taken = self._num_taken.get(peer, 0) + num_records
        if taken > _MOST_TIMES * num_in_run:
            raise Refused(
                f"peer {peer!r} has reported {_MOST_TIMES} times as much as the run has; no more "
                "is taken"
            )
        self._num_taken[peer] = taken

    def to_plain(self) -> dict[str, Any]:
        """Returns this as plain values."""
        known = self._known.items()
        return {
            "last_step": [[peer, start.incarnation, start.last_step] for peer, start in known],
            "rounds": [[peer, start.incarnation, sorted(start.rounds)] for peer, start in known],
        }

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> Reported:
        """Returns what `to_plain` has written.

        Raises:
            KeyError, TypeError, ValueError: these are not values of `to_plain`.
        """
        memory = cls()
        for peer, start, step in plain["last_step"]:
            memory._of(str(peer), str(start)).last_step = int(step)
        for peer, start, rounds in plain["rounds"]:
            memory._of(str(peer), str(start)).rounds = {int(number) for number in rounds}
        return memory

    def _of(self, peer: str, incarnation: str) -> _Known:
        known = self._known.get(peer)
        if known is None or known.incarnation != incarnation:
            known = self._known[peer] = _Known(incarnation)
        return known
