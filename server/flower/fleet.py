"""Peers behind Flower's nodes: drives rounds of steps by messages that nobody waits for.

A `PeerLauncher` for the supervisor, and with exchange=flower its `Coordination` too: then the steps
travel in the messages, and the coordinator needs no port. Message s brings what step s - 1 has taught
and takes along what step s shows, so a step costs one message.
"""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from flwr.serverapp import Grid

from dogo_fed.assignment import Assignment
from dogo_fed.config import CoordinatorConfig, Transport
from dogo_fed.contracts import Ending, Outcome, PeerId, Record, StepReport
from dogo_fed.coordination.coordinator import Coordinator
from dogo_fed.coordination.membership import Membership
from dogo_fed.engine.loaded_run import LoadedRun
from dogo_fed.errors import ConfigError, ExchangeError
from dogo_fed.reporting.sink import Sink, TeeSink
from dogo_fed.wire import dogo_pb2 as pb
from server.coordinator.calls import CoordinatorCalls
from server.coordinator.service import CoordinatorService, ServiceSettings
from server.flower.conversation import Conversation, Patience
from server.flower.grid_client import GridClient
from server.flower.nodes import Node
from server.hosts.supervisor import Coordination

logger = logging.getLogger(__name__)

T = TypeVar("T")

_SIMULATION_LOOKS_S = 0.01
_DEPLOYMENT_LOOKS_S = 0.2
_RELEASE_WITHIN_S = 30.0
_LEASE_MARGIN_S = 60.0
_GLANCE_EVERY_S = 0.05


@dataclass(frozen=True, slots=True)
class CoordinatorView:
    """The coordinator at one moment; asking it goes through its thread, so not at every turn."""

    at_s: float
    next_step: int
    is_stopping: bool
    lost: frozenset[PeerId]


class FlowerHandle:
    """A peer behind its node."""

    def __init__(self, fleet: FlowerFleet, peer: PeerId, node: Node) -> None:
        self._fleet = fleet
        self._peer = peer
        self._node = node

    def where(self) -> str:
        """Returns the node; which process it is comes with its first reply."""
        kind = "a site's node" if self._node.is_site else "a simulated node"
        return f"{kind} of Flower, {self._node.node_id}"

    def ending(self) -> Ending | str | None:
        """Returns how the peer ended, a sentence if it died, or None while it runs."""
        return self._fleet.ending(self._peer)

    def kill(self) -> None:
        """Has the peer's process end it; `FlowerFleet.release` waits for that."""
        self._fleet.line(self._peer).close()


