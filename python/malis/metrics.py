"""Scores of a segmentation against the ground truth.

Two families of scores, both computed from a sparse contingency table (:func:`contingency_table`), which can be counted
once for all of them:

* per object: :func:`object_score` and :func:`object_recall`, which count the objects that were found, also at
  every Dice threshold (:func:`object_score_curve`);
* per pair of voxels or per voxel: :func:`rand_scores`, :func:`adapted_rand_error` and
  :func:`variation_of_information`.

:func:`evaluate` returns all of those that need NumPy alone, from one table; :func:`error_map` says where the errors
are. Label 0 is background on both sides.
"""

from __future__ import annotations

import enum
import importlib
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from malis import _checks

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

__all__ = [
    "ContingencyTable",
    "ObjectMatches",
    "ObjectScoreCurve",
    "RandScores",
    "Scores",
    "VariationOfInformation",
    "VoxelError",
    "adapted_rand_error",
    "contingency_table",
    "error_map",
    "evaluate",
    "match_objects",
    "object_recall",
    "object_score",
    "object_score_curve",
    "rand_scores",
    "variation_of_information",
]


class ContingencyTable(NamedTuple):
    """How many voxels carry each pair of labels, background included; the pairs that occur alone are listed.

    Entry ``i`` says that ``counts[i]`` voxels are labelled ``true_labels[true_index[i]]`` in the ground truth
    and ``pred_labels[pred_index[i]]`` in the prediction. The entries are sorted by the true label, then by
    the predicted one.
    """

    true_labels: NDArray[Any]
    """The labels of the ground truth, increasing, shape ``(T,)``."""
    pred_labels: NDArray[Any]
    """The labels of the prediction, increasing, shape ``(P,)``."""
    true_index: NDArray[np.int64]
    """Position in ``true_labels``, shape ``(n,)``."""
    pred_index: NDArray[np.int64]
    """Position in ``pred_labels``, shape ``(n,)``."""
    counts: NDArray[np.int64]
    """Number of voxels, at least 1, shape ``(n,)``."""

    @property
    def true_sizes(self) -> NDArray[np.int64]:
        """Number of voxels of each of ``true_labels``."""
        return _sum_by(self.true_index, self.counts, len(self.true_labels))

    @property
    def pred_sizes(self) -> NDArray[np.int64]:
        """Number of voxels of each of ``pred_labels``."""
        return _sum_by(self.pred_index, self.counts, len(self.pred_labels))


class ObjectMatches(NamedTuple):
    """The true objects, each with the predicted object that covers most of it (see :func:`match_objects`)."""

    true_labels: NDArray[Any]
    """Labels of the true objects of at least ``min_size`` voxels, increasing, shape ``(n_truth,)``."""
    pred_labels: NDArray[Any]
    """Label of the match of each true object, 0 where no predicted object touches it."""
    dice: NDArray[np.float64]
    """Dice coefficient of each true object and its match, 0 where there is none."""
    unique: NDArray[np.bool_]
    """Whether the object has a match that is the match of no other true object."""
    n_predicted: int
    """Number of predicted objects of at least ``min_size`` voxels."""

    def found(self, dice_threshold: float = 0.7) -> NDArray[np.bool_]:
        """Return which true objects are found: a match of their own and a Dice above the threshold."""
        return self.unique & (self.dice > dice_threshold)


class ObjectScoreCurve(NamedTuple):
    """The object scores at every Dice threshold (see :func:`object_score_curve`)."""

    dice_thresholds: NDArray[np.float64]
    """The Dice coefficients to exceed, in the order given, shape ``(n,)``."""
    object_score: NDArray[np.float64]
    """Found objects over the mean number of true and predicted objects, shape ``(n,)``."""
    object_recall: NDArray[np.float64]
    """Found objects over true objects, shape ``(n,)``."""


class VoxelError(enum.IntEnum):
    """What is wrong with a voxel (the values of :func:`error_map`)."""

    NONE = 0
    """Nothing: in matching objects, or background on both sides."""
    MISSED = 1
    """In a true object, but not in a predicted one."""
    SPURIOUS = 2
    """In a predicted object, but not in a true one."""
    SPLIT = 3
    """In a predicted object that is not the one that covers most of the true object."""
    MERGED = 4
    """In a predicted object that mostly belongs to another true object."""
    SPLIT_AND_MERGED = 5
    """Both: split off, and merged with something else."""


