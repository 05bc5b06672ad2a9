"""The maximum spanning tree of a chunked affinity graph."""

from __future__ import annotations

import os
from functools import partial
from typing import Any

import dask.array as da
import numpy as np
import numpy.typing as npt

from malis import _checks
from malis.malis_dask import _arguments, _forests
from malis.malis_dask._chunks import ChunkGrid, Crossing, Index
from malis.malis_dask._forests import Solved
from malis.malis_dask._graph import Tasks
from malis.malis_dask._reduction import Reduced, joined_by, reduce_forests
from malis.malis_dask._scratch import Scratch
from malis.tree import SpanningTree

# Where the edges of the result are cut is found from so many edges for each of its chunks, so that their lengths differ
# by some percent.
_SAMPLES = 64


def maximum_spanning_tree(
    aff: Any,
    nhood: npt.ArrayLike,
    *,
    scratch: str | os.PathLike[str],
    chunk_edges: int = 2**22,
    num_threads: int | None = 1,
) -> SpanningTree:
    """Find the maximum spanning tree of a chunked affinity graph: `malis.maximum_spanning_tree` of any size of volume.

    The edges, their order, and what decides between equal affinities are those of `malis.maximum_spanning_tree`. The
    forests of chunks are joined two by two. An edge that joins something whose surroundings are known completely is in
    the tree for certain and is put aside, so that what is joined is as large as the surfaces of the two parts.

    Parameters
    ----------
    aff : dask.array.Array, shape (K, *shape)
        Affinities, see `affgraph_to_seg`.
    nhood : array_like of int, shape (K, ndim)
        Offsets; they may lead further than a chunk.
    scratch : path
        A folder for the edges: 12 bytes a voxel, 16 for affinities of 64 bits, and the surfaces of chunks. The result
        reads from it, so keep it as long. A call with the folder of one that was stopped goes on where that one was,
        see `affgraph_to_seg`.
    chunk_edges : int, optional
        About so many edges make a chunk of the result.
    num_threads : int, optional
        Threads for one chunk, see `affgraph_to_seg`.

    Returns
    -------
    malis.SpanningTree
        ``edges, affinities, node1, node2`` as dask arrays, in the order in which the edges join components, and
        ``shape``.

    Raises
    ------
    ValueError
        For shapes that do not go together, empty or unknown ones, NaN, a folder `scratch` of other arguments.
    TypeError
        For dtypes and options of another type.

    See Also
    --------
    affgraph_to_seg : Segmentations, at one threshold after the other, without a tree.

    Examples
    --------
    >>> import tempfile
    >>> import dask.array as da
    >>> from malis import malis_dask
    >>> aff = da.from_array([[0, 0.9, 0.2, 0.7, 0.8, 0.1]], chunks=(1, 2))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     tree = malis_dask.maximum_spanning_tree(aff, [[-1]], scratch=folder)
    ...     tree.affinities.compute(), tree.node1.compute()
    (array([0.9, 0.8, 0.7, 0.2, 0.1]), array([1, 4, 3, 2, 5], dtype=int32))
    """
    offsets = _checks.as_nhood(nhood)
    affinities = _arguments.as_chunked_affinities(aff, offsets)
    threads = _checks.as_threads(num_threads)
    length = _checks.as_integer(chunk_edges, "chunk_edges", 1)
    grid = _arguments.grid_of(affinities.chunks[1:])
    kept = Scratch.of(
        scratch, {"chunks": grid.chunks, "dtype": str(affinities.dtype), "nhood": offsets.tolist(), "tree": True}
    )
    tasks = Tasks(affinities)

    def solve_chunk(index: Index) -> Any:
        name = f"chunk-{'-'.join(map(str, index))}"
        if kept.has_arrays(name):
            return tasks.call(partial(_read_chunk, kept, name), name="read-chunk")
        solve = partial(_solve_chunk, grid, index, offsets, grid.crossings(index, offsets), kept, name, threads)
        return tasks.call(solve, (affinities.name, 0, *index), name="solve-chunk")

    join = joined_by(grid.shape, offsets, partial(_keep_edges, kept))
    boxes = reduce_forests(tasks, grid, offsets, solve_chunk, join)
    names: list[str] = tasks.compute(tasks.call(list, list(boxes.values()), name="names"))
    return _sorted_tree(kept, names, grid, offsets, length)


def _solve_chunk(
    grid: ChunkGrid,
    index: Index,
    nhood: npt.NDArray[np.int64],
    crossings: dict[Index, list[Crossing]],
    scratch: Scratch,
    name: str,
    num_threads: int | None,
    block: npt.NDArray[Any],
) -> Reduced:
    aff = _checks.as_affinities(block, "aff", integers=True)
    solved = _forests.forest_of_chunk(grid, index, nhood, aff, None, num_threads)
    crossing = _forests.crossing_edges(grid, index, crossings, aff)
    result = Reduced(solved.forest, crossing, _keep_edges(scratch, name, solved))
    scratch.write_arrays(name, _forests.as_arrays(solved.forest, crossing))
    return result


