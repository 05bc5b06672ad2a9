"""Arrays of HDF5 and Zarr files that are too large to be read at once."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np


class Unread:
    """An array as it lies in its file; axes are moved, and one of length 1 is dropped, without reading it."""

    def __init__(self, source: Any, axes: tuple[int, ...] | None = None) -> None:
        self.source = source
        """The HDF5 data set or Zarr array."""
        self._axes = tuple(range(source.ndim)) if axes is None else axes

    @property
    def dtype(self) -> np.dtype[Any]:
        """The dtype of the values."""
        dtype: np.dtype[Any] = np.dtype(self.source.dtype)
        return dtype

    @property
    def shape(self) -> tuple[int, ...]:
        """The lengths of the axes."""
        return tuple(int(self.source.shape[axis]) for axis in self._axes)

    @property
    def ndim(self) -> int:
        """How many axes there are."""
        return len(self._axes)

    @property
    def size(self) -> int:
        """How many values there are."""
        return math.prod(self.shape)

    def __len__(self) -> int:
        return self.shape[0]

    def transpose(self, axes: Sequence[int]) -> Unread:
        """Bring the axes into another order."""
        return Unread(self.source, tuple(self._axes[axis] for axis in axes))

    def __getitem__(self, index: int) -> Unread:
        if index != 0 or self.shape[0] != 1:
            raise IndexError(f"an axis of length 1 can be dropped, got [{index}] of {self.shape}")
        return Unread(self.source, self._axes[1:])

    def in_chunks(self, chunks: Sequence[int]) -> Any:
        """Return a dask array that reads chunks of this shape."""
        import dask.array as da

        lengths = dict(zip(self._axes, chunks, strict=True))
        in_file = tuple(lengths.get(axis, 1) for axis in range(self.source.ndim))
        # The library of HDF5 reads one block at a time.
        lock = type(self.source).__module__.startswith("h5py")
        array = da.from_array(self.source, chunks=in_file, lock=lock)
        dropped = [axis for axis in range(self.source.ndim) if axis not in self._axes]
        array = array.transpose([*dropped, *self._axes])
        return array[(0,) * len(dropped)]
