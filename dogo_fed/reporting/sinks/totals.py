"""The totals of a run, from which summary.json is made."""

from __future__ import annotations

import math
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypedDict

from dogo_fed.contracts import Event, PeerResult, Record, RoundReport, StepReport
from dogo_fed.reporting.sink import Sink


class ExchangeSummary(TypedDict):
    """What the exchange cost.

    Attributes:
        bytes_up, bytes_down: of the whole run, all peers together.
        bytes_up_per_step, bytes_down_per_step: means per peer and step.
        wait_fraction, exchange_fraction: of the step time.
    """

    enabled: bool
    bytes_up: int
    bytes_down: int
    bytes_up_per_step: float
    bytes_down_per_step: float
    wait_fraction: float
    exchange_fraction: float


@dataclass(slots=True)
class Reached:
    """How far a peer has come by its reports, whether or not it has a result.

    Attributes:
        steps_done: the last reported step + 1.
        steps_trained: number of reported steps.
        ssl_loss, mutual_kl: of the last step.
        knn_top1, knn_top1_untrained: of the last evaluation and of the one before training.
        feature_std, rankme, alignment, uniformity, rankme_untrained: likewise.
    """

    steps_done: int = 0
    steps_trained: int = 0
    ssl_loss: float = math.nan
    mutual_kl: float = math.nan
    knn_top1: float = math.nan
    knn_top1_untrained: float = math.nan
    feature_std: float = math.nan
    rankme: float = math.nan
    alignment: float = math.nan
    uniformity: float = math.nan
    rankme_untrained: float = math.nan

    def take(self, report: RoundReport) -> None:
        """Notes an evaluation."""
        self.knn_top1, self.rankme = report.knn_top1, report.rankme
        self.feature_std = report.feature_std
        self.alignment, self.uniformity = report.alignment, report.uniformity
        if report.round == 0:
            self.knn_top1_untrained, self.rankme_untrained = report.knn_top1, report.rankme


class RunTotals(Sink):
    """A sink that adds up what the summary needs; its memory does not grow with the steps.

    After a resume, feed it the records of the truncated metrics.jsonl first. Records may come from
    several threads; read the attributes when they have stopped.
    """

    def __init__(self, peers: Mapping[str, tuple[str, str]] | None = None) -> None:
        """Begins with nothing.

        Args:
            peers: backbone and objective of each peer, for those that end without a result.
        """
        self.peers = dict(peers or {})
        self.reached: dict[str, Reached] = {name: Reached() for name in self.peers}
        self.results: dict[str, PeerResult] = {}
        self.events: list[Event] = []
        self.num_reports = 0
        self.bytes_up = 0
        self.bytes_down = 0
        self.compute_s = 0.0
        self.wait_s = 0.0
        self.exchange_s = 0.0
        self._lock = threading.Lock()  # records come from the peers' and the coordinator's threads

    def emit(self, record: Record) -> None:
        """Takes one record; a later result of a peer replaces the earlier one."""
        with self._lock:
            if isinstance(record, StepReport):
                self._add(record)
            elif isinstance(record, RoundReport):
                self.reached.setdefault(record.peer, Reached()).take(record)
            elif isinstance(record, PeerResult):
                self.results[record.peer] = record
            elif isinstance(record, Event):
                self.events.append(record)

    def _add(self, report: StepReport) -> None:
        reached = self.reached.setdefault(report.peer, Reached())
        reached.steps_done = max(reached.steps_done, report.step + 1)
        reached.steps_trained += 1
        reached.ssl_loss, reached.mutual_kl = report.ssl_loss, report.mutual_kl
        self.num_reports += 1
        self.bytes_up += report.bytes_up
        self.bytes_down += report.bytes_down
        self.compute_s += report.compute_s
        self.wait_s += report.wait_s
        self.exchange_s += report.exchange_s

    def exchange(self, enabled: bool) -> ExchangeSummary:
        """Returns the means and shares over all peers' steps; 0 if there was no step."""
        num_reports = max(self.num_reports, 1)
        step_s = self.compute_s + self.wait_s + self.exchange_s
        return ExchangeSummary(
            enabled=enabled,
            bytes_up=self.bytes_up,
            bytes_down=self.bytes_down,
            bytes_up_per_step=self.bytes_up / num_reports,
            bytes_down_per_step=self.bytes_down / num_reports,
            wait_fraction=self.wait_s / step_s if step_s > 0.0 else 0.0,
            exchange_fraction=self.exchange_s / step_s if step_s > 0.0 else 0.0,
        )