class RandScores(NamedTuple):
    """Foreground-restricted Rand scores (see :func:`rand_scores`); 1 is best."""

    f_score: float
    """Harmonic mean of ``split`` and ``merge``."""
    split: float
    """Low where true objects are split."""
    merge: float
    """Low where true objects are merged."""


class VariationOfInformation(NamedTuple):
    """Conditional entropies in bits (see :func:`variation_of_information`); 0 is best."""

    split: float
    """H(prediction | truth): large where true objects are split."""
    merge: float
    """H(truth | prediction): large where true objects are merged."""


class Scores(NamedTuple):
    """What :func:`evaluate` returns; every score is between 0 and 1, and 1 is best."""

    object_score: float
    object_recall: float
    rand_f_score: float
    rand_split: float
    rand_merge: float


def contingency_table(seg_true: ArrayLike, seg_pred: ArrayLike) -> ContingencyTable:
    """Count the voxels of every pair of a true and a predicted label.

    Parameters
    ----------
    seg_true, seg_pred : array_like of int
        Labels of the ground truth and of the prediction, of one shape, any number of dimensions. Any integer
        or boolean dtype, or a float dtype that holds integers; labels may be of any size.

    Returns
    -------
    ContingencyTable
        The pairs that occur, in sparse form.

    Raises
    ------
    TypeError
        If an argument is no array of numbers.
    ValueError
        If the shapes differ, the arrays are empty, or labels are negative or no integers.

    Examples
    --------
    >>> table = contingency_table([0, 1, 1, 2], [5, 5, 5, 0])
    >>> table.true_labels[table.true_index].tolist(), table.pred_labels[table.pred_index].tolist()
    ([0, 1, 2], [5, 5, 0])
    >>> table.counts.tolist()
    [1, 2, 1]
    """
    return _table(*_codes(seg_true, seg_pred))


def match_objects(
    seg_true: ArrayLike | None = None,
    seg_pred: ArrayLike | None = None,
    *,
    min_size: int = 64,
    table: ContingencyTable | None = None,
) -> ObjectMatches:
    """Match every true object with the predicted object that covers most of it.

    Objects of fewer than ``min_size`` voxels are dropped on both sides first. Where several predicted objects
    cover equally much of a true one, the lowest label is its match.

    Parameters
    ----------
    seg_true, seg_pred : array_like of int
        As in :func:`contingency_table`; 0 is background.
    min_size : int, default 64
        Smallest number of voxels of an object.
    table : ContingencyTable, optional
        In place of the two segmentations: what :func:`contingency_table` returned for them.

    Returns
    -------
    ObjectMatches
        One entry per true object, and the number of predicted objects.

    Raises
    ------
    TypeError, ValueError
        As :func:`contingency_table`; also if ``min_size`` is not an integer of at least 0.

    Examples
    --------
    >>> matches = match_objects([1, 1, 1, 0, 2, 2], [7, 7, 7, 7, 0, 9], min_size=1)
    >>> matches.pred_labels.tolist(), matches.dice.round(3).tolist()
    ([7, 9], [0.857, 0.667])
    """
    _checks.as_integer(min_size, "min_size", 0)
    return _match_objects(_table_of(seg_true, seg_pred, table), min_size)


