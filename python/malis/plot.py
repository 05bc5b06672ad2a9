"""Pictures of affinities, labels, errors, of what the loss looks at, and of the Rand curve.

Every function draws into `ax`, or into a new figure, and returns the axes. Volumes are shown section by section: `z`
says which one. The colours are told apart by colour-blind readers, too [1]_.

References
----------
.. [1] B. Wong: Points of view: Color blindness. Nature Methods 8 (2011), 441.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from malis import _checks, metrics
from malis.affgraph import seg_to_affgraph
from malis.curve import RandCurve
from malis.loss import PairCounts

try:
    from matplotlib import pyplot as plt
    from matplotlib.collections import LineCollection
    from matplotlib.colors import hsv_to_rgb, to_rgb
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch
except ImportError as error:
    raise ImportError("malis.plot needs Matplotlib: pip install matplotlib") from error

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["affinities", "deciding_edges", "errors", "label_colours", "labels", "rand_curve"]

_BLUE, _VERMILLION, _SKY, _PURPLE, _YELLOW, _GREEN = "#0072B2", "#D55E00", "#56B4E9", "#CC79A7", "#F0E442", "#009E73"
_AFFINITY_INKS = (_BLUE, _VERMILLION, _PURPLE)
_ERROR_COLOURS = {
    metrics.VoxelError.SPLIT: _SKY,
    metrics.VoxelError.MERGED: _VERMILLION,
    metrics.VoxelError.SPLIT_AND_MERGED: _PURPLE,
    metrics.VoxelError.MISSED: _GREEN,
    metrics.VoxelError.SPURIOUS: _YELLOW,
}
_CURVE_POINTS = 4000


def affinities(aff: npt.ArrayLike, nhood: npt.ArrayLike, ax: Axes | None = None, *, z: int | None = None) -> Axes:
    """Draw affinities: white where all edges connect, an ink of its own for each offset whose edges do not.

    An object is a white area; its outline shows which of its edges are cut. A gap in an outline merges two objects.

    Parameters
    ----------
    aff : array_like, shape (K, H, W) or (K, D, H, W)
        Affinities between 0 and 1; the first three offsets are drawn.
    nhood : array_like of int, shape (K, ndim)
        Offsets.
    ax : matplotlib.axes.Axes, optional
        Where to draw; by default a new figure.
    z : int, optional
        The section of a volume.

    Returns
    -------
    matplotlib.axes.Axes
        `ax`, or the axes of the new figure.

    Raises
    ------
    ValueError
        For shapes that do not go together, affinities outside of 0 to 1, a volume without `z`, or an image with it.
    TypeError
        For dtypes and options of another type.

    Examples
    --------
    >>> import malis
    >>> from malis.synthetic import synthetic_affinities, synthetic_image
    >>> nhood = malis.mknhood2d(1)
    >>> image, labels = synthetic_image(0, 64)
    >>> aff = synthetic_affinities(labels, nhood, seed=0)
    >>> ax = malis.plot.affinities(aff, nhood)
    """
    offsets = _checks.as_nhood(nhood)
    values = _checks.as_affinities(aff, "aff", integers=True)
    _checks.check_channels(values, offsets)
    lowest, highest = float(values.min()), float(values.max())
    if not (lowest >= 0 and highest <= 1):
        raise ValueError(
            f"aff must hold affinities between 0 and 1, got values from {lowest:.3g} to {highest:.3g}: apply the "
            "sigmoid to logits, divide bytes by 255"
        )
    section = _section(values.shape[1:], z, "aff")
    # An edge that leaves the volume does not exist: it is not shown as cut.
    exists = seg_to_affgraph(np.ones(values.shape[1:], np.uint8), offsets)[(slice(None), *section)] > 0
    exists[~offsets.any(axis=1)] = False
    cut = np.where(exists, 1.0 - values[(slice(None), *section)], 0.0)
    inks = _AFFINITY_INKS[: len(offsets)] if len(offsets) > 1 else ("black",)
    picture = np.ones((*cut.shape[1:], 3))
    for channel, ink in zip(cut, inks, strict=False):
        picture *= 1.0 - channel[..., np.newaxis] * (1.0 - np.array(to_rgb(ink)))
    ax = _show(picture, ax)
    handles = [
        Patch(color=ink, label=f"cut: {_offset_name(offset)}") for ink, offset in zip(inks, offsets, strict=False)
    ]
    return _finish(ax, "affinities", handles)


def labels(
    seg: npt.ArrayLike,
    ax: Axes | None = None,
    *,
    image: npt.ArrayLike | None = None,
    alpha: float = 0.45,
    z: int | None = None,
) -> Axes:
    """Draw labels in shuffled colours, over an image if there is one.

    A label has the same colour in every picture (`label_colours`).

    Parameters
    ----------
    seg : array_like of int, shape (H, W) or (D, H, W)
        Labels; 0 is background: black, or the bare image.
    ax : matplotlib.axes.Axes, optional
        Where to draw; by default a new figure.
    image : array_like, shape of `seg`, optional
        Grey values.
    alpha : float, optional
        How opaque the labels are over the image, between 0 and 1; the outlines of objects always are.
    z : int, optional
        The section of a volume.

    Returns
    -------
    matplotlib.axes.Axes
        `ax`, or the axes of the new figure.

    Raises
    ------
    ValueError
        For shapes that do not go together, labels that are negative or fractional, an `alpha` outside of 0 to 1, a
        volume without `z`, or an image with it.
    TypeError
        For dtypes and options of another type.

    Examples
    --------
    >>> import malis
    >>> from malis.synthetic import synthetic_image
    >>> image, labels = synthetic_image(0, 64)
    >>> ax = malis.plot.labels(labels, image=image[0])
    """
    array = _checks.as_labels(seg, "seg")
    section = _section(array.shape, z, "seg")
    if not 0 <= _checks.as_real(alpha, "alpha") <= 1:
        raise ValueError(f"alpha must lie between 0 and 1, got {alpha!r}")
    shown = array[section]
    picture = label_colours(shown)
    grey = _grey(image, array.shape, section)
    if grey is not None:
        opacity = np.where(_outlines(shown), 1.0, alpha) * (shown != 0)
        picture = grey + opacity[..., np.newaxis] * (picture - grey)
    return _finish(_show(picture, ax), f"{np.count_nonzero(np.unique(shown))} objects", [])


def label_colours(seg: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Give every label a colour: the same one always, neighbouring labels far apart in hue and in lightness.

    Parameters
    ----------
    seg : array_like of int, any shape
        Labels; 0 is background.

    Returns
    -------
    ndarray of float64, shape (*shape, 3)
        Red, green and blue between 0 and 1; black for the background.

    Raises
    ------
    ValueError
        For labels that are negative or fractional.
    TypeError
        For labels that are no numbers.

    Examples
    --------
    >>> import malis
    >>> malis.plot.label_colours([0, 1, 7, 1]).shape
    (4, 3)
    """
    array = _checks.as_labels(seg, "seg").astype(np.uint64)
    # Multiples of three irrational numbers modulo 1 fill the unit cube evenly. As 64-bit integers they do so for labels
    # of any size.
    steps = (0x9E3779B97F4A7C15, 0xC13FA9A902A6328F, 0x91E10DA5C79E7B1D)
    hue, saturation, value = ((array * np.uint64(step) >> np.uint64(11)) / 2.0**53 for step in steps)
    hsv = np.stack([hue, 0.4 + 0.55 * saturation, 0.5 + 0.5 * value], axis=-1)
    return np.where(array[..., np.newaxis] > 0, hsv_to_rgb(hsv), 0.0)


