"""Contestants take turns, and a spread is of what is kept."""

from __future__ import annotations

from functools import partial

import pytest

from benchmarks.turns import Took, both_clocks, clocked, entered, spread, take_turns, told


def test_contestants_take_turns_and_the_warm_up_is_not_kept() -> None:
    order: list[str] = []

    def turn(name: str) -> int:
        order.append(name)
        return len(order)

    found = take_turns({name: partial(turn, name) for name in "ab"}, 2, warm_up=1)
    assert order == ["a", "b"] * 3
    assert found.rounds() == {"a": [3, 5], "b": [4, 6]} and not found.failed


def test_a_turn_that_fails_is_noted_and_the_others_go_on() -> None:
    numbers = iter(range(10))

    def flaky() -> int:
        if (number := next(numbers)) == 1:
            raise RuntimeError("the port is taken\nby another")
        return number

    def broken() -> int:
        raise OSError("no room")

    found = take_turns({"flaky": flaky, "broken": broken, "sound": lambda: 7}, 3)
    assert found.rounds() == {"flaky": [0, 2], "sound": [7, 7, 7]}
    assert found.failed == {
        "flaky": "RuntimeError: the port is taken",
        "broken": "OSError: no room",
    }
    assert found.pairs("flaky", "sound") == [(0, 7), (2, 7)], "only rounds that both have"
    assert found.pairs("flaky", "broken") == []


def test_who_wants_to_stop_can() -> None:
    def stopped() -> int:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        take_turns({"a": stopped}, 1)


def test_a_contestant_that_can_not_be_made_is_left_out_or_noted(
    capsys: pytest.CaptureFixture[str],
) -> None:
    def absent() -> int:
        raise ImportError("No module named 'absent'")

    def broken() -> int:
        raise OSError("no room")

    made, failed = entered({"absent": absent, "broken": broken, "sound": lambda: 7})
    assert (made, failed) == ({"sound": 7}, {"broken": "OSError: no room"})
    assert "absent is left out: No module" in capsys.readouterr().out


def test_work_is_done_as_often_as_it_is_said_and_the_device_waited_for() -> None:
    done: list[str] = []
    took = clocked(lambda: done.append("work"), 3, lambda: done.append("finish"))
    assert done == ["finish", "work", "work", "work", "finish"]
    assert took.wall_s >= 0 and took.cpu_s >= 0


def test_a_spread_keeps_four_digits_of_small_numbers() -> None:
    assert spread([3.0, 1.0, 2.0]) == {"median": 2.0, "min": 1.0, "max": 3.0}
    assert spread([1.23456e-6])["median"] == 1.235e-6
    clocks = both_clocks([Took(1.0, 2.0), Took(3.0, 4.0)])
    assert clocks["cpu"]["max"] == 3.0 and clocks["wall"]["min"] == 2.0
    assert told(spread([1.0, 2.0])) == "1.5 (1 to 2)"
