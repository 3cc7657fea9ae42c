"""Runs cells as Ray tasks, on any node with a free core and, if there are GPUs, a free GPU."""

from __future__ import annotations

from typing import Any

import ray
from ray.exceptions import GetTimeoutError, RayError, TaskCancelledError

from clients.ray.failures import cause_of
from clients.ray.room import gpus_per_peer, live_nodes, num_fitting
from dogo_fed.compare.experiment import Cell
from dogo_fed.config import RunConfig
from dogo_fed.exit_status import EXIT_STOPPED
from dogo_fed.process_setup import thread_environment
from server.comparison.cell import CellJob, run_cell
from server.comparison.cell_loop import CellEnding, newest_of, signs_of_life

_AT_MOST = 1000
_GET_WITHIN_S = 60.0


class RayCellHandle:
    """A cell's task."""

    def __init__(self, task: Any, cell: Cell) -> None:
        self._task = task
        self._signs = signs_of_life(cell.folder)

    def ending(self) -> CellEnding | None:
        """Returns how it ended, or None while it runs."""
        ready, _ = ray.wait([self._task], timeout=0)
        if not ready:
            return None
        try:
            status, message = ray.get(ready[0], timeout=_GET_WITHIN_S)
        except TaskCancelledError:
            return CellEnding(EXIT_STOPPED, "stopped by the user")
        except (RayError, GetTimeoutError) as error:
            return CellEnding(-1, f"its task died: {cause_of(error)}")
        return CellEnding(int(status), str(message))

    def last_word_s(self) -> float:
        """Returns when one of its files was last written; all nodes must see the same storage."""
        return newest_of(self._signs)

    def stop(self) -> None:
        """Interrupts it as Ctrl-C would, so that it saves itself."""
        ray.cancel(self._task, force=False)

    def kill(self) -> None:
        """Kills it."""
        ray.cancel(self._task, force=True)


class RayCells:
    """Starts cells as tasks. Ray never retries a task; the same command goes on with its folder."""

    def __init__(self, config: RunConfig) -> None:
        self._cpus = config.ray.cpus_per_peer * config.threads_per_peer
        self._gpus = gpus_per_peer(config.ray, 1)
        self._environment = thread_environment(config.threads_per_peer)

    @property
    def room(self) -> int:
        """The number of cells that the cluster has room for at a time, at least 1."""
        return max(1, sum(self._fitting(node["Resources"]) for node in live_nodes()))

    def start(self, cell: Cell, job: CellJob) -> RayCellHandle:
        """Starts a cell."""
        run = ray.remote(
            num_cpus=self._cpus,
            num_gpus=self._gpus,
            max_retries=0,
            max_calls=1,  # a new process: thread counts and deterministic kernels are per process
            runtime_env={"env_vars": self._environment},
        )(run_cell)
        return RayCellHandle(run.options(name=cell.id).remote(job.to_json()), cell)

    def _fitting(self, resources: dict[str, float]) -> int:
        """Returns how many cells a node has room for; a fraction of a GPU does not span two."""
        cpus, gpus = resources.get("CPU", 0.0), resources.get("GPU", 0.0)
        by_cpu = int(cpus / self._cpus) if self._cpus else _AT_MOST
        return min(by_cpu, num_fitting(gpus, self._gpus)) if self._gpus else by_cpu
