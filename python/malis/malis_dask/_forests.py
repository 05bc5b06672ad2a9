"""The maximum spanning tree of a chunked volume, from the forests of its chunks.

A *box* is a group of neighbouring chunks, at first one chunk. Voxels of a box from which an edge leads out of it are
its *terminals*. The forest of a box falls into edges that belong to the tree of the volume whatever lies outside, which
are *settled*, and *open* ones (cpp/include/malis/tree/settle.hpp says why). A settled edge has done its work: what it
joins is one node from then on, which is named after its terminal. So what a box hands on is a graph of terminals and
open edges, as large as its surface. Boxes are joined two by two, with the edges between them; the last one has no
terminals, so that all edges are settled.

Seeds of a watershed are terminals, too, as no edge joins two of them: every seed is one node wherever its voxels lie,
and for the question whether an edge closes a cycle all seeds are one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from malis import _core
from malis.malis_dask._chunks import ChunkGrid, Crossing, Index
from malis.malis_dask._connects import connects

Array = npt.NDArray[Any]
Integers = npt.NDArray[np.int64]

OPEN, SETTLED = 1, 2  # of cpp/include/malis/tree/settle.hpp; 0 is an edge that closes a cycle


class Box(NamedTuple):
    """The voxels from `start` to `stop`, and the chunks that they are made of."""

    start: tuple[int, ...]
    stop: tuple[int, ...]
    chunks: frozenset[Index]


class Edges(NamedTuple):
    """Edges of the volume and the nodes that they join: flat indices of voxels, or seeds, beyond these."""

    edge: Integers
    """Edge indices in the affinities of the volume."""
    affinity: Array
    node1: Integers
    node2: Integers

    def take(self, which: Any) -> Edges:
        """Return some of the edges."""
        return Edges(*(array[which] for array in self))

    def in_order(self) -> Edges:
        """Sort by decreasing affinity, equal affinities by increasing edge index."""
        return self.take(np.lexsort((self.edge, -self.affinity)))


class _Outside(NamedTuple):
    """The voxels of a box from which edges lead out, increasing, and their nodes."""

    voxels: Integers
    nodes: Integers


class Forest(NamedTuple):
    """What a box hands on."""

    voxels: Integers
    """Its voxels from which edges lead out, increasing."""
    nodes: Integers
    """The nodes of these: they themselves, or the seeds that they carry."""
    open: Edges


class Solved(NamedTuple):
    """A box, when Kruskal's algorithm is done with it."""

    forest: Forest
    edge: Integers
    """The settled edges, in the order in which they join components."""
    affinity: Array
    """Their affinities."""
    nodes: Integers
    """All nodes of the box, increasing."""
    component: Integers
    """The component of settled edges that each node is in, from 1."""
    names: Integers
    """The terminal of every component, -1 where it has none."""
    at: Any = slice(None)
    """Of a chunk, the position in `nodes` of every voxel."""


def distinct(*arrays: Array) -> Array:
    """Return the numbers in all arrays, each once, increasing.

    np.unique hashes integers from NumPy 2.3 on: 2 s for two million random ones with NumPy 2.4, and sorting 0.03 s.
    """
    numbers = np.sort(np.concatenate(arrays))
    first = np.ones(len(numbers), bool)
    np.not_equal(numbers[1:], numbers[:-1], out=first[1:])
    return numbers[first]


def joined_edges(parts: Sequence[Edges]) -> Edges:
    """Return the edges of all parts."""
    return Edges(*(np.concatenate(arrays) for arrays in zip(*parts, strict=True)))


def box_of_chunk(grid: ChunkGrid, index: Index) -> Box:
    """Return the box that is a chunk."""
    start = grid.start(index)
    return Box(start, tuple(s + n for s, n in zip(start, grid.size(index), strict=True)), frozenset([index]))


def joined_boxes(first: Box, second: Box) -> Box:
    """Return the box of two boxes that lie side by side."""
    return Box(min(first.start, second.start), max(first.stop, second.stop), first.chunks | second.chunks)


