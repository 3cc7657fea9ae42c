"""Which of Flower's nodes is for which peer: nodes that come late, fail, go, or are too few."""

from __future__ import annotations

import functools

import pytest
from flwr.app import ConfigRecord, Message, RecordDict

from dogo_fed.contracts import PeerId
from dogo_fed.errors import DogoError, StartError
from server.flower import nodes as flower_nodes
from server.flower.nodes import find_nodes
from tests.support.fake_flower import AtOnce, FakeGrid, SleptTime

ADA, BOB, CAT = PeerId("ada"), PeerId("bob"), PeerId("cat")

pytestmark = [pytest.mark.timeout(30), pytest.mark.usefixtures("flower_identity")]


class Federation:
    """Nodes that say hello at once."""

    def __init__(self, monkeypatch):
        self.time = SleptTime()
        monkeypatch.setattr(flower_nodes, "time", self.time)
        self.grid = FakeGrid({}, AtOnce())
        self.hellos = {}

    def add(self, node_id, **about):
        self.grid.nodes[node_id] = functools.partial(self.hello, node_id, about)

    def simulate(self, number, of, node_id=None):
        about = {"peer": "", "is-site": False, "partition-id": number, "num-partitions": of}
        self.add(node_id or 100 + number, **about)

    def site(self, node_id, peer):
        self.add(
            node_id, **{"peer": peer, "is-site": True, "partition-id": -1, "num-partitions": 0}
        )

    def hello(self, node_id, about, message):
        assert message.metadata.message_type == "query.hello"
        self.hellos[node_id] = self.hellos.get(node_id, 0) + 1
        return Message(RecordDict({"about": ConfigRecord(about)}), reply_to=message)

    def after(self, seconds, action, *arguments, **options):
        self.time.after(seconds, functools.partial(action, *arguments, **options))

    def find(self, *peers, within_s=30.0, stop_requested=lambda: False):
        found = find_nodes(self.grid, peers, within_s, stop_requested)
        return {peer: node.node_id for peer, node in found.items()}

    def fail(self, *peers, error=StartError, **options):
        with pytest.raises(error) as caught:
            self.find(*peers, **options)
        return str(caught.value)


@pytest.fixture
def federation(monkeypatch):
    made = Federation(monkeypatch)
    yield made
    made.grid.close()
    assert made.grid.pulled_twice == []


# ---- simulation ----


def test_simulated_nodes_get_the_peers_in_order_whatever_order_they_come_in(federation):
    for number in (2, 0, 1):
        federation.simulate(number, of=3)
    assert federation.find(ADA, BOB, CAT) == {ADA: 100, BOB: 101, CAT: 102}


def test_more_nodes_than_peers_are_left_alone(federation):
    for number in range(5):
        federation.simulate(number, of=5)
    assert federation.find(ADA, BOB) == {ADA: 100, BOB: 101}


def test_too_few_simulated_nodes_are_said_at_once_with_the_flag(federation):
    federation.simulate(0, of=1)
    began_s = federation.time.now_s
    message = federation.fail(ADA, BOB, within_s=1000.0)
    assert federation.time.now_s < began_s + 30
    assert "--federation-config 'num-supernodes=2'" in message
    assert "2 peers (ada, bob)" in message and "simulates 1 nodes" in message


def test_nodes_that_appear_late_are_waited_for(federation):
    federation.after(1.0, federation.simulate, 1, of=2)
    federation.after(9.0, federation.simulate, 0, of=2)
    assert federation.find(ADA, BOB) == {ADA: 100, BOB: 101}
    assert federation.hellos == {100: 1, 101: 1}


# ---- deployment ----


def test_sites_are_found_by_name(federation):
    federation.site(7, "bob")
    federation.site(8, "ada")
    federation.site(9, "somebody")
    found = find_nodes(federation.grid, (ADA, BOB), 30.0)
    assert {peer: node.node_id for peer, node in found.items()} == {ADA: 8, BOB: 7}
    assert all(node.is_site for node in found.values())


def test_a_missing_site_is_named_after_the_time_allowed(federation):
    federation.site(7, "bob")
    began_s = federation.time.now_s
    message = federation.fail(ADA, BOB, CAT, within_s=20.0)
    assert 20.0 <= federation.time.now_s - began_s < 25.0
    assert "no Flower node for peer ada, cat within 20 s" in message
    assert "1 node(s) answered" in message and 'peer="<name>"' in message


def test_without_any_node_the_deadline_holds(federation):
    assert "no Flower node for peer ada" in federation.fail(ADA, within_s=5.0)


