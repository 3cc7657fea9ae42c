"""Peers without networks: they exchange as peers do, and sleep while those would compute.

    python -m benchmarks.simulated

is one of the processes that they live in; `workers.py` tells it what to do.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import grpc
import numpy as np

from benchmarks.turns import Took, clocked
from benchmarks.workers import Workers, serve
from clients.peer.ahead_link import AheadLink
from clients.peer.grpc_link import Connection, GrpcLink
from clients.peer.link import CoordinatorLink
from clients.peer.report_sink import ReportSink
from dogo_fed.contracts import FloatMatrix, PeerId, SimilarityDistribution, StepReport, Ticket
from dogo_fed.coordination.coordinator import CoordinatorSettings
from dogo_fed.plan import Plan
from dogo_fed.process_setup import keep_freed_memory
from dogo_fed.reporting.sink import Sink, TeeSink
from dogo_fed.wire.connections import client_options
from dogo_fed.wire.format import WireFormat
from dogo_fed.wire.secret import credential_of
from server.coordinator.host import CoordinatorHost
from server.coordinator.service import ServiceSettings

RUN_ID = "benchmark"
SECRET = "benchmark"
ECHO = "/benchmark.Echo/Echo"

_PATIENCE_S = 300.0
_SHARE_BEFORE = 1 / 3
"""Of the computing of a step, before the distribution is there: the forward pass."""


@dataclass(frozen=True)
class Job:
    """What the peers of one process do.

    Attributes:
        peers: their names.
        address: where the coordinator, or the echo, can be reached.
        warm_up: steps that do not count, before the others.
        steps: those that count.
        compute_s: what a step takes beside the exchange.
        lookahead, every_steps: of the exchange's settings.
        is_echo: whether they send bytes to an echo, and nothing else.
        reports: whether they report their steps, as sessions do.
    """

    peers: list[str]
    address: str
    batch_size: int
    warm_up: int
    steps: int
    compute_s: float = 0.0
    lookahead: int = 0
    every_steps: int = 1
    is_echo: bool = False
    reports: bool = False


@dataclass(frozen=True)
class Done:
    """What the steps that count have taken.

    Attributes:
        step_s: a step, by peer, as a mean.
        exchange_s: what the peers have waited for each exchange.
        cpu_s: processor seconds of the peers' processes, for each step of a peer.
    """

    step_s: list[float]
    exchange_s: list[float]
    cpu_s: float


class _Peer(Protocol):
    """Does steps until it is closed."""

    def step(self, number: int) -> float:
        """Does a step; returns the seconds that its exchange took."""
        ...

    def settle(self) -> None:
        """Ends what was begun ahead."""
        ...

    def close(self) -> None:
        """Leaves."""
        ...


class _Exchanging:
    """Does what a session does between its passes."""

    def __init__(self, name: str, job: Job) -> None:
        self._job = job
        self._mine = distribution(job.batch_size, seed=sum(name.encode()))
        self._published: deque[Ticket] = deque()
        connection = Connection(
            address=job.address,
            credential=credential_of(SECRET, RUN_ID, name),
            wire=WireFormat(job.batch_size),
            answer_within_s=_PATIENCE_S,
            reconnect_s=10,
        )
        link = GrpcLink(PeerId(name), RUN_ID, connection)
        self._link: CoordinatorLink = AheadLink(link) if job.lookahead else link
        self._link.join({})
        self._sink = ReportSink(self._link) if job.reports else None
        self._name = PeerId(name)

    def step(self, number: int) -> float:
        job = self._job
        _compute(_SHARE_BEFORE * job.compute_s)
        started_s = time.perf_counter()
        exchanges = number % job.every_steps == 0
        if exchanges:
            ticket = Ticket(RUN_ID, 1, number, "")
            self._link.publish(ticket, self._mine)
            self._published.append(ticket)
        self._collect_all_but(job.lookahead if exchanges else 0)
        if self._sink is not None:
            self._sink.emit(StepReport(self._name, 1, number, 1.0, 0.1, 1, 0.0, 0.0, 0.0, 0, 0))
        took_s = time.perf_counter() - started_s
        _compute((1 - _SHARE_BEFORE) * job.compute_s)
        return took_s

    def settle(self) -> None:
        self._collect_all_but(0)

    def close(self) -> None:
        if self._sink is not None:
            self._sink.close()
        self._link.close()

    def _collect_all_but(self, number: int) -> None:
        while len(self._published) > number:
            self._link.collect(self._published.popleft())


class _Echoing:
    """Sends bytes, and gets them back."""

    def __init__(self, name: str, job: Job) -> None:
        options = client_options(WireFormat(job.batch_size).limit_bytes)
        self._channel = grpc.insecure_channel(job.address, options=options)
        self._call = self._channel.unary_unary(ECHO)
        self._body = bytes(WireFormat(job.batch_size).payload_bytes)

    def step(self, number: int) -> float:
        started_s = time.perf_counter()
        self._call(self._body, timeout=_PATIENCE_S)
        return time.perf_counter() - started_s

    def settle(self) -> None:
        return

    def close(self) -> None:
        self._channel.close()


class PeersHere:
    """The peers of this process, a thread each."""

    def __init__(self) -> None:
        self._job: Job | None = None
        self._peers: list[_Peer] = []

    def open(self, **job: Any) -> None:
        """Lets the peers join and do the steps that do not count."""
        self._job = made = Job(**job)
        kind: Callable[[str, Job], _Peer] = _Echoing if made.is_echo else _Exchanging
        self._peers = [kind(name, made) for name in made.peers]
        self._all_do(range(made.warm_up))

    def go(self) -> dict[str, Any]:
        """Lets the peers do the steps that count; returns a `Done`."""
        assert self._job is not None, "open comes first"
        job, cpu_s = self._job, time.process_time()
        found = self._all_do(range(job.warm_up, job.warm_up + job.steps))
        cpu_s = time.process_time() - cpu_s
        for peer in self._peers:
            peer.settle()  # not in a step: what is under way at its end was so at its beginning
        done = Done(
            step_s=[whole_s / job.steps for whole_s, _ in found],
            exchange_s=[one_s for _, each_s in found for one_s in each_s],
            cpu_s=cpu_s / (job.steps * len(job.peers)),
        )
        return asdict(done)

    def close(self) -> None:
        """Lets the peers leave."""
        for peer in self._peers:
            peer.close()
        self._peers = []

    def _all_do(self, steps: range) -> list[tuple[float, list[float]]]:
        def do(peer: _Peer) -> tuple[float, list[float]]:
            started_s = time.perf_counter()
            exchanges_s = [peer.step(number) for number in steps]
            return time.perf_counter() - started_s, exchanges_s

        with ThreadPoolExecutor(len(self._peers)) as threads:
            return list(threads.map(do, self._peers))


def distribution(batch_size: int, seed: int) -> SimilarityDistribution:
    """Returns a row-stochastic matrix such as a peer publishes."""
    cosines_NN = np.random.default_rng(seed).uniform(-1, 1, (batch_size, batch_size))
    weights_NN = np.exp(cosines_NN / 0.1)
    p_NN: FloatMatrix = (weights_NN / weights_NN.sum(1, keepdims=True)).astype(np.float32)
    return SimilarityDistribution(p_NN, float((p_NN * np.log(p_NN)).sum(1).mean()))


def settings_of(num_peers: int, steps: int, every_steps: int = 1) -> CoordinatorSettings:
    """Returns the coordinator's settings of a run of this size."""
    return CoordinatorSettings(
        run_id=RUN_ID,
        agreement={},
        peers=tuple(PeerId(f"peer{index}") for index in range(num_peers)),
        first_step=0,
        batch_digest=lambda step: "",
        deadline_s=_PATIENCE_S,
        join_deadline_s=_PATIENCE_S,
        evaluation_deadline_s=_PATIENCE_S,
        plan=Plan(total_steps=steps, steps_per_round=steps, exchange_every_steps=every_steps),
    )


