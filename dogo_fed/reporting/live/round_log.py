"""The live view without a terminal: one log line when a round is complete, and events at once."""

from __future__ import annotations

import heapq
import logging
import math

from dogo_fed.contracts import Event, EventKind, Record, RoundReport
from dogo_fed.reporting.live.progress import Phase, RunProgress
from dogo_fed.reporting.units import human_seconds, number, percent

logger = logging.getLogger(__name__)


class RoundLog:
    """Gathers the round reports of all peers and logs each round once."""

    def __init__(self, title: str, total_steps: int) -> None:
        self._title = title
        self._total_steps = total_steps
        self._open: dict[int, dict[str, RoundReport]] = {}
        self._waiting: list[int] = []  # the numbers of the open rounds, as a heap
        self._closed: set[int] = set()
        self._latest: dict[str, int] = {}

    def take(self, record: Record, progress: RunProgress) -> None:
        """Logs an event, or a round that this record completes.

        A round is complete when every peer that isn't lost has reported it or a later one.
        """
        if isinstance(record, Event):
            level = logging.WARNING if record.kind == EventKind.PEER_LOST else logging.INFO
            logger.log(level, "%s step=%d: %s", self._title, record.step, record.message)
        elif isinstance(record, RoundReport):
            self._take_round(record)
        else:
            return
        self._log_rounds(self._complete_until(progress), progress)

    def finish(self, progress: RunProgress) -> None:
        """Logs the rounds that were never completed."""
        self._log_rounds(math.inf, progress)

    def _take_round(self, report: RoundReport) -> None:
        if report.round in self._closed:
            return
        if report.round not in self._open:
            heapq.heappush(self._waiting, report.round)
        self._open.setdefault(report.round, {})[report.peer] = report
        self._latest[report.peer] = max(report.round, self._latest.get(report.peer, 0))

    def _complete_until(self, progress: RunProgress) -> float:
        """Returns the last round that all peers have reported which are not lost."""
        present = (name for name, peer in progress.peers.items() if peer.phase is not Phase.LOST)
        return min((self._latest.get(name, -1) for name in present), default=math.inf)

    def _log_rounds(self, last: float, progress: RunProgress) -> None:
        # A heap, so that a record costs little however many rounds are open.
        while self._waiting and self._waiting[0] <= last:
            self._log_round(heapq.heappop(self._waiting), progress)

    def _log_round(self, round_number: int, progress: RunProgress) -> None:
        reports = self._open.pop(round_number)
        self._closed.add(round_number)
        step = max(report.step for report in reports.values())
        logger.info(
            "%s round=%d step=%d/%d left=%s | %s",
            self._title,
            round_number,
            step,
            self._total_steps,
            human_seconds(progress.left_s()),
            " | ".join(_peer_part(name, reports[name], progress) for name in sorted(reports)),
        )


def _peer_part(name: str, report: RoundReport, progress: RunProgress) -> str:
    """Returns one peer's numbers for a line."""
    peer = progress.peers[name]
    has_accuracy = progress.has_accuracy
    how_good = f"kNN {percent(report.knn_top1)}" if has_accuracy else _health(report)
    return (
        f"{name}: {how_good}, SSL {number(peer.ssl_loss)}, "
        f"KL {number(peer.mutual_kl)}, waiting {percent(peer.wait_share(), 0)}"
    )


def _health(report: RoundReport) -> str:
    return (
        f"rank {number(report.rankme, 1)}, spread {number(report.feature_std)}, "
        f"alignment {number(report.alignment)}, uniformity {number(report.uniformity)}"
    )
