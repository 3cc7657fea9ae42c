"""One suite for every `Exchange`: the same promises, and the same bits, however the numbers travel."""

from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
import pytest

from clients.flower.message_link import MessageLink
from clients.peer.grpc_link import Connection, GrpcLink
from dogo_fed.contracts import PeerId, SimilarityDistribution, TeacherSignal, Ticket
from dogo_fed.coordination.coordinator import Coordinator
from dogo_fed.coordination.state import Membership
from dogo_fed.errors import ExchangeError, MalformedDistribution, SchemaMismatch, StaleTicket
from dogo_fed.exchange.base import Exchange
from dogo_fed.exchange.in_process import InProcessExchange
from dogo_fed.wire import dogo_pb2 as pb
from dogo_fed.wire.format import WireFormat
from dogo_fed.wire.secret import credential_of
from server.coordinator.calls import CoordinatorCalls
from server.coordinator.service import CoordinatorService, ServiceSettings
from tests.support.distributions import (
    ADA,
    AGREEMENT,
    BOB,
    CAT,
    RUN_ID,
    SIZE,
    Clock,
    KeepingSink,
    both_ways,
    distribution,
    seed_of,
    settings,
    ticket,
)

DEADLINE_S = 10.0


class World:
    """A coordinator with a clock that the test moves, and an `Exchange` for each peer."""

    def __init__(
        self,
        clock: Clock,
        ask: Callable[[Callable[[Coordinator], object]], object],
        enter: Callable[[PeerId], Exchange],
    ) -> None:
        self._clock = clock
        self.ask = ask
        self.enter = enter
        self.make = distribution
        self.ends: dict[PeerId, Exchange] = {}

    def join(self, *peers: PeerId) -> list[Exchange]:
        for peer in peers:
            self.ends[peer] = self.enter(peer)
        return [self.ends[peer] for peer in peers]

    def pass_time(self, seconds: float) -> None:
        self._clock.now_s += seconds
        self.ask(lambda coordinator: coordinator.tick(self._clock.now_s))

    def membership(self, peer: PeerId) -> Membership:
        return self.ask(lambda coordinator: coordinator.membership(peer))

    def stop(self) -> None:
        self.ask(lambda coordinator: coordinator.stop("stopped", self._clock.now_s))

    def swap(self, step: int, *peers: PeerId) -> dict[PeerId, TeacherSignal]:
        """All publish, then all collect."""
        for peer in peers:
            self.ends[peer].publish(ticket(step), self.make(seed_of(peer, step)))
        return {peer: self.ends[peer].collect(ticket(step)) for peer in peers}


@contextmanager
def in_process(
    peers: tuple[PeerId, ...], *, is_symmetric: bool = False, **variants: Any
) -> Iterator[World]:
    wire = WireFormat(SIZE, is_symmetric)
    clock = Clock()
    coordinator = Coordinator(
        settings(peers, deadline_s=DEADLINE_S, **variants), clock(), lambda event: None
    )
    starts: list[PeerId] = []

    def enter(peer: PeerId) -> Exchange:
        starts.append(peer)
        incarnation = f"{peer}-{len(starts)}"
        coordinator.join(peer, incarnation, AGREEMENT, clock())
        return InProcessExchange(coordinator, peer, incarnation, wire, clock)

    yield World(clock, lambda action: action(coordinator), enter)


@contextmanager
def over_grpc(
    peers: tuple[PeerId, ...], *, is_symmetric: bool = False, **variants: Any
) -> Iterator[World]:
    wire = WireFormat(SIZE, is_symmetric)
    clock, sink = Clock(), KeepingSink()
    given = settings(peers, deadline_s=DEADLINE_S, **variants)
    coordinator = Coordinator(given, clock(), sink.emit)
    service = CoordinatorService(
        CoordinatorCalls(coordinator, RUN_ID, wire, sink, clock),
        ServiceSettings(address="127.0.0.1", port=0, secret="s3cret", answer_within_s=20.0),
        clock,
    )
    address = service.start()
    with ExitStack() as leaving:
        leaving.callback(service.stop)

        def enter(peer: PeerId) -> Exchange:
            connection = Connection(
                address=address,
                credential=credential_of("s3cret", RUN_ID, peer),
                wire=wire,
                answer_within_s=5.0,
                reconnect_s=1.0,
            )
            client = GrpcLink(peer, RUN_ID, connection)
            leaving.callback(client.close)
            client.join(AGREEMENT)
            return client

        def ask(action: Callable[[Coordinator], object]) -> object:
            return service.call(lambda calls: action(calls.coordinator))

        yield World(clock, ask, enter)


