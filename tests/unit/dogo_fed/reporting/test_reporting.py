"""What a run shows and leaves: records that are whole, numbers that add up, pictures that are drawn."""

from __future__ import annotations

import dataclasses
import errno
import io
import itertools
import json
import logging
import math
import os
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from dogo_fed import layout
from dogo_fed.atomic import append_whole, write_json_atomic
from dogo_fed.contracts import (
    Event,
    PeerId,
    PeerResult,
    Record,
    RoundReport,
    StepReport,
)
from dogo_fed.errors import CheckpointError
from dogo_fed.reporting.live.view import LiveView
from dogo_fed.reporting.log_file import log_file
from dogo_fed.reporting.pictures.canvas import spread
from dogo_fed.reporting.pictures.curves import draw_curves
from dogo_fed.reporting.pictures.series import at_exchanges, collect_series, smoothed
from dogo_fed.reporting.sink import Sink, TeeSink
from dogo_fed.reporting.sinks import metrics
from dogo_fed.reporting.sinks.metrics import (
    MetricsLog,
    read_metrics,
    read_records,
)
from dogo_fed.reporting.sinks.records import record_from_json, record_to_json
from dogo_fed.reporting.sinks.tensorboard import TensorBoardSink
from dogo_fed.reporting.sinks.totals import RunTotals
from dogo_fed.reporting.summary import build_summary, print_summary, read_summary
from dogo_fed.reporting.units import human_bytes, human_seconds
from tests.support.distributions import KeepingSink

HEALTH = ("feature_std", "rankme", "alignment", "uniformity", "rankme_untrained")


class FullDisk:
    """A file that takes so many bytes more, and then says that the disk is full."""

    def __init__(self, file: Any, num_bytes: int) -> None:
        self._file, self.num_bytes = file, num_bytes

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def write(self, data: bytes) -> int:
        taken = min(len(data), self.num_bytes)
        if taken == 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        self.num_bytes -= taken
        return int(self._file.write(data[:taken]))


class FailingStream(io.StringIO):
    """A stream that can't be written."""

    def __init__(self, code: int) -> None:
        super().__init__()
        self._code = code

    def write(self, text: str) -> int:
        raise OSError(self._code, "no")


def step_report(peer: str = "ada", step: int = 0, **changes: object) -> StepReport:
    fields: dict[str, object] = {
        "round": step // 10 + 1,
        "ssl_loss": 5.0,
        "mutual_kl": 0.5,
        "num_teachers": 1,
        "compute_s": 0.2,
        "wait_s": 0.05,
        "exchange_s": 0.01,
        "bytes_up": 1000,
        "bytes_down": 2000,
    }
    return StepReport(peer=PeerId(peer), step=step, **{**fields, **changes})  # type: ignore[arg-type]


def round_report(peer: str = "ada", number: int = 0, knn_top1: float = 0.25) -> RoundReport:
    return RoundReport(PeerId(peer), number, 10 * number, knn_top1, 0.5)


def result(peer: str = "ada") -> PeerResult:
    return PeerResult(
        PeerId(peer), "resnet18", "simclr", 1_500_000, 0.75, 0.8, 0.25, 4.5, 0.125, "ab" * 32, 20
    )


def lost(peer: str = "ada", step: int = 12) -> Event:
    return Event("peer_lost", f"peer {peer} is not heard of", peer, step, 3.0)


def whole_run(num_peers: int, num_teachers: int) -> list[Record]:
    records: list[Record] = []
    names = [f"peer-{i}" for i in range(num_peers)]
    for number in range(3):
        records += [round_report(name, number, 0.2 + 0.1 * number) for name in names]
        steps = range(10 * number, 10 * number + 10) if number < 2 else range(0)
        records += [
            step_report(name, step, ssl_loss=-0.5 if i % 2 else 4.0, num_teachers=num_teachers)
            for step in steps
            for i, name in enumerate(names)
        ]
    return [*records, *(result(name) for name in names)]


def emitting_threads(sink: Sink, num_steps: int) -> list[threading.Thread]:
    def emit_all(name: str) -> None:
        for step in range(num_steps):
            sink.emit(step_report(name, step))

    return [threading.Thread(target=emit_all, args=(name,)) for name in ("ada", "bob", "eve")]


