"""Steps that overlap: each update comes one step late, and with the very numbers of its own step."""

from __future__ import annotations

import copy

import pytest
import torch

from configs.compose import compose_run
from configs.resume import resumed
from dogo_fed.contracts import StepReport
from dogo_fed.coordination.coordinator import Coordinator
from dogo_fed.engine.loaded_run import load_run
from dogo_fed.engine.numerics import fix_numerics
from dogo_fed.engine.open import open_session
from dogo_fed.engine.peer import Peer
from dogo_fed.engine.step import absorb, propose, show
from dogo_fed.errors import ConfigError
from dogo_fed.evaluation import state_digest
from dogo_fed.exchange.in_process import InProcessExchange
from dogo_fed.reporting.sinks.metrics import read_records
from dogo_fed.run.prepare import prepare
from dogo_fed.storage.peer_folder import PeerFolder
from dogo_fed.storage.run_folder import create
from tests.support.distributions import KeepingSink
from tests.support.run_watch import digests
from tests.support.tiny_run import TINY, run_here
from tests.support.toy_peers import signal_of

AHEAD = "exchange.lookahead=1"
SHORT = [one for one in TINY if not one.startswith(("steps=", "steps_per_round="))]
ROUND = 4


def by_hand(settings, steps):
    """Returns the state digests of peers whose updates come one step late within each round.

    Steps that do not exchange end all that is open.
    """
    fix_numerics(1)
    run = load_run(compose_run([*SHORT, f"steps={steps}", f"steps_per_round={ROUND}", *settings]))
    peers = {name: run.build_peer(name) for name in run.peer_ids}
    weights = {name: [] for name in peers}  # before each step's forward pass
    pending = []

    def forward(step):
        shown, kept = {}, {}
        for name, peer in peers.items():
            weights[name] = {key: one.detach().clone() for key, one in named(peer).items()}
            # A copy with these weights takes the step; the buffers of the peer itself move.
            taker = copy.deepcopy(peer)
            images = run.images_of(name, step, with_labels=False)
            proposal = propose(taker, images, step)
            for key, buffer in taker.objective.named_buffers():
                dict(peer.objective.named_buffers())[key].copy_(buffer)
            if run.plan.exchanges_at(step):
                shown[name] = show(taker, proposal)
            kept[name] = (taker, proposal)
        return step, shown, kept

    def update(step, shown, kept):
        for name, peer in peers.items():
            taker, proposal = kept[name]
            others = [one for other, one in shown.items() if other != name]
            signal = signal_of(*others) if others else None
            absorb(taker, proposal, signal)  # leaves the gradient; its weights are dropped
            for key, weight in named(peer).items():
                weight.grad = taker.objective.get_parameter(key).grad
            peer.optimizer.step()
            peer.objective.after_update()

    for step in range(steps):
        pending.append(forward(step))
        stands_still = run.plan.ends_round(step) or not run.plan.exchanges_at(step)
        while len(pending) > (0 if stands_still else 1):
            update(*pending.pop(0))
    return {name: state_digest(peer.objective) for name, peer in peers.items()}


def named(peer):
    return {key: one for key, one in peer.objective.named_parameters() if one.requires_grad}


def run_of(folder, *settings, steps=6):
    return run_here(
        compose_run(
            [*SHORT, f"steps={steps}", f"steps_per_round={ROUND}", *settings, f"run_dir={folder}"]
        )
    )


@pytest.mark.parametrize(
    "settings",
    [
        (),
        ("peers=simclr_simsiam",),
        (
            "objective@peers.wide.objective=byol_small",
            "objective@peers.resnet.objective=moco_v3_small",
        ),
        ("exchange.every_steps=2",),
        ("exchange.every_steps=3", "exchange.dense_steps=2"),
    ],
)
def test_a_run_has_the_numbers_of_updates_that_come_one_step_late(settings, tmp_path):
    run_of(tmp_path / "run", AHEAD, *settings)
    assert digests(tmp_path / "run") == by_hand(settings, steps=6)


def test_it_is_another_run_and_says_so(tmp_path):
    ahead, plain = run_of(tmp_path / "ahead", AHEAD), run_of(tmp_path / "plain")
    assert ahead["variants"] == {"exchange.lookahead": 1, **plain["variants"]}
    assert digests(tmp_path / "ahead") != digests(tmp_path / "plain")


def test_every_step_is_reported_once_and_in_order(tmp_path):
    run_of(tmp_path / "run", AHEAD)
    steps = [
        one
        for one in read_records(tmp_path / "run" / "metrics.jsonl")
        if isinstance(one, StepReport)
    ]
    for peer in ("resnet", "wide"):
        assert [one.step for one in steps if one.peer == peer] == list(range(6))
        assert all(one.num_teachers == 1 for one in steps)


