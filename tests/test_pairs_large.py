"""Pair counts where the library takes other ways than for small problems, and several threads."""

from __future__ import annotations

import itertools
import multiprocessing

import numpy as np
import pytest

import malis
import oracle
from oracle import assert_counts

LONG_RANGE = np.array(
    [
        [-1, 0, 0],
        [0, -1, 0],
        [0, 0, -1],
        [0, 3, 0],
        [0, 0, 3],
        [-2, 0, 0],
        [0, -9, 0],
        [0, 0, -9],
        [3, 0, 0],
        [-1, 5, -5],
        [4, -4, 0],
        [0, 0, -27],
    ]
)


def cells(rng, shape, count, background):
    """Labels of the nearest of `count` random points; with `background`, walls between them."""
    points = rng.random((count, len(shape))) * shape
    grid = np.indices(shape).reshape(len(shape), -1).T
    from scipy.spatial import cKDTree

    distance, nearest = cKDTree(points).query(grid, k=2)
    seg = nearest[:, 0] + 1
    if background:
        seg[distance[:, 1] - distance[:, 0] < 1] = 0
    return seg.reshape(shape)


def noisy_affinities(rng, seg, nhood, noise):
    truth = malis.seg_to_affgraph(seg, nhood)
    return (truth * (1 - noise) + noise * rng.random(truth.shape)).astype(np.float32)


def volume(name, rng):
    """(aff, seg, nhood) for one of the larger volumes."""
    nearest = malis.mknhood3d(1)
    shape = (40, 40, 40)
    if name == "cells":
        seg = cells(rng, shape, 300, background=False)
        return noisy_affinities(rng, seg, nearest, 0.7), seg, nearest
    if name == "cells_background":
        seg = cells(rng, shape, 300, background=True)
        return noisy_affinities(rng, seg, nearest, 0.7), seg, nearest
    if name == "long_range":
        seg = cells(rng, shape, 60, background=True)
        return noisy_affinities(rng, seg, LONG_RANGE, 0.8), seg, LONG_RANGE
    if name == "one_object":
        return rng.random((3, *shape)), np.ones(shape, np.uint8), nearest
    if name == "random_labels":
        return rng.random((3, *shape)).astype(np.float32), rng.integers(0, 200, shape), nearest
    if name == "own_labels":  # of every voxel
        return rng.random((3, *shape)), rng.permutation(64000).reshape(shape) * 10**12 + 1, nearest
    if name == "sparse_labels":
        seg = np.where(rng.random(shape) < 0.02, rng.integers(1, 20, shape), 0)
        return rng.random((3, *shape)).astype(np.float32), seg, nearest
    if name == "all_equal":
        seg = cells(rng, shape, 50, background=True)
        return np.full((12, *shape), 0.5, np.float32), seg, LONG_RANGE
    if name == "ties":
        seg = cells(rng, shape, 100, background=True)
        aff = np.round(noisy_affinities(rng, seg, LONG_RANGE, 0.6) * 8) / 8
        return aff.astype(np.float32), seg, LONG_RANGE
    if name == "binary":
        seg = cells(rng, shape, 100, background=False)
        flip = rng.random((3, *shape)) < 0.1
        return (malis.seg_to_affgraph(seg, nearest) ^ flip).astype(np.float64), seg, nearest
    if name == "infinities":
        seg = cells(rng, shape, 50, background=True)
        aff = rng.standard_normal((3, *shape)) * 1e30
        aff[rng.random(aff.shape) < 0.2] = np.inf
        aff[rng.random(aff.shape) < 0.2] = -np.inf
        return aff, seg, nearest
    if name == "skewed":  # nearly all affinities in a sliver of their range, as of a trained network
        seg = cells(rng, shape, 200, background=True)
        logits = 12 * (2.0 * malis.seg_to_affgraph(seg, nearest) - 1) + 4 * rng.standard_normal((3, *shape))
        return (1 / (1 + np.exp(-logits))).astype(np.float32), seg, nearest
    if name == "thin":
        seg = cells(rng, (3, 400, 60), 150, background=True)
        nhood = malis.mknhood3d_aniso(1, 1.8)
        return noisy_affinities(rng, seg, nhood, 0.7), seg, nhood
    if name == "image":
        seg = cells(rng, (300, 256), 200, background=True)
        nhood = np.array([[-1, 0], [0, -1], [-1, -1], [9, 0], [0, 27]])
        return noisy_affinities(rng, seg, nhood, 0.7), seg, nhood
    if name == "line":
        seg = np.repeat(rng.integers(0, 30, 4000), 16)
        return rng.random((3, seg.size)), seg, np.array([[-1], [5], [-64]])
    raise AssertionError(name)


