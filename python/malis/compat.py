"""The names of the older packages, with their calls, dtypes and results.

`malis_weights` is of the Malis-Loss package, the others are of the TuragaLab ``malis`` package. Projects written for
one of these keep working when they ``import malis`` from here: the functions below take the same arguments under the
same names, run on NumPy 2 alone, and release the GIL. What differs is written in their notes. New code is better
served by `pairs`, `malis_loss` and `affgraph_to_seg`, which need no lists of nodes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from malis import _checks, _core, affgraph, loss, metrics
from malis._options import of_pairs

__all__ = [
    "compute_V_rand_N2",
    "connected_components",
    "connected_components_affgraph",
    "malis_loss_op",
    "malis_loss_weights",
    "malis_weights",
    "malis_weights_op",
    "marker_watershed",
    "mk_cont_table",
    "nodelist_like",
    "prune_and_renum",
    "rand_index",
]


def nodelist_like(shape: Sequence[int], nhood: ArrayLike) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    """List both ends of every edge of an affinity graph.

    Parameters
    ----------
    shape : sequence of int
        Spatial shape of the volume, 1 to 3 axes.
    nhood : array_like of int, shape (K, ndim)
        Offsets of the edges.

    Returns
    -------
    node1, node2 : ndarray of uint64, shape (K, *shape)
        Flat indices of voxel ``v`` and of ``v + nhood[k]``; ``2**64 - 1`` where that lies outside the volume.

    Raises
    ------
    TypeError, ValueError
        If `shape` or `nhood` is no such array.

    Examples
    --------
    >>> from malis import nodelist_like
    >>> node1, node2 = nodelist_like((3,), [[1]])
    >>> node1.tolist(), node2.tolist()
    ([[0, 1, 2]], [[1, 2, 18446744073709551615]])
    """
    node1, node2 = affgraph.nodelist_from_shape(shape, nhood)
    # The conversion to unsigned numbers turns -1, a missing end, into the largest.
    return node1.astype(np.uint64), node2.astype(np.uint64)


def malis_loss_weights(
    segTrue: ArrayLike, node1: ArrayLike, node2: ArrayLike, edgeWeight: ArrayLike, pos: int
) -> NDArray[np.uint64]:
    """Count the pairs of one kind that every edge of a graph decides, without constraints.

    Parameters
    ----------
    segTrue : array_like of int, shape (n,)
        Label of every node; 0 is background.
    node1, node2 : array_like of int, shape (E,)
        Nodes that the edges join. An edge with an end outside ``0..n-1`` is ignored.
    edgeWeight : array_like of float, shape (E,)
        Affinity of every edge.
    pos : int or bool
        1 counts the pairs of nodes with the same label, 0 those with different labels.

    Returns
    -------
    ndarray of uint64, shape (E,)
        Number of pairs that each edge decides.

    Raises
    ------
    TypeError, ValueError
        If an argument has another shape or type, or if `edgeWeight` holds NaN.

    Notes
    -----
    Edges of equal weight are taken in the order of the list; the TuragaLab package left their order open.

    References
    ----------
    Turaga, Briggman, Helmstaedter, Denk, Seung: Maximin affinity learning of image segmentation. NIPS 2009.

    Examples
    --------
    Nodes 0 and 1 belong to one object, 2 to another; the second edge joins them at last.

    >>> from malis import malis_loss_weights
    >>> malis_loss_weights([1, 1, 2], [0, 1], [1, 2], [0.9, 0.4], 1).tolist()
    [1, 0]
    >>> malis_loss_weights([1, 1, 2], [0, 1], [1, 2], [0.9, 0.4], 0).tolist()
    [0, 2]
    """
    labels = _per_node(segTrue, "segTrue")
    first, second, weights = _edges(node1, node2, edgeWeight)
    if pos not in (0, 1):
        raise ValueError(f"pos must be 0 or 1, got {pos!r}")
    counts = _core.edge_pair_counts(
        first,
        second,
        weights,
        labels,
        edge_mask=None,
        unlabelled_mask=None,
        want_positive=bool(pos),
        want_negative=not pos,
        **of_pairs({"constrain_positive": False, "constrain_negative": False}),
    )
    # Counts are not negative: the same bits, read as the type that callers expect.
    return counts[0 if pos else 1].view(np.uint64)


def malis_weights(
    affinity_pred: ArrayLike,
    affinity_gt: ArrayLike,
    seg_gt: ArrayLike,
    nhood: ArrayLike,
    unrestrict_neg: bool = False,
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Count pairs as the Malis-Loss package does: the old call, with float32 results.

    Parameters
    ----------
    affinity_pred : array_like of float, shape (K, *shape)
        Predicted affinities.
    affinity_gt : array_like, shape (K, *shape)
        Affinity graph of the ground truth, of `seg_to_affgraph`. Its shape is checked; its values follow from
        `seg_gt`, so they are not read.
    seg_gt : array_like of int, shape `shape`
        Labels; 0 is background.
    nhood : array_like of int, shape (K, ndim)
        Offsets.
    unrestrict_neg : bool, optional
        True: the negative pass takes the predicted affinities as they are.

    Returns
    -------
    pos, neg : ndarray of float32, shape (K, *shape)
        The counts of `pairs`, rounded to float32; use `pairs` where they have to be exact.

    Raises
    ------
    ValueError, TypeError
        As `pairs` does.

    Examples
    --------
    >>> import malis
    >>> seg, nhood = [1, 1, 0, 2], [[-1]]
    >>> pos, neg = malis.malis_weights([[0, 0.9, 0.5, 0.4]], malis.seg_to_affgraph(seg, nhood), seg, nhood)
    >>> neg
    array([[0., 0., 0., 2.]], dtype=float32)
    """
    truth, pred = np.asarray(affinity_gt), np.asarray(affinity_pred)
    if truth.shape != pred.shape:
        raise ValueError(f"affinity_gt must have the shape of affinity_pred, {pred.shape}, got {truth.shape}")
    pos, neg = loss.pairs(pred, seg_gt, nhood, constrain_negative=not _checks.as_flag(unrestrict_neg, "unrestrict_neg"))
    return pos.astype(np.float32), neg.astype(np.float32)


