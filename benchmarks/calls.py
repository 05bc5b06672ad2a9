"""The calls that the rows of the table of targets are made of: what is called, on which volume, and how it is checked.

A `Timed` is a description. `make` turns it into a call without arguments: whatever the call needs beside the volume
(masks, lists of nodes) is made there, outside of the time.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

import adapters
import checks
import data
import malis
import yardsticks
from data import Volume

Call = Callable[[], Any]


@dataclass(frozen=True)
class Timed:
    """A call that is timed. Two of the same name and input are one call: it is timed once for all rows of a group."""

    name: str
    make: Callable[[Volume], Call]
    check: Callable[[Volume, Any], None] | None = None  # of a volume and a result; a yardstick needs none
    kind: str = "cells"  # one of data.KINDS
    size: str = "small"  # a field of Sizes

    @property
    def label(self) -> str:
        return f"{self.name}, {self.kind}, {self.size}"

    def on(self, *, kind: str | None = None, size: str | None = None) -> Timed:
        """Return the same call on another input."""
        return replace(self, kind=kind or self.kind, size=size or self.size)


def _named(name: str, options: dict[str, Any]) -> str:
    words = [f"{key}={getattr(value, '__name__', value)}" for key, value in options.items()]
    return f"{name}({', '.join(words)})"


def _of_volume(volume: Volume, options: dict[str, Any]) -> dict[str, Any]:
    """Options with a function in place of a value get what the function makes of the volume."""
    return {key: value(volume) if callable(value) else value for key, value in options.items()}


# ---------------------------------------------------------------------------------------------------- malis_loss
def loss(**options: Any) -> Timed:
    """Loss and gradient; an option may be a function of the volume, such as those of data.py that make masks."""

    def make(volume: Volume) -> Call:
        seg, aff, nhood = volume
        return partial(malis.malis_loss, aff, seg, nhood, **_of_volume(volume, options))

    def check(volume: Volume, result: malis.MalisLoss) -> None:
        seg, aff, nhood = volume
        chosen = _of_volume(volume, options)
        threads = chosen.pop("num_threads", None)
        if aff.ndim > len(nhood[0]) + 1:  # a batch
            for sample in zip(aff, seg, result.loss, result.grad, strict=True):
                checks.loss(sample[0], sample[1], nhood, float(sample[2]), sample[3], **chosen)
            return
        checks.loss(aff, seg, nhood, result.loss, result.grad, **chosen)
        if threads is not None:
            other = malis.malis_loss(aff, seg, nhood, **chosen)
            same = other.loss == result.loss and np.array_equal(other.grad, result.grad)
            checks.require(same, f"{threads} threads change the result")

    return Timed(_named("malis_loss", options), make, check)


def pairs() -> Timed:
    return Timed(
        "pairs",
        lambda volume: partial(malis.pairs, volume[1], volume[0], volume[2]),
        lambda volume, counts: checks.pairs(volume[0], volume[2], *counts),
    )


def torch_step() -> Timed:
    """Forward and backward pass of the loss in PyTorch."""

    def check(volume: Volume, result: tuple[Any, Any]) -> None:
        seg, aff, nhood = volume
        checks.mean_of_batch("MalisLoss of PyTorch", float(result[0]), result[1].numpy(), aff, seg, nhood)

    return Timed(
        "PyTorch MalisLoss",
        lambda volume: adapters.torch_call(volume[0], volume[1], "channels_first"),
        check,
        kind="two samples",
    )


# ----------------------------------------------------------------------------------- lists of nodes of a volume
def _constrained(volume: Volume, pos: int) -> np.ndarray:
    """Weights as the callers of TuragaLab's package constrain them: by the true affinities."""
    seg, aff, nhood = volume
    truth = malis.seg_to_affgraph(seg, nhood).astype(np.float32)
    return (np.minimum if pos else np.maximum)(aff, truth).ravel()


def loss_weights(pos: int) -> Timed:
    """One pass as projects written for the TuragaLab package call it: positive or negative pairs."""

    def make(volume: Volume) -> Call:
        seg, _, nhood = volume
        node1, node2 = (nodes.ravel() for nodes in malis.nodelist_like(seg.shape, nhood))
        labels, weights = seg.astype(np.uint64).ravel(), _constrained(volume, pos)
        return partial(malis.malis_loss_weights, labels, node1, node2, weights, pos)

    def check(volume: Volume, counts: np.ndarray) -> None:
        same, different = checks.number_of_pairs(volume[0])
        total = same if pos else different  # the pass joins all voxels, so it counts all pairs
        checks.require(int(counts.sum()) == total, f"malis_loss_weights counts {int(counts.sum())}, not {total}")

    return Timed(f"malis_loss_weights(pos={pos})", make, check)


def loss_weights_of_batch() -> Timed:
    """The four calls of a training step in PyTorch Connectomics: two samples, positive and negative pairs."""
    passes = [loss_weights(1), loss_weights(0)]

    def samples(volume: Volume) -> list[Volume]:
        seg, aff, nhood = volume
        return [(seg[i], aff[i], nhood) for i in range(len(seg))]

    def make(volume: Volume) -> Call:
        calls = [one_pass.make(sample) for sample in samples(volume) for one_pass in passes]
        return lambda: [call() for call in calls]

    def check(volume: Volume, results: list[np.ndarray]) -> None:
        expected = [(one_pass, sample) for sample in samples(volume) for one_pass in passes]
        for (one_pass, sample), counts in zip(expected, results, strict=True):
            one_pass.check(sample, counts)

    return Timed("malis_loss_weights, four calls", make, check, kind="two samples")