def coordinator_of(
    settings: CoordinatorSettings, batch_size: int, sink: Sink | None = None
) -> CoordinatorHost:
    """Returns a coordinator on this machine for simulated peers."""
    service = ServiceSettings(
        address="127.0.0.1", port=0, secret=SECRET, answer_within_s=_PATIENCE_S
    )
    return CoordinatorHost(settings, WireFormat(batch_size), service, sink or TeeSink())


def dealt(peers: Sequence[str], number: int) -> list[list[str]]:
    """Returns the peers of each process, as evenly as can be; no process without one."""
    return [list(peers[first::number]) for first in range(min(number, len(peers)))]


def let_go(workers: Workers, job: Job) -> tuple[list[Done], Took]:
    """Lets peers in processes do a job.

    Args:
        workers: the processes.
        job: of all peers together.

    Returns:
        What the steps that count have taken, by process; and what this process had to do meanwhile,
        all steps together.
    """
    jobs = [asdict(job) | {"peers": peers} for peers in dealt(job.peers, workers.number)]
    nothing: list[dict[str, Any]] = [{} for _ in jobs]
    answers: list[Any] = []
    workers.call("open", jobs)
    took = clocked(lambda: answers.extend(workers.call("go", nothing)))
    workers.call("close", nothing)
    return [Done(**one) for one in answers], took


def _compute(seconds: float) -> None:
    if seconds > 0:
        time.sleep(seconds)


if __name__ == "__main__":
    keep_freed_memory()
    here = PeersHere()
    serve({"open": here.open, "go": here.go, "close": here.close})
