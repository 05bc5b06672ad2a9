"""The seeded watershed of a chunked affinity graph."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from malis import _checks, _core
from malis.malis_dask import _arguments, _forests
from malis.malis_dask._chunks import ChunkGrid, Index
from malis.malis_dask._forests import Solved
from malis.malis_dask._graph import Tasks
from malis.malis_dask._reduction import Reduced, joined_by, reduce_forests
from malis.segmentation import LARGEST_SEED

Integers = npt.NDArray[np.int64]


class _Joined(NamedTuple):
    """Which terminals settled edges join the nodes of a box to."""

    nodes: Integers
    terminals: Integers
    """-1 where no path leads to one."""
    counts: Integers
    """Of a chunk, whose `nodes` are its terminals: how many voxels are joined to each. Empty for larger boxes."""
    unreached: int
    """How many voxels of a chunk no path within it joins to a terminal."""


def watershed_from_affgraph(
    aff: Any,
    seeds: Any,
    nhood: npt.ArrayLike,
    size_thresh: int | None = None,
    *,
    min_size: int | None = None,
    threshold: float = -np.inf,
    num_threads: int | None = 1,
) -> tuple[Any, Integers]:
    """Segment a chunked affinity graph by the seeded maximin watershed: `malis.watershed_from_affgraph` of any size.

    Every voxel gets the seed that `malis.watershed_from_affgraph` gives it, whatever the chunks are. The forests of
    chunks are joined as in `maximum_spanning_tree`; that happens in this call. The labels are computed chunk by chunk
    when they are asked for, for which the forest of a chunk is computed once more.

    Parameters
    ----------
    aff : dask.array.Array, shape (K, *shape)
        Affinities, see `affgraph_to_seg`.
    seeds : dask.array.Array of int, shape `shape`
        Labels of the seeds, at most 2**27; 0 where there is none. Voxels of one label are one seed, connected or not.
    nhood : array_like of int, shape (K, ndim)
        Offsets; they may lead further than a chunk.
    size_thresh : int, optional
        Labels of at most so many voxels become background; the name and meaning of the older packages.
    min_size : int, optional
        In place of `size_thresh`: labels of fewer voxels become background. By default 2, which is ``size_thresh=1``.
    threshold : float, optional
        Edges of a lower affinity do not exist: the components of a higher threshold as seeds grow along weaker edges.
    num_threads : int, optional
        Threads for one chunk, see `affgraph_to_seg`.

    Returns
    -------
    seg : dask.array.Array, shape `shape`
        The label of its seed for every voxel, in the dtype of `seeds` (int32 for floats); 0 where no path
        leads to a seed.
    sizes : ndarray of int64
        ``sizes[l]`` is the number of voxels of label ``l``.

    Raises
    ------
    ValueError
        For shapes that do not go together, empty or unknown ones, NaN, labels that are negative, fractional, or above
        2**27, and for a threshold that is no number.
    TypeError
        For dtypes and options of another type.

    Examples
    --------
    >>> import dask.array as da
    >>> from malis import malis_dask
    >>> aff = da.from_array([[0, 0.9, 0.8, 0.1, 0.7]], chunks=(1, 2))
    >>> seg, sizes = malis_dask.watershed_from_affgraph(aff, da.from_array([7, 0, 0, 0, 3], chunks=5), [[-1]])
    >>> seg.compute()
    array([7, 7, 7, 3, 3])
    >>> sizes
    array([0, 0, 0, 2, 0, 0, 0, 3])
    """
    offsets = _checks.as_nhood(nhood)
    affinities = _arguments.as_chunked_affinities(aff, offsets)
    labels = _arguments.as_chunked_labels(seeds, "seeds")
    _arguments.check_axes(labels, "seeds", offsets)
    if affinities.shape[1:] != labels.shape:
        raise ValueError(f"seeds must have shape {affinities.shape[1:]}, got {_checks.describe(labels)}")
    largest_small = _checks.as_size_thresh(min_size, size_thresh)
    grid = _arguments.grid_of(affinities.chunks[1:])
    chunks = _Chunks(grid, offsets, _checks.as_threshold(threshold, "threshold"), _checks.as_threads(num_threads))
    labels = labels.rechunk(grid.chunks)
    tasks = Tasks(affinities, labels)

    def blocks(index: Index) -> tuple[Any, Any]:
        return (affinities.name, 0, *index), (labels.name, *index)

    def solve_chunk(index: Index) -> Any:
        return tasks.call(partial(chunks.solve, index), *blocks(index), name="solve-chunk")

    boxes = reduce_forests(tasks, grid, offsets, solve_chunk, joined_by(grid.shape, offsets, _joined))
    found, label, sizes = tasks.compute(
        tasks.call(partial(_resolve, grid.voxels), list(boxes.values()), name="resolve")
    )
    kept = sizes > largest_small
    kept[0] = True
    dropped = np.flatnonzero(~kept & (sizes > 0))
    sizes[0] += sizes[~kept].sum()
    sizes[~kept] = 0
    label = np.where(kept[label], label, 0)
    second_pass = Tasks(affinities, labels)
    keys = []
    for index, own in zip(grid, _by_chunk(grid, found), strict=True):
        flood = partial(chunks.flood, index, found[own], label[own], dropped)
        keys.append(second_pass.call(flood, *blocks(index), name="flood"))
    return second_pass.array(keys, grid.chunks, _dtype_of(labels), "malis-watershed"), sizes


def _dtype_of(seeds: Any) -> np.dtype[Any]:
    """Return the dtype of the labels: that of the seeds, as `malis.watershed_from_affgraph` reads them."""
    dtype: np.dtype[Any] = np.dtype({"b": np.uint8, "f": np.int32}.get(seeds.dtype.kind, seeds.dtype))
    return dtype


def _seeds_of(block: npt.NDArray[Any]) -> npt.NDArray[Any]:
    seeds = _checks.as_labels(block, "seeds")
    if seeds.max() > LARGEST_SEED:
        raise ValueError(f"seeds must hold labels of at most 2**27, got {seeds.max()}")
    return seeds


@dataclass(frozen=True)
class _Chunks:
    """What is computed of the chunks, each on its own."""

    grid: ChunkGrid
    nhood: Integers
    threshold: float
    num_threads: int | None

    def solve(self, index: Index, block: npt.NDArray[Any], seeds: npt.NDArray[Any]) -> Reduced:
        """Join voxels as far as that does not hang on what is outside of the chunk."""
        aff, solved = self._forest(index, block, _seeds_of(seeds))
        counts = np.bincount(solved.component[solved.at], minlength=len(solved.names))
        reached = solved.names >= 0
        unreached = int(counts[~reached].sum())
        terminals, counts = solved.names[reached], counts[reached]
        crossings = self.grid.crossings(index, self.nhood)
        crossing = _forests.crossing_edges(self.grid, index, crossings, aff, self.threshold)
        return Reduced(solved.forest, crossing, _Joined(terminals, terminals, counts, unreached))

    def flood(
        self,
        index: Index,
        found: Integers,
        label: Integers,
        dropped: Integers,
        block: npt.NDArray[Any],
        seeds: npt.NDArray[Any],
    ) -> npt.NDArray[Any]:
        """Give every voxel the label of the terminal that it is joined to."""
        marked = _seeds_of(seeds)
        _, solved = self._forest(index, block, marked)
        names, voxels = solved.names, self.grid.voxels
        labels = np.where(names >= voxels, names - voxels, 0)
        labels[np.isin(labels, dropped)] = 0
        surface = (names >= 0) & (names < voxels)
        labels[surface] = label[np.searchsorted(found, names[surface])]
        seg: npt.NDArray[Any] = labels.astype(_dtype_of(seeds))[solved.component[solved.at]]
        return seg.reshape(marked.shape)

    def _forest(
        self, index: Index, block: npt.NDArray[Any], seeds: npt.NDArray[Any]
    ) -> tuple[npt.NDArray[Any], Solved]:
        aff = _checks.as_affinities(block, "aff", integers=True)
        return aff, _forests.forest_of_chunk(self.grid, index, self.nhood, aff, seeds, self.num_threads, self.threshold)


def _joined(name: str, solved: Solved) -> _Joined:
    terminals = solved.names[solved.component]
    moved = terminals != solved.nodes
    return _Joined(solved.nodes[moved], terminals[moved], np.zeros(0, np.int64), 0)


def _resolve(voxels: int, boxes: list[_Joined]) -> tuple[Integers, Integers, Integers]:
    """Return the voxels that are terminals of chunks, the label of each, and how many voxels every label has."""
    nodes = np.unique(np.concatenate([box.nodes for box in boxes] + [box.terminals for box in boxes]))
    nodes = nodes[nodes >= 0]
    node, terminal = np.concatenate([box.nodes for box in boxes]), np.concatenate([box.terminals for box in boxes])
    joined = terminal >= 0
    first, second = np.searchsorted(nodes, node[joined]), np.searchsorted(nodes, terminal[joined])
    component = _core.edge_components(len(nodes), first, second, np.ones(len(first), bool))
    seed = nodes >= voxels
    label_of = np.zeros(int(component.max(initial=0)) + 1, np.int64)
    label_of[component[seed]] = nodes[seed] - voxels
    labels = label_of[component]
    sizes = np.zeros(int(labels.max(initial=0)) + 1, np.int64)
    for box in boxes:
        if len(box.counts):
            np.add.at(sizes, labels[np.searchsorted(nodes, box.nodes)], box.counts)
        sizes[0] += box.unreached
    return nodes[~seed], labels[~seed], sizes


def _by_chunk(grid: ChunkGrid, voxels: Integers) -> list[Integers]:
    """Return the positions in `voxels`, which increase, of those in every chunk, for the chunks in C-order."""
    inside = [
        np.searchsorted(bounds, i, side="right") - 1
        for bounds, i in zip(grid.bounds, np.unravel_index(voxels, grid.shape), strict=True)
    ]
    chunk = np.ravel_multi_index(inside, grid.counts)
    order = np.argsort(chunk, kind="stable")
    return np.split(order, np.searchsorted(chunk[order], np.arange(1, math.prod(grid.counts))))