def malis_weights_op(
    affs: Any,
    gt_affs: Any,
    gt_seg: Any,
    neighborhood: ArrayLike,
    gt_aff_mask: Any = None,
    gt_seg_unlabelled: Any = None,
    name: str | None = None,
) -> Any:
    """Weigh the edges of one sample by the shares of the pairs that they decide: constrained MALIS.

    Parameters
    ----------
    affs : tensor of TensorFlow or PyTorch, or array_like, shape (K, *shape)
        Predicted affinities.
    gt_affs : tensor or array_like, shape (K, *shape)
        Affinities of the ground truth. Their shape is checked; their values follow from `gt_seg`.
    gt_seg : tensor or array_like of int, shape `shape`
        Labels; 0 is background.
    neighborhood : array_like of int, shape (K, ndim)
        Offsets.
    gt_aff_mask : tensor or array_like, shape (K, *shape), optional
        1 where the affinity is known, 0 where not.
    gt_seg_unlabelled : tensor or array_like, shape `shape`, optional
        0 where objects exist but carry no label, else 1.
    name : str, optional
        Taken for the old call; not used.

    Returns
    -------
    tensor or ndarray of float32, shape (K, *shape)
        ``pos / pos.sum() + neg / neg.sum()`` of `pairs`, of the kind of `affs`; constants of the derivative.

    Raises
    ------
    ValueError, TypeError
        As `pairs` does.

    Notes
    -----
    The TuragaLab package takes the constraints from `gt_affs`, which gives the same numbers where these are the
    affinity graph of `gt_seg`. It writes into `gt_seg`; this does not.

    Examples
    --------
    >>> import malis
    >>> seg, nhood = [1, 1, 0, 2], [[-1]]
    >>> malis.malis_weights_op([[0, 0.9, 0.5, 0.4]], malis.seg_to_affgraph(seg, nhood), seg, nhood)
    array([[0., 1., 0., 1.]], dtype=float32)
    """
    arrays = [affs, gt_affs, gt_seg, gt_aff_mask, gt_seg_unlabelled]
    framework = type(affs).__module__.partition(".")[0]
    if framework == "torch":
        import torch

        on_host = [a.detach().cpu().numpy() if isinstance(a, torch.Tensor) else a for a in arrays]
        return torch.from_numpy(_pair_shares(neighborhood, *on_host)).to(affs.device)
    if framework == "tensorflow":
        import tensorflow as tf

        given = [tf.convert_to_tensor(a) for a in arrays if a is not None]

        def shares(*values: NDArray[Any]) -> NDArray[np.float32]:
            rest = iter(values)
            return _pair_shares(neighborhood, *[None if a is None else next(rest) for a in arrays])

        weights = tf.numpy_function(shares, [tf.stop_gradient(a) for a in given], tf.float32, stateful=False)
        weights.set_shape(given[0].shape)
        return weights
    return _pair_shares(neighborhood, *arrays)


