"""Whether the cells of a comparison come from the same images, code, libraries and devices.

Differences are paired by seed. If the two cells of a pair were trained on other images, the
difference is not one of methods, so that is refused. Other code or libraries are said below the
table with the cells that they are about.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from dogo_fed import layout
from dogo_fed.compare.experiment import Cell
from dogo_fed.compare.protocols import protocol_origins, protocol_targets
from dogo_fed.contracts import PeerId
from dogo_fed.engine.loaded_run import LoadedRun
from dogo_fed.errors import ConfigError
from dogo_fed.evaluation.protocols import protocol_title
from dogo_fed.plain import to_plain
from dogo_fed.provenance import DataFacts
from dogo_fed.reporting.summary import RunSummary
from dogo_fed.storage.peer_folder import PeerFolder
from dogo_fed.storage.provenance_file import Start

_NOT_KNOWN = "not known"


def check_images(
    finished: Iterable[tuple[Cell, RunSummary]], now: Mapping[str, DataFacts] | None = None
) -> None:
    """Checks that all cells with the same data settings have seen the same images.

    Args:
        finished: the finished cells, with their summaries.
        now: the images that cells would be trained on now, see `images_of`.

    Raises:
        ConfigError: they have not; the message names two cells, and what differs.
        CheckpointError: a summary, or the note of a peer's private images, is not as this version
            writes it.
    """
    seen: dict[str, tuple[str, DataFacts]] = {}
    for cell, summary in finished:
        for start in _starts(summary):
            _hold_against(seen, _case_of(cell), cell.id, start.provenance.data)
            if (anchors := start.provenance.anchors) is not None:
                _hold_against(seen, _anchors_of(cell), f"{cell.id}, anchors", anchors)
        for peer in cell.config.peers:
            own = PeerFolder(cell.folder, PeerId(peer)).private_images()
            if own is not None:
                _hold_against(seen, _case_of(cell, peer), f"{cell.id}, peer {peer}", own)
    for case, facts in (now or {}).items():
        _hold_against(seen, case, "what is there now", facts)


def images_of(cell: Cell, run: LoadedRun) -> dict[str, DataFacts]:
    """Returns the images of a cell that is about to be trained, for `check_images`.

    Args:
        cell: the cell.
        run: its run, with the private images of its peers.
    """
    here = run.provenance()
    images = {_case_of(cell): here.data}
    if here.anchors is not None:
        images[_anchors_of(cell)] = here.anchors
    for peer, settings in cell.config.peers.items():
        if settings.data is not None:
            images[_case_of(cell, peer)] = run.provenance(PeerId(peer)).data
    return images


def _case_of(cell: Cell, peer: str | None = None) -> str:
    """Returns the data settings of a cell, or of a peer's private images in it, as a key."""
    shared = to_plain(cell.config.data)
    if peer is None:
        return str(shared)
    return str((shared, to_plain(cell.config.peers[peer].data)))


def _anchors_of(cell: Cell) -> str:
    """Returns the settings of the anchors that a partition takes from another data set, as a key."""
    return str(("anchors", to_plain(cell.config.partition.anchors_from)))


def origins(
    finished: Iterable[tuple[Cell, RunSummary]], protocols: Iterable[str] = ()
) -> dict[str, dict[str, list[str]]]:
    """Returns for source, device and each package its values, each with the cells it is about.

    Args:
        finished: the finished cells, with their summaries.
        protocols: evaluations after the training, whose origin counts too.
    """
    evaluations = tuple(protocols)
    found: dict[str, dict[str, list[str]]] = {}
    for cell, summary in finished:
        facts = [start.provenance.origin for start in _starts(summary)] or [{"source": _NOT_KNOWN}]
        for name in evaluations:
            facts += protocol_origins(cell.folder, name)
        for fact in facts:
            for name, value in fact.items():
                cells = found.setdefault(name, {}).setdefault(value, [])
                if cell.id not in cells:
                    cells.append(cell.id)
    return found


def check_targets(
    finished: Iterable[tuple[Cell, RunSummary]], protocols: Iterable[str] = ()
) -> None:
    """Checks that evaluations on another data set have all seen the same images of it.

    Args:
        finished: the finished cells, with their summaries.
        protocols: the evaluations after the training.

    Raises:
        ConfigError: they have not; the message names two cells, and what differs.
        CheckpointError: the scores are not as this version writes them.
    """
    seen: dict[str, tuple[str, DataFacts]] = {}
    evaluations = tuple(protocols)
    for cell, _ in finished:
        for name in evaluations:
            for options, targets in protocol_targets(cell.folder, name):
                for title, facts in targets.items():
                    where = f"{cell.id}, target {title} of {protocol_title(name)}"
                    remedy = (
                        "Put the images back, and remove the scores that are of others: "
                        f"{cell.folder / layout.EVALUATION} or those of the first. They are made again"
                    )
                    _hold_against(seen, str((name, options, title)), where, facts, remedy)


def _starts(summary: RunSummary) -> list[Start]:
    # Summaries of earlier versions do not have it.
    plain: Any = summary.get("provenance", [])
    return [Start.from_plain(start) for start in plain]


def _hold_against(
    seen: dict[str, tuple[str, DataFacts]],
    case: str,
    where: str,
    facts: DataFacts,
    remedy: str = "Put the images back, or choose another out=",
) -> None:
    first, then = seen.setdefault(case, (where, facts))
    found = then.differences(facts)
    if found:
        raise ConfigError(
            f"the images of {first} and of {where} are not the same, so they can't be compared: "
            f"{'; '.join(found)}. {remedy}"
        )
