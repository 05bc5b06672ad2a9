"""Scores of the segmentation of a chunked volume at every threshold."""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from malis import _checks, _core
from malis.curve import RandCurve, Steps
from malis.malis_dask import _counts
from malis.malis_dask._counts import Counted, Counting, Pass, Truth
from malis.malis_dask._graph import Tasks
from malis.malis_dask.loss import Volume, reduce_counts

Integers = npt.NDArray[np.int64]


class _Changes(NamedTuple):
    """What the edges of one affinity change together."""

    affinity: npt.NDArray[Any]
    """Decreasing."""
    sums: Integers
    """Of true and false positives, and of the two entropies, shape ``(4, n)``."""


def rand_curve(
    aff: Any,
    seg: Any,
    nhood: npt.ArrayLike,
    *,
    ignore_label: int | None = None,
    num_threads: int | None = 1,
) -> RandCurve:
    """Score the segmentation of a chunked volume at every threshold: `malis.rand_curve` of any size of volume.

    The scores are those of `malis.rand_curve`, number for number. The volume is read twice: labels for their sizes, and
    then all of it. Forests of chunks are joined as in `pairs`; what edges change is added up for each affinity.

    Parameters
    ----------
    aff : dask.array.Array, shape (K, *shape)
        Affinities, see `affgraph_to_seg`.
    seg : dask.array.Array of int, shape `shape`
        Labels of the truth below 2**63; 0 is background.
    nhood : array_like of int, shape (K, ndim)
        Offsets; they may lead further than a chunk.
    ignore_label : int, optional
        Voxels of this true label, which may be negative, count in no pair.
    num_threads : int, optional
        Threads for one chunk, see `affgraph_to_seg`.

    Returns
    -------
    malis.curve.RandCurve
        See `malis.rand_curve`; its arrays are in memory.

    Raises
    ------
    ValueError
        For shapes that do not go together, empty or unknown ones, NaN, negative or fractional labels, 2**32 or more
        foreground voxels.
    TypeError
        For dtypes and options of another type.

    Notes
    -----
    What is gathered is the curve: 4 bytes for each distinct affinity and 40 for each that changes a score. Of bytes and
    float16 these are few. Of float32 there may be as many as edges: round them in a large volume, for example to bytes.

    Examples
    --------
    >>> import dask.array as da
    >>> from malis import malis_dask
    >>> aff = da.from_array([[0, 0.9, 0.6, 0.2, 0.8]], chunks=(1, 2))
    >>> curve = malis_dask.rand_curve(aff, da.from_array([1, 1, 1, 2, 2], chunks=2), [[-1]])
    >>> curve.f_score.round(2), curve.best_threshold
    (array([0.4 , 0.67, 1.  , 0.57]), 0.6)
    """
    ignored = _checks.as_ignore_label(ignore_label)
    volume = Volume.of(aff, seg, nhood, None, None, {})
    grid = volume.grid
    truth = Truth(ignore_label=ignored)
    first = Tasks(volume.seg)
    keys = [first.call(partial(_sizes, truth), (volume.seg.name, *index), name="sizes") for index in grid]
    sizes = first.compute(first.reduce(_added_sizes, keys, name="add-sizes"))[1]
    foreground = int(sizes.sum())
    _counts.check_foreground(foreground)
    counting = Counting(grid, volume.nhood, Pass(False, True, True), _checks.as_threads(num_threads), foreground)
    # An ignored voxel is background here, and the truth of no edge is unknown.
    tasks = Tasks(*volume.arrays())
    boxes = reduce_counts(tasks, volume, counting, Truth(ignore_label=ignored, ignored_is_background=True), _changes)
    levels = [
        tasks.call(
            partial(_levels, volume.nhood, grid.shape, grid.start(index)), volume.blocks(index)[0], name="levels"
        )
        for index in grid
    ]
    thresholds, changes = tasks.compute(
        tasks.call(
            _both,
            tasks.reduce(_union, levels, name="add-levels"),
            tasks.reduce(_added, boxes, name="add-changes"),
            name="curve",
        )
    )
    return _curve(thresholds, changes, sizes, foreground)


