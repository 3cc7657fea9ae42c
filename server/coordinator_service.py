"""The coordinator as a gRPC service: decode, ask the state machine, wait, encode. It decides nothing.

The service runs its own event loop in a thread of its own, so that it answers whatever the process
around it does. Only that thread touches the state machine; others ask through `call`.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, TypeVar

import grpc
import grpc.aio

from dogo_fed.contracts import PeerId, PeerResult, RoundReport, StepReport, TeacherSignal
from dogo_fed.coordination.coordinator import Coordinator
from dogo_fed.errors import ConfigError, ExchangeTimeout, SchemaMismatch
from dogo_fed.memory import keep_freed_memory
from dogo_fed.reporting.sink import Sink
from dogo_fed.wire import codec
from dogo_fed.wire import dogo_pb2 as pb
from dogo_fed.wire.dogo_pb2_grpc import (
    CoordinationServicer,
    add_CoordinationServicer_to_server,
)
from dogo_fed.wire.secret import METADATA_KEY, is_same_secret

logger = logging.getLogger(__name__)

T = TypeVar("T")

_CALL_TIMEOUT_S = 30.0
_LONGEST_SLEEP_S = 1.0
_STOP_GRACE_S = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceSettings:
    """Where the service listens and what it accepts.

    Attributes:
        address: interface to listen on.
        port: 0 takes a free one.
        answer_within_s: longest time an exchange is held back; the state machine's deadlines are
            shorter.
    """

    address: str
    port: int
    run_id: str
    secret: str
    batch_size: int
    answer_within_s: float


class _Servicer(CoordinationServicer):
    """The four calls. Runs in the service's event loop only."""

    def __init__(
        self,
        coordinator: Coordinator,
        settings: ServiceSettings,
        sink: Sink,
        clock: Callable[[], float],
    ) -> None:
        self._coordinator = coordinator
        self._settings = settings
        self._sink = sink
        self._clock = clock
        self._closings: dict[int, asyncio.Event] = {}
        self._reported_step: dict[tuple[str, str], int] = {}
        self._reported: set[tuple[str, str, int]] = set()

    async def Join(self, request: pb.JoinRequest, context: Any) -> pb.JoinReply:
        """Lets a peer in, or says what differs."""
        try:
            if request.run_id != self._settings.run_id:
                raise SchemaMismatch(
                    f"peer {request.sender.peer!r} wants run {request.run_id!r}, this is run "
                    f"{self._settings.run_id!r}"
                )
            next_step = self._coordinator.join(
                PeerId(request.sender.peer),
                request.sender.incarnation,
                dict(request.agreement),
                self._clock(),
            )
        except codec.REFUSALS as error:
            logger.warning("refused to let in: %s", error)
            return pb.JoinReply(refusal=codec.encode_refusal(error))
        return pb.JoinReply(next_step=next_step)

    async def Exchange(self, request: pb.ExchangeRequest, context: Any) -> pb.ExchangeReply:
        """Takes a distribution and answers when the step has closed."""
        peer, step = PeerId(request.sender.peer), request.ticket.step
        try:
            distribution = codec.decode_distribution(
                request.distribution, self._settings.batch_size
            )
            self._coordinator.offer(
                peer,
                request.sender.incarnation,
                codec.decode_ticket(request.ticket),
                distribution,
                self._clock(),
            )
            del distribution
            self.wake()
            signal = await self._answer(peer, step)
        except codec.REFUSALS as error:
            logger.warning("refused an exchange of peer=%s step=%d: %s", peer, step, error)
            return pb.ExchangeReply(refusal=codec.encode_refusal(error))
        except ExchangeTimeout as error:
            await context.abort(grpc.StatusCode.DEADLINE_EXCEEDED, str(error))
        return codec.encode_signal(signal)

    async def Report(self, request: pb.ReportRequest, context: Any) -> pb.ReportReply:
        """Takes reports; a repeated one is counted once."""
        peer = PeerId(request.sender.peer)
        try:
            self._coordinator.check_sender(peer, request.sender.incarnation)
        except codec.REFUSALS as error:
            return pb.ReportReply(refusal=codec.encode_refusal(error))
        sender = (request.sender.peer, request.sender.incarnation)
        for step in request.steps:
            if step.step > self._reported_step.get(sender, -1):
                self._reported_step[sender] = step.step
                self._sink.emit(codec.decode_report(StepReport, step, peer))
        for one in request.rounds:
            if self._is_new(*sender, one.round):
                self._sink.emit(codec.decode_report(RoundReport, one, peer))
        if request.HasField("result") and self._is_new(*sender, -1):
            self._sink.emit(codec.decode_report(PeerResult, request.result, peer))
        return pb.ReportReply(stop=self._coordinator.stop_requested)

    def _is_new(self, peer: str, incarnation: str, number: int) -> bool:
        """Notes a round (-1: the result) of a process; returns whether it is the first time."""
        is_new = (peer, incarnation, number) not in self._reported
        self._reported.add((peer, incarnation, number))
        return is_new

    async def Leave(self, request: pb.LeaveRequest, context: Any) -> pb.LeaveReply:
        """Lets a peer go."""
        try:
            self._coordinator.leave(
                PeerId(request.sender.peer), request.sender.incarnation, self._clock()
            )
        except codec.REFUSALS as error:
            return pb.LeaveReply(refusal=codec.encode_refusal(error))
        self.wake()
        return pb.LeaveReply()

    def wake(self) -> None:
        """Wakes those whose step has closed."""
        for step in [one for one in self._closings if one < self._coordinator.next_open_step]:
            self._closings.pop(step).set()

    async def _answer(self, peer: PeerId, step: int) -> TeacherSignal:
        signal = self._coordinator.answer(peer, step)
        if signal is None:
            closing = self._closings.setdefault(step, asyncio.Event())
            try:
                await asyncio.wait_for(closing.wait(), self._settings.answer_within_s)
            except TimeoutError as error:
                raise ExchangeTimeout(f"step {step} was not closed at its deadline") from error
            signal = self._coordinator.answer(peer, step)
        assert signal is not None, "a closed step has an answer"
        return signal


