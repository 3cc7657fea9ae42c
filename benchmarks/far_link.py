"""What a far coordinator costs: steps/s of the slowest peer behind a delay and a bandwidth.

    python -m benchmarks.far_link [--delays 0 20 100] [--mbit 0 100 10] [--rounds 3] [--steps 40] [key=value]

Each peer is a process of its own and reaches the coordinator through a relay on this machine, which holds
back what it carries: half of the round trip in each direction, and no more than so many megabits a second
(0: no limit). Without and with exchange.lookahead, all settings take turns. Further arguments are overrides
as of `dogo-fed train`; the default is peers=pair with a batch size of 256.

How a step is timed: see benchmarks.exchange_tax.
"""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import io
import shlex
import socket
import statistics
import sys
import threading
import time
from collections import deque

from benchmarks.machine import write_result

_CHUNK_BYTES = 65536


@dataclasses.dataclass(frozen=True)
class Distance:
    """How far the coordinator is.

    Attributes:
        round_trip_ms: both directions together.
        mbit_per_s: in each direction; 0 is without a limit.
    """

    round_trip_ms: float
    mbit_per_s: float

    def __str__(self) -> str:
        limit = f", {self.mbit_per_s:g} Mbit/s" if self.mbit_per_s else ""
        return f"{self.round_trip_ms:g} ms{limit}"


class Relay:
    """Carries connections to a port of this machine, as if it were far. Use it in a `with`."""

    def __init__(self, port: int, distance: Distance) -> None:
        self.address = ""
        self._port = port
        self._distance = distance
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    def __enter__(self) -> Relay:
        self._thread.start()
        server = asyncio.run_coroutine_threadsafe(
            asyncio.start_server(self._connected, "127.0.0.1", 0), self._loop
        ).result(10)
        self.address = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)

    async def _connected(
        self, near_in: asyncio.StreamReader, near_out: asyncio.StreamWriter
    ) -> None:
        try:
            far_in, far_out = await asyncio.open_connection("127.0.0.1", self._port)
        except OSError:  # the coordinator is not there yet; the peer tries again
            near_out.close()
            return
        await asyncio.gather(self._carry(near_in, far_out), self._carry(far_in, near_out))

    async def _carry(self, source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        """Carries one direction until it ends. Reading goes on while earlier bytes are held back."""
        delay_s = self._distance.round_trip_ms / 2000
        bytes_per_s = self._distance.mbit_per_s * 1e6 / 8
        on_the_way: deque[tuple[float, bytes]] = deque()
        arrived = asyncio.Event()

        async def deliver() -> None:
            while True:
                while not on_the_way:
                    arrived.clear()
                    await arrived.wait()
                due_s, chunk = on_the_way.popleft()
                await asyncio.sleep(max(0.0, due_s - time.monotonic()))
                if not chunk:
                    target.close()
                    return
                target.write(chunk)
                await target.drain()

        delivering = asyncio.ensure_future(deliver())
        free_at_s = 0.0
        try:
            while True:
                chunk = await source.read(_CHUNK_BYTES)
                now_s = time.monotonic()
                if bytes_per_s:
                    free_at_s = max(now_s, free_at_s) + len(chunk) / bytes_per_s
                on_the_way.append((max(now_s, free_at_s) + delay_s, chunk))
                arrived.set()
                if not chunk:
                    break
            await delivering
        except OSError:
            delivering.cancel()
            target.close()


def free_port() -> int:
    """Returns a port that nobody uses now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def steps_per_s(settings: list[str], distance: Distance) -> float:
    """Returns the steps/s of the slowest peer of a run at this distance."""
    from benchmarks.exchange_tax import run_once, slowest
    from configs.compose import compose_run

    port = free_port()
    with Relay(port, distance) as relay:
        config = compose_run(
            [*settings, f"coordinator.port={port}", f"coordinator.public_address={relay.address}"]
        )
        return slowest(run_once(config))


def main() -> None:
    """Lets all distances and both settings take turns, prints a table and writes the figures."""
    assert __doc__ is not None, "this module has a docstring"
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--delays", type=float, nargs="+", default=[0, 20, 100])
    parser.add_argument("--mbit", type=float, nargs="+", default=[0, 100, 10])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("overrides", nargs="*")
    arguments = parser.parse_args()
    import rich

    rich.reconfigure(file=io.StringIO())  # the live view would take its share of the processor
    settings = [
        "peers=pair", "batch_size=256", f"steps={arguments.steps}",
        f"steps_per_round={arguments.steps}", "host=processes", "threads_per_peer=1",
        "eval.linear=false", "recovery.max_restarts=0", *arguments.overrides,
    ]  # fmt: skip
    distances = [Distance(delay, 0) for delay in arguments.delays]
    distances += [Distance(arguments.delays[-1], mbit) for mbit in arguments.mbit if mbit]
    found: dict[tuple[Distance, int], list[float]] = {}
    for number in range(arguments.rounds):
        for distance in distances:
            for ahead in (0, 1):
                speed = steps_per_s([*settings, f"exchange.lookahead={ahead}"], distance)
                found.setdefault((distance, ahead), []).append(speed)
                print(f"round {number + 1}: {distance}, lookahead {ahead}: {speed:.2f} steps/s",
                      flush=True)  # fmt: skip
    near = distances[0]
    print(f"\n{'distance':<24} {'lookahead':>9} {'steps/s':>9} {'of ' + str(near):>9}")
    rows = []
    for (distance, ahead), speeds in found.items():
        shares = [one / base for one, base in zip(speeds, found[near, 0], strict=True)]
        rows.append(
            {
                **dataclasses.asdict(distance),
                "lookahead": ahead,
                "steps_per_s": [round(one, 3) for one in speeds],
                "share_of_near": round(statistics.median(shares), 3),
            }
        )
        print(
            f"{distance!s:<24} {ahead:>9} {statistics.median(speeds):>9.2f} "
            f"{statistics.median(shares):>9.2f}"
        )
    content = {
        "command": shlex.join(["python", "-m", "benchmarks.far_link", *sys.argv[1:]]),
        "settings": settings,
        "rows": rows,
    }
    print(f"\nwritten to {write_result('far_link', content).name} in benchmarks/results/")


if __name__ == "__main__":
    main()
