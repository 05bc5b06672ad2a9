"""Plots of what run.py measured."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, NullLocator

import yardsticks

# Okabe and Ito: colours that everybody can tell apart. Black is the yardstick, grey the floor.
BLUE, VERMILION, GREEN, ORANGE, SKY, PURPLE = "#0072B2", "#D55E00", "#009E73", "#E69F00", "#56B4E9", "#CC79A7"
STYLES: dict[str, dict[str, Any]] = {
    "numpy.copy": {"color": "#999999", "linestyle": ":", "marker": None},
    "numpy.argsort": {"color": "black", "linestyle": "--", "marker": "x"},
    "malis.malis_loss": {"color": BLUE, "linewidth": 2.5, "marker": "o"},
    "malis.pairs": {"color": SKY, "marker": "s"},
    "malis.pairs (2009)": {"color": GREEN, "marker": "D"},
    "higra.bpt_canonical": {"color": VERMILION, "marker": "^"},
    "scipy minimum_spanning_tree": {"color": ORANGE, "marker": "v"},
    "malis.affgraph_to_seg": {"color": BLUE, "linewidth": 2.5, "marker": "o"},
    "cc3d.color_connectivity_graph": {"color": VERMILION, "marker": "^"},
    "scipy connected_components": {"color": ORANGE, "marker": "v"},
    "skimage.measure.label": {"color": PURPLE, "marker": "P"},
    "malis.malis_loss, masked": {"color": SKY, "marker": "s"},
    "malis.rand_curve": {"color": VERMILION, "marker": "^"},
    "malis.watershed_from_affgraph": {"color": GREEN, "marker": "D"},
}
FLOORS = ("numpy.copy", "numpy.argsort")  # drawn in every picture of times
LOOK = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "figure.dpi": 110,
    "savefig.bbox": "tight",
}


def _seconds(value: float, _: int | None = None) -> str:
    if value >= 1:
        return f"{value:g} s"
    return f"{1e3 * value:g} ms" if value >= 1e-3 else f"{1e6 * value:g} µs"


def _draw_times(axes: Axes, comparison: dict[str, Any], labels: Sequence[str]) -> None:
    """Draw the time of candidates against the size of the volume, on logarithmic axes."""
    ticks: set[int] = set()
    for label in labels:
        points = comparison["seconds"][label]
        if points:
            sizes = sorted(points)
            ticks.update(sizes)
            axes.plot(sizes, [points[n] for n in sizes], label=label, **STYLES[label])
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xticks(sorted(ticks), [f"{n}³" for n in sorted(ticks)])
    axes.yaxis.set_major_formatter(FuncFormatter(_seconds))
    axes.yaxis.set_tick_params(labelleft=True)
    axes.grid(alpha=0.3)
    axes.set_xlabel("voxels, 3 edges each")
    axes.legend(frameon=False, fontsize=7.5, loc="upper left")


def time_against_size(comparison: dict[str, Any], path: Path) -> None:
    figure, panels = plt.subplots(1, 2, figsize=(9.5, 4.2), sharey=True)
    titles = {"tree": "spanning trees, pair counts, loss", "components": "connected components"}
    for axes, (group, title) in zip(panels, titles.items(), strict=True):
        _draw_times(axes, comparison, [c.label for c in yardsticks.CANDIDATES if c.group == group or c.label in FLOORS])
        axes.set_title(title)
    low, high = panels[0].get_ylim()
    panels[0].set_ylim(low, 12 * high)  # room for the legends
    panels[0].set_ylabel("time")
    figure.tight_layout()
    figure.savefig(path)
    plt.close(figure)


def growth(comparison: dict[str, Any], path: Path) -> None:
    """Draw the loss, the loss with a mask, the curve and the watershed."""
    figure, axes = plt.subplots(figsize=(5.2, 4))
    more = [candidate.label for candidate in yardsticks.CANDIDATES if candidate.group == "more"]
    _draw_times(axes, comparison, [*FLOORS, "malis.malis_loss", *more])
    axes.set_ylabel("time")
    figure.savefig(path)
    plt.close(figure)


def memory_per_edge(found: dict[str, Any], path: Path) -> None:
    per_edge = found["bytes_per_edge"]
    labels = list(per_edge)
    figure, axes = plt.subplots(figsize=(7, 0.35 * len(labels) + 1.1))
    output, beyond = ([per_edge[label][key] for label in labels] for key in ("output", "beyond"))
    axes.barh(labels, output, color=SKY, label="output")
    axes.barh(labels, beyond, left=output, color=BLUE, label="beyond input and output")
    axes.invert_yaxis()
    axes.set_xlabel(f"peak memory at {found['size']}³, bytes per edge")
    axes.grid(axis="x", alpha=0.3)
    axes.legend(frameon=False)
    figure.savefig(path)
    plt.close(figure)


def phases(scaling: dict[str, Any], path: Path) -> None:
    """What parts of a call take, as calls of their own: nothing is taken apart that users do not see."""
    seconds, copy = scaling["seconds"], scaling["yardsticks"]["numpy.copy"]
    most = max(int(threads) for threads in seconds["malis_loss"])
    names = {
        "copy the affinities": copy,
        "compare labels (seg_to_affgraph)": seconds["seg_to_affgraph"],
        "loss without an object": seconds["malis_loss, no objects"],
        "merge above a threshold (affgraph_to_seg)": seconds["affgraph_to_seg"],
        "loss and gradient (malis_loss)": seconds["malis_loss"],
        "dense counts (pairs)": seconds["pairs"],
        "sort (numpy.argsort)": scaling["yardsticks"]["numpy.argsort"],
    }
    figure, axes = plt.subplots(figsize=(7, 3.4))
    for i, value in enumerate(names.values()):
        if isinstance(value, float):
            axes.barh(i, 1e3 * value, height=0.7, color="#999999")
            continue
        bars = ((1, SKY),) if most == 1 else ((1, SKY), (most, BLUE))
        height = 0.76 / len(bars)
        for j, (threads, colour) in enumerate(bars):
            axes.barh(i + (j - (len(bars) - 1) / 2) * height, 1e3 * value[threads], height=height, color=colour)
    handles = [plt.Rectangle((0, 0), 1, 1, color=colour) for colour in (SKY, BLUE, "#999999")]
    axes.legend(handles, ["1 thread", f"{most} threads", "NumPy"], frameon=False)
    axes.set_yticks(range(len(names)), names)
    axes.invert_yaxis()
    axes.set_xlabel(f"time at {scaling['size']}³, ms")
    axes.grid(axis="x", alpha=0.3)
    figure.savefig(path)
    plt.close(figure)


def speed_up(scaling: dict[str, Any], path: Path) -> None:
    figure, axes = plt.subplots(figsize=(4.6, 3.4))
    colours = {"malis_loss": BLUE, "pairs": SKY, "affgraph_to_seg": VERMILION, "seg_to_affgraph": GREEN}
    most = 1
    for (name, colour), marker in zip(colours.items(), "osv^", strict=True):
        points = {int(threads): value for threads, value in scaling["seconds"][name].items()}
        most = max(points)
        faster = [points[1] / points[n] for n in sorted(points)]
        axes.plot(sorted(points), faster, color=colour, marker=marker, label=name)
    axes.plot([1, most], [1, most], color="black", linestyle="--", linewidth=1, label="ideal")
    axes.set_xticks(range(1, most + 1))
    axes.set_ylim(bottom=0)
    axes.set_xlabel("threads")
    axes.set_ylabel(f"speed-up at {scaling['size']}³")
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    figure.savefig(path)
    plt.close(figure)


@plt.rc_context(LOOK)
def save(results: dict[str, Any], folder: Path) -> list[Path]:
    """Save one picture for each part of the results that is there."""
    folder.mkdir(parents=True, exist_ok=True)
    saved = []

    def picture(name: str) -> Path:
        saved.append(folder / f"benchmark_{name}.png")
        return saved[-1]

    time_against_size(results["comparison"], picture("time"))
    growth(results["comparison"], picture("growth"))
    if results["memory"]["bytes_per_edge"]:
        memory_per_edge(results["memory"], picture("memory"))
    phases(results["scaling"], picture("phases"))
    speed_up(results["scaling"], picture("threads"))
    return saved
