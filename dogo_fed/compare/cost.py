"""What the cells of a comparison took: time, images, bytes."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from dogo_fed import layout
from dogo_fed.compare.experiment import Cell, Column, Experiment
from dogo_fed.compare.statistics import spread
from dogo_fed.config import RunConfig
from dogo_fed.contracts import EventKind, PeerId
from dogo_fed.engine.passes import images_seen
from dogo_fed.errors import CheckpointError
from dogo_fed.plan import Plan
from dogo_fed.reporting.summary import RunSummary
from dogo_fed.storage.peer_folder import PeerFolder
from dogo_fed.wire.traffic import RunTraffic


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What the cells of a column took, means over them.

    Attributes:
        cells: how many are finished.
        wall_s: seconds from start to end, evaluation included; only of cells that ran in one go, NaN if
            there is none.
        steps: of a cell; every learner has made so many updates unless `is_short`.
        images: the least and the most that a learner has seen in its passes, with repetition.
        bytes_per_step: the payload that a peer sends, as a mean over all steps, as it is encoded or as a
            baseline counts it; 0 without exchange.
        bytes_in_all: what a peer sends and gets in the whole run, mean over the peers.
        is_short: whether some learner has missed steps.
    """

    peers: str
    data: str
    column: Column
    cells: int
    wall_s: float
    steps: int
    images: tuple[int, int]
    bytes_per_step: float
    bytes_in_all: float
    is_short: bool


def costs_of(
    experiment: Experiment, columns: Sequence[Column], finished: Sequence[tuple[Cell, RunSummary]]
) -> Iterable[Cost]:
    """Yields a cost for each column with finished cells, by peers and data set.

    Raises:
        CheckpointError: what a cell says of its private images is not as this version writes it.
    """
    for peers in experiment.peers:
        for data in experiment.data:
            for column in columns:
                mine = [
                    (cell, summary)
                    for cell, summary in finished
                    if (cell.peers, cell.data, cell.column) == (peers, data, column)
                ]
                if mine:
                    yield _cost(mine)


def _cost(mine: Sequence[tuple[Cell, RunSummary]]) -> Cost:
    """Returns what these cells took, all of one column."""
    cell, steps = mine[0][0], mine[0][1]["steps"]
    whole = [summary["wall_s"] for _, summary in mine if not _was_resumed(summary)]
    up, both_ways = _bytes(cell.config, steps, [summary for _, summary in mine])
    images = [number for cell, summary in mine for number in _images(cell, summary["steps"])]
    return Cost(
        peers=cell.peers,
        data=cell.data,
        column=cell.column,
        cells=len(mine),
        wall_s=spread(whole).mean,
        steps=steps,
        images=(min(images), max(images)),
        bytes_per_step=up / steps,
        bytes_in_all=both_ways,
        is_short=any(
            summary["peers"][name]["steps_trained"] < summary["steps"]
            for cell, summary in mine
            for name in cell.learners
        ),
    )


def _bytes(config: RunConfig, steps: int, summaries: Sequence[RunSummary]) -> tuple[float, float]:
    """Returns what a peer sends in a run, and what it sends and gets."""
    if config.baseline is not None:  # which says so itself; in one process nothing travels
        exchanges = [summary["exchange"] for summary in summaries]
        up = steps * spread([one["bytes_up_per_step"] for one in exchanges]).mean
        down = steps * spread([one["bytes_down_per_step"] for one in exchanges]).mean
        return up, up + down
    traffic = RunTraffic.of(config, _plan(config, steps))
    return (0.0, 0.0) if traffic is None else (float(traffic.sent), traffic.both_ways)


def _images(cell: Cell, steps: int) -> Iterable[int]:
    """Yields how many images each learner of a cell has seen, where its private ones are known."""
    plan, sizes = _plan(cell.config, steps), _private_sizes(cell)
    for name in cell.learners:
        yield images_seen(cell.config, plan, sizes.get(name))


def _plan(config: RunConfig, steps: int) -> Plan:
    """Returns which of so many steps exchange; rounds do not matter to that."""
    return Plan(steps, steps, config.exchange.every_steps, config.exchange.dense_steps)


def _private_sizes(cell: Cell) -> Mapping[str, int | None]:
    """Returns how many private images each peer has; None where the cell's folder does not say."""
    config = cell.config
    parts: Mapping[str, int] = {}
    if config.partition.is_private:
        parts = _parts(cell.folder / layout.PARTITION)
    sizes: dict[str, int | None] = {}
    for name, peer in config.peers.items():
        if not config.has_private(name):
            sizes[name] = 0
        elif peer.data is None:
            sizes[name] = parts.get(name)
        else:  # images of its own, which are in no table of a cut
            own = PeerFolder(cell.folder, PeerId(name)).private_images()
            sizes[name] = None if own is None else own.num_train
    return sizes


def _parts(path: Path) -> Mapping[str, int]:
    """Returns how many images each part of a cut has; nothing if its table is not there."""
    try:
        with path.open(newline="") as file:
            return {row["part"]: int(row["images"]) for row in csv.DictReader(file)}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{path} can't be read: {error}") from error


def _was_resumed(summary: RunSummary) -> bool:
    return any(event["kind"] == EventKind.RESUMED for event in summary["events"])
