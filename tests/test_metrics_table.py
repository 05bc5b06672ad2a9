"""The contingency table: by hand, and against scikit-image."""

from __future__ import annotations

import numpy as np
import pytest
import skimage.metrics
from hypothesis import given

from malis import metrics
from strategies import segmentations


def test_contingency_table_by_hand():
    table = metrics.contingency_table([[0, 1, 1], [4, 4, 4]], [[7, 7, 0], [2, 2, 7]])
    assert table.true_labels.tolist() == [0, 1, 4]
    assert table.pred_labels.tolist() == [0, 2, 7]
    entries = zip(table.true_index.tolist(), table.pred_index.tolist(), table.counts.tolist(), strict=True)
    assert list(entries) == [(0, 2, 1), (1, 0, 1), (1, 2, 1), (2, 1, 2), (2, 2, 1)]
    assert table.true_sizes.tolist() == [1, 2, 3]
    assert table.pred_sizes.tolist() == [1, 2, 3]


@given(segmentations())
def test_contingency_table_equals_scikit_image(pair):
    true, pred = pair
    table = metrics.contingency_table(true, pred)
    dense = np.zeros((int(true.max()) + 1, int(pred.max()) + 1), np.int64)
    rows = table.true_labels[table.true_index].astype(int)
    columns = table.pred_labels[table.pred_index].astype(int)
    dense[rows, columns] = table.counts
    np.testing.assert_array_equal(dense, skimage.metrics.contingency_table(true, pred).toarray())
    assert (table.counts > 0).all()


def test_labels_of_any_size_make_the_same_table(rng):
    # Three ways to count: few small labels, many labels, and labels larger than any table.
    true, pred = rng.integers(0, 40, (2, 30, 30)).astype(np.uint64)
    small = metrics.contingency_table(true, pred)
    large = metrics.contingency_table(np.where(true > 0, true + np.uint64(2**63), 0), pred * np.uint64(2**50))
    assert small.true_labels.tolist() == list(range(40))
    assert large.true_labels.tolist() == [0, *range(2**63 + 1, 2**63 + 40)]
    assert large.pred_labels.tolist() == [i * 2**50 for i in range(40)]
    for name in ("true_index", "pred_index", "counts"):
        np.testing.assert_array_equal(getattr(small, name), getattr(large, name))
    few = metrics.contingency_table(true % np.uint64(3), pred % np.uint64(2))
    assert few.counts.sum() == 900
    assert len(few.counts) == 6


@pytest.mark.parametrize("dtype", [bool, np.int8, np.uint16, np.int64, np.float32, np.float64])
def test_dtypes_of_labels(dtype):
    true, pred = np.array([[0, 1, 1, 1]], dtype), np.array([[1, 1, 0, 1]], dtype)
    assert metrics.evaluate(true, pred, min_size=1) == metrics.evaluate(true.astype(int), pred.astype(int), min_size=1)
