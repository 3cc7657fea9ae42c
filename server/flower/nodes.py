"""Finds a Flower node for every peer."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from flwr.app import ConfigRecord, Message, RecordDict
from flwr.serverapp import Grid
from google.protobuf.message import DecodeError

from dogo_fed.contracts import PeerId
from dogo_fed.errors import PlacementError
from dogo_fed.text import one_line
from dogo_fed.wire import dogo_pb2 as pb

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
        PlacementError: after this time there is not a node for every peer.
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
            raise PlacementError(
                f"no Flower node for peer {', '.join(missing)} within {within_s:g} s; {claims}"
                f"{len(search.nodes)} node(s) answered. {search.trouble}Start a SuperNode for "
                'each, with peer="<name>" in its --node-config (docs/flower.md)'
            )
        if stop_requested():
            return None
        time.sleep(_POLL_S)


def ask_checkpoints(
    grid: Grid,
    nodes: Mapping[PeerId, Node],
    run_id: str,
    within_s: float,
    stop_requested: Callable[[], bool] = lambda: False,
) -> dict[PeerId, tuple[int, ...]]:
    """Returns the steps of the checkpoints that each site's peer has of a run and can read.

    Args:
        grid: Flower's messages.
        nodes: the node of each peer.
        run_id: the run's name.
        within_s: how long to wait for the answers, in seconds.
        stop_requested: whether the user has asked for an end.

    Raises:
        PlacementError: a site has not answered after this time, or the user asked for an end.
    """
    deadline_s = time.monotonic() + within_s
    found: dict[PeerId, tuple[int, ...]] = {}
    trouble = dict.fromkeys(nodes, "no answer")
    asked: dict[str, PeerId] = {}
    while len(found) < len(nodes):
        try:
            for peer in [one for one in nodes if one not in (*found, *asked.values())]:
                request = pb.HostRequest(run_id=run_id, peer=peer, asks_checkpoints=True)
                body = ConfigRecord({"request": request.SerializeToString(), "lease-s": within_s})
                message = Message(
                    RecordDict({"dogo": body}),
                    dst_node_id=nodes[peer].node_id,
                    message_type="query.checkpoints",
                )
                asked |= dict.fromkeys(filter(None, grid.push_messages([message])), peer)
            for reply in grid.pull_messages(list(asked)) if asked else []:
                peer = asked.pop(reply.metadata.reply_to_message_id)
                try:
                    found[peer] = _steps(reply)
                except (KeyError, TypeError, ValueError, DecodeError) as error:
                    trouble[peer] = first_line(str(error))
        except Exception as error:  # whatever Flower's client raises
            trouble |= dict.fromkeys(set(nodes) - set(found), f"{type(error).__name__}: {error}")
        if time.monotonic() > deadline_s:
            missing = [f"{peer} ({trouble[peer]})" for peer in nodes if peer not in found]
            raise PlacementError(
                f"the run can't go on: within {within_s:g} s nothing told which checkpoints of it "
                f"these peers have: {', '.join(missing)}. Check `dogo-fed peer` at their sites"
            )
        if len(found) < len(nodes):
            if stop_requested():
                raise PlacementError(
                    "stopped by the user before every site had told which checkpoints it has; the "
                    "run is as it was"
                )
            time.sleep(_POLL_S)
    return found


def _steps(reply: Message) -> tuple[int, ...]:
    """Returns the steps in an answer.

    Raises:
        KeyError, TypeError, ValueError, DecodeError: it is none; the message says why.
    """
    if reply.has_error():
        raise ValueError(first_line(reply.error.reason))
    body = reply.content.config_records["dogo"]["reply"]
    if not isinstance(body, bytes):
        raise TypeError("the reply is no bytes")
    answer = pb.HostReply.FromString(body)
    if answer.message:
        raise ValueError(answer.message)
    return tuple(sorted({int(step) for step in answer.checkpoints.split() if int(step) >= 0}))


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
        self.nodes = {one: node for one, node in self.nodes.items() if one in present}
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
        hello = Message(RecordDict(), dst_node_id=node_id, message_type="query.hello")
        for message_id in self._grid.push_messages([hello]):
            if message_id:
                self._asked[message_id] = node_id
        self._asked_at_s[node_id] = now_s


def first_line(text: str | None) -> str:
    """Returns the last line of one of Flower's error texts, which may hold whole tracebacks."""
    lines = [line for line in (text or "").splitlines() if line.strip()]
    return lines[-1].strip()[:300] if lines else "no reason given"


def _node(node_id: int, reply: Message) -> Node | None:
    """Returns the node from its answer, or None if the answer is not one of our ClientApp."""
    if reply.has_error():
        logger.warning("a node could not say hello: %s", first_line(reply.error.reason))
        return None
    try:
        about = reply.content.config_records["about"]
        return Node(
            node_id=node_id,
            peer=str(about["peer"]),
            is_site=about["is-site"] is True,
            number=int(str(about["partition-id"])),
            num_simulated=int(str(about["num-partitions"])),
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
    """Raises PlacementError if Flower simulates too few nodes, since no more will appear."""
    simulated = max((node.num_simulated for node in nodes if not node.is_site), default=0)
    if 0 < simulated < len(peers):
        raise PlacementError(
            f"the run has {len(peers)} peers ({', '.join(peers)}), but Flower simulates "
            f"{simulated} nodes; start it with --federation-config "
            f"'num-supernodes={len(peers)}', or by `dogo-fed flower`, which does"
        )