def malis_loss_op(
    affs: Any,
    gt_affs: Any,
    gt_seg: Any,
    neighborhood: ArrayLike,
    gt_aff_mask: Any = None,
    gt_seg_unlabelled: Any = None,
    name: str | None = None,
) -> Any:
    """Compute the constrained MALIS loss of one sample with the squared distance to the ground truth.

    ``sum(weights * (gt_affs - affs) ** 2)`` with the weights of `malis_weights_op`: for affinities from 0 to 1 that is
    `malis_loss` with ``margin=0``.

    Parameters
    ----------
    affs, gt_affs, gt_seg, neighborhood, gt_aff_mask, gt_seg_unlabelled, name
        As of `malis_weights_op`.

    Returns
    -------
    tensor or float
        The loss, of the kind of `affs`, and differentiable by it.

    Raises
    ------
    ValueError, TypeError
        As `pairs` does.

    Examples
    --------
    >>> import torch, malis
    >>> seg, nhood = torch.tensor([1, 1, 0, 2]), [[-1]]
    >>> affs = torch.tensor([[0, 0.9, 0.5, 0.4]], requires_grad=True)
    >>> gt_affs = torch.from_numpy(malis.seg_to_affgraph(seg.numpy(), nhood))
    >>> loss = malis.malis_loss_op(affs, gt_affs, seg, nhood)
    >>> round(loss.item(), 4)  # 0.1 ** 2 + 0.4 ** 2
    0.17
    """
    weights = malis_weights_op(affs, gt_affs, gt_seg, neighborhood, gt_aff_mask, gt_seg_unlabelled, name)
    framework = type(affs).__module__.partition(".")[0]
    if framework == "torch":
        return (weights * (gt_affs.to(affs) - affs) ** 2).sum()
    if framework == "tensorflow":
        import tensorflow as tf

        affs = tf.convert_to_tensor(affs)
        return tf.reduce_sum(tf.cast(weights, affs.dtype) * tf.square(tf.cast(gt_affs, affs.dtype) - affs))
    return float(np.sum(weights * (np.asarray(gt_affs) - np.asarray(affs)) ** 2, dtype=np.float64))


def _pair_shares(
    nhood: ArrayLike, affs: Any, gt_affs: Any, gt_seg: Any, gt_aff_mask: Any, gt_seg_unlabelled: Any
) -> NDArray[np.float32]:
    if np.shape(gt_affs) != np.shape(affs):
        raise ValueError(f"gt_affs must have the shape of affs, {np.shape(affs)}, got {np.shape(gt_affs)}")
    counts = loss.pairs(
        affs,
        gt_seg,
        nhood,
        edge_mask=None if gt_aff_mask is None else np.asarray(gt_aff_mask) != 0,
        unlabelled_mask=None if gt_seg_unlabelled is None else np.asarray(gt_seg_unlabelled) == 0,
    )
    shares = [count / max(1, int(count.sum())) for count in counts]
    return np.asarray(shares[0] + shares[1], dtype=np.float32)


def connected_components(
    nVert: int, node1: ArrayLike, node2: ArrayLike, edgeWeight: ArrayLike, sizeThreshold: int = 1
) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    """Find the connected components of a graph.

    Parameters
    ----------
    nVert : int
        Number of nodes.
    node1, node2 : array_like of int, shape (E,)
        Nodes that the edges join. An edge with an end outside ``0..nVert-1`` is ignored.
    edgeWeight : array_like, shape (E,)
        An edge connects where this is not 0.
    sizeThreshold : int
        Components of at most so many nodes become 0.

    Returns
    -------
    seg : ndarray of uint64, shape (nVert,)
        Number of the component of every node, from 1 by decreasing size.
    sizes : ndarray of int64
        Sizes of components 1, 2, ...

    Raises
    ------
    TypeError, ValueError
        If an argument has another shape or type.

    Examples
    --------
    >>> from malis import connected_components
    >>> seg, sizes = connected_components(5, [0, 1, 3], [1, 2, 4], [1, 0, 1])
    >>> seg.tolist(), sizes.tolist()
    ([1, 1, 0, 2, 2], [2, 2])
    """
    first, second, weights = _edges(node1, node2, edgeWeight)
    components = _core.edge_components(_checks.as_integer(nVert, "nVert", 0), first, second, weights != 0)
    return prune_and_renum(components, sizeThreshold)


