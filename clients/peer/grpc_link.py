"""A peer's end of the gRPC service: joins, exchanges, reports, leaves.

Every call has a deadline. If the coordinator can't be reached or does not answer, a call is repeated
for a while. That is safe, since the coordinator gives the same answer to the same ticket of the same
process.
"""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import grpc

from dogo_fed.contracts import (
    PeerId,
    PeerResult,
    RoundReport,
    SimilarityDistribution,
    StepReport,
    TeacherSignal,
    Ticket,
)
from dogo_fed.errors import CoordinatorLost, ExchangeError, ExchangeTimeout, Refused
from dogo_fed.exchange.base import Traffic
from dogo_fed.wire import codec
from dogo_fed.wire import dogo_pb2 as pb
from dogo_fed.wire.connections import client_options
from dogo_fed.wire.dogo_pb2_grpc import CoordinationStub
from dogo_fed.wire.format import WireFormat
from dogo_fed.wire.secret import metadata_of

logger = logging.getLogger(__name__)

_SMALL_CALL_TIMEOUT_S = 30.0
_BRIEF_CALL_TIMEOUT_S = 5.0
_ANSWER_MARGIN_S = 15.0
_FIRST_PAUSE_S = 0.05
_LONGEST_PAUSE_S = 2.0
_AWAY = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)


@dataclass(frozen=True, slots=True, kw_only=True)
class Connection:
    """How a peer reaches its coordinator. Times in seconds.

    Attributes:
        address: host:port of the coordinator.
        credential: this peer's credential.
        wire: the form of the run's distributions.
        answer_within_s: longest time that an answer may be held back for other peers.
        reconnect_s: how long a call is repeated while the coordinator can't be reached.
        root_certificates: PEM, to check the coordinator's certificate; None uses no TLS.
    """

    address: str
    credential: str
    wire: WireFormat
    answer_within_s: float
    reconnect_s: float
    root_certificates: bytes | None = None


