"""How good the segmentation at every threshold is."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any, ClassVar, NamedTuple, overload

import numpy as np
import numpy.typing as npt

from malis import _checks, _core

_Counts = npt.NDArray[np.int64]
_Scores = npt.NDArray[np.float64]


class Steps(NamedTuple):
    """Scores that hold from one threshold to the next that changes them."""

    first: _Counts
    true_positives: _Counts
    false_positives: _Counts
    voi_split: _Scores
    voi_merge: _Scores


class RandCurve(Sequence[Any]):
    """Scores of the segmentation at every threshold, as `rand_curve` returns them.

    Reads like the named tuple ``(thresholds, true_positives, false_positives, precision, recall, f_score,
    best_threshold)``; the other scores are attributes alone. All arrays have the shape of `thresholds`; but for
    `thresholds` itself each is made when it is first asked for.

    Attributes
    ----------
    thresholds : ndarray
        Every distinct affinity, decreasing, in the precision of the affinities.
    true_positives, false_positives : ndarray of int64
        Pairs of voxels of one true object, and of two, that lie in one component.
    precision : ndarray of float64
        True positives over all pairs in one component; 1 where there is none.
    recall : ndarray of float64
        True positives over all pairs in one true object; 1 where there is none.
    f_score : ndarray of float64
        Harmonic mean of `precision` and `recall`; 1 where there are no pairs on either side.
    best_threshold : float
        The highest threshold with the best `f_score`.
    rand_split, rand_merge : ndarray of float64
        Low where true objects are split, and where they are merged, as in `malis.metrics.rand_scores`.
    voi_split, voi_merge : ndarray of float64
        H(prediction | truth) and H(truth | prediction) in bits: large where true objects are split, and where they are
        merged.
    true_pairs : int
        Pairs of voxels of one true object.
    foreground : int
        Foreground voxels of the truth.
    """

    _fields: ClassVar = (
        "thresholds",
        "true_positives",
        "false_positives",
        "precision",
        "recall",
        "f_score",
        "best_threshold",
    )

    def __init__(
        self, thresholds: npt.NDArray[Any], best_threshold: float, true_pairs: int, foreground: int, steps: Steps
    ) -> None:
        self.thresholds = thresholds
        self.best_threshold = best_threshold
        self.true_pairs = true_pairs
        self.foreground = foreground
        self._steps = steps

    def __repr__(self) -> str:
        return f"<RandCurve of {self.thresholds.size} thresholds, best_threshold={self.best_threshold!r}>"

    def __len__(self) -> int:
        return len(self._fields)

    @overload
    def __getitem__(self, index: int) -> Any: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Any, ...]: ...
    def __getitem__(self, index: int | slice) -> Any:
        if isinstance(index, slice):
            return tuple(getattr(self, name) for name in self._fields[index])
        return getattr(self, self._fields[index])

    def _asdict(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self._fields}

    def take(self, indices: npt.ArrayLike) -> RandCurve:
        """Return the curve at some of its thresholds alone.

        Its arrays have as many entries. Those of the whole curve, as long as there may be edges, are not made for it.

        Parameters
        ----------
        indices : array_like of int
            Which thresholds, increasing.

        Returns
        -------
        RandCurve
            With the same `best_threshold`, `true_pairs` and `foreground`.

        Raises
        ------
        ValueError
            For indices that do not increase or are not those of a threshold.

        Examples
        --------
        >>> import malis
        >>> curve = malis.rand_curve([[0, 0.9, 0.6, 0.2, 0.8]], [1, 1, 1, 2, 2], [[-1]])
        >>> curve.take([0, 2]).thresholds
        array([0.9, 0.6])
        """
        chosen = np.asarray(indices)
        if chosen.size == 0:
            chosen = chosen.astype(np.int64)
        if chosen.ndim != 1 or chosen.dtype.kind not in "iu" or np.any(chosen[1:] <= chosen[:-1]):
            raise ValueError(f"indices must be a sequence of integers that increase, got {indices!r}")
        if chosen.size and not (chosen[0] >= 0 and chosen[-1] < self.thresholds.size):
            raise ValueError(f"indices must lie between 0 and {self.thresholds.size - 1}, got {indices!r}")
        at = np.searchsorted(self._steps.first, chosen, side="right") - 1
        steps = Steps(
            np.arange(chosen.size),
            self._steps.true_positives[at],
            self._steps.false_positives[at],
            self._steps.voi_split[at],
            self._steps.voi_merge[at],
        )
        return RandCurve(self.thresholds[chosen], self.best_threshold, self.true_pairs, self.foreground, steps)

    def at(self, threshold: float) -> RandCurve:
        """Return the curve at one threshold alone: the scores of the segmentation that it gives.

        That is the entry of the lowest affinity that is not below it.

        Parameters
        ----------
        threshold : float
            Any number up to the highest affinity, such as `best_threshold`.

        Returns
        -------
        RandCurve
            With one entry.

        Raises
        ------
        ValueError
            For a threshold above every affinity, at which nothing is connected, and for one that is no number.

        Examples
        --------
        >>> import malis
        >>> curve = malis.rand_curve([[0, 0.9, 0.6, 0.2, 0.8]], [1, 1, 1, 2, 2], [[-1]])
        >>> curve.at(0.7).true_positives
        array([2])
        """
        level = self.thresholds.dtype.type(_checks.as_threshold(threshold, "threshold"))  # as affinities are compared
        not_below = self.thresholds.size - int(np.searchsorted(self.thresholds[::-1], level))
        if not_below == 0:
            raise ValueError(f"threshold must be at most the highest affinity, got {threshold!r}")
        return self.take([not_below - 1])

    @cached_property
    def true_positives(self) -> _Counts:  # noqa: D102
        return self._at_thresholds(self._steps.true_positives)

    @cached_property
    def false_positives(self) -> _Counts:  # noqa: D102
        return self._at_thresholds(self._steps.false_positives)

    @cached_property
    def precision(self) -> _Scores:  # noqa: D102
        return self._at_thresholds(_ratio(_float(self._steps.true_positives), _float(self._positives())))

    @cached_property
    def recall(self) -> _Scores:  # noqa: D102
        return self._at_thresholds(_ratio(_float(self._steps.true_positives), float(self.true_pairs)))

    @cached_property
    def f_score(self) -> _Scores:  # noqa: D102
        true, positives = 2 * _float(self._steps.true_positives), _float(self._positives())
        return self._at_thresholds(_ratio(true, positives + float(self.true_pairs)))

    @cached_property
    def rand_split(self) -> _Scores:  # noqa: D102
        return self._at_thresholds(_ratio(self._ordered(self._steps.true_positives), self._ordered(self.true_pairs)))

    @cached_property
    def rand_merge(self) -> _Scores:  # noqa: D102
        return self._at_thresholds(_ratio(self._ordered(self._steps.true_positives), self._ordered(self._positives())))

    @cached_property
    def voi_split(self) -> _Scores:  # noqa: D102
        return self._at_thresholds(self._steps.voi_split)

    @cached_property
    def voi_merge(self) -> _Scores:  # noqa: D102
        return self._at_thresholds(self._steps.voi_merge)

    def _positives(self) -> _Counts:
        return self._steps.true_positives + self._steps.false_positives

    def _ordered(self, pairs: _Counts | int) -> _Scores:
        """Return the number of ordered pairs, those of a voxel with itself among them."""
        return 2 * _float(pairs) + float(self.foreground)

    def _at_thresholds(self, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        return np.repeat(values, np.diff(self._steps.first, append=self.thresholds.size))


def _float(counts: _Counts | int) -> _Scores:
    return np.asarray(counts, np.float64)


def _ratio(part: _Scores, whole: _Scores | float) -> _Scores:
    """Divide, where nothing of nothing is all of it."""
    return np.divide(part, whole, out=np.ones_like(part), where=np.asarray(whole) > 0)


def rand_curve(
    aff: npt.ArrayLike,
    seg: npt.ArrayLike,
    nhood: npt.ArrayLike,
    *,
    ignore_label: int | None = None,
    num_threads: int | None = None,
) -> RandCurve:
    """Score the segmentation at every threshold, exactly and in one pass, and find the best one.

    Entry ``i`` describes the connected components of the edges with ``aff >= thresholds[i]``, in which every voxel is
    in a component: one that no edge connects is a component of its own (``affgraph_to_seg`` with ``min_size=1``).
    Compared are unordered pairs of two different foreground voxels of the truth: a pair is *positive* when both lie in
    one component, and *true* when they belong to one object [1]_. With ``tp`` and ``fp`` positive pairs that are true
    and false, ``p`` pairs that are true, and ``n`` foreground voxels::

        precision  = tp / (tp + fp)              rand_split = (2 tp + n) / (2 p + n)
        recall     = tp / p                      rand_merge = (2 tp + n) / (2 (tp + fp) + n)
        f_score    = 2 tp / (tp + fp + p)

    `rand_split` and `rand_merge` are the Rand scores of the ISBI 2012 and SNEMI3D challenges [2]_, which count ordered
    pairs, those of a voxel with itself among them. `voi_split` and `voi_merge` are the two conditional entropies of the
    variation of information over the foreground of the truth [3]_.

    Counts are exact; the scores are their ratios, rounded once or twice; the entropies are right to 1e-12 bits. One
    pass of Kruskal's algorithm finds all of them: the edges that join components are those of `maximum_spanning_tree`,
    and the pairs an edge adds are those that `pairs` counts with both constraints off.

    Parameters
    ----------
    aff : array_like, shape (K, *shape)
        Affinities, or any numbers that increase with them, such as logits; bool and integers are taken as well,
        bytes (uint8) as 0 to 255 for 0 to 1.
    seg : array_like of int, shape `shape`
        Labels of the truth, 1 to 3 dimensions; 0 is background, which connects what it lies between but counts in no
        pair.
    nhood : array_like of int, shape (K, ndim)
        Offsets.
    ignore_label : int, optional
        Voxels of this true label, which may be negative, count in no pair. As background they connect what they lie
        between.
    num_threads : int, optional
        Threads to use; by default as set by `set_num_threads`.

    Returns
    -------
    RandCurve
        ``thresholds, true_positives, false_positives, precision, recall, f_score, best_threshold``, and as further
        attributes ``rand_split, rand_merge, voi_split, voi_merge``: one entry for every distinct affinity of an edge
        between two different voxels of the volume, by decreasing affinity. Where there is no edge the arrays are empty
        and `best_threshold` is infinite.

    Raises
    ------
    ValueError
        For shapes that do not go together, empty arrays, NaN, negative or fractional labels, 2**32 or more foreground
        voxels.
    TypeError
        For dtypes and options of another type.

    Notes
    -----
    There may be as many distinct affinities as edges; those of float16 or of 8 bits are few. The curve keeps the
    thresholds, and 40 bytes for every one that changes a score, fewer than there are foreground voxels. Each of the
    other arrays takes 8 bytes for every threshold once it has been asked for.

    References
    ----------
    .. [1] S. C. Turaga, K. L. Briggman, M. Helmstaedter, W. Denk, H. S. Seung: Maximin affinity learning of image
       segmentation. NIPS 2009.
    .. [2] I. Arganda-Carreras, S. C. Turaga, D. R. Berger, et al.: Crowdsourcing the creation of image segmentation
       algorithms for connectomics. Frontiers in Neuroanatomy 9 (2015), 142.
    .. [3] M. Meila: Comparing clusterings - an information based distance. Journal of Multivariate Analysis 98 (2007),
       873-895.

    Examples
    --------
    >>> import malis
    >>> curve = malis.rand_curve([[0, 0.9, 0.6, 0.2, 0.8]], [1, 1, 1, 2, 2], [[-1]])
    >>> curve.thresholds
    array([0.9, 0.8, 0.6, 0.2])
    >>> curve.true_positives, curve.false_positives
    (array([1, 2, 4, 4]), array([0, 0, 0, 6]))
    >>> curve.f_score.round(2)
    array([0.4 , 0.67, 1.  , 0.57])
    >>> curve.best_threshold
    0.6
    """
    offsets = _checks.as_nhood(nhood)
    labels, _ = _checks.as_truth(seg, "seg", ignore_label)
    affinities = _checks.as_stored_affinities(aff, "aff")
    _checks.check_volume(affinities, labels, "seg", offsets)
    curve = _core.rand_curve(affinities, labels, offsets, num_threads=_checks.as_threads(num_threads))
    return RandCurve(*curve[:4], Steps(*curve[4:]))
