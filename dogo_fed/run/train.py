"""One run from its settings to its report. The host that runs the peers is a parameter."""

from __future__ import annotations

import dataclasses
import json
import logging
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeAlias

from rich import get_console
from torch import nn

from dogo_fed import layout
from dogo_fed.atomic import room_for, write_atomic, write_json_atomic
from dogo_fed.config import RunConfig
from dogo_fed.config_text import from_mapping, load_yaml
from dogo_fed.contracts import Event, EventKind, Record
from dogo_fed.data.datasets import as_dataset
from dogo_fed.engine.loaded_run import LoadedRun
from dogo_fed.errors import COULD_NOT_START, ConfigError, StorageFull
from dogo_fed.private_files import private_files
from dogo_fed.reporting.live.view import LiveView
from dogo_fed.reporting.log_file import log_file
from dogo_fed.reporting.pictures.curves import draw_curves
from dogo_fed.reporting.sink import Sink, TeeSink
from dogo_fed.reporting.sinks.metrics import MetricsLog, read_records
from dogo_fed.reporting.sinks.tensorboard import TensorBoardSink
from dogo_fed.reporting.sinks.told_once import ToldOnce
from dogo_fed.reporting.sinks.totals import RunTotals
from dogo_fed.reporting.summary import RunSummary, build_summary
from dogo_fed.run.local import run_local
from dogo_fed.run.prepare import notes_of, prepare, traffic_of
from dogo_fed.run.stop_signal import stop_on_signal
from dogo_fed.scope import changed, fixed_changes, in_words
from dogo_fed.storage.going_on import NextExchange
from dogo_fed.storage.provenance_file import Start, read_starts, with_start, write_starts
from dogo_fed.storage.run_folder import (
    AskFarPeers,
    RunFolder,
    absolute,
    begin,
    make_empty,
    reopen,
)
from dogo_fed.storage.run_lock import run_lock
from dogo_fed.storage.trace_file import drop_traces, merge_traces

logger = logging.getLogger(__name__)

_OTHER_RECORDS = 256
_BYTES_OF_A_RECORD = 300
_MOST_RESERVED = 2**24
"""Room that is kept for metrics.jsonl at most, in bytes."""


RunHost: TypeAlias = Callable[[LoadedRun, RunFolder, Sink, Callable[[], bool]], None]
"""Runs all peers to their end and reports to the sink; ends early when the function says so."""


def train(
    config: RunConfig | Mapping[str, Any],
    *,
    dataset: object = None,
    backbones: Mapping[str, nn.Module] | None = None,
) -> RunSummary:
    """Runs `config` in this process, with the user's own modules and data if they are given.

    Args:
        config: the run, or nested mappings with its settings, as a run's config.yaml has them; its
            `host` is ignored. If its `resume` names a run folder, that run goes on.
        dataset: in place of the one that `config.data` names: a `DataSet`, a map-style data set of
            torch (items are images, or pairs of an image and a class), or a pair (train, test).
        backbones: for a peer's name, a module that maps N x C x H x W images to N x F features; it
            replaces the backbone that the peer's settings name.

    Returns:
        The content of summary.json. A run that was stopped early has an event of kind "stopped".

    Raises:
        ConfigError, DataError: before anything has started; also if the run that is to go on has
            other settings that decide trained numbers.
        DogoError: a peer could not go on; the run folder holds what was done until then.
    """
    if isinstance(config, Mapping):
        config = from_mapping(config)
    if not isinstance(config, RunConfig):
        raise ConfigError(
            "dogo_fed.train takes a dogo_fed.RunConfig, or a mapping like a run's config.yaml, not a "
            f"{type(config).__name__}"
        )
    config.check_one_process()
    data = None if dataset is None else as_dataset(config.data.name, dataset)
    run = prepare(config, dataset=data, backbones=backbones)
    if config.resume is not None:
        # With the batch size that follows from the images, and the precision that was asked for.
        _check_goes_on(config.resume, dataclasses.replace(run.config, precision=config.precision))
    return conduct(run, run_local)


def _check_goes_on(folder: str, config: RunConfig) -> None:
    """Checks that the settings of a run that goes on are those that it has begun with.

    Raises:
        ConfigError: one differs that decides trained numbers.
    """
    path = absolute(folder) / layout.CONFIG
    found = fixed_changes(load_yaml(path), config) if path.is_file() else {}
    if found:
        raise ConfigError(
            f"resume={folder}: {in_words(found)}, and can't be changed when a run goes on. Leave it as "
            "it is in the run, whose settings dogo_fed.load_run_config returns, or begin a new run, "
            "without resume"
        )


