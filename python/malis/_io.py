"""Reading affinities and labels, and writing labels, in the formats of the field: NumPy, HDF5, TIFF and Zarr.

A place is written as a path, with the name of the array after a colon where a file holds several: ``seg.npy``,
``seg.npz:labels``, ``volume.h5:/volumes/labels``, ``seg.tif``, ``volume.zarr/labels/seg`` (or with a colon).

What is written lies under a temporary name in the folder of the output until it is complete.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import re
import shutil
import uuid
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

_FORMATS = ".npy, .npz, .h5, .hdf5, .tif, .tiff or .zarr"
_PLACE = re.compile(
    r"(?P<path>.*?\.(?P<suffix>npy|npz|h5|hdf5|tif|tiff|zarr))(?:(?::|(?<=\.zarr)[/\\])(?P<inner>.*))?", re.I
)
_HOLDS_MANY = ("npz", "h5", "hdf5", "zarr")


class Place(NamedTuple):
    """Where an array lies."""

    text: str
    """As the user wrote it."""
    path: Path
    """The file, or the folder of a Zarr store."""
    inner: str
    """The name of the array within, without slashes at its ends; empty where none is given."""
    suffix: str
    """The format: npy, npz, h5, hdf5, tif, tiff or zarr."""


class Axes(NamedTuple):
    """Which axes of an array are not spatial; None where there is none."""

    channel: int | None
    time: int | None
    names: str


def parse(text: str) -> Place:
    """Take a place apart; raises ValueError for what is no known format."""
    found = _PLACE.fullmatch(text)
    if found is None:
        raise ValueError(
            f"{text!r} must end in {_FORMATS}, with the name of an array after a colon where it holds several"
        )
    suffix, inner = found["suffix"].lower(), (found["inner"] or "").strip("/\\")
    if inner and suffix not in _HOLDS_MANY:
        raise ValueError(f"{text!r} must name a file alone: a .{suffix} file holds one array")
    return Place(text, Path(found["path"]), inner, suffix)


# ---------------------------------------------------------------------------------------------------------------------
# Reading
# ---------------------------------------------------------------------------------------------------------------------


def read_affinities(text: str, channel_axis: int | None = None) -> Array:
    """Read affinities as (K, *shape).

    The channels are those that the metadata of the file say (OME-Zarr, TIFF), or `channel_axis` if given, or the first
    axis of a format without metadata.
    """
    array, axes = _read(parse(text))
    if channel_axis is not None:
        if not -array.ndim <= channel_axis < array.ndim:
            raise ValueError(f"{text} has {array.ndim} axes, got the channel axis {channel_axis}")
        channel, time = channel_axis % array.ndim, axes.time if axes else None
        if time == channel:
            time = None
    elif axes is None:
        channel, time = 0, None
    elif axes.channel is None:
        raise ValueError(f"{text} has the axes {axes.names} and none of channels: say which one the offsets are along")
    else:
        channel, time = axes.channel, axes.time
    array = np.moveaxis(array, channel, 0)
    if time is not None:
        array = _drop(array, time + (time < channel), f"{text} must hold one time point")
    return array


def read_labels(text: str) -> Array:
    """Read labels; axes of channels and of time, of which there must be one, are dropped."""
    array, axes = _read(parse(text))
    if axes is not None:
        extra = [(axes.time, "time point"), (axes.channel, "channel")]
        for axis, name in sorted(((a, n) for a, n in extra if a is not None), reverse=True):
            array = _drop(array, axis, f"{text} must hold one {name} of labels")
    return array


def _drop(array: Array, axis: int, message: str) -> Array:
    if array.shape[axis] != 1:
        raise ValueError(f"{message}, got {array.shape[axis]}")
    return array.squeeze(axis)


def _read(place: Place) -> tuple[Array, Axes | None]:
    if not place.path.exists():
        raise FileNotFoundError(f"{place.path} does not exist")
    readers: dict[str, Callable[[Place], tuple[Array, Axes | None]]] = {
        "npy": _read_npy,
        "npz": _read_npz,
        "h5": _read_hdf5,
        "hdf5": _read_hdf5,
        "tif": _read_tiff,
        "tiff": _read_tiff,
        "zarr": _read_zarr,
    }
    try:
        return readers[place.suffix](place)
    except (OSError, ImportError, MemoryError, _Unsuitable):
        raise
    except Exception as error:  # a damaged file makes each library raise something of its own
        raise ValueError(f"{place.text} cannot be read: {error}") from error


class _Unsuitable(ValueError):
    """The file is in order, but does not hold what was asked for."""


def _read_npy(place: Place) -> tuple[Array, None]:
    return np.load(place.path, allow_pickle=False), None


def _read_npz(place: Place) -> tuple[Array, None]:
    with np.load(place.path, allow_pickle=False) as arrays:
        return arrays[_choose(place, [name for name in arrays.files if name != _PROVENANCE])], None


def _read_hdf5(place: Place) -> tuple[Array, None]:
    h5py = _library("h5py")
    with h5py.File(place.path, "r") as file:
        names: list[str] = []
        file.visititems(lambda name, item: names.append(name) if isinstance(item, h5py.Dataset) else None)
        array: Array = file[_choose(place, names)][()]
        return array, None


def _choose(place: Place, names: list[str]) -> str:
    """Return the name of the array to read: the one given, or the only one."""
    if place.inner in names or (not place.inner and len(names) == 1):
        return place.inner or names[0]
    if not names:
        raise _Unsuitable(f"{place.path} holds no array")
    listed = ", ".join(sorted(names)[:10]) + (", ..." if len(names) > 10 else "")
    wanted = f"has no array {place.inner!r}" if place.inner else "holds several arrays: name one after a colon"
    raise _Unsuitable(f"{place.path} {wanted}; it has {listed}")


def _read_tiff(place: Place) -> tuple[Array, Axes | None]:
    with _library("tifffile").TiffFile(place.path) as file:
        if len(file.series) != 1:
            raise _Unsuitable(f"{place.path} must hold one image, got {len(file.series)}")
        letters, array = file.series[0].axes, file.series[0].asarray()
    if not set(letters) <= set("CSTZYX"):
        return array, None  # pages in some order that nobody wrote down
    return array, _axes([{"S": "C"}.get(letter, letter).lower() for letter in letters])


def _read_zarr(place: Place) -> tuple[Array, Axes | None]:
    zarr = _library("zarr")
    node = zarr.open(str(place.path), mode="r", path=place.inner or None)
    if isinstance(node, zarr.Array):
        parent, _, name = place.inner.rpartition("/")
        scales = _multiscales(zarr.open_group(str(place.path), mode="r", path=parent or None)) if place.inner else []
        names = next((names for path, names in scales if path == name), None)
        return node[...], _axes(names or getattr(node.metadata, "dimension_names", None))
    scales = _multiscales(node)
    if scales:
        path, names = scales[0]  # the first is the finest
        return node[path][...], _axes(names)
    arrays = sorted(name for name, _ in node.arrays())
    if len(arrays) == 1:
        return _read_zarr(place._replace(inner=f"{place.inner}/{arrays[0]}".strip("/")))
    listed = f"it has the arrays {', '.join(arrays[:10])}" if arrays else "it has none itself"
    raise _Unsuitable(f"{place.text} is a group: name one array; {listed}")


def _multiscales(group: Any) -> list[tuple[str, list[str]]]:
    """Return path and names of axes of every scale of an OME-Zarr image (0.4 or 0.5); nothing for other groups."""
    metadata = dict(group.attrs)
    metadata = metadata.get("ome", metadata)
    images = metadata.get("multiscales", [])
    if not images:
        return []
    axes = images[0].get("axes", [])
    if not axes or not all(isinstance(axis, Mapping) and "name" in axis for axis in axes):
        raise _Unsuitable("its OME-Zarr metadata name no axes: versions 0.4 and 0.5 are read")
    kinds = {"channel": "c", "time": "t"}
    names = [kinds.get(axis.get("type", ""), axis["name"]) for axis in axes]
    return [(scale["path"], names) for scale in images[0]["datasets"]]


def _axes(names: list[str] | tuple[str | None, ...] | None) -> Axes | None:
    """Find the axes of channels and of time among their names."""
    if names is None or not any(names):
        return None
    if len(set(names)) != len(names):
        raise _Unsuitable(f"its axes must differ, got {', '.join(map(str, names))}")
    at = {name: i for i, name in enumerate(names)}
    return Axes(at.get("c"), at.get("t"), ", ".join(map(str, names)))


# ---------------------------------------------------------------------------------------------------------------------
# Writing
# ---------------------------------------------------------------------------------------------------------------------

_PROVENANCE = "malis"
_SPATIAL = "zyx"


def check_output(text: str, *, force: bool, inputs: tuple[str, ...] = ()) -> None:
    """Raise where labels cannot be written, before any work is done for them."""
    place = parse(text)
    for other in map(parse, inputs):
        if other.path.resolve() == place.path.resolve() and (other.inner == place.inner or place.suffix == "npz"):
            raise ValueError(f"{text} is an input: choose another output")
    if place.suffix == "zarr":
        _check_folder(place.path)
        _check_zarr_output(place, force)
    elif place.suffix in ("h5", "hdf5"):
        if not place.inner:
            raise ValueError(f"{text} must name a data set after a colon, such as {place.path}:/labels")
        check_file(place.path, force=True)
        _check_hdf5_output(place, force)
    else:
        check_file(place.path, force=force)


def write_labels(text: str, seg: Array, provenance: Mapping[str, Any], *, force: bool) -> None:
    """Write labels with their provenance in the attributes: all of it or nothing; .npy has no attributes."""
    check_output(text, force=force)
    place = parse(text)
    note = json.dumps(provenance)
    if place.suffix == "zarr":
        _write_zarr(place, seg, provenance)
        return
    with replacing(place.path, force=force or place.suffix in ("h5", "hdf5")) as temporary:
        if place.suffix == "npy":
            with temporary.open("wb") as file:
                np.save(file, seg)
        elif place.suffix == "npz":
            arrays: dict[str, Any] = {place.inner or "seg": seg, _PROVENANCE: np.array(note)}
            with temporary.open("wb") as file:
                np.savez_compressed(file, **arrays)
        elif place.suffix in ("tif", "tiff"):
            metadata = {"axes": _SPATIAL[-seg.ndim :].upper(), _PROVENANCE: provenance}
            _library("tifffile").imwrite(
                temporary, seg, metadata=metadata, compression="zlib", photometric="minisblack"
            )
        else:
            # A file that is changed in place is lost when the computer stops: the change is made to a copy.
            if place.path.exists():
                shutil.copy2(place.path, temporary)
            with _library("h5py").File(temporary, "a") as file:
                if place.inner in file:
                    del file[place.inner]
                data = file.create_dataset(place.inner, data=seg, chunks=True, compression="gzip", shuffle=True)
                data.attrs[_PROVENANCE] = note


@contextlib.contextmanager
def replacing(path: Path, *, force: bool) -> Iterator[Path]:
    """Give a temporary name beside `path`, which becomes `path` at the end, or vanishes where anything goes wrong."""
    check_file(path, force=force)
    temporary = _beside(path)
    try:
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())  # the name must not reach the disk before the data
        check_file(path, force=force)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def check_file(path: Path, *, force: bool) -> None:
    """Raise where a file cannot be written."""
    _check_folder(path)
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder")
    if path.exists() and not force:
        raise FileExistsError(f"{path} exists: --force replaces it")


def _beside(path: Path) -> Path:
    return path.with_name(f".{path.stem}.{uuid.uuid4().hex[:12]}.partial{path.suffix}")


def _check_folder(path: Path) -> None:
    if not path.parent.is_dir():
        raise FileNotFoundError(f"{path.parent} is no folder: {path.name} cannot be written there")


def _check_hdf5_output(place: Place, force: bool) -> None:
    h5py = _library("h5py")
    if not place.path.exists():
        return
    with h5py.File(place.path, "r") as file:
        parts = place.inner.split("/")
        for n in range(1, len(parts)):
            if isinstance(file.get("/".join(parts[:n])), h5py.Dataset):
                raise ValueError(f"{place.text} lies within a data set")
        item = file.get(place.inner)
        if isinstance(item, h5py.Group):
            raise ValueError(f"{place.text} is a group: name a data set within it")
        if item is not None and not force:
            raise FileExistsError(f"{place.text} exists: --force replaces it")


def _check_zarr_output(place: Place, force: bool) -> None:
    zarr = _library("zarr")
    if not place.path.exists():
        return
    folders = [place.path, *(place.path.joinpath(*place.inner.split("/")[: n + 1]) for n in range(len(_parts(place))))]
    for folder in folders[:-1]:
        if folder.exists() and not isinstance(zarr.open(str(folder), mode="r"), zarr.Group):
            raise ValueError(f"{place.text} lies within an array")
    if folders[-1].exists():
        if not isinstance(zarr.open(str(folders[-1]), mode="r"), zarr.Array):
            raise ValueError(f"{place.text} is a group: name an array within it")
        if not force:
            raise FileExistsError(f"{place.text} exists: --force replaces it")


def _parts(place: Place) -> list[str]:
    return place.inner.split("/") if place.inner else []


def _write_zarr(place: Place, seg: Array, provenance: Mapping[str, Any]) -> None:
    zarr = _library("zarr")
    exists, parts = place.path.exists(), _parts(place)
    # An array is a folder. A store that is there already gets the array, else the whole store is made elsewhere.
    target = place.path.joinpath(*parts) if exists else place.path
    version = 3
    if exists and parts:
        version = zarr.open_group(str(place.path), mode="r").metadata.zarr_format
        for n in range(1, len(parts)):
            zarr.open_group(str(place.path), mode="a", path="/".join(parts[:n]), zarr_format=version)
    temporary, replaced = _beside(target), _beside(target)
    try:
        at = temporary if exists else temporary.joinpath(*parts)
        for n in range(0 if exists else len(parts)):
            zarr.open_group(str(temporary), mode="a", path="/".join(parts[:n]) or None, zarr_format=version)
        zarr.create_array(
            store=str(at),
            data=seg,
            attributes={_PROVENANCE: dict(provenance)},
            zarr_format=version,
            dimension_names=list(_SPATIAL[-seg.ndim :]) if version == 3 else None,
        )
        if target.exists():
            target.rename(replaced)
        temporary.rename(target)
    finally:
        if replaced.exists() and not target.exists():
            replaced.rename(target)
        shutil.rmtree(temporary, ignore_errors=True)
        shutil.rmtree(replaced, ignore_errors=True)
    if exists and parts and zarr.open_group(str(place.path), mode="r").metadata.consolidated_metadata is not None:
        zarr.consolidate_metadata(str(place.path))


def _library(name: str) -> Any:
    try:
        module: Any = importlib.import_module(name)
    except ImportError as error:
        raise ImportError(f"this format needs {name}: pip install 'malis-loss[cli]'") from error
    if name == "zarr" and not hasattr(module, "create_array"):
        raise ImportError(f"this format needs zarr 3 and Python 3.11, got zarr {module.__version__}")
    return module
