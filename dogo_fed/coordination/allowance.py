"""How much of something somebody may have: a store that fills up with time (a token bucket)."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class Allowance:
    """A store of units that is full at first. Times are of the caller's clock, in seconds.

    Attributes:
        per_s: units that come back per second.
        most: units that the full store has.
    """

    per_s: float
    most: float
    _left: float | None = None
    _at_s: float = 0.0

    def take(self, amount: float, now_s: float) -> bool:
        """Takes units if there are so many; returns whether there were."""
        if self.wait_s(amount, now_s) > 0:
            return False
        self.owe(amount, now_s)
        return True

    def owe(self, amount: float, now_s: float) -> None:
        """Takes units even if there are fewer; what is missing has to come back first."""
        self._left = self._filled(now_s) - amount

    def wait_s(self, amount: float, now_s: float) -> float:
        """Returns how long it takes until so many units are there, or the store is full."""
        return max(min(amount, self.most) - self._filled(now_s), 0.0) / self.per_s

    def _filled(self, now_s: float) -> float:
        left = self.most if self._left is None else self._left
        left = min(self.most, left + max(now_s - self._at_s, 0.0) * self.per_s)
        self._left, self._at_s = left, now_s
        return left
