"""Segmentations of a chunked volume at many thresholds, from its spanning tree."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import dask.array as da
import numpy as np
import numpy.typing as npt

from malis import _checks, _core
from malis.malis_dask import _arguments
from malis.malis_dask._chunks import ChunkGrid, Index
from malis.malis_dask._components import Face, Faces, Labelled, Numbering, keep_components, label_volume
from malis.malis_dask._connects import connects
from malis.malis_dask._graph import Tasks
from malis.malis_dask._scratch import Scratch
from malis.tree import SpanningTree

Array = npt.NDArray[Any]
Integers = npt.NDArray[np.int64]

_WITHIN, _LEAVING, _ENTERED = range(3)
_OWNER, _DIRECTION, _OTHER, _OWN_NODE, _OTHER_NODE = range(5)
"""The rows of a piece of the tree: an edge stands with each of the chunks that its two voxels lie in."""


def segment_tree(
    tree: SpanningTree,
    thresholds: Sequence[float] | npt.NDArray[Any],
    *,
    scratch: str | os.PathLike[str],
    chunks: Any = "auto",
    min_size: int = 2,
) -> list[tuple[Any, Integers]]:
    """Segment a chunked volume at many thresholds: `malis.segment_tree` of any size of volume.

    The edges of the tree come in merge order, from all over the volume. In this call they are sorted by the chunks that
    they lie in, into `scratch`, and every threshold is solved as in `affgraph_to_seg`: chunks on their own, and then
    the graph of what is joined across their faces, which one task holds.

    Parameters
    ----------
    tree : malis.SpanningTree
        What `maximum_spanning_tree` returned, of dask arrays; the order of the edges does not matter.
    thresholds : sequence of float
        Edges with affinities of at least the threshold connect; in any order.
    scratch : path
        A folder for the sorted edges: 48 bytes for each, and so many again for one that crosses a face. The result
        reads from it, so keep it as long. It is another one than that of the tree.
    chunks : optional
        The chunks of the labels, as `dask.array.Array.rechunk` takes them.
    min_size : int, optional
        Components of fewer voxels become background.

    Returns
    -------
    list of (seg, sizes)
        For every threshold what ``affgraph_to_seg(aff, nhood, min_size=min_size, threshold=threshold)`` returns: labels
        as a dask array of uint64 and their numbers of voxels.

    Raises
    ------
    ValueError
        For thresholds that are no sequence of numbers, and for trees whose arrays do not go together, hold NaN, or join
        voxels outside of the volume; for a folder `scratch` of other arguments.
    TypeError
        For a `tree` that is no `SpanningTree`, dtypes and options of another type.

    Examples
    --------
    >>> import tempfile
    >>> import dask.array as da
    >>> from malis import malis_dask
    >>> aff = da.from_array([[0, 0.9, 0.2, 0.7, 0.8]], chunks=(1, 2))
    >>> with tempfile.TemporaryDirectory() as of_tree, tempfile.TemporaryDirectory() as folder:
    ...     tree = malis_dask.maximum_spanning_tree(aff, [[-1]], scratch=of_tree)
    ...     for seg, sizes in malis_dask.segment_tree(tree, [0.75, 0.5], scratch=folder, chunks=2):
    ...         print(seg.compute(), sizes)
    [1 1 0 2 2] [1 2 2]
    [2 2 1 1 1] [0 3 2]
    """
    if not isinstance(tree, SpanningTree):
        raise TypeError(f"tree must be a SpanningTree, got {type(tree).__name__}")
    levels = np.asarray(thresholds)
    if levels.ndim != 1:
        raise ValueError(f"thresholds must be a sequence of numbers, got {thresholds!r}")
    checked = [_checks.as_threshold(level, "thresholds") for level in levels.tolist()]
    numbering = Numbering(_checks.as_size_thresh(min_size), by_size=True)
    shape = tuple(_checks.as_integer(n, "tree.shape", 1) for n in tree.shape)
    grid = _arguments.grid_of(da.core.normalize_chunks(chunks, shape=shape, dtype=np.uint64))
    affinities, node1, node2 = _arrays_of(tree)
    job = {"chunks": grid.chunks, "dtype": str(affinities.dtype), "edges": len(affinities), "segment tree": True}
    kept = Scratch.of(scratch, job)
    names, across = _sort_edges(kept, grid, affinities, node1, node2)
    tasks = Tasks()
    keys = [tasks.call(partial(_read_part, kept, grid, names, index), name="edges-of-chunk") for index in grid]
    # What stands for the chunks are the edges within them.
    parts = tasks.array(keys, grid.chunks, affinities.dtype, "tree-of-chunk")
    return [label_volume(parts, grid, _TreeLabeller(level, across), numbering, None) for level in checked]


def _arrays_of(tree: SpanningTree) -> tuple[Any, Any, Any]:
    """Return affinities and nodes in the same chunks."""
    arrays = [da.asarray(array) for array in (tree.affinities, tree.node1, tree.node2)]
    for array, name, kinds in zip(arrays, ("affinities", "node1", "node2"), ("f", "iu", "iu"), strict=True):
        if array.dtype.kind not in kinds:
            raise TypeError(f"tree.{name} must hold {'floats' if kinds == 'f' else 'integers'}, got {array.dtype}")
        if array.ndim != 1 or array.shape != arrays[0].shape:
            raise ValueError(f"tree.{name} must have one axis, of the length of tree.affinities, got {array.shape}")
    return arrays[0], arrays[1].rechunk(arrays[0].chunks), arrays[2].rechunk(arrays[0].chunks)


def _sort_edges(
    kept: Scratch, grid: ChunkGrid, affinities: Any, node1: Any, node2: Any
) -> tuple[list[str], list[tuple[Index, Index]]]:
    """Sort every piece of the tree by chunks; returns the names of the pieces, and which chunks edges lead between."""
    tasks = Tasks(affinities, node1, node2)
    keys = []
    names = [f"piece-{i}" for i in range(len(affinities.chunks[0]))] if len(affinities) else []
    for i, name in enumerate(names):
        blocks = [(array.name, i) for array in (affinities, node1, node2)]
        keys.append(tasks.call(partial(_sort_piece, kept, grid, name), *blocks, name="sort"))
    found: list[Integers] = tasks.compute(tasks.call(list, keys, name="pairs"))
    pairs = np.unique(np.concatenate([np.zeros((2, 0), np.int64), *found], axis=1), axis=1)
    chunks = list(grid)
    return names, [(chunks[here], chunks[there]) for here, there in pairs.T.tolist()]


def _sort_piece(kept: Scratch, grid: ChunkGrid, name: str, affinities: Array, node1: Array, node2: Array) -> Integers:
    if np.isnan(affinities).any():
        raise ValueError("tree.affinities must not contain NaN")
    ends = [np.asarray(node, np.int64) for node in (node1, node2)]
    for end in ends:
        if len(end) and not (end.min() >= 0 and end.max() < grid.voxels):
            raise ValueError(f"tree must join voxels 0 to {grid.voxels - 1}, got {end.min()} to {end.max()}")
    here, there = (grid.owners(end) for end in ends)
    across = np.flatnonzero(here != there)
    direction = np.where(here != there, _LEAVING, _WITHIN)
    own = np.stack([here, direction, there, *ends])
    of_others = np.stack([there, np.full(len(here), _ENTERED), here, *ends[::-1]])[:, across]
    rows = np.concatenate([own, of_others], axis=1)
    # Stable, so that edges between two chunks come in the same order on both sides.
    order = np.lexsort((rows[_OTHER], rows[_DIRECTION], rows[_OWNER]))
    kept.write_array(f"{name}-edges", rows[:, order])
    kept.write_array(f"{name}-affinities", np.concatenate([affinities, affinities[across]])[order])
    return np.unique(np.stack([here, there])[:, across], axis=1)


class _TreePart(NamedTuple):
    """The edges of the tree that touch a chunk, with voxels as flat indices in the chunk."""

    shape: tuple[int, ...]
    affinities: Array
    """Of the edges within the chunk."""
    node1: Integers
    node2: Integers
    leaving: dict[Index, tuple[Array, Integers]]
    """Of edges to another chunk their affinities, and their voxels in this one."""
    entered: dict[Index, Integers]
    """Of edges from another chunk their voxels in this one."""


def _read_part(kept: Scratch, grid: ChunkGrid, names: list[str], index: Index) -> _TreePart:
    number = int(np.ravel_multi_index(index, grid.counts))
    pieces, affinities = [np.zeros((5, 0), np.int64)], []
    for name in names:
        rows, values = kept.read_columns(number, f"{name}-edges", f"{name}-affinities")
        pieces.append(rows)
        affinities.append(values)
    rows = np.concatenate(pieces, axis=1)
    values = np.concatenate(affinities) if affinities else np.zeros(0)
    own = grid.within(index, rows[_OWN_NODE])
    within = rows[_DIRECTION] == _WITHIN
    chunks = list(grid)
    leaving: dict[Index, tuple[Array, Integers]] = {}
    entered: dict[Index, Integers] = {}
    for direction in (_LEAVING, _ENTERED):
        of_direction = rows[_DIRECTION] == direction
        for other in np.unique(rows[_OTHER, of_direction]).tolist():
            at = np.flatnonzero(of_direction & (rows[_OTHER] == other))
            if direction == _LEAVING:
                leaving[chunks[other]] = values[at], own[at]
            else:
                entered[chunks[other]] = own[at]
    ends = own[within], grid.within(index, rows[_OTHER_NODE, within])
    return _TreePart(grid.size(index), values[within], *ends, leaving, entered)


@dataclass(frozen=True)
class _TreeLabeller:
    """Segments chunks by the edges of the tree."""

    threshold: float
    across: list[tuple[Index, Index]]

    def faces(self, grid: ChunkGrid) -> dict[Index, Faces]:
        found = {index: Faces({}, {}) for index in grid}
        for here, there in self.across:
            found[here].leaving[there] = [there]
            found[there].entered[here] = [here]
        return found

    def label(self, block: Any, faces: Faces, size_thresh: int) -> Labelled:
        voxels = math.prod(block.shape)
        connected = connects(block.affinities, self.threshold)
        labels = _core.edge_components(voxels, block.node1, block.node2, connected)
        on_faces = [labels[:0], *(voxels for _, voxels in block.leaving.values()), *block.entered.values()]
        return keep_components(labels.reshape(block.shape), np.concatenate(on_faces), size_thresh)

    def leaving(self, block: Any, labels: Array, crossing: Index) -> Face:
        affinities, voxels = block.leaving[crossing]
        return (np.where(connects(affinities, self.threshold), labels.ravel()[voxels], 0),)

    def entered(self, block: Any, labels: Array, crossing: Index) -> Face:
        return (labels.ravel()[block.entered[crossing]],)
