"""The drawings of the user guide, made when the pages that show them are built."""

from __future__ import annotations

from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

# Wong (Nature Methods 2011): colours that colour-blind readers tell apart. Background is white.
COLOURS = ["white", "#56b4e9", "#e69f00", "#009e73", "#cc79a7"]
SURE, UNSURE, POSITIVE, NEGATIVE = "#222222", "#d55e00", "#0072b2", "#d55e00"


def save_whole_figures(gallery_conf: dict[str, Any], script: str | None) -> None:
    """Let the gallery save all of a figure: titles and legends beside the axes of images lie beyond its edges."""
    plt.rcParams["savefig.bbox"] = "tight"


def graph(seg: npt.NDArray[np.int64], aff: npt.NDArray[np.float64], nhood: npt.NDArray[np.int32]) -> Figure:
    """Draw the pixels of an image and the edges between them; a weak edge is thin and dashed."""
    rows, columns = seg.shape
    _, ax = plt.subplots(figsize=(1.1 * columns, 1.1 * rows), layout="constrained")
    for offset, channel in zip(nhood, aff, strict=True):
        for (y, x), affinity in np.ndenumerate(channel):
            other = y + offset[0], x + offset[1]
            if not (0 <= other[0] < rows and 0 <= other[1] < columns):
                continue
            strong = affinity >= 0.5
            ax.plot([x, other[1]], [y, other[0]], "-" if strong else ":", color=SURE, lw=1 + 5 * affinity, zorder=1)
            middle = (x + other[1]) / 2, (y + other[0]) / 2
            box = {"boxstyle": "round,pad=0.1", "fc": "white", "ec": "none", "alpha": 0.85}
            ax.annotate(f"{affinity:.1f}", middle, ha="center", va="center", fontsize=9, bbox=box, zorder=2)
    for (y, x), label in np.ndenumerate(seg):
        ax.scatter(x, y, s=620, color=COLOURS[label], edgecolors=SURE, zorder=3)
        ax.annotate(str(label), (x, y), ha="center", va="center", zorder=4)
    return _finish(ax, (-0.5, columns - 0.5), (rows - 0.5, -0.5))


def offsets(neighbourhoods: dict[str, npt.ArrayLike]) -> Figure:
    """Draw where the offsets of some two-dimensional neighbourhoods lead to."""
    figure, axes = plt.subplots(1, len(neighbourhoods), figsize=(3.2 * len(neighbourhoods), 3.5), layout="constrained")
    for ax, (title, nhood) in zip(np.atleast_1d(axes), neighbourhoods.items(), strict=True):
        array = np.asarray(nhood)
        reach = int(np.abs(array).max())
        grid = np.arange(-reach, reach + 1)
        ax.scatter(*np.meshgrid(grid, grid), s=12, color="#bbbbbb", zorder=1)
        for channel, (dy, dx) in enumerate(array):
            colour = COLOURS[1:][channel % 4]
            ax.annotate("", (dx, dy), (0, 0), arrowprops={"arrowstyle": "-|>", "color": colour, "lw": 2.2}, zorder=2)
        ax.scatter(0, 0, s=70, color=SURE, zorder=3)
        ax.set_title(title, fontsize=10)
        _finish(ax, (-reach - 0.6, reach + 0.6), (reach + 0.6, -reach - 0.6))
    return figure


def chain(seg: npt.ArrayLike, aff: npt.ArrayLike, pos: npt.ArrayLike, neg: npt.ArrayLike) -> Figure:
    """Draw voxels in a row, the affinity of every edge above it and the pairs that it decides below it."""
    labels, affinities, positive, negative = (np.asarray(a) for a in (seg, aff, pos, neg))
    _, ax = plt.subplots(figsize=(1.25 * len(labels), 1.9), layout="constrained")
    for v in range(1, len(labels)):
        ax.plot([v - 1, v], [0, 0], color=SURE, lw=1 + 6 * affinities[v], zorder=1)
        ax.annotate(f"{affinities[v]:.1f}", (v - 0.5, 0.28), ha="center", fontsize=10)
        for count, colour, word in ((positive[v], POSITIVE, "positive"), (negative[v], NEGATIVE, "negative")):
            if count:
                ax.annotate(f"{count}\n{word}", (v - 0.5, -0.72), ha="center", fontsize=9, color=colour, weight="bold")
    for v, label in enumerate(labels):
        ax.scatter(v, 0, s=520, color=COLOURS[label], edgecolors=SURE, zorder=3)
        ax.annotate(str(label), (v, 0), ha="center", va="center", zorder=4)
    return _finish(ax, (-0.5, len(labels) - 0.5), (-0.85, 0.55), equal=False)


def _finish(ax: Axes, x: tuple[float, float], y: tuple[float, float], equal: bool = True) -> Figure:
    ax.set(xlim=x, ylim=y)
    if equal:
        ax.set_aspect("equal")
    ax.axis("off")
    figure = ax.figure
    assert isinstance(figure, Figure)
    return figure
