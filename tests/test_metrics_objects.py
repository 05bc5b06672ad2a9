"""Scores per object: worked out by hand, and the definition written out voxel by voxel."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from malis import metrics
from strategies import bars, segmentations


def test_object_scores_by_hand():
    # Objects 1 and 2 are merged, 3 is split in halves, 4 is found (Dice 2 * 80 / (100 + 80) = 0.89), 5 is missed,
    # 6 is smaller than 64 voxels; the prediction invents 15 and the speck 16.
    true = bars((1, 100), (2, 100), (3, 200), (4, 100), (5, 70), (6, 63), (0, 170))
    pred = bars((11, 200), (12, 100), (13, 100), (14, 80), (0, 90), (6, 63), (15, 70), (16, 63), (0, 37))
    matches = metrics.match_objects(true, pred)
    assert matches.true_labels.tolist() == [1, 2, 3, 4, 5]
    assert matches.pred_labels.tolist() == [11, 11, 12, 14, 0]
    np.testing.assert_allclose(matches.dice, [2 / 3, 2 / 3, 2 / 3, 8 / 9, 0])
    assert matches.unique.tolist() == [False, False, True, True, False]
    assert (matches.n_true, matches.n_predicted) == (5, 5)
    assert (matches.n_true_small, matches.n_predicted_small) == (1, 2)  # 6, and 6 and 16
    assert matches.found().tolist() == [False, False, False, True, False]
    assert metrics.object_recall(true, pred) == 1 / 5
    assert metrics.object_score(true, pred) == 1 / ((5 + 5) / 2)
    assert metrics.object_recall(true, pred, dice_threshold=0.6) == 2 / 5  # one half of object 3 is enough now
    assert metrics.object_recall(true, pred, min_size=63) == 2 / 6
    assert metrics.object_score(true, pred, min_size=63) == 2 / ((6 + 7) / 2)


def test_dice_has_to_exceed_the_threshold():
    true, pred = bars((1, 100), (0, 100)), bars((1, 60), (0, 100), (1, 40))  # Dice 2 * 60 / 200
    assert metrics.match_objects(true, pred).dice.tolist() == [0.6]
    assert metrics.object_score(true, pred, dice_threshold=0.6) == 0
    assert metrics.object_score(true, pred, dice_threshold=0.599) == 1


def test_ties_go_to_the_lowest_predicted_label():
    true = bars((1, 10), (2, 10))
    pred = bars((9, 5), (4, 5), (4, 10))
    assert metrics.match_objects(true, pred, min_size=1).pred_labels.tolist() == [4, 4]
    relabelled = np.where(pred == 4, 12, pred)
    assert metrics.match_objects(true, relabelled, min_size=1).pred_labels.tolist() == [9, 12]


def test_a_dropped_object_makes_no_match_ambiguous():
    # 63 voxels of the small object 2 lie in the match of object 1: dropped, it does not count as "another object".
    true, pred = bars((1, 200), (2, 63)), bars((5, 263))
    assert metrics.object_recall(true, pred) == 1
    assert metrics.object_recall(true, pred, min_size=63) == 0


def test_background_is_no_object():
    true, pred = bars((0, 300), (1, 100)), bars((0, 340), (1, 60))
    assert metrics.match_objects(true, pred, min_size=1).true_labels.tolist() == [1]
    assert metrics.match_objects(true, pred, min_size=1).n_predicted == 1
    nothing = np.zeros_like(true)
    assert metrics.match_objects(true, nothing).pred_labels.tolist() == [0]


def test_no_objects():
    nothing, something = np.zeros(100, int), bars((1, 100))
    assert math.isnan(metrics.object_score(nothing, nothing))
    assert math.isnan(metrics.object_recall(nothing, nothing))
    assert metrics.object_score(nothing, something) == 0
    assert metrics.object_recall(nothing, something) == 0
    assert metrics.object_score(something, nothing) == 0
    assert metrics.object_recall(something, nothing) == 0


def object_counts(true, pred, min_size, dice_threshold):
    """The definition, written out voxel by voxel."""

    def objects(seg):
        voxels = {}
        for at, label in enumerate(seg.ravel().tolist()):
            if label:
                voxels.setdefault(label, set()).add(at)
        return {label: inside for label, inside in voxels.items() if len(inside) >= min_size}

    truths, predictions = objects(true), objects(pred)
    match = {}
    for label, inside in truths.items():
        overlap = {p: len(inside & other) for p, other in predictions.items() if inside & other}
        if overlap:
            match[label] = min(p for p, n in overlap.items() if n == max(overlap.values()))
    found = 0
    for label, p in match.items():
        dice = 2 * len(truths[label] & predictions[p]) / (len(truths[label]) + len(predictions[p]))
        found += dice > dice_threshold and list(match.values()).count(p) == 1
    return found, len(truths), len(predictions)


@given(segmentations(), st.integers(0, 5), st.sampled_from([0.0, 0.3, 0.5, 0.7, 0.9]))
def test_object_scores_equal_the_definition(pair, min_size, dice_threshold):
    found, n_truth, n_predicted = object_counts(*pair, min_size, dice_threshold)
    options = {"min_size": min_size, "dice_threshold": dice_threshold}
    if n_truth:
        assert metrics.object_recall(*pair, **options) == found / n_truth
        assert metrics.object_score(*pair, **options) == pytest.approx(found / ((n_truth + n_predicted) / 2), abs=1e-15)
    else:
        expected = 0 if n_predicted else math.nan
        assert metrics.object_recall(*pair, **options) == pytest.approx(expected, nan_ok=True)
        assert metrics.object_score(*pair, **options) == pytest.approx(expected, nan_ok=True)


@given(segmentations(), st.integers(0, 5), st.lists(st.floats(0, 1), min_size=1, max_size=5))
def test_object_score_curve_equals_the_single_scores(pair, min_size, levels):
    curve = metrics.object_score_curve(*pair, levels, min_size=min_size)
    assert curve.dice_thresholds.tolist() == levels
    for level, score, recall in zip(*curve, strict=True):
        options = {"min_size": min_size, "dice_threshold": level}
        np.testing.assert_array_equal(score, metrics.object_score(*pair, **options))
        np.testing.assert_array_equal(recall, metrics.object_recall(*pair, **options))


def test_object_score_curve_by_hand():
    # Dice 2 * 120 / (200 + 120) = 0.75 and 2 * 180 / (200 + 180) = 0.947.
    true, pred = bars((1, 200), (2, 200), (0, 200)), bars((0, 80), (7, 120), (8, 180), (0, 20), (9, 200))
    curve = metrics.object_score_curve(true, pred)
    np.testing.assert_allclose(curve.dice_thresholds, [0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95])
    np.testing.assert_allclose(curve.object_recall, [1] * 5 + [0.5] * 4 + [0])
    np.testing.assert_allclose(curve.object_score, [0.8] * 5 + [0.4] * 4 + [0])
    # The default range holds the threshold of object_score exactly.
    assert 0.7 in curve.dice_thresholds


@pytest.mark.parametrize(
    ("levels", "error"),
    [
        ([0.5, 1.1], ValueError),
        ([-0.1], ValueError),
        ([math.nan], ValueError),
        ([], ValueError),
        (0.7, ValueError),
        (["high"], TypeError),
        ([True], TypeError),
    ],
)
def test_bad_dice_thresholds(levels, error):
    with pytest.raises(error, match="dice_thresholds"):
        metrics.object_score_curve([1, 2], [1, 2], levels)
