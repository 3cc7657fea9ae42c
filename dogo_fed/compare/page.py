"""What compare.png and variants.png share: a panel for each case and metric, a heading, one way to save."""

from __future__ import annotations

import os
from itertools import groupby
from typing import TYPE_CHECKING

from dogo_fed.atomic import atomic_path
from dogo_fed.compare.comparison import RUN_METRICS, Comparison, Row
from dogo_fed.reporting.canvas import INK, MUTED

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST_PANELS = 12
HEAD_INCHES = 1.0
_DOTS_PER_INCH = 140


def panels_of(comparison: Comparison) -> list[tuple[str, list[Row]]]:
    """Returns title and rows of each pair of peers and data set and each metric."""
    return [
        (f"{peers}, {data}: {RUN_METRICS.get(metric, metric)}", list(rows))
        for (peers, data, metric), rows in groupby(
            comparison.rows, lambda row: (row.peers, row.data, row.metric)
        )
    ]


def write_heading(figure: Figure, title: str, subtitle: str, left: float) -> None:
    """Writes both at the top; `left` is a part of the figure's width."""
    height = figure.get_figheight()
    figure.text(left, 1 - 0.42 / height, title, fontsize=16, fontweight="bold", color=INK)
    figure.text(left, 1 - 0.7 / height, subtitle, fontsize=10, color=MUTED)


def save_figure(figure: Figure, path: str | os.PathLike[str]) -> None:
    """Writes the figure as PNG, in full or not at all."""
    with atomic_path(path) as partial:
        figure.savefig(partial, format="png", dpi=_DOTS_PER_INCH, facecolor="white")
