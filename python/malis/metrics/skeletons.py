"""Scores along skeletons: how far one follows a neuron before the segmentation errs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from malis import _checks
from malis.metrics.table import table_of_entries

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray


class Skeletons:
    """True skeletons of a volume: nodes in voxels, edges between them, and the length of every edge.

    Parameters
    ----------
    nodes : array_like, shape (n, ndim)
        Coordinates in voxels, in the order of the axes of the segmentation; fractions belong to the nearest voxel.
    edges : array_like of int, shape (m, 2)
        The two nodes of every edge, numbers below ``n``.
    ids : array_like of int, shape (n,)
        Which skeleton every node belongs to; both nodes of an edge must belong to one.
    voxel_size : float or array_like of float, shape (ndim,), default 1
        Extent of a voxel along every axis, in any unit of length; the run lengths are in the same.
    lengths : array_like of float, shape (m,), optional
        Lengths of the edges. By default the Euclidean distance of their nodes.

    Raises
    ------
    TypeError, ValueError
        For shapes that do not go together, dtypes of another type, numbers that are not finite, edges that leave the
        nodes or join two skeletons, voxel sizes that are not positive and lengths that are negative.

    Examples
    --------
    >>> skeletons = Skeletons([[0, 0], [0, 3], [4, 0]], [[0, 1], [0, 2]], [1, 1, 1], voxel_size=(2, 1))
    >>> skeletons.lengths
    array([3., 8.])
    """

    def __init__(
        self,
        nodes: ArrayLike,
        edges: ArrayLike,
        ids: ArrayLike,
        *,
        voxel_size: ArrayLike = 1.0,
        lengths: ArrayLike | None = None,
    ) -> None:
        self.nodes = _as_nodes(nodes)
        n_nodes, ndim = self.nodes.shape
        self.ids = _as_integers(ids, "ids", (n_nodes,))
        pairs = np.asarray(edges)
        if pairs.size == 0:
            pairs = np.zeros((0, 2), np.int64)
        self.edges = _as_integers(pairs, "edges", (len(pairs), 2)).astype(np.int64)
        if self.edges.size and not (self.edges.min() >= 0 and self.edges.max() < n_nodes):
            raise ValueError(
                f"edges must hold nodes from 0 to {n_nodes - 1}, got {self.edges.min()} to {self.edges.max()}"
            )
        ends = self.ids[self.edges]
        if (ends[:, 0] != ends[:, 1]).any():
            at = int(np.flatnonzero(ends[:, 0] != ends[:, 1])[0])
            raise ValueError(f"edges must join nodes of one skeleton, got {ends[at].tolist()} at edge {at}")
        if lengths is None:
            step = (self.nodes[self.edges[:, 0]] - self.nodes[self.edges[:, 1]]) * _as_voxel_size(voxel_size, ndim)
            self.lengths = np.sqrt((step**2).sum(axis=1))
        else:
            self.lengths = _as_lengths(lengths, len(self.edges))

    def __repr__(self) -> str:
        skeletons, length = len(np.unique(self.ids)), float(self.lengths.sum())
        return f"<Skeletons: {skeletons} with {len(self.nodes)} nodes, {len(self.edges)} edges, length {length:g}>"

    @classmethod
    def from_networkx(
        cls, graph: Any, *, id: str = "id", position: str = "index_position", voxel_size: ArrayLike = 1.0
    ) -> Skeletons:
        """Take the skeletons from a graph of NetworkX whose nodes carry attributes.

        Parameters
        ----------
        graph : networkx.Graph
            The skeletons, such as the ``skeleton.pkl`` of the NISB benchmark.
        id, position : str, optional
            The attributes of a node that hold the number of its skeleton and its coordinates in voxels; by default as
            in the NISB benchmark.
        voxel_size : float or array_like of float, optional
            As for the class; (9, 9, 20) nm in most of the data of NISB.

        Returns
        -------
        Skeletons
            The nodes in the order of the graph.

        Raises
        ------
        TypeError, ValueError
            As the class; also where a node carries no such attribute.
        """
        numbers = {node: number for number, node in enumerate(graph.nodes)}
        try:
            attributes = [(data[position], data[id]) for _, data in graph.nodes(data=True)]
        except KeyError as missing:
            raise ValueError(f"graph must have the attribute {missing} at every node") from None
        nodes, ids = zip(*attributes, strict=True) if attributes else ((), ())
        edges = [(numbers[u], numbers[v]) for u, v in graph.edges]
        return cls(np.array(nodes), edges, np.array(ids), voxel_size=voxel_size)


class SkeletonScores(NamedTuple):
    """What becomes of skeletons in a segmentation (see :func:`skeleton_scores`); lengths in the unit of the edges."""

    erl: float
    """Expected run length."""
    max_erl: float
    """Expected run length of a segmentation without an error."""
    nerl: float
    """Normalised expected run length, ``erl / max_erl``, between 0 and 1."""
    n_splits: int
    """Edges between two segments."""
    n_mergers: int
    """Skeletons in a segment of several skeletons, summed over such segments."""
    correct_length: float
    """Length of the edges that are right."""
    split_length: float
    """Length of the edges between two segments."""
    merged_length: float
    """Length of the edges in segments of several skeletons."""
    omitted_length: float
    """Length of the edges with an end in the background."""


def skeleton_segments(skeletons: Skeletons, seg_pred: ArrayLike, *, offset: ArrayLike | None = None) -> NDArray[Any]:
    """Look up the predicted label of every node.

    Parameters
    ----------
    skeletons : Skeletons
        The true skeletons.
    seg_pred : array_like of int
        Predicted labels, with as many axes as the nodes have coordinates; 0 is background.
    offset : array_like of int, shape (ndim,), optional
        Where `seg_pred`, a part of the volume, begins. Nodes outside of the part get 0, so that the results of
        disjoint parts add up to that of the volume: volumes larger than memory are looked up block by block.

    Returns
    -------
    ndarray of int64, shape (n,)
        Labels; uint64 for labels of that dtype.

    Raises
    ------
    TypeError, ValueError
        For labels that are no integers of at least 0, shapes that do not go together, and without an `offset` for
        nodes outside of the volume.

    Examples
    --------
    >>> skeletons = Skeletons([[0], [1], [4]], [[0, 1], [1, 2]], [1, 1, 1])
    >>> seg = np.array([7, 7, 0, 8, 8])
    >>> skeleton_segments(skeletons, seg)
    array([7, 7, 8])
    >>> skeleton_segments(skeletons, seg[:3], offset=[0]) + skeleton_segments(skeletons, seg[3:], offset=[3])
    array([7, 7, 8])
    """
    _check_skeletons(skeletons)
    seg = _checks.as_labels(seg_pred, "seg_pred")
    n_nodes, ndim = skeletons.nodes.shape
    if seg.ndim != ndim:
        raise ValueError(f"seg_pred must have {ndim} axes as nodes have coordinates, got {_checks.describe(seg)}")
    voxels = np.rint(skeletons.nodes).astype(np.int64)
    if offset is not None:
        voxels = voxels - _as_integers(offset, "offset", (ndim,)).astype(np.int64)
    inside = ((voxels >= 0) & (voxels < seg.shape)).all(axis=1)
    if offset is None and not inside.all():
        node = int(np.flatnonzero(~inside)[0])
        raise ValueError(
            f"skeletons must lie in seg_pred of shape {seg.shape}, got node {node} at {voxels[node].tolist()}; for a "
            "part of a volume give its offset"
        )
    segments = np.zeros(n_nodes, np.uint64 if seg.dtype == np.uint64 else np.int64)
    segments[inside] = seg[tuple(voxels[inside].T)]
    return segments


def skeleton_scores(
    skeletons: Skeletons,
    seg_pred: ArrayLike | None = None,
    *,
    merge_threshold: int = 0,
    node_segments: ArrayLike | None = None,
) -> SkeletonScores:
    """Return the expected run length along skeletons, and their split and merge errors.

    The expected run length is the length over which one follows a neuron without an error, from a random place on a
    random skeleton [1]_. Every edge of a skeleton is

    1. *omitted* if one of its nodes lies in the background of the prediction; else
    2. *split* if its nodes lie in two segments; else
    3. *merged* if its segment is a merging one; else
    4. *correct*.

    A segment is *merging* if it holds nodes of two or more skeletons, where up to `merge_threshold` nodes of a
    skeleton do not count: small contacts are forgiven, as in the NISB benchmark [2]_. With ``l[s, g]`` the length of
    the correct edges of skeleton ``s`` in segment ``g``, and ``L[s]`` the length of the skeleton::

        erl = sum over s, g of l^2 / sum L        max_erl = sum L^2 / sum L        nerl = erl / max_erl

    Parameters
    ----------
    skeletons : Skeletons
        The true skeletons.
    seg_pred : array_like of int
        Predicted labels of the volume; 0 is background.
    merge_threshold : int, default 0
        Most nodes of a skeleton in a segment that do not make the segment a merging one. NISB reports 0, 5, 20, 100.
    node_segments : array_like of int, shape (n,), optional
        In place of `seg_pred`: the predicted label of every node, such as the sum of what :func:`skeleton_segments`
        returned for the parts of a volume.

    Returns
    -------
    SkeletonScores
        ``erl``, ``max_erl``, ``nerl``, ``n_splits``, ``n_mergers`` and the lengths of the four kinds of edges. The run
        lengths are NaN if the skeletons have no length.

    Raises
    ------
    TypeError, ValueError
        As :func:`skeleton_segments`; also for a `merge_threshold` that is no integer of at least 0.

    Notes
    -----
    The edges are told apart as in `funlib.evaluate` and, with a threshold, in the evaluation of NISB: an edge in a
    merging segment is merged if its skeleton takes part in some merger beyond the threshold.

    References
    ----------
    .. [1] M. Januszewski, J. Kornfeld, P. H. Li, et al.: High-precision automated reconstruction of neurons with
       flood-filling networks. Nature Methods 15 (2018), 605-610.
    .. [2] F. Rieger, A.-M. Lacatusu, Z. Urbanova, et al.: NISB: Neuron Instance Segmentation Benchmark (2024),
       https://structuralneurobiologylab.github.io/nisb; `banis`, ``metrics.py``.

    Examples
    --------
    Two neurons of length 3; the second one is split in the middle:

    >>> nodes = [[0, 0], [0, 1], [0, 2], [0, 3], [2, 0], [2, 1], [2, 2], [2, 3]]
    >>> edges = [[0, 1], [1, 2], [2, 3], [4, 5], [5, 6], [6, 7]]
    >>> skeletons = Skeletons(nodes, edges, [1, 1, 1, 1, 2, 2, 2, 2])
    >>> scores = skeleton_scores(skeletons, [[5, 5, 5, 5], [0, 0, 0, 0], [6, 6, 7, 7]])
    >>> scores.erl, scores.max_erl, scores.n_splits, scores.n_mergers  # (3^2 + 1^2 + 1^2) / 6
    (1.8333333333333333, 3.0, 1, 0)
    """
    _check_skeletons(skeletons)
    least = _checks.as_integer(merge_threshold, "merge_threshold", 0)
    segments = _segments_of(skeletons, seg_pred, node_segments)
    ids, skeleton = np.unique(skeletons.ids, return_inverse=True)
    labels, segment = np.unique(segments, return_inverse=True)
    table = table_of_entries(ids, labels, skeleton, segment, np.ones(len(segment), np.int64))
    counted = table.counts > least
    n_skeletons = np.bincount(table.pred_index[counted], minlength=len(labels))
    merging = n_skeletons > 1
    in_merger = np.zeros(len(ids), bool)
    in_merger[table.true_index[counted & merging[table.pred_index]]] = True

    one, two = segment[skeletons.edges].T
    owner = skeleton[skeletons.edges[:, 0]]
    omitted = (labels[one] == 0) | (labels[two] == 0)
    split = ~omitted & (one != two)
    merged = ~omitted & ~split & merging[one] & in_merger[owner]
    correct = ~(omitted | split | merged)

    total = float(skeletons.lengths.sum())
    runs = _sums_by(owner[correct] * len(labels) + one[correct], skeletons.lengths[correct])
    whole = _sums_by(owner, skeletons.lengths)
    erl = float((runs**2).sum()) / total if total > 0 else np.nan
    max_erl = float((whole**2).sum()) / total if total > 0 else np.nan
    return SkeletonScores(
        erl,
        max_erl,
        erl / max_erl,
        int(np.count_nonzero(split)),
        int(n_skeletons[merging & (labels != 0)].sum()),
        *(float(skeletons.lengths[kind].sum()) for kind in (correct, split, merged, omitted)),
    )


def _segments_of(skeletons: Skeletons, seg_pred: ArrayLike | None, node_segments: ArrayLike | None) -> NDArray[Any]:
    """Return the predicted label of every node."""
    if (seg_pred is None) == (node_segments is None):
        raise TypeError("either seg_pred must be given, or node_segments in its place")
    if seg_pred is not None:
        return skeleton_segments(skeletons, seg_pred)
    segments = np.asarray(node_segments)
    if segments.shape != (len(skeletons.nodes),):
        raise ValueError(
            f"node_segments must have shape {(len(skeletons.nodes),)}, a label for each node, "
            f"got {_checks.describe(segments)}"
        )
    return _checks.as_labels(segments, "node_segments")


def _sums_by(group: NDArray[np.int64], values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the sum of the values of every group that occurs."""
    return np.bincount(np.unique(group, return_inverse=True)[1], weights=values).astype(np.float64)