class Carrier:
    """Plays the framework in a thread: carries what the links have to say, and every message twice."""

    def __init__(self, calls: CoordinatorCalls) -> None:
        self._calls = calls
        self._links: list[tuple[PeerId, MessageLink]] = []
        self._rounds_done = 0
        self._changed = threading.Condition()
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def add(self, peer: PeerId, link: MessageLink) -> None:
        self._links.append((peer, link))

    def ask(self, action: Callable[[], object]) -> object:
        """Runs `action` when all that was said before has arrived."""
        with self._changed:
            wanted = self._rounds_done + 2
            self._changed.wait_for(lambda: self._rounds_done >= wanted, 10.0)
            return action()

    def stop(self) -> None:
        self._is_over.set()
        self._thread.join(10.0)

    def _run(self) -> None:
        while not self._is_over.wait(0.002):
            with self._changed:
                for peer, link in list(self._links):
                    self._carry(peer, link)
                self._rounds_done += 1
                self._changed.notify_all()

    def _carry(self, peer: PeerId, link: MessageLink) -> None:
        reply = pb.HostReply()
        link.tell(reply)
        request = self._answers(peer, pb.HostReply.FromString(reply.SerializeToString()))
        for _ in range(2):
            link.take(pb.HostRequest.FromString(request.SerializeToString()))

    def _answers(self, peer: PeerId, reply: pb.HostReply) -> pb.HostRequest:
        request = pb.HostRequest(reports_received=reply.first_report + len(reply.reports))
        if reply.HasField("join"):
            request.join.CopyFrom(self._calls.join(peer, reply.join))
        if reply.HasField("offer"):
            offer = reply.offer
            answer = self._calls.offer(peer, offer) or self._calls.answer(peer, offer.ticket.step)
            if answer is not None:
                request.answer_step = offer.ticket.step
                request.answer.CopyFrom(answer)
        if reply.HasField("leave"):
            self._calls.leave(peer, reply.leave)
        return request


@contextmanager
def in_messages(
    peers: tuple[PeerId, ...], *, is_symmetric: bool = False, **variants: Any
) -> Iterator[World]:
    wire = WireFormat(SIZE, is_symmetric)
    clock, sink = Clock(), KeepingSink()
    given = settings(peers, deadline_s=DEADLINE_S, **variants)
    coordinator = Coordinator(given, clock(), sink.emit)
    carrier = Carrier(CoordinatorCalls(coordinator, RUN_ID, wire, sink, clock))

    def enter(peer: PeerId) -> Exchange:
        link = MessageLink(peer, RUN_ID, wire, answer_within_s=5.0)
        carrier.add(peer, link)
        link.join(AGREEMENT)
        return link

    yield World(clock, lambda action: carrier.ask(lambda: action(coordinator)), enter)
    carrier.stop()


IMPLEMENTATIONS = {"in_process": in_process, "grpc": over_grpc, "messages": in_messages}


@pytest.fixture(params=IMPLEMENTATIONS)
def make_world(request):
    """Returns a function that makes a world of these peers, all of whom have joined."""
    with ExitStack() as worlds:

        def make(*peers: PeerId, **variants: Any) -> World:
            world = worlds.enter_context(IMPLEMENTATIONS[request.param](peers, **variants))
            world.join(*peers)
            return world

        yield make


def swapped(end: Exchange, given_ticket: Ticket, given: SimilarityDistribution) -> TeacherSignal:
    """A refusal may come at either of the two calls."""
    end.publish(given_ticket, given)
    return end.collect(given_ticket)


# ---- what arrives ----


