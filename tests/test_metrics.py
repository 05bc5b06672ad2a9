"""Scores of segmentations: results worked out by hand, the definitions written out, and scikit-image."""

from __future__ import annotations

import doctest
import itertools
import math
import subprocess
import sys

import numpy as np
import pytest
import skimage.metrics
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from malis import metrics

SCORES = [
    metrics.contingency_table,
    metrics.match_objects,
    metrics.object_score,
    metrics.object_recall,
    metrics.object_score_curve,
    metrics.rand_scores,
    metrics.evaluate,
    metrics.error_map,
    metrics.adapted_rand_error,
    metrics.variation_of_information,
]
NO_TABLE = [metrics.contingency_table, metrics.error_map]


@st.composite
def segmentations(draw, background=True):
    """Two label arrays of one shape with 1 to 3 axes."""
    shape = draw(hnp.array_shapes(min_dims=1, max_dims=3, max_side=6))
    labels = st.integers(0 if background else 1, 5)
    dtype = draw(st.sampled_from([np.uint8, np.int32, np.int64, np.uint64]))
    return draw(hnp.arrays(dtype, shape, elements=labels)), draw(hnp.arrays(dtype, shape, elements=labels))


def bars(*runs):
    """Make a 1-D segmentation of (label, length) runs."""
    return np.concatenate([np.full(length, label) for label, length in runs])


# ------------------------------------------------------------------------------------------------- contingency table


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


# ----------------------------------------------------------------------------------------------------- object scores


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
    assert matches.n_predicted == 5
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
    assert metrics.object_score(nothing, nothing) == 1
    assert metrics.object_recall(nothing, nothing) == 1
    assert metrics.object_score(nothing, something) == 0
    assert metrics.object_recall(nothing, something) == 1
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
        assert metrics.object_recall(*pair, **options) == 1
        assert metrics.object_score(*pair, **options) == (0 if n_predicted else 1)


@given(segmentations(), st.integers(0, 5), st.lists(st.floats(0, 1), min_size=1, max_size=5))
def test_object_score_curve_equals_the_single_scores(pair, min_size, levels):
    curve = metrics.object_score_curve(*pair, levels, min_size=min_size)
    assert curve.dice_thresholds.tolist() == levels
    for level, score, recall in zip(*curve, strict=True):
        assert score == metrics.object_score(*pair, min_size=min_size, dice_threshold=level)
        assert recall == metrics.object_recall(*pair, min_size=min_size, dice_threshold=level)


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


# --------------------------------------------------------------------------------------------------------- error maps


def test_error_map_by_hand():
    # Object 1 in halves of 60 and 40; 2 and 3 in one predicted object, more of it 2; a piece of 4 sticks to object 5.
    true = bars((1, 100), (2, 60), (3, 40), (4, 50), (5, 60), (0, 20), (6, 10))
    pred = bars((11, 60), (12, 40), (13, 100), (14, 30), (15, 80), (16, 20), (0, 10))
    kinds = metrics.VoxelError
    expected = bars(
        (kinds.NONE, 60),
        (kinds.SPLIT, 40),
        (kinds.NONE, 60),
        (kinds.MERGED, 40),
        (kinds.NONE, 30),
        (kinds.SPLIT_AND_MERGED, 20),
        (kinds.NONE, 60),
        (kinds.SPURIOUS, 20),
        (kinds.MISSED, 10),
    )
    errors = metrics.error_map(true.reshape(2, -1), pred.reshape(2, -1))
    assert errors.dtype == np.uint8
    assert errors.shape == (2, 170)
    np.testing.assert_array_equal(errors.ravel(), expected)


def largest_partner(pairs):
    """Return for every first label the second one that most pairs have, the lowest of equal ones."""
    return {
        a: min({b for x, b in pairs if x == a}, key=lambda b: (-pairs.count((a, b)), b)) for a in {a for a, _ in pairs}
    }


