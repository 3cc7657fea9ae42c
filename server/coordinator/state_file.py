"""The state of a coordinator in a file: matrices as safetensors, the rest as JSON in its header.

The file holds the run's secret, so only its owner may read it. Reading it executes nothing in it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from dogo_fed.atomic import atomic_path
from dogo_fed.contracts import PeerId, SimilarityDistribution
from dogo_fed.coordination.state import CoordinatorState, Membership, MemberState, RendezvousState
from dogo_fed.errors import CheckpointError, MalformedDistribution
from dogo_fed.wire.format import WireFormat
from server.coordinator.reported import Reported

FORMAT_VERSION = 1

_HEADER = "dogo_fed"


@dataclass(frozen=True, slots=True, kw_only=True)
class SavedCoordinator:
    """The state of a coordinator and of its owner, `CoordinatorHost`.

    Attributes:
        coordinator: the state machine's state.
        reported: the reports that have arrived.
        secret: the run's secret.
        address: host:port by which peers reach it.
    """

    coordinator: CoordinatorState
    reported: Reported
    secret: str
    address: str


def write_state(path: Path, state: SavedCoordinator) -> None:
    """Writes the state, in full or not at all; only the file's owner may read it."""
    matrices: dict[str, npt.NDArray[Any]] = {}
    known = state.coordinator
    header = {
        "format_version": FORMAT_VERSION,
        "secret": state.secret,
        "address": state.address,
        "reported": state.reported.to_plain(),
        "run_id": known.run_id,
        "elapsed_s": known.elapsed_s,
        "next_step": known.next_step,
        "is_stopping": known.is_stopping,
        "members": {peer: _plain_member(member) for peer, member in known.members.items()},
        "meetings": [_plain(meeting, matrices) for meeting in known.meetings],
    }
    content = save(matrices, metadata={_HEADER: json.dumps(header)})
    with atomic_path(path) as partial:
        descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)


def read_state(path: Path, wire: WireFormat) -> SavedCoordinator:
    """Returns the state in a file.

    Args:
        path: a file of `write_state`.
        wire: the form of the run's distributions; those in the file must have it.

    Raises:
        CheckpointError: the file can't be read, or is not as this version writes it for such a run.
    """
    try:
        with safe_open(path, framework="numpy") as file:
            header = json.loads((file.metadata() or {})[_HEADER])
            matrices = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        if header["format_version"] != FORMAT_VERSION:
            raise CheckpointError(
                f"{path} has format version {header['format_version']}, this program reads "
                f"{FORMAT_VERSION}"
            )
        return SavedCoordinator(
            coordinator=CoordinatorState(
                run_id=str(header["run_id"]),
                elapsed_s=float(header["elapsed_s"]),
                next_step=int(header["next_step"]),
                is_stopping=bool(header["is_stopping"]),
                members={
                    PeerId(peer): _member(member) for peer, member in header["members"].items()
                },
                meetings=tuple(_meeting(meeting, matrices, wire) for meeting in header["meetings"]),
            ),
            reported=Reported.from_plain(header["reported"]),
            secret=str(header["secret"]),
            address=str(header["address"]),
        )
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"the coordinator's state {path} can't be read: {error}") from error
    except (KeyError, TypeError, ValueError, AttributeError, MalformedDistribution) as error:
        raise CheckpointError(
            f"{path} is no state of a coordinator as this version writes it: {error}"
        ) from error


def _plain_member(member: MemberState) -> dict[str, object]:
    return {
        "membership": member.membership.value,
        "incarnation": member.incarnation,
        "next_step": member.next_step,
        "first_joined_s": member.first_joined_s,
    }


def _member(plain: Mapping[str, Any]) -> MemberState:
    return MemberState(
        membership=Membership(plain["membership"]),
        incarnation=str(plain["incarnation"]),
        next_step=int(plain["next_step"]),
        first_joined_s=float(plain["first_joined_s"]),
    )


def _plain(meeting: RendezvousState, matrices: dict[str, npt.NDArray[Any]]) -> dict[str, object]:
    """Returns a meeting as plain values; its matrices are put into `matrices`."""
    entropies: dict[str, list[float]] = {}
    for peer, given in meeting.contributions.items():
        directions = [given] if given.reverse is None else [given, given.reverse]
        entropies[peer] = [direction.negative_entropy for direction in directions]
        for number, direction in enumerate(directions):
            matrices[_name(meeting.step, peer, number)] = np.ascontiguousarray(direction.p_NN)
    return {
        "step": meeting.step,
        "opened_s": meeting.opened_s,
        "closed_s": meeting.closed_s,
        "stop": meeting.stop,
        "arrived_s": dict(meeting.arrived_s),
        "negative_entropies": entropies,
    }


def _meeting(
    plain: Mapping[str, Any], matrices: Mapping[str, npt.NDArray[Any]], wire: WireFormat
) -> RendezvousState:
    step, contributions = int(plain["step"]), {}
    for peer, entropies in plain["negative_entropies"].items():
        given: SimilarityDistribution | None = None
        for number, entropy in reversed(list(enumerate(entropies))):
            given = SimilarityDistribution(
                matrices[_name(step, peer, number)], float(entropy), reverse=given
            )
        if given is None:
            raise ValueError(f"peer {peer!r} gave nothing at step {step}")
        wire.check(given)
        contributions[PeerId(peer)] = given
    closed_s = plain["closed_s"]
    return RendezvousState(
        step=step,
        opened_s=float(plain["opened_s"]),
        closed_s=None if closed_s is None else float(closed_s),
        stop=bool(plain["stop"]),
        contributions=contributions,
        arrived_s={PeerId(peer): float(at_s) for peer, at_s in plain["arrived_s"].items()},
    )


def _name(step: int, peer: str, direction: int) -> str:
    return f"{step}/{direction}/{peer}"