def test_of_two_peers_each_receives_the_very_bytes_the_other_sent(make_world):
    signals = make_world(ADA, BOB).swap(0, ADA, BOB)
    for peer, other in ((ADA, BOB), (BOB, ADA)):
        sent = distribution(seed_of(other, 0))
        assert signals[peer].mean_NN.tobytes() == sent.p_NN.tobytes()
        assert signals[peer].mean_NN.dtype == np.float32
        assert signals[peer].negative_entropy == sent.negative_entropy
        assert signals[peer].teachers == (other,)


def test_of_three_peers_each_receives_the_mean_of_the_other_two(make_world):
    signals = make_world(ADA, BOB, CAT).swap(0, CAT, ADA, BOB)
    for peer, others in ((ADA, (BOB, CAT)), (BOB, (ADA, CAT)), (CAT, (ADA, BOB))):
        first, second = (distribution(seed_of(other, 0)) for other in others)
        expected_NN = (first.p_NN + second.p_NN) * np.float32(0.5)
        assert signals[peer].mean_NN.tobytes() == expected_NN.tobytes()
        assert signals[peer].teachers == others


ALL_VARIANTS = {
    "is_symmetric": True,
    "every_steps": 2,
    "graph": {ADA: {BOB: 0.3, CAT: 1.7}, BOB: {ADA: 1.0}, CAT: {ADA: 2.0, BOB: 0.1}},
}


def bits(signal: TeacherSignal) -> tuple[object, ...]:
    reverse = signal.reverse
    return (
        signal.mean_NN.tobytes(),
        signal.negative_entropy,
        None if reverse is None else (reverse.p_NN.tobytes(), reverse.negative_entropy),
        signal.teachers,
        signal.next_step,
    )


@pytest.mark.parametrize("variants", [{}, ALL_VARIANTS], ids=["plain", "all variants"])
def test_all_implementations_return_the_same_bits(variants):
    found = {}
    for name, implementation in IMPLEMENTATIONS.items():
        with implementation((ADA, BOB, CAT), **variants) as world:
            world.join(ADA, BOB, CAT)
            world.make = both_ways if variants else distribution
            found[name] = [
                bits(signal)
                for step in (range(0, 6, 2) if variants else range(3))
                for signal in world.swap(step, ADA, BOB, CAT).values()
            ]
    assert found["in_process"] == found["grpc"] == found["messages"]
    assert len(set(found["grpc"])) == 9, "each peer and step has numbers of its own"


def test_who_comes_first_changes_no_bit(make_world):
    forth = make_world(ADA, BOB, CAT).swap(0, ADA, BOB, CAT)
    back = make_world(ADA, BOB, CAT).swap(0, CAT, BOB, ADA)
    for peer in (ADA, BOB, CAT):
        assert forth[peer].mean_NN.tobytes() == back[peer].mean_NN.tobytes()
        assert forth[peer].negative_entropy == back[peer].negative_entropy


def test_a_lonely_peer_learns_from_nobody(make_world):
    signal = make_world(ADA).swap(0, ADA)[ADA]
    assert signal.mean_NN is None and signal.teachers == () and signal.next_step == 1


def test_steps_follow_each_other(make_world):
    world = make_world(ADA, BOB)
    assert [world.swap(step, ADA, BOB)[ADA].next_step for step in range(4)] == [1, 2, 3, 4]


# ---- repetition ----


def test_the_same_call_again_gives_the_same_answer(make_world):
    world = make_world(ADA, BOB)
    first = world.swap(0, ADA, BOB)[ADA]
    again = world.swap(0, ADA)[ADA]
    assert again.mean_NN.tobytes() == first.mean_NN.tobytes()
    assert dataclasses.replace(again, mean_NN=None) == dataclasses.replace(first, mean_NN=None)
    assert world.swap(1, ADA, BOB)[BOB].next_step == 2, "the run goes on as if nothing had been"


