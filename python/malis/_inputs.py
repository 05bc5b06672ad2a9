"""What the command reads: affinities and labels, checked, with messages that name the file."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from malis import _checks, _console, _io


def read_affinities(
    text: str, nhood: str | None, channel_axis: int | None, axes: str | None, tick: Callable[[float], None]
) -> tuple[npt.NDArray[Any], npt.NDArray[np.int64], _io.Grid]:
    """Read affinities, the offsets of their channels, and the voxel size; check that they go together."""
    affinities, grid = _io.read_affinities(text, channel_axis, axes, tick)
    return affinities, check_affinities(affinities, grid, text, nhood, axes), grid


def check_affinities(
    affinities: npt.NDArray[Any] | _io.Unread, grid: _io.Grid, text: str, nhood: str | None, axes: str | None
) -> npt.NDArray[np.int64]:
    """Return the offsets of the channels; check that they and the affinities go together."""
    if affinities.dtype.kind not in "fiub":
        raise TypeError(f"AFF must have dtype uint8 or float, got {_checks.describe(affinities)} in {text}")
    if affinities.size == 0:
        raise ValueError(f"AFF must not be empty, got {_checks.describe(affinities)} in {text}")
    _console.detail(_description(text, affinities, grid, axes))
    ndim = affinities.ndim - 1
    where = f"got {_checks.describe(affinities)} in {text}: --channel-axis says which axis the channels are"
    if nhood is None:
        if not 1 <= ndim <= 3 or len(affinities) != ndim:
            raise ValueError(
                f"AFF must have one channel for each of 1 to 3 spatial axes, or --nhood must give its offsets; {where}"
            )
        return _checks.as_nhood(-np.eye(ndim, dtype=np.int64))
    try:
        offsets = _checks.as_nhood(json.loads(nhood))
    except (json.JSONDecodeError, ValueError, TypeError) as error:
        raise ValueError(f"--nhood must be a list of offsets such as [[-1,0],[0,-1]], got {nhood!r}: {error}") from None
    if ndim != offsets.shape[1] or len(affinities) != len(offsets):
        raise ValueError(
            f"AFF must have one channel for each of the {len(offsets)} offsets of --nhood and {offsets.shape[1]} "
            f"spatial axes, {where}"
        )
    return offsets


def read_labels(
    text: str, name: str, axes: str | None, tick: Callable[[float], None], ignore_label: int | None = None
) -> npt.NDArray[Any]:
    """Read labels and check them; what is to be ignored keeps its label, which may be negative."""
    volume = _io.read_labels(text, axes, tick)
    _console.detail(_description(text, volume.array, volume.grid, axes))
    labels, ignored = _checks.as_truth(volume.array, f"{name} ({text})", ignore_label)
    return labels if ignored is None else volume.array


def _description(text: str, array: npt.NDArray[Any] | _io.Unread, grid: _io.Grid, axes: str | None) -> str:
    size = "" if grid.scale is None else f", voxels of {' x '.join(f'{s:g}' for s in grid.scale)} {grid.short_unit}"
    return f"{text}: shape {array.shape}, {array.dtype}{size}{'' if axes is None else f', axes {axes}'}"


def check_shapes(text: str, shape: tuple[int, ...], other: str, other_shape: tuple[int, ...], remedy: str) -> None:
    if shape != other_shape:
        raise ValueError(
            f"{text} and {other} must have one spatial shape, got {shape} and {other_shape}: {remedy} may tell which "
            "axis is which"
            if "axes" in remedy
            else f"{text} and {other} must have one spatial shape, got {shape} and {other_shape}"
        )


def check_values(affinities: npt.NDArray[Any], text: str, thresholds: dict[str, float | None]) -> None:
    """Raise for NaN, saying where; warn of thresholds that no affinity, or every one, reaches."""
    lowest, highest = float(affinities.min()), float(affinities.max())
    if math.isnan(lowest):
        for k, channel in enumerate(affinities):
            missing = np.isnan(channel)
            if missing.any():
                at = [int(i) for i in np.unravel_index(int(missing.argmax()), channel.shape)]
                raise ValueError(f"{text} must hold numbers, got NaN in channel {k} at voxel {at}")
    scaled = affinities.dtype == np.uint8
    if scaled:
        lowest, highest = lowest / 255, highest / 255
    _console.detail(f"{text}: affinities from {lowest:.4g} to {highest:.4g}")
    for name, value in thresholds.items():
        if value is not None and not lowest < value <= highest:
            every = "connects every edge" if value <= lowest else "connects no edge"
            _console.warn(
                f"{name} {value:g} {every}: the affinities of {text} lie between {lowest:.4g} and {highest:.4g}"
                + (", bytes of 0 to 255 read as 0 to 1" if scaled else "")
            )
