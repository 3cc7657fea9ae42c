"""What the pictures of a comparison share: a heading, and panels in rows under it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dogo_fed.compare.comparison import Row
from dogo_fed.reporting.pictures.canvas import INK, MUTED, say_empty

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST_PANELS = 12
_HEAD_INCHES = 1.0


@dataclass(frozen=True, slots=True)
class Layout:
    """Lengths of a picture, in inches; gaps are shares of a panel.

    Attributes:
        columns: panels beside each other, at most.
        panel: width and height of a panel with its labels.
        left: from the edge to the first panel.
        bottom: from the edge to the last panel.
        right: from the last panel to the edge.
        beside: gap between panels that stand beside each other.
        below: gap between panels under each other.
        heading: from the edge to the heading; None: as far as the panels.
        extra_width: of the whole picture.
    """

    columns: int
    panel: tuple[float, float]
    left: float
    bottom: float
    right: float
    beside: float
    below: float
    heading: float | None = None
    extra_width: float = 0.0


@dataclass(frozen=True, slots=True)
class Panel:
    """A place for one table of a comparison."""

    axes: Axes
    title: str
    rows: Sequence[Row]
    is_leftmost: bool
    is_lowest: bool


def lay_out(
    layout: Layout, tables: Sequence[tuple[str, Sequence[Row]]], title: str, subtitle: str
) -> tuple[Figure, list[Panel]]:
    """Returns a figure with its heading, and a panel for each table, at most `MOST_PANELS`.

    It is made without pyplot, so no global state and no display is involved. Without a table the
    figure says that nothing is finished yet.
    """
    from matplotlib.figure import Figure

    drawn = tables[:MOST_PANELS]
    columns = max(1, min(layout.columns, len(drawn)))
    num_rows = max(1, -(-len(drawn) // columns))
    width = layout.panel[0] * columns + layout.extra_width
    height = layout.panel[1] * num_rows + _HEAD_INCHES
    figure = Figure(figsize=(width, height))
    grid = figure.add_gridspec(
        num_rows,
        columns,
        left=layout.left / width,
        right=1 - layout.right / width,
        bottom=layout.bottom / height,
        top=1 - (_HEAD_INCHES + 0.3) / height,
        wspace=layout.beside,
        hspace=layout.below,
    )
    left = (layout.left if layout.heading is None else layout.heading) / width
    figure.text(left, 1 - 0.42 / height, title, fontsize=16, fontweight="bold", color=INK)
    figure.text(left, 1 - 0.7 / height, subtitle, fontsize=10, color=MUTED)
    if not drawn:
        say_empty(figure.add_subplot(grid[0, 0]), "no cell is finished yet")
    panels = [
        Panel(
            axes=figure.add_subplot(grid[place // columns, place % columns]),
            title=name,
            rows=rows,
            is_leftmost=place % columns == 0,
            is_lowest=place // columns == num_rows - 1,
        )
        for place, (name, rows) in enumerate(drawn)
    ]
    return figure, panels