def connected_components_affgraph(aff: ArrayLike, nhood: ArrayLike) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    """Find the connected components of an affinity graph.

    Parameters
    ----------
    aff : array_like, shape (K, *shape)
        An edge connects where this is not 0.
    nhood : array_like of int, shape (K, ndim)
        Offsets of the edges.

    Returns
    -------
    seg : ndarray of uint64, shape `shape`
        Number of the component of every voxel, from 1 by decreasing size; 0 for components of a single voxel.
    sizes : ndarray of int64
        Sizes of components 1, 2, ...

    Raises
    ------
    TypeError, ValueError
        If an argument has another shape or type.

    Examples
    --------
    >>> from malis import connected_components_affgraph
    >>> seg, sizes = connected_components_affgraph([[1, 1, 0, 0, 1, 0]], [[1]])
    >>> seg.tolist(), sizes.tolist()
    ([1, 1, 1, 0, 2, 2], [3, 2])
    """
    offsets = _checks.as_nhood(nhood)
    affinities = np.asarray(aff)
    if affinities.dtype.kind not in "biuf":
        raise TypeError(f"aff must hold real numbers, got {_checks.describe(affinities)}")
    _checks.check_channels(affinities, offsets)
    if affinities.size == 0:
        raise ValueError(f"aff must not be empty, got {_checks.describe(affinities)}")
    if affinities.dtype.kind == "f" and np.isnan(affinities).any():
        raise ValueError(f"aff must not contain NaN, got {_checks.describe(affinities)}")
    connected = (affinities != 0).astype(np.float32)
    seg, sizes = _core.components(
        _checks.contiguous(connected), offsets, threshold=0.5, size_thresh=1, merge_small=False, num_threads=None
    )
    return seg.astype(np.uint64), sizes[1:]


def marker_watershed(
    marker: ArrayLike, node1: ArrayLike, node2: ArrayLike, edgeWeight: ArrayLike, sizeThreshold: int = 1
) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    """Segment a graph by the seeded maximin watershed.

    Every node gets the marker that it is joined to first when the edges are taken by decreasing weight.

    Parameters
    ----------
    marker : array_like of int, shape (n,)
        Marker of every node; 0 where there is none.
    node1, node2 : array_like of int, shape (E,)
        Nodes that the edges join. An edge with an end outside ``0..n-1`` is ignored.
    edgeWeight : array_like of float, shape (E,)
        Affinity of every edge. An edge of weight 0 is ignored.
    sizeThreshold : int
        Regions of at most so many nodes become 0.

    Returns
    -------
    seg : ndarray of uint64, shape (n,)
        Number of the region of every node, from 1 by decreasing size; 0 where no marker leads.
    sizes : ndarray of int64
        Sizes of regions 1, 2, ...

    Raises
    ------
    TypeError, ValueError
        If an argument has another shape or type, or if `edgeWeight` holds NaN.

    Notes
    -----
    The TuragaLab package refuses edges at the own node of a marker, and numbers the nodes that no marker
    reaches as one more region. Here neither happens.

    Examples
    --------
    >>> from malis import marker_watershed
    >>> seg, sizes = marker_watershed([5, 0, 0, 0, 7], [0, 1, 2, 3], [1, 2, 3, 4], [0.9, 0.8, 0.1, 0.7])
    >>> seg.tolist(), sizes.tolist()
    ([1, 1, 1, 2, 2], [3, 2])
    """
    seeds = _per_node(marker, "marker")
    first, second, weights = _edges(node1, node2, edgeWeight)
    takes_part = weights != 0
    if not takes_part.all():
        first, second, weights = first[takes_part], second[takes_part], weights[takes_part]
    regions = _core.edge_watershed(first, second, weights, seeds, num_threads=None)
    return _renumber(regions, sizeThreshold, keep_zero=True)


