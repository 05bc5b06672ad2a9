"""The metadata of OME-Zarr (NGFF) images and labels, versions 0.4 and 0.5: https://ngff.openmicroscopy.org."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from malis._io.blocks import Array
from malis._io.errors import Unsuitable
from malis._io.grid import Grid, unit_name
from malis._io.volume import SPATIAL

VERSIONS = ("0.5", "0.4")
# Viewers show the coarsest scale first: it should fit a screen.
_COARSEST = 256


class Scale(NamedTuple):
    """One of the arrays of a multiscale image."""

    path: str
    names: tuple[str, ...]
    scale: tuple[float, ...] | None
    translation: tuple[float, ...] | None
    unit: str | None


def zarr_format(version: str) -> int:
    """Return the format of Zarr that a version of OME-Zarr is stored in."""
    return 2 if version == "0.4" else 3


def metadata_of(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Return the OME-Zarr metadata of a group, wherever its version keeps them."""
    found = attributes.get("ome", attributes)
    return dict(found) if isinstance(found, Mapping) else {}


def with_metadata(attributes: Mapping[str, Any], version: str, found: Mapping[str, Any]) -> dict[str, Any]:
    """Return attributes that hold metadata where the version keeps them."""
    if version == "0.4":
        return {**attributes, **found}
    return {**attributes, "ome": {**metadata_of({"ome": attributes.get("ome", {})}), "version": version, **found}}


def scales(attributes: Mapping[str, Any]) -> list[Scale]:
    """Return the scales of an OME-Zarr image, the finest first; nothing for other groups."""
    images = metadata_of(attributes).get("multiscales", [])
    if not images:
        return []
    axes = images[0].get("axes", [])
    if not axes or not all(isinstance(axis, Mapping) and "name" in axis for axis in axes):
        raise Unsuitable("its OME-Zarr metadata name no axes: versions 0.4 and 0.5 are read")
    kinds = {"channel": "c", "time": "t"}
    names = tuple(kinds.get(axis.get("type", ""), str(axis["name"]).lower()) for axis in axes)
    units = {unit_name(axis.get("unit")) for axis, name in zip(axes, names, strict=True) if name in SPATIAL}
    unit = units.pop() if len(units) == 1 else None
    outer = _transformation(images[0], len(names))
    found = []
    for dataset in images[0]["datasets"]:
        scale, translation = _transformation(dataset, len(names))
        known = "coordinateTransformations" in dataset
        total, origin = outer[0] * scale, outer[1] + outer[0] * translation
        positive = bool(known and np.isfinite(total).all() and (total > 0).all())
        found.append(
            Scale(
                str(dataset["path"]),
                names,
                tuple(total.tolist()) if positive else None,
                tuple(origin.tolist()) if positive and origin.any() else None,
                unit if positive else None,
            )
        )
    return found


def _transformation(item: Mapping[str, Any], ndim: int) -> tuple[Array, Array]:
    """Return scale and translation of an image or a data set."""
    scale, translation = np.ones(ndim), np.zeros(ndim)
    for step in item.get("coordinateTransformations", []):
        if step.get("type") == "scale" and len(step.get("scale", ())) == ndim:
            scale = np.asarray(step["scale"], float)
        elif step.get("type") == "translation" and len(step.get("translation", ())) == ndim:
            translation = np.asarray(step["translation"], float)
    return scale, translation


def is_label(attributes: Mapping[str, Any]) -> bool:
    """Whether a group is a label image."""
    return "image-label" in metadata_of(attributes)


def label_metadata(
    factors: list[tuple[int, ...]], grid: Grid, version: str, name: str, image: str | None
) -> dict[str, Any]:
    """Return the metadata of a label image whose scale ``s{i}`` is coarser than the first by ``factors[i]``."""
    ndim = len(factors[0])
    axes: list[dict[str, str]] = [{"name": letter, "type": "space"} for letter in SPATIAL[-ndim:]]
    if grid.unit is not None:
        axes = [{**axis, "unit": grid.unit} for axis in axes]
    size = grid.scale or (1.0,) * ndim
    datasets = []
    for i, factor in enumerate(factors):
        steps: list[dict[str, Any]] = [{"type": "scale", "scale": [s * f for s, f in zip(size, factor, strict=True)]}]
        if grid.translation is not None:
            # Coarser scales keep every n-th voxel, so that the first one stays where it is.
            steps.append({"type": "translation", "translation": list(grid.translation)})
        datasets.append({"path": f"s{i}", "coordinateTransformations": steps})
    image_of: dict[str, Any] = {"name": name, "axes": axes, "datasets": datasets, "type": "nearest"}
    label: dict[str, Any] = {"source": {"image": image}} if image is not None else {}
    if version == "0.4":
        image_of["version"] = label["version"] = "0.4"
    return {"multiscales": [image_of], "image-label": label}


def pyramid(shape: tuple[int, ...], grid: Grid) -> list[tuple[int, ...]]:
    """Return by how much every scale is coarser than the first, along every axis.

    Axes with large voxels wait until the others have caught up, so that voxels become cubes.
    """
    size = np.asarray(grid.scale or (1.0,) * len(shape), float)
    factors = [(1,) * len(shape)]
    while True:
        factor = np.asarray(factors[-1])
        left = -(-np.asarray(shape) // factor)
        if left.max() <= _COARSEST:
            return factors
        now = size * factor
        halved = (left > 1) & (now < 1.5 * now[left > 1].min())
        factors.append(tuple((factor * np.where(halved, 2, 1)).tolist()))
