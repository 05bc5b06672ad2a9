"""Where the voxels of a volume lie in the sample: size, position of the first one, and unit."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

# The names of OME-Zarr, how other formats spell them, and how many nanometers they are.
_UNITS = {
    "angstrom": (("a", "å"), 0.1),
    "nanometer": (("nm", "nanometre", "nanometers"), 1.0),
    "micrometer": (("um", "µm", "μm", "micron", "microns", "micrometre", "\\u00b5m"), 1e3),
    "millimeter": (("mm", "millimetre"), 1e6),
    "centimeter": (("cm", "centimetre"), 1e7),
    "meter": (("m", "metre"), 1e9),
}
_SHORT = {
    "angstrom": "Å",
    "nanometer": "nm",
    "micrometer": "µm",
    "millimeter": "mm",
    "centimeter": "cm",
    "meter": "m",
}


class Grid(NamedTuple):
    """The voxels of a volume in the sample; `scale` is None where the file says nothing."""

    scale: tuple[float, ...] | None = None
    """The size of a voxel along every spatial axis."""
    translation: tuple[float, ...] | None = None
    """The position of the first voxel; None stands for 0."""
    unit: str | None = None
    """The unit of both, as OME-Zarr names it, or None."""

    @property
    def short_unit(self) -> str | None:
        """The symbol of the unit."""
        return None if self.unit is None else _SHORT.get(self.unit, self.unit)

    def in_nanometers(self) -> Grid:
        """Return the same grid in nanometers; unchanged where the unit is not known."""
        if self.scale is None or self.unit not in _UNITS:
            return self
        factor = _UNITS[self.unit][1]
        origin = self.translation or (0.0,) * len(self.scale)
        return Grid(tuple(s * factor for s in self.scale), tuple(t * factor for t in origin), "nanometer")


def unit_name(text: object) -> str | None:
    """Return the OME-Zarr name of a unit; None for none, a pixel, and what is not known."""
    if not isinstance(text, str):
        return None
    given = text.strip().lower()
    return next((name for name, (spellings, _) in _UNITS.items() if given == name or given in spellings), None)


def positive(numbers: object, length: int | None = None) -> tuple[float, ...] | None:
    """Return voxel sizes as floats, or None for what is none: another length, zeros, strings."""
    values = numbers_of(numbers, length)
    return values if values and all(0 < v < float("inf") for v in values) else None


def numbers_of(numbers: object, length: int | None = None) -> tuple[float, ...] | None:
    """Return numbers as floats, or None for what is no sequence of them."""
    try:
        values = tuple(float(n) for n in numbers)  # type: ignore[attr-defined]
    except (TypeError, ValueError):
        return None
    return values if values and (length is None or len(values) == length) else None


def pick(values: Sequence[float] | None, spatial: Sequence[int], ndim: int) -> tuple[float, ...] | None:
    """Return what belongs to the spatial axes, of numbers that are given for them or for all axes."""
    if values is None:
        return None
    if len(values) == len(spatial):
        # Given in the order of the spatial axes as they lie in the file.
        order = sorted(spatial)
        return tuple(values[order.index(axis)] for axis in spatial)
    return tuple(values[axis] for axis in spatial) if len(values) == ndim else None
