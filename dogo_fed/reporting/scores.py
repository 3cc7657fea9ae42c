"""The scores of a protocol as files and as a table: JSON, CSV, a picture, and rows for a terminal."""

from __future__ import annotations

import csv
import dataclasses
import io
import math
import statistics
from collections.abc import Sequence
from pathlib import Path

from rich import box
from rich.table import Table
from rich.text import Text

from dogo_fed.atomic import write_atomic, write_json_atomic
from dogo_fed.contracts import Score
from dogo_fed.reporting.pictures.score_plot import draw_scores
from dogo_fed.reporting.score_sheet import ScoreMean, ScoreSheet, is_share, means
from dogo_fed.reporting.units import UNKNOWN, number, percent

_MOST_ROWS = 24
"""A table with more conditions shows their groups."""

_NOT_IN_CSV = ("level_name", "level_is_share")
"""The same for all scores of a protocol that have a level; the JSON has them."""
_OF_SCORE = [field.name for field in dataclasses.fields(Score) if field.name not in _NOT_IN_CSV]
CSV_COLUMNS = ("encoder", *_OF_SCORE)


def write_sheet(sheet: ScoreSheet, folder: Path, stem: str) -> list[Path]:
    """Writes <stem>.json, .csv and .png into `folder`, each in full or not at all.

    Returns:
        The three paths.
    """
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{stem}.{suffix}" for suffix in ("json", "csv", "png")]
    write_json_atomic(paths[0], to_json(sheet))
    write_atomic(paths[1], to_csv(sheet))
    draw_scores(sheet, paths[2])
    return paths


def to_json(sheet: ScoreSheet) -> dict[str, object]:
    """Returns the sheet as plain values: its head, and per encoder all scores and their means."""
    head = {
        field.name: getattr(sheet, field.name)
        for field in dataclasses.fields(sheet)
        if field.name not in ("scores", "targets")
    }
    head["targets"] = {title: dataclasses.asdict(facts) for title, facts in sheet.targets.items()}
    encoders = {
        name: {
            "scores": [dataclasses.asdict(score) for score in scores],
            "means": [dataclasses.asdict(mean) for mean in means(scores)],
        }
        for name, scores in sheet.scores.items()
    }
    return {**head, "encoders": encoders}


def to_csv(sheet: ScoreSheet) -> str:
    """Returns a line per encoder and score; a number that is not finite is an empty cell."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(CSV_COLUMNS)
    for name, scores in sheet.scores.items():
        for score in scores:
            cells = [getattr(score, column) for column in _OF_SCORE]
            writer.writerow([name, *("" if _is_blank(cell) else cell for cell in cells)])
    return text.getvalue()


def scores_table(sheet: ScoreSheet) -> Table:
    """Returns a row per condition (or group of conditions) and a column per encoder."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column(sheet.protocol, overflow="fold")
    cells = {name: means(scores) for name, scores in sheet.scores.items()}
    metrics = {cell.metric for column in cells.values() for cell in column}
    columns = {name: _rows(column, len(metrics) > 1) for name, column in cells.items()}
    for name in columns:
        table.add_column(Text(name, style="bold"), justify="right")
    labels = dict.fromkeys(label for rows in columns.values() for label in rows)
    for label in labels:
        table.add_row(Text(label), *(rows.get(label, UNKNOWN) for rows in columns.values()))
    return table


def _rows(cells: Sequence[ScoreMean], name_metrics: bool) -> dict[str, str]:
    """Returns a label and a text for every row of one encoder's column."""
    if len(cells) > _MOST_ROWS:
        cells = _grouped(cells)
    return {
        f"{cell.condition}: {cell.metric}" if name_metrics else cell.condition: _text(cell)
        for cell in cells
    }


def _grouped(cells: Sequence[ScoreMean]) -> list[ScoreMean]:
    """Returns one mean per group; conditions without a group stay by themselves."""
    groups: dict[tuple[str, str], list[ScoreMean]] = {}
    for cell in cells:
        groups.setdefault((cell.group or cell.condition, cell.metric), []).append(cell)
    return [
        dataclasses.replace(
            members[0],
            condition=name if len(members) == 1 else f"{name}, mean of {len(members)}",
            mean=statistics.fmean(member.mean for member in members),
            std=math.nan if len(members) > 1 else members[0].std,
            low=math.nan if len(members) > 1 else members[0].low,
            high=math.nan if len(members) > 1 else members[0].high,
        )
        for (name, _), members in groups.items()
    ]


def _text(cell: ScoreMean) -> str:
    """Returns e.g. "71.3 % \u00b1 0.8" over draws, "71.3 % [69.3, 73.2]" for one, or a plain number."""
    if not is_share(cell.metric):
        return number(cell.mean)
    text = percent(cell.mean)
    if math.isfinite(cell.std):
        return f"{text} \u00b1 {100 * cell.std:.1f}"
    if math.isfinite(cell.low):
        return f"{text} [{100 * cell.low:.1f}, {100 * cell.high:.1f}]"
    return text


def _is_blank(cell: object) -> bool:
    return isinstance(cell, float) and not math.isfinite(cell)
