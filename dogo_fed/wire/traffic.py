"""What the distributions of a whole run weigh, by its settings alone."""

from __future__ import annotations

from dataclasses import dataclass

from dogo_fed.config import RunConfig
from dogo_fed.plan import Plan
from dogo_fed.wire.format import WireFormat


@dataclass(frozen=True, slots=True)
class RunTraffic:
    """The payload of a run's exchanges, as it is encoded; names, tickets and reports are not in it.

    Attributes:
        exchanges: how many distributions each peer sends.
        each: bytes of one.
        learners: the peers that have a teacher, and get as much back; the others get nothing.
        peers: how many peers there are.
    """

    exchanges: int
    each: int
    learners: tuple[str, ...]
    peers: int

    @classmethod
    def of(cls, config: RunConfig, plan: Plan) -> RunTraffic | None:
        """Returns what a run will move; None if its peers do not exchange.

        Args:
            config: its settings, fitted to the images.
            plan: tells which steps exchange.
        """
        if not config.exchanges:
            return None
        graph = config.exchange.graph
        return cls(
            exchanges=plan.num_exchanges,
            each=WireFormat.of(config).payload_bytes,
            learners=tuple(name for name in config.peers if graph is None or graph.get(name)),
            peers=len(config.peers),
        )

    @property
    def sent(self) -> int:
        """Bytes that each peer sends in the whole run."""
        return self.exchanges * self.each

    @property
    def both_ways(self) -> float:
        """Bytes that a peer sends and gets in the whole run, mean over the peers."""
        return self.sent * (1 + len(self.learners) / self.peers)
