"""Pairs that the edges of a chunked volume decide, from the forests of its chunks.

Boxes are joined two by two, as in `_forests`. How many pairs an edge decides is certain where both components that it
joins are complete, that is, where nothing leads from them out of the box (cpp/include/malis/segmentation/
settle_counts.hpp): it is *settled*, its counts are put aside, and what it joins is one node from then on, with so many
voxels of this and that label. An edge to a component that goes on outside is *open*: what else is joined to that one
before is not known. So a box hands on its surface, and the parts that components which reach it are joined of.

A pass takes edges in an order of its own (`Pass`): edges within an object first where the pass is constrained. As
these join nothing but voxels of one label, one pass counts both kinds of pairs unless edges of unknown truth take part.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from malis import _checks, _core
from malis.malis_dask import _forests
from malis.malis_dask._chunks import ChunkGrid, Crossing, Index
from malis.malis_dask._forests import Box

Array = npt.NDArray[Any]
Integers = npt.NDArray[np.int64]
Kinds = npt.NDArray[np.uint8]

NOTHING, UNLABELLED, IGNORED = -1, -2, -3
"""Objects of voxels that are in none, that have an unknown label, and of which nothing is known."""
INTRA, INTER, UNKNOWN = 0, 1, 2
"""Edges within an object, other edges, and edges of which the truth is not known."""
_LARGEST = 2**32 - 1  # foreground voxels: then the number of pairs fits into 63 bits


@dataclass(frozen=True)
class Truth:
    """How labels are read."""

    ignore_background: bool = True
    ignore_label: int | None = None
    ignored_is_background: bool = False

    def objects(self, seg: Array, unlabelled: Array | None) -> Integers:
        """Return the object of every voxel: its label, or one of the negative numbers above."""
        ignored: Any = False if self.ignore_label is None else np.asarray(np.asarray(seg) == self.ignore_label)
        labels = _checks.as_labels(np.where(ignored, np.asarray(seg).dtype.type(0), seg), "seg")
        if labels.dtype == np.uint64 and labels.max() >= 2**63:
            raise ValueError(f"seg must hold labels below 2**63, got {labels.max()}")
        objects = labels.astype(np.int64)
        if self.ignore_background:
            objects[objects == 0] = NOTHING
        if unlabelled is not None:
            objects[_checks.as_mask(unlabelled, "unlabelled_mask", objects.shape)] = UNLABELLED
        return np.where(ignored, NOTHING if self.ignored_is_background else IGNORED, objects)


def kinds_of_edges(object1: Integers, object2: Integers, known: Any) -> Kinds:
    """Return what edges between voxels of two objects are, where their truth is known."""
    unknown = ~known | ((object1 == UNLABELLED) & (object2 == UNLABELLED)) | (object1 == IGNORED) | (object2 == IGNORED)
    kinds = np.where((object1 == object2) & (object1 != NOTHING), INTRA, INTER).astype(np.uint8)
    kinds[unknown] = UNKNOWN
    return kinds


@dataclass(frozen=True)
class Pass:
    """Which edges take part, in which order, and which counts they have."""

    constrained: bool
    positive: bool
    negative: bool

    def classes(self, kinds: Kinds) -> npt.NDArray[np.int8]:
        """Return 0 for edges that come first, 1 for those that follow, -1 for those that take no part."""
        if not self.constrained:
            table = [1, 1, 1]
        elif self.negative:
            table = [0, 1, 1]
        else:
            table = [1, -1, 1]
        return np.array(table, np.int8)[kinds]

    def counted(self, kinds: Kinds, pos: Integers, neg: Integers) -> tuple[Integers, Integers]:
        """Return what is to be reported of the pairs that edges join."""
        known = kinds != UNKNOWN
        has_positive = known & (kinds == INTRA) if self.constrained else known
        return pos * (has_positive & self.positive), neg * (known & self.negative)


def passes(constrain_positive: bool, constrain_negative: bool, unknown: bool) -> list[Pass]:
    """Return the passes that count positive and negative pairs; `unknown` says whether truths may be unknown."""
    if constrain_positive == constrain_negative and not (constrain_positive and unknown):
        return [Pass(constrain_positive, True, True)]
    return [Pass(constrain_positive, True, False), Pass(constrain_negative, False, True)]


class Edges(NamedTuple):
    """Edges of the volume and the nodes that they join, which are named after one of their voxels."""

    edge: Integers
    affinity: Array
    kind: Kinds
    node1: Integers
    node2: Integers

    def take(self, which: Any) -> Edges:
        """Return some of the edges."""
        return Edges(*(array[which] for array in self))


class Entries(NamedTuple):
    """How many voxels of which object nodes stand for."""

    node: Integers
    object: Integers
    voxels: Integers

    def take(self, which: Any) -> Entries:
        """Return some of the entries."""
        return Entries(*(array[which] for array in self))


class CountedForest(NamedTuple):
    """What a box hands on."""

    voxels: Integers
    """Its voxels from which edges lead out, increasing; each is a node."""
    objects: Integers
    """The objects of these."""
    open: Edges
    entries: Entries
    """Of these voxels, and of the other nodes of open edges."""


class Counted(NamedTuple):
    """The edges that have been settled and decide pairs."""

    edge: Integers
    affinity: Array
    pos: Integers
    neg: Integers
    joint: Integers
    """The changes of entropies, for a curve; see cpp/include/malis/segmentation/rand_curve.hpp."""
    segments: Integers


def _joined(parts: Any) -> Any:
    return type(parts[0])(*(np.concatenate(arrays) for arrays in zip(*parts, strict=True)))


@dataclass(frozen=True)
class Counting:
    """Counts the pairs of one pass; `foreground` is given where entropies are asked for, too."""

    grid: ChunkGrid
    nhood: Integers
    of: Pass
    num_threads: int | None = 1
    foreground: int | None = None

    def chunk(
        self, index: Index, aff: Array, objects: Integers, known: npt.NDArray[np.bool_] | None
    ) -> tuple[CountedForest, Counted]:
        """Solve a chunk; `known` is false for edges that a mask says so of."""
        grid = self.grid
        size = grid.size(index)
        voxels = _forests.voxels_of(grid, index, tuple(slice(0, n) for n in size))
        kinds = _kinds_within(objects, self.nhood, known)
        classes = self.of.classes(kinds)
        if (classes == 1).all():
            tree = _core.maximum_spanning_tree(aff, self.nhood, num_threads=self.num_threads)
        else:
            tree = _core.maximum_spanning_tree(_by_class(aff, classes), self.nhood, num_threads=self.num_threads)
        edge, _, node1, node2 = tree
        takes_part = classes.ravel()[edge] >= 0
        edge, node1, node2 = edge[takes_part], node1[takes_part], node2[takes_part]
        whole = edge // voxels.size * grid.voxels + voxels[node1]
        edges = Edges(whole, aff.ravel()[edge], kinds.ravel()[edge], node1, node2)
        at = _forests.positions_of(grid, index, tuple(slice(0, n) for n in size))
        outer = _forests.leads_out(_forests.box_of_chunk(grid, index), grid.shape, self.nhood, at).ravel()
        flat = objects.ravel()
        inside = np.flatnonzero((flat >= 0) | (flat == UNLABELLED))
        entries = Entries(inside, flat[inside], np.ones(len(inside), np.int64))
        return self._solve(edges, voxels, outer, voxels[outer], flat[outer], entries)

    def join(
        self, box: Box, first: CountedForest, second: CountedForest, between: list[Edges]
    ) -> tuple[CountedForest, Counted]:
        """Solve the box of two boxes that have been solved, with the edges between them."""
        voxels, objects = np.concatenate([first.voxels, second.voxels]), np.concatenate([first.objects, second.objects])
        order = np.argsort(voxels)
        voxels, objects = voxels[order], objects[order]
        crossing: Edges = _joined([first.open.take(slice(0)), *between])
        ends = [objects[np.searchsorted(voxels, end)] for end in (crossing.node1, crossing.node2)]
        crossing = crossing._replace(kind=kinds_of_edges(ends[0], ends[1], crossing.kind != UNKNOWN))
        edges: Edges = _joined([first.open, second.open, crossing])
        classes = self.of.classes(edges.kind)
        order = np.lexsort((edges.edge, -edges.affinity, classes))
        edges = edges.take(order[np.searchsorted(classes[order], 0) :])
        outer = _forests.leads_out(box, self.grid.shape, self.nhood, np.unravel_index(voxels, self.grid.shape))
        voxels, objects = voxels[outer], objects[outer]
        entries: Entries = _joined([first.entries, second.entries])
        nodes = _forests.distinct(voxels, edges.node1, edges.node2)
        at = np.searchsorted(nodes, entries.node)
        takes_part = nodes[np.minimum(at, max(0, len(nodes) - 1))] == entries.node if len(nodes) else at < 0
        entries = entries._replace(node=at).take(takes_part)
        edges = edges._replace(node1=np.searchsorted(nodes, edges.node1), node2=np.searchsorted(nodes, edges.node2))
        return self._solve(edges, nodes, np.isin(nodes, voxels), voxels, objects, entries)

    def _solve(
        self,
        edges: Edges,
        nodes: Integers,
        terminal: npt.NDArray[np.bool_],
        voxels: Integers,
        objects: Integers,
        entries: Entries,
    ) -> tuple[CountedForest, Counted]:
        """Take edges, which are in order; ends of edges and nodes of entries are positions in `nodes`."""
        names, number = np.unique(entries.object, return_inverse=True)
        kinds, pos, neg, joint, segments = _core.settle_counts(
            edges.node1,
            edges.node2,
            terminal,
            node=entries.node,
            label=number.astype(np.int64) + 1,
            voxels=entries.voxels,
            unlabelled=1 if len(names) and names[0] == UNLABELLED else 0,
            foreground=self.foreground,
        )
        settled, left = kinds == _forests.SETTLED, np.flatnonzero(kinds == _forests.OPEN)
        component = _core.edge_components(len(nodes), edges.node1, edges.node2, settled)
        # A component is named after its terminal, or after one of its nodes.
        named = np.full(int(component.max(initial=0)) + 1, -1)
        handed_on = np.zeros(len(named), bool)
        named[component] = nodes
        named[component[terminal]] = nodes[terminal]
        handed_on[component[terminal]] = True
        of_open = [component[end[left]] for end in (edges.node1, edges.node2)]
        for ends in of_open:
            handed_on[ends] = True
        of_entries = component[entries.node]
        kept = handed_on[of_entries]
        opened = Edges(edges.edge[left], edges.affinity[left], edges.kind[left], named[of_open[0]], named[of_open[1]])
        forest = CountedForest(voxels, objects, opened, _summed(named, of_entries[kept], entries.take(kept)))
        pos, neg = self.of.counted(edges.kind, pos, neg)
        found = np.flatnonzero((pos | neg) != 0)
        of_curve = found if self.foreground is not None else slice(0)
        counted = Counted(
            edges.edge[found], edges.affinity[found], pos[found], neg[found], joint[of_curve], segments[of_curve]
        )
        return forest, counted


def _summed(named: Integers, component: Integers, entries: Entries) -> Entries:
    """Add up the voxels of one object in one component."""
    order = np.lexsort((entries.object, component))
    component, objects = component[order], entries.object[order]
    new = np.ones(len(order), bool)
    new[1:] = (component[1:] != component[:-1]) | (objects[1:] != objects[:-1])
    first = np.flatnonzero(new)
    voxels = np.add.reduceat(entries.voxels[order], first) if len(first) else np.zeros(0, np.int64)
    return Entries(named[component[first]], objects[first], voxels)


def _kinds_within(objects: Integers, nhood: Integers, known: npt.NDArray[np.bool_] | None) -> Kinds:
    """Return the kinds of the edges of a chunk; those that leave it have any."""
    kinds = np.full((len(nhood), *objects.shape), UNKNOWN, np.uint8)
    for channel, offset in enumerate(nhood.tolist()):
        spans = [(max(0, -o), min(n, n - o)) for o, n in zip(offset, objects.shape, strict=True)]
        if all(begin < end for begin, end in spans):
            at = tuple(itertools.starmap(slice, spans))
            to = tuple(slice(begin + o, end + o) for (begin, end), o in zip(spans, offset, strict=True))
            mask = np.True_ if known is None else known[channel][at]
            kinds[channel][at] = kinds_of_edges(objects[at], objects[to], mask)
    return kinds


def _by_class(aff: Array, classes: npt.NDArray[np.int8]) -> npt.NDArray[np.float64]:
    """Return numbers in the order in which a pass takes edges: first its class, then the affinity."""
    if np.isnan(aff).any():
        raise ValueError("aff must not contain NaN")
    if aff.dtype == np.float32:
        # The bits of a float, as an integer that increases with it; both zeros are 0.
        bits = (aff + np.float32(0)).view(np.int32).astype(np.int64)
        order = np.where(bits < 0, -(bits & 0x7FFFFFFF), bits).astype(np.float64)
    else:
        order = np.unique(aff, return_inverse=True)[1].reshape(aff.shape).astype(np.float64)
    order[classes == 0] += 2.0**34
    order[classes < 0] = -np.inf
    return order


def crossing_edges(
    grid: ChunkGrid,
    index: Index,
    crossings: dict[Index, list[Crossing]],
    aff: Array,
    known: npt.NDArray[np.bool_] | None,
) -> dict[Index, Edges]:
    """Return the edges of a chunk that lead to others; `Counting.join` finds which of them lie within an object."""
    found = {}
    for other, through in crossings.items():
        parts = []
        for channel, at, to in through:
            ends = [_forests.voxels_of(grid, index, at), _forests.voxels_of(grid, other, to)]
            kinds = np.full(len(ends[0]), INTER, np.uint8)
            if known is not None:
                kinds[~known[channel][at].ravel()] = UNKNOWN
            parts.append(Edges(channel * grid.voxels + ends[0], aff[channel][at].ravel(), kinds, *ends))
        found[other] = _joined(parts)
    return found


def check_foreground(voxels: int) -> None:
    """Refuse more voxels than pairs can be counted of."""
    if voxels > _LARGEST:
        raise ValueError(f"seg must have fewer than 2**32 foreground voxels, got {voxels}")
