"""Sessions that exchange at every k-th step: what is said when, stops, a run that is killed and goes on."""

from __future__ import annotations

import dataclasses
import functools

import pytest

from configs.compose import compose_run
from dogo_fed.contracts import PeerId, PeerResult, StepReport
from dogo_fed.coordination.coordinator import Coordinator
from dogo_fed.engine.drive import run_lockstep
from dogo_fed.engine.numerics import fix_numerics
from dogo_fed.engine.open import open_session
from dogo_fed.exchange.base import Traffic
from dogo_fed.exchange.in_process import InProcessExchange
from dogo_fed.run.local import run_local
from dogo_fed.run.prepare import prepare
from dogo_fed.storage.run_folder import RunFolder, create, reopen
from tests.support.distributions import KeepingSink

STEPS, EVERY = 11, 3
EXCHANGES = [0, 3, 6, 9]
FIRST, SECOND = PeerId("simclr"), PeerId("simsiam")


@functools.cache
def prepared(*changes: str):
    return prepare(
        compose_run(
            [
                "host=local",
                "peers=simclr_simsiam",
                "data=synthetic",
                "data.options.size=32",
                "data.options.test_size=8",
                "batch_size=8",
                "eval.knn_k=5",
                "eval.knn_every_rounds=99",
                "eval.linear=false",
                f"steps={STEPS}",
                "steps_per_round=4",
                f"exchange.every_steps={EVERY}",
                "checkpoint.every_steps=1",
                *changes,
            ]
        )
    )


def run_in(folder, *changes: str):
    run = prepared(*changes)
    return dataclasses.replace(run, config=dataclasses.replace(run.config, run_dir=str(folder)))


def reports(sink, peer):
    return [one for one in sink.records if isinstance(one, StepReport) and one.peer == peer]


def digests(sink):
    return {one.peer: one.state_digest for one in sink.records if isinstance(one, PeerResult)}


def train(folder, *changes, stop_requested=lambda: False):
    run, sink = run_in(folder, *changes), KeepingSink()
    run_local(run, create(run.config), sink, stop_requested)
    return sink


class Whole:
    """A run that nobody interrupts, and what was called on its peers' exchanges, by step."""

    def __init__(self, folder, patch) -> None:
        self.calls: list[tuple[str, str, int]] = []
        for verb in ("publish", "collect"):
            patch.setattr(InProcessExchange, verb, self._noting(verb))
        patch.setattr(InProcessExchange, "last_traffic", Traffic(100, 200))
        self.sink = train(folder)

    def _noting(self, verb):
        plain = getattr(InProcessExchange, verb)

        def noting(end, ticket, *arguments):
            self.calls.append((verb, end._peer, ticket.step))
            return plain(end, ticket, *arguments)

        return noting


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        return Whole(tmp_path_factory.mktemp("whole") / "run", patch)


@pytest.mark.parametrize("peer", [FIRST, SECOND])
def test_nothing_is_said_between_two_exchanges(whole, peer):
    for verb in ("publish", "collect"):
        assert [call[2] for call in whole.calls if call[:2] == (verb, peer)] == EXCHANGES
    steps = reports(whole.sink, peer)
    assert [one.step for one in steps] == list(range(STEPS))
    assert [one.step for one in steps if one.num_teachers == 1] == EXCHANGES
    for one in steps:
        exchanged = one.step in EXCHANGES
        assert (one.mutual_kl > 0) == exchanged
        assert (one.bytes_up, one.bytes_down) == ((100, 200) if exchanged else (0, 0))
        assert exchanged or one.wait_s == 0.0


def test_the_mutual_kl_of_a_result_is_the_mean_over_exchanges(whole):
    (result,) = [
        one for one in whole.sink.records if isinstance(one, PeerResult) and one.peer == FIRST
    ]
    last_round = [one for one in reports(whole.sink, FIRST) if one.round == 3]
    assert [one.step for one in last_round] == [8, 9, 10]
    assert result.mutual_kl == pytest.approx(last_round[1].mutual_kl)
    assert result.ssl_loss == pytest.approx(sum(one.ssl_loss for one in last_round) / 3)


RARELY = "checkpoint.every_steps=99"


