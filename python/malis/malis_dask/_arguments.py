"""Checks of chunked arguments, and bringing them into chunks that the functions work on."""

from __future__ import annotations

from typing import Any

import dask.array as da
import numpy as np
import numpy.typing as npt

from malis import _checks
from malis.malis_dask._chunks import ChunkGrid


def as_chunked(array: Any, name: str) -> Any:
    """Return a dask array: the array itself, or what dask makes of it (Zarr and HDF5 arrays, NumPy arrays)."""
    chunked: Any = array if isinstance(array, da.Array) else da.asarray(array)
    if any(np.isnan(n) for n in chunked.shape):
        raise ValueError(f"{name} must have a known shape, got {chunked.shape}: call its compute_chunk_sizes first")
    if chunked.size == 0:
        raise ValueError(f"{name} must not be empty, got {_checks.describe(chunked)}")
    return chunked


def as_chunked_affinities(aff: Any, nhood: npt.NDArray[np.int64], name: str = "aff") -> Any:
    """Return affinities (K, *shape) as a dask array whose chunks hold all channels."""
    chunked = as_chunked(aff, name)
    _checks.check_channels(chunked, nhood)
    if chunked.dtype.kind not in "biuf" or chunked.dtype.itemsize > 8:
        raise TypeError(f"{name} must have dtype float16, float32 or float64, got {_checks.describe(chunked)}")
    return chunked.rechunk({0: -1})


def as_chunked_labels(seg: Any, name: str) -> Any:
    """Return labels as a dask array of integers; their values are checked where they are read."""
    chunked = as_chunked(seg, name)
    if chunked.dtype.kind not in "biuf":
        raise TypeError(f"{name} must hold integer labels, got {_checks.describe(chunked)}")
    return chunked


def grid_of(chunks: tuple[tuple[int, ...], ...]) -> ChunkGrid:
    """Return the grid of chunks along the spatial axes."""
    return ChunkGrid(tuple(tuple(int(n) for n in lengths) for lengths in chunks))


def check_axes(seg: Any, name: str, nhood: npt.NDArray[np.int64]) -> None:
    """Check that labels have the axes of a neighbourhood."""
    if seg.ndim != nhood.shape[1]:
        raise ValueError(f"{name} must have {nhood.shape[1]} axes as nhood has columns, got {_checks.describe(seg)}")