def _check_skeletons(skeletons: object) -> None:
    if not isinstance(skeletons, Skeletons):
        raise TypeError(f"skeletons must be Skeletons, got {type(skeletons).__name__}")


def _as_nodes(nodes: ArrayLike) -> NDArray[np.float64]:
    array = np.asarray(nodes)
    if array.dtype.kind not in "iuf":
        raise TypeError(f"nodes must hold numbers, got {_checks.describe(array)}")
    if array.ndim != 2 or array.size == 0:
        raise ValueError(f"nodes must have shape (n, ndim), got {_checks.describe(array)}")
    if not np.isfinite(array).all():
        raise ValueError("nodes must hold finite numbers")
    return array.astype(np.float64)


def _as_integers(values: ArrayLike, name: str, shape: tuple[int, ...]) -> NDArray[Any]:
    array = np.asarray(values)
    if array.dtype.kind not in "iu":
        raise TypeError(f"{name} must hold integers, got {_checks.describe(array)}")
    if array.shape != shape:
        raise ValueError(f"{name} must have shape {shape}, got {_checks.describe(array)}")
    return array


def _as_voxel_size(voxel_size: ArrayLike, ndim: int) -> NDArray[np.float64]:
    sizes = _checks.as_reals(np.atleast_1d(np.asarray(voxel_size)), "voxel_size")
    if len(sizes) not in (1, ndim):
        raise ValueError(f"voxel_size must be a number or one for each of the {ndim} axes, got {voxel_size!r}")
    if (sizes <= 0).any():
        raise ValueError(f"voxel_size must be positive, got {voxel_size!r}")
    return sizes


def _as_lengths(lengths: ArrayLike, n_edges: int) -> NDArray[np.float64]:
    array = np.asarray(lengths)
    if array.dtype.kind not in "iuf":
        raise TypeError(f"lengths must hold numbers, got {_checks.describe(array)}")
    if array.shape != (n_edges,):
        raise ValueError(f"lengths must have shape {(n_edges,)}, one for each edge, got {_checks.describe(array)}")
    if not (np.isfinite(array) & (array >= 0)).all():
        raise ValueError("lengths must be finite and at least 0")
    return array.astype(np.float64)
