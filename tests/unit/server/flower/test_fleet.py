"""Peers behind a made-up Flower grid under the real supervisor: both transports, and all that goes wrong."""

from __future__ import annotations

import dataclasses
import functools
import random
import threading
import time

import pytest

from clients.flower import peer_host
from clients.flower.peer_host import PeerHost, SiteSettings
from configs.compose import compose_run
from dogo_fed import seeding
from dogo_fed.contracts import Ending, Outcome, PeerId, PeerResult, StepReport, Ticket
from dogo_fed.coordination.coordinator import Coordinator
from dogo_fed.errors import ExchangeError
from dogo_fed.reporting.background import BackgroundSink
from dogo_fed.reporting.sink import TeeSink
from dogo_fed.run.local import run_local
from dogo_fed.run.prepare import prepare
from dogo_fed.storage.run_folder import create
from dogo_fed.wire import dogo_pb2 as pb
from dogo_fed.wire.format import WireFormat
from server.coordinator.calls import CoordinatorCalls
from server.coordinator.host import CoordinatorHost
from server.coordinator.service import ServiceSettings
from server.flower import fleet as flower_fleet
from server.flower import grid_client
from server.flower.conversation import Patience
from server.flower.fleet import FlowerFleet
from server.flower.nodes import Node
from server.hosts import supervisor
from server.hosts.supervisor import Supervisor
from tests.support.distributions import KeepingSink, distribution
from tests.support.fake_flower import (
    AtOnce,
    FakeGrid,
    ToyPeers,
    answered,
    assignment_of,
    carries_to,
    comes_true,
    eventually,
    request_of,
)

ADA, BOB = PeerId("resnet"), PeerId("wide")
NODES = {ADA: 101, BOB: 102}
STEPS, STEPS_PER_ROUND = 6, 2
PATIENCE, RELEASE_WITHIN_S = FlowerFleet._patience, flower_fleet._RELEASE_WITHIN_S

pytestmark = [pytest.mark.timeout(60), pytest.mark.usefixtures("flower_identity")]


@functools.cache
def prepared(*changes):
    return prepare(
        compose_run(
            [
                "host=flower",
                "data=synthetic",
                "data.options.size=32",
                "data.options.test_size=8",
                "batch_size=16",
                "eval.knn_k=5",
                "eval.linear=false",
                f"steps={STEPS}",
                f"steps_per_round={STEPS_PER_ROUND}",
                "coordinator.address=127.0.0.1",
                "recovery.max_restarts=2",
                *changes,
            ]
        )
    )


class WaitingOwner:
    """Lets peers that are threads of one process draw one after the other."""

    def __init__(self):
        self._lock = threading.RLock()

    def acquire(self, blocking=True):
        return self._lock.acquire()

    def release(self):
        self._lock.release()


class Scene:
    """One run whose peers' hosts are in this process, each behind a node of a made-up grid."""

    def __init__(self, run, folder, toys):
        self.run, self.folder, self.toys = run, folder, toys
        self.sink = KeepingSink()
        self.is_stop_requested = False
        self.told_to_stop = set()
        self.hosts = {peer: PeerHost(f"host of {peer}") for peer in run.peer_ids}
        self.all_hosts = list(self.hosts.values())
        self.grid = FakeGrid({NODES[peer]: self.node(peer) for peer in run.peer_ids})
        nodes = {
            peer: Node(NODES[peer], "", False, number, 2)
            for number, peer in enumerate(run.peer_ids)
        }
        self.fleet = FlowerFleet(self.grid, run, folder.run_id, nodes)

    def node(self, peer):
        def carry(message):
            reply = carries_to(self.hosts[peer].handle)(message)
            self.told_to_stop |= {peer} if request_of(message).stop else set()
            return reply

        return carry

    def replace_host(self, peer):
        """The process of the host dies, and another takes its place."""
        self.hosts[peer] = PeerHost(f"another host of {peer}")
        self.all_hosts.append(self.hosts[peer])

    def supervise(self):
        stop_requested = lambda: self.is_stop_requested  # noqa: E731
        try:
            heard = TeeSink(self.sink, self.fleet.steps)
            with CoordinatorHost.of(
                self.run, self.folder, heard, self.fleet.listen_address, self.fleet.serve
            ) as coordinator:
                Supervisor(self.run, self.folder, self.fleet, coordinator, stop_requested).run()
        finally:
            self.fleet.release()

    def fail(self):
        with pytest.raises(ExchangeError) as caught:
            self.supervise()
        return str(caught.value)

    def kinds(self, peer=None):
        return [event.kind for event in self.sink.events() if peer in (None, event.peer)]

    def digests(self):
        results = [one for one in self.sink.records if isinstance(one, PeerResult)]
        return {one.peer: one.state_digest for one in results}

    def close(self):
        for host in self.all_hosts:
            host.close()
        self.grid.close()
        assert self.grid.pulled_twice == [], "a delivered reply was asked for again"