class _SecretCheck(grpc.aio.ServerInterceptor):  # type: ignore[misc]
    """Turns strangers away before anything they sent is looked at."""

    def __init__(self, secret: str) -> None:
        self._secret = secret

        async def refuse(request: object, context: Any) -> None:
            await context.abort(
                grpc.StatusCode.UNAUTHENTICATED, "this call does not carry the run's secret"
            )

        self._refuse = grpc.unary_unary_rpc_method_handler(refuse)

    async def intercept_service(
        self, continuation: Callable[[Any], Awaitable[Any]], handler_call_details: Any
    ) -> Any:
        metadata = dict(handler_call_details.invocation_metadata or ())
        theirs = metadata.get(METADATA_KEY, "")
        if isinstance(theirs, str) and is_same_secret(self._secret, theirs):
            return await continuation(handler_call_details)
        return self._refuse


class CoordinatorService:
    """Runs the gRPC service in a thread until it is stopped."""

    def __init__(
        self,
        coordinator: Coordinator,
        settings: ServiceSettings,
        sink: Sink,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._coordinator = coordinator
        self._settings = settings
        self._servicer = _Servicer(coordinator, settings, sink, clock)
        self._clock = clock
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
        self._thread.start()
        port = self._started.result(timeout=_CALL_TIMEOUT_S)
        return f"{self._settings.address}:{port}"

    def stop(self) -> None:
        """Stops listening; calls under way are cut off after a moment. A second call does nothing."""
        if self._loop is not None and self._thread.is_alive():
            assert self._stopping is not None, "a running service can be stopped"
            self._loop.call_soon_threadsafe(self._stopping.set)
            self._thread.join(timeout=_CALL_TIMEOUT_S)

    def call(self, action: Callable[[Coordinator], T]) -> T:
        """Runs `action` on the state machine in the service's thread and returns its result."""
        assert self._loop is not None, "the service has been started"

        async def run() -> T:
            result = action(self._coordinator)
            self._servicer.wake()
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
        limit = codec.message_limit(self._settings.batch_size)
        server = grpc.aio.server(
            interceptors=[_SecretCheck(self._settings.secret)],
            options=[
                ("grpc.max_send_message_length", limit),
                ("grpc.max_receive_message_length", limit),
                ("grpc.so_reuseport", 0),
            ],
        )
        add_CoordinationServicer_to_server(self._servicer, server)  # type: ignore[no-untyped-call]
        where = f"{self._settings.address}:{self._settings.port}"
        try:
            port = server.add_insecure_port(where)
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
        await server.stop(_STOP_GRACE_S)

    async def _tick(self) -> None:
        """Lets the state machine see time pass: at its deadlines, and once a second."""
        while True:
            deadline_s = self._coordinator.next_deadline_s()
            sleep_s = _LONGEST_SLEEP_S
            if deadline_s is not None:
                sleep_s = min(sleep_s, max(deadline_s - self._clock(), 0.0))
            await asyncio.sleep(sleep_s + 0.001)
            try:
                self._coordinator.tick(self._clock())
            except Exception:
                logger.exception("a look at the clock failed")
            self._servicer.wake()
