"""TIFF files of ImageJ, OME and others, and folders of TIFF sections."""

from __future__ import annotations

import json
import math
import re
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np

from malis._io.blocks import Array, Tick
from malis._io.errors import Unsuitable, library
from malis._io.grid import Grid, positive, unit_name
from malis._io.numpy_files import PROVENANCE
from malis._io.place import Place
from malis._io.replace import uninterrupted
from malis._io.volume import SPATIAL, Stored

# Classical TIFF, which alone ImageJ opens without a plugin, has 32-bit positions.
_LARGEST_IMAGEJ = 2**32 - 2**24
# An image of more than a gigabyte, and of more bytes than this for each byte of its file, is damaged: no compression
# makes a volume so small, even where all of it is 0.
_MOST_BYTES_PER_BYTE = 2**16


def read(place: Place, tick: Tick) -> Stored:
    """Read a TIFF file that holds one image."""
    with library("tifffile").TiffFile(place.path) as file:
        _check_pages(file, place.path)
        if len(file.series) != 1:
            raise Unsuitable(f"{place.path} must hold one image, got {len(file.series)}")
        series = file.series[0]
        _check_size(series, place.path)
        array = _pages(series, tick)
        if len(series.axes) != array.ndim or not set(series.axes) <= set("CSTZYX"):
            return Stored(array)  # pages in some order that nobody wrote down, or of a damaged file
        names = tuple({"S": "c"}.get(letter, letter.lower()) for letter in series.axes)
        sizes, unit = _voxel_size(file)
        # Only spatial axes have sizes; the others count as 1.
        scale = tuple(sizes.get(name, 1.0) for name in names) if sizes else None
        return Stored(array, names, scale, None, unit)


def _check_pages(file: Any, path: Path) -> None:
    """Check that no page of a file leads back to an earlier one: tifffile would read such pages for ever."""
    layout, handle, offset = file.tiff, file.filehandle, file.pages.first.offset
    seen: set[int] = set()
    while offset:
        if offset in seen:
            raise Unsuitable(f"{path} is damaged: its pages go round in a circle")
        seen.add(offset)
        # The number of tags, the tags, and the offset of the next page.
        handle.seek(offset)
        head = handle.read(layout.tagnosize)
        if len(head) < layout.tagnosize:
            return
        handle.seek(offset + layout.tagnosize + struct.unpack(layout.tagnoformat, head)[0] * layout.tagsize)
        link = handle.read(layout.offsetsize)
        offset = struct.unpack(layout.offsetformat, link)[0] if len(link) == layout.offsetsize else 0


def _check_size(series: Any, path: Path) -> None:
    """Check that an image can be what its file holds, before memory is taken for it."""
    size = math.prod(series.shape) * series.dtype.itemsize if series.dtype is not None else 0
    if size > max(2**30, _MOST_BYTES_PER_BYTE * path.stat().st_size):
        raise Unsuitable(
            f"{path} is damaged: it says to hold shape {tuple(series.shape)} in {path.stat().st_size} bytes"
        )


def _pages(series: Any, tick: Tick) -> Array:
    """Read page by page where every page is a part of the image."""
    shape, pages = series.shape, len(series.pages)
    page = series.pages[0] if pages else None
    if pages < 2 or page is None or tuple(shape[-len(page.shape) :]) != tuple(page.shape):
        return np.asarray(series.asarray())
    if int(np.prod(shape[: -len(page.shape)])) != pages:
        return np.asarray(series.asarray())
    array = np.empty((pages, *page.shape), series.dtype)
    for i, page in enumerate(series.pages):
        with uninterrupted():
            array[i] = 0 if page is None else page.asarray()
        tick((i + 1) / pages)
    return array.reshape(shape)


def read_sections(place: Place, tick: Tick) -> Stored:
    """Read a folder of TIFF files, one section each, in the order of the numbers in their names."""
    tifffile = library("tifffile")
    paths = [path for path in place.path.iterdir() if path.suffix.lower() in (".tif", ".tiff") and path.is_file()]
    paths = [path for path in paths if not path.name.startswith(".")]
    if not paths:
        raise Unsuitable(f"{place.path} is a folder: it must hold the sections of a volume as .tif files, got none")
    paths.sort(key=_by_number)
    stored = None
    for z, path in enumerate(paths):
        with tifffile.TiffFile(path) as file:
            _check_pages(file, path)
            if len(file.series) != 1:
                raise Unsuitable(f"{path} must hold one section, got {len(file.series)} images")
            _check_size(file.series[0], path)
            section = np.asarray(file.series[0].asarray())
            if stored is None:
                stored = Stored(np.empty((len(paths), *section.shape), section.dtype), *_section_axes(file))
        if section.shape != stored.array.shape[1:] or section.dtype != stored.array.dtype:
            raise Unsuitable(
                f"{path} must be like {paths[0].name}, of shape {stored.array.shape[1:]} and dtype "
                f"{stored.array.dtype}, got shape {section.shape} and dtype {section.dtype}"
            )
        stored.array[z] = section
        tick((z + 1) / len(paths))
    assert stored is not None
    return stored


