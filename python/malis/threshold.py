"""The threshold that segments best, by any score, over several images."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from malis import _checks, metrics
from malis.metrics.table import table_of_entries
from malis.tree import SpanningTree, large_components, maximum_spanning_tree, segment_tree, smaller_sizes

Score = Callable[[npt.NDArray[Any], npt.NDArray[Any]], float]

_TableScore = Callable[[metrics.ContingencyTable, int], float]

# Of every score by name: how to compute it from a table and the least number of voxels of an object, and whether larger
# is better.
_SCORES: dict[str, tuple[_TableScore, bool]] = {
    "object_score": (lambda table, min_size: metrics.object_score(table=table, min_size=min_size), True),
    "object_recall": (lambda table, min_size: metrics.object_recall(table=table, min_size=min_size), True),
    "rand_f_score": (lambda table, _: metrics.rand_scores(table=table).f_score, True),
    "adapted_rand_error": (lambda table, _: metrics.adapted_rand_error(table=table), False),
    "variation_of_information": (lambda table, _: sum(metrics.variation_of_information(table=table)), False),
}
_CANDIDATES = 100
_FEWEST = 10
# Voxels that are counted at a time, some ten bytes of memory each.
_VOXELS_OF_A_BLOCK = 2**21
# Voxels of the segmentations that are in memory at a time.
_VOXELS_AT_ONCE = 2**26


class BestThreshold(NamedTuple):
    """What `find_threshold` found."""

    threshold: float
    """The best threshold."""
    score: float
    """Its mean score over the images in which it is defined."""
    thresholds: npt.NDArray[np.float64]
    """The thresholds tried, decreasing, shape ``(n,)``."""
    scores: npt.NDArray[np.float64]
    """The score of every threshold and every image, shape ``(n, images)``; NaN where it is not defined."""


def find_threshold(
    preds: Sequence[npt.ArrayLike],
    gts: Sequence[npt.ArrayLike],
    nhood: npt.ArrayLike,
    *,
    score: str | Score = "object_score",
    thresholds: Sequence[float] | npt.NDArray[Any] | None = None,
    min_size: int = 64,
    ignore_label: int | None = None,
    num_threads: int | None = None,
) -> BestThreshold:
    """Find the threshold of the affinities that gives the best mean score over several images.

    Every image is segmented at every threshold from its maximum spanning tree, which is computed once. The images
    should not be those that the network was trained on, nor those that its final score is reported on.

    Parameters
    ----------
    preds : sequence of array_like, each of shape (K, *shape)
        Affinities, one array per image; shapes may differ from image to image.
    gts : sequence of array_like of int, each of shape `shape`
        Labels of the truth, one array per image; 0 is background.
    nhood : array_like of int, shape (K, ndim)
        Offsets.
    score : str or callable, optional
        What to optimise: ``"object_score"``, ``"object_recall"`` (both with `min_size` and their default
        `dice_threshold`), ``"rand_f_score"``, ``"adapted_rand_error"`` or ``"variation_of_information"`` (split plus
        merge); the last two are errors and are minimised. Or a function of the true and the predicted labels, of which
        larger values are better.
    thresholds : array_like of float, optional
        The thresholds to try; edges with affinities of at least the threshold connect. By default up to 100 that the
        predictions suggest, between the highest and the lowest affinity at which large components join.
    min_size : int, default 64
        Objects of fewer voxels are dropped: components become background, and the scores of objects leave out both true
        and predicted ones. Segment with the same `min_size` afterwards.
    ignore_label : int, optional
        Voxels of this true label, which may be negative, take part in no score. A function of the caller gets the
        truth as it is.
    num_threads : int, optional
        Threads to use; by default as set by `set_num_threads`.

    Returns
    -------
    BestThreshold
        ``threshold, score, thresholds, scores``. Where several thresholds are equally good it is the middle one, of two
        the higher one. Images in which the score is not defined at a threshold, such as the object score without an
        object on either side, take no part in its mean.

    Raises
    ------
    ValueError
        For lists that are empty or of different lengths, arrays that do not go together, thresholds that are no finite
        numbers, scores of the caller that are not finite, an unknown `score`, or a score that no threshold defines.
    TypeError
        For dtypes and options of another type.

    See Also
    --------
    rand_curve : The Rand F-score at every distinct affinity of one image, exactly.

    Examples
    --------
    >>> import malis
    >>> preds, gts = [[[0, 0.9, 0.6, 0.2, 0.8]]], [[1, 1, 1, 2, 2]]
    >>> found = malis.find_threshold(preds, gts, [[-1]], score="rand_f_score", thresholds=[0.1, 0.5, 0.7], min_size=1)
    >>> found.threshold, found.score
    (0.5, 1.0)
    """
    images: tuple[tuple[str, Any], ...] = (("preds", preds), ("gts", gts))
    for name, arrays in images:
        if isinstance(arrays, np.ndarray) or not isinstance(arrays, Sequence):
            raise TypeError(f"{name} must be a list of arrays, one for each image, got {type(arrays).__name__}")
    if len(preds) == 0 or len(preds) != len(gts):
        raise ValueError(
            f"preds and gts must hold one array for each image, got {len(preds)} predictions and {len(gts)} truths"
        )
    chosen_score = None if callable(score) else _checks.as_choice(score, "score", tuple(_SCORES))
    smallest = _checks.as_size(min_size, "min_size")
    offsets = _checks.as_nhood(nhood)
    truths = [_checks.as_truth(gt, f"gts[{i}]", ignore_label)[0] for i, gt in enumerate(gts)]
    trees = []
    for i, (pred, truth) in enumerate(zip(preds, truths, strict=True)):
        affinities = _checks.as_affinities(pred, f"preds[{i}]", integers=True)
        _checks.check_volume(affinities, truth, f"gts[{i}]", offsets)
        trees.append(maximum_spanning_tree(affinities, offsets, num_threads=num_threads))
    levels = _candidates(trees, truths) if thresholds is None else _checks.as_reals(thresholds, "thresholds")
    levels = np.unique(levels)[::-1]

    scores = np.empty((len(levels), len(trees)))
    for column, (tree, gt) in enumerate(zip(trees, gts, strict=True)):
        if callable(score):
            truth = np.asarray(gt) if ignore_label is not None else truths[column]
            for row, seg in enumerate(_segmentations(tree, levels, smallest, num_threads)):
                scores[row, column] = _checks.as_real(score(truth, seg), "score")
        else:
            of_table, _ = _SCORES[score]
            truth, ignored = _checks.as_truth(gt, f"gts[{column}]", ignore_label)
            for row, table in enumerate(_tables(tree, levels, truth, ignored, smallest)):
                scores[row, column] = of_table(table, smallest)
    defined = ~np.isnan(scores)
    if not defined.any():
        raise ValueError(
            f"score must be defined at some threshold: {chosen_score} counts nothing in gts and predictions, at "
            f"min_size={smallest}"
        )
    images = np.maximum(1, defined.sum(axis=1))
    mean = np.where(defined.any(axis=1), np.where(defined, scores, 0.0).sum(axis=1) / images, np.nan)
    sign = 1.0 if chosen_score is None or _SCORES[chosen_score][1] else -1.0
    value = np.where(np.isnan(mean), -np.inf, sign * mean)
    # Sums of the same numbers differ by rounding alone.
    best = np.flatnonzero(value >= value.max() - 1e-12)
    chosen = best[(len(best) - 1) // 2]
    return BestThreshold(float(levels[chosen]), float(mean[chosen]), levels, scores)


def _segmentations(
    tree: SpanningTree, levels: npt.NDArray[np.float64], min_size: int, num_threads: int | None
) -> Iterator[npt.NDArray[Any]]:
    """Yield the segmentation at every threshold, a few of them in memory at a time."""
    step = max(1, _VOXELS_AT_ONCE // math.prod(tree.shape))
    for first in range(0, len(levels), step):
        for seg, _ in segment_tree(tree, levels[first : first + step], min_size=min_size, num_threads=num_threads):
            yield seg


def _tables(
    tree: SpanningTree,
    levels: npt.NDArray[np.float64],
    truth: npt.NDArray[Any],
    ignored: npt.NDArray[np.bool_] | None,
    min_size: int,
) -> Iterator[metrics.ContingencyTable]:
    """Yield the table of the truth and of the segmentation at every threshold, from the highest threshold down.

    Large components only grow from one threshold to the next: to the table of one threshold the voxels are added that
    come into large components at the next, and rows are added up where components join. What is in no large component
    is the background. Labels are those of the segmentation: by decreasing size, then by the first voxel.
    """
    voxels, components, begins, into, when = large_components(tree, levels, min_size)
    flat = truth.reshape(-1)
    true_labels, totals = np.unique(flat, return_counts=True)
    if ignored is not None:  # they carry label 0
        totals[0] -= np.count_nonzero(ignored)
    labels, numbers = len(true_labels), len(into)
    sizes, first = np.zeros(numbers, np.int64), np.full(numbers, flat.size, np.int64)
    code, count = np.zeros(0, np.int64), np.zeros(0, np.int64)  # component * labels + label, and how many voxels
    for i in range(len(levels)):
        # Components that others are joined into may be joined into others themselves at this threshold.
        joined = np.flatnonzero(when == i)
        root = np.where(when <= i, into, np.arange(numbers))
        while not np.array_equal(root[root], root):
            root = root[root]
        np.add.at(sizes, root[joined], sizes[joined])
        np.minimum.at(first, root[joined], first[joined])
        sizes[joined] = 0
        code, count = _summed(root[code // labels] * labels + code % labels, count)
        for begin in range(int(begins[i]), int(begins[i + 1]), _VOXELS_OF_A_BLOCK):
            block = slice(begin, min(begin + _VOXELS_OF_A_BLOCK, int(begins[i + 1])))
            at, component = voxels[block], root[components[block]]
            sizes += np.bincount(component, minlength=numbers)
            np.minimum.at(first, component, at)
            if ignored is not None:
                counted = ~ignored.reshape(-1)[at]
                at, component = at[counted], component[counted]
            added, added_count = np.unique(
                component * labels + np.searchsorted(true_labels, flat[at]), return_counts=True
            )
            code, count = _summed(np.concatenate([code, added]), np.concatenate([count, added_count]))
        yield _numbered(true_labels, totals, code, count, sizes, first)


def _summed(
    code: npt.NDArray[np.int64], count: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Add up the counts of equal codes."""
    order = np.argsort(code, kind="stable")
    distinct, first = np.unique(code[order], return_index=True)
    return distinct, np.add.reduceat(count[order], first) if len(first) else count


