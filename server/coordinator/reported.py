"""Remembers which reports have arrived, so that a repeated report counts once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_RESULT = -1


class Reported:
    """The reports that have arrived, by peer and by start of the peer's process."""

    def __init__(self) -> None:
        self._last_step: dict[tuple[str, str], int] = {}
        self._rounds: dict[tuple[str, str], set[int]] = {}

    def is_new_step(self, peer: str, incarnation: str, step: int) -> bool:
        """Notes a step's report; returns whether its step is later than all steps before."""
        sender = (peer, incarnation)
        if step <= self._last_step.get(sender, -1):
            return False
        self._last_step[sender] = step
        return True

    def is_new_round(self, peer: str, incarnation: str, number: int) -> bool:
        """Notes a round's report; returns whether it is the first."""
        rounds = self._rounds.setdefault((peer, incarnation), set())
        is_new = number not in rounds
        rounds.add(number)
        return is_new

    def is_new_result(self, peer: str, incarnation: str) -> bool:
        """Notes the last report of a peer; returns whether it is the first."""
        return self.is_new_round(peer, incarnation, _RESULT)

    def to_plain(self) -> dict[str, Any]:
        """Returns this as plain values."""
        return {
            "last_step": [[*sender, step] for sender, step in self._last_step.items()],
            "rounds": [[*sender, sorted(rounds)] for sender, rounds in self._rounds.items()],
        }

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> Reported:
        """Returns what `to_plain` has written.

        Raises:
            KeyError, TypeError, ValueError: these are not values of `to_plain`.
        """
        memory = cls()
        memory._last_step = {
            (str(peer), str(start)): int(step) for peer, start, step in plain["last_step"]
        }
        memory._rounds = {
            (str(peer), str(start)): {int(number) for number in rounds}
            for peer, start, rounds in plain["rounds"]
        }
        return memory
