"""The seeded watershed of a chunked affinity graph."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from malis import _checks
from malis.malis_dask import _arguments
from malis.malis_dask._flooding import ChunkFloods, flow_to_seeds, label_voxels
from malis.segmentation import LARGEST_SEED

Integers = npt.NDArray[np.int64]


def watershed_from_affgraph(
    aff: Any,
    seeds: Any,
    nhood: npt.ArrayLike,
    size_thresh: int | None = None,
    *,
    min_size: int | None = None,
    threshold: float = -np.inf,
    num_threads: int | None = 1,
) -> tuple[Any, Integers]:
    """Segment a chunked affinity graph by the seeded maximin watershed: `malis.watershed_from_affgraph` of any size.

    Every voxel gets the seed that `malis.watershed_from_affgraph` gives it, whatever the chunks are. The forests of
    chunks are joined as in `maximum_spanning_tree`; that happens in this call. The labels are computed chunk by chunk
    when they are asked for, for which every chunk is read and flooded once more.

    Parameters
    ----------
    aff : dask.array.Array, shape (K, *shape)
        Affinities, see `affgraph_to_seg`.
    seeds : dask.array.Array of int, shape `shape`
        Labels of the seeds, at most 2**27; 0 where there is none. Voxels of one label are one seed, connected or not.
    nhood : array_like of int, shape (K, ndim)
        Offsets; they may lead further than a chunk.
    size_thresh : int, optional
        Labels of at most so many voxels become background; the name and meaning of the older packages.
    min_size : int, optional
        In place of `size_thresh`: labels of fewer voxels become background. By default 2, which is ``size_thresh=1``.
    threshold : float, optional
        Edges of a lower affinity do not exist: the components of a higher threshold as seeds grow along weaker edges.
    num_threads : int, optional
        Threads for one chunk, see `affgraph_to_seg`.

    Returns
    -------
    seg : dask.array.Array, shape `shape`
        The label of its seed for every voxel, in the dtype of `seeds` (int32 for floats); 0 where no path
        leads to a seed.
    sizes : ndarray of int64
        ``sizes[l]`` is the number of voxels of label ``l``.

    Raises
    ------
    ValueError
        For shapes that do not go together, empty or unknown ones, NaN, labels that are negative, fractional, or above
        2**27, and for a threshold that is no number.
    TypeError
        For dtypes and options of another type.

    Examples
    --------
    >>> import dask.array as da
    >>> from malis import malis_dask
    >>> aff = da.from_array([[0, 0.9, 0.8, 0.1, 0.7]], chunks=(1, 2))
    >>> seg, sizes = malis_dask.watershed_from_affgraph(aff, da.from_array([7, 0, 0, 0, 3], chunks=5), [[-1]])
    >>> seg.compute()
    array([7, 7, 7, 3, 3])
    >>> sizes
    array([0, 0, 0, 2, 0, 0, 0, 3])
    """
    offsets = _checks.as_nhood(nhood)
    affinities = _arguments.as_chunked_affinities(aff, offsets)
    labels = _arguments.as_chunked_labels(seeds, "seeds")
    _arguments.check_axes(labels, "seeds", offsets)
    if affinities.shape[1:] != labels.shape:
        raise ValueError(f"seeds must have shape {affinities.shape[1:]}, got {_checks.describe(labels)}")
    largest_small = _checks.as_size_thresh(min_size, size_thresh)
    level, threads = _checks.as_threshold(threshold, "threshold"), _checks.as_threads(num_threads)
    chunks = ChunkFloods(_arguments.grid_of(affinities.chunks[1:]), offsets, level, threads, _seeds_of)
    labels = labels.rechunk(chunks.grid.chunks)
    flow = flow_to_seeds(affinities, labels, chunks)
    sizes = flow.sizes
    kept = sizes > largest_small
    kept[0] = True
    sizes[0] += sizes[~kept].sum()
    sizes[~kept] = 0
    number = np.where(kept, np.arange(len(kept)), 0)
    return label_voxels(affinities, labels, chunks, flow, number, _dtype_of(labels)), sizes


def _dtype_of(seeds: Any) -> np.dtype[Any]:
    """Return the dtype of the labels: that of the seeds, as `malis.watershed_from_affgraph` reads them."""
    of_floats = np.int64 if seeds.dtype.itemsize == 2 else np.int32
    dtype: np.dtype[Any] = np.dtype({"b": np.uint8, "f": of_floats}.get(seeds.dtype.kind, seeds.dtype))
    return dtype


def _seeds_of(block: npt.NDArray[Any]) -> npt.NDArray[Any]:
    seeds = _checks.as_labels(block, "seeds")
    if seeds.max() > LARGEST_SEED:
        raise ValueError(f"seeds must hold labels of at most 2**27, got {seeds.max()}")
    return seeds
