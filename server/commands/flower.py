"""`dogo-fed flower`: its command line, what Flower is told, and the exit status."""

from __future__ import annotations

import os
import signal
import sys
import tempfile
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from rich import get_console

from clients.ray.authentication import ADDRESS, joined_address, own_ray_environment
from configs.compose import compose_run
from configs.overrides import key_of, quoted
from configs.resume import resumed
from configs.shorthand import in_full
from dogo_fed import layout
from dogo_fed.config import RunConfig
from dogo_fed.errors import ConfigError, StartError
from dogo_fed.exit_status import EXIT_FAILED, EXIT_STOPPED, EXIT_UNUSABLE, say
from dogo_fed.packages import PACKAGES, package_folder
from dogo_fed.process_setup import thread_environment
from dogo_fed.reporting.summary import print_summary, read_summary, was_stopped
from dogo_fed.run.stop_signal import STOP_SIGNALS, stop_on_signal
from dogo_fed.storage.run_folder import make_empty
from dogo_fed.text import some_of
from server.commands.going_on import how_to_go_on
from server.flower.other_users import other_users
from server.flower.run_config import write_run_config
from server.flower.superlink import (
    COMPLETED,
    FAILED,
    STOPPED,
    FlowerRun,
    OwnSuperLink,
    RunStatus,
)
from server.process_tree import ProcessTree, process_tree

_HELP = """\
usage: dogo-fed flower [key=value ...]

The same run as `dogo-fed train`, in Flower's simulation: a ClientApp for each peer and a ServerApp
that coordinates them, started by `flwr run` on a Flower and a Ray of its own. Nothing of these is
left when it ends.

  dogo-fed flower peers=trio steps=200 seed=3
  dogo-fed flower exchange=flower       the steps travel in Flower's messages, not over our gRPC
  dogo-fed flower resume=runs/FOLDER    goes on with a run that was stopped

It takes the same settings as `dogo-fed train`, except host; `dogo-fed train --help` lists them.
Ctrl-C ends the run well, a second one at once.
exit status: 0 completed, 1 failed, 2 could not be started, 130 stopped
"""

_OWN_KEYS = ("host", "run_dir", "resume")
_RAY_NOT_STARTED = "The current node timed out during startup"  # Ray's words on a busy machine
_STOP_PATIENCE_S = 90.0
_END_PATIENCE_S = 15.0
_MOST_NAMED = 3


@dataclass(frozen=True, slots=True)
class FlowerRequest:
    """What the command line asks for, checked.

    Attributes:
        config: the run.
        folder: the run folder, absolute.
        overrides: what Flower's processes compose the same run from; paths are absolute.
        is_new_folder: whether it was made for this request.
    """

    config: RunConfig
    folder: Path
    overrides: tuple[str, ...]
    is_new_folder: bool


def main() -> None:
    """Runs what the command line says; leaves the process with a status that tells how it ended."""
    arguments = sys.argv[1:]
    if "-h" in arguments or "--help" in arguments:
        sys.stdout.write(_HELP)
        return
    try:
        app = app_folder(package_folder("server").parent, Path.cwd())
        request = read_request(arguments)
    except ConfigError as error:
        sys.exit(say(error, EXIT_UNUSABLE))
    status = run(request, app)
    if status:
        sys.exit(status)


def read_request(arguments: Sequence[str]) -> FlowerRequest:
    """Returns the checked request, with a run folder if it is a new run.

    Raises:
        ConfigError: a flag, or settings that compose to nothing that can be run.
    """
    arguments = in_full(arguments)
    for argument in arguments:
        if argument.startswith("-"):
            raise ConfigError(
                f"`dogo-fed flower` has no option {argument}; it takes settings (key=value) and --help"
            )
        if key_of(argument) == "host":
            raise ConfigError(f"{argument}: the host of `dogo-fed flower` is always flower")
    kept = [part for part in arguments if key_of(part) not in _OWN_KEYS]
    config = compose_run([*arguments, "host=flower"])
    if config.resume is not None:
        folder = Path(config.resume).resolve()
        config = resumed(config, [*arguments, "host=flower"])
        return FlowerRequest(
            config, folder, (*kept, "host=flower", quoted("resume", str(folder))), False
        )
    is_new = config.run_dir is None or not Path(config.run_dir).exists()
    folder = make_empty(config)
    overrides = (*kept, "host=flower", quoted("run_dir", str(folder)))
    return FlowerRequest(replace(config, run_dir=str(folder)), folder, overrides, is_new)


