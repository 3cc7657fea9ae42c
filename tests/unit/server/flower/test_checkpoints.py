"""Which checkpoints sites have of a run that goes on: who tells, who does not, and a stop."""

from __future__ import annotations

import pytest

from dogo_fed.contracts import PeerId
from dogo_fed.errors import StartError, Stopped
from dogo_fed.storage.going_on import FarCheckpoints
from dogo_fed.wire import dogo_pb2 as pb
from server.flower import checkpoints
from server.flower.checkpoints import ask_checkpoints
from server.flower.nodes import Node
from tests.support.fake_flower import AtOnce, FakeGrid, SleptTime, answered, request_of

ADA, BOB, CAT = PeerId("ada"), PeerId("bob"), PeerId("cat")

pytestmark = [pytest.mark.timeout(30), pytest.mark.usefixtures("flower_identity")]


class Sites:
    """Nodes with sites behind them."""

    def __init__(self, monkeypatch):
        self.time = SleptTime()
        monkeypatch.setattr(checkpoints, "time", self.time)
        self.grid = FakeGrid({}, AtOnce())

    def ask(self, within_s=30.0, stop_requested=lambda: False, **replies):
        nodes = {}
        for node_id, (peer, reply) in enumerate(replies.items(), start=7):
            self.grid.nodes[node_id] = reply
            nodes[PeerId(peer)] = Node(node_id, peer, True, -1, 0)
        return ask_checkpoints(self.grid, nodes, "first", within_s, stop_requested)


@pytest.fixture
def sites(monkeypatch):
    made = Sites(monkeypatch)
    yield made
    made.grid.close()
    assert made.grid.pulled_twice == []


def answers(steps: str, **fields):
    """A node whose site has these checkpoints."""

    def reply(message):
        assert message.metadata.message_type == "query.checkpoints"
        asked = request_of(message)
        assert asked.asks_checkpoints and asked.run_id == "first" and not asked.assignment
        told = pb.HostReply(state=pb.UNKNOWN, checkpoints=steps, **fields)
        return answered(message, told.SerializeToString())

    return reply


def test_each_site_tells_which_checkpoints_it_has(sites):
    found = sites.ask(
        ada=answers("10 20"), bob=answers(""), cat=answers("20 10", broken_checkpoints="30")
    )
    assert found == {
        ADA: FarCheckpoints((10, 20)),
        BOB: FarCheckpoints(),
        CAT: FarCheckpoints((10, 20), (30,)),
    }
    assert found[CAT].steps() == [10, 20, 30]
    assert [found[CAT].problem_with(step) is None for step in (20, 30)] == [True, False]


def test_no_message_lives_for_ever(sites):
    sites.ask(ada=answers("10"))
    assert [one.metadata.ttl for one in sites.grid.pushed] == [300], "Flower's own is 12 hours"


def test_a_site_that_is_away_is_asked_again(sites):
    sites.time.after(5, lambda: sites.grid.nodes.__setitem__(7, answers("10")))
    assert sites.ask(ada=answers("", message="no process answers")) == {ADA: FarCheckpoints((10,))}


def test_an_answer_that_comes_at_the_last_moment_counts(sites):
    def late(message):
        sites.time.now_s += 31.0
        return answers("10")(message)

    assert sites.ask(ada=late) == {ADA: FarCheckpoints((10,))}


def test_why_flower_itself_can_not_ask_is_one_line_of_the_error(sites, monkeypatch):
    def broken(messages):
        raise RuntimeError(
            "Traceback of its server\n  and more\nStatusCode.UNAVAILABLE: it is gone"
        )

    monkeypatch.setattr(sites.grid, "push_messages", broken)
    with pytest.raises(StartError, match=r"ada \(StatusCode\.UNAVAILABLE: it is gone\)"):
        sites.ask(ada=answers("10"), within_s=3.0)


def test_a_stop_while_sites_are_asked_says_so_and_does_not_wait(sites):
    began_s = sites.time.now_s
    with pytest.raises(Stopped, match="stopped by the user before every site had told"):
        sites.ask(stop_requested=lambda: True, ada=lambda message: None)
    assert sites.time.now_s - began_s < 1.0


@pytest.mark.parametrize(
    ("reply", "why"),
    [
        (
            answers("", message="no process answers at unix:/there"),
            "no process answers at unix:/there",
        ),
        (answers("10 twenty"), "twenty"),
        (answers("10", broken_checkpoints="twenty"), "twenty"),
        (answers("1 " * 600_000), "bytes are more than the 1048576 of the largest reply"),
        (lambda message: answered(message, b"\xff\xff\xff"), "something that is no reply"),
        (lambda message: None, "no answer"),
    ],
    ids=["away", "no number", "no broken number", "large", "no reply", "silent"],
)
def test_who_does_not_tell_is_named_and_the_run_does_not_begin_again(sites, reply, why):
    with pytest.raises(StartError) as caught:
        sites.ask(ada=answers("10"), bob=reply)
    message = str(caught.value)
    assert "within 30 s" in message and "bob (" in message and why in message
    assert "ada" not in message and "dogo-fed peer" in message
