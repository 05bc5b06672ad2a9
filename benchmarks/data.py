"""Inputs of the benchmarks: cells as in electron microscopy, and what could slow the algorithms down."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from scipy.spatial import cKDTree

NEAREST_2D = np.array([[-1, 0], [0, -1]])
NEAREST_3D = np.array([[-1, 0, 0], [0, -1, 0], [0, 0, -1]])
# The pattern of long-range affinities that mutex watersheds are used with.
LONG_RANGE = np.concatenate([np.diag(steps) for steps in ([-1, -1, -1], [-2, -3, -3], [-3, -9, -9], [-4, -27, -27])])

VOXELS_PER_CELL = 2000
# Voxels whose cell is looked up at once: the list of their coordinates is what takes memory.
CHUNK = 1 << 20

Volume = tuple[np.ndarray, np.ndarray, np.ndarray]  # seg, aff, nhood


def ends(shape: Sequence[int], offset: Sequence[int]) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
    """Slices of the voxels ``v`` and ``v + offset``, where both lie in the volume."""
    pairs = list(zip(offset, shape, strict=True))
    at = tuple(slice(min(n, max(0, -o)), max(0, min(n, n - o))) for o, n in pairs)
    to = tuple(slice(min(n, max(0, o)), max(0, min(n, n + o))) for o, n in pairs)
    return at, to


def cells(shape: Sequence[int], *, seed: int = 0, background: bool = True, workers: int = 2) -> np.ndarray:
    """Label Voronoi cells of about 2,000 voxels, int32 from 1; with a background (0) of one voxel between them."""
    rng = np.random.default_rng(seed)
    voxels = int(np.prod(shape))
    points = rng.random((max(2, voxels // VOXELS_PER_CELL), len(shape))) * shape
    tree = cKDTree(points)
    seg = np.empty(voxels, np.int32)
    for begin in range(0, voxels, CHUNK):
        end = min(voxels, begin + CHUNK)
        grid = np.stack(np.unravel_index(np.arange(begin, end), shape), axis=1)
        seg[begin:end] = tree.query(grid, workers=workers)[1]
    seg = seg.reshape(shape)
    seg += 1
    if background:
        border = np.zeros(shape, bool)
        for step in np.eye(len(shape), dtype=int).tolist():
            at, to = ends(shape, step)
            border[at] |= seg[at] != seg[to]
        seg[border] = 0
    return seg


def affinities(seg: np.ndarray, nhood: np.ndarray, *, seed: int = 1) -> np.ndarray:
    """Predict ``0.2 + 0.6 * truth`` with a noise of 0.2, within 0 and 1, float32."""
    rng = np.random.default_rng(seed)
    aff = np.empty((len(nhood), *seg.shape), np.float32)
    for channel, offset in zip(aff, nhood.tolist(), strict=True):
        rng.standard_normal(out=channel, dtype=np.float32)
        channel *= np.float32(0.2)
        channel += np.float32(0.2)
        at, to = ends(seg.shape, offset)
        channel[at] += np.float32(0.6) * ((seg[at] == seg[to]) & (seg[at] != 0))
        np.clip(channel, 0, 1, out=channel)
    return aff


def realistic(shape: Sequence[int], nhood: np.ndarray | None = None, *, seed: int = 0) -> Volume:
    """Make cells with predicted affinities, by default to the nearest neighbours."""
    if nhood is None:
        nhood = {2: NEAREST_2D, 3: NEAREST_3D}[len(shape)]
    seg = cells(shape, seed=seed)
    return seg, affinities(seg, nhood, seed=seed + 1), nhood


# ------------------------------------------------------------------------------------------------ worst cases
def one_object(shape: Sequence[int]) -> Volume:
    """Every voxel belongs to the one object: nothing divides the work."""
    seg = np.ones(shape, np.int32)
    return seg, affinities(seg, NEAREST_3D), NEAREST_3D


def random_labels(shape: Sequence[int]) -> Volume:
    """As many labels as cells, but scattered: hardly an edge lies within an object, and all objects touch."""
    labels = max(2, int(np.prod(shape)) // VOXELS_PER_CELL)
    seg = np.random.default_rng(0).integers(1, labels + 1, shape, dtype=np.int32)
    return seg, affinities(seg, NEAREST_3D), NEAREST_3D


def all_equal(shape: Sequence[int]) -> Volume:
    """Cells, and one value for all affinities: the order is that of the edge indices."""
    seg = cells(shape)
    return seg, np.full((3, *shape), 0.5, np.float32), NEAREST_3D


def no_background(shape: Sequence[int]) -> Volume:
    """Cells that touch: regions meet without background voxels in between."""
    seg = cells(shape, background=False)
    return seg, affinities(seg, NEAREST_3D), NEAREST_3D


def pure_noise(shape: Sequence[int]) -> Volume:
    """Cells, and affinities that know nothing of them."""
    seg = cells(shape)
    return seg, np.random.default_rng(1).random((3, *shape), dtype=np.float32), NEAREST_3D


def background_only(shape: Sequence[int]) -> Volume:
    """No object at all."""
    seg = np.zeros(shape, np.int32)
    return seg, affinities(seg, NEAREST_3D), NEAREST_3D


def long_range(shape: Sequence[int]) -> Volume:
    """Cells with 12 offsets of up to 27 voxels."""
    return realistic(shape, LONG_RANGE)


WORST: dict[str, Callable[[Sequence[int]], Volume]] = {
    "one object": one_object,
    "random labels": random_labels,
    "all affinities equal": all_equal,
    "no background": no_background,
    "pure-noise affinities": pure_noise,
    "background only": background_only,
    "12 long-range offsets": long_range,
}


# ------------------------------------------------------------------------------------- inputs of the rows, by name
def float64(shape: Sequence[int]) -> Volume:
    seg, aff, nhood = realistic(shape)
    return seg, aff.astype(np.float64), nhood


def batch(shape: Sequence[int], samples: int) -> Volume:
    """Stack different volumes: seg has the shape (samples, *shape), aff (samples, K, *shape)."""
    volumes = [realistic(shape, seed=10 * i) for i in range(samples)]
    seg, aff = (np.stack([volume[i] for volume in volumes]) for i in (0, 1))
    return seg, aff, volumes[0][2]


KINDS: dict[str, Callable[[Sequence[int]], Volume]] = {
    "cells": realistic,
    "float64": float64,
    "two samples": lambda shape: batch(shape, 2),
    "eight samples": lambda shape: batch(shape, 8),
    **WORST,
}


# ------------------------------------------------------------------------------------------------ masks and seeds
def slab(volume: Volume) -> np.ndarray:
    """Mark the first eighth of the volume along its first axis."""
    mask = np.zeros(volume[0].shape, bool)
    mask[: max(1, mask.shape[0] // 8)] = True
    return mask


def cube(volume: Volume) -> np.ndarray:
    """Mark a cube in the middle; at 128^3 its side is 20 voxels."""
    mask = np.zeros(volume[0].shape, bool)
    mask[tuple(slice(n // 2 - n * 10 // 128, n // 2 + n * 10 // 128) for n in mask.shape)] = True
    return mask


def all_known(volume: Volume) -> np.ndarray:
    return np.ones(volume[1].shape, bool)


def _known_outside(voxels: np.ndarray, volume: Volume) -> np.ndarray:
    return np.repeat(~voxels[np.newaxis], len(volume[2]), axis=0)


def all_but_a_slab(volume: Volume) -> np.ndarray:
    return _known_outside(slab(volume), volume)


def all_but_a_cube(volume: Volume) -> np.ndarray:
    return _known_outside(cube(volume), volume)


def nine_tenths(volume: Volume) -> np.ndarray:
    """Nine edges in ten are known, at random."""
    return np.random.default_rng(2).random(volume[1].shape, dtype=np.float32) >= 0.1


def seeds(volume: Volume) -> np.ndarray:
    """Mark one voxel of every object with its label, the first one."""
    seg = volume[0]
    labels, first = np.unique(seg, return_index=True)
    marked = np.zeros_like(seg)
    marked.flat[first] = labels
    return marked
