"""The host of a peer that is driven by messages: what it is told, what it says, and who may tell it."""

from __future__ import annotations

import dataclasses
import json
import math
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from clients.flower import peer_host
from clients.flower.peer_host import PeerHost, SiteSettings
from clients.peer import run as peer_run
from configs.compose import compose_run
from dogo_fed.config import RunConfig
from dogo_fed.config_text import from_mapping, to_mapping
from dogo_fed.contracts import Ending, Outcome, PeerId
from dogo_fed.errors import (
    CoordinatorLost,
    DataError,
    HelperLost,
    Refused,
    StorageFull,
    TrainingError,
)
from dogo_fed.scope import DecidedBy, paths_of
from dogo_fed.storage.checkpoint import Progress
from dogo_fed.storage.peer_folder import PeerFolder
from dogo_fed.wire import dogo_pb2 as pb
from tests.support.fake_flower import ToyPeers, assignment_of, eventually

ADA, BOB = PeerId("resnet"), PeerId("wide")
RUN_ID = "run-1"
STEPS = 6

pytestmark = pytest.mark.timeout(60)


@pytest.fixture(scope="module")
def config():
    return compose_run(
        ["host=flower", "data=synthetic", "exchange=flower", "batch_size=4", "steps=6"]
    )


@pytest.fixture(scope="module")
def config_over_grpc():
    return compose_run(
        ["host=flower", "data=synthetic", "exchange=grpc", "batch_size=4", "steps=6"]
    )


class Line:
    """What a coordinator says to one host about one start of a peer."""

    def __init__(self, host, config, peer=ADA, start=0, run_id=RUN_ID):
        self.host, self.config, self.peer, self.start_, self.run_id = (
            host,
            config,
            peer,
            start,
            run_id,
        )

    def request(self, **fields):
        return pb.HostRequest(
            **{"run_id": self.run_id, "peer": self.peer, "start": self.start_, **fields}
        )

    def say(self, **fields):
        reply = self.host.handle(self.request(**fields).SerializeToString())
        return pb.HostReply.FromString(reply)

    def assignment(self, **changes):
        run = type("Run", (), {"config": self.config})
        given = {"number": self.start_, **changes}
        return assignment_of(run, self.peer, self.run_id, **given).to_json()

    def begin(self, **fields):
        return self.say(assignment=self.assignment(), **fields)

    def until(self, condition, **fields):
        """Asks until a reply is as wanted, and returns it."""
        replies = [self.say(**fields)]
        eventually(
            lambda: condition(replies[-1]) or replies.append(self.say(**fields)),
            f"last reply: {replies[-1]}",
        )
        return replies[-1]

    def waiting(self, step, **fields):
        """Asks until the peer waits at this step."""
        return self.until(
            lambda reply: reply.state == pb.WAITING and reply.next_step == step, **fields
        )

    def ended(self, **fields):
        return self.until(lambda reply: reply.state == pb.ENDED, **fields)


@pytest.fixture
def toys(monkeypatch):
    made = ToyPeers(STEPS)
    monkeypatch.setattr(peer_host, "run_assignment", made)
    return made


@pytest.fixture
def host(toys):
    made = PeerHost("room 7")
    yield made
    made.close()


def outcome(reply):
    return Outcome(reply.outcome)


# ---- how far a peer may go ----


def test_who_was_never_started_is_unknown(host, config):
    reply = Line(host, config).say()
    assert reply.state == pb.UNKNOWN and reply.where == "room 7" and reply.message


def test_a_peer_does_the_steps_that_it_may_do_and_no_more(host, config_over_grpc, toys):
    line = Line(host, config_over_grpc)
    line.begin()
    for allowed in range(STEPS):
        line.waiting(allowed)
        assert toys.steps[(ADA, 0)] == list(range(allowed))
        line.say(until_step=allowed + 1)
        eventually(lambda allowed=allowed: len(toys.steps[(ADA, 0)]) > allowed, "the step")
    reply = line.ended()
    assert outcome(reply) is Outcome.FINISHED
    assert toys.steps[(ADA, 0)] == list(range(STEPS))


