"""Scores per object: how many of the true objects were found."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from malis import _checks
from malis.metrics.table import ContingencyTable, largest_of_group, table_of

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray


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
    n_true_small: int
    """Number of true objects that were left out: they have fewer than ``min_size`` voxels."""
    n_predicted_small: int
    """Number of predicted objects that were left out: they have fewer than ``min_size`` voxels."""

    @property
    def n_true(self) -> int:
        """Number of true objects of at least ``min_size`` voxels."""
        return len(self.true_labels)

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


def match_objects(
    seg_true: ArrayLike | None = None,
    seg_pred: ArrayLike | None = None,
    *,
    min_size: int = 64,
    ignore_label: int | None = None,
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
    ignore_label : int, optional
        Voxels of this true label, which may be negative, take part in no score.
    table : ContingencyTable, optional
        In place of the two segmentations: what :func:`contingency_table` returned for them.

    Returns
    -------
    ObjectMatches
        One entry per true object, the number of predicted objects, and how many were left out on either side.

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
    return _match_objects(table_of(seg_true, seg_pred, ignore_label, table), min_size)


def object_score(
    seg_true: ArrayLike | None = None,
    seg_pred: ArrayLike | None = None,
    *,
    min_size: int = 64,
    dice_threshold: float = 0.7,
    ignore_label: int | None = None,
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
    ignore_label : int, optional
        Voxels of this true label, which may be negative, take part in no score.
    table : ContingencyTable, optional
        In place of the two segmentations: what :func:`contingency_table` returned for them.

    Returns
    -------
    float
        Between 0 and 1; NaN if there are neither true nor predicted objects of at least ``min_size`` voxels.

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
    check_options(min_size, dice_threshold)
    return score_of_matches(
        match_objects(seg_true, seg_pred, min_size=min_size, ignore_label=ignore_label, table=table), dice_threshold
    )


def object_recall(
    seg_true: ArrayLike | None = None,
    seg_pred: ArrayLike | None = None,
    *,
    min_size: int = 64,
    dice_threshold: float = 0.7,
    ignore_label: int | None = None,
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
    ignore_label : int, optional
        Voxels of this true label, which may be negative, take part in no score.
    table : ContingencyTable, optional
        In place of the two segmentations: what :func:`contingency_table` returned for them.

    Returns
    -------
    float
        Between 0 and 1; where there are no true objects 0 if there are predicted ones, else NaN.

    Raises
    ------
    TypeError, ValueError
        As :func:`object_score`.

    Examples
    --------
    >>> object_recall([1, 1, 1, 0, 2, 2, 2], [7, 7, 7, 7, 0, 0, 9], min_size=1)
    0.5
    """
    check_options(min_size, dice_threshold)
    return recall_of_matches(
        match_objects(seg_true, seg_pred, min_size=min_size, ignore_label=ignore_label, table=table), dice_threshold
    )


def object_score_curve(
    seg_true: ArrayLike | None = None,
    seg_pred: ArrayLike | None = None,
    dice_thresholds: ArrayLike | None = None,
    *,
    min_size: int = 64,
    ignore_label: int | None = None,
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
    ignore_label : int, optional
        Voxels of this true label, which may be negative, take part in no score.
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
    matches = match_objects(seg_true, seg_pred, min_size=min_size, ignore_label=ignore_label, table=table)
    return ObjectScoreCurve(
        levels,
        np.array([score_of_matches(matches, level) for level in levels.tolist()]),
        np.array([recall_of_matches(matches, level) for level in levels.tolist()]),
    )


def _match_objects(table: ContingencyTable, min_size: int) -> ObjectMatches:
    true_sizes, pred_sizes = table.true_sizes, table.pred_sizes
    true_objects = (table.true_labels != 0) & (true_sizes >= min_size)
    pred_objects = (table.pred_labels != 0) & (pred_sizes >= min_size)
    n_predicted = int(np.count_nonzero(pred_objects))

    overlaps = np.flatnonzero(true_objects[table.true_index] & pred_objects[table.pred_index])
    true_index, pred_index, count = (a[overlaps] for a in (table.true_index, table.pred_index, table.counts))
    best = largest_of_group(true_index, pred_index, count)
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
        n_predicted=n_predicted,
        n_true_small=int(np.count_nonzero(table.true_labels)) - int(np.count_nonzero(true_objects)),
        n_predicted_small=int(np.count_nonzero(table.pred_labels)) - n_predicted,
    )


def score_of_matches(matches: ObjectMatches, dice_threshold: float) -> float:
    """Return found objects over the mean number of true and predicted objects."""
    n_objects = matches.n_true + matches.n_predicted
    return 2.0 * float(matches.found(dice_threshold).sum()) / n_objects if n_objects else math.nan


def recall_of_matches(matches: ObjectMatches, dice_threshold: float) -> float:
    """Return found objects over true objects."""
    if matches.n_true == 0:
        return 0.0 if matches.n_predicted else math.nan
    return float(matches.found(dice_threshold).sum()) / matches.n_true


def check_options(min_size: int, dice_threshold: float) -> None:
    """Check the options that the object scores share."""
    _checks.as_integer(min_size, "min_size", 0)
    if not 0 <= _checks.as_real(dice_threshold, "dice_threshold") <= 1:
        raise ValueError(f"dice_threshold must lie between 0 and 1, got {dice_threshold!r}")
