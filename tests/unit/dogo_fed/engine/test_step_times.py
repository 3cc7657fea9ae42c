"""What a report says of a step's time: computed, waited for others, exchanged."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from configs.compose import compose_run
from dogo_fed.contracts import PeerId, StepReport, TeacherSignal, Ticket
from dogo_fed.engine import session as session_module
from dogo_fed.engine.loaded_run import load_run
from dogo_fed.engine.open import open_session
from dogo_fed.engine.peer import Peer
from dogo_fed.exchange.base import Traffic
from tests.support.distributions import Clock, KeepingSink
from tests.support.tiny_run import TINY

DRAWS_S, SHOWS_S, PUBLISHES_S, COLLECTS_S = 0.040, 0.5, 0.002, 0.012


class TimedLine:
    """A link whose calls take a while, and whose answers were held back for so long."""

    last_traffic = Traffic()

    def __init__(self, clock: Clock, held_s: float) -> None:
        self._clock = clock
        self._held_s = held_s

    def join(self, agreement: object) -> int:
        return 0

    def publish(self, ticket: Ticket, distribution: object) -> None:
        self._clock.now_s += PUBLISHES_S

    def collect(self, ticket: Ticket) -> TeacherSignal:
        self._clock.now_s += COLLECTS_S
        return TeacherSignal(None, 0.0, (), ticket.step + 1, waited_s=self._held_s)


@pytest.mark.parametrize(
    ("held_s", "wait_s"),
    [(0.0, 0.0), (0.030, 0.0), (0.050, 0.010), (1.0, COLLECTS_S)],
    ids=["not", "while-it-computed", "longer", "longer-than-it-took"],
)
def test_what_was_computed_while_the_answer_was_held_back_is_no_wait(
    held_s, wait_s, tmp_path, monkeypatch
):
    clock = Clock()
    monkeypatch.setattr(
        session_module, "time", SimpleNamespace(monotonic=clock, perf_counter=clock)
    )
    show = session_module.show

    def slow_show(*given):
        clock.now_s += SHOWS_S
        return show(*given)

    def slow_draw(*given):
        clock.now_s += DRAWS_S

    monkeypatch.setattr(session_module, "show", slow_show)
    monkeypatch.setattr(Peer, "draw_ahead", slow_draw)
    run, sink = load_run(compose_run([*TINY, "peers=pair"])), KeepingSink()
    line = TimedLine(clock, held_s)
    session = open_session(run, tmp_path / "run", PeerId("wide"), line, sink, checkpoint_step=None)
    session.start()
    session.begin_step()
    session.prepare_next()
    session.end_step()
    (told,) = [one for one in sink.records if isinstance(one, StepReport)]
    assert told.compute_s == pytest.approx(SHOWS_S + DRAWS_S)
    assert told.wait_s == pytest.approx(wait_s)
    assert told.exchange_s == pytest.approx(PUBLISHES_S + COLLECTS_S - wait_s)
