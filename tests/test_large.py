"""Counts beyond 32 bits."""

from __future__ import annotations

import numpy as np
import pytest

import malis

SIDE = 256
HALF = SIDE**3 // 2  # voxels of each of two objects
NHOOD = malis.mknhood3d(1)
OBJECTS = slice(None, SIDE // 2), slice(SIDE // 2, None)

# The strongest edge between the objects, and the strongest one through a plane of weak edges within each.
BETWEEN = (0, SIDE // 2, 100, 200)
WITHIN = (1, 3, SIDE // 2, 7), (1, SIDE - 1, SIDE // 2, 0)


@pytest.fixture(scope="module")
def volume():
    """Two objects of eight million voxels; affinities and labels."""
    rng = np.random.default_rng(256)
    seg = np.ones((SIDE,) * 3, np.uint8)
    seg[OBJECTS[1]] = 2
    aff = rng.random((3, *seg.shape), dtype=np.float32)
    aff *= 0.5
    aff += 0.25
    aff[BETWEEN] = 0.9
    aff[1, :, SIDE // 2] *= 0.1
    for edge in WITHIN:
        aff[edge] = 0.2
    return aff, seg


def test_counts(volume):
    pos, neg = malis.pairs(*volume, NHOOD)
    for edge, planes in zip(WITHIN, OBJECTS, strict=True):
        assert pos[edge] == (HALF // 2) ** 2
        assert int(pos[:, planes].sum()) == HALF * (HALF - 1) // 2 > 2**44
        assert np.count_nonzero(pos[:, planes]) == HALF - 1
    # Both objects are contracted before: one edge decides all pairs between them.
    assert neg[BETWEEN] == HALF * HALF
    assert np.count_nonzero(neg) == 1


def test_unconstrained_counts(volume):
    pos, neg = malis.pairs(*volume, NHOOD, constrain_positive=False, constrain_negative=False)
    assert int(pos.sum()) == HALF * (HALF - 1)
    assert int(neg.sum()) == HALF * HALF
    assert np.count_nonzero(pos + neg) == 2 * HALF - 1


def test_loss(volume):
    aff, seg = volume
    loss, grad = malis.malis_loss(aff, seg, NHOOD)
    pos, _ = malis.pairs(aff, seg, NHOOD)
    edges = np.flatnonzero(pos)
    p = pos.flat[edges] / pos.sum()
    hinge = np.maximum(0, 0.7 - aff.flat[edges].astype(np.float64))
    assert loss == pytest.approx((p * hinge**2).sum() + 0.6**2, rel=1e-6)
    assert grad[BETWEEN] == pytest.approx(2 * 0.6, rel=1e-6)
    for edge in WITHIN:
        assert grad[edge] == pytest.approx(-2 * 0.5 * (HALF / 2) ** 2 / (HALF * (HALF - 1)), rel=1e-6)


def test_components(volume):
    aff, _ = volume
    seg, sizes = malis.affgraph_to_seg(aff, NHOOD, threshold=0.05)  # through all but some of the weak edges
    assert sizes.tolist() == [0, 2 * HALF]
    assert seg.min() == seg.max() == 1
    seg, sizes = malis.affgraph_to_seg(malis.seg_to_affgraph(volume[1], NHOOD), NHOOD)
    np.testing.assert_array_equal(seg, volume[1])
    assert sizes.tolist() == [0, HALF, HALF]
