"""The threshold that segments best, by any score, over several images."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from malis import _checks, _core, metrics
from malis._growing import GrowingComponents, GrowingCounts
from malis.tree import SpanningTree, maximum_spanning_tree, segment_tree

# Of the truth, labels or skeletons, and the predicted labels.
Score = Callable[[Any, npt.NDArray[Any]], float]

_TableScore = Callable[[metrics.ContingencyTable, int], float]

# Of every score by name: how to compute it from a table and the least number of voxels of an object, and whether larger
# is better.
_SCORES: dict[str, tuple[_TableScore, bool]] = {
    "object_score": (lambda table, min_size: metrics.object_score(table=table, min_size=min_size), True),
    "object_recall": (lambda table, min_size: metrics.object_recall(table=table, min_size=min_size), True),
    "rand_f_score": (lambda table, _: metrics.rand_scores(table=table).f_score, True),
    "adapted_rand_error": (lambda table, _: metrics.adapted_rand_error(table=table), False),
    "variation_of_information": (lambda table, _: sum(metrics.variation_of_information(table=table)), False),
    "cremi_score": (lambda table, _: metrics.cremi_score(table=table).score, False),
    "average_precision": (lambda table, size: metrics.average_precision(table=table, min_size=size).mean, True),
}
# The scores of true skeletons; larger is better.
_SKELETON_SCORES = ("erl", "nerl")
_CANDIDATES = 100
_FEWEST = 10
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
    gts: Sequence[npt.ArrayLike | metrics.Skeletons],
    nhood: npt.ArrayLike,
    *,
    score: str | Score = "object_score",
    thresholds: Sequence[float] | npt.NDArray[Any] | None = None,
    min_size: int = 64,
    ignore_label: int | None = None,
    progress: Callable[[float], object] | None = None,
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
        Labels of the truth, one array per image; 0 is background. Or `metrics.Skeletons`, one for each image.
    nhood : array_like of int, shape (K, ndim)
        Offsets.
    score : str or callable, optional
        What to optimise: ``"object_score"``, ``"object_recall"`` (both with `min_size` and their default
        `dice_threshold`), ``"average_precision"`` (its mean over the overlaps, with `min_size`), ``"rand_f_score"``,
        ``"adapted_rand_error"``, ``"variation_of_information"`` (split plus merge) or ``"cremi_score"``; the last three
        are errors and are minimised. For skeletons ``"nerl"`` or ``"erl"``, with a `merge_threshold` of 0. Or a
        function of the truth and the predicted labels, of which larger values are better.
    thresholds : array_like of float, optional
        The thresholds to try; edges with affinities of at least the threshold connect. By default up to 100 that the
        predictions suggest, between the highest and the lowest affinity at which large components join.
    min_size : int, default 64
        Objects of fewer voxels are dropped: components become background, and the scores of objects leave out both true
        and predicted ones. Segment with the same `min_size` afterwards.
    ignore_label : int, optional
        Voxels of this true label, which may be negative, take part in no score. A function of the caller gets the
        truth as it is.
    progress : callable, optional
        Called with the share that is done, which increases to 1: after every spanning tree, which are about half of
        the work, and after every threshold of every image.
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
    _check_images(preds, gts)
    if progress is not None and not callable(progress):
        raise TypeError(f"progress must be a function of the share that is done, got {progress!r}")
    chosen_score = None if callable(score) else _checks.as_choice(score, "score", (*_SCORES, *_SKELETON_SCORES))
    smallest = _checks.as_size(min_size, "min_size")
    offsets = _checks.as_nhood(nhood)
    trees, n_objects = [], []
    for i, (pred, gt) in enumerate(zip(preds, gts, strict=True)):
        affinities = _checks.as_stored_affinities(pred, f"preds[{i}]")
        n_objects.append(_check_truth(gt, f"gts[{i}]", chosen_score, affinities, offsets, ignore_label))
        tree = maximum_spanning_tree(affinities, offsets, num_threads=num_threads)
        trees.append(tree._replace(edges=tree.edges[:0].copy()))  # 8 bytes for every voxel that nothing here reads
        del tree, affinities
        if progress is not None:
            progress((i + 1) / (2 * len(preds)))
    levels = _candidates(trees, n_objects) if thresholds is None else _checks.as_reals(thresholds, "thresholds")
    levels = np.unique(levels)[::-1]

    scores = np.empty((len(levels), len(trees)))
    for column, (tree, gt) in enumerate(zip(trees, gts, strict=True)):
        for row, of_level in enumerate(_scores(score, tree, levels, gt, ignore_label, smallest, num_threads)):
            scores[row, column] = of_level
            if progress is not None:
                progress(0.5 + (column * len(levels) + row + 1) / (2 * scores.size))
    if np.isnan(scores).all():
        raise ValueError(
            f"score must be defined at some threshold: {chosen_score} counts nothing in gts and predictions, at "
            f"min_size={smallest}"
        )
    return _best(levels, scores, larger_is_better=chosen_score not in _SCORES or _SCORES[chosen_score][1])


def _check_images(preds: Any, gts: Any) -> None:
    for name, arrays in (("preds", preds), ("gts", gts)):
        if isinstance(arrays, np.ndarray) or not isinstance(arrays, Sequence):
            raise TypeError(f"{name} must be a list of arrays, one for each image, got {type(arrays).__name__}")
    if len(preds) == 0 or len(preds) != len(gts):
        raise ValueError(
            f"preds and gts must hold one array for each image, got {len(preds)} predictions and {len(gts)} truths"
        )


def _best(levels: npt.NDArray[Any], scores: npt.NDArray[np.float64], *, larger_is_better: bool) -> BestThreshold:
    """Choose the threshold with the best mean score over the images (columns) in which it is defined."""
    defined = ~np.isnan(scores)
    images = np.maximum(1, defined.sum(axis=1))
    mean = np.where(defined.any(axis=1), np.where(defined, scores, 0.0).sum(axis=1) / images, np.nan)
    value = np.where(np.isnan(mean), -np.inf, mean if larger_is_better else -mean)
    # Sums of the same numbers differ by rounding alone.
    best = np.flatnonzero(value >= value.max() - 1e-12)
    chosen = best[(len(best) - 1) // 2]
    return BestThreshold(float(levels[chosen]), float(mean[chosen]), levels, scores)


def _scores(
    score: str | Score,
    tree: SpanningTree,
    levels: npt.NDArray[np.float64],
    gt: npt.ArrayLike | metrics.Skeletons,
    ignore_label: int | None,
    min_size: int,
    num_threads: int | None,
) -> Iterator[float]:
    """Yield the score of an image at every threshold."""
    if callable(score):
        truth = gt if isinstance(gt, metrics.Skeletons) else np.asarray(gt)
        for seg in _segmentations(tree, levels, min_size, num_threads):
            yield _checks.as_real(score(truth, seg), "score")
    elif isinstance(gt, metrics.Skeletons):
        for segments in _node_segments(tree, levels, gt, min_size):
            yield getattr(metrics.skeleton_scores(gt, node_segments=segments), score)
    else:
        of_table, _ = _SCORES[score]
        for table in _tables(tree, levels, gt, ignore_label, min_size):
            yield of_table(table, min_size)


def _segmentations(
    tree: SpanningTree, levels: npt.NDArray[np.float64], min_size: int, num_threads: int | None
) -> Iterator[npt.NDArray[Any]]:
    """Yield the segmentation at every threshold, a few of them in memory at a time."""
    step = max(1, _VOXELS_AT_ONCE // math.prod(tree.shape))
    for first in range(0, len(levels), step):
        for seg, _ in segment_tree(tree, levels[first : first + step], min_size=min_size, num_threads=num_threads):
            yield seg


def _check_truth(
    gt: npt.ArrayLike | metrics.Skeletons,
    name: str,
    score: str | None,
    affinities: npt.NDArray[Any],
    offsets: npt.NDArray[np.int64],
    ignore_label: int | None,
) -> int:
    """Check that a truth goes together with affinities and score, and return how many objects it has."""
    if isinstance(gt, metrics.Skeletons):
        if score in _SCORES:
            raise ValueError(f"score must be 'erl' or 'nerl' where gts holds skeletons, got {score!r}")
        _checks.check_channels(affinities, offsets)
        if gt.nodes.shape[1] != offsets.shape[1]:
            raise ValueError(
                f"{name} must have nodes of {offsets.shape[1]} coordinates as nhood has, got {gt.nodes.shape[1]}"
            )
        voxels = np.rint(gt.nodes)
        if not ((voxels >= 0) & (voxels < affinities.shape[1:])).all():
            raise ValueError(f"{name} must have nodes inside of the predicted volume of shape {affinities.shape[1:]}")
        return len(np.unique(gt.ids))
    if score in _SKELETON_SCORES:
        raise TypeError(f"{name} must be Skeletons for score={score!r}, got {type(gt).__name__}")
    labels, _ = _checks.as_truth(gt, name, ignore_label)
    _checks.check_volume(affinities, labels, name, offsets)
    return int(np.count_nonzero(np.unique(labels)))


def _tables(
    tree: SpanningTree,
    levels: npt.NDArray[np.float64],
    gt: npt.ArrayLike,
    ignore_label: int | None,
    min_size: int,
) -> Iterator[metrics.ContingencyTable]:
    """Yield the table of the truth and of the segmentation at every threshold, from the highest threshold down."""
    components = GrowingComponents(tree, levels, min_size)
    counts = GrowingCounts(components, gt, ignore_label)
    for _ in levels:
        components.lower()
        counts.lower()
        yield counts.table()


def _node_segments(
    tree: SpanningTree,
    levels: npt.NDArray[np.float64],
    skeletons: metrics.Skeletons,
    min_size: int,
) -> Iterator[npt.NDArray[np.int64]]:
    """Yield the predicted label of every node of skeletons at every threshold, from the highest threshold down."""
    components = GrowingComponents(tree, levels, min_size)
    component, threshold = (metrics.skeleton_segments(skeletons, seg) for seg in components.of_voxels())
    for i in range(len(levels)):
        components.lower()
        there = (component > 0) & (threshold <= i)
        labels = np.zeros(len(component), np.int64)
        labels[there] = components.labels()[components.find(component[there] - 1)]
        yield labels


def _candidates(trees: list[SpanningTree], n_objects: list[int]) -> npt.NDArray[np.float64]:
    """Return the affinities at which large components join, the parts of objects and objects with each other.

    Most edges of a tree join single voxels to objects. Those that matter are the ones whose smaller component is the
    largest, about two for every true object.
    """
    joins = []
    for tree, objects in zip(trees, n_objects, strict=True):
        smaller = _core.smaller_sizes(math.prod(tree.shape), tree.affinities, tree.node1, tree.node2)
        smaller[~np.isfinite(tree.affinities)] = 0  # no threshold to try, and none of the few that are taken
        joins.append(tree.affinities[_largest(smaller, 2 * objects + _FEWEST)])
    distinct = np.unique(np.concatenate(joins)).astype(np.float64)
    distinct = distinct[np.isfinite(distinct)]
    if len(distinct) == 0:
        raise ValueError("thresholds must be given where no edge between two voxels has a finite affinity")
    # Half of them evenly spaced by rank, which follows any scale, and half by value: where a network is sure, nine of
    # ten joins are within 1 % of the highest affinity.
    by_rank = np.linspace(0, len(distinct) - 1, min(len(distinct), _CANDIDATES // 2))
    by_value = np.linspace(distinct[0], distinct[-1], _CANDIDATES - len(by_rank))
    return np.concatenate([distinct[np.rint(by_rank).astype(np.int64)], by_value])


def _largest(values: npt.NDArray[Any], number: int) -> npt.NDArray[np.int64]:
    """Return the positions of so many of the largest values; of equal ones the first."""
    if len(values) <= number:
        return np.arange(len(values))
    least = np.partition(values, -number)[-number]
    above, equal = np.flatnonzero(values > least), np.flatnonzero(values == least)
    return np.concatenate([above, equal[: number - len(above)]])