@given(segmentations())
def test_error_map_equals_the_definition(pair):
    true, pred = (seg.ravel().tolist() for seg in pair)
    both = [(t, p) for t, p in zip(true, pred, strict=True) if t and p]
    cover, owner = largest_partner(both), largest_partner([(p, t) for t, p in both])
    for t, p, error in zip(true, pred, metrics.error_map(*pair).ravel().tolist(), strict=True):
        if t and p:
            assert (error in (3, 5)) == (cover[t] != p)
            assert (error in (4, 5)) == (owner[p] != t)
            assert error in (0, 3, 4, 5)
        else:
            assert error == (1 if t else 2 if p else 0)


@given(segmentations())
def test_a_perfect_segmentation_has_no_errors(pair):
    true, _ = pair
    assert not metrics.error_map(true, np.where(true > 0, true + 7, 0)).any()


# ------------------------------------------------------------------------------------------------------- Rand scores


def test_rand_scores_by_hand():
    # Truth 2 + 2 voxels, one background voxel between them; the prediction merges all.
    assert metrics.rand_scores([1, 1, 0, 2, 2], [3, 3, 3, 3, 3]) == pytest.approx((2 / 3, 1, 1 / 2))
    # One object of 4 voxels split in halves: 2 * 2^2 of 4^2.
    assert metrics.rand_scores([1, 1, 1, 1], [3, 3, 4, 4]) == pytest.approx((2 / 3, 1 / 2, 1))
    # Four of six voxels kept, two unlabelled: split (4^2 + 1 + 1) / 6^2, merge 1.
    assert metrics.rand_scores([1] * 6, [2, 2, 2, 2, 0, 0]) == pytest.approx((2 * 18 / (18 + 36), 18 / 36, 1))
    # The same two as one segment: split (4^2 + 2^2) / 6^2.
    whole = metrics.rand_scores([1] * 6, [2, 2, 2, 2, 0, 0], background_is_segment=True)
    assert whole == pytest.approx((2 * 20 / (20 + 36), 20 / 36, 1))
    # Two objects, one voxel of each unlabelled: as one segment these two are a merge, as singletons they are not.
    assert metrics.rand_scores([1, 1, 2, 2], [1, 0, 0, 2]).merge == 1
    assert metrics.rand_scores([1, 1, 2, 2], [1, 0, 0, 2], background_is_segment=True).merge == pytest.approx(4 / 6)


@given(segmentations(), st.booleans())
def test_rand_scores_equal_the_definition(pair, background_is_segment):
    true, pred = (seg.ravel().tolist() for seg in pair)
    voxels = [(t, p) for t, p in zip(true, pred, strict=True) if t]
    if not background_is_segment:
        voxels = [(t, p or f"voxel {i}") for i, (t, p) in enumerate(voxels)]
    pairs = list(itertools.product(voxels, repeat=2))  # ordered, a voxel with itself included
    in_truth = sum(a[0] == b[0] for a, b in pairs)
    in_prediction = sum(a[1] == b[1] for a, b in pairs)
    in_both = sum(a == b for a, b in pairs)
    expected = (1.0, 1.0, 1.0)
    if voxels:
        expected = (2 * in_both / (in_truth + in_prediction), in_both / in_truth, in_both / in_prediction)
    scores = metrics.rand_scores(*pair, background_is_segment=background_is_segment)
    assert scores == pytest.approx(expected, abs=1e-12)


@given(segmentations())
def test_adapted_rand_error_equals_scikit_image(pair):
    true, pred = (seg.astype(np.int64) for seg in pair)
    kept = np.unique(np.stack([true, pred])[:, true > 0], axis=1, return_counts=True)[1]
    if len(kept) and (np.bincount(true[true > 0]).max() > 1 or np.bincount(pred[true > 0]).max() > 1):
        with np.errstate(invalid="ignore"):  # a precision or a recall that is 0 / 0
            expected = skimage.metrics.adapted_rand_error(true, pred)[0]
    else:
        expected = 0  # no pair of voxels in one segment: scikit-image divides 0 by 0
    assert metrics.adapted_rand_error(*pair) == pytest.approx(expected, abs=1e-12)


