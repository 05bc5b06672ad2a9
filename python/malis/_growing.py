"""The large components of a spanning tree while the threshold falls, and their voxels counted by the labels of a truth.

Large components only grow as the threshold falls. So every voxel is looked at once, when it comes into one; what is in
none is background, however many small components it is in.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from malis import _checks, metrics
from malis.metrics.table import table_of_entries
from malis.tree import SpanningTree, large_components

_Integers = npt.NDArray[np.int64]

# Voxels that are counted at a time, about a hundred bytes of memory each.
_BLOCK = 2**20


class GrowingComponents:
    """The components of at least `min_size` voxels at one threshold after the other, from the highest down."""

    def __init__(self, tree: SpanningTree, levels: npt.NDArray[np.float64], min_size: int) -> None:
        self._voxels, self._components, self._begins, self._into, self._when = large_components(tree, levels, min_size)
        self._shape = tree.shape
        self._threshold = -1
        self.number = len(self._into)
        """How many components there are in all; at most times some are not yet, and others are part of another."""
        self._parent = np.arange(self.number)
        self._by_threshold = np.argsort(self._when, kind="stable")
        self._when = self._when[self._by_threshold]
        self._sizes = np.zeros(self.number, np.int64)
        self._first = np.full(self.number, self._voxels.size)

    def lower(self) -> None:
        """Go on to the next threshold."""
        self._threshold += 1
        begin, end = np.searchsorted(self._when, [self._threshold, self._threshold + 1])
        joined = self._by_threshold[begin:end]
        self._parent[joined] = self._into[joined]
        whole = self.find(joined)
        np.add.at(self._sizes, whole, self._sizes[joined])
        np.minimum.at(self._first, whole, self._first[joined])
        self._sizes[joined] = 0
        for voxels, components in self.newcomers():
            np.add.at(self._sizes, components, 1)
            np.minimum.at(self._first, components, voxels)

    def find(self, components: npt.NDArray[Any]) -> _Integers:
        """Return the components now that components are part of; one that is on its own is part of itself."""
        whole: _Integers = self._parent[components]
        while True:
            above = self._parent[whole]
            if np.array_equal(above, whole):
                break
            whole = above
        self._parent[components] = whole  # the next search is short
        return whole

    def newcomers(self) -> Iterator[tuple[_Integers, _Integers]]:
        """Yield the voxels that came into large components at this threshold, and the components, block by block."""
        begin, end = self._begins[self._threshold : self._threshold + 2].tolist()
        for first in range(begin, end, _BLOCK):
            block = slice(first, min(first + _BLOCK, end))
            yield self._voxels[block].astype(np.int64), self.find(self._components[block])

    def labels(self) -> _Integers:
        """Return the label of every component that there is now, 0 for the others.

        Labels are 1, 2, ... by decreasing size, equal sizes by their first voxel, as `affgraph_to_seg` gives them.
        """
        large = np.flatnonzero(self._sizes)
        labels = np.zeros(self.number, np.int64)
        labels[large[np.lexsort((self._first[large], -self._sizes[large]))]] = np.arange(1, len(large) + 1)
        return labels

    def of_voxels(self) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
        """Return for every voxel the component that it comes into, counted from 1, or 0; and at which threshold."""
        component = np.zeros(self._shape, self._components.dtype)
        threshold = np.zeros(self._shape, self._components.dtype)
        component.reshape(-1)[self._voxels] = self._components + 1
        threshold.reshape(-1)[self._voxels] = np.repeat(np.arange(len(self._begins) - 1), np.diff(self._begins))
        return component, threshold


class GrowingCounts:
    """How many voxels of every large component carry which true label."""

    def __init__(self, components: GrowingComponents, seg_true: npt.ArrayLike, ignore_label: int | None) -> None:
        self._components = components
        truth, ignored = _checks.as_truth(seg_true, "gts", ignore_label)
        self._truth, self._ignored = truth.reshape(-1), None if ignored is None else ignored.reshape(-1)
        self._true_labels, self._true_sizes = np.unique(self._truth, return_counts=True)
        if self._ignored is not None:  # these carry label 0
            self._true_sizes[0] -= np.count_nonzero(self._ignored)
        # component * number of true labels + label, and how many voxels
        self._code, self._counts = np.zeros(0, np.int64), np.zeros(0, np.int64)

    def lower(self) -> None:
        """Count on, after `components` have gone on to the next threshold."""
        labels = len(self._true_labels)
        component, true = np.divmod(self._code, labels)
        self._add(self._components.find(component) * labels + true, self._counts, fresh=True)
        for voxels, components in self._components.newcomers():
            if self._ignored is not None:
                counted = ~self._ignored[voxels]
                voxels, components = voxels[counted], components[counted]
            true = np.searchsorted(self._true_labels, self._truth[voxels])
            self._add(*np.unique(components * labels + true, return_counts=True))

    def _add(self, code: _Integers, counts: _Integers, fresh: bool = False) -> None:
        """Add counts to those there are, or, if `fresh`, put them in their place."""
        if not fresh:
            code, counts = np.concatenate([self._code, code]), np.concatenate([self._counts, counts])
        order = np.argsort(code, kind="stable")
        self._code, first = np.unique(code[order], return_index=True)
        self._counts = np.add.reduceat(counts[order], first) if len(first) else counts

    def table(self) -> metrics.ContingencyTable:
        """Return the table of the truth and of the labels of the components; what is in none has the label 0."""
        component, true = np.divmod(self._code, len(self._true_labels))
        outside = self._true_sizes.copy()
        np.subtract.at(outside, true, self._counts)
        rest = np.flatnonzero(outside)
        label = self._components.labels()[component]
        kept, pred = np.unique(np.concatenate([np.zeros(len(rest), np.int64), label]), return_inverse=True)
        return table_of_entries(
            self._true_labels,
            kept,
            np.concatenate([rest, true]),
            pred,
            np.concatenate([outside[rest], self._counts]),
        )
