"""Voxels that carry the label to ignore, and objects whose parts are told apart, in counts and losses."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import malis

SHAPES = [(40,), (9, 11), (4, 6, 7)]


def touching(ignored, nhood):
    """True for the edges that touch a voxel where `ignored` is True, shape (K, *shape)."""
    edges = np.zeros((len(nhood), *ignored.shape), bool)
    for k, offset in enumerate(nhood):
        for v in np.ndindex(ignored.shape):
            u = tuple(np.add(v, offset))
            inside = all(0 <= x < n for x, n in zip(u, ignored.shape, strict=True))
            edges[(k, *v)] = ignored[v] or (inside and ignored[u])
    return edges


def as_masks(seg, nhood, ignore_label, edge_mask=None):
    """The same problem without the option: labels of 0, and a mask of edges, which say what the option means."""
    ignored = seg == ignore_label
    known = ~touching(ignored, nhood)
    return np.where(ignored, 0, seg), known if edge_mask is None else known & edge_mask


def problem(shape, seed, nhood):
    rng = np.random.default_rng(seed)
    seg = rng.integers(0, 4, shape)
    seg = np.where(rng.random(shape) < 0.2, -1, seg)
    return rng.random((len(nhood), *shape)), seg


def same_counts(a, b):
    return np.array_equal(a.pos, b.pos) and np.array_equal(a.neg, b.neg)


@settings(max_examples=80, deadline=None)
@given(st.data())
def test_counts_are_those_with_a_mask_of_edges(data):
    shape = data.draw(st.sampled_from(SHAPES))
    nhood = -np.eye(len(shape), dtype=int)
    if data.draw(st.booleans()):
        nhood = np.concatenate([nhood, 3 * nhood, 0 * nhood[:1]])
    aff, seg = problem(shape, data.draw(st.integers(0, 999)), nhood)
    if data.draw(st.booleans()):
        aff = aff.round(1)
    large = data.draw(st.booleans())  # more numbers than voxels: another way to compact labels
    seg = np.where(seg > 0, seg * 10**12, seg) if large else seg
    ignore_label = data.draw(st.sampled_from([-1, -(2**40), 2 * 10**12 if large else 2, 0]))
    seg = np.where(seg == -1, ignore_label, seg)
    options = {
        "constrain_positive": data.draw(st.booleans()),
        "constrain_negative": data.draw(st.booleans()),
        "ignore_background": ignore_label == 0 or data.draw(st.booleans()),
        "num_threads": data.draw(st.integers(1, 3)),
    }
    rng = np.random.default_rng(1)
    edge_mask = rng.random(aff.shape) < 0.8 if data.draw(st.booleans()) else None
    unlabelled = rng.random(shape) < 0.2 if data.draw(st.booleans()) else None
    found = malis.pairs(
        aff, seg, nhood, ignore_label=ignore_label, edge_mask=edge_mask, unlabelled_mask=unlabelled, **options
    )
    if not options["ignore_background"]:  # there label 0 cannot stand for what is ignored
        assert not found.pos[touching(seg == ignore_label, nhood)].any()
        assert not found.neg[touching(seg == ignore_label, nhood)].any()
        return
    plain, mask = as_masks(seg, nhood, ignore_label, edge_mask)
    if unlabelled is not None:
        unlabelled &= seg != ignore_label
    expected = malis.pairs(aff, plain, nhood, edge_mask=mask, unlabelled_mask=unlabelled, **options)
    assert same_counts(found, expected)


@pytest.mark.parametrize("dtype", ["uint8", "int8", "uint16", "int32", "int64", "uint64", "float32", "float64"])
def test_every_dtype(dtype):
    nhood = malis.mknhood2d(1)
    aff, seg = problem((9, 11), 3, nhood)
    ignore_label = 255 if dtype[0] == "u" else -1
    seg = np.where(seg == -1, ignore_label, seg).astype(dtype)
    expected = malis.pairs(
        aff, as_masks(seg, nhood, ignore_label)[0].astype(int), nhood, edge_mask=as_masks(seg, nhood, ignore_label)[1]
    )
    assert same_counts(malis.pairs(aff, seg, nhood, ignore_label=ignore_label), expected)


def test_a_label_that_does_not_occur_changes_nothing():
    nhood = malis.mknhood2d(1)
    aff, seg = problem((9, 11), 4, nhood)
    seg = np.maximum(seg, 0).astype(np.uint8)
    for ignore_label in (-1, 77, 1000, -(2**62)):
        assert same_counts(malis.pairs(aff, seg, nhood, ignore_label=ignore_label), malis.pairs(aff, seg, nhood))


def test_lists_of_edges():
    nhood = malis.mknhood2d(1)
    aff, seg = problem((9, 11), 5, nhood)
    nodes = malis.nodelist_from_shape(seg.shape, nhood)
    found = malis.edge_pairs(*nodes, aff, seg, ignore_label=-1)
    assert same_counts(found, malis.pairs(aff, seg, nhood, ignore_label=-1))


@pytest.mark.parametrize("options", [{}, {"margin": 0}, {"pointwise": "cross_entropy"}, {"constrain_negative": False}])
def test_no_gradient_where_labels_are_ignored(options):
    nhood = malis.mknhood2d(1)
    rng = np.random.default_rng(6)
    seg = np.kron(rng.integers(1, 6, (4, 4)), np.ones((6, 6), int))
    seg[:, 9:14] = 255
    aff = rng.random((2, *seg.shape)).astype(np.float32)
    loss, grad = malis.malis_loss(aff, seg, nhood, ignore_label=255, **options)
    assert loss > 0
    assert (grad != 0).any()
    assert not grad[touching(seg == 255, nhood)].any()
    # Whatever label the stripe carries, it is not looked at.
    other = malis.malis_loss(aff, np.where(seg == 255, -7, seg), nhood, ignore_label=-7, **options)
    assert other.loss == loss
    assert np.array_equal(other.grad, grad)


def test_everything_ignored():
    nhood = malis.mknhood2d(1)
    aff = np.random.default_rng(7).random((2, 2, 5, 6))
    loss, grad = malis.malis_loss(aff, np.full((2, 5, 6), 255, np.uint8), nhood, ignore_label=255)
    assert loss.tolist() == [0, 0]
    assert not grad.any()


def test_errors_name_the_option():
    aff, nhood = [[0.1, 0.2]], [[-1]]
    with pytest.raises(
        ValueError, match=r"seg must hold labels of at least 0, got -1; with ignore_label=-1 such voxels"
    ):
        malis.pairs(aff, [-1, 1], nhood)
    with pytest.raises(ValueError, match="seg must hold labels of at least 0, got -2"):
        malis.malis_loss(aff, [-2, -1], nhood, ignore_label=-1)
    with pytest.raises(ValueError, match="ignore_label must not be 0 where ignore_background is False"):
        malis.pairs(aff, [0, 1], nhood, ignore_label=0, ignore_background=False)
    with pytest.raises(TypeError, match=r"ignore_label must be an integer, got 0\.5"):
        malis.malis_loss(aff, [0, 1], nhood, ignore_label=0.5)
    with pytest.raises(ValueError, match="ignore_label must be an integer from"):
        malis.malis_loss(aff, [0, 1], nhood, ignore_label=2**70)


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_connected_labels_in_the_loss(data):
    shape = data.draw(st.sampled_from(SHAPES))
    nhood = -np.eye(len(shape), dtype=int)
    aff, seg = problem(shape, data.draw(st.integers(0, 999)), nhood)
    ignored = seg == -1
    parts = malis.connect_labels(np.where(ignored, 0, seg))
    unlabelled = np.random.default_rng(2).random(shape) < 0.2 if data.draw(st.booleans()) else None
    if unlabelled is not None:
        parts = malis.connect_labels(np.where(ignored | unlabelled, 0, seg))
    found = malis.malis_loss(aff, seg, nhood, connect_labels=True, ignore_label=-1, unlabelled_mask=unlabelled)
    expected = malis.malis_loss(aff, np.where(ignored, -1, parts), nhood, ignore_label=-1, unlabelled_mask=unlabelled)
    assert found.loss == expected.loss
    assert np.array_equal(found.grad, expected.grad)


def test_parts_of_a_label_ask_nothing_of_each_other_unless_they_are_connected_labels():
    aff, seg, nhood = [[0, 0.9, 0.8, 0.7, 0.9]], [1, 1, 0, 1, 1], [[-1]]
    plain = malis.malis_loss(aff, seg, nhood)
    apart = malis.malis_loss(aff, seg, nhood, connect_labels=True)
    assert plain.grad.tolist() == [[0, 0, 0, 0, 0]]
    assert apart.grad[0, 3] > 0  # the weaker of the two edges on the way decides the four pairs
    assert np.count_nonzero(apart.grad) == 1
