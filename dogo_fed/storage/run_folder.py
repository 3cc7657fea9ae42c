"""The run folder: made for a new run, found again for a run that goes on."""

from __future__ import annotations

import dataclasses
import os
import shlex
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import TypeAlias

from dogo_fed import layout
from dogo_fed.atomic import atomic_path, remove_partials, room_for, write_atomic
from dogo_fed.config import Host, RunConfig
from dogo_fed.config_text import load_yaml, to_yaml
from dogo_fed.contracts import Event, EventKind, PeerId
from dogo_fed.errors import ConfigError
from dogo_fed.private_files import private_files
from dogo_fed.reporting.sinks.metrics import read_metrics
from dogo_fed.reporting.summary import read_summary
from dogo_fed.scope import fixed_changes, in_words
from dogo_fed.storage.going_on import (
    Checkpoints,
    FarCheckpoints,
    NextExchange,
    StartingPoints,
    believed,
    lost_at_the_end,
    starting_points,
)
from dogo_fed.storage.peer_folder import PeerFolder
from dogo_fed.storage.run_lock import is_unused, told_owner
from dogo_fed.trust import remember_run

RUNS = Path("runs")

_KEPT = f"{layout.METRICS}.before"
"""A copy of metrics.jsonl, from when a start cuts it back until a peer of that start reports."""

_EVENT = b'"type":"event"'
"""What an event's line in metrics.jsonl has in it; within a text it would be escaped."""

AskFarPeers: TypeAlias = Callable[[str], Mapping[PeerId, FarCheckpoints] | None]
"""Asks the peers that are elsewhere for their checkpoints of a run; see `reopen`."""


@dataclass(frozen=True, slots=True)
class RunFolder:
    """One run on disk.

    Attributes:
        path: the folder, absolute.
        run_id: the folder's name.
        is_resumed: whether the run was started before.
        first_step: the step that the run goes on with.
        checkpoints: the step of the checkpoint that each peer goes on from; None, also where a peer
            is not there, is the beginning.
        events: what people should know about how the run goes on.
        earlier: the settings before the run went on; None for a new run.
        earlier_s: the seconds that all earlier starts took.
    """

    path: Path
    run_id: str
    is_resumed: bool
    first_step: int = 0
    checkpoints: Mapping[PeerId, int | None] = field(default_factory=lambda: MappingProxyType({}))
    events: tuple[Event, ...] = ()
    earlier: RunConfig | None = None
    earlier_s: float = 0.0

    def put_config_back(self) -> None:
        """Gives config.yaml the settings that it had before the run went on."""
        if self.earlier is not None:
            _write_config(self.path, self.earlier)

    def keep_records(self) -> None:
        """Copies metrics.jsonl, which is going to be cut back to where the run goes on."""
        with atomic_path(self.path / _KEPT) as partial:
            shutil.copyfile(self.metrics, partial)

    def drop_kept_records(self) -> None:
        """Removes the copy: a peer does its steps again, and reports them."""
        (self.path / _KEPT).unlink(missing_ok=True)

    def put_records_back(self) -> None:
        """Undoes that metrics.jsonl was cut back, unless a peer has reported since."""
        _put_records_back(self.path)

    @property
    def metrics(self) -> Path:
        """The file of all records, one JSON object on each line."""
        return self.path / layout.METRICS


def create(config: RunConfig) -> RunFolder:
    """Makes the folder of a new run and writes its config.yaml.

    Raises:
        ConfigError: the folder exists and is not empty, or can't be made.
    """
    return begin(make_empty(config), config)


def begin(path: Path, config: RunConfig) -> RunFolder:
    """Writes the config.yaml of a new run into its folder, in which no run has begun.

    Raises:
        ConfigError: another run has begun there.
    """
    _check_empty(path)
    remove_partials(path)
    _write_config(path, config)
    return RunFolder(path=path, run_id=path.name, is_resumed=False)