def test_what_was_granted_is_not_taken_back(host, config_over_grpc, toys):
    line = Line(host, config_over_grpc)
    line.begin(until_step=3)
    line.say(until_step=1)
    line.waiting(3)
    assert toys.steps[(ADA, 0)] == [0, 1, 2]


def test_who_may_go_on_is_not_said_to_wait(host, config_over_grpc, toys):
    line = Line(host, config_over_grpc)
    line.begin()
    for step in range(STEPS):
        line.waiting(step)
        reply = line.say(until_step=step + 1, hold_s=1.0)
        assert reply.state != pb.WAITING or reply.next_step == step + 1


def test_a_stop_reaches_who_waits_for_a_round(host, config_over_grpc, toys):
    line = Line(host, config_over_grpc)
    line.begin(until_step=2)
    line.waiting(2)
    reply = line.ended(stop=True)
    assert outcome(reply) is Outcome.STOPPED
    assert toys.steps[(ADA, 0)] == [0, 1]


def test_who_is_forgotten_at_its_turn_ends_by_itself(host, config_over_grpc, monkeypatch):
    monkeypatch.setattr(
        peer_host, "_TURN_MARGIN_S", 0.1 - config_over_grpc.exchange.answer_within_s
    )
    line = Line(host, config_over_grpc)
    line.begin()
    eventually(lambda: not host._job.is_alive(), "the peer waits for ever")
    reply = line.ended()
    assert outcome(reply) is Outcome.CUT_OFF
    assert "none has asked for step 0" in reply.message


def test_who_is_asked_now_and_then_waits_for_its_turn(host, config_over_grpc, monkeypatch):
    """The others evaluate, which may take longer than any step."""
    monkeypatch.setattr(
        peer_host, "_TURN_MARGIN_S", 3.0 - config_over_grpc.exchange.answer_within_s
    )
    line = Line(host, config_over_grpc)
    line.begin()
    for _ in range(12):
        time.sleep(0.5)
        assert line.say().state == pb.WAITING
    assert outcome(line.ended(stop=True)) is Outcome.STOPPED


def test_a_peer_that_fails_in_a_way_nobody_thought_of_has_failed(host, config_over_grpc, toys):
    def crash(peer, number, step):
        raise ZeroDivisionError("made up")

    toys.crash = crash
    line = Line(host, config_over_grpc)
    line.begin(until_step=1)
    reply = line.ended()
    assert outcome(reply) is Outcome.FAILED
    assert reply.message == "ZeroDivisionError: made up"


def test_a_message_that_no_wire_can_carry_is_told_all_the_same(
    host, config_over_grpc, toys, monkeypatch
):
    """File names may hold bytes that are no text."""
    # The logged traceback holds them too, and test runners can't pass that on.
    monkeypatch.setattr(peer_host.logger, "disabled", True)

    def crash(peer, number, step):
        raise OSError("can't read caf\udce9")

    toys.crash = crash
    line = Line(host, config_over_grpc)
    line.begin(until_step=1)
    reply = line.ended()
    assert outcome(reply) is Outcome.FAILED and "can't read caf" in reply.message


def test_an_ended_peer_stays_ended_and_is_not_started_again_by_a_repeated_message(
    host, config_over_grpc, toys
):
    line = Line(host, config_over_grpc)
    line.begin(until_step=STEPS)
    line.ended()
    assert line.begin(until_step=STEPS).state == pb.ENDED
    assert len(toys.endings) == 1


# ---- holding back ----


def test_a_reply_is_held_back_until_there_is_news(host, config):
    line = Line(host, config)
    line.begin()
    started_s = time.monotonic()
    reply = line.say(hold_s=15.0)
    assert reply.HasField("join")
    assert time.monotonic() - started_s < 5.0


@pytest.fixture
def busy(host, config_over_grpc, toys):
    """A line to a peer that is in the middle of its first step until the test ends."""
    entered, go_on = threading.Event(), threading.Event()

    def work(peer, number, step):
        entered.set()
        go_on.wait(30)

    toys.crash = work
    line = Line(host, config_over_grpc)
    line.begin(until_step=STEPS)
    assert entered.wait(10)
    yield line
    go_on.set()


def test_a_reply_without_news_is_held_back_for_as_long_as_asked(busy):
    started_s = time.monotonic()
    assert busy.say(hold_s=0.2).state == pb.RUNNING
    assert 0.15 < time.monotonic() - started_s < 3.0


