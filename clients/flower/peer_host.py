"""Hosts a peer in this process for a coordinator that speaks in messages, and outlives every message.

The peer runs in a thread of its own, by the same code as everywhere. A message never waits for the
peer's work (at most `hold_s` for something to tell), may be repeated, and always gets a reply that
says how the peer is. The wire between the two is `HostRequest` and `HostReply` in wire/dogo.proto.
"""

from __future__ import annotations

import dataclasses
import logging
import re
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from google.protobuf.message import DecodeError

from clients.flower.message_link import MessageLink
from clients.peer.link import CoordinatorLink
from clients.peer.run import PeerEnvironment, run_assignment
from dogo_fed.assignment import Assignment
from dogo_fed.config import RunConfig, Transport
from dogo_fed.config_text import from_mapping, to_mapping
from dogo_fed.contracts import Ending, Outcome, PeerId
from dogo_fed.errors import ConfigError, CoordinatorLost, DogoError
from dogo_fed.scope import DecidedBy, with_settings_of
from dogo_fed.wire import dogo_pb2 as pb
from dogo_fed.wire.format import WireFormat

logger = logging.getLogger(__name__)

CLOSE_WITHIN_S = 10.0
"""A request to close is held back for so long while the peer saves itself."""

_END_WAIT_S = 20.0
_TAKE_OVER_WITHIN_S = 0.5
_LONGEST_HOLD_S = 20.0
_TURN_MARGIN_S = 300.0
_POLL_S = 2.0
_RUN_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,127}")


@dataclass(frozen=True, slots=True)
class SiteSettings:
    """What a site decides by itself, whatever the coordinator says.

    Attributes:
        config: its own configuration: peers' settings, data, device and threads are taken from here.
        root_certificates: PEM, to check the coordinator's certificate by.
        run_root: folder under which run folders are made.
    """

    config: RunConfig
    root_certificates: bytes | None
    run_root: Path


class PeerHost:
    """At most one peer at a time; a newer run or start takes the place of an older one."""

    def __init__(self, where: str, site: SiteSettings | None = None) -> None:
        """Hosts nobody yet.

        Args:
            where: this process, for people.
            site: a site's own settings; None takes everything from the assignment, which is right only
                where both sides are the same user's.
        """
        self._where = where
        self._site = site
        self._lock = threading.Lock()
        self._job: _Job | None = None

    def handle(self, body: bytes) -> bytes:
        """Takes an encoded `HostRequest` and returns an encoded `HostReply`; from any thread."""
        try:
            request = pb.HostRequest.FromString(body)
        except DecodeError as error:
            return self._said(pb.UNKNOWN, f"this is no request to a peer's host: {error}")
        key = (request.run_id, request.peer, request.start)
        with self._lock:
            if request.assignment and (self._job is None or self._job.key != key):
                refusal = self._start(key, request.assignment)
                if refusal is not None:
                    return refusal
            job = self._job
        if job is None or job.key != key:
            return self._said(pb.UNKNOWN, "this process does not know this start of the peer")
        job.take(request)
        hold_s = request.hold_s if 0 < request.hold_s < _LONGEST_HOLD_S else 0.0
        if request.close:
            job.cut("the coordinator has closed the run")
            job.wait(CLOSE_WITHIN_S)
        return job.reply(hold_s, self._where).SerializeToString()

    def close(self) -> None:
        """Lets the peer save itself, and ends it; a second call does nothing."""
        with self._lock:
            if self._job is not None:
                self._job.cut("the peer's process is told to end")
                self._job.wait(_END_WAIT_S)

    def _start(self, key: tuple[str, str, int], assignment_json: str) -> bytes | None:
        """Puts the peer of this assignment in place of an earlier one; returns a reply if it can't."""
        try:
            job = self._job_for(key, assignment_json)
        except DogoError as error:
            return self._said(pb.ENDED, str(error), Outcome.UNFIT)
        if self._job is not None:
            if self._job.key[:2] == key[:2] and self._job.key[2] > key[2]:
                return self._said(pb.UNKNOWN, "a later start of this peer runs here")
            self._job.cut("another start takes its place")
            self._job.wait(_TAKE_OVER_WITHIN_S)
            if self._job.is_alive():  # the request will come again
                return self._said(pb.AWAY, "the peer that ran here before has not ended yet")
        self._job = job
        job.start()
        return None

    def _job_for(self, key: tuple[str, str, int], assignment_json: str) -> _Job:
        assignment = Assignment.from_json(assignment_json)
        run_id = key[0].partition("@")[0]
        if (assignment.run_id, assignment.peer, assignment.number) != (run_id, *key[1:]):
            raise ConfigError("the assignment is not for the peer that the request names")
        around = PeerEnvironment()
        if self._site is not None:
            assignment = _as_site(assignment, self._site)
            around = PeerEnvironment(root_certificates=self._site.root_certificates)
        return _Job(key, assignment, around)

    def _said(self, state: Any, message: str, outcome: Outcome = Outcome.FINISHED) -> bytes:
        return pb.HostReply(
            state=state, message=_sendable(message), outcome=outcome.value, where=self._where
        ).SerializeToString()


