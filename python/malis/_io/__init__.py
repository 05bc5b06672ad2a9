"""Reading affinities and labels, and writing labels, in the formats of the field: NumPy, HDF5, TIFF and Zarr.

A place is written as a path, with the name of the array after a colon where a file holds several: ``seg.npy``,
``seg.npz:labels``, ``volume.h5:/volumes/labels``, ``seg.tif``, ``volume.zarr/labels/seg`` (or with a colon).
A folder of TIFF files is a volume of sections.

One module for each format, and for what they share:

    place      taking places apart                      numpy_files   .npy, .npz
    grid       voxel sizes, units                       hdf5          data sets
    volume     names and order of axes                  tiff          ImageJ, OME, folders of sections
    blocks     block by block, with progress            zarr_store    arrays, groups, label images
    replace    complete or not there; one writer        ngff          metadata of OME-Zarr
    unread     arrays too large to be read at once      unfinished    label images that are written in several runs
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

import numpy as np

from malis._io import blocks, hdf5, numpy_files, tiff, volume, zarr_store
from malis._io.blocks import Array, Tick, no_tick
from malis._io.errors import Unsuitable
from malis._io.grid import Grid
from malis._io.ngff import VERSIONS
from malis._io.place import Place, parse
from malis._io.replace import check_file, check_link, replacing
from malis._io.unread import Unread
from malis._io.volume import Stored, Volume

__all__ = [
    "IN_PARTS",
    "VERSIONS",
    "Grid",
    "Place",
    "Tick",
    "Unread",
    "Volume",
    "check_file",
    "check_link",
    "check_output",
    "no_tick",
    "open_affinities",
    "open_labels",
    "parse",
    "read_affinities",
    "read_image",
    "read_labels",
    "replacing",
    "write_labels",
]

IN_PARTS = ("zarr", "h5", "hdf5")
"""The formats that can be read in parts."""

_KINDS = {
    "npy": "NumPy file",
    "npz": "NumPy file",
    "h5": "HDF5 file",
    "hdf5": "HDF5 file",
    "tif": "TIFF file",
    "tiff": "TIFF file",
    "zarr": "Zarr store",
    "sections": "folder of TIFF sections",
}


def read_affinities(
    text: str, channel_axis: int | None = None, axes: str | None = None, tick: Tick = no_tick
) -> Volume:
    """Read affinities as (K, *shape).

    The channels are those that `channel_axis` or `axes` say (a letter for each axis of the file), else the metadata of
    the file (OME-Zarr, TIFF, ilastik's HDF5), else the first axis.
    """
    return volume.affinities(_read(parse(text), tick), text, channel_axis, axes)


@contextlib.contextmanager
def open_affinities(text: str, channel_axis: int | None = None, axes: str | None = None) -> Iterator[Volume]:
    """Open affinities of a Zarr store or an HDF5 file without reading them; the array is `Unread`."""
    with contextlib.ExitStack() as stack:
        yield volume.affinities(_open(text, stack), text, channel_axis, axes)


@contextlib.contextmanager
def open_labels(text: str) -> Iterator[Volume]:
    """Open labels of a Zarr store or an HDF5 file without reading them; the array is `Unread`."""
    with contextlib.ExitStack() as stack:
        yield volume.labels(_open(text, stack), text, None)


def read_labels(text: str, axes: str | None = None, tick: Tick = no_tick) -> Volume:
    """Read labels; axes of channels and of time, of which there must be one, are dropped."""
    return volume.labels(_read(parse(text), tick), text, axes)


def read_image(text: str, axes: str | None = None, tick: Tick = no_tick) -> Volume:
    """Read an image of one channel."""
    return volume.labels(_read(parse(text), tick), text, axes, "an image")


def _open(text: str, stack: contextlib.ExitStack) -> Stored:
    """Open a file without reading it."""
    place = parse(text)
    if place.suffix not in IN_PARTS:
        raise Unsuitable(f"{text} is read as a whole: Zarr stores and HDF5 files can be read in parts")
    return _load(place, Unread, stack)


def _read(place: Place, tick: Tick) -> Stored:
    with contextlib.ExitStack() as stack:
        return _load(place, partial(blocks.read, tick=tick), stack, tick)


def _load(place: Place, load: blocks.Load, stack: contextlib.ExitStack, tick: Tick = no_tick) -> Stored:
    """Load an array; files stay open as long as the stack."""
    if not place.path.exists():
        raise FileNotFoundError(f"{place.path} does not exist")
    try:
        if place.suffix == "npy":
            return numpy_files.read_npy(place)
        if place.suffix == "npz":
            return numpy_files.read_npz(place)
        if place.suffix in ("h5", "hdf5"):
            return hdf5.read(place, load, stack)
        if place.suffix in ("tif", "tiff"):
            return tiff.read(place, tick)
        if place.suffix == "sections":
            return tiff.read_sections(place, tick)
        return zarr_store.read(place, load)
    except Unsuitable as error:
        # What is wrong may have been found by a part that does not know the file.
        named = str(place.path) in str(error)
        raise Unsuitable(str(error) if named else f"{place.text}: {error}") from error
    except (FileNotFoundError, PermissionError, ImportError):
        raise
    except MemoryError as error:  # whose message may be empty
        raise MemoryError(f"{place.text} does not fit into memory: {error}".removesuffix(": ")) from error
    except OSError as error:
        raise OSError(f"{place.text} cannot be read as a {_KINDS[place.suffix]}: {error}") from error
    except Exception as error:  # a damaged file makes each library raise something of its own
        raise ValueError(
            f"{place.text} cannot be read as a {_KINDS[place.suffix]}: {error or type(error).__name__}"
        ) from error


def check_output(text: str, *, force: bool, inputs: tuple[str, ...] = (), ngff: str | None = None) -> None:
    """Raise where labels cannot be written, before any work is done for them."""
    place = parse(text)
    if place.suffix == "sections":
        raise IsADirectoryError(f"{text} is a folder: name a file or a Zarr store for the labels")
    for other in map(parse, inputs):
        if other.path.resolve() == place.path.resolve() and (other.inner == place.inner or place.suffix == "npz"):
            raise ValueError(f"{text} is an input: choose another output")
    if ngff is not None and place.suffix != "zarr":
        raise ValueError(f"--ngff is the version of OME-Zarr, got the output {text}")
    if place.suffix == "zarr":
        zarr_store.check_output(place, force, ngff)
    elif place.suffix in ("h5", "hdf5"):
        hdf5.check_output(place, force)
    else:
        check_link(place.path, force=force)
        check_file(place.path, force=force)


def write_labels(
    text: str,
    seg: Array,
    provenance: Mapping[str, Any],
    *,
    force: bool,
    grid: Grid | None = None,
    ngff: str | None = None,
    tick: Tick = no_tick,
) -> None:
    """Write labels, unsigned, with their voxel size and where they come from: all of it or nothing.

    An .npy file holds the labels alone.
    """
    check_output(text, force=force, ngff=ngff)
    place = parse(text)
    # Viewers take signed integers for an image.
    labels = seg.view(np.dtype(f"u{seg.dtype.itemsize}")) if seg.dtype.kind == "i" else seg
    where = grid or Grid()
    if place.suffix == "zarr":
        zarr_store.write(place, labels, where, provenance, force, ngff, tick)
    elif place.suffix in ("h5", "hdf5"):
        hdf5.write(place, labels, where, provenance, force, tick)
    else:
        with replacing(place.path, force=force) as temporary:
            if place.suffix == "npy":
                numpy_files.write_npy(temporary, labels)
            elif place.suffix == "npz":
                numpy_files.write_npz(temporary, place.inner, labels, provenance)
            else:
                tiff.write(temporary, place.path.name, labels, where, provenance)
