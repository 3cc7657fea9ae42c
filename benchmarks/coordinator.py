"""What a coordinator can carry: contributions for each second of its processor, and whether it grows.

    python -m benchmarks.coordinator [--batch-sizes 256 1024] [--peers 2 8 64] [--steps 200] [--long 24000]

A contribution is a peer's distribution with the answer that it gets. For each batch size and number of peers
there are four figures, from the inside out:

  copy    the bytes of a contribution and its answer, copied in memory: the limit of any program
  echo    the same bytes over loopback by gRPC alone: taken, and sent back
  calls   the coordinator's own work without a network: message to distribution, its checks, the mean of the
          others, and back to a message
  gRPC    all of it: the service as it runs, with peers in another process

Each is divided by the processor seconds of the coordinator's process, so another program on the machine, or
the peers themselves, don't count. `--long` is a run of so many steps, in calls, of two peers, at the smallest
batch size: it tells whether the memory grows.
"""

from __future__ import annotations

import argparse
import json
import shlex
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import grpc
import numpy as np
import psutil

from benchmarks.machine import write_result
from benchmarks.round_trip import RUN_ID, SECRET, Job, distribution, link_of, settings_of
from dogo_fed.contracts import Ticket
from dogo_fed.coordination.coordinator import Coordinator
from dogo_fed.process_setup import keep_freed_memory
from dogo_fed.reporting.sink import TeeSink
from dogo_fed.wire import dogo_pb2 as pb
from dogo_fed.wire.connections import client_options, server_options
from dogo_fed.wire.format import WireFormat
from server.coordinator.calls import CoordinatorCalls
from server.coordinator.host import CoordinatorHost
from server.coordinator.service import ServiceSettings

ROUNDS = 3
ECHO = "/benchmark.Echo/Echo"


class Calls:
    """A coordinator without a network, and the messages of its peers."""

    def __init__(self, batch_size: int, num_peers: int, steps: int) -> None:
        wire, settings = WireFormat(batch_size), settings_of(num_peers, steps)
        coordinator = Coordinator(settings, 0.0, lambda event: None)
        self.calls = CoordinatorCalls(coordinator, RUN_ID, wire, TeeSink(), time.monotonic)
        self.requests = {}
        for index, peer in enumerate(settings.peers):
            sender = pb.Sender(peer=peer, incarnation=peer)
            self.calls.join(peer, pb.JoinRequest(sender=sender, run_id=RUN_ID))
            ticket = Ticket(RUN_ID, 1, 0, "")
            self.requests[peer] = wire.encode_published(
                sender, ticket, distribution(batch_size, seed=index)
            )
        self.step = 0

    def do_step(self) -> int:
        """Does what a service does in a step; returns the bytes of an answer."""
        answered = 0
        for peer, request in self.requests.items():
            request.ticket.step = self.step
            taken = pb.ExchangeRequest.FromString(request.SerializeToString())
            refusal = self.calls.offer(peer, taken)
            assert refusal is None, refusal
        for peer in self.requests:
            reply = self.calls.answer(peer, self.step)
            assert reply is not None, "all have contributed"
            answered = len(reply.SerializeToString())
        self.step += 1
        return answered


def cpu_per_contribution(work: Callable[[], object], contributions: int) -> float:
    """Returns the processor seconds of this process for each contribution."""
    started_s = time.process_time()
    work()
    return (time.process_time() - started_s) / contributions


def in_calls(batch_size: int, num_peers: int, steps: int) -> list[float]:
    """Returns processor seconds of the calls alone, by round."""
    made = Calls(batch_size, num_peers, (ROUNDS + 1) * steps)

    def round_of_steps() -> None:
        for _ in range(steps):
            made.do_step()

    return [cpu_per_contribution(round_of_steps, steps * num_peers) for _ in range(ROUNDS + 1)][1:]


def in_copies(batch_size: int, steps: int) -> list[float]:
    """Returns processor seconds for copying the bytes there and back."""
    source = np.ones(4 * batch_size * batch_size, dtype=np.uint8)
    target = np.empty_like(source)

    def copies() -> None:
        for _ in range(10 * steps):
            np.copyto(target, source)
            np.copyto(source, target)

    return [cpu_per_contribution(copies, 10 * steps) for _ in range(ROUNDS + 1)][1:]


def in_grpc(batch_size: int, num_peers: int, steps: int) -> float:
    """Returns processor seconds of the whole service, start and end included."""
    settings = settings_of(num_peers, steps)
    host = CoordinatorHost(
        settings,
        WireFormat(batch_size),
        ServiceSettings(address="127.0.0.1", port=0, secret=SECRET, answer_within_s=120),
        TeeSink(),
    )
    started_s = time.process_time()
    with host:
        _peers_elsewhere("peers", host.address, batch_size, num_peers, steps)
    return (time.process_time() - started_s) / (steps * num_peers)


