"""HDF5 data sets, with voxel sizes as CREMI, gunpowder, funlib and ilastik write them."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from malis._io import blocks
from malis._io.blocks import Array, Load, Tick
from malis._io.errors import library
from malis._io.grid import Grid, numbers_of, positive, unit_name
from malis._io.numpy_files import PROVENANCE, choose
from malis._io.place import Place
from malis._io.replace import check_file, check_link, replacing
from malis._io.volume import Stored

# What the lists of groups and attributes may take beside the data: a few kilobytes.
_METADATA_BYTES = 2**18


def read(place: Place, load: Load, stack: ExitStack) -> Stored:
    """Load a data set; its file stays open as long as the stack."""
    h5py = library("h5py")
    file = stack.enter_context(h5py.File(place.path, "r"))
    names: list[str] = []
    file.visititems(lambda name, item: names.append(name) if isinstance(item, h5py.Dataset) else None)
    data = file[choose(place, names)]
    scale, translation, unit = grid_attributes(data.attrs)
    return Stored(load(data), _names(data), scale, translation, unit)


def grid_attributes(
    attributes: Mapping[str, Any],
) -> tuple[tuple[float, ...] | None, tuple[float, ...] | None, str | None]:
    """Return voxel size, offset and unit from the attributes of a data set or a Zarr array."""
    offset = numbers_of(attributes.get("offset"))
    size = positive(attributes.get("element_size_um"))
    if size is not None:
        return size, None, "micrometer"  # the HDF5 plugin of ImageJ
    size = positive(attributes.get("resolution", attributes.get("voxel_size")))
    units = attributes.get("units", attributes.get("unit"))
    if not isinstance(units, str | bytes) and units is not None:
        units = next(iter(units), None)
    text = units.decode("utf8", "replace") if isinstance(units, bytes) else units
    # CREMI and gunpowder write no unit: theirs are nanometers.
    return size, offset, (unit_name(text) if text is not None else "nanometer") if size else None


def _names(data: Any) -> tuple[str, ...] | None:
    """Return the axes that ilastik or the dimension scales of HDF5 name."""
    try:
        names = [axis["key"] for axis in json.loads(data.attrs["axistags"])["axes"]]
    except (KeyError, TypeError, ValueError):
        names = [dimension.label for dimension in data.dims]
    known = len(names) == data.ndim and all(isinstance(n, str) and n.lower() in [*"tczyx"] for n in names)
    return tuple(n.lower() for n in names) if known else None


def check_output(place: Place, force: bool) -> None:
    """Raise where a data set cannot be written."""
    h5py = library("h5py")
    if not place.inner:
        raise ValueError(f"{place.text} must name a data set after a colon, such as {place.path}:/labels")
    check_link(place.path, force=force)
    check_file(place.path, force=True)
    if not place.path.exists():
        return
    try:
        file = h5py.File(place.path, "r")
    except BlockingIOError as error:
        raise BlockingIOError(f"{place.path} is open for writing in another program: close it there") from error
    except OSError as error:
        raise OSError(f"{place.path} exists and is no HDF5 file that can be opened: {error}") from error
    with file:
        for n in range(1, len(place.parts)):
            if isinstance(file.get("/".join(place.parts[:n])), h5py.Dataset):
                raise ValueError(f"{place.text} lies within a data set")
        item = file.get(place.inner)
        if isinstance(item, h5py.Group):
            raise ValueError(f"{place.text} is a group: name a data set within it")
        if item is not None and not force:
            raise FileExistsError(f"{place.text} exists: --force replaces it")


def write(place: Place, seg: Array, grid: Grid, provenance: Mapping[str, Any], force: bool, tick: Tick) -> None:
    """Write a data set; the others of the file are kept."""
    h5py = library("h5py")
    with replacing(place.path, force=True) as temporary:
        check_output(place, force)
        # A file that is changed in place is lost when the computer stops: the change is made to a copy.
        if place.path.exists():
            shutil.copy2(place.path, temporary)
        else:
            h5py.File(temporary, "w").close()
        # HDF5 crashes the process where the disk is full. So the data set is compressed in memory first, and the room
        # that it needs is taken with zeros, which HDF5 then overwrites.
        with h5py.File("labels", "w", driver="core", backing_store=False) as memory:
            data = memory.create_dataset(
                "labels", seg.shape, seg.dtype, chunks=True, compression="gzip", compression_opts=4, shuffle=True
            )
            blocks.write(seg, data, tick)
            data.attrs[PROVENANCE] = json.dumps(provenance)
            for axis, name in enumerate("zyx"[-seg.ndim :]):
                data.dims[axis].label = name
            known = grid.in_nanometers()
            if known.scale is not None:
                data.attrs["resolution"] = known.scale
                data.attrs["offset"] = known.translation or (0.0,) * seg.ndim
                if known.unit is not None:
                    data.attrs["units"] = ["nm" if known.unit == "nanometer" else known.unit] * seg.ndim
            memory.flush()
            _take_room(temporary, memory.id.get_filesize() + _METADATA_BYTES)
            with h5py.File(temporary, "r+") as file:
                if place.inner in file:
                    del file[place.inner]
                if len(place.parts) > 1:
                    file.require_group("/".join(place.parts[:-1]))
                file.copy(data, file, name=place.inner)


def _take_room(path: Path, number: int) -> None:
    """Append zeros to a file, so that a full disk is an error here; HDF5 cuts off what it does not need."""
    zeros = bytes(2**20)
    with path.open("ab", buffering=0) as file:
        while number > 0:
            written = file.write(zeros[: min(number, len(zeros))])
            if not written:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            number -= written
        os.fsync(file.fileno())
