"""The coordinator as a gRPC service: takes calls, and holds answers back until their step closes.

The service has an event loop in a thread of its own, so that it answers peers while the rest of the
process does something else. Only that thread touches the state machine; others use `call`.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
import threading
import time
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import grpc
import grpc.aio
import psutil
from google.protobuf.message import DecodeError, Message

from dogo_fed.config import CoordinatorConfig
from dogo_fed.contracts import PeerId
from dogo_fed.coordination.standstill import Standstill
from dogo_fed.errors import ConfigError
from dogo_fed.process_setup import keep_freed_memory, raise_descriptor_limit
from dogo_fed.wire import dogo_pb2 as pb
from dogo_fed.wire.connections import most_connections, server_options
from dogo_fed.wire.secret import credential_of, new_secret, speaker
from server.coordinator.calls import CoordinatorCalls

logger = logging.getLogger(__name__)

T = TypeVar("T")
R = TypeVar("R", bound=Message)

_CALL_TIMEOUT_S = 30.0
_LONGEST_SLEEP_S = 1.0
_STOP_GRACE_S = 1.0
_WRITTEN_WITHIN_S = 15.0
_LONGEST_REPORT_WAIT_S = 10.0  # well below the 30 s that a peer waits for a report's answer
_MOST_UNDER_WAY = 8
_SERVICE = pb.DESCRIPTOR.services_by_name["Coordination"].full_name


@dataclass(frozen=True, slots=True)
class ServerCertificate:
    """The certificate that the service shows to peers; both parts are PEM."""

    certificate_chain: bytes
    private_key: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceSettings:
    """Where the service listens and what it accepts.

    Attributes:
        address: interface to listen on.
        port: 0 takes a free one.
        answer_within_s: longest time that an answer is held back; the state machine's deadlines are
            shorter.
        secret: from which the credentials of the peers are derived; by default a new one.
        tls: the certificate; None uses no TLS.
    """

    address: str
    port: int
    answer_within_s: float
    secret: str = field(default_factory=new_secret)
    tls: ServerCertificate | None = None


def read_certificate(settings: CoordinatorConfig) -> ServerCertificate | None:
    """Returns the certificate in the files that the settings name, or None if they name none.

    Raises:
        ConfigError: a file can't be read, is no such PEM file, or the key is that of another
            certificate.
    """
    if settings.certificate is None or settings.private_key is None:
        return None
    try:
        # gRPC says of a file that it can't use only that it could not listen.
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(
            settings.certificate, settings.private_key, password=lambda: b""
        )
        return ServerCertificate(
            Path(settings.certificate).read_bytes(), Path(settings.private_key).read_bytes()
        )
    except OSError as error:  # an error of TLS is one
        raise ConfigError(
            f"coordinator.certificate={settings.certificate} with "
            f"coordinator.private_key={settings.private_key} can't be used: {error}. They must be PEM "
            "files: the certificate first, those of the authorities above it after it, and its own key "
            "without a password"
        ) from error


class _Servicer:
    """The four calls over gRPC. Runs in the service's event loop only, so it needs no lock."""

    def __init__(
        self,
        calls: CoordinatorCalls,
        credentials: Mapping[PeerId, str],
        answer_within_s: float,
        written: Callable[[], Future[None]] | None,
    ) -> None:
        self._calls = calls
        self._credentials = credentials
        self._under_way = dict.fromkeys(credentials, 0)
        self._answer_within_s = answer_within_s
        self._written = written
        self._closings: dict[int, asyncio.Event] = {}

    def handler(self) -> Any:
        """Returns the handler of the four calls for a gRPC server."""
        methods = {
            "Join": self._taking(pb.JoinRequest, self._join),
            "Exchange": self._taking(pb.ExchangeRequest, self._exchange),
            "Report": self._taking(pb.ReportRequest, self._report),
            "Leave": self._taking(pb.LeaveRequest, self._leave),
        }
        return grpc.method_handlers_generic_handler(_SERVICE, methods)

    def _taking(self, kind: type[R], answer: Callable[[PeerId, R, Any], Awaitable[Message]]) -> Any:
        # As if it took a stream: gRPC then reads nothing by itself, and what a peer has under way is
        # counted before its message takes memory.
        async def take(messages: object, context: Any) -> Message:
            peer = speaker(self._credentials, context.invocation_metadata())
            assert peer is not None, "calls without a credential do not come so far"
            if self._under_way[peer] >= _MOST_UNDER_WAY:
                await context.abort(
                    grpc.StatusCode.UNAVAILABLE,
                    f"peer {peer} has {_MOST_UNDER_WAY} calls under way already",
                )
            self._under_way[peer] += 1
            try:
                return await answer(peer, await self._read(kind, peer, context), context)
            finally:
                self._under_way[peer] -= 1

        return grpc.stream_unary_rpc_method_handler(
            take, response_serializer=lambda reply: reply.SerializeToString()
        )

    async def _read(self, kind: type[R], peer: PeerId, context: Any) -> R:
        """Returns the message of a call. It is parsed here: gRPC would log a traceback if it is none.

        Raises:
            CancelledError: the caller has given up, or gRPC has found the message too large.
        """
        body = await context.read()
        if body is grpc.aio.EOF:
            raise asyncio.CancelledError
        try:
            return kind.FromString(body)
        except DecodeError as error:
            self._calls.garbage(peer, f"has sent what is no {kind.__name__}: {error}")
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"this is no {kind.__name__}")
            raise AssertionError("abort raises") from error

    async def _join(self, peer: PeerId, request: pb.JoinRequest, context: Any) -> pb.JoinReply:
        """Lets a peer join, or refuses it and says what differs."""
        return self._calls.join(peer, request)

    async def _exchange(
        self, peer: PeerId, request: pb.ExchangeRequest, context: Any
    ) -> pb.ExchangeReply:
        """Takes a distribution and answers when the step has closed.

        If that takes longer than any deadline of a step, another peer evaluates. Then the answer
        says so, and the peer asks again: it knows that this process lives.
        """
        step = request.ticket.step
        refused = self._calls.offer(peer, request)
        if refused is not None:
            return refused
        request.Clear()  # it holds a matrix, and may wait here for minutes
        self.wake()
        answer = self._calls.answer(peer, step)
        if answer is None:
            # Held back here, so that a peer needs one call for each step and does not poll.
            closing = self._closings.setdefault(step, asyncio.Event())
            try:
                await asyncio.wait_for(closing.wait(), self._answer_within_s)
            except TimeoutError:
                return pb.ExchangeReply(still_open=True)
            answer = self._calls.answer(peer, step)
        assert answer is not None, "a closed step has an answer"
        return answer

    async def _report(
        self, peer: PeerId, request: pb.ReportRequest, context: Any
    ) -> pb.ReportReply:
        """Takes reports; a repeated report counts once. Answers when they are written.

        A peer that reports too fast is answered later. The disk is waited for in another thread.
        """
        await asyncio.sleep(min(self._calls.report_wait_s(peer, request), _LONGEST_REPORT_WAIT_S))
        reply = self._calls.report(peer, request)
        if self._written is not None and not reply.HasField("refusal"):
            await asyncio.wait([asyncio.wrap_future(self._written())], timeout=_WRITTEN_WITHIN_S)
        return reply

    async def _leave(self, peer: PeerId, request: pb.LeaveRequest, context: Any) -> pb.LeaveReply:
        """Takes note that a peer leaves."""
        reply = self._calls.leave(peer, request)
        self.wake()
        return reply

    def wake(self) -> None:
        """Lets the calls go on whose step has closed."""
        for step in [one for one in self._closings if self._calls.has_answer(one)]:
            self._closings.pop(step).set()