class GrpcLink:
    """A `CoordinatorLink` over gRPC. To the coordinator, each link is a new process of the peer."""

    def __init__(self, peer: PeerId, run_id: str, connection: Connection) -> None:
        self._peer = peer
        self._run_id = run_id
        self._connection = connection
        self._sender = pb.Sender(peer=peer, incarnation=uuid.uuid4().hex)
        options = client_options(connection.wire.limit_bytes)
        if connection.root_certificates is None:
            self._channel = grpc.insecure_channel(connection.address, options=options)
        else:
            credentials = grpc.ssl_channel_credentials(connection.root_certificates)
            self._channel = grpc.secure_channel(connection.address, credentials, options=options)
        self._stub: Any = CoordinationStub(self._channel)  # type: ignore[no-untyped-call]
        self._metadata = metadata_of(peer, connection.credential)
        self._pending: tuple[pb.ExchangeRequest, Any] | None = None
        self._traffic = Traffic()
        self._is_closed = False

    @property
    def last_traffic(self) -> Traffic:
        """Bytes on the wire for the ticket that was collected last."""
        return self._traffic

    def join(self, agreement: Mapping[str, str]) -> int:
        """Enters the run and returns the step to go on with.

        Raises:
            SchemaMismatch: this process does not run the same thing as the coordinator.
            Refused: there is no such peer, or the credential is wrong.
            CoordinatorLost: the coordinator can't be reached.
        """
        request = pb.JoinRequest(sender=self._sender, run_id=self._run_id, agreement=agreement)
        reply = self._call(self._stub.Join, request, _SMALL_CALL_TIMEOUT_S)
        return int(reply.next_step)

    def publish(self, ticket: Ticket, distribution: SimilarityDistribution) -> None:
        """Sends my distribution; see `Exchange.publish`. Refusals come with `collect`."""
        # A future, so that this does not wait for the answer, which comes when the step closes.
        request = self._connection.wire.encode_published(self._sender, ticket, distribution)
        call = self._stub.Exchange.future(
            request, timeout=self._answer_timeout_s, metadata=self._metadata
        )
        self._pending = (request, call)

    def collect(self, ticket: Ticket) -> TeacherSignal:
        """Waits for the teachers' mean; see `Exchange.collect`."""
        assert self._pending is not None, "collect without publish"
        (request, call), self._pending = self._pending, None
        assert request.ticket.step == ticket.step, "collect of another ticket than published"
        first: Callable[[], Any] | None = call.result
        num_asked = 0
        while True:
            reply = self._call(self._stub.Exchange, request, self._answer_timeout_s, first=first)
            num_asked += 1
            if not reply.still_open:
                break
            first = None  # another peer evaluates; the coordinator knows how long it may
        self._traffic = Traffic(num_asked * request.ByteSize(), reply.ByteSize())
        return self._connection.wire.decode_signal(reply)

    def report(
        self,
        steps: list[StepReport],
        rounds: list[RoundReport],
        result: PeerResult | None,
        *,
        is_evaluating: bool = False,
        is_brief: bool = False,
    ) -> bool:
        """Delivers reports; see `CoordinatorLink.report`."""
        requests = codec.encode_reports(self._sender, steps, rounds, result)
        requests[0].evaluating = is_evaluating
        timeout_s = _BRIEF_CALL_TIMEOUT_S if is_brief else _SMALL_CALL_TIMEOUT_S
        tries_s = 0.0 if is_brief else None
        replies = [
            self._call(self._stub.Report, request, timeout_s, tries_s=tries_s)
            for request in requests
        ]
        return any(reply.stop for reply in replies)

    def close(self) -> None:
        """Leaves the run; a second call does nothing. Failing to leave is only logged."""
        if self._is_closed:
            return
        self._is_closed = True
        try:  # once and briefly: the peer is done, and a coordinator that is gone needs no goodbye
            request = pb.LeaveRequest(sender=self._sender)
            self._call(self._stub.Leave, request, _BRIEF_CALL_TIMEOUT_S, tries_s=0.0)
        except ExchangeError as error:
            logger.warning("peer=%s could not say goodbye: %s", self._peer, error)
        finally:
            self._channel.close()

    @property
    def _answer_timeout_s(self) -> float:
        return self._connection.answer_within_s + _ANSWER_MARGIN_S

    def _call(
        self,
        method: Callable[..., Any],
        request: Any,
        timeout_s: float,
        *,
        first: Callable[[], Any] | None = None,
        tries_s: float | None = None,
    ) -> Any:
        """Returns the reply; repeats the call while the coordinator is away.

        Args:
            method: a method of the stub.
            request: the method's message.
            timeout_s: deadline of each attempt.
            first: waits for an attempt that has been started already.
            tries_s: how long to repeat; None takes the connection's setting.

        Raises:
            CoordinatorLost: the coordinator could not be reached for this time.
            ExchangeTimeout: it could be reached, but did not answer.
            Refused: the coordinator refused the call, or the credential is wrong.
            ExchangeError: the call failed in another way.
        """
        tries_s = self._connection.reconnect_s if tries_s is None else tries_s
        pause_s = _FIRST_PAUSE_S
        lost_since_s: float | None = None
        while True:
            try:
                if first is not None:
                    attempt, first = first, None
                    reply = attempt()
                else:
                    reply = method(request, timeout=timeout_s, metadata=self._metadata)
            except grpc.RpcError as error:
                # A failed connection or a missing answer is tried again, for a time that starts at
                # the first failure: the coordinator, or this process, may have been frozen.
                if error.code() not in _AWAY:
                    raise translate(error, self._connection.address) from error
                now_s = time.monotonic()
                lost_since_s = now_s if lost_since_s is None else lost_since_s
                left_s = lost_since_s + tries_s - now_s
                if left_s <= 0:
                    raise translate(error, self._connection.address) from error
                logger.warning(
                    "peer=%s the coordinator at %s does not answer; trying again",
                    self._peer,
                    self._connection.address,
                )
                time.sleep(min(pause_s, left_s))
                pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
                continue
            codec.raise_refusal(reply)
            return reply


def translate(error: grpc.RpcError, address: str) -> ExchangeError:
    """Returns our error for one of gRPC's; the message says what to do."""
    code, details = error.code(), error.details() or "no details"
    where = f"the coordinator at {address}"
    if code is grpc.StatusCode.UNAVAILABLE:
        return CoordinatorLost(f"{where} can't be reached any more ({details})")
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        return ExchangeTimeout(f"{where} did not answer in time; is it overloaded or frozen?")
    if code is grpc.StatusCode.UNAUTHENTICATED:
        return Refused(
            f"{where} does not take this peer's credential ({details}); is it another run's?"
        )
    if code is grpc.StatusCode.RESOURCE_EXHAUSTED:
        return ExchangeError(
            f"a message to or from {where} is larger than the batch size allows ({details}); is "
            "the batch size the same on both sides?"
        )
    return ExchangeError(f"{where} failed: {code.name}: {details}")
