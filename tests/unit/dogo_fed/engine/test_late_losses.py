"""Losses that are read late, and several at a time: no step is lost, and nothing wrong is kept."""

from __future__ import annotations

import dataclasses
import gc
import math
import weakref
from pathlib import Path

import pytest
import torch

from configs.compose import compose_run
from dogo_fed.contracts import PeerId, Record, StepReport, TeacherSignal, Ticket
from dogo_fed.engine import session as session_module
from dogo_fed.engine.loaded_run import LoadedRun, load_run
from dogo_fed.engine.open import open_session
from dogo_fed.engine.peer import Peer
from dogo_fed.engine.session import READ_EVERY_STEPS, PeerSession
from dogo_fed.engine.step_losses import numbers_of
from dogo_fed.errors import CoordinatorLost, TrainingError
from dogo_fed.evaluation import state_digest
from dogo_fed.exchange.base import Traffic
from dogo_fed.storage.peer_folder import PeerFolder
from tests.support.distributions import KeepingSink
from tests.support.tiny_run import TINY

ADA = PeerId("wide")
SETTINGS = (
    *(one for one in TINY if not one.startswith("steps")),
    "steps=20",
    "steps_per_round=20",
    "peers=pair",
    "checkpoint.keep=9",
)
ALONE = "exchange.enabled=false"


@pytest.fixture(autouse=True)
def late(monkeypatch):
    """Peers that read losses and check updates as on a GPU, however long their steps take."""
    plain = LoadedRun.build_peer

    def on_a_gpu(*given, **options):
        return dataclasses.replace(plain(*given, **options), reads_late=True)

    monkeypatch.setattr(LoadedRun, "build_peer", on_a_gpu)
    monkeypatch.setattr(session_module, "READ_WITHIN_S", math.inf)


class Line:
    """A link that lets everybody in and teaches nothing; its coordinator may go before an answer."""

    last_traffic = Traffic()

    def __init__(self) -> None:
        self.gone_at: int | None = None
        self.published: list[int] = []

    def join(self, agreement: object) -> int:
        return 0

    def publish(self, ticket: Ticket, distribution: object) -> None:
        self.published.append(ticket.step)

    def collect(self, ticket: Ticket) -> TeacherSignal:
        if ticket.step == self.gone_at:
            raise CoordinatorLost("gone")
        return TeacherSignal(None, 0.0, (), ticket.step + 1)


class KeptSink(KeepingSink):
    """Keeps what it can't deliver, and says so each time."""

    def __init__(self) -> None:
        super().__init__()
        self.is_down = False
        self.kept: list[Record] = []

    def emit(self, record: Record) -> None:
        if self.is_down:
            self.kept.append(record)
            raise CoordinatorLost("gone")
        super().emit(record)

    def undelivered(self) -> list[Record]:
        return list(self.kept)

    @property
    def steps(self) -> list[int]:
        return [one.step for one in self.records if isinstance(one, StepReport)]


def opened(
    folder: Path, *settings: str, line: Line | None = None, step: int | None = None
) -> tuple[PeerSession, KeptSink]:
    """Returns a peer that has started, at this step, and what takes its reports."""
    run, sink = load_run(compose_run([*SETTINGS, *settings])), KeptSink()
    session = open_session(run, folder, ADA, line or Line(), sink, checkpoint_step=step)
    session.start()
    return session, sink


def do_steps(session: PeerSession, number: int) -> None:
    for _ in range(number):
        session.begin_step()
        session.end_step()


def saved(folder: Path) -> list[int]:
    return PeerFolder(folder, ADA).checkpoints.steps()


# ---- in groups ----


def test_losses_of_several_steps_are_read_together(tmp_path, monkeypatch):
    read: list[int] = []
    plain = Peer.check_updates

    def noting(peer: Peer, *scalars: torch.Tensor) -> list[float]:
        read.append(len(scalars))
        return plain(peer, *scalars)

    monkeypatch.setattr(Peer, "check_updates", noting)
    session, sink = opened(tmp_path / "run", ALONE)
    read.clear()
    do_steps(session, READ_EVERY_STEPS - 1)
    assert read == [] and sink.steps == []
    do_steps(session, 1)
    assert read == [2 * READ_EVERY_STEPS] and sink.steps == list(range(READ_EVERY_STEPS))
    do_steps(session, 3)
    session.save()
    assert sink.steps == list(range(READ_EVERY_STEPS + 3)), "a checkpoint is of steps that are told"


