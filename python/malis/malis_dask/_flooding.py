"""Voxels of a chunked volume flow to seeds: the maximin watershed, from the forests of chunks.

Forests of chunks are joined as for the spanning tree (_forests.py), with seeds as terminals. Then it is known which
seed every terminal of a chunk flows to, and a watershed of the chunk gives its voxels the labels of these.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from malis import _checks, _core
from malis.malis_dask import _forests
from malis.malis_dask._chunks import ChunkGrid, Index
from malis.malis_dask._components import first_voxels
from malis.malis_dask._forests import Solved
from malis.malis_dask._graph import Tasks
from malis.malis_dask._reduction import Reduced, joined_by, reduce_forests

Integers = npt.NDArray[np.int64]


class Flow(NamedTuple):
    """Where voxels flow to. Label 0 stands for what no seed has reached."""

    sizes: Integers
    """How many voxels flow to the seed of every label."""
    first: Integers
    """The flat index of the first of these; of labels without voxels, beyond all voxels."""
    terminals: list[Integers]
    """For every chunk its terminals, increasing."""
    seeds: list[Integers]
    """For every chunk the labels of the seeds that these flow to."""


class _Joined(NamedTuple):
    """Which terminals settled edges join the nodes of a box to."""

    nodes: Integers
    terminals: Integers
    """-1 where no path leads to one."""


class _JoinedVoxels(NamedTuple):
    """The terminals of a chunk, increasing, and the voxels of the chunk that settled edges join to them."""

    terminals: Integers
    counts: Integers
    """How many voxels are joined to each."""
    first: Integers
    """The flat index in the volume of the first of these."""
    unreached: int
    """How many voxels no path within the chunk joins to a terminal."""


def flow_to_seeds(aff: Any, seeds: Any, chunks: ChunkFloods) -> Flow:
    """Find out where all voxels flow to; `aff` and `seeds` have the chunks of the grid."""
    grid = chunks.grid
    tasks = Tasks(aff, seeds)

    def solve_chunk(index: Index) -> Any:
        return tasks.call(partial(chunks.solve, index), *_blocks(aff, seeds, index), name="solve-chunk")

    kept = reduce_forests(tasks, grid, chunks.nhood, solve_chunk, joined_by(grid.shape, chunks.nhood, _joined))
    number = math.prod(grid.counts)  # the boxes of one chunk come first
    of_chunks, of_boxes = list(kept.values())[:number], list(kept.values())[number:]
    flow: Flow = tasks.compute(tasks.call(partial(_resolve, grid.voxels), of_chunks, of_boxes, name="resolve"))
    return flow


def label_voxels(aff: Any, seeds: Any, chunks: ChunkFloods, flow: Flow, labels: Integers, dtype: npt.DTypeLike) -> Any:
    """Return the labels of all voxels as a dask array, lazily; voxels that flow to seed l get ``labels[l]``."""
    tasks = Tasks(aff, seeds)
    keys = []
    for index, terminals, reached in zip(chunks.grid, flow.terminals, flow.seeds, strict=True):
        flood = partial(chunks.flood, index, terminals, labels[reached].astype(dtype))
        keys.append(tasks.call(flood, *_blocks(aff, seeds, index), name="flood"))
    return tasks.array(keys, chunks.grid.chunks, dtype, "malis-watershed")


def _blocks(aff: Any, seeds: Any, index: Index) -> tuple[Any, Any]:
    return (aff.name, 0, *index), (seeds.name, *index)


@dataclass(frozen=True)
class ChunkFloods:
    """What is computed of the chunks, each on its own."""

    grid: ChunkGrid
    nhood: Integers
    threshold: float
    """Edges of a lower affinity do not exist."""
    num_threads: int | None
    as_seeds: Callable[[npt.NDArray[Any]], npt.NDArray[Any]]
    """Checks the labels of the seeds of a chunk."""

    def solve(self, index: Index, block: npt.NDArray[Any], seeds: npt.NDArray[Any]) -> Reduced:
        """Join voxels as far as that does not hang on what is outside of the chunk."""
        aff = _checks.as_affinities(block, "aff", integers=True)
        solved = _forests.forest_of_chunk(
            self.grid, index, self.nhood, aff, self.as_seeds(seeds), self.num_threads, self.threshold
        )
        component, count = solved.component[solved.at], len(solved.names)
        counts = np.bincount(component, minlength=count)
        first = self.grid.flat(index, first_voxels(component, count))
        reached = np.flatnonzero(solved.names >= 0)
        reached = reached[np.argsort(solved.names[reached])]
        unreached = int(counts.sum() - counts[reached].sum())
        joined = _JoinedVoxels(solved.names[reached], counts[reached], first[reached], unreached)
        crossings = self.grid.crossings(index, self.nhood)
        crossing = _forests.crossing_edges(self.grid, index, crossings, aff, self.threshold)
        return Reduced(solved.forest, crossing, joined)

    def flood(
        self,
        index: Index,
        terminals: Integers,
        labels: npt.NDArray[Any],
        block: npt.NDArray[Any],
        seeds: npt.NDArray[Any],
    ) -> npt.NDArray[Any]:
        """Give every voxel the label of the terminal that it is joined to.

        Settled edges are those of the seeded watershed of the chunk alone with terminals as seeds: neither joins two of
        them. So there is no need for the forest.
        """
        flooded = _core.watershed(
            _checks.as_stored_affinities(block, "aff"),
            self._numbers(index, terminals, self.as_seeds(seeds)),
            self.nhood,
            threshold=self.threshold,
            num_threads=self.num_threads,
        )
        table = np.zeros(len(labels) + 1, labels.dtype)
        table[1:] = labels
        seg: npt.NDArray[Any] = table[flooded]
        return seg

    def _numbers(self, index: Index, terminals: Integers, seeds: npt.NDArray[Any]) -> npt.NDArray[np.int32]:
        """Return the position, from 1, of the voxels of a chunk among its terminals; 0 where one is none."""
        whole = tuple(slice(0, n) for n in seeds.shape)
        at = _forests.positions_of(self.grid, index, whole)
        outer = _forests.leads_out(_forests.box_of_chunk(self.grid, index), self.grid.shape, self.nhood, at)
        voxels = _forests.voxels_of(self.grid, index, whole).reshape(seeds.shape)
        seeded = seeds != 0
        numbers = np.zeros(seeds.shape, np.int32)
        numbers[outer] = np.searchsorted(terminals, voxels[outer]) + 1
        numbers[seeded] = np.searchsorted(terminals, self.grid.voxels + seeds[seeded].astype(np.int64)) + 1
        return numbers


def _joined(name: str, solved: Solved) -> _Joined:
    terminals = solved.names[solved.component]
    moved = terminals != solved.nodes
    return _Joined(solved.nodes[moved], terminals[moved])


def _resolve(voxels: int, chunks: list[_JoinedVoxels], boxes: list[_Joined]) -> Flow:
    of_chunks = [chunk.terminals for chunk in chunks]
    nodes = _forests.distinct(*of_chunks, *(box.nodes for box in boxes))
    first_node = np.concatenate([nodes[:0], *(box.nodes[box.terminals >= 0] for box in boxes)])
    second_node = np.concatenate([nodes[:0], *(box.terminals[box.terminals >= 0] for box in boxes)])
    ends = np.searchsorted(nodes, first_node), np.searchsorted(nodes, second_node)
    component = _core.edge_components(len(nodes), *ends, np.ones(len(first_node), bool))
    seed = nodes >= voxels
    label_of = np.zeros(int(component.max(initial=0)) + 1, np.int64)
    label_of[component[seed]] = nodes[seed] - voxels
    label = label_of[component]
    labels = [label[np.searchsorted(nodes, terminals)] for terminals in of_chunks]
    sizes = np.zeros(int(label.max(initial=0)) + 1, np.int64)
    first = np.full(len(sizes), voxels)
    for chunk, seeds in zip(chunks, labels, strict=True):
        np.add.at(sizes, seeds, chunk.counts)
        np.minimum.at(first, seeds, chunk.first)
        sizes[0] += chunk.unreached
    return Flow(sizes, first, of_chunks, labels)