def object_score(
    seg_true: ArrayLike | None = None,
    seg_pred: ArrayLike | None = None,
    *,
    min_size: int = 64,
    dice_threshold: float = 0.7,
    table: ContingencyTable | None = None,
) -> float:
    """Return the number of found objects over the mean number of true and of predicted objects.

    1. Objects of fewer than ``min_size`` voxels are dropped on both sides.
    2. Each true object is matched with the predicted object that covers most of it
       (see :func:`match_objects`).
    3. It is *found* when the Dice coefficient ``2 |T and P| / (|T| + |P|)`` of the two exceeds
       ``dice_threshold`` and no other true object has the same match.
    4. ``object_score = found / ((n_truth + n_predicted) / 2)``.

    A merge costs all the objects it joins, a split costs the object and adds predicted ones.

    Parameters
    ----------
    seg_true, seg_pred : array_like of int
        As in :func:`contingency_table`; 0 is background.
    min_size : int, default 64
        Smallest number of voxels of an object.
    dice_threshold : float, default 0.7
        The Dice coefficient to exceed, between 0 and 1.
    table : ContingencyTable, optional
        In place of the two segmentations: what :func:`contingency_table` returned for them.

    Returns
    -------
    float
        Between 0 and 1; 1 if there are neither true nor predicted objects.

    Raises
    ------
    TypeError, ValueError
        As :func:`contingency_table`; also if ``min_size`` or ``dice_threshold`` is out of range.

    See Also
    --------
    object_recall : the same count over the number of true objects alone.

    Examples
    --------
    Of two true objects one is found, with two predicted ones to show for them:

    >>> object_score([1, 1, 1, 0, 2, 2, 2], [7, 7, 7, 0, 0, 0, 9], min_size=1)
    0.5
    """
    _check_options(min_size, dice_threshold)
    return _object_score(match_objects(seg_true, seg_pred, min_size=min_size, table=table), dice_threshold)


def object_recall(
    seg_true: ArrayLike | None = None,
    seg_pred: ArrayLike | None = None,
    *,
    min_size: int = 64,
    dice_threshold: float = 0.7,
    table: ContingencyTable | None = None,
) -> float:
    """Return the number of found objects over the number of true objects.

    *Found* is defined in :func:`object_score`; ``object_recall = found / n_truth``. Spurious predicted
    objects cost nothing here.

    Parameters
    ----------
    seg_true, seg_pred : array_like of int
        As in :func:`contingency_table`; 0 is background.
    min_size : int, default 64
        Smallest number of voxels of an object.
    dice_threshold : float, default 0.7
        The Dice coefficient to exceed, between 0 and 1.
    table : ContingencyTable, optional
        In place of the two segmentations: what :func:`contingency_table` returned for them.

    Returns
    -------
    float
        Between 0 and 1; 1 if there are no true objects.

    Raises
    ------
    TypeError, ValueError
        As :func:`object_score`.

    Examples
    --------
    >>> object_recall([1, 1, 1, 0, 2, 2, 2], [7, 7, 7, 7, 0, 0, 9], min_size=1)
    0.5
    """
    _check_options(min_size, dice_threshold)
    return _object_recall(match_objects(seg_true, seg_pred, min_size=min_size, table=table), dice_threshold)


def object_score_curve(
    seg_true: ArrayLike | None = None,
    seg_pred: ArrayLike | None = None,
    dice_thresholds: ArrayLike | None = None,
    *,
    min_size: int = 64,
    table: ContingencyTable | None = None,
) -> ObjectScoreCurve:
    """Return the object score and the object recall at many Dice thresholds, from one contingency table.

    A score that falls early means outlines that are a little off; one that stays low at any threshold means objects
    that were merged, split or not seen.

    Parameters
    ----------
    seg_true, seg_pred : array_like of int
        As in :func:`contingency_table`; 0 is background.
    dice_thresholds : array_like of float, shape (n,), optional
        The Dice coefficients to exceed, each between 0 and 1; by default 0.5, 0.55, ..., 0.95.
    min_size : int, default 64
        Smallest number of voxels of an object.
    table : ContingencyTable, optional
        In place of the two segmentations: what :func:`contingency_table` returned for them.

    Returns
    -------
    ObjectScoreCurve
        ``dice_thresholds``, ``object_score``, ``object_recall``, each of shape ``(n,)``; entry ``i`` is what
        :func:`object_score` and :func:`object_recall` return for ``dice_threshold=dice_thresholds[i]``.

    Raises
    ------
    TypeError, ValueError
        As :func:`object_score`; also if ``dice_thresholds`` is no sequence of numbers.

    Examples
    --------
    >>> curve = object_score_curve([1, 1, 1, 1, 2, 2], [7, 7, 7, 0, 9, 9], [0.5, 0.8, 0.9], min_size=1)
    >>> curve.object_score
    array([1. , 1. , 0.5])
    """
    if dice_thresholds is None:
        dice_thresholds = np.arange(10, 20) / 20  # 0.7 is the very number that object_score compares with
    levels = _checks.as_reals(dice_thresholds, "dice_thresholds")
    if not ((levels >= 0) & (levels <= 1)).all():
        raise ValueError(f"dice_thresholds must lie between 0 and 1, got {levels.tolist()}")
    matches = match_objects(seg_true, seg_pred, min_size=min_size, table=table)
    return ObjectScoreCurve(
        levels,
        np.array([_object_score(matches, level) for level in levels.tolist()]),
        np.array([_object_recall(matches, level) for level in levels.tolist()]),
    )


