"""compare.png: every seed a line from method to method, so that pairs can be seen."""

# M = columns drawn, one a method, from left to right

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from dogo_fed.compare.comparison import Comparison, Row
from dogo_fed.compare.experiment import BASELINE_METHODS, DOGO, OFFLINE, SOLO, Column, Method
from dogo_fed.compare.page import MOST_PANELS, Layout, lay_out
from dogo_fed.compare.report import points, verdict
from dogo_fed.reporting.pictures.canvas import (
    INK,
    dress,
    name_colours,
    save_picture,
    tint,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_ORDER = (
    Column(Method.SUPERVISED), Column(Method.PRIVATE), *map(Column, BASELINE_METHODS), OFFLINE,
    Column(Method.TEACHER), SOLO, DOGO, Column(Method.CENTRAL),
)  # fmt: skip
"""From left to right: solo beside dogo, for that is the pair that matters."""

_LAYOUT = Layout(
    columns=3, panel=(5.2, 4.3), left=0.62, bottom=0.75, right=0.2, beside=0.2, below=0.42
)
_GAP = 0.9


def draw_comparison(comparison: Comparison, path: str | os.PathLike[str]) -> None:
    """Draws the comparison and writes the picture as PNG, in full or not at all.

    A panel for each pair of peers and data set and each metric, at most 12. In it each peer has a group of
    its own: a point for each seed and method, joined for a seed, and the mean as a bar.

    Args:
        comparison: what is drawn.
        path: ends in .png.
    """
    save_picture(lambda: _figure(comparison), path)


def _figure(comparison: Comparison) -> Figure:
    tables = comparison.tables()
    figure, panels = lay_out(
        _LAYOUT, tables, title=comparison.experiment.name, subtitle=_subtitle(len(tables))
    )
    colours = name_colours(sorted({row.peer for row in comparison.rows}))
    for panel in panels:
        unit = panel.rows[0].unit.name if panel.is_leftmost else ""
        dress(panel.axes, panel.title, unit, "")
        _draw_panel(panel.axes, panel.rows, comparison, colours)
    return figure


def _subtitle(num_panels: int) -> str:
    text = "a line: one seed; a bar: the mean"
    if num_panels > MOST_PANELS:
        text += f"; {num_panels - MOST_PANELS} more in compare.md"
    return text


def _draw_panel(
    axes: Axes, rows: Sequence[Row], comparison: Comparison, colours: Mapping[str, str]
) -> None:
    methods = [column for column in _ORDER if column in comparison.methods]
    ticks: list[float] = []
    for group, row in enumerate(rows):
        start = group * (len(methods) - 1 + _GAP + 0.6)
        places_M = [start + place for place in range(len(methods))]
        ticks += places_M
        _draw_peer(axes, row, methods, places_M, colours[row.peer])
    axes.set_xticks(ticks, [column.name for _ in rows for column in methods], fontsize=9)
    axes.set_xlim(min(ticks) - 0.6, max(ticks) + 0.6)
    axes.grid(visible=False, axis="x")
    axes.margins(y=0.16)
    for group, row in enumerate(rows):
        middle = sum(ticks[group * len(methods) : (group + 1) * len(methods)]) / len(methods)
        axes.text(
            middle,
            -0.155,
            row.peer,
            transform=axes.get_xaxis_transform(),
            ha="center",
            fontsize=10.5,
            fontweight="bold",
            color=colours[row.peer],
        )
        axes.text(
            middle,
            0.955,
            _said(row, comparison),
            transform=axes.get_xaxis_transform(),
            ha="center",
            fontsize=9.5,
            color=INK,
        )


def _draw_peer(
    axes: Axes, row: Row, methods: Sequence[Column], places_M: Sequence[float], colour: str
) -> None:
    seeds = sorted({seed for column in methods for seed in row.scores.get(column, {})})
    for seed in seeds:
        scores_M = [
            row.unit.scale * row.scores.get(column, {}).get(seed, math.nan) for column in methods
        ]
        axes.plot(
            places_M,
            scores_M,
            color=tint(colour, 0.55),
            linewidth=1.2,
            marker="o",
            markersize=4.5,
            markerfacecolor=colour,
            markeredgecolor="white",
            markeredgewidth=0.6,
            zorder=3,
        )
    for place, column in zip(places_M, methods, strict=True):
        mean = row.unit.scale * row.spread(column).mean
        if math.isfinite(mean):
            axes.plot([place - 0.2, place + 0.2], [mean, mean], color=INK, linewidth=2.0, zorder=4)


def _said(row: Row, comparison: Comparison) -> str:
    """Returns the verdict over a peer's group."""
    if SOLO not in comparison.references(DOGO):
        return ""
    paired = row.difference(DOGO, SOLO)
    if paired.n == 0:
        return ""
    return f"{points(paired.mean, row.unit)}, {verdict(paired, row.unit)}"
