"""compare.json, compare.csv, compare.md: the same comparison as data, as a sheet, and as a page to read."""

from __future__ import annotations

import csv
import dataclasses
import io
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from dogo_fed.atomic import write_atomic, write_json_atomic
from dogo_fed.compare.comparison import (
    ALONE,
    LEAST_LOSS,
    PERCENT,
    CellReport,
    Comparison,
    OverPeers,
    Row,
    Unit,
)
from dogo_fed.compare.cost import Cost
from dogo_fed.compare.experiment import DOGO, OFFLINE, Column
from dogo_fed.compare.statistics import PairedDifference, Spread
from dogo_fed.evaluation.intervals import LEVEL
from dogo_fed.reporting.units import UNKNOWN, human_bytes, human_seconds
from dogo_fed.text import some_of

_MOST_NAMED = 6

MINUS = "\u2212"


def write_comparison(comparison: Comparison, out: Path) -> None:
    """Writes compare.json, compare.csv and compare.md, each in full or not at all."""
    write_json_atomic(out / "compare.json", to_json(comparison))
    write_atomic(out / "compare.csv", to_csv(comparison))
    write_atomic(out / "compare.md", to_markdown(comparison))


def to_json(comparison: Comparison) -> dict[str, Any]:
    """Returns everything, down to each seed's score."""
    experiment = comparison.experiment
    return {
        "experiment": experiment.name,
        "methods": [column.name for column in comparison.methods],
        "seeds": list(experiment.seeds),
        "overrides": list(experiment.overrides),
        "variants": {name: list(settings) for name, settings in experiment.variants.items()},
        "protocols": {name: dict(options) for name, options in experiment.protocols.items()},
        "baselines": {name: dict(options) for name, options in experiment.baselines.items()},
        "not_counted": list(experiment.not_counted),
        "level": LEVEL,
        "rows": [_row_to_json(row, comparison) for row in comparison.rows],
        "over_peers": list(_over_peers_to_json(comparison)),
        "costs": [_cost_to_json(cost) for cost in comparison.costs],
        "cells": [dataclasses.asdict(cell) for cell in comparison.cells],
        "origins": comparison.origins,
    }


def _row_to_json(row: Row, comparison: Comparison) -> dict[str, Any]:
    return {
        "peers": row.peers,
        "data": row.data,
        "metric": row.metric,
        "peer": row.peer,
        "backbone": row.backbone,
        "objective": row.objective,
        "methods": {
            column.name: (
                _scores_to_json(row, column)
                if column == DOGO
                else {**_scores_to_json(row, column), "minus": _minus(row, column, comparison)}
            )
            for column in comparison.methods
        },
        "dogo_minus": _minus(row, DOGO, comparison),
        "variants": {
            str(column.variant): {
                **_scores_to_json(row, column),
                "minus": _minus(row, column, comparison),
            }
            for column in comparison.variants
        },
    }


def _minus(row: Row, column: Column, comparison: Comparison) -> dict[str, Any]:
    return {
        other.name: _difference_to_json(row.difference(column, other), row.unit)
        for other in comparison.references(column)
    }


def _over_peers_to_json(comparison: Comparison) -> Iterator[dict[str, Any]]:
    """Yields what is said of the learners of each table together, by method and variant."""
    for _, rows in comparison.tables():
        of, unit = rows[0], rows[0].unit
        for column in comparison.columns:
            alone = comparison.over_peers(rows, column)
            others = comparison.against_others(rows, column)
            if not alone and not others:
                continue
            yield {
                "peers": of.peers,
                "data": of.data,
                "metric": of.metric,
                "method": column.name,
                "alone": {found.alone.name: _over_peers_of(found, unit) for found in alone},
                "minus": {
                    other.name: _difference_to_json(paired, unit)
                    for other, paired in others.items()
                },
            }