class FlowerFleet:
    """All peers of a run, each behind its node. One thread only."""

    def __init__(self, grid: Grid, run: LoadedRun, run_id: str, nodes: dict[PeerId, Node]) -> None:
        """Makes a fleet to which nothing has been said yet.

        Args:
            grid: Flower's messages.
            run: what is to be run.
            run_id: its id.
            nodes: one for each peer.
        """
        self._run = run
        self._nodes = nodes
        self._is_deployment = any(node.is_site for node in nodes.values())
        run_key = f"{run_id}@{secrets.token_hex(4)}"
        self._lines = {peer: Conversation(peer, run_key, self._patience()) for peer in run.peer_ids}
        lease_s = run.config.exchange.reconnect_s + _LEASE_MARGIN_S
        self._post = GridClient(grid, nodes, lease_s)
        self._known_step: dict[PeerId, int] = {}
        self._where: dict[PeerId, str] = {}
        self._coordination: Coordination | None = None
        self._calls: CoordinatorCalls | None = None
        self._round = 0
        self._glance: CoordinatorView | None = None
        self._is_releasing = False

    # ---- as a launcher ----

    def listen_address(self) -> str:
        """Returns the address of this machine to listen on, so that all peers can reach it."""
        if not self._is_deployment:
            from server.hosts.ray_actors import address_for_peers

            return address_for_peers()
        return "0.0.0.0"  # sites come from anywhere; the run's secret and TLS keep strangers out

    def start(self, peer: PeerId, number: int, assignment: Assignment) -> FlowerHandle:
        """Has the peer started; whether that works comes with a later reply."""
        self._lines[peer].assign(assignment)
        return FlowerHandle(self, peer, self._nodes[peer])

    def wait(self, seconds: float) -> None:
        """Delivers messages for so long.

        Raises:
            ExchangeError: Flower has not taken messages for too long.
        """
        until_s = time.monotonic() + seconds
        looks_s = _DEPLOYMENT_LOOKS_S if self._is_deployment else _SIMULATION_LOOKS_S
        while True:
            self._turn()
            left_s = until_s - time.monotonic()
            if left_s <= 0:
                return
            time.sleep(min(looks_s, left_s))

    def release(self) -> None:
        """Waits until every peer's process has been told to end, but not for ever."""
        self._is_releasing = True  # the coordinator is not there any more
        deadline_s = time.monotonic() + _RELEASE_WITHIN_S
        for line in self._lines.values():
            line.close()
        try:
            while not all(line.is_closed for line in self._lines.values()):
                if time.monotonic() > deadline_s:
                    break
                self.wait(_DEPLOYMENT_LOOKS_S)
        except ExchangeError as error:
            logger.warning("the peers could not be told to end: %s", error)
        left = [peer for peer, line in self._lines.items() if line.gave_up or not line.is_closed]
        if left:
            logger.warning("peer=%s did not say that it has ended", ",".join(left))

    # ---- as a coordination ----

    def serve(
        self, coordinator: Coordinator, settings: ServiceSettings, sink: Sink
    ) -> Coordination:
        """Makes the coordinator reachable: over gRPC, or by the messages that pass here.

        Raises:
            ConfigError: sites are elsewhere, and nobody has said how they reach this machine.
        """
        tapped = TeeSink(sink, _Tap(self._known_step))
        if self._run.config.exchange.transport is Transport.FLOWER:
            self._calls = CoordinatorCalls(
                coordinator, settings.run_id, settings.wire, tapped, time.monotonic
            )
            self._coordination = _InThisThread(coordinator)
        else:
            if self._is_deployment:
                _check_reachable(self._run.config.coordinator)
            self._coordination = CoordinatorService(coordinator, settings, tapped)
        return self._coordination

    # ---- what handles ask ----

    def line(self, peer: PeerId) -> Conversation:
        """Returns a peer's line of messages."""
        return self._lines[peer]

    def ending(self, peer: PeerId) -> Ending | str | None:
        """Returns how a peer ended. Where Flower takes no messages, the coordinator knows who has left."""
        ending = self._lines[peer].ending
        if ending is None and self._post.is_down and self._ask(lambda one: _has_left(one, peer)):
            return Ending(Outcome.STOPPED)
        return ending

    # ---- turning the wheel ----

    def _turn(self) -> None:
        now_s = time.monotonic()
        for returned in self._post.collect():
            line, reply = self._lines[returned.peer], returned.reply
            if reply is None:
                self._missed(returned.peer, returned.why_not, now_s)
            elif line.receive(reply, now_s):
                self._look_at(returned.peer, line, reply)
        self._send(now_s)
        self._post.check()

    def _missed(self, peer: PeerId, why: str, now_s: float) -> None:
        if self._lines[peer].missed(why, now_s) and not self._is_releasing:
            self._event("node_lost", f"peer {peer}: its Flower node is in trouble: {why}", peer)

    def _look_at(self, peer: PeerId, line: Conversation, reply: pb.HostReply) -> None:
        """Passes on to the coordinator what a reply carries."""
        self._known_step[peer] = max(self._known_step.get(peer, 0), line.next_step)
        if line.where != self._where.get(peer):
            self._where[peer] = line.where
            self._event("peer_placed", f"peer {peer} lives in {line.where}", peer)
        if self._calls is None:
            return
        if reply.HasField("join"):
            line.bring_join(self._calls.join(reply.join))
        for report in line.new_reports(reply):
            self._calls.report(report)
        if reply.HasField("offer"):
            refused = self._calls.offer(reply.offer)
            if refused is not None:
                line.bring_answer(reply.offer.ticket.step, refused)
        if reply.HasField("leave"):
            self._calls.leave(reply.leave)

    def _send(self, now_s: float) -> None:
        if self._is_releasing:
            self._push_due(0, False, now_s)
            return
        self._bring_answers(now_s)
        glance = self._look_at_coordinator(now_s)
        self._begin_round(glance)
        self._push_due(self._until_step(glance), glance.is_stopping, now_s)

    def _push_due(self, until_step: int, stop: bool, now_s: float) -> None:
        for peer, line in self._lines.items():
            why = line.overdue(now_s)
            if why is not None:
                self._missed(peer, why, now_s)
            outgoing = line.next_message(until_step, stop, now_s)
            if outgoing is not None and not self._post.send(peer, outgoing, self._round):
                self._missed(peer, "Flower did not take a message to it", now_s)

    def _bring_answers(self, now_s: float) -> None:
        """With exchange=flower: lets time pass for the coordinator, and takes up what has closed."""
        calls = self._calls
        if calls is None:
            return
        self._ask(lambda coordinator: coordinator.tick(now_s))
        for line in self._lines.values():
            offer = line.open_offer
            if offer is not None:
                answer = calls.answer(offer.sender, offer.ticket.step)
                if answer is not None:
                    line.bring_answer(offer.ticket.step, answer)

    def _look_at_coordinator(self, now_s: float) -> CoordinatorView:
        glance = self._glance
        if glance is None or self._calls is not None or now_s - glance.at_s > _GLANCE_EVERY_S:
            peers = self._run.peer_ids

            def look(coordinator: Coordinator) -> CoordinatorView:
                lost = [p for p in peers if coordinator.standing(p) is Membership.LOST]
                return CoordinatorView(
                    now_s,
                    coordinator.next_step,
                    coordinator.stop_requested,
                    frozenset(lost),
                )

            glance = self._glance = self._ask(look)
        return glance

    def _begin_round(self, glance: CoordinatorView) -> None:
        """Goes on with the next round when everybody who is there has done this one."""
        plan = self._run.plan
        if self._round == 0:
            self._round = plan.round_of(glance.next_step)
            logger.info("round=%d of %d begins", self._round, plan.num_rounds)
        present = [
            peer
            for peer, line in self._lines.items()
            if line.ending is None and peer not in glance.lost
        ]
        until_step = plan.end_of(self._round)
        is_done = all(self._known_step.get(peer, 0) >= until_step for peer in present)
        if present and is_done and self._round < plan.num_rounds:
            self._round += 1
            logger.info("round=%d of %d begins", self._round, plan.num_rounds)

    def _until_step(self, glance: CoordinatorView) -> int:
        """Returns how far peers may go: one round ahead, so that none of them waits for a message."""
        plan = self._run.plan
        if glance.is_stopping:
            return plan.total_steps  # on to the step that tells them all to stop
        return plan.end_of(self._round + 1)

    def _ask(self, action: Callable[[Coordinator], T]) -> T:
        assert self._coordination is not None, "the supervisor serves before it starts peers"
        return self._coordination.call(action)

    def _event(self, kind: str, message: str, peer: PeerId) -> None:
        logger.info("peer=%s %s", peer, message)
        self._ask(lambda coordinator: coordinator.note(kind, message, peer, time.monotonic()))

    def _patience(self) -> Patience:
        config = self._run.config
        carries_steps = config.exchange.transport is Transport.FLOWER
        return Patience(
            answer_s=60.0,
            unreachable_s=config.exchange.answer_within_s,
            placement_s=config.ray.placement_timeout_s,
            hold_s=10.0 if carries_steps else 0.0,
            poll_s=0.1,
        )


