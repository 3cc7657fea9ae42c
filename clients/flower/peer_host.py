"""Hosts a peer in this process for a coordinator that sends messages, and outlives each message.

The peer runs in its own thread, by the same code as in other hosts. A message does not wait for the
peer's work, except up to `hold_s` for news. It may be repeated, and its reply always tells the
peer's state. Messages are `HostRequest` and replies `HostReply` in wire/dogo.proto.
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

from clients.flower.kept_checkpoints import KeptCheckpoints
from clients.flower.message_link import MessageLink
from clients.flower.timing import CLOSE_WITHIN_S, TELL_WITHIN_S
from clients.peer.link import CoordinatorLink
from clients.peer.run import PeerEnvironment, run_assignment
from dogo_fed.assignment import Assignment
from dogo_fed.config import RunConfig, Transport
from dogo_fed.config_text import from_mapping, to_mapping
from dogo_fed.contracts import Ending, Outcome, PeerId
from dogo_fed.errors import (
    SITE_KNOWS,
    CoordinatorLost,
    DogoError,
    Refused,
    outside,
)
from dogo_fed.scope import DecidedBy, with_settings_of
from dogo_fed.storage.peer_folder import PeerFolder
from dogo_fed.text import one_line
from dogo_fed.wire import dogo_pb2 as pb
from dogo_fed.wire.format import WireFormat

logger = logging.getLogger(__name__)

_END_WAIT_S = 20.0
_TAKE_OVER_WITHIN_S = 0.5
_LONGEST_HOLD_S = 20.0
_TURN_MARGIN_S = 300.0
_POLL_S = 2.0
_RUN_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,127}")


@dataclass(frozen=True, slots=True)
class SiteSettings:
    """The settings that a site decides, whatever the coordinator sends.

    Attributes:
        config: the site's own configuration; its peer's settings, data, device and threads are
            used.
        root_certificates: PEM, to check the coordinator's certificate.
        run_root: the folder in which run folders are made.
    """

    config: RunConfig
    root_certificates: bytes | None
    run_root: Path


class PeerHost:
    """Hosts at most one peer at a time; a newer run or start replaces an older one.

    A site tells the coordinator which kind of error ended its peer. The text of most errors stays
    in the site's own log, for it may say something of the site's images.
    """

    def __init__(self, where: str, site: SiteSettings | None = None) -> None:
        """Makes a host without a peer.

        Args:
            where: a phrase for people that names this process.
            site: a site's own settings. None takes all settings from the assignment, which is right
                only if both sides belong to the same user.
        """
        self._where = where
        self._site = site
        self._lock = threading.Lock()  # messages come in several threads; one may start a peer
        self._job: _Job | None = None
        self._checkpoints = KeptCheckpoints()

    def handle(self, body: bytes) -> bytes:
        """Returns an encoded `HostReply` to an encoded `HostRequest`. Any thread may call it."""
        try:
            request = pb.HostRequest.FromString(body)
        except DecodeError as error:
            return self._said(pb.UNKNOWN, f"this is no request to a peer's host: {error}")
        key = (request.run_id, request.peer, request.start)
        if request.asks_checkpoints:
            return self._told_checkpoints(request)
        with self._lock:
            if request.assignment and (self._job is None or self._job.key != key):
                refusal = self._start(key, request.assignment)
                if refusal is not None:
                    return refusal
            job = self._job
        # Outside the lock: this message may be held back, and others must be answered meanwhile.
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

    def _told_checkpoints(self, request: pb.HostRequest) -> bytes:
        """Returns the steps of the checkpoints that a site's peer has of a run.

        The run goes on by another start, so what an earlier one has left here is ended first: it may
        still wait for a coordinator that is gone, and saves itself at its end.
        """
        until_s = time.monotonic() + TELL_WITHIN_S
        run_id, site = _run_of(request.run_id), self._site
        if site is None or not _RUN_ID.fullmatch(run_id) or request.peer not in site.config.peers:
            return self._said(pb.UNKNOWN, "this process keeps no checkpoints of such a peer")
        with self._lock:
            job = self._job
        if job is not None and (_run_of(job.key[0]), job.key[1]) == (run_id, request.peer):
            job.cut("the run goes on by another start")
            job.wait(until_s - time.monotonic())
            if job.is_alive():  # the request will come again
                return self._said(pb.AWAY, "the peer of the start before has not ended yet")
        store = PeerFolder(site.run_root / run_id, PeerId(request.peer)).checkpoints
        found = self._checkpoints.look(store, until_s)
        if found is None:
            return self._said(pb.AWAY, "its checkpoints are still being looked at")
        return pb.HostReply(
            state=pb.UNKNOWN,
            where=self._where,
            checkpoints=" ".join(map(str, found.readable)),
            broken_checkpoints=" ".join(map(str, found.broken)),
        ).SerializeToString()

    def _start(self, key: tuple[str, str, int], assignment_json: str) -> bytes | None:
        """Replaces an earlier peer by that of the assignment; returns a reply if that fails."""
        try:
            job = self._job_for(key, assignment_json)
        except DogoError as error:
            logger.error("peer=%s is not started: %s", key[1], one_line(error))
            told = str(error) if self._site is None else outside(error)
            return self._said(pb.ENDED, told, Outcome.UNFIT)
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
        """Returns the job of an assignment.

        Raises:
            ConfigError: the settings can't be run.
            Refused: the assignment is for another peer, or for nothing that is here.
        """
        assignment = Assignment.from_json(assignment_json)
        named = (_run_of(key[0]), *key[1:])
        if (assignment.run_id, assignment.peer, assignment.number) != named:
            raise Refused("the assignment is not for the peer that the request names")
        around = PeerEnvironment()
        if self._site is not None:
            assignment = _as_site(assignment, self._site)
            around = PeerEnvironment(root_certificates=self._site.root_certificates, is_site=True)
        return _Job(key, assignment, around, tells_all=self._site is None)

    def _said(self, state: Any, message: str, outcome: Outcome = Outcome.FINISHED) -> bytes:
        return pb.HostReply(
            state=state, message=_sendable(message), outcome=outcome.value, where=self._where
        ).SerializeToString()


class _Job:
    """One start of a peer: its thread, the steps that it may do, and its link.

    Two sides share the condition `_changed`: the peer's thread, which waits for its turn or for an
    answer, and the threads of messages, which bring these and wait for news. The link uses the same
    condition, so that one wait notices both kinds of news.
    """

    def __init__(
        self,
        key: tuple[str, str, int],
        assignment: Assignment,
        around: PeerEnvironment,
        *,
        tells_all: bool,
    ) -> None:
        config = from_mapping(assignment.config)
        self.key = key
        self._tells_all = tells_all
        self._changed = threading.Condition()  # re-entrant: `_has_news` asks the link
        self._until_step = 0
        self._next_step = 0
        self._is_waiting = False
        self._is_stop_asked = False
        self._heard_at_s = time.monotonic()
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
        """Notes the steps that the request allows, and passes its answers to the link."""
        if self._link is not None:
            self._link.take(request)
        with self._changed:
            self._heard_at_s = time.monotonic()
            self._until_step = max(self._until_step, request.until_step)
            self._is_stop_asked |= request.stop
            self._changed.notify_all()

    def cut(self, reason: str) -> None:
        """Ends the peer's waiting, so that it saves itself and ends."""
        with self._changed:
            self._cut = reason
            self._changed.notify_all()
        if self._link is not None:
            self._link.cut(reason)

    def wait(self, seconds: float) -> None:
        """Waits for the peer's end, at most for this time."""
        self._thread.join(seconds)

    def reply(self, hold_s: float, where: str) -> pb.HostReply:
        """Returns the peer's state; waits for news for at most `hold_s` seconds."""
        with self._changed:
            self._changed.wait_for(self._has_news, hold_s)
            reply = pb.HostReply(state=pb.RUNNING, where=where, next_step=self._next_step)
            if self._ending is not None:
                reply.state = pb.ENDED
                reply.outcome = self._ending.outcome.value
                reply.message = _sendable(self._told(self._ending))
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
        except Exception as error:  # in a thread, no caller would see it
            logger.exception("peer=%s failed", assignment.peer)
            message = f"{type(error).__name__}: {error}"
            ending = Ending(Outcome.FAILED, message, outside=outside(error))
        told = self._told(ending)
        if told != ending.message:
            words = one_line(ending.message)
            logger.warning("peer=%s %s; the coordinator is told: %s", assignment.peer, words, told)
        with self._changed:
            self._ending = ending
            self._changed.notify_all()

    def _told(self, ending: Ending) -> str:
        """Returns what the coordinator is told of an ending; of one without words, nothing."""
        if self._tells_all or not ending.message:
            return ending.message
        return ending.outside or SITE_KNOWS

    def _await_turn(self, step: int, is_stop_wanted: Callable[[], bool]) -> None:
        """Returns when a message has allowed this step, or a stop is asked for.

        It asks the coordinator itself too: if Flower has ended the run, no message will come.

        Raises:
            CoordinatorLost: the run was closed, or no message has come for too long.
        """
        with self._changed:
            self._next_step = step
            self._is_waiting = not self._may_go_on()
            self._heard_at_s = time.monotonic()
            self._changed.notify_all()
        while not self._has_turn(_POLL_S) and not self._is_forgotten():
            if is_stop_wanted():  # a call over the network, so without the condition
                self._is_stop_asked = True
        with self._changed:
            self._is_waiting = False
            if self._cut is not None:
                raise CoordinatorLost(f"no step after {step - 1}: {self._cut}")
            if not self._may_go_on():
                raise CoordinatorLost(
                    f"no message has come for {self._turn_timeout_s:g} s, and none has asked for "
                    f"step {step}; is the coordinator's app still running?"
                )

    def _has_turn(self, within_s: float) -> bool:
        with self._changed:
            return self._changed.wait_for(self._may_go_on, within_s)

    def _is_forgotten(self) -> bool:
        """Whether no message has come for too long; some come while other peers evaluate."""
        with self._changed:
            return time.monotonic() - self._heard_at_s > self._turn_timeout_s

    def _may_go_on(self) -> bool:
        return self._next_step < self._until_step or self._is_stop_asked or self._cut is not None


