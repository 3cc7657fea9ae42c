"""The panel of curves.png that shows where the time of a step goes, and how many bytes it costs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from dogo_fed.reporting.pictures.canvas import INK, MUTED, PeerColours, dress, say_empty, tint
from dogo_fed.reporting.pictures.series import PeerSeries
from dogo_fed.reporting.units import human_bytes

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.gridspec import SubplotSpec

_PARTS = {"compute": (1.0, ""), "waiting": (0.38, ""), "exchange": (0.12, "/////")}
"""The parts of a step: strength of the peer's colour, and hatch."""


def draw_time(
    figure: Figure, cell: SubplotSpec, peers: Sequence[PeerSeries], colours: PeerColours
) -> None:
    """Draws a bar per peer: the mean step split into compute, waiting and exchange; with bytes."""
    names = {peer.name: _short(peer.name) for peer in peers}
    longest = max((len(name) for name in names.values()), default=0)
    indent = 0.0145 * max(0, longest - 8)
    columns = cell.subgridspec(1, 2, width_ratios=[indent, 1.0 - indent], wspace=0.0)
    axes = figure.add_subplot(columns[0, 1])
    title_x = -indent / (1.0 - indent)
    dress(axes, "Where the time of a step goes", "", "ms per step", title_x)
    timed = [peer for peer in peers if peer.compute_s + peer.wait_s + peer.exchange_s > 0]
    if not timed:
        say_empty(axes, "no steps yet")
        return
    longest_ms = max(1e3 * (p.compute_s + p.wait_s + p.exchange_s) for p in timed)
    for row, peer in enumerate(timed):
        end_ms = _draw_bar(axes, row, peer, colours[peer.name], longest_ms)
        axes.text(
            end_ms + 0.012 * longest_ms,
            row,
            _cost(peer, end_ms),
            va="center",
            fontsize=9,
            color=INK,
        )
    axes.set_yticks(range(len(timed)), [names[peer.name] for peer in timed])
    for label, peer in zip(axes.get_yticklabels(), timed, strict=True):
        label.set(color=colours[peer.name], fontweight="bold")
    spare = max(0.0, 3 - len(timed)) / 2
    axes.set_ylim(len(timed) - 0.45 + spare, -0.55 - spare)
    axes.set_xlim(0.0, longest_ms / (1.0 - 0.28 / (1.0 - indent)))
    axes.grid(False, axis="y")
    _name_parts(axes)


def _short(name: str) -> str:
    """Returns a name that fits beside a bar: the middle of a long one is left out."""
    return name if len(name) <= 24 else f"{name[:11]}..{name[-11:]}"


def _draw_bar(axes: Axes, row: int, peer: PeerSeries, colour: str, longest_ms: float) -> float:
    """Draws one peer's bar, with shares where there is room; returns its end in ms."""
    parts_ms = [1e3 * part_s for part_s in (peer.compute_s, peer.wait_s, peer.exchange_s)]
    end_ms = 0.0
    for part_ms, (strength, hatch) in zip(parts_ms, _PARTS.values(), strict=True):
        axes.barh(
            row,
            part_ms,
            left=end_ms,
            height=0.58,
            facecolor=tint(colour, strength),
            hatch=hatch,
            edgecolor=tint(colour, 0.55),
            linewidth=0.0,
        )
        if part_ms > 0.08 * longest_ms:
            axes.text(
                end_ms + part_ms / 2,
                row,
                f"{100 * part_ms / sum(parts_ms):.0f} %",
                ha="center",
                va="center",
                fontsize=9.5,
                fontweight="bold",
                color="white" if strength == 1.0 else INK,
            )
        end_ms += part_ms
    return end_ms


def _cost(peer: PeerSeries, step_ms: float) -> str:
    """Returns what stands beside a bar: the step's time, and its bytes if there were any."""
    time = f"{step_ms:.0f} ms" if step_ms >= 10 else f"{step_ms:.2g} ms"
    if peer.bytes_up + peer.bytes_down == 0:
        return time
    return f"{time}\n\u2191 {human_bytes(peer.bytes_up)}  \u2193 {human_bytes(peer.bytes_down)}"


def _name_parts(axes: Axes) -> None:
    """Explains the parts of the bars, in grey, above the panel."""
    from matplotlib.patches import Patch

    handles = [
        Patch(
            facecolor=tint(MUTED, strength),
            hatch=hatch,
            edgecolor=tint(MUTED, 0.55),
            linewidth=0.0,
            label=part,
        )
        for part, (strength, hatch) in _PARTS.items()
    ]
    axes.legend(
        handles=handles,
        loc="lower right",
        bbox_to_anchor=(1.01, 0.99),
        ncols=3,
        frameon=False,
        fontsize=9,
        labelcolor=MUTED,
        handlelength=1.2,
        columnspacing=1.2,
    )
