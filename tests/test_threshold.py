"""The threshold over several images: against a loop that segments and scores every image at every threshold."""

from __future__ import annotations

import numpy as np
import pytest
import skimage.metrics
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage

import malis
from malis import metrics
from strategies import problems

NHOOD = malis.mknhood2d(1)


def cells(seed, shape=(48, 40)):
    """Labels of a few blocks and noisy affinities for them, some of the borders weak."""
    rng = np.random.default_rng(seed)
    ids = np.add.outer(np.arange(shape[0]) // 12 * 10, np.arange(shape[1]) // 10) + 1
    inside = (np.arange(shape[0]) % 12 > 0)[:, None] & (np.arange(shape[1]) % 10 > 0)
    truth = np.where(inside, ids, 0)
    noise = ndimage.gaussian_filter(rng.standard_normal((2, *shape)), (0, 1, 1))
    aff = 1 / (1 + np.exp(-(4.0 * malis.seg_to_affgraph(truth, NHOOD) - 2 + 6 * noise)))
    return aff.astype(np.float32), truth


def test_equals_a_sweep():
    preds, gts = zip(*(cells(seed, shape) for seed, shape in enumerate([(48, 40), (36, 60), (60, 30)])), strict=True)
    levels = np.linspace(0.05, 0.95, 19)
    found = malis.find_threshold(preds, gts, NHOOD, thresholds=levels, size_thresh=20)
    expected = np.array(
        [
            [
                metrics.object_score(gt, malis.affgraph_to_seg(aff, NHOOD, 20, threshold=level)[0])
                for aff, gt in zip(preds, gts, strict=True)
            ]
            for level in levels[::-1]
        ]
    )
    np.testing.assert_array_equal(found.thresholds, levels[::-1])
    np.testing.assert_array_equal(found.scores, expected)
    assert found.score == pytest.approx(expected.mean(axis=1).max())
    assert 0.3 < found.score < 1  # neither trivial nor hopeless
    best = np.flatnonzero(expected.mean(axis=1) == expected.mean(axis=1).max())
    assert found.threshold == found.thresholds[best[(len(best) - 1) // 2]]


@pytest.mark.parametrize(
    ("name", "score", "best"),
    [
        ("object_score", metrics.object_score, np.argmax),
        ("object_recall", metrics.object_recall, np.argmax),
        ("rand_f_score", lambda t, p: metrics.rand_scores(t, p).f_score, np.argmax),
        ("adapted_rand_error", lambda t, p: skimage.metrics.adapted_rand_error(t, p)[0], np.argmin),
        (
            "variation_of_information",
            lambda t, p: sum(skimage.metrics.variation_of_information(t[t > 0], p[t > 0])),
            np.argmin,
        ),
    ],
)
def test_scores_by_name(name, score, best):
    aff, truth = cells(3)
    found = malis.find_threshold([aff], [truth], NHOOD, score=name)
    expected = np.array(
        [score(truth, malis.affgraph_to_seg(aff, NHOOD, threshold=level)[0]) for level in found.thresholds]
    )
    np.testing.assert_allclose(found.scores[:, 0], expected, atol=1e-9)
    assert found.score == pytest.approx(expected[best(expected)], abs=1e-9)


def test_score_of_the_caller():
    aff, truth = cells(4)
    levels = np.linspace(0.1, 0.9, 9)
    counts = [malis.affgraph_to_seg(aff, NHOOD, threshold=level)[0].max() for level in levels]
    assert len(set(counts)) == 9
    for level, count in zip(levels, counts, strict=True):
        found = malis.find_threshold(
            [aff], [truth], NHOOD, thresholds=levels, score=lambda true, pred, n=count: -abs(int(pred.max()) - int(n))
        )
        assert (found.threshold, found.score) == (level, 0)


@pytest.mark.parametrize("seed", range(6))
def test_candidates_are_as_good_as_a_fine_sweep(seed):
    aff, truth = cells(seed)
    fine = malis.find_threshold([aff], [truth], NHOOD, thresholds=np.linspace(0.002, 0.998, 499)).score
    assert malis.find_threshold([aff], [truth], NHOOD).score >= fine - 0.03
    # On any scale: logits, and bytes.
    logits = 3 * np.log(aff / (1 - aff)) + 7
    assert malis.find_threshold([logits], [truth], NHOOD).score >= fine - 0.03
    coarse = np.rint(255 * aff).astype(np.uint8)
    assert malis.find_threshold([coarse], [truth], NHOOD).score >= fine - 0.03


def test_agrees_with_the_rand_curve():
    # The best of all thresholds by the F-score of pairs; components of one voxel count there.
    aff, truth = cells(5)
    curve = malis.rand_curve(aff, truth, NHOOD)

    def f_score(true, pred):
        precision, recall = skimage.metrics.adapted_rand_error(true, pred)[1:]
        return 2 * precision * recall / (precision + recall)

    found = malis.find_threshold(
        [aff], [truth], NHOOD, score=f_score, thresholds=curve.thresholds[::40].astype(float), size_thresh=0
    )
    np.testing.assert_allclose(found.scores[:, 0], curve.f_score[::40], atol=1e-9)


def test_many_voxels_are_segmented_in_parts(monkeypatch):
    aff, truth = cells(6)
    whole = malis.find_threshold([aff], [truth], NHOOD)
    monkeypatch.setattr("malis.threshold._VOXELS_AT_ONCE", 7 * truth.size)
    parts = malis.find_threshold([aff], [truth], NHOOD)
    np.testing.assert_array_equal(whole.scores, parts.scores)
    assert whole.threshold == parts.threshold


@pytest.mark.parametrize(("levels", "expected"), [([0.4, 0.5, 0.6, 0.7], 0.6), ([0.4, 0.5, 0.7], 0.5), ([0.5], 0.5)])
def test_the_middle_one_of_equals(levels, expected):
    aff = [[0, 0.9, 0.3, 0.9]]
    found = malis.find_threshold([aff], [[1, 1, 2, 2]], [[-1]], score="rand_f_score", thresholds=levels)
    assert (found.threshold, found.score) == (expected, 1)


def test_infinite_affinities_hide_no_finite_ones():
    # All but the last of 27 voxels are joined at infinity, more joins than those that are looked at.
    aff = np.full((1, 27), np.inf)
    aff[0, -1] = 0.25
    found = malis.find_threshold([aff], [np.ones(27, int)], [[-1]], score="rand_f_score")
    assert found.thresholds.tolist() == [0.25]
    assert (found.threshold, found.score) == (0.25, 1)


@given(problem=problems(), size_thresh=st.integers(0, 3))
def test_any_graph(problem, size_thresh):
    ends = malis.seg_to_affgraph(np.ones(problem.seg.shape, int), problem.nhood).astype(bool)
    ends[~problem.nhood.any(axis=1)] = False  # a zero offset joins nothing
    if not np.isfinite(malis.maximum_spanning_tree(problem.aff, problem.nhood).affinities).any():
        with pytest.raises(ValueError, match="thresholds must be given"):
            malis.find_threshold([problem.aff], [problem.seg], problem.nhood, size_thresh=size_thresh)
        return
    found = malis.find_threshold([problem.aff], [problem.seg], problem.nhood, size_thresh=size_thresh)
    assert found.threshold in found.thresholds
    assert (np.diff(found.thresholds) < 0).all()
    seg, _ = malis.affgraph_to_seg(problem.aff, problem.nhood, size_thresh, threshold=found.threshold)
    assert found.score == metrics.object_score(problem.seg, seg) == found.scores.max()


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"preds": []}, ValueError, "got 0 predictions and 1 truths"),
        ({"preds": [], "gts": []}, ValueError, "got 0 predictions and 0 truths"),
        ({"preds": np.zeros((1, 2, 3, 4))}, TypeError, "preds must be a list of arrays.*got ndarray"),
        ({"gts": np.zeros((1, 3, 4))}, TypeError, "gts must be a list"),
        ({"preds": [np.zeros((3, 3, 4))]}, ValueError, "one channel for each of the 2 offsets"),
        ({"gts": [np.zeros((3, 5), int)]}, ValueError, r"gts\[0\]"),
        ({"gts": [np.full((3, 4), -1)]}, ValueError, r"gts\[0\]"),
        ({"preds": [np.full((2, 3, 4), np.nan)]}, ValueError, "NaN"),
        ({"score": "dice"}, ValueError, "score must be one of 'object_score'.*got 'dice'"),
        ({"score": 3}, TypeError, "score"),
        ({"score": lambda true, pred: np.nan}, ValueError, "score must be a finite number"),
        ({"thresholds": []}, ValueError, "thresholds"),
        ({"thresholds": [0.5, np.nan]}, ValueError, "thresholds"),
        ({"thresholds": 0.5}, ValueError, "thresholds"),
        ({"thresholds": ["auto"]}, TypeError, "thresholds"),
        ({"size_thresh": -1}, ValueError, "size_thresh"),
        ({"size_thresh": 1.5}, TypeError, "size_thresh"),
        ({"num_threads": 0}, ValueError, "num_threads"),
    ],
)
def test_bad_input(change, error, message):
    arguments = {"preds": [np.ones((2, 3, 4))], "gts": [np.ones((3, 4), int)], **change}
    preds, gts = arguments.pop("preds"), arguments.pop("gts")
    with pytest.raises(error, match=message):
        malis.find_threshold(preds, gts, NHOOD, **arguments)