def test_another_distribution_for_the_same_ticket_is_stale_and_changes_nothing(make_world):
    world = make_world(ADA, BOB)
    world.swap(0, ADA, BOB)
    with pytest.raises(StaleTicket, match="already published another"):
        swapped(world.ends[ADA], ticket(0), distribution(99))
    again = world.swap(0, BOB)[BOB]
    assert np.array_equal(again.mean_NN, distribution(seed_of(ADA, 0)).p_NN)


# ---- refusals ----


def test_a_future_step_is_stale(make_world):
    world = make_world(ADA, BOB)
    with pytest.raises(StaleTicket, match="offers step 3, but step 0 is open"):
        swapped(world.ends[ADA], ticket(3), distribution(0))


def test_an_earlier_process_of_the_peer_is_stale(make_world):
    world = make_world(ADA, BOB)
    old = world.ends[ADA]
    world.join(ADA)
    with pytest.raises(StaleTicket, match="another process has joined as peer 'ada'"):
        swapped(old, ticket(0), distribution(0))
    assert world.swap(0, ADA, BOB)[BOB].teachers == (ADA,)


def test_other_images_are_a_mismatch(make_world):
    world = make_world(ADA, BOB)
    with pytest.raises(SchemaMismatch, match="other images at step 0"):
        swapped(world.ends[ADA], ticket(0, digest="cats"), distribution(0))


def test_another_run_is_a_mismatch(make_world):
    world = make_world(ADA, BOB)
    with pytest.raises(SchemaMismatch, match="run 'another'"):
        swapped(world.ends[ADA], ticket(0, run_id="another"), distribution(0))


@pytest.mark.parametrize("size", [SIZE - 1, SIZE + 1])
def test_another_size_is_malformed(make_world, size):
    world = make_world(ADA, BOB)
    with pytest.raises(MalformedDistribution, match=f"batch size is {SIZE}"):
        swapped(world.ends[ADA], ticket(0), distribution(0, size))


def test_a_matrix_far_too_large_is_refused_with_a_sentence_about_the_batch_size(make_world):
    world = make_world(ADA, BOB)
    with pytest.raises(ExchangeError, match="batch size"):
        swapped(world.ends[ADA], ticket(0), distribution(0, 200))
    assert world.swap(0, ADA, BOB)[ADA].teachers == (BOB,), "and the peer may go on"


@pytest.mark.parametrize("factor", [np.nan, np.inf, -1.0, 1.01])
def test_what_is_no_distribution_is_malformed_and_reaches_nobody(make_world, factor):
    world = make_world(ADA, BOB)
    good = distribution(seed_of(ADA, 0))
    with np.errstate(invalid="ignore"):
        bad = dataclasses.replace(good, p_NN=good.p_NN * np.float32(factor))
    with pytest.raises(MalformedDistribution, match=r"row 0|sums to"):
        swapped(world.ends[ADA], ticket(0), bad)
    assert np.array_equal(world.swap(0, ADA, BOB)[BOB].mean_NN, good.p_NN)


@pytest.mark.parametrize(
    ("is_symmetric", "make"), [(True, distribution), (False, both_ways)], ids=["one", "two"]
)
def test_another_number_of_view_directions_than_agreed_is_malformed(make_world, is_symmetric, make):
    world = make_world(ADA, BOB, is_symmetric=is_symmetric)
    with pytest.raises(MalformedDistribution, match=r"view directions.*exchange\.symmetric"):
        swapped(world.ends[ADA], ticket(0), make(0))
    world.make = both_ways if is_symmetric else distribution
    signals = world.swap(0, ADA, BOB)
    assert signals[ADA].teachers == (BOB,)
    sent = world.make(seed_of(BOB, 0))
    assert bits(signals[ADA])[:2] == (sent.p_NN.tobytes(), sent.negative_entropy)
    if is_symmetric:
        assert signals[ADA].reverse.p_NN.tobytes() == sent.reverse.p_NN.tobytes()


def test_a_broken_reverse_is_malformed_and_reaches_nobody(make_world):
    world = make_world(ADA, BOB, is_symmetric=True)
    world.make = both_ways
    good = both_ways(seed_of(ADA, 0))
    bad = dataclasses.replace(good.reverse, p_NN=good.reverse.p_NN * np.float32(1.01))
    with pytest.raises(MalformedDistribution, match="in the reverse direction, row"):
        swapped(world.ends[ADA], ticket(0), dataclasses.replace(good, reverse=bad))
    assert np.array_equal(world.swap(0, ADA, BOB)[BOB].reverse.p_NN, good.reverse.p_NN)


