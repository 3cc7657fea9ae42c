"""traffic.png: what each method gains over learning alone, against the bytes that a peer moves for it."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from dogo_fed.compare.comparison import CENTRAL, PRIVATE, Comparison, Row
from dogo_fed.compare.experiment import SOLO, Column
from dogo_fed.compare.page import HEAD_INCHES, MOST_PANELS, write_heading
from dogo_fed.compare.statistics import PairedDifference
from dogo_fed.evaluation.intervals import LEVEL
from dogo_fed.reporting.pictures.canvas import INK, MUTED, dress, name_colours, save_picture

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_COLUMNS = 2
_PANEL_INCHES = (6.2, 4.4)
_MEGABYTE = 1e6


def draws_traffic(comparison: Comparison) -> bool:
    """Whether there is something to see: methods that move unlike numbers of bytes, and solo."""
    moved = {cost.bytes_in_all for cost in comparison.costs if cost.bytes_in_all > 0}
    return SOLO in comparison.methods and len(moved) > 1


def draw_traffic(comparison: Comparison, path: str | os.PathLike[str]) -> None:
    """Draws the picture and writes it as PNG, in full or not at all.

    A panel for each pair of peers and data set and each metric, at most 12. A point is a method or a
    variant: across, the megabytes that a peer sends and gets in the whole run; upward, its difference
    to solo, paired by seed, of the mean over the peers, with its interval. Lines are methods that move
    nothing.

    Args:
        comparison: one of which `draws_traffic` holds.
        path: ends in .png.
    """
    save_picture(lambda: _figure(comparison), path)


def _figure(comparison: Comparison) -> Figure:
    from matplotlib.figure import Figure

    panels = comparison.tables()[:MOST_PANELS]
    columns = max(1, min(_COLUMNS, len(panels)))
    num_rows = max(1, -(-len(panels) // columns))
    width, height = _PANEL_INCHES[0] * columns, _PANEL_INCHES[1] * num_rows + HEAD_INCHES
    figure = Figure(figsize=(width, height))
    grid = figure.add_gridspec(
        num_rows,
        columns,
        left=0.75 / width,
        right=1 - 0.3 / width,
        bottom=0.7 / height,
        top=1 - (HEAD_INCHES + 0.3) / height,
        wspace=0.22,
        hspace=0.42,
    )
    title = f"{comparison.experiment.name}: gain over solo against traffic"
    subtitle = f"mean over the peers; a line: its {LEVEL:.0%} interval, paired by seed"
    write_heading(figure, title, subtitle, 0.75 / width)
    names = [column.name for column in comparison.columns]
    colours = name_colours(names)
    for place, (heading, rows) in enumerate(panels):
        axes = figure.add_subplot(grid[place // columns, place % columns])
        is_last = place // columns == num_rows - 1
        unit = f"gain ({rows[0].unit.name})" if place % columns == 0 else ""
        dress(axes, heading, unit, "MB a peer, both ways, in the whole run" if is_last else "")
        _draw_panel(axes, rows, comparison, colours)
    return figure


def _draw_panel(
    axes: Axes, rows: Sequence[Row], comparison: Comparison, colours: Mapping[str, str]
) -> None:
    scale = rows[0].unit.scale
    axes.axhline(0, color=MUTED, linewidth=1.2, zorder=1)
    for still in (PRIVATE, CENTRAL):
        gain = comparison.mean_difference(rows, still, SOLO)
        if still in comparison.methods and math.isfinite(gain.mean):
            axes.axhline(scale * gain.mean, color=MUTED, linewidth=1.0, linestyle="--", zorder=1)
            axes.annotate(
                still.name, (0.99, scale * gain.mean), xycoords=("axes fraction", "data"),
                ha="right", va="bottom", fontsize=9, color=MUTED,
            )  # fmt: skip
    megabytes = {
        cost.column: cost.bytes_in_all / _MEGABYTE
        for cost in comparison.costs
        if (cost.peers, cost.data) == (rows[0].peers, rows[0].data) and cost.bytes_in_all > 0
    }
    for column, moved in megabytes.items():
        gain = comparison.mean_difference(rows, column, SOLO)
        if math.isfinite(gain.mean):
            _draw_point(axes, column, moved, gain, scale, colours[column.name])
    axes.set_xscale("log")
    axes.margins(x=0.25, y=0.15)


def _draw_point(
    axes: Axes, column: Column, moved: float, gain: PairedDifference, scale: float, colour: str
) -> None:
    if gain.low is not None and gain.high is not None:
        ends = [scale * gain.low, scale * gain.high]
        axes.plot([moved, moved], ends, color=colour, linewidth=2.0)
    axes.plot(
        [moved], [scale * gain.mean], color=colour, marker="o", markersize=7,
        markeredgecolor="white", zorder=4,
    )  # fmt: skip
    axes.annotate(
        column.variant or column.name, (moved, scale * gain.mean), xytext=(7, 4),
        textcoords="offset points", fontsize=9.5, color=INK,
    )  # fmt: skip
