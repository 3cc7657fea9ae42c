"""Benchmarks of the exchange: which combinations, simulated peers, and what is on whose clock."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

import pytest

from benchmarks import coordinator, simulated
from benchmarks.grid import NEAR, Cell, Ways, cells
from benchmarks.relay import Distance
from benchmarks.round_trip import (
    Round,
    exchanges_row,
    kept,
    steps_for,
    steps_row,
    why_left_out,
)
from benchmarks.simulated import Done, PeersHere, coordinator_of, dealt, settings_of
from benchmarks.turns import Took, clocked
from benchmarks.workers import Workers


class TestWhichCombinations:
    def test_the_full_grid_is_every_combination(self) -> None:
        sizes, peers, ways = (128, 256), (2, 64), Ways()
        found = cells(sizes, peers, ways, full=True)
        every = product(sizes, peers, ways.delays_ms, ways.mbit, ways.lookahead, ways.every_steps)
        wanted = {
            Cell(size, number, Distance(delay, mbit), ahead, steps)
            for size, number, delay, mbit, ahead, steps in every
        }
        assert set(found) == wanted
        assert len(found) == len(wanted) == 2 * 2 * 3 * 3 * 2 * 2

    def test_else_it_is_every_value_once(self) -> None:
        ways, found = Ways(), cells((256,), ("pair",), Ways(), full=False)
        assert len(found) == len(set(found)) < 20
        assert {one.distance.round_trip_ms for one in found} == set(ways.delays_ms)
        assert {one.distance.mbit_per_s for one in found} == set(ways.mbit)
        assert {one.every_steps for one in found} == set(ways.every_steps)
        assert {one.lookahead for one in found} == set(ways.lookahead)
        rare = {one.lookahead for one in found if one.every_steps > 1}
        assert rare == set(ways.lookahead), "the two settings together are not as either alone"

    def test_what_others_are_shares_of_is_always_there(self) -> None:
        asked = Ways(delays_ms=(100.0,), mbit=(10.0,), lookahead=(1,), every_steps=(4,))
        for full in (True, False):
            found = cells((256,), (2,), asked, full=full)
            assert all(one.nearest in found for one in found)

    def test_what_is_too_large_or_too_slow_is_left_out_and_named(self) -> None:
        fits = Cell(256, 2, NEAR)
        large, slow = Cell(4096, 64, NEAR), Cell(4096, 2, Distance(100.0, 10.0))
        assert why_left_out(fits, most_mib=512) is None
        measured, left_out = kept([fits, large, slow], most_mib=512)
        assert measured == [fits]
        assert "MiB" in left_out[str(large)] and "s of transfer" in left_out[str(slow)]


def test_the_time_of_steps_ahead_is_that_of_steps_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is under way at the end of the steps that count was so at their beginning."""
    did: list[str] = []

    class Noted(simulated._Exchanging):
        def step(self, number: int) -> float:
            did.append(f"step {number}, {len(self._published)} under way")
            return super().step(number)

        def settle(self) -> None:
            did.append("settle")
            super().settle()

    monkeypatch.setattr(simulated, "_Exchanging", Noted)
    settings = settings_of(1, 3)
    with coordinator_of(settings, 4) as host:
        here = PeersHere()
        here.open(
            peers=list(settings.peers),
            address=host.address,
            batch_size=4,
            warm_up=1,
            steps=2,
            lookahead=1,
        )
        with monkeypatch.context() as patch:
            patch.setattr(simulated.time, "perf_counter", lambda: float(len(did)))
            done = Done(**here.go())
        here.close()
    first = ["step 0, 0 under way", "step 1, 1 under way", "step 2, 1 under way"]
    assert did == [*first, "settle"]
    assert done.step_s == [1.0], "one entry of `did` for each step"


def test_a_round_has_several_hundred_contributions() -> None:
    assert all(steps_for(320, peers) * peers >= 320 for peers in (2, 8, 64))


def test_peers_are_dealt_evenly() -> None:
    assert dealt(["a", "b", "c"], 2) == [["a", "c"], ["b"]]
    assert dealt(["a"], 4) == [["a"]]