def _numbered(
    true_labels: npt.NDArray[Any],
    totals: npt.NDArray[np.int64],
    code: npt.NDArray[np.int64],
    count: npt.NDArray[np.int64],
    sizes: npt.NDArray[np.int64],
    first: npt.NDArray[np.int64],
) -> metrics.ContingencyTable:
    """Return the table with labels 1, 2, ... for the large components, and 0 for the voxels that are in none."""
    large = np.flatnonzero(sizes)
    large = large[np.lexsort((first[large], -sizes[large]))]
    number = np.zeros(len(sizes), np.int64)
    number[large] = np.arange(1, len(large) + 1)
    component, true = np.divmod(code, len(true_labels))
    outside = totals.copy()
    np.subtract.at(outside, true, count)
    rest = np.flatnonzero(outside)
    kept, pred = np.unique(np.concatenate([np.zeros(len(rest), np.int64), number[component]]), return_inverse=True)
    return table_of_entries(
        true_labels, kept, np.concatenate([rest, true]), pred, np.concatenate([outside[rest], count])
    )


def _candidates(trees: list[SpanningTree], truths: list[npt.NDArray[Any]]) -> npt.NDArray[np.float64]:
    """Return the affinities at which large components join, the parts of objects and objects with each other.

    Most edges of a tree join single voxels to objects. Those that matter are the ones whose smaller component is the
    largest, about two for every true object.
    """
    joins = []
    for tree, truth in zip(trees, truths, strict=True):
        smaller = smaller_sizes(tree)
        smaller[~np.isfinite(tree.affinities)] = 0  # no threshold to try, and none of the few that are taken
        wanted = 2 * np.count_nonzero(np.unique(truth)) + _FEWEST
        if wanted < len(smaller):
            least = np.partition(smaller, len(smaller) - wanted)[len(smaller) - wanted]
            largest = np.flatnonzero(smaller > least)
            equal = np.flatnonzero(smaller == least)[: wanted - len(largest)]
            joins.append(tree.affinities[np.concatenate([largest, equal])])
        else:
            joins.append(tree.affinities)
    distinct = np.unique(np.concatenate(joins)).astype(np.float64)
    distinct = distinct[np.isfinite(distinct)]
    if len(distinct) == 0:
        raise ValueError("thresholds must be given where no edge between two voxels has a finite affinity")
    # Half of them evenly spaced by rank, which follows any scale, and half by value: where a network is sure, nine of
    # ten joins are within 1 % of the highest affinity.
    by_rank = np.linspace(0, len(distinct) - 1, min(len(distinct), _CANDIDATES // 2))
    by_value = np.linspace(distinct[0], distinct[-1], _CANDIDATES - len(by_rank))
    return np.concatenate([distinct[np.rint(by_rank).astype(np.int64)], by_value])
