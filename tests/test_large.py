"""Counts beyond 32 bits."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pytest

import malis

NHOOD = malis.mknhood3d(1)


class Volume(NamedTuple):
    """Two objects, one above the other, and the edges that decide most of their pairs."""

    aff: np.ndarray
    seg: np.ndarray
    half: int  # voxels of each object
    objects: tuple[slice, slice]
    # The strongest edge between the objects, and the strongest one through a plane of weak edges within each.
    between: tuple[int, ...]
    within: tuple[tuple[int, ...], tuple[int, ...]]


# Two objects of half a million voxels have pairs beyond 32 bits; 256^3 is what users have.
@pytest.fixture(scope="module", params=[128, pytest.param(256, marks=pytest.mark.slow)], ids="{}^3".format)
def volume(request):
    side = request.param
    rng = np.random.default_rng(256)
    objects = slice(None, side // 2), slice(side // 2, None)
    seg = np.ones((side,) * 3, np.uint8)
    seg[objects[1]] = 2
    between = (0, side // 2, 50, 100)
    within = (1, 3, side // 2, 7), (1, side - 1, side // 2, 0)
    aff = rng.random((3, *seg.shape), dtype=np.float32)
    aff *= 0.5
    aff += 0.25
    aff[between] = 0.9
    aff[1, :, side // 2] *= 0.1
    for edge in within:
        aff[edge] = 0.2
    return Volume(aff, seg, side**3 // 2, objects, between, within)


def test_counts(volume):
    pos, neg = malis.pairs(volume.aff, volume.seg, NHOOD)
    for edge, planes in zip(volume.within, volume.objects, strict=True):
        assert pos[edge] == (volume.half // 2) ** 2
        assert int(pos[:, planes].sum()) == volume.half * (volume.half - 1) // 2 > 2**38
        assert np.count_nonzero(pos[:, planes]) == volume.half - 1
    # Both objects are contracted before: one edge decides all pairs between them.
    assert neg[volume.between] == volume.half * volume.half
    assert np.count_nonzero(neg) == 1


def test_unconstrained_counts(volume):
    pos, neg = malis.pairs(volume.aff, volume.seg, NHOOD, constrain_positive=False, constrain_negative=False)
    assert int(pos.sum()) == volume.half * (volume.half - 1)
    assert int(neg.sum()) == volume.half * volume.half
    assert np.count_nonzero(pos + neg) == 2 * volume.half - 1


def test_loss(volume):
    aff, seg = volume.aff, volume.seg
    loss, grad = malis.malis_loss(aff, seg, NHOOD)
    pos, _ = malis.pairs(aff, seg, NHOOD)
    edges = np.flatnonzero(pos)
    p = pos.flat[edges] / pos.sum()
    hinge = np.maximum(0, 0.7 - aff.flat[edges].astype(np.float64))
    assert loss == pytest.approx((p * hinge**2).sum() + 0.6**2, rel=1e-6)
    assert grad[volume.between] == pytest.approx(2 * 0.6, rel=1e-6)
    for edge in volume.within:
        assert grad[edge] == pytest.approx(
            -2 * 0.5 * (volume.half / 2) ** 2 / (volume.half * (volume.half - 1)), rel=1e-6
        )


def test_components(volume):
    seg, sizes = malis.affgraph_to_seg(volume.aff, NHOOD, threshold=0.05)  # through all but some of the weak edges
    assert sizes.tolist() == [0, 2 * volume.half]
    assert seg.min() == seg.max() == 1
    seg, sizes = malis.affgraph_to_seg(malis.seg_to_affgraph(volume[1], NHOOD), NHOOD)
    np.testing.assert_array_equal(seg, volume[1])
    assert sizes.tolist() == [0, volume.half, volume.half]
