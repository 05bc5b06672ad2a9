"""Segmentations from affinity graphs."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from malis import _checks, _core


def affgraph_to_seg(
    aff: npt.ArrayLike,
    nhood: npt.ArrayLike,
    size_thresh: int = 1,
    *,
    threshold: float | None = None,
    num_threads: int | None = None,
) -> tuple[npt.NDArray[Any], npt.NDArray[np.int64]]:
    """Segment an affinity graph into its connected components.

    Parameters
    ----------
    aff : array_like, shape (K, *shape)
        Affinities, or the affinity graph of a segmentation (bool and integers are taken as well).
    nhood : array_like of int, shape (K, ndim)
        Offsets.
    size_thresh : int, optional
        Components of at most so many voxels become background.
    threshold : float, optional
        Edges with ``aff >= threshold`` connect. By default those with ``abs(aff) > 1e-5`` do, which suits affinity
        graphs of zeros and ones.
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

    Examples
    --------
    >>> import malis
    >>> seg, sizes = malis.affgraph_to_seg([[0, 0.9, 0.2, 0.7, 0.8, 0.1]], [[-1]], threshold=0.5)
    >>> seg
    array([2, 2, 1, 1, 1, 0], dtype=int32)
    >>> sizes
    array([1, 3, 2])
    """
    offsets = _checks.as_nhood(nhood)
    affinities = _checks.as_affinities(aff, "aff", integers=True)
    _checks.check_channels(affinities, offsets)
    if threshold is not None:
        try:
            threshold = float(threshold)
        except (TypeError, ValueError):
            raise TypeError(f"threshold must be a real number or None, got {threshold!r}") from None
        if np.isnan(threshold):
            raise ValueError("threshold must be a number, got NaN")
    seg, sizes = _core.components(
        affinities,
        offsets,
        threshold,
        min(_checks.as_integer(size_thresh, "size_thresh", 0), 2**62),
        _checks.as_threads(num_threads),
    )
    return seg, sizes


# Labels of seeds index the sizes that are returned with them.
_LARGEST_SEED = 2**27


def watershed_from_affgraph(
    aff: npt.ArrayLike,
    seeds: npt.ArrayLike,
    nhood: npt.ArrayLike,
    size_thresh: int = 1,
    *,
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
        Labels of at most so many voxels become background.
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
    """
    offsets = _checks.as_nhood(nhood)
    labels = _checks.as_labels(seeds, "seeds")
    affinities = _checks.as_affinities(aff, "aff", integers=True)
    _checks.check_volume(affinities, labels, "seeds", offsets)
    smallest = _checks.as_integer(size_thresh, "size_thresh", 0)
    if labels.max() > _LARGEST_SEED:
        raise ValueError(
            f"seeds must hold labels of at most 2**27, got {labels.max()}: number them anew, for example with "
            "skimage.segmentation.relabel_sequential"
        )
    seg = _core.watershed(affinities, labels, offsets, _checks.as_threads(num_threads))
    sizes = np.bincount(seg.ravel().astype(np.int64, copy=False), minlength=int(labels.max()) + 1)
    small = sizes <= smallest
    small[0] = False
    if np.any(small & (sizes > 0)):
        seg[small[seg]] = 0
        sizes[0] += sizes[small].sum()
        sizes[small] = 0
    return seg, sizes.astype(np.int64, copy=False)