def edge_pairs(**options: Any) -> Timed:
    """Pair counts on the list of nodes of a volume."""

    def make(volume: Volume) -> Call:
        seg, aff, nhood = volume
        node1, node2 = malis.nodelist_from_shape(seg.shape, nhood)
        return partial(malis.edge_pairs, node1, node2, aff, seg, **options)

    def check(volume: Volume, counts: malis.PairCounts) -> None:
        seg, aff, nhood = volume
        expected = malis.pairs(aff, seg, nhood, **options)
        equal = np.array_equal(counts.pos, expected.pos) and np.array_equal(counts.neg, expected.neg)
        checks.require(equal, "edge_pairs counts other pairs than pairs does")

    return Timed(_named("edge_pairs", options), make, check)


# ---------------------------------------------------------------------------------------- trees and segmentations
def spanning_tree() -> Timed:
    def check(volume: Volume, tree: malis.SpanningTree) -> None:
        found = checks.tree_of_all_edges(*volume)
        checks.require(np.array_equal(np.sort(tree.edges), found), "maximum_spanning_tree has other edges than pairs")

    return Timed(
        "maximum_spanning_tree", lambda volume: partial(malis.maximum_spanning_tree, volume[1], volume[2]), check
    )


def rand_curve(**options: Any) -> Timed:
    def make(volume: Volume) -> Call:
        seg, aff, nhood = volume
        return lambda: malis.rand_curve(aff, seg, nhood, **options).f_score

    def check(volume: Volume, f_score: np.ndarray) -> None:
        seg, aff, nhood = volume
        curve = malis.rand_curve(aff, seg, nhood)
        checks.require(np.array_equal(curve.f_score, f_score), "the curve depends on the number of threads")
        checks.curve(curve, yardsticks.threshold_sweep(aff, seg, nhood, thresholds=3)())

    return Timed(_named("rand_curve", options), make, check)


def threshold_sweep() -> Timed:
    return Timed(
        "10 thresholds", lambda volume: yardsticks.threshold_sweep(volume[1], volume[0], volume[2], thresholds=10)
    )


def watershed(**options: Any) -> Timed:
    """Seeded watershed, with one voxel of every object as its seed."""

    def make(volume: Volume) -> Call:
        _, aff, nhood = volume
        return partial(malis.watershed_from_affgraph, aff, data.seeds(volume), nhood, 0, **options)

    def check(volume: Volume, result: tuple[np.ndarray, np.ndarray]) -> None:
        checks.watershed(result[0], data.seeds(volume), volume[2])

    return Timed(_named("watershed_from_affgraph", options), make, check)


def components() -> Timed:
    def make(volume: Volume) -> Call:
        return partial(malis.affgraph_to_seg, volume[1], volume[2], threshold=yardsticks.THRESHOLD)

    def check(volume: Volume, result: tuple[np.ndarray, np.ndarray]) -> None:
        seg, aff, nhood = volume
        labels, sizes = result
        every_component = malis.affgraph_to_seg(aff, nhood, 0, threshold=yardsticks.THRESHOLD)[0]
        checks.same_partition(every_component, yardsticks.cc3d_components(aff, seg, nhood)().T)
        singles = np.bincount(every_component.ravel())[every_component] == 1
        checks.same_partition(labels, np.where(singles, 0, every_component))
        checks.require(np.array_equal(np.bincount(labels.ravel()), sizes), "sizes are not those of the labels")

    return Timed("affgraph_to_seg", make, check)


def connect_labels() -> Timed:
    """Every connected part of a label gets its own."""
    return Timed(
        "connect_labels",
        lambda volume: partial(malis.connect_labels, volume[0], volume[2]),
        lambda volume, parts: checks.require(
            np.array_equal(parts, yardsticks.skimage_label(volume[1], volume[0], volume[2])()),
            "connect_labels and scikit-image number other parts",
        ),
    )


def skimage_label() -> Timed:
    return Timed("skimage.measure.label", lambda volume: yardsticks.skimage_label(volume[1], volume[0], volume[2]))


def cc3d_components() -> Timed:
    return Timed("cc3d", lambda volume: yardsticks.cc3d_components(volume[1], volume[0], volume[2]))


def seg_to_affgraph() -> Timed:
    return Timed(
        "seg_to_affgraph",
        lambda volume: partial(malis.seg_to_affgraph, volume[0], volume[2]),
        lambda volume, graph: checks.require(
            np.array_equal(graph, checks.truth(volume[0], volume[2])), "seg_to_affgraph is wrong"
        ),
    )


# ---------------------------------------------------------------------------------------------------- yardsticks
def argsort(kind: str = "cells") -> Timed:
    return Timed("argsort", lambda volume: lambda: np.argsort(volume[1].ravel()), kind=kind)


def argsort_of_one_sample() -> Timed:
    return Timed("argsort of a sample", lambda volume: lambda: np.argsort(volume[1][0].ravel()), kind="two samples")


def copy_of_affinities() -> Timed:
    return Timed("aff.copy()", lambda volume: volume[1].copy)


def copy_of_true_affinities() -> Timed:
    return Timed("output.copy()", lambda volume: checks.truth(volume[0], volume[2]).copy)


def copyto_of_true_affinities() -> Timed:
    """Write as much as `seg_to_affgraph` does, to memory that is there."""

    def make(volume: Volume) -> Call:
        source = checks.truth(volume[0], volume[2])
        return partial(np.copyto, np.zeros_like(source), source)

    return Timed("numpy.copyto", make)
