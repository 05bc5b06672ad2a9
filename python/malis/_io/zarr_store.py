"""Zarr arrays and OME-Zarr images, and writing labels as OME-Zarr."""

from __future__ import annotations

import contextlib
import itertools
import json
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from malis._io import blocks, hdf5, ngff
from malis._io.blocks import Array, Load, Tick
from malis._io.errors import Unsuitable, library
from malis._io.grid import Grid
from malis._io.numpy_files import PROVENANCE
from malis._io.place import Place
from malis._io.replace import (
    beside,
    check_folder,
    check_link,
    followed,
    locked,
    naming_full_disks,
    put_folder,
    remove_folder,
    uninterrupted,
)
from malis._io.volume import SPATIAL, Stored

# Voxels along each axis of a chunk: about a megabyte, which viewers load at once.
CHUNK = {1: 2**20, 2: 1024, 3: 128}


# ---------------------------------------------------------------------------------------------------------------------
# Reading
# ---------------------------------------------------------------------------------------------------------------------


def read(place: Place, load: Load) -> Stored:
    """Load an array, or the finest scale of an OME-Zarr image."""
    zarr = library("zarr")
    _check_within(place)
    node = _open(place.path, place.inner)
    if node is None and _open(place.path) is None:
        raise Unsuitable(f"{place.path} is no Zarr store: it has neither zarr.json nor .zgroup nor .zarray")
    if isinstance(node, zarr.Array):
        return _read_array(place, node, load)
    if node is not None:
        scales = ngff.scales(node.attrs)
        if scales:
            return _read_array(place._replace(inner=_join(place.inner, scales[0].path)), node[scales[0].path], load)
    names = _arrays(node if node is not None else _open(place.path))
    if node is not None and len(names) == 1:
        return read(place._replace(inner=_join(place.inner, names[0])), load)
    listed = f"it has {', '.join(names[:10])}{', ...' if len(names) > 10 else ''}" if names else "it holds no array"
    if node is None:
        raise FileNotFoundError(f"{place.path} has no array {place.inner!r}; {listed}")
    raise Unsuitable(f"{place.text} is a group: name one array, such as {place.path}/NAME; {listed}")


def _read_array(place: Place, array: Any, load: Load) -> Stored:
    data = load(array)
    group, path = _image_of(place)
    for scale in ngff.scales(group.attrs) if group is not None else []:
        if scale.path == path:
            return Stored(data, scale.names, scale.scale, scale.translation, scale.unit)
    attributes = dict(array.attrs)
    names = getattr(array.metadata, "dimension_names", None) or attributes.get("_ARRAY_DIMENSIONS")
    size, offset, unit = hdf5.grid_attributes(attributes)
    known = tuple(str(name).lower() for name in names or ())
    return Stored(data, known if len(known) == data.ndim and any(names or ()) else None, size, offset, unit)


def _image_of(place: Place) -> tuple[Any, str]:
    """Return the OME-Zarr image that an array is a scale of, and the path of the array within it."""
    for n in range(len(place.parts) - 1, -1, -1):
        group = _open(place.path, "/".join(place.parts[:n]))
        path = "/".join(place.parts[n:])
        if group is not None and any(scale["path"] == path for scale in _datasets(group)):
            return group, path
    return None, ""


def _datasets(group: Any) -> list[Any]:
    images = ngff.metadata_of(group.attrs).get("multiscales", [])
    return list(images[0].get("datasets", [])) if images else []


def _arrays(group: Any, prefix: str = "") -> list[str]:
    """Return the names of all arrays of a group and of the groups within; an OME-Zarr image counts as one."""
    zarr = library("zarr")
    names = []
    for name, member in sorted(group.members()):
        if isinstance(member, zarr.Array):
            names.append(prefix + name)
        elif _datasets(member):
            names.append(prefix + name)
            if "labels" in member:
                names += _arrays(member["labels"], f"{prefix}{name}/labels/")
        else:
            names += _arrays(member, f"{prefix}{name}/")
    return names


def _open(path: Path, inner: str = "") -> Any:
    """Open a node for reading; None where there is none."""
    zarr = library("zarr")
    folder = path.joinpath(*inner.split("/")) if inner else path
    if not any((folder / name).is_file() for name in ("zarr.json", ".zgroup", ".zarray")):
        return None
    with uninterrupted():
        return zarr.open(str(folder), mode="r")