def deciding_edges(
    counts: PairCounts,
    nhood: npt.ArrayLike,
    ax: Axes | None = None,
    *,
    image: npt.ArrayLike | None = None,
    most: int = 100,
    z: int | None = None,
) -> Axes:
    """Draw the maximin edges that decide most pairs of voxels: what the loss looks at.

    A dot lies on the middle of each edge; its area is the edge's share of the pairs of its kind, which is its weight in
    the loss. Positive pairs belong together: their edge should have a high affinity. Negative pairs do not: one such
    edge with a high affinity merges two objects. Edges longer than one voxel are drawn as lines, too.

    Parameters
    ----------
    counts : PairCounts
        What `malis.pairs` returned, for an image or a volume.
    nhood : array_like of int, shape (K, ndim)
        Offsets.
    ax : matplotlib.axes.Axes, optional
        Where to draw; by default a new figure.
    image : array_like, shape `shape`, optional
        Grey values to draw over.
    most : int, optional
        How many edges of each kind to draw, those with most pairs first.
    z : int, optional
        The section of a volume; only edges within it are drawn.

    Returns
    -------
    matplotlib.axes.Axes
        `ax`, or the axes of the new figure. The legend says which share of the pairs that the section decides the dots
        stand for.

    Raises
    ------
    ValueError
        For shapes that do not go together, a volume without `z`, or an image with it.
    TypeError
        For dtypes and options of another type.

    Examples
    --------
    >>> import malis
    >>> from malis.synthetic import synthetic_affinities, synthetic_image
    >>> nhood = malis.mknhood2d(1)
    >>> image, labels = synthetic_image(0, 64)
    >>> counts = malis.pairs(synthetic_affinities(labels, nhood, seed=0), labels, nhood)
    >>> ax = malis.plot.deciding_edges(counts, nhood, image=image[0])
    """
    if not isinstance(counts, PairCounts):
        raise TypeError(f"counts must be what malis.pairs returns, got {type(counts).__name__}")
    offsets = _checks.as_nhood(nhood)
    shape = np.shape(counts.pos)[1:]
    if np.shape(counts.pos) != (len(offsets), *shape) or len(shape) != offsets.shape[1]:
        raise ValueError(
            f"counts must have one channel for each of the {len(offsets)} offsets of nhood and {offsets.shape[1]} "
            f"spatial axes, got {_checks.describe(np.asarray(counts.pos))}"
        )
    limit = _checks.as_integer(most, "most", 1)
    section = _section(shape, z, "counts")
    grey = _grey(image, shape, section)
    ax = _show(np.ones((*shape[-2:], 3)) if grey is None else grey, ax)

    within = offsets[:, 0] == 0 if len(shape) == 3 else np.ones(len(offsets), bool)
    handles = []
    for kind, name, colour in (
        (counts.pos, "positive", _BLUE),
        (counts.neg, "negative", _VERMILLION),
    ):
        pairs = kind[(within, *section)]
        order = np.argsort(-pairs, axis=None, kind="stable")[:limit]
        shown = order[pairs.ravel()[order] > 0]
        number = pairs.ravel()[shown]
        channel, row, column = np.unravel_index(shown, pairs.shape)
        tail = np.stack([column, row], axis=-1)
        head = tail + offsets[within][channel][:, [-1, -2]]
        middle = (tail + head) / 2
        long = np.abs(head - tail).max(axis=-1, initial=0) > 1
        lines = np.stack([tail, head], axis=1)[long]
        ax.add_collection(LineCollection(list(lines), colors=colour, linewidths=1.2))
        # The white rim keeps dots apart that lie on one another.
        sizes = 12 + 180 * number / max(1, int(number.max(initial=0)))
        ax.scatter(middle[:, 0], middle[:, 1], sizes, color=colour, alpha=0.85, linewidths=0.6, edgecolors="white")
        share = number.sum() / max(1, int(pairs.sum()))
        label = f"{name}: {len(shown)} edges decide {100 * share:.0f} % of {_short(int(pairs.sum()))} pairs"
        handles.append(Line2D([], [], linestyle="", marker="o", color=colour, label=label))
    return _finish(ax, "edges that decide most pairs", handles)


