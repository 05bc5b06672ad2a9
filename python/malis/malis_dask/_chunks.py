"""The chunks of a volume as boxes, and which edges lead from one to another."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Index = tuple[int, ...]
"""The position of a chunk among the chunks, one number for each spatial axis."""


class Crossing(NamedTuple):
    """The edges of one offset that lead from a chunk to another one: those of a box of voxels."""

    channel: int
    at: tuple[slice, ...]
    """The voxels ``v``, in coordinates of the chunk that holds the affinities."""
    to: tuple[slice, ...]
    """The voxels ``v + nhood[channel]``, in coordinates of the other chunk."""


@dataclass(frozen=True)
class ChunkGrid:
    """How a volume is cut: the lengths of the chunks along every spatial axis."""

    chunks: tuple[tuple[int, ...], ...]

    @cached_property
    def bounds(self) -> tuple[npt.NDArray[np.int64], ...]:
        """Where chunks begin along every axis, and at last the length of the axis."""
        return tuple(np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)]) for lengths in self.chunks)

    @cached_property
    def shape(self) -> tuple[int, ...]:
        """Spatial shape of the volume."""
        return tuple(int(bounds[-1]) for bounds in self.bounds)

    @cached_property
    def voxels(self) -> int:
        """How many voxels the volume has."""
        return math.prod(self.shape)

    @cached_property
    def counts(self) -> tuple[int, ...]:
        """How many chunks there are along every axis."""
        return tuple(len(lengths) for lengths in self.chunks)

    def __iter__(self) -> Iterator[Index]:
        return itertools.product(*map(range, self.counts))

    def start(self, index: Index) -> tuple[int, ...]:
        """Return the first voxel of a chunk."""
        return tuple(int(bounds[i]) for bounds, i in zip(self.bounds, index, strict=True))

    def size(self, index: Index) -> tuple[int, ...]:
        """Return the shape of a chunk."""
        return tuple(int(lengths[i]) for lengths, i in zip(self.chunks, index, strict=True))

    def flat(self, index: Index, voxels: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Return the flat indices in the volume of voxels that are given by their flat indices in a chunk."""
        inside = np.unravel_index(voxels, self.size(index))
        at = [i + start for i, start in zip(inside, self.start(index), strict=True)]
        return np.asarray(np.ravel_multi_index(at, self.shape), np.int64)

    def within(self, index: Index, voxels: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Return the flat indices in a chunk of voxels in it that are given by their flat indices in the volume."""
        inside = np.unravel_index(voxels, self.shape)
        at = [i - start for i, start in zip(inside, self.start(index), strict=True)]
        return np.asarray(np.ravel_multi_index(at, self.size(index)), np.int64)

    def owners(self, voxels: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Return the number of the chunk, in C-order, that each voxel lies in."""
        inside = [
            np.searchsorted(bounds, i, side="right") - 1
            for bounds, i in zip(self.bounds, np.unravel_index(voxels, self.shape), strict=True)
        ]
        return np.asarray(np.ravel_multi_index(inside, self.counts), np.int64)

    def crossings(self, index: Index, nhood: npt.NDArray[np.int64]) -> dict[Index, list[Crossing]]:
        """Return the edges whose affinities lie in a chunk and which lead to others, by the chunk they lead to."""
        found: dict[Index, list[Crossing]] = {}
        start, size = self.start(index), self.size(index)
        for channel, offset in enumerate(nhood.tolist()):
            along = [self._reached(*axis) for axis in zip(range(len(size)), start, size, offset, strict=True)]
            for reached in itertools.product(*along):
                other = tuple(chunk for chunk, _, _ in reached)
                if other != index:
                    at, to = tuple(at for _, at, _ in reached), tuple(to for _, _, to in reached)
                    found.setdefault(other, []).append(Crossing(channel, at, to))
        return found

    def _reached(self, axis: int, start: int, size: int, offset: int) -> list[tuple[int, slice, slice]]:
        """Return the chunks along one axis that an offset leads to, with the part of both chunks that it joins."""
        bounds = self.bounds[axis]
        low, high = max(0, start + offset), min(int(bounds[-1]), start + size + offset)
        reached = []
        if low < high:
            first, last = np.searchsorted(bounds, [low, high - 1], side="right") - 1
            for chunk in range(int(first), int(last) + 1):
                begin, end = max(low, int(bounds[chunk])), min(high, int(bounds[chunk + 1]))
                if begin < end:
                    at = slice(begin - offset - start, end - offset - start)
                    reached.append((chunk, at, slice(begin - int(bounds[chunk]), end - int(bounds[chunk]))))
        return reached
