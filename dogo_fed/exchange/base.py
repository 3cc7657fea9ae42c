"""The one seam of a run: publish, collect, close. What implements it can carry distributions.

What a peer may rely on:
    * `publish` returns without waiting for other peers. The same call again changes nothing. Another
      distribution for the same ticket is an error.
    * `collect` returns the mean of the distributions of the other peers that took part; where the run
      has a teaching graph, of this peer's teachers among them. The mean is summed in peer-name order, so
      it does not depend on who came first. It returns at the run's deadline with those present, or
      raises; it never waits longer.
    * Only steps that exchange have a ticket (exchange.every_steps); at others nobody calls.
    * A peer that was late learns so from the signal's `next_step`.
    * `close` leaves the run; a second call does nothing.

Publishing and collecting are two calls, not one blocking swap: several peers in one process would wait
for each other, and a host that is driven by messages must return between the two.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from dogo_fed.contracts import SimilarityDistribution, TeacherSignal, Ticket


@dataclass(frozen=True, slots=True)
class Traffic:
    """Bytes on the wire for one ticket, both counted at the peer."""

    bytes_up: int = 0
    bytes_down: int = 0


class Exchange(Protocol):
    """Carries one peer's distributions to the coordinator and brings back the mean of the others'."""

    @property
    def last_traffic(self) -> Traffic:
        """Bytes on the wire for the ticket that was collected last."""
        ...

    def publish(self, ticket: Ticket, distribution: SimilarityDistribution) -> None:
        """Hands over my distribution for this ticket.

        Raises:
            StaleTicket: another distribution was published for it, or it is not this peer's turn.
            SchemaMismatch: the run or the images differ from the coordinator's.
            MalformedDistribution: what I published is not a similarity distribution.
        """
        ...

    def collect(self, ticket: Ticket) -> TeacherSignal:
        """Returns what this peer learns from at this ticket.

        Raises:
            ExchangeTimeout: no answer before the deadline.
            CoordinatorLost: the coordinator can't be reached any more.
            Refused: whatever `publish` may raise, where the answer comes only now.
        """
        ...

    def close(self) -> None:
        """Leaves the run."""
        ...


class Link(Exchange, Protocol):
    """An `Exchange` by which a peer also enters the run."""

    def join(self, agreement: Mapping[str, str]) -> int:
        """Enters the run and returns the step to go on with.

        Raises:
            SchemaMismatch: this process does not run the same thing as the coordinator.
            Refused: there is no such peer in the run.
            ExchangeError: nobody answers.
        """
        ...
