"""The look of our pictures: colours, frames, labels that do not overlap."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from dogo_fed.atomic import atomic_path
from dogo_fed.reporting.pictures.series import FloatArray, PeerSeries, smoothed, thinned

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PeerColours: TypeAlias = Mapping[str, str]

INK = "#1f2933"
MUTED = "#66727f"
_GRID = "#e6eaee"
# Dark enough on white, and told apart by most colour-blind readers in this order.
_PALETTE = ("#0072b2", "#d55e00", "#009e73", "#a8428c", "#d99a00", "#3fa9e0", "#7a4b2a", "#5b5f66")


def save_picture(
    make: Callable[[], Figure], path: str | os.PathLike[str], dots_per_inch: int = 140
) -> None:
    """Makes a figure and writes it as PNG, in full or not at all.

    Names and labels are drawn as they are written. Matplotlib would read a "$" in one as the start
    of a formula, and raise an error if it is none.
    """
    import matplotlib

    with atomic_path(path) as partial, matplotlib.rc_context({"text.parse_math": False}):
        make().savefig(partial, format="png", dpi=dots_per_inch, facecolor="white")


def peer_colours(peers: Sequence[PeerSeries]) -> PeerColours:
    """Returns a colour for every peer name."""
    return name_colours([peer.name for peer in peers])


def name_colours(names: Sequence[str]) -> PeerColours:
    """Returns a colour for every name, in this order."""
    return {name: _PALETTE[i % len(_PALETTE)] for i, name in enumerate(names)}


def tint(colour: str, strength: float) -> str:
    """Returns the colour mixed with white; strength 1 leaves it, 0 gives white."""
    channels = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return "#" + "".join(f"{round(255 - strength * (255 - c)):02x}" for c in channels)


def dress(axes: Axes, title: str, y_label: str, x_label: str, title_x: float = 0.0) -> None:
    """Gives a panel its title, its labels and a quiet frame."""
    axes.set_title(title, loc="left", x=title_x, fontsize=12, fontweight="bold", color=INK, pad=9)
    axes.set_ylabel(y_label, fontsize=10, color=MUTED)
    axes.set_xlabel(x_label, fontsize=10, color=MUTED)
    axes.grid(color=_GRID, linewidth=0.9)
    axes.set_axisbelow(True)
    axes.tick_params(colors=MUTED, labelsize=9.5, length=0)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color("#c3cad1")


def scale_steps(all_axes: Sequence[Axes], last_step: float) -> None:
    """Gives all panels over steps the same range and whole numbers at their ticks."""
    from matplotlib.ticker import MaxNLocator

    for axes in all_axes:
        axes.set_xlim(-0.015 * last_step - 0.05, 1.015 * last_step + 0.05)
        axes.xaxis.set_major_locator(MaxNLocator(nbins=8, integer=True, steps=[1, 2, 2.5, 5, 10]))


def say_empty(axes: Axes, sentence: str) -> None:
    """Says in the middle of a panel why it shows nothing."""
    axes.text(
        0.5,
        0.5,
        sentence,
        transform=axes.transAxes,
        ha="center",
        va="center",
        fontsize=14,
        color="#9aa5b1",
    )
    axes.set(xticks=[], yticks=[], xlabel="", ylabel="")
    axes.spines[:].set_visible(False)
    axes.set_facecolor("#f7f9fa")


def draw_smoothed(axes: Axes, steps_S: FloatArray, values_S: FloatArray, colour: str) -> None:
    """Draws the raw values faintly and their moving mean over 2 % of the run on top."""
    window = max(1, len(values_S) // 50)
    if window > 1:
        axes.plot(thinned(steps_S), thinned(values_S), color=colour, alpha=0.2, linewidth=0.8)
    axes.plot(
        thinned(steps_S), thinned(smoothed(values_S, window)), color=colour, linewidth=2.0, zorder=3
    )


def label_ends(axes: Axes, ends: Sequence[tuple[float, str]]) -> None:
    """Writes the last value (percent) of every line to the right of the panel, without overlap.

    Args:
        axes: its limits stay as they are from here on.
        ends: height and colour of every line's end.
    """
    low, high = axes.get_ylim()
    axes.set_ylim(low, high)
    heights = spread([height for height, _ in ends], 0.058 * (high - low), low, high)
    for (value, colour), height in zip(ends, heights, strict=True):
        axes.text(
            1.012,
            height,
            f"{value:.1f}",
            transform=axes.get_yaxis_transform(),
            fontsize=10.5,
            fontweight="bold",
            color=colour,
            va="center",
        )


def spread(heights: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """Returns the heights moved apart to at least `gap`, in order, between low and high."""
    order = sorted(range(len(heights)), key=lambda i: heights[i])
    stacks: list[list[int]] = []
    for i in order:
        stacks.append([i])
        while len(stacks) > 1 and _overlap(stacks[-2], stacks[-1], heights, gap):
            stacks[-2:] = [stacks[-2] + stacks[-1]]
    places = [
        _lowest(stack, heights, gap) + place * gap
        for stack in stacks
        for place in range(len(stack))
    ]
    moved = list(heights)
    for rank, i in enumerate(order):
        below_top = min(places[rank], high - gap * (len(order) - 1 - rank))
        moved[i] = max(below_top, low + gap * rank)
    return moved


def _overlap(
    lower: Sequence[int], upper: Sequence[int], heights: Sequence[float], gap: float
) -> bool:
    top = _lowest(lower, heights, gap) + gap * (len(lower) - 1)
    return top + gap > _lowest(upper, heights, gap)


def _lowest(stack: Sequence[int], heights: Sequence[float], gap: float) -> float:
    """Returns the lowest place of labels that are stacked around their mean height."""
    return float(np.mean([heights[i] for i in stack])) - 0.5 * gap * (len(stack) - 1)
