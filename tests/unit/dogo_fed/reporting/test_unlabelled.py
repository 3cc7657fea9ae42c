"""A run on images without labels shows the health of the features where accuracies would be."""

from __future__ import annotations

import dataclasses
import io
import logging
import math

import pytest
from PIL import Image
from rich.console import Console

from dogo_fed.contracts import PeerId, PeerResult, RoundReport, StepReport
from dogo_fed.reporting.live.progress import RunProgress
from dogo_fed.reporting.live.round_log import RoundLog
from dogo_fed.reporting.live.table import render
from dogo_fed.reporting.pictures.curves import draw_curves
from dogo_fed.reporting.pictures.panels import draw_accuracy
from dogo_fed.reporting.pictures.series import collect_series
from dogo_fed.reporting.sinks.records import record_from_json, record_to_json
from dogo_fed.reporting.sinks.totals import RunTotals
from dogo_fed.reporting.summary import build_summary, print_summary

NAN = math.nan
ADA = PeerId("ada")
STEP = StepReport(ADA, 1, 0, 5.0, 0.5, 1, 0.2, 0.05, 0.01, 1000, 2000)
ROUNDS = [
    RoundReport(ADA, number, 10 * number, NAN, 0.5, 0.6, 12.5 + number, 0.25, -1.5)
    for number in range(3)
]
RESULT = PeerResult(
    ADA, "cnn", "simclr", 9, NAN, NAN, NAN, 2.0, 0.2, "d19e57", 20, 0.6, 14.5, 0.25, -1.5, 12.5
)


def printed(summary, width):
    console = Console(width=width, file=io.StringIO())
    print_summary(summary, console)
    return console.file.getvalue()


@pytest.mark.parametrize("width", [160, 80])
@pytest.mark.parametrize("is_finished", [True, False])
def test_the_table_at_the_end(width, is_finished):
    totals = RunTotals({"ada": ("cnn", "simclr")})
    for record in [STEP, *ROUNDS, *([RESULT] if is_finished else [])]:
        totals.emit(record)
    summary = build_summary("r1", 0, "local", 20, 1.0, True, totals)
    text = printed(summary, width)
    for expected in ("rank untrained -> trained", "12.5 -> 14.5", "spread", "0.600", "-1.500"):
        assert expected in text
    assert "kNN" not in text and "linear" not in text
    part = summary["peers" if is_finished else "unfinished"]["ada"]
    assert (part["rankme"], part["rankme_untrained"], part["knn_top1"]) == (14.5, 12.5, None)


def test_accuracies_come_first_where_both_are_known():
    totals = RunTotals()
    totals.emit(dataclasses.replace(RESULT, knn_top1=0.5, linear_top1=0.6, knn_top1_untrained=0.1))
    text = printed(build_summary("r1", 0, "local", 20, 1.0, True, totals), 160)
    assert "10.0 % -> 50.0 %" in text and "spread" not in text


def test_the_live_view_and_the_log_of_rounds(caplog):
    progress = RunProgress(["ada"], 20, lambda: 1.0)
    log = RoundLog("r1", 20)
    with caplog.at_level(logging.INFO):
        for record in (STEP, *ROUNDS):
            progress.take(record)
            log.take(record, progress)
    console = Console(width=100, file=io.StringIO())
    console.print(render("r1", progress, 100))
    shown = console.file.getvalue()
    assert "rank" in shown and "14.5" in shown and "kNN" not in shown
    assert "ada: rank 14.5, spread 0.600, alignment 0.250, uniformity -1.500, SSL" in caplog.text


def test_the_picture_shows_the_rank(tmp_path):
    from matplotlib.figure import Figure

    peers, _ = collect_series([STEP, *ROUNDS, RESULT])
    figure = Figure()
    (axes,) = draw_accuracy(figure, figure.add_gridspec(1, 1)[0, 0], peers, {"ada": "#000000"})
    assert axes.get_title(loc="left") == "Effective rank of the features"
    assert any(list(line.get_ydata()) == [12.5, 13.5, 14.5] for line in axes.get_lines())
    draw_curves([STEP, *ROUNDS, RESULT], tmp_path / "curves.png", "r1")
    with Image.open(tmp_path / "curves.png") as picture:
        assert picture.size[0] > 1000


def test_records_are_read_as_they_were_and_older_ones_too():
    assert record_from_json(record_to_json(ROUNDS[1])) == ROUNDS[1]
    older = {"type": "round", "peer": "ada", "round": 1, "step": 9, "knn_top1": 0.5, "seconds": 1.0}
    assert record_from_json(older).knn_top1 == 0.5
    assert math.isnan(record_from_json(older).rankme)