def rand_scores(
    seg_true: ArrayLike | None = None,
    seg_pred: ArrayLike | None = None,
    *,
    background_is_segment: bool = False,
    table: ContingencyTable | None = None,
) -> RandScores:
    """Return the Rand F-score with its split and merge parts, as defined by the SNEMI3D and ISBI challenges.

    With ``p[i, j]`` the share of the voxels of the true foreground that are labelled ``i`` in the prediction
    and ``j`` in the truth, ``s[i]`` and ``t[j]`` its sums over ``j`` and over ``i`` [1]_::

        split   = sum p^2 / sum t^2     two voxels of one true object lie in one predicted object
        merge   = sum p^2 / sum s^2     two voxels of one predicted object lie in one true object
        f_score = sum p^2 / (sum s^2 / 2 + sum t^2 / 2)

    The background of the truth is ignored. Voxels of the true foreground that the prediction leaves
    unlabelled are segments of one voxel each, as in the SNEMI3D script; in
    ``skimage.metrics.adapted_rand_error`` they are one segment, here with ``background_is_segment=True``.

    Parameters
    ----------
    seg_true, seg_pred : array_like of int
        As in :func:`contingency_table`; 0 is background.
    background_is_segment : bool, default False
        Whether the predicted background is one segment rather than one per voxel.
    table : ContingencyTable, optional
        In place of the two segmentations: what :func:`contingency_table` returned for them.

    Returns
    -------
    RandScores
        ``f_score``, ``split`` and ``merge``, above 0 and at most 1; all 1 if the truth has no foreground.

    Raises
    ------
    TypeError, ValueError
        As :func:`contingency_table`.

    References
    ----------
    .. [1] Arganda-Carreras I, Turaga SC, Berger DR, et al. (2015) Crowdsourcing the creation of image
       segmentation algorithms for connectomics. Frontiers in Neuroanatomy 9:142.

    Examples
    --------
    >>> rand_scores([1, 1, 2, 2], [1, 1, 1, 1])
    RandScores(f_score=0.6666666666666666, split=1.0, merge=0.5)
    """
    return _rand_scores(_table_of(seg_true, seg_pred, table), background_is_segment)


def evaluate(
    seg_true: ArrayLike | None = None,
    seg_pred: ArrayLike | None = None,
    *,
    min_size: int = 64,
    dice_threshold: float = 0.7,
    table: ContingencyTable | None = None,
) -> Scores:
    """Return the object score, the object recall and the Rand scores, from one contingency table.

    Parameters
    ----------
    seg_true, seg_pred : array_like of int
        As in :func:`contingency_table`; 0 is background.
    min_size, dice_threshold
        As in :func:`object_score`.
    table : ContingencyTable, optional
        In place of the two segmentations: what :func:`contingency_table` returned for them.

    Returns
    -------
    Scores
        ``object_score``, ``object_recall``, ``rand_f_score``, ``rand_split``, ``rand_merge``.

    Raises
    ------
    TypeError, ValueError
        As :func:`object_score`.

    Examples
    --------
    >>> evaluate([1, 1, 2, 2], [3, 3, 4, 4], min_size=1).object_score
    1.0
    """
    _check_options(min_size, dice_threshold)
    table = _table_of(seg_true, seg_pred, table)
    matches = _match_objects(table, min_size)
    return Scores(
        _object_score(matches, dice_threshold),
        _object_recall(matches, dice_threshold),
        *_rand_scores(table, background_is_segment=False),
    )


