"""One function, called again and again while a thread overwrites the arrays that it reads: what `test_races.py` runs.

python tests/races.py FUNCTION CALLS THREADS
"""

from __future__ import annotations

import collections
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np

import malis
from malis import _core
from malis.loss import batch_loss

SHAPE = (16, 48, 48)  # of more voxels than one block of the trees has
NHOOD = np.array([[-1, 0, 0], [0, -1, 0], [0, 0, -1], [0, 3, 2]])
ACCEPTED = (ValueError, TypeError, IndexError, OverflowError, MemoryError)

# What is written to the arrays.
LABELS = [0, 1, 7, 300, 200_000, 2**40, 2**62, -1, -(2**63)]
AFFINITIES = [0.0, 0.5, 1.0, -1.0, 3e38, np.inf, -np.inf, np.nan, 1e-30]
BYTES = [0, 1, 128, 255]
NODES = [0, 1, 10**6, 2**31 - 1, -1, -2, -(2**31)]


class Arrays:
    """Small arguments of every function."""

    def __init__(self) -> None:
        rng = np.random.default_rng(7)
        self.aff = rng.random((len(NHOOD), *SHAPE), dtype=np.float32)
        self.seg = np.repeat(np.repeat(rng.integers(0, 40, (16, 12, 12)), 4, 1), 4, 2).astype(np.int64)
        self.bytes = np.rint(255 * self.aff).astype(np.uint8)
        self.edge_mask, self.voxel_mask = rng.random(self.aff.shape) < 0.9, rng.random(SHAPE) < 0.1
        node1, node2 = malis.nodelist_from_shape(SHAPE, NHOOD)
        self.node1, self.node2 = node1.ravel().copy(), node2.ravel().copy()
        self.tree = malis.maximum_spanning_tree(self.aff, NHOOD, num_threads=1)
        self.last_aff = np.ascontiguousarray(np.moveaxis(self.aff, 0, -1)[None])
        self.last_mask = np.ascontiguousarray(np.moveaxis(self.edge_mask, 0, -1)[None])

    def wild(self, kinds: str) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """The arrays of some kinds, a copy of each, and the values to write there."""
        of_kind: dict[str, list[tuple[np.ndarray, list[Any]]]] = {
            "labels": [(self.seg, LABELS)],
            "affinities": [(self.aff, AFFINITIES), (self.last_aff, AFFINITIES)],
            "bytes": [(self.bytes, BYTES)],
            "masks": [(mask, [True, False]) for mask in (self.edge_mask, self.voxel_mask, self.last_mask)],
            "nodes": [(self.node1, NODES), (self.node2, NODES)],
            "tree": [(self.tree.node1, NODES), (self.tree.node2, NODES), (self.tree.affinities, AFFINITIES)],
        }
        arrays = [pair for kind in kinds.split() for pair in of_kind[kind]]
        return [(array, array.copy(), np.array(values).astype(array.dtype)) for array, values in arrays]


