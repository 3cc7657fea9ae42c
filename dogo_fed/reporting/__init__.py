"""What a run shows while it trains and what it leaves behind."""

from dogo_fed.reporting.live.view import LiveView
from dogo_fed.reporting.log_file import log_file
from dogo_fed.reporting.pictures.curves import draw_curves
from dogo_fed.reporting.score_sheet import ScoreSheet
from dogo_fed.reporting.scores import scores_table, write_sheet
from dogo_fed.reporting.sink import Sink, TeeSink
from dogo_fed.reporting.sinks.metrics import MetricsLog, read_metrics, read_records
from dogo_fed.reporting.sinks.records import record_from_json, record_to_json
from dogo_fed.reporting.sinks.tensorboard import TensorBoardSink
from dogo_fed.reporting.sinks.totals import ExchangeSummary, RunTotals
from dogo_fed.reporting.summary import (
    PeerSummary,
    RunSummary,
    build_summary,
    print_summary,
    summary_table,
    was_stopped,
)

__all__ = [
    "ExchangeSummary",
    "LiveView",
    "MetricsLog",
    "PeerSummary",
    "RunSummary",
    "RunTotals",
    "ScoreSheet",
    "Sink",
    "TeeSink",
    "TensorBoardSink",
    "build_summary",
    "draw_curves",
    "log_file",
    "print_summary",
    "read_metrics",
    "read_records",
    "record_from_json",
    "record_to_json",
    "scores_table",
    "summary_table",
    "was_stopped",
    "write_sheet",
]