class _Job:
    """One start of a peer: its thread, how far it may go, and its link."""

    def __init__(
        self, key: tuple[str, str, int], assignment: Assignment, around: PeerEnvironment
    ) -> None:
        config = from_mapping(assignment.config)
        self.key = key
        self._changed = threading.Condition()
        self._until_step = 0
        self._next_step = 0
        self._is_waiting = False
        self._is_stop_asked = False
        self._cut: str | None = None
        self._ending: Ending | None = None
        self._turn_timeout_s = config.exchange.answer_within_s + _TURN_MARGIN_S
        self._link: MessageLink | None = None
        open_link: Callable[[PeerId, RunConfig], CoordinatorLink] | None = None
        if config.exchange.transport is Transport.FLOWER:
            link = MessageLink(
                PeerId(assignment.peer),
                assignment.run_id,
                WireFormat.of(config),
                config.exchange.answer_within_s,
                self._changed,
            )
            self._link = link
            open_link = lambda peer, config: link  # noqa: E731
        self._thread = threading.Thread(
            target=self._run,
            args=(
                assignment,
                dataclasses.replace(
                    around,
                    open_link=open_link,
                    await_turn=self._await_turn,
                    stop_requested=lambda: self._is_stop_asked,
                ),
            ),
            name=f"peer {assignment.peer}",
            daemon=True,
        )

    def start(self) -> None:
        self._thread.start()

    def is_alive(self) -> bool:
        return self._thread.is_alive()

    def take(self, request: pb.HostRequest) -> None:
        """Notes what the request grants and brings."""
        if self._link is not None:
            self._link.take(request)
        with self._changed:
            self._until_step = max(self._until_step, request.until_step)
            self._is_stop_asked |= request.stop
            self._changed.notify_all()

    def cut(self, reason: str) -> None:
        """Lets the peer save itself and end."""
        with self._changed:
            self._cut = reason
            self._changed.notify_all()
        if self._link is not None:
            self._link.cut(reason)

    def wait(self, seconds: float) -> None:
        """Waits for the peer's end, but not for longer."""
        self._thread.join(seconds)

    def reply(self, hold_s: float, where: str) -> pb.HostReply:
        """Returns how the peer is, after at most `hold_s` seconds of waiting for something to tell."""
        with self._changed:
            self._changed.wait_for(self._has_news, hold_s)
            reply = pb.HostReply(state=pb.RUNNING, where=where, next_step=self._next_step)
            if self._ending is not None:
                reply.state = pb.ENDED
                reply.outcome = self._ending.outcome.value
                reply.message = _sendable(self._ending.message)
            elif self._is_waiting and not self._may_go_on():
                reply.state = pb.WAITING
        if self._link is not None:
            self._link.tell(reply)
        return reply

    def _has_news(self) -> bool:
        asks = self._link is not None and self._link.has_question()
        waits = self._is_waiting and not self._may_go_on()
        return asks or waits or self._ending is not None

    def _run(self, assignment: Assignment, around: PeerEnvironment) -> None:
        try:
            ending = run_assignment(assignment, around)
        except Exception as error:  # nobody else would hear of it
            logger.exception("peer=%s failed", assignment.peer)
            ending = Ending(Outcome.FAILED, f"{type(error).__name__}: {error}")
        with self._changed:
            self._ending = ending
            self._changed.notify_all()

    def _await_turn(self, step: int, is_stop_wanted: Callable[[], bool]) -> None:
        """Returns when the coordinator's round has come to this step, or a stop is asked for.

        It asks the coordinator itself too: where Flower has ended the run, no message will come.

        Raises:
            CoordinatorLost: the run is closed, or no message has come for too long.
        """
        with self._changed:
            self._next_step = step
            self._is_waiting = not self._may_go_on()
            self._changed.notify_all()
        deadline_s = time.monotonic() + self._turn_timeout_s
        while not self._has_turn(_POLL_S) and time.monotonic() < deadline_s:
            if is_stop_wanted():
                self._is_stop_asked = True
        with self._changed:
            self._is_waiting = False
            if self._cut is not None:
                raise CoordinatorLost(f"no step after {step - 1}: {self._cut}")
            if not self._may_go_on():
                raise CoordinatorLost(
                    f"nobody has asked for step {step} within {self._turn_timeout_s:g} s; is the "
                    "coordinator's app still running?"
                )

    def _has_turn(self, within_s: float) -> bool:
        with self._changed:
            return self._changed.wait_for(self._may_go_on, within_s)

    def _may_go_on(self) -> bool:
        return self._next_step < self._until_step or self._is_stop_asked or self._cut is not None


def _sendable(text: str) -> str:
    """Returns the text with what UTF-8 can't hold replaced: it may quote what came over a network."""
    return text.encode("utf-8", "replace").decode()


def _as_site(assignment: Assignment, site: SiteSettings) -> Assignment:
    """Returns the assignment with what is the site's own business put in.

    Raises:
        ConfigError: it names a run or a peer that this site can't take.
    """
    if not _RUN_ID.fullmatch(assignment.run_id):
        raise ConfigError(f"the run id {assignment.run_id[:128]!r} can't be a folder's name")
    wanted, own = from_mapping(assignment.config), site.config
    if assignment.peer not in own.peers or assignment.peer not in wanted.peers:
        raise ConfigError(
            f"this site has no settings for peer {assignment.peer!r}, only for {', '.join(own.peers)}; "
            "start `dogo-fed peer` with the peers= that the run uses"
        )
    merged = with_settings_of(
        dataclasses.replace(
            own, peers={**wanted.peers, assignment.peer: own.peers[assignment.peer]}
        ),
        wanted,
        lambda scope: scope.decided_by is DecidedBy.RUN,
    )
    return dataclasses.replace(
        assignment,
        config=to_mapping(merged),
        run_dir=str(site.run_root / assignment.run_id),
    )