@pytest.mark.parametrize("hold_s", [math.nan, -1.0, -math.inf])
def test_a_time_that_is_none_does_not_hold_a_reply_back(hold_s, busy):
    asking = threading.Thread(target=busy.say, kwargs={"hold_s": hold_s}, daemon=True)
    asking.start()
    asking.join(2.0)
    is_held = asking.is_alive()
    assert not is_held


def test_an_endless_time_is_cut_to_a_bearable_one(busy, monkeypatch):
    monkeypatch.setattr(peer_host, "_LONGEST_HOLD_S", 0.2)
    started_s = time.monotonic()
    assert busy.say(hold_s=math.inf).state == pb.RUNNING
    assert time.monotonic() - started_s < 5.0


# ---- starts ----


def test_a_later_start_takes_the_place_of_an_earlier_one(host, config_over_grpc, toys):
    first, second = (Line(host, config_over_grpc, start=number) for number in (0, 1))
    first.begin(until_step=1)
    first.waiting(1)
    second.begin(until_step=STEPS)
    second.ended()
    assert toys.endings[0][:2] == (ADA, 0)
    assert toys.endings[0][2].outcome is Outcome.CUT_OFF
    assert toys.endings[1] == (ADA, 1, Ending(Outcome.FINISHED))
    assert first.say().state == pb.UNKNOWN


def test_the_same_start_from_many_sides_at_once_starts_one_peer(host, config_over_grpc, toys):
    line = Line(host, config_over_grpc)
    with ThreadPoolExecutor(8) as pool:
        states = {one.state for one in pool.map(lambda _: line.begin(until_step=STEPS), range(16))}
    line.ended()
    assert pb.UNKNOWN not in states
    assert toys.steps == {(ADA, 0): list(range(STEPS))}
    assert len(toys.endings) == 1


def test_an_earlier_start_does_not_come_back(host, config_over_grpc, toys):
    first, second = (Line(host, config_over_grpc, start=number) for number in (0, 1))
    second.begin()
    second.waiting(0)
    reply = first.begin(until_step=STEPS)
    assert reply.state == pb.UNKNOWN and "later start" in reply.message
    assert second.say().state == pb.WAITING
    assert (ADA, 0) not in toys.steps


def test_another_run_takes_the_place_of_one_that_nobody_closed(host, config_over_grpc, toys):
    old, new = (Line(host, config_over_grpc, run_id=name) for name in ("run-1", "run-2"))
    old.begin()
    old.waiting(0)
    new.begin(until_step=STEPS)
    assert outcome(new.ended()) is Outcome.FINISHED
    assert old.say().state == pb.UNKNOWN


def test_a_start_waits_until_the_one_before_has_really_ended(
    host, config_over_grpc, toys, monkeypatch
):
    """Two of them would write to the same folder."""
    monkeypatch.setattr(peer_host, "_END_WAIT_S", 0.1)
    entered, go_on = threading.Event(), threading.Event()

    def work(peer, number, step):
        if number == 0:
            entered.set()
            go_on.wait(30)

    toys.crash = work
    first, second = (Line(host, config_over_grpc, start=number) for number in (0, 1))
    first.begin(until_step=STEPS)
    assert entered.wait(10)
    reply = second.begin(until_step=STEPS)
    assert reply.state == pb.AWAY and "has not ended yet" in reply.message
    assert (ADA, 1) not in toys.steps
    go_on.set()
    eventually(lambda: second.begin(until_step=STEPS).state != pb.AWAY, "the second start")
    assert outcome(second.ended()) is Outcome.FINISHED


def test_an_assignment_for_another_peer_than_the_request_is_refused(host, config_over_grpc, toys):
    line = Line(host, config_over_grpc)
    for changes in ({"peer": BOB}, {"run_id": "run-9"}, {"number": 4}):
        text = json.dumps({**json.loads(line.assignment()), **changes})
        reply = line.say(assignment=text)
        assert reply.state == pb.ENDED and outcome(reply) is Outcome.UNFIT
        assert "not for the peer that the request names" in reply.message
    assert toys.steps == {}