VOLUMES = [
    "cells",
    "cells_background",
    "long_range",
    "one_object",
    "random_labels",
    "own_labels",
    "sparse_labels",
    "all_equal",
    "ties",
    "binary",
    "infinities",
    "skewed",
    "thin",
    "image",
    "line",
]


@pytest.mark.parametrize("name", VOLUMES)
def test_larger_volumes(name, rng):
    aff, seg, nhood = volume(name, rng)
    expected = {}
    for constrained in True, False:
        flags = {"constrain_positive": constrained, "constrain_negative": constrained}
        expected[constrained] = oracle.kruskal_pairs(aff, seg, nhood, **flags)
    for positive, negative in itertools.product(expected, repeat=2):
        flags = {"constrain_positive": positive, "constrain_negative": negative}
        for num_threads in 1, 4:
            counts = malis.pairs(aff, seg, nhood, **flags, num_threads=num_threads)
            assert_counts(counts, (expected[positive][0], expected[negative][1]))


@pytest.mark.parametrize("name", ["cells_background", "ties", "random_labels", "image"])
def test_larger_volumes_with_background_as_object(name, rng):
    aff, seg, nhood = volume(name, rng)
    flags = {"ignore_background": False}
    expected = oracle.kruskal_pairs(aff, seg, nhood, **flags)
    for num_threads in 1, 4:
        assert_counts(malis.pairs(aff, seg, nhood, **flags, num_threads=num_threads), expected)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["cells", "long_range", "ties", "image"])
def test_larger_volumes_with_masks(name, rng):
    aff, seg, nhood = volume(name, rng)
    masks = {
        "edge_mask": rng.random(aff.shape) < 0.9,
        "unlabelled_mask": np.isin(seg, rng.choice(np.unique(seg), 12, replace=False)),
    }
    for names in ["edge_mask"], ["unlabelled_mask"], ["edge_mask", "unlabelled_mask"]:
        options = {key: masks[key] for key in names}
        expected = oracle.kruskal_pairs(aff, seg, nhood, **options)
        for num_threads in 1, 4:
            assert_counts(malis.pairs(aff, seg, nhood, **options, num_threads=num_threads), expected)


@pytest.mark.slow
@pytest.mark.parametrize("ties", [True, False])
def test_one_object_of_most_voxels(ties, rng):
    """An object that several threads work on, among small ones and background."""
    shape = (70, 68, 66)
    seg = cells(rng, shape, 40, background=True)
    seg[4:-1, 1:-1, 1:-1] = 41
    nhood = np.concatenate([malis.mknhood3d(1), [[0, 0, 4]]])
    aff = noisy_affinities(rng, seg, nhood, 0.8)
    if ties:
        aff = np.round(aff * 50)
    assert (seg == 41).sum() > 2**18
    expected = oracle.kruskal_pairs(aff, seg, nhood)
    for num_threads in 1, 2, 4:
        assert_counts(malis.pairs(aff, seg, nhood, num_threads=num_threads), expected)


@pytest.mark.parametrize("num_threads", [2, 3, 7, 64])
def test_any_number_of_threads(num_threads, rng):
    aff, seg, nhood = volume("cells_background", rng)
    for flags in {}, {"constrain_positive": False, "constrain_negative": False}:
        one = malis.pairs(aff, seg, nhood, **flags, num_threads=1)
        assert_counts(malis.pairs(aff, seg, nhood, **flags, num_threads=num_threads), one)


def _pairs_of_block(seed):
    rng = np.random.default_rng(seed)
    aff, seg = rng.random((3, 40, 40, 40)), rng.integers(0, 4, (40, 40, 40))
    return [counts.sum() for counts in malis.pairs(aff, seg, malis.mknhood3d(1), num_threads=4)]


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="this system cannot fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_forked_workers():
    """Data loaders fork after the parent has used threads."""
    expected = [_pairs_of_block(seed) for seed in range(3)]
    with multiprocessing.get_context("fork").Pool(2) as pool:
        assert pool.map_async(_pairs_of_block, range(3)).get(timeout=120) == expected


def test_thread_setting():
    before = malis.get_num_threads()
    try:
        malis.set_num_threads(3)
        assert malis.get_num_threads() == 3
    finally:
        malis.set_num_threads(before)
    assert malis.get_num_threads() == before
