"""What a coordinator can carry: contributions for each second of its processor, and whether it grows.

    python -m benchmarks.coordinator [--batch-sizes 256 1024] [--peers 2 8 64] [--contributions 320]
        [--rounds 3] [--long 24000]

A contribution is a peer's distribution with the answer that it gets. For each batch size and number of peers
there are four contestants, from the inside out, which take turns:

  copy    the bytes of a contribution and its answer, copied in memory: the limit of any program
  echo    the same bytes over loopback by gRPC alone: taken, and sent back
  calls   the coordinator's own work without a network: message to distribution, its checks, the mean of the
          others, and back to a message
  grpc    all of it: the service as it runs, with peers in other processes

Each is divided by the processor seconds of the coordinator's process, so another program on the machine, or
the peers themselves, don't count; wall seconds stand beside them. The first steps are left out, and so are
starting, connecting and stopping. `--long` is a run of so many steps of two peers, which report, at the
smallest batch size, in a process of its own (coordinator_memory.py): it tells whether the memory grows.
"""

from __future__ import annotations

import argparse
import itertools
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import grpc
import numpy as np

from benchmarks import coordinator_memory
from benchmarks.machine import Result
from benchmarks.round_trip import steps_for
from benchmarks.simulated import (
    RUN_ID,
    Job,
    coordinator_of,
    distribution,
    let_go,
    settings_of,
)
from benchmarks.turns import Took, clocked, spread, take_turns, told
from benchmarks.workers import Workers
from dogo_fed.contracts import PeerId, Ticket
from dogo_fed.coordination.coordinator import Coordinator
from dogo_fed.process_setup import keep_freed_memory
from dogo_fed.reporting.sink import TeeSink
from dogo_fed.wire import dogo_pb2 as pb
from dogo_fed.wire.connections import server_options
from dogo_fed.wire.format import WireFormat
from server.coordinator.calls import CoordinatorCalls

WARM_UP = 3
PROCESSES = 2
"""In which the peers live."""
KINDS = ("copy", "echo", "calls", "grpc")
LONG_RUN = "the long run"

HOW = (
    "For each batch size and number of peers the four kinds took turns; the spread is over rounds. The first "
    "steps, starting, connecting and stopping are left out. CPU seconds are of the coordinator's process."
)


class Calls:
    """A coordinator without a network, and the messages of its peers."""

    def __init__(self, batch_size: int, num_peers: int, steps: int) -> None:
        wire, settings = WireFormat(batch_size), settings_of(num_peers, steps)
        coordinator = Coordinator(settings, 0.0, lambda event: None)
        self.calls = CoordinatorCalls(coordinator, RUN_ID, wire, TeeSink(), time.monotonic)
        self.requests: dict[PeerId, pb.ExchangeRequest] = {}
        for index, peer in enumerate(settings.peers):
            sender = pb.Sender(peer=peer, incarnation=peer)
            self.calls.join(peer, pb.JoinRequest(sender=sender, run_id=RUN_ID))
            ticket = Ticket(RUN_ID, 1, 0, "")
            self.requests[peer] = wire.encode_published(
                sender, ticket, distribution(batch_size, seed=index)
            )
        self.step = 0

    def do_step(self) -> Took:
        """Does what a service does in a step; returns what that took, without the peers' part of it."""
        took = []
        for peer, request in self.requests.items():
            request.ticket.step = self.step
            message = request.SerializeToString()  # the peer's work
            took.append(clocked(partial(self._take, peer, message)))
        took.append(clocked(self._answer_all))
        self.step += 1
        return total(took)

    def _take(self, peer: PeerId, message: bytes) -> None:
        refusal = self.calls.offer(peer, pb.ExchangeRequest.FromString(message))
        assert refusal is None, refusal

    def _answer_all(self) -> None:
        for peer in self.requests:
            reply = self.calls.answer(peer, self.step)
            assert reply is not None, "all have contributed"
            reply.SerializeToString()


def total(took: Sequence[Took], share: float = 1.0) -> Took:
    """Returns the sum, times a share."""
    return Took(share * sum(one.cpu_s for one in took), share * sum(one.wall_s for one in took))


def in_calls(batch_size: int, num_peers: int, steps: int) -> Took:
    """Returns what a contribution takes in the calls alone."""
    made = Calls(batch_size, num_peers, WARM_UP + steps)
    took = [made.do_step() for _ in range(WARM_UP + steps)]
    return total(took[WARM_UP:], 1 / (steps * num_peers))


