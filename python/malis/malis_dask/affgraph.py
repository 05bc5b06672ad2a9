"""Affinity graphs of chunked segmentations."""

from __future__ import annotations

from typing import Any

import dask.array as da
import numpy as np
import numpy.typing as npt

from malis import _checks, _core
from malis.malis_dask import _arguments


def seg_to_affgraph(seg: Any, nhood: npt.ArrayLike, *, num_threads: int | None = 1) -> Any:
    """Make the affinity graph of a chunked segmentation: `malis.seg_to_affgraph` of any size of volume, lazily.

    Parameters
    ----------
    seg : dask.array.Array of int, shape `shape`
        Labels, 1 to 3 dimensions; 0 is background.
    nhood : array_like of int, shape (K, ndim)
        Offsets; they may lead further than a chunk.
    num_threads : int, optional
        Threads for one chunk, see `affgraph_to_seg`.

    Returns
    -------
    dask.array.Array of int32, shape (K, *shape)
        1 where ``v`` and ``v + nhood[k]`` carry the same label and it is not 0, 0 elsewhere. A chunk has all channels
        and the voxels of one of `seg`.

    Raises
    ------
    ValueError
        For shapes that do not go together, empty or unknown ones; for negative or fractional labels when it is
        computed.
    TypeError
        For labels or offsets that are no integers.

    Examples
    --------
    >>> import dask.array as da
    >>> from malis import malis_dask
    >>> malis_dask.seg_to_affgraph(da.from_array([1, 1, 0, 2, 2], chunks=2), [[-1]]).compute()
    array([[0, 1, 0, 0, 1]], dtype=int32)
    """
    labels = _arguments.as_chunked_labels(seg, "seg")
    offsets = _checks.as_nhood(nhood)
    _arguments.check_axes(labels, "seg", offsets)
    threads = _checks.as_threads(num_threads)
    # A longer offset leaves the volume from every voxel.
    reach = np.asarray(labels.shape) - 1
    before = np.minimum(np.maximum(-offsets.min(axis=0), 0), reach).tolist()
    after = np.minimum(np.maximum(offsets.max(axis=0), 0), reach).tolist()
    depth = dict(enumerate(zip(before, after, strict=True)))
    # Chunks that are shorter than the reach of the offsets are merged meanwhile.
    chunks = tuple(
        da.overlap.ensure_minimum_chunksize(max(1, *depth[axis]), lengths) for axis, lengths in enumerate(labels.chunks)
    )
    padded = da.overlap.overlap(labels.rechunk(chunks), depth=depth, boundary="none", allow_rechunk=False)

    def of_chunk(block: npt.NDArray[Any], block_info: Any = None) -> npt.NDArray[np.int32]:
        aff = _core.seg_to_affgraph(_checks.as_labels(block, "seg"), offsets, num_threads=threads)
        at = block_info[0]["chunk-location"]
        inside = [
            slice(before[axis] if i > 0 else 0, (before[axis] if i > 0 else 0) + chunks[axis][i])
            for axis, i in enumerate(at)
        ]
        return aff[(slice(None), *inside)]

    whole = padded.map_blocks(
        of_chunk,
        dtype=np.int32,
        new_axis=0,
        chunks=((len(offsets),), *chunks),
        meta=np.empty((0,) * (labels.ndim + 1), np.int32),
    )
    return whole.rechunk(((len(offsets),), *labels.chunks))
