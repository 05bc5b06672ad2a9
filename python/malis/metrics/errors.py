"""Where the errors are: every voxel's own verdict."""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING

import numpy as np

from malis.metrics.table import label_codes, largest_of_group, table_of_codes

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray


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


def error_map(seg_true: ArrayLike, seg_pred: ArrayLike, *, ignore_label: int | None = None) -> NDArray[np.uint8]:
    """Say for every voxel what is wrong with it: missed, spurious, split off, merged.

    Every true object has a predicted object that covers most of it, and every predicted object a true object that it
    mostly belongs to (the lowest label where several are equal). A voxel in a true and in a predicted object is *split*
    when the latter is not the one that covers most of the former, and *merged* when the predicted object mostly belongs
    to another true one.

    Parameters
    ----------
    seg_true, seg_pred : array_like of int
        As in :func:`contingency_table`; 0 is background.
    ignore_label : int, optional
        Voxels of this true label, which may be negative, carry no error and take part in none.

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
    codes = label_codes(seg_true, seg_pred, ignore_label)
    table = table_of_codes(codes)
    in_true, in_pred = table.true_labels[table.true_index] != 0, table.pred_labels[table.pred_index] != 0
    both = np.flatnonzero(in_true & in_pred)
    true_index, pred_index, counts = (a[both] for a in (table.true_index, table.pred_index, table.counts))
    split, merged = in_true & in_pred, in_true & in_pred
    split[both[largest_of_group(true_index, pred_index, counts)]] = False
    merged[both[largest_of_group(pred_index, true_index, counts)]] = False
    error = np.full(len(table.counts), VoxelError.NONE, np.uint8)
    error[in_true & ~in_pred] = VoxelError.MISSED
    error[~in_true & in_pred] = VoxelError.SPURIOUS
    error[split] = VoxelError.SPLIT
    error[merged] = VoxelError.MERGED
    error[split & merged] = VoxelError.SPLIT_AND_MERGED
    entry = np.searchsorted(table.true_index * len(table.pred_labels) + table.pred_index, codes.code)
    if codes.counted is None:
        return error[entry].reshape(codes.shape)
    errors = np.full(codes.shape, VoxelError.NONE, np.uint8)
    errors[codes.counted] = error[entry]
    return errors
