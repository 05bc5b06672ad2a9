"""What all scores have in common: one table for all, bad input, nothing but NumPy."""

from __future__ import annotations

import doctest
import importlib
import math
import pkgutil
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import malis
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
    metrics.cremi_score,
    metrics.average_precision,
]
NO_TABLE = [metrics.contingency_table, metrics.error_map]


# ------------------------------------------------------------------------------------------------ all scores together


@given(segmentations())
def test_perfect_segmentation(pair):
    true, _ = pair
    relabelled = np.where(true > 0, 17 - true.astype(np.int64), 0)
    counted = true.any()
    pairs = np.bincount(true[true > 0].astype(int)).max() > 1 if counted else False
    expected = (1, 0) if counted else (math.nan, math.nan)
    assert metrics.evaluate(true, relabelled, min_size=1) == pytest.approx(expected[:1] * 5, nan_ok=True)
    error = metrics.adapted_rand_error(true, relabelled)
    assert error == pytest.approx(0 if pairs else math.nan, abs=1e-12, nan_ok=True)
    assert metrics.variation_of_information(true, relabelled) == pytest.approx(expected[1:] * 2, nan_ok=True)


@given(segmentations(), st.integers(0, 5))
def test_evaluate_collects_the_single_scores(pair, min_size):
    scores = metrics.evaluate(*pair, min_size=min_size, dice_threshold=0.5)
    expected = (
        metrics.object_score(*pair, min_size=min_size, dice_threshold=0.5),
        metrics.object_recall(*pair, min_size=min_size, dice_threshold=0.5),
        *metrics.rand_scores(*pair),
    )
    np.testing.assert_array_equal(scores, expected)
    assert all(type(score) is float and (math.isnan(score) or 0 <= score <= 1) for score in scores)


@pytest.mark.parametrize(
    "score", [score for score in SCORES if score not in NO_TABLE], ids=lambda score: score.__name__
)
@given(pair=segmentations())
def test_one_table_for_all_scores(score, pair):
    of_segmentations, of_table = score(*pair), score(table=metrics.contingency_table(*pair))
    if isinstance(of_table, float):
        np.testing.assert_array_equal(of_table, of_segmentations)
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
        ((None, None, (table,)), "table must be what contingency_table returns, got tuple"),
    ):
        with pytest.raises(TypeError, match=message):
            score(*args[:2], table=args[2])


def test_scores_do_not_depend_on_layout(rng):
    true, pred = rng.integers(0, 5, (2, 12, 9))
    expected = metrics.evaluate(true, pred, min_size=3)
    assert metrics.evaluate(np.asfortranarray(true), pred.astype(">i4"), min_size=3) == expected
    assert metrics.evaluate(true.T, pred.T, min_size=3) == expected
    assert metrics.evaluate(true.tolist(), pred.tolist(), min_size=3) == expected


def test_nothing_counted_is_no_score():
    # No truth at all: a prediction that finds something is wrong, one that finds nothing is neither right nor wrong.
    nothing, something = np.zeros(100, int), np.repeat([0, 1], 50)
    for pred in (nothing, something):
        assert np.isnan(metrics.rand_scores(nothing, pred)).all()
        assert math.isnan(metrics.adapted_rand_error(nothing, pred))
        assert np.isnan(metrics.variation_of_information(nothing, pred)).all()
        assert np.isnan(metrics.cremi_score(nothing, pred)).all()
    assert np.isnan(metrics.evaluate(nothing, nothing)).all()
    assert np.isnan(metrics.average_precision(nothing, nothing).mean)
    assert metrics.average_precision(nothing, something).mean == metrics.average_precision(something, nothing).mean == 0
    assert metrics.evaluate(nothing, something, min_size=1)[:2] == (0, 0)
    assert metrics.evaluate(something, nothing, min_size=1)[:2] == (0, 0)
    # Every voxel is a segment of its own on both sides: no pair.
    assert math.isnan(metrics.adapted_rand_error([1, 2, 3], [1, 2, 3]))


# ------------------------------------------------------------------------------------------------------ ignore_label


