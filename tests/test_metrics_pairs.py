"""Scores per pair and per voxel: by hand, the definitions written out, and scikit-image."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import skimage.metrics
from hypothesis import given
from hypothesis import strategies as st

from malis import metrics
from strategies import bars, segmentations


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
    expected = (math.nan, math.nan, math.nan)
    if voxels:
        expected = (2 * in_both / (in_truth + in_prediction), in_both / in_truth, in_both / in_prediction)
    scores = metrics.rand_scores(*pair, background_is_segment=background_is_segment)
    assert scores == pytest.approx(expected, abs=1e-12, nan_ok=True)


@given(segmentations())
def test_adapted_rand_error_equals_scikit_image(pair):
    true, pred = (seg.astype(np.int64) for seg in pair)
    kept = np.unique(np.stack([true, pred])[:, true > 0], axis=1, return_counts=True)[1]
    if len(kept) and (np.bincount(true[true > 0]).max() > 1 or np.bincount(pred[true > 0]).max() > 1):
        with np.errstate(invalid="ignore"):  # a precision or a recall that is 0 / 0
            expected = skimage.metrics.adapted_rand_error(true, pred)[0]
    else:
        expected = math.nan  # no pair of voxels in one segment: 0 / 0
    assert metrics.adapted_rand_error(*pair) == pytest.approx(expected, abs=1e-12, nan_ok=True)


def test_adapted_rand_error_by_hand():
    # 2 pairs within true objects, 6 within the prediction, 2 in both.
    assert metrics.adapted_rand_error([1, 1, 0, 2, 2], [3, 3, 3, 3, 3]) == pytest.approx(1 - 2 * 2 / (2 + 6))


def test_pairs_beyond_64_bits():
    # Two objects of 2**33 voxels, each in a segment of its own, but for a quarter of the second: the squares overflow.
    voxels = 2**33
    table = metrics.ContingencyTable(
        np.array([1, 2]),
        np.array([1, 2]),
        np.array([0, 1, 1]),
        np.array([0, 0, 1]),
        np.array([voxels, voxels // 4, 3 * (voxels // 4)]),
    )
    both, true, pred = 1 + 1 / 16 + 9 / 16, 2, (5 / 4) ** 2 + (3 / 4) ** 2
    assert metrics.adapted_rand_error(table=table) == pytest.approx(1 - 2 * both / (true + pred), rel=1e-9)


def test_rounding_lifts_no_score_above_one():
    # Squared shares of 1 and of 27 voxels: the sums over the same numbers in two orders differ in the last digit.
    true = bars((0, 2), (1, 2), (2, 26))
    assert metrics.rand_scores(true, np.zeros_like(true)).merge == 1


def test_rand_scores_approach_the_adapted_rand_error(rng):
    true, pred = rng.integers(0, 6, (2, 64, 64))
    scores = metrics.rand_scores(true, pred, background_is_segment=True)
    assert 1 - scores.f_score == pytest.approx(metrics.adapted_rand_error(true, pred), abs=2e-3)


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


# -------------------------------------------------------------------------------------------------------- CREMI score


def test_cremi_score_by_hand():
    # Objects of 4 and 4 voxels; predicted: 3 of the first with 2 of the second, 1 of the second, 1 of each left out.
    true = [1, 1, 1, 1, 2, 2, 2, 2, 0, 0]
    pred = [5, 5, 5, 0, 5, 5, 0, 6, 6, 0]
    scores = metrics.cremi_score(true, pred)
    both, of_pred, of_true = 3**2 + 2**2 + 1**2 + 2 / 10, 5**2 + 1**2 + 2 / 10, 4**2 + 4**2
    error = 1 - 2 * both / (of_pred + of_true)
    assert scores.adapted_rand_error == pytest.approx(error)
    assert (scores.voi_split, scores.voi_merge) == metrics.variation_of_information(true, pred)
    assert scores.score == pytest.approx(math.sqrt((scores.voi_split + scores.voi_merge) * error))
    assert metrics.cremi_score(true, [7, 7, 7, 7, 8, 8, 8, 8, 9, 0]) == (0, 0, 0, 0)


@given(segmentations())
def test_cremi_score_equals_the_definition(pair):
    """The steps of the challenge's scripts, on a dense table of true labels by predicted ones."""
    true, pred = (seg.ravel().astype(int) for seg in pair)
    if not true.any():
        assert np.isnan(metrics.cremi_score(*pair)).all()
        return
    dense = np.zeros((6, 6))
    np.add.at(dense, (true, pred), 1)
    a, b, c = dense[1:], dense[1:, 1:], dense[1:, 0].sum() / true.size
    sum_true, sum_pred, sum_both = (a.sum(1) ** 2).sum(), (b.sum(0) ** 2).sum() + c, (b**2).sum() + c
    precision, recall = sum_both / sum_pred, sum_both / sum_true
    error = 1 - 2 * precision * recall / (precision + recall)
    p = a / a.sum()
    with np.errstate(divide="ignore", invalid="ignore"):
        split = -np.nansum(p * np.log2(p / p.sum(1, keepdims=True)))
        merge = -np.nansum(p * np.log2(p / p.sum(0, keepdims=True)))
    expected = (math.sqrt(abs((split + merge) * error)), split, merge, error)
    # The root of a rounding error of 1e-16 is 1e-8.
    assert metrics.cremi_score(*pair) == pytest.approx(expected, abs=1e-7)
