"""Average precision: how many objects are detected at which overlap."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from malis import _checks
from malis.metrics.table import ContingencyTable, table_of

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray


class AveragePrecision(NamedTuple):
    """Detected objects at every threshold of the overlap (see :func:`average_precision`)."""

    iou_thresholds: NDArray[np.float64]
    """The intersections over union that a detection reaches, in the order given, shape ``(n,)``."""
    average_precision: NDArray[np.float64]
    """``tp / (tp + fp + fn)``, shape ``(n,)``."""
    true_positives: NDArray[np.int64]
    """Matched pairs of a true and a predicted object, ``tp``, shape ``(n,)``."""
    false_positives: NDArray[np.int64]
    """Predicted objects without a match, ``fp``, shape ``(n,)``."""
    false_negatives: NDArray[np.int64]
    """True objects without a match, ``fn``, shape ``(n,)``."""

    @property
    def mean(self) -> float:
        """The mean over the thresholds."""
        return float(self.average_precision.mean())


def average_precision(
    seg_true: ArrayLike | None = None,
    seg_pred: ArrayLike | None = None,
    iou_thresholds: ArrayLike | None = None,
    *,
    min_size: int = 1,
    ignore_label: int | None = None,
    table: ContingencyTable | None = None,
) -> AveragePrecision:
    """Return the average precision of detected objects at many overlaps, as StarDist and DSB 2018 define it.

    See [1]_ and [2]_. A true and a predicted object may be matched when their intersection over union,
    ``|T and P| / |T or P|``, is at least the threshold, and every object is matched once; `tp` is the largest number
    of pairs that can be matched so. Above 0.5 an object has at most one partner. ::

        fp = n_predicted - tp        fn = n_true - tp        average_precision = tp / (tp + fp + fn)

    Parameters
    ----------
    seg_true, seg_pred : array_like of int
        As in :func:`contingency_table`; 0 is background.
    iou_thresholds : array_like of float, shape (n,), optional
        The intersections over union to reach, each above 0 and at most 1; by default 0.5, 0.55, ..., 0.95.
    min_size : int, default 1
        Objects of fewer voxels are dropped on both sides; StarDist drops none.
    ignore_label : int, optional
        Voxels of this true label, which may be negative, take part in no score.
    table : ContingencyTable, optional
        In place of the two segmentations: what :func:`contingency_table` returned for them.

    Returns
    -------
    AveragePrecision
        ``iou_thresholds``, ``average_precision``, ``true_positives``, ``false_positives``, ``false_negatives``, and
        ``mean`` over the thresholds. NaN if there are neither true nor predicted objects.

    Raises
    ------
    TypeError, ValueError
        As :func:`contingency_table`; also if ``min_size`` or ``iou_thresholds`` are out of range.

    References
    ----------
    .. [1] U. Schmidt, M. Weigert, C. Broaddus, G. Myers: Cell detection with star-convex polygons. MICCAI 2018.
    .. [2] J. C. Caicedo, A. Goodman, K. W. Karhohs, et al.: Nucleus segmentation across imaging experiments: the 2018
       Data Science Bowl. Nature Methods 16 (2019), 1247-1253.

    Examples
    --------
    Overlaps of 3 / 4 and 2 / 3, and a predicted object that is none:

    >>> result = average_precision([1, 1, 1, 1, 2, 2, 0, 0], [7, 7, 7, 0, 8, 8, 8, 9], [0.6, 0.7, 0.8])
    >>> result.true_positives, result.average_precision.round(3)
    (array([2, 1, 0]), array([0.667, 0.25 , 0.   ]))
    """
    if iou_thresholds is None:
        iou_thresholds = np.arange(10, 20) / 20
    levels = _checks.as_reals(iou_thresholds, "iou_thresholds")
    if not ((levels > 0) & (levels <= 1)).all():
        raise ValueError(f"iou_thresholds must lie above 0 and be at most 1, got {levels.tolist()}")
    _checks.as_integer(min_size, "min_size", 0)
    table = table_of(seg_true, seg_pred, ignore_label, table)
    true_objects = (table.true_labels != 0) & (table.true_sizes >= min_size)
    pred_objects = (table.pred_labels != 0) & (table.pred_sizes >= min_size)
    n_true, n_predicted = int(np.count_nonzero(true_objects)), int(np.count_nonzero(pred_objects))

    overlaps = np.flatnonzero(true_objects[table.true_index] & pred_objects[table.pred_index])
    true_index, pred_index, counts = (a[overlaps] for a in (table.true_index, table.pred_index, table.counts))
    iou = counts / (table.true_sizes[true_index] + table.pred_sizes[pred_index] - counts)
    matched = np.array(
        [_largest_matching(true_index[iou >= level], pred_index[iou >= level]) for level in levels], np.int64
    )
    objects = n_true + n_predicted - matched  # tp + fp + fn
    precision = np.divide(matched, objects, out=np.full(len(levels), np.nan), where=objects > 0)
    return AveragePrecision(levels, precision, matched, n_predicted - matched, n_true - matched)


def _largest_matching(true_index: NDArray[np.int64], pred_index: NDArray[np.int64]) -> int:
    """Return the largest number of the pairs that share no object: Berge's augmenting paths."""
    if len(np.unique(true_index)) == len(true_index) and len(np.unique(pred_index)) == len(pred_index):
        return len(true_index)  # always so above an intersection over union of 0.5
    partners: dict[int, list[int]] = {}
    for true, pred in zip(true_index.tolist(), pred_index.tolist(), strict=True):
        partners.setdefault(true, []).append(pred)
    match_of_pred: dict[int, int] = {}
    match_of_true: dict[int, int] = {}
    for start in partners:
        # Search for a free predicted object, along pairs that are not matched and matched ones in turn.
        reached_from: dict[int, int] = {}
        free: int | None = None
        queue = [start]
        for true in queue:  # the loop appends to it
            for pred in partners[true]:
                if pred not in reached_from:
                    reached_from[pred] = true
                    if pred not in match_of_pred:
                        free = pred
                        break
                    queue.append(match_of_pred[pred])
            if free is not None:
                break
        # Along the path what was matched is not, and what was not is: one pair more.
        while free is not None:
            true = reached_from[free]
            before = match_of_true.get(true)
            match_of_true[true], match_of_pred[free] = free, true
            free = before
    return len(match_of_true)
