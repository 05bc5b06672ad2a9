"""From affinities to scores on what the example network predicts for a real image, against other libraries."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import cc3d
import numpy as np
import pytest
from scipy import sparse
from scipy.cluster import hierarchy
from scipy.sparse import csgraph
from scipy.spatial.distance import squareform
from skimage import metrics as skimage_metrics

import malis
from frameworks import FRAMEWORKS, QUIET, require
from malis import metrics
from malis.__main__ import main
from test_examples import EXAMPLES
from test_segmentation import assert_same_partition, grid_graph

pytestmark = pytest.mark.slow  # a network is trained first

NHOOD = malis.mknhood2d(1)
SHAPE = (256, 256)
SIZE = 64

# A process of its own, as for all tests that import a framework.
TRAIN = """
import sys
import numpy as np
import data, tasks, training, pytorch_example as example

folder, file = sys.argv[1:]
options = ["--steps", "160", "--batch", "2", "--crop", "96", "--channels", "8", "--threads", "1"]
args = training.parser("").parse_args(options)
images = data.load(folder)
batches = data.Batches(images.train, args.batch, args.crop, args.seed)
network = example.train(args, tasks.task_of("malis"), 1, batches)
np.savez(file, *(tasks.probabilities(network, image[:, :256, :256]) for image in images.test.images[:2]),
         labels=np.stack([data.connected(labels[:256, :256]) for labels in images.test.labels[:2]]))
