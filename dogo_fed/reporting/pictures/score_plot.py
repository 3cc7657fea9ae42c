"""The picture of a protocol: a panel per metric and group, a colour per encoder."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from dogo_fed.reporting.pictures.canvas import (
    INK,
    MUTED,
    PeerColours,
    dress,
    name_colours,
    save_picture,
    say_empty,
    tint,
)
from dogo_fed.reporting.score_sheet import ScoreMean, ScoreSheet, is_share, means

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_PANEL_INCHES = (4.2, 3.1)
_MOST_COLUMNS = 4
_DOTS_PER_INCH = 120
_LOG_FROM_RATIO = 10.0


def draw_scores(sheet: ScoreSheet, path: str | os.PathLike[str]) -> None:
    """Draws a sheet and writes the picture as PNG, in full or not at all.

    Conditions with a level are lines over it, the others are points side by side. Bars are the
    deviation over draws, or the interval of the measurement where there is one draw; a condition
    without a group is in every panel of its metric that has levels.
    """
    save_picture(lambda: _figure(sheet), path, _DOTS_PER_INCH)


def _figure(sheet: ScoreSheet) -> Figure:
    from matplotlib.figure import Figure

    columns = {name: means(scores) for name, scores in sheet.scores.items()}
    panels = _panels([cell for cells in columns.values() for cell in cells])
    wide = min(_MOST_COLUMNS, max(1, len(panels)))
    high = max(1, math.ceil(len(panels) / wide))
    width = max(7.0, _PANEL_INCHES[0] * wide)
    height = _PANEL_INCHES[1] * high + 1.2
    figure = Figure(figsize=(width, height), layout="constrained")
    figure.get_layout_engine().set(rect=(0.01, 0.01, 0.98, 1 - 1.05 / height))  # type: ignore[call-arg, union-attr]
    colours = name_colours(list(columns))
    figure.text(
        0.02, 1 - 0.38 / height, f"{sheet.protocol.replace('_', ' ')}: {sheet.source}",
        fontsize=14, fontweight="bold", color=INK,
    )  # fmt: skip
    figure.text(
        0.02, 1 - 0.62 / height, f"frozen encoders on {sheet.dataset}, seed {sheet.seed}",
        fontsize=9.5, color=MUTED,
    )  # fmt: skip
    _name_encoders(figure, colours, 1 - 0.66 / height)
    grid = figure.subplots(high, wide, squeeze=False)
    all_axes = list(grid.flat)
    for axes, (metric, group) in zip(all_axes, panels, strict=False):
        members = {name: _members(cells, metric, group) for name, cells in columns.items()}
        _draw_panel(axes, metric, group, members, colours)
    for axes in all_axes[len(panels) :]:
        axes.set_visible(False)
    if not panels:
        say_empty(all_axes[0], "no scores")
    return figure


def _name_encoders(figure: Figure, colours: PeerColours, top: float) -> None:
    from matplotlib.lines import Line2D

    handles = [
        Line2D([], [], color=colour, linewidth=3.5, label=n) for n, colour in colours.items()
    ]
    figure.legend(
        handles=handles, loc="upper left", bbox_to_anchor=(0.012, top), ncols=max(1, len(handles)),
        frameon=False, fontsize=9.5, labelcolor=INK, handlelength=1.4,
    )  # fmt: skip


def _panels(cells: Sequence[ScoreMean]) -> list[tuple[str, str]]:
    """Returns (metric, group) of every panel; a metric's ungrouped conditions join its groups."""
    found = dict.fromkeys((cell.metric, cell.group) for cell in cells)
    with_groups = {metric for metric, group in found if group}
    return [(metric, group) for metric, group in found if group or metric not in with_groups]


def _members(cells: Sequence[ScoreMean], metric: str, group: str) -> list[ScoreMean]:
    """Returns the cells of a panel."""
    own = [cell for cell in cells if cell.metric == metric and cell.group == group]
    if not group:
        return own
    shared = [
        cell
        for cell in cells
        if cell.metric == metric and not cell.group and math.isfinite(cell.level)
    ]
    return [*shared, *own]


def _draw_panel(
    axes: Axes,
    metric: str,
    group: str,
    members: Mapping[str, Sequence[ScoreMean]],
    colours: PeerColours,
) -> None:
    """Draws one panel: lines over levels, or points over conditions."""
    factor = 100.0 if is_share(metric) else 1.0
    title = (group or metric).replace("_", " ")
    all_cells = [cell for cells in members.values() for cell in cells]
    has_levels = all(math.isfinite(cell.level) for cell in all_cells)
    level_name, level_is_share = all_cells[0].level_name, all_cells[0].level_is_share
    x_label = f"{level_name}, %" if level_is_share else level_name
    dress(axes, title, "%" if is_share(metric) else "", x_label)
    names = list(dict.fromkeys(cell.condition for cell in all_cells))
    percents = 100.0 if level_is_share else 1.0
    for index, (name, cells) in enumerate(members.items()):
        aside = 0.0 if has_levels else 0.12 * (index - (len(members) - 1) / 2)
        places = [
            percents * cell.level if has_levels else names.index(cell.condition) + aside
            for cell in cells
        ]
        heights = [factor * cell.mean for cell in cells]
        _bars(axes, places, cells, factor, tint(colours[name], 0.55))
        axes.plot(
            places, heights, color=colours[name], marker="o", markersize=5,
            markeredgecolor="white", linewidth=2.0, linestyle="-" if has_levels else "none", zorder=3,
        )  # fmt: skip
    if has_levels:
        _scale_levels(axes, [percents * cell.level for cell in all_cells])
    else:
        axes.set_xticks(range(len(names)), names, rotation=20 if len(names) > 3 else 0)
        axes.set_xlim(-0.6, len(names) - 0.4)
        axes.set_xlabel("")


def _bars(
    axes: Axes, places: Sequence[float], cells: Sequence[ScoreMean], factor: float, colour: str
) -> None:
    """Draws the spread of every cell that has one."""
    for place, cell in zip(places, cells, strict=True):
        low, high = (
            (cell.mean - cell.std, cell.mean + cell.std)
            if math.isfinite(cell.std)
            else (cell.low, cell.high)
        )
        if math.isfinite(low) and math.isfinite(high):
            axes.plot([place, place], [factor * low, factor * high], color=colour, linewidth=3.0)


def _scale_levels(axes: Axes, levels: Sequence[float]) -> None:
    """Puts a tick at every level, on a logarithmic scale where they span far."""
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

    ticks = sorted(set(levels))
    if ticks and ticks[0] > 0 and ticks[-1] / ticks[0] >= _LOG_FROM_RATIO:
        axes.set_xscale("log")
    axes.xaxis.set_major_locator(FixedLocator(ticks))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
