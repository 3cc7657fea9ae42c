"""The cause of a failure in another process of Ray: the last thing it said, not the first."""

from __future__ import annotations

import threading

import pytest
from ray.exceptions import ActorDiedError, RayActorError, RayTaskError, RuntimeEnvSetupError

from clients.ray.failures import cause_of, death_of, has_traceback

TRACEBACK = """\x1b[36mray::PeerActor.run()\x1b[39m (pid=7, ip=127.0.0.1, actor_id=0a1b)
  File "/home/ada/mine.py", line 3, in embed
    return self.projector(views)
AttributeError: 'Mine' object has no attribute 'projector'
"""


class Unsendable(Exception):
    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.lock = threading.Lock()


def raised(cause: Exception, text: str = TRACEBACK) -> RayTaskError:
    return RayTaskError("PeerActor.run", text, cause, "ray::PeerActor.run", 7, "127.0.0.1")


@pytest.mark.parametrize("as_cause", [False, True])
def test_the_cause_is_told_and_not_the_name_of_the_actor(as_cause) -> None:
    error = raised(AttributeError("'Mine' object has no attribute 'projector'"))
    told = cause_of(error.as_instanceof_cause() if as_cause else error)
    assert told == "AttributeError: 'Mine' object has no attribute 'projector'"


def test_a_cause_that_can_not_travel_is_told_by_its_last_line() -> None:
    error = raised(Unsendable("no way"), TRACEBACK.replace("AttributeError", "Unsendable"))
    assert cause_of(error) == "Unsendable: 'Mine' object has no attribute 'projector'"


def test_a_cause_without_a_message_is_told_by_its_name() -> None:
    assert cause_of(raised(AssertionError(), "Traceback\nAssertionError")) == "AssertionError"


def test_an_actor_that_could_not_be_made_tells_why() -> None:
    error = ActorDiedError(raised(AttributeError("of the other process")))
    assert "creation task" in str(error) and has_traceback(error)
    assert cause_of(error) == "AttributeError: 'Mine' object has no attribute 'projector'"
    assert not has_traceback(RayActorError())


def test_an_actor_that_died_is_told_with_what_ray_knows_of_it() -> None:
    """As Ray writes it; the first lines are about the actor."""
    text = (
        "The actor died unexpectedly before finishing this task.\n\tclass_name: PeerActor\n"
        "\tactor_id: 0a1b\nThe actor is dead because its node has died. Node Id: 9c, last seen 3 s ago\n"
    )
    assert death_of(RayActorError("0a1b", text)) == (
        "The actor is dead because its node has died. Node Id: 9c, last seen 3 s ago"
    )
    assert death_of(RayActorError()) == ""
    assert len(death_of(RayActorError("0a1b", " because " + "x" * 10_000))) <= 400


def test_a_node_without_us_is_told_as_such() -> None:
    text = (
        "The actor with name PeerActor failed to import on the worker:\n\nTraceback (most recent "
        'call last):\n  File "x.py", line 1, in <module>\n'
        "ModuleNotFoundError: No module named 'clients'"
    )
    assert cause_of(raised(RuntimeError(text))) == "ModuleNotFoundError: No module named 'clients'"


def test_an_environment_that_could_not_be_set_up_tells_why() -> None:
    error = RuntimeEnvSetupError("pip could not find dogo-fed")
    assert cause_of(error) == "pip could not find dogo-fed"


def test_other_errors_are_told_by_their_first_line_without_colours() -> None:
    assert cause_of(ValueError("\n\x1b[31mno such node\x1b[0m\nmore")) == "no such node"
    assert cause_of(OSError()) == "OSError"
    assert "\x1b" not in cause_of(RayActorError())
