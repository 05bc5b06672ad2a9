"""Contingency tables of chunked segmentations, which all scores are computed from."""

from __future__ import annotations

import operator
from functools import partial
from typing import Any

import numpy as np

from malis import _checks, metrics
from malis.malis_dask import _arguments
from malis.malis_dask._graph import Tasks


def contingency_table(seg_true: Any, seg_pred: Any, *, ignore_label: int | None = None) -> metrics.ContingencyTable:
    """Count the voxels of every pair of labels: `malis.metrics.contingency_table` of any size of volume.

    Tables of chunks are added two by two. Every score of `malis.metrics` takes the result as its argument `table`.

    Parameters
    ----------
    seg_true, seg_pred : dask.array.Array of int
        Labels of the ground truth and of the prediction, of one shape, in any chunks.
    ignore_label : int, optional
        Voxels of this true label, which may be negative, are not counted.

    Returns
    -------
    malis.metrics.ContingencyTable
        The pairs that occur, in sparse form: about 24 bytes for every pair of labels that overlap.

    Raises
    ------
    TypeError
        If an argument holds no numbers, or `ignore_label` is no integer.
    ValueError
        If the shapes differ, the arrays are empty, or labels are negative or no integers.

    Examples
    --------
    >>> import dask.array as da
    >>> from malis import malis_dask, metrics
    >>> true, pred = da.from_array([1, 1, 2, 2], chunks=3), da.from_array([5, 5, 5, 8], chunks=2)
    >>> table = malis_dask.contingency_table(true, pred)
    >>> metrics.rand_scores(table=table) == metrics.rand_scores([1, 1, 2, 2], [5, 5, 5, 8])
    True
    """
    true = _arguments.as_chunked_labels(seg_true, "seg_true")
    pred = _arguments.as_chunked_labels(seg_pred, "seg_pred")
    if true.shape != pred.shape:
        raise ValueError(f"seg_pred must have the shape of seg_true, {true.shape}, got {_checks.describe(pred)}")
    if ignore_label is not None:
        ignore_label = _checks.as_label(ignore_label, "ignore_label")
    pred = pred.rechunk(true.chunks)
    tasks = Tasks(true, pred)
    count = partial(metrics.contingency_table, ignore_label=ignore_label)
    tables = [
        tasks.call(count, (true.name, *index), (pred.name, *index), name="contingency-table")
        for index in np.ndindex(*true.numblocks)
    ]
    table: metrics.ContingencyTable = tasks.compute(tasks.reduce(operator.add, tables, name="add-tables"))
    return table
