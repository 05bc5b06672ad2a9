"""Every threshold at once, against one segmentation for each of them."""

from __future__ import annotations

import math
import pickle
import warnings

import numpy as np
import pytest
from hypothesis import given, settings

import malis
import oracle
from strategies import problems
from test_reference import PUBLISHED

skimage_metrics = pytest.importorskip("skimage.metrics")
ARRAYS = [
    "thresholds",
    "true_positives",
    "false_positives",
    "precision",
    "recall",
    "f_score",
    "rand_split",
    "rand_merge",
]
ENTROPIES = ["voi_split", "voi_merge"]


def existing_affinities(aff, nhood):
    """The affinities of the edges between two different voxels, each once, decreasing."""
    node1, node2 = oracle.fast_grid_nodes(aff.shape[1:], np.asarray(nhood))
    return np.unique(aff.ravel()[(node2 >= 0) & (node1 != node2)])[::-1]


def number_of_pairs(counts):
    return sum(int(n) * (int(n) - 1) // 2 for n in counts)


def confusion(seg, labels):
    """Pairs of foreground voxels in one segment: those of one object, and the others."""
    inside = seg > 0
    both = np.unique(np.stack([seg[inside], labels[inside]]), axis=1, return_counts=True)[1]
    together = number_of_pairs(np.unique(labels[inside], return_counts=True)[1])
    return number_of_pairs(both), together - number_of_pairs(both)


def ratio(numerator, denominator):
    return numerator / denominator if denominator else 1.0


def assert_entry(curve, i, aff, seg, nhood):
    """Entry i is what segmenting at this threshold and scoring gives."""
    labels, _ = malis.affgraph_to_seg(aff, nhood, 0, threshold=curve.thresholds[i])
    tp, fp = confusion(seg, labels)
    true = number_of_pairs(np.bincount(seg[seg > 0]))
    assert (curve.true_positives[i], curve.false_positives[i]) == (tp, fp)
    assert curve.precision[i] == ratio(tp, tp + fp)
    assert curve.recall[i] == ratio(tp, true)
    assert curve.f_score[i] == ratio(2 * tp, tp + fp + true)
    if not np.any(seg):  # nothing is counted: the curve holds the limits, the scores of one segmentation are NaN
        assert curve.voi_split[i] == curve.voi_merge[i] == 0
        assert curve.rand_split[i] == curve.rand_merge[i] == 1
        return
    scores = malis.metrics.rand_scores(seg, labels)
    assert math.isclose(curve.rand_split[i], scores.split, rel_tol=1e-12)
    assert math.isclose(curve.rand_merge[i], scores.merge, rel_tol=1e-12)
    # Components of one voxel are dropped by default, and are segments of one voxel for these scores.
    dropped = malis.metrics.rand_scores(seg, malis.affgraph_to_seg(aff, nhood, threshold=curve.thresholds[i])[0])
    np.testing.assert_allclose(dropped, scores, rtol=1e-12)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # 0 / 0 where there is no pair
        error, *_ = skimage_metrics.adapted_rand_error(seg, labels, ignore_labels=(0,))
    if true + tp + fp > 0:
        assert math.isclose(1 - error, curve.f_score[i], rel_tol=1e-12, abs_tol=1e-12)
    split, merge = skimage_metrics.variation_of_information(seg, labels, ignore_labels=(0,))
    assert math.isclose(curve.voi_split[i], split, abs_tol=1e-12)
    assert math.isclose(curve.voi_merge[i], merge, abs_tol=1e-12)


def assert_same_curve(one, two, tolerance=0.0):
    for name in ARRAYS:
        np.testing.assert_array_equal(getattr(one, name), getattr(two, name), err_msg=name)
    for name in ENTROPIES:
        np.testing.assert_allclose(getattr(one, name), getattr(two, name), rtol=0, atol=tolerance, err_msg=name)
    assert one.best_threshold == two.best_threshold


@given(problem=problems())
@settings(max_examples=200)
def test_brute_force(problem):
    aff, seg, nhood = problem
    curve = malis.rand_curve(aff, seg, nhood)
    np.testing.assert_array_equal(curve.thresholds, existing_affinities(aff, nhood))
    assert curve.thresholds.dtype == aff.dtype
    for i in range(curve.thresholds.size):
        assert_entry(curve, i, aff, seg, nhood)
    assert curve.true_pairs == number_of_pairs(np.bincount(seg[seg > 0]))
    assert curve.foreground == np.count_nonzero(seg)
    if curve.thresholds.size == 0:
        assert curve.best_threshold == np.inf
    else:
        assert isinstance(curve.best_threshold, float)
        assert curve.best_threshold == curve.thresholds[np.argmax(curve.f_score)]


@given(problem=problems())
@settings(max_examples=200)
def test_the_pairs_that_edges_decide(problem):
    """What an edge adds to the confusion is what `pairs` counts for it without constraints."""
    aff, seg, nhood = problem
    curve = malis.rand_curve(aff, seg, nhood)
    pos, neg = malis.pairs(aff, seg, nhood, constrain_positive=False, constrain_negative=False)
    for i, threshold in enumerate(curve.thresholds):
        above = aff >= threshold
        assert curve.true_positives[i] == pos[above].sum()
        assert curve.false_positives[i] == neg[above].sum()


@pytest.mark.parametrize("name", PUBLISHED)
def test_reference(reference, name):
    """The unconstrained counts that the published package printed add up to the curve."""
    data = reference(name)
    aff, seg, nhood = data["aff"], data["seg"], data["nhood"]
    curve = malis.rand_curve(aff, seg, nhood)
    np.testing.assert_array_equal(curve.thresholds, existing_affinities(aff, nhood))
    order = np.argsort(-aff.ravel(), kind="stable")
    position = np.searchsorted(-aff.ravel()[order], -curve.thresholds, side="right") - 1
    np.testing.assert_array_equal(curve.true_positives, data["pos_unconstrained"].ravel()[order].cumsum()[position])
    np.testing.assert_array_equal(curve.false_positives, data["neg_unconstrained"].ravel()[order].cumsum()[position])
    for i in np.linspace(0, curve.thresholds.size - 1, 25).astype(int):
        assert_entry(curve, i, aff, seg, nhood)


def test_by_hand():
    curve = malis.rand_curve([[0, 0.9, 0.6, 0.2, 0.8]], [1, 1, 1, 2, 2], [[-1]])
    assert curve.thresholds.tolist() == [0.9, 0.8, 0.6, 0.2]
    assert curve.true_positives.tolist() == [1, 2, 4, 4]
    assert curve.false_positives.tolist() == [0, 0, 0, 6]
    assert curve.precision.tolist() == [1, 1, 1, 0.4]
    assert curve.recall.tolist() == [0.25, 0.5, 1, 1]
    assert curve.f_score.tolist() == [0.4, 4 / 6, 1, 8 / 14]
    assert curve.best_threshold == 0.6
    assert (curve.true_pairs, curve.foreground) == (4, 5)
    assert curve.rand_split.tolist() == [7 / 13, 9 / 13, 1, 1]
    assert curve.rand_merge.tolist() == [1, 1, 1, 13 / 25]
    assert curve.voi_split[2:].tolist() == [0, 0]
    assert curve.voi_merge[:3].tolist() == [0, 0, 0]
    entropy = -(0.6 * math.log2(0.6) + 0.4 * math.log2(0.4))
    assert math.isclose(curve.voi_merge[3], entropy, rel_tol=1e-14)
    # An object of 3 in parts of 2 and 1.
    assert math.isclose(curve.voi_split[1], 0.6 * -(2 / 3 * math.log2(2 / 3) + 1 / 3 * math.log2(1 / 3)), rel_tol=1e-14)


def test_background_connects_but_does_not_count():
    curve = malis.rand_curve([[0, 0.9, 0.8, 0.7]], [1, 0, 0, 1], [[-1]])
    assert curve.thresholds.tolist() == [0.9, 0.8, 0.7]
    assert curve.true_positives.tolist() == [0, 0, 1]
    assert curve.f_score.tolist() == [0, 0, 1]
    assert curve.precision.tolist() == [1, 1, 1]  # no pair is claimed at first


def test_the_best_threshold_is_the_highest_of_equals():
    curve = malis.rand_curve([[0, 0.9, 0.5, 0.4]], [1, 1, 0, 0], [[-1]])
    assert curve.f_score.tolist() == [1, 1, 1]
    assert curve.best_threshold == 0.9


def test_without_foreground():
    curve = malis.rand_curve([[0, 0.9, 0.5]], [0, 0, 0], [[-1]])
    for name in ["precision", "recall", "f_score", "rand_split", "rand_merge"]:
        assert getattr(curve, name).tolist() == [1, 1], name
    assert curve.voi_split.tolist() == curve.voi_merge.tolist() == [0, 0]
    assert curve.best_threshold == 0.9


@pytest.mark.parametrize("nhood", [[[0]], [[5]], [[-5], [0], [7]]])
def test_without_edges(nhood):
    curve = malis.rand_curve(np.ones((len(nhood), 5)), [1, 1, 2, 2, 0], nhood)
    assert all(getattr(curve, name).shape == (0,) for name in ARRAYS + ENTROPIES)
    assert curve.best_threshold == np.inf
    seg, _ = malis.affgraph_to_seg(np.ones((len(nhood), 5)), nhood, threshold=curve.best_threshold)
    assert not np.any(seg)


def test_zeros_are_equal():
    curve = malis.rand_curve([[7.0, 0.0, -0.0, -np.inf, np.inf]], [1, 1, 1, 1, 1], [[-1]])
    assert curve.thresholds.tolist() == [np.inf, 0.0, -np.inf]  # 7 belongs to an edge that leaves the volume
    assert curve.true_positives.tolist() == [1, 4, 10]


@pytest.mark.parametrize("dtype", ["bool", "u1", "i4", "f2", "f4", "f8", ">f4", ">i2"])
def test_affinity_dtypes(dtype, rng):
    seg = rng.integers(0, 4, (5, 6, 7))
    aff = rng.integers(0, 2 if dtype == "bool" else 9, (3, 5, 6, 7))
    nhood = malis.mknhood3d(1)
    expected = malis.rand_curve(aff.astype(np.float64), seg, nhood)
    if dtype == "u1":  # bytes are 0 to 1
        expected = malis.rand_curve(aff.astype(np.float32) / np.float32(255), seg, nhood)
    curve = malis.rand_curve(aff.astype(dtype), seg, nhood)
    assert curve.thresholds.dtype == {"f8": np.float64, "i4": np.float64}.get(dtype, np.float32)
    assert_same_curve(curve, expected)
    strided = np.zeros((3, 10, 6, 14), dtype)[:, ::2, :, ::2]
    strided[...] = aff
    assert_same_curve(malis.rand_curve(strided, np.asfortranarray(seg), nhood), expected)


@pytest.mark.parametrize("dtype", ["u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8", "f4", "f8"])
def test_label_dtypes(dtype, rng):
    seg = rng.integers(0, 100, (9, 11))
    aff = rng.random((2, 9, 11))
    nhood = malis.mknhood2d(1)
    assert_same_curve(malis.rand_curve(aff, seg.astype(dtype), nhood), malis.rand_curve(aff, seg, nhood))
    scattered = rng.permutation(2**40 + 7 * np.arange(100))
    scattered[0] = 0
    # Other labels come in another order, which the last digit of a sum over them may show.
    assert_same_curve(malis.rand_curve(aff, scattered[seg], nhood), malis.rand_curve(aff, seg, nhood), 1e-14)


def cells(shape, count, rng):
    """Voronoi cells with background where the nearest two points are about equally far."""
    spatial = pytest.importorskip("scipy.spatial")
    points = rng.random((count, len(shape))) * shape
    voxels = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), axis=-1)
    distance, nearest = spatial.cKDTree(points).query(voxels, k=2)
    return np.where(distance[..., 1] - distance[..., 0] > 1, nearest[..., 0] + 1, 0)


