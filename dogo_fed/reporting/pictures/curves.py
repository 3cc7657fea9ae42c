"""curves.png: accuracy, losses, mutual KL and time of a run in one picture."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from dogo_fed.contracts import Event, Record
from dogo_fed.reporting.pictures import panels
from dogo_fed.reporting.pictures.canvas import INK, MUTED, peer_colours, save_picture, scale_steps
from dogo_fed.reporting.pictures.event_marks import mark_events
from dogo_fed.reporting.pictures.series import PeerSeries, collect_series
from dogo_fed.reporting.pictures.time_panel import draw_time

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_SIZE_INCHES = (13.5, 8.8)


def draw_curves(records: Iterable[Record], path: str | os.PathLike[str], title: str) -> None:
    """Draws a run and writes the picture as PNG, in full or not at all.

    Four panels: kNN top-1 at every round with the untrained backbone dotted; the objective's loss;
    the mutual KL; where the time of a step goes. A peer has one colour in all of them. Peers that
    were lost or came back are marked, and so is a stop. Panels without data say so.

    Args:
        records: of the whole run, for example from `read_records`.
        path: ends in .png.
        title: one line above the picture.
    """
    peers, events = collect_series(records)
    save_picture(lambda: _figure(peers, events, title), path)


def _figure(peers: Sequence[PeerSeries], events: Sequence[Event], title: str) -> Figure:
    """Returns the figure; made without pyplot, so no global state and no display is involved."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=_SIZE_INCHES)
    top = 0.87 - 0.026 * panels.num_legend_rows(peers)
    grid = figure.add_gridspec(
        2, 2, left=0.05, right=0.98, bottom=0.065, top=top, wspace=0.17, hspace=0.34
    )
    figure.text(0.05, 0.957, title, fontsize=16, fontweight="bold", color=INK)
    figure.text(0.05, 0.93, panels.subtitle(peers), fontsize=10.5, color=MUTED)
    colours = peer_colours(peers)
    panels.draw_legend(figure, peers, colours)
    over_steps = [
        *panels.draw_accuracy(figure, grid[0, 0], peers, colours),
        *panels.draw_loss(figure, grid[0, 1], peers, colours),
        *panels.draw_mutual_kl(figure, grid[1, 0], peers, colours),
    ]
    draw_time(figure, grid[1, 1], peers, colours)
    scale_steps(over_steps, max((peer.last_step for peer in peers), default=0.0))
    mark_events(over_steps, events, colours)
    return figure
