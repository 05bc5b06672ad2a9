"""The score of the CREMI challenge."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from malis.metrics.pairs import variation_of_information
from malis.metrics.table import ContingencyTable, table_of, true_foreground

if TYPE_CHECKING:
    from numpy.typing import ArrayLike


class CremiScore(NamedTuple):
    """The score of the CREMI challenge and its parts (see :func:`cremi_score`); 0 is best."""

    score: float
    """Geometric mean of the variation of information and of the adapted Rand error."""
    voi_split: float
    """H(prediction | truth) in bits: large where true objects are split."""
    voi_merge: float
    """H(truth | prediction) in bits: large where true objects are merged."""
    adapted_rand_error: float
    """1 minus the F-score of pairs, as `cremi_python` computes it."""


def cremi_score(
    seg_true: ArrayLike | None = None,
    seg_pred: ArrayLike | None = None,
    *,
    ignore_label: int | None = None,
    table: ContingencyTable | None = None,
) -> CremiScore:
    """Return the score of the CREMI challenge: variation of information and adapted Rand error in one number.

    As defined in [1]_. With ``p[i, j]`` voxels of the true foreground that are labelled ``i`` in the prediction and
    ``j`` in the truth, ``t[j]`` the sum over all ``i``, ``s[i]`` the sum over ``j``, ``c`` voxels of the true
    foreground that the prediction leaves unlabelled, and ``n`` voxels in all::

        adapted_rand_error = 1 - 2 A / (S + T)
            A = sum over i > 0 of p^2 + c / n,    S = sum over i > 0 of s^2 + c / n,    T = sum t^2
        score = sqrt((voi_split + voi_merge) * adapted_rand_error)

    `voi_split` and `voi_merge` are those of :func:`variation_of_information`, in which the predicted background is one
    segment. The error counts a voxel as a pair with itself and unlabelled voxels as next to nothing; the one of
    scikit-image, :func:`adapted_rand_error`, differs in both.

    Parameters
    ----------
    seg_true, seg_pred : array_like of int
        As in :func:`contingency_table`; 0 is background. CREMI's own files mark the background of the truth by
        ``2**64 - 1``, and 0 is an object there: ``truth + np.uint64(1)`` puts both right.
    ignore_label : int, optional
        Voxels of this true label, which may be negative, take part in no score.
    table : ContingencyTable, optional
        In place of the two segmentations: what :func:`contingency_table` returned for them.

    Returns
    -------
    CremiScore
        ``score``, ``voi_split``, ``voi_merge``, ``adapted_rand_error``; all NaN if the truth has no foreground.

    Raises
    ------
    TypeError, ValueError
        As :func:`contingency_table`.

    Notes
    -----
    The challenge leaves out what lies within 25 nm of a border between labels of the truth in the same section. Set
    these voxels to 0 in the truth before, for numbers that compare with its leaderboard.

    References
    ----------
    .. [1] J. Funke, S. Saalfeld, D. Bock, S. Turaga, E. Perlman: MICCAI Challenge on Circuit Reconstruction from
       Electron Microscopy Images, https://cremi.org; `cremi_python`, ``cremi/evaluation/{voi,rand}.py``.

    Examples
    --------
    >>> scores = cremi_score([1, 1, 2, 2], [3, 3, 3, 3])
    >>> scores.voi_split, scores.voi_merge, round(scores.adapted_rand_error, 3), round(scores.score, 3)
    (0.0, 1.0, 0.333, 0.577)
    """
    table = table_of(seg_true, seg_pred, ignore_label, table)
    foreground = true_foreground(table)
    if foreground.counts.size == 0:
        return CremiScore(math.nan, math.nan, math.nan, math.nan)
    split, merge = variation_of_information(table=foreground)
    labelled = foreground.pred_labels != 0
    # In double precision, as the square of an object of 2**32 voxels does not fit into 64 bits.
    counts = foreground.counts.astype(np.float64)
    in_labelled = labelled[foreground.pred_index]
    unlabelled_share = float(counts[~in_labelled].sum()) / float(table.counts.sum())
    both = float((counts[in_labelled] ** 2).sum()) + unlabelled_share
    pred = float((foreground.pred_sizes[labelled].astype(np.float64) ** 2).sum()) + unlabelled_share
    true = float((foreground.true_sizes.astype(np.float64) ** 2).sum())
    error = max(0.0, 1.0 - 2.0 * both / (pred + true))
    return CremiScore(math.sqrt((split + merge) * error), split, merge, error)
