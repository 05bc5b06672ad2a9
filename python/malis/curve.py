"""How good the segmentation at every threshold is."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from malis import _checks, _core


class RandCurve(NamedTuple):
    """Scores of the segmentation at every threshold (see `rand_curve`); all arrays have the shape of `thresholds`."""

    thresholds: npt.NDArray[Any]
    """Every distinct affinity, decreasing, in the precision of the affinities."""
    true_positives: npt.NDArray[np.int64]
    """Pairs of voxels of one true object that lie in one component."""
    false_positives: npt.NDArray[np.int64]
    """Pairs of voxels of two true objects that lie in one component."""
    precision: npt.NDArray[np.float64]
    """True positives over all pairs in one component; 1 where there is none."""
    recall: npt.NDArray[np.float64]
    """True positives over all pairs in one true object; 1 where there is none."""
    f_score: npt.NDArray[np.float64]
    """Harmonic mean of `precision` and `recall`; 1 where there are no pairs on either side."""
    best_threshold: float
    """The highest threshold with the best `f_score`."""
    voi_split: npt.NDArray[np.float64]
    """H(prediction | truth) in bits: large where true objects are split."""
    voi_merge: npt.NDArray[np.float64]
    """H(truth | prediction) in bits: large where true objects are merged."""
    true_pairs: int
    """Pairs of voxels of one true object."""
    foreground: int
    """Foreground voxels of the truth."""

    @property
    def rand_split(self) -> npt.NDArray[np.float64]:
        """Low where true objects are split, as in `malis.metrics.rand_scores`."""
        return self._rand_score(np.full(self.thresholds.shape, self.true_pairs))

    @property
    def rand_merge(self) -> npt.NDArray[np.float64]:
        """Low where true objects are merged, as in `malis.metrics.rand_scores`."""
        return self._rand_score(self.true_positives + self.false_positives)

    def _rand_score(self, pairs: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
        """Return the true positives over other pairs: ordered ones, those of a voxel with itself among them."""
        if self.foreground == 0:
            return np.ones(self.thresholds.shape)
        both, others = self.true_positives.astype(np.float64), pairs.astype(np.float64)
        return np.asarray((2 * both + self.foreground) / (2 * others + self.foreground))


def rand_curve(
    aff: npt.ArrayLike, seg: npt.ArrayLike, nhood: npt.ArrayLike, *, num_threads: int | None = None
) -> RandCurve:
    """Score the segmentation at every threshold, exactly and in one pass, and find the best one.

    Entry ``i`` describes the connected components of the edges with ``aff >= thresholds[i]``, in which every voxel is
    in a component: one that no edge connects is a component of its own (``affgraph_to_seg`` with ``size_thresh=0``).
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
        Affinities, or any numbers that increase with them, such as logits; bool and integers are taken as well.
    seg : array_like of int, shape `shape`
        Labels of the truth, 1 to 3 dimensions; 0 is background, which connects what it lies between but counts in no
        pair.
    nhood : array_like of int, shape (K, ndim)
        Offsets.
    num_threads : int, optional
        Threads to use; by default as set by `set_num_threads`.

    Returns
    -------
    RandCurve
        ``thresholds, true_positives, false_positives, precision, recall, f_score, best_threshold, voi_split,
        voi_merge, true_pairs, foreground`` and the properties ``rand_split, rand_merge``; one entry for every distinct
        affinity of an edge between two different voxels of the volume, by decreasing affinity. Where there is no edge
        the arrays are empty and `best_threshold` is infinite.

    Raises
    ------
    ValueError
        For shapes that do not go together, empty arrays, NaN, negative or fractional labels, 2**32 or more foreground
        voxels.
    TypeError
        For dtypes and options of another type.

    Notes
    -----
    The arrays take 60 bytes for every distinct affinity (64 for float64), which may be as many as there are edges.
    Affinities of float16 or of 8 bits have few distinct ones.

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
    labels = _checks.as_labels(seg, "seg")
    affinities = _checks.as_affinities(aff, "aff", integers=True)
    _checks.check_volume(affinities, labels, "seg", offsets)
    return RandCurve(*_core.rand_curve(affinities, labels, offsets, _checks.as_threads(num_threads)))
