"""variants.png: what each variant of DoGo does against training alone, as intervals under each other."""

# V = DoGo's own settings, if it is compared, and its variants, from top to bottom

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from dogo_fed.compare.comparison import Comparison, Row
from dogo_fed.compare.experiment import DOGO, SOLO, Column
from dogo_fed.compare.page import MOST_PANELS, Layout, lay_out
from dogo_fed.compare.statistics import PairedDifference
from dogo_fed.evaluation.intervals import LEVEL
from dogo_fed.reporting.pictures.canvas import MUTED, dress, name_colours, save_picture

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_LINE_INCHES = 0.26
_MARGIN = 0.3
_GROUP_HEIGHT = 0.62
"""Part of a variant's height that its peers' intervals share."""


def draw_variants(comparison: Comparison, path: str | os.PathLike[str]) -> None:
    """Draws the variants and writes the picture as PNG, in full or not at all.

    A panel for each pair of peers and data set and each metric, at most 12: a point for the mean paired
    difference to solo, a line for its interval, a colour for each peer.

    Args:
        comparison: one with variants.
        path: ends in .png.
    """
    save_picture(lambda: _figure(comparison), path)


def _figure(comparison: Comparison) -> Figure:
    from matplotlib.lines import Line2D

    tables = comparison.tables()
    most_rows = max([1, *(len(rows) for _, rows in tables[:MOST_PANELS])])
    columns_V = [*(one for one in comparison.methods if one == DOGO), *comparison.variants]
    lines = len(columns_V) * most_rows
    layout = Layout(
        columns=2, panel=(5.8, 1.1 + _LINE_INCHES * lines), left=1.5, bottom=0.6, right=_MARGIN,
        beside=0.4, below=0.45, heading=_MARGIN, extra_width=_MARGIN,
    )  # fmt: skip
    title = f"{comparison.experiment.name}: each variant minus solo"
    subtitle = f"a line: the {LEVEL:.0%} interval of the paired differences"
    figure, panels = lay_out(layout, tables, title, subtitle)
    colours = name_colours(sorted({row.peer for row in comparison.rows}))
    for panel in panels:
        against = f"against solo ({panel.rows[0].unit.name})" if panel.is_lowest else ""
        dress(panel.axes, panel.title, "", against)
        _draw_panel(panel.axes, panel.rows, columns_V, colours)
    width, height = figure.get_size_inches()
    figure.legend(
        handles=[
            Line2D([], [], color=colour, marker="o", markersize=5, label=peer)
            for peer, colour in colours.items()
        ],
        loc="upper right",
        bbox_to_anchor=(1 - _MARGIN / width, 1 - 0.45 / height),
        ncols=max(1, len(colours)),
        fontsize=10,
        frameon=False,
        handlelength=1.2,
    )
    return figure


def _draw_panel(
    axes: Axes, rows: Sequence[Row], columns_V: Sequence[Column], colours: Mapping[str, str]
) -> None:
    axes.axvline(0, color=MUTED, linewidth=1.0, zorder=1)
    for place, row in enumerate(rows):
        offset = _GROUP_HEIGHT * ((place + 0.5) / len(rows) - 0.5)
        for height, column in enumerate(columns_V):
            paired = row.difference(column, SOLO)
            _draw_interval(axes, paired, row.unit.scale, height + offset, colours[row.peer])
    names_V = [column.variant or column.name for column in columns_V]
    axes.set_yticks(range(len(columns_V)), names_V, fontsize=10)
    axes.set_ylim(len(columns_V) - 0.5, -0.5)
    axes.grid(visible=False, axis="y")
    axes.margins(x=0.08)


def _draw_interval(
    axes: Axes, paired: PairedDifference, scale: float, height: float, colour: str
) -> None:
    if paired.n == 0 or not math.isfinite(paired.mean):
        return
    if paired.low is not None and paired.high is not None:
        ends = [scale * paired.low, scale * paired.high]
        axes.plot(ends, [height, height], color=colour, linewidth=2.2)
    axes.plot(
        [scale * paired.mean],
        [height],
        color=colour,
        marker="o",
        markersize=6.5,
        markeredgecolor="white",
        zorder=4,
    )