def test_steps_that_take_long_are_told_sooner(tmp_path, monkeypatch):
    """A report is a sign of life too, and what brings the wish to stop."""
    monkeypatch.setattr(session_module, "READ_WITHIN_S", 0.0)
    session, sink = opened(tmp_path / "run", ALONE)
    do_steps(session, 1)
    assert sink.steps == [0]


def test_numbers_that_are_read_together_are_the_very_same():
    scalars = [torch.tensor(0.1), torch.tensor(0.1, dtype=torch.float64), torch.tensor([-2.5])]
    assert numbers_of(scalars) == [one.item() for one in scalars]
    assert numbers_of([]) == []


@pytest.mark.parametrize("settings", [(), (ALONE,)])
def test_no_step_waits_for_the_device_to_be_timed(settings, tmp_path, monkeypatch):
    monkeypatch.setattr(Peer, "synchronise", lambda peer: pytest.fail("waits for the device"))
    session, _ = opened(tmp_path / "run", *settings)
    do_steps(session, 3)


def test_views_are_let_go_before_the_losses_are_read(tmp_path):
    session, sink = opened(tmp_path / "run", ALONE)
    session.begin_step()
    view = weakref.ref(session.proposal.views[0])
    session.end_step()
    gc.collect()
    assert sink.steps == [] and view() is None


# ---- whose coordinator goes ----


@pytest.mark.parametrize("settings", [(ALONE,), ("exchange.every_steps=20",)])
def test_a_peer_that_is_cut_off_between_exchanges_loses_no_step(settings, tmp_path):
    """Steps are told while none is half done that could not be taken back."""
    folder = tmp_path / "run"
    session, sink = opened(folder, *settings)
    sink.is_down = True
    do_steps(session, READ_EVERY_STEPS - 1)
    with pytest.raises(CoordinatorLost):
        do_steps(session, 1)
    session.save(is_cut_off=True)
    assert saved(folder) == [0, READ_EVERY_STEPS]
    _, sink = opened(folder, *settings, step=READ_EVERY_STEPS)
    assert sink.steps == list(range(READ_EVERY_STEPS)), "each is told once, by the next process"


def test_a_peer_that_is_cut_off_saves_itself_and_reports_nothing(tmp_path):
    folder = tmp_path / "run"
    session, sink = opened(folder, ALONE)
    do_steps(session, 3)
    sink.is_down = True
    session.save(is_cut_off=True)
    assert saved(folder) == [0, 3] and sink.kept == []
    _, sink = opened(folder, ALONE, step=3)
    assert sink.steps == [0, 1, 2]


def test_a_step_that_exchanges_nothing_is_taken_back_with_the_one_before_it(tmp_path):
    """With lookahead it is begun before the answer to that one is there."""
    settings = ("exchange.lookahead=1", "exchange.every_steps=2")
    states: list[str] = []
    for name in ("undisturbed", "cut"):
        folder, line = tmp_path / name, Line()
        session, _ = opened(folder, *settings, line=line)
        do_steps(session, 3)
        line.gone_at = 2 if name == "cut" else None
        session.begin_step()
        if name == "cut":
            with pytest.raises(CoordinatorLost):
                session.end_step()
            session.save(is_cut_off=True)
            assert saved(folder) == [0, 2]
            session, _ = opened(folder, *settings, step=2)
            do_steps(session, 1)
            session.begin_step()
        session.end_step()
        states.append(state_digest(session.peer.objective))
    assert states[0] == states[1]


# ---- whose numbers go wrong ----


def spoil(session: PeerSession) -> None:
    """Makes every gradient from now on infinite."""
    weight = next(session.peer.objective.backbone.parameters())
    weight.register_hook(lambda gradient: gradient * math.inf)


def test_what_went_wrong_is_found_a_few_steps_later_and_never_kept(tmp_path):
    session, sink = opened(tmp_path / "run", ALONE)
    do_steps(session, 2)
    spoil(session)
    with pytest.raises(TrainingError, match=r"the length of the gradient .* at step 2"):
        do_steps(session, READ_EVERY_STEPS - 2)
    for is_cut_off in (False, True):
        with pytest.raises(TrainingError, match="at step 2"):
            session.save(is_cut_off=is_cut_off)
    assert saved(tmp_path / "run") == [0] and sink.steps == []


def test_what_went_wrong_between_exchanges_is_told_before_anything_leaves(tmp_path):
    line = Line()
    session, _ = opened(tmp_path / "run", "exchange.every_steps=4", line=line)
    do_steps(session, 1)
    spoil(session)
    do_steps(session, 3)
    with pytest.raises(TrainingError, match=r"the length of the gradient .* at step 1"):
        session.begin_step()
    assert line.published == [0]