def _over_peers_of(found: OverPeers, unit: Unit) -> dict[str, Any]:
    way, central = found.way_to_central, found.central_gain
    return {
        "peers": found.peers,
        "not_below": found.not_below,
        "safe": found.safe,
        "worst": found.worst,
        "worst_gain": found.worst_gain,
        "mean_gain": _difference_to_json(found.mean_gain, unit),
        "central_gain": _difference_to_json(central, unit) if central.n > 0 else None,
        "way_to_central": way if math.isfinite(way) else None,
    }


def _scores_to_json(row: Row, column: Column) -> dict[str, Any]:
    return {
        **dataclasses.asdict(row.spread(column)),
        "scores": {str(seed): score for seed, score in row.scores.get(column, {}).items()},
    }


def _difference_to_json(paired: PairedDifference, unit: Unit) -> dict[str, Any]:
    return {**dataclasses.asdict(paired), "verdict": verdict(paired, unit)}


def _cost_to_json(cost: Cost) -> dict[str, Any]:
    return {
        "peers": cost.peers,
        "data": cost.data,
        "method": cost.column.name,
        "cells": cost.cells,
        "wall_s": cost.wall_s,
        "steps": cost.steps,
        "images": list(cost.images),
        "bytes_per_step": cost.bytes_per_step,
        "bytes_in_all": cost.bytes_in_all,
        "missed_steps": cost.is_short,
    }


def to_csv(comparison: Comparison) -> str:
    """Returns a line for each row of the table; scores as they are, an empty field for no number."""
    heading = ["peers", "data", "metric", "peer", "backbone", "objective"]
    heading += [
        f"{column.name}_{what}" for column in comparison.columns for what in ("mean", "std", "n")
    ]
    pairs = [
        (column, other) for column in comparison.columns for other in comparison.references(column)
    ]
    heading += [
        f"{column.name}_minus_{other.name}_{what}"
        for column, other in pairs
        for what in ("mean", "low", "high", "n", "verdict")
    ]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(heading)
    for row in comparison.rows:
        fields: list[object] = [
            row.peers, row.data, row.metric, row.peer, row.backbone, row.objective,
        ]  # fmt: skip
        for found in (row.spread(column) for column in comparison.columns):
            fields += [_field(found.mean), _field(found.std), found.n]
        for paired in (row.difference(column, other) for column, other in pairs):
            fields += [_field(value) for value in (paired.mean, paired.low, paired.high)]
            fields += [paired.n, verdict(paired, row.unit)]
        writer.writerow(fields)
    return text.getvalue()


def _field(value: float | None) -> str:
    return "" if value is None or not math.isfinite(value) else repr(value)


def to_markdown(comparison: Comparison) -> str:
    """Returns the page: a table for each pair of peers and data set and each metric, costs, failures."""
    blocks = [f"# {comparison.experiment.name}", _what_was_run(comparison)]
    for title, rows in comparison.tables():
        blocks += [f"## {title} ({rows[0].unit.name})", _table(rows, comparison)]
        if comparison.variants:
            blocks.append(_variants_table(rows, comparison))
        told = [
            _told_over_peers(column, over_peers, rows[0].unit)
            for column in comparison.columns
            for over_peers in comparison.over_peers(rows, column)
        ]
        told += [
            _told_against_others(column, others, rows[0].unit)
            for column in comparison.columns
            if (others := comparison.against_others(rows, column))
        ]
        if told:
            blocks.append("\n".join(told))
    if not comparison.rows:
        blocks.append("No cell is finished, so there is nothing to compare.")
    else:
        blocks += [_how_to_read(comparison), "## Cost", _cost_table(comparison.costs)]
        blocks += _notes(comparison)
    unfinished = [cell for cell in comparison.cells if cell.outcome != "finished"]
    if unfinished:
        blocks += ["## Cells that are not finished", _list_of(unfinished)]
    return "\n\n".join(blocks) + "\n"


