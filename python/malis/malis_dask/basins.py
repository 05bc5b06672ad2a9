"""The watershed without seeds of a chunked affinity graph.

The seeds of its basins are the regional maxima: connected edges of one affinity that no stronger edge touches. With the
strongest affinity at every voxel these can be seen edge by edge: an edge that is the strongest at both of its voxels is
*flat*, one that is the strongest at one of them alone leads *uphill*. Voxels that flat edges connect are a plateau, and
a plateau that no edge leads uphill from is a regional maximum. So the affinity graph of flat edges is segmented into
plateaus, and the seeded watershed does the rest.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import dask.array as da
import numpy as np
import numpy.typing as npt

from malis import _checks
from malis.malis_dask import _arguments
from malis.malis_dask._chunks import ChunkGrid
from malis.malis_dask._connects import connects
from malis.malis_dask._flooding import ChunkFloods, flow_to_seeds, label_voxels
from malis.malis_dask._forests import distinct
from malis.malis_dask._graph import Tasks
from malis.malis_dask.segmentation import affgraph_to_seg
from malis.nhood import ends

Array = npt.NDArray[Any]
Integers = npt.NDArray[np.int64]


def watershed_basins(
    aff: Any,
    nhood: npt.ArrayLike,
    *,
    min_size: int = 2,
    threshold: float = -np.inf,
    num_threads: int | None = 1,
) -> tuple[Any, Integers]:
    """Segment a chunked affinity graph into the basins of its regional maxima: `malis.watershed_basins` of any size.

    The labels are those of `malis.watershed_basins`, whatever the chunks are. Plateaus of equal affinities are
    segmented as in `affgraph_to_seg`, and those from which no edge leads uphill are the seeds of
    `watershed_from_affgraph`; that happens in this call. The labels are computed chunk by chunk when they are asked
    for, for which chunks are read, plateaus found and chunks flooded once more.

    Parameters
    ----------
    aff : dask.array.Array, shape (K, *shape)
        Affinities, see `affgraph_to_seg`.
    nhood : array_like of int, shape (K, ndim)
        Offsets; they may lead further than a chunk. A chunk is read with a margin as wide as they are long.
    min_size : int, optional
        Basins of fewer voxels become background.
    threshold : float, optional
        Edges of a lower affinity do not exist: voxels that no stronger edge reaches are background.
    num_threads : int, optional
        Threads for one chunk, see `affgraph_to_seg`.

    Returns
    -------
    seg : dask.array.Array of uint64, shape `shape`
        Labels 1..n by decreasing size (equal sizes by their first voxel), 0 for what is too small.
    sizes : ndarray of int64, shape (n + 1,)
        ``sizes[l]`` is the number of voxels of label ``l``; ``sizes[0]`` that of the background.

    Raises
    ------
    ValueError
        For shapes that do not go together, empty or unknown ones, NaN, a threshold that is no number, a negative size.
    TypeError
        For dtypes and options of another type.

    Examples
    --------
    >>> import dask.array as da
    >>> from malis import malis_dask
    >>> aff = da.from_array([[0, 0.8, 0.8, 0.5, 0.6, 0.9]], chunks=(1, 2))
    >>> seg, sizes = malis_dask.watershed_basins(aff, [[-1]])
    >>> seg.compute()
    array([1, 1, 1, 2, 2, 2], dtype=uint64)
    >>> sizes
    array([0, 3, 3])
    """
    offsets = _checks.as_nhood(nhood)
    affinities = _arguments.as_chunked_affinities(aff, offsets)
    largest_small = _checks.as_size_thresh(min_size)
    level, threads = _checks.as_threshold(threshold, "threshold"), _checks.as_threads(num_threads)
    chunks = ChunkFloods(_arguments.grid_of(affinities.chunks[1:]), offsets, level, threads, _as_they_are)
    slopes = _slopes(affinities, offsets, level).rechunk((-1, *chunks.grid.chunks))
    # A voxel alone is a plateau as well, but a maximum only where it has no edge at all, and then a basin of one voxel.
    plateaus, _ = affgraph_to_seg(slopes[:-1], offsets, min(1, largest_small), threshold=1, num_threads=threads)
    seeds = _maxima(plateaus, slopes[-1], chunks.grid)
    flow = flow_to_seeds(affinities, seeds, chunks)
    large = np.flatnonzero(flow.sizes > largest_small)
    large = large[large > 0]
    order = large[np.lexsort((flow.first[large], -flow.sizes[large]))]
    number = np.zeros(len(flow.sizes), np.int64)
    number[order] = np.arange(1, len(order) + 1)
    sizes = np.concatenate([[flow.sizes.sum() - flow.sizes[order].sum()], flow.sizes[order]])
    return label_voxels(affinities, seeds, chunks, flow, number, np.uint64), sizes


def _slopes(aff: Any, nhood: Integers, threshold: float) -> Any:
    """Return a dask array of bool, (K + 1, *shape): which edges are flat, and from which voxels one leads uphill."""
    longest = np.abs(nhood).max(axis=0).tolist()
    margins = [min(n - 1, length) for n, length in zip(aff.shape[1:], longest, strict=True)]
    wide = _with_margins(aff, [0, *margins])
    dtype = _checks.as_affinities(np.zeros(1, aff.dtype), "aff", integers=True).dtype
    strongest = da.map_blocks(_strongest, wide, nhood, threshold, dtype=dtype, drop_axis=0, meta=np.zeros(0, dtype))
    slopes = da.map_blocks(
        _slopes_of_block,
        wide,
        _with_margins(_without_margins(strongest, margins), margins),
        nhood,
        dtype=bool,
        chunks=((len(nhood) + 1,), *wide.chunks[1:]),
        meta=np.zeros(0, bool),
    )
    return _without_margins(slopes, [0, *margins])


def _with_margins(array: Any, margins: Sequence[int]) -> Any:
    depth = dict(enumerate(margins))
    return da.overlap.overlap(array, depth, dict.fromkeys(depth, "none"))


def _without_margins(array: Any, margins: Sequence[int]) -> Any:
    depth = dict(enumerate(margins))
    return da.overlap.trim_internal(array, depth, dict.fromkeys(depth, "none"))


def _strongest(block: Array, nhood: Integers, threshold: float) -> Array:
    """Return the strongest affinity at every voxel, NaN where there is none of at least `threshold`."""
    aff = _checks.as_affinities(block, "aff", integers=True)
    strongest = np.full(aff.shape[1:], np.nan, aff.dtype)
    for channel, at, to in _ends(aff.shape[1:], nhood):
        there = np.where(connects(aff[channel][at], threshold), aff[channel][at], np.nan)
        for end in (at, to):
            strongest[end] = np.fmax(strongest[end], there)
    return strongest


def _slopes_of_block(block: Array, strongest: Array, nhood: Integers) -> npt.NDArray[np.bool_]:
    """Return what `_slopes` does of the edges within a block."""
    aff = _checks.as_affinities(block, "aff", integers=True)
    slopes = np.zeros((len(nhood) + 1, *strongest.shape), bool)
    for channel, at, to in _ends(strongest.shape, nhood):
        here, there, edge = strongest[at], strongest[to], aff[channel][at]
        slopes[channel][at] = (edge == here) & (edge == there)
        slopes[-1][at] |= (edge == here) & (edge < there)
        slopes[-1][to] |= (edge == there) & (edge < here)
    return slopes


def _ends(shape: tuple[int, ...], nhood: Integers) -> Iterator[tuple[int, tuple[slice, ...], tuple[slice, ...]]]:
    """Yield the channel, the voxels and the neighbours of the edges of every offset that lie within an array."""
    for channel, offset in enumerate(nhood.tolist()):
        both = ends(shape, offset)
        if both is not None and any(offset):
            yield channel, *both


def _maxima(plateaus: Any, leaves: Any, grid: ChunkGrid) -> Any:
    """Return the labels of plateaus that no edge leads uphill from, as a dask array; 0 for the others."""
    tasks = Tasks(plateaus, leaves)
    found = [tasks.call(_left, (plateaus.name, *index), (leaves.name, *index), name="left") for index in grid]
    left = tasks.compute(tasks.reduce(distinct, found, name="join"))
    second_pass = Tasks(plateaus)
    keys = [second_pass.call(partial(_without, left), (plateaus.name, *index), name="maxima") for index in grid]
    return second_pass.array(keys, grid.chunks, np.uint64, "malis-maxima")


def _left(plateaus: Array, leaves: npt.NDArray[np.bool_]) -> Array:
    return distinct(plateaus[leaves])


def _without(left: Array, plateaus: Array) -> Array:
    return np.where(np.isin(plateaus, left), 0, plateaus)


def _as_they_are(seeds: Array) -> Array:
    return seeds
