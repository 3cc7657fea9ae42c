"""Flower's ServerApp: the same run as everywhere, with peers behind Flower's nodes.

Flower carries the life cycle: which node has which peer, start, rounds of steps, how it goes, the end.
The steps themselves go to the coordinator's gRPC service, which lives in this process, or, with
exchange=flower, in Flower's messages.
"""

from __future__ import annotations

import logging
import os
import re
import shlex
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from configs.compose import compose_run
from configs.resume import resumed
from dogo_fed.config import RunConfig
from dogo_fed.engine.loaded_run import LoadedRun
from dogo_fed.errors import ConfigError, DogoError
from dogo_fed.reporting.sink import Sink, TeeSink
from dogo_fed.reporting.summary import RunSummary, print_summary
from dogo_fed.run.prepare import prepare
from dogo_fed.run.train import conduct
from dogo_fed.storage.run_folder import RunFolder
from server.coordinator.host import CoordinatorHost
from server.flower.fleet import FlowerFleet
from server.flower.nodes import find_nodes
from server.hosts.supervisor import Supervisor
from server.terminal_log import log_to_terminal

logger = logging.getLogger(__name__)

app = ServerApp()

_PLAIN_KEYS = ("peers", "data", "exchange", "rounds", "steps", "steps-per-round", "seed", "run-dir")
"""Run-config keys that are settings by themselves; 0 and "" leave a setting alone."""

_END_WELL_WITHIN_S = 60.0


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Runs what the run configuration describes.

    Raises:
        DogoError: it can't be run, or a peer could not go on; Flower counts the run as failed.
    """
    log_to_terminal()
    try:
        summary = run(grid, context.run_config)
    except DogoError as error:
        logger.error("dogo-fed: %s", error)
        raise
    print_summary(summary)


def run(grid: Grid, run_config: Mapping[str, object]) -> RunSummary:
    """Carries the run through; returns the content of summary.json."""
    config = configuration(run_config)
    with _stop_before_exit() as stop_asked:

        def host(
            prepared: LoadedRun,
            folder: RunFolder,
            sink: Sink,
            stop_requested: Callable[[], bool],
        ) -> None:
            def stop() -> bool:
                return stop_requested() or stop_asked()

            logger.warning("the run's folder is %s", folder.path)
            nodes = find_nodes(grid, prepared.peer_ids, config.exchange.join_deadline_s, stop)
            fleet = FlowerFleet(grid, prepared, folder.run_id, nodes)
            heard = TeeSink(sink, fleet.steps)
            try:
                with CoordinatorHost.of(
                    prepared, folder, heard, fleet.listen_address, fleet.serve
                ) as coordinator:
                    Supervisor(prepared, folder, fleet, coordinator, stop).run()
            finally:
                fleet.release()

        return conduct(prepare(config), host)


def configuration(run_config: Mapping[str, object]) -> RunConfig:
    """Returns the settings that Flower's run configuration stands for.

    Raises:
        ConfigError: they are none.
    """
    overrides = ["host=flower"]
    for key in _PLAIN_KEYS:
        value = run_config.get(key)
        if value not in (None, 0, ""):
            overrides.append(f"{key.replace('-', '_')}={_quoted(value)}")
    try:
        overrides += shlex.split(str(run_config.get("hydra-overrides", "")))
    except ValueError as error:
        raise ConfigError(f"hydra-overrides can't be split into settings: {error}") from error
    config = compose_run(overrides)
    _check_absolute("run_dir", config.run_dir)
    _check_absolute("resume", config.resume)
    return config if config.resume is None else resumed(config, overrides)


def _check_absolute(key: str, path: str | None) -> None:
    if path is not None and not Path(path).is_absolute():
        raise ConfigError(
            f"{key}={path} must be an absolute path here: Flower's server process works in another "
            "folder than you do"
        )


def _quoted(value: object) -> str:
    """Returns a value as Hydra reads it; a path may have characters that mean something to Hydra."""
    if not isinstance(value, str) or re.fullmatch(r"[\w./-]+", value):
        return str(value)
    return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"


@contextmanager
def _stop_before_exit() -> Iterator[Callable[[], bool]]:
    """Yields a function that says whether Flower is about to end this process, or is gone itself.

    In simulation the app has a thread, and Flower's main thread takes the signals: it runs exit handlers
    before it ends. Ours asks for a stop and holds the end back until the peers have saved themselves.
    If the process that started this one dies, nobody will hear how the run ends: that is a stop too.
    In a deployment the app has the main thread and takes the signals itself, and messages fail.
    """
    asked, ended = threading.Event(), threading.Event()
    parent, is_simulated = os.getppid(), not _is_main_thread()

    def hold_back() -> None:
        asked.set()
        ended.wait(_END_WELL_WITHIN_S)

    if is_simulated:
        try:
            from flwr.supercore.exit import add_exit_handler  # not public: there is no other way
        except ImportError:
            logger.warning("this Flower can't be asked to wait for the peers when it is stopped")
        else:
            add_exit_handler(hold_back, run_before_force_exit=True)
    try:
        yield lambda: asked.is_set() or (is_simulated and os.getppid() != parent)
    finally:
        ended.set()


def _is_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()
