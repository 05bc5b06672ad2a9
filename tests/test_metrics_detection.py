"""Average precision: by hand, and the definition of StarDist written out with SciPy's optimal assignment."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment

from malis import metrics
from strategies import bars, segmentations


def test_average_precision_by_hand():
    # Overlaps: 80 / 100, 60 / 100, none for the third; one predicted object lies in the background.
    true = bars((1, 100), (2, 80), (3, 50), (0, 70))
    pred = bars((5, 80), (0, 20), (6, 60), (0, 20), (0, 50), (0, 20), (6, 20), (7, 30))
    result = metrics.average_precision(true, pred, [0.5, 0.6, 0.7, 0.8, 0.9])
    assert result.true_positives.tolist() == [2, 2, 1, 1, 0]  # the threshold is reached, not exceeded
    assert result.false_positives.tolist() == [1, 1, 2, 2, 3]
    assert result.false_negatives.tolist() == [1, 1, 2, 2, 3]
    np.testing.assert_allclose(result.average_precision, [2 / 4, 2 / 4, 1 / 5, 1 / 5, 0])
    assert result.mean == pytest.approx((0.5 + 0.5 + 0.2 + 0.2) / 5)


def test_thresholds_of_the_data_science_bowl():
    result = metrics.average_precision([1, 1], [2, 2])
    np.testing.assert_allclose(result.iou_thresholds, [0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95])
    assert result.mean == 1


def test_min_size_drops_on_both_sides():
    true, pred = bars((1, 100), (2, 63), (0, 60)), bars((5, 100), (6, 63), (7, 60))
    assert metrics.average_precision(true, pred, [0.5]).mean == 2 / 3
    assert metrics.average_precision(true, pred, [0.5], min_size=64).mean == 1
    assert math.isnan(metrics.average_precision(true, pred, [0.5], min_size=101).mean)


def test_below_a_half_objects_share_partners():
    # Object 1 overlaps 5 and 6, object 2 overlaps 5 alone: 1 has to give way, though 5 is the better match for it.
    true, pred = bars((1, 9), (2, 3)), bars((6, 4), (5, 8))
    assert metrics.average_precision(true, pred, [0.3]).true_positives.tolist() == [2]
    assert metrics.average_precision(true, pred, [0.4]).true_positives.tolist() == [1]


@given(segmentations(), st.lists(st.sampled_from([0.1, 0.2, 0.25, 1 / 3, 0.5, 0.6, 0.75, 1.0]), min_size=1, max_size=4))
def test_equals_the_definition(pair, levels):
    true, pred = (seg.astype(int) for seg in pair)
    true_ids, pred_ids = (np.unique(seg[seg > 0]) for seg in (true, pred))
    iou = np.array(
        [[((true == t) & (pred == p)).sum() / ((true == t) | (pred == p)).sum() for p in pred_ids] for t in true_ids]
    )
    result = metrics.average_precision(*pair, levels)
    for level, precision, tp, fp, fn in zip(*result, strict=True):
        expected = 0
        if iou.size:
            rows, columns = linear_sum_assignment(-(iou >= level).astype(float) - iou / (2 * min(iou.shape)))
            expected = int((iou[rows, columns] >= level).sum())
        assert (tp, fp, fn) == (expected, len(pred_ids) - expected, len(true_ids) - expected)
        objects = tp + fp + fn
        assert precision == tp / objects if objects else math.isnan(precision)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"iou_thresholds": [0.0]}, ValueError, "iou_thresholds must lie above 0"),
        ({"iou_thresholds": [1.1]}, ValueError, "iou_thresholds"),
        ({"iou_thresholds": [math.nan]}, ValueError, "iou_thresholds"),
        ({"iou_thresholds": 0.5}, ValueError, "iou_thresholds"),
        ({"iou_thresholds": ["half"]}, TypeError, "iou_thresholds"),
        ({"min_size": -1}, ValueError, "min_size"),
        ({"min_size": 0.5}, TypeError, "min_size"),
    ],
)
def test_bad_options(options, error, message):
    with pytest.raises(error, match=message):
        metrics.average_precision([1, 2], [1, 2], **options)