@private_files()
def conduct(
    run: LoadedRun,
    host: RunHost,
    on_folder: Callable[[Path], None] = lambda folder: None,
    ask_far_peers: AskFarPeers = lambda run_id: None,
    sites: Callable[[], Collection[str]] = tuple,
) -> RunSummary:
    """Runs a prepared run in this host, writes the run folder, and returns its summary.

    What is written meanwhile is for this user alone, whichever process writes it.

    Args:
        run: its settings and data.
        host: runs the peers.
        on_folder: is told the run folder as soon as it is this start's own.
        ask_far_peers: see `run_folder.reopen`; asked if a run goes on.
        sites: tells, when the run has ended, which peers were at sites, whose settings this process
            does not know. The summary says nothing of them.

    Raises:
        ConfigError, DataError, StartError, CheckpointError: it could not be started. The folder of
            an earlier run that it was to go on with keeps its configuration, its summary and its
            records.
        Stopped: the user asked for an end before anything had begun.
        StorageFull: there is no room for what the run must leave.
        DogoError: a peer could not go on. The summary and the curves are written all the same.
    """
    config = run.config
    path = make_empty(config) if config.resume is None else absolute(config.resume)
    with room_for("the run's files", path), run_lock(path):
        now, earlier = run.provenance(), read_starts(path)
        if earlier and not config.afresh:
            earlier[-1].provenance.check_same_images(
                now,
                of=f"run {path.name}",
                instead="begin it again at step 0 by afresh=true (what is there is set aside)",
            )
        put_back = _as_now(path / layout.PROVENANCE, path / layout.PARTITION)
        folder = (
            begin(path, config)
            if config.resume is None
            else reopen(path, config, run.plan.total_steps, _in_step(run), ask_far_peers)
        )
        on_folder(folder.path)
        starts = with_start(() if config.afresh else earlier, folder.first_step, now)
        write_starts(path, starts)
        if run.cut is not None:
            write_atomic(path / layout.PARTITION, run.cut.to_csv())
        return _carry_through(run, folder, host, starts, put_back, sites)


def _as_now(*paths: Path) -> Callable[[], None]:
    """Returns a function that gives files the content that they have now, or removes them."""
    contents = {path: path.read_bytes() if path.exists() else None for path in paths}

    def put_back() -> None:
        for path, content in contents.items():
            if content is None:
                path.unlink(missing_ok=True)
            else:
                write_atomic(path, content)

    return put_back


def _in_step(run: LoadedRun) -> NextExchange:
    """Returns the next step that all peers of a run begin together."""
    if run.config.baseline is not None:
        return run.plan.next_round
    return run.plan.next_exchange


def _carry_through(
    run: LoadedRun,
    folder: RunFolder,
    host: RunHost,
    starts: Sequence[Start],
    put_back: Callable[[], None],
    sites: Callable[[], Collection[str]],
) -> RunSummary:
    """Runs the peers and concludes; `put_back` undoes what was written before they started."""
    started_s = time.monotonic() - folder.earlier_s
    totals = RunTotals(
        {name: (str(peer.backbone), peer.objective.name) for name, peer in run.config.peers.items()}
    )
    could_start, has_reported = True, threading.Event()

    def begins() -> None:
        has_reported.set()
        drop_traces(folder.path, run.config.peers)  # a peer writes its own after its last report

    with (
        log_file(folder.path / layout.COORDINATOR_LOG, ("dogo_fed", "server")),
        stop_on_signal() as stop_requested,
    ):
        try:
            with _reporting(run, folder, totals, starts, begins) as sink:
                host(run, folder, sink, stop_requested)
        except (*COULD_NOT_START, StorageFull, OSError):  # a disk that is full may be found so late
            could_start = has_reported.is_set()  # then it has failed on its way
            raise
        finally:
            if folder.is_resumed and not could_start:
                folder.put_config_back()  # and what an earlier start has reached stays as it is
                put_back()
            else:
                if not has_reported.is_set():
                    drop_traces(folder.path, run.config.peers)
                wall_s = time.monotonic() - started_s
                summary = _conclude(run, folder, totals, wall_s, starts, sites())
    return summary


