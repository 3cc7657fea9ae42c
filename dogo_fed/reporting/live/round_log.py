"""The live view without a terminal: one log line when a round is complete, and events at once."""

from __future__ import annotations

import logging

from dogo_fed.contracts import Event, Record, RoundReport
from dogo_fed.reporting.live.progress import Phase, RunProgress
from dogo_fed.reporting.units import human_seconds, number, percent

_logger = logging.getLogger(__name__)


class RoundLog:
    """Gathers the round reports of all peers and logs each round once."""

    def __init__(self, title: str, total_steps: int) -> None:
        self._title = title
        self._total_steps = total_steps
        self._open: dict[int, dict[str, RoundReport]] = {}
        self._closed: set[int] = set()
        self._latest: dict[str, int] = {}

    def take(self, record: Record, progress: RunProgress) -> None:
        """Logs an event, or a round that this record completes.

        A round is complete when every peer that isn't lost has reported it or a later one.
        """
        if isinstance(record, Event):
            level = logging.WARNING if record.kind == "peer_lost" else logging.INFO
            _logger.log(level, "%s step=%d: %s", self._title, record.step, record.message)
        elif isinstance(record, RoundReport) and record.round not in self._closed:
            self._open.setdefault(record.round, {})[record.peer] = record
            self._latest[record.peer] = max(record.round, self._latest.get(record.peer, 0))
        for round_number in sorted(self._open):
            if self._is_complete(round_number, progress):
                self._log_round(round_number, progress)

    def finish(self, progress: RunProgress) -> None:
        """Logs the rounds that were never completed."""
        for round_number in sorted(self._open):
            self._log_round(round_number, progress)

    def _is_complete(self, round_number: int, progress: RunProgress) -> bool:
        return all(
            self._latest.get(name, -1) >= round_number
            for name, peer in progress.peers.items()
            if peer.phase is not Phase.LOST
        )

    def _log_round(self, round_number: int, progress: RunProgress) -> None:
        reports = self._open.pop(round_number)
        self._closed.add(round_number)
        step = max(report.step for report in reports.values())
        _logger.info(
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
    return (
        f"{name}: kNN {percent(report.knn_top1)}, SSL {number(peer.ssl_loss)}, "
        f"KL {number(peer.mutual_kl)}, waiting {percent(peer.wait_share(), 0)}"
    )