@pytest.mark.parametrize("text", ["garbage", "{}", '{"peer": 1}'])
def test_a_refused_assignment_leaves_the_peer_that_runs_alone(host, config_over_grpc, toys, text):
    line = Line(host, config_over_grpc)
    line.begin(until_step=1)
    line.waiting(1)
    stranger = Line(host, config_over_grpc, run_id="run-9")
    reply = stranger.say(assignment=text)
    assert reply.state == pb.ENDED and outcome(reply) is Outcome.UNFIT
    assert line.say().state == pb.WAITING
    assert toys.endings == []


def test_messages_to_a_start_that_is_not_here_change_nothing(host, config_over_grpc, toys):
    line = Line(host, config_over_grpc)
    line.begin()
    line.waiting(0)
    for stranger in (
        Line(host, config_over_grpc, start=1),
        Line(host, config_over_grpc, peer=BOB),
        Line(host, config_over_grpc, run_id="run-9"),
    ):
        for fields in ({"until_step": 3}, {"stop": True}, {"close": True}):
            assert stranger.say(**fields).state == pb.UNKNOWN
    assert line.say().state == pb.WAITING
    assert toys.steps[(ADA, 0)] == []


# ---- the end ----


def test_close_ends_who_waits_at_its_turn(host, config_over_grpc, toys):
    line = Line(host, config_over_grpc)
    line.begin(until_step=2)
    line.waiting(2)
    reply = line.say(close=True)
    assert reply.state == pb.ENDED and outcome(reply) is Outcome.CUT_OFF
    assert "the coordinator has closed the run" in reply.message
    assert toys.saved[ADA] == [2]
    assert line.say(close=True) == reply


def test_close_ends_who_waits_for_an_answer(host, config, toys):
    line = Line(host, config)
    line.begin(until_step=STEPS)
    line.until(lambda reply: reply.HasField("join"))
    line.until(lambda reply: reply.HasField("offer"), join=pb.JoinReply(next_step=2))
    reply = line.say(close=True)
    assert reply.state == pb.ENDED and outcome(reply) is Outcome.CUT_OFF
    assert toys.saved[ADA] == [2]


@pytest.mark.parametrize("waits_for", ["join", "turn"])
def test_a_host_that_is_told_to_end_lets_its_peer_save_itself(waits_for, host, config, toys):
    line = Line(host, config)
    line.begin()
    line.until(lambda reply: reply.HasField("join"))
    if waits_for == "turn":
        line.waiting(2, join=pb.JoinReply(next_step=2))
    host.close()
    host.close()
    assert [ending.outcome for _, _, ending in toys.endings] == [Outcome.CUT_OFF]
    assert toys.saved.get(ADA, []) == ([2] if waits_for == "turn" else [])


def test_a_message_does_not_wait_for_another_start_to_end(busy, config_over_grpc, monkeypatch):
    """A message never waits for the peer's work."""
    monkeypatch.setattr(peer_host, "_END_WAIT_S", 2.0)
    second = Line(busy.host, config_over_grpc, start=1)
    starting = threading.Thread(target=second.begin, daemon=True)
    starting.start()
    starting.join(0.1)
    started_s = time.monotonic()
    busy.say()
    took_s = time.monotonic() - started_s
    starting.join(20)
    assert took_s < 1.0


# ---- a whole exchange ----


def test_a_peer_goes_through_its_steps_by_messages(host, config, toys):
    line = Line(host, config)
    line.begin(until_step=STEPS)
    reply = line.until(lambda reply: reply.HasField("join"), hold_s=5.0)
    assert reply.join.sender.peer == ADA and reply.join.run_id == RUN_ID
    fields = {"join": pb.JoinReply(next_step=0)}
    for step in range(STEPS):
        reply = line.until(
            lambda r, step=step: r.offer.ticket.step == step and r.HasField("offer"), **fields
        )
        assert not reply.HasField("join")
        answer = pb.ExchangeReply(mean=reply.offer.distribution, teachers=[BOB], next_step=step + 1)
        fields = {"answer": answer, "answer_step": step, "hold_s": 5.0}
    reply = line.ended(**fields)
    assert outcome(reply) is Outcome.FINISHED
    assert reply.leave.sender.peer == ADA
    assert toys.teachers[(ADA, 0)] == [(BOB,)] * STEPS


