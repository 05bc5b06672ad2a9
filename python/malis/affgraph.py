"""Affinity graphs of segmentations and boundary maps, and their edges as lists."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from malis import _checks, _core
from malis.nhood import ends


def seg_to_affgraph(
    seg: npt.ArrayLike, nhood: npt.ArrayLike, *, num_threads: int | None = None
) -> npt.NDArray[np.int32]:
    """Make the affinity graph of a segmentation.

    Parameters
    ----------
    seg : array_like of int, shape `shape`
        Labels, 1 to 3 dimensions; 0 is background.
    nhood : array_like of int, shape (K, ndim)
        Offsets.
    num_threads : int, optional
        Threads to use; by default as set by `set_num_threads`.

    Returns
    -------
    ndarray of int32, shape (K, *shape)
        1 where ``v`` and ``v + nhood[k]`` carry the same label and it is not 0; 0 elsewhere, also for edges that
        leave the volume.

    Raises
    ------
    ValueError
        For shapes that do not go together, empty arrays, negative or fractional labels.
    TypeError
        For labels or offsets that are no integers.

    Examples
    --------
    >>> import malis
    >>> malis.seg_to_affgraph([1, 1, 0, 2, 2], [[-1]])
    array([[0, 1, 0, 0, 1]], dtype=int32)
    """
    labels = _checks.as_labels(seg, "seg")
    offsets = _checks.as_nhood(nhood)
    if labels.ndim != offsets.shape[1]:
        raise ValueError(f"seg must have {offsets.shape[1]} axes as nhood has columns, got {_checks.describe(labels)}")
    return _core.seg_to_affgraph(labels, offsets, num_threads=_checks.as_threads(num_threads))


def bmap_to_affgraph(bmap: npt.ArrayLike, nhood: npt.ArrayLike) -> npt.NDArray[Any]:
    """Make the affinity graph of a boundary map.

    Parameters
    ----------
    bmap : array_like, shape `shape`
        Boundaries: 0 (or False) inside of objects, 1 on a boundary; floating point numbers in between are
        probabilities of a boundary.
    nhood : array_like of int, shape (K, ndim)
        Offsets to direct neighbours: no component beyond 1, as a longer edge could jump a boundary.

    Returns
    -------
    ndarray, shape (K, *shape)
        ``1 - max(bmap[v], bmap[v + nhood[k]])``, 0 for edges that leave the volume; int32 for a bool or integer
        map, else the dtype of `bmap`.

    Raises
    ------
    ValueError
        For offsets beyond 1, shapes that do not go together, empty arrays, values outside of 0 to 1, or NaN.
    TypeError
        For maps that hold no real numbers.

    Examples
    --------
    >>> import malis
    >>> malis.bmap_to_affgraph([0, 0, 1, 0, 0], [[-1]])
    array([[0, 1, 0, 0, 1]], dtype=int32)
    """
    boundary = np.asarray(bmap)
    offsets = _checks.as_nhood(nhood, boundary.ndim)
    if boundary.dtype.kind not in "biuf":
        raise TypeError(f"bmap must hold real numbers, got {_checks.describe(boundary)}")
    if boundary.size == 0:
        raise ValueError(f"bmap must not be empty, got {_checks.describe(boundary)}")
    if np.abs(offsets).max() > 1:
        raise ValueError(f"nhood must lead to direct neighbours of a boundary map, got {offsets.tolist()}")
    if not (boundary.min() >= 0 and boundary.max() <= 1):  # also false for NaN
        raise ValueError(f"bmap must lie within 0 and 1, got {boundary.min()} to {boundary.max()}")
    if boundary.dtype.kind != "f":
        boundary = boundary.astype(np.int32)
    aff = np.zeros((len(offsets), *boundary.shape), boundary.dtype)
    for channel, offset in zip(aff, offsets.tolist(), strict=True):
        both = ends(boundary.shape, offset)
        if both is not None:
            at, to = both
            channel[at] = 1 - np.maximum(boundary[at], boundary[to])
    return aff


def nodelist_from_shape(shape: Sequence[int], nhood: npt.ArrayLike) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """List both ends of every edge of a volume.

    Parameters
    ----------
    shape : sequence of int
        Spatial shape of the volume.
    nhood : array_like of int, shape (K, ndim)
        Offsets.

    Returns
    -------
    node1, node2 : ndarray of int32, shape (K, *shape)
        Flat indices of ``v`` and ``v + nhood[k]``; -1 in `node2` for edges that leave the volume. int64 where int32
        would not hold them.

    Raises
    ------
    ValueError
        For a `shape` that is no volume or does not go with `nhood`.
    TypeError
        For a `shape` or offsets that are no integers.

    Examples
    --------
    >>> import malis
    >>> node1, node2 = malis.nodelist_from_shape((2, 2), malis.mknhood2d(1))
    >>> node2[0]
    array([[-1, -1],
           [ 0,  1]], dtype=int32)
    """
    size = tuple(_checks.as_integer(n, "shape", 1) for n in shape)
    offsets = _checks.as_nhood(nhood, len(size))
    voxels = int(np.prod(size, dtype=object))
    nodes = np.arange(voxels, dtype=np.int32 if voxels < 2**31 else np.int64).reshape(size)
    node1 = np.tile(nodes, (len(offsets),) + (1,) * len(size))
    node2 = np.full(node1.shape, -1, nodes.dtype)
    for channel, offset in zip(node2, offsets.tolist(), strict=True):
        both = ends(size, offset)
        if both is not None:
            at, to = both
            channel[at] = nodes[to]
    return node1, node2


def affgraph_to_edgelist(
    aff: npt.ArrayLike, nhood: npt.ArrayLike
) -> tuple[npt.NDArray[Any], npt.NDArray[Any], npt.NDArray[Any]]:
    """List the edges of an affinity graph.

    Parameters
    ----------
    aff : array_like, shape (K, *shape)
        Affinities of any dtype.
    nhood : array_like of int, shape (K, ndim)
        Offsets.

    Returns
    -------
    node1, node2 : ndarray of int32, shape (K * N,)
        See `nodelist_from_shape`; flat.
    weights : ndarray, shape (K * N,)
        The affinities, flat.

    Raises
    ------
    ValueError
        For shapes that do not go together.

    Examples
    --------
    >>> import malis
    >>> malis.affgraph_to_edgelist([[0.0, 0.9]], [[-1]])
    (array([0, 1], dtype=int32), array([-1,  0], dtype=int32), array([0. , 0.9]))
    """
    affinities = np.asarray(aff)
    offsets = _checks.as_nhood(nhood)
    _checks.check_channels(affinities, offsets)
    node1, node2 = nodelist_from_shape(affinities.shape[1:], offsets)
    return node1.ravel(), node2.ravel(), affinities.ravel()