def _join(group: str, name: str) -> str:
    return f"{group}/{name}".strip("/")


def _check_within(place: Place) -> None:
    """Raise where a symbolic link within a store leads out of it."""
    store = place.path.resolve()
    if not place.path.joinpath(*place.parts).resolve().is_relative_to(store):
        raise ValueError(f"{place.text} leads out of {place.path}, through a symbolic link")


# ---------------------------------------------------------------------------------------------------------------------
# Writing
# ---------------------------------------------------------------------------------------------------------------------


def check_output(place: Place, force: bool, version: str | None) -> None:
    """Raise where labels cannot be written."""
    zarr = library("zarr")
    check_link(place.path, force=force)
    check_folder(place.path)
    if not place.path.exists():
        return
    if not place.path.is_dir():
        raise FileExistsError(f"{place.path} exists and is no folder: a Zarr store is one")
    _check_within(place)
    root = _open(place.path)
    if root is None:
        raise FileExistsError(f"{place.path} exists and is no Zarr store: choose another name")
    stored = root.metadata.zarr_format
    if place.inner and version is not None and ngff.zarr_format(version) != stored:
        raise ValueError(
            f"{place.path} is a store of Zarr {stored}, which OME-Zarr {version} is not written into: leave --ngff out"
        )
    for n in range(len(place.parts)):
        node = _open(place.path, "/".join(place.parts[:n]))
        if isinstance(node, zarr.Array):
            raise ValueError(f"{place.text} lies within an array")
        if node is not None and n < len(place.parts):
            path = "/".join(place.parts[n:])
            if ngff.is_label(node.attrs) or any(scale["path"] == path for scale in _datasets(node)):
                raise ValueError(f"{place.text} lies within an image: labels go to IMAGE/labels/NAME")
    target = place.path.joinpath(*place.parts)
    if target.exists():
        node = _open(place.path, place.inner)
        if not isinstance(node, zarr.Array) and not (node is not None and ngff.is_label(node.attrs)):
            kind = "an image" if node is not None and _datasets(node) else "a group"
            within = "NAME" if place.parts[-1:] == ["labels"] else "labels/NAME"
            raise ValueError(f"{place.text} is {kind}: name labels within it, such as {place.text}/{within}")
        if not force:
            raise FileExistsError(f"{place.text} exists: --force replaces it")


def write(
    place: Place,
    seg: Array,
    grid: Grid,
    provenance: Mapping[str, Any],
    force: bool,
    version: str | None,
    tick: Tick,
) -> None:
    """Write a label image; the rest of the store is kept."""
    store = followed(place.path)
    place = place._replace(path=store)
    with _new_folder(place) as (temporary, missing):
        check_output(place, force, version)
        version = version_for(place, version)
        _fill(temporary, place.parts[missing:], place, seg, grid, provenance, version, tick)
        put_folder(temporary, store.joinpath(*place.parts[:missing]))
        list_labels(place, version)


def version_for(place: Place, version: str | None) -> str:
    """Return the version of OME-Zarr to write: that of the store that labels are put into."""
    root = _open(place.path)
    if root is not None and place.inner:
        return "0.4" if root.metadata.zarr_format == 2 else "0.5"
    return version or ngff.VERSIONS[0]


@contextlib.contextmanager
def _new_folder(place: Place) -> Iterator[tuple[Path, int]]:
    """Give a temporary name for the outermost folder that is to be made, and how many parts of the name lead to it."""
    parts, store = place.parts, place.path
    missing = 0
    while missing < len(parts) and store.joinpath(*parts[:missing]).exists():
        missing += 1
    with locked(store, store.joinpath(*parts[:missing])), naming_full_disks(store):
        # Another run may have made some of the folders since.
        while missing < len(parts) and store.joinpath(*parts[:missing]).exists():
            missing += 1
        temporary = beside(store)
        try:
            yield temporary, missing
        finally:
            remove_folder(temporary)