# ---- sites ----


@pytest.fixture(scope="module")
def site_config():
    return compose_run(
        [
            "data=synthetic",
            "peers=pair",
            "data.options.size=77",
            "peers.resnet.distill_weight=9",
            "device=cpu",
            "threads_per_peer=3",
            "batch_size=8",
        ]
    )


@pytest.fixture
def site(site_config, tmp_path):
    return SiteSettings(config=site_config, root_certificates=b"PEM", run_root=tmp_path)


@pytest.fixture
def seen(monkeypatch):
    """What a site's peer is told in the end."""
    found = []

    def run_assignment(assignment, around):
        found.append((assignment, around))
        return Ending(Outcome.FINISHED)

    monkeypatch.setattr(peer_host, "run_assignment", run_assignment)
    return found


def test_a_site_tells_which_checkpoints_of_a_run_it_has_and_can_read(site, tmp_path):
    store = PeerFolder(tmp_path / "first", ADA, keep_checkpoints=9).checkpoints
    model = torch.nn.Linear(2, 2)
    for step in (10, 20, 30):
        store.save(model, torch.optim.SGD(model.parameters(), lr=1.0), Progress(step=step))
    newest = store.folder / "step-000000030.pt"
    newest.write_bytes(newest.read_bytes()[:-100])
    host = PeerHost("here", site)

    def told(run_id="first", peer=ADA):
        request = pb.HostRequest(run_id=run_id, peer=peer, asks_checkpoints=True)
        return pb.HostReply.FromString(host.handle(request.SerializeToString()))

    assert (told().checkpoints, told().broken_checkpoints, told().message) == ("10 20", "30", "")
    assert (told("another").checkpoints, told("another").message) == ("", "")
    for nowhere in (told("../first"), told(peer="nobody"), told(peer="../resnet")):
        assert (
            nowhere.checkpoints == "" and "keeps no checkpoints of such a peer" in nowhere.message
        )


@pytest.fixture
def saving(monkeypatch):
    """Lets a peer wait for its turn, do as the test says, and save a checkpoint of step 150."""
    at_the_end = []

    def run_assignment(assignment, around):
        store = PeerFolder(Path(assignment.run_dir), PeerId(assignment.peer)).checkpoints
        model = torch.nn.Linear(2, 2)
        try:
            around.await_turn(150, lambda: False)
        finally:
            for act in at_the_end:
                act()
            store.save(model, torch.optim.SGD(model.parameters(), lr=1.0), Progress(step=150))
        return Ending(Outcome.FINISHED)

    monkeypatch.setattr(peer_host, "run_assignment", run_assignment)
    return at_the_end


@pytest.mark.usefixtures("saving")
def test_a_site_ends_and_saves_the_peer_of_that_run_before_it_tells(site, config_over_grpc):
    """Its coordinator is gone, and the peer still waits for it."""
    line = Line(PeerHost("here", site), config_over_grpc)
    line.begin()
    line.waiting(150)
    for other in ("another@2", f"{RUN_ID}-2@2"):
        elsewhere = Line(line.host, config_over_grpc, run_id=other)
        assert elsewhere.say(asks_checkpoints=True).checkpoints == ""
    assert line.say().state == pb.WAITING
    later = Line(line.host, config_over_grpc, run_id=f"{RUN_ID}@2")
    assert later.say(asks_checkpoints=True).checkpoints == "150"
    assert line.say().state == pb.ENDED


def test_a_site_whose_peer_needs_longer_to_end_is_to_be_asked_again(
    site, config_over_grpc, saving, monkeypatch
):
    monkeypatch.setattr(peer_host, "TELL_WITHIN_S", 0.1)
    go_on = threading.Event()
    saving.append(lambda: go_on.wait(30))
    line = Line(PeerHost("here", site), config_over_grpc)
    line.begin()
    line.waiting(150)
    reply = line.say(asks_checkpoints=True)
    assert reply.state == pb.AWAY and "has not ended yet" in reply.message
    go_on.set()
    eventually(lambda: line.say(asks_checkpoints=True).checkpoints == "150", "the checkpoint")


