"""The seven tissues of the experiment, in the files that docs/experiment.md describes: NumPy archives and one folder.

    isbi2012-slices      PATH is a folder with image/NN.png and label/NN.png: sections of neurons
    vnc2-neurites        PATH is sections00-13.npz (image, neurites, mitochondria), in half of its resolution
    vnc2-mitochondria    the same, with the mitochondria as objects
    nuclei               PATH is an archive of image and label, both (n, H, W)
    cornea               PATH is an archive of image00, label00, image01, ...
    axons                PATH is a folder of archives, each of image and label (H, W), named after the animal
    fib25-sections       PATH is an archive of image and label, both (D, H, W), of which sections are taken

All are read as a list of images with labels, and the group that each image is in: images of one group must stay in one
part of a split.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from skimage.io import imread
from skimage.transform import rescale

Array = npt.NDArray[Any]
Pairs = list[tuple[Array, Array]]

# In micrometers, as the owners of the data state it for each image.
_AXON_PIXEL = {"sub-rat1": 0.18, "sub-rat2": 0.093, "sub-rat3": 0.1, "sub-rat4": 0.1}
_AXON_SCALE = 0.18  # all images are brought to the pixel size of the coarsest one


def load_tissue(name: str, path: Path, at_most: int) -> tuple[Pairs, list[int]]:
    """Return at most so many images, evenly spread, with their labels, and the group of each."""
    pairs, groups = TISSUES[name](path)
    chosen = evenly(list(range(len(pairs))), at_most)
    return [pairs[i] for i in chosen], [groups[i] for i in chosen]


def evenly(indices: list[int], at_most: int | None) -> list[int]:
    """Return at most so many of the indices, evenly spread."""
    n = len(indices)
    return indices if at_most is None or n <= at_most else [indices[i * n // at_most] for i in range(at_most)]


def read_folder(folder: Path) -> Pairs:
    """Read `folder`/image/* and the files of the same names in `folder`/label."""
    files = sorted(p for p in (folder / "image").glob("*") if p.suffix.lower() in {".png", ".tif", ".tiff", ".jpg"})
    if not files:
        raise FileNotFoundError(f"{folder} must hold images in image/ and label/, found none in {folder / 'image'}")
    pairs = []
    for file in files:
        truth = folder / "label" / file.name
        if not truth.exists():
            raise FileNotFoundError(f"there is no label {truth} for the image {file}")
        image, labels = imread(file), imread(truth)
        if image.shape[:2] != labels.shape:
            raise ValueError(f"{truth} must have the shape of {file}, {image.shape[:2]}, got {labels.shape}")
        pairs.append((image, labels))
    return pairs


def _slices(folder: Path) -> tuple[Pairs, list[int]]:
    pairs = read_folder(folder)
    return pairs, list(range(len(pairs)))


def _vnc(kind: str) -> Callable[[Path], tuple[Pairs, list[int]]]:
    def load(file: Path) -> tuple[Pairs, list[int]]:
        images, labels = _arrays(file, "image", kind)
        return [(_halved(i), _halved_labels(s)) for i, s in zip(images, labels, strict=True)], list(range(len(images)))

    return load


def _stack(file: Path) -> tuple[Pairs, list[int]]:
    images, labels = _arrays(file, "image", "label")
    return list(zip(images, labels, strict=True)), list(range(len(images)))


def _numbered(file: Path) -> tuple[Pairs, list[int]]:
    with np.load(file) as archive:
        numbers = sorted(key.removeprefix("image") for key in archive.files if key.startswith("image"))
        pairs = [(archive[f"image{n}"], archive[f"label{n}"]) for n in numbers]
    if not pairs:
        raise ValueError(f"{file} must hold image00, label00 and so on, found no image")
    return pairs, list(range(len(pairs)))


def _axons(folder: Path) -> tuple[Pairs, list[int]]:
    files = sorted(folder.glob("*.npz"))
    if not files:
        raise FileNotFoundError(f"{folder} must hold one .npz file for each image, found none")
    animals = [file.name.partition("_")[0] for file in files]
    pairs = []
    for file, animal in zip(files, animals, strict=True):
        if animal not in _AXON_PIXEL:
            raise ValueError(f"{file} must begin with one of {', '.join(_AXON_PIXEL)}: its pixel size is not known")
        image, labels = _arrays(file, "image", "label")
        factor = _AXON_PIXEL[animal] / _AXON_SCALE
        if factor != 1:
            image = rescale(image, factor, anti_aliasing=True, preserve_range=True)
            labels = rescale(labels, factor, order=0, anti_aliasing=False, preserve_range=True)
        pairs.append((image, labels.astype(np.int32)))
    names = sorted(set(animals))
    return pairs, [names.index(animal) for animal in animals]


def _arrays(file: Path, *names: str) -> list[Array]:
    with np.load(file) as archive:
        missing = [name for name in names if name not in archive.files]
        if missing:
            raise ValueError(f"{file} must hold {' and '.join(names)}, got {archive.files}")
        return [archive[name] for name in names]


def _halved(image: Array) -> Array:
    """Take means of 2 x 2 pixels."""
    height, width = (n // 2 * 2 for n in image.shape)
    return image[:height, :width].reshape(height // 2, 2, width // 2, 2).mean((1, 3))


def _halved_labels(labels: Array) -> Array:
    """Keep the label of each 2 x 2 pixels where all are of one object, so that no thin border gets lost."""
    height, width = (n // 2 * 2 for n in labels.shape)
    squares = labels[:height, :width].astype(np.int32).reshape(height // 2, 2, width // 2, 2)
    lowest, highest = squares.min((1, 3)), squares.max((1, 3))
    return np.where(lowest == highest, lowest, 0)


TISSUES: dict[str, Callable[[Path], tuple[Pairs, list[int]]]] = {
    "isbi2012-slices": _slices,
    "vnc2-neurites": _vnc("neurites"),
    "vnc2-mitochondria": _vnc("mitochondria"),
    "nuclei": _stack,
    "cornea": _numbered,
    "axons": _axons,
    "fib25-sections": _stack,
}
