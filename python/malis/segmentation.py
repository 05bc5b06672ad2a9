"""Segmentations from affinity graphs."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from malis import _checks, _core


def affgraph_to_seg(
    aff: npt.ArrayLike,
    nhood: npt.ArrayLike,
    size_thresh: int | None = None,
    *,
    min_size: int | None = None,
    threshold: float | None = None,
    small: Literal["drop", "merge"] = "drop",
    num_threads: int | None = None,
) -> tuple[npt.NDArray[Any], npt.NDArray[np.int64]]:
    """Segment an affinity graph into its connected components.

    Parameters
    ----------
    aff : array_like, shape (K, *shape)
        Affinities, or the affinity graph of a segmentation (bool and integers are taken as well); bytes (uint8) are
        0 to 255 for 0 to 1.
    nhood : array_like of int, shape (K, ndim)
        Offsets.
    size_thresh : int, optional
        Components of at most so many voxels are small; the name and meaning of the older packages.
    min_size : int, optional
        In place of `size_thresh`: components of fewer voxels are small. By default 2, which is ``size_thresh=1``.
    threshold : float, optional
        Edges with ``aff >= threshold`` connect. By default those with ``abs(aff) > 1e-5`` do, which suits affinity
        graphs of zeros and ones.
    small : {"drop", "merge"}, optional
        "drop": small components become background. "merge": they are first joined along their best edges, as in [1]_.
        All edges are taken once more in order of decreasing affinity (equal affinities by increasing edge index), and
        one that leads from a component that is small by then to another joins the two, however low its affinity. Only
        what no edge connects to enough voxels is still dropped.
    num_threads : int, optional
        Threads to use; by default as set by `set_num_threads`.

    Returns
    -------
    seg : ndarray of int32, shape `shape`
        Labels 1..n by decreasing size (equal sizes by their first voxel), 0 for what is too small; int64 for volumes
        of at least 2**31 voxels.
    sizes : ndarray of int64, shape (n + 1,)
        ``sizes[l]`` is the number of voxels of label ``l``; ``sizes[0]`` that of the background.

    Raises
    ------
    ValueError
        For shapes that do not go together, empty arrays, NaN, a threshold that is no number, a negative size.
    TypeError
        For dtypes and options of another type.

    See Also
    --------
    segment_tree : The same at many thresholds.
    rand_curve : Which threshold is best.

    References
    ----------
    .. [1] P. Felzenszwalb, D. Huttenlocher: Efficient graph-based image segmentation. International Journal of
       Computer Vision 59 (2004), 167-181; the minimum component size of its implementation.

    Examples
    --------
    >>> import malis
    >>> aff = [[0, 0.9, 0.2, 0.7, 0.8, 0.1]]
    >>> seg, sizes = malis.affgraph_to_seg(aff, [[-1]], threshold=0.5)
    >>> seg
    array([2, 2, 1, 1, 1, 0], dtype=int32)
    >>> sizes
    array([1, 3, 2])
    >>> malis.affgraph_to_seg(aff, [[-1]], threshold=0.5, small="merge")[0]
    array([2, 2, 1, 1, 1, 1], dtype=int32)
    """
    offsets = _checks.as_nhood(nhood)
    affinities = _checks.as_stored_affinities(aff, "aff")
    _checks.check_channels(affinities, offsets)
    seg, sizes = _core.components(
        affinities,
        offsets,
        threshold=None if threshold is None else _checks.as_threshold(threshold, "threshold"),
        size_thresh=_checks.as_size_thresh(min_size, size_thresh),
        merge_small=_checks.as_choice(small, "small", ("drop", "merge")) == "merge",
        num_threads=_checks.as_threads(num_threads),
    )
    return seg, sizes


def watershed_basins(
    aff: npt.ArrayLike,
    nhood: npt.ArrayLike,
    *,
    min_size: int = 2,
    threshold: float = -np.inf,
    num_threads: int | None = None,
) -> tuple[npt.NDArray[Any], npt.NDArray[np.int64]]:
    """Segment an affinity graph into the basins of its regional maxima: the maximin watershed without seeds.

    A set of edges of one affinity that are connected and touch no edge of a higher affinity is a *regional maximum*.
    Each is the seed of one basin, and every other voxel gets the basin that `watershed_from_affgraph` gives it: that
    to which its strongest edge leads, and from there the strongest edge, uphill to a maximum; where several are equal
    the edge of the smallest index decides. This is a watershed cut [1]_, and what [2]_ begin with. A voxel without an
    edge is a basin of its own.

    Parameters
    ----------
    aff : array_like, shape (K, *shape)
        Affinities; bool and integers are taken as well, bytes (uint8) as 0 to 255 for 0 to 1.
    nhood : array_like of int, shape (K, ndim)
        Offsets.
    min_size : int, optional
        Basins of fewer voxels become background.
    threshold : float, optional
        Edges of a lower affinity do not exist: voxels that no stronger edge reaches are background. For the upper
        threshold of [2]_, above which all edges connect, pass ``np.minimum(aff, high)``.
    num_threads : int, optional
        Threads to use; by default as set by `set_num_threads`.

    Returns
    -------
    seg : ndarray of int32, shape `shape`
        Labels 1..n by decreasing size (equal sizes by their first voxel), 0 for what is too small; int64 for volumes
        of at least 2**31 voxels.
    sizes : ndarray of int64, shape (n + 1,)
        ``sizes[l]`` is the number of voxels of label ``l``; ``sizes[0]`` that of the background.

    Raises
    ------
    ValueError
        For shapes that do not go together, empty arrays, NaN, a negative size.
    TypeError
        For dtypes and options of another type.

    References
    ----------
    .. [1] J. Cousty, G. Bertrand, L. Najman, M. Couprie: Watershed cuts: minimum spanning forests and the drop of
       water principle. IEEE TPAMI 31 (2009), 1362-1374.
    .. [2] A. Zlateski, H. S. Seung: Image segmentation by size-dependent single linkage clustering of a watershed basin
       graph. arXiv:1505.00249 (2015).

    Examples
    --------
    >>> import malis
    >>> seg, sizes = malis.watershed_basins([[0, 0.8, 0.8, 0.5, 0.6, 0.9]], [[-1]])
    >>> seg
    array([1, 1, 1, 2, 2, 2], dtype=int32)
    """
    offsets = _checks.as_nhood(nhood)
    affinities = _checks.as_stored_affinities(aff, "aff")
    _checks.check_channels(affinities, offsets)
    return _core.watershed_basins(
        affinities,
        offsets,
        threshold=_checks.as_threshold(threshold, "threshold"),
        size_thresh=_checks.as_size_thresh(min_size),
        num_threads=_checks.as_threads(num_threads),
    )


# The sizes that are returned are indexed by the labels of seeds: a larger label would take gigabytes of them.
LARGEST_SEED = 2**27


def watershed_from_affgraph(
    aff: npt.ArrayLike,
    seeds: npt.ArrayLike,
    nhood: npt.ArrayLike,
    size_thresh: int | None = None,
    *,
    min_size: int | None = None,
    threshold: float = -np.inf,
    num_threads: int | None = None,
) -> tuple[npt.NDArray[Any], npt.NDArray[np.int64]]:
    """Segment an affinity graph by the seeded maximin watershed.

    Edges are taken in order of decreasing affinity (equal affinities by increasing edge index). Every voxel gets the
    seed that it is joined to first; two seeds are never joined. This is the minimum spanning forest cut of [1]_.

    Parameters
    ----------
    aff : array_like of float, shape (K, *shape)
        Affinities.
    seeds : array_like of int, shape `shape`
        Labels of the seeds; 0 where there is none. Voxels of one label are one seed, connected or not.
    nhood : array_like of int, shape (K, ndim)
        Offsets.
    size_thresh : int, optional
        Labels of at most so many voxels become background; the name and meaning of the older packages.
    min_size : int, optional
        In place of `size_thresh`: labels of fewer voxels become background. By default 2, which is ``size_thresh=1``.
    threshold : float, optional
        Edges of a lower affinity do not exist. Where the seeds are the components of a higher threshold, these grow
        along weaker edges, but not into each other: segmentation by two thresholds.
    num_threads : int, optional
        Threads to use; by default as set by `set_num_threads`.

    Returns
    -------
    seg : ndarray, shape `shape`
        The label of its seed for every voxel, in the dtype of `seeds`; 0 where no path leads to a seed.
    sizes : ndarray of int64
        ``sizes[l]`` is the number of voxels of label ``l``.

    Raises
    ------
    ValueError
        For shapes that do not go together, empty arrays, NaN, labels that are negative, fractional, or above 2**27.
    TypeError
        For dtypes and options of another type.

    References
    ----------
    .. [1] J. Cousty, G. Bertrand, L. Najman, M. Couprie: Watershed cuts: minimum spanning forests and the drop of
       water principle. IEEE TPAMI 31 (2009), 1362-1374.

    Examples
    --------
    >>> import malis
    >>> seg, sizes = malis.watershed_from_affgraph([[0, 0.9, 0.8, 0.1, 0.7]], [7, 0, 0, 0, 3], [[-1]])
    >>> seg
    array([7, 7, 7, 3, 3])
    >>> sizes
    array([0, 0, 0, 2, 0, 0, 0, 3])

    Components at 0.85 that grow along edges of at least 0.5:

    >>> aff = [[0, 0.9, 0.8, 0.1, 0.7, 0.9]]
    >>> seeds, _ = malis.affgraph_to_seg(aff, [[-1]], threshold=0.85)
    >>> seeds
    array([1, 1, 0, 0, 2, 2], dtype=int32)
    >>> malis.watershed_from_affgraph(aff, seeds, [[-1]], threshold=0.5)[0]
    array([1, 1, 1, 2, 2, 2], dtype=int32)
    """
    offsets = _checks.as_nhood(nhood)
    labels = _checks.as_labels(seeds, "seeds")
    affinities = _checks.as_stored_affinities(aff, "aff")
    _checks.check_volume(affinities, labels, "seeds", offsets)
    largest_small = _checks.as_size_thresh(min_size, size_thresh)
    if labels.max() > LARGEST_SEED:
        raise ValueError(
            f"seeds must hold labels of at most 2**27, got {labels.max()}: number them anew, for example with "
            "skimage.segmentation.relabel_sequential"
        )
    seg = _core.watershed(
        affinities,
        labels,
        offsets,
        threshold=_checks.as_threshold(threshold, "threshold"),
        num_threads=_checks.as_threads(num_threads),
    )
    sizes = np.bincount(seg.ravel().astype(np.int64, copy=False), minlength=int(labels.max()) + 1)
    small = sizes <= largest_small
    small[0] = False
    if np.any(small & (sizes > 0)):
        seg[small[seg]] = 0
        sizes[0] += sizes[small].sum()
        sizes[small] = 0
    return seg, sizes.astype(np.int64, copy=False)
