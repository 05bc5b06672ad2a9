"""The maximum spanning tree, segmentations from it, and its dendrogram."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import malis
import oracle
from strategies import problems
from test_reference import PUBLISHED

hierarchy = pytest.importorskip("scipy.cluster.hierarchy")
THRESHOLDS = [-np.inf, -1.0, 0.0, 0.25, 0.5, 0.75, 1.0, 2.0, np.inf]


def kruskal(aff, nhood):
    """The edges that join components, in order."""
    shape = aff.shape[1:]
    part = list(range(int(np.prod(shape))))
    edges, node1, node2 = oracle.existing_edges(shape, nhood)
    ends = dict(zip(edges.tolist(), zip(node1.tolist(), node2.tolist(), strict=True), strict=True))
    tree = []
    for e in oracle.edge_order(aff).tolist():
        if e not in ends:
            continue
        one, two = (part[v] for v in ends[e])
        if one != two:
            tree.append((e, *ends[e]))
            part = [one if p == two else p for p in part]
    return tree


@given(problem=problems())
@settings(max_examples=300)
def test_maximum_spanning_tree(problem):
    tree = malis.maximum_spanning_tree(problem.aff, problem.nhood)
    assert list(zip(tree.edges, tree.node1, tree.node2, strict=True)) == kruskal(problem.aff, problem.nhood)
    np.testing.assert_array_equal(tree.affinities, problem.aff.ravel()[tree.edges])
    assert tree.affinities.dtype == problem.aff.dtype
    assert tree.edges.dtype == np.int64
    assert tree.node1.dtype == tree.node2.dtype == np.int32
    assert tree.shape == problem.seg.shape


@given(problem=problems(), thresholds=st.lists(st.sampled_from(THRESHOLDS), max_size=6), min_size=st.integers(0, 5))
@settings(max_examples=300)
def test_segment_tree(problem, thresholds, min_size):
    tree = malis.maximum_spanning_tree(problem.aff, problem.nhood)
    results = malis.segment_tree(tree, thresholds, min_size=min_size)
    assert len(results) == len(thresholds)
    for threshold, (seg, sizes) in zip(thresholds, results, strict=True):
        expected, expected_sizes = malis.affgraph_to_seg(
            problem.aff, problem.nhood, min_size=min_size, threshold=threshold
        )
        assert seg.dtype == expected.dtype
        np.testing.assert_array_equal(seg, expected)
        np.testing.assert_array_equal(sizes, expected_sizes)


@given(problem=problems(bounded=True))
@settings(max_examples=300)
def test_linkage(problem):
    n = problem.seg.size
    tree = malis.maximum_spanning_tree(problem.aff, problem.nhood)
    z = malis.linkage(tree)
    assert z.shape == (n - 1, 4)
    if n == 1:
        return
    assert hierarchy.is_valid_linkage(z)
    assert np.all(z[:, 0] < z[:, 1])
    assert np.all(z[1:, 2] >= z[:-1, 2])
    assert z[-1, 3] == n
    assert np.count_nonzero(np.isinf(z[:, 2])) == n - 1 - len(tree.edges)
    for threshold in 0.0, 0.25, 0.6, 1.0:
        clusters = hierarchy.fcluster(z, 1 - threshold, "distance").reshape(problem.seg.shape)
        seg, _ = malis.affgraph_to_seg(problem.aff, problem.nhood, 0, threshold=threshold)
        assert oracle.partition(clusters) == oracle.partition(seg)


@given(problem=problems(bounded=True, max_voxels=16))
def test_cophenetic_distances_are_maximin_affinities(problem):
    n = problem.seg.size
    if n == 1:
        return
    z = malis.linkage(malis.maximum_spanning_tree(problem.aff, problem.nhood))
    node1, node2 = oracle.grid_nodes(problem.seg.shape, problem.nhood)
    order = oracle.edge_order(problem.aff)
    rank = np.empty(order.size, np.int64)
    rank[order] = np.arange(order.size)
    closure = oracle.minimax_ranks(n, node1, node2, rank)
    maximin = np.where(closure < order.size, problem.aff.ravel()[order[np.clip(closure, 0, order.size - 1)]], -np.inf)
    np.testing.assert_array_equal(hierarchy.cophenet(z), 1 - maximin[np.triu_indices(n, 1)].astype(np.float64))


@pytest.mark.parametrize("name", PUBLISHED)
def test_reference(reference, name):
    """The edges that the published package gives pairs to are edges of the tree; its components are those of it."""
    data = reference(name)
    tree = malis.maximum_spanning_tree(data["aff"], data["nhood"])
    decides = np.flatnonzero(data["pos_unconstrained"] + data["neg_unconstrained"])
    assert np.isin(decides, tree.edges).all()
    seg = np.arange(data["seg"].size)  # every voxel its own object: every edge of a tree decides
    pos, neg = malis.edge_pairs(
        tree.node1, tree.node2, tree.affinities, data["seg"].ravel(), constrain_positive=False, constrain_negative=False
    )
    np.testing.assert_array_equal(pos, data["pos_unconstrained"].ravel()[tree.edges])
    np.testing.assert_array_equal(neg, data["neg_unconstrained"].ravel()[tree.edges])
    _, neg = malis.edge_pairs(
        tree.node1, tree.node2, tree.affinities, seg, constrain_negative=False, ignore_background=False
    )
    assert np.all(neg > 0)
    ((seg, _),) = malis.segment_tree(tree, [data["threshold"].item()])
    expected, _ = malis.affgraph_to_seg(data["aff"], data["nhood"], threshold=data["threshold"].item())
    np.testing.assert_array_equal(seg, expected)


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("num_threads", [1, 2, 5])
def test_larger_volume(num_threads, ties, rng):
    shape = (40, 42, 44)
    nhood = np.concatenate([malis.mknhood3d(1), [[0, 5, -5], [-9, 0, 0]]])
    aff = rng.random((len(nhood), *shape)).astype(np.float32)
    if ties:
        aff = np.round(aff * 10) / np.float32(10)
    tree = malis.maximum_spanning_tree(aff, nhood, num_threads=num_threads)
    node1, node2 = oracle.fast_grid_nodes(shape, nhood)
    order = np.argsort(-aff.ravel(), kind="stable")
    order = order[node2[order] >= 0]
    taken = order[oracle.spanning_tree(int(np.prod(shape)), node1[order], node2[order])]
    np.testing.assert_array_equal(tree.edges, taken)
    np.testing.assert_array_equal(tree.node1, node1[taken])
    np.testing.assert_array_equal(tree.node2, node2[taken])
    np.testing.assert_array_equal(tree.affinities, aff.ravel()[taken])
    thresholds = rng.permutation(np.linspace(0, 1, 7))
    for threshold, (seg, sizes) in zip(
        thresholds, malis.segment_tree(tree, thresholds, min_size=4, num_threads=num_threads), strict=True
    ):
        expected, expected_sizes = malis.affgraph_to_seg(aff, nhood, 3, threshold=threshold)
        np.testing.assert_array_equal(seg, expected)
        np.testing.assert_array_equal(sizes, expected_sizes)


def test_tree_against_higra(rng):
    """The binary partition tree of Higra joins the same clusters at the same levels."""
    higra = pytest.importorskip("higra")
    shape, nhood = (20, 23), malis.mknhood2d(1)
    aff = rng.random((2, *shape))
    tree = malis.maximum_spanning_tree(aff, nhood)
    z = malis.linkage(tree)
    node1, node2 = oracle.fast_grid_nodes(shape, nhood)
    edges = np.flatnonzero(node2 >= 0)
    graph = higra.UndirectedGraph(int(np.prod(shape)))
    graph.add_edges(node1[edges], node2[edges])
    partition_tree, altitudes = higra.bpt_canonical(graph, 1 - aff.ravel()[edges])
    n = aff[0].size
    parents = np.empty(2 * n - 1, np.int64)
    parents[-1] = 2 * n - 2
    for i, (a, b) in enumerate(z[:, :2].astype(int)):
        parents[[a, b]] = n + i
    np.testing.assert_array_equal(parents, partition_tree.parents())
    np.testing.assert_array_equal(z[:, 2], altitudes[n:])
    np.testing.assert_array_equal(z[:, 3], higra.attribute_area(partition_tree)[n:])


def test_linkage_of_logits(rng):
    aff = 5 * rng.standard_normal((2, 6, 7)).astype(np.float32)
    tree = malis.maximum_spanning_tree(aff, malis.mknhood2d(1))
    highest = tree.affinities[0]
    z = malis.linkage(tree, highest=highest)
    assert hierarchy.is_valid_linkage(z)
    assert z[0, 2] == 0
    np.testing.assert_array_equal(z[:, 2], np.float64(highest) - tree.affinities.astype(np.float64))
    with pytest.raises(ValueError, match="highest must be at least"):
        malis.linkage(tree)


def test_linkage_of_a_forest():
    """Trees are joined at infinity, in the order of their first voxels."""
    z = malis.linkage(malis.maximum_spanning_tree(np.full((1, 3, 2), 0.5), [[0, -1]]))
    assert z.tolist() == [[0, 1, 0.5, 2], [2, 3, 0.5, 2], [4, 5, 0.5, 2], [6, 7, np.inf, 4], [8, 9, np.inf, 6]]
    assert hierarchy.is_valid_linkage(z)
    clusters = hierarchy.fcluster(z, 1e300, "distance")
    assert oracle.partition(clusters) == oracle.partition([1, 1, 2, 2, 3, 3])


def test_one_voxel():
    tree = malis.maximum_spanning_tree([[0.5]], [[-1]])
    assert tree.edges.size == tree.affinities.size == tree.node1.size == 0
    ((seg, sizes),) = malis.segment_tree(tree, [0.5], min_size=1)
    assert (seg.tolist(), sizes.tolist()) == ([1], [0, 1])
    assert malis.linkage(tree).shape == (0, 4)


def test_trees_from_elsewhere():
    """A tree kept in another layout is the same tree."""
    tree = malis.maximum_spanning_tree([[0, 0.9, 0.2, 0.7, 0.8]], [[-1]])
    kept = malis.SpanningTree(
        tree.edges.tolist(), tree.affinities[::-1][::-1], tree.node1.astype("i8"), tree.node2.astype("i8"), [5]
    )
    for (seg, sizes), (expected, expected_sizes) in zip(
        malis.segment_tree(kept, (0.75, 0.5)), malis.segment_tree(tree, np.array([0.75, 0.5])), strict=True
    ):
        np.testing.assert_array_equal(seg, expected)
        np.testing.assert_array_equal(sizes, expected_sizes)
    np.testing.assert_array_equal(malis.linkage(kept), malis.linkage(tree))


def test_documentation_runs(capsys):
    """The page on segmentation, from its first line to its last."""
    page = Path(__file__).parents[1] / "docs" / "segmentation.md"
    names: dict = {}
    for block in re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL):
        exec(compile(block, str(page), "exec"), names)
    assert capsys.readouterr().out.count("objects") == 3
    assert names["curve"].f_score.max() > 0.9
    components, _ = malis.affgraph_to_seg(names["aff"], names["nhood"], 0, threshold=0.5)
    assert oracle.partition(names["clusters"]) == oracle.partition(components)
    higra = pytest.importorskip("higra")
    assert higra.Tree(names["parents"]).num_leaves() == names["seg"].size
