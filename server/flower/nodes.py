"""Finds a Flower node for every peer."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from flwr.app import Message
from flwr.serverapp import Grid

from clients.flower.envelope import ABOUT, IS_SITE, NUM_PARTITIONS, PARTITION_ID, PEER
from dogo_fed.contracts import PeerId
from dogo_fed.errors import StartError
from dogo_fed.text import one_line
from server.flower.envelope import last_line, packed_hello

logger = logging.getLogger(__name__)

_POLL_S = 0.2
_HELLO_WITHIN_S = 60.0


@dataclass(frozen=True, slots=True)
class Node:
    """One of Flower's nodes.

    Attributes:
        peer: the peer that its configuration names; empty if it names none.
        is_site: whether it has its own peer process, i.e. this is a deployment.
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
) -> dict[PeerId, Node] | None:
    """Returns a node for every peer: by the name in the node's configuration, else by its number.

    Args:
        grid: Flower's messages.
        peers: the run's peers, in name order.
        within_s: how long to search, in seconds.
        stop_requested: whether the user has asked for an end.

    Returns:
        The node of each peer, or None if the user asked for an end before every peer had one.

    Raises:
        StartError: after this time there is not a node for every peer.
    """
    search = _Search(grid)
    deadline_s = time.monotonic() + within_s
    while True:
        try:
            search.look()
        except Exception as error:  # whatever Flower's client raises
            search.trouble = f"Flower takes no messages ({type(error).__name__}: {error}). "
        found = _assigned(search.nodes.values(), peers)
        if len(found) == len(peers):
            return found
        _check_simulated(search.nodes.values(), peers)
        if time.monotonic() > deadline_s:
            missing = [peer for peer in peers if peer not in found]
            claims = "".join(
                f"the nodes {', '.join(map(str, sorted(ids)))} all say that they have peer "
                f"{one_line(peer, 64)}: end all but one. "
                for peer, ids in _contested(search.nodes.values()).items()
                if peer in missing
            )
            raise StartError(
                f"no Flower node for peer {', '.join(missing)} within {within_s:g} s; {claims}"
                f"{len(search.nodes)} node(s) answered. {search.trouble}Start a SuperNode for "
                'each, with peer="<name>" in its --node-config (docs/flower.md)'
            )
        if stop_requested():
            return None
        time.sleep(_POLL_S)


class _Search:
    """Greets every node of the federation and keeps the answers."""

    def __init__(self, grid: Grid) -> None:
        self.nodes: dict[int, Node] = {}
        self.trouble = ""
        self._grid = grid
        self._asked: dict[str, int] = {}
        self._asked_at_s: dict[int, float] = {}

    def look(self) -> None:
        """Greets new nodes and collects answers; raises what Flower's client raises."""
        present = set(self._grid.get_node_ids())
        self.nodes = {node_id: node for node_id, node in self.nodes.items() if node_id in present}
        for node_id in present - set(self.nodes):
            self._greet(node_id)
        replies = list(self._grid.pull_messages(list(self._asked))) if self._asked else []
        for reply in replies:
            node_id = self._asked.pop(reply.metadata.reply_to_message_id)
            node = _node(node_id, reply)
            if node is not None:
                self.nodes[node_id] = node
        self.trouble = ""

    def _greet(self, node_id: int) -> None:
        now_s = time.monotonic()
        if now_s - self._asked_at_s.get(node_id, -math.inf) < _HELLO_WITHIN_S and (
            node_id in self._asked.values()
        ):
            return
        for message_id in self._grid.push_messages([packed_hello(node_id)]):
            if message_id:
                self._asked[message_id] = node_id
        self._asked_at_s[node_id] = now_s


def _node(node_id: int, reply: Message) -> Node | None:
    """Returns the node from its answer, or None if the answer is not one of our ClientApp."""
    if reply.has_error():
        logger.warning("a node could not say hello: %s", last_line(reply.error.reason))
        return None
    try:
        about = reply.content.config_records[ABOUT]
        return Node(
            node_id=node_id,
            peer=str(about[PEER]),
            is_site=about[IS_SITE] is True,
            number=int(str(about[PARTITION_ID])),
            num_simulated=int(str(about[NUM_PARTITIONS])),
        )
    except (KeyError, ValueError) as error:
        logger.warning("node %d says hello in a way that is not ours: %s", node_id, error)
        return None


def _assigned(nodes: Iterable[Node], peers: tuple[PeerId, ...]) -> dict[PeerId, Node]:
    nodes = list(nodes)
    contested = _contested(nodes)
    found: dict[PeerId, Node] = {}
    for node in nodes:
        if node.peer in peers and node.peer not in contested:
            found[PeerId(node.peer)] = node
        elif not node.peer and 0 <= node.number < len(peers):
            found.setdefault(peers[node.number], node)
    return found


def _contested(nodes: Iterable[Node]) -> dict[str, list[int]]:
    """Returns the peers that several nodes claim to have, with those nodes.

    Flower knows a node by its key, but which peer it has is what it says. So nobody is believed
    where two say the same, until one of them is gone.
    """
    claims: dict[str, list[int]] = {}
    for node in nodes:
        if node.peer:
            claims.setdefault(node.peer, []).append(node.node_id)
    return {peer: ids for peer, ids in claims.items() if len(ids) > 1}


def _check_simulated(nodes: Iterable[Node], peers: tuple[PeerId, ...]) -> None:
    """Raises StartError if Flower simulates too few nodes, since no more will appear."""
    simulated = max((node.num_simulated for node in nodes if not node.is_site), default=0)
    if 0 < simulated < len(peers):
        raise StartError(
            f"the run has {len(peers)} peers ({', '.join(peers)}), but Flower simulates "
            f"{simulated} nodes; start it with --federation-config "
            f"'num-supernodes={len(peers)}', or by `dogo-fed flower`, which does"
        )