def in_echo(batch_size: int, num_peers: int, steps: int) -> float:
    """Returns processor seconds of a gRPC server that sends back what it is sent."""
    handler = grpc.method_handlers_generic_handler(
        "benchmark.Echo", {"Echo": grpc.unary_unary_rpc_method_handler(lambda body, context: body)}
    )
    limit = WireFormat(batch_size).limit_bytes
    server = grpc.server(
        ThreadPoolExecutor(4), (handler,), options=server_options(limit, 4 * num_peers)
    )
    port = server.add_insecure_port("127.0.0.1:0")
    started_s = time.process_time()
    server.start()
    try:
        _peers_elsewhere("echo", f"127.0.0.1:{port}", batch_size, num_peers, steps)
    finally:
        server.stop(1).wait()
    return (time.process_time() - started_s) / (steps * num_peers)


def _peers_elsewhere(role: str, address: str, batch_size: int, num_peers: int, steps: int) -> None:
    """Lets peers of another process do their steps."""
    job = {"role": role, "address": address, "batch_size": batch_size}
    subprocess.run(
        [sys.executable, "-m", "benchmarks.coordinator", "--client",
         json.dumps({**job, "num_peers": num_peers, "steps": steps})],
        check=True, timeout=900,
    )  # fmt: skip


def run_clients(role: str, address: str, batch_size: int, num_peers: int, steps: int) -> None:
    """Runs the peers, a thread each."""
    keep_freed_memory()
    do = _exchange if role == "peers" else _echo
    threads = [
        threading.Thread(target=do, args=(Job(f"peer{index}", address, batch_size, steps),))
        for index in range(num_peers)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def _exchange(job: Job) -> None:
    link = link_of(job)
    link.join({})
    mine = distribution(job.batch_size, seed=sum(job.peer.encode()))
    for step in range(job.steps):
        ticket = Ticket(RUN_ID, 1, step, "")
        link.publish(ticket, mine)
        link.collect(ticket)
    link.close()


def _echo(job: Job) -> None:
    options = client_options(WireFormat(job.batch_size).limit_bytes)
    with grpc.insecure_channel(job.address, options=options) as channel:
        call = channel.unary_unary(ECHO)
        body = bytes(4 * job.batch_size * job.batch_size)
        for _ in range(job.steps):
            call(body, timeout=60)


def long_run(batch_size: int, steps: int) -> list[dict[str, float]]:
    """Returns the memory of this process after each tenth of a long run, in MiB."""
    made, process, found = Calls(batch_size, 2, steps), psutil.Process(), []
    for step in range(steps):
        made.do_step()
        if (step + 1) % max(1, steps // 10) == 0:
            found.append(
                {"steps": step + 1, "rss_mib": round(process.memory_info().rss / 2**20, 1)}
            )
    return found


def measure(batch_size: int, num_peers: int, steps: int) -> dict[str, float]:
    """Returns one row: contributions for each processor second, and the bytes that they are."""
    mib = 2 * WireFormat(batch_size).payload_bytes / 2**20
    seconds = {
        "copy": statistics.median(in_copies(batch_size, steps)),
        "echo": statistics.median(in_echo(batch_size, num_peers, steps) for _ in range(ROUNDS)),
        "calls": statistics.median(in_calls(batch_size, num_peers, steps)),
        "grpc": statistics.median(in_grpc(batch_size, num_peers, steps) for _ in range(ROUNDS)),
    }
    return {
        "batch_size": batch_size,
        "peers": num_peers,
        **{f"{name}_per_cpu_s": round(1 / each_s, 1) for name, each_s in seconds.items()},
        **{f"{name}_mib_per_cpu_s": round(mib / each_s, 1) for name, each_s in seconds.items()},
    }


def main() -> None:
    """Measures every combination, prints a table and writes the figures."""
    assert __doc__ is not None, "this module has a docstring"
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[256, 1024])
    parser.add_argument("--peers", type=int, nargs="+", default=[2, 8, 64])
    parser.add_argument("--steps", type=int, default=200, help="fewer where there are more peers")
    parser.add_argument("--long", type=int, default=24_000)
    parser.add_argument("--client", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.client:
        run_clients(**json.loads(arguments.client))
        return
    keep_freed_memory()
    print("contributions for each processor second")
    print(f"{'B':>6} {'peers':>6} {'copy':>10} {'echo':>10} {'calls':>10} {'gRPC':>10}")
    rows = []
    for batch_size in arguments.batch_sizes:
        for num_peers in arguments.peers:
            steps = max(5, arguments.steps * 2 * 256**2 // (num_peers * batch_size**2))
            row = measure(batch_size, num_peers, steps)
            rows.append({**row, "steps": steps})
            print(
                f"{batch_size:>6} {num_peers:>6} {row['copy_per_cpu_s']:>10.0f} "
                f"{row['echo_per_cpu_s']:>10.0f} {row['calls_per_cpu_s']:>10.0f} "
                f"{row['grpc_per_cpu_s']:>10.0f}",
                flush=True,
            )
    grown = long_run(min(arguments.batch_sizes), arguments.long) if arguments.long else []
    for one in grown:
        print(f"after {one['steps']:>6} steps: {one['rss_mib']:.1f} MiB")
    content = {
        "command": shlex.join(["python", "-m", "benchmarks.coordinator", *sys.argv[1:]]),
        "rows": rows,
        "long_run": grown,
    }
    print(f"written to {write_result('coordinator', content).name} in benchmarks/results/")


if __name__ == "__main__":
    main()
