"""The interface by which a peer is taught: publish, collect, close. It hides what carries messages.

What a peer may rely on:
    * `publish` returns without waiting for other peers. A repeated call changes nothing. Another
      distribution for the same ticket is an error.
    * `collect` returns the mean of the distributions of the other peers that took part. If the run
      has a teaching graph, only this peer's teachers count. The mean does not depend on the order
      of arrival. `collect` returns at the run's deadline with the peers that are present, or
      raises; it never waits longer.
    * Only steps that exchange have a ticket (exchange.every_steps). At other steps a peer calls
      neither.
    * A peer that was late sees it by the signal's `next_step`.
    * `close` leaves the run; a second call does nothing.

Publishing and collecting are two calls, not one that blocks: several peers in one process would
wait for each other, and a host that is driven by messages must return between the two.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from dogo_fed.contracts import SimilarityDistribution, TeacherSignal, Ticket


@dataclass(frozen=True, slots=True)
class Traffic:
    """Bytes of the messages for one ticket: sent by the peer, and received by it."""

    bytes_up: int = 0
    bytes_down: int = 0


class Exchange(Protocol):
    """Carries one peer's distributions to the coordinator, and its teachers' mean back."""

    @property
    def last_traffic(self) -> Traffic:
        """Bytes on the wire for the ticket that was collected last."""
        ...

    def publish(self, ticket: Ticket, distribution: SimilarityDistribution) -> None:
        """Hands over my distribution for this ticket.

        Raises:
            StaleTicket: another distribution was published for it, or the step is not open.
            SchemaMismatch: the run or the images are not the coordinator's.
            MalformedDistribution: it is not a similarity distribution of the run's form.
        """
        ...

    def collect(self, ticket: Ticket) -> TeacherSignal:
        """Returns what this peer learns from at this ticket.

        Raises:
            ExchangeTimeout: no answer before the deadline.
            CoordinatorLost: the coordinator can't be reached any more.
            Refused, MalformedDistribution: as `publish` does, if its answer comes only now.
        """
        ...

    def close(self) -> None:
        """Leaves the run."""
        ...


class Link(Exchange, Protocol):
    """An `Exchange` with which a peer also joins the run."""

    def join(self, agreement: Mapping[str, str]) -> int:
        """Enters the run and returns the step to go on with.

        Raises:
            SchemaMismatch: this process does not run the same thing as the coordinator.
            Refused: there is no such peer in the run.
            ExchangeError: the coordinator does not answer.
        """
        ...