def _what_was_run(comparison: Comparison) -> str:
    experiment = comparison.experiment
    seeds = ", ".join(str(seed) for seed in experiment.seeds)
    shared = " ".join(experiment.overrides) or "the defaults"
    text = (
        f"Methods: {', '.join(column.name for column in comparison.methods)}. Seeds: {seeds}. "
        f"Settings: `{shared}`."
    )
    if experiment.not_counted:
        text += f" Not counted where peers are taken together: {', '.join(experiment.not_counted)}."
    if comparison.variants:
        text += " DoGo's variants differ from it by:\n\n" + "\n".join(
            f"- {name}: `{' '.join(settings)}`" for name, settings in experiment.variants.items()
        )
    return text


def _how_to_read(comparison: Comparison) -> str:
    text = "Mean \u00b1 standard deviation over seeds."
    if any(map(comparison.references, comparison.columns)):
        text += (
            f" Differences are paired by seed, in percentage points, with their {LEVEL:.0%} interval "
            "(Student t; n pairs). helps / hurts: the interval lies above / below 0; not shown: it does "
            "not, which is no proof of equality. One interval a row, not corrected for the number of "
            "rows."
        )
    return text


def _table(rows: Sequence[Row], comparison: Comparison) -> str:
    others = comparison.references(DOGO)
    heading = ["peer", *(column.name for column in comparison.methods)]
    for other in others:
        heading += [f"dogo {MINUS} {other.name}", *_if_alone(other, "verdict")]
    lines = [heading]
    for row in rows:
        cells = [f"{row.peer}: {row.backbone}, {row.objective}"]
        cells += [score(row.spread(column), row.unit) for column in comparison.methods]
        lines.append(cells + _differences(row, DOGO, others))
    return _aligned(lines)


def _told_over_peers(column: Column, found: OverPeers, unit: Unit) -> str:
    text = (
        f"- {column.name}: {found.not_below} of {found.peers} peers are not below {found.alone.name} "
        f"(means over seeds); of {found.safe} the interval does not reach below "
        f"{points(-LEAST_LOSS, unit)}. The least gain is {points(found.worst_gain, unit)}, of "
        f"{found.worst}. The mean over peers: {difference(found.mean_gain, unit)}, "
        f"{verdict(found.mean_gain, unit)}."
    )
    return text + _told_of_central(found, unit)


def _told_of_central(found: OverPeers, unit: Unit) -> str:
    """Returns the way to all images in one place as a sentence; nothing if that was not compared."""
    alone, central = found.alone.name, found.central_gain
    if central.n == 0:
        return ""
    whole_way = difference(central, unit)
    if not math.isfinite(found.way_to_central):
        return f" Central is not shown to be better than {alone} ({whole_way})."
    that = "That is"
    if central.n < found.mean_gain.n:
        that = f"Over the {central.n} seeds that central has too, that is"
    return f" {that} {found.way_to_central:.0%} of the way from {alone} to central ({whole_way})."


def _told_against_others(
    column: Column, others: Mapping[Column, PairedDifference], unit: Unit
) -> str:
    told = (
        f"{MINUS} {other.name} {difference(paired, unit)}, {verdict(paired, unit)}"
        for other, paired in others.items()
    )
    return f"- {column.name}, the mean over peers: {'; '.join(told)}."


def _variants_table(rows: Sequence[Row], comparison: Comparison) -> str:
    others = comparison.references(comparison.variants[0])
    heading = ["peer", "variant of dogo", "score"]
    for other in others:
        heading += [f"{MINUS} {other.name}", *_if_alone(other, "verdict")]
    lines = [heading]
    for row in rows:
        for column in comparison.variants:
            cells = [row.peer, str(column.variant), score(row.spread(column), row.unit)]
            lines.append(cells + _differences(row, column, others))
    return _aligned(lines)


def _differences(row: Row, column: Column, others: Iterable[Column]) -> list[str]:
    """Returns the cells of a column minus each of the others; with a verdict against learning alone."""
    cells = []
    for other in others:
        paired = row.difference(column, other)
        cells += [difference(paired, row.unit), *_if_alone(other, verdict(paired, row.unit))]
    return cells


