"""Asks the sites of a run that goes on which checkpoints of it they have."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from flwr.app import Message
from flwr.serverapp import Grid

from dogo_fed.contracts import PeerId
from dogo_fed.errors import StartError, Stopped
from dogo_fed.storage.going_on import FarCheckpoints
from dogo_fed.wire import dogo_pb2 as pb
from server.flower.envelope import last_line, packed, unpacked
from server.flower.nodes import Node

_POLL_S = 0.2
_MOST_BYTES = 1024 * 1024


def ask_checkpoints(
    grid: Grid,
    nodes: Mapping[PeerId, Node],
    run_id: str,
    within_s: float,
    stop_requested: Callable[[], bool] = lambda: False,
) -> dict[PeerId, FarCheckpoints]:
    """Returns the steps of the checkpoints that each site's peer has of a run.

    Args:
        grid: Flower's messages.
        nodes: the node of each peer.
        run_id: the run's name.
        within_s: how long to wait for the answers, in seconds.
        stop_requested: whether the user has asked for an end.

    Raises:
        StartError: a site has not answered after this time.
        Stopped: the user has asked for an end.
    """
    deadline_s = time.monotonic() + within_s
    found: dict[PeerId, FarCheckpoints] = {}
    trouble = dict.fromkeys(nodes, "no answer")
    asked: dict[str, PeerId] = {}
    while True:
        try:
            for peer in [one for one in nodes if one not in (*found, *asked.values())]:
                request = pb.HostRequest(run_id=run_id, peer=peer, asks_checkpoints=True)
                message = packed(request, "query.checkpoints", nodes[peer].node_id, within_s)
                asked |= dict.fromkeys(filter(None, grid.push_messages([message])), peer)
            for reply in grid.pull_messages(list(asked)) if asked else []:
                peer = asked.pop(reply.metadata.reply_to_message_id)
                try:
                    found[peer] = _told(reply)
                except ValueError as error:
                    trouble[peer] = last_line(str(error))
        except Exception as error:  # whatever Flower's client raises
            why = last_line(f"{type(error).__name__}: {error}")
            trouble |= dict.fromkeys(set(nodes) - set(found), why)
        if len(found) == len(nodes):
            return found
        if time.monotonic() > deadline_s:
            missing = [f"{peer} ({trouble[peer]})" for peer in nodes if peer not in found]
            raise StartError(
                f"the run can't go on: within {within_s:g} s nothing told which checkpoints of it "
                f"these peers have: {', '.join(missing)}. Check `dogo-fed peer` at their sites"
            )
        if stop_requested():
            raise Stopped(
                "stopped by the user before every site had told which checkpoints it has; the run "
                "is as it was"
            )
        time.sleep(_POLL_S)


def _told(message: Message) -> FarCheckpoints:
    """Returns what an answer says.

    Raises:
        ValueError: it is none; the text says why.
    """
    answer = unpacked(message, _MOST_BYTES)
    if answer.message:
        raise ValueError(answer.message)
    return FarCheckpoints(_steps(answer.checkpoints), _steps(answer.broken_checkpoints))


def _steps(text: str) -> tuple[int, ...]:
    return tuple(sorted({int(step) for step in text.split() if int(step) >= 0}))