class _CredentialCheck(grpc.aio.ServerInterceptor):  # type: ignore[misc]
    """Refuses calls without the credential of a peer, before anything of their message is read.

    Refuses calls of a peer that was refused too often just before, too.
    """

    def __init__(self, credentials: Mapping[PeerId, str], calls: CoordinatorCalls) -> None:
        self._credentials = credentials
        self._calls = calls

        async def refuse_stranger(messages: object, context: Any) -> None:
            calls.complaints.warn("a stranger", f"called without a credential: {context.peer()}")
            await context.abort(
                grpc.StatusCode.UNAUTHENTICATED,
                "this call does not carry the credential of a peer of this run",
            )

        async def refuse_for_now(messages: object, context: Any) -> None:
            await context.abort(
                grpc.StatusCode.UNAVAILABLE,
                "this peer has been refused too often; it should wait for a while",
            )

        # As handlers of streams they need not wait for a message that may never be complete.
        self._refuse_stranger = grpc.stream_unary_rpc_method_handler(refuse_stranger)
        self._refuse_for_now = grpc.stream_unary_rpc_method_handler(refuse_for_now)

    async def intercept_service(
        self, continuation: Callable[[Any], Awaitable[Any]], handler_call_details: Any
    ) -> Any:
        peer = speaker(self._credentials, handler_call_details.invocation_metadata)
        if peer is None:
            return self._refuse_stranger
        if not self._calls.is_patient_with(peer):
            return self._refuse_for_now
        return await continuation(handler_call_details)


