"""A loop that notices when its process did not run."""

from __future__ import annotations

from dogo_fed.coordination.standstill import Standstill


def test_ordinary_pauses_are_none() -> None:
    standstill = Standstill(100.0)
    assert [standstill.lasted_s(100.0 + now_s) for now_s in (0.0, 1.0, 3.5, 13.0)] == [0.0] * 4


def test_a_long_pause_is_told_once_with_its_length() -> None:
    standstill = Standstill(100.0)
    assert standstill.lasted_s(101.0) == 0.0
    assert standstill.lasted_s(141.0) == 40.0
    assert standstill.lasted_s(142.0) == 0.0


def test_a_clock_that_is_set_back_is_no_pause() -> None:
    assert Standstill(100.0).lasted_s(50.0) == 0.0