def _sizes(truth: Truth, seg: npt.NDArray[Any]) -> tuple[Integers, Integers]:
    objects = truth.objects(seg, None)
    labels, counts = np.unique(objects[objects >= 0], return_counts=True)
    return labels, counts


def _added_sizes(first: tuple[Integers, Integers], second: tuple[Integers, Integers]) -> tuple[Integers, Integers]:
    labels, number = np.unique(np.concatenate([first[0], second[0]]), return_inverse=True)
    counts = np.zeros(len(labels), np.int64)
    np.add.at(counts, number, np.concatenate([first[1], second[1]]))
    return labels, counts


def _levels(
    nhood: Integers, shape: tuple[int, ...], start: tuple[int, ...], block: npt.NDArray[Any]
) -> npt.NDArray[Any]:
    """Return the affinities of the edges that a chunk holds and that join two voxels of the volume, each once."""
    aff = _checks.as_affinities(block, "aff", integers=True)
    found = [aff.ravel()[:0]]
    for channel, offset in zip(aff, nhood.tolist(), strict=True):
        if any(offset):
            at = tuple(
                slice(max(0, -o - s), max(0, min(size, n - o - s)))
                for o, s, n, size in zip(offset, start, shape, channel.shape, strict=True)
            )
            found.append(channel[at].ravel())
    return np.unique(np.concatenate(found) + aff.dtype.type(0))


def _union(first: npt.NDArray[Any], second: npt.NDArray[Any]) -> npt.NDArray[Any]:
    return np.union1d(first, second)


def _changes(name: str, counted: Counted, foreground: int) -> _Changes:
    sums = np.stack([counted.pos, counted.neg, counted.joint, counted.segments])
    return _by_affinity(counted.affinity, sums)


def _added(first: _Changes, second: _Changes) -> _Changes:
    return _by_affinity(
        np.concatenate([first.affinity, second.affinity]), np.concatenate([first.sums, second.sums], axis=1)
    )


def _by_affinity(affinity: npt.NDArray[Any], sums: Integers) -> _Changes:
    order = np.argsort(-affinity, kind="stable")
    affinity = affinity[order]
    first = np.flatnonzero(np.concatenate([[True], affinity[1:] != affinity[:-1]])[: len(affinity)])
    return _Changes(affinity[first], np.add.reduceat(sums[:, order], first, axis=1) if len(first) else sums[:, :0])


def _both(first: Any, second: Any) -> tuple[Any, Any]:
    return first, second


def _curve(levels: npt.NDArray[Any], changes: _Changes, sizes: Integers, foreground: int) -> RandCurve:
    thresholds = levels[::-1]
    true_pairs = int((sizes * (sizes - 1) // 2).sum())
    if not len(thresholds):
        nothing, none = np.zeros(0, np.int64), np.zeros(0)
        steps = Steps(nothing, nothing, nothing, none, none)
        return RandCurve(thresholds, np.inf, true_pairs, foreground, steps)
    at = np.searchsorted(-thresholds, -changes.affinity)
    sums = changes.sums.cumsum(axis=1)
    if not len(at) or at[0] != 0:  # there is a step at the first threshold, whether it changes anything or not
        at, sums = np.concatenate([[0], at]), np.concatenate([np.zeros((4, 1), np.int64), sums], axis=1)
    true, false, joint, segments = sums
    of_truth, unit = _core.entropy_of_sizes(sizes, foreground)
    voxels = float(max(1, foreground))
    split = np.maximum(0.0, (of_truth - joint).astype(np.float64) * unit / voxels)
    merge = np.maximum(0.0, (segments - joint).astype(np.float64) * unit / voxels)
    curve = RandCurve(thresholds, np.inf, true_pairs, foreground, Steps(at, true, false, split, merge))
    curve.best_threshold = float(thresholds[at[np.argmax(curve.take(at).f_score)]])
    return curve
