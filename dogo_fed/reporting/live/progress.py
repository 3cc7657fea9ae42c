"""What is known of a running run: the state behind the live view, without any drawing."""

from __future__ import annotations

import copy
import enum
import math
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from dogo_fed.contracts import Event, EventKind, PeerResult, Record, RoundReport, StepReport

_RECENT_STEPS = 50
_EVENTS_KEPT = 4


class Phase(enum.Enum):
    """What a peer is doing, for the live view."""

    STARTING = "starting"
    TRAINING = "training"
    FINISHED = "finished"
    LOST = "lost"


@dataclass(slots=True)
class PeerProgress:
    """The latest of one peer.

    Attributes:
        steps_done: the last reported step + 1.
        ssl_loss, mutual_kl: of the last step and the last exchange; mutual_kl is NaN if nobody
            taught this peer then.
        taught_at: the last step at which somebody taught it; -1 before.
        knn_top1, untrained: latest accuracy and the one of round 0; NaN if not measured.
        rankme: latest effective rank of the features; NaN if not measured.
        bytes_up, bytes_down: since this process started.
        recent: arrival (s), wait (s) and step time (s) of the last steps.
    """

    phase: Phase = Phase.STARTING
    steps_done: int = 0
    ssl_loss: float = math.nan
    mutual_kl: float = math.nan
    taught_at: int = -1
    knn_top1: float = math.nan
    untrained: float = math.nan
    rankme: float = math.nan
    bytes_up: int = 0
    bytes_down: int = 0
    recent: deque[tuple[float, float, float]] = field(
        default_factory=lambda: deque(maxlen=_RECENT_STEPS)
    )

    def steps_per_s(self) -> float:
        """Returns the rate of the last steps; NaN before the second."""
        if len(self.recent) < 2:
            return math.nan
        elapsed_s = self.recent[-1][0] - self.recent[0][0]
        return (len(self.recent) - 1) / elapsed_s if elapsed_s > 0 else math.nan

    def wait_share(self) -> float:
        """Returns the share of the last steps' time spent waiting for slower peers, 0 to 1."""
        step_s = sum(total_s for _, _, total_s in self.recent)
        return sum(wait_s for _, wait_s, _ in self.recent) / step_s if step_s > 0 else math.nan


class RunProgress:
    """Takes records and keeps what the live view shows. Not thread-safe: the view has the lock."""

    def __init__(
        self,
        peers: Sequence[str],
        total_steps: int,
        clock: Callable[[], float],
        exchange_every_steps: int = 1,
    ) -> None:
        self.peers = {name: PeerProgress() for name in peers}
        self.total_steps = total_steps
        self._exchange_every_steps = exchange_every_steps
        self.events: deque[Event] = deque(maxlen=_EVENTS_KEPT)
        self._clock = clock
        self._started: tuple[float, float] | None = None

    def take(self, record: Record) -> None:
        """Updates the peer that the record is about."""
        if isinstance(record, Event):
            self._take_event(record)
            return
        peer = self.peers.setdefault(record.peer, PeerProgress())
        if isinstance(record, StepReport):
            self._take_step(peer, record)
        elif isinstance(record, RoundReport):
            peer.knn_top1, peer.rankme = record.knn_top1, record.rankme
            if record.round == 0:
                peer.untrained = record.knn_top1
        elif isinstance(record, PeerResult):
            peer.knn_top1, peer.untrained = record.knn_top1, record.knn_top1_untrained
            peer.rankme = record.rankme
            peer.phase = Phase.FINISHED

    @property
    def has_accuracy(self) -> bool:
        """Whether accuracies are measured; if not, the rank of the features is shown instead."""
        peers = self.peers.values()
        return any(map(math.isfinite, (peer.knn_top1 for peer in peers))) or not any(
            map(math.isfinite, (peer.rankme for peer in peers))
        )

    def copy(self) -> RunProgress:
        """Returns a copy that further records do not change."""
        twin = copy.copy(self)
        twin.events = self.events.copy()
        twin.peers = {name: copy.copy(peer) for name, peer in self.peers.items()}
        for peer in twin.peers.values():
            peer.recent = peer.recent.copy()
        return twin

    def share_done(self) -> float:
        """Returns how much of the run is done, 0 to 1; peers that are lost do not count."""
        present = [peer for peer in self.peers.values() if peer.phase is not Phase.LOST]
        if not present or self.total_steps <= 0:
            return 0.0
        done = sum(min(peer.steps_done, self.total_steps) for peer in present)
        return done / (len(present) * self.total_steps)

    def elapsed_s(self) -> float:
        """Returns the seconds since the first step arrived; 0 before."""
        return 0.0 if self._started is None else self._clock() - self._started[0]

    def left_s(self) -> float:
        """Returns the seconds left at the mean pace so far; NaN if unknown."""
        if self._started is None:
            return math.nan
        progressed = self.share_done() - self._started[1]
        if progressed <= 0.0:
            return math.nan
        return self.elapsed_s() * (1.0 - self.share_done()) / progressed

    def _take_step(self, peer: PeerProgress, report: StepReport) -> None:
        now_s = self._clock()
        peer.steps_done = report.step + 1
        peer.ssl_loss = report.ssl_loss
        if report.num_teachers > 0:
            peer.mutual_kl, peer.taught_at = report.mutual_kl, report.step
        elif report.step - peer.taught_at >= self._exchange_every_steps:
            peer.mutual_kl = math.nan
        peer.bytes_up += report.bytes_up
        peer.bytes_down += report.bytes_down
        total_s = report.compute_s + report.wait_s + report.exchange_s
        peer.recent.append((now_s, report.wait_s, total_s))
        if peer.phase in (Phase.STARTING, Phase.LOST):
            peer.phase = Phase.TRAINING
        if self._started is None:
            self._started = (now_s, self.share_done())

    def _take_event(self, event: Event) -> None:
        self.events.append(event)
        if event.kind == EventKind.PEER_LOST and event.peer in self.peers:
            self.peers[event.peer].phase = Phase.LOST
        elif event.kind == EventKind.PEER_REJOINED and event.peer in self.peers:
            self.peers[event.peer].phase = Phase.TRAINING
