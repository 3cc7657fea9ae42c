"""Flower's ServerApp: the same run as in other hosts, with peers behind Flower's nodes.

Flower's messages carry the life cycle: which node has which peer, start, rounds, state and end. The
steps go to the coordinator's gRPC service in this process or, with exchange=flower, travel in
Flower's messages too.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from configs.compose import compose_run
from configs.resume import resumed
from configs.shorthand import in_full
from dogo_fed.config import RunConfig
from dogo_fed.contracts import Event, EventKind, PeerId
from dogo_fed.engine.loaded_run import LoadedRun
from dogo_fed.errors import ConfigError, DogoError, Stopped, own_failure
from dogo_fed.reporting.sink import Sink, TeeSink
from dogo_fed.reporting.summary import RunSummary, print_summary
from dogo_fed.run.prepare import prepare
from dogo_fed.run.train import conduct
from dogo_fed.storage.going_on import FarCheckpoints
from dogo_fed.storage.run_folder import RunFolder
from server.coordinator.host import CoordinatorHost
from server.flower.checkpoints import ask_checkpoints
from server.flower.fleet import FlowerFleet
from server.flower.nodes import find_nodes
from server.flower.run_config import read_run_config
from server.hosts.supervisor import Supervisor
from server.terminal_log import log_to_terminal

logger = logging.getLogger(__name__)

app = ServerApp()

_END_WELL_WITHIN_S = 60.0


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Runs what Flower's run configuration describes, and prints the summary.

    Raises:
        DogoError: it can't be run, or a peer could not go on. Flower then marks the run as failed.
    """
    log_to_terminal()
    try:
        summary = run(grid, context.run_config)
    except DogoError as error:
        logger.error("dogo-fed: %s", error)
        if own_failure(error) is None:
            logging.getLogger("flwr").addFilter(_without_traceback)
        raise
    print_summary(summary)


def _without_traceback(record: logging.LogRecord) -> bool:
    """Takes the traceback from what Flower says of an error whose sentence has been said.

    Flower logs the traceback of whatever ends an app, as a part of a line or as a line of its own. That
    of a user's own code stays, since it is what he looks for.
    """
    record.exc_info = record.exc_text = None
    return not str(record.msg).startswith("Traceback ")


def run(grid: Grid, run_config: Mapping[str, object]) -> RunSummary:
    """Carries out the run and returns the content of summary.json.

    Raises:
        DogoError: see `main`.
    """
    config = configuration(run_config)
    sites: set[PeerId] = set()
    with _stop_before_exit() as stop_asked:

        def ask_sites(run_id: str) -> Mapping[PeerId, FarCheckpoints] | None:
            """Returns what the sites keep of a run; None if the peers are simulated.

            Raises:
                StartError: a site does not answer.
                Stopped: the user asked for an end.
            """
            peers = tuple(PeerId(name) for name in sorted(config.peers))
            within_s = config.exchange.join_deadline_s
            nodes = find_nodes(grid, peers, within_s, stop_asked)
            if nodes is None:
                raise Stopped(
                    "stopped by the user before every peer had a Flower node; the run is as it was"
                )
            if not all(node.is_site for node in nodes.values()):
                return None
            return ask_checkpoints(grid, nodes, run_id, within_s, stop_asked)

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
            if nodes is None:
                why = "stopped by the user before every peer had a Flower node"
                sink.emit(Event(kind=EventKind.STOPPED, message=why, step=folder.first_step))
                return
            sites.update(peer for peer, node in nodes.items() if node.is_site)
            if not any(node.is_site for node in nodes.values()):
                from server.hosts.ray_actors import warn_if_open

                warn_if_open()
            fleet = FlowerFleet(grid, prepared, folder.run_id, nodes)
            heard = TeeSink(sink, fleet.steps)
            try:
                with CoordinatorHost.of(
                    prepared, folder, heard, fleet.listen_address, fleet.serve
                ) as coordinator:
                    Supervisor(prepared, folder, fleet, coordinator, stop).run()
            finally:
                fleet.release()

        return conduct(prepare(config), host, ask_far_peers=ask_sites, sites=lambda: sites)


def configuration(run_config: Mapping[str, object]) -> RunConfig:
    """Returns the checked settings in Flower's run configuration.

    Raises:
        ConfigError: they compose to nothing that can be run, or a path is not absolute.
    """
    overrides = in_full(["host=flower", *read_run_config(run_config)], is_elsewhere=True)
    config = compose_run(overrides)
    _check_absolute("run_dir", config.run_dir)
    _check_absolute("resume", config.resume)
    _check_absolute("anchors", config.anchors)
    return config if config.resume is None else resumed(config, overrides)


def _check_absolute(key: str, path: str | None) -> None:
    if path is not None and not Path(path).is_absolute():
        raise ConfigError(
            f"{key}={path} must be an absolute path here: Flower's server process works in another "
            "folder than you do"
        )


@contextmanager
def _stop_before_exit() -> Iterator[Callable[[], bool]]:
    """Yields a function that tells whether Flower is about to end this process, or has died.

    In simulation the app runs in a thread, and Flower's main thread takes the signals: it runs exit
    handlers before the process ends. Our handler asks for a stop, and waits until the peers have
    saved themselves. If the parent process dies, that is a stop too, since no process is left that
    would report the run's end. In a deployment the app has the main thread and takes the signals
    itself, and messages fail if Flower dies.
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
