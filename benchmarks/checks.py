"""Check results before their times are believed. Every check raises WrongResult."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

import malis
from data import ends

EPSILON = 1e-7  # of the cross entropy


class WrongResult(Exception):
    """A function that is measured returned something wrong."""


def require(condition: bool | np.bool_, what: str) -> None:
    if not condition:
        raise WrongResult(what)


def number_of_pairs(seg: np.ndarray) -> tuple[int, int]:
    """Count the pairs of foreground voxels with the same label and with different labels."""
    sizes = [int(n) for n in np.bincount(seg.ravel())[1:]]
    same = sum(n * (n - 1) // 2 for n in sizes)
    return same, sum(sizes) * (sum(sizes) - 1) // 2 - same


def pairs(seg: np.ndarray, nhood: np.ndarray, pos: np.ndarray, neg: np.ndarray) -> None:
    """Negative pairs are all there are, as the edges join all voxels; positive ones lie on edges within objects."""
    same, different = number_of_pairs(seg)
    require(int(neg.sum()) == different, f"{int(neg.sum())} negative pairs, there are {different}")
    require(0 < int(pos.sum()) <= same, f"{int(pos.sum())} positive pairs, there are {same}")
    intra = truth(seg, nhood) != 0
    require(not np.any(pos[~intra]), "an edge between objects decides positive pairs")
    require(not np.any(neg[intra]), "an edge within an object decides negative pairs")
    # As many edges decide pairs as it takes to join the voxels of every object to its parts.
    parts = malis.affgraph_to_seg(intra, nhood, 0)[0]
    objects = np.unique(parts[seg != 0]).size
    wanted = np.count_nonzero(seg) - objects
    require(np.count_nonzero(pos) == wanted, f"{np.count_nonzero(pos)} edges decide positive pairs, not {wanted}")


def loss(
    aff: np.ndarray,
    seg: np.ndarray,
    nhood: np.ndarray,
    value: float,
    grad: np.ndarray,
    *,
    margin: float = 0.3,
    pointwise: str = "squared_hinge",
    tolerance: float = 1e-6,
    **options: Any,
) -> None:
    """Compare loss and gradient with the formula, by NumPy on the exact counts; `options` are those of `pairs`."""
    pos, neg = malis.pairs(aff, seg, nhood, **options)
    total_pos, total_neg = max(1, int(pos.sum())), max(1, int(neg.sum()))
    decides = np.flatnonzero((pos != 0) | (neg != 0))
    a = aff.ravel()[decides].astype(np.float64)
    p, q = pos.ravel()[decides] / total_pos, neg.ravel()[decides] / total_neg
    if pointwise == "squared_hinge":
        too_low, too_high = np.maximum(0, 1 - margin - a), np.maximum(0, a - margin)
        each, slope = p * too_low**2 + q * too_high**2, 2 * (q * too_high - p * too_low)
        smooth = np.ones(a.shape, bool)
    else:
        smooth = (a > EPSILON) & (a < 1 - EPSILON)  # elsewhere the logarithm is that of EPSILON
        low, high = np.maximum(a, EPSILON), np.maximum(1 - a, EPSILON)
        each, slope = -p * np.log(low) - q * np.log(high), q / high - p / low
    expected = float(np.sum(each))
    require(math.isclose(value, expected, rel_tol=tolerance), f"loss {value!r}, by the formula {expected!r}")
    close = np.isclose(grad.ravel()[decides], slope, rtol=1e-4, atol=1e-12)
    require(np.all(close[smooth]), "the gradient is not that of the formula")
    others = np.count_nonzero(grad) - np.count_nonzero(grad.ravel()[decides])
    require(others == 0, f"the gradient is not 0 on {others} edges that decide nothing")


def mean_of_batch(
    name: str, value: float, grad: np.ndarray, aff: np.ndarray, seg: np.ndarray, nhood: np.ndarray
) -> None:
    """Compare what a framework returns for a batch, channels first, with `malis_loss`."""
    expected = malis.malis_loss(aff, seg, nhood)
    mean = float(expected.loss.mean())
    require(abs(value - mean) <= 1e-6 * mean, f"{name}: loss {value}, malis_loss {mean}")
    same = np.allclose(grad, expected.grad / len(aff), rtol=1e-6, atol=1e-12)
    require(same, f"{name}: another gradient than that of malis_loss")


def tree_of_all_edges(seg: np.ndarray, aff: np.ndarray, nhood: np.ndarray) -> np.ndarray:
    """Return the edges of the maximum spanning tree: without constraints, those that decide pairs of any voxels."""
    everything = {"constrain_positive": False, "constrain_negative": False, "ignore_background": False}
    pos, neg = malis.pairs(aff, seg, nhood, **everything)
    tree = np.flatnonzero((pos + neg).ravel())
    require(tree.size == seg.size - 1, f"{tree.size} edges in the tree of {seg.size} voxels")
    return tree


def watershed(labels: np.ndarray, seeds: np.ndarray, nhood: np.ndarray) -> None:
    """Every seed, of one voxel, has grown to one connected region, and no voxel is left over."""
    require(np.array_equal(labels[seeds != 0], seeds[seeds != 0]), "a seed has lost its own voxel")
    require(bool(labels.all()), "the watershed leaves voxels without a label")
    same_partition(malis.affgraph_to_seg(truth(labels, nhood), nhood, 0)[0], labels)


def truth(seg: np.ndarray, nhood: np.ndarray) -> np.ndarray:
    """Affinity graph of a segmentation, by NumPy alone."""
    graph = np.zeros((len(nhood), *seg.shape), np.int32)
    for channel, offset in zip(graph, nhood.tolist(), strict=True):
        at, to = ends(seg.shape, offset)
        channel[at] = (seg[at] == seg[to]) & (seg[at] != 0)
    return graph


def same_partition(first: np.ndarray, second: np.ndarray) -> None:
    """Labels may have other names, voxels the same company."""
    require(first.shape == second.shape, f"shapes {first.shape} and {second.shape}")
    one, two = first.ravel(), second.ravel()
    to_second = np.zeros(int(one.max()) + 1, np.int64)
    to_first = np.zeros(int(two.max()) + 1, np.int64)
    to_second[one], to_first[two] = two, one
    equal = np.array_equal(to_second[one], two) and np.array_equal(to_first[two], one)
    require(equal, "two segmentations of one graph differ")


def curve(curve: malis.RandCurve, sweep: list[tuple[float, float]]) -> None:
    """Compare the F-scores of a curve with those of thresholds, of which none is above all affinities."""
    for threshold, f_score in sweep:
        # In the precision of the affinities, in which segmentations compare: one of them may be the threshold itself.
        level = curve.thresholds.dtype.type(threshold)
        at = np.searchsorted(-curve.thresholds, -level, side="right") - 1
        found = float(curve.f_score[at])
        require(
            math.isclose(found, f_score, rel_tol=1e-9), f"F-score {found} at {threshold}, by scikit-image {f_score}"
        )