def test_a_site_keeps_what_is_its_own_and_takes_the_shared_numbers(site, seen, tmp_path):
    wanted = compose_run(
        [
            "data=cifar10",
            "peers=pair",
            "host=flower",
            "peers.resnet.distill_weight=1",
            "peers.resnet.objective.name=somebody.elses:Code",
            "peers.wide.distill_weight=2",
            "device=cuda",
            "threads_per_peer=1",
            "batch_size=64",
            "seed=5",
            "steps=12",
            "exchange.deadline_s=33",
            "run_dir=/etc",
            "eval.knn_k=3",
            "checkpoint.keep=4",
        ]
    )
    line = Line(PeerHost("site", site), wanted)
    line.begin()
    line.ended()
    [(assignment, around)] = seen
    got, own = from_mapping(assignment.config), site.config
    assert around.root_certificates == b"PEM"
    assert assignment.run_dir == str(tmp_path / RUN_ID)
    assert got.peers[ADA] == own.peers[ADA] and got.peers[BOB] == wanted.peers[BOB]
    for name in ("data", "device", "threads_per_peer", "run_dir", "ray", "coordinator"):
        assert getattr(got, name) == getattr(own, name), name
    shared = ("batch_size", "seed", "steps", "rounds", "steps_per_round", "exchange")
    for name in (*shared, "eval", "checkpoint", "host"):
        assert getattr(got, name) == getattr(wanted, name), name


@pytest.mark.parametrize(
    "told", [{}, {"resume": "/far/run-1"}, {"resume": "/far/run-1", "afresh": True}]
)
def test_a_site_is_told_that_a_run_goes_on_and_does_so_in_its_own_folder(
    told, site, seen, config, tmp_path
):
    """Else a peer without a checkpoint would take it for a new run that must not write over it."""
    line = Line(PeerHost("site", site), dataclasses.replace(config, **told))
    line.begin()
    line.ended()
    got = from_mapping(seen[0][0].config)
    assert got.resume == (str(tmp_path / RUN_ID) if told else None)
    assert got.afresh == told.get("afresh", False)


def test_what_the_coordinator_decides_names_no_code_no_data_and_no_device():
    """A site takes these values over, so a new one among them has to be looked at."""
    decided = {
        path
        for path, scope in paths_of(RunConfig)
        if scope is not None and scope.decided_by is DecidedBy.RUN
    }
    tops = {path.partition(".")[0] for path in decided}
    assert tops == {
        *("host", "batch_size", "seed", "rounds", "steps", "steps_per_round"),
        *("exchange", "eval", "checkpoint"),
        *(
            "partition",
            "anchor_share",
            "anchors_at",
        ),  # of the anchors; private images are the site's
    }


@pytest.mark.parametrize(
    "run_id", ["../x", "a/b", "/etc", "..", ".", ".hidden", "", "x" * 129, "a\nb", "a\x00b", "a\n"]
)
def test_a_site_takes_no_run_id_that_leads_out_of_its_folder(run_id, site, seen, config):
    line = Line(PeerHost("site", site), config, run_id=run_id)
    reply = line.begin()
    assert reply.state == pb.ENDED and outcome(reply) is Outcome.UNFIT
    assert "can't be a folder's name" in reply.message
    assert seen == []


@pytest.mark.parametrize("run_id", ["pair-20261123-090000", "resnet+wide-2026.1", "A", "0" * 128])
def test_a_site_takes_ordinary_run_ids(run_id, site, seen, config, tmp_path):
    line = Line(PeerHost("site", site), config, run_id=run_id)
    line.begin()
    line.ended()
    assert Path(seen[0][0].run_dir).parent == tmp_path


@pytest.mark.parametrize("peers", ["trio", "simclr_simsiam"])
def test_a_site_takes_no_peer_that_it_has_no_settings_for(peers, site, seen):
    wanted = compose_run(["data=synthetic", f"peers={peers}"])
    name = PeerId(next(one for one in wanted.peers if one not in site.config.peers))
    reply = Line(PeerHost("site", site), wanted, peer=name).begin()
    assert reply.state == pb.ENDED and outcome(reply) is Outcome.UNFIT
    assert f"no settings for peer '{name}'" in reply.message and "resnet, wide" in reply.message
    assert seen == []