def rand_curve(curve: RandCurve, ax: Axes | None = None, *, threshold: float | None = None) -> Axes:
    """Draw precision, recall and F-score of the pairs of voxels at every threshold, and the chosen one.

    Parameters
    ----------
    curve : RandCurve
        What `malis.rand_curve` returned.
    ax : matplotlib.axes.Axes, optional
        Where to draw; by default a new figure.
    threshold : float, optional
        The threshold to mark; by default ``curve.best_threshold``.

    Returns
    -------
    matplotlib.axes.Axes
        `ax`, or the axes of the new figure.

    Raises
    ------
    ValueError
        For a curve without thresholds, and a threshold that is not finite.
    TypeError
        For a `curve` that is no `RandCurve`, and a threshold that is no number.

    Examples
    --------
    >>> import malis
    >>> curve = malis.rand_curve([[0, 0.9, 0.6, 0.2, 0.8]], [1, 1, 1, 2, 2], [[-1]])
    >>> ax = malis.plot.rand_curve(curve)
    """
    if not isinstance(curve, RandCurve):
        raise TypeError(f"curve must be what malis.rand_curve returns, got {type(curve).__name__}")
    levels = np.asarray(curve.thresholds, np.float64)
    if not np.isfinite(levels).any():
        raise ValueError(f"curve must have a finite threshold, got {len(levels)} thresholds")
    marked = _checks.as_real(curve.best_threshold if threshold is None else threshold, "threshold")
    # The segmentation at `marked` is the one of the lowest affinity that is not below it.
    at = int(np.searchsorted(-levels, -marked, side="right")) - 1
    shown = _spread(levels, at)
    if ax is None:
        _, ax = plt.subplots(figsize=(6, 4), layout="constrained")
    for values, name, colour, style, width in (
        (curve.precision, "precision (falls with merges)", _VERMILLION, "--", 1.4),
        (curve.recall, "recall (falls with splits)", _BLUE, "-.", 1.4),
        (curve.f_score, "F-score", "black", "-", 2.2),
    ):
        # Between two affinities the segmentation is that of the higher one.
        ax.step(levels[shown], values[shown], style, where="post", color=colour, linewidth=width, label=name)
    score = float(curve.f_score[at]) if at >= 0 else float("nan")
    text = f"threshold {marked:.4g}" + (f": F-score {score:.3f}" if at >= 0 else ", above every affinity")
    ax.axvline(marked, color="0.45", linewidth=1.2, linestyle=":", label=text)
    if at >= 0:
        ax.plot(marked, score, "o", color="black", markersize=6)
    ax.set(xlabel="threshold of the affinities", ylabel="score of pairs of voxels", ylim=(-0.02, 1.02))
    ax.set_title("every threshold at once", fontsize="medium")
    ax.grid(alpha=0.3)
    # Below the axis: whatever its course, the legend covers nothing of the curve.
    ax.legend(fontsize="small", loc="upper center", bbox_to_anchor=(0.5, -0.14), ncols=2, frameon=False)
    return ax


