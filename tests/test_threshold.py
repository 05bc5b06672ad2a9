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
from malis._growing import GrowingComponents, GrowingCounts
from strategies import problems

NHOOD = malis.mknhood2d(1)
SKELETONS = metrics.Skeletons([[0, 0], [2, 3]], [[0, 1]], [1, 1])


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
    found = malis.find_threshold(preds, gts, NHOOD, thresholds=levels, min_size=20)
    expected = np.array(
        [
            [
                metrics.object_score(
                    gt, malis.affgraph_to_seg(aff, NHOOD, min_size=20, threshold=level)[0], min_size=20
                )
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


# Of every score by name: the function, of the truth, the segmentation and the least size, and which one is best.
BY_NAME = {
    "object_score": (lambda t, p, size: metrics.object_score(t, p, min_size=size), np.nanmax),
    "object_recall": (lambda t, p, size: metrics.object_recall(t, p, min_size=size), np.nanmax),
    "rand_f_score": (lambda t, p, _: metrics.rand_scores(t, p).f_score, np.nanmax),
    "adapted_rand_error": (lambda t, p, _: metrics.adapted_rand_error(t, p), np.nanmin),
    "variation_of_information": (lambda t, p, _: sum(metrics.variation_of_information(t, p)), np.nanmin),
    "cremi_score": (lambda t, p, _: metrics.cremi_score(t, p).score, np.nanmin),
    "average_precision": (lambda t, p, size: metrics.average_precision(t, p, min_size=size).mean, np.nanmax),
}
SCORES = sorted(BY_NAME)


@pytest.mark.parametrize("name", SCORES)
def test_scores_by_name(name):
    aff, truth = cells(3)
    found = malis.find_threshold([aff], [truth], NHOOD, score=name, min_size=30)
    score, best = BY_NAME[name]
    segs = [malis.affgraph_to_seg(aff, NHOOD, min_size=30, threshold=level)[0] for level in found.thresholds]
    np.testing.assert_allclose(found.scores[:, 0], [score(truth, seg, 30) for seg in segs], atol=1e-12)
    assert found.score == best(found.scores)
    assert len(set(found.scores.ravel().tolist())) > 5


def rows(truth):
    """Skeletons: a straight line through the middle of every object."""
    nodes, edges, ids = [], [], []
    for label in np.unique(truth[truth > 0]):
        voxels = np.argwhere(truth == label)
        line = voxels[voxels[:, 0] == int(np.median(voxels[:, 0]))]
        edges += [(len(nodes) + i, len(nodes) + i + 1) for i in range(len(line) - 1)]
        nodes += line.tolist()
        ids += [int(label)] * len(line)
    return metrics.Skeletons(nodes, edges, ids, voxel_size=(3, 2))


@pytest.mark.parametrize("name", ["erl", "nerl"])
def test_skeletons(name):
    problems = [cells(seed) for seed in range(2)]
    preds, gts = [aff for aff, _ in problems], [rows(truth) for _, truth in problems]
    found = malis.find_threshold(preds, gts, NHOOD, score=name, min_size=5)
    for threshold, values in zip(found.thresholds, found.scores, strict=True):
        for aff, skeletons, value in zip(preds, gts, values, strict=True):
            seg, _ = malis.affgraph_to_seg(aff, NHOOD, min_size=5, threshold=threshold)
            assert value == pytest.approx(getattr(metrics.skeleton_scores(skeletons, seg), name), rel=1e-12)
    assert found.score == found.scores.mean(axis=1).max() > found.scores.min()
    tolerant = malis.find_threshold(
        preds, gts, NHOOD, score=lambda s, seg: metrics.skeleton_scores(s, seg, merge_threshold=3).nerl
    )
    assert tolerant.scores.max() <= 1


def test_score_of_the_caller():
    aff, truth = cells(4)
    levels = np.linspace(0.1, 0.9, 9)
    counts = [malis.affgraph_to_seg(aff, NHOOD, min_size=2, threshold=level)[0].max() for level in levels]
    assert len(set(counts)) == 9
    for level, count in zip(levels, counts, strict=True):
        found = malis.find_threshold(
            [aff],
            [truth],
            NHOOD,
            thresholds=levels,
            min_size=2,
            score=lambda true, pred, n=count: -abs(int(pred.max()) - int(n)),
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
        [aff], [truth], NHOOD, score=f_score, thresholds=curve.thresholds[::40].astype(float), min_size=1
    )
    np.testing.assert_allclose(found.scores[:, 0], curve.f_score[::40], atol=1e-9)


def test_many_voxels_are_segmented_in_parts(monkeypatch):
    aff, truth = cells(6)
    whole = malis.find_threshold([aff], [truth], NHOOD, score=metrics.object_score)
    monkeypatch.setattr("malis.threshold._VOXELS_AT_ONCE", 7 * truth.size)
    parts = malis.find_threshold([aff], [truth], NHOOD, score=metrics.object_score)
    np.testing.assert_array_equal(whole.scores, parts.scores)
    assert whole.threshold == parts.threshold
    by_name = malis.find_threshold([aff], [truth], NHOOD, score="object_score")
    np.testing.assert_array_equal(by_name.scores, whole.scores)


@pytest.mark.parametrize(("levels", "expected"), [([0.4, 0.5, 0.6, 0.7], 0.6), ([0.4, 0.5, 0.7], 0.5), ([0.5], 0.5)])
def test_the_middle_one_of_equals(levels, expected):
    aff = [[0, 0.9, 0.3, 0.9]]
    found = malis.find_threshold([aff], [[1, 1, 2, 2]], [[-1]], score="rand_f_score", thresholds=levels, min_size=1)
    assert (found.threshold, found.score) == (expected, 1)


def test_infinite_affinities_hide_no_finite_ones():
    # All but the last of 27 voxels are joined at infinity, more joins than those that are looked at.
    aff = np.full((1, 27), np.inf)
    aff[0, -1] = 0.25
    found = malis.find_threshold([aff], [np.ones(27, int)], [[-1]], score="rand_f_score", min_size=1)
    assert found.thresholds.tolist() == [0.25]
    assert (found.threshold, found.score) == (0.25, 1)


@given(problem=problems(), min_size=st.integers(0, 4), score=st.sampled_from(SCORES))
def test_any_graph(problem, min_size, score):
    ends = malis.seg_to_affgraph(np.ones(problem.seg.shape, int), problem.nhood).astype(bool)
    ends[~problem.nhood.any(axis=1)] = False  # a zero offset joins nothing
    if not np.isfinite(malis.maximum_spanning_tree(problem.aff, problem.nhood).affinities).any():
        with pytest.raises(ValueError, match="thresholds must be given"):
            malis.find_threshold([problem.aff], [problem.seg], problem.nhood, score=score, min_size=min_size)
        return
    options = {"score": score, "min_size": min_size}
    try:
        found = malis.find_threshold([problem.aff], [problem.seg], problem.nhood, **options)
    except ValueError as error:
        assert "score must be defined at some threshold" in str(error)
        return
    assert found.threshold in found.thresholds
    assert (np.diff(found.thresholds) < 0).all()
    function, best = BY_NAME[score]
    for threshold, value in zip(found.thresholds, found.scores[:, 0], strict=True):
        seg, _ = malis.affgraph_to_seg(problem.aff, problem.nhood, min_size=min_size, threshold=threshold)
        np.testing.assert_allclose(value, function(problem.seg, seg, min_size), atol=1e-12)
    assert found.score == best(found.scores)


def test_size_of_objects_is_one_setting():
    # Objects of 40 voxels: none is scored at 64, whatever the segmentation drops; at 20 the best threshold finds them.
    truth = np.kron(np.arange(1, 9).reshape(2, 4), np.ones((5, 8), int))
    rng = np.random.default_rng(0)
    aff = np.clip(malis.seg_to_affgraph(truth, NHOOD) * 0.6 + 0.2 + 0.1 * rng.standard_normal((2, 10, 32)), 0, 1)
    found = malis.find_threshold([aff], [truth], NHOOD, min_size=20)
    seg, _ = malis.affgraph_to_seg(aff, NHOOD, min_size=20, threshold=found.threshold)
    assert found.score == metrics.object_score(truth, seg, min_size=20) == 1
    # At 64 there is no true object to find, and the one that everything merges into is wrong.
    assert malis.find_threshold([aff], [truth], NHOOD, thresholds=[0.0], min_size=64).score == 0
    with pytest.raises(ValueError, match=r"object_score counts nothing in gts.*min_size=64"):
        malis.find_threshold([aff], [truth], NHOOD, thresholds=[0.99], min_size=64)


def test_images_without_objects_do_not_flatter():
    aff, truth = cells(0)
    alone = malis.find_threshold([aff], [truth], NHOOD, thresholds=[0.2, 0.5, 0.8])
    empty = np.zeros_like(truth)
    both = malis.find_threshold([aff, np.zeros_like(aff)], [truth, empty], NHOOD, thresholds=[0.2, 0.5, 0.8])
    assert np.isnan(both.scores[:, 1]).all()  # nothing to find, nothing found
    assert (both.threshold, both.score) == (alone.threshold, alone.score)
    wrong = malis.find_threshold([aff, aff], [truth, empty], NHOOD, thresholds=[0.2, 0.5, 0.8])
    assert (wrong.scores[:, 1] == 0).all()
    assert wrong.score == alone.score / 2


@pytest.mark.parametrize("score", ["object_score", "rand_f_score", "variation_of_information"])
def test_ignored_voxels(score):
    aff, truth = cells(2)
    masked = truth.copy()
    masked[:, 25:] = -1
    options = {"score": score, "thresholds": [0.3, 0.6, 0.9], "min_size": 20}
    found = malis.find_threshold([aff], [masked], NHOOD, ignore_label=-1, **options)
    function, _ = BY_NAME[score]
    for threshold, value in zip(found.thresholds, found.scores[:, 0], strict=True):
        seg, _ = malis.affgraph_to_seg(aff, NHOOD, min_size=20, threshold=threshold)
        assert value == pytest.approx(function(truth[:, :25], seg[:, :25], 20))
    # A function of the caller gets the labels as they are.
    malis.find_threshold(
        [aff], [masked], NHOOD, ignore_label=-1, **{**options, "score": lambda t, _: float(t.min() == -1)}
    )


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
        ({"score": "nerl"}, TypeError, "gts.0. must be Skeletons for score='nerl'"),
        ({"gts": [SKELETONS]}, ValueError, "score must be 'erl' or 'nerl'.*got 'object_score'"),
        ({"gts": [metrics.Skeletons([[0, 9]], [], [1])], "score": "nerl"}, ValueError, "gts.0. must have nodes inside"),
        (
            {"gts": [metrics.Skeletons([[0]], [], [1])], "score": "nerl"},
            ValueError,
            "gts.0. must have nodes of 2",
        ),
        ({"gts": [metrics.Skeletons([[0, 1]], [], [1])], "score": "nerl"}, ValueError, "score must be defined"),
        ({"score": lambda true, pred: np.nan}, ValueError, "score must be a finite number"),
        ({"thresholds": []}, ValueError, "thresholds"),
        ({"thresholds": [0.5, np.nan]}, ValueError, "thresholds"),
        ({"thresholds": 0.5}, ValueError, "thresholds"),
        ({"thresholds": ["auto"]}, TypeError, "thresholds"),
        ({"min_size": -1}, ValueError, "min_size"),
        ({"min_size": 1.5}, TypeError, "min_size"),
        ({"ignore_label": 0.5}, TypeError, "ignore_label"),
        ({"num_threads": 0}, ValueError, "num_threads"),
    ],
)
def test_bad_input(change, error, message):
    arguments = {"preds": [np.ones((2, 3, 4))], "gts": [np.ones((3, 4), int)], **change}
    preds, gts = arguments.pop("preds"), arguments.pop("gts")
    with pytest.raises(error, match=message):
        malis.find_threshold(preds, gts, NHOOD, **arguments)


def test_candidates_are_where_large_components_join(rng):
    # Pairs join at 0.9, one voxel after the other to them at 0.8 and 0.7, then two pairs at 0.6, and all at 0.3.
    tree = malis.maximum_spanning_tree([[0, 0.9, 0.6, 0.9, 0.3, 0.9, 0.8, 0.7]], [[-1]])
    smaller = malis._core.smaller_sizes(8, tree.affinities, tree.node1, tree.node2)
    assert smaller.tolist() == [1, 1, 1, 1, 1, 2, 4]
    # Of 99 joins ten are looked at where the truth has no object: those of five parts of 20 voxels are among them.
    aff = rng.uniform(0.9, 1, (1, 100))
    aff[0, 20::20] = [0.3, 0.6, 0.4, 0.5]
    found = malis.find_threshold([aff], [np.zeros(100, int)], [[-1]], score=lambda true, pred: 0.0)
    assert {0.3, 0.4, 0.5, 0.6} <= set(found.thresholds.tolist())
    assert np.count_nonzero(np.isin(found.thresholds, aff)) == 10


@pytest.mark.parametrize("min_size", [0, 1, 2, 5, 40, 10**6])
@pytest.mark.parametrize("ignore_label", [None, 3])
def test_tables_of_all_thresholds(min_size, ignore_label, rng, monkeypatch):
    """Following the large components counts what segmenting and counting at every threshold does."""
    monkeypatch.setattr("malis._growing._BLOCK", 7)
    truth = np.kron(rng.integers(0, 5, (3, 4)), np.ones((4, 5), int))
    nhood = malis.mknhood2d(1)
    aff = rng.integers(0, 12, (2, *truth.shape)) / 8  # many equal ones
    tree = malis.maximum_spanning_tree(aff, nhood)
    levels = np.unique(np.append(aff, [2.0, -1.0]))[::-1]
    components = GrowingComponents(tree, levels, min_size)
    counts = GrowingCounts(components, truth, ignore_label)
    for seg, _ in malis.segment_tree(tree, levels, min_size=min_size):
        components.lower()
        counts.lower()
        expected = malis.metrics.contingency_table(truth, seg, ignore_label=ignore_label)
        found = counts.table()
        for name, table in (("found", found), ("expected", expected)):
            assert (table.counts > 0).all(), name
        entries = [
            sorted(zip(t.true_labels[t.true_index], t.pred_labels[t.pred_index], t.counts, strict=True))
            for t in (found, expected)
        ]
        assert entries[0] == entries[1]


@pytest.mark.parametrize("score", ["object_score", lambda true, pred: 0.5])
def test_progress_increases_to_1(score):
    images = [cells(seed) for seed in range(2)]
    told = []
    found = malis.find_threshold(
        [aff for aff, _ in images], [gt for _, gt in images], NHOOD, score=score, progress=told.append
    )
    assert told[:2] == [0.25, 0.5]  # the trees
    assert len(told) == 2 + found.scores.size
    assert np.all(np.diff(told) > 0)
    assert told[-1] == 1
    with pytest.raises(TypeError, match="progress must be a function of the share that is done, got True"):
        malis.find_threshold([images[0][0]], [images[0][1]], NHOOD, progress=True)