@pytest.mark.parametrize("every", [1, 3])
def test_while_an_answer_is_on_its_way_a_peer_goes_forward_and_back(every, tmp_path, monkeypatch):
    """So an answer costs no time that takes no longer than a step, also if not all steps exchange."""
    sessions, _ = started(tmp_path / "run", f"exchange.every_steps={every}", "steps_per_round=6")
    done = []

    def noting(what, kind, step_of):
        plain = getattr(kind, what)

        def noted(one, *given):
            if one in (sessions[0].peer, sessions[0]._exchange):
                done.append((what, step_of(given)))
            return plain(one, *given)

        monkeypatch.setattr(kind, what, noted)

    noting("publish", InProcessExchange, lambda given: given[0].step)
    noting("collect", InProcessExchange, lambda given: given[0].step)
    noting("encode", Peer, lambda given: given[2])
    noting("_backward", Peer, lambda given: None)
    for _ in range(5):
        do_a_step(sessions)
    meanwhile = done[done.index(("publish", 3)) : done.index(("collect", 3))]
    assert ("encode", 4) in meanwhile and ("_backward", None) in meanwhile


def test_steps_between_exchanges_stand_still_when_they_are_done(tmp_path):
    """So there a peer can be taken up again inside a round, bit for bit."""
    settings = [AHEAD, "exchange.every_steps=3", "steps_per_round=6"]
    sessions, _ = started(tmp_path / "run", *settings)
    open_steps = []
    for _ in range(5):
        do_a_step(sessions)
        open_steps.append(len(sessions[0]._open))
    assert open_steps == [1, 0, 0, 1, 0]


def test_in_fp16_the_gradient_waits_for_the_scale_of_its_loss(tmp_path):
    sessions, _ = started(tmp_path / "run", "exchange.every_steps=2", "precision=fp16")
    assert not sessions[0].peer.can_go_back_ahead
    do_a_step(sessions)
    do_a_step(sessions)
    assert sessions[0].next_step == 2 and sessions[0].can_stop_here is False


@pytest.mark.parametrize("every", [1, 3])
def test_a_run_in_parts_ends_as_one_in_one_go(every, tmp_path):
    settings = (AHEAD, f"exchange.every_steps={every}")
    run_of(tmp_path / "one", *settings, steps=8)
    run_of(tmp_path / "two", *settings, steps=4)
    again = [f"resume={tmp_path}/two", "steps=8"]
    run_here(resumed(compose_run(again), again))
    assert digests(tmp_path / "one") == digests(tmp_path / "two")


def started(folder, *settings):
    """Sessions of a run, in one process, and its folder."""
    config = compose_run(
        [*SHORT, "steps=6", f"steps_per_round={ROUND}", AHEAD, *settings, f"run_dir={folder}"]
    )
    run = prepare(config)
    made = create(run.config)
    coordinator = Coordinator(run.coordinator_settings("run", 0), 0.0, lambda event: None)
    sessions = [
        open_session(
            run, made.path, name,
            InProcessExchange(coordinator, name, name, run.wire_format, lambda: 0.0), KeepingSink(),
            checkpoint_step=None,
        )
        for name in run.peer_ids
    ]  # fmt: skip
    for session in sessions:
        session.start()
    return sessions, made


def do_a_step(sessions):
    for session in sessions:
        session.begin_step()
    for session in sessions:
        session.end_step()


def test_nobody_stops_while_an_exchange_is_open_that_others_may_have_the_answer_to(tmp_path):
    """Else one peer takes it back, the other does not, and the run has to go far back for both."""
    sessions, _ = started(tmp_path / "run", "exchange.every_steps=3")
    found = []
    for _ in range(5):
        do_a_step(sessions)
        found.append((sessions[0].next_step, sessions[0].can_stop_here))
    # Step 3 exchanges too, but its round ends with it, so it was completed.
    assert found == [(1, False), (2, True), (3, False), (4, True), (5, True)]


def test_a_step_that_was_begun_ahead_is_taken_back(tmp_path):
    sessions, folder = started(tmp_path / "run")
    first = sessions[0]

    def buffers():
        return [one.clone() for one in first.peer.objective.buffers()]

    moved = []
    for _ in range(2):
        for session in sessions:
            session.begin_step()
        moved.append(buffers())
        for session in sessions:
            session.end_step()
    weights = [one.detach().clone() for one in first.peer.objective.parameters()]
    assert first.next_step == 2, "one step is done, and one was begun"
    first.save()
    assert first.next_step == 1
    assert all(map(torch.equal, buffers(), moved[0]))
    assert not all(map(torch.equal, moved[1], moved[0]))
    assert all(map(torch.equal, first.peer.objective.parameters(), weights))
    saved = PeerFolder(folder.path, first.peer.id).checkpoints.steps()
    assert 1 in saved


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        (["exchange.lookahead=2"], "must be 0 or 1, not 2"),
        (
            ["objective@peers.wide.objective=moco_v2_small"],
            "moco_v2 can't be trained with exchange.lookahead=1",
        ),
        (["peers.wide.chunk_size=4"], "peers.wide.chunk_size .* does not go with"),
        (["checkpoint.every_steps=1"], "leave out checkpoint.every_steps"),
    ],
)
def test_what_does_not_go_with_it_is_refused(settings, why):
    with pytest.raises(ConfigError, match=why):
        run = load_run(compose_run([*TINY, AHEAD, *settings]))
        run.build_peer("wide")