def errors(
    seg_true: npt.ArrayLike,
    seg_pred: npt.ArrayLike,
    ax: Axes | None = None,
    *,
    image: npt.ArrayLike | None = None,
    z: int | None = None,
) -> Axes:
    """Draw where a segmentation errs: splits, merges, missed and spurious voxels (`malis.metrics.error_map`).

    Parameters
    ----------
    seg_true, seg_pred : array_like of int, shape (H, W) or (D, H, W)
        Labels of the truth and of the prediction; 0 is background.
    ax : matplotlib.axes.Axes, optional
        Where to draw; by default a new figure.
    image : array_like, shape of `seg_true`, optional
        Grey values to draw over.
    z : int, optional
        The section of a volume; what is split and what is merged is decided in the whole volume.

    Returns
    -------
    matplotlib.axes.Axes
        `ax`, or the axes of the new figure. The legend says which share of the foreground voxels of the section is of
        each kind.

    Raises
    ------
    ValueError
        For shapes that do not go together, labels that are negative or fractional, a volume without `z`, or an image
        with it.
    TypeError
        For dtypes and options of another type.

    Examples
    --------
    >>> import malis
    >>> ax = malis.plot.errors([[1, 1, 0, 2, 2]], [[5, 6, 0, 7, 0]])
    """
    kinds = metrics.error_map(seg_true, seg_pred)
    true, pred = np.asarray(seg_true), np.asarray(seg_pred)
    section = _section(true.shape, z, "seg_true")
    kinds, true, pred = kinds[section], true[section], pred[section]
    grey = _grey(image, np.shape(seg_true), section)
    foreground = (true != 0) | (pred != 0)
    # Without an image right voxels are light and the outlines of true objects dark.
    base = np.where(foreground, 0.92, 0.75)[..., np.newaxis] * np.ones(3) if grey is None else grey
    picture = np.where(_outlines(true)[..., np.newaxis], 0.55 * base, base)
    handles = []
    for kind, colour in _ERROR_COLOURS.items():
        where = kinds == kind
        # Outlines that are a voxel off are many and harmless: they stay pale.
        opacity = 0.45 if kind in (metrics.VoxelError.MISSED, metrics.VoxelError.SPURIOUS) else 0.8
        picture[where] += opacity * (np.array(to_rgb(colour)) - picture[where])
        share = float(where.sum()) / max(1.0, float(foreground.sum()))
        name = kind.name.lower().replace("_", " ")
        if where.any():
            handles.append(Patch(color=colour, label=f"{name}: {100 * share:.1f} %"))
    return _finish(_show(picture, ax), "errors" if handles else "no errors", handles)