def app_folder(folder: Path, working_folder: Path) -> Path:
    """Returns the folder with the Flower app, which is the one that our packages are in.

    Args:
        folder: holds our packages.
        working_folder: where the user is; Ray's workers look there for packages first.

    Raises:
        ConfigError: it is no Flower app, or other packages would be taken for its own.
    """
    try:
        project = tomllib.loads((folder / "pyproject.toml").read_text(encoding="utf-8"))
        is_app = "app" in project["tool"]["flwr"]
    except (OSError, ValueError, KeyError, TypeError):
        is_app = False
    if not is_app:
        raise ConfigError(
            f"{folder} has no pyproject.toml with [tool.flwr.app], which an installed wheel lacks; "
            "install from a checkout (pip install -e .)"
        )
    for package in PACKAGES:
        other = working_folder / package
        if other.parent.resolve() != folder and (other / "__init__.py").exists():
            raise ConfigError(
                f"Ray's workers would import package {package!r} from {working_folder}, not from "
                f"{folder}; run from another folder"
            )
    return folder


def federation_config(config: RunConfig, environment: Mapping[str, str], num_cpus: int) -> str:
    """Returns Flower's settings of the simulation: one worker for each peer, on a Ray of that size.

    Flower fills the whole cluster with workers, so on its own Ray each gets its share of the CPUs.
    GPUs are found by Ray and left to the peers. A running cluster has the size it has.
    """
    num_peers = len(config.peers)
    parts = {"num-supernodes": num_peers, "client-resources-num-gpus": 0.0}
    if ray_address(config, environment) is None:
        num_cpus = max(num_cpus, num_peers)
        parts |= {
            "client-resources-num-cpus": num_cpus // num_peers,
            "init-args-num-cpus": num_cpus,
        }
    else:
        parts |= {"client-resources-num-cpus": 1}
    return " ".join(f"{key}={value}" for key, value in parts.items())


def ray_address(config: RunConfig, environment: Mapping[str, str]) -> str | None:
    """Returns the address of the running cluster to use; None for a Ray of its own."""
    return config.ray.address or joined_address(environment)


def child_environment(
    config: RunConfig, environment: Mapping[str, str], working_folder: Path
) -> dict[str, str]:
    """Returns the environment of Flower's processes, and so of Ray's and the peers'.

    Nothing is installed or looked up on the network, the programs found are those of this Python,
    and modules of the user's own are found in the working folder, as `python -m server` finds them.
    A Ray of their own has a token of its own.
    """
    no_proxy = [environment.get("no_proxy", ""), "127.0.0.1", "localhost"]
    python_path = [str(working_folder), environment.get("PYTHONPATH", "")]
    changes: dict[str, str | None] = {
        "COLUMNS": "200",
        "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
        "FLWR_TELEMETRY_ENABLED": "0",
        "RAY_USAGE_STATS_ENABLED": "0",
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), environment.get("PATH", "")]),
        "PYTHONPATH": os.pathsep.join(filter(None, python_path)),
        "PYTHONUNBUFFERED": "1",
        "no_proxy": ",".join(filter(None, no_proxy)),
        **thread_environment(config.threads_per_peer),
    }
    changes["NO_PROXY"] = changes["no_proxy"]
    address = ray_address(config, environment)
    changes |= own_ray_environment() if address is None else {ADDRESS: address}
    changes["FORCE_COLOR"] = None
    changed = {**environment, **changes}
    return {key: value for key, value in changed.items() if value is not None}


def run(request: FlowerRequest, app: Path) -> int:
    """Returns 0, 1 if the run failed, 2 if it could not be started, 130 if the user stopped it."""
    try:
        status, log = _carry_out(request, app)
    except StartError as error:
        return say(error, EXIT_UNUSABLE)
    except KeyboardInterrupt:
        return say(f"ended at once{how_to_go_on(request.folder, 'flower')}", EXIT_STOPPED)
    else:
        ended = report(status, log, request.folder)
        has_begun = not request.is_new_folder or any(request.folder.iterdir())
        return ended if has_begun or ended != EXIT_FAILED else EXIT_UNUSABLE
    finally:
        if request.is_new_folder and not any(request.folder.iterdir()):
            request.folder.rmdir()