def note_site(path: Path, config: RunConfig, peer: PeerId, *, begins: bool) -> None:
    """Writes what a site's peer is trained with into the site's folder of the run.

    With it, the site can evaluate and export its encoder as anybody does (`load_run_config`), and a
    peer that goes on is held against it. Nobody but the site has its settings.

    Args:
        path: the folder.
        config: the settings of the run, as the site's peer has them.
        peer: the site's; it learns. The others' settings are theirs, and are left out, and so is the
            graph of who teaches whom, which names them.
        begins: whether the peer begins at step 0, so that it may have any settings.

    Raises:
        ConfigError: the peer began with other settings, or the note of them can't be read.
        StorageFull: there is no room for the note.
    """
    note = path / layout.SITE_CONFIG
    kept = dataclasses.replace(
        config,
        peers={peer: config.peers[peer]},
        exchange=dataclasses.replace(config.exchange, graph=None),
        resume=None,
        afresh=False,
        run_dir=str(path),
    )
    if not begins and note.exists():
        changes = fixed_changes(load_yaml(note), kept)
        if changes:
            raise ConfigError(
                f"peer {peer} began this run with other settings of this site: {in_words(changes)}; "
                "give those that it began with, or begin the run again (afresh=true, at the "
                "coordinator)"
            )
    with private_files(), room_for("the site's settings", path):
        path.mkdir(parents=True, exist_ok=True)
        _write_settings(note, kept)


def make_empty(config: RunConfig) -> Path:
    """Returns the absolute path of a new run's folder, which is empty; makes it if needed.

    Raises:
        ConfigError: the folder exists and is not empty, or can't be made.
    """
    if config.run_dir is None:
        return _free_folder("+".join(config.peers)[:60])
    path = absolute(config.run_dir)
    if path.exists():
        _check_empty(path)
    _make(path)
    return path


def absolute(folder: str) -> Path:
    """Returns the absolute path of the folder of a run or a comparison.

    Raises:
        ConfigError: its name is no text, so it can't stand in files and messages.
    """
    path = Path(folder).resolve()
    try:
        str(path).encode()
    except UnicodeEncodeError as error:
        raise ConfigError(
            f"the folder {str(path)!r} has a name that is not UTF-8, and so no text; choose another, or "
            "rename it"
        ) from error
    return path


def reopen(
    path: Path,
    config: RunConfig,
    total_steps: int,
    exchange: NextExchange,
    ask_far_peers: AskFarPeers = lambda run_id: None,
) -> RunFolder:
    """Returns the folder of an earlier run, with the checkpoints that its peers go on from.

    No checkpoint is removed here. Each peer sets its later checkpoints aside after it has loaded
    its own (`engine.open`), so a start that fails earlier loses nothing.

    Args:
        path: the folder, absolute; its lock is held.
        config: the settings that the run goes on with.
        total_steps: the steps of the whole run.
        exchange: which steps exchange, if any do.
        ask_far_peers: for a run's name, returns which checkpoints each peer keeps elsewhere; None if
            it does not keep them elsewhere. Asked if there is nothing of any peer in the folder.

    Raises:
        CheckpointError: there are no checkpoints that the run could go on from.
        ConfigError: the run has done more steps than it is to have.
    """
    where = {name: PeerFolder(path, PeerId(name)) for name in config.peers}
    stores: dict[PeerId, Checkpoints] = {
        PeerId(name): folder.checkpoints for name, folder in where.items()
    }
    for folder in (
        path,
        *(peer_folder.path for peer_folder in where.values()),
        *(peer_folder.checkpoints.folder for peer_folder in where.values()),
    ):
        remove_partials(folder)
    _put_records_back(path)  # the start before this one may have been killed
    metrics = path / layout.METRICS
    records = read_metrics(metrics) if metrics.exists() else []
    events: list[Event] = []
    if not (path / layout.PEERS).exists() and (told := ask_far_peers(path.name)) is not None:
        far, events = believed(told, max(total_steps, _steps_reported(records)))
        stores = {peer: far.get(peer, FarCheckpoints()) for peer in stores}
    command = "flower" if config.host is Host.FLOWER else "train"
    again = f"dogo-fed {command} resume={shlex.quote(str(path))}"
    found = (
        StartingPoints(dict.fromkeys(stores), 0)
        if config.afresh
        else starting_points(
            stores,
            exchange if config.exchanges or config.baseline is not None else None,
            {str(record["peer"]) for record in records if record.get("type") == "step"},
            f"begin the run again at step 0 by: {again} afresh=true (what is there is set aside)",
            lost_at_the_end(records),
        )
    )
    steps = {peer: step or 0 for peer, step in found.checkpoints.items()}
    furthest = max(steps, key=lambda peer: steps[peer])
    done = steps[furthest]
    if done > total_steps:
        raise ConfigError(
            f"resume={config.resume}: the run has done {done} steps already, by what peer {furthest} "
            f"has, so it can't end after {total_steps}; give steps={done} or more, or more rounds"
        )
    settings = path / layout.CONFIG
    earlier = load_yaml(settings) if settings.is_file() else config
    earlier_s = _seconds_so_far(path, records)
    _write_config(path, config)
    return RunFolder(
        path=path,
        run_id=path.name,
        is_resumed=True,
        first_step=found.first_step,
        checkpoints=found.checkpoints,
        events=(*events, *found.events),
        earlier=earlier,
        earlier_s=earlier_s,
    )


