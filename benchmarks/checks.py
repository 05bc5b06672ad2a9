"""Check results before their times are believed. Every check raises WrongResult."""

from __future__ import annotations

import math

import numpy as np
from data import ends

import malis


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
    aff: np.ndarray, seg: np.ndarray, nhood: np.ndarray, value: float, grad: np.ndarray, *, tolerance: float = 1e-6
) -> None:
    """Compare loss and gradient with the formula, evaluated by NumPy on the exact counts."""
    pos, neg = malis.pairs(aff, seg, nhood)
    total_pos, total_neg = max(1, int(pos.sum())), max(1, int(neg.sum()))
    decides = np.flatnonzero((pos != 0) | (neg != 0))
    a = aff.ravel()[decides].astype(np.float64)
    p, q = pos.ravel()[decides] / total_pos, neg.ravel()[decides] / total_neg
    too_low, too_high = np.maximum(0, 0.7 - a), np.maximum(0, a - 0.3)
    expected = float(np.sum(p * too_low**2) + np.sum(q * too_high**2))
    require(math.isclose(value, expected, rel_tol=tolerance), f"loss {value!r}, by the formula {expected!r}")
    slope = 2 * (q * too_high - p * too_low)
    require(np.allclose(grad.ravel()[decides], slope, rtol=1e-4, atol=1e-12), "the gradient is not that of the formula")
    others = np.count_nonzero(grad) - np.count_nonzero(grad.ravel()[decides])
    require(others == 0, f"the gradient is not 0 on {others} edges that decide nothing")


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
        at = np.searchsorted(-curve.thresholds, -threshold, side="right") - 1
        found = float(curve.f_score[at])
        require(
            math.isclose(found, f_score, rel_tol=1e-9), f"F-score {found} at {threshold}, by scikit-image {f_score}"
        )