def noisy(seg, nhood, rng, dtype=np.float32):
    truth = malis.seg_to_affgraph(seg, nhood)
    return (0.25 + 0.5 * truth + 0.15 * rng.standard_normal(truth.shape)).astype(dtype)


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("shape", [(20000,), (170, 180), (34, 36, 38)])
def test_larger_volumes(shape, ties, rng):
    seg = cells(shape, 40, rng)
    nhood = np.concatenate([-np.eye(len(shape), dtype=int), 3 * np.eye(len(shape), dtype=int)])
    aff = noisy(seg, nhood, rng)
    if ties:
        aff = np.round(aff * 50) / np.float32(50)
    curve = malis.rand_curve(aff, seg, nhood, num_threads=1)
    np.testing.assert_array_equal(curve.thresholds, existing_affinities(aff, nhood))
    entries = curve.thresholds.size
    for i in [0, 1, entries // 3, int(np.argmax(curve.f_score)), entries - 2, entries - 1]:
        assert_entry(curve, i, aff, seg, nhood)
    for num_threads in 2, 3, 8:
        assert_same_curve(malis.rand_curve(aff, seg, nhood, num_threads=num_threads), curve)
    assert np.all(np.diff(curve.recall) >= 0)
    assert curve.f_score.max() > 0.9


def test_depends_on_the_order_alone(rng):
    seg = cells((60, 62), 12, rng)
    aff = noisy(seg, malis.mknhood2d(1), rng, np.float64)
    curve = malis.rand_curve(aff, seg, malis.mknhood2d(1))
    warped = malis.rand_curve(np.exp(3 * aff), seg, malis.mknhood2d(1))
    np.testing.assert_array_equal(warped.thresholds, np.exp(3 * curve.thresholds))
    for name in ARRAYS[1:] + ENTROPIES:
        np.testing.assert_array_equal(getattr(warped, name), getattr(curve, name))


def test_counts_beyond_32_bits():
    seg = np.ones((60, 60, 60), np.uint8)
    seg[30:] = 2
    curve = malis.rand_curve(np.ones((3, 60, 60, 60), np.float32), seg, malis.mknhood3d(1))
    half = 30 * 60 * 60
    assert curve.true_positives.tolist() == [half * (half - 1)]
    assert curve.false_positives.tolist() == [half * half]
    assert curve.voi_split.tolist() == [0]
    assert curve.voi_merge.tolist() == [1]


def test_of_images(shared_data, rng):
    """Labels of the ISBI images: objects of all sizes, thousands of background voxels between them."""
    measure = pytest.importorskip("skimage.measure")
    io = pytest.importorskip("skimage.io")
    image = io.imread(shared_data / "isbi2012" / "label" / "00.png")
    seg = measure.label(image > 0, connectivity=1)[:300, :300]
    nhood = malis.mknhood2d(1)
    aff = noisy(seg, nhood, rng).astype(np.float16)
    curve = malis.rand_curve(aff, seg, nhood)
    np.testing.assert_array_equal(curve.thresholds, existing_affinities(aff.astype(np.float32), nhood))
    for i in np.linspace(0, curve.thresholds.size - 1, 12).astype(int):
        assert_entry(curve, i, aff, seg, nhood)


def test_the_curve_as_an_object(rng):
    curve = malis.rand_curve(rng.random((2, 9, 11)), rng.integers(0, 3, (9, 11)), malis.mknhood2d(1))
    assert repr(curve) == f"<RandCurve of {curve.thresholds.size} thresholds, best_threshold={curve.best_threshold!r}>"
    assert curve.f_score is curve.f_score  # made once
    assert_same_curve(pickle.loads(pickle.dumps(curve)), curve)
    thresholds, tp, fp, precision, recall, f_score, best_threshold = curve
    assert thresholds is curve.thresholds
    assert tp is curve.true_positives
    assert fp is curve.false_positives
    assert precision is curve.precision
    assert recall is curve.recall
    assert f_score is curve.f_score
    assert best_threshold == curve.best_threshold
    assert len(curve) == 7
    assert curve[-1] == best_threshold
    assert all(one is two for one, two in zip(curve[1:3], (tp, fp), strict=True))
    with pytest.raises(IndexError):
        curve[7]
    assert all(value is getattr(curve, name) for name, value in curve._asdict().items())
    assert list(curve._asdict()) == list(curve._fields)
    for name in ARRAYS + ENTROPIES:
        assert getattr(curve, name).shape == curve.thresholds.shape
        assert getattr(curve, name).dtype == (np.int64 if "positives" in name else np.float64)


def test_arguments_are_not_changed(rng):
    aff, seg, nhood = rng.random((2, 9, 11)), rng.integers(0, 3, (9, 11)), malis.mknhood2d(1)
    before = [array.copy() for array in (aff, seg, nhood)]
    for array in aff, seg, nhood:
        array.flags.writeable = False
    malis.rand_curve(aff, seg, nhood)
    for array, copy in zip((aff, seg, nhood), before, strict=True):
        np.testing.assert_array_equal(array, copy)


@pytest.mark.parametrize(("label", "dtype"), [(-1, np.int64), (255, np.uint8), (-1, np.float32)])
def test_ignored_voxels_connect_and_count_nowhere(label, dtype, rng):
    truth = rng.integers(0, 4, (9, 8))
    masked = np.where(rng.random(truth.shape) < 0.3, label, truth).astype(dtype)
    aff, nhood = rng.random((2, *truth.shape)), malis.mknhood2d(1)
    curve = malis.rand_curve(aff, masked, nhood, ignore_label=label)
    assert curve.foreground == np.count_nonzero((masked != 0) & (masked != label))
    for i in range(0, len(curve.thresholds), 7):
        labels, _ = malis.affgraph_to_seg(aff, nhood, min_size=1, threshold=curve.thresholds[i])
        scores = malis.metrics.rand_scores(masked, labels, ignore_label=label)
        np.testing.assert_allclose((curve.rand_split[i], curve.rand_merge[i]), scores[1:], rtol=1e-12)
        entropies = malis.metrics.variation_of_information(masked, labels, ignore_label=label)
        np.testing.assert_allclose((curve.voi_split[i], curve.voi_merge[i]), entropies, atol=1e-12)
    with pytest.raises(TypeError, match="ignore_label must be an integer"):
        malis.rand_curve(aff, truth, nhood, ignore_label=0.5)


# --------------------------------------------------------------------------------------- parts of a curve
SCORES = ("true_positives", "false_positives", "precision", "recall", "f_score")
SCORES += ("rand_split", "rand_merge", "voi_split", "voi_merge")


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.uint8])
def test_some_thresholds_alone(dtype):
    rng = np.random.default_rng(4)
    aff, seg = rng.random((3, 6, 7, 8)), rng.integers(0, 5, (6, 7, 8))
    aff = np.rint(255 * aff).astype(dtype) if dtype == np.uint8 else aff.astype(dtype)
    curve = malis.rand_curve(aff, seg, malis.mknhood3d(1))
    every = len(curve.thresholds)
    for indices in (np.arange(every), [0], [every - 1], [3, 4, 50], []):
        part = curve.take(indices)
        np.testing.assert_array_equal(part.thresholds, curve.thresholds[np.asarray(indices, int)])
        assert part.thresholds.dtype == curve.thresholds.dtype
        for name in SCORES:
            np.testing.assert_array_equal(getattr(part, name), getattr(curve, name)[np.asarray(indices, int)])
        assert (part.best_threshold, part.true_pairs) == (curve.best_threshold, curve.true_pairs)
    best = curve.at(curve.best_threshold)
    assert len(best.thresholds) == 1
    assert best.f_score[0] == curve.f_score.max()


