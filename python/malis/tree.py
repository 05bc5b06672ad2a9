"""The maximum spanning tree of an affinity graph, and what can be read off it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from malis import _checks, _core


class SpanningTree(NamedTuple):
    """The edges of a maximum spanning tree in merge order (see `maximum_spanning_tree`)."""

    edges: npt.NDArray[np.int64]
    """Edge indices: flat C-order indices in the affinities, shape ``(m,)``."""
    affinities: npt.NDArray[Any]
    """Affinities, decreasing, shape ``(m,)``."""
    node1: npt.NDArray[Any]
    """Flat index of the voxel ``v`` of every edge, shape ``(m,)``."""
    node2: npt.NDArray[Any]
    """Flat index of the voxel ``v + nhood[k]`` of every edge, shape ``(m,)``."""
    shape: tuple[int, ...]
    """Spatial shape of the volume."""


def maximum_spanning_tree(aff: npt.ArrayLike, nhood: npt.ArrayLike, *, num_threads: int | None = None) -> SpanningTree:
    """Find the maximum spanning tree of an affinity graph: the edges that decide what is connected at any threshold.

    Edges are taken in order of decreasing affinity, equal affinities in order of increasing edge index [1]_; the tree
    consists of those that join two components. The lowest affinity on the path between two voxels in the tree is their
    maximin affinity.

    Parameters
    ----------
    aff : array_like, shape (K, *shape)
        Affinities; bool and integers are taken as well, bytes (uint8) as 0 to 255 for 0 to 1.
    nhood : array_like of int, shape (K, ndim)
        Offsets.
    num_threads : int, optional
        Threads to use; by default as set by `set_num_threads`.

    Returns
    -------
    SpanningTree
        ``edges, affinities, node1, node2, shape``, in the order in which the edges join components. There are
        ``N - 1`` of them for ``N`` voxels, or fewer where the neighbourhood does not connect the volume. Nodes are
        int32, or int64 for volumes of at least 2**31 voxels.

    Raises
    ------
    ValueError
        For shapes that do not go together, empty arrays, NaN.
    TypeError
        For dtypes and options of another type.

    See Also
    --------
    segment_tree : Segmentations at many thresholds.
    linkage : The dendrogram for scipy.cluster.hierarchy.
    edge_pairs : Counts pairs along any graph, such as ``edge_pairs(tree.node1, tree.node2, tree.affinities, seg)``.

    References
    ----------
    .. [1] J. B. Kruskal: On the shortest spanning subtree of a graph and the traveling salesman problem. Proceedings
       of the AMS 7 (1956), 48-50.

    Examples
    --------
    >>> import malis
    >>> tree = malis.maximum_spanning_tree([[[0, 0], [0.9, 0.3]], [[0, 0.4], [0, 0.8]]], malis.mknhood2d(1))
    >>> tree.affinities
    array([0.9, 0.8, 0.4])
    >>> tree.node1, tree.node2
    (array([2, 3, 1], dtype=int32), array([0, 2, 0], dtype=int32))
    """
    offsets = _checks.as_nhood(nhood)
    affinities = _checks.as_stored_affinities(aff, "aff")
    _checks.check_channels(affinities, offsets)
    tree = _core.maximum_spanning_tree(affinities, offsets, num_threads=_checks.as_threads(num_threads))
    return SpanningTree(*tree, shape=affinities.shape[1:])


def segment_tree(
    tree: SpanningTree,
    thresholds: Sequence[float] | npt.NDArray[Any],
    *,
    min_size: int = 2,
    num_threads: int | None = None,
) -> list[tuple[npt.NDArray[Any], npt.NDArray[np.int64]]]:
    """Segment an affinity graph at many thresholds, from its spanning tree.

    Parameters
    ----------
    tree : SpanningTree
        What `maximum_spanning_tree` returned.
    thresholds : sequence of float
        Edges with affinities of at least the threshold connect; in any order.
    min_size : int, optional
        Components of fewer voxels become background.
    num_threads : int, optional
        Threads to use; by default as set by `set_num_threads`.

    Returns
    -------
    list of (seg, sizes)
        For every threshold what ``affgraph_to_seg(aff, nhood, min_size=min_size, threshold=threshold)`` returns: labels
        and their numbers of voxels.

    Raises
    ------
    ValueError
        For thresholds that are no sequence of numbers, and for trees whose arrays do not go together, whose affinities
        increase or are NaN, or that join voxels outside of the volume.
    TypeError
        For a `tree` that is no `SpanningTree`, dtypes and options of another type.

    Examples
    --------
    >>> import malis
    >>> tree = malis.maximum_spanning_tree([[0, 0.9, 0.2, 0.7, 0.8]], [[-1]])
    >>> for seg, sizes in malis.segment_tree(tree, [0.75, 0.5]):
    ...     print(seg, sizes)
    [1 1 0 2 2] [1 2 2]
    [2 2 1 1 1] [0 3 2]
    """
    parts = _parts(tree)
    levels = np.asarray(thresholds)
    if levels.ndim != 1:
        raise ValueError(f"thresholds must be a sequence of numbers, got {thresholds!r}")
    return _core.segment_tree(
        *parts,
        [_checks.as_threshold(level, "thresholds") for level in levels.tolist()],
        size_thresh=_checks.as_size_thresh(min_size),
        num_threads=_checks.as_threads(num_threads),
    )


def linkage(tree: SpanningTree, *, highest: float = 1.0) -> npt.NDArray[np.float64]:
    """Return the single-linkage dendrogram in the format of SciPy.

    Row ``i`` joins the clusters ``Z[i, 0] < Z[i, 1]`` into cluster ``N + i`` of ``Z[i, 3]`` voxels at the distance
    ``Z[i, 2] = highest - affinity``; the clusters 0 to N - 1 are the voxels. Functions of `scipy.cluster.hierarchy`
    take it: ``fcluster(Z, 1 - threshold, "distance")`` are the components at a threshold, ``cophenet(Z)`` the maximin
    affinities of all pairs of voxels, as distances.

    Parameters
    ----------
    tree : SpanningTree
        What `maximum_spanning_tree` returned.
    highest : float, optional
        The affinity of distance 0; no affinity may be higher. 1 suits probabilities; for logits take
        ``tree.affinities[0]``.

    Returns
    -------
    ndarray of float64, shape (N - 1, 4)
        The dendrogram. Trees of a forest, where the neighbourhood does not connect the volume, are joined at infinite
        distance, in the order of their first voxels.

    Raises
    ------
    ValueError
        For affinities above `highest`, and for trees as in `segment_tree`.
    TypeError
        For a `tree` that is no `SpanningTree`.

    Examples
    --------
    >>> import malis
    >>> tree = malis.maximum_spanning_tree([[0, 0.75, 0.25]], [[-1]])
    >>> malis.linkage(tree)
    array([[0.  , 1.  , 0.25, 2.  ],
           [2.  , 3.  , 0.75, 3.  ]])
    """
    shape, affinities, node1, node2 = _parts(tree)
    top = _checks.as_real(highest, "highest")
    if affinities.size > 0 and affinities[0] > top:
        raise ValueError(f"highest must be at least the highest affinity of the tree, {affinities[0]}, got {highest!r}")
    return _core.linkage(math.prod(shape), affinities, node1, node2, highest=top)


def large_components(
    tree: SpanningTree, thresholds: npt.NDArray[np.float64], min_size: int
) -> tuple[npt.NDArray[Any], npt.NDArray[Any], npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Follow the components of at least `min_size` voxels along decreasing thresholds.

    Returns the voxels in the order in which they come into such a component, the component that each comes into, where
    those of every threshold begin, and for every component the one that it is joined into (or itself) and the number
    of the threshold at which it is (or the number of thresholds).
    """
    shape, affinities, node1, node2 = _parts(tree)
    return _core.large_components(math.prod(shape), affinities, node1, node2, thresholds.tolist(), min_size)


def _parts(tree: SpanningTree) -> tuple[tuple[int, ...], npt.NDArray[Any], npt.NDArray[Any], npt.NDArray[Any]]:
    """Check shape and types of a tree; what its arrays hold is checked where they are read."""
    if not isinstance(tree, SpanningTree):
        raise TypeError(f"tree must be a SpanningTree, got {type(tree).__name__}")
    return (
        tuple(_checks.as_integer(n, "tree.shape", 1) for n in tree.shape),
        _checks.contiguous(np.asarray(tree.affinities)),
        _checks.contiguous(np.asarray(tree.node1)),
        _checks.contiguous(np.asarray(tree.node2)),
    )