def test_a_name_counts_more_than_a_number(federation):
    federation.add(1, **{"peer": "bob", "is-site": False, "partition-id": 0, "num-partitions": 3})
    federation.simulate(0, of=3, node_id=2)
    federation.simulate(1, of=3, node_id=3)
    assert federation.find(ADA, BOB) == {ADA: 2, BOB: 1}


def test_a_site_that_came_back_as_another_node_is_taken_as_that(federation):
    """Its SuperNode was started again while another one was waited for."""
    federation.site(7, "ada")

    def come_back():
        del federation.grid.nodes[7]
        federation.site(8, "ada")

    federation.after(2.0, come_back)
    federation.after(6.0, federation.site, 9, "bob")
    assert federation.find(ADA, BOB) == {ADA: 8, BOB: 9}


def test_a_peer_that_two_nodes_claim_is_given_to_neither_and_both_are_named(federation):
    """Which peer a node has is what the node says: another's site could say the same."""
    federation.site(7, "ada")
    federation.site(8, "bob")
    federation.site(9, "ada")
    message = federation.fail(ADA, BOB, within_s=20.0)
    assert "no Flower node for peer ada within" in message
    assert "the nodes 7, 9 all say that they have peer ada: end all but one" in message


def test_a_peer_that_two_nodes_claim_is_the_other_s_when_one_has_gone(federation):
    federation.site(7, "ada")
    federation.site(9, "ada")
    federation.site(8, "bob")
    federation.after(5.0, federation.grid.nodes.pop, 9)
    assert federation.find(ADA, BOB) == {ADA: 7, BOB: 8}


def test_a_site_that_has_gone_is_not_taken(federation):
    federation.site(7, "ada")
    federation.after(2.0, federation.grid.nodes.pop, 7)
    federation.after(6.0, federation.site, 9, "bob")
    message = federation.fail(ADA, BOB)
    assert "no Flower node for peer ada within" in message


# ---- trouble ----


def test_a_hello_that_failed_is_said_again(federation):
    failures = []

    def fail_twice(message):
        if len(failures) < 2:
            failures.append(message)
            raise RuntimeError("the worker was not ready")
        return federation.hello(
            7, {"peer": "ada", "is-site": True, "partition-id": -1, "num-partitions": 0}, message
        )

    federation.grid.nodes[7] = fail_twice
    assert federation.find(ADA) == {ADA: 7}
    assert len(failures) == 2


def test_a_hello_that_is_never_answered_is_said_again_once_a_minute(federation):
    federation.grid.nodes[7] = lambda message: None
    federation.fail(ADA, within_s=200.0)
    assert 3 <= len(federation.grid.pushed) <= 5
    assert all(one.metadata.ttl == 300 for one in federation.grid.pushed), "Flower's is 12 hours"


def test_a_late_answer_to_the_first_hello_counts(federation):
    asked = []

    def only_after_a_second_one(message):
        asked.append(message)
        if len(asked) < 2:
            return None
        return federation.hello(
            7, {"peer": "ada", "is-site": True, "partition-id": -1, "num-partitions": 0}, message
        )

    federation.grid.nodes[7] = only_after_a_second_one
    assert federation.find(ADA, within_s=100.0) == {ADA: 7}


@pytest.mark.parametrize(
    "about", [{}, {"peer": "ada"}, {"peer": "ada", "is-site": True, "partition-id": "x"}]
)
def test_a_hello_that_nobody_understands_leaves_the_others_in_peace(federation, about):
    """A node of another app or version is in the same federation."""
    federation.add(6, **about)
    federation.site(7, "ada")
    assert federation.find(ADA) == {ADA: 7}


@pytest.mark.parametrize("call", ["get_node_ids", "push_messages", "pull_messages"])
def test_a_grid_that_stumbles_is_asked_again(federation, call):
    federation.site(7, "ada")
    stumbled = []

    def trouble(name):
        if name == call and len(stumbled) < 3:
            stumbled.append(name)
            raise ConnectionError("the SuperLink restarts")

    federation.grid.trouble = trouble
    assert federation.find(ADA) == {ADA: 7}


def test_a_grid_that_is_gone_is_an_error_of_ours_within_the_time(federation):
    def trouble(name):
        raise ConnectionError("the SuperLink has ended")

    federation.grid.trouble = trouble
    began_s = federation.time.now_s
    message = federation.fail(ADA, error=DogoError, within_s=10.0)
    assert "the SuperLink has ended" in message
    assert federation.time.now_s - began_s < 15.0


def test_a_stop_ends_the_search(federation):
    asked = []

    def stop_requested():
        asked.append(None)
        return len(asked) > 3

    assert find_nodes(federation.grid, (ADA,), 30.0, stop_requested) is None
    assert len(asked) == 4