def pairs_of_boxes(grid: ChunkGrid) -> list[tuple[Box, Box]]:
    """Return which boxes are joined one after the other, so that they stay compact; those of one chunk come first."""
    boxes = {index: box_of_chunk(grid, index) for index in grid}
    steps = []
    while len(boxes) > 1:
        # Along the axis on which boxes are shortest, of those that there are several on.
        counts = np.max(list(boxes), axis=0) + 1
        lengths = [n / count if count > 1 else np.inf for n, count in zip(grid.shape, counts.tolist(), strict=True)]
        axis = int(np.argmin(lengths))
        joined: dict[Index, Box] = {}
        for index, box in boxes.items():
            above = (*index[:axis], index[axis] // 2, *index[axis + 1 :])
            if above in joined:
                steps.append((joined[above], box))
                joined[above] = joined_boxes(joined[above], box)
            else:
                joined[above] = box
        boxes = joined
    return steps


def leads_out(box: Box, shape: tuple[int, ...], nhood: Integers, at: Sequence[Integers]) -> npt.NDArray[np.bool_]:
    """Say of voxels of a box whether an edge leads from them to a voxel of the volume that is not in the box.

    `at` has the positions of the voxels along every axis, in arrays that broadcast.
    """
    out = np.zeros(np.broadcast_shapes(*(i.shape for i in at)), bool)
    for offset in (*nhood.tolist(), *(-nhood).tolist()):
        exists: Any = np.True_
        within: Any = np.True_
        for i, o, n, start, stop in zip(at, offset, shape, box.start, box.stop, strict=True):
            other = i + o
            exists = exists & (other >= 0) & (other < n)
            within = within & (other >= start) & (other < stop)
        out |= exists & ~within
    return out


def forest_of_chunk(
    grid: ChunkGrid,
    index: Index,
    nhood: Integers,
    aff: Array,
    seeds: Array | None,
    num_threads: int | None,
    threshold: float = -np.inf,
) -> Solved:
    """Solve a chunk, by edges of at least `threshold` alone; `seeds` holds their labels, or 0."""
    tree = Edges(*_core.maximum_spanning_tree(aff, nhood, num_threads=num_threads))
    # The stronger edges of a tree, which come first, are a tree of the stronger edges.
    strong = np.count_nonzero(connects(tree.affinity, threshold))
    edge, affinity, node1, node2 = tree.take(slice(strong))
    whole = tuple(slice(0, n) for n in grid.size(index))
    voxels = voxels_of(grid, index, whole)
    edge = edge // voxels.size * grid.voxels + voxels[node1]
    outer = leads_out(box_of_chunk(grid, index), grid.shape, nhood, positions_of(grid, index, whole)).ravel()
    if seeds is None:
        outside = _Outside(voxels[outer], voxels[outer])
        return _solve(edge, affinity, (node1, node2), voxels, outer, outside, grid.voxels)
    seeded = seeds.ravel() != 0
    marked, number = np.unique(seeds.ravel()[seeded], return_inverse=True)
    # Voxels come in the order of their indices, and seeds after them.
    nodes = np.concatenate([voxels[~seeded], grid.voxels + marked.astype(np.int64)])
    at = np.empty(voxels.size, np.int64)
    at[~seeded] = np.arange(len(nodes) - len(marked))
    at[seeded] = len(nodes) - len(marked) + number
    terminal = nodes >= grid.voxels
    terminal[at[outer]] = True
    outside = _Outside(voxels[outer], nodes[at[outer]])
    solved = _solve(edge, affinity, (at[node1], at[node2]), nodes, terminal, outside, grid.voxels)
    return solved._replace(at=at)


def crossing_edges(
    grid: ChunkGrid, index: Index, crossings: dict[Index, list[Crossing]], aff: Array, threshold: float = -np.inf
) -> dict[Any, Any]:
    """Return the edges of a chunk of at least `threshold` that lead to others, by the chunk they lead to."""
    found = {}
    for other, through in crossings.items():
        parts = []
        for channel, at, to in through:
            ends = [voxels_of(grid, index, at), voxels_of(grid, other, to)]
            edges = Edges(channel * grid.voxels + ends[0], aff[channel][at].ravel(), *ends)
            parts.append(edges.take(connects(edges.affinity, threshold)))
        found[other] = joined_edges(parts)
    return found


def voxels_of(grid: ChunkGrid, index: Index, part: tuple[slice, ...]) -> Integers:
    """Return the flat indices in the volume of a part of a chunk."""
    return np.asarray(np.ravel_multi_index(positions_of(grid, index, part), grid.shape), np.int64).ravel()


def positions_of(grid: ChunkGrid, index: Index, part: tuple[slice, ...]) -> tuple[Integers, ...]:
    """Return the positions in the volume of a part of a chunk, along every axis, in arrays that broadcast."""
    return np.ix_(*(np.arange(s.start + n, s.stop + n) for s, n in zip(part, grid.start(index), strict=True)))


def join_forests(
    box: Box, shape: tuple[int, ...], nhood: Integers, first: Forest, second: Forest, between: list[Edges]
) -> Solved:
    """Solve the box of two boxes that have been solved, with the edges between them."""
    total = math.prod(shape)
    voxels = np.concatenate([first.voxels, second.voxels])
    order = np.argsort(voxels)
    voxels, nodes = voxels[order], np.concatenate([first.nodes, second.nodes])[order]
    crossing = joined_edges([first.open.take(slice(0)), *between])
    named = [nodes[np.searchsorted(voxels, end)] for end in (crossing.node1, crossing.node2)]
    edges = joined_edges([first.open, second.open, Edges(crossing.edge, crossing.affinity, *named)]).in_order()
    outer = leads_out(box, shape, nhood, np.unravel_index(voxels, shape))
    outside = _Outside(voxels[outer], nodes[outer])
    nodes = distinct(nodes, edges.node1, edges.node2)
    ends = np.searchsorted(nodes, edges.node1), np.searchsorted(nodes, edges.node2)
    terminal = np.isin(nodes, outside.nodes) | (nodes >= total)
    return _solve(edges.edge, edges.affinity, ends, nodes, terminal, outside, total)


def _solve(
    edge: Integers,
    affinity: Array,
    ends: tuple[Array, Array],
    nodes: Integers,
    terminal: npt.NDArray[np.bool_],
    outside: _Outside,
    total: int,
) -> Solved:
    """Take edges, which are in order; `ends` are positions in `nodes`, which are all nodes of the box, increasing."""
    node1, node2 = ends
    seed = nodes >= total
    if seed.any():  # all seeds as one node
        number = np.arange(len(nodes))
        number[seed] = number[seed][0]
        kinds = _core.settle_edges(number[node1], number[node2], terminal)
    else:
        kinds = _core.settle_edges(node1, node2, terminal)
    settled, left = kinds == SETTLED, np.flatnonzero(kinds == OPEN)
    component = _core.edge_components(len(nodes), node1, node2, settled)
    names = np.full(int(component.max(initial=0)) + 1, -1)
    names[component[terminal]] = nodes[terminal]
    open_edges = Edges(edge[left], affinity[left], names[component[node1[left]]], names[component[node2[left]]])
    forest = Forest(outside.voxels, outside.nodes, open_edges)
    return Solved(forest, edge[settled], affinity[settled], nodes, component, names)


def as_arrays(forest: Forest, crossing: dict[Index, Edges]) -> dict[str, Array]:
    """Return what a chunk hands on as named arrays, to keep it in a file."""
    arrays: dict[str, Array] = {"voxels": forest.voxels, "nodes": forest.nodes}
    for name, edges in (("open", forest.open), *(("_".join(map(str, other)), e) for other, e in crossing.items())):
        arrays.update({f"{name}.{field}": values for field, values in edges._asdict().items()})
    return arrays


def from_arrays(arrays: dict[str, Array]) -> tuple[Forest, dict[Index, Edges]]:
    """Undo `as_arrays`."""
    names = dict.fromkeys(name.partition(".")[0] for name in arrays if "." in name)
    edges = {name: Edges(*(arrays[f"{name}.{field}"] for field in Edges._fields)) for name in names}
    forest = Forest(arrays["voxels"], arrays["nodes"], edges.pop("open"))
    return forest, {tuple(map(int, name.split("_"))): found for name, found in edges.items()}
