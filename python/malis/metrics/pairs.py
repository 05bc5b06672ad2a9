"""Scores per pair of voxels (Rand) and per voxel (variation of information)."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from malis.metrics.table import ContingencyTable, table_of, true_foreground

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray


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


def rand_scores(
    seg_true: ArrayLike | None = None,
    seg_pred: ArrayLike | None = None,
    *,
    background_is_segment: bool = False,
    ignore_label: int | None = None,
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
    ignore_label : int, optional
        Voxels of this true label, which may be negative, take part in no score.
    table : ContingencyTable, optional
        In place of the two segmentations: what :func:`contingency_table` returned for them.

    Returns
    -------
    RandScores
        ``f_score``, ``split`` and ``merge``, above 0 and at most 1; all NaN if the truth has no foreground.

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
    return _rand_scores(table_of(seg_true, seg_pred, ignore_label, table), background_is_segment)


def adapted_rand_error(
    seg_true: ArrayLike | None = None,
    seg_pred: ArrayLike | None = None,
    *,
    ignore_label: int | None = None,
    table: ContingencyTable | None = None,
) -> float:
    """Return the adapted Rand error of scikit-image: 1 minus the F-score of pairs of different voxels.

    With ``p[i, j]`` voxels of the true foreground that are labelled ``i`` in the prediction and ``j`` in the truth,
    ``s[i]`` and ``t[j]`` its sums over ``j`` and over ``i`` [1]_::

        error = 1 - 2 sum p (p - 1) / (sum s (s - 1) + sum t (t - 1))

    The background of the truth is ignored; the predicted background is one segment. It differs from
    ``1 - rand_scores(..., background_is_segment=True).f_score`` only in that the pairs of a voxel with
    itself are left out.

    Parameters
    ----------
    seg_true, seg_pred : array_like of int
        As in :func:`contingency_table`; 0 is background.
    ignore_label : int, optional
        Voxels of this true label, which may be negative, take part in no score.
    table : ContingencyTable, optional
        In place of the two segmentations: what :func:`contingency_table` returned for them.

    Returns
    -------
    float
        Between 0 (perfect) and 1; NaN if no two voxels of the true foreground share a segment on either side.

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
    >>> adapted_rand_error([1, 1, 2, 2], [3, 3, 4, 4])
    0.0
    """
    table = true_foreground(table_of(seg_true, seg_pred, ignore_label, table))
    in_truth, in_prediction = _ordered_pairs(table.true_sizes), _ordered_pairs(table.pred_sizes)
    if in_truth + in_prediction == 0:
        return math.nan
    # Beyond 2**53 the three sums are rounded, which may lift the ratio above 1.
    return max(0.0, 1.0 - 2.0 * _ordered_pairs(table.counts) / (in_truth + in_prediction))


def variation_of_information(
    seg_true: ArrayLike | None = None,
    seg_pred: ArrayLike | None = None,
    *,
    ignore_label: int | None = None,
    table: ContingencyTable | None = None,
) -> VariationOfInformation:
    """Return the two parts of the variation of information, in bits.

    As defined in [1]_. With ``p[i, j]`` the share of the voxels of the true foreground that are labelled ``i`` in the
    prediction and ``j`` in the truth, ``s[i]`` and ``t[j]`` its sums over ``j`` and over ``i``::

        split = H(prediction | truth) = sum p log2(t / p)
        merge = H(truth | prediction) = sum p log2(s / p)

    The background of the truth is ignored; the predicted background is one segment.

    Parameters
    ----------
    seg_true, seg_pred : array_like of int
        As in :func:`contingency_table`; 0 is background.
    ignore_label : int, optional
        Voxels of this true label, which may be negative, take part in no score.
    table : ContingencyTable, optional
        In place of the two segmentations: what :func:`contingency_table` returned for them.

    Returns
    -------
    VariationOfInformation
        ``split``, H(prediction | truth), and ``merge``, H(truth | prediction); their sum is the variation of
        information. Both NaN if the truth has no foreground.

    Raises
    ------
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
    table = true_foreground(table_of(seg_true, seg_pred, ignore_label, table))
    n_voxels = table.counts.sum()
    if n_voxels == 0:
        return VariationOfInformation(math.nan, math.nan)
    share = table.counts / n_voxels
    # Every term is at least 0, and exactly 0 where the two segments are the same.
    split = share * np.log2(table.true_sizes[table.true_index] / table.counts)
    merge = share * np.log2(table.pred_sizes[table.pred_index] / table.counts)
    return VariationOfInformation(float(split.sum()), float(merge.sum()))


def _ordered_pairs(sizes: NDArray[np.int64]) -> float:
    """Return how many ordered pairs of two different voxels lie in one segment, for segments of these sizes."""
    # In double precision: the pairs of an object of 2**32 voxels do not fit into 64 bits.
    return float((sizes * (sizes - 1.0)).sum())


def _rand_scores(table: ContingencyTable, background_is_segment: bool) -> RandScores:
    table = true_foreground(table)
    n_voxels = float(table.counts.sum())
    if n_voxels == 0:
        return RandScores(math.nan, math.nan, math.nan)
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
