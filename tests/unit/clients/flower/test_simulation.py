"""A simulated peer's actor that can't answer: what is told of it."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from ray.exceptions import RayActorError, RayTaskError

from clients.flower import simulation
from clients.ray import room
from configs.compose import compose_run
from dogo_fed.contracts import Outcome
from dogo_fed.wire import dogo_pb2 as pb
from tests.support.fake_flower import assignment_of

TRACEBACK = """\x1b[36mray::HostActor.handle()\x1b[39m (pid=7, ip=127.0.0.1)
\x1b[31mRuntimeError: a peer can't live here\x1b[0m
"""


@pytest.fixture
def asked(monkeypatch):
    """Returns the reply to a request whose actor fails with this error."""

    def asked(error):
        def fail(future, timeout):
            raise error

        monkeypatch.setattr(simulation.ray, "get", fail)
        actor = SimpleNamespace(handle=SimpleNamespace(remote=lambda body: None))
        return simulation._ask(actor, pb.HostRequest(peer="ada"), "first/ada/0")

    return asked


def test_an_actor_whose_code_can_not_be_loaded_is_told_without_colours(asked) -> None:
    cause = RuntimeError("a peer can't live here")
    reply = asked(RayTaskError("HostActor.handle", TRACEBACK, cause, "HostActor", 7, "127.0.0.1"))
    assert (reply.state, reply.outcome) == (pb.ENDED, Outcome.UNFIT.value)
    assert reply.message == "RuntimeError: a peer can't live here"


def test_an_actor_that_died_is_told_without_colours(asked) -> None:
    class Died(RayActorError):
        def __str__(self) -> str:
            return "\n\x1b[31mThe actor died.\x1b[0m\nmore"

    reply = asked(Died())
    assert reply.state == pb.UNKNOWN
    assert reply.message == "its actor 'first/ada/0' died: The actor died."


def test_a_peer_that_splits_its_passes_asks_for_its_own_gpus(monkeypatch) -> None:
    monkeypatch.setattr(room, "live_nodes", lambda: [{"Resources": {"GPU": 3.0}}])
    config = compose_run(["data=synthetic", "peers=pair", "peers.wide.data_parallel=2"])
    run = SimpleNamespace(config=config)
    shares = {
        peer: simulation._share(assignment_of(run, peer, "first")) for peer in ("resnet", "wide")
    }
    assert shares == {"resnet": 1.0, "wide": 2.0}
