"""Whether the memory of a coordinator grows: its service in a process of its own, with peers that report.

`benchmarks.coordinator --long` asks for it. The process has done nothing before. One that has carried large
batches keeps what malloc has freed, and a leak would hide in that for hours.
"""

from __future__ import annotations

import multiprocessing
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from statistics import linear_regression
from typing import Any

import psutil

from benchmarks.simulated import Job, coordinator_of, let_go, settings_of
from benchmarks.workers import Workers
from dogo_fed.contracts import Record, StepReport
from dogo_fed.reporting.sink import Sink, TeeSink
from server.coordinator.host import CoordinatorHost

FLAT_KIB = 0.5
"""So many KiB a step at most, and the memory is called flat: 12 MiB in 24,000 steps."""

_NUM_PEERS = 2
_SETTLED = 0.2
"""Share of the steps before which the memory is still being filled: buffers, threads, pages."""
_SAMPLES = 50
_LOOKS_EVERY_S = 0.02


class _Keeping(Sink):
    """Keeps so many bytes of each report of a step: a planted leak."""

    def __init__(self, num_bytes: int) -> None:
        self._num_bytes = num_bytes
        self._kept: list[bytearray] = []

    def emit(self, record: Record) -> None:
        """Keeps them."""
        if self._num_bytes and isinstance(record, StepReport):
            self._kept.append(bytearray(b"\1") * self._num_bytes)


def measure(batch_size: int, steps: int, leaks_bytes: int = 0) -> dict[str, Any]:
    """Returns what became of the memory in a run of two peers.

    Args:
        batch_size: images of a step.
        steps: how many there are.
        leaks_bytes: planted by a test: what is kept of each report.

    Returns:
        `samples`: resident MiB by step, the first from before step 0; `kib_per_step`: their slope
        once it has settled; `is_flat`.
    """
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(max_workers=1, mp_context=context) as process:
        return process.submit(measure_here, batch_size, steps, leaks_bytes).result()


def measure_here(batch_size: int, steps: int, leaks_bytes: int) -> dict[str, Any]:
    """Does what `measure` says, in this process."""
    settings, sink = settings_of(_NUM_PEERS, steps), TeeSink(_Keeping(leaks_bytes))
    with (
        Workers("benchmarks.simulated", _NUM_PEERS) as workers,
        coordinator_of(settings, batch_size, sink) as host,
    ):
        job = Job(list(settings.peers), host.address, batch_size, 0, steps, reports=True)
        watch = _Watch(host, max(1, steps // _SAMPLES))
        with watch:
            let_go(workers, job)
    return {"samples": watch.samples, **judged(watch.samples)}


def judged(samples: Sequence[Mapping[str, float]]) -> dict[str, Any]:
    """Returns by how much the memory grows with each step, once it has settled."""
    first = _SETTLED * samples[-1]["steps"]
    late = [one for one in samples if one["steps"] >= first]
    slope, _ = linear_regression(
        [one["steps"] for one in late], [1024 * one["rss_mib"] for one in late]
    )
    return {"kib_per_step": round(slope, 3), "is_flat": slope <= FLAT_KIB}


def told(grown: Mapping[str, Any]) -> str:
    """Returns what was found, in a sentence."""
    first, last = grown["samples"][0], grown["samples"][-1]
    return (
        f"memory of a run of {last['steps']:,} steps: {first['rss_mib']:.0f} MiB before it, "
        f"{last['rss_mib']:.0f} MiB at its end; {grown['kib_per_step']:g} KiB a step once it has settled: "
        + ("flat" if grown["is_flat"] else "IT GROWS")
    )


class _Watch:
    """Notes the memory of this process beside a coordinator's steps."""

    def __init__(self, host: CoordinatorHost, every_steps: int) -> None:
        self._host, self._every = host, every_steps
        self._process, self._is_over = psutil.Process(), threading.Event()
        self._thread = threading.Thread(target=self._look_again_and_again)
        self.samples: list[dict[str, float]] = []

    def __enter__(self) -> _Watch:
        self._look(0)
        self._thread.start()
        return self

    def __exit__(self, *raised: object) -> None:
        self._is_over.set()
        self._thread.join()
        if raised[0] is None:
            self._look(self._step())

    def _look_again_and_again(self) -> None:
        due = self._every
        while not self._is_over.wait(_LOOKS_EVERY_S):
            step = self._step()
            if step >= due:
                self._look(step)
                due = (step // self._every + 1) * self._every

    def _step(self) -> int:
        return self._host.ask(lambda coordinator: coordinator.next_open_step)

    def _look(self, step: int) -> None:
        mib = self._process.memory_info().rss / 2**20
        self.samples.append({"steps": step, "rss_mib": round(mib, 2)})
