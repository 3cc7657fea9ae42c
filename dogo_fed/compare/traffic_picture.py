"""traffic.png: what each method gains over learning alone, against the bytes that a peer moves for it."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from dogo_fed.compare.comparison import CENTRAL, PRIVATE, Comparison, Row
from dogo_fed.compare.experiment import SOLO, Column
from dogo_fed.compare.page import Layout, lay_out
from dogo_fed.compare.statistics import PairedDifference
from dogo_fed.evaluation.intervals import LEVEL
from dogo_fed.reporting.pictures.canvas import INK, MUTED, dress, name_colours, save_picture

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_LAYOUT = Layout(
    columns=2, panel=(6.2, 4.4), left=0.75, bottom=0.7, right=0.3, beside=0.22, below=0.42
)
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
    title = f"{comparison.experiment.name}: gain over solo against traffic"
    left_out = comparison.experiment.not_counted
    but = f" but {', '.join(left_out)}" if left_out else ""
    subtitle = f"mean over the peers{but}; a line: its {LEVEL:.0%} interval, paired by seed"
    figure, panels = lay_out(_LAYOUT, comparison.tables(), title, subtitle)
    colours = name_colours([column.name for column in comparison.columns])
    for panel in panels:
        gain = f"gain ({panel.rows[0].unit.name})" if panel.is_leftmost else ""
        across = "MB a peer, both ways, in the whole run" if panel.is_lowest else ""
        dress(panel.axes, panel.title, gain, across)
        _draw_panel(panel.axes, panel.rows, comparison, colours)
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
