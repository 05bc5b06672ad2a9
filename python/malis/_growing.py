"""The components of a spanning tree while the threshold falls, and their voxels counted by the labels of a truth.

Components only grow as the threshold falls. So the voxels are looked at once, at the highest threshold; from there on
every step touches the components that join in it and nothing else.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from malis import metrics
from malis.metrics.table import table_of_entries
from malis.tree import SpanningTree, segment_tree

_Integers = npt.NDArray[np.int64]


class GrowingComponents:
    """The components at one threshold after the other, from the highest down.

    The components at the first threshold have the numbers 0, 1, ...; one that others have joined keeps the lowest of
    their numbers.
    """

    def __init__(self, tree: SpanningTree, highest: float, min_size: int, num_threads: int | None) -> None:
        self._min_size = min_size
        self._num_threads = num_threads
        seg, voxels = segment_tree(tree, [highest], min_size=1, num_threads=num_threads)[0]
        self.at_highest = np.subtract(seg, 1, out=seg)
        """The component of every voxel at the first threshold, in the shape of the volume."""
        self.number = len(voxels) - 1
        """How many components there are at the first threshold."""
        flat = self.at_highest.reshape(-1)
        self._sizes = voxels[1:].copy()
        self._first = np.empty(self.number, np.int64)
        self._first[flat[::-1]] = np.arange(flat.size)[::-1]  # the last assignment stays, that of the first voxel
        self._parent = np.arange(self.number)
        self._large = np.flatnonzero(self._sizes >= min_size)

        begin = _number_of_edges(tree.affinities, highest)
        self._node1, self._node2 = flat[tree.node1[begin:]], flat[tree.node2[begin:]]
        self._affinities = tree.affinities[begin:]

    def lower(self, threshold: float) -> tuple[_Integers, _Integers]:
        """Go on to a lower threshold; returns the components that join, and the one that each of them is part of now.

        The latter is itself one of the former.
        """
        edges = _number_of_edges(self._affinities, threshold)
        joined, self._affinities = self._affinities[:edges], self._affinities[edges:]
        one, self._node1 = self.find(self._node1[:edges]), self._node1[edges:]
        two, self._node2 = self.find(self._node2[:edges]), self._node2[edges:]
        parts, local = np.unique(np.concatenate([one, two]), return_inverse=True)
        if len(parts) == 0:
            return parts, parts
        ends = local.astype(np.int32)
        graph = SpanningTree(np.arange(edges), joined, ends[:edges], ends[edges:], (len(parts),))
        group = segment_tree(graph, [-np.inf], min_size=1, num_threads=self._num_threads)[0][0] - 1
        groups = int(group.max()) + 1
        whole = np.full(groups, self.number)
        np.minimum.at(whole, group, parts)
        sizes, first = np.zeros(groups, np.int64), np.full(groups, np.iinfo(np.int64).max)
        np.add.at(sizes, group, self._sizes[parts])
        np.minimum.at(first, group, self._first[parts])

        self._parent[parts] = whole[group]
        self._sizes[whole], self._first[whole] = sizes, first
        still = self._large[self._parent[self._large] == self._large]
        self._large = np.union1d(still, whole[sizes >= self._min_size])
        return parts, whole[group]

    def find(self, components: npt.NDArray[Any]) -> _Integers:
        """Return the components now that components at the first threshold are part of."""
        root: _Integers = self._parent[components]
        while True:
            above = self._parent[root]
            if np.array_equal(above, root):
                break
            root = above
        self._parent[components] = root  # the next search is short
        return root

    def large(self) -> _Integers:
        """Return the components of at least `min_size` voxels by decreasing size, equal ones by their first voxel.

        That is the order in which `affgraph_to_seg` gives them the labels 1, 2, ...
        """
        return self._large[np.lexsort((self._first[self._large], -self._sizes[self._large]))]

    def labels(self, components: npt.NDArray[Any]) -> _Integers:
        """Return the labels now of components at the first threshold, 0 for what is too small."""
        large = self.large()
        by_number = np.argsort(large)
        root = self.find(components)
        if len(large) == 0:
            return np.zeros(root.shape, np.int64)
        at = np.minimum(np.searchsorted(large[by_number], root), len(large) - 1)
        return np.where(large[by_number[at]] == root, by_number[at] + 1, 0)


def _number_of_edges(affinities: npt.NDArray[Any], threshold: float) -> int:
    """Return how many edges connect at a threshold, which is rounded to the affinities' dtype as in `segment_tree`."""
    with np.errstate(over="ignore"):
        return int(np.count_nonzero(affinities >= np.float64(threshold).astype(affinities.dtype)))


class GrowingCounts:
    """How many voxels of every growing component carry which true label."""

    def __init__(self, components: GrowingComponents, seg_true: npt.ArrayLike, ignore_label: int | None) -> None:
        self._components = components
        table = metrics.contingency_table(seg_true, components.at_highest, ignore_label=ignore_label)
        component = table.pred_labels.astype(np.int64)[table.pred_index]
        order = np.argsort(component, kind="stable")
        self._true_labels = table.true_labels
        self._true_sizes = table.true_sizes
        # The entries of component c are those from _begin[c] on, _length[c] of them; what has joined something else has
        # none that count.
        self._true, self._counts = table.true_index[order], table.counts[order]
        self._used = len(order)
        self._length = np.bincount(component, minlength=components.number)
        self._begin = np.cumsum(self._length) - self._length

    def join(self, parts: _Integers, whole: _Integers) -> None:
        """Add the counts of components up that are parts of one now, as `GrowingComponents.lower` returns them."""
        entries, of_part = self._entries(parts)
        code = whole[of_part] * len(self._true_labels) + self._true[entries]
        order = np.argsort(code, kind="stable")
        code = code[order]
        first = np.flatnonzero(np.diff(code, prepend=-1))
        counts = np.add.reduceat(self._counts[entries][order], first) if len(first) else np.zeros(0, np.int64)
        owner, true = np.divmod(code[first], max(1, len(self._true_labels)))
        begin = self._append(true, counts)
        self._length[parts] = 0
        owners, at, lengths = np.unique(owner, return_index=True, return_counts=True)
        self._begin[owners], self._length[owners] = begin + at, lengths

    def table(self) -> metrics.ContingencyTable:
        """Return the table of the truth and of the labels of the components; what is too small has the label 0."""
        large = self._components.large()
        entries, label = self._entries(large)
        true, counts = self._true[entries], self._counts[entries]
        small = self._true_sizes.copy()
        np.subtract.at(small, true, counts)
        rest = np.flatnonzero(small)
        kept, index = np.unique(np.concatenate([np.zeros(len(rest), np.int64), label + 1]), return_inverse=True)
        return table_of_entries(
            self._true_labels, kept, np.concatenate([rest, true]), index, np.concatenate([small[rest], counts])
        )

    def _entries(self, components: _Integers) -> tuple[_Integers, _Integers]:
        """Return where the entries of components are, and the position in `components` that each belongs to."""
        lengths = self._length[components]
        position = np.repeat(np.arange(len(components)), lengths)
        before = np.cumsum(lengths) - lengths
        return np.arange(len(position)) + (self._begin[components] - before)[position], position

    def _append(self, true: _Integers, counts: _Integers) -> int:
        """Write entries behind the others; returns where they begin."""
        begin, self._used = self._used, self._used + len(true)
        if self._used > len(self._true):
            room = np.zeros(self._used - begin + len(self._true) // 2, np.int64)
            self._true, self._counts = np.concatenate([self._true, room]), np.concatenate([self._counts, room])
        self._true[begin : self._used], self._counts[begin : self._used] = true, counts
        return begin
