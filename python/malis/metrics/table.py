"""How many voxels carry each pair of a true and a predicted label: what every score is computed from."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from malis import _checks

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray


@dataclass(frozen=True, eq=False)
class ContingencyTable:
    """How many voxels carry each pair of labels, background included; the pairs that occur alone are listed.

    Entry ``i`` says that ``counts[i]`` voxels are labelled ``true_labels[true_index[i]]`` in the ground truth
    and ``pred_labels[pred_index[i]]`` in the prediction. The entries are sorted by the true label, then by
    the predicted one.

    Tables of parts of a volume add up to the table of the volume, with ``+`` and with ``sum``: volumes larger than
    memory are counted block by block. The labels must mean the same in all parts.

    Examples
    --------
    >>> true, pred = np.array([1, 1, 1, 2]), np.array([5, 5, 8, 8])
    >>> parts = [contingency_table(true[i : i + 2], pred[i : i + 2]) for i in (0, 2)]
    >>> table = sum(parts)
    >>> table.true_labels[table.true_index], table.pred_labels[table.pred_index], table.counts
    (array([1, 1, 2]), array([5, 8, 8]), array([2, 1, 1]))
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

    @cached_property
    def true_sizes(self) -> NDArray[np.int64]:
        """Number of voxels of each of ``true_labels``."""
        return _sum_by(self.true_index, self.counts, len(self.true_labels))

    @cached_property
    def pred_sizes(self) -> NDArray[np.int64]:
        """Number of voxels of each of ``pred_labels``."""
        return _sum_by(self.pred_index, self.counts, len(self.pred_labels))

    def __add__(self, other: ContingencyTable) -> ContingencyTable:
        if not isinstance(other, ContingencyTable):
            return NotImplemented
        true_labels, true_index = _join(self.true_labels, self.true_index, other.true_labels, other.true_index)
        pred_labels, pred_index = _join(self.pred_labels, self.pred_index, other.pred_labels, other.pred_index)
        counts = np.concatenate([self.counts, other.counts])
        return table_of_entries(true_labels, pred_labels, true_index, pred_index, counts)

    def __radd__(self, other: int) -> ContingencyTable:
        # sum() starts with 0.
        return self if isinstance(other, int) and other == 0 else NotImplemented


class LabelCodes(NamedTuple):
    """One number for every voxel that is counted, which stands for its two labels."""

    true_labels: NDArray[Any]
    """The labels of the ground truth, increasing, shape ``(T,)``."""
    pred_labels: NDArray[Any]
    """The labels of the prediction, increasing, shape ``(P,)``."""
    code: NDArray[np.int64]
    """Position of the true label times ``P`` plus position of the predicted label, flat, in C-order."""
    counted: NDArray[np.bool_] | None
    """Which voxels are counted, in the shape of the segmentations; None: all."""
    shape: tuple[int, ...]
    """Shape of the segmentations."""


def contingency_table(seg_true: ArrayLike, seg_pred: ArrayLike, *, ignore_label: int | None = None) -> ContingencyTable:
    """Count the voxels of every pair of a true and a predicted label.

    Parameters
    ----------
    seg_true, seg_pred : array_like of int
        Labels of the ground truth and of the prediction, of one shape, any number of dimensions. Any integer
        or boolean dtype, or a float dtype that holds integers; labels may be of any size.
    ignore_label : int, optional
        Voxels of this true label, which may be negative, are not counted.

    Returns
    -------
    ContingencyTable
        The pairs that occur, in sparse form. Tables of parts of a volume can be added.

    Raises
    ------
    TypeError
        If an argument is no array of numbers, or `ignore_label` no integer.
    ValueError
        If the shapes differ, the arrays are empty, or labels are negative or no integers.

    Examples
    --------
    >>> table = contingency_table([0, 1, 1, 2], [5, 5, 5, 0])
    >>> table.true_labels[table.true_index].tolist(), table.pred_labels[table.pred_index].tolist()
    ([0, 1, 2], [5, 5, 0])
    >>> table.counts.tolist()
    [1, 2, 1]
    >>> contingency_table([-1, 1, 1, 2], [5, 5, 5, 0], ignore_label=-1).counts.tolist()
    [2, 1]
    """
    return table_of_codes(label_codes(seg_true, seg_pred, ignore_label))


def table_of(
    seg_true: ArrayLike | None,
    seg_pred: ArrayLike | None,
    ignore_label: int | None,
    table: ContingencyTable | None,
) -> ContingencyTable:
    """Return the table that is given, or else that of the segmentations, without the label to ignore."""
    if table is None:
        if seg_true is None or seg_pred is None:
            raise TypeError("seg_true and seg_pred must both be given, or table in their place")
        return contingency_table(seg_true, seg_pred, ignore_label=ignore_label)
    if seg_true is not None or seg_pred is not None:
        raise TypeError("table must be given in place of seg_true and seg_pred, got both")
    if not isinstance(table, ContingencyTable):
        raise TypeError(f"table must be what contingency_table returns, got {type(table).__name__}")
    if ignore_label is None:
        return table
    return _select(table, table.true_labels[table.true_index] != _checks.as_label(ignore_label, "ignore_label"))