def error_map(seg_true: ArrayLike, seg_pred: ArrayLike) -> NDArray[np.uint8]:
    """Say for every voxel what is wrong with it: missed, spurious, split off, merged.

    Every true object has a predicted object that covers most of it, and every predicted object a true object that it
    mostly belongs to (the lowest label where several are equal). A voxel in a true and in a predicted object is *split*
    when the latter is not the one that covers most of the former, and *merged* when the predicted object mostly belongs
    to another true one.

    Parameters
    ----------
    seg_true, seg_pred : array_like of int
        As in :func:`contingency_table`; 0 is background.

    Returns
    -------
    ndarray of uint8
        Values of :class:`VoxelError`, in the shape of ``seg_true``.

    Raises
    ------
    TypeError, ValueError
        As :func:`contingency_table`.

    Examples
    --------
    >>> errors = error_map([1, 1, 1, 2, 2, 0, 3], [4, 4, 5, 6, 0, 6, 4])
    >>> [VoxelError(e).name for e in errors]
    ['NONE', 'NONE', 'SPLIT', 'NONE', 'MISSED', 'SPURIOUS', 'MERGED']
    """
    true_labels, pred_labels, code = _codes(seg_true, seg_pred)
    table = _table(true_labels, pred_labels, code)
    in_true, in_pred = table.true_labels[table.true_index] != 0, table.pred_labels[table.pred_index] != 0
    both = np.flatnonzero(in_true & in_pred)
    true_index, pred_index, counts = (a[both] for a in (table.true_index, table.pred_index, table.counts))
    split, merged = in_true & in_pred, in_true & in_pred
    split[both[_largest(true_index, pred_index, counts)]] = False
    merged[both[_largest(pred_index, true_index, counts)]] = False
    error = np.full(len(table.counts), VoxelError.NONE, np.uint8)
    error[in_true & ~in_pred] = VoxelError.MISSED
    error[~in_true & in_pred] = VoxelError.SPURIOUS
    error[split] = VoxelError.SPLIT
    error[merged] = VoxelError.MERGED
    error[split & merged] = VoxelError.SPLIT_AND_MERGED
    entry = np.searchsorted(table.true_index * len(pred_labels) + table.pred_index, code)
    return error[entry].reshape(np.shape(seg_true))


def adapted_rand_error(
    seg_true: ArrayLike | None = None,
    seg_pred: ArrayLike | None = None,
    *,
    table: ContingencyTable | None = None,
) -> float:
    """Return the adapted Rand error of scikit-image: 1 minus the F-score of pairs of different voxels.

    The background of the truth is ignored; the predicted background is one segment. It differs from
    ``1 - rand_scores(..., background_is_segment=True).f_score`` only in that the pairs of a voxel with
    itself are left out.

    Parameters
    ----------
    seg_true, seg_pred : array_like of int
        As in :func:`contingency_table`; 0 is background.
    table : ContingencyTable, optional
        In place of the two segmentations: what :func:`contingency_table` returned for them.

    Returns
    -------
    float
        Between 0 (perfect) and 1; 0 if no two voxels share a segment on either side.

    Raises
    ------
    ImportError
        If scikit-image is not installed.
    TypeError, ValueError
        As :func:`contingency_table`.

    Examples
    --------
    >>> adapted_rand_error([1, 1, 2, 2], [3, 3, 4, 4])
    0.0
    """
    metrics = _import_skimage_metrics("adapted_rand_error")
    table = _true_foreground(_table_of(seg_true, seg_pred, table))
    if (table.true_sizes <= 1).all() and (table.pred_sizes <= 1).all():
        return 0.0  # no pair on either side: the ratio is 0 / 0
    with np.errstate(invalid="ignore"):  # its precision or recall is 0 / 0 where one side has no pair
        return float(metrics.adapted_rand_error(table=_scipy_table(table))[0])