def test_the_curve_at_a_threshold():
    curve = malis.rand_curve([[0, 0.9, 0.6, 0.2, 0.8]], [1, 1, 1, 2, 2], [[-1]])
    found = [(level, curve.at(level).thresholds.tolist()) for level in (0.9, 0.85, 0.6, 0.59, 0.2, -np.inf)]
    assert found == [(0.9, [0.9]), (0.85, [0.9]), (0.6, [0.6]), (0.59, [0.6]), (0.2, [0.2]), (-np.inf, [0.2])]
    single = malis.rand_curve(np.array([[0, 0.7]], np.float32), [1, 1], [[-1]])
    assert single.at(0.7).thresholds.tolist() == single.thresholds.tolist()  # 0.7 is above 0.7 in single precision


@pytest.mark.parametrize("level", [0.91, np.inf])
def test_nothing_is_connected_above_every_affinity(level):
    curve = malis.rand_curve([[0, 0.9, 0.6]], [1, 1, 1], [[-1]])
    with pytest.raises(ValueError, match="threshold must be at most the highest affinity, got"):
        curve.at(level)


@pytest.mark.parametrize("indices", [[1, 0], [0, 0], [-1], [2], [0.5], [[0]], 0])
def test_indices_that_are_none(indices):
    curve = malis.rand_curve([[0, 0.9, 0.6]], [1, 1, 1], [[-1]])
    with pytest.raises(ValueError, match="indices must"):
        curve.take(indices)