def test_a_site_refuses_a_peer_that_the_run_does_not_have(site, seen):
    wanted = compose_run(["data=synthetic", "peers=trio", "~peers.resnet"])
    reply = Line(PeerHost("site", site), wanted, peer=ADA).begin()
    assert reply.state == pb.ENDED and outcome(reply) is Outcome.UNFIT
    assert seen == []


# ---- what a site tells of an error ----


ANCHORS = ("data=synthetic", "data.options.size=48", "data.options.test_size=16", "batch_size=16")
TOLD = "(the reason is in the site's log)"


@pytest.fixture
def fail_with(monkeypatch):
    """Lets a peer end by this error before its first step."""

    def fail_with(error):
        def fail(*arguments):
            raise error

        monkeypatch.setattr(peer_run, "_open", fail)

    return fail_with


def test_what_is_told_of_a_start_that_failed_does_not_depend_on_the_site_s_images(tmp_path):
    wanted = compose_run(
        [*ANCHORS, "host=flower", "exchange=flower", "peers=pair", "anchor_share=0.5"]
    )
    told = []
    for side in (8, 12):
        private = ("+data@peers.wide.data=synthetic", f"peers.wide.data.options.image_size={side}")
        own, root = compose_run([*ANCHORS, "peers=pair", *private]), tmp_path / str(side)
        site = SiteSettings(config=own, root_certificates=None, run_root=root)
        line = Line(PeerHost("site", site), wanted, peer=BOB)
        line.begin()
        told.append(line.ended())
        log = (root / RUN_ID / "peers" / "wide" / "peer.log").read_text()
        assert f"the private images of peer 'wide' are 3 x {side} x {side}" in log
    assert told[0] == told[1]
    assert outcome(told[0]) is Outcome.UNFIT and told[0].message == f"ConfigError {TOLD}"


@pytest.mark.parametrize("whose", ["wide", "resnet"])
def test_a_site_that_names_private_images_of_another_peer_only_is_warned(
    whose, tmp_path, toys, caplog
):
    """Else its peer would train on the anchors alone."""
    wanted = compose_run([*ANCHORS, "host=flower", "exchange=flower", "peers=pair"])
    own = compose_run([*ANCHORS, "peers=pair", f"+data@peers.{whose}.data=synthetic"])
    site = SiteSettings(config=own, root_certificates=None, run_root=tmp_path)
    host = PeerHost("site", site)
    Line(host, wanted, peer=BOB).begin()
    host.close()
    warned = "names private images of other peers only (peers.resnet.data)" in caplog.text
    assert warned == (whose == "resnet")


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (DataError("labels was 9ab and is 40f: anna, bob"), f"DataError {TOLD}"),
        (StorageFull("no room for the encoder in anna"), f"StorageFull {TOLD}"),
        (HelperLost("its part failed: anna.png"), f"HelperLost {TOLD}"),
        (FileNotFoundError("anna.png"), f"an unexpected error {TOLD}"),
        (Refused("seed is 7 and not anna"), "seed is 7 and not anna"),
        (CoordinatorLost("anna has gone"), "anna has gone"),
        (TrainingError("the loss of anna is nan"), "the loss of anna is nan"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
def test_a_site_keeps_the_text_of_an_error_that_may_be_about_its_images(
    error, message, site, config, fail_with, caplog
):
    fail_with(error)
    line = Line(PeerHost("site", site), config)
    line.begin()
    assert line.ended().message == message
    assert "anna" in caplog.text, "whoever looks after the site sees it all"


def test_a_site_says_nothing_of_an_ending_that_nobody_has_looked_at(site, config, monkeypatch):
    ending = Ending(Outcome.FAILED, "all 40 images are of anna")
    monkeypatch.setattr(peer_host, "run_assignment", lambda assignment, around: ending)
    line = Line(PeerHost("site", site), config)
    line.begin()
    assert line.ended().message == "the reason is in the site's log"


def test_where_all_belongs_to_one_user_the_text_is_told(config, fail_with, tmp_path):
    fail_with(DataError("anna.png is broken"))
    line = Line(PeerHost("a process of my own"), config)
    line.say(assignment=line.assignment(run_dir=str(tmp_path)))
    assert line.ended().message == "anna.png is broken"


def test_a_site_keeps_what_is_wrong_with_settings_that_it_can_not_run(site, config, caplog):
    reply = Line(PeerHost("site", site), config).say(assignment="garbage")
    assert (outcome(reply), reply.message) == (Outcome.UNFIT, f"ConfigError {TOLD}")
    assert "peer=resnet is not started: " in caplog.text


# ---- anything at all ----


HOLDS = st.sampled_from([0.0, 0.001, -1.0])
ODD_VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(10**30), 10**30),
    st.floats(),
    st.text(max_size=8),
    st.just("\ud800"),
    st.lists(st.integers(), max_size=2),
    st.dictionaries(st.text(max_size=4), st.none(), max_size=2),
)