def _if_alone(other: Column, text: str) -> list[str]:
    return [text] if other in ALONE else []


def _cost_table(costs: Iterable[Cost]) -> str:
    heading = ["peers", "data", "method", "cells", "wall", "steps", "images"]
    lines = [[*heading, "sent, a step", "both ways, in all"]]
    for cost in costs:
        lines.append(
            [
                cost.peers,
                cost.data,
                cost.column.name,
                str(cost.cells),
                human_seconds(cost.wall_s),
                f"{cost.steps}{'*' if cost.is_short else ''}",
                " to ".join(map(str, dict.fromkeys(cost.images))),
                human_bytes(cost.bytes_per_step) if cost.bytes_per_step else "nothing",
                human_bytes(cost.bytes_in_all) if cost.bytes_in_all else "nothing",
            ]
        )
    return _aligned(lines)


def _notes(comparison: Comparison) -> list[str]:
    notes = [
        "Wall time: mean of the cells that ran in one go, evaluation included, while other cells ran "
        "beside them. Images: what a peer has seen, with repetition; from the least to the most if some "
        "have too few private images for a full batch. Bytes: what each peer would send, as a mean over "
        "the steps, and send and get in the whole run, were the peers apart."
    ]
    if OFFLINE in comparison.methods:
        notes.append(
            "offline: each peer in turn is the student; the training of its frozen teachers is the solo "
            "cell and is not counted again."
        )
    if any(cost.is_short for cost in comparison.costs):
        notes.append("*: some peer has missed steps, so this is not a comparison at equal steps.")
    notes += [
        f"Not all cells were made with the same {name}, so a difference may come from that: "
        f"{'; '.join(f'{value} ({some_of(cells, _MOST_NAMED)})' for value, cells in values.items())}."
        for name, values in comparison.origins.items()
        if len(values) > 1
    ]
    return notes


def _list_of(cells: Iterable[CellReport]) -> str:
    return "\n".join(
        f"- {cell.id}: {cell.outcome}{': ' if cell.message else ''}{cell.message}" for cell in cells
    )


def score(found: Spread, unit: Unit = PERCENT) -> str:
    """Returns e.g. "84.9 \u00b1 0.6"; without deviation for one seed."""
    if found.n == 0:
        return UNKNOWN
    mean, std = (f"{unit.scale * value:.{unit.digits}f}" for value in (found.mean, found.std))
    return mean if found.n == 1 else f"{mean} \u00b1 {std}"


def difference(paired: PairedDifference, unit: Unit = PERCENT) -> str:
    """Returns e.g. "+1.2 [+0.4, +2.0] n=5"; without interval for one pair."""
    if paired.n == 0:
        return UNKNOWN
    if paired.low is None or paired.high is None:
        return f"{points(paired.mean, unit)} n={paired.n}"
    interval = f"[{points(paired.low, unit)}, {points(paired.high, unit)}]"
    return f"{points(paired.mean, unit)} {interval} n={paired.n}"


def verdict(paired: PairedDifference, unit: Unit) -> str:
    """Returns what a difference shows; nothing where more is not better."""
    return paired.verdict.value if unit.is_judged else "not judged"


def points(value: float, unit: Unit = PERCENT) -> str:
    """Returns a difference with its sign, e.g. of shares in percentage points "+1.2"."""
    return f"{unit.scale * value:+.{unit.digits}f}".replace("-", MINUS)


def _aligned(lines: Sequence[Sequence[str]]) -> str:
    """Returns a Markdown table whose columns line up in a terminal too; the first line is the heading."""
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    padded = [
        "| "
        + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        + " |"
        for line in lines
    ]
    rule = "|" + "|".join("-" * (width + 2) for width in widths) + "|"
    return "\n".join([padded[0], rule, *padded[1:]])
