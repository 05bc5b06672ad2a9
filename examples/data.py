"""The data of the examples: images with labels, from files, public sets or generated, and random crops of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from skimage.io import imread
from skimage.measure import label

from malis.synthetic import synthetic_image
from public_data import IMAGES, VOLUMES, named

Image = npt.NDArray[np.float32]  # (channels, H, W), about zero mean and unit variance
Labels = npt.NDArray[np.int32]  # (H, W), 0 is background


@dataclass
class Split:
    """Images with their labels."""

    images: list[Image]
    labels: list[Labels]

    def __len__(self) -> int:
        return len(self.images)


@dataclass
class Data:
    """A data set in three parts; the last images are for tests, the ones before for validation."""

    name: str
    train: Split
    validation: Split
    test: Split


def normalized(image: npt.ArrayLike) -> Image:
    """Return an image (H, W) or (H, W, C) as (C, H, W) float32 with zero mean and unit variance per channel."""
    array = np.asarray(image, dtype=np.float32)
    array = array[np.newaxis] if array.ndim == 2 else np.moveaxis(array, -1, 0)
    mean, std = array.mean((1, 2), keepdims=True), array.std((1, 2), keepdims=True)
    return np.ascontiguousarray((array - mean) / np.maximum(std, 1e-6))


def connected(labels: npt.ArrayLike) -> Labels:
    """Give every connected part of every label a label of its own: pairs of voxels that no path joins teach nothing."""
    array = np.asarray(labels)
    if array.ndim != 2:
        raise ValueError(f"labels must have shape (H, W), got {array.shape}")
    return label(array, background=0, connectivity=1).astype(np.int32)


def load_folder(folder: Path) -> Split:
    """Load `folder`/image/* and the files of the same names in `folder`/label; label 0 is background."""
    files = sorted(p for p in (folder / "image").glob("*") if p.suffix.lower() in {".png", ".tif", ".tiff", ".jpg"})
    if not files:
        raise FileNotFoundError(f"{folder} must hold images in image/ and label/, found none in {folder / 'image'}")
    split = Split([], [])
    for file in files:
        truth = folder / "label" / file.name
        if not truth.exists():
            raise FileNotFoundError(f"there is no label {truth} for the image {file}")
        image, labels = normalized(imread(file)), connected(imread(truth))
        if image.shape[1:] != labels.shape:
            raise ValueError(f"{truth} must have the shape of {file}, {image.shape[1:]}, got {labels.shape}")
        split.images.append(image)
        split.labels.append(labels)
    return split


def load_hdf5(file: Path) -> Split:
    """Load the data sets `train` (n, H, W, C) and `groundtruth` (n, H, W) of an HDF5 file."""
    import h5py

    with h5py.File(file) as f:
        if "train" not in f or "groundtruth" not in f:
            raise ValueError(f"{file} must hold the data sets 'train' and 'groundtruth', got {sorted(f)}")
        images, labels = f["train"][:], f["groundtruth"][:]
    labels = labels[..., 0] if labels.ndim == 4 and labels.shape[-1] == 1 else labels
    if images.ndim != 4 or labels.shape != images.shape[:3]:
        raise ValueError(
            f"{file} must hold train (n, H, W, C) and groundtruth (n, H, W), got {images.shape} and {labels.shape}"
        )
    return Split([normalized(i) for i in images], [connected(i) for i in labels])


def load(source: str, validation: int | None = None, test: int | None = None, images: int = 24) -> Data:
    """Load "synthetic" images, a folder, an HDF5 file or public set; by default an eighth each to validate and test."""
    name, path = named(source)
    if source == "synthetic":
        drawn = [synthetic_image(seed) for seed in range(images)]
        split = Split([i for i, _ in drawn], [s for _, s in drawn])
    elif name in VOLUMES:
        raise ValueError(f"{name} is a set of volumes, which volume_example.py takes, got {source!r}")
    elif name:
        loaded = IMAGES[name](path)
        split = Split([normalized(i) for i, _ in loaded], [connected(s) for _, s in loaded])
    elif path.is_dir():
        split = load_folder(path)
    elif path.is_file():
        split = load_hdf5(path)
    else:
        raise FileNotFoundError(
            f"data must be 'synthetic', a folder, an HDF5 file or one of {', '.join(IMAGES)} with a path after a "
            f"colon, got {source!r}"
        )
    eighth = max(1, round(len(split) / 8))
    n_validation = eighth if validation is None else validation
    n_test = eighth if test is None else test
    n_train = len(split) - n_validation - n_test
    if min(n_train, n_validation, n_test) < 1:
        raise ValueError(
            f"{source} must hold images for training, validation and tests: got {len(split)} images, of which "
            f"{n_validation} for validation and {n_test} for tests"
        )
    parts = [slice(0, n_train), slice(n_train, n_train + n_validation), slice(n_train + n_validation, None)]
    return Data(name or path.name, *(Split(split.images[p], split.labels[p]) for p in parts))


class Batches:
    """Random crops without an end, mirrored and transposed: images (B, C, crop, crop), labels (B, crop, crop)."""

    def __init__(self, data: Split, batch: int, crop: int, seed: int) -> None:
        smallest = min(min(i.shape[1:]) for i in data.images)
        if crop < 32:
            raise ValueError(f"crop must be at least 32, got {crop}: the U-Net halves it four times")
        if crop > smallest:
            raise ValueError(f"crop must be at most the size of the images, {smallest}, got {crop}")
        self.data, self.batch, self.crop = data, batch, crop
        self.rng = np.random.default_rng(seed)

    def take(self, steps: int) -> Iterator[tuple[npt.NDArray[np.float32], npt.NDArray[np.int32]]]:
        """Yield the next batches."""
        for _ in range(steps):
            samples = [self._sample() for _ in range(self.batch)]
            yield np.stack([i for i, _ in samples]), np.stack([s for _, s in samples])

    def _sample(self) -> tuple[Image, Labels]:
        at = int(self.rng.integers(len(self.data)))
        image, labels = self.data.images[at], self.data.labels[at]
        y, x = (int(self.rng.integers(n - self.crop + 1)) for n in labels.shape)
        image = image[:, y : y + self.crop, x : x + self.crop]
        labels = labels[y : y + self.crop, x : x + self.crop]
        if self.rng.random() < 0.5:
            image, labels = image[:, ::-1], labels[::-1]
        if self.rng.random() < 0.5:
            image, labels = image[:, :, ::-1], labels[:, ::-1]
        if self.rng.random() < 0.5:
            image, labels = image.transpose(0, 2, 1), labels.T
        gain, offset = self.rng.uniform(0.8, 1.25), self.rng.uniform(-0.2, 0.2)
        return np.ascontiguousarray(image * gain + offset, dtype=np.float32), connected(labels)