def well_formed(body):
    reply = pb.HostReply.FromString(body)
    assert reply.state in (pb.UNKNOWN, pb.RUNNING, pb.WAITING, pb.ENDED)
    Outcome(reply.outcome)
    assert reply.where
    return reply


class AtOnce:
    """A peer that waits for its first turn and then ends."""

    def __call__(self, assignment, around):
        if around.open_link is not None:
            link = around.open_link(PeerId(str(assignment.peer)), from_mapping(assignment.config))
            link.join({})
        around.await_turn(0)
        return Ending(Outcome.FINISHED)


@pytest.fixture(scope="module")
def patient_config(config):
    return to_mapping(config)


@pytest.fixture(scope="module")
def fuzzed():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(peer_host, "run_assignment", AtOnce())
        patch.setattr(peer_host, "_LONGEST_HOLD_S", 0.001)
        host = PeerHost("here")
        yield host
        host.close()


@given(body=st.binary(max_size=200))
@settings(max_examples=100)
def test_any_bytes_get_a_reply(fuzzed, body):
    well_formed(fuzzed.handle(body))


@given(data=st.data())
@settings(max_examples=100)
def test_a_valid_message_with_any_bytes_changed_gets_a_reply(fuzzed, config, data):
    line = Line(fuzzed, config)
    answer = pb.ExchangeReply(teachers=[BOB], next_step=3)
    body = bytearray(
        line.request(
            assignment=line.assignment(),
            until_step=2,
            join=pb.JoinReply(next_step=1),
            answer=answer,
            answer_step=1,
            reports_received=2,
            hold_s=0.001,
        ).SerializeToString()
    )
    for _ in range(data.draw(st.integers(1, 4))):
        body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    del body[data.draw(st.integers(0, len(body))) or len(body) :]
    well_formed(fuzzed.handle(bytes(body)))


@given(data=st.data())
@settings(max_examples=100)
def test_an_assignment_with_any_value_changed_gets_a_reply(fuzzed, config, patient_config, data):
    line = Line(fuzzed, config)
    content = json.loads(line.assignment())
    place = content
    while True:
        key = data.draw(st.sampled_from(sorted(place)))
        if not isinstance(place[key], dict) or not place[key] or data.draw(st.booleans()):
            break
        place = place[key]
    if data.draw(st.booleans()):
        place[data.draw(st.one_of(st.text(max_size=5), st.just("\ud800")))] = place.pop(key)
    else:
        place[key] = data.draw(ODD_VALUES)
    run_id = f"run-{data.draw(st.integers(0, 3))}"
    content = {**content, "run_id": run_id} if data.draw(st.booleans()) else content
    stranger = Line(fuzzed, config, run_id=run_id)
    well_formed(fuzzed.handle(stranger.request(assignment=json.dumps(content)).SerializeToString()))


@pytest.mark.parametrize("text", ["[" * 100_000, "null", "[]", '"a"', "1e999", "NaN", "\x00"])
def test_any_json_in_place_of_an_assignment_gets_a_reply(fuzzed, config, text):
    reply = Line(fuzzed, config).say(assignment=text)
    well_formed(reply.SerializeToString())


@pytest.mark.parametrize("odd", [None, 5, "x", [1], {"\ud800": 1}, {"peers": {"\ud800": {}}}])
def test_any_configuration_gets_a_reply(fuzzed, config, odd):
    line = Line(fuzzed, config, run_id="run-odd")
    content = {**json.loads(line.assignment()), "config": odd}
    reply = line.say(assignment=json.dumps(content))
    assert reply.state == pb.ENDED and outcome(reply) is Outcome.UNFIT and reply.message