@pytest.mark.parametrize(("asked_at", "stops_after"), [(0, 0), (1, 0), (3, 2), (5, 4), (10, 9)])
def test_a_stop_ends_all_where_they_are_and_what_they_have_is_saved(
    tmp_path, whole, asked_at, stops_after
):
    """Before an exchange too: its forward pass, which has moved statistics, is taken back."""
    turns = iter(range(100))
    sink = train(tmp_path / "run", RARELY, stop_requested=lambda: next(turns) >= asked_at)
    for peer in (FIRST, SECOND):
        assert reports(sink, peer)[-1].step == stops_after
        folder = tmp_path / "run" / "peers" / peer / "checkpoints"
        assert max(path.name for path in folder.iterdir()) == f"step-{stops_after + 1:09d}.pt"
    assert digests(sink) == {}
    run = run_in(tmp_path / "run", RARELY)
    folder = reopen(tmp_path / "run", run.config, run.plan.total_steps, run.plan.next_exchange)
    again = KeepingSink()
    run_local(run, folder, again, lambda: False)
    assert digests(again) == digests(whole.sink)


# ---- killed and gone on, with peers that are apart ----


class Apart:
    """Two sessions in this thread, each as far as its exchange lets it; nothing is saved at the end."""

    def __init__(self, run, folder: RunFolder, sink) -> None:
        self.coordinator = Coordinator(
            run.coordinator_settings(folder.run_id, folder.first_step), 0.0, sink.emit
        )
        self.sessions = {}
        self.is_open = dict.fromkeys(run.peer_ids, False)
        for peer_id in run.peer_ids:
            link = InProcessExchange(
                self.coordinator, peer_id, f"{peer_id}-1", run.wire_format, lambda: 0.0
            )
            self.sessions[peer_id] = open_session(
                run,
                folder.path,
                peer_id,
                link,
                sink,
                checkpoint_step=folder.checkpoints.get(peer_id),
            )
            self.sessions[peer_id].start()

    def move(self, peer) -> None:
        """Does what this peer can do now: half an exchange, a step alone, or nothing."""
        session = self.sessions[peer]
        if session.is_finished:
            return
        if not self.is_open[peer]:
            session.begin_step()
            self.is_open[peer] = True
        step = self.at(peer)
        if step % EVERY or self.coordinator.next_open_step > step:
            session.end_step()
            self.is_open[peer] = False

    def at(self, peer) -> int:
        """Returns the step that this peer does: the one that it has begun, or begins next."""
        return self.sessions[peer].next_step - self.is_open[peer]


@pytest.mark.parametrize(
    ("slow_at", "fast_at", "between_saves", "goes_on_at"),
    [(6, 9, 1, 6), (7, 9, 1, 7), (3, 6, 2, 2), (9, STEPS, 1, 9)],
)
def test_killed_while_peers_are_apart_the_run_goes_on_to_the_same_weights(
    tmp_path, whole, slow_at, fast_at, between_saves, goes_on_at
):
    run = run_in(tmp_path / "run", f"checkpoint.every_steps={between_saves}")
    fix_numerics(1)
    apart = Apart(run, create(run.config), KeepingSink())
    while apart.at(FIRST) < slow_at:
        apart.move(FIRST)
        apart.move(SECOND)
    apart.sessions[FIRST].begin_step()  # and shows what is due, but never learns from the others
    apart.is_open[FIRST] = True
    for _ in range(STEPS):
        apart.move(SECOND)
    assert (apart.at(FIRST), apart.at(SECOND)) == (slow_at, fast_at)
    del apart  # killed: nothing is saved

    folder = reopen(tmp_path / "run", run.config, run.plan.total_steps, run.plan.next_exchange)
    assert folder.first_step == goes_on_at
    sink = KeepingSink()
    run_local(run, folder, sink, lambda: False)
    assert digests(sink) == digests(whole.sink)


def test_lockstep_and_apart_are_the_same_run(tmp_path, whole):
    run, sink = run_in(tmp_path / "run"), KeepingSink()
    apart = Apart(run, create(run.config), sink)
    for _ in range(4 * STEPS):
        for peer in (SECOND, SECOND, FIRST):
            apart.move(peer)
    assert all(session.is_finished for session in apart.sessions.values())
    results = run_lockstep(list(apart.sessions.values()), lambda: False)
    assert {one.peer: one.state_digest for one in results} == digests(whole.sink)


def test_the_first_steps_exchange_as_well_if_told(tmp_path):
    sink = train(tmp_path / "run", "exchange.dense_steps=5")
    for peer in (FIRST, SECOND):
        taught = [one.step for one in reports(sink, peer) if one.num_teachers == 1]
        assert taught == [0, 1, 2, 3, 4, 6, 9]
