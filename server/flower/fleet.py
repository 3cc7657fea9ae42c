"""Peers behind Flower's nodes: starts them and delivers their messages; waits for no reply.

With exchange=flower the steps travel in the messages, and the coordinator needs no port. The
message for step s brings the mean of step s - 1, and its reply carries the peer's distribution of
step s. So a step costs one message.
"""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Callable
from typing import TypeVar

from flwr.serverapp import Grid

from dogo_fed.assignment import Assignment
from dogo_fed.config import CoordinatorConfig, Transport
from dogo_fed.contracts import Ending, EventKind, Outcome, PeerId
from dogo_fed.coordination.coordinator import Coordinator
from dogo_fed.coordination.standstill import Standstill
from dogo_fed.coordination.state import Membership
from dogo_fed.engine.loaded_run import LoadedRun
from dogo_fed.errors import ConfigError, ExchangeError
from dogo_fed.wire import dogo_pb2 as pb
from server.coordinator.calls import CoordinatorCalls
from server.coordinator.host import Endpoint, Written, serve_grpc
from server.coordinator.service import ServiceSettings
from server.flower.conversation import Conversation, Patience
from server.flower.grid_client import GridClient
from server.flower.in_thread import InThread
from server.flower.nodes import Node
from server.flower.rounds import CoordinatorView, KnownSteps, Rounds

logger = logging.getLogger(__name__)

T = TypeVar("T")

_POLL_SIMULATION_S = 0.01
_POLL_DEPLOYMENT_S = 0.2
_RELEASE_WITHIN_S = 30.0
_LEASE_MARGIN_S = 60.0
_POLL_COORDINATOR_S = 0.05


class FlowerHandle:
    """A peer behind its node."""

    def __init__(self, fleet: FlowerFleet, peer: PeerId, node: Node) -> None:
        self._fleet = fleet
        self._peer = peer
        self._node = node

    def where(self) -> str:
        """Returns the node, for people; the peer's process is known from its first reply on."""
        kind = "a site's node" if self._node.is_site else "a simulated node"
        return f"{kind} of Flower, {self._node.node_id}"

    def ending(self) -> Ending | str | None:
        """Returns how the peer ended, a sentence if it died, or None while it runs."""
        return self._fleet.ending(self._peer)

    def kill(self) -> None:
        """Tells the peer's process to end the peer; `FlowerFleet.release` waits for that."""
        self._fleet.conversation(self._peer).close()


