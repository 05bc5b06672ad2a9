"""What a user could pick instead, on the same graphs.

Every function takes a volume and returns a call without arguments; what that call needs in its own layout (edge
lists, a sparse matrix, a bit field) is made before, outside of the time. Orders are those of malis: the strongest
edge comes first.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

import malis
from data import all_but_a_slab, ends, seeds

Call = Callable[[], Any]

THRESHOLD = 0.5


def edge_list(aff: np.ndarray, nhood: np.ndarray, dtype: type) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Both ends and the affinity of every edge that exists, in the order of edge indices."""
    shape = aff.shape[1:]
    nodes = np.arange(int(np.prod(shape)), dtype=dtype).reshape(shape)
    first, second, weights = [], [], []
    for channel, offset in zip(aff, nhood.tolist(), strict=True):
        at, to = ends(shape, offset)
        first.append(nodes[at].ravel())
        second.append(nodes[to].ravel())
        weights.append(channel[at].ravel())
    return np.concatenate(first), np.concatenate(second), np.concatenate(weights)


def higra_bpt(aff: np.ndarray, seg: np.ndarray, nhood: np.ndarray) -> Call:
    """The binary partition tree alone: sorting and merging, no counts."""
    import higra

    sources, targets, weights = edge_list(aff, nhood, np.int64)
    heights = -weights
    graph = sources, targets, int(np.prod(aff.shape[1:]))
    return lambda: higra.bpt_canonical(graph, heights, compute_mst=False)


def sparse_matrix(aff: np.ndarray, nhood: np.ndarray) -> Any:
    """Graph for a *minimum* spanning tree: 2 - affinity, as a weight of 0 would be no edge."""
    from scipy.sparse import coo_matrix

    sources, targets, weights = edge_list(aff, nhood, np.int32)
    n = int(np.prod(aff.shape[1:]))
    return coo_matrix((2 - weights.astype(np.float64), (sources, targets)), shape=(n, n)).tocsr()


def scipy_tree(aff: np.ndarray, seg: np.ndarray, nhood: np.ndarray) -> Call:
    """The spanning tree alone, as a sparse matrix."""
    from scipy.sparse.csgraph import minimum_spanning_tree

    matrix = sparse_matrix(aff, nhood)
    return lambda: minimum_spanning_tree(matrix)


def scipy_components(aff: np.ndarray, seg: np.ndarray, nhood: np.ndarray) -> Call:
    """Components of the edges above the threshold, from a sparse matrix of these."""
    from scipy.sparse.csgraph import connected_components

    matrix = sparse_matrix(np.where(aff >= THRESHOLD, aff, np.float32(2)), nhood)
    matrix.eliminate_zeros()  # 2 - 2
    return lambda: connected_components(matrix, directed=False)


def threshold_sweep(aff: np.ndarray, seg: np.ndarray, nhood: np.ndarray, *, thresholds: int) -> Call:
    """Threshold and F-score of the pairs for so many segmentations, by scikit-image."""
    from skimage.metrics import adapted_rand_error

    def sweep() -> list[tuple[float, float]]:
        scores = []
        for threshold in np.linspace(0.05, 0.95, thresholds):
            labels, _ = malis.affgraph_to_seg(aff, nhood, 0, threshold=threshold)
            scores.append((float(threshold), 1 - float(adapted_rand_error(seg, labels, ignore_labels=(0,))[0])))
        return scores

    return sweep


def connectivity_graph(aff: np.ndarray, nhood: np.ndarray, threshold: float) -> np.ndarray:
    """Bit field of cc3d: which of its six neighbours a voxel is connected to.

    Its axis x is our last one: both then walk through memory in the same way. Bits 0 and 1 lead to +x and -x, the
    next two to +y and -y, then +z and -z.
    """
    bits = np.zeros(aff.shape[1:], np.uint8)
    for channel, offset in zip(aff, nhood.tolist(), strict=True):
        axis = int(np.flatnonzero(offset)[0])
        at, to = ends(bits.shape, offset)
        connected = channel[at] >= threshold
        forward, backward = 1 << 2 * (2 - axis), 2 << 2 * (2 - axis)
        from_v, to_v = (forward, backward) if offset[axis] > 0 else (backward, forward)
        bits[at] |= connected * np.uint8(from_v)
        bits[to] |= connected * np.uint8(to_v)
    return bits.T


def cc3d_components(aff: np.ndarray, seg: np.ndarray, nhood: np.ndarray) -> Call:
    """Components of the edges above the threshold, from a bit field of these."""
    import cc3d

    graph = connectivity_graph(aff, nhood, THRESHOLD)
    return lambda: cc3d.color_connectivity_graph(graph, connectivity=6)