def label_codes(seg_true: ArrayLike, seg_pred: ArrayLike, ignore_label: int | None) -> LabelCodes:
    """Check the segmentations and give every pair of labels a number."""
    true, ignored = _checks.as_truth(seg_true, "seg_true", ignore_label)
    pred = _checks.as_labels(seg_pred, "seg_pred")
    if true.shape != pred.shape:
        raise ValueError(f"seg_pred must have the shape of seg_true, {true.shape}, got {_checks.describe(pred)}")
    counted = None if ignored is None else ~ignored
    true_labels, true_index = _compact(true if counted is None else true[counted])
    pred_labels, pred_index = _compact(pred if counted is None else pred[counted])
    true_index *= len(pred_labels)
    true_index += pred_index
    return LabelCodes(true_labels, pred_labels, true_index, counted, true.shape)


def table_of_codes(codes: LabelCodes) -> ContingencyTable:
    """Count the voxels of every code."""
    n_true, n_pred = len(codes.true_labels), len(codes.pred_labels)
    if n_true * n_pred <= 4 * codes.code.size:  # few labels: one counting pass is faster than sorting the voxels
        dense = np.bincount(codes.code, minlength=n_true * n_pred)
        present = np.flatnonzero(dense)
        counts = dense[present]
    else:
        present, counts = np.unique(codes.code, return_counts=True)
    return _table_of_present(codes.true_labels, codes.pred_labels, present, counts)


def table_of_entries(
    true_labels: NDArray[Any],
    pred_labels: NDArray[Any],
    true_index: NDArray[np.int64],
    pred_index: NDArray[np.int64],
    counts: NDArray[np.int64],
) -> ContingencyTable:
    """Return the table of entries in any order, in which a pair of labels may occur several times."""
    code = true_index * len(pred_labels) + pred_index
    order = np.argsort(code, kind="stable")
    present, first = np.unique(code[order], return_index=True)
    sums = np.add.reduceat(counts[order], first) if len(first) else counts
    return _table_of_present(true_labels, pred_labels, present, sums)


def true_foreground(table: ContingencyTable) -> ContingencyTable:
    """Return the table of the voxels whose true label is not 0."""
    return _select(table, table.true_labels[table.true_index] != 0)


def largest_of_group(
    group: NDArray[np.int64], partner: NDArray[np.int64], count: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Return, for every group in increasing order, the position of its largest count; ties: the lowest partner."""
    order = np.lexsort((partner, -count, group))
    return order[np.unique(group[order], return_index=True)[1]]


def _table_of_present(
    true_labels: NDArray[Any], pred_labels: NDArray[Any], present: NDArray[Any], counts: NDArray[Any]
) -> ContingencyTable:
    """Return the table whose entries have the codes `present`, increasing."""
    true_index, pred_index = np.divmod(present.astype(np.int64), max(1, len(pred_labels)))
    return ContingencyTable(true_labels, pred_labels, true_index, pred_index, counts.astype(np.int64))


def _select(table: ContingencyTable, keep: NDArray[np.bool_]) -> ContingencyTable:
    """Return some of the entries, and the labels that occur in them."""
    if keep.all():
        return table
    true_kept, true_index = np.unique(table.true_index[keep], return_inverse=True)
    pred_kept, pred_index = np.unique(table.pred_index[keep], return_inverse=True)
    return ContingencyTable(
        table.true_labels[true_kept], table.pred_labels[pred_kept], true_index, pred_index, table.counts[keep]
    )


def _join(
    labels: NDArray[Any], index: NDArray[np.int64], other_labels: NDArray[Any], other_index: NDArray[np.int64]
) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """Return the distinct labels of two tables, and the positions of both tables' entries among them."""
    dtype = np.result_type(labels, other_labels)
    if dtype.kind == "f":  # what NumPy makes of int64 and uint64; labels are not negative
        dtype = np.dtype(np.uint64)
    ours, theirs = labels.astype(dtype), other_labels.astype(dtype)
    joined = np.union1d(ours, theirs)
    return joined, np.concatenate([np.searchsorted(joined, ours)[index], np.searchsorted(joined, theirs)[other_index]])


def _compact(labels: NDArray[Any]) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """Return the sorted distinct labels and, flat, the position of each voxel's label among them."""
    # A copy: NumPy checks indices before it uses them, so another thread must not change them in between.
    flat = np.array(labels).reshape(-1)
    if flat.size == 0:
        return flat, np.zeros(0, np.int64)
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
    """Return the sum of the counts of every index below `length`."""
    # np.bincount would sum the weights in float64, which is exact only up to 2**53.
    sums = np.zeros(length, np.int64)
    np.add.at(sums, index, count)
    return sums