def arrays_of(result):
    """Return the numbers of a score, of whatever kind."""
    if isinstance(result, metrics.ContingencyTable):
        return [result.true_labels[result.true_index], result.pred_labels[result.pred_index], result.counts]
    return list(result) if isinstance(result, tuple) else [result]


@pytest.mark.parametrize(
    "score", [score for score in SCORES if score is not metrics.error_map], ids=lambda s: s.__name__
)
@pytest.mark.parametrize(("label", "dtype"), [(-1, np.int16), (-1, np.float32), (7, np.uint8), (2**64 - 1, np.uint64)])
@given(pair=segmentations(), data=st.data())
def test_ignored_voxels_are_as_if_cut_out(score, label, dtype, pair, data):
    true, pred = (seg.ravel() for seg in pair)
    ignored = data.draw(hnp.arrays(bool, true.shape))
    masked = true.astype(dtype)
    masked[ignored] = dtype(label)
    result = arrays_of(score(masked, pred, ignore_label=label))
    if ignored.all():
        return
    for one, two in zip(result, arrays_of(score(true[~ignored], pred[~ignored])), strict=True):
        np.testing.assert_array_equal(one, two)
    if label > 0 and score not in NO_TABLE:  # a table may still hold the label
        of_table = score(table=metrics.contingency_table(masked, pred), ignore_label=label)
        for one, two in zip(result, arrays_of(of_table), strict=True):
            np.testing.assert_array_equal(one, two)


def test_error_map_of_ignored_voxels():
    true, pred = np.array([[1, 1, 1, -1], [-1, 2, 2, 0]]), np.array([[4, 4, 5, 9], [5, 6, 0, 0]])
    kinds = metrics.VoxelError
    errors = metrics.error_map(true, pred, ignore_label=-1)
    assert errors.dtype == np.uint8
    assert errors.tolist() == [[0, 0, kinds.SPLIT, 0], [0, 0, kinds.MISSED, 0]]


def test_everything_ignored():
    assert np.isnan(metrics.evaluate([-1, -1], [1, 2], ignore_label=-1)).all()
    assert not metrics.error_map([-1, -1], [1, 2], ignore_label=-1).any()


@pytest.mark.parametrize("score", SCORES, ids=lambda score: score.__name__)
def test_bad_ignore_label(score):
    for label in (1.0, "1", [1]):
        with pytest.raises(TypeError, match="ignore_label must be an integer"):
            score([1, 2], [1, 2], ignore_label=label)
    with pytest.raises(ValueError, match="seg_true must hold labels of at least 0, got -2"):
        score([-1, -2], [1, 2], ignore_label=-1)


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


WITH_NUMPY_ALONE = """
import sys
sys.modules["skimage"] = sys.modules["scipy"] = None  # "import skimage" raises ImportError
from malis import metrics
assert metrics.evaluate([1, 1, 2], [1, 1, 2], min_size=1) == (1, 1, 1, 1, 1)
assert metrics.adapted_rand_error([1, 1, 0, 2, 2], [3, 3, 3, 3, 3]) == 0.5
assert metrics.variation_of_information([1, 1, 2, 2], [5, 5, 5, 5]) == (0, 1)
assert metrics.average_precision([1, 1, 2, 2], [3, 0, 3, 4], [0.25]).true_positives == [2]
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


def test_page_of_the_documentation_runs(capsys, rng):
    page = Path(__file__).parents[1] / "docs" / "scores.md"
    seg = np.kron(rng.integers(0, 5, (3, 2, 2)), np.ones((2, 4, 4), int))
    names = {"malis": malis, "seg": seg, "labels": np.where(rng.random(seg.shape) < 0.9, seg, 7)}
    whole = metrics.contingency_table(seg, names["labels"])
    for block in re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL):
        exec(compile(block, str(page), "exec"), names)
    assert capsys.readouterr().out == "18.0 1.0 0 0\n"
    assert names["table"].counts.tolist() == whole.counts.tolist()
    for name in metrics.__all__:
        function = getattr(metrics, name)
        if callable(function) and name.islower() and name not in ("contingency_table", "match_objects"):
            assert f"`{name}" in page.read_text(encoding="utf-8"), name
