"""Public data sets in the layouts in which their owners publish them: users download, this reads.

Volumes, which `volume_example.py` takes as ``--data NAME:PATH``:

    cremi     PATH is a sample of cremi.org, such as sample_A_20160501.hdf, padded or not
    snemi3d   PATH is a folder with train-input.tif and train-labels.tif, or with these in image/ and seg/
    fib25     PATH is training_sample2 or validation_sample of janelia-flyem/neuroproof_examples, unpacked
              (grayscale_maps/*.png, groundtruth.h5), or a volume such as trvol-250-1-h5 (img_normalized.h5,
              groundtruth_seg.h5)

Images, which the other examples take as ``--data NAME:PATH``:

    isbi2012           PATH is a folder with train-volume.tif and train-labels.tif
    dsb2018            PATH is stage1_train: a folder for each image, with images/*.png and masks/*.png
    vnc-neurites       PATH is stack1 of unidesigner/groundtruth-drosophila-vnc: raw/*.tif, labels/*.png
    vnc-mitochondria   the same, with the mitochondria as objects

All say how they want to be cited, and some forbid commercial use.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from skimage.io import imread

from tissue_data import TISSUES

Array = npt.NDArray[Any]


@dataclass
class Volume:
    """An image with its labels."""

    image: Array  # (D, H, W), grey values
    labels: Array  # (D, H, W), 0 is background
    voxel_size: tuple[float, ...] | None = None  # along each axis, in nanometers

    def __post_init__(self) -> None:
        if self.image.ndim != 3 or self.image.shape != self.labels.shape:
            raise ValueError(
                f"image and labels must have one shape (D, H, W), got {self.image.shape} and {self.labels.shape}"
            )


# ---------------------------------------------------------------------------------------------------------------------
# Volumes
# ---------------------------------------------------------------------------------------------------------------------


# CREMI marks what no one has annotated with the largest number that there is.
_CREMI_UNKNOWN = np.uint64(2**64 - 1)


def load_cremi(path: Path) -> Volume:
    """Read the neurons of a sample; of a padded one the part that is labelled."""
    import h5py

    with h5py.File(_existing(path)) as file:
        for name in ("volumes/raw", "volumes/labels/neuron_ids"):
            if name not in file:
                raise ValueError(f"{path} must hold {name}, as the files of cremi.org do, got {sorted(file)}")
        raw, ids = file["volumes/raw"], file["volumes/labels/neuron_ids"]
        size = np.asarray(raw.attrs.get("resolution", (40.0, 4.0, 4.0)), float)
        start = np.asarray(ids.attrs.get("offset", (0.0, 0.0, 0.0)), float)
        first = np.rint((start - np.asarray(raw.attrs.get("offset", (0.0, 0.0, 0.0)), float)) / size).astype(int)
        where = tuple(slice(begin, begin + n) for begin, n in zip(first.tolist(), ids.shape, strict=True))
        image, labels = raw[where], ids[:]
    labels = np.where(labels == _CREMI_UNKNOWN, 0, labels)
    return Volume(image, labels, tuple(size.tolist()))


def load_snemi3d(folder: Path) -> Volume:
    """Read the training volume of the challenge, mouse cortex in 100 sections."""
    import tifffile

    found = [
        tifffile.imread(_existing(*(folder / part / name for part in parts)))
        for name, parts in (("train-input.tif", ("", "image")), ("train-labels.tif", ("", "seg")))
    ]
    return Volume(found[0], found[1], (30.0, 6.0, 6.0))


def load_fib25(folder: Path) -> Volume:
    """Read a volume of the seven columns of the Drosophila medulla (FIB-SEM)."""
    import h5py

    size = (10.0, 10.0, 10.0)
    if (folder / "img_normalized.h5").exists():
        with (
            h5py.File(folder / "img_normalized.h5") as image,
            h5py.File(_existing(folder / "groundtruth_seg.h5")) as labels,
        ):
            return Volume(image["main"][:], labels["main"][:], size)
    with h5py.File(_existing(folder / "groundtruth.h5")) as file:
        labels = file["stack"][:]
        if "transforms" in file:  # the stack holds supervoxels, the table which body each of them belongs to
            table = file["transforms"][:].astype(np.int64)
            body_of = np.arange(max(int(labels.max()), int(table[:, 0].max())) + 1)
            body_of[table[:, 0]] = table[:, 1]
            labels = body_of[labels]
    return Volume(np.stack([imread(file) for file in _files(folder / "grayscale_maps", ".png")]), labels, size)


# ---------------------------------------------------------------------------------------------------------------------
# Images
# ---------------------------------------------------------------------------------------------------------------------


def load_isbi2012(folder: Path) -> list[tuple[Array, Array]]:
    """Read the sections of the challenge with the mask of the insides of the cells."""
    import tifffile

    images, labels = (tifffile.imread(_existing(folder / name)) for name in ("train-volume.tif", "train-labels.tif"))
    if images.shape != labels.shape:
        raise ValueError(f"{folder} must hold two stacks of one shape, got {images.shape} and {labels.shape}")
    return [(image, mask > 0) for image, mask in zip(images, labels, strict=True)]


def load_dsb2018(folder: Path) -> list[tuple[Array, Array]]:
    """Read the nuclei of the Data Science Bowl, as grey images: a file for each image and one for each nucleus."""
    loaded = []
    for sample in sorted(path for path in _existing(folder).iterdir() if (path / "images").is_dir()):
        image = _grey(imread(_files(sample / "images", ".png")[0]))
        labels = np.zeros(image.shape, np.int32)
        for number, file in enumerate(_files(sample / "masks", ".png"), start=1):
            mask = _grey(imread(file)) > 0
            if mask.shape != image.shape:
                raise ValueError(f"{file} must have the shape of its image, {image.shape}, got {mask.shape}")
            labels[mask] = number
        loaded.append((image, labels))
    if not loaded:
        raise FileNotFoundError(f"{folder} must hold a folder with images/ and masks/ for each image, found none")
    return loaded


# What the README of the set says of the values of its labels: all others are kinds of membrane, or a synapse on one.
_VNC_GLIA, _VNC_MITOCHONDRIA, _VNC_INSIDE = 159, 191, 255


def load_vnc_neurites(folder: Path) -> list[tuple[Array, Array]]:
    """Read the sections with the mask of all that is neither membrane nor synapse."""
    return [
        (image, np.isin(labels, (_VNC_GLIA, _VNC_MITOCHONDRIA, _VNC_INSIDE))) for image, labels in _vnc_sections(folder)
    ]


def load_vnc_mitochondria(folder: Path) -> list[tuple[Array, Array]]:
    """Read the sections with the mask of the mitochondria."""
    return [(image, labels == _VNC_MITOCHONDRIA) for image, labels in _vnc_sections(folder)]


def _vnc_sections(folder: Path) -> list[tuple[Array, Array]]:
    raw, labels = _files(folder / "raw", ".tif"), _files(folder / "labels", ".png")
    if len(raw) != len(labels):
        raise ValueError(f"{folder} must hold as many images as labels, got {len(raw)} and {len(labels)}")
    return [(_grey(imread(image)), _grey(imread(label))) for image, label in zip(raw, labels, strict=True)]


VOLUMES: dict[str, Callable[[Path], Volume]] = {"cremi": load_cremi, "snemi3d": load_snemi3d, "fib25": load_fib25}
IMAGES: dict[str, Callable[[Path], list[tuple[Array, Array]]]] = {
    "isbi2012": load_isbi2012,
    "dsb2018": load_dsb2018,
    "vnc-neurites": load_vnc_neurites,
    "vnc-mitochondria": load_vnc_mitochondria,
}


def named(source: str) -> tuple[str, Path]:
    """Take ``NAME:PATH`` apart; the name is empty for what is no set of this module or of tissue_data.py."""
    name, colon, path = source.partition(":")
    return (name, Path(path)) if colon and name in {*VOLUMES, *IMAGES, *TISSUES} else ("", Path(source))


def _existing(*places: Path) -> Path:
    """Return the first place that is there."""
    for place in places:
        if place.exists():
            return place
    raise FileNotFoundError(f"there is no {' and no '.join(map(str, places))}")


def _files(folder: Path, suffix: str) -> list[Path]:
    found = sorted(path for path in folder.glob("*") if path.suffix.lower() == suffix)
    if not found:
        raise FileNotFoundError(f"{folder} must hold files *{suffix}, found none")
    return found


def _grey(image: Array) -> Array:
    """Return (H, W) of an image that may have channels, of which a fourth one is opacity."""
    return image if image.ndim == 2 else image[..., :3].mean(-1).astype(image.dtype)
