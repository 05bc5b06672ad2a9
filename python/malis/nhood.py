"""Neighbourhoods: the offsets that the channels of an affinity graph stand for.

An edge joins two voxels, so one of the two offsets ``o`` and ``-o`` is enough: every function here returns
half a ball, and never the zero offset.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

__all__ = ["mknhood2d", "mknhood3d", "mknhood3d_aniso"]


def mknhood2d(radius: float = 1) -> NDArray[np.int32]:
    """Make the offsets within half a disc.

    Parameters
    ----------
    radius : float
        Largest length of an offset, in voxels; at least 1.

    Returns
    -------
    ndarray of int32, shape (K, 2)
        ``nhood[k]`` leads from voxel ``(y, x)`` to ``(y, x) + nhood[k]``.

    Raises
    ------
    TypeError
        If `radius` is not a number.
    ValueError
        If `radius` is below 1 or not finite.

    Examples
    --------
    >>> from malis import mknhood2d
    >>> mknhood2d(1).tolist()
    [[-1, 0], [0, -1]]
    >>> mknhood2d(1.5).tolist()
    [[-1, 0], [1, -1], [0, -1], [-1, -1]]
    """
    return _half_ball(2, radius, "radius")


def mknhood3d(radius: float = 1) -> NDArray[np.int32]:
    """Make the offsets within half a ball.

    Parameters
    ----------
    radius : float
        Largest length of an offset, in voxels; at least 1.

    Returns
    -------
    ndarray of int32, shape (K, 3)
        ``nhood[k]`` leads from voxel ``(z, y, x)`` to ``(z, y, x) + nhood[k]``.

    Raises
    ------
    TypeError
        If `radius` is not a number.
    ValueError
        If `radius` is below 1 or not finite.

    Examples
    --------
    >>> from malis import mknhood3d
    >>> mknhood3d(1).tolist()
    [[-1, 0, 0], [0, -1, 0], [0, 0, -1]]
    """
    return _half_ball(3, radius, "radius")


def mknhood3d_aniso(radiusxy: float = 1, radiusxy_zminus1: float = 1.8) -> NDArray[np.int32]:
    """Make the offsets for volumes whose sections lie further apart than the voxels in a section.

    The offsets of ``mknhood3d(radiusxy)`` come first, then those to the previous section that lead sideways
    by at most `radiusxy_zminus1` voxels.

    Parameters
    ----------
    radiusxy : float
        Radius of the ball of the first offsets; at least 1.
    radiusxy_zminus1 : float
        Largest sideways length of the offsets to the previous section; at least 1.

    Returns
    -------
    ndarray of int32, shape (K, 3)
        ``nhood[k]`` leads from voxel ``(z, y, x)`` to ``(z, y, x) + nhood[k]``.

    Raises
    ------
    TypeError
        If a radius is not a number.
    ValueError
        If a radius is below 1 or not finite.

    Examples
    --------
    >>> from malis import mknhood3d_aniso
    >>> mknhood3d_aniso(1, 1).tolist()
    [[-1, 0, 0], [0, -1, 0], [0, 0, -1], [-1, -1, 0], [-1, 0, -1], [-1, 1, 0], [-1, 0, 1]]
    >>> len(mknhood3d_aniso())
    11
    """
    ball = _half_ball(3, radiusxy, "radiusxy")
    half_disc = _half_ball(2, radiusxy_zminus1, "radiusxy_zminus1")
    sideways = np.concatenate([half_disc, -half_disc])
    previous_section = np.insert(sideways, 0, -1, axis=1)
    return np.concatenate([ball, previous_section])


def ends(shape: Sequence[int], offset: Sequence[int]) -> tuple[tuple[slice, ...], tuple[slice, ...]] | None:
    """Return where the edges of an offset begin and where they end in a volume; None if all of them leave it."""
    if any(abs(step) >= n for n, step in zip(shape, offset, strict=True)):
        return None
    begin = tuple(slice(max(0, -step), n - max(0, step)) for n, step in zip(shape, offset, strict=True))
    end = tuple(slice(max(0, step), n - max(0, -step)) for n, step in zip(shape, offset, strict=True))
    return begin, end


def _half_ball(ndim: int, radius: float, name: str) -> NDArray[np.int32]:
    """Offsets of length 1 to `radius`, those that sort before 0 when the last axis counts most."""
    if isinstance(radius, (bool, np.bool_)) or not isinstance(radius, (int, float, np.integer, np.floating)):
        raise TypeError(f"{name} must be a number, got {radius!r}")
    if not 1 <= radius < np.inf:
        raise ValueError(f"{name} must be a finite number of at least 1, got {radius!r}")
    reach = int(radius)
    # np.indices sorts by the first axis before the last; read backwards, it is the other way round.
    cube = np.indices((2 * reach + 1,) * ndim).reshape(ndim, -1)[::-1].T - reach
    before_centre = cube[: len(cube) // 2]
    inside = (before_centre**2).sum(axis=1) <= radius**2
    return np.ascontiguousarray(before_centre[inside][::-1], dtype=np.int32)
