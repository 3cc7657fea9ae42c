"""A picture of encoders by sites: the better an encoder serves a site, the darker the field."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from dogo_fed.reporting.pictures.canvas import INK, MUTED, save_picture

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_DARK = 0.6
"""Of the range of colours: from here on the number is written in white."""


def draw_matrix(
    accuracies: Mapping[str, Mapping[str, float]], path: str | os.PathLike[str]
) -> None:
    """Writes the picture as PNG, in full or not at all.

    Args:
        accuracies: encoder to site to accuracy, 0 to 1; NaN is left blank.
        path: of the picture.
    """
    save_picture(lambda: _figure(accuracies), path)


def _figure(accuracies: Mapping[str, Mapping[str, float]]) -> Figure:
    from matplotlib.figure import Figure

    encoders, sites = list(accuracies), list(next(iter(accuracies.values())))
    values_ES = 100 * np.array(
        [[accuracies[encoder][site] for site in sites] for encoder in encoders]
    )
    figure = Figure(figsize=(2.6 + 0.95 * len(sites), 1.8 + 0.55 * len(encoders)), layout="tight")
    axes = figure.subplots()
    known = values_ES[np.isfinite(values_ES)]
    low, high = (float(known.min()), float(known.max())) if len(known) else (0.0, 1.0)
    span = max(high - low, 1e-9)
    axes.imshow(values_ES, cmap="Blues", vmin=low - 0.25 * span, vmax=high, aspect="auto")
    for row, encoder in enumerate(encoders):
        for column, site in enumerate(sites):
            value = values_ES[row, column]
            if math.isfinite(value):
                axes.text(
                    column,
                    row,
                    f"{value:.1f}",
                    ha="center",
                    va="center",
                    fontsize=10.5,
                    fontweight="bold" if encoder == site else "normal",
                    color="white" if (value - low) / span > _DARK else INK,
                )
    axes.set_xticks(range(len(sites)), sites, rotation=30 if len(sites) > 4 else 0, color=INK)
    axes.set_yticks(range(len(encoders)), encoders, color=INK)
    axes.set_xlabel("on the images of", color=MUTED)
    axes.set_ylabel("encoder of", color=MUTED)
    axes.tick_params(length=0, labelsize=9.5)
    axes.spines[:].set_visible(False)
    axes.set_title("kNN, top-1 in %", loc="left", fontsize=12, fontweight="bold", color=INK, pad=9)
    return figure