class TestRecords:
    @pytest.mark.parametrize(
        ("record", "name"),
        [
            (step_report(), "step"),
            (round_report(), "round"),
            (result(), "result"),
            (lost(), "event"),
        ],
    )
    def test_come_back_as_they_were(self, record: Record, name: str) -> None:
        entry = json.loads(json.dumps(record_to_json(record)))
        assert entry["type"] == name
        assert record_from_json(entry) == record

    def test_nan_is_null_in_the_file_and_nan_again_afterwards(self) -> None:
        entry = record_to_json(step_report(mutual_kl=math.nan, ssl_loss=math.inf))
        assert entry["mutual_kl"] is None and entry["ssl_loss"] is None
        again = record_from_json(entry)
        assert isinstance(again, StepReport)
        assert math.isnan(again.mutual_kl)

    @pytest.mark.parametrize(
        "entry",
        [
            {},
            {"type": "weights"},
            {"type": "round", "step": 3},
            {"type": "event", "kind": "party", "message": "of another version"},
        ],
    )
    def test_refuses_what_it_does_not_know(self, entry: dict[str, object]) -> None:
        with pytest.raises(CheckpointError, match="another version"):
            record_from_json(entry)


class TestMetricsLog:
    def write(self, path: Path, records: list[Record]) -> None:
        log = MetricsLog(path)
        for record in records:
            log.emit(record)
        log.close()

    def test_every_record_is_a_line_at_once(self, tmp_path: Path) -> None:
        path = tmp_path / "metrics.jsonl"
        log = MetricsLog(path)
        log.emit(step_report())
        assert len(path.read_text().splitlines()) == 1
        log.emit(lost())
        assert [entry["type"] for entry in read_metrics(path)] == ["step", "event"]
        log.close()
        log.close()

    def test_a_sign_of_life_renews_the_files_time_and_adds_nothing(self, tmp_path: Path) -> None:
        log = MetricsLog(tmp_path / "metrics.jsonl")
        log.emit(step_report())
        before = (tmp_path / "metrics.jsonl").read_bytes()
        os.utime(tmp_path / "metrics.jsonl", (1.0, 1.0))
        log.alive()
        assert (tmp_path / "metrics.jsonl").stat().st_mtime > 1e9
        assert (tmp_path / "metrics.jsonl").read_bytes() == before
        log.close()
        log.alive()  # a late one does no harm

    def test_opening_again_appends(self, tmp_path: Path) -> None:
        path = tmp_path / "metrics.jsonl"
        self.write(path, [step_report(step=0)])
        self.write(path, [step_report(step=1)])
        assert read_records(path) == [step_report(step=0), step_report(step=1)]

    @pytest.mark.parametrize("torn", ['{"type":"step","pe', "{", '{"a":1}garbage', "\0\0\0\n"])
    def test_half_a_line_at_the_end_is_forgotten(self, tmp_path: Path, torn: str) -> None:
        path = tmp_path / "metrics.jsonl"
        self.write(path, [step_report(step=0), step_report(step=1)])
        with path.open("a") as file:
            file.write(torn)
        assert len(read_metrics(path)) == 2
        self.write(path, [step_report(step=2)])
        assert read_records(path) == [step_report(step=i) for i in range(3)]

    def test_a_broken_line_in_the_middle_is_an_error(self, tmp_path: Path) -> None:
        path = tmp_path / "metrics.jsonl"
        self.write(path, [step_report(step=0)])
        path.write_text('{"type":"st\n' + path.read_text())
        with pytest.raises(CheckpointError, match="line 1"):
            read_metrics(path)
        with pytest.raises(CheckpointError, match="can't be read"):
            read_metrics(tmp_path / "missing.jsonl")

    def test_truncation_drops_what_will_be_done_again(self, tmp_path: Path) -> None:
        path = tmp_path / "metrics.jsonl"
        kept: list[Record] = [
            round_report(number=0),
            step_report(step=9),
            round_report(number=1),
            lost(step=12),
        ]
        gone: list[Record] = [step_report(step=10), round_report(number=2), result()]
        self.write(path, [kept[0], kept[1], gone[0], kept[2], gone[1], kept[3], gone[2]])
        with path.open("a") as file:
            file.write('{"type":"step","peer":"a')
        log = MetricsLog(path)
        log.truncate_after({"ada": 10})
        assert read_records(path) == kept
        log.emit(step_report(step=10))
        log.close()
        assert read_records(path) == [*kept, step_report(step=10)]
        assert list(tmp_path.iterdir()) == [path]

    def test_each_peer_keeps_what_it_will_not_do_again(self, tmp_path: Path) -> None:
        path = tmp_path / "metrics.jsonl"
        steps = [step_report(peer, step) for step in range(4) for peer in ("ada", "bob", "cat")]
        self.write(path, steps)
        log = MetricsLog(path)
        log.truncate_after({"ada": 3, "bob": 1})
        log.close()
        left = [(one.peer, one.step) for one in read_records(path)]
        assert left == [("ada", 0), ("bob", 0), ("ada", 1), ("ada", 2)]

    def test_on_a_full_disk_no_record_is_lost_and_no_half_line_left(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        monkeypatch.setattr(metrics, "_TRY_AGAIN_S", 0.0)
        path = tmp_path / "metrics.jsonl"
        log = MetricsLog(path)
        log.emit(step_report(step=0))
        room = FullDisk(log._file, num_bytes=100)
        log._file = room  # type: ignore[assignment]
        for step in (1, 2, 3):
            log.emit(step_report(step=step))
            assert [one.step for one in read_records(path)] == [0]
            assert path.read_bytes().endswith(b"\n")
        assert caplog.text.count("no room for metrics.jsonl in") == 1
        room.num_bytes = 10_000
        log.emit(step_report(step=4))
        assert [one.step for one in read_records(path)] == [0, 1, 2, 3, 4]
        room.num_bytes = 0
        log.emit(step_report(step=5))
        log.close()
        assert "1 records are not in" in caplog.text

    @pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux keeps room")
    def test_room_is_kept_for_what_is_still_to_come(self, tmp_path: Path) -> None:
        """On a full disk peers may save themselves, and so never report these steps again."""
        path, kept = tmp_path / "metrics.jsonl", 2**20

        def on_disk() -> int:
            return path.stat().st_blocks * 512

        log = MetricsLog(path, reserve_bytes=kept)
        if on_disk() < kept:
            pytest.skip("this disk keeps no room")
        for step in range(5):
            log.emit(step_report(step=step))
        assert [one.step for one in read_records(path)] == [0, 1, 2, 3, 4]
        assert kept <= on_disk() < 2 * kept, "they took room that was there"
        log.truncate_after({"ada": 3})
        assert on_disk() >= kept, "and a run that goes on keeps some as well"
        log.close()
        assert on_disk() < 10_000 and list(tmp_path.iterdir()) == [path]

    def test_a_log_on_a_full_disk_shows_no_traceback(
        self, tmp_path: Path, capfd: pytest.CaptureFixture[str]
    ) -> None:
        logger = logging.getLogger("dogo_fed.test")
        for code, is_shown in ((errno.ENOSPC, False), (errno.EIO, True)):
            with log_file(tmp_path / "log", ["dogo_fed"]):
                (handler,) = logging.getLogger("dogo_fed").handlers
                handler.setStream(FailingStream(code)).close()  # type: ignore[attr-defined]
                logger.error("hello")
            assert ("Traceback" in capfd.readouterr().err) == is_shown

    def test_threads_do_not_mix_their_lines(self, tmp_path: Path) -> None:
        path = tmp_path / "metrics.jsonl"
        log = MetricsLog(path)
        emitters = emitting_threads(log, num_steps=100)
        for emitter in emitters:
            emitter.start()
        for emitter in emitters:
            emitter.join()
        log.close()
        records = read_records(path)
        assert len(records) == 300
        ada = [r.step for r in records if isinstance(r, StepReport) and r.peer == "ada"]
        assert ada == list(range(100))


class TestTeeSink:
    class Recorder:
        def __init__(self, error: str = "") -> None:
            self.records: list[Record] = []
            self.is_closed = False
            self.error = error

        def emit(self, record: Record) -> None:
            self.records.append(record)

        def close(self) -> None:
            self.is_closed = True
            if self.error:
                raise OSError(self.error)

    def test_passes_on_and_closes_all_even_if_one_fails(self) -> None:
        sinks = [self.Recorder(), self.Recorder("disk full"), self.Recorder()]
        tee = TeeSink(*sinks)
        tee.emit(lost())
        with pytest.raises(OSError, match="disk full"):
            tee.close()
        assert all(sink.records == [lost()] and sink.is_closed for sink in sinks)

    def test_a_sign_of_life_reaches_all_and_one_wish_to_stop_is_enough(self) -> None:
        sinks = [KeepingSink(), KeepingSink()]
        tee = TeeSink(*sinks)
        tee.alive()
        assert [sink.signs_of_life for sink in sinks] == [1, 1]
        assert not tee.stop_requested()
        sinks[1].stop_requested = lambda: True  # type: ignore[method-assign]
        assert tee.stop_requested()

    def test_a_sink_that_fails_keeps_no_record_from_the_others(self) -> None:
        class Full(Sink):
            def emit(self, record: Record) -> None:
                raise OSError("disk full")

        first, last = self.Recorder(), self.Recorder()
        with pytest.raises(OSError, match="disk full"):
            TeeSink(first, Full(), last).emit(lost())
        assert first.records == last.records == [lost()]


class TestSummary:
    def totals(self) -> RunTotals:
        totals = RunTotals()
        totals.emit(step_report("ada", 0, compute_s=1.0, wait_s=2.0, exchange_s=1.0, bytes_up=10))
        totals.emit(step_report("ada", 1, compute_s=1.0, wait_s=0.0, exchange_s=1.0, bytes_up=20))
        totals.emit(step_report("bob", 0, compute_s=3.0, wait_s=0.0, exchange_s=1.0, bytes_up=60))
        totals.emit(result("bob"))
        totals.emit(result("ada"))
        totals.emit(lost())
        return totals

    def test_numbers_by_hand(self) -> None:
        summary = build_summary("r1", 7, "ray", 20, 12.5, True, self.totals())
        assert summary["exchange"] == {
            "enabled": True,
            "bytes_up": 90,
            "bytes_down": 6000,
            "bytes_up_per_step": 30.0,
            "bytes_down_per_step": 2000.0,
            "wait_fraction": 0.2,
            "exchange_fraction": 0.3,
        }

    def test_what_was_written_is_read(self, tmp_path: Path) -> None:
        summary = build_summary("r1", 7, "ray", 20, 12.5, True, self.totals())
        write_json_atomic(tmp_path / layout.SUMMARY, summary)
        assert read_summary(tmp_path) == summary

    @pytest.mark.parametrize(
        "text",
        [
            None,
            "",
            "{",
            "[" * 100_000,
            "[]",
            '{"peers": {}, "events": []}',
            '{"wall_s": "1", "peers": {}, "events": []}',
            '{"wall_s": 1, "peers": {"ada": 3}, "events": []}',
            '{"wall_s": 1, "peers": {}, "events": [{}]}',
        ],
    )
    def test_what_is_no_summary_is_none(self, tmp_path: Path, text: str | None) -> None:
        if text is not None:
            (tmp_path / layout.SUMMARY).write_text(text)
        assert read_summary(tmp_path) is None

    def test_has_exactly_the_promised_keys(self, tmp_path: Path) -> None:
        write_json_atomic(
            tmp_path / "s.json", build_summary("r1", 7, "ray", 20, 12.5, True, self.totals())
        )
        summary = json.loads((tmp_path / "s.json").read_text())
        assert list(summary) == [
            "run_id", "seed", "host", "steps", "steps_done", "wall_s", "peers", "unfinished",
            "exchange", "variants", "step_ms", "provenance", "events",
        ]  # fmt: skip
        assert summary["variants"] == {}
        assert list(summary["peers"]) == ["ada", "bob"]
        assert summary["peers"]["ada"] == {
            "backbone": "resnet18",
            "objective": "simclr",
            "parameters": 1_500_000,
            "knn_top1": 0.75,
            "linear_top1": 0.8,
            "knn_top1_untrained": 0.25,
            "ssl_loss": 4.5,
            "mutual_kl": 0.125,
            "state_digest": "ab" * 32,
            "steps_trained": 20,
            **dict.fromkeys(HEALTH),
        }
        assert summary["events"] == [
            {
                "kind": "peer_lost",
                "message": "peer ada is not heard of",
                "peer": "ada",
                "step": 12,
                "at_s": 3.0,
            }
        ]

    def test_a_stopped_run_tells_how_far_it_came_and_not_what_was_planned(self) -> None:
        totals = RunTotals({"ada": ("resnet18", "simclr"), "bob": ("cnn", "simsiam")})
        for record in (
            round_report("ada", 0, 0.25),
            step_report("ada", 0),
            step_report("ada", 7, ssl_loss=3.5),
            round_report("ada", 1, 0.5),
        ):
            totals.emit(record)
        summary = build_summary("r1", 0, "ray", 400, 12.5, True, totals)
        assert (summary["steps"], summary["steps_done"], summary["peers"]) == (400, 8, {})
        assert summary["unfinished"]["ada"] == {
            "backbone": "resnet18", "objective": "simclr", "steps_done": 8, "steps_trained": 2,
            "ssl_loss": 3.5, "mutual_kl": 0.5, "knn_top1": 0.5, "knn_top1_untrained": 0.25,
            **dict.fromkeys(HEALTH),
        }  # fmt: skip
        assert summary["unfinished"]["bob"]["steps_done"] == 0
        for width in (160, 80):
            console = Console(width=width, file=io.StringIO())
            print_summary(summary, console)
            shown = console.file.getvalue()
            assert "8 of 400 steps" in shown and "25.0 % -> 50.0 %" in shown and "ada" in shown
            assert "unfinished" in shown

    def test_a_resumed_run_has_the_totals_of_an_uninterrupted_one(self, tmp_path: Path) -> None:
        records = whole_run(2, num_teachers=1)
        straight = RunTotals()
        for record in records:
            straight.emit(record)
        log = MetricsLog(tmp_path / "metrics.jsonl")
        for record in records[: len(records) // 2]:
            log.emit(record)
        log.truncate_after({"peer-0": 10, "peer-1": 10})
        log.close()
        resumed = RunTotals()
        for record in read_records(tmp_path / "metrics.jsonl"):
            resumed.emit(record)
        for record in records:
            if isinstance(record, PeerResult) or (
                isinstance(record, StepReport) and record.step >= 10
            ):
                resumed.emit(record)
        assert resumed.num_reports == straight.num_reports == 40
        summaries = [build_summary("r", 0, "h", 20, 1.0, True, t) for t in (straight, resumed)]
        assert summaries[0]["exchange"] == pytest.approx(summaries[1]["exchange"])
        assert summaries[0]["peers"] == summaries[1]["peers"]

    def test_a_run_without_steps_or_numbers_is_no_error(self) -> None:
        totals = RunTotals()
        totals.emit(dataclasses.replace(result("a"), knn_top1=math.nan, mutual_kl=math.nan))
        summary = build_summary("r", 0, "h", 0, 0.0, False, totals)
        assert summary["peers"]["a"]["knn_top1"] is None
        assert summary["exchange"]["wait_fraction"] == 0.0
        console = Console(file=io.StringIO(), width=200)
        print_summary(summary, console)

    @pytest.mark.parametrize("width", [80, 160])
    def test_the_table_tells_before_and_after(self, width: int) -> None:
        console = Console(file=io.StringIO(), width=width)
        print_summary(build_summary("r1", 7, "ray", 20, 125.0, True, self.totals()), console)
        text = console.file.getvalue()  # type: ignore[attr-defined]
        for part in ("25.0 % -> 75.0 %", "+50.0", "80.0 %", "0.125", "ada", "bob", "2 min 05 s"):
            assert part in text
        assert "peer ada is not heard of" in text
        assert "variant" not in text
        assert max(map(len, text.splitlines())) <= width

    def test_every_variant_that_is_on_is_in_the_summary_and_below_the_table(self) -> None:
        variants = {
            "exchange.symmetric": True,
            "exchange.graph": {"ada": {"bob": 1.5}},
            "peers.ada.distill_reduction": "mean_over_elements",
        }
        summary = build_summary("r1", 7, "ray", 20, 125.0, True, self.totals(), variants)
        assert summary["variants"] == variants
        console = Console(file=io.StringIO(), width=160)
        print_summary(summary, console)
        lines = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
        assert [line.rstrip() for line in lines if line.startswith("variant")] == [
            "variant: exchange.symmetric=true",
            'variant: exchange.graph={"ada": {"bob": 1.5}}',
            "variant: peers.ada.distill_reduction=mean_over_elements",
        ]


class TestCurves:
    @pytest.mark.parametrize(("num_peers", "num_teachers"), [(1, 0), (2, 1), (8, 7), (3, 0)])
    def test_draws_any_number_of_peers(
        self, tmp_path: Path, num_peers: int, num_teachers: int
    ) -> None:
        path = tmp_path / "curves.png"
        draw_curves([*whole_run(num_peers, num_teachers), lost("peer-0")], path, "a run")
        assert path.read_bytes().startswith(b"\x89PNG")
        assert path.stat().st_size > 20_000
        assert list(tmp_path.iterdir()) == [path]

    @pytest.mark.parametrize(
        "records",
        [
            [],
            [round_report()],
            [step_report()],
            [lost()],
            [step_report(ssl_loss=math.nan, mutual_kl=math.nan), round_report(knn_top1=math.nan)],
        ],
    )
    def test_draws_whatever_there_is(self, tmp_path: Path, records: list[Record]) -> None:
        draw_curves(records, tmp_path / "curves.png", "a run")
        assert (tmp_path / "curves.png").stat().st_size > 5_000

    @pytest.mark.parametrize(
        "odd",
        [
            step_report(step=2**28),
            step_report(step=2**64 - 1),
            step_report(compute_s=1e308, wait_s=1e308),
            step_report(ssl_loss=1e308, mutual_kl=-1e308),
            step_report(ssl_loss=math.inf, bytes_up=2**64 - 1),
            RoundReport(PeerId("ada"), 2**32 - 1, 2**64 - 1, 1e308, 1e308),
            dataclasses.replace(result(), backbone="$\\frac{$", objective="_{^$"),
            dataclasses.replace(result(), ssl_loss=-1e308, parameters=2**64 - 1),
            Event(kind="peer_lost", message="$x_{$\x1b", peer="$\\frac{$", step=2**63),
        ],
    )
    def test_no_content_breaks_the_end_of_a_run(self, tmp_path: Path, odd: Record) -> None:
        """What a peer claims may be absurd. The summary, its table and the picture are made."""
        records = [*whole_run(2, 1), odd]
        assert sum(len(one.steps_S) for one in collect_series(records)[0]) < 1000
        draw_curves(records, tmp_path / "curves.png", "$\\frac{$")
        assert (tmp_path / "curves.png").stat().st_size > 10_000
        totals = RunTotals()
        for record in records:
            totals.emit(record)
        summary = build_summary("r1", 7, "ray", 20, 12.5, True, totals)
        write_json_atomic(tmp_path / "summary.json", summary)
        shown = io.StringIO()
        print_summary(summary, Console(file=shown, width=120))
        assert "\x1b" not in shown.getvalue()

    def test_leaves_pyplot_alone(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delitem(sys.modules, "matplotlib.pyplot", raising=False)
        draw_curves(whole_run(2, 1), tmp_path / "curves.png", "a run")
        assert "matplotlib.pyplot" not in sys.modules

    def test_says_when_the_exchange_is_off(self) -> None:
        from dogo_fed.reporting.pictures.curves import _figure

        def texts(num_teachers: int) -> list[str]:
            figure = _figure(*collect_series(whole_run(2, num_teachers)), "a run")
            return [text.get_text() for axes in figure.axes for text in axes.texts]

        assert "exchange off" in texts(0)
        assert "exchange off" not in texts(1)

    def test_marks_a_lost_peer_by_name(self) -> None:
        from dogo_fed.reporting.pictures.curves import _figure

        figure = _figure(*collect_series([*whole_run(2, 1), lost("peer-1")]), "a run")
        marks = [t for axes in figure.axes for t in axes.texts if "lost" in t.get_text()]
        assert [(mark.get_text().strip(), mark.get_position()[0]) for mark in marks] == [
            ("peer-1 lost", 12)
        ]

    def test_steps_that_a_peer_missed_are_gaps(self) -> None:
        (peer,), _ = collect_series([step_report(step=s) for s in (0, 1, 4, 5)])
        assert peer.steps_S.tolist() == [0, 1, 2, 3, 4, 5]
        assert np.isnan(peer.ssl_loss_S).tolist() == [False, False, True, True, False, False]

    def test_kl_counts_only_with_teachers(self) -> None:
        (peer,), _ = collect_series([step_report(step=0, num_teachers=0), step_report(step=1)])
        assert math.isnan(peer.mutual_kl_S[0]) and peer.mutual_kl_S[1] == 0.5

    def test_a_kl_at_every_third_step_is_drawn_as_a_line_with_gaps_where_nobody_taught(
        self,
    ) -> None:
        nan = math.nan
        steps_S = np.arange(2.0, 15.0)
        values_S = np.array([nan, 1, nan, nan, 2, nan, nan, nan, nan, nan, 4, nan, nan])
        steps_E, values_E = at_exchanges(steps_S, values_S)
        assert steps_E.tolist() == [3, 6, 9, 12]
        np.testing.assert_array_equal(values_E, [1, 2, nan, 4])
        for as_it_was in (values_S * nan, np.where(steps_S == 5, 1.0, nan), steps_S):
            np.testing.assert_array_equal(at_exchanges(steps_S, as_it_was)[1], as_it_was)

    def test_smoothing_equals_the_mean_of_the_window(self) -> None:
        values_S = np.array([1.0, math.nan, 3.0, 8.0, math.nan, math.nan, math.nan, 2.0])
        for window in (1, 2, 3, 4, 20):
            before, after = window - 1 - (window - 1) // 2, (window - 1) // 2
            for i, mean in enumerate(smoothed(values_S, window)):
                around = values_S[max(0, i - before) : i + after + 1]
                known = around[np.isfinite(around)]
                expected = known.mean() if len(known) else math.nan
                assert mean == pytest.approx(expected, nan_ok=True)

    def test_labels_keep_apart_in_order_and_inside(self) -> None:
        heights = [9.9, 9.8, 9.9, 5.0, 5.1, 0.0]
        moved = spread(heights, 0.5, 0.0, 10.0)
        order = sorted(range(6), key=lambda i: moved[i])
        assert all(heights[a] <= heights[b] for a, b in itertools.pairwise(order))
        gaps = np.diff(sorted(moved))
        assert gaps.min() >= 0.5 - 1e-9
        assert min(moved) >= 0.0 and max(moved) <= 10.0
        assert spread([1.0, 3.0], 0.5, 0.0, 10.0) == [1.0, 3.0]


class TestTensorBoard:
    def test_writes_scalars_per_peer(self, tmp_path: Path) -> None:
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

        sink = TensorBoardSink(tmp_path)
        for record in (step_report(step=4, ssl_loss=2.5), round_report("bob", 1, 0.5), lost()):
            sink.emit(record)
        sink.emit(step_report(step=5, ssl_loss=math.nan, num_teachers=0))
        sink.close()
        sink.close()
        assert sorted(folder.name for folder in tmp_path.iterdir()) == ["ada", "bob"]
        ada = EventAccumulator(str(tmp_path / "ada")).Reload()
        assert [(s.step, s.value) for s in ada.Scalars("loss/ssl")] == [(4, 2.5)]
        assert [s.step for s in ada.Scalars("loss/mutual_kl")] == [4]
        bob = EventAccumulator(str(tmp_path / "bob")).Reload()
        assert [(s.step, s.value) for s in bob.Scalars("eval/knn_top1")] == [(10, 0.5)]

    def test_what_an_earlier_start_wrote_for_later_steps_is_hidden(self, tmp_path: Path) -> None:
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

        for resumed_at, steps in ((None, range(6)), ({"ada": 3}, range(3, 5))):
            sink = TensorBoardSink(tmp_path, resumed_at)
            for step in steps:
                sink.emit(step_report(step=step, ssl_loss=1.0 if resumed_at else 2.0))
            sink.close()
            time.sleep(1.1)  # the files are read in the order of their names, which are seconds
        ada = EventAccumulator(str(tmp_path / "ada")).Reload()
        assert [(one.step, one.value) for one in ada.Scalars("loss/ssl")] == [
            (0, 2.0), (1, 2.0), (2, 2.0), (3, 1.0), (4, 1.0),
        ]  # fmt: skip

    def test_on_a_full_disk_records_are_left_out_whole_and_it_is_said_once(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        """TensorBoard's own writer has a thread, which ends with a traceback and writes no more."""
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

        class Full:
            is_full = False

            def __call__(self, file: Any, content: bytes) -> None:
                if self.is_full:
                    raise OSError(errno.ENOSPC, "No space left on device")
                append_whole(file, content)

        full = Full()
        monkeypatch.setattr("dogo_fed.reporting.sinks.tensorboard.append_whole", full)
        num_threads = threading.active_count()
        sink = TensorBoardSink(tmp_path)
        for step in range(6):
            full.is_full = step in (2, 3)
            sink.emit(step_report(step=step, ssl_loss=2.5))
            sink.emit(step_report("bob", step))
        full.is_full = True
        sink.emit(step_report("cat", 0))
        sink.close()
        assert threading.active_count() == num_threads
        ada = EventAccumulator(str(tmp_path / "ada")).Reload()
        assert [one.step for one in ada.Scalars("loss/ssl")] == [0, 1, 4, 5]
        assert list((tmp_path / "cat").iterdir()) == []
        assert caplog.text.count("TensorBoard's files") == 1


class TestLiveView:
    def view(self, is_terminal: bool, clock: list[float]) -> tuple[LiveView, io.StringIO]:
        output = io.StringIO()
        console = Console(file=output, force_terminal=is_terminal, width=120, _environ={})
        view = LiveView(["ada", "bob"], 20, "run r1", console=console, clock=lambda: clock[0])
        return view, output

    def feed(self, view: LiveView, records: list[Record], clock: list[float]) -> None:
        for record in records:
            clock[0] += 0.25
            view.emit(record)

    def test_without_a_terminal_every_round_is_one_line(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        clock = [0.0]
        view, output = self.view(False, clock)
        records: list[Record] = []
        for number in range(3):
            records += [round_report(peer, number, 0.25 * (number + 1)) for peer in ("ada", "bob")]
            if number < 2:
                steps = range(10 * number, 10 * number + 10)
                records += [step_report(peer, step) for step in steps for peer in ("ada", "bob")]
        with caplog.at_level(logging.INFO), view:
            self.feed(view, records, clock)
        lines = caplog.messages
        assert output.getvalue() == ""
        assert len(lines) == 3
        assert "run r1 round=1 step=10/20" in lines[1]
        assert "ada: kNN 50.0 %, SSL 5.000, KL 0.500" in lines[1]
        assert "bob: kNN 50.0 %" in lines[1]

    def test_a_lost_peer_does_not_hold_up_the_lines(self, caplog: pytest.LogCaptureFixture) -> None:
        clock = [0.0]
        view, _ = self.view(False, clock)
        with caplog.at_level(logging.INFO), view:
            self.feed(view, [round_report("ada"), round_report("ada", 1)], clock)
            assert caplog.messages == []
            self.feed(view, [lost("bob")], clock)
            assert [record.levelname for record in caplog.records] == ["WARNING", "INFO", "INFO"]
            assert "peer bob is not heard of" in caplog.messages[0]
            assert "round=0" in caplog.messages[1] and "bob" not in caplog.messages[1]

    def test_many_rounds_of_one_peer_cost_little_each(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        """Each round once looked at all that were open: minutes for these 20,000."""
        view = LiveView(["ada", "bob"], 20_000, "t", console=Console(file=io.StringIO()))
        started_s = time.monotonic()
        with caplog.at_level(logging.INFO, "dogo_fed.reporting"):
            for number in range(20_000):
                view.emit(round_report("ada", number))
            assert caplog.records == [], "bob has reported none"
            for number in range(20_000):
                view.emit(round_report("bob", number))
        assert time.monotonic() - started_s < 20.0
        numbers = [int(r.getMessage().split("round=")[1].split()[0]) for r in caplog.records]
        assert numbers == list(range(20_000))

    def test_an_unfinished_round_is_logged_at_the_end_once(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        clock = [0.0]
        view, _ = self.view(False, clock)
        with caplog.at_level(logging.INFO), view:
            self.feed(view, [round_report("ada")], clock)
        view.close()
        assert len(caplog.messages) == 1

    def test_a_terminal_shows_the_table(self, caplog: pytest.LogCaptureFixture) -> None:
        clock = [0.0]
        view, output = self.view(True, clock)
        records: list[Record] = [round_report("ada", knn_top1=0.5)]
        records += [
            step_report(peer, step, bytes_up=2**20) for step in range(5) for peer in ("ada", "bob")
        ]
        with caplog.at_level(logging.INFO), view:
            self.feed(view, [*records, lost("bob", 5)], clock)
        picture = output.getvalue()
        for part in ("run r1", "training", "lost", "50.0 %", "5 MiB", "2.0", "19 %", "step 5/20"):
            assert part in picture
        assert "peer bob is not heard of" in picture
        assert caplog.messages == []

    def test_takes_records_from_many_threads_while_drawing(self) -> None:
        view, output = self.view(True, [0.0])
        with view:
            emitters = emitting_threads(view, num_steps=20)
            for emitter in emitters:
                emitter.start()
            for emitter in emitters:
                emitter.join()
        assert "100 %" in output.getvalue()
        assert "eve" in output.getvalue()

    def test_the_kl_of_the_last_exchange_is_shown_until_the_next_one(self) -> None:
        from dogo_fed.reporting.live.progress import RunProgress

        def shown(every_steps: int, taught: set[int]) -> list[float]:
            progress = RunProgress(["ada"], 20, lambda: 0.0, every_steps)
            found = []
            for step in range(6):
                is_taught = step in taught
                progress.take(
                    step_report(step=step, mutual_kl=float(step), num_teachers=int(is_taught))
                )
                found.append(progress.peers["ada"].mutual_kl)
            return found

        nan = math.nan
        np.testing.assert_array_equal(shown(1, {0, 1, 3}), [0, 1, nan, 3, nan, nan])
        np.testing.assert_array_equal(shown(3, {0, 3}), [0, 0, 0, 3, 3, 3])
        np.testing.assert_array_equal(shown(2, {2}), [nan, nan, 2, 2, nan, nan])

    def test_time_left_counts_from_where_a_resumed_run_started(self) -> None:
        from dogo_fed.reporting.live.progress import RunProgress

        clock = [100.0]
        progress = RunProgress(["ada"], 20, lambda: clock[0])
        progress.take(step_report(step=9))
        assert math.isnan(progress.left_s())
        clock[0] = 110.0
        progress.take(step_report(step=14))
        assert progress.share_done() == 0.75
        assert progress.left_s() == pytest.approx(10.0)
        assert progress.peers["ada"].steps_per_s() == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("num_bytes", "text"),
    [(0, "0 B"), (999, "999 B"), (1024, "1 KiB"), (65712, "64.2 KiB"), (3 * 2**30, "3 GiB")],
)
def test_bytes_for_people(num_bytes: float, text: str) -> None:
    assert human_bytes(num_bytes) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.04, "0.0 s"),
        (59.94, "59.9 s"),
        (59.96, "1 min 00 s"),
        (3599.7, "1 h 00 min"),
        (math.nan, "-"),
    ],
)
def test_durations_for_people(seconds: float, text: str) -> None:
    assert human_seconds(seconds) == text