"""


@pytest.fixture(scope="module")
def predicted(shared_data, tmp_path_factory):
    """Affinities of two ISBI images after a short training on others, and their labels."""
    modules, environment = FRAMEWORKS["torch"]
    require([*modules, "monai"])
    file = tmp_path_factory.mktemp("predicted") / "isbi.npz"
    subprocess.run(
        [sys.executable, "-c", TRAIN, str(shared_data / "isbi2012"), str(file)],
        check=True,
        cwd=EXAMPLES,
        env={**os.environ, **QUIET, **environment},
    )
    with np.load(file) as arrays:
        return [arrays["arr_0"], arrays["arr_1"]], list(arrays["labels"])


@pytest.fixture(scope="module")
def first(predicted):
    affs, truths = predicted
    return affs[0], truths[0]


def components(aff, threshold):
    """Components of the edges of at least the threshold, by SciPy."""
    node1, node2, edges = grid_graph(aff.shape[1:], NHOOD)
    connected = aff.ravel()[edges] >= threshold
    ends = node1[connected], node2[connected]
    n = aff[0].size
    graph = sparse.coo_matrix((np.ones(len(ends[0]), bool), ends), (n, n))
    return csgraph.connected_components(graph, directed=False)[1].reshape(aff.shape[1:]) + 1


def counts_of_foreground(truth, seg):
    """Voxels of every pair of labels, of every true and of every other label, by scikit-image."""
    table = skimage_metrics.contingency_table(truth[truth > 0], seg[truth > 0])
    return [np.asarray(counts, np.int64).ravel() for counts in (table.data, table.sum(axis=1), table.sum(axis=0))]


def pairs_of(counts):
    return int((counts * (counts - 1) // 2).sum())


def test_the_network_has_learnt_something(predicted):
    found = malis.find_threshold(*predicted, NHOOD, min_size=SIZE)
    assert 0.5 < found.score < 1
    assert all(aff.shape == (2, *SHAPE) and aff.dtype == np.float32 for aff in predicted[0])


def test_every_threshold(first):
    """Counts, Rand scores and variation of information against segmenting and scoring at 60 thresholds."""
    aff, truth = first
    curve = malis.rand_curve(aff, truth, NHOOD)
    best = int(np.argmax(curve.f_score))
    entries = np.unique([*np.linspace(0, curve.thresholds.size - 1, 40), *np.linspace(best - 500, best + 500, 20)])
    assert curve.thresholds.size > 100_000
    assert curve.f_score[best] > 0.5
    for i in entries.astype(int):
        seg = components(aff, curve.thresholds[i])
        both, objects, segments = counts_of_foreground(truth, seg)
        tp, together = pairs_of(both), pairs_of(segments)
        assert (curve.true_positives[i], curve.false_positives[i]) == (tp, together - tp)
        # What scikit-image calls precision is the share of the pairs of true objects.
        error, recall, precision = skimage_metrics.adapted_rand_error(truth, seg, ignore_labels=[0])
        scores = (curve.f_score[i], curve.precision[i], curve.recall[i])
        np.testing.assert_allclose(scores, (1 - error, precision, recall), rtol=0, atol=1e-14)
        entropies = skimage_metrics.variation_of_information(truth, seg, ignore_labels=[0])
        np.testing.assert_allclose((curve.voi_split[i], curve.voi_merge[i]), entropies, rtol=0, atol=1e-12)
        ratios = both @ both / (objects @ objects), both @ both / (segments @ segments)
        np.testing.assert_allclose((curve.rand_split[i], curve.rand_merge[i]), ratios, rtol=1e-12)


def test_tree(first):
    aff, _ = first
    tree = malis.maximum_spanning_tree(aff, NHOOD)
    node1, node2, edges = grid_graph(SHAPE, NHOOD)
    weights = 2 - aff.ravel()[edges].astype(np.float64)  # SciPy takes no edge of weight 0
    graph = sparse.coo_matrix((weights, (node1, node2)), (aff[0].size, aff[0].size))
    expected = np.sort(csgraph.minimum_spanning_tree(graph).data)
    np.testing.assert_array_equal(2 - tree.affinities.astype(np.float64), expected)
    thresholds = [0.1, 0.5, 0.9, 0.99]
    for threshold, (seg, sizes) in zip(thresholds, malis.segment_tree(tree, thresholds, min_size=1), strict=True):
        assert_same_partition(seg, components(aff, threshold))
        np.testing.assert_array_equal(sizes, np.bincount(seg.ravel()))


def test_dendrogram(first):
    """SciPy's own single linkage, of all pairs of the voxels of a small part."""
    aff = np.ascontiguousarray(first[0][:, 100:124, 100:124])
    z = malis.linkage(malis.maximum_spanning_tree(aff, NHOOD))
    node1, node2, edges = grid_graph(aff.shape[1:], NHOOD)
    distances = np.full((aff[0].size, aff[0].size), 2.0)  # farther than any edge
    np.fill_diagonal(distances, 0)
    distances[node1, node2] = distances[node2, node1] = 1 - aff.ravel()[edges].astype(np.float64)
    expected = hierarchy.linkage(squareform(distances), "single")
    np.testing.assert_array_equal(z[:, 2], expected[:, 2])
    np.testing.assert_array_equal(hierarchy.cophenet(z), hierarchy.cophenet(expected))
    for threshold in 0.2, 0.5, 0.9:
        clusters = [hierarchy.fcluster(one, 1 - threshold, "distance") for one in (z, expected)]
        assert_same_partition(*clusters)
        assert_same_partition(clusters[0], components(aff, threshold))


def test_small_components(first):
    """Dropped as cc3d drops them; merged, nothing small is left and large components stay whole."""
    aff, _ = first
    whole = components(aff, 0.5)
    seg, sizes = malis.affgraph_to_seg(aff, NHOOD, SIZE - 1, threshold=0.5)
    counts = np.bincount(whole.ravel())
    np.testing.assert_array_equal(seg > 0, counts[whole] >= SIZE)
    np.testing.assert_array_equal(seg > 0, cc3d.dust(whole.astype(np.int32), SIZE, connectivity=4) > 0)
    np.testing.assert_array_equal(np.sort(counts[counts >= SIZE])[::-1], sizes[1:])
    merged, merged_sizes = malis.affgraph_to_seg(aff, NHOOD, SIZE - 1, threshold=0.5, small="merge")
    assert merged_sizes[0] == 0
    assert merged_sizes[1:].min() >= SIZE
    assert_same_partition(merged.ravel() * np.int64(10**6) + whole.ravel(), whole)  # no component is torn


