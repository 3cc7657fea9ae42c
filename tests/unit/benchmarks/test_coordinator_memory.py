"""The memory of a coordinator: a leak is seen, also one that is small beside what the process has."""

from __future__ import annotations

import pytest

from benchmarks import coordinator_memory, page

BATCH_SIZE = 64
MATRIX_BYTES = 4 * BATCH_SIZE**2
STEPS = 2000
"""Peers report once a second, so a run has to take several for its memory to grow step by step."""


@pytest.mark.parametrize("leaks", [0, MATRIX_BYTES // 2])
def test_the_smallest_leak_is_seen_and_without_one_there_is_none(leaks: int) -> None:
    """The smallest is one matrix of a step; two peers report, and each report keeps a half."""
    grown = coordinator_memory.measure(BATCH_SIZE, STEPS, leaks)
    assert grown["samples"][0]["steps"] == 0, "from before the first step"
    assert grown["samples"][-1]["steps"] == STEPS
    matrices = 1024 * grown["kib_per_step"] / MATRIX_BYTES
    if leaks:
        assert 0.5 < matrices < 1.5 and not grown["is_flat"]
    else:
        assert abs(matrices) < 0.25


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