@pytest.fixture
def make_scene(tmp_path, monkeypatch):
    monkeypatch.setattr(flower_fleet, "_POLL_SIMULATION_S", 0.001)
    monkeypatch.setattr(flower_fleet, "_RELEASE_WITHIN_S", 3.0)
    monkeypatch.setattr(supervisor, "_POLL_S", 0.005)
    scenes = []

    def make(*changes, real=False, answer_s=10.0, unreachable_s=5.0):
        monkeypatch.setattr(
            FlowerFleet,
            "_patience",
            lambda fleet: Patience(
                answer_s=answer_s,
                unreachable_s=unreachable_s,
                placement_s=unreachable_s,
                hold_s=0.2,
                poll_s=0.01,
                silent_s=5.0,
            ),
        )
        run = prepared(*changes)
        config = dataclasses.replace(run.config, run_dir=str(tmp_path / f"run-{len(scenes)}"))
        run = dataclasses.replace(run, config=config)
        toys = None
        if not real:
            toys = ToyPeers(STEPS)
            toys.agreement, toys.batch_digest = run.agreement, run.schedule.digest
            monkeypatch.setattr(peer_host, "run_assignment", toys)
        scenes.append(Scene(run, create(config), toys))
        return scenes[-1]

    yield make
    for scene in scenes:
        scene.close()


# ---- parity ----


VARIANTS = (
    "exchange.symmetric=true",
    "exchange.every_steps=3",
    "exchange.graph={wide: {resnet: 0.3}}",
    "peers.wide.distill_warmup_steps=4",
    "peers.resnet.kl_temperature=0.3",
)


def in_lockstep(folder, *changes):
    run = prepared("exchange=flower", *changes)
    config = dataclasses.replace(run.config, run_dir=str(folder))
    sink = KeepingSink()
    run_local(dataclasses.replace(run, config=config), create(config), sink, lambda: False)
    return {one.peer: one.state_digest for one in sink.records if isinstance(one, PeerResult)}


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    return in_lockstep(tmp_path_factory.mktemp("local") / "run")


@pytest.mark.parametrize("exchange", ["flower", "grpc"])
def test_peers_driven_by_messages_equal_peers_in_lock_step(
    exchange, make_scene, reference, monkeypatch
):
    monkeypatch.setattr(seeding, "_owner", WaitingOwner())
    scene = make_scene(f"exchange={exchange}", real=True)
    scene.supervise()
    assert len(reference) == len(set(reference.values())) == 2
    assert scene.digests() == reference
    for peer in (ADA, BOB):
        steps = [r for r in scene.sink.records if isinstance(r, StepReport) and r.peer == peer]
        assert [one.step for one in steps] == list(range(STEPS))
        assert all(one.num_teachers == 1 for one in steps)
    assert sorted(scene.kinds()) == ["peer_placed"] * 2 + ["peer_started"] * 2


def test_with_all_variants_messages_equal_lock_step(make_scene, reference, tmp_path, monkeypatch):
    monkeypatch.setattr(seeding, "_owner", WaitingOwner())
    scene = make_scene("exchange=flower", *VARIANTS, real=True)
    scene.supervise()
    expected = in_lockstep(tmp_path / "lockstep", *VARIANTS)
    assert scene.digests() == expected
    assert all(expected[peer] != reference[peer] for peer in expected)
    for node_id in NODES.values():
        assert scene.grid.kinds(node_id).count("train.step") == 2, "the steps 0 and 3"


# ---- what leaves a site ----


def site_of(tmp_path, *private):
    """The host of a site that has private images beside the anchors of `prepared`."""
    own = compose_run(
        ["data=synthetic", "data.options.size=32", "data.options.test_size=8", "peers=pair",
         "+data@peers.wide.data=synthetic", "peers.wide.data.options.test_size=8", *private]
    )  # fmt: skip
    return PeerHost("site", SiteSettings(config=own, root_certificates=None, run_root=tmp_path))


def told_by(scene, tmp_path, *private):
    """Carries a run out; returns the replies of the site's host."""
    replies = []
    site = scene.hosts[BOB] = site_of(tmp_path, *private)
    scene.all_hosts.append(site)
    handle = site.handle

    def kept(body):
        replies.append(pb.HostReply.FromString(handle(body)))
        return replies[-1].SerializeToString()

    site.handle = kept
    scene.supervise()
    return replies


def in_order(replies):
    """Returns what replies hold, each thing once: they are repeated until they have arrived."""
    joins, offers, reports, leaves, frames = {}, {}, {}, {}, set()
    for reply in replies:
        calls = [
            getattr(reply, name) for name in ("join", "offer", "leave") if reply.HasField(name)
        ]
        for message in (*calls, *reply.reports):
            message.sender.incarnation = ""  # random
        if reply.HasField("join"):
            reply.join.ClearField("run_id")  # the two runs have folders of their own
            joins[reply.join.SerializeToString(deterministic=True)] = reply.join
        if reply.HasField("offer"):
            reply.offer.ticket.ClearField("run_id")
            offers[reply.offer.ticket.step] = reply.offer
        if reply.HasField("leave"):
            leaves[reply.leave.SerializeToString(deterministic=True)] = reply.leave
        reports |= {reply.first_report + n: one for n, one in enumerate(reply.reports)}
        rest = pb.HostReply()
        rest.CopyFrom(reply)
        for name in ("join", "offer", "leave", "reports", "first_report", "state", "next_step"):
            rest.ClearField(name)
        frames.add(rest.SerializeToString(deterministic=True))
    told = [reports[number] for number in sorted(reports)]
    records = [record for one in told for record in (*one.steps, *one.rounds)]
    return (
        list(joins),
        offers,
        records,
        [one.result for one in told if one.HasField("result")],
        frames,
    )


