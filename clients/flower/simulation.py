"""Carries a message to the Ray actor that hosts a peer, in Flower's simulation.

Flower's own workers live only for their messages and take all CPUs of the cluster. A peer's actor
is detached, asks for no CPU, and is found again by its name.
"""

from __future__ import annotations

from typing import Any

import ray
from ray.exceptions import GetTimeoutError, RayError, RayTaskError

from clients.flower.host_actor import HostActor
from clients.flower.timing import CLOSE_WITHIN_S
from clients.ray.failures import cause_of
from clients.ray.peer_actor import NAMESPACE
from clients.ray.room import num_gpus_of_peers, room
from dogo_fed.assignment import Assignment
from dogo_fed.config_text import from_mapping
from dogo_fed.contracts import Outcome
from dogo_fed.errors import DogoError
from dogo_fed.process_setup import thread_environment
from dogo_fed.wire import dogo_pb2 as pb

_ANSWER_WITHIN_S = 2.0
_NO_WAIT_S = 0.05


def forward(request: pb.HostRequest, lease_s: float) -> pb.HostReply:
    """Returns the reply of the peer's actor, or a reply that says why it cannot answer.

    Args:
        request: names the peer; a request with an assignment makes the actor.
        lease_s: seconds without a message after which a new actor ends itself.
    """
    name = f"{request.run_id}/{request.peer}/{request.start}"
    try:
        if request.assignment:
            actor = _make(name, Assignment.from_json(request.assignment), lease_s)
        else:
            actor = ray.get_actor(name, namespace=NAMESPACE)
    except DogoError as error:
        return _unfit(str(error))
    except ValueError:
        return pb.HostReply(state=pb.UNKNOWN, message=f"there is no actor {name!r} (any more)")
    return _ask(actor, request, name)


def _ask(actor: Any, request: pb.HostRequest, name: str) -> pb.HostReply:
    within_s = _NO_WAIT_S if request.assignment else request.hold_s + _ANSWER_WITHIN_S
    within_s += CLOSE_WITHIN_S if request.close else 0.0
    body = actor.handle.remote(request.SerializeToString())
    try:
        reply = ray.get(body, timeout=within_s)
    except GetTimeoutError:
        return _silent(request)
    except RayTaskError as error:
        return _unfit(cause_of(error))
    except RayError as error:
        why = f"its actor {name!r} died: {cause_of(error)}"
        return pb.HostReply(state=pb.UNKNOWN, message=why)
    finally:
        if request.close:  # saved or not: a detached actor would keep its GPU
            ray.kill(actor, no_restart=True)
    if not reply:
        return pb.HostReply(state=pb.AWAY, message="its process is starting")
    return pb.HostReply.FromString(reply)


def _silent(request: pb.HostRequest) -> pb.HostReply:
    """Returns the reply for an actor that does not answer.

    An actor answers as soon as Ray has placed it. So a new one that wants a GPU has not been
    placed.
    """
    if request.assignment and _share(Assignment.from_json(request.assignment)) > 0:
        return pb.HostReply(state=pb.NO_ROOM, message=f"there is no GPU for it; {room()}")
    return pb.HostReply(state=pb.AWAY, message="its process does not answer")


def _make(name: str, assignment: Assignment, lease_s: float) -> Any:
    threads = from_mapping(assignment.config).threads_per_peer
    return (
        ray.remote(HostActor)
        .options(
            name=name,
            namespace=NAMESPACE,
            lifetime="detached",  # outlives the Flower worker that makes it
            get_if_exists=True,  # a start that is sent twice must not make two peers
            num_cpus=0,
            num_gpus=_share(assignment),
            max_restarts=0,
            runtime_env={"env_vars": thread_environment(threads)},
        )
        .remote(lease_s)
    )


def _share(assignment: Assignment) -> float:
    """Returns the number of GPUs that the peer asks for; see `num_gpus_of_peers`."""
    return num_gpus_of_peers(from_mapping(assignment.config))[assignment.peer]


def _unfit(why: str) -> pb.HostReply:
    return pb.HostReply(state=pb.ENDED, outcome=Outcome.UNFIT.value, message=why)