Function = Callable[[Arrays, dict[str, Any]], object]
MASKS = {"constrain_positive": False, "constrain_negative": False, "ignore_background": False}
FUNCTIONS: dict[str, tuple[Function, str]] = {
    "pairs": (lambda a, n: malis.pairs(a.aff, a.seg, NHOOD, **n), "labels affinities"),
    "pairs-masks": (
        lambda a, n: malis.pairs(a.aff, a.seg, NHOOD, edge_mask=a.edge_mask, unlabelled_mask=a.voxel_mask, **n),
        "labels affinities masks",
    ),
    "pairs-unconstrained": (lambda a, n: malis.pairs(a.aff, a.seg, NHOOD, **MASKS, **n), "labels affinities"),
    "malis_loss": (lambda a, n: malis.malis_loss(a.aff, a.seg, NHOOD, **n), "labels affinities"),
    "malis_loss-entropy": (
        lambda a, n: malis.malis_loss(a.aff, a.seg, NHOOD, pointwise="cross_entropy", from_logits=True, **n),
        "labels affinities",
    ),
    "malis_loss-channels-last": (
        lambda a, n: batch_loss(a.last_aff, a.seg[None], NHOOD, edge_mask=a.last_mask, channels_last=True, **n),
        "labels affinities masks",
    ),
    "edge_pairs": (
        lambda a, n: malis.edge_pairs(a.node1, a.node2, a.aff.ravel(), a.seg, **n),
        "labels affinities nodes",
    ),
    "rand_curve": (lambda a, n: malis.rand_curve(a.aff, a.seg, NHOOD, **n), "labels affinities"),
    "affgraph_to_seg": (lambda a, n: malis.affgraph_to_seg(a.aff, NHOOD, threshold=0.5, **n), "affinities"),
    "affgraph_to_seg-merge": (
        lambda a, n: malis.affgraph_to_seg(a.aff, NHOOD, 9, threshold=0.7, small="merge", **n),
        "affinities",
    ),
    "affgraph_to_seg-bytes": (lambda a, n: malis.affgraph_to_seg(a.bytes, NHOOD, threshold=0.5, **n), "bytes"),
    "connect_labels": (lambda a, n: malis.connect_labels(a.seg, NHOOD, **n), "labels"),
    "connect_labels-no-runs": (lambda a, n: malis.connect_labels(a.seg, NHOOD[:2], **n), "labels"),
    "watershed_basins": (lambda a, n: malis.watershed_basins(a.aff, NHOOD, **n), "affinities"),
    "watershed_basins-bytes": (lambda a, n: malis.watershed_basins(a.bytes, NHOOD, **n), "bytes"),
    "watershed_from_affgraph": (
        lambda a, n: malis.watershed_from_affgraph(a.aff, a.seg, NHOOD, **n),
        "labels affinities",
    ),
    "watershed_from_affgraph-bytes": (
        lambda a, n: malis.watershed_from_affgraph(a.bytes, a.seg, NHOOD, **n),
        "labels bytes",
    ),
    "maximum_spanning_tree-bytes": (lambda a, n: malis.maximum_spanning_tree(a.bytes, NHOOD, **n), "bytes"),
    "rand_curve-bytes": (lambda a, n: malis.rand_curve(a.bytes, a.seg, NHOOD, **n), "labels bytes"),
    "maximum_spanning_tree": (lambda a, n: malis.maximum_spanning_tree(a.aff, NHOOD, **n), "affinities"),
    "segment_tree": (lambda a, n: malis.segment_tree(a.tree, [0.2, 0.5, 0.8], **n), "tree"),
    "linkage": (lambda a, n: malis.linkage(a.tree), "tree"),
    "smaller_sizes": (
        lambda a, n: _core.smaller_sizes(a.seg.size, a.tree.affinities, a.tree.node1, a.tree.node2),
        "tree",
    ),
    "malis_loss-connected": (
        lambda a, n: malis.malis_loss(a.aff, a.seg, NHOOD, connect_labels=True, ignore_label=7, **n),
        "labels affinities",
    ),
    "seg_to_affgraph": (lambda a, n: malis.seg_to_affgraph(a.seg, NHOOD, **n), "labels"),
    "affgraph_to_edgelist": (lambda a, n: malis.affgraph_to_edgelist(a.aff, NHOOD), "affinities"),
    "malis_loss_weights": (
        lambda a, n: malis.malis_loss_weights(a.seg.ravel().view(np.uint64), a.node1, a.node2, a.aff.ravel(), 1),
        "labels affinities nodes",
    ),
    "connected_components": (
        lambda a, n: malis.connected_components(a.seg.size, a.node1, a.node2, a.aff.ravel()),
        "affinities nodes",
    ),
    "connected_components_affgraph": (lambda a, n: malis.connected_components_affgraph(a.aff, NHOOD), "affinities"),
    "marker_watershed": (
        lambda a, n: malis.marker_watershed(a.seg.ravel(), a.node1, a.node2, a.aff.ravel()),
        "labels affinities nodes",
    ),
    "metrics": (lambda a, n: malis.metrics.evaluate(a.seg, a.seg.copy()), "labels"),
}


def scribble(arrays: list[tuple[np.ndarray, np.ndarray, np.ndarray]], done: threading.Event) -> None:
    """Write to the arrays and put back what was there, for longer and for shorter than a call takes."""
    rng = np.random.default_rng(11)
    while not done.is_set():
        array, before, values = arrays[rng.integers(len(arrays))]
        flat = array.reshape(-1)
        start = int(rng.integers(flat.size))
        piece = slice(start, start + int(rng.choice([1, 50, flat.size])))
        # Most calls should find nothing wrong in what they check first.
        time.sleep(float(rng.choice([0, 0, 2e-4, 1e-3])))
        flat[piece] = values[rng.integers(len(values))]
        time.sleep(float(rng.choice([0, 0, 0, 2e-4])))
        flat[:] = before.reshape(-1)


def main(name: str, calls: int, threads: int) -> None:
    """Call a function so many times, and print how the calls ended."""
    function, kinds = FUNCTIONS[name]
    arrays, done = Arrays(), threading.Event()
    function(arrays, {"num_threads": threads})  # nothing is wrong with the arguments until they change
    thread = threading.Thread(target=scribble, args=(arrays.wild(kinds), done))
    thread.start()
    ends: collections.Counter[str] = collections.Counter()
    try:
        for _ in range(calls):
            try:
                function(arrays, {"num_threads": threads})
            except ACCEPTED as error:
                ends[type(error).__name__] += 1
            else:
                ends["result"] += 1
    finally:
        done.set()
        thread.join()
    print(dict(ends))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
