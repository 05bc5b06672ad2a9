"""The threshold that segments best, by any score, over several images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from malis import _checks, metrics
from malis.tree import SpanningTree, linkage, maximum_spanning_tree, segment_tree

Score = Callable[[npt.NDArray[Any], npt.NDArray[Any]], float]

# Of every score by name: how to compute it, and whether larger is better.
_SCORES: dict[str, tuple[Score, bool]] = {
    "object_score": (metrics.object_score, True),
    "object_recall": (metrics.object_recall, True),
    "rand_f_score": (lambda true, pred: metrics.rand_scores(true, pred).f_score, True),
    "adapted_rand_error": (metrics.adapted_rand_error, False),
    "variation_of_information": (lambda true, pred: sum(metrics.variation_of_information(true, pred)), False),
}
_CANDIDATES = 100
_FEWEST = 10
# Voxels of the segmentations that are in memory at a time.
_VOXELS_AT_ONCE = 2**26


class BestThreshold(NamedTuple):
    """What `find_threshold` found."""

    threshold: float
    """The best threshold."""
    score: float
    """Its mean score over the images."""
    thresholds: npt.NDArray[np.float64]
    """The thresholds tried, decreasing, shape ``(n,)``."""
    scores: npt.NDArray[np.float64]
    """The score of every threshold and every image, shape ``(n, images)``."""


def find_threshold(
    preds: Sequence[npt.ArrayLike],
    gts: Sequence[npt.ArrayLike],
    nhood: npt.ArrayLike,
    *,
    score: str | Score = "object_score",
    thresholds: Sequence[float] | npt.NDArray[Any] | None = None,
    size_thresh: int = 1,
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
        What to optimise: ``"object_score"``, ``"object_recall"`` (both with their default `min_size` and
        `dice_threshold`), ``"rand_f_score"``, ``"adapted_rand_error"`` or ``"variation_of_information"`` (split plus
        merge); the last two are errors and are minimised. Or a function of the true and the predicted labels, of which
        larger values are better.
    thresholds : array_like of float, optional
        The thresholds to try; edges with affinities of at least the threshold connect. By default up to 100 that the
        predictions suggest, between the highest and the lowest affinity at which large components join.
    size_thresh : int, optional
        Components of at most so many voxels become background.
    num_threads : int, optional
        Threads to use; by default as set by `set_num_threads`.

    Returns
    -------
    BestThreshold
        ``threshold, score, thresholds, scores``. Where several thresholds are equally good it is the middle one, of two
        the higher one.

    Raises
    ------
    ValueError
        For lists that are empty or of different lengths, arrays that do not go together, thresholds that are no finite
        numbers, scores that are not finite, an unknown `score`.
    TypeError
        For dtypes and options of another type.

    See Also
    --------
    rand_curve : The Rand F-score at every distinct affinity of one image, exactly.

    Examples
    --------
    >>> import malis
    >>> preds, gts = [[[0, 0.9, 0.6, 0.2, 0.8]]], [[1, 1, 1, 2, 2]]
    >>> found = malis.find_threshold(preds, gts, [[-1]], score="rand_f_score", thresholds=[0.1, 0.5, 0.7])
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
    if callable(score):
        function, sign = score, 1.0
    else:
        function, larger_is_better = _SCORES[_checks.as_choice(score, "score", tuple(_SCORES))]
        sign = 1.0 if larger_is_better else -1.0
    smallest = _checks.as_size(size_thresh, "size_thresh")
    offsets = _checks.as_nhood(nhood)
    truths = [_checks.as_labels(gt, f"gts[{i}]") for i, gt in enumerate(gts)]
    trees = []
    for i, (pred, truth) in enumerate(zip(preds, truths, strict=True)):
        affinities = _checks.as_affinities(pred, f"preds[{i}]", integers=True)
        _checks.check_volume(affinities, truth, f"gts[{i}]", offsets)
        trees.append(maximum_spanning_tree(affinities, offsets, num_threads=num_threads))
    levels = _candidates(trees, truths) if thresholds is None else _checks.as_reals(thresholds, "thresholds")
    levels = np.unique(levels)[::-1]

    scores = np.empty((len(levels), len(trees)))
    for column, (tree, truth) in enumerate(zip(trees, truths, strict=True)):
        step = max(1, _VOXELS_AT_ONCE // truth.size)
        for first in range(0, len(levels), step):
            for row, (seg, _) in enumerate(
                segment_tree(tree, levels[first : first + step], smallest, num_threads=num_threads), start=first
            ):
                scores[row, column] = _checks.as_real(function(truth, seg), "score")
    mean = scores.mean(axis=1)
    # Sums of the same numbers differ by rounding alone.
    best = np.flatnonzero(sign * mean >= (sign * mean).max() - 1e-12)
    chosen = best[(len(best) - 1) // 2]
    return BestThreshold(float(levels[chosen]), float(mean[chosen]), levels, scores)


def _candidates(trees: list[SpanningTree], truths: list[npt.NDArray[Any]]) -> npt.NDArray[np.float64]:
    """Return the affinities at which large components join, the parts of objects and objects with each other.

    Most edges of a tree join single voxels to objects. Those that matter are the ones whose smaller component is the
    largest, about two for every true object.
    """
    joins = []
    for tree, truth in zip(trees, truths, strict=True):
        edges = len(tree.affinities)
        # The sizes of components depend on the order of the edges alone, and affinities may be infinite.
        ranked = tree._replace(affinities=-np.arange(edges, dtype=np.float64))
        rows = linkage(ranked, highest=0.0)[:edges]
        sizes = np.concatenate([np.ones(truth.size), rows[:, 3]])
        smaller = sizes[rows[:, :2].astype(np.int64)].min(axis=1)
        smaller[~np.isfinite(tree.affinities)] = 0  # no threshold to try, and none of the few that are taken
        objects = np.count_nonzero(np.unique(truth))
        joins.append(tree.affinities[np.argsort(-smaller, kind="stable")[: 2 * objects + _FEWEST]])
    distinct = np.unique(np.concatenate(joins)).astype(np.float64)
    distinct = distinct[np.isfinite(distinct)]
    if len(distinct) == 0:
        raise ValueError("thresholds must be given where no edge between two voxels has a finite affinity")
    # Half of them evenly spaced by rank, which follows any scale, and half by value: where a network is sure, nine of
    # ten joins are within 1 % of the highest affinity.
    by_rank = np.linspace(0, len(distinct) - 1, min(len(distinct), _CANDIDATES // 2))
    by_value = np.linspace(distinct[0], distinct[-1], _CANDIDATES - len(by_rank))
    return np.concatenate([distinct[np.rint(by_rank).astype(np.int64)], by_value])