def test_a_step_that_does_not_exchange_has_no_ticket(make_world):
    world = make_world(ADA, BOB, every_steps=3)
    assert world.swap(0, ADA, BOB)[ADA].next_step == 1
    with pytest.raises(SchemaMismatch, match=r"offers step 1.*exchange\.every_steps"):
        swapped(world.ends[ADA], ticket(1), distribution(0))
    assert world.swap(3, ADA, BOB)[ADA].next_step == 4


def test_a_learner_without_teachers_is_answered_without_a_mean(make_world):
    signals = make_world(ADA, BOB, graph={BOB: {ADA: 2.0}}).swap(0, ADA, BOB)
    assert signals[ADA].mean_NN is None and signals[ADA].teachers == ()
    assert signals[BOB].mean_NN.tobytes() == distribution(seed_of(ADA, 0)).p_NN.tobytes()


# ---- time ----


def test_at_the_deadline_those_present_are_answered(make_world):
    world = make_world(ADA, BOB, CAT)
    for peer in (ADA, BOB):
        world.ends[peer].publish(ticket(0), distribution(seed_of(peer, 0)))
    wait_until_published(world, 0, ADA, BOB)
    world.pass_time(DEADLINE_S)
    signal = world.ends[ADA].collect(ticket(0))
    assert signal.teachers == (BOB,) and signal.waited_s == DEADLINE_S
    assert world.membership(CAT) is Membership.LOST
    late = swapped(world.ends[CAT], ticket(0), distribution(seed_of(CAT, 0)))
    assert late.teachers == (ADA, BOB) and late.next_step == 1
    world.ends[BOB].collect(ticket(0))
    assert world.swap(1, ADA, BOB, CAT)[ADA].teachers == (BOB, CAT)


def test_who_fell_behind_is_told_where_to_go_on(make_world):
    world = make_world(ADA, BOB)
    world.ends[ADA].publish(ticket(0), distribution(0))
    wait_until_published(world, 0, ADA)
    world.pass_time(DEADLINE_S)
    assert world.ends[ADA].collect(ticket(0)).teachers == ()
    for step in (1, 2):
        assert world.swap(step, ADA)[ADA].next_step == step + 1
    assert swapped(world.ends[BOB], ticket(0), distribution(1)).next_step == 3


def wait_until_published(world: World, step: int, *peers: PeerId) -> None:
    """`publish` does not wait for delivery. Once the last one is in, only the deadline is due."""
    give_up_at_s = time.monotonic() + 10.0
    while True:
        arrived = world.ask(lambda coordinator: contributors(coordinator, step))
        if set(peers) <= set(arrived):
            return
        assert time.monotonic() < give_up_at_s, f"only {arrived} have arrived"


def contributors(coordinator: Coordinator, step: int) -> tuple[PeerId, ...]:
    rendezvous = coordinator._open
    return () if rendezvous is None or rendezvous.step != step else rendezvous.contributors


# ---- the end ----


def test_a_stop_reaches_all_peers_after_the_same_step(make_world):
    world = make_world(ADA, BOB, CAT)
    assert not any(signal.stop for signal in world.swap(0, ADA, BOB, CAT).values())
    world.stop()
    assert all(signal.stop for signal in world.swap(1, ADA, BOB, CAT).values())


def test_close_leaves_the_run_and_nobody_waits_for_who_has_left(make_world):
    world = make_world(ADA, BOB, CAT)
    world.ends[CAT].close()
    assert world.membership(CAT) is Membership.DONE
    assert world.swap(0, ADA, BOB)[ADA].teachers == (BOB,)


def test_closing_twice_is_closing_once(make_world):
    world = make_world(ADA, BOB)
    old = world.ends[ADA]
    old.close()
    world.join(ADA)
    old.close()
    assert world.membership(ADA) is Membership.PRESENT
