"""Finds out which of Flower's nodes is for which peer."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from flwr.app import Message, RecordDict
from flwr.serverapp import Grid

from dogo_fed.contracts import PeerId
from dogo_fed.errors import PlacementError

logger = logging.getLogger(__name__)

_LOOK_EVERY_S = 0.2
_HELLO_WITHIN_S = 60.0


@dataclass(frozen=True, slots=True)
class Node:
    """One of Flower's nodes.

    Attributes:
        peer: the peer that its configuration names; empty if none.
        is_site: whether it has a peer process of its own, i.e. this is a deployment.
        number: its number among the simulated nodes; -1 in a deployment.
        num_simulated: how many nodes are simulated; 0 in a deployment.
    """

    node_id: int
    peer: str
    is_site: bool
    number: int
    num_simulated: int


def find_nodes(
    grid: Grid,
    peers: tuple[PeerId, ...],
    within_s: float,
    stop_requested: Callable[[], bool] = lambda: False,
) -> dict[PeerId, Node]:
    """Returns a node for every peer: by the name in the node's configuration, else by its number.

    Raises:
        PlacementError: within the time there is not a node for every peer; the message says what to do.
    """
    deadline_s = time.monotonic() + within_s
    asked: dict[str, int] = {}
    asked_at_s: dict[int, float] = {}
    nodes: dict[int, Node] = {}
    while True:
        now_s = time.monotonic()
        for node_id in grid.get_node_ids():
            if node_id not in nodes and now_s - asked_at_s.get(node_id, -1e9) > _HELLO_WITHIN_S:
                hello = Message(RecordDict(), dst_node_id=node_id, message_type="query.hello")
                asked |= dict.fromkeys(grid.push_messages([hello]), node_id)
                asked_at_s[node_id] = now_s
        replies = list(grid.pull_messages(list(asked))) if asked else []
        for reply in replies:
            node_id = asked.pop(reply.metadata.reply_to_message_id)
            if reply.has_error():
                logger.warning("a node could not say hello: %s", first_line(reply.error.reason))
                asked_at_s.pop(node_id, None)
            else:
                nodes[node_id] = _node(node_id, reply)
        found = _assigned(nodes.values(), peers)
        if len(found) == len(peers):
            return found
        _check_enough(nodes, peers, timed_out=time.monotonic() > deadline_s, within_s=within_s)
        if stop_requested():
            raise PlacementError("the run was stopped before every peer had a node")
        time.sleep(_LOOK_EVERY_S)


def first_line(text: str | None) -> str:
    """Returns the telling line of Flower's error texts, which may hold whole tracebacks."""
    lines = [line for line in (text or "").splitlines() if line.strip()]
    return lines[-1].strip()[:300] if lines else "no reason given"


def _node(node_id: int, reply: Message) -> Node:
    about = reply.content.config_records["about"]
    return Node(
        node_id=node_id,
        peer=str(about["peer"]),
        is_site=about["is-site"] is True,
        number=int(str(about["partition-id"])),
        num_simulated=int(str(about["num-partitions"])),
    )


def _assigned(nodes: Iterable[Node], peers: tuple[PeerId, ...]) -> dict[PeerId, Node]:
    found: dict[PeerId, Node] = {}
    for node in nodes:
        if node.peer in peers:
            found[PeerId(node.peer)] = node
        elif not node.peer and 0 <= node.number < len(peers):
            found.setdefault(peers[node.number], node)
    return found


def _check_enough(
    nodes: Mapping[int, Node], peers: tuple[PeerId, ...], *, timed_out: bool, within_s: float
) -> None:
    """Raises PlacementError where waiting has no sense (any more)."""
    simulated = max((node.num_simulated for node in nodes.values() if not node.is_site), default=0)
    if 0 < simulated < len(peers):
        raise PlacementError(
            f"the run has {len(peers)} peers ({', '.join(peers)}), but Flower simulates {simulated} "
            f"nodes; start it with --federation-config 'num-supernodes={len(peers)}', or by "
            "`dogo-fed flower`, which does"
        )
    if timed_out:
        found = _assigned(nodes.values(), peers)
        missing = [peer for peer in peers if peer not in found]
        raise PlacementError(
            f"no Flower node for peer {', '.join(missing)} within {within_s:g} s; {len(nodes)} node(s) "
            'answered. Start a SuperNode for each, with peer="<name>" in its --node-config (docs/flower.md)'
        )