def _read_chunk(scratch: Scratch, name: str) -> Reduced:
    return Reduced(*_forests.from_arrays(scratch.read_arrays(name)), name)


def _keep_edges(scratch: Scratch, name: str, solved: Solved) -> str:
    """Put the settled edges aside; returns the name that they have."""
    scratch.write_array(f"edges-{name}", solved.edge)
    scratch.write_array(f"affinities-{name}", solved.affinity)
    return name


def _sorted_tree(
    scratch: Scratch, names: list[str], grid: ChunkGrid, nhood: npt.NDArray[np.int64], length: int
) -> SpanningTree:
    """Return the edges of all boxes in one order; each box has its own in order already."""
    step = max(1, length // _SAMPLES)
    samples = _compute_each(partial(_sample, scratch, step), names)
    affinity, edge = (np.concatenate(parts) for parts in zip(*samples, strict=True))
    order = np.lexsort((edge, -affinity))[_SAMPLES::_SAMPLES]
    cuts = np.stack(_compute_each(partial(_cut, scratch, affinity[order], edge[order]), names))
    tasks = Tasks()
    keys = []
    for begin, end in zip(cuts.T[:-1], cuts.T[1:], strict=True):
        parts = [(name, b, e) for name, b, e in zip(names, begin.tolist(), end.tolist(), strict=True) if b < e]
        keys.append(tasks.call(partial(_merged, scratch, parts, affinity.dtype), name="sorted-edges"))
    lengths = tuple(np.diff(cuts).sum(axis=0).tolist())
    pairs = [tasks.call(partial(_item, i), key, name="edges") for i in (0, 1) for key in keys]
    edges = tasks.array(pairs[: len(keys)], (lengths,), np.int64, "tree-edges")
    affinities = tasks.array(pairs[len(keys) :], (lengths,), affinity.dtype, "tree-affinities")
    node = np.dtype(np.int32 if grid.voxels < 2**31 else np.int64)
    distance = nhood @ np.cumprod([1, *grid.shape[:0:-1]])[::-1]
    node1 = (edges % grid.voxels).astype(node)
    node2 = da.map_blocks(_second_end, edges, grid.voxels, distance, node, dtype=node)
    return SpanningTree(edges, affinities, node1, node2, grid.shape)


def _compute_each(function: Any, names: list[str]) -> Any:
    tasks = Tasks()
    keys = [tasks.call(partial(function, name), name="search") for name in names]
    return tasks.compute(tasks.call(list, keys, name="gather"))


def _sample(scratch: Scratch, step: int, name: str) -> tuple[npt.NDArray[Any], npt.NDArray[np.int64]]:
    at = slice(step // 2, None, step)
    return np.array(scratch.open_array(f"affinities-{name}")[at]), np.array(scratch.open_array(f"edges-{name}")[at])


def _cut(scratch: Scratch, affinity: npt.NDArray[Any], edge: npt.NDArray[np.int64], name: str) -> npt.NDArray[np.int64]:
    """Return where the edges of a box begin that come no earlier than each of the given ones.

    The first number is 0, the last one how many edges there are.
    """
    affinities, edges = scratch.open_array(f"affinities-{name}"), scratch.open_array(f"edges-{name}")
    increasing = -affinities
    begin, end = (np.searchsorted(increasing, -affinity, side) for side in ("left", "right"))
    tied = [b + np.searchsorted(edges[b:e], i) for b, e, i in zip(begin, end, edge, strict=True)]
    return np.array([0, *tied, len(edges)], np.int64)


def _merged(
    scratch: Scratch, parts: list[tuple[str, int, int]], dtype: np.dtype[Any]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[Any]]:
    edges = [np.zeros(0, np.int64), *(scratch.open_array(f"edges-{name}")[b:e] for name, b, e in parts)]
    affinities = [np.zeros(0, dtype), *(scratch.open_array(f"affinities-{name}")[b:e] for name, b, e in parts)]
    # Complex numbers are sorted by their real and then by their imaginary parts, and a stable sort merges what is in
    # order already. Both parts are exact: edge indices are far below 2**53.
    key = np.empty(sum(map(len, edges)), np.complex128)
    key.imag = np.concatenate(edges)
    np.negative(np.concatenate(affinities), out=key.real)
    key.sort(kind="stable")
    return key.imag.astype(np.int64), (-key.real).astype(dtype)


def _item(i: int, both: tuple[Any, Any]) -> Any:
    return both[i]


def _second_end(
    edges: npt.NDArray[np.int64], voxels: int, distance: npt.NDArray[np.int64], node: np.dtype[Any]
) -> npt.NDArray[Any]:
    channel, voxel = np.divmod(edges, voxels)
    ends: npt.NDArray[Any] = (voxel + distance[channel]).astype(node)
    return ends
