"""A peer whose coordinator is gone: it saves itself first, and what it could not report is kept."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from clients.peer.report_sink import ReportSink
from configs.compose import compose_run
from dogo_fed.contracts import (
    PeerId,
    PeerResult,
    RoundReport,
    StepReport,
    TeacherSignal,
    Ticket,
)
from dogo_fed.engine import round_end
from dogo_fed.engine.loaded_run import LoadedRun, load_run
from dogo_fed.engine.measure import Measured
from dogo_fed.engine.open import open_session
from dogo_fed.engine.session import PeerSession
from dogo_fed.errors import CoordinatorLost, TrainingError
from dogo_fed.evaluation import state_digest
from dogo_fed.evaluation.pulse import beat
from dogo_fed.exchange.base import Traffic
from dogo_fed.reporting.sink import Sink
from dogo_fed.storage.peer_folder import PeerFolder
from tests.support.distributions import KeepingSink
from tests.support.tiny_run import TINY

ADA = PeerId("wide")


class Line:
    """A link that lets everybody in, and whose coordinator may be gone."""

    def __init__(self) -> None:
        self.is_down = False
        self.steps: list[StepReport] = []
        self.rounds: list[RoundReport] = []
        self.num_calls = 0

    def join(self, agreement: object) -> int:
        return 0

    def report(
        self,
        steps: list[StepReport],
        rounds: list[RoundReport],
        result: PeerResult | None,
        *,
        is_evaluating: bool = False,
        is_brief: bool = False,
    ) -> bool:
        self.num_calls += 1
        if self.is_down:
            raise CoordinatorLost("gone")
        self.steps += steps
        self.rounds += rounds
        return False


@pytest.fixture
def run() -> LoadedRun:
    return load_run(
        compose_run([*TINY, "peers=pair", "exchange.enabled=false", "checkpoint.keep=9"])
    )


def opened(run: LoadedRun, folder: Path, line: Line, sink: Sink, step: int | None) -> PeerSession:
    return open_session(run, folder, ADA, line, sink, checkpoint_step=step)


def one_step(session: PeerSession) -> None:
    session.begin_step()
    session.end_step()


def test_what_could_not_be_reported_is_saved_and_reported_by_the_next_process(run, tmp_path):
    """Nothing is missing in the curves, and nothing is there twice."""
    clock = SimpleNamespace(now_s=0.0)
    line = Line()
    sink = ReportSink(line, lambda: clock.now_s)
    session = opened(run, tmp_path / "run", line, sink, None)
    session.start()
    line.is_down = True
    one_step(session)
    num_calls = line.num_calls
    session.save(is_cut_off=True)
    assert line.num_calls == num_calls, "nobody is asked before the peer is saved"
    assert line.steps == []

    line.is_down = False
    again = opened(run, tmp_path / "run", line, ReportSink(line), 1)
    again.start()
    one_step(again)
    again.save()
    assert [report.step for report in line.steps] == [0, 1]
    assert [report.round for report in line.rounds] == [0, 1]


def test_a_checkpoint_is_written_although_the_coordinator_does_not_answer(run, tmp_path):
    line = Line()
    session = opened(run, tmp_path / "run", line, ReportSink(line, lambda: 0.0), None)
    session.start()
    line.is_down = True
    one_step(session)
    session.save()
    assert PeerFolder(tmp_path / "run", ADA).checkpoints.steps() == [0, 1]


def test_an_evaluation_that_nobody_took_is_not_made_again(run, tmp_path, monkeypatch):
    """The coordinator went during the evaluation at the end of a round."""
    line = Line()
    session = opened(run, tmp_path / "run", line, ReportSink(line, lambda: 0.0), None)
    session.start()
    one_step(session)
    line.is_down = True
    with pytest.raises(CoordinatorLost):
        one_step(session)  # the round's last
    session.save(is_cut_off=True)
    line.is_down = False
    measured: list[int] = []
    monkeypatch.setattr(round_end, "measure", lambda *arguments, **others: measured.append(1))
    again = opened(run, tmp_path / "run", line, ReportSink(line), 2)
    again.start()
    assert [report.round for report in line.rounds] == [0, 1] and measured == []


def test_an_evaluation_that_was_not_begun_is_made_by_the_next_process(run, tmp_path):
    """The coordinator went before the last step of a round was reported."""
    clock = SimpleNamespace(now_s=0.0)
    line = Line()
    sink = ReportSink(line, lambda: clock.now_s)
    session = opened(run, tmp_path / "run", line, sink, None)
    session.start()
    line.is_down, clock.now_s = True, 10.0
    one_step(session)
    sink.flush()  # which waits for the thread that delivers the step
    with pytest.raises(CoordinatorLost):
        one_step(session)
    session.save(is_cut_off=True)
    line.is_down = False
    again = opened(run, tmp_path / "run", line, ReportSink(line), 2)
    again.start()
    assert [report.round for report in line.rounds] == [0, 1]
    assert [report.step for report in line.steps] == [0, 1]


def test_a_peer_that_is_ended_in_a_long_evaluation_loses_nothing(run, tmp_path, monkeypatch):
    """It has saved itself before, and the next process makes that evaluation with its weights."""
    rounds: dict[str, list[RoundReport]] = {}
    for name in ("undisturbed", "ended"):
        line = Line()
        session = opened(run, tmp_path / name, line, ReportSink(line, lambda: 0.0), None)
        session.start()
        one_step(session)
        if name == "ended":
            session._progress.evaluation_s = 3600.0  # as the one before
            with monkeypatch.context() as patch:
                patch.setattr(round_end, "measure", ended_by_the_user)
                with pytest.raises(KeyboardInterrupt):
                    one_step(session)
            session = opened(run, tmp_path / name, line, ReportSink(line), 2)
            session.start()
        one_step(session)
        session.save()
        rounds[name] = [dataclasses.replace(one, seconds=0.0) for one in line.rounds]
    assert rounds["ended"] == rounds["undisturbed"] and len(rounds["ended"]) == 2
    last = opened(run, tmp_path / "ended", Line(), KeepingSink(), 2)
    assert last._progress.evaluation_due is None, "the checkpoint knows that it was made"


def ended_by_the_user(*arguments: object, **others: object) -> tuple[float, float]:
    raise KeyboardInterrupt


class CutLine(Line):
    """A link whose coordinator is gone when the second step is to be answered."""

    last_traffic = Traffic()

    def publish(self, ticket: Ticket, distribution: object) -> None:
        pass

    def collect(self, ticket: Ticket) -> TeacherSignal:
        if ticket.step == 1 and self.is_down:
            raise CoordinatorLost("gone")
        return TeacherSignal(None, 0.0, (), ticket.step + 1)


@pytest.mark.parametrize("objective", ["simclr", "moco_v2_small", "byol_small"])
def test_a_peer_that_is_cut_off_in_the_middle_of_a_step_is_saved_as_it_was_before_it(
    objective, tmp_path
):
    """It waits for an answer nearly always, so elsewhere it would never save itself."""
    run = load_run(
        compose_run(
            [
                *TINY,
                "peers=pair",
                "checkpoint.keep=9",
                f"objective@peers.wide.objective={objective}",
            ]
        )
    )
    states: list[str] = []
    for name in ("undisturbed", "cut"):
        line = CutLine()
        session = opened(run, tmp_path / name, line, KeepingSink(), None)
        session.start()
        one_step(session)
        line.is_down = name == "cut"
        session.begin_step()
        if name == "cut":
            with pytest.raises(CoordinatorLost):
                session.end_step()
            session.save(is_cut_off=True)
            session = opened(run, tmp_path / name, CutLine(), KeepingSink(), 1)
            session.start()
            session.begin_step()
        session.end_step()
        states.append(state_digest(session.peer.objective))
    assert states[0] == states[1]


def test_weights_that_are_not_finite_are_never_saved(run, tmp_path):
    session = opened(run, tmp_path / "run", Line(), KeepingSink(), None)
    session.start()
    session.begin_step()
    session.end_step()
    weight = next(session.peer.objective.parameters())
    with torch.no_grad():
        weight.view(-1)[0] = float("nan")
    with pytest.raises(TrainingError, match="of peer 'wide' is nan at step 0"):
        session.save()
    assert PeerFolder(tmp_path / "run", ADA).checkpoints.steps() == [0]


def test_a_long_evaluation_says_once_a_second_that_it_goes_on(run, tmp_path, monkeypatch):
    clock = SimpleNamespace(now_s=0.0)
    monkeypatch.setattr(
        round_end,
        "time",
        SimpleNamespace(monotonic=lambda: clock.now_s, perf_counter=lambda: clock.now_s),
    )

    def slow(*arguments: object, **others: object) -> Measured:
        for _ in range(42):
            clock.now_s += 0.25
            beat()
        return Measured(knn_top1=0.5, linear_top1=0.5)

    monkeypatch.setattr(round_end, "measure", slow)
    sink = KeepingSink()
    opened(run, tmp_path / "run", Line(), sink, None).start()
    assert sink.signs_of_life == 10
    beat()
    assert sink.signs_of_life == 10, "after an evaluation nobody listens"
