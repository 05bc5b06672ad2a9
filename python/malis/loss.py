"""Pair counts and the MALIS loss on NumPy arrays."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from malis import _checks, _core
from malis._options import LossOptions, Options, PairOptions, of_pairs, takes

if TYPE_CHECKING:
    from typing_extensions import Unpack


class PairCounts(NamedTuple):
    """Numbers of voxel pairs that each edge decides.

    Attributes
    ----------
    pos, neg : ndarray of int64
        Positive and negative pairs, in the shape of the affinities.
    """

    pos: npt.NDArray[np.int64]
    neg: npt.NDArray[np.int64]


class MalisLoss(NamedTuple):
    """A loss and its gradient.

    Attributes
    ----------
    loss : float or ndarray of float64, shape (B,)
        The loss; one for each sample of a batch.
    grad : ndarray
        Derivative of the loss by the affinities, in their shape and dtype.
    """

    loss: float | npt.NDArray[np.float64]
    grad: npt.NDArray[Any]


@takes(PairOptions)
def pairs(
    aff: npt.ArrayLike,
    seg: npt.ArrayLike,
    nhood: npt.ArrayLike,
    *,
    edge_mask: npt.ArrayLike | None = None,
    unlabelled_mask: npt.ArrayLike | None = None,
    **options: Unpack[PairOptions],
) -> PairCounts:
    r"""Count the positive and negative voxel pairs that every edge decides.

    Edges are taken in order of decreasing affinity (equal affinities by increasing edge index). An edge that joins
    two components decides all the voxel pairs that it connects for the first time: it is their *maximin* edge
    [1]_. Positive pairs carry the same label, negative pairs different ones; background (label 0) takes part in
    neither. In the positive pass only edges within one object take part; in the negative pass these are
    contracted first [2]_.

    Parameters
    ----------
    aff : array_like of float, shape (K, *shape)
        Affinities, or any strictly increasing function of them: ``aff[k, v]`` belongs to the edge between voxel
        ``v`` and ``v + nhood[k]``. C-contiguous float32 and float64 arrays are read in place; others and float16
        are copied once.
    seg : array_like of int, shape `shape`
        Labels, 1 to 3 dimensions, any integer dtype or bool; 0 is background.
    nhood : array_like of int, shape (K, ndim)
        Offsets. Edges that leave the volume do not exist.
    edge_mask : array_like of bool, shape (K, *shape), optional
        False where the ground truth of an edge is unknown: such an edge is constrained in neither pass, and its
        counts are 0.
    unlabelled_mask : array_like of bool, shape `shape`, optional
        True where objects exist but carry no label: these voxels together count as one more object among the
        negative pairs, and edges between two of them are unknown.
    **options
        The options of counting; `malis._options.Options` describes them.

    Returns
    -------
    PairCounts
        ``pos`` and ``neg``, int64, shape (K, *shape): exact numbers of pairs.

    Raises
    ------
    ValueError
        For shapes that do not go together, empty arrays, NaN, negative or fractional labels.
    TypeError
        For dtypes other than the above.

    References
    ----------
    .. [1] S. C. Turaga, K. L. Briggman, M. Helmstaedter, W. Denk, H. S. Seung: Maximin affinity learning of image
       segmentation. NIPS 2009.
    .. [2] J. Funke et al.: Large scale image segmentation with structured loss based deep learning for connectome
       reconstruction. IEEE TPAMI 41 (2019), 1669-1680.

    Examples
    --------
    >>> import malis
    >>> seg = [1, 1, 1, 0, 2]
    >>> pos, neg = malis.pairs([[0, 0.9, 0.8, 0.2, 0.3]], seg, [[-1]])
    >>> pos  # the weaker edge of object 1 joins its third voxel to the other two
    array([[0, 1, 2, 0, 0]])
    >>> neg  # 3 * 1 pairs between the objects, decided by the weakest edge of their path
    array([[0, 0, 0, 3, 0]])
    """
    offsets = _checks.as_nhood(nhood)
    _checks.check_order(aff, seg)
    labels = _checks.as_labels(seg, "seg", for_core=True)
    affinities = _checks.as_affinities(aff, "aff")
    _checks.check_volume(affinities, labels, "seg", offsets)
    edges = _checks.as_mask(edge_mask, "edge_mask", affinities.shape)
    unlabelled = _checks.as_mask(unlabelled_mask, "unlabelled_mask", labels.shape)
    counts = _core.pair_counts(
        affinities, labels, offsets, edge_mask=edges, unlabelled_mask=unlabelled, **of_pairs(options)
    )
    return PairCounts(*counts)


@takes(LossOptions)
def malis_loss(
    aff: npt.ArrayLike,
    seg: npt.ArrayLike,
    nhood: npt.ArrayLike,
    *,
    edge_mask: npt.ArrayLike | None = None,
    unlabelled_mask: npt.ArrayLike | None = None,
    **options: Unpack[LossOptions],
) -> MalisLoss:
    r"""Compute the MALIS loss and its gradient.

    With the counts of `pairs`, ``p = pos / pos.sum()`` and ``q = neg / neg.sum()``,

    .. math::

        L = 2 \Big( w \sum_e p_e \max(0, 1 - m - a_e)^2 + (1 - w) \sum_e q_e \max(0, a_e - m)^2 \Big)

    with margin :math:`m` and :math:`w` = `pos_loss_weight`. The counts are constants of the derivative [1]_ [2]_.
    ``margin=0`` gives the loss of the TuragaLab package.

    Parameters
    ----------
    aff : array_like of float, shape (K, *shape) or (B, K, *shape)
        Affinities, of one sample or of a batch, whose samples are computed in parallel; see `pairs`. float16 is
        computed in float32.
    seg : array_like of int, shape `shape` or (B, *shape)
        Labels, see `pairs`.
    nhood : array_like of int, shape (K, ndim)
        Offsets.
    edge_mask : array_like of bool, in the shape of `aff`, optional
        See `pairs`.
    unlabelled_mask : array_like of bool, in the shape of `seg`, optional
        See `pairs`.
    **options
        The options of the loss; `malis._options.Options` describes them.

    Returns
    -------
    MalisLoss
        ``loss``, a float (float64 array of shape (B,) for a batch), and ``grad``, in the shape and dtype of `aff`.

    Raises
    ------
    ValueError
        For shapes that do not go together, empty arrays, NaN, negative or fractional labels, options out of range;
        for affinities beyond 0 and 1 where their cross entropy is asked for, and for infinite ones that decide pairs
        wrongly: the loss and its gradient are finite.
    TypeError
        For dtypes and options of another type.

    References
    ----------
    .. [1] S. C. Turaga, K. L. Briggman, M. Helmstaedter, W. Denk, H. S. Seung: Maximin affinity learning of image
       segmentation. NIPS 2009.
    .. [2] J. Funke et al.: Large scale image segmentation with structured loss based deep learning for connectome
       reconstruction. IEEE TPAMI 41 (2019), 1669-1680.

    Examples
    --------
    >>> import numpy as np, malis
    >>> aff = np.array([[0, 0.9, 0.8, 0.2, 0.6]])
    >>> loss, grad = malis.malis_loss(aff, [1, 1, 0, 2, 2], [[-1]])
    >>> round(loss, 4)  # the edge of object 2 is 0.1 below 1 - margin, and decides one of two positive pairs
    0.005
    >>> grad.round(2)
    array([[ 0. ,  0. ,  0. ,  0. , -0.1]])
    """
    checked = Options.of(options)
    offsets = _checks.as_nhood(nhood)
    _checks.check_order(aff, seg)
    labels = _checks.as_labels(seg, "seg", checked.num_threads, for_core=True)
    affinities = _checks.as_affinities(aff, "aff")
    batched = labels.ndim == offsets.shape[1] + 1 and affinities.ndim == offsets.shape[1] + 2
    if batched:
        if len(affinities) != len(labels):
            raise ValueError(
                f"aff and seg must have the same number of samples, got {_checks.describe(affinities)} and "
                f"{_checks.describe(labels)}"
            )
        _checks.check_volume(affinities[0], labels[0], "seg", offsets)
    else:
        _checks.check_volume(affinities, labels, "seg", offsets)
    edges = _checks.as_mask(edge_mask, "edge_mask", affinities.shape)
    unlabelled = _checks.as_mask(unlabelled_mask, "unlabelled_mask", labels.shape)
    if not batched:
        affinities, labels = affinities[np.newaxis], labels[np.newaxis]
        edges = None if edges is None else edges[np.newaxis]
        unlabelled = None if unlabelled is None else unlabelled[np.newaxis]
    loss, grad = _loss_of_batch(affinities, labels, offsets, edges, unlabelled, checked)
    if np.asarray(aff).dtype == np.float16:
        grad = grad.astype(np.float16)
    return MalisLoss(loss, grad) if batched else MalisLoss(float(loss[0]), grad[0])


def batch_loss(
    aff: npt.NDArray[Any],
    seg: npt.NDArray[Any],
    nhood: npt.ArrayLike,
    *,
    edge_mask: npt.NDArray[np.bool_] | None = None,
    unlabelled_mask: npt.NDArray[np.bool_] | None = None,
    channels_last: bool = False,
    scale: float = 1.0,
    **options: Unpack[LossOptions],
) -> MalisLoss:
    """`malis_loss` of a batch for the adapters, which have checked the shapes; the gradient of 16 bits has 32.

    With `channels_last` in the layout ``(B, *shape, K)``, as networks of Keras and Flax have it: the core moves the
    channels faster than any of the frameworks. `scale` multiplies the gradient, not the losses.
    """
    checked = Options.of(options)
    affinities, labels = (
        _checks.as_affinities(aff, "aff"),
        _checks.as_labels(seg, "seg", checked.num_threads, for_core=True),
    )
    edges = _checks.as_mask(edge_mask, "edge_mask", affinities.shape)
    unlabelled = _checks.as_mask(unlabelled_mask, "unlabelled_mask", labels.shape)
    offsets = _checks.as_nhood(nhood)
    return MalisLoss(*_loss_of_batch(affinities, labels, offsets, edges, unlabelled, checked, channels_last, scale))


def _loss_of_batch(
    aff: npt.NDArray[Any],
    seg: npt.NDArray[Any],
    nhood: npt.NDArray[np.int64],
    edge_mask: npt.NDArray[np.bool_] | None,
    unlabelled_mask: npt.NDArray[np.bool_] | None,
    options: Options,
    channels_last: bool = False,
    scale: float = 1.0,
) -> tuple[npt.NDArray[np.float64], npt.NDArray[Any]]:
    """Call the core with arguments that have been checked."""
    return _core.malis_loss(
        aff,
        seg,
        nhood,
        edge_mask=edge_mask,
        unlabelled_mask=unlabelled_mask,
        channels_last=channels_last,
        scale=scale,
        **options.for_core(),
    )


def _as_node_lists(node1: npt.ArrayLike, node2: npt.ArrayLike) -> tuple[_checks.Array, _checks.Array]:
    """Check two lists of nodes and return them flat, in one dtype of 32 or 64 bits."""
    lists = []
    for array, name in ((np.asarray(node1), "node1"), (np.asarray(node2), "node2")):
        if array.dtype.kind not in "iu":
            raise TypeError(f"{name} must hold integer nodes, got {_checks.describe(array)}")
        lists.append(array)
    if lists[0].shape != lists[1].shape:
        raise ValueError(f"node2 must have the shape of node1, {lists[0].shape}, got {_checks.describe(lists[1])}")
    if lists[0].dtype != lists[1].dtype or lists[0].dtype.itemsize < 4:
        # Missing ends are -1, or the largest number of an unsigned dtype: both stay outside of any graph.
        lists = [
            np.where(a == np.iinfo(a.dtype).max, -1, a.astype(np.int64)) if a.dtype.kind == "u" else a.astype(np.int64)
            for a in lists
        ]
    return _checks.contiguous(lists[0]).ravel(), _checks.contiguous(lists[1]).ravel()


def _check_ends(nodes: _checks.Array, name: str, count: int) -> None:
    """Check that nodes are below `count`, or mark a missing end."""
    # As signed numbers a missing end is -1 in any dtype. Two reductions are enough to say that nothing is wrong.
    signed = nodes.view(f"i{nodes.dtype.itemsize}")
    if signed.min() >= -1 and signed.max() < count:
        return
    missing: Any = np.iinfo(nodes.dtype).max if nodes.dtype.kind == "u" else -1
    wrong = (nodes != missing) & ((nodes >= count) | (nodes < 0))
    if np.any(wrong):
        at = int(np.argmax(wrong))
        raise ValueError(
            f"{name} must hold nodes from 0 to seg.size - 1 = {count - 1}, or {missing} for a missing end, "
            f"got {nodes[at]} at flat index {at}"
        )


@takes(PairOptions)
def edge_pairs(
    node1: npt.ArrayLike,
    node2: npt.ArrayLike,
    weights: npt.ArrayLike,
    seg: npt.ArrayLike,
    *,
    edge_mask: npt.ArrayLike | None = None,
    unlabelled_mask: npt.ArrayLike | None = None,
    **options: Unpack[PairOptions],
) -> PairCounts:
    """Count pairs on an explicit graph, for example of regions or superpixels.

    Parameters
    ----------
    node1, node2 : array_like of int, one shape
        The nodes that each edge joins, as flat indices into `seg`. An end of -1 (the largest number of an unsigned
        dtype) is missing: such an edge does not exist, as in `nodelist_from_shape`.
    weights : array_like of float
        Affinities of the edges, in the shape of `node1`.
    seg : array_like of int
        Label of every node, in any shape; 0 is background.
    edge_mask : array_like of bool, optional
        As in `pairs`, in the shape of `node1`.
    unlabelled_mask : array_like of bool, optional
        As in `pairs`, in the shape of `seg`.
    **options
        The options of counting; `malis._options.Options` describes them.

    Returns
    -------
    PairCounts
        ``pos`` and ``neg``, int64, in the shape of `node1`: pairs of nodes.

    Raises
    ------
    ValueError
        For shapes that do not go together, nodes outside of `seg`, NaN, negative or fractional labels.
    TypeError
        For dtypes other than the above.

    Examples
    --------
    A triangle of regions, two of which belong together:

    >>> import malis
    >>> malis.edge_pairs([0, 1, 2], [1, 2, 0], [0.9, 0.3, 0.4], [1, 1, 2])
    PairCounts(pos=array([1, 0, 0]), neg=array([0, 0, 2]))
    """
    checked = of_pairs(options)
    first, second = _as_node_lists(node1, node2)
    shape = np.asarray(node1).shape
    labels = _checks.as_labels(seg, "seg", for_core=True)
    if np.asarray(weights).shape != shape:
        raise ValueError(f"weights must have the shape of node1, {shape}, got {_checks.describe(np.asarray(weights))}")
    mask = _checks.as_mask(edge_mask, "edge_mask", shape)
    unlabelled = _checks.as_mask(unlabelled_mask, "unlabelled_mask", labels.shape)
    if first.size == 0:
        return PairCounts(np.zeros(shape, np.int64), np.zeros(shape, np.int64))
    _check_ends(first, "node1", labels.size)
    _check_ends(second, "node2", labels.size)
    pos, neg = _core.edge_pair_counts(
        first,
        second,
        _checks.as_affinities(weights, "weights").ravel(),
        labels.ravel(),
        edge_mask=None if mask is None else mask.ravel(),
        unlabelled_mask=None if unlabelled is None else unlabelled.ravel(),
        want_positive=True,
        want_negative=True,
        **checked,
    )
    return PairCounts(pos.reshape(shape), neg.reshape(shape))
