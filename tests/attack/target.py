"""The attacked process: a run with its coordinator, its folder, its log and its end, but no peers.

`python -m tests.attack.target FOLDER [patient]` writes FOLDER.ready.json when peers can reach it,
ends the run when its standard input closes, and prints the summary as a command would. With
"patient" the coordinator never tells a peer to wait, so that every message is read.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

from configs.compose import compose_run
from dogo_fed.atomic import write_json_atomic
from dogo_fed.config import RunConfig
from dogo_fed.engine.loaded_run import LoadedRun
from dogo_fed.reporting.sink import Sink
from dogo_fed.reporting.summary import print_summary
from dogo_fed.run.prepare import prepare
from dogo_fed.run.train import conduct
from dogo_fed.storage.run_folder import RunFolder
from server.coordinator import calls
from server.coordinator.host import CoordinatorHost
from server.terminal_log import log_to_terminal

SETTINGS = (
    "peers=trio",
    "host=processes",
    "data=synthetic",
    "data.options.size=96",
    "data.options.test_size=32",
    "steps=1000000",
    "steps_per_round=1000",
    "batch_size=16",
    "eval.knn_k=5",
    "exchange.deadline_s=1",
)


def configuration(folder: Path) -> RunConfig:
    """Returns the settings of the attacked run."""
    return compose_run([*SETTINGS, f"run_dir={folder}"])


def main() -> None:
    """Runs the target until its standard input closes."""
    folder = Path(sys.argv[1])
    if "patient" in sys.argv[2:]:
        calls._MORE_REFUSALS_PER_S = 1e9
    log_to_terminal()

    def host(
        run: LoadedRun, run_folder: RunFolder, sink: Sink, stop_requested: Callable[[], bool]
    ) -> None:
        with CoordinatorHost.of(run, run_folder, sink, lambda: "127.0.0.1") as coordinator:
            told = {
                "address": coordinator.address,
                "run_id": run_folder.run_id,
                "credentials": {peer: coordinator.credential_of(peer) for peer in run.peer_ids},
            }
            write_json_atomic(f"{folder}.ready.json", told)
            sys.stdin.read()

    print_summary(conduct(prepare(configuration(folder)), host))


if __name__ == "__main__":
    main()