def in_copies(batch_size: int, num_peers: int, steps: int) -> Took:
    """Returns what the bytes of a contribution and its answer take to be copied."""
    source = np.ones(WireFormat(batch_size).payload_bytes, dtype=np.uint8)
    target = np.empty_like(source)

    def there_and_back() -> None:
        np.copyto(target, source)
        np.copyto(source, target)

    there_and_back()
    return clocked(there_and_back, steps * num_peers)


def in_grpc(workers: Workers, batch_size: int, num_peers: int, steps: int) -> Took:
    """Returns what a contribution takes the whole service."""
    settings = settings_of(num_peers, WARM_UP + steps)
    with coordinator_of(settings, batch_size) as host:
        job = Job(list(settings.peers), host.address, batch_size, WARM_UP, steps)
        _, took = let_go(workers, job)
    return total([took], 1 / (steps * num_peers))


def in_echo(workers: Workers, batch_size: int, num_peers: int, steps: int) -> Took:
    """Returns what a gRPC server takes that sends back what it is sent."""
    handler = grpc.method_handlers_generic_handler(
        "benchmark.Echo", {"Echo": grpc.unary_unary_rpc_method_handler(lambda body, context: body)}
    )
    limit = WireFormat(batch_size).limit_bytes
    server = grpc.server(
        ThreadPoolExecutor(4), (handler,), options=server_options(limit, 4 * num_peers)
    )
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        names = [f"peer{index}" for index in range(num_peers)]
        job = Job(names, f"127.0.0.1:{port}", batch_size, WARM_UP, steps, is_echo=True)
        _, took = let_go(workers, job)
    finally:
        server.stop(1).wait()
    return total([took], 1 / (steps * num_peers))


def contestants(
    workers: Workers, batch_size: int, num_peers: int, steps: int
) -> dict[str, Callable[[], Took]]:
    """Returns a turn of each kind."""
    return {
        "copy": partial(in_copies, batch_size, num_peers, steps),
        "echo": partial(in_echo, workers, batch_size, num_peers, steps),
        "calls": partial(in_calls, batch_size, num_peers, steps),
        "grpc": partial(in_grpc, workers, batch_size, num_peers, steps),
    }


def row(
    kind: str, batch_size: int, num_peers: int, steps: int, rounds: Sequence[Took]
) -> dict[str, Any]:
    """Returns the figures of one kind."""
    mib = 2 * WireFormat(batch_size).payload_bytes / 2**20
    per_cpu_s = spread([1 / one.cpu_s for one in rounds])
    return {
        "batch_size": batch_size,
        "peers": num_peers,
        "kind": kind,
        "contributions": steps * num_peers,
        "per_cpu_s": per_cpu_s,
        "per_wall_s": spread([1 / one.wall_s for one in rounds]),
        "mib_per_cpu_s": round(mib * per_cpu_s["median"], 1),
    }


def main() -> None:
    """Measures every combination, prints a table and writes the figures."""
    assert __doc__ is not None, "this module has a docstring"
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[256, 1024])
    parser.add_argument("--peers", type=int, nargs="+", default=[2, 8, 64])
    parser.add_argument("--contributions", type=int, default=320, help="of a round, at least")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--long", type=int, default=24_000)
    asked = parser.parse_args()
    keep_freed_memory()
    print("contributions for each processor second")
    with Result("coordinator", HOW, parser, asked) as result:
        result.found |= {"rows": [], "long_run": None}
        with Workers("benchmarks.simulated", PROCESSES) as workers:
            for batch_size, num_peers in itertools.product(asked.batch_sizes, asked.peers):
                steps = steps_for(asked.contributions, num_peers)
                found = take_turns(contestants(workers, batch_size, num_peers, steps), asked.rounds)
                for kind, why in found.failed.items():
                    result.failed[f"B {batch_size}, {num_peers} peers, {kind}"] = why
                for kind, rounds in found.rounds().items():
                    one = row(kind, batch_size, num_peers, steps, rounds)
                    result.found["rows"].append(one)
                    print(
                        f"B {batch_size:>5} {num_peers:>4} peers {kind:<6} {told(one['per_cpu_s'])}",
                        flush=True,
                    )
        if asked.long:
            result.write(not_yet=LONG_RUN)
            with result.going_on(LONG_RUN):
                grown = coordinator_memory.measure(min(asked.batch_sizes), asked.long)
                result.found["long_run"] = grown
                print(coordinator_memory.told(grown))


if __name__ == "__main__":
    main()
