"""Pair counts on explicit graphs."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import malis
import oracle
from strategies import TIED, UNBOUNDED, edge_masks, problems, unlabelled_masks

FLAGS = st.fixed_dictionaries(
    {name: st.booleans() for name in ("constrain_positive", "constrain_negative", "ignore_background")}
)


def assert_counts(counts, expected):
    for got, want, name in zip(counts, expected, ("pos", "neg"), strict=True):
        assert got.dtype == np.int64
        np.testing.assert_array_equal(got, want, err_msg=name)


@st.composite
def graphs(draw, max_nodes=12, max_edges=25):
    """A graph with loops, parallel edges, missing ends and ties."""
    n, m = draw(st.integers(1, max_nodes)), draw(st.integers(1, max_edges))
    ends = hnp.arrays(np.int64, m, elements=st.integers(-1, n - 1))
    values = st.sampled_from(draw(st.sampled_from([TIED, UNBOUNDED])))
    return {
        "node1": draw(ends),
        "node2": draw(ends),
        "weights": draw(hnp.arrays(draw(st.sampled_from([np.float32, np.float64])), m, elements=values)),
        "seg": draw(hnp.arrays(np.int64, n, elements=st.integers(0, 3))),
        "edge_mask": draw(st.none() | hnp.arrays(bool, m)),
        "unlabelled_mask": draw(st.none() | hnp.arrays(bool, n)),
    }


@given(graph=graphs(), flags=FLAGS)
@settings(max_examples=500)
def test_against_oracle(graph, flags):
    assert_counts(malis.edge_pairs(**graph, **flags), oracle.edge_pairs(**graph, **flags))


@given(problem=problems(), flags=FLAGS, data=st.data())
@settings(max_examples=200)
def test_grid_as_a_graph(problem, flags, data):
    options = dict(flags)
    options["edge_mask"] = data.draw(st.none() | edge_masks(problem))
    options["unlabelled_mask"] = data.draw(st.none() | unlabelled_masks(problem))
    expected = malis.pairs(*problem, **options)
    signed = malis.nodelist_from_shape(problem.seg.shape, problem.nhood)
    assert_counts(malis.edge_pairs(*signed, problem.aff, problem.seg, **options), expected)
    # The TuragaLab way to write a missing end.
    unsigned = malis.nodelist_like(problem.seg.shape, problem.nhood)
    assert_counts(malis.edge_pairs(*unsigned, problem.aff, problem.seg, **options), expected)
    # Flat lists.
    edges = malis.affgraph_to_edgelist(problem.aff, problem.nhood)
    flat = {name: None if mask is None else mask.ravel() for name, mask in options.items() if "mask" in name}
    counts = malis.edge_pairs(*edges, problem.seg.ravel(), **flags, **flat)
    assert_counts(counts, [count.ravel() for count in expected])


def test_regions_by_hand():
    # Two regions of object 7, two of object 9:  0 -0.9- 1 -0.5- 2 -0.8- 3, and 0 -0.6- 3
    node1, node2, weights, seg = [0, 1, 2, 0], [1, 2, 3, 3], [0.9, 0.5, 0.8, 0.6], [7, 7, 9, 9]
    pos, neg = malis.edge_pairs(node1, node2, weights, seg)
    assert pos.tolist() == [1, 0, 1, 0]
    assert neg.tolist() == [0, 0, 0, 4]


@given(graph=graphs(), flags=FLAGS)
def test_ends_can_be_exchanged(graph, flags):
    exchanged = graph | {"node1": graph["node2"], "node2": graph["node1"]}
    assert_counts(malis.edge_pairs(**exchanged, **flags), malis.edge_pairs(**graph, **flags))


@given(graph=graphs(), flags=FLAGS, seed=st.integers(0, 2**32 - 1))
def test_numbers_of_nodes_do_not_matter(graph, flags, seed):
    order = np.random.default_rng(seed).permutation(graph["seg"].size)
    renamed = dict(graph)
    for name in "node1", "node2":
        renamed[name] = np.where(graph[name] >= 0, order[graph[name]], -1)
    for name in "seg", "unlabelled_mask":
        if graph[name] is not None:
            renamed[name] = np.empty_like(graph[name])
            renamed[name][order] = graph[name]
    assert_counts(malis.edge_pairs(**renamed, **flags), malis.edge_pairs(**graph, **flags))


@pytest.mark.parametrize("dtype", ["i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", ">i4", ">u8"])
def test_node_dtypes(dtype, rng):
    node1, node2 = rng.integers(-1, 40, (2, 200))
    weights, seg = rng.random(200), rng.integers(0, 4, 40)
    expected = malis.edge_pairs(node1, node2, weights, seg)
    assert_counts(malis.edge_pairs(node1.astype(dtype), node2.astype(dtype), weights, seg), expected)
    assert_counts(malis.edge_pairs(node1, node2.astype(dtype), weights, seg), expected)
    assert_counts(malis.edge_pairs(node1.astype(dtype), node2, weights, seg), expected)


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8", ">f4"])
def test_weight_dtypes(dtype, rng):
    node1, node2 = rng.integers(0, 40, (2, 200))
    weights, seg = rng.permutation(200) / 256, rng.integers(0, 4, 40)
    expected = malis.edge_pairs(node1, node2, weights, seg)
    assert_counts(malis.edge_pairs(node1, node2, weights.astype(dtype), seg), expected)


def test_no_edges():
    empty = np.zeros(0, np.int64)
    pos, neg = malis.edge_pairs(empty, empty, np.zeros(0), [1, 1, 2])
    assert pos.shape == neg.shape == (0,)
    assert pos.dtype == neg.dtype == np.int64


def test_no_object():
    pos, neg = malis.edge_pairs([0, 1], [1, 2], [0.5, 0.4], [0, 0, 0])
    assert pos.tolist() == neg.tolist() == [0, 0]


@pytest.mark.parametrize("dense", [True, False])
@pytest.mark.parametrize("ties", [True, False])
def test_larger_graph(dense, ties, rng):
    n, m = (3000, 400_000) if dense else (80_000, 200_000)
    node1, node2 = rng.integers(-1, n, (2, m))
    weights = rng.random(m).astype(np.float32)
    if ties:
        weights = np.round(weights * 20)
    graph = {"node1": node1, "node2": node2, "weights": weights, "seg": rng.integers(0, 30, n)}
    masks = {"edge_mask": rng.random(m) < 0.8, "unlabelled_mask": rng.random(n) < 0.1}
    for options in {}, {"constrain_positive": False, "constrain_negative": False}, masks:
        expected = oracle.kruskal_edge_pairs(**graph, **options)
        for num_threads in 1, 4:
            assert_counts(malis.edge_pairs(**graph, **options, num_threads=num_threads), expected)


@pytest.mark.parametrize("shape", [(40, 37, 70), (300, 290), (70_000,)])
@pytest.mark.parametrize("ties", [True, False])
def test_larger_volume(shape, ties, rng):
    """Its complete lists are counted as the volume, block by block; without the missing edges they are any graph."""
    nhood = np.concatenate([-np.eye(len(shape), dtype=int), 2 * np.eye(len(shape), dtype=int)[:1]])
    seg = rng.integers(0, 40, shape)
    aff = rng.random((len(nhood), *shape)).astype(np.float32)
    if ties:
        aff = np.round(aff * 20)
    node1, node2 = malis.nodelist_from_shape(shape, nhood)
    exists = node2 >= 0
    for positive, negative in (True, True), (False, True), (True, False), (False, False):
        options = {"constrain_positive": positive, "constrain_negative": negative}
        some = malis.edge_pairs(node1[exists], node2[exists], aff[exists], seg, **options)
        expected = np.zeros((2, *aff.shape), np.int64)
        expected[:, exists] = some
        for num_threads in 1, 3:
            assert_counts(malis.edge_pairs(node1, node2, aff, seg, **options, num_threads=num_threads), expected)
            assert_counts(malis.pairs(aff, seg, nhood, **options, num_threads=num_threads), expected)


@given(graph=graphs(), flags=FLAGS)
@settings(max_examples=40)
def test_arguments_are_not_changed(graph, flags):
    before = {name: None if array is None else array.copy() for name, array in graph.items()}
    for array in graph.values():
        if array is not None:
            array.flags.writeable = False
    malis.edge_pairs(**graph, **flags)
    for name, array in graph.items():
        if array is not None:
            np.testing.assert_array_equal(array, before[name])