def test_adapted_rand_error_by_hand():
    # 2 pairs within true objects, 6 within the prediction, 2 in both.
    assert metrics.adapted_rand_error([1, 1, 0, 2, 2], [3, 3, 3, 3, 3]) == pytest.approx(1 - 2 * 2 / (2 + 6))


def test_rand_scores_approach_the_adapted_rand_error(rng):
    true, pred = rng.integers(0, 6, (2, 64, 64))
    scores = metrics.rand_scores(true, pred, background_is_segment=True)
    assert 1 - scores.f_score == pytest.approx(metrics.adapted_rand_error(true, pred), abs=2e-3)


# ------------------------------------------------------------------------------------------ variation of information


def test_variation_of_information_by_hand():
    assert metrics.variation_of_information([1, 1, 2, 2], [5, 5, 5, 5]) == (0, 1)  # merged: one bit is missing
    assert metrics.variation_of_information([1, 1, 1, 1], [1, 2, 3, 4]) == (2, 0)  # split in four: two bits too many
    assert metrics.variation_of_information([1, 1, 0, 0], [1, 1, 1, 2]) == (0, 0)  # the background of the truth


@given(segmentations(background=False))
def test_variation_of_information_equals_the_definition(pair):
    true, pred = (seg.ravel().tolist() for seg in pair)

    def entropy(items):
        shares = [items.count(i) / len(items) for i in set(items)]
        return -sum(p * math.log2(p) for p in shares)

    joint = entropy(list(zip(true, pred, strict=True)))
    expected = (joint - entropy(true), joint - entropy(pred))
    result = metrics.variation_of_information(*pair)
    assert result == pytest.approx(expected, abs=1e-9)
    assert result == pytest.approx(skimage.metrics.variation_of_information(*(s.astype(int) for s in pair)), abs=1e-9)
    assert min(result) >= 0


# ------------------------------------------------------------------------------------------------ all scores together


@given(segmentations())
def test_perfect_segmentation(pair):
    true, _ = pair
    relabelled = np.where(true > 0, 17 - true.astype(np.int64), 0)
    assert metrics.evaluate(true, relabelled, min_size=1) == pytest.approx((1,) * 5)
    assert metrics.adapted_rand_error(true, relabelled) == pytest.approx(0, abs=1e-12)
    assert metrics.variation_of_information(true, relabelled) == pytest.approx((0, 0), abs=1e-9)


@given(segmentations(), st.integers(0, 5))
def test_evaluate_collects_the_single_scores(pair, min_size):
    scores = metrics.evaluate(*pair, min_size=min_size, dice_threshold=0.5)
    assert scores.object_score == metrics.object_score(*pair, min_size=min_size, dice_threshold=0.5)
    assert scores.object_recall == metrics.object_recall(*pair, min_size=min_size, dice_threshold=0.5)
    assert (scores.rand_f_score, scores.rand_split, scores.rand_merge) == metrics.rand_scores(*pair)
    assert all(type(score) is float and 0 <= score <= 1 for score in scores)


@pytest.mark.parametrize(
    "score", [score for score in SCORES if score not in NO_TABLE], ids=lambda score: score.__name__
)
@given(pair=segmentations())
def test_one_table_for_all_scores(score, pair):
    of_segmentations, of_table = score(*pair), score(table=metrics.contingency_table(*pair))
    if isinstance(of_table, float):
        assert of_table == of_segmentations
    else:
        for one, two in zip(of_segmentations, of_table, strict=True):
            np.testing.assert_array_equal(one, two)


@pytest.mark.parametrize(
    "score", [score for score in SCORES if score not in NO_TABLE], ids=lambda score: score.__name__
)
def test_segmentations_or_a_table(score):
    table = metrics.contingency_table([1, 2], [1, 2])
    for args, message in (
        (([1, 2], [1, 2], table), "got both"),
        ((None, [1, 2], table), "got both"),
        ((None, None, None), "must both be given, or table"),
        (([1, 2], None, None), "must both be given, or table"),
        ((None, None, tuple(table)), "table must be what contingency_table returns, got tuple"),
    ):
        with pytest.raises(TypeError, match=message):
            score(*args[:2], table=args[2])


