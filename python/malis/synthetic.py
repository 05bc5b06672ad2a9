"""Generated images of packed organelles, with their labels, and affinities as a network might predict them.

For demonstrations, examples and tests: nothing has to be downloaded, and the truth is known.
"""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np
import numpy.typing as npt

from malis import _checks
from malis.affgraph import seg_to_affgraph
from malis.nhood import mknhood2d
from malis.segmentation import affgraph_to_seg

__all__ = ["synthetic_affinities", "synthetic_image"]


def synthetic_image(seed: int, size: int = 256) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int32]]:
    """Draw packed organelles: round, dark, textured, with thin bright gaps that fade where two of them touch.

    Most of the common border of two organelles is hardly visible, while septa within most of them are as bright as a
    gap: what separates two objects is a weak hint, and few wrong pixels are enough to merge them. Where a gap has
    faded the labels touch, without a pixel of background between them, as they do in ground truth of packed
    mitochondria: an affinity graph can say where one object ends and the next one begins, an object mask cannot.

    Parameters
    ----------
    seed : int
        The same image for the same seed.
    size : int, optional
        Height and width in pixels, at least 32.

    Returns
    -------
    image : ndarray of float32, shape (1, size, size)
        Grey values with zero mean and unit variance.
    labels : ndarray of int32, shape (size, size)
        Objects 1..n, each of them connected; 0 is background.

    Raises
    ------
    ImportError
        If SciPy is not installed.
    ValueError
        If `seed` is negative or `size` below 32.
    TypeError
        If one of them is no integer.

    Examples
    --------
    >>> image, labels = synthetic_image(0, 64)
    >>> image.shape, labels.shape
    ((1, 64, 64), (64, 64))
    """
    rng = np.random.default_rng(_checks.as_integer(seed, "seed", 0))
    _checks.as_integer(size, "size", 32)
    ndimage, spatial = _import_scipy()

    def smooth(sigma: float) -> npt.NDArray[np.float64]:
        return _smooth_noise(rng, (size, size), sigma)

    # Discs thrown at random that may overlap a little, the large ones first: packed, but not a lattice.
    radii = np.sort(rng.uniform(11.0, 24.0, 6000))[::-1]
    candidates = rng.uniform(-radii[0], size + radii[0], (len(radii), 2))
    centres, sizes = candidates[:1], radii[:1]
    for centre, radius in zip(candidates[1:], radii[1:], strict=True):
        if (np.hypot(*(centres - centre).T) > 0.86 * (sizes + radius)).all():
            centres, sizes = np.vstack([centres, centre]), np.append(sizes, radius)
    n = len(centres)

    tree = spatial.cKDTree(centres)

    def nearest_two(at: npt.NDArray[np.float64]) -> tuple[npt.NDArray[Any], ...]:
        distance, near = tree.query(at, k=min(6, n))
        surface = distance - sizes[near]  # distance from each disc, negative inside
        order = np.argsort(surface, -1)[..., :2]
        first, second = np.moveaxis(np.take_along_axis(surface, order, -1), -1, 0)
        owner, neighbour = np.moveaxis(np.take_along_axis(near, order, -1), -1, 0)
        return owner, neighbour, first, second

    at = np.moveaxis(np.mgrid[:size, :size], 0, -1) + 1.6 * np.stack([smooth(9), smooth(9)], -1)  # no perfect circles
    owner, neighbour, first, second = nearest_two(at)
    depth = np.minimum(1.5 - first, (second - first) / 2)  # below the surface, in pixels
    # Where two organelles press on each other, the gap fades, for some pairs nearly all along their border.
    pair = rng.normal(0, 0.8, (n, n))[np.minimum(owner, neighbour), np.maximum(owner, neighbour)]
    visible = 1 / (1 + np.exp(-(pair - 1.4 + 1.5 * smooth(4)) / 0.35))
    touching = np.exp(-(np.maximum(first, 0) ** 2) / 8) * (second < 4)

    # The outlines of the ground truth waver by a fraction of a pixel, as those of annotators do.
    drawn_owner, _, drawn_first, _ = nearest_two(at + 0.3 * np.stack([smooth(4), smooth(4)], -1))
    nhood = mknhood2d(1)
    labels = np.where(drawn_first < 0.7, drawn_owner + 1, 0)
    within = seg_to_affgraph((labels > 0).astype(np.int32), nhood)
    border = (seg_to_affgraph(labels, nhood) != within).any(0)
    labels[border & ((visible > 0.5) | (touching < 0.5))] = 0

    angle = rng.uniform(0, np.pi, n)[owner]
    along = at[..., 0] * np.cos(angle) + at[..., 1] * np.sin(angle) + 2.5 * smooth(8)
    cristae = np.clip(np.sin(2 * np.pi * along / rng.uniform(5, 8, n)[owner]), 0, 1) ** 2
    cristae *= (0.5 + 0.5 * np.tanh(2 * smooth(4))) * np.clip((depth - 1.5) / 1.5, 0, 1)
    inside = rng.normal(0.32, 0.07, n)[owner] + 0.38 * cristae - 0.07 * np.exp(-((depth - 1.6) ** 2))
    between = 0.72 + 0.05 * smooth(2.5) + 0.03 * smooth(1)
    # In most organelles a septum goes from side to side.
    across = rng.uniform(0, np.pi, n)
    off_centre = np.einsum("...i,i...->...", at - centres[owner], np.stack([np.cos(across), np.sin(across)])[:, owner])
    off_centre += 0.8 * smooth(6) - (rng.uniform(-0.45, 0.45, n) * sizes)[owner]
    bright = np.where(rng.random(n) < 0.9, rng.uniform(0.4, 1, n), 0)[owner]
    septum = bright * np.exp(-(off_centre**2) / 1.28) * (depth > -0.5)
    gap = (1 - 0.95 * touching * (1 - visible)) / (1 + np.exp((depth - 0.5) / 0.35))
    picture = ndimage.gaussian_filter(inside + (between - inside) * np.maximum(gap, septum), 0.9)
    picture += 0.03 * smooth(40) + 0.07 * rng.standard_normal((size, size))
    image = picture.astype(np.float32)[np.newaxis]
    image = (image - image.mean()) / image.std()
    # What the distortion cut in two are two objects: pairs of pixels that no path joins teach nothing.
    parts, _ = affgraph_to_seg(seg_to_affgraph(labels, nhood), nhood, min_size=1)
    _, parts = np.unique(np.where(labels > 0, parts, 0), return_inverse=True)
    return image, parts.reshape(labels.shape).astype(np.int32)