def variation_of_information(
    seg_true: ArrayLike | None = None,
    seg_pred: ArrayLike | None = None,
    *,
    table: ContingencyTable | None = None,
) -> VariationOfInformation:
    """Return the two parts of the variation of information, in bits, as computed by scikit-image [1]_.

    The background of the truth is ignored; the predicted background is one segment.

    Parameters
    ----------
    seg_true, seg_pred : array_like of int
        As in :func:`contingency_table`; 0 is background.
    table : ContingencyTable, optional
        In place of the two segmentations: what :func:`contingency_table` returned for them.

    Returns
    -------
    VariationOfInformation
        ``split``, H(prediction | truth), and ``merge``, H(truth | prediction); their sum is the variation of
        information. Both 0 if the truth has no foreground.

    Raises
    ------
    ImportError
        If scikit-image is not installed.
    TypeError, ValueError
        As :func:`contingency_table`.

    References
    ----------
    .. [1] Meila M. (2007) Comparing clusterings - an information based distance. Journal of Multivariate
       Analysis 98(5):873-895.

    Examples
    --------
    >>> variation_of_information([1, 1, 2, 2], [1, 1, 1, 1])
    VariationOfInformation(split=0.0, merge=1.0)
    """
    metrics = _import_skimage_metrics("variation_of_information")
    table = _true_foreground(_table_of(seg_true, seg_pred, table))
    if table.counts.size == 0:
        return VariationOfInformation(0.0, 0.0)
    sparse = _scipy_table(table)
    unread = np.zeros(1, np.int64)  # scikit-image compares the shapes of the images even where it has a table
    split, merge = metrics.variation_of_information(unread, unread, table=sparse / sparse.sum())
    # Entropies are not negative; rounding may leave -0.0 or -1e-17.
    return VariationOfInformation(max(0.0, float(split)), max(0.0, float(merge)))


def _table_of(
    seg_true: ArrayLike | None, seg_pred: ArrayLike | None, table: ContingencyTable | None
) -> ContingencyTable:
    """Return the table that is given, or else that of the segmentations."""
    if table is None:
        if seg_true is None or seg_pred is None:
            raise TypeError("seg_true and seg_pred must both be given, or table in their place")
        return contingency_table(seg_true, seg_pred)
    if seg_true is not None or seg_pred is not None:
        raise TypeError("table must be given in place of seg_true and seg_pred, got both")
    if not isinstance(table, ContingencyTable):
        raise TypeError(f"table must be what contingency_table returns, got {type(table).__name__}")
    return table


def _codes(seg_true: ArrayLike, seg_pred: ArrayLike) -> tuple[NDArray[Any], NDArray[Any], NDArray[np.int64]]:
    """Return the distinct labels of both sides, and one number per voxel, flat, that stands for its two labels."""
    true, pred = _checks.as_labels(seg_true, "seg_true"), _checks.as_labels(seg_pred, "seg_pred")
    if true.shape != pred.shape:
        raise ValueError(f"seg_pred must have the shape of seg_true, {true.shape}, got {_checks.describe(pred)}")
    true_labels, true_index = _compact(true)
    pred_labels, pred_index = _compact(pred)
    return true_labels, pred_labels, true_index * len(pred_labels) + pred_index


