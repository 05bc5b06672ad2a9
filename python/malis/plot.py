"""Pictures of affinities, labels, errors, of what the loss looks at, and of the Rand curve.

Every function draws into `ax`, or into a new figure, and returns the axes. Of a volume one section is shown, the
middle one along the first axis unless `section` and `axis` say otherwise; the title names it. With `voxel_size` pixels
have their true proportions, and a bar shows the scale. The colours are told apart by colour-blind readers, too [1]_.

References
----------
.. [1] B. Wong: Points of view: Color blindness. Nature Methods 8 (2011), 441.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

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
    from matplotlib.patches import Patch, Rectangle
    from matplotlib.patheffects import withStroke
except ImportError as error:
    raise ImportError("malis.plot needs Matplotlib: pip install matplotlib") from error

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["affinities", "comparison", "deciding_edges", "errors", "label_colours", "labels", "rand_curve"]

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
_AXES = "zyx"
# Colours closer than this in CIELAB look alike when they lie side by side. So many are tried for each label; in flat
# pictures three suffice for nearly every one.
_ALIKE = 25.0
_ATTEMPTS = 48
# Objects with a gap of fewer pixels between them are neighbours, too.
_GAP = 4


def affinities(
    aff: npt.ArrayLike,
    nhood: npt.ArrayLike,
    ax: Axes | None = None,
    *,
    image: npt.ArrayLike | None = None,
    axis: str = "z",
    section: int | None = None,
    voxel_size: Sequence[float] | None = None,
    unit: str | None = "nm",
) -> Axes:
    """Draw affinities: white where all edges connect, an ink of its own for each offset whose edges do not.

    An object is a white area; its outline shows which of its edges are cut. A gap in an outline merges two objects.

    Parameters
    ----------
    aff : array_like, shape (K, H, W) or (K, D, H, W)
        Affinities between 0 and 1, or bytes; the first three offsets are drawn.
    nhood : array_like of int, shape (K, ndim)
        Offsets.
    ax : matplotlib.axes.Axes, optional
        Where to draw; by default a new figure.
    image : array_like, shape `shape`, optional
        Grey values to draw over.
    axis : {"z", "y", "x"}, optional
        The axis that a volume is cut along: the first, second or third one.
    section : int, optional
        The section of a volume; by default the middle one.
    voxel_size : sequence of float, optional
        The size of a voxel along each axis, for true proportions and a scale bar.
    unit : str, optional
        The unit of `voxel_size`.

    Returns
    -------
    matplotlib.axes.Axes
        `ax`, or the axes of the new figure.

    Raises
    ------
    ValueError
        For shapes that do not go together, affinities outside of 0 to 1, or a section that there is not.
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
            "sigmoid to logits"
        )
    cut = _cut(values.shape[1:], axis, section, "aff")
    # An edge that leaves the volume does not exist: it is not shown as cut.
    exists = seg_to_affgraph(np.ones(values.shape[1:], np.uint8), offsets)[(slice(None), *cut.where)] > 0
    exists[~offsets.any(axis=1)] = False
    missing = np.where(exists, 1.0 - values[(slice(None), *cut.where)], 0.0)
    grey = _grey(image, values.shape[1:], cut)
    inks = _AFFINITY_INKS[: len(offsets)] if len(offsets) > 1 or grey is not None else ("black",)
    picture = np.ones((*missing.shape[1:], 3)) if grey is None else grey
    for channel, ink in zip(missing, inks, strict=False):
        opacity, colour = channel[..., np.newaxis], np.array(to_rgb(ink))
        # On white the inks mix as prints do; over an image they cover it, which may be dark.
        picture = picture * (1.0 - opacity * (1.0 - colour)) if grey is None else picture + opacity * (colour - picture)
    ax = _show(picture, ax, cut, voxel_size, unit)
    handles = [
        Patch(color=ink, label=f"cut: {_offset_name(offset)}") for ink, offset in zip(inks, offsets, strict=False)
    ]
    return _finish(ax, f"affinities{cut.title}", handles)


