"""How long one exchange takes: publish mine, receive the mean of the others', peers in processes.

    python -m benchmarks.round_trip [--batch-sizes 256 1024] [--peers 2 4 8] [--steps 200]

The coordinator runs in this process, every peer in one of its own, all on loopback. Peers do nothing but
exchange, so a round trip includes waiting for the slowest of them: with more processes than cores they
queue for a core, and that is in the figure.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from dataclasses import asdict, dataclass

import numpy as np

from benchmarks.machine import write_result
from clients.peer.grpc_link import Connection, GrpcLink
from dogo_fed.contracts import FloatMatrix, PeerId, SimilarityDistribution, Ticket
from dogo_fed.coordination.coordinator import CoordinatorSettings
from dogo_fed.plan import Plan
from dogo_fed.process_setup import keep_freed_memory
from dogo_fed.reporting.sink import TeeSink
from dogo_fed.wire.format import WireFormat
from dogo_fed.wire.secret import credential_of
from server.coordinator.host import CoordinatorHost
from server.coordinator.service import ServiceSettings

RUN_ID = "round-trip"
SECRET = "benchmark"
WARM_UP = 20


@dataclass(frozen=True)
class Job:
    """What a peer's process is told."""

    peer: str
    address: str
    batch_size: int
    steps: int


def distribution(batch_size: int, seed: int) -> SimilarityDistribution:
    """Returns a row-stochastic matrix such as a peer publishes."""
    cosines_NN = np.random.default_rng(seed).uniform(-1, 1, (batch_size, batch_size))
    weights_NN = np.exp(cosines_NN / 0.1)
    p_NN: FloatMatrix = (weights_NN / weights_NN.sum(1, keepdims=True)).astype(np.float32)
    return SimilarityDistribution(p_NN, float((p_NN * np.log(p_NN)).sum(1).mean()))


def link_of(job: Job) -> GrpcLink:
    """Returns the peer's link, which has not joined yet."""
    return GrpcLink(
        PeerId(job.peer),
        RUN_ID,
        Connection(
            address=job.address,
            credential=credential_of(SECRET, RUN_ID, job.peer),
            wire=WireFormat(job.batch_size),
            answer_within_s=60,
            reconnect_s=10,
        ),
    )


def settings_of(num_peers: int, steps: int) -> CoordinatorSettings:
    """Returns the settings of a run of this size."""
    return CoordinatorSettings(
        run_id=RUN_ID,
        agreement={},
        peers=tuple(PeerId(f"peer{index}") for index in range(num_peers)),
        first_step=0,
        batch_digest=lambda step: "",
        deadline_s=60,
        join_deadline_s=60,
        evaluation_deadline_s=60,
        plan=Plan(total_steps=steps, steps_per_round=steps),
    )


def run_client(job: Job) -> None:
    """Exchanges `job.steps` times and prints the round trips in milliseconds."""
    keep_freed_memory()
    client = link_of(job)
    client.join({})
    mine = distribution(job.batch_size, seed=sum(job.peer.encode()))
    times_ms = []
    for step in range(job.steps):
        started_s = time.perf_counter()
        ticket = Ticket(RUN_ID, 1, step, "")
        client.publish(ticket, mine)
        client.collect(ticket)
        times_ms.append((time.perf_counter() - started_s) * 1e3)
    client.close()
    sys.stdout.write(json.dumps(times_ms[WARM_UP:]))


def measure(batch_size: int, num_peers: int, steps: int) -> dict[str, float]:
    """Returns percentiles of the round trip over all peers, in milliseconds."""
    settings = settings_of(num_peers, WARM_UP + steps)
    host = CoordinatorHost(
        settings,
        WireFormat(batch_size),
        ServiceSettings(address="127.0.0.1", port=0, secret=SECRET, answer_within_s=120),
        TeeSink(),
    )
    times_ms: list[float] = []
    with host:
        processes = [
            subprocess.Popen(
                [
                    sys.executable,
                    "-m",
                    "benchmarks.round_trip",
                    "--client",
                    json.dumps(asdict(Job(peer, host.address, batch_size, steps))),
                ],
                stdout=subprocess.PIPE,
                text=True,
            )
            for peer in settings.peers
        ]
        for process in processes:
            output, _ = process.communicate(timeout=600)
            times_ms += json.loads(output)
    deciles = statistics.quantiles(times_ms, n=10)
    return {
        "batch_size": batch_size,
        "peers": num_peers,
        "median_ms": round(statistics.median(times_ms), 2),
        "p10_ms": round(deciles[0], 2),
        "p90_ms": round(deciles[-1], 2),
        "bytes_up": WireFormat(batch_size).payload_bytes,
    }


def main() -> None:
    """Measures every combination and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[256, 1024])
    parser.add_argument("--peers", type=int, nargs="+", default=[2, 4, 8])
    parser.add_argument("--steps", type=int, default=220)
    parser.add_argument("--client", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.client:
        run_client(Job(**json.loads(arguments.client)))
        return
    rows = []
    print(f"{'B':>6} {'peers':>6} {'median ms':>10} {'p10':>8} {'p90':>8}")
    for batch_size in arguments.batch_sizes:
        for num_peers in arguments.peers:
            row = measure(batch_size, num_peers, arguments.steps)
            rows.append(row)
            print(
                f"{batch_size:>6} {num_peers:>6} {row['median_ms']:>10.2f} {row['p10_ms']:>8.2f} "
                f"{row['p90_ms']:>8.2f}",
                flush=True,
            )
    print(f"written to {write_result('round_trip', {'rows': rows})}")


if __name__ == "__main__":
    main()