def blanked(message, names):
    copy = type(message)()
    copy.CopyFrom(message)
    for name in names:
        copy.ClearField(name)
    return copy


def test_replies_depend_on_private_images_by_rows_losses_and_scores_alone(
    make_scene, tmp_path, monkeypatch
):
    monkeypatch.setattr(seeding, "_owner", WaitingOwner())
    found = []
    for number, private in enumerate(
        (("size=20", "seed=1"), ("size=70", "seed=2", "num_classes=7"))
    ):
        scene = make_scene("exchange=flower", "peers=pair", "anchor_share=0.5", real=True)
        options = [f"peers.wide.data.options.{one}" for one in private]
        found.append(in_order(told_by(scene, tmp_path / f"site-{number}", *options)))
    (
        (joins, offers, records, results, frames),
        (joins_2, offers_2, records_2, results_2, frames_2),
    ) = found
    assert joins == joins_2 and len(joins) == 1
    assert frames == frames_2
    assert list(offers) == list(offers_2) == list(range(STEPS))
    assert any(offers[n].distribution.rows != offers_2[n].distribution.rows for n in offers)
    for one, two in zip(offers.values(), offers_2.values(), strict=True):
        assert len(one.distribution.rows) == len(two.distribution.rows) == 8 * 8 * 4
        for message in (one, two):
            message.distribution.ClearField("rows")
            message.distribution.ClearField("negative_entropy")
        assert one == two
    allowed = {
        field.name
        for field in (*pb.StepReport.DESCRIPTOR.fields, *pb.RoundReport.DESCRIPTOR.fields,
                      *pb.PeerResult.DESCRIPTOR.fields)
        if field.type == field.TYPE_DOUBLE or field.name in ("bytes_down", "state_digest")
    }  # fmt: skip
    for mine, theirs in ((records, records_2), (results, results_2)):
        assert len(mine) == len(theirs) > 0
        for one, two in zip(mine, theirs, strict=True):
            names = allowed & {field.name for field in one.DESCRIPTOR.fields}
            assert blanked(one, names) == blanked(two, names)


# ---- toys: the life cycle ----


def every_step(*numbers):
    return [list(range(STEPS)) for _ in numbers]


def test_toys_that_exchange_by_messages_teach_each_other_at_every_step(make_scene):
    scene = make_scene("exchange=flower")
    scene.supervise()
    assert [scene.toys.steps[(peer, 0)] for peer in (ADA, BOB)] == every_step(ADA, BOB)
    assert scene.toys.teachers[(ADA, 0)] == [(BOB,)] * STEPS
    assert scene.toys.teachers[(BOB, 0)] == [(ADA,)] * STEPS
    assert scene.grid.kinds()[-2:] == ["query.stop", "query.stop"]


def test_a_step_costs_about_one_message(make_scene):
    """A join, a step each, and a few questions at the beginning and the end."""
    scene = make_scene("exchange=flower")
    scene.supervise()
    for node_id in NODES.values():
        kinds = scene.grid.kinds(node_id)
        assert kinds.count("train.step") == STEPS
        assert kinds[0] == "train.start"


def test_only_steps_that_exchange_cost_a_message(make_scene):
    scene = make_scene("exchange=flower", "exchange.every_steps=4")
    scene.supervise()
    assert [scene.toys.steps[(peer, 0)] for peer in (ADA, BOB)] == every_step(ADA, BOB)
    assert scene.toys.teachers == {(ADA, 0): [(BOB,)] * 2, (BOB, 0): [(ADA,)] * 2}
    for node_id in NODES.values():
        assert scene.grid.kinds(node_id).count("train.step") == 2


@pytest.mark.parametrize("first_step", [1, 2, 3, 5, STEPS])
def test_a_run_that_goes_on_between_two_exchanges_begins_with_its_first_step(
    first_step, make_scene
):
    scene = make_scene("exchange=flower", "exchange.every_steps=4")
    scene.folder = dataclasses.replace(scene.folder, first_step=first_step)
    scene.supervise()
    expected = list(range(first_step, STEPS))
    assert [scene.toys.steps[(peer, 0)] for peer in (ADA, BOB)] == [expected] * 2
    taught = len([step for step in expected if step % 4 == 0])
    assert scene.toys.teachers[(ADA, 0)] == [(BOB,)] * taught
    assert all(ending == Ending(Outcome.FINISHED) for _, _, ending in scene.toys.endings)


def test_a_host_that_dies_between_two_exchanges_comes_back_before_the_next(make_scene):
    scene = make_scene("exchange=flower", "exchange.every_steps=3")

    def die(peer, number, step):
        if (peer, number, step) == (BOB, 0, 2):
            scene.replace_host(BOB)
            eventually(lambda: (BOB, 1) in scene.toys.steps, "the second start")
        if (peer, step) == (ADA, 3):
            eventually(lambda: "peer_rejoined" in scene.kinds(BOB), "the return")

    scene.toys.crash = die
    scene.supervise()
    assert scene.toys.steps[(BOB, 1)] == [1, 2, 3, 4, 5], "after the last exchange"
    assert scene.toys.teachers[(ADA, 0)] == [(BOB,)] * 2, "it missed none"