def labels(
    seg: npt.ArrayLike,
    ax: Axes | None = None,
    *,
    image: npt.ArrayLike | None = None,
    alpha: float = 0.45,
    axis: str = "z",
    section: int | None = None,
    voxel_size: Sequence[float] | None = None,
    unit: str | None = "nm",
) -> Axes:
    """Draw labels in shuffled colours, over an image if there is one.

    A label has the same colour in every picture, unless one beside it would look alike (`label_colours`).

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
    axis : {"z", "y", "x"}, optional
        The axis that a volume is cut along: the first, second or third one.
    section : int, optional
        The section of a volume; by default the middle one.
    voxel_size : sequence of float, optional
        The size of a voxel along each axis, for true proportions and a scale bar.
    unit : str, optional
        The unit of `voxel_size`.

    Returns
    -------
    matplotlib.axes.Axes
        `ax`, or the axes of the new figure.

    Raises
    ------
    ValueError
        For shapes that do not go together, labels that are negative or fractional, an `alpha` outside of 0 to 1, or a
        section that there is not.
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
    cut = _cut(array.shape, axis, section, "seg")
    if not 0 <= _checks.as_real(alpha, "alpha") <= 1:
        raise ValueError(f"alpha must lie between 0 and 1, got {alpha!r}")
    shown = array[cut.where]
    picture = label_colours(shown)
    grey = _grey(image, array.shape, cut)
    if grey is not None:
        opacity = np.where(_outlines(shown), 1.0, alpha) * (shown != 0)
        picture = grey + opacity[..., np.newaxis] * (picture - grey)
    objects = np.count_nonzero(np.unique(shown))
    title = f"{objects} object{'' if objects == 1 else 's'}{cut.title}"
    return _finish(_show(picture, ax, cut, voxel_size, unit), title, [])


def label_colours(seg: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Give every label a colour: the same one in every picture, unless a label beside it has one that looks alike.

    Neighbours are labels with fewer than four pixels between them along an axis. The region graph is coloured greedily
    in the order of the labels, so that the colours of neighbours differ by at least 25 in CIELAB wherever one of 48
    colours does so.

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
    array = _checks.as_labels(seg, "seg")
    distinct, index = np.unique(array, return_inverse=True)
    index = index.reshape(array.shape)
    colours = _preferred(distinct, 0)
    lab = _cielab(colours)
    first, second = _neighbours(index, distinct)
    alike = np.linalg.norm(lab[first] - lab[second], axis=1) < _ALIKE
    beside: dict[int, list[int]] = {i: [] for i in np.unique(second[alike]).tolist()}
    for one, other in ((first, second), (second, first)):
        for i, j in zip(one.tolist(), other.tolist(), strict=True):
            if i in beside:
                beside[i].append(j)
    for i, neighbours in beside.items():
        tried = np.concatenate([_preferred(distinct[i : i + 1], attempt) for attempt in range(1, _ATTEMPTS)])
        places = _cielab(tried)
        nearest = np.linalg.norm(places[:, np.newaxis] - lab[neighbours], axis=-1).min(axis=1)
        chosen = int(np.argmax(nearest >= _ALIKE)) if (nearest >= _ALIKE).any() else int(nearest.argmax())
        colours[i], lab[i] = tried[chosen], places[chosen]
    return colours[index]


def _preferred(labels: npt.NDArray[Any], attempt: int) -> npt.NDArray[np.float64]:
    """Return a colour for every label, other ones with every attempt."""
    # Multiples of three irrational numbers modulo 1 fill the unit cube evenly. As 64-bit integers they do so for labels
    # of any size.
    steps = (0x9E3779B97F4A7C15, 0xC13FA9A902A6328F, 0x91E10DA5C79E7B1D)
    numbers = labels.astype(np.uint64) + np.uint64(attempt * 0xD1B54A32D192ED03 % 2**64)
    hue, saturation, value = ((numbers * np.uint64(step) >> np.uint64(11)) / 2.0**53 for step in steps)
    hsv = np.stack([hue, 0.4 + 0.55 * saturation, 0.5 + 0.5 * value], axis=-1)
    return np.where(labels[..., np.newaxis] > 0, hsv_to_rgb(hsv), 0.0)


def _neighbours(
    index: npt.NDArray[np.int64], distinct: npt.NDArray[Any]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return the pairs of neighbouring labels as positions in `distinct`, the lower one first; none with background."""
    codes = []
    for axis in range(index.ndim):
        for gap in range(1, _GAP + 1):
            before = np.moveaxis(index, axis, 0)[:-gap].ravel()
            after = np.moveaxis(index, axis, 0)[gap:].ravel()
            differ = before != after
            low, high = np.minimum(before, after)[differ], np.maximum(before, after)[differ]
            codes.append(np.unique(low.astype(np.int64) * len(distinct) + high))
    first, second = np.divmod(np.unique(np.concatenate(codes)) if codes else np.zeros(0, np.int64), len(distinct))
    seen = distinct[first] != 0
    return first[seen], second[seen]


