"""How many voxels carry each pair of a true and a predicted label: what every score is computed from."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from malis import _checks

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray


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
        return sum_by_index(self.true_index, self.counts, len(self.true_labels))

    @property
    def pred_sizes(self) -> NDArray[np.int64]:
        """Number of voxels of each of ``pred_labels``."""
        return sum_by_index(self.pred_index, self.counts, len(self.pred_labels))


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
    return table_of_codes(*label_codes(seg_true, seg_pred))


def table_of(
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


def label_codes(seg_true: ArrayLike, seg_pred: ArrayLike) -> tuple[NDArray[Any], NDArray[Any], NDArray[np.int64]]:
    """Return the distinct labels of both sides, and one number per voxel, flat, that stands for its two labels."""
    true, pred = _checks.as_labels(seg_true, "seg_true"), _checks.as_labels(seg_pred, "seg_pred")
    if true.shape != pred.shape:
        raise ValueError(f"seg_pred must have the shape of seg_true, {true.shape}, got {_checks.describe(pred)}")
    true_labels, true_index = _compact(true)
    pred_labels, pred_index = _compact(pred)
    return true_labels, pred_labels, true_index * len(pred_labels) + pred_index


def table_of_codes(true_labels: NDArray[Any], pred_labels: NDArray[Any], code: NDArray[np.int64]) -> ContingencyTable:
    """Count the voxels of every code that `label_codes` gave them."""
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


def sum_by_index(index: NDArray[np.int64], count: NDArray[np.int64], length: int) -> NDArray[np.int64]:
    """Return the sum of the counts of every index below `length`."""
    # np.bincount would sum the weights in float64, which is exact only up to 2**53.
    sums = np.zeros(length, np.int64)
    np.add.at(sums, index, count)
    return sums


def largest_of_group(
    group: NDArray[np.int64], partner: NDArray[np.int64], count: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Return, for every group in increasing order, the position of its largest count; ties: the lowest partner."""
    order = np.lexsort((partner, -count, group))
    return order[np.unique(group[order], return_index=True)[1]]


def true_foreground(table: ContingencyTable) -> ContingencyTable:
    """Return the table of the voxels whose true label is not 0; the lists of labels stay as they are."""
    keep = table.true_labels[table.true_index] != 0
    return table._replace(
        true_index=table.true_index[keep], pred_index=table.pred_index[keep], counts=table.counts[keep]
    )
