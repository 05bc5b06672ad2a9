"""Labels whose objects are connected."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from malis import _checks, _core


def connect_labels(
    seg: npt.ArrayLike, nhood: npt.ArrayLike | None = None, *, num_threads: int | None = None
) -> npt.NDArray[Any]:
    """Give every connected part of a label a label of its own.

    A crop cuts objects in pieces that no path inside of the crop joins. With labels of their own they count as
    different objects, which a network then learns to keep apart. Without, they are one object whose pieces ask nothing
    of each other, as the positive pass counts only what edges within an object connect.

    Parameters
    ----------
    seg : array_like of int, shape `shape` or (B, *shape)
        Labels, 1 to 3 dimensions, any integer dtype, bool, or floats that hold integers; 0 is background. A batch has
        one axis more than `nhood` has columns; its samples are numbered each from 1.
    nhood : array_like of int, shape (K, ndim), optional
        Offsets between neighbours; voxels of one label that such steps connect are one part. By default the nearest
        neighbours along all axes of `seg`, of which there is then no batch.
    num_threads : int, optional
        Threads to use; by default as set by `set_num_threads`. The result does not depend on it.

    Returns
    -------
    ndarray, shape of `seg`
        Labels 1..n in the order of their first voxels, 0 for background; in the dtype of `seg`, int32 for bool.

    Raises
    ------
    ValueError
        For shapes that do not go together, empty arrays, negative or fractional labels, and where there are more parts
        than the dtype of `seg` has numbers for.
    TypeError
        For labels or offsets that are no integers.

    See Also
    --------
    skimage.measure.label : The same for images of few neighbourhoods.

    Examples
    --------
    >>> import malis
    >>> malis.connect_labels([7, 7, 0, 7, 9, 9])
    array([1, 1, 0, 2, 3, 3])
    """
    given = np.asarray(seg)
    labels = _checks.as_labels(given.astype(np.int32) if given.dtype.kind == "b" else given, "seg", for_core=True)
    if nhood is None:
        if labels.ndim > 3:
            raise ValueError(f"nhood must be given for a batch of volumes, got none for {_checks.describe(labels)}")
        nhood = -np.eye(max(1, labels.ndim), dtype=np.int64)
    offsets = _checks.as_nhood(nhood)
    threads = _checks.as_threads(num_threads)
    ndim = offsets.shape[1]
    if labels.ndim not in (ndim, ndim + 1):
        raise ValueError(
            f"seg must have {ndim} axes as nhood has columns, or one more for a batch, got {_checks.describe(labels)}"
        )
    if labels.ndim == ndim:
        connected = _core.connect_labels(labels, offsets, num_threads=threads)
    else:
        connected = np.stack([_core.connect_labels(sample, offsets, num_threads=threads) for sample in labels])
    return connected.astype(given.dtype) if given.dtype.kind == "f" else connected