def _cielab(colours: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return sRGB colours in CIELAB under D65, in which distances are about as they are seen (CIE 15:2004)."""
    linear = np.where(colours <= 0.04045, colours / 12.92, ((colours + 0.055) / 1.055) ** 2.4)
    to_xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    xyz = linear @ to_xyz.T / (0.9505, 1.0, 1.089)
    f = np.where(xyz > (6 / 29) ** 3, np.cbrt(xyz), xyz / (3 * (6 / 29) ** 2) + 4 / 29)
    x, y, z = np.moveaxis(f, -1, 0)
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=-1)


def deciding_edges(
    counts: PairCounts,
    nhood: npt.ArrayLike,
    ax: Axes | None = None,
    *,
    image: npt.ArrayLike | None = None,
    most: int = 100,
    axis: str = "z",
    section: int | None = None,
    voxel_size: Sequence[float] | None = None,
    unit: str | None = "nm",
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
    axis : {"z", "y", "x"}, optional
        The axis that a volume is cut along: the first, second or third one.
    section : int, optional
        The section of a volume; by default the middle one.
    voxel_size : sequence of float, optional
        The size of a voxel along each axis, for true proportions and a scale bar.
    unit : str, optional
        The unit of `voxel_size`.
        Only edges within the section are drawn.

    Returns
    -------
    matplotlib.axes.Axes
        `ax`, or the axes of the new figure. The legend says which share of the pairs that the section decides the dots
        stand for.

    Raises
    ------
    ValueError
        For shapes that do not go together, or a section that there is not.
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
    cut = _cut(shape, axis, section, "counts")
    grey = _grey(image, shape, cut)
    white = np.ones((shape[cut.rows], shape[cut.columns], 3))
    ax = _show(white if grey is None else grey, ax, cut, voxel_size, unit)

    within = np.ones(len(offsets), bool) if cut.across is None else offsets[:, cut.across] == 0
    handles = []
    for kind, name, colour in (
        (counts.pos, "positive", _BLUE),
        (counts.neg, "negative", _VERMILLION),
    ):
        pairs = kind[within][(slice(None), *cut.where)]
        order = np.argsort(-pairs, axis=None, kind="stable")[:limit]
        shown = order[pairs.ravel()[order] > 0]
        number = pairs.ravel()[shown]
        channel, row, column = np.unravel_index(shown, pairs.shape)
        tail = np.stack([column, row], axis=-1)
        head = tail + offsets[within][channel][:, [cut.columns, cut.rows]]
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
    return _finish(ax, f"edges that decide most pairs{cut.title}", handles)


def rand_curve(
    curve: RandCurve, ax: Axes | None = None, *, threshold: float | None = None, chosen_by: str | None = None
) -> Axes:
    """Draw precision, recall and F-score of the pairs of voxels at every threshold, and the chosen one.

    A dot marks the threshold; where it is not the one with the best F-score, a circle marks that one.

    Parameters
    ----------
    curve : RandCurve
        What `malis.rand_curve` returned.
    ax : matplotlib.axes.Axes, optional
        Where to draw; by default a new figure.
    threshold : float, optional
        The threshold to mark; by default ``curve.best_threshold``.
    chosen_by : str, optional
        What the threshold is best for, such as ``"object score"``, to say why the dot is not on the peak.

    Returns
    -------
    matplotlib.axes.Axes
        `ax`, or the axes of the new figure.

    Raises
    ------
    ValueError
        For a curve without thresholds, and a threshold that is not finite.
    TypeError
        For a `curve` that is no `malis.RandCurve`, and a threshold that is no number.

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
    part = curve.take(shown)
    for values, name, colour, style, width in (
        (part.precision, "precision (falls with merges)", _VERMILLION, "--", 1.4),
        (part.recall, "recall (falls with splits)", _BLUE, "-.", 1.4),
        (part.f_score, "F-score", "black", "-", 2.2),
    ):
        # Between two affinities the segmentation is that of the higher one.
        ax.step(levels[shown], values, style, where="post", color=colour, linewidth=width, label=name)
    score = float(curve.take([at]).f_score[0]) if at >= 0 else float("nan")
    text = f"threshold {marked:.4g}" + ("" if chosen_by is None else f", best by {chosen_by}")
    text += f": F-score {score:.3f}" if at >= 0 else ", above every affinity"
    best = float(curve.at(curve.best_threshold).f_score[0])
    if at < 0 or score < best:
        label = f"best F-score {best:.3f} at {curve.best_threshold:.4g}"
        ax.plot(
            curve.best_threshold, best, "o", color="black", markersize=7, fillstyle="none", linestyle="", label=label
        )
    ax.axvline(marked, color="0.45", linewidth=1.2, linestyle=":", label=text)
    if at >= 0:
        ax.plot(marked, score, "o", color="black", markersize=6)
    ax.set(xlabel="threshold of the affinities", ylabel="score of pairs of voxels", ylim=(-0.02, 1.02))
    ax.set_title("every threshold at once", fontsize="medium")
    ax.grid(alpha=0.3)
    # Below the axes, where the legend cannot cover the curve.
    ncols = 1 if chosen_by is not None else 2
    ax.legend(fontsize="small", loc="upper center", bbox_to_anchor=(0.5, -0.14), ncols=ncols, frameon=False)
    return ax


def errors(
    seg_true: npt.ArrayLike,
    seg_pred: npt.ArrayLike,
    ax: Axes | None = None,
    *,
    image: npt.ArrayLike | None = None,
    axis: str = "z",
    section: int | None = None,
    voxel_size: Sequence[float] | None = None,
    unit: str | None = "nm",
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
    axis : {"z", "y", "x"}, optional
        The axis that a volume is cut along: the first, second or third one.
    section : int, optional
        The section of a volume; by default the middle one.
    voxel_size : sequence of float, optional
        The size of a voxel along each axis, for true proportions and a scale bar.
    unit : str, optional
        The unit of `voxel_size`.
        What is split and what is merged is decided in the whole volume.

    Returns
    -------
    matplotlib.axes.Axes
        `ax`, or the axes of the new figure. The legend says which share of the foreground voxels of the section is of
        each kind.

    Raises
    ------
    ValueError
        For shapes that do not go together, labels that are negative or fractional, or a section that there is not.
    TypeError
        For dtypes and options of another type.

    Examples
    --------
    >>> import malis
    >>> ax = malis.plot.errors([[1, 1, 0, 2, 2]], [[5, 6, 0, 7, 0]])
    """
    kinds = metrics.error_map(seg_true, seg_pred)
    true, pred = np.asarray(seg_true), np.asarray(seg_pred)
    cut = _cut(true.shape, axis, section, "seg_true")
    kinds, true, pred = kinds[cut.where], true[cut.where], pred[cut.where]
    grey = _grey(image, np.shape(seg_true), cut)
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
    title = ("errors" if handles else "no errors") + cut.title
    return _finish(_show(picture, ax, cut, voxel_size, unit), title, handles)


def comparison(
    seg_true: npt.ArrayLike,
    segs: Mapping[str, npt.ArrayLike],
    *,
    image: npt.ArrayLike | None = None,
    axis: str = "z",
    section: int | None = None,
    voxel_size: Sequence[float] | None = None,
    unit: str | None = "nm",
) -> Figure:
    """Draw segmentations beside the truth, and below each where it errs.

    Parameters
    ----------
    seg_true : array_like of int, shape (H, W) or (D, H, W)
        Labels of the truth; 0 is background.
    segs : mapping of str to array_like of int, each of the shape of `seg_true`
        The segmentations, by the name that is written above each.
    image : array_like, shape of `seg_true`, optional
        Grey values to draw over, shown below the truth.
    axis : {"z", "y", "x"}, optional
        The axis that a volume is cut along: the first, second or third one.
    section : int, optional
        The section of a volume; by default the middle one.
    voxel_size : sequence of float, optional
        The size of a voxel along each axis, for true proportions and a scale bar.
    unit : str, optional
        The unit of `voxel_size`.

    Returns
    -------
    matplotlib.figure.Figure
        A new figure: a column for the truth and one for each segmentation.

    Raises
    ------
    ValueError
        Without a segmentation, and as `labels` and `errors`.
    TypeError
        For dtypes and options of another type.

    Examples
    --------
    >>> import malis
    >>> figure = malis.plot.comparison([[1, 1, 2, 2]], {"merged": [[1, 1, 1, 1]], "split": [[1, 3, 2, 2]]})
    """
    if not segs:
        raise ValueError("segs must hold at least one segmentation")
    shape = np.shape(seg_true)
    cut = _cut(shape, axis, section, "seg_true")
    options: dict[str, Any] = {"axis": axis, "section": section, "voxel_size": voxel_size, "unit": unit}
    aspect = _aspect(cut, voxel_size) * shape[cut.rows] / shape[cut.columns]
    figure, axes = plt.subplots(
        2,
        1 + len(segs),
        figsize=(3.6 * (1 + len(segs)), 6.9 * min(3.0, aspect) + 1.2),
        layout="constrained",
        squeeze=False,
    )
    top = labels(seg_true, axes[0, 0], image=image, **options)
    top.set_title(f"truth: {top.get_title()}", fontsize="medium")
    grey = _grey(image, shape, cut)
    if grey is None:
        axes[1, 0].set_axis_off()
    else:
        _finish(_show(grey, axes[1, 0], cut, voxel_size, unit), f"image{cut.title}", [])
    for column, (name, seg) in enumerate(segs.items(), start=1):
        if np.shape(seg) != shape:
            raise ValueError(f"{name} must have the shape of seg_true, {shape}, got shape {np.shape(seg)}")
        top = labels(seg, axes[0, column], image=image, **options)
        top.set_title(f"{name}: {top.get_title()}", fontsize="medium")
        errors(seg_true, seg, axes[1, column], image=image, **options)
    return figure


class _Cut(NamedTuple):
    """The section of an array that is shown."""

    where: tuple[slice | int, ...]
    rows: int
    """The axis of the array that runs down the picture."""
    columns: int
    """The axis that runs to the right."""
    across: int | None
    """The axis that is cut, or None for an image."""
    title: str
    """What the title says of it."""


def _cut(shape: tuple[int, ...], axis: str, section: int | None, name: str) -> _Cut:
    """Choose what is shown of an array of a spatial shape: the middle section of a volume by default."""
    if len(shape) not in (2, 3):
        raise ValueError(f"{name} must have two or three spatial axes to be drawn, got shape {shape}")
    at = _AXES.index(_checks.as_choice(axis, "axis", tuple(_AXES)))
    if len(shape) == 2:
        if section is not None or axis != "z":
            raise ValueError(
                f"section and axis must be left out for an image of shape {shape}, got {section!r}, {axis!r}"
            )
        return _Cut((slice(None), slice(None)), 0, 1, None, "")
    if section is None:
        section = shape[at] // 2
    elif _checks.as_integer(section, "section", 0) >= shape[at]:
        raise ValueError(f"section must be one of 0 to {shape[at] - 1} along {axis} of {name}, got {section!r}")
    index: list[slice | int] = [slice(None)] * 3
    index[at] = int(section)
    rows, columns = (i for i in range(3) if i != at)
    return _Cut(tuple(index), rows, columns, at, f", {axis} = {int(section)} of {shape[at]}")


def _grey(image: npt.ArrayLike | None, shape: tuple[int, ...], cut: _Cut) -> npt.NDArray[np.float64] | None:
    """Return the section of an image as shades of grey, shape (H, W, 3), its darkest and brightest percent cut off."""
    if image is None:
        return None
    array = np.asarray(image)
    if array.dtype.kind not in "biuf":
        raise TypeError(f"image must hold grey values, got {_checks.describe(array)}")
    if array.shape != shape:
        raise ValueError(f"image must have shape {shape}, got {_checks.describe(array)}")
    values = array[cut.where].astype(np.float64)
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


def _show(
    picture: npt.NDArray[np.float64],
    ax: Axes | None,
    cut: _Cut,
    voxel_size: Sequence[float] | None,
    unit: str | None,
) -> Axes:
    if ax is None:
        _, ax = plt.subplots(figsize=(5, 5.4), layout="constrained")
    ax.imshow(np.clip(picture, 0, 1), interpolation="nearest", aspect=_aspect(cut, voxel_size))
    ax.set_axis_off()
    if voxel_size is not None:
        _draw_scale(ax, picture.shape, float(voxel_size[cut.columns]), unit)
    return ax


def _aspect(cut: _Cut, voxel_size: Sequence[float] | None) -> float:
    """Return how high a pixel is for its width."""
    if voxel_size is None:
        return 1.0
    sizes = _checks.as_reals(voxel_size, "voxel_size")
    ndim = len(cut.where)
    if len(sizes) != ndim or not (sizes > 0).all():
        raise ValueError(f"voxel_size must hold {ndim} sizes above 0, one for each axis, got {voxel_size!r}")
    return float(sizes[cut.rows] / sizes[cut.columns])


def _draw_scale(ax: Axes, shape: tuple[int, ...], size: float, unit: str | None) -> None:
    """Draw a bar of about a quarter of the width, whose length is 1, 2 or 5 times a power of ten."""
    height, width = shape[:2]
    most = size * width / 3
    power = 10.0 ** np.floor(np.log10(most))
    length = max(step * power for step in (1, 2, 5) if step * power <= most)
    thick, left, bottom = max(1.0, height / 60), 0.04 * width, 0.95 * height
    bar = Rectangle(
        (left, bottom - thick), length / size, thick, facecolor="white", edgecolor="black", linewidth=0.8, gid="scale"
    )
    ax.add_patch(bar)
    ax.annotate(
        f"{length:g} {unit}" if unit else f"{length:g}",
        (left + length / size / 2, bottom - thick),
        xytext=(0, 2),
        textcoords="offset points",
        ha="center",
        va="bottom",
        color="white",
        fontsize="small",
        path_effects=[withStroke(linewidth=2, foreground="black")],
    )


def _finish(ax: Axes, title: str, handles: list[Any]) -> Axes:
    ax.set_title(title, fontsize="medium")
    if handles:
        # Below the picture, which it would cover otherwise.
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
