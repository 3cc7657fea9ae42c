"""The panels of curves.png over steps: accuracy, loss, mutual KL. One function per panel."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from dogo_fed.reporting.pictures.canvas import (
    INK,
    MUTED,
    PeerColours,
    draw_smoothed,
    dress,
    label_ends,
    say_empty,
)
from dogo_fed.reporting.pictures.series import FloatArray, PeerSeries, at_exchanges

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.gridspec import SubplotSpec


def num_legend_rows(peers: Sequence[PeerSeries]) -> int:
    """Returns how many lines the legend takes."""
    return -(-len(peers) // _legend_columns(peers))


def _legend_columns(peers: Sequence[PeerSeries]) -> int:
    """Returns how many labels fit beside each other, at most 4."""
    longest = max((len(peer.label) for peer in peers), default=0)
    return max(1, min(4, 154 // (longest + 6)))


def subtitle(peers: Sequence[PeerSeries]) -> str:
    """Returns the size of the run in words."""
    num_steps = max((int(peer.steps_S[-1]) + 1 for peer in peers if len(peer.steps_S)), default=0)
    num_rounds = max((int((peer.measured_R > 0).sum()) for peer in peers), default=0)
    return " \u00b7 ".join(
        _counted(count, noun)
        for count, noun in ((len(peers), "peer"), (num_steps, "step"), (num_rounds, "round"))
    )


def draw_legend(figure: Figure, peers: Sequence[PeerSeries], colours: PeerColours) -> None:
    """Names the peers and their colours once, above all panels."""
    from matplotlib.lines import Line2D

    if not peers:
        return
    handles = [Line2D([], [], color=colours[p.name], linewidth=3.5, label=p.label) for p in peers]
    figure.legend(
        handles=handles,
        loc="upper left",
        bbox_to_anchor=(0.044, 0.925),
        ncols=_legend_columns(peers),
        frameon=False,
        fontsize=10.5,
        labelcolor=INK,
        handlelength=1.4,
        columnspacing=2.0,
    )


def draw_accuracy(
    figure: Figure, cell: SubplotSpec, peers: Sequence[PeerSeries], colours: PeerColours
) -> list[Axes]:
    """Draws kNN top-1 in percent at every round; the untrained backbone as a dotted line.

    Where no accuracy could be measured, the effective rank of the features is drawn instead.
    """
    axes = figure.add_subplot(cell)
    measured = [peer for peer in peers if len(peer.measured_R)]
    is_ranked = not any(np.isfinite(peer.knn_top1_R).any() for peer in measured) and any(
        np.isfinite(peer.rankme_R).any() for peer in measured
    )
    title = "Effective rank of the features" if is_ranked else "kNN top-1 on frozen features"
    dress(axes, title, "" if is_ranked else "%", "step (one point per round)")
    if not measured:
        return _empty(axes, "no evaluation yet")
    for peer in measured:
        colour, (values_R, untrained) = colours[peer.name], _scored(peer, is_ranked)
        if np.isfinite(untrained):
            axes.axhline(untrained, color=colour, linewidth=1.3, linestyle=":")
        axes.plot(peer.measured_R, values_R, color=colour, linewidth=2.2, zorder=3)
        size = 5.5 if len(values_R) <= 40 else 0.0
        axes.plot(
            peer.measured_R,
            values_R,
            linestyle="none",
            marker="o",
            markersize=size,
            color=colour,
            markeredgecolor="white",
            zorder=4,
        )
    ends = [(_scored(p, is_ranked)[0][-1], colours[p.name]) for p in measured]
    label_ends(axes, [end for end in ends if np.isfinite(end[0])])
    axes.text(
        0.99,
        1.035,
        "dotted: untrained",
        transform=axes.transAxes,
        ha="right",
        fontsize=9,
        color=MUTED,
    )
    return [axes]


def _scored(peer: PeerSeries, is_ranked: bool) -> tuple[FloatArray, float]:
    """Returns what the first panel shows of a peer: rank, or accuracy in percent; and untrained."""
    if is_ranked:
        return peer.rankme_R, peer.rankme_untrained
    return 100 * peer.knn_top1_R, 100 * peer.untrained


def draw_loss(
    figure: Figure, cell: SubplotSpec, peers: Sequence[PeerSeries], colours: PeerColours
) -> list[Axes]:
    """Draws the loss of each peer's own objective, smoothed over the raw values.

    Contrastive losses are positive, negative cosines are negative; if a run has both, each kind
    gets a strip with a scale of its own.
    """
    known = [peer for peer in peers if np.isfinite(peer.ssl_loss_S).any()]
    cosine = [peer for peer in known if np.nanmedian(peer.ssl_loss_S) < 0]
    positive = [peer for peer in known if peer not in cosine]
    title = "Self-supervised loss"
    if not known:
        axes = figure.add_subplot(cell)
        dress(axes, title, "", "step")
        return _empty(axes, "no steps yet")
    kinds = [(k, u) for k, u in ((positive, "nats"), (cosine, "negative cosine")) if k]
    strips = cell.subgridspec(len(kinds), 1, hspace=0.14)
    all_axes: list[Axes] = []
    for row, (members, unit) in enumerate(kinds):
        axes = figure.add_subplot(strips[row, 0], sharex=all_axes[0] if all_axes else None)
        is_last = row == len(kinds) - 1
        dress(axes, "" if row else title, unit, "step" if is_last else "")
        axes.tick_params(labelbottom=is_last)
        for peer in members:
            draw_smoothed(axes, peer.steps_S, peer.ssl_loss_S, colours[peer.name])
        all_axes.append(axes)
    return all_axes


def draw_mutual_kl(
    figure: Figure, cell: SubplotSpec, peers: Sequence[PeerSeries], colours: PeerColours
) -> list[Axes]:
    """Draws the mean KL from the other peers to each peer; says so if there was no exchange."""
    axes = figure.add_subplot(cell)
    dress(axes, "Mutual KL: how far the others are from me", "nats", "step")
    taught = [peer for peer in peers if np.isfinite(peer.mutual_kl_S).any()]
    if not taught:
        has_steps = any(len(peer.steps_S) for peer in peers)
        return _empty(axes, "exchange off" if has_steps else "no steps yet")
    for peer in taught:
        draw_smoothed(axes, *at_exchanges(peer.steps_S, peer.mutual_kl_S), colours[peer.name])
    axes.set_ylim(bottom=0.0)
    return [axes]


def _empty(axes: Axes, sentence: str) -> list[Axes]:
    """Says why a panel shows nothing; returns that there is nothing to mark in it."""
    say_empty(axes, sentence)
    return []


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
