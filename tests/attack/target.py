"""The attacked process: a run with its coordinator, its folder, its log and its end.

`python -m tests.attack.target FOLDER HOST [patient]` writes FOLDER.ready.json when peers can reach
it, ends the run when its standard input closes, and prints the summary as a command would. With the
host "processes" it starts no peers. With "ray" it starts all of them in actors on a Ray of its own
but the last, whose seat is the insider's. With "patient" the coordinator never tells a peer to wait,
so that every message is read.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path

from configs.compose import compose_run
from dogo_fed.assignment import Assignment
from dogo_fed.atomic import write_json_atomic
from dogo_fed.config import RunConfig
from dogo_fed.contracts import Ending, Outcome, PeerId
from dogo_fed.engine.loaded_run import LoadedRun
from dogo_fed.reporting.sink import Sink
from dogo_fed.reporting.summary import print_summary
from dogo_fed.run.prepare import prepare
from dogo_fed.run.train import conduct
from dogo_fed.storage.run_folder import RunFolder
from server.coordinator import calls
from server.coordinator.host import CoordinatorHost
from server.hosts.supervisor import PeerHandle, PeerLauncher, Supervisor
from server.terminal_log import log_to_terminal

SETTINGS = (
    "peers=trio",
    "data=synthetic",
    "data.options.size=96",
    "data.options.test_size=32",
    "steps=1000000",
    "steps_per_round=1000",
    "batch_size=16",
    "eval.knn_k=5",
)
HOSTS = {
    "processes": ("host=processes", "exchange.deadline_s=1"),
    "ray": (
        *("host=ray", "ray.gpus_per_peer=0", "device=cpu"),
        *("exchange.deadline_s=5", "eval.linear=false"),
    ),
}


def configuration(folder: Path, host: str = "processes") -> RunConfig:
    """Returns the settings of the attacked run."""
    return compose_run([*SETTINGS, *HOSTS[host], f"run_dir={folder}"])


class EmptySeat:
    """In place of a peer's process: there is none, until the run ends."""

    def __init__(self, is_over: Callable[[], bool]) -> None:
        self._is_over = is_over

    def where(self) -> str:
        """Returns who may take it."""
        return "a seat for the insider"

    def ending(self) -> Ending | None:
        """Returns that it has stopped, when the run is to end."""
        return Ending(Outcome.STOPPED) if self._is_over() else None

    def kill(self) -> None:
        """Has nothing to kill."""


class AllButOne:
    """Starts peers by another launcher; the seat of one of them stays empty."""

    def __init__(self, launcher: PeerLauncher, empty: PeerId, is_over: Callable[[], bool]) -> None:
        self._launcher = launcher
        self._empty = empty
        self._is_over = is_over
        self.listen_address = launcher.listen_address
        self.wait = launcher.wait

    def start(self, peer: PeerId, number: int, assignment: Assignment) -> PeerHandle:
        """Starts a process for `peer`, unless it is the one that has none."""
        if peer == self._empty:
            return EmptySeat(self._is_over)
        return self._launcher.start(peer, number, assignment)


def main() -> None:
    """Runs the target until its standard input closes."""
    folder, host_name = Path(sys.argv[1]), sys.argv[2]
    if "patient" in sys.argv[3:]:
        calls._MORE_REFUSALS_PER_S = 1e9
    log_to_terminal()
    over = threading.Event()
    threading.Thread(target=_watch_input, args=(over,), daemon=True).start()

    def tell(run: LoadedRun, run_folder: RunFolder, coordinator: CoordinatorHost) -> None:
        told = {
            "address": coordinator.address,
            "run_id": run_folder.run_id,
            "credentials": {peer: coordinator.credential_of(peer) for peer in run.peer_ids},
        }
        write_json_atomic(f"{folder}.ready.json", told)

    def without_peers(
        run: LoadedRun, run_folder: RunFolder, sink: Sink, stop_requested: Callable[[], bool]
    ) -> None:
        with CoordinatorHost.of(run, run_folder, sink, lambda: "127.0.0.1") as coordinator:
            tell(run, run_folder, coordinator)
            over.wait()

    def on_ray(
        run: LoadedRun, run_folder: RunFolder, sink: Sink, stop_requested: Callable[[], bool]
    ) -> None:
        from server.hosts.ray_actors import RayLauncher, ray_cluster

        *honest, insider = run.peer_ids
        with ray_cluster(run.config.ray, len(honest)):
            launcher = RayLauncher(run.config, tuple(honest), run_folder.run_id)
            seats = AllButOne(launcher, insider, over.is_set)
            try:
                with CoordinatorHost.of(
                    run, run_folder, sink, launcher.listen_address
                ) as coordinator:
                    tell(run, run_folder, coordinator)
                    Supervisor(run, run_folder, seats, coordinator, over.is_set).run()
            finally:
                launcher.release()

    host = on_ray if host_name == "ray" else without_peers
    print_summary(conduct(prepare(configuration(folder, host_name)), host))


def _watch_input(over: threading.Event) -> None:
    while os.read(0, 4096):  # not sys.stdin, whose lock would block the interpreter's exit
        pass
    over.set()


if __name__ == "__main__":
    main()
