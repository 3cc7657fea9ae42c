"""The run folder: made for a new run, found again for a run that goes on."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from dogo_fed.atomic import write_atomic
from dogo_fed.config import RunConfig
from dogo_fed.config_text import to_yaml
from dogo_fed.contracts import PeerId
from dogo_fed.errors import CheckpointError, ConfigError
from dogo_fed.storage.checkpoint import latest_common_step
from dogo_fed.storage.peer_folder import PeerFolder
from dogo_fed.trust import remember_run

RUNS = Path("runs")


@dataclass(frozen=True, slots=True)
class RunFolder:
    """One run on disk.

    Attributes:
        path: the folder, absolute.
        run_id: the folder's name.
        checkpoint_step: the step whose checkpoints the run goes on from; None is the beginning.
        is_resumed: whether the run was started before.
        earlier_config: the text of config.yaml before the run went on; empty for a new run.
    """

    path: Path
    run_id: str
    checkpoint_step: int | None
    is_resumed: bool
    earlier_config: str = ""

    @property
    def first_step(self) -> int:
        """The step that the run goes on with."""
        return self.checkpoint_step or 0

    def put_config_back(self) -> None:
        """Gives config.yaml the content that it had before the run went on."""
        write_atomic(self.path / "config.yaml", self.earlier_config)

    @property
    def metrics(self) -> Path:
        """The file of all records, one JSON object on each line."""
        return self.path / "metrics.jsonl"


def create(config: RunConfig) -> RunFolder:
    """Makes the folder of a new run and writes its config.yaml.

    Raises:
        ConfigError: the folder exists and is not empty, or can't be made.
    """
    path = make_empty(config)
    _write_settings(path, config)
    return RunFolder(path=path, run_id=path.name, checkpoint_step=None, is_resumed=False)


def make_empty(config: RunConfig) -> Path:
    """Returns the absolute path of a new run's folder, which is empty; makes it if needed.

    Raises:
        ConfigError: the folder exists and is not empty, or can't be made.
    """
    if config.run_dir is None:
        return _free_folder("+".join(config.peers)[:60])
    path = Path(config.run_dir).resolve()
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise ConfigError(
            f"run_dir={config.run_dir} exists already; go on with that run by "
            f"resume={config.run_dir}, or choose another folder"
        )
    _make(path)
    return path


def reopen(folder: str, config: RunConfig, total_steps: int) -> RunFolder:
    """Returns the folder of an earlier run, with the latest step that all peers have saved.

    Nothing is removed here. Each peer removes its later checkpoints after it has loaded that of the
    common step (`engine.open`), so a start that fails earlier loses nothing.

    Raises:
        CheckpointError: some peers have checkpoints, but no step in common.
    """
    path = Path(folder).resolve()
    stores = {name: PeerFolder(path, PeerId(name)).checkpoints for name in config.peers}
    common = latest_common_step(stores.values())
    if common is None and all(store.steps() for store in stores.values()):
        found = "; ".join(f"{name}: {_listed(store.steps())}" for name, store in stores.items())
        raise CheckpointError(
            f"the peers in {path} have no readable checkpoint of the same step ({found}); raise "
            "checkpoint.keep in a new run"
        )
    if common is not None and common > total_steps:
        raise ConfigError(
            f"resume={folder}: the run has done {common} steps already, so it can't end after "
            f"{total_steps}; give steps={common} or more, or more rounds"
        )
    settings = path / "config.yaml"
    earlier = settings.read_text(encoding="utf-8") if settings.is_file() else to_yaml(config)
    _write_settings(path, config)
    return RunFolder(
        path=path,
        run_id=path.name,
        checkpoint_step=common,
        is_resumed=True,
        earlier_config=earlier,
    )


def _write_settings(path: Path, config: RunConfig) -> None:
    """Writes config.yaml, which is this user's own from now on."""
    text = to_yaml(config)
    write_atomic(path / "config.yaml", text)
    remember_run(text, config)


def _make(path: Path) -> None:
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"the run folder {path} can't be made: {error}") from error


def _free_folder(name: str) -> Path:
    """Returns a new folder runs/<name>-<time>, with a number if two runs start in one second."""
    stamp = time.strftime("%Y%m%d-%H%M%S")
    _make(RUNS)
    for attempt in range(1, 1000):
        suffix = "" if attempt == 1 else f"-{attempt}"
        path = (RUNS / f"{name}-{stamp}{suffix}").resolve()
        try:
            path.mkdir()
        except FileExistsError:
            continue
        except OSError as error:
            raise ConfigError(f"the run folder {path} can't be made: {error}") from error
        return path
    raise ConfigError(f"no free folder name for this run in {RUNS.resolve()}")


def _listed(steps: list[int]) -> str:
    return ", ".join(str(step) for step in steps) or "none"
