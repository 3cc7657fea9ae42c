"""Marks in curves.png: where peers were lost or came back, and where the run was stopped."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING

from dogo_fed.contracts import Event, EventKind
from dogo_fed.reporting.pictures.canvas import INK, PeerColours

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_MARKED = {
    EventKind.PEER_LOST: "lost",
    EventKind.PEER_REJOINED: "back",
    EventKind.STOPPED: "stopped",
}
_MOST_MARKS = 12


def mark_events(all_axes: Sequence[Axes], events: Sequence[Event], colours: PeerColours) -> None:
    """Marks where peers were lost or came back, and shades the time between.

    Args:
        all_axes: the panels over steps; their limits are final. The first one has the labels.
        events: of the run; those before the first step are left out, later ones than the last
            are marked there.
        colours: of the peers.
    """
    end = max((axes.get_xlim()[1] for axes in all_axes), default=0.0)
    marks = [
        dataclasses.replace(event, step=min(event.step, int(end)))
        for event in events
        if event.kind in _MARKED and event.step >= 0
    ]
    for index, event in enumerate(marks[:_MOST_MARKS]):
        colour = colours.get(event.peer, INK)
        for axes in all_axes:
            axes.axvline(event.step, color=colour, linewidth=1.1, linestyle=(0, (5, 3)))
            if event.kind == EventKind.PEER_LOST:
                until = _back_at(event, marks[index:], axes.get_xlim()[1])
                axes.axvspan(event.step, until, color=colour, alpha=0.07, linewidth=0.0)
        for axes in all_axes[:1]:
            is_late = event.step > 0.5 * axes.get_xlim()[1]
            axes.text(
                event.step,
                0.04 + 0.075 * (index % 3),
                f" {event.peer or 'run'} {_MARKED[event.kind]} ",
                ha="right" if is_late else "left",
                transform=axes.get_xaxis_transform(),
                fontsize=9,
                fontweight="bold",
                color=colour,
                bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.8, "alpha": 0.8},
                zorder=6,
            )


def _back_at(lost: Event, later: Sequence[Event], end: float) -> float:
    """Returns the step at which a lost peer came back, or the end of the panel."""
    back = (e.step for e in later if e.kind == EventKind.PEER_REJOINED and e.peer == lost.peer)
    return float(next(back, end))