def test_watersheds(first):
    higra = pytest.importorskip("higra")
    # Saturated affinities are equal; every cut is right there, and Higra takes another one.
    flat = first[0].ravel()
    ranks = np.empty(flat.size, np.float64)
    ranks[np.argsort(-flat, kind="stable")] = np.arange(flat.size, 0, -1)
    aff = ranks.reshape(first[0].shape)
    node1, node2, edges = grid_graph(SHAPE, NHOOD)
    graph = higra.UndirectedGraph(aff[0].size)
    graph.add_edges(node1, node2)
    basins, _ = malis.watershed_basins(aff, NHOOD, min_size=1)
    assert_same_partition(basins, higra.labelisation_watershed(graph, -ranks[edges]))
    seeds = malis.affgraph_to_seg(first[0], NHOOD, SIZE, threshold=0.95)[0]
    seg, _ = malis.watershed_from_affgraph(first[0], seeds, NHOOD)
    expected = higra.labelisation_seeded_watershed(graph, -ranks[edges], seeds.ravel().astype(np.int64))
    np.testing.assert_array_equal(seg.ravel(), expected.ravel())


def test_scores(first):
    aff, truth = first
    seg, _ = malis.affgraph_to_seg(aff, NHOOD, SIZE - 1, threshold=0.5)
    counts = skimage_metrics.contingency_table(truth, seg).toarray().astype(int)
    true, pred = (np.flatnonzero(sizes >= SIZE) for sizes in (counts.sum(axis=1), counts.sum(axis=0)))
    true, pred = true[true > 0], pred[pred > 0]
    among = counts[np.ix_(true, pred)]
    match = pred[among.argmax(axis=1)]
    dice = 2 * among.max(axis=1) / (counts.sum(axis=1)[true] + counts.sum(axis=0)[match])
    alone = np.array([np.count_nonzero(match[among.any(axis=1)] == m) == 1 for m in match])
    for level in 0.5, 0.7, 0.9:
        found = np.count_nonzero(alone & (dice > level))
        assert metrics.object_recall(truth, seg, dice_threshold=level) == found / len(true)
        assert metrics.object_score(truth, seg, dice_threshold=level) == 2 * found / (len(true) + len(pred))
    # What is unlabelled in the result: a segment for each voxel, or one of all.
    single = np.where(seg > 0, seg, seg.max() + 1 + np.arange(seg.size).reshape(seg.shape))
    for other, options in ((single, {}), (seg, {"background_is_segment": True})):
        joint, t, s = (counts @ counts for counts in counts_of_foreground(truth, other))
        expected = joint / (s / 2 + t / 2), joint / t, joint / s
        np.testing.assert_allclose(metrics.rand_scores(truth, seg, **options), expected, rtol=1e-12)
    error, *_ = skimage_metrics.adapted_rand_error(truth, seg, ignore_labels=[0])
    np.testing.assert_allclose(metrics.adapted_rand_error(truth, seg), error, rtol=1e-12)
    entropies = skimage_metrics.variation_of_information(truth, seg, ignore_labels=[0])
    np.testing.assert_allclose(metrics.variation_of_information(truth, seg), entropies, rtol=1e-12)


def test_the_command(predicted, tmp_path, capsys, monkeypatch):
    """The command chooses on one image, segments another, and prints what the functions return."""
    affs, truths = predicted
    monkeypatch.chdir(tmp_path)
    for i in 0, 1:
        np.save(f"aff{i}.npy", affs[i])
        np.save(f"gt{i}.npy", truths[i])
    found = malis.find_threshold(affs[:1], truths[:1], NHOOD, min_size=SIZE)
    assert main(["segment", "aff0.npy", "-o", "seg0.tif", "--threshold", "auto", "--gt", "gt0.npy"]) == 0
    assert main(["segment", "aff1.npy", "-o", "seg1.h5:/cells", "--threshold", repr(found.threshold)]) == 0
    capsys.readouterr()
    for i, place in enumerate(["seg0.tif", "seg1.h5:/cells"]):
        assert main(["evaluate", place, f"gt{i}.npy", "--json"]) == 0
        printed = json.loads(capsys.readouterr().out)
        seg, _ = malis.affgraph_to_seg(affs[i], NHOOD, SIZE - 1, threshold=found.threshold)
        assert printed["object_score"] == metrics.object_score(truths[i], seg)
        error, *_ = skimage_metrics.adapted_rand_error(truths[i], seg, ignore_labels=[0])
        np.testing.assert_allclose(printed["adapted_rand_error"], error, rtol=1e-12)
