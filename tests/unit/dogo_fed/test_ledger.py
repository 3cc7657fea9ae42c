"""Where the time of a step goes: parts without what is inside of them, sampled, as means and spans."""

from __future__ import annotations

import itertools
import json

import pytest

from configs.compose import compose_run
from configs.resume import resumed
from dogo_fed import layout
from dogo_fed.contracts import PeerId, StepReport
from dogo_fed.errors import DataError, StartError
from dogo_fed.ledger import (
    EVERY_STEPS,
    Ledger,
    Part,
    add_beside,
    is_sampled,
    part,
    recorded_apart,
)
from dogo_fed.reporting.summary import _footnotes, _step_lines
from dogo_fed.run.prepare import prepare
from dogo_fed.run.train import conduct
from dogo_fed.storage.trace_file import merge_traces, write_trace
from tests.support.tiny_run import TINY, run_here

SAMPLED, NEXT_SAMPLED = itertools.islice(filter(is_sampled, itertools.count()), 2)


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s

    def work(self, name: Part, seconds: float) -> None:
        with part(name):
            self.now_s += seconds


def test_a_part_does_not_count_what_is_inside_of_it():
    clock = Clock()
    ledger = Ledger(clock=clock)
    with ledger.step(SAMPLED):
        clock.work(Part.FORWARD, 2.0)
        clock.now_s += 0.5
        with part(Part.TRANSFER):
            clock.now_s += 4.0
            clock.work(Part.DECODE, 1.0)
        ledger.waited(SAMPLED, 3.0)
    with ledger.step(SAMPLED):  # the second half of the same step
        clock.work(Part.BACKWARD, 2.5)
    found = {name: ms for name, ms in ledger.mean_ms().items() if ms}
    assert found == {
        "forward": 2000.0, "other": 500.0, "transfer": 1000.0, "wait": 3000.0, "decode": 1000.0,
        "backward": 2500.0,
    }  # fmt: skip
    assert sum(found.values()) == 10_000.0, "every moment is in one part"
    with ledger.step(NEXT_SAMPLED):
        clock.work(Part.FORWARD, 4.0)
    assert ledger.num_steps == 2 and ledger.mean_ms()["forward"] == 3000.0


@pytest.mark.parametrize("every", [1, 2, 3, 4, 5, 7, 8, 10, 16, 20])
def test_the_sample_is_in_step_with_nothing(every):
    """An exchange at every k-th step is in it as often as any other step, and so is what lies between."""
    for first in (0, 1):
        steps = range(first, 2000 * every, every)
        share = sum(map(is_sampled, steps)) / len(steps)
        assert share == pytest.approx(1 / EVERY_STEPS, abs=0.03)


def test_a_short_run_is_sampled_but_not_while_it_warms_up():
    assert 2 < SAMPLED < EVERY_STEPS and NEXT_SAMPLED < 3 * EVERY_STEPS


def test_other_steps_are_not_recorded():
    clock = Clock()
    ledger = Ledger(clock=clock, synchronise=lambda: pytest.fail("the device is waited for"))
    for step in range(SAMPLED):
        with ledger.step(step):
            clock.work(Part.FORWARD, 1.0)
    clock.work(Part.FORWARD, 1.0)  # no ledger is open
    assert ledger.mean_ms() == {} and not ledger.spans


def test_a_part_ends_when_the_device_is_done():
    clock = Clock()

    def finish_work() -> None:
        clock.now_s += 0.25

    ledger = Ledger(clock=clock, synchronise=finish_work)
    with ledger.step(SAMPLED):
        clock.work(Part.FORWARD, 1.0)
    assert ledger.mean_ms()["forward"] == 1250.0


def test_a_step_that_fails_leaves_the_ledger_closed():
    ledger = Ledger()
    with pytest.raises(ValueError, match="no"), ledger.step(SAMPLED), part(Part.FORWARD):
        raise ValueError("no")
    with part(Part.FORWARD):
        pass
    assert len(ledger.spans) == 1


def test_a_run_tells_where_the_time_of_its_steps_went(tmp_path):
    short = [one for one in TINY if not one.startswith("steps=")]
    folder = tmp_path / "run"
    summary = run_here(compose_run([*short, f"steps={SAMPLED + 1}", f"run_dir={folder}"]))
    assert set(summary["step_ms"]) == set(summary["peers"])
    for parts in summary["step_ms"].values():
        assert set(parts) == {one.value for one in Part}
        for name in ("load", "augment", "forward", "similarity", "transfer", "backward", "update"):
            assert parts[name] > 0, name
    assert json.loads((folder / "summary.json").read_text())["step_ms"] == summary["step_ms"]
    assert any(line.startswith("step of wide: ") for line in _footnotes(summary))
    events = json.loads((folder / layout.TRACE).read_text())["traceEvents"]
    names = {event["pid"]: event["args"]["name"] for event in events if event["ph"] == "M"}
    assert names == {0: "resnet", 1: "wide"}
    spans = [event for event in events if event["ph"] == "X"]
    assert {event["args"]["step"] for event in spans} == {SAMPLED}
    assert {event["pid"] for event in spans} == {0, 1}
    first, last = (min(one["ts"] for one in spans), max(one["ts"] + one["dur"] for one in spans))
    assert last - first < 60e6, "microseconds, on one time line"


