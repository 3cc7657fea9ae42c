"""Sessions that exchange at every k-th step: what is said when, stops, a run that is killed and goes on."""

from __future__ import annotations

import dataclasses
import functools
import random

import pytest

from configs.compose import compose_run
from dogo_fed.contracts import PeerId, PeerResult, StepReport
from dogo_fed.coordination.coordinator import Coordinator
from dogo_fed.engine.build import build_session, fix_numerics
from dogo_fed.engine.session import run_lockstep
from dogo_fed.exchange.in_process import InProcessExchange
from dogo_fed.run.folder import RunFolder, create, reopen
from dogo_fed.run.local import run_local
from dogo_fed.run.prepare import prepare
from tests.contract.made import KeepingSink

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


class Ends:
    """What is called on each peer's exchange, by step."""

    def __init__(self, monkeypatch) -> None:
        self.calls: list[tuple[str, str, int]] = []
        for verb in ("publish", "collect"):
            monkeypatch.setattr(InProcessExchange, verb, self._noting(verb))

    def _noting(self, verb):
        plain = getattr(InProcessExchange, verb)

        def noting(end, ticket, *arguments):
            self.calls.append((verb, end._peer, ticket.step))
            return plain(end, ticket, *arguments)

        return noting


def reports(sink, peer):
    return [one for one in sink.records if isinstance(one, StepReport) and one.peer == peer]


def digests(sink):
    return {one.peer: one.state_digest for one in sink.records if isinstance(one, PeerResult)}


def train(folder, *changes, stop_requested=lambda: False):
    run, sink = run_in(folder, *changes), KeepingSink()
    run_local(run, create(run.config), sink, stop_requested)
    return sink


def test_nothing_is_said_between_two_exchanges(tmp_path, monkeypatch):
    ends = Ends(monkeypatch)
    sink = train(tmp_path / "run")
    for peer in (FIRST, SECOND):
        for verb in ("publish", "collect"):
            assert [call[2] for call in ends.calls if call[:2] == (verb, peer)] == EXCHANGES
        steps = reports(sink, peer)
        assert [one.step for one in steps] == list(range(STEPS))
        assert [one.step for one in steps if one.num_teachers == 1] == EXCHANGES
        assert all((one.mutual_kl > 0) == (one.step in EXCHANGES) for one in steps)


def test_a_step_without_exchange_says_no_bytes_of_the_last_one(tmp_path, monkeypatch):
    from dogo_fed.exchange.base import Traffic

    monkeypatch.setattr(InProcessExchange, "last_traffic", Traffic(100, 200))
    sink = train(tmp_path / "run")
    for one in reports(sink, FIRST):
        assert (one.bytes_up, one.bytes_down) == ((100, 200) if one.step in EXCHANGES else (0, 0))
        assert one.wait_s == 0.0


def test_the_mutual_kl_of_a_result_is_the_mean_over_exchanges(tmp_path):
    sink = train(tmp_path / "run")
    (result,) = [one for one in sink.records if isinstance(one, PeerResult) and one.peer == FIRST]
    last_round = [one for one in reports(sink, FIRST) if one.round == 3]
    assert [one.step for one in last_round] == [8, 9, 10]
    assert result.mutual_kl == pytest.approx(last_round[1].mutual_kl)
    assert result.ssl_loss == pytest.approx(sum(one.ssl_loss for one in last_round) / 3)


def test_every_step_one_is_the_plain_run_and_others_are_not(tmp_path):
    found = [
        digests(train(tmp_path / f"run-{number}", *changes))
        for number, changes in enumerate(
            [("exchange.every_steps=1",), (), ("exchange.enabled=false",)]
        )
    ]
    assert len({tuple(sorted(one.items())) for one in found}) == 3
    again = digests(train(tmp_path / "again"))
    assert again == found[1]


@pytest.mark.parametrize(("asked_at", "stops_after"), [(0, 0), (1, 3), (3, 3), (4, 6), (9, 9)])
def test_a_stop_ends_all_at_the_next_exchange(tmp_path, asked_at, stops_after):
    turns = iter(range(100))
    sink = train(tmp_path / "run", stop_requested=lambda: next(turns) >= asked_at)
    for peer in (FIRST, SECOND):
        assert reports(sink, peer)[-1].step == stops_after
        folder = tmp_path / "run" / "peers" / peer / "checkpoints"
        assert max(path.name for path in folder.iterdir()) == f"step-{stops_after + 1:09d}.pt"
    assert digests(sink) == {}


def test_after_the_last_exchange_nobody_is_there_to_decide_a_stop_and_the_run_ends_by_itself(
    tmp_path,
):
    turns = iter(range(100))
    sink = train(tmp_path / "run", stop_requested=lambda: next(turns) >= 10)
    assert len(digests(sink)) == 2


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
            peer = run.build_peer(peer_id)
            peer_folder = folder.peer(
                peer_id, keep_checkpoints=2, lag_steps=run.plan.exchange_every_steps
            )
            progress = peer_folder.checkpoints.restore(
                folder.checkpoint_step, peer.objective, peer.optimizer, peer.device
            )
            self.coordinator.join(peer_id, f"{peer_id}-1", run.agreement, 0.0)
            self.sessions[peer_id] = build_session(
                peer,
                run.config,
                run.frame(folder.run_id),
                exchange=InProcessExchange(self.coordinator, peer_id, f"{peer_id}-1", lambda: 0.0),
                sink=sink,
                folder=peer_folder,
                progress=progress,
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
        if session.next_step % EVERY or self.coordinator.next_open_step > session.next_step:
            session.end_step()
            self.is_open[peer] = False


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    return digests(train(tmp_path_factory.mktemp("uninterrupted") / "run"))


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("between_saves", [1, 2])
def test_killed_while_peers_are_apart_the_run_goes_on_to_the_same_weights(
    tmp_path, uninterrupted, seed, between_saves
):
    changes = (f"checkpoint.every_steps={between_saves}",)
    run, sink, chances = run_in(tmp_path / "run", *changes), KeepingSink(), random.Random(seed)
    fix_numerics(1)
    apart = Apart(run, create(run.config), sink)
    favourite = (FIRST, SECOND)[seed % 2]
    for _ in range(chances.randrange(8, 24)):
        apart.move(favourite if chances.random() < 0.8 else chances.choice([FIRST, SECOND]))
    steps = {peer: session.next_step for peer, session in apart.sessions.items()}
    assert max(steps.values()) - min(steps.values()) <= EVERY
    del apart  # killed: nothing is saved

    folder = reopen(str(tmp_path / "run"), run.config)
    slowest = min(steps.values())
    assert folder.first_step == slowest - slowest % between_saves or slowest == STEPS
    sink = KeepingSink()
    run_local(run, folder, sink, lambda: False)
    assert digests(sink) == uninterrupted


def test_lockstep_and_apart_are_the_same_run(tmp_path, uninterrupted):
    run, sink = run_in(tmp_path / "run"), KeepingSink()
    apart = Apart(run, create(run.config), sink)
    for _ in range(4 * STEPS):
        for peer in (SECOND, SECOND, FIRST):
            apart.move(peer)
    assert all(session.is_finished for session in apart.sessions.values())
    results = run_lockstep(list(apart.sessions.values()), lambda: False)
    assert {one.peer: one.state_digest for one in results} == uninterrupted
