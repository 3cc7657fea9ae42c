"""Records written in another thread: in order, none lost unsaid, and nobody waits for a disk."""

from __future__ import annotations

import logging
import threading

import pytest

from dogo_fed.contracts import Event, EventKind, Record
from dogo_fed.reporting.background import BackgroundSink
from dogo_fed.reporting.counted_log import CountedLog
from dogo_fed.reporting.sink import Sink
from tests.support.distributions import Clock, KeepingSink


def event(number: int) -> Event:
    return Event(kind=EventKind.DATA, message=str(number), step=number)


class HeldSink(KeepingSink):
    """Takes nothing before it is let go."""

    def __init__(self) -> None:
        super().__init__()
        self.go = threading.Event()

    def emit(self, record: Record) -> None:
        assert self.go.wait(20)
        super().emit(record)


def test_whoever_reports_does_not_wait_and_the_order_stays() -> None:
    inner = HeldSink()
    sink = BackgroundSink(inner)
    for number in range(1000):
        sink.emit(event(number))
    done = sink.written()
    assert not done.done() and inner.records == []
    inner.go.set()
    done.result(20)
    assert [one.step for one in inner.events()] == list(range(1000))
    sink.close()
    sink.close()
    assert len(inner.records) == 1000


def test_closing_writes_what_is_left() -> None:
    inner = KeepingSink()
    sink = BackgroundSink(inner)
    for number in range(5000):
        sink.emit(event(number))
    sink.close()
    assert [one.step for one in inner.events()] == list(range(5000))


def test_without_records_nothing_is_waited_for() -> None:
    sink = BackgroundSink(KeepingSink())
    sink.flush()
    sink.close()
    assert sink.written().done()


class FullDisk(Sink):
    def __init__(self) -> None:
        self.kept = KeepingSink()
        self.is_full = True

    def emit(self, record: Record) -> None:
        if self.is_full:
            raise OSError(28, "No space left on device")
        self.kept.emit(record)


def test_a_disk_that_is_full_for_a_while_is_said_in_few_lines_and_counted(
    caplog: pytest.LogCaptureFixture,
) -> None:
    inner = FullDisk()
    sink = BackgroundSink(inner)
    with caplog.at_level(logging.WARNING):
        for number in range(500):
            sink.emit(event(number))
        sink.flush()
        inner.is_full = False
        sink.emit(event(500))
        sink.close()
    assert [one.step for one in inner.kept.events("data")] == [500]
    assert inner.kept.events("records_left_out")[0].message.startswith("500 records")
    assert len(caplog.records) == 2, "one at once, and one for the other 499"
    assert "No space left" in caplog.text and "499 more times" in caplog.text
    assert not any(record.exc_info for record in caplog.records)


def test_memory_is_bounded_if_nothing_is_written() -> None:
    inner = HeldSink()
    sink = BackgroundSink(inner, most_waiting=100)
    for number in range(10_000):
        sink.emit(event(number))
    inner.go.set()
    sink.close()
    told = inner.events("records_left_out")
    assert 100 <= len(inner.events("data")) <= 101
    assert (
        told[0].message
        == f"{10_000 - len(inner.events('data'))} records of the run could not be written"
    )


def test_many_complaints_about_one_subject_are_one_line_an_interval(
    caplog: pytest.LogCaptureFixture,
) -> None:
    clock = Clock()
    log = CountedLog(logging.getLogger("dogo_fed.test"), clock, every_s=10.0)
    with caplog.at_level(logging.WARNING):
        for number in range(100_000):
            clock.now_s = number / 1000
            log.warn("peer=ada", f"call {number}\x1b[2J\n")
        log.warn("peer=bob", "once")
        log.close()
    lines = [record.getMessage() for record in caplog.records]
    assert lines[0] == "peer=ada call 0\\x1b[2J\\n" and "peer=bob once" in lines
    assert 10 <= len(lines) <= 13
    counted = [int(line.split()[1]) for line in lines if "more times" in line]
    assert sum(counted) == 99_999, "every one is counted once"


def test_many_subjects_do_not_fill_the_log_either(caplog: pytest.LogCaptureFixture) -> None:
    log = CountedLog(logging.getLogger("dogo_fed.test"), Clock())
    with caplog.at_level(logging.WARNING):
        for number in range(10_000):
            log.warn(f"peer={number}", "x" * 5000)
    assert len(caplog.records) <= 101
    assert max(len(record.getMessage()) for record in caplog.records) < 1100


def test_a_sign_of_life_is_passed_on_and_one_that_fails_does_no_harm() -> None:
    inner = KeepingSink()
    sink = BackgroundSink(inner)
    sink.alive()
    sink.written().result(20)
    assert inner.signs_of_life == 1

    def fail() -> None:
        raise OSError("the file is gone")

    inner.alive = fail
    sink.alive()
    sink.emit(event(1))
    sink.close()
    assert [one.step for one in inner.events()] == [1]
