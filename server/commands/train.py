"""`dogo-fed train`: reads the command line by Hydra, runs, and returns the exit status."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig
from rich import get_console

from configs.compose import check_overrides, from_omegaconf
from configs.resume import resumed
from configs.shorthand import in_full_for_hydra
from dogo_fed.config import RunConfig
from dogo_fed.errors import ConfigError, DogoError
from dogo_fed.exit_status import EXIT_STOPPED, say, tell, tell_unexpected
from dogo_fed.reporting.summary import print_summary, was_stopped
from server.commands.going_on import how_to_go_on
from server.hosts.launch import launch
from server.terminal_log import log_to_terminal


def main() -> None:
    """Runs what the command line says, and exits with the status of `run`."""
    try:
        sys.argv[1:] = in_full_for_hydra(sys.argv[1:])
        check_overrides(sys.argv[1:])
    except ConfigError as error:
        sys.exit(tell(error))
    _main()


@hydra.main(version_base="1.3", config_path="pkg://configs", config_name="run")
def _main(composed: DictConfig) -> None:
    status = run(composed)
    if status:
        sys.exit(status)


def run(composed: DictConfig) -> int:
    """Returns 0, 1 if the run failed, 2 if it could not be started, 130 if the user stopped it."""
    log_to_terminal()
    folders: list[Path] = []
    try:
        summary = launch(_config(composed), folders.append)
    except (DogoError, OSError) as error:
        return tell(error, _how(folders))
    except Exception as error:
        return tell_unexpected(error, _how(folders))
    except KeyboardInterrupt:
        return say(f"ended at once, without saving what is newer{_how(folders)}", EXIT_STOPPED)
    print_summary(summary, get_console() if get_console().is_terminal else None)
    if not was_stopped(summary):
        return 0
    done, planned = summary["steps_done"], summary["steps"]
    return say(f"stopped after {done} of {planned} steps{_how(folders)}", EXIT_STOPPED)


def _how(folders: Sequence[Path]) -> str:
    return how_to_go_on(folders[0] if folders else None, "train")


def _config(composed: DictConfig) -> RunConfig:
    job = HydraConfig.get()
    config = from_omegaconf(composed, job.overrides.task)
    if config.resume is not None:
        return resumed(config, job.overrides.task)
    if job.mode is RunMode.MULTIRUN and config.run_dir is not None:
        return dataclasses.replace(config, run_dir=str(Path(config.run_dir) / str(job.job.num)))
    return config
