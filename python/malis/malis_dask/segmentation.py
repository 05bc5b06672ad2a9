"""Segmentations of chunked affinity graphs."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from malis import _checks, _core
from malis.malis_dask import _arguments
from malis.malis_dask._chunks import ChunkGrid, Crossing, Index
from malis.malis_dask._components import (
    Face,
    Faces,
    Labelled,
    Numbering,
    faces_of_offsets,
    label_volume,
    voxels_of_faces,
)
from malis.malis_dask._connects import connects
from malis.malis_dask._scratch import Scratch


@dataclass(frozen=True)
class AffinityLabeller:
    """Segments chunks of affinities into connected components."""

    nhood: npt.NDArray[np.int64]
    threshold: float | None
    num_threads: int | None

    def faces(self, grid: ChunkGrid) -> dict[Index, Faces]:  # noqa: D102
        return faces_of_offsets(grid, self.nhood)

    def label(self, block: npt.NDArray[Any], faces: Faces, size_thresh: int) -> Labelled:  # noqa: D102
        found = _core.chunk_components(
            _checks.as_stored_affinities(block, "aff"),
            self.nhood,
            voxels_of_faces(block.shape[1:], faces),
            threshold=self.threshold,
            size_thresh=size_thresh,
            num_threads=self.num_threads,
        )
        return Labelled(*found)

    def leaving(self, block: npt.NDArray[Any], labels: npt.NDArray[Any], crossing: Crossing) -> Face:  # noqa: D102
        aff = _checks.as_affinities(block[crossing.channel][crossing.at], "aff", integers=True)
        return (np.where(connects(aff, self.threshold), labels[crossing.at], 0),)

    def entered(self, block: npt.NDArray[Any], labels: npt.NDArray[Any], crossing: Crossing) -> Face:  # noqa: D102
        return (labels[crossing.to],)


def affgraph_to_seg(
    aff: Any,
    nhood: npt.ArrayLike,
    size_thresh: int | None = None,
    *,
    min_size: int | None = None,
    threshold: float | None = None,
    num_threads: int | None = 1,
    scratch: str | os.PathLike[str] | None = None,
) -> tuple[Any, npt.NDArray[np.int64]]:
    """Segment a chunked affinity graph into its connected components: `malis.affgraph_to_seg` of any size of volume.

    The labels are those of `malis.affgraph_to_seg`, whatever the chunks are and however far offsets lead. Chunks are
    segmented on their own, and a graph of what touches along their faces is solved; that happens in this call. The
    labels themselves are computed chunk by chunk when they are asked for, so write them with ``seg.to_zarr(...)``.

    Parameters
    ----------
    aff : dask.array.Array, shape (K, *shape)
        Affinities, as for `malis.affgraph_to_seg`; bytes (uint8) and float16 are converted chunk by chunk. A chunk
        holds all channels (it is merged along the first axis where not) and fewer than 2**31 voxels. What is no dask
        array is handed to `dask.array.asarray`.
    nhood : array_like of int, shape (K, ndim)
        Offsets; they may lead further than a chunk.
    size_thresh : int, optional
        Components of at most so many voxels become background; the name and meaning of the older packages.
    min_size : int, optional
        In place of `size_thresh`: components of fewer voxels become background. By default 2, which is
        ``size_thresh=1``. It is the size in the whole volume that counts.
    threshold : float, optional
        Edges with ``aff >= threshold`` connect. By default those with ``abs(aff) > 1e-5`` do.
    num_threads : int, optional
        Threads for one chunk, 1 by default, as dask computes several chunks at a time; None: as set by
        `malis.set_num_threads`.
    scratch : path, optional
        A folder for the labels of chunks between the two passes: 2 bytes a voxel (4 in chunks with 2**16 components or
        more that are large enough or reach a face), and what the faces need. Without it every chunk is read and
        segmented once more when its labels are asked for. A call with the folder of one that
        was stopped goes on where that one was, also after a kill; `aff` must hold the same. Workers of
        `dask.distributed` must all see the folder. Remove it after the labels are written.

    Returns
    -------
    seg : dask.array.Array of uint64, shape `shape`
        Labels 1..n by decreasing size (equal sizes by their first voxel), 0 for what is too small.
    sizes : ndarray of int64, shape (n + 1,)
        ``sizes[l]`` is the number of voxels of label ``l``; ``sizes[0]`` that of the background.

    Raises
    ------
    ValueError
        For shapes that do not go together, empty or unknown ones, NaN, a threshold that is no number, a negative size,
        a folder `scratch` of other arguments.
    TypeError
        For dtypes and options of another type.

    Examples
    --------
    >>> import dask.array as da
    >>> from malis import malis_dask
    >>> aff = da.from_array([[0, 0.9, 0.2, 0.7, 0.8, 0.1]], chunks=(1, 2))
    >>> seg, sizes = malis_dask.affgraph_to_seg(aff, [[-1]], threshold=0.5)
    >>> seg.compute()
    array([2, 2, 1, 1, 1, 0], dtype=uint64)
    >>> sizes
    array([1, 3, 2])
    """
    offsets = _checks.as_nhood(nhood)
    affinities = _arguments.as_chunked_affinities(aff, offsets)
    level = None if threshold is None else _checks.as_threshold(threshold, "threshold")
    numbering = Numbering(_checks.as_size_thresh(min_size, size_thresh), by_size=True)
    grid = _arguments.grid_of(affinities.chunks[1:])
    kept = None
    if scratch is not None:
        job = {
            "chunks": grid.chunks,
            "dtype": str(affinities.dtype),
            "nhood": offsets.tolist(),
            "threshold": level,
            "size_thresh": numbering.size_thresh,
        }
        kept = Scratch.of(scratch, job)
    labeller = AffinityLabeller(offsets, level, _checks.as_threads(num_threads))
    return label_volume(affinities, grid, labeller, numbering, kept)