def _conclude(
    run: LoadedRun,
    folder: RunFolder,
    totals: RunTotals,
    wall_s: float,
    starts: Sequence[Start],
    sites: Collection[str],
) -> RunSummary:
    """Writes the summary and the curves of what the run has reached.

    The training is done: a picture that can't be drawn is said, and the run is none the worse.
    """
    config = run.config
    for name in sites:  # this process's settings of them are not what they trained
        totals.peers.pop(name, None)
    summary = build_summary(
        run_id=folder.run_id,
        seed=config.seed,
        host=config.host.value,
        steps=run.plan.total_steps,
        wall_s=wall_s,
        exchange_enabled=config.exchanges,
        totals=totals,
        variants=config.variants_without(sites),
    )
    summary["provenance"] = [start.to_plain() for start in starts]
    summary["step_ms"] = merge_traces(folder.path, config.peers)
    write_json_atomic(folder.path / layout.SUMMARY, summary)
    try:
        draw_curves(read_records(folder.metrics), folder.path / layout.CURVES, folder.run_id)
    except Exception as error:  # matplotlib fails in many ways
        logger.warning(
            "%s could not be drawn: %s: %s",
            folder.path / layout.CURVES,
            type(error).__name__,
            error,
        )
    return summary


@contextmanager
def _reporting(
    run: LoadedRun,
    folder: RunFolder,
    totals: RunTotals,
    starts: Sequence[Start],
    on_report: Callable[[], None],
) -> Iterator[Sink]:
    """Yields the sink for every record of the run; it has seen a resumed run's old records.

    If no peer of a resumed run reports, metrics.jsonl has all the old records again afterwards.

    Args:
        run: its settings and data.
        folder: takes the records.
        totals: gets them too.
        starts: where the numbers of each start of the run come from.
        on_report: called when a peer reports for the first time.
    """
    left = max(run.plan.total_steps - folder.first_step, 0)
    records = _OTHER_RECORDS + left * len(run.peer_ids)
    metrics = MetricsLog(folder.metrics, min(records * _BYTES_OF_A_RECORD, _MOST_RESERVED))
    done = {str(peer): folder.checkpoints.get(peer) or 0 for peer in run.peer_ids}
    title = f"run={folder.run_id}  {run.config.host.value}  {run.data.shared.title}"
    view = LiveView(
        [str(peer) for peer in run.peer_ids],
        run.plan.total_steps,
        title,
        console=get_console(),
        exchange_every_steps=run.plan.exchange_every_steps,
    )
    board = TensorBoardSink(folder.path / layout.TENSORBOARD, done if folder.is_resumed else None)
    first = _OnReport(folder.drop_kept_records, on_report)
    sink = ToldOnce(TeeSink(first, metrics, totals, board, view))
    if folder.is_resumed:
        folder.keep_records()
        metrics.truncate_after(done)
        for record in read_records(folder.metrics):
            totals.emit(record)
            view.emit(record)
            sink.remember(record)
    with view:
        try:
            if folder.is_resumed:
                for event in _about_resuming(run, folder, starts):
                    sink.emit(event)
            else:
                for note in notes_of(run):
                    sink.emit(Event(kind=EventKind.DATA, message=note))
                for note in run.weights_notes:
                    sink.emit(Event(kind=EventKind.WEIGHTS, message=note))
                traffic = traffic_of(run)
                if traffic is not None:
                    sink.emit(Event(kind=EventKind.TRAFFIC, message=traffic))
            yield sink
        finally:
            sink.close()
            folder.put_records_back()


class _OnReport(Sink):
    """Calls functions when a peer reports for the first time."""

    def __init__(self, *actions: Callable[[], None]) -> None:
        self._actions = actions

    def emit(self, record: Record) -> None:
        """Calls them, unless this is an event or was not the first report."""
        if self._actions and not isinstance(record, Event):
            for action in self._actions:
                action()
            self._actions = ()


def _about_resuming(run: LoadedRun, folder: RunFolder, starts: Sequence[Start]) -> Iterator[Event]:
    """Yields what people should know when a run goes on: where, and what is not as it was."""
    step = folder.first_step
    if run.config.afresh:
        message = "the run begins again at step 0; its earlier checkpoints are set aside"
    else:
        message = f"the run goes on at step {step}"
    yield Event(kind=EventKind.RESUMED, message=message, step=step, at_s=folder.earlier_s)
    yield from folder.events
    assert folder.earlier is not None, "a run that goes on had settings before"
    changes = [
        f"{path} {json.dumps(old)} -> {json.dumps(new)}"
        for path, (old, new) in changed(folder.earlier, run.config).items()
        if path not in ("resume", "afresh")
    ]
    if changes:
        message = f"settings changed for the steps from {step} on: {', '.join(changes)}"
        yield Event(kind=EventKind.SETTINGS_CHANGED, message=message, step=step)
    if len(starts) > 1 and starts[-1].step == step:
        found = starts[-2].provenance.changes(starts[-1].provenance)
        message = f"the steps from {step} on are made with something else: {'; '.join(found)}"
        yield Event(kind=EventKind.PROVENANCE_CHANGED, message=message, step=step)
