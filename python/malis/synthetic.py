"""Generated images of organelles and volumes of neurites, with their labels, and affinities as a network predicts them.

For demonstrations, examples and tests: nothing has to be downloaded, and the truth is known.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from malis import _checks
from malis.affgraph import seg_to_affgraph
from malis.labels import connect_labels
from malis.nhood import mknhood2d
from malis.segmentation import affgraph_to_seg

__all__ = ["synthetic_affinities", "synthetic_image", "synthetic_volume"]

# How neurites grow, in widths of the smallest side of a voxel.
_STEP = 1.5
_RADII = (3.5, 7.0)
_BEND = 0.22
_BRANCH = 0.035
# How often new neurites are begun where there is room left, and the volume for which one is tried each time.
_ROUNDS = 5
_ROOM = 4000.0
# What is smaller is a splinter that the distortion has cut off, no neurite.
_SPLINTER = 40


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


def synthetic_volume(
    seed: int, shape: Sequence[int] = (64, 128, 128), voxel_size: Sequence[float] = (1.0, 1.0, 1.0)
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int32]]:
    """Draw packed neurites as an electron microscope shows them: thin, branching, with dark membranes between them.

    Membranes fade in places, and there the labels touch; mitochondria are as dark as membranes and no borders. Some
    sections along the first axis are missing (flat grey) or blurred, and their brightness wavers; what the labels say
    goes on through them.

    Parameters
    ----------
    seed : int
        The same volume for the same seed.
    shape : sequence of int, optional
        Sections, rows and columns, each at least 8.
    voxel_size : sequence of float, optional
        The size of a voxel along each axis, in any unit: ``(10, 1, 1)`` for thick sections. Neurites are some ten
        smallest sides wide.

    Returns
    -------
    image : ndarray of float32, shape (1, *shape)
        Grey values with zero mean and unit variance.
    labels : ndarray of int32, shape `shape`
        Neurites 1..n, each of them connected within the volume; 0 is membrane.

    Raises
    ------
    ImportError
        If SciPy is not installed.
    ValueError
        If `seed` is negative, an axis is shorter than 8 voxels, or a voxel size is not positive.
    TypeError
        If one of them is of another type.

    Examples
    --------
    >>> image, labels = synthetic_volume(0, (16, 32, 32))
    >>> image.shape, labels.shape
    ((1, 16, 32, 32), (16, 32, 32))
    """
    rng = np.random.default_rng(_checks.as_integer(seed, "seed", 0))
    size = _checks.as_reals(voxel_size, "voxel_size")
    if len(tuple(shape)) != 3 or len(size) != 3:
        raise ValueError(f"shape and voxel_size must have three axes, got {tuple(shape)} and {tuple(voxel_size)}")
    sections, rows, columns = (_checks.as_integer(n, "shape", 8) for n in shape)
    if (size <= 0).any():
        raise ValueError(f"voxel_size must be positive, got {tuple(voxel_size)}")
    space = _Space(rng, (sections, rows, columns), size / size.min())
    filled, at = _packed_neurites(space)
    labels, walls, visible = _membranes(space, filled)
    picture = _painted(space, filled, at, walls, visible)
    _damage(space, picture)
    image = picture.astype(np.float32)[np.newaxis]
    return (image - image.mean()) / image.std(), labels.astype(np.int32)


class _Space(NamedTuple):
    """What the steps of drawing a volume share; lengths are in smallest sides of a voxel."""

    rng: np.random.Generator
    extent: tuple[int, int, int]
    """In voxels."""
    size: npt.NDArray[np.float64]
    """Of a voxel along each axis."""

    def smooth(self, sigma: float) -> npt.NDArray[np.float64]:
        """Return noise of zero mean with grains of so many sides."""
        noise = _smooth_noise(self.rng, self.extent, (sigma / self.size).tolist())
        noise -= noise.mean()  # which is large where grains are as wide as the volume
        return noise

    def away_from(self, there: npt.NDArray[np.bool_]) -> npt.NDArray[np.float64]:
        """Return how far each voxel is from the nearest one of those."""
        ndimage, _ = _import_scipy()
        distance: npt.NDArray[np.float64] = ndimage.distance_transform_edt(~there, sampling=self.size.tolist())
        return distance


def _packed_neurites(space: _Space) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int64]]:
    """Return the neurite of every voxel, and the voxels along their middle lines, shape (n, 3)."""
    ndimage, _ = _import_scipy()
    extent, size = space.extent, space.size
    points, owner = _grow_neurites(space.rng, np.array(extent) * size)
    at = np.floor(points / size).astype(np.int64)
    inside = ((at >= 0) & (at < extent)).all(axis=1)
    at = at[inside]
    markers = np.zeros(extent, np.int32)
    markers[tuple(at.T)] = owner[inside] + 1
    nearest = ndimage.distance_transform_edt(
        markers == 0, sampling=size.tolist(), return_distances=False, return_indices=True
    )
    # Walls between straight cells would be flat: where each voxel looks for its neurite is distorted.
    last = np.array(extent) - 1
    shifted = [np.rint(i + 1.6 / s * space.smooth(5.0)) for i, s in zip(np.indices(extent), size, strict=True)]
    source = tuple(np.clip(i, 0, n).astype(np.int64) for i, n in zip(shifted, last, strict=True))
    return markers[tuple(nearest)][source], at


def _membranes(
    space: _Space, filled: npt.NDArray[np.int32]
) -> tuple[npt.NDArray[Any], npt.NDArray[np.bool_], npt.NDArray[np.float64]]:
    """Return the labels, the voxels on both sides of the walls between neurites, and how much of a wall can be seen."""
    parts = connect_labels(filled)
    sizes = np.bincount(parts.ravel())
    flat = space.size < 2 * space.size.min()  # axes along which a voxel is not thicker than a membrane
    nhood = -np.eye(3, dtype=np.int64)[flat]
    cut = (seg_to_affgraph(filled, nhood) == 0) & (seg_to_affgraph(np.ones_like(filled), nhood) > 0)
    wall = cut.any(axis=0)
    visible = 1 / (1 + np.exp(-(space.smooth(5.0) + 1.5) / 0.25))  # nearly everywhere 1
    labels = np.where((wall & (visible > 0.5)) | (sizes[parts] < _SPLINTER), 0, parts)
    labels = connect_labels(labels)
    labels = connect_labels(np.where(np.bincount(labels.ravel())[labels] < _SPLINTER, 0, labels))
    # The planes of walls lie between two voxels, of which the one behind is marked.
    both = wall.copy()
    for channel, offset in zip(cut, nhood, strict=True):
        both |= np.roll(channel, offset.tolist(), axis=(0, 1, 2))
    return labels, both, visible


def _painted(
    space: _Space,
    filled: npt.NDArray[np.int32],
    at: npt.NDArray[np.int64],
    walls: npt.NDArray[np.bool_],
    visible: npt.NDArray[np.float64],
) -> npt.NDArray[np.float64]:
    """Return grey values: cytoplasm of a shade for each neurite, mitochondria along its middle, dark membranes."""
    ndimage, _ = _import_scipy()
    rng, sections = space.rng, space.extent[0]
    away = space.away_from(walls)
    membrane = np.exp(-((away / 1.3) ** 2)) * visible
    centres = rng.permutation(len(at))[: max(1, len(at) // 25)]
    organelles = np.zeros(space.extent, bool)
    organelles[tuple(at[centres].T)] = True
    radius = space.away_from(organelles) + 0.6 * space.smooth(3.0)
    organelle = (radius < 3.4) & (away > 2.0)
    rim = np.abs(radius - 2.6) < 0.7

    shade = rng.normal(0.0, 0.035, int(filled.max()) + 1)[filled]
    picture = 0.68 + shade + 0.03 * space.smooth(1.5) - np.where(organelle, np.where(rim, 0.26, 0.17), 0.0)
    picture += (0.2 - picture) * membrane
    picture = ndimage.gaussian_filter(picture, (0.6 / space.size).tolist()) + 0.02 * space.smooth(30.0)
    picture = picture * rng.normal(1, 0.03, (sections, 1, 1)) + rng.normal(0, 0.02, (sections, 1, 1))
    return np.asarray(picture)


def _damage(space: _Space, picture: npt.NDArray[np.float64]) -> None:
    """Add noise, and let some sections be blurred or missing."""
    ndimage, _ = _import_scipy()
    rng, (sections, rows, columns) = space.rng, space.extent
    damaged = 1 + rng.permutation(sections - 2)
    n_missing, n_blurred = max(1, sections // 40), max(1, sections // 25)
    for section in damaged[n_missing : n_missing + n_blurred]:
        picture[section] = ndimage.gaussian_filter(picture[section], 2.0)
    picture += 0.045 * rng.standard_normal(space.extent)
    for section in damaged[:n_missing]:
        picture[section] = picture.mean() + 0.02 * rng.standard_normal((rows, columns))


def _grow_neurites(
    rng: np.random.Generator, extent: npt.NDArray[np.float64]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]:
    """Grow curves that bend, branch and keep away from each other until a volume is full of them.

    Returns the points of the curves, shape (n, 3), and the number of the neurite of each.
    """
    _, spatial = _import_scipy()
    points, owner, born = np.empty((0, 3)), np.empty(0, np.int64), np.empty(0, np.int64)
    radii = np.empty(0)
    step = 0
    for _ in range(_ROUNDS):
        # Neurites of one round start far enough from each other and from all that there are; all grow at once.
        starts = rng.uniform(0, 1, (max(8, int(extent.prod() / _ROOM)), 3)) * extent
        if len(points):
            starts = starts[spatial.cKDTree(points).query(starts)[0] > 1.5 * _RADII[1]]
        close = spatial.cKDTree(starts).query_pairs(2 * _RADII[1], output_type="ndarray") if len(starts) else []
        starts = np.delete(starts, [j for _, j in close], axis=0)
        number = len(radii) + np.arange(len(starts))
        radii = np.concatenate([radii, rng.uniform(*_RADII, len(starts))])
        heading = _unit(rng.standard_normal(starts.shape))
        position, direction, of = np.tile(starts, (2, 1)), np.concatenate([heading, -heading]), np.tile(number, 2)
        points, owner = np.concatenate([points, starts]), np.concatenate([owner, number])
        born = np.concatenate([born, np.full(len(starts), step)])
        while len(of):
            step += 1
            headings = _unit(direction[:, np.newaxis] + _BEND * rng.standard_normal((len(of), 6, 3)))
            ahead = position[:, np.newaxis] + _STEP * headings
            distance, near = spatial.cKDTree(points).query(ahead, k=min(8, len(points)))
            distance, near = (a.reshape(len(of), 6, -1) for a in (distance, near))
            # The own neurite is in the way, too, but for what has only just grown.
            fresh = (owner[near] == of[:, np.newaxis, np.newaxis]) & (step - born[near] < 12)
            room = np.where(fresh, np.inf, distance).min(-1)
            # Straight on where there is room, away from others where there is not.
            wide = radii[of][:, np.newaxis]
            straight = (headings * direction[:, np.newaxis]).sum(-1)
            best = np.argmax(np.minimum(room, 1.6 * wide) + 0.3 * wide * straight, axis=1)
            row = np.arange(len(of))
            position, direction = ahead[row, best], headings[row, best]
            grows = (room[row, best] > 1.1 * radii[of]) & (position > 0).all(1) & (position < extent).all(1)
            position, direction, of = position[grows], direction[grows], of[grows]
            points, owner = np.concatenate([points, position]), np.concatenate([owner, of])
            born = np.concatenate([born, np.full(len(of), step)])
            forks = np.flatnonzero(rng.random(len(of)) < _BRANCH)
            sideways = _unit(np.cross(direction[forks], rng.standard_normal((len(forks), 3))))
            position = np.concatenate([position, position[forks]])
            direction = np.concatenate([direction, _unit(sideways + 0.5 * direction[forks])])
            of = np.concatenate([of, of[forks]])
    return points, owner


def _unit(vectors: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    units: npt.NDArray[np.float64] = vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)
    return units


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


def _smooth_noise(
    rng: np.random.Generator, shape: tuple[int, ...], sigma: float | Sequence[float]
) -> npt.NDArray[np.float64]:
    """Draw noise of unit variance whose grains are about `sigma` wide, along each axis or along all."""
    ndimage, _ = _import_scipy()
    noise: npt.NDArray[np.float64] = ndimage.gaussian_filter(rng.standard_normal(shape), sigma, mode="wrap")
    return np.divide(noise, max(float(noise.std()), 1e-12))


def _import_scipy() -> tuple[Any, Any]:
    try:
        return importlib.import_module("scipy.ndimage"), importlib.import_module("scipy.spatial")
    except ImportError as error:
        raise ImportError("malis.synthetic needs SciPy: pip install scipy") from error