def prune_and_renum(seg: ArrayLike, sizeThreshold: int = 1) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    """Renumber a segmentation by decreasing size and drop small segments.

    Parameters
    ----------
    seg : array_like of int
        Identifiers of segments. 0 is an identifier like any other.
    sizeThreshold : int
        Segments of at most so many elements become 0.

    Returns
    -------
    seg : ndarray of uint64, the shape of `seg`
        Number of the segment of every element, from 1 by decreasing size.
    sizes : ndarray of int64
        Sizes of segments 1, 2, ...

    Raises
    ------
    TypeError
        If `seg` does not hold integers.

    Examples
    --------
    >>> from malis import prune_and_renum
    >>> seg, sizes = prune_and_renum([4, 7, 7, 7, 4, 9])
    >>> seg.tolist(), sizes.tolist()
    ([2, 1, 1, 1, 2, 0], [3, 2])
    """
    return _renumber(np.asarray(seg), sizeThreshold, keep_zero=False)


def mk_cont_table(seg1: ArrayLike, seg2: ArrayLike) -> NDArray[np.float64]:
    """Make the contingency table of two segmentations.

    Parameters
    ----------
    seg1, seg2 : array_like of int, equal shapes
        Labels from 0.

    Returns
    -------
    ndarray of float64, shape (seg1.max() + 1, seg2.max() + 1)
        Entry ``(i, j)`` is the number of elements with label ``i`` in `seg1` and ``j`` in `seg2`.

    Raises
    ------
    TypeError, ValueError
        If the arrays are empty, differ in shape, or do not hold integers of at least 0.

    Examples
    --------
    >>> from malis import mk_cont_table
    >>> mk_cont_table([0, 1, 1], [2, 0, 2]).tolist()
    [[0.0, 0.0, 1.0], [1.0, 0.0, 1.0]]
    """
    table = metrics.contingency_table(*_label_pair(seg1, seg2, "seg1", "seg2"))
    dense = np.zeros((int(table.true_labels[-1]) + 1, int(table.pred_labels[-1]) + 1))
    dense[table.true_labels[table.true_index], table.pred_labels[table.pred_index]] = table.counts
    return dense


def compute_V_rand_N2(segTrue: ArrayLike, segEst: ArrayLike) -> tuple[float, float, float]:
    """Compute the Rand F-score and its two parts, over the foreground of the ground truth.

    Parameters
    ----------
    segTrue : array_like of int
        Ground truth; elements with label 0 are left out.
    segEst : array_like of int, the shape of `segTrue`
        Segmentation to score; its label 0 is a segment like any other.

    Returns
    -------
    V_rand, V_rand_split, V_rand_merge : float
        1 for equal segmentations, and where `segTrue` holds no foreground.

    Raises
    ------
    TypeError, ValueError
        If the arrays differ in shape or do not hold integers of at least 0.

    References
    ----------
    Arganda-Carreras et al.: Crowdsourcing the creation of image segmentation algorithms for connectomics.
    Frontiers in Neuroanatomy 9, 2015.

    Examples
    --------
    >>> from malis import compute_V_rand_N2
    >>> compute_V_rand_N2([1, 1, 2, 2], [1, 1, 1, 1])
    (0.6666666666666666, 0.5, 1.0)
    """
    labels = _label_pair(segTrue, segEst, "segTrue", "segEst")
    scores = metrics.rand_scores(*labels, background_is_segment=True)
    if math.isnan(scores.f_score):
        return 1.0, 1.0, 1.0
    # The TuragaLab package calls the two parts the other way round.
    return scores.f_score, scores.merge, scores.split


