"""A far coordinator: what a combination's run is, and the figures of its rounds."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Mapping

import pytest

from benchmarks import far_link
from benchmarks.exchange_tax import PeerTiming
from benchmarks.grid import NEAR, Cell
from benchmarks.relay import Distance, Relay
from dogo_fed.config import RunConfig

FAR = Cell(64, "tiny", Distance(20.0, 0.0), lookahead=1, every_steps=2)


def timings(**steps_per_s: float) -> Mapping[str, PeerTiming]:
    """Returns a run of peers of these speeds; their processors take as many ms as they do steps/s."""
    return {
        peer: PeerTiming(20, speed, *[0.0] * 2, processor_ms=speed, **dict.fromkeys(REST, 0.0))
        for peer, speed in steps_per_s.items()
    }


REST = (
    "compute_ms", "wait_ms", "exchange_ms", "exchange_median_ms", "wait_share", "exchange_share",
    "bytes_up", "bytes_down",
)  # fmt: skip


def test_the_peers_of_a_run_reach_its_coordinator_by_the_relay_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: list[RunConfig] = []

    def run_once(config: RunConfig) -> Mapping[str, PeerTiming]:
        seen.append(config)
        return timings(one=2.0)

    monkeypatch.setattr(far_link, "run_once", run_once)
    assert far_link.run_cell(FAR, 12, ["seed=3"]) == timings(one=2.0)
    (config,) = seen
    assert (config.batch_size, config.steps, config.seed) == (64, 12, 3)
    assert (config.exchange.lookahead, config.exchange.every_steps) == (1, 2)
    address = config.coordinator.public_address
    assert address is not None and address.startswith("127.0.0.1:")
    assert config.coordinator.port not in (0, int(address.partition(":")[2]))


def test_a_relay_carries_both_ways_and_leaves_nothing_behind() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        with Relay(listening.getsockname()[1], Distance(2.0, 10.0)) as relay:
            host, _, port = relay.address.partition(":")
            near = socket.create_connection((host, int(port)))
            far, _ = listening.accept()
            for source, target in ((near, far), (far, near)):
                source.sendall(b"there")
                assert target.recv(16) == b"there"
            near.sendall(b"held back when the relay ends")
        assert near.recv(16) == b"", "the connection has ended"
        near.close()
        far.close()
    assert relay._loop.is_closed() and not asyncio.all_tasks(relay._loop)


def test_a_share_is_that_of_the_slowest_peers_in_one_round() -> None:
    first, second = timings(one=4.0, two=2.0), timings(one=3.0, two=6.0)
    row = far_link.row(FAR, [first, second], [(first, timings(one=8.0, two=4.0))])
    assert row["steps_per_s"] == {"median": 2.5, "min": 2.0, "max": 3.0}
    assert row["share_of_near"]["median"] == 0.5
    assert row["step_cpu_ms"] == {"median": 2.5, "min": 2.0, "max": 3.0}
    assert (row["peers"], row["round_trip_ms"], row["lookahead"]) == ("tiny", 20.0, 1)


def test_a_combination_whose_nearest_has_failed_keeps_its_speed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found = {}

    def run_cell(cell: Cell[str], steps: int, overrides: list[str]) -> Mapping[str, PeerTiming]:
        if cell.distance == NEAR:
            raise RuntimeError("the port is taken")
        return timings(one=2.0)

    def kept(self: far_link.Result, not_yet: str | None = None) -> None:
        found.update(self.found)

    monkeypatch.setattr(far_link, "run_cell", run_cell)
    monkeypatch.setattr(far_link.Result, "write", kept)
    asked = ["far_link", "--delays", "20", "--mbit", "0", "--lookahead", "0", "--every-steps", "1"]
    monkeypatch.setattr("sys.argv", asked)
    with pytest.raises(SystemExit, match="failed: B 256, pair peers"):
        far_link.main()
    (row,) = found["rows"]
    assert row["steps_per_s"]["median"] == 2.0 and row["share_of_near"] is None
