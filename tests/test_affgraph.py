"""Neighbourhoods, affinity graphs of segmentations and boundary maps, and lists of edges."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import malis
import oracle
from strategies import neighbourhoods, problems, shapes


# --------------------------------------------------------------------------------------- neighbourhoods
def test_nearest_neighbours():
    assert malis.mknhood2d(1).tolist() == [[-1, 0], [0, -1]]
    assert malis.mknhood3d(1).tolist() == [[-1, 0, 0], [0, -1, 0], [0, 0, -1]]
    assert malis.mknhood2d().tolist() == malis.mknhood2d(1).tolist()
    assert malis.mknhood3d().tolist() == malis.mknhood3d(1).tolist()


def test_order_of_the_published_packages():
    """Their order, less the zero offset that they begin with."""
    assert malis.mknhood2d(1.5).tolist() == [[-1, 0], [1, -1], [0, -1], [-1, -1]]
    assert malis.mknhood2d(2).tolist() == [[-1, 0], [-2, 0], [1, -1], [0, -1], [-1, -1], [0, -2]]
    assert malis.mknhood3d(1.5).tolist() == [
        [-1, 0, 0],
        [1, -1, 0],
        [0, -1, 0],
        [-1, -1, 0],
        [0, 1, -1],
        [1, 0, -1],
        [0, 0, -1],
        [-1, 0, -1],
        [0, -1, -1],
    ]
    assert malis.mknhood3d_aniso(1, 1).tolist() == [
        *([-1, 0, 0], [0, -1, 0], [0, 0, -1]),
        *([-1, -1, 0], [-1, 0, -1]),
        *([-1, 1, 0], [-1, 0, 1]),
    ]


@pytest.mark.parametrize("radius", [1, 1.2, 1.5, 1.8, 2, 2.5, 3, np.float32(3.5), np.int64(4)])
@pytest.mark.parametrize(("make", "ndim"), [(malis.mknhood2d, 2), (malis.mknhood3d, 3)])
def test_half_a_ball(make, ndim, radius):
    nhood = make(radius)
    assert nhood.dtype == np.int32
    assert nhood.flags.c_contiguous
    offsets = {tuple(offset) for offset in nhood.tolist()}
    assert len(offsets) == len(nhood)
    assert not offsets & {tuple(offset) for offset in (-nhood).tolist()}
    ball = np.indices((9,) * ndim).reshape(ndim, -1).T - 4
    ball = {tuple(offset) for offset in ball.tolist() if 0 < np.dot(offset, offset) <= radius**2}
    assert offsets | {tuple(offset) for offset in (-nhood).tolist()} == ball


def test_aniso_default():
    nhood = malis.mknhood3d_aniso()
    assert nhood.dtype == np.int32
    assert nhood[:3].tolist() == malis.mknhood3d(1).tolist()
    assert (nhood[3:, 0] == -1).all()
    sideways = {tuple(offset) for offset in nhood[3:, 1:].tolist()}
    assert sideways == {(y, x) for y in (-1, 0, 1) for x in (-1, 0, 1)} - {(0, 0)}
    assert len(nhood) == 3 + len(sideways)


# -------------------------------------------------------------------------------------- segmentations
def naive_affgraph(seg, nhood):
    aff = np.zeros((len(nhood), *seg.shape), np.int32)
    node1, node2 = oracle.grid_nodes(seg.shape, nhood)
    flat = seg.ravel()
    for edge, (a, b) in enumerate(zip(node1, node2, strict=True)):
        aff.flat[edge] = b >= 0 and flat[a] == flat[b] and flat[a] != 0
    return aff


@given(problem=problems())
def test_seg_to_affgraph(problem):
    aff = malis.seg_to_affgraph(problem.seg, problem.nhood)
    assert aff.dtype == np.int32
    np.testing.assert_array_equal(aff, naive_affgraph(problem.seg, problem.nhood))


def test_seg_to_affgraph_by_hand():
    seg = np.array([[1, 1, 2], [1, 0, 0]])
    aff = malis.seg_to_affgraph(seg, malis.mknhood2d(1))
    assert aff[0].tolist() == [[0, 0, 0], [1, 0, 0]]
    assert aff[1].tolist() == [[0, 1, 0], [0, 0, 0]]


@pytest.mark.parametrize("dtype", ["bool", "i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", "f4", "f8", ">i4"])
def test_seg_dtypes(dtype, rng):
    seg = rng.integers(0, 2 if dtype == "bool" else 4, (5, 6, 7))
    nhood = malis.mknhood3d(1)
    expected = naive_affgraph(seg, nhood)
    np.testing.assert_array_equal(malis.seg_to_affgraph(seg.astype(dtype), nhood), expected)
    np.testing.assert_array_equal(malis.seg_to_affgraph(np.asfortranarray(seg.astype(dtype)), nhood), expected)


def test_seg_of_huge_labels():
    seg = np.array([2**64 - 1, 2**64 - 1, 2**63, 2**63, 0, 0], np.uint64)
    assert malis.seg_to_affgraph(seg, [[-1]]).tolist() == [[0, 1, 0, 1, 0, 0]]


@pytest.mark.parametrize("num_threads", [1, 2, 5])
def test_large_affgraph(num_threads, rng):
    seg = rng.integers(0, 3, (50, 61, 67)).astype(np.uint16)
    nhood = np.array([[-1, 0, 0], [0, -1, 0], [0, 0, -1], [3, -4, 5], [0, 0, 70], [0, 0, 66], [-49, 0, 0]])
    aff = malis.seg_to_affgraph(seg, nhood, num_threads=num_threads)
    node1, node2 = oracle.fast_grid_nodes(seg.shape, nhood)
    flat = seg.ravel()
    expected = (node2 >= 0) & (flat[node1] == flat[node2]) & (flat[node1] > 0)
    np.testing.assert_array_equal(aff.ravel(), expected)


@given(problem=problems())
def test_perfect_affinities_give_the_connected_objects_back(problem):
    aff = malis.seg_to_affgraph(problem.seg, problem.nhood)
    seg, _ = malis.affgraph_to_seg(aff, problem.nhood, size_thresh=0)
    for part in oracle.partition(seg):
        assert len(np.unique(problem.seg.ravel()[list(part)])) == 1
    again = malis.seg_to_affgraph(seg, problem.nhood)
    np.testing.assert_array_equal(again[aff == 1], 1)


# --------------------------------------------------------------------------------------- boundary maps
@given(shape=shapes(), data=st.data())
def test_bmap_to_affgraph(shape, data):
    """An edge connects where neither end lies on a boundary."""
    bmap = data.draw(hnp.arrays(np.int32, shape, elements=st.integers(0, 1)))
    nhood = data.draw(neighbourhoods(len(shape), reach=1))
    aff = malis.bmap_to_affgraph(bmap, nhood)
    assert aff.dtype == np.int32
    expected = naive_affgraph(1 - bmap, nhood)
    np.testing.assert_array_equal(aff, expected)
    np.testing.assert_array_equal(malis.bmap_to_affgraph(bmap.astype(bool), nhood), expected)


def test_bmap_of_probabilities():
    bmap = np.array([0.0, 0.25, 1.0, 0.5], np.float32)
    aff = malis.bmap_to_affgraph(bmap, [[1]])
    assert aff.dtype == np.float32
    assert aff.tolist() == [[0.75, 0.0, 0.0, 0.0]]


# ------------------------------------------------------------------------------------- lists of edges
@given(shape=shapes(), data=st.data())
def test_lists_of_nodes(shape, data):
    nhood = data.draw(neighbourhoods(len(shape)))
    expected = [nodes.reshape(len(nhood), *shape) for nodes in oracle.grid_nodes(shape, nhood)]
    signed = malis.nodelist_from_shape(shape, nhood)
    unsigned = malis.nodelist_like(shape, nhood)
    for got, compat, want in zip(signed, unsigned, expected, strict=True):
        assert got.dtype == np.int32
        np.testing.assert_array_equal(got, want)
        assert compat.dtype == np.uint64
        np.testing.assert_array_equal(compat, want.astype(np.uint64))
    for small, large in zip(oracle.grid_nodes(shape, nhood), oracle.fast_grid_nodes(shape, nhood), strict=True):
        np.testing.assert_array_equal(small, large)


@given(problem=problems())
def test_affgraph_to_edgelist(problem):
    node1, node2, weights = malis.affgraph_to_edgelist(problem.aff, problem.nhood)
    expected1, expected2 = oracle.grid_nodes(problem.seg.shape, problem.nhood)
    np.testing.assert_array_equal(node1, expected1)
    np.testing.assert_array_equal(node2, expected2)
    np.testing.assert_array_equal(weights, problem.aff.ravel())
    assert weights.dtype == problem.aff.dtype


def test_missing_end_of_the_old_package():
    node1, node2 = malis.nodelist_like((2, 2, 2), malis.mknhood3d(1))
    assert node1.shape == node2.shape == (3, 2, 2, 2)
    assert node2[0, 0, 0, 0] == 2**64 - 1
    assert node2[0, 1, 0, 1] == 1
