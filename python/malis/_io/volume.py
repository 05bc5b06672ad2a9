"""Arrays with the names of their axes, and bringing the axes into the order that the package takes."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy.typing as npt

from malis._io.errors import Unsuitable
from malis._io.grid import Grid, pick

Array = npt.NDArray[Any]
SPATIAL = "zyx"
_LETTERS = "tczyx"


class Stored(NamedTuple):
    """An array as its file holds it."""

    array: Any
    """The values, or `Unread` ones."""
    names: tuple[str, ...] | None = None
    """The name of every axis, c for channels and t for time; None where the file says nothing."""
    scale: tuple[float, ...] | None = None
    """Voxel sizes, of all axes or of the spatial ones."""
    translation: tuple[float, ...] | None = None
    unit: str | None = None


class Volume(NamedTuple):
    """Affinities (K, *shape), or labels or an image of a spatial shape."""

    array: Any
    """The values, or `Unread` ones."""
    grid: Grid


def affinities(stored: Stored, text: str, channel_axis: int | None, axes: str | None) -> Volume:
    """Bring the axes into the order (K, *shape)."""
    array, names = stored.array, _named(stored, text, axes)
    if channel_axis is not None:
        if axes is not None:
            raise ValueError(f"{text}: give --axes or --channel-axis, not both")
        if not -array.ndim <= channel_axis < array.ndim:
            raise ValueError(f"{text} has {array.ndim} axes, got the channel axis {channel_axis}")
        channel = channel_axis % array.ndim
    elif names is None:
        channel = 0
    elif "c" not in names:
        raise ValueError(
            f"{text} has the axes {', '.join(names)} and none of channels: say which one the offsets are along with "
            "--channel-axis, or name all axes with --axes, such as --axes czyx"
        )
    else:
        channel = names.index("c")
    time = names.index("t") if names is not None and "t" in names else None
    if time == channel:
        time = None
    if array.ndim == 0:
        raise Unsuitable(f"{text} must hold affinities (K, *shape), got a single number")
    return _arranged(stored, text, names, channel, time)


def labels(stored: Stored, text: str, axes: str | None, what: str = "labels") -> Volume:
    """Drop axes of channels and of time, of which there must be one each."""
    names = _named(stored, text, axes)
    time = names.index("t") if names is not None and "t" in names else None
    channel = names.index("c") if names is not None and "c" in names else None
    array = stored.array
    if channel is not None and array.shape[channel] != 1:
        raise ValueError(
            f"{text} must hold one channel of {what}, got {array.shape[channel]} along its axes "
            f"{''.join(names or ())}: if these are sections, say --axes {_with_z(names)}"
        )
    volume = _arranged(stored, text, names, channel, time)
    return volume if channel is None else Volume(volume.array[0], volume.grid)


def _named(stored: Stored, text: str, axes: str | None) -> tuple[str, ...] | None:
    """Return the names of the axes: those of the caller, or else those of the file."""
    if axes is None:
        names = stored.names if stored.names is not None and any(stored.names) else None
    else:
        names = tuple(axes.lower())
        if len(names) != stored.array.ndim or len(set(names)) != len(names) or not set(names) <= set(_LETTERS):
            raise ValueError(
                f"--axes must name the {stored.array.ndim} axes of {text}, shape {stored.array.shape}, by different "
                f"letters of {_LETTERS}, got {axes!r}"
            )
    if names is not None and len(set(names)) != len(names):
        raise Unsuitable(f"{text}: its axes must differ, got {', '.join(map(str, names))}")
    return names


def _arranged(
    stored: Stored, text: str, names: tuple[str, ...] | None, channel: int | None, time: int | None
) -> Volume:
    """Move channels to the front and the spatial axes into the order z, y, x; drop a time axis of length 1."""
    array = stored.array
    if time is not None and array.shape[time] != 1:
        raise ValueError(
            f"{text} must hold one time point, got {array.shape[time]} along its axes "
            f"{''.join(names or ())}: if these are sections, say --axes {_with_z(names)}"
        )
    spatial = [axis for axis in range(array.ndim) if axis not in (channel, time)]
    if names is not None and all(names[axis] in SPATIAL for axis in spatial):
        spatial.sort(key=lambda axis: SPATIAL.index(names[axis]))
    grid = Grid(pick(stored.scale, spatial, array.ndim), pick(stored.translation, spatial, array.ndim), stored.unit)
    if grid.scale is None:
        grid = Grid()
    order = [*([] if time is None else [time]), *([] if channel is None else [channel]), *spatial]
    array = array.transpose(order)
    return Volume(array if time is None else array[0], grid)


def _with_z(names: tuple[str, ...] | None) -> str:
    """Return the names with z for the axis that is taken for time or channels."""
    if names is None or "z" in names:
        return "zyx"
    return "".join("z" if name in "ct" else name for name in names)