def _fill(
    temporary: Path,
    below: list[str],
    place: Place,
    seg: Array,
    grid: Grid,
    provenance: Mapping[str, Any],
    version: str,
    tick: Tick,
) -> None:
    """Write the groups down to the label image, and the image."""
    make_groups(temporary, below, version)
    image = temporary.joinpath(*below)
    for i, (array, factor) in enumerate(create(image, place, seg.shape, seg.dtype, grid, provenance, version)):
        scaled = seg[tuple(slice(None, None, f) for f in factor)]
        _write_chunks(scaled, array, tick if i == 0 else blocks.no_tick)


def make_groups(folder: Path, below: list[str], version: str) -> None:
    """Make the groups down to a label image."""
    zarr = library("zarr")
    for n in range(len(below)):
        with uninterrupted():
            zarr.open_group(str(folder.joinpath(*below[:n])), mode="a", zarr_format=ngff.zarr_format(version))


def create(
    image: Path,
    place: Place,
    shape: tuple[int, ...],
    dtype: Any,
    grid: Grid,
    provenance: Mapping[str, Any],
    version: str,
) -> Iterator[tuple[Any, tuple[int, ...]]]:
    """Make a label image without labels; gives the array of every scale and by how much it is coarser, one by one."""
    zarr = library("zarr")
    zarr_format = ngff.zarr_format(version)
    factors = ngff.pyramid(shape, grid)
    metadata = ngff.label_metadata(factors, grid, version, place.parts[-1] if place.inner else "labels", _source(place))
    attributes = ngff.with_metadata({PROVENANCE: json.loads(json.dumps(provenance))}, version, metadata)
    with uninterrupted():
        zarr.create_group(str(image), zarr_format=zarr_format, attributes=attributes)
    names = list(SPATIAL[-len(shape) :])
    for i, factor in enumerate(factors):
        scaled = tuple(-(-n // f) for n, f in zip(shape, factor, strict=True))
        with uninterrupted():
            array = zarr.create_array(
                store=str(image),
                name=f"s{i}",
                shape=scaled,
                dtype=dtype,
                chunks=tuple(min(CHUNK[len(shape)], max(1, n)) for n in scaled),
                zarr_format=zarr_format,
                dimension_names=names if zarr_format == 3 else None,
                chunk_key_encoding={"name": "v2" if zarr_format == 2 else "default", "separator": "/"},
            )
        yield array, factor


def _write_chunks(data: Array, array: Any, tick: Tick) -> None:
    """Write one chunk after the other.

    Where one of several that are written together fails, the others would still be written while their folder is
    removed.
    """
    starts = list(itertools.product(*(range(0, n, c) for n, c in zip(array.shape, array.chunks, strict=True))))
    for i, start in enumerate(starts):
        chunk = tuple(slice(s, s + c) for s, c in zip(start, array.chunks, strict=True))
        with uninterrupted():
            array[chunk] = data[chunk]
        tick((i + 1) / len(starts))


def _labels_group(place: Place) -> int | None:
    """Return how many parts of the name lead to the group `labels` that lists the image."""
    found = [n for n, part in enumerate(place.parts[:-1], start=1) if part == "labels"]
    return found[-1] if found else None


def _source(place: Place) -> str | None:
    """Return the way from labels to the image that they are beside, or None."""
    at = _labels_group(place)
    image = None if at is None else _open(place.path, "/".join(place.parts[: at - 1]))
    return "../" * (len(place.parts) - at + 1) if at is not None and image is not None and _datasets(image) else None


def list_labels(place: Place, version: str) -> None:
    """Name the labels in the group `labels` that they are in, and in consolidated metadata."""
    zarr = library("zarr")
    with uninterrupted():
        at = _labels_group(place)
        if at is not None:
            group = zarr.open_group(str(place.path.joinpath(*place.parts[:at])), mode="r+", use_consolidated=False)
            name = "/".join(place.parts[at:])
            listed = ngff.metadata_of(group.attrs).get("labels", [])
            if name not in listed:
                group.attrs.update(ngff.with_metadata(dict(group.attrs), version, {"labels": [*listed, name]}))
        root = _open(place.path)
        if place.inner and root.metadata.consolidated_metadata is not None:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # that the file, which is so already, is beyond the specification
                zarr.consolidate_metadata(str(place.path))