def test_what_another_thread_does_has_a_line_of_its_own(tmp_path):
    ledger, clock = Ledger(), Clock()
    with recorded_apart(SAMPLED) as spans, part(Part.ENCODE):
        pass
    with recorded_apart(SAMPLED + 1) as none, part(Part.ENCODE):
        pass
    with ledger.step(SAMPLED):
        clock.work(Part.FORWARD, 1.0)
        add_beside([*spans, *none])
    add_beside(spans)  # no ledger is open
    assert [one.part for one in spans] == [Part.ENCODE] and none == []
    found = ledger.mean_ms()
    assert found["encode"] == 0.0 and found["beside"] == pytest.approx(1e3 * spans[0].seconds)
    write_trace(tmp_path / layout.TRACE, "ada", ledger)
    events = json.loads((tmp_path / layout.TRACE).read_text())["traceEvents"]
    rows = {event["name"]: event["tid"] for event in events if event["ph"] == "X"}
    assert rows == {"forward": 0, "encode": 1}
    assert {"name": "exchange"} in [event["args"] for event in events if event["ph"] == "M"]


def test_a_step_takes_no_longer_for_what_another_thread_does_beside_it():
    told = _step_lines({"wide": {"forward": 6.0, "backward": 4.0, "beside": 5.0}})
    assert told == [
        "step of wide: 10.0 ms: forward 60 %, backward 40 %; beside it, messages: 5.0 ms"
    ]
    assert _step_lines({"wide": {"forward": 6.0, "beside": 0.0}}) == [
        "step of wide: 6.0 ms: forward 100 %"
    ]


def test_a_broken_trace_is_left_out_and_said(tmp_path, caplog):
    ledger = Ledger()
    with ledger.step(SAMPLED), part(Part.FORWARD):
        pass
    for peer in ("ada", "bob"):
        (tmp_path / "peers" / peer).mkdir(parents=True)
    write_trace(tmp_path / "peers" / "ada" / layout.TRACE, "ada", ledger)
    (tmp_path / "peers" / "bob" / layout.TRACE).write_text('{"traceEvents": 3}')
    assert set(merge_traces(tmp_path, ["ada", "bob", "cai"])) == {"ada"}
    assert "bob" in caplog.text and "cai" not in caplog.text


@pytest.fixture
def traced(tmp_path):
    """A finished run with a trace."""
    short = [one for one in TINY if not one.startswith("steps=")]
    run_here(compose_run([*short, f"steps={SAMPLED + 1}", f"run_dir={tmp_path}/run"]))
    return tmp_path / "run"


def traces(folder):
    return {str(path.relative_to(folder)) for path in folder.rglob(layout.TRACE)}


def gone_on(folder):
    given = [f"resume={folder}", f"steps={SAMPLED + 2}"]
    return resumed(compose_run(given), given)


def test_a_start_of_a_few_steps_does_not_tell_the_times_of_an_earlier_one(traced):
    assert len(traces(traced)) == 3, "the run's and two peers'"
    assert run_here(gone_on(traced))["step_ms"] == {} and traces(traced) == set()


def test_a_peer_that_did_not_finish_does_not_tell_the_times_of_an_earlier_start(traced):
    def host(run, folder, sink, stop_requested):
        sink.emit(StepReport(PeerId("wide"), 1, SAMPLED + 1, 1.0, 1.0, 1, 1.0, 1.0, 1.0, 1, 1))
        raise DataError("image 7 is torn")

    with pytest.raises(DataError):
        conduct(prepare(gone_on(traced)), host)
    assert json.loads((traced / "summary.json").read_text())["step_ms"] == {}
    assert traces(traced) == set()


@pytest.mark.parametrize(("error", "left"), [(StartError("no Ray"), 3), (RuntimeError("odd"), 0)])
def test_a_start_that_fails_leaves_the_traces_and_one_that_has_begun_does_not(traced, error, left):
    def host(run, folder, sink, stop_requested):
        raise error

    with pytest.raises(type(error)):
        conduct(prepare(gone_on(traced)), host)
    summary = json.loads((traced / "summary.json").read_text())
    assert (len(traces(traced)), bool(summary["step_ms"])) == (left, left > 0)


def test_a_peer_at_a_site_removes_its_own_of_an_earlier_start(tmp_path):
    (tmp_path / layout.TRACE).write_text("{}")
    write_trace(tmp_path / layout.TRACE, "ada", Ledger())
    assert not (tmp_path / layout.TRACE).exists()


def test_a_run_without_a_sampled_step_leaves_no_trace(tmp_path):
    summary = run_here(compose_run([*TINY, f"run_dir={tmp_path}/run"]))
    assert summary["step_ms"] == {} and not (tmp_path / "run" / layout.TRACE).exists()
