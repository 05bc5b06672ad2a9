"""The contingency table: by hand, and against scikit-image."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import skimage.metrics
from hypothesis import given
from hypothesis import strategies as st

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


# ----------------------------------------------------------------------------------------------------- partial tables


def assert_same(one, two):
    for name in ("true_labels", "pred_labels", "true_index", "pred_index", "counts", "true_sizes", "pred_sizes"):
        np.testing.assert_array_equal(getattr(one, name), getattr(two, name), err_msg=name)


@given(segmentations(), st.integers(1, 5))
def test_tables_of_parts_add_up(pair, step):
    true, pred = (seg.ravel() for seg in pair)
    parts = [metrics.contingency_table(true[i : i + step], pred[i : i + step]) for i in range(0, true.size, step)]
    whole = metrics.contingency_table(true, pred)
    assert_same(sum(parts), whole)
    assert_same(sum(reversed(parts)), whole)
    assert_same(pickle.loads(pickle.dumps(parts[0])), parts[0])


def test_parts_of_different_dtypes():
    # Neither int64 nor float64 holds all of these labels.
    true, pred = np.array([2**63 + 1, 3, 3], np.uint64), np.array([1, 2**62, 1])
    parts = metrics.contingency_table(true[:1], pred[:1]) + metrics.contingency_table(
        true[1:].astype(np.int8), pred[1:]
    )
    assert parts.true_labels.tolist() == [3, 2**63 + 1]
    assert_same(parts, metrics.contingency_table(true, pred))


def test_counts_of_parts_are_exact():
    part = metrics.ContingencyTable(*np.array([[5], [7], [0], [0], [2**61]], np.int64))
    assert (part + part + part).counts.tolist() == [3 * 2**61]


def test_a_part_that_is_ignored_adds_nothing():
    nothing = metrics.contingency_table([-1, -1], [1, 2], ignore_label=-1)
    assert (nothing.counts.size, nothing.true_sizes.size) == (0, 0)
    part = metrics.contingency_table([1, 2], [3, 3])
    assert_same(part + nothing, part)
    assert_same(nothing + part, part)
    assert (nothing + nothing).counts.size == 0


def test_only_tables_add():
    table = metrics.contingency_table([1, 2], [3, 3])
    for other in (1, (table,), None):
        with pytest.raises(TypeError):
            table + other
        with pytest.raises(TypeError):
            other + table