def skimage_label(aff: np.ndarray, seg: np.ndarray, nhood: np.ndarray) -> Call:
    """Components of an image of labels: it takes no graph, so this is the easier problem of the ground truth."""
    from skimage.measure import label

    return lambda: label(seg, background=0, connectivity=1)


def malis_tree(aff: np.ndarray, seg: np.ndarray, nhood: np.ndarray) -> Call:
    """Counts of the algorithm of 2009: one pass over all edges."""
    return lambda: malis.pairs(aff, seg, nhood, constrain_positive=False, constrain_negative=False)


def masked_loss(aff: np.ndarray, seg: np.ndarray, nhood: np.ndarray) -> Call:
    """Loss and gradient where the truth of an eighth of the volume is unknown."""
    mask = all_but_a_slab((seg, aff, nhood))
    return lambda: malis.malis_loss(aff, seg, nhood, edge_mask=mask)


def rand_curve(aff: np.ndarray, seg: np.ndarray, nhood: np.ndarray) -> Call:
    """Scores at all thresholds."""
    return lambda: malis.rand_curve(aff, seg, nhood)


def watershed(aff: np.ndarray, seg: np.ndarray, nhood: np.ndarray) -> Call:
    """Seeded watershed, with one voxel of every object as its seed."""
    marked = seeds((seg, aff, nhood))
    return lambda: malis.watershed_from_affgraph(aff, marked, nhood)


class Candidate(NamedTuple):
    """A function of the side by side comparison."""

    label: str
    group: str  # "tree", "components", "more" (of malis alone) or "floor"
    make: Callable[[np.ndarray, np.ndarray, np.ndarray], Call]
    package: str | None  # import name of what has to be installed
    does: str
    held: int  # bytes per edge that its own layout of the graph takes
    peak: int  # bytes per edge that preparation or call take beyond that, a generous bound


CANDIDATES = (
    # What any loss with a gradient has to do: read the affinities, and write as many numbers to new memory.
    Candidate("numpy.copy", "floor", lambda aff, seg, nhood: lambda: aff.copy(), None, "copies the affinities", 0, 5),
    Candidate("numpy.argsort", "tree", lambda aff, seg, nhood: lambda: np.argsort(aff.ravel()), None, "sorts", 0, 10),
    Candidate(
        "malis.malis_loss",
        "tree",
        lambda aff, seg, nhood: lambda: malis.malis_loss(aff, seg, nhood),
        None,
        "trees, counts, loss and gradient",
        0,
        24,
    ),
    Candidate(
        "malis.pairs",
        "tree",
        lambda aff, seg, nhood: lambda: malis.pairs(aff, seg, nhood),
        None,
        "trees and counts, both constrained",
        0,
        36,
    ),
    Candidate("malis.pairs (2009)", "tree", malis_tree, None, "tree and counts, unconstrained", 0, 70),
    Candidate("higra.bpt_canonical", "tree", higra_bpt, "higra", "tree alone, no counts", 20, 40),
    Candidate("scipy minimum_spanning_tree", "tree", scipy_tree, "scipy", "tree alone, no counts", 12, 50),
    Candidate(
        "malis.affgraph_to_seg",
        "components",
        lambda aff, seg, nhood: lambda: malis.affgraph_to_seg(aff, nhood, threshold=THRESHOLD),
        None,
        "thresholds the affinities and labels the components by size",
        0,
        12,
    ),
    Candidate(
        "cc3d.color_connectivity_graph",
        "components",
        cc3d_components,
        "cc3d",
        "labels the components of a ready-made connectivity graph",
        1,
        12,
    ),
    Candidate(
        "scipy connected_components",
        "components",
        scipy_components,
        "scipy",
        "labels the components of a ready-made sparse matrix",
        12,
        50,
    ),
    Candidate(
        "skimage.measure.label",
        "components",
        skimage_label,
        "skimage",
        "labels the components of an image, not of a graph",
        0,
        12,
    ),
    Candidate(
        "malis.malis_loss, masked",
        "more",
        masked_loss,
        None,
        "the loss with an `edge_mask` that leaves out an eighth of the volume",
        1,
        80,
    ),
    Candidate("malis.rand_curve", "more", rand_curve, None, "scores at all thresholds", 0, 80),
    Candidate("malis.watershed_from_affgraph", "more", watershed, None, "watershed from a seed for each object", 2, 60),
)