def _table(true_labels: NDArray[Any], pred_labels: NDArray[Any], code: NDArray[np.int64]) -> ContingencyTable:
    """Count the voxels of every code that `_codes` gave them."""
    n_codes = len(true_labels) * len(pred_labels)
    if n_codes <= 4 * code.size:  # few labels: one counting pass is faster than sorting the voxels
        dense = np.bincount(code, minlength=n_codes)
        present = np.flatnonzero(dense)
        count = dense[present]
    else:
        present, count = np.unique(code, return_counts=True)
    return ContingencyTable(
        true_labels,
        pred_labels,
        (present // len(pred_labels)).astype(np.int64),
        (present % len(pred_labels)).astype(np.int64),
        count.astype(np.int64),
    )


def _compact(labels: NDArray[Any]) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """Return the sorted distinct labels and, flat, the position of each voxel's label among them."""
    flat = labels.reshape(-1)
    largest = int(flat.max())
    if largest > flat.size:
        distinct, index = np.unique(flat, return_inverse=True)
        return distinct, index.reshape(-1).astype(np.int64)
    # Labels 1..n, as segmentations have them: a table of all labels replaces the sort.
    present = np.zeros(largest + 1, bool)
    present[flat] = True
    position = np.cumsum(present, dtype=np.int64) - 1
    return np.flatnonzero(present).astype(flat.dtype), position[flat]


def _sum_by(index: NDArray[np.int64], count: NDArray[np.int64], length: int) -> NDArray[np.int64]:
    # np.bincount would sum the weights in float64, which is exact only up to 2**53.
    sums = np.zeros(length, np.int64)
    np.add.at(sums, index, count)
    return sums


def _match_objects(table: ContingencyTable, min_size: int) -> ObjectMatches:
    true_sizes, pred_sizes = table.true_sizes, table.pred_sizes
    true_objects = (table.true_labels != 0) & (true_sizes >= min_size)
    pred_objects = (table.pred_labels != 0) & (pred_sizes >= min_size)

    overlaps = np.flatnonzero(true_objects[table.true_index] & pred_objects[table.pred_index])
    true_index, pred_index, count = (a[overlaps] for a in (table.true_index, table.pred_index, table.counts))
    best = _largest(true_index, pred_index, count)
    matched = true_index[best]

    match = np.full(len(table.true_labels), -1)
    match[matched] = pred_index[best]
    dice = np.zeros(len(table.true_labels))
    dice[matched] = 2.0 * count[best] / (true_sizes[matched] + pred_sizes[pred_index[best]])
    n_matches = np.bincount(pred_index[best], minlength=len(table.pred_labels))

    match, dice = match[true_objects], dice[true_objects]
    has_match = match >= 0
    return ObjectMatches(
        true_labels=table.true_labels[true_objects],
        pred_labels=np.where(has_match, table.pred_labels[match], 0).astype(table.pred_labels.dtype),
        dice=dice,
        unique=has_match & (n_matches[match] == 1),
        n_predicted=int(np.count_nonzero(pred_objects)),
    )


def _largest(group: NDArray[np.int64], partner: NDArray[np.int64], count: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return, for every group in increasing order, the position of its largest count; ties: the lowest partner."""
    order = np.lexsort((partner, -count, group))
    return order[np.unique(group[order], return_index=True)[1]]


def _object_score(matches: ObjectMatches, dice_threshold: float) -> float:
    n_objects = len(matches.true_labels) + matches.n_predicted
    return 2.0 * float(matches.found(dice_threshold).sum()) / n_objects if n_objects else 1.0


def _object_recall(matches: ObjectMatches, dice_threshold: float) -> float:
    n_true = len(matches.true_labels)
    return float(matches.found(dice_threshold).sum()) / n_true if n_true else 1.0


def _rand_scores(table: ContingencyTable, background_is_segment: bool) -> RandScores:
    table = _true_foreground(table)
    n_voxels = float(table.counts.sum())
    if n_voxels == 0:
        return RandScores(1.0, 1.0, 1.0)
    joint = (table.counts / n_voxels) ** 2
    pred = (table.pred_sizes / n_voxels) ** 2
    true = float(((table.true_sizes / n_voxels) ** 2).sum())
    if not background_is_segment:
        # Each unlabelled voxel is a segment of its own: n of them add n * (1 / n_voxels)^2 to both sums.
        unlabelled = table.pred_labels == 0
        pred[unlabelled] = table.pred_sizes[unlabelled] / n_voxels**2
        entries = unlabelled[table.pred_index]
        joint[entries] = table.counts[entries] / n_voxels**2
    both, merged = float(joint.sum()), float(pred.sum())
    # The sums run over the same numbers in other orders: rounding may lift a ratio above 1.
    return RandScores(*(min(1.0, ratio) for ratio in (2.0 * both / (merged + true), both / true, both / merged)))


def _true_foreground(table: ContingencyTable) -> ContingencyTable:
    """Return the table of the voxels whose true label is not 0; the lists of labels stay as they are."""
    keep = table.true_labels[table.true_index] != 0
    return table._replace(
        true_index=table.true_index[keep], pred_index=table.pred_index[keep], counts=table.counts[keep]
    )


def _scipy_table(table: ContingencyTable) -> Any:
    """Return the table as scikit-image takes it; its size does not depend on how large labels are."""
    entries = (table.counts.astype(float), (table.true_index, table.pred_index))
    shape = (len(table.true_labels), len(table.pred_labels))
    return importlib.import_module("scipy.sparse").csr_array(entries, shape=shape)


def _import_skimage_metrics(function: str) -> Any:
    try:
        return importlib.import_module("skimage.metrics")
    except ImportError as error:
        raise ImportError(f"malis.metrics.{function} needs scikit-image: pip install 'malis-loss[metrics]'") from error


def _check_options(min_size: int, dice_threshold: float) -> None:
    _checks.as_integer(min_size, "min_size", 0)
    if not 0 <= _checks.as_real(dice_threshold, "dice_threshold") <= 1:
        raise ValueError(f"dice_threshold must lie between 0 and 1, got {dice_threshold!r}")
