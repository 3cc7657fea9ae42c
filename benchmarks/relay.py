"""A relay on this machine that makes a coordinator as far as one likes."""

from __future__ import annotations

import asyncio
import dataclasses
import socket
import threading
import time
from collections import deque
from contextlib import closing, suppress

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
        self._server: asyncio.Server | None = None
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    def __enter__(self) -> Relay:
        self._thread.start()
        self._server = asyncio.run_coroutine_threadsafe(
            asyncio.start_server(self._connected, "127.0.0.1", 0), self._loop
        ).result(10)
        self.address = f"127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    async def _end(self) -> None:
        """Lets nobody in, and drops what is still held back."""
        assert self._server is not None, "it has begun"
        self._server.close()
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.sleep(0)  # a connection is closed in the turn of the loop that comes next

    async def _connected(
        self, near_in: asyncio.StreamReader, near_out: asyncio.StreamWriter
    ) -> None:
        with closing(near_out), suppress(asyncio.CancelledError):
            try:
                far_in, far_out = await asyncio.open_connection("127.0.0.1", self._port)
            except OSError:  # the coordinator is not there yet; the peer tries again
                return
            with closing(far_out):
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
