"""Runs a configuration in the host that it names."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from pathlib import Path

from dogo_fed.config import Host, RunConfig
from dogo_fed.engine.loaded_run import LoadedRun
from dogo_fed.errors import ConfigError
from dogo_fed.reporting.sink import Sink
from dogo_fed.reporting.summary import RunSummary
from dogo_fed.run.local import run_local
from dogo_fed.run.prepare import prepare
from dogo_fed.run.train import RunHost, conduct
from dogo_fed.storage.run_folder import RunFolder
from server.coordinator.host import CoordinatorHost
from server.hosts.supervisor import PeerLauncher, Supervisor


def launch(
    config: RunConfig, on_folder: Callable[[Path], None] = lambda folder: None
) -> RunSummary:
    """Runs `config` in the host that it names, and returns the summary.

    Args:
        config: the run.
        on_folder: is told the run folder as soon as there is one.

    Raises:
        ConfigError, DataError, StartError: before anything has started.
        DogoError: a peer could not go on; the run folder holds what was done until then.
    """
    if config.host not in _HOSTS:
        raise ConfigError(_not_here(config))
    return conduct(prepare(config), _HOSTS[config.host], on_folder)


def _not_here(config: RunConfig) -> str:
    """Returns why a host can't run here, and the command that runs it."""
    name = config.host.value
    if config.resume is None:
        what = f"`dogo-fed {name}` and the same settings without host"
    else:
        what = f"`dogo-fed {name} {shlex.quote(f'resume={config.resume}')}`"
    return f"host={name} has a command of its own; type {what}"


def _run_processes(
    run: LoadedRun, folder: RunFolder, sink: Sink, stop_requested: Callable[[], bool]
) -> None:
    from server.hosts.processes import ProcessLauncher

    _supervise(run, folder, sink, ProcessLauncher(run.config), stop_requested)


def _run_ray(
    run: LoadedRun, folder: RunFolder, sink: Sink, stop_requested: Callable[[], bool]
) -> None:
    # Ray is imported only where it is used: that takes a second, and the other hosts do without it.
    from server.hosts.ray_actors import RayLauncher, ray_cluster

    config = run.config
    with ray_cluster(config.ray, len(run.peer_ids)):
        launcher = RayLauncher(config, run.peer_ids, folder.run_id)
        try:
            _supervise(run, folder, sink, launcher, stop_requested)
        finally:
            launcher.release()


def _supervise(
    run: LoadedRun,
    folder: RunFolder,
    sink: Sink,
    launcher: PeerLauncher,
    stop_requested: Callable[[], bool],
) -> None:
    with CoordinatorHost.of(run, folder, sink, launcher.listen_address) as coordinator:
        Supervisor(run, folder, launcher, coordinator, stop_requested).run()


_HOSTS: dict[Host, RunHost] = {
    Host.LOCAL: run_local,
    Host.PROCESSES: _run_processes,
    Host.RAY: _run_ray,
}
