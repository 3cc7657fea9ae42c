"""Small distributions, tickets and coordinators that the tests of the exchange share."""

# N = images in the step's batch

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable, Iterable, Mapping

import numpy as np

from dogo_fed.contracts import Event, PeerId, Record, SimilarityDistribution, Ticket
from dogo_fed.coordination.coordinator import Coordinator, CoordinatorSettings
from dogo_fed.plan import Plan
from dogo_fed.reporting.sink import Sink
from dogo_fed.wire.format import WireFormat

SIZE = 6
RUN_ID = "run-1"
AGREEMENT = {
    "protocol_version": "1",
    "source_digest": "5c0ffee",
    "configuration_hash": "abc",
    "data_fingerprint": "da7a",
    "config.batch_size": str(SIZE),
    "config.seed": "0",
    "config.deadline_s": "10",
    "config.peers": "ada,bob,cat",
}
WIRE = WireFormat(SIZE)
ADA, BOB, CAT = PeerId("ada"), PeerId("bob"), PeerId("cat")


class Clock:
    """A clock that stands still until it is told otherwise."""

    def __init__(self, now_s: float = 0.0) -> None:
        self.now_s = now_s

    def __call__(self) -> float:
        return self.now_s


class KeepingSink(Sink):
    """Keeps every record, and counts the signs of life; may be used from any thread."""

    def __init__(self) -> None:
        self.records: list[Record] = []
        self.signs_of_life = 0
        self._lock = threading.Lock()

    def emit(self, record: Record) -> None:
        with self._lock:
            self.records.append(record)

    def alive(self) -> None:
        with self._lock:
            self.signs_of_life += 1

    def events(self, kind: str | None = None) -> list[Event]:
        return [
            record
            for record in list(self.records)
            if isinstance(record, Event) and kind in (None, record.kind)
        ]


def distribution(seed: int, size: int = SIZE) -> SimilarityDistribution:
    """Returns the row softmax of random logits."""
    logits_NN = np.random.default_rng(seed).normal(size=(size, size))
    p_NN = np.exp(logits_NN) / np.exp(logits_NN).sum(axis=1, keepdims=True)
    negative_entropy = float((p_NN * np.log(p_NN)).sum(axis=1).mean())
    return SimilarityDistribution(p_NN.astype(np.float32), negative_entropy)


def both_ways(seed: int, size: int = SIZE) -> SimilarityDistribution:
    """Returns a distribution with its reverse, as peers publish it with exchange.symmetric."""
    return dataclasses.replace(distribution(seed, size), reverse=distribution(seed + 500_000, size))


def every(steps: int) -> Callable[[int], int]:
    """Returns which step from a given one on is the next to exchange."""
    return lambda step: next(one for one in range(step, step + steps) if one % steps == 0)


def batch_digest(step: int) -> str:
    return f"images-of-step-{step}"


def ticket(step: int, *, run_id: str = RUN_ID, digest: str | None = None) -> Ticket:
    return Ticket(run_id, 1, step, batch_digest(step) if digest is None else digest)


def settings(
    peers: Iterable[PeerId] = (ADA, BOB, CAT),
    *,
    agreement: Mapping[str, str] = AGREEMENT,
    first_step: int = 0,
    deadline_s: float = 10.0,
    join_deadline_s: float = 100.0,
    evaluation_deadline_s: float = 1000.0,
    every_steps: int = 1,
    total_steps: int = 1_000_000,
    steps_per_round: int = 500_000,
    graph: Mapping[str, Mapping[str, float]] | None = None,
) -> CoordinatorSettings:
    return CoordinatorSettings(
        run_id=RUN_ID,
        agreement=agreement,
        peers=tuple(peers),
        first_step=first_step,
        batch_digest=batch_digest,
        deadline_s=deadline_s,
        join_deadline_s=join_deadline_s,
        evaluation_deadline_s=evaluation_deadline_s,
        plan=Plan(
            total_steps=total_steps,
            steps_per_round=steps_per_round,
            exchange_every_steps=every_steps,
        ),
        graph=graph,
    )


class Meeting:
    """A coordinator, its events, and who speaks as which process."""

    def __init__(
        self,
        given: CoordinatorSettings | None = None,
        now_s: float = 0.0,
        make: Callable[[int], SimilarityDistribution] = distribution,
    ) -> None:
        self.events: list[Event] = []
        self.coordinator = Coordinator(given or settings(), now_s, self.events.append)
        self.make = make

    def join(self, peer: PeerId, now_s: float = 0.0, incarnation: str | None = None) -> int:
        return self.coordinator.join(peer, incarnation or f"{peer}-1", AGREEMENT, now_s)

    def join_all(self, *peers: PeerId, now_s: float = 0.0) -> Meeting:
        for peer in peers or (ADA, BOB, CAT):
            self.join(peer, now_s)
        return self

    def offer(
        self,
        peer: PeerId,
        step: int,
        now_s: float = 0.0,
        *,
        seed: int | None = None,
        incarnation: str | None = None,
    ) -> SimilarityDistribution:
        given = self.make(seed_of(peer, step) if seed is None else seed)
        self.coordinator.offer(peer, incarnation or f"{peer}-1", ticket(step), given, now_s)
        return given

    def told(self) -> list[tuple[str, str, int, float]]:
        return [(event.kind, event.peer, event.step, event.at_s) for event in self.events]


def seed_of(peer: PeerId, step: int) -> int:
    """Returns a number that tells apart what each peer publishes at each step."""
    return 1000 * step + sum(peer.encode())


def joined(site, *peers, **options):
    """Returns a client of this site for each peer, which has joined."""
    ends = [site.client(peer, **options) for peer in peers]
    for end in ends:
        end.join(AGREEMENT)
    return ends


def swap(ends, step):
    """Lets all clients publish at a step; returns what each receives."""
    for seed, end in enumerate(ends):
        end.publish(ticket(step), distribution(10 * step + seed))
    return [end.collect(ticket(step)) for end in ends]
