"""The object scores and the Rand scores together."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from malis.metrics.objects import check_options, match_objects, recall_of_matches, score_of_matches
from malis.metrics.pairs import rand_scores
from malis.metrics.table import ContingencyTable, table_of

if TYPE_CHECKING:
    from numpy.typing import ArrayLike


class Scores(NamedTuple):
    """What :func:`evaluate` returns: every score is between 0 and 1, and 1 is best; NaN where nothing is counted."""

    object_score: float
    object_recall: float
    rand_f_score: float
    rand_split: float
    rand_merge: float


def evaluate(
    seg_true: ArrayLike | None = None,
    seg_pred: ArrayLike | None = None,
    *,
    min_size: int = 64,
    dice_threshold: float = 0.7,
    ignore_label: int | None = None,
    table: ContingencyTable | None = None,
) -> Scores:
    """Return the object score, the object recall and the Rand scores, from one contingency table.

    Parameters
    ----------
    seg_true, seg_pred : array_like of int
        As in :func:`contingency_table`; 0 is background.
    min_size, dice_threshold
        As in :func:`object_score`.
    ignore_label : int, optional
        Voxels of this true label, which may be negative, take part in no score.
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
    check_options(min_size, dice_threshold)
    table = table_of(seg_true, seg_pred, ignore_label, table)
    matches = match_objects(table=table, min_size=min_size)
    return Scores(
        score_of_matches(matches, dice_threshold),
        recall_of_matches(matches, dice_threshold),
        *rand_scores(table=table),
    )
