"""Reading and writing arrays block by block, so that progress is seen and an interruption acts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from malis._io.replace import uninterrupted

Array = npt.NDArray[Any]
Tick = Callable[[float], None]
"""Is told which share is done, between 0 and 1."""

Load = Callable[[Any], Any]
"""Is given an HDF5 data set or a Zarr array; returns what is known of its values: all of them, or `Unread`."""

# Blocks of so many bytes take some hundredths of a second to read, and some tenths to compress.
_BLOCK_BYTES = 2**25


def no_tick(done: float) -> None:
    """Tell nobody."""


def read(source: Any, tick: Tick) -> Array:
    """Read all of an HDF5 data set or a Zarr array."""
    if source.ndim == 0 or source.size == 0:
        return np.asarray(source[()])
    array = np.empty(source.shape, source.dtype)
    for block, done in _blocks(source.shape, source.chunks or source.shape, source.dtype.itemsize):
        with uninterrupted():
            array[block] = source[block]
        tick(done)
    return array


def write(array: Array, target: Any, tick: Tick) -> None:
    """Write all of an HDF5 data set or a Zarr array."""
    if array.size == 0:
        return
    for block, done in _blocks(array.shape, target.chunks or array.shape, array.dtype.itemsize):
        with uninterrupted():
            target[block] = array[block]
        tick(done)


def _blocks(
    shape: tuple[int, ...], chunks: tuple[int, ...], itemsize: int
) -> Iterator[tuple[tuple[slice, ...], float]]:
    """Cut along the axis with most chunks; every block is of whole chunks."""
    axis = int(np.argmax([-(-n // c) for n, c in zip(shape, chunks, strict=True)]))
    section = itemsize * int(np.prod([n for i, n in enumerate(shape) if i != axis], dtype=np.int64))
    step = chunks[axis] * max(1, _BLOCK_BYTES // (section * chunks[axis]))
    for first in range(0, shape[axis], step):
        last = min(first + step, shape[axis])
        yield (*(slice(None),) * axis, slice(first, last)), last / shape[axis]