def test_scores_do_not_depend_on_layout(rng):
    true, pred = rng.integers(0, 5, (2, 12, 9))
    expected = metrics.evaluate(true, pred, min_size=3)
    assert metrics.evaluate(np.asfortranarray(true), pred.astype(">i4"), min_size=3) == expected
    assert metrics.evaluate(true.T, pred.T, min_size=3) == expected
    assert metrics.evaluate(true.tolist(), pred.tolist(), min_size=3) == expected


def test_rounding_lifts_no_score_above_one():
    # Squared shares of 1 and of 27 voxels: the sums over the same numbers in two orders differ in the last digit.
    true = bars((0, 2), (1, 2), (2, 26))
    assert metrics.rand_scores(true, np.zeros_like(true)).merge == 1


def test_truth_without_foreground():
    assert metrics.rand_scores(np.zeros(4), [0, 1, 1, 2]) == (1, 1, 1)
    assert metrics.adapted_rand_error(np.zeros(4), [0, 1, 1, 2]) == 0
    assert metrics.variation_of_information(np.zeros(4), [0, 1, 1, 2]) == (0, 0)


# ---------------------------------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize("score", SCORES)
@pytest.mark.parametrize(
    ("true", "pred", "error", "message"),
    [
        ([1, 2], [1, 2, 3], ValueError, r"seg_pred must have the shape of seg_true, \(2,\)"),
        ([[1, 2]], [1, 2], ValueError, "seg_pred"),
        ([1, -2], [1, 2], ValueError, "seg_true"),
        ([1, 2], [1, -2], ValueError, "seg_pred"),
        ([1, 2.5], [1, 2], ValueError, "seg_true"),
        ([1, 2], [1, np.nan], ValueError, "seg_pred"),
        ([1, 2], [1, np.inf], ValueError, "seg_pred"),
        ([], [], ValueError, "seg_true"),
        (["a", "b"], [1, 2], TypeError, "seg_true"),
        ([1, 2], [1j, 2], TypeError, "seg_pred"),
    ],
)
def test_bad_segmentations(score, true, pred, error, message):
    with pytest.raises(error, match=message):
        score(true, pred)


@pytest.mark.parametrize("score", [metrics.object_score, metrics.object_recall, metrics.evaluate])
@pytest.mark.parametrize(
    ("option", "value", "error"),
    [
        ("min_size", -1, ValueError),
        ("min_size", 1.5, TypeError),
        ("min_size", "64", TypeError),
        ("dice_threshold", -0.1, ValueError),
        ("dice_threshold", 1.1, ValueError),
        ("dice_threshold", math.nan, ValueError),
        ("dice_threshold", "high", TypeError),
    ],
)
def test_bad_options(score, option, value, error):
    with pytest.raises(error, match=option):
        score([1, 2], [1, 2], **{option: value})


def test_min_size_of_match_objects():
    with pytest.raises(ValueError, match="min_size"):
        metrics.match_objects([1, 2], [1, 2], min_size=-1)


WITHOUT_SCIKIT_IMAGE = """
import sys
sys.modules["skimage"] = sys.modules["scipy"] = None  # "import skimage" raises ImportError
from malis import metrics
assert metrics.evaluate([1, 1, 2], [1, 1, 2], min_size=1) == (1, 1, 1, 1, 1)
for score in (metrics.adapted_rand_error, metrics.variation_of_information):
    try:
        score([1, 1, 2], [1, 1, 2])
    except ImportError as error:
        assert "malis-loss[metrics]" in str(error) and score.__name__ in str(error), error
    else:
        raise AssertionError("no ImportError")
"""


def test_without_scikit_image():
    result = subprocess.run([sys.executable, "-c", WITHOUT_SCIKIT_IMAGE], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


def test_examples_of_the_documentation():
    failed, tried = doctest.testmod(metrics)
    assert tried >= 10
    assert failed == 0