def rand_index(segTrue: ArrayLike, segEst: ArrayLike) -> tuple[float, float, float, float]:
    """Compute the Rand index and the precision and recall of pairs, over the foreground of the ground truth.

    Parameters
    ----------
    segTrue : array_like of int
        Ground truth; elements with label 0 are left out.
    segEst : array_like of int, the shape of `segTrue`
        Segmentation to score; its label 0 is a segment like any other.

    Returns
    -------
    ri, fscore, prec, rec : float
        1 for equal segmentations; NaN where there is no pair to divide by.

    Raises
    ------
    TypeError, ValueError
        If the arrays differ in shape or do not hold integers of at least 0.

    Examples
    --------
    >>> from malis import rand_index
    >>> rand_index([1, 1, 2, 2, 0], [1, 1, 1, 2, 2])
    (0.5, 0.4, 0.5, 0.3333333333333333)
    """
    table = metrics.contingency_table(*_label_pair(segTrue, segEst, "segTrue", "segEst"))
    foreground = table.true_labels[table.true_index] != 0
    true, est, counts = table.true_index[foreground], table.pred_index[foreground], table.counts[foreground]
    together = _pairs_within(counts)
    together_true = _pairs_within(np.bincount(true, counts))
    together_est = _pairs_within(np.bincount(est, counts))
    all_pairs = _pairs_within(counts.sum())
    return (
        _ratio(all_pairs - together_true - together_est + 2 * together, all_pairs),
        _ratio(2 * together, together_true + together_est),
        _ratio(together, together_true),
        _ratio(together, together_est),
    )


def _label_pair(first: ArrayLike, second: ArrayLike, name1: str, name2: str) -> tuple[NDArray[Any], NDArray[Any]]:
    """Check two segmentations of one volume."""
    labels1, labels2 = _checks.as_labels(first, name1), _checks.as_labels(second, name2)
    if labels1.shape != labels2.shape:
        raise ValueError(f"{name2} must have the shape of {name1}, {labels1.shape}, got {_checks.describe(labels2)}")
    return labels1, labels2


def _pairs_within(sizes: ArrayLike) -> float:
    """Count the pairs of elements of one group, given the sizes of the groups."""
    sizes = np.asarray(sizes, dtype=np.float64)
    return float((sizes * (sizes - 1) / 2).sum())


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else float("nan")


def _renumber(seg: NDArray[Any], threshold: int, keep_zero: bool) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    """Renumber segments from 1 by decreasing size, equal sizes by identifier; 0 for at most `threshold`."""
    if seg.dtype.kind not in "iub":
        raise TypeError(f"seg must hold integers, got {_checks.describe(seg)}")
    threshold = _checks.as_integer(threshold, "sizeThreshold", 0)
    ids, position, sizes = np.unique(seg, return_inverse=True, return_counts=True)
    kept = sizes > threshold
    if keep_zero:
        kept &= ids != 0
    by_size = np.argsort(-sizes, kind="stable")
    by_size = by_size[kept[by_size]]
    number = np.zeros(ids.size, dtype=np.uint64)
    number[by_size] = np.arange(1, by_size.size + 1)
    return number[position].reshape(seg.shape), sizes[by_size]


def _per_node(labels: ArrayLike, name: str) -> NDArray[Any]:
    """Check one label for every node."""
    array = _checks.as_labels(labels, name)
    if array.ndim != 1:
        raise ValueError(f"{name} must have one axis, got {_checks.describe(array)}")
    return array


def _edges(
    node1: ArrayLike, node2: ArrayLike, edgeWeight: ArrayLike
) -> tuple[NDArray[np.uint64], NDArray[np.uint64], NDArray[Any]]:
    """Check a list of edges; nodes as 64-bit numbers, in which a negative one lies outside of any graph."""
    nodes = []
    for name, node in ("node1", np.asarray(node1)), ("node2", np.asarray(node2)):
        if node.ndim != 1:
            raise ValueError(f"{name} must have one axis, got {_checks.describe(node)}")
        if node.size and node.dtype.kind not in "iu":
            raise TypeError(f"{name} must hold integers, got {_checks.describe(node)}")
        nodes.append(_checks.contiguous(node.astype(np.uint64, copy=False)))
    weights = np.asarray(edgeWeight)
    for name, array in ("node2", nodes[1]), ("edgeWeight", weights):
        if array.shape != nodes[0].shape:
            raise ValueError(f"{name} must have the shape of node1, {nodes[0].shape}, got {_checks.describe(array)}")
    if weights.size == 0:
        return nodes[0], nodes[1], np.zeros(0, np.float32)
    weights = _checks.as_affinities(weights, "edgeWeight", integers=True)
    if np.isnan(weights.max()):  # the largest of any and NaN is NaN
        raise ValueError(f"edgeWeight must not contain NaN, got {_checks.describe(weights)}")
    return nodes[0], nodes[1], weights
