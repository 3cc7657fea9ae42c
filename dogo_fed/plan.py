"""The plan of a run: how many steps it has, where rounds end, and which steps exchange."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Plan:
    """The steps of a run. Rounds count from 1, steps from 0; the last round may be shorter.

    Attributes:
        exchange_every_steps: k; the steps 0, k, 2k, ... exchange, the others have no ticket.
        dense_steps: so many steps at the beginning exchange, whatever k is.
    """

    total_steps: int
    steps_per_round: int
    exchange_every_steps: int = 1
    dense_steps: int = 0

    @property
    def num_rounds(self) -> int:
        """The number of rounds, the shorter last one included."""
        return -(-self.total_steps // self.steps_per_round)

    @property
    def num_exchanges(self) -> int:
        """The number of steps that exchange."""
        dense, every = min(self.dense_steps, self.total_steps), self.exchange_every_steps
        return dense + -(-self.total_steps // every) - -(-dense // every)

    def round_of(self, step: int) -> int:
        """Returns the round that `step` belongs to."""
        return step // self.steps_per_round + 1

    def end_of(self, round_number: int) -> int:
        """Returns the step that follows the last step of a round."""
        return min(round_number * self.steps_per_round, self.total_steps)

    def ends_round(self, step: int) -> bool:
        """Whether `step` is the last of its round."""
        return (step + 1) % self.steps_per_round == 0 or step + 1 == self.total_steps

    def next_exchange(self, step: int) -> int:
        """Returns `step` if it exchanges, else the next step that does, even beyond the end."""
        if step < self.dense_steps:
            return step
        return -(-step // self.exchange_every_steps) * self.exchange_every_steps

    def next_round(self, step: int) -> int:
        """Returns `step` if it begins a round, else the step that begins the next one."""
        return -(-step // self.steps_per_round) * self.steps_per_round

    def exchanges_at(self, step: int) -> bool:
        """Whether `step` has a ticket."""
        return self.next_exchange(step) == step