@pytest.mark.parametrize(("lookahead", "every_steps"), [(0, 1), (1, 1), (0, 2), (1, 2)])
def test_simulated_peers_exchange_as_sessions_do(lookahead: int, every_steps: int) -> None:
    settings = settings_of(2, 6, every_steps)
    with coordinator_of(settings, 4) as host:
        here = PeersHere()
        here.open(
            peers=list(settings.peers),
            address=host.address,
            batch_size=4,
            warm_up=2,
            steps=4,
            lookahead=lookahead,
            every_steps=every_steps,
        )
        done = Done(**here.go())
        closed_before = host.ask(lambda coordinator: coordinator.next_open_step)
        here.close()
    assert closed_before == 6
    assert len(done.step_s) == 2 and len(done.exchange_s) == 8


def test_rows_have_a_spread_over_rounds_and_both_clocks() -> None:
    cell = Cell(256, 2, Distance(100.0, 0.0), lookahead=1)
    slow = Round([Done([0.2, 0.3], [0.1] * 8, 0.001)], 8, Took(0.08, 1.0))
    fast = Round([Done([0.1, 0.15], [0.05] * 8, 0.002)], 8, Took(0.04, 1.0))
    alone = exchanges_row(cell, [slow, fast])
    assert alone["median_ms"] == {"median": 75.0, "min": 50.0, "max": 100.0}
    assert alone["coordinator_cpu_ms"]["max"] == 10.0
    row = steps_row(cell, [slow, slow], [(slow, fast), (slow, fast)])
    assert row["round_trip_ms"] == 100.0 and row["lookahead"] == 1
    assert row["speed_of_nearest"]["median"] == 0.5
    assert row["peer_cpu_ms"]["median"] == 1.0
    assert steps_row(cell, [slow], [])["speed_of_nearest"] is None, "the nearest has failed"


def test_what_a_peer_does_is_not_on_the_coordinators_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    running: list[bool] = []

    def watched(work):
        running.append(True)
        took = clocked(work)
        running.pop()
        return took

    class AtThePeer:
        def __init__(self, request):
            self._request = request
            self.ticket = request.ticket
            self.num_written = 0

        def SerializeToString(self):
            assert not running
            self.num_written += 1
            return self._request.SerializeToString()

    monkeypatch.setattr(coordinator, "clocked", watched)
    made = coordinator.Calls(4, 2, 2)
    made.requests = {peer: AtThePeer(one) for peer, one in made.requests.items()}
    assert made.do_step().wall_s > 0
    assert made.do_step().cpu_s > 0
    assert [one.num_written for one in made.requests.values()] == [2, 2]


def test_calls_and_copies_are_counted_by_contribution() -> None:
    assert coordinator.in_calls(4, 2, 3).wall_s > 0
    assert coordinator.in_copies(4, 2, 3).wall_s > 0
    row = coordinator.row("calls", 256, 2, 160, [Took(0.001, 0.002), Took(0.002, 0.004)])
    assert row["contributions"] == 320
    assert row["per_cpu_s"]["max"] == 1000.0 and row["per_wall_s"]["min"] == 250.0


@pytest.fixture(scope="module")
def workers() -> Iterator[Workers]:
    with Workers("benchmarks.simulated", 1) as started:
        yield started


@pytest.mark.grpc
def test_peers_in_a_process_of_their_own_do_one_job_after_the_other(workers: Workers) -> None:
    for turn in (coordinator.in_echo, coordinator.in_grpc, coordinator.in_echo):
        assert turn(workers, 4, 2, 3).wall_s > 0


@pytest.mark.grpc
def test_a_worker_that_ends_is_an_error() -> None:
    with (
        Workers("benchmarks.turns", 1) as workers,  # it serves nobody, and ends at once
        pytest.raises(RuntimeError, match="has ended in go"),
    ):
        workers.call("go", [{}])


@pytest.mark.grpc
def test_a_worker_that_has_ended_is_there_again_for_the_next_turn() -> None:
    with Workers("benchmarks.simulated", 1) as workers:
        with pytest.raises(RuntimeError, match="has ended in open"):
            workers.call("open", [{"no such": "argument"}])
        assert coordinator.in_echo(workers, 4, 2, 3).wall_s > 0