def _run_of(run_key: str) -> str:
    """Returns the run's name; what follows it in a message tells the coordinator's starts apart."""
    return run_key.partition("@")[0]


def _sendable(text: str) -> str:
    """Returns the text without characters that UTF-8 can't encode; it may quote a message."""
    return text.encode("utf-8", "replace").decode()


def _as_site(assignment: Assignment, site: SiteSettings) -> Assignment:
    """Returns the assignment with the settings that the site decides.

    Raises:
        ConfigError: the settings of both do not make a run.
        Refused: the run's name can't be a folder's, or this site has no settings for the peer.
    """
    if not _RUN_ID.fullmatch(assignment.run_id):
        raise Refused(f"the run id {assignment.run_id[:128]!r} can't be a folder's name")
    wanted, own = from_mapping(assignment.config), site.config
    if assignment.peer not in own.peers or assignment.peer not in wanted.peers:
        raise Refused(
            f"this site has no settings for peer {assignment.peer!r}, only for "
            f"{', '.join(own.peers)}; start `dogo-fed peer` with the peers= that the run uses"
        )
    elsewhere = [name for name, peer in own.peers.items() if peer.data is not None]
    if elsewhere and own.peers[assignment.peer].data is None:
        named = ", ".join(f"peers.{name}.data" for name in elsewhere)
        logger.warning(
            "peer=%s this site names private images of other peers only (%s), and hosts %s; name its "
            "images by peers.%s.data",
            assignment.peer, named, assignment.peer, assignment.peer,
        )  # fmt: skip
    merged = with_settings_of(
        dataclasses.replace(
            own, peers={**wanted.peers, assignment.peer: own.peers[assignment.peer]}
        ),
        wanted,
        lambda scope: scope.decided_by is DecidedBy.RUN,
    )
    run_dir = str(site.run_root / assignment.run_id)
    goes_on = wanted.resume is not None
    merged = dataclasses.replace(
        merged, resume=run_dir if goes_on else None, afresh=goes_on and wanted.afresh
    )
    return dataclasses.replace(assignment, config=to_mapping(merged), run_dir=run_dir)