class CoordinatorService:
    """Runs the gRPC service in a thread until it is stopped."""

    def __init__(
        self,
        calls: CoordinatorCalls,
        settings: ServiceSettings,
        clock: Callable[[], float] = time.monotonic,
        written: Callable[[], Future[None]] | None = None,
    ) -> None:
        """Prepares the service; `start` begins to listen.

        Args:
            calls: the handlers of the four calls.
            settings: where to listen, and what callers must know.
            clock: the time in seconds, as the state machine gets it.
            written: returns a future that is done when all reports so far are written; None if they
                are written at once.
        """
        self._calls = calls
        self._settings = settings
        known = calls.coordinator.settings
        self._credentials = {
            peer: credential_of(settings.secret, known.run_id, peer) for peer in known.peers
        }
        self._servicer = _Servicer(calls, self._credentials, settings.answer_within_s, written)
        self._clock = clock
        self._most_connections = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopping: asyncio.Event | None = None
        self._started: Future[int] = Future()
        self._thread = threading.Thread(target=self._run, name="coordinator", daemon=True)

    def start(self) -> str:
        """Starts listening and returns the address for peers, host:port.

        Raises:
            ConfigError: the address or port can't be listened on.
        """
        keep_freed_memory()
        self._most_connections = most_connections(
            raise_descriptor_limit(), psutil.Process().num_fds()
        )
        self._thread.start()
        port = self._started.result(timeout=_CALL_TIMEOUT_S)
        return f"{self._settings.address}:{port}"

    def stop(self) -> None:
        """Stops listening; calls under way are cut off after 1 s. A second call does nothing."""
        if self._loop is not None and self._thread.is_alive():
            assert self._stopping is not None, "a running service can be stopped"
            self._loop.call_soon_threadsafe(self._stopping.set)
            self._thread.join(timeout=_CALL_TIMEOUT_S)

    def call(self, action: Callable[[CoordinatorCalls], T]) -> T:
        """Runs `action` in the service's thread and returns its result; called by other threads."""
        assert self._loop is not None, "the service has been started"

        async def run() -> T:
            result = action(self._calls)
            self._servicer.wake()  # `action` may have closed a step, for example by losing a peer
            return result

        return asyncio.run_coroutine_threadsafe(run(), self._loop).result(_CALL_TIMEOUT_S)

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        except Exception as error:
            if not self._started.done():
                self._started.set_exception(error)
            else:
                logger.exception("the coordinator's service failed")

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._stopping = asyncio.Event()
        server = grpc.aio.server(
            interceptors=[_CredentialCheck(self._credentials, self._calls)],
            options=server_options(self._calls.wire.limit_bytes, self._most_connections),
        )
        server.add_generic_rpc_handlers((self._servicer.handler(),))
        where = f"{self._settings.address}:{self._settings.port}"
        try:
            port = self._listen(server, where)
        except RuntimeError as error:
            raise ConfigError(
                f"the coordinator can't listen on {where}; choose another coordinator.address or "
                "coordinator.port"
            ) from error
        await server.start()
        self._started.set_result(port)
        ticking = asyncio.create_task(self._tick())
        await self._stopping.wait()
        ticking.cancel()
        self._calls.complaints.close()
        await server.stop(_STOP_GRACE_S)

    def _listen(self, server: Any, where: str) -> int:
        tls = self._settings.tls
        if tls is None:
            return int(server.add_insecure_port(where))
        pair = (tls.private_key, tls.certificate_chain)
        return int(server.add_secure_port(where, grpc.ssl_server_credentials([pair])))

    async def _tick(self) -> None:
        """Tells the state machine the time: at its deadlines, and at least once a second.

        Once a second, because a call may bring a new deadline while this task sleeps. If it slept
        for much longer, this process was stopped, and that is nobody's fault.
        """
        standstill = Standstill(self._clock())
        while True:
            deadline_s = self._calls.coordinator.next_deadline_s()
            sleep_s = _LONGEST_SLEEP_S
            if deadline_s is not None:
                sleep_s = min(sleep_s, max(deadline_s - self._clock(), 0.0))
            await asyncio.sleep(sleep_s + 0.001)  # wakes after the deadline, not a moment before it
            now_s = self._clock()  # once: the process may be stopped between two readings
            lost_s = standstill.lasted_s(now_s)
            try:
                if lost_s:
                    self._calls.coordinator.excuse(lost_s, now_s)
                self._calls.coordinator.tick(now_s)
            except Exception as error:
                self._calls.complaints.warn(
                    "the deadlines", f"could not be checked: {type(error).__name__}: {error}"
                )
            self._servicer.wake()
            self._calls.complaints.flush()