def report(status: RunStatus, log: str, folder: Path) -> int:
    """Prints what the run has reached, or why it has not, and returns the exit status.

    Args:
        status: how it ended.
        log: what has been shown; the app may have printed its summary itself.
        folder: the run folder.
    """
    if status.state not in (COMPLETED, STOPPED):
        return say(f"{_why_it_failed(status, folder)}{how_to_go_on(folder, 'flower')}", EXIT_FAILED)
    summary = read_summary(folder)
    if summary is None and status.state == COMPLETED:
        return say(f"the app ended without {folder / layout.SUMMARY}", EXIT_FAILED)
    if summary is not None:
        if not any(line.startswith(f"run {summary['run_id']} ") for line in log.splitlines()):
            print_summary(summary, get_console() if get_console().is_terminal else None)
        sys.stdout.write(f"run folder: {folder}\n")
    if summary is None or status.state == STOPPED or was_stopped(summary):
        return say(f"the run was stopped{how_to_go_on(folder, 'flower')}", EXIT_STOPPED)
    return 0


def _carry_out(request: FlowerRequest, app: Path) -> tuple[RunStatus, str]:
    """Returns how the run ended and its log, and leaves no process behind.

    Raises:
        StartError: it could not be started.
        KeyboardInterrupt: the user wanted it to end at once.
    """
    with (
        tempfile.TemporaryDirectory(prefix="dogo-fed-flower-", ignore_cleanup_errors=True) as home,
        stop_on_signal() as asked_to_stop,
        process_tree() as processes,
        _ended(processes),
    ):
        stop_requested = _announced(asked_to_stop)
        if others := other_users():
            say(
                f"{some_of(others, _MOST_NAMED)} can run code as you while this run goes on, since "
                "Flower's server asks no user of this machine for a key (docs/security.md); "
                "`dogo-fed train` does",
                0,
            )
        environment = child_environment(request.config, os.environ, Path.cwd())
        superlink = OwnSuperLink(Path(home), environment, processes)
        status, log = _attempt(request, app, superlink, Path(home), stop_requested)
        if status.state == FAILED and _RAY_NOT_STARTED in log and not stop_requested():
            say("Ray did not start in time; once more", 0)
            status, log = _attempt(request, app, superlink, Path(home), stop_requested)
        return status, log


def _attempt(
    request: FlowerRequest,
    app: Path,
    superlink: OwnSuperLink,
    home: Path,
    stop_requested: Callable[[], bool],
) -> tuple[RunStatus, str]:
    """Runs the app once; returns how it ended, and its log."""
    run_config, log = home / "run.toml", home / "run.log"
    run_config.write_text(write_run_config(_overrides_now(request)), encoding="utf-8")
    federation = federation_config(request.config, os.environ, os.cpu_count() or 1)
    run = FlowerRun(superlink, log, stop_requested, _STOP_PATIENCE_S)
    status = run.carry_out(app, run_config, federation)
    return status, log.read_text(encoding="utf-8", errors="replace")


def _announced(stop_requested: Callable[[], bool]) -> Callable[[], bool]:
    """Returns a function of the same answer, which says so when it is yes for the first time."""
    said = False

    def asked() -> bool:
        nonlocal said
        if stop_requested() and not said:
            said = True
            say("stopping; the peers save themselves first (Ctrl-C again: at once)", 0)
        return said

    return asked


def _overrides_now(request: FlowerRequest) -> tuple[str, ...]:
    """Returns the overrides of the next attempt: an earlier one may have written config.yaml."""
    if request.config.resume is None and (request.folder / layout.CONFIG).exists():
        return ("host=flower", quoted("resume", str(request.folder)))
    return request.overrides


@contextmanager
def _ended(processes: ProcessTree) -> Iterator[None]:
    """Ends all that was started in the block: politely, or at once if the user is impatient."""
    patience_s = _END_PATIENCE_S
    try:
        yield
    except KeyboardInterrupt:
        patience_s = 0.0
        raise
    finally:
        for number in STOP_SIGNALS:  # it has a deadline of its own
            signal.signal(number, signal.SIG_IGN)
        if left := processes.end(patience_s):
            say(
                f"these processes would not end: {', '.join(str(process.pid) for process in left)}",
                0,
            )


def _why_it_failed(status: RunStatus, folder: Path) -> str:
    """Returns one line: Flower's words, which may say little, and where there are more."""
    log = folder / layout.COORDINATOR_LOG
    places = "the log above" + (f" and {log}" if log.exists() else "")
    return f"{status.details or f'the run ended as {status.state}'} (see {places})"
