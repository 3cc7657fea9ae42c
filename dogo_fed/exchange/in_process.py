"""An `Exchange` with a coordinator in the same process: the reference for all other exchanges."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from dogo_fed.contracts import PeerId, SimilarityDistribution, TeacherSignal, Ticket
from dogo_fed.coordination.coordinator import Coordinator
from dogo_fed.errors import ExchangeTimeout
from dogo_fed.exchange.base import Traffic
from dogo_fed.wire.format import WireFormat


class InProcessExchange:
    """One peer's end. All peers publish, then all collect. No message is sent."""

    def __init__(
        self,
        coordinator: Coordinator,
        peer: PeerId,
        incarnation: str,
        wire: WireFormat,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._coordinator = coordinator
        self._peer = peer
        self._incarnation = incarnation
        self._wire = wire
        self._clock = clock
        self._is_closed = False

    @property
    def last_traffic(self) -> Traffic:
        """Always 0: no message is sent."""
        return Traffic()

    def join(self, agreement: Mapping[str, str]) -> int:
        """Enters the run; see `Link.join`."""
        return self._coordinator.join(self._peer, self._incarnation, agreement, self._clock())

    def publish(self, ticket: Ticket, distribution: SimilarityDistribution) -> None:
        """Hands over my distribution; see `Exchange.publish`."""
        self._wire.check(distribution)
        carried = self._wire.as_carried(distribution)
        self._coordinator.offer(self._peer, self._incarnation, ticket, carried, self._clock())

    def collect(self, ticket: Ticket) -> TeacherSignal:
        """Returns the teachers' mean; see `Exchange.collect`.

        Raises:
            ExchangeTimeout: a peer of this process has not published yet.
        """
        signal = self._coordinator.answer(self._peer, ticket.step)
        if signal is None:
            raise ExchangeTimeout(
                f"step {ticket.step} is still open, and in one process no other peer can publish "
                "while this one collects: let all peers publish before the first collects"
            )
        return self._wire.signal_as_carried(signal)

    def close(self) -> None:
        """Leaves the run; a second call does nothing."""
        if not self._is_closed:
            self._is_closed = True
            self._coordinator.leave(self._peer, self._incarnation, self._clock())
