"""Labels of chunked volumes whose objects are connected."""

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
    keep_components,
    label_volume,
    voxels_of_faces,
)
from malis.malis_dask._scratch import Scratch


@dataclass(frozen=True)
class PartLabeller:
    """Divides the labels of chunks into connected parts."""

    nhood: npt.NDArray[np.int64]
    num_threads: int | None

    def faces(self, grid: ChunkGrid) -> dict[Index, Faces]:  # noqa: D102
        return faces_of_offsets(grid, self.nhood)

    def label(self, block: npt.NDArray[Any], faces: Faces, size_thresh: int) -> Labelled:  # noqa: D102
        seg = _checks.as_labels(block, "seg")
        if seg.dtype.itemsize < 4:  # there may be more parts than a small dtype has numbers for
            seg = seg.astype(np.int32)
        parts = _core.connect_labels(seg, self.nhood, num_threads=self.num_threads).astype(np.int64, copy=False)
        return keep_components(parts, voxels_of_faces(block.shape, faces), size_thresh)

    def leaving(self, block: npt.NDArray[Any], labels: npt.NDArray[Any], crossing: Crossing) -> Face:  # noqa: D102
        return labels[crossing.at], block[crossing.at]

    def entered(self, block: npt.NDArray[Any], labels: npt.NDArray[Any], crossing: Crossing) -> Face:  # noqa: D102
        return labels[crossing.to], block[crossing.to]


def connect_labels(
    seg: Any,
    nhood: npt.ArrayLike | None = None,
    *,
    num_threads: int | None = 1,
    scratch: str | os.PathLike[str] | None = None,
) -> Any:
    """Give every connected part of a label a label of its own: `malis.connect_labels` of any size of volume.

    Parameters
    ----------
    seg : dask.array.Array of int, shape `shape`
        Labels, 1 to 3 dimensions, as for `malis.connect_labels`; 0 is background. No batches.
    nhood : array_like of int, shape (K, ndim), optional
        Offsets between neighbours, which may lead further than a chunk. By default the nearest neighbours.
    num_threads : int, optional
        Threads for one chunk, see `affgraph_to_seg`.
    scratch : path, optional
        A folder for the labels of chunks, 4 bytes a voxel, see `affgraph_to_seg`.

    Returns
    -------
    dask.array.Array of uint64, shape `shape`
        Labels 1..n in the order of their first voxels, 0 for background.

    Raises
    ------
    ValueError
        For shapes that do not go together, empty or unknown ones, negative or fractional labels.
    TypeError
        For labels or offsets that are no integers.

    Examples
    --------
    >>> import dask.array as da
    >>> from malis import malis_dask
    >>> malis_dask.connect_labels(da.from_array([7, 7, 0, 7, 9, 9], chunks=2)).compute()
    array([1, 1, 0, 2, 3, 3], dtype=uint64)
    """
    labels = _arguments.as_chunked_labels(seg, "seg")
    offsets = _checks.as_nhood(-np.eye(max(1, labels.ndim), dtype=np.int64) if nhood is None else nhood)
    _arguments.check_axes(labels, "seg", offsets)
    grid = _arguments.grid_of(labels.chunks)
    numbering = Numbering(0, by_size=False)
    job = {"chunks": grid.chunks, "dtype": str(labels.dtype), "connect": offsets.tolist()}
    kept = None if scratch is None else Scratch.of(scratch, job)
    return label_volume(labels, grid, PartLabeller(offsets, _checks.as_threads(num_threads)), numbering, kept)[0]