def _check_reachable(settings: CoordinatorConfig) -> None:
    if settings.public_address is None:
        raise ConfigError(
            "sites have to be told how to reach the coordinator: set "
            "coordinator.public_address=<host>:<port> and coordinator.port=<port>, or exchange=flower"
        )
    if settings.certificate is None:
        logger.warning(
            "the sites' distributions and the run's secret will cross the network unencrypted; set "
            "coordinator.certificate and coordinator.private_key"
        )


def _has_left(coordinator: Coordinator, peer: PeerId) -> bool:
    standing = coordinator.standing(peer)
    return standing is Membership.DONE or (
        standing is Membership.LOST and coordinator.stop_requested
    )


class _Tap:
    """Notes how far peers are, from what they report."""

    def __init__(self, known_step: dict[PeerId, int]) -> None:
        self._known_step = known_step

    def emit(self, record: Record) -> None:
        if isinstance(record, StepReport):
            self._known_step[record.peer] = max(
                self._known_step.get(record.peer, 0), record.step + 1
            )

    def flush(self) -> None:
        """Has nothing to deliver."""

    def close(self) -> None:
        """Has nothing to finish."""


class _InThisThread:
    """The coordinator where messages reach it: no address, no thread."""

    def __init__(self, coordinator: Coordinator) -> None:
        self._coordinator = coordinator

    def start(self) -> str:
        """Returns no address."""
        return ""

    def call(self, action: Callable[[Coordinator], T]) -> T:
        """Runs `action` here and now."""
        return action(self._coordinator)

    def stop(self) -> None:
        """Has nothing to stop."""
