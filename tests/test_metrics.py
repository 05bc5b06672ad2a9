"""What all scores have in common: one table for all, bad input, nothing but NumPy."""

from __future__ import annotations

import doctest
import importlib
import math
import pkgutil
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from malis import metrics
from strategies import segmentations

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


def test_truth_without_foreground():
    assert metrics.rand_scores(np.zeros(4), [0, 1, 1, 2]) == (1, 1, 1)
    assert metrics.adapted_rand_error(np.zeros(4), [0, 1, 1, 2]) == 0
    assert metrics.variation_of_information(np.zeros(4), [0, 1, 1, 2]) == (0, 0)


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


WITH_NUMPY_ALONE = """
import sys
sys.modules["skimage"] = sys.modules["scipy"] = None  # "import skimage" raises ImportError
from malis import metrics
assert metrics.evaluate([1, 1, 2], [1, 1, 2], min_size=1) == (1, 1, 1, 1, 1)
assert metrics.adapted_rand_error([1, 1, 0, 2, 2], [3, 3, 3, 3, 3]) == 0.5
assert metrics.variation_of_information([1, 1, 2, 2], [5, 5, 5, 5]) == (0, 1)
"""


def test_scores_need_numpy_alone():
    result = subprocess.run([sys.executable, "-c", WITH_NUMPY_ALONE], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


def test_examples_of_the_documentation():
    modules = [
        importlib.import_module(f"malis.metrics.{module.name}") for module in pkgutil.iter_modules(metrics.__path__)
    ]
    failed, tried = map(sum, zip(*map(doctest.testmod, modules), strict=True))
    assert tried >= 10
    assert failed == 0