def _section_axes(file: Any) -> tuple[tuple[str, ...] | None, None, None, None]:
    letters = file.series[0].axes
    if letters in ("YX", "CYX", "YXS", "YXC"):
        return ("z", *({"S": "c"}.get(letter, letter.lower()) for letter in letters)), None, None, None
    return None, None, None, None


def _by_number(path: Path) -> list[tuple[int, str]]:
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", path.name)]


def _voxel_size(file: Any) -> tuple[dict[str, float], str | None]:
    """Return the voxel size of every spatial axis and its unit, as ImageJ or OME say; nothing for other files."""
    if file.ome_metadata:
        pixels = ElementTree.fromstring(file.ome_metadata).find(".//{*}Pixels")
        found = {} if pixels is None else pixels.attrib
        sizes = {name: found.get(f"PhysicalSize{name.upper()}") for name in SPATIAL}
        units = {unit_name(found.get(f"PhysicalSize{name.upper()}Unit", "µm")) for name in SPATIAL if sizes[name]}
        numbers = {name: positive([size]) for name, size in sizes.items() if size}
        if not numbers or None in numbers.values() or len(units) != 1:
            return {}, None
        return {name: number[0] for name, number in numbers.items() if number}, units.pop()
    if file.imagej_metadata:
        unit = unit_name(file.imagej_metadata.get("unit"))
        tags = file.pages[0].tags
        if unit is None or "XResolution" not in tags or "YResolution" not in tags:
            return {}, None
        per_unit = {"x": tags["XResolution"].value, "y": tags["YResolution"].value}
        if not all(above > 0 and below > 0 for above, below in per_unit.values()):
            return {}, None
        plane = {name: below / above for name, (above, below) in per_unit.items()}
        spacing = positive([file.imagej_metadata.get("spacing", 1.0)])
        return {**plane, "z": spacing[0] if spacing else 1.0}, unit
    return {}, None


def write(path: Path, name: str, seg: Array, grid: Grid, provenance: Mapping[str, Any]) -> None:
    """Write an ImageJ hyperstack, or OME-TIFF for ``.ome.tif`` and for labels that ImageJ does not hold."""
    tifffile = library("tifffile")
    axes, note = SPATIAL[-seg.ndim :].upper(), json.dumps({PROVENANCE: dict(provenance)})
    largest = int(seg.max())
    if largest >= 2**32:
        raise ValueError(f"{name} cannot hold labels of 2**32 and more, got {largest}: write HDF5 or Zarr")
    is_ome = re.search(r"\.ome\.tiff?$", name, re.I) is not None
    small = largest < 2**16
    if small and not is_ome and 2 * seg.size < _LARGEST_IMAGEJ:
        metadata: dict[str, Any] = {"axes": axes, "Info": note}
        resolution = None
        if grid.scale is not None:
            *z, y, x = grid.scale if seg.ndim > 1 else (grid.scale[0], grid.scale[0])
            resolution = (1 / x, 1 / y)
            metadata["unit"] = {"micrometer": "um", None: "pixel"}.get(grid.unit, grid.short_unit)
            if z:
                metadata["spacing"] = z[0]
        tifffile.imwrite(path, seg.astype(np.uint16), imagej=True, resolution=resolution, metadata=metadata)
        return
    metadata = {"axes": axes, "Description": note}
    if grid.scale is not None:
        for letter, size in zip(axes, grid.scale, strict=True):
            metadata[f"PhysicalSize{letter}"] = size
            if grid.short_unit is not None:
                metadata[f"PhysicalSize{letter}Unit"] = grid.short_unit
    tifffile.imwrite(
        path,
        seg.astype(np.uint16 if small else np.uint32),
        ome=True,
        metadata=metadata,
        compression="zlib",
        photometric="minisblack",
    )
