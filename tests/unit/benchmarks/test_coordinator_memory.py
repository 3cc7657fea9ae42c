"""The memory of a coordinator: a leak is seen, also one that is small beside what the process has."""

from __future__ import annotations

import pytest

from benchmarks import coordinator_memory, page

KEPT = 50 * 1024
STEPS = 2000
"""Peers report once a second, so a run has to take several for its memory to grow step by step."""


@pytest.mark.parametrize("leaks", [0, KEPT])
def test_a_planted_leak_is_seen(leaks: int) -> None:
    grown = coordinator_memory.measure(16, STEPS, leaks)
    assert grown["samples"][0]["steps"] == 0, "from before the first step"
    assert grown["samples"][-1]["steps"] == STEPS
    per_step = 2 * leaks / 1024  # two peers report
    assert grown["kib_per_step"] == pytest.approx(per_step, rel=0.5, abs=20)
    if leaks:
        assert not grown["is_flat"]


@pytest.mark.parametrize(("kib", "is_flat"), [(0.0, True), (0.4, True), (0.6, False)])
def test_the_slope_is_judged_once_the_memory_has_settled(kib: float, is_flat: bool) -> None:
    samples = [{"steps": 0, "rss_mib": 100.0}]
    samples += [
        {"steps": step, "rss_mib": 180.0 + kib * step / 1024} for step in range(5000, 24001, 1000)
    ]
    grown = {"samples": samples, **coordinator_memory.judged(samples)}
    assert (grown["is_flat"], grown["kib_per_step"]) == (is_flat, kib)
    written = page.coordinator({"rows": [], "long_run": grown})
    assert ("IT GROWS" in written) is not is_flat and "100 MiB before it" in written