def _steps_reported(records: Sequence[Mapping[str, object]]) -> int:
    """Returns how many steps the peer that has got furthest has reported."""
    return max(
        (int(str(record["step"])) + 1 for record in records if record.get("type") == "step"),
        default=0,
    )


def _seconds_so_far(path: Path, records: Sequence[Mapping[str, object]]) -> float:
    """Returns how long all starts of a run took. Changes no file, whose times tell this.

    A start that came to its end has written it into summary.json. One that was killed has written
    config.yaml at its beginning, and metrics.jsonl until its end.
    """
    begun_s, told_s, last_s = (
        (path / name).stat().st_mtime if (path / name).exists() else 0.0
        for name in (layout.CONFIG, layout.SUMMARY, layout.METRICS)
    )
    if told_s >= begun_s:
        summary = read_summary(path)
        if summary is not None:
            return summary["wall_s"]
    before = [record["at_s"] for record in records if record.get("kind") == EventKind.RESUMED]
    before_s = float(str(before[-1])) if before else 0.0
    return before_s + max(0.0, last_s - begun_s)


def _write_config(path: Path, config: RunConfig) -> None:
    """Writes config.yaml, without the settings of one start only; it is this user's own now."""
    _write_settings(path / layout.CONFIG, dataclasses.replace(config, resume=None, afresh=False))


def _write_settings(path: Path, config: RunConfig) -> None:
    text = to_yaml(config)
    write_atomic(path, text)
    remember_run(text, config)


def _put_records_back(path: Path) -> None:
    """Gives metrics.jsonl what it had before a start of which no peer has reported anything.

    Its events stay: what happened to the run did happen. So does the file's time, which tells how
    long that start took.
    """
    metrics, kept = path / layout.METRICS, path / _KEPT
    if not kept.exists():
        return
    status = (metrics if metrics.exists() else kept).stat()
    before = kept.read_bytes()
    events = _event_lines(metrics.read_bytes() if metrics.exists() else b"")
    write_atomic(metrics, b"".join([before, *events[len(_event_lines(before)) :]]))
    os.utime(metrics, ns=(status.st_atime_ns, status.st_mtime_ns))
    kept.unlink()


def _event_lines(content: bytes) -> list[bytes]:
    """Returns the lines that are events; half a line at the end is none."""
    lines = content.splitlines(keepends=True)
    return [line for line in lines if _EVENT in line and line.endswith(b"\n")]


def _check_empty(path: Path) -> None:
    """Raises ConfigError if a run has begun there, or there is something else."""
    if path.is_dir() and is_unused(path):
        return
    raise ConfigError(
        f"run_dir={path} exists already; "
        + (told_owner(path) or f"go on with that run by resume={path}, or choose another folder")
    )


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
