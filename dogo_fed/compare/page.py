"""What compare.png and variants.png share: how many panels, and a heading."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dogo_fed.reporting.pictures.canvas import INK, MUTED

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST_PANELS = 12
HEAD_INCHES = 1.0


def write_heading(figure: Figure, title: str, subtitle: str, left: float) -> None:
    """Writes both at the top; `left` is a share of the figure's width."""
    height = figure.get_figheight()
    figure.text(left, 1 - 0.42 / height, title, fontsize=16, fontweight="bold", color=INK)
    figure.text(left, 1 - 0.7 / height, subtitle, fontsize=10, color=MUTED)