def _section(shape: tuple[int, ...], z: int | None, name: str) -> tuple[slice | int, ...]:
    """Return the index of what is shown of an array of a spatial shape."""
    if len(shape) not in (2, 3):
        raise ValueError(f"{name} must have two or three spatial axes to be drawn, got shape {shape}")
    if len(shape) == 2:
        if z is not None:
            raise ValueError(f"z must be left out for an image of shape {shape}, got {z!r}")
        return (slice(None), slice(None))
    if z is None:
        raise ValueError(f"z must say which of the {shape[0]} sections of {name} to draw, got None")
    if _checks.as_integer(z, "z", 0) >= shape[0]:
        raise ValueError(f"z must be one of the sections 0 to {shape[0] - 1} of {name}, got {z!r}")
    return (int(z), slice(None), slice(None))


def _grey(
    image: npt.ArrayLike | None, shape: tuple[int, ...], section: tuple[slice | int, ...]
) -> npt.NDArray[np.float64] | None:
    """Return the section of an image as shades of grey, shape (H, W, 3), its darkest and brightest percent cut off."""
    if image is None:
        return None
    array = np.asarray(image)
    if array.dtype.kind not in "biuf":
        raise TypeError(f"image must hold grey values, got {_checks.describe(array)}")
    if array.shape != shape:
        raise ValueError(f"image must have shape {shape}, got {_checks.describe(array)}")
    values = array[section].astype(np.float64)
    if not np.isfinite(values).all():
        raise ValueError(f"image must hold finite grey values, got {_checks.describe(array)}")
    low, high = np.percentile(values, [1, 99])
    grey = np.clip((values - low) / (high - low), 0, 1) if high > low else np.full(values.shape, 0.5)
    return np.repeat(grey[..., np.newaxis], 3, axis=-1)


def _outlines(seg: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    """Return the voxels of objects that have a voxel of another label beside, above or below them."""
    border = np.zeros(seg.shape, bool)
    down, right = seg[1:] != seg[:-1], seg[:, 1:] != seg[:, :-1]
    border[1:] |= down
    border[:-1] |= down
    border[:, 1:] |= right
    border[:, :-1] |= right
    result: npt.NDArray[np.bool_] = border & (seg != 0)
    return result


def _spread(levels: npt.NDArray[np.float64], at: int) -> npt.NDArray[np.int64]:
    """Return at most about `_CURVE_POINTS` positions, even by rank and by value, ends and `at` included."""
    finite = np.flatnonzero(np.isfinite(levels))
    if len(finite) <= _CURVE_POINTS:
        return finite
    by_rank = np.rint(np.linspace(0, len(finite) - 1, _CURVE_POINTS // 2)).astype(np.int64)
    values = np.linspace(levels[finite[0]], levels[finite[-1]], _CURVE_POINTS // 2)
    by_value = np.searchsorted(-levels[finite], -values, side="right") - 1
    positions: npt.NDArray[np.int64] = finite[np.union1d(by_rank, np.maximum(by_value, 0))]
    return np.union1d(positions, [at]) if at >= 0 else positions


def _show(picture: npt.NDArray[np.float64], ax: Axes | None) -> Axes:
    if ax is None:
        _, ax = plt.subplots(figsize=(5, 5.4), layout="constrained")
    ax.imshow(np.clip(picture, 0, 1), interpolation="nearest")
    ax.set_axis_off()
    return ax


def _finish(ax: Axes, title: str, handles: list[Any]) -> Axes:
    ax.set_title(title, fontsize="medium")
    if handles:
        # Below the picture: nothing of it is covered.
        ax.legend(
            handles=handles,
            loc="upper center",
            bbox_to_anchor=(0.5, -0.01),
            ncols=1 if max(len(str(h.get_label())) for h in handles) > 24 else 2,
            fontsize="small",
            frameon=False,
        )
    return ax


def _offset_name(offset: npt.NDArray[np.int64]) -> str:
    return "(" + ", ".join(f"{o:+d}" if o else "0" for o in offset.tolist()) + ")"


def _short(number: int) -> str:
    if number < 1000:
        return str(number)
    size, name = (10**9, " billion") if number >= 10**9 else (10**6, " million") if number >= 10**6 else (10**3, "k")
    return f"{number / size:.3g}{name}"
