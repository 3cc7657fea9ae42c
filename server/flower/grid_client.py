"""Sends messages to peers' nodes and collects the replies; notices when Flower itself is down."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass

from flwr.app import Message
from flwr.serverapp import Grid

from dogo_fed.contracts import PeerId
from dogo_fed.errors import ExchangeError
from dogo_fed.text import one_line
from dogo_fed.wire import dogo_pb2 as pb
from server.flower.conversation import Outgoing
from server.flower.envelope import last_line, packed, unpacked
from server.flower.nodes import Node

logger = logging.getLogger(__name__)

_DOWN_FOR_S = 30.0
_REPORTS_BYTES = 4 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Returned:
    """What came back for a message.

    Attributes:
        reply: None if there is none.
        trouble: the reason, if there is no reply.
    """

    peer: PeerId
    reply: pb.HostReply | None
    trouble: str = ""


class GridClient:
    """Flower's messages, at most one under way per peer. Catches what Flower's client raises."""

    def __init__(
        self, grid: Grid, nodes: Mapping[PeerId, Node], lease_s: float, exchange_bytes: int
    ) -> None:
        """Makes a client that has sent nothing yet.

        Args:
            grid: Flower's messages.
            nodes: the node of each peer.
            lease_s: seconds without a message after which a peer's process may end.
            exchange_bytes: size of the largest message of an exchange, in bytes; a reply may have
                4 MiB of reports besides.
        """
        self._grid = grid
        self._nodes = nodes
        self._lease_s = lease_s
        self._most_bytes = exchange_bytes + _REPORTS_BYTES
        self._under_way: dict[str, PeerId] = {}
        self._down_since_s: float | None = None
        self._why_down = ""

    @property
    def is_down(self) -> bool:
        """Whether the last call to Flower failed."""
        return self._down_since_s is not None

    def check(self) -> None:
        """Checks that Flower has not been down for too long.

        Raises:
            ExchangeError: every call has failed for 30 s.
        """
        if self._down_since_s is not None and time.monotonic() - self._down_since_s > _DOWN_FOR_S:
            raise ExchangeError(
                f"Flower has taken no messages for {_DOWN_FOR_S:g} s ({self._why_down}); was the "
                "run stopped, or has the SuperLink ended? The peers' checkpoints are kept"
            )

    def send(self, peer: PeerId, outgoing: Outgoing, round_number: int) -> bool:
        """Sends a message; the reply to an earlier one to the same peer is ignored from now on.

        Returns:
            Whether Flower took it.
        """
        self._under_way = {
            message_id: to for message_id, to in self._under_way.items() if to != peer
        }
        message = packed(
            outgoing.request,
            outgoing.kind,
            self._nodes[peer].node_id,
            self._lease_s,
            str(round_number),
        )
        try:
            ids = list(self._grid.push_messages([message]))
        except Exception as error:
            self._failed(error)
            return False
        self._down_since_s = None
        if not ids or not ids[0]:  # a refusal: an empty list or an empty id, depending on the grid
            return False
        self._under_way[ids[0]] = peer
        return True

    def collect(self) -> list[Returned]:
        """Returns what came back since the last call: replies, and failures in their place."""
        if not self._under_way:
            return []
        try:
            messages = list(self._grid.pull_messages(list(self._under_way)))
        except Exception as error:
            self._failed(error)
            return []
        self._down_since_s = None
        found = []
        for message in messages:
            peer = self._under_way.pop(message.metadata.reply_to_message_id, None)
            if peer is not None:
                found.append(_returned(peer, message, self._most_bytes))
        return found

    def _failed(self, error: Exception) -> None:
        self._why_down = f"{type(error).__name__}: {last_line(str(error))}"
        if self._down_since_s is None:
            self._down_since_s = time.monotonic()
            logger.warning("Flower takes no messages: %s", self._why_down)


def _returned(peer: PeerId, message: Message, most_bytes: int) -> Returned:
    try:
        reply = unpacked(message, most_bytes)
    except ValueError as error:
        return Returned(peer, None, str(error))
    stranger = next((sender for sender in _senders(reply) if sender != peer), None)
    if stranger is not None:
        return Returned(
            peer, None, f"it speaks for {one_line(stranger, 64)!r}, which is not its peer"
        )
    return Returned(peer, reply)


def _senders(reply: pb.HostReply) -> list[str]:
    """Returns the peers that the parts of a reply name as their sender."""
    senders = [report.sender.peer for report in reply.reports]
    for name in ("join", "offer", "leave"):
        if reply.HasField(name):
            senders.append(getattr(reply, name).sender.peer)
    return senders