def synthetic_affinities(
    labels: npt.ArrayLike, nhood: npt.ArrayLike, seed: int, noise: float = 1.0
) -> npt.NDArray[np.float32]:
    """Draw affinities as a network might predict them: sure of most edges, in doubt here and there, at times wrong.

    The logits are those of the truth, blurred, plus noise of two sizes that all offsets share, and a little of each
    offset's own.

    Parameters
    ----------
    labels : array_like of int, shape `shape`
        Labels of the truth; 0 is background.
    nhood : array_like of int, shape (K, ndim)
        Offsets.
    seed : int
        The same affinities for the same seed.
    noise : float, optional
        How much the affinities are disturbed; without noise the truth is easy to find.

    Returns
    -------
    ndarray of float32, shape (K, *shape)
        Affinities between 0 and 1.

    Raises
    ------
    ImportError
        If SciPy is not installed.
    ValueError
        For shapes that do not go together, negative labels, a negative `seed` or `noise`.
    TypeError
        For dtypes and options of another type.

    Examples
    --------
    >>> import malis
    >>> image, labels = synthetic_image(0, 64)
    >>> synthetic_affinities(labels, malis.mknhood2d(1), seed=0).shape
    (2, 64, 64)
    """
    truth = seg_to_affgraph(labels, nhood)
    rng = np.random.default_rng(_checks.as_integer(seed, "seed", 0))
    if _checks.as_real(noise, "noise") < 0:
        raise ValueError(f"noise must be a number of at least 0, got {noise!r}")
    ndimage, _ = _import_scipy()
    shape = truth.shape[1:]
    shared = 1.6 * _smooth_noise(rng, shape, 1.0) + 1.0 * _smooth_noise(rng, shape, 4.0)
    logits = np.empty(truth.shape)
    for channel, edges in zip(logits, truth, strict=True):
        blurred = ndimage.gaussian_filter(np.where(edges > 0, 4.0, -7.0), 0.5, mode="nearest")
        channel[:] = blurred + noise * (shared + 0.6 * _smooth_noise(rng, shape, 0.7))
    return (1.0 / (1.0 + np.exp(-logits))).astype(np.float32)


def _smooth_noise(rng: np.random.Generator, shape: tuple[int, ...], sigma: float) -> npt.NDArray[np.float64]:
    """Draw noise of unit variance whose grains are about `sigma` wide."""
    ndimage, _ = _import_scipy()
    noise: npt.NDArray[np.float64] = ndimage.gaussian_filter(rng.standard_normal(shape), sigma, mode="wrap")
    return np.divide(noise, max(float(noise.std()), 1e-12))


def _import_scipy() -> tuple[Any, Any]:
    try:
        return importlib.import_module("scipy.ndimage"), importlib.import_module("scipy.spatial")
    except ImportError as error:
        raise ImportError("malis.synthetic needs SciPy: pip install scipy") from error