def test_a_stop_between_two_exchanges_ends_all_peers_before_the_next(make_scene):
    scene = make_scene("exchange=flower", "exchange.every_steps=3")

    def ask(peer, number, step):
        if step == 1:
            scene.is_stop_requested = True
            eventually(lambda: "stopped" in scene.kinds(), "the stop")

    scene.toys.crash = ask
    scene.supervise()
    assert [ending.outcome for _, _, ending in scene.toys.endings] == [Outcome.STOPPED] * 2
    assert all(1 <= scene.toys.saved[peer][0] <= 3 for peer in (ADA, BOB)), scene.toys.saved


@pytest.mark.parametrize("exchange", ["flower", "grpc"])
def test_peers_side_by_side_do_all_their_steps(exchange, make_scene):
    scene = make_scene(f"exchange={exchange}", "exchange.enabled=false")
    scene.supervise()
    assert [scene.toys.steps[(peer, 0)] for peer in (ADA, BOB)] == every_step(ADA, BOB)


@pytest.mark.parametrize("exchange", ["flower", "grpc"])
def test_nobody_is_more_than_a_round_ahead(exchange, make_scene):
    scene = make_scene(f"exchange={exchange}", "exchange.enabled=false")
    seen = []

    def look(peer, number, step):
        done = [scene.toys.steps.get((one, 0), []) for one in (ADA, BOB)]
        seen.append((step, min(len(one) for one in done)))
        if peer == BOB:
            slow = step == 1 and not scene.grid.pushed[40:]
            eventually(lambda: not slow or scene.grid.pushed[40:], "many more messages")

    scene.toys.crash = look
    scene.supervise()
    assert len(seen) == 2 * STEPS
    for step, least_done in seen:
        last_round_began = (step // STEPS_PER_ROUND - 1) * STEPS_PER_ROUND
        assert least_done >= last_round_began, f"step {step} was begun too early"
    assert len(scene.grid.pushed) > 40


def test_a_lost_peer_does_not_hold_up_the_round(make_scene):
    scene = make_scene("exchange=flower", "exchange.deadline_s=0.3")
    others_are_done = lambda: len(scene.toys.steps.get((ADA, 0), [])) == STEPS  # noqa: E731

    def hang(peer, number, step):
        if (peer, step) == (BOB, 1):
            eventually(others_are_done, "the other peer's steps")

    scene.toys.crash = hang
    scene.supervise()
    assert scene.toys.teachers[(ADA, 0)] == [(BOB,)] + [()] * (STEPS - 1)
    assert "peer_lost" in scene.kinds(BOB)
    assert scene.toys.steps[(BOB, 0)] == [0, 1]


def test_who_can_not_go_on_does_not_hold_up_the_round(make_scene):
    scene = make_scene("exchange=flower")

    def crash(peer, number, step):
        if (peer, step) == (BOB, 3):
            raise ZeroDivisionError("made up")

    scene.toys.crash = crash
    assert scene.fail() == "peer wide can't go on: ZeroDivisionError: made up"
    assert scene.toys.steps[(ADA, 0)] == list(range(STEPS))


@pytest.mark.parametrize("exchange", ["flower", "grpc"])
def test_a_host_that_dies_is_noticed_and_its_peer_started_again(exchange, make_scene):
    enabled = "true" if exchange == "flower" else "false"
    scene = make_scene(f"exchange={exchange}", f"exchange.enabled={enabled}")
    is_killed = threading.Event()

    def die(peer, number, step):
        if (peer, number, step) == (BOB, 0, 3):
            scene.replace_host(BOB)
            is_killed.set()
            eventually(lambda: (BOB, 1) in scene.toys.steps, "the second start")
        if exchange == "flower" and (peer, step) == (ADA, 4):
            eventually(lambda: "peer_rejoined" in scene.kinds(BOB), "the return")

    scene.toys.crash = die
    scene.supervise()
    assert is_killed.is_set()
    kinds = scene.kinds(BOB)
    assert kinds.count("peer_started") == 2 and "peer_lost" in kinds
    assert scene.toys.steps[(BOB, 1)][-1] == STEPS - 1
    assert scene.toys.steps[(ADA, 0)] == list(range(STEPS))
    if exchange == "flower":
        assert scene.toys.steps[(BOB, 1)][0] == 4, "it goes on at the step that was open"


def test_who_dies_at_every_start_is_given_up_and_the_others_go_on(make_scene):
    scene = make_scene("exchange=flower", "exchange.enabled=false")

    def die(peer, number, step):
        if peer == BOB:
            scene.replace_host(BOB)
            lost = lambda: scene.kinds(BOB).count("peer_lost") > number  # noqa: E731
            eventually(lost, "that it was noticed")

    scene.toys.crash = die
    message = scene.fail()
    assert "peer wide is gone" in message and "recovery.max_restarts" in message
    assert scene.kinds(BOB).count("peer_started") == 3
    assert scene.toys.steps[(ADA, 0)] == list(range(STEPS))


@pytest.mark.parametrize("first_step", [1, 2, 4, STEPS])
def test_a_run_that_goes_on_begins_with_the_round_of_its_first_step(first_step, make_scene):
    scene = make_scene("exchange=flower")
    scene.folder = dataclasses.replace(scene.folder, first_step=first_step)
    scene.supervise()
    expected = list(range(first_step, STEPS))
    assert [scene.toys.steps[(peer, 0)] for peer in (ADA, BOB)] == [expected] * 2
    assert all(ending == Ending(Outcome.FINISHED) for _, _, ending in scene.toys.endings)


@pytest.mark.parametrize("exchange", ["flower", "grpc"])
def test_a_peer_alone_goes_through(exchange, make_scene):
    scene = make_scene(f"exchange={exchange}", "peers=solo")
    scene.supervise()
    assert scene.toys.steps == {(ADA, 0): list(range(STEPS))}


@pytest.mark.parametrize("seed", range(3))
def test_whatever_happens_to_messages_all_steps_are_taught_once_and_in_order(
    seed, make_scene, monkeypatch
):
    monkeypatch.setattr("server.flower.conversation._PAUSE_AFTER_MISS_S", 0.01)
    scene = make_scene("exchange=flower", answer_s=0.3)
    chances = random.Random(seed)
    fates = []

    def unreliable(carry, message):
        fates.append(chances.choice(["well"] * 6 + ["before", "after", "silent", "twice"]))
        if fates[-1] == "before":
            raise RuntimeError("on the way there")
        reply = carry(message)
        if fates[-1] == "after":
            raise RuntimeError("on the way back")
        if fates[-1] == "twice":
            reply = carry(message)
        return None if fates[-1] == "silent" else reply

    for node_id, carry in scene.grid.nodes.items():
        scene.grid.nodes[node_id] = functools.partial(unreliable, carry)
    scene.supervise()
    assert set(fates) > {"well", "twice"}
    assert [scene.toys.steps[(peer, 0)] for peer in (ADA, BOB)] == every_step(ADA, BOB)
    assert scene.toys.teachers == {(ADA, 0): [(BOB,)] * STEPS, (BOB, 0): [(ADA,)] * STEPS}


@pytest.mark.parametrize("peers_are_known", [False, True])
def test_a_stop_ends_all_peers_after_the_same_step(peers_are_known, make_scene):
    scene = make_scene("exchange=flower")

    def ask(peer, number, step):
        if step == 3:
            scene.is_stop_requested = True
            eventually(lambda: "stopped" in scene.kinds(), "the stop")

    scene.toys.crash = ask
    scene.is_stop_requested = not peers_are_known
    scene.supervise()
    assert [ending.outcome for _, _, ending in scene.toys.endings] == [Outcome.STOPPED] * 2
    steps = [scene.toys.saved[peer] for peer in (ADA, BOB)]
    assert steps[0] == steps[1] and len(steps[0]) == 1
    assert steps[0][0] == (4 if peers_are_known else 1)


@pytest.mark.parametrize("exchange", ["flower", "grpc"])
def test_a_stop_reaches_peers_that_train_side_by_side(exchange, make_scene):
    scene = make_scene(f"exchange={exchange}", "exchange.enabled=false")

    def ask(peer, number, step):
        if step == 2:
            scene.is_stop_requested = True
            eventually(lambda: scene.told_to_stop == {ADA, BOB}, "the stop")

    scene.toys.crash = ask
    scene.supervise()
    assert [ending.outcome for _, _, ending in scene.toys.endings] == [Outcome.STOPPED] * 2


# ---- messages that go wrong ----


@pytest.mark.parametrize("before", [True, False], ids=["request", "reply"])
def test_every_third_message_that_fails_is_survived(before, make_scene, monkeypatch):
    monkeypatch.setattr("server.flower.conversation._PAUSE_AFTER_MISS_S", 0.01)
    scene = make_scene("exchange=flower")
    carry = scene.grid.nodes[NODES[BOB]]
    counted = []

    def fail_often(message):
        counted.append(message)
        is_bad = len(counted) % 3 == 0
        if is_bad and before:
            raise RuntimeError("the worker died on the way there")
        reply = carry(message)
        if is_bad:
            raise RuntimeError("the worker died on the way back")
        return reply

    scene.grid.nodes[NODES[BOB]] = fail_often
    scene.supervise()
    assert len(counted) > STEPS
    assert [scene.toys.steps[(peer, 0)] for peer in (ADA, BOB)] == every_step(ADA, BOB)
    assert scene.toys.teachers[(BOB, 0)] == [(ADA,)] * STEPS
    messages = [one.message for one in scene.sink.events("node_lost")]
    assert messages and all("the worker died on the way" in one for one in messages)


def test_replies_that_never_come_are_asked_for_again(make_scene, monkeypatch):
    monkeypatch.setattr("server.flower.conversation._PAUSE_AFTER_MISS_S", 0.01)
    scene = make_scene("exchange=flower", answer_s=0.25)
    carry = scene.grid.nodes[NODES[BOB]]
    counted = []

    def forget_often(message):
        counted.append(message)
        reply = carry(message)
        return None if len(counted) % 4 == 0 else reply

    scene.grid.nodes[NODES[BOB]] = forget_often
    scene.supervise()
    assert [scene.toys.steps[(peer, 0)] for peer in (ADA, BOB)] == every_step(ADA, BOB)


def test_a_node_in_trouble_for_ever_is_given_up_and_the_others_go_on(make_scene, monkeypatch):
    monkeypatch.setattr("server.flower.conversation._PAUSE_AFTER_MISS_S", 0.01)
    scene = make_scene("exchange=flower", unreachable_s=0.3)

    def broken(message):
        raise RuntimeError("no luck")

    scene.grid.nodes[NODES[BOB]] = broken
    message = scene.fail()
    assert "peer wide can't go on" in message and "no luck" in message
    assert "resnet" not in message
    assert scene.toys.steps[(ADA, 0)] == list(range(STEPS))


def test_a_node_that_flower_does_not_know_any_more_harms_nobody_else(make_scene, monkeypatch):
    """Flower's simulation leaves such a message out of the ids that it returns."""
    monkeypatch.setattr("server.flower.conversation._PAUSE_AFTER_MISS_S", 0.01)
    scene = make_scene("exchange=flower", unreachable_s=0.3, answer_s=0.1)
    del scene.grid.nodes[NODES[ADA]]
    message = scene.fail()
    assert "peer resnet can't go on" in message and "wide" not in message
    assert scene.toys.steps[(BOB, 0)] == list(range(STEPS))
    assert scene.kinds(ADA).count("peer_placed") == 0, "nobody else's reply is taken for its own"


def test_a_reply_that_is_none_is_survived(make_scene, monkeypatch):
    monkeypatch.setattr("server.flower.conversation._PAUSE_AFTER_MISS_S", 0.01)
    scene = make_scene("exchange=flower", answer_s=0.3)
    carry = scene.grid.nodes[NODES[BOB]]
    counted = []

    def babble(message):
        counted.append(message)
        reply = carry(message)
        return answered(message, b"\xff\xff\xff") if len(counted) == 4 else reply

    scene.grid.nodes[NODES[BOB]] = babble
    scene.supervise()
    assert len(counted) > 4
    assert [scene.toys.steps[(peer, 0)] for peer in (ADA, BOB)] == every_step(ADA, BOB)


def test_an_ending_that_nobody_knows_is_an_ending(make_scene):
    """A site of another version must not keep the run for ever."""
    scene = make_scene("exchange=flower", "recovery.silence_s=3", unreachable_s=0.5)
    strange = pb.HostReply(state=pb.ENDED, outcome=77, message="who knows").SerializeToString()
    scene.grid.nodes[NODES[BOB]] = lambda message: answered(message, strange)
    message = scene.fail()
    assert "wide" in message and "silence_s" not in message


def test_nobody_speaks_for_another_peer(make_scene, monkeypatch):
    """The node says who it is; what is written in a message does not count."""
    monkeypatch.setattr("server.flower.conversation._PAUSE_AFTER_MISS_S", 0.05)
    scene = make_scene("exchange=flower", "exchange.join_deadline_s=1", unreachable_s=0.5)
    carry = scene.grid.nodes[NODES[BOB]]

    def pretend(message):
        reply = pb.HostReply.FromString(
            carry(message).content.config_records["dogo"]["reply"]  # type: ignore[arg-type]
        )
        for part in (reply.join, reply.offer, reply.leave):
            if part.HasField("sender"):
                part.sender.peer = ADA
                part.sender.incarnation = "somebody else's"
        return answered(message, reply.SerializeToString())

    scene.grid.nodes[NODES[BOB]] = pretend
    with pytest.raises(ExchangeError, match="wide"):
        scene.supervise()
    assert not [one for one in scene.sink.events("peer_rejoined") if one.peer == ADA]
    assert scene.toys.steps[(ADA, 0)] == list(range(STEPS))


def test_a_reply_larger_than_any_peer_s_is_not_even_parsed(make_scene, monkeypatch):
    monkeypatch.setattr("server.flower.conversation._PAUSE_AFTER_MISS_S", 0.05)
    scene = make_scene("exchange=flower", "exchange.join_deadline_s=1", unreachable_s=0.5)
    large = pb.HostReply(state=pb.RUNNING, where="w" * 5_000_000).SerializeToString()
    scene.grid.nodes[NODES[BOB]] = lambda message: answered(message, large)
    with pytest.raises(ExchangeError, match="wide"):
        scene.supervise()
    assert scene.toys.steps[(ADA, 0)] == list(range(STEPS))
    told = scene.sink.events("node_lost")
    assert "bytes are more than" in told[0].message and len(told[0].message) < 500


def test_a_site_that_says_something_else_each_time_fills_nothing(make_scene):
    scene = make_scene("exchange=flower")
    said = []

    def elsewhere(message):
        said.append(message)
        reply = pb.HostReply.FromString(
            carry(message).content.config_records["dogo"]["reply"]  # type: ignore[arg-type]
        )
        reply.where = f"\x1b[2Jplace {len(said)}\nforged"
        return answered(message, reply.SerializeToString())

    carry = scene.grid.nodes[NODES[BOB]]
    scene.grid.nodes[NODES[BOB]] = elsewhere
    scene.supervise()
    told = [one.message for one in scene.sink.events("peer_placed") if one.peer == BOB]
    assert 0 < len(told) <= 100 and told[0].startswith("peer wide lives in \\x1b[2Jplace")
    assert not any("\n" in one or "\x1b" in one for one in told)


def test_reports_in_a_hurry_are_not_taken_and_come_again(make_scene, reference, monkeypatch):
    """In messages nothing else slows a peer that reports without end."""
    monkeypatch.setattr(seeding, "_owner", WaitingOwner())
    scene = make_scene("exchange=flower", real=True)
    asked: list[PeerId] = []

    def wait_s(calls, peer, request):
        asked.append(peer)
        return 1.0 if len(asked) <= 6 else 0.0

    monkeypatch.setattr(CoordinatorCalls, "report_wait_s", wait_s)
    scene.supervise()
    assert len(asked) > 6 and set(asked) == {ADA, BOB}
    assert scene.digests() == reference
    for peer in (ADA, BOB):
        steps = [r.step for r in scene.sink.records if isinstance(r, StepReport) and r.peer == peer]
        assert steps == list(range(STEPS)), "each once, and in order"


# ---- a grid in trouble ----


@pytest.mark.parametrize("calls", [("pull_messages",), ("push_messages",), ("pull", "push")])
def test_a_grid_that_raises_for_a_while_is_survived(calls, make_scene, monkeypatch):
    monkeypatch.setattr("server.flower.conversation._PAUSE_AFTER_MISS_S", 0.02)
    scene = make_scene("exchange=flower", answer_s=4.0)
    raised = []

    def trouble(call):
        if call.startswith(calls) and len(scene.grid.pushed) > 6 and len(raised) < 5:
            raised.append(call)
            raise ConnectionError("the SuperLink restarts")

    scene.grid.trouble = trouble
    started_s = time.monotonic()
    scene.supervise()
    assert len(raised) == 5
    assert time.monotonic() - started_s < 4.0, "what was not sent is not waited for"
    assert [scene.toys.steps[(peer, 0)] for peer in (ADA, BOB)] == every_step(ADA, BOB)


@pytest.mark.parametrize("calls", [("pull_messages",), ("push_messages",), ("pull", "push")])
def test_a_grid_that_raises_for_ever_ends_the_run(calls, make_scene, monkeypatch):
    monkeypatch.setattr(grid_client, "_DOWN_FOR_S", 0.3)
    monkeypatch.setattr("server.flower.conversation._PAUSE_AFTER_MISS_S", 0.02)
    scene = make_scene("exchange=flower", "recovery.silence_s=3", answer_s=30.0)

    def trouble(call):
        if call.startswith(calls) and len(scene.grid.pushed) > 6:
            raise ConnectionError("the SuperLink has ended")

    scene.grid.trouble = trouble
    started_s = time.monotonic()
    message = scene.fail()
    assert "the SuperLink has ended" in message and "Flower has taken no messages" in message
    assert time.monotonic() - started_s < 3.0


def test_a_lost_peer_is_not_called_stopped_because_the_grid_stumbles(make_scene):
    """It may come back: only who has left has ended."""
    scene = make_scene("exchange=flower", "exchange.deadline_s=0.2")
    stumbled, closed = [], []

    def hang(peer, number, step):
        if (peer, step) == (BOB, 1):
            eventually(lambda: ADA in scene.toys.saved, "the end of the other")
            closed.append(
                comes_true(lambda: "query.stop" in scene.grid.kinds(NODES[BOB]), within_s=0.3)
            )

    def trouble(call):
        if call == "pull_messages" and "peer_lost" in scene.kinds(BOB) and len(stumbled) < 100:
            stumbled.append(call)
            raise ConnectionError("a hiccup")

    scene.toys.crash = hang
    scene.grid.trouble = trouble
    scene.supervise()
    endings = [ending.outcome for peer, _, ending in scene.toys.endings if peer == BOB]
    assert (closed, endings) == ([False], [Outcome.FINISHED])


def test_trouble_of_our_own_is_not_called_flowers(make_scene, caplog):
    """A full disk, say: the message should not send people to the SuperLink."""
    scene = make_scene("exchange=flower", "exchange.enabled=false")

    def full(record):
        if getattr(record, "kind", "") == "peer_placed":
            raise OSError("no space left on device")

    plain_emit = scene.sink.emit
    scene.sink.emit = lambda record: (full(record), plain_emit(record))
    try:
        scene.supervise()
    except Exception as error:
        assert "Flower" not in str(error)
    assert not [one for one in caplog.messages if "Flower takes no messages" in one]


# ---- the end ----


class VirtualTime:
    """Passes only when somebody sleeps."""

    def __init__(self):
        self.now_s = 1000.0

    def monotonic(self):
        return self.now_s

    def sleep(self, seconds):
        self.now_s += seconds


class Releasing:
    """A fleet whose peers have been started and are known; nodes reply at once or never."""

    def __init__(self, scene, monkeypatch):
        self.scene, self.time = scene, VirtualTime()
        self.mute, self.closed, self.babble = set(), [], {}
        for module in (flower_fleet, grid_client):
            monkeypatch.setattr(module, "time", self.time)
        monkeypatch.setattr(scene.grid, "_pool", AtOnce())
        for peer, node_id in NODES.items():
            scene.grid.nodes[node_id] = functools.partial(self.reply, peer)
        self.fleet = scene.fleet
        self.fleet.serve(_calls(scene), _settings(), BackgroundSink(scene.sink).written)
        for peer in scene.run.peer_ids:
            assignment = _assignment(scene, peer)
            self.fleet.start(peer, 0, assignment)

    def reply(self, peer, message):
        if peer in self.mute:
            return None
        if peer in self.babble:
            return answered(message, self.babble[peer]())
        if request_of(message).close:
            self.closed.append(peer)
        return answered(message, pb.HostReply(state=pb.RUNNING).SerializeToString())


def _calls(scene):
    settings = scene.run.coordinator_settings(scene.folder.run_id, 0)
    coordinator = Coordinator(settings, 0.0, scene.sink.emit)
    return CoordinatorCalls(
        coordinator, scene.folder.run_id, WireFormat(16), scene.sink, lambda: 0.0
    )


def _settings():
    return ServiceSettings(address="", port=0, answer_within_s=1.0)


def _assignment(scene, peer, **changes):
    return assignment_of(scene.run, peer, scene.folder.run_id, **changes)


@pytest.fixture
def releasing(make_scene, monkeypatch):
    """With the patience of a real run, in a time that is only counted."""
    scene = make_scene("exchange=flower")
    monkeypatch.setattr(flower_fleet, "_RELEASE_WITHIN_S", RELEASE_WITHIN_S)
    monkeypatch.setattr(FlowerFleet, "_patience", PATIENCE)
    scene.fleet = FlowerFleet(scene.grid, scene.run, scene.folder.run_id, scene.fleet._nodes)
    return Releasing(scene, monkeypatch)


def whole_reply(run_id):
    """A reply with everything that a reply can have."""
    sender = pb.Sender(peer=BOB, incarnation="bob-1")
    ticket = Ticket(run_id, 1, 0, "digest")
    return pb.HostReply(
        state=pb.RUNNING,
        message="m",
        where="w",
        next_step=1,
        join=pb.JoinRequest(sender=sender, run_id=run_id, agreement={"a": "b"}),
        offer=WireFormat(16).encode_published(sender, ticket, distribution(0, 16)),
        reports=[
            pb.ReportRequest(
                sender=sender,
                steps=[pb.StepReport(step=0, ssl_loss=1.0)],
                rounds=[pb.RoundReport(round=1)],
                result=pb.PeerResult(backbone="b"),
            )
        ],
        first_report=1,
        leave=pb.LeaveRequest(sender=sender),
    )


@pytest.mark.parametrize("seed", range(2))
def test_nothing_that_a_site_answers_ends_the_run_of_the_others(releasing, seed):
    chances = random.Random(seed)
    whole = whole_reply(releasing.scene.folder.run_id).SerializeToString()

    def babble():
        # The matrix is most of the bytes; what is around it is more telling.
        body = bytearray(whole)
        for _ in range(chances.randint(0, 5)):
            place = chances.choice([chances.randrange(90), -1 - chances.randrange(90)])
            body[place] = chances.randrange(256)
        return bytes(body[: chances.choice([None, None, chances.randrange(len(body))])])

    releasing.babble[BOB] = babble
    fleet, line = releasing.fleet, releasing.fleet.conversation(BOB)
    endings = []
    for number in range(1, 100):
        fleet.wait(1.0)
        if line.ending is not None:
            endings.append(line.ending)
            line.close()
            fleet.start(BOB, number, _assignment(releasing.scene, BOB, number=number))
    assert fleet.conversation(ADA).ending is None
    assert all(isinstance(one, (str, Ending)) for one in endings)
    assert releasing.scene.grid.kinds(NODES[ADA]).count("query.status") > 50


def test_release_closes_every_peer_once(releasing):
    releasing.fleet.wait(1.0)
    releasing.fleet.release()
    assert sorted(releasing.closed) == [ADA, BOB]


def test_release_of_peers_that_were_never_started_says_nothing(make_scene):
    scene = make_scene("exchange=flower")
    scene.fleet.release()
    assert scene.grid.pushed == []


def test_who_never_answers_does_not_keep_the_others_from_being_closed(releasing, caplog):
    releasing.fleet.wait(1.0)
    releasing.mute.add(BOB)
    began_s = releasing.time.now_s
    releasing.fleet.release()
    assert releasing.closed == [ADA]
    assert releasing.time.now_s - began_s < 60.0
    assert "peer=wide did not say that it has ended" in caplog.text


def test_who_lost_one_message_is_told_to_close_nevertheless(releasing):
    """Else its process would hold its GPU until its lease ends."""
    releasing.fleet.wait(1.0)
    releasing.mute.add(BOB)
    releasing.fleet.wait(1.0)
    releasing.mute.clear()
    releasing.fleet.release()
    assert sorted(releasing.closed) == [ADA, BOB]


def test_release_with_a_dead_grid_ends(releasing, caplog):
    releasing.fleet.wait(1.0)

    def dead(call):
        raise ConnectionError("gone")

    releasing.scene.grid.trouble = dead
    began_s = releasing.time.now_s
    releasing.fleet.release()
    assert releasing.time.now_s - began_s < 61.0
    assert "resnet" in caplog.text or "could not be told to end" in caplog.text


def test_an_interrupted_run_closes_its_peers(make_scene):
    scene = make_scene("exchange=flower")

    def interrupt(peer, number, step):
        if (peer, step) == (ADA, 2):
            scene.is_interrupted = True
            eventually(lambda: scene.toys.endings, "the end of another peer", within_s=5.0)

    scene.is_interrupted = False
    scene.toys.crash = interrupt
    plain_wait = scene.fleet.wait

    def wait(seconds):
        if scene.is_interrupted:
            scene.is_interrupted = False
            raise KeyboardInterrupt
        plain_wait(seconds)

    scene.fleet.wait = wait
    with pytest.raises(KeyboardInterrupt):
        scene.supervise()
    assert {peer for peer, _, ending in scene.toys.endings} == {ADA, BOB}
    assert all(ending.outcome is Outcome.CUT_OFF for _, _, ending in scene.toys.endings)
    assert set(scene.toys.endings) and Ending(Outcome.FINISHED) not in scene.toys.endings