class FlowerFleet:
    """All peers of a run, each behind its node: a `PeerLauncher`. Only one thread may use it.

    Attributes:
        steps: the next step of each peer; also a sink for the peers' reports.
    """

    def __init__(self, grid: Grid, run: LoadedRun, run_id: str, nodes: dict[PeerId, Node]) -> None:
        """Makes a fleet that has sent nothing yet.

        Args:
            grid: Flower's messages.
            run: its settings and data.
            run_id: the run's name.
            nodes: the node of each peer.
        """
        self._run = run
        self._nodes = nodes
        self._is_deployment = any(node.is_site for node in nodes.values())
        run_key = f"{run_id}@{secrets.token_hex(4)}"
        self._conversations = {
            peer: Conversation(peer, run_key, self._patience()) for peer in run.peer_ids
        }
        lease_s = run.config.exchange.reconnect_s + _LEASE_MARGIN_S
        self._grid_client = GridClient(grid, nodes, lease_s, run.wire_format.limit_bytes)
        self.steps = KnownSteps()
        self._rounds = Rounds(run.plan)
        self._where: dict[PeerId, str] = {}
        self._endpoint: Endpoint | None = None
        self._calls: CoordinatorCalls | None = None
        self._view: CoordinatorView | None = None
        self._is_releasing = False
        self._standstill = Standstill(time.monotonic())

    def listen_address(self) -> str:
        """Returns the address to listen on, so that all peers can reach this machine."""
        if not self._is_deployment:
            from server.hosts.ray_actors import address_for_peers

            return address_for_peers()
        return "0.0.0.0"  # sites come from anywhere; credentials and TLS keep strangers out

    def start(self, peer: PeerId, number: int, assignment: Assignment) -> FlowerHandle:
        """Prepares the message that starts the peer; a later reply tells whether it has started."""
        self._conversations[peer].assign(assignment)
        return FlowerHandle(self, peer, self._nodes[peer])

    def wait(self, seconds: float) -> None:
        """Delivers messages for about this time.

        Raises:
            ExchangeError: Flower has not taken messages for too long.
        """
        until_s = time.monotonic() + seconds
        poll_s = _POLL_DEPLOYMENT_S if self._is_deployment else _POLL_SIMULATION_S
        while True:
            self._turn()
            left_s = until_s - time.monotonic()
            if left_s <= 0:
                return
            time.sleep(min(poll_s, left_s))

    def release(self) -> None:
        """Tells every peer's process to end, and waits for that, at most 30 seconds."""
        self._is_releasing = True  # the coordinator has ended, so it must not be asked any more
        deadline_s = time.monotonic() + _RELEASE_WITHIN_S
        for conversation in self._conversations.values():
            conversation.close()
        try:
            while not all(conversation.is_closed for conversation in self._conversations.values()):
                if time.monotonic() > deadline_s:
                    break
                self.wait(_POLL_DEPLOYMENT_S)
        except ExchangeError as error:
            logger.warning("the peers could not be told to end: %s", error)
        left = [
            peer
            for peer, conversation in self._conversations.items()
            if conversation.gave_up or not conversation.is_closed
        ]
        if left:
            logger.warning("peer=%s did not say that it has ended", ",".join(left))

    def serve(
        self, calls: CoordinatorCalls, settings: ServiceSettings, written: Written
    ) -> Endpoint:
        """Makes the coordinator reachable: over gRPC, or by Flower's messages.

        Raises:
            ConfigError: sites are on other machines, and coordinator.public_address is not set.
        """
        if self._run.config.exchange.transport is Transport.FLOWER:
            self._calls = calls
            self._endpoint = InThread(calls)
        else:
            if self._is_deployment:
                _check_reachable(self._run.config.coordinator)
            self._endpoint = serve_grpc(calls, settings, written)
        return self._endpoint

    def conversation(self, peer: PeerId) -> Conversation:
        """Returns the conversation with a peer."""
        return self._conversations[peer]

    def ending(self, peer: PeerId) -> Ending | str | None:
        """Returns how a peer ended; None while it runs.

        If Flower is down, no reply can tell. Then a peer that has left the coordinator counts as
        stopped.
        """
        ending = self._conversations[peer].ending
        if (
            ending is None
            and self._grid_client.is_down
            and self._ask(lambda coordinator: _has_left(coordinator, peer))
        ):
            return Ending(Outcome.STOPPED)
        return ending

    def _turn(self) -> None:
        now_s = time.monotonic()
        for returned in self._grid_client.collect():
            conversation, reply = self._conversations[returned.peer], returned.reply
            if reply is None:
                self._missed(returned.peer, returned.trouble, now_s)
            elif conversation.receive(reply, now_s):
                self._look_at(returned.peer, conversation, reply)
        self._send(now_s)
        self._grid_client.check()

    def _missed(self, peer: PeerId, why: str, now_s: float) -> None:
        if self._conversations[peer].missed(why, now_s) and not self._is_releasing:
            self._event(
                EventKind.NODE_LOST, f"peer {peer}: its Flower node is in trouble: {why}", peer
            )

    def _look_at(self, peer: PeerId, conversation: Conversation, reply: pb.HostReply) -> None:
        """Notes a reply's state, and passes its calls on to the coordinator."""
        self.steps.raise_to(peer, conversation.next_step)
        if conversation.where != self._where.get(peer):
            self._where[peer] = conversation.where
            self._event(EventKind.PEER_PLACED, f"peer {peer} lives in {conversation.where}", peer)
        if self._calls is None:
            return
        if reply.HasField("join"):
            conversation.bring_join(self._calls.join(peer, reply.join))
        calls = self._calls
        for report in conversation.new_reports(
            reply, is_welcome=lambda report: calls.report_wait_s(peer, report) == 0
        ):
            calls.report(peer, report)
        if reply.HasField("offer"):
            refused = self._calls.offer(peer, reply.offer)
            if refused is not None:
                conversation.bring_answer(reply.offer.ticket.step, refused)
        if reply.HasField("leave"):
            self._calls.leave(peer, reply.leave)

    def _send(self, now_s: float) -> None:
        if self._is_releasing:
            self._push_due(0, False, now_s)
            return
        self._bring_answers(now_s)
        view = self._look_at_coordinator(now_s)
        present = [
            peer
            for peer, conversation in self._conversations.items()
            if conversation.ending is None and peer not in view.lost
        ]
        self._rounds.advance(view, self.steps, present)
        self._push_due(self._rounds.until_step(view), view.is_stopping, now_s)

    def _push_due(self, until_step: int, stop: bool, now_s: float) -> None:
        for peer, conversation in self._conversations.items():
            why = conversation.overdue(now_s)
            if why is not None:
                self._missed(peer, why, now_s)
            outgoing = conversation.next_message(until_step, stop, now_s)
            if outgoing is not None and not self._grid_client.send(
                peer, outgoing, self._rounds.number
            ):
                self._missed(peer, "Flower did not take a message to it", now_s)

    def _bring_answers(self, now_s: float) -> None:
        """With exchange=flower: tells the coordinator the time, fetches answers of closed steps."""
        calls = self._calls
        if calls is None:
            return
        lost_s = self._standstill.lasted_s(now_s)
        if lost_s:
            self._ask(lambda coordinator: coordinator.excuse(lost_s, now_s))
        self._ask(lambda coordinator: coordinator.tick(now_s))
        calls.complaints.flush()
        for peer, conversation in self._conversations.items():
            offer = conversation.open_offer
            if offer is not None:
                answer = calls.answer(peer, offer.ticket.step)
                if answer is not None:
                    conversation.bring_answer(offer.ticket.step, answer)

    def _look_at_coordinator(self, now_s: float) -> CoordinatorView:
        view = self._view
        if view is None or self._calls is not None or now_s - view.at_s > _POLL_COORDINATOR_S:
            peers = self._run.peer_ids

            def look(coordinator: Coordinator) -> CoordinatorView:
                lost = [p for p in peers if coordinator.membership(p) is Membership.LOST]
                return CoordinatorView(
                    now_s,
                    coordinator.next_step,
                    coordinator.stop_requested,
                    frozenset(lost),
                )

            view = self._view = self._ask(look)
        return view

    def _ask(self, action: Callable[[Coordinator], T]) -> T:
        assert self._endpoint is not None, "the coordinator is served before peers are started"
        return self._endpoint.call(lambda calls: action(calls.coordinator))

    def _event(self, kind: EventKind, message: str, peer: PeerId) -> None:
        if self._ask(lambda coordinator: coordinator.note(kind, message, peer, time.monotonic())):
            logger.info("peer=%s %s", peer, message)

    def _patience(self) -> Patience:
        config = self._run.config
        carries_steps = config.exchange.transport is Transport.FLOWER
        return Patience(
            answer_s=60.0,
            unreachable_s=config.exchange.answer_within_s,
            placement_s=config.ray.placement_timeout_s,
            hold_s=min(10.0, config.exchange.deadline_s / 3) if carries_steps else 0.0,
            poll_s=0.1,
            silent_s=config.exchange.answer_within_s / 4,
        )


def _check_reachable(settings: CoordinatorConfig) -> None:
    if settings.public_address is None:
        raise ConfigError(
            "sites have to be told how to reach the coordinator: set "
            "coordinator.public_address=<host>:<port> and coordinator.port=<port>, or "
            "exchange=flower"
        )
    if settings.certificate is None:
        logger.warning(
            "the sites' distributions and credentials will cross the network unencrypted; set "
            "coordinator.certificate and coordinator.private_key"
        )


def _has_left(coordinator: Coordinator, peer: PeerId) -> bool:
    membership = coordinator.membership(peer)
    return membership is Membership.DONE or (
        membership is Membership.LOST and coordinator.stop_requested
    )
