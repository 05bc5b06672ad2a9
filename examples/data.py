"""The data of the examples: images with labels, from files, public sets or generated, and random crops of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy.ndimage import gaussian_filter, generate_binary_structure, map_coordinates, maximum_filter, minimum_filter
from skimage.measure import label

from malis.synthetic import synthetic_image
from public_data import IMAGES, VOLUMES, named
from tissue_data import TISSUES, evenly, load_tissue, read_folder

Image = npt.NDArray[np.float32]  # (channels, H, W), about zero mean and unit variance
Labels = npt.NDArray[np.int32]  # (H, W), 0 is background

DRIFT = 8.0  # pixels over which a hand that draws a border is off to the same side


@dataclass
class Split:
    """Images with their labels."""

    images: list[Image]
    labels: list[Labels]
    groups: list[int] = field(default_factory=list)  # images of one group are alike; empty: every image is its own

    def __len__(self) -> int:
        return len(self.images)

    def chosen(self, indices: Sequence[int]) -> Split:
        """Return some of the images."""
        groups = [self.groups[i] for i in indices] if self.groups else []
        return Split([self.images[i] for i in indices], [self.labels[i] for i in indices], groups)


@dataclass
class Data:
    """A data set in three parts."""

    name: str
    train: Split
    validation: Split
    test: Split
    tested: list[int] = field(default_factory=list)  # which images of the whole set those for the test are


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


def prepared(pairs: Iterable[tuple[npt.ArrayLike, npt.ArrayLike]], groups: Sequence[int] = ()) -> Split:
    """Return images and labels as networks take them."""
    images, labels = zip(*pairs, strict=True)
    return Split([normalized(image) for image in images], [connected(seg) for seg in labels], list(groups))


def load_folder(folder: Path) -> Split:
    """Load `folder`/image/* and the files of the same names in `folder`/label; label 0 is background."""
    return prepared(read_folder(folder))


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


def load_all(source: str, images: int = 24) -> tuple[str, Split]:
    """Load all of "synthetic" images, a folder, an HDF5 file, a public set or a tissue, and its name.

    Of what is in files, at most `images` are taken, evenly spread, if it is one of the tissues.
    """
    name, path = named(source)
    if source == "synthetic":
        drawn = [synthetic_image(seed) for seed in range(images)]
        split = Split([i for i, _ in drawn], [s for _, s in drawn])
    elif name in VOLUMES:
        raise ValueError(f"{name} is a set of volumes, which volume_example.py takes, got {source!r}")
    elif name in TISSUES:
        loaded, groups = load_tissue(name, path, images)
        split = prepared(loaded, groups)
    elif name:
        split = prepared(IMAGES[name](path))
    elif path.is_dir():
        split = load_folder(path)
    elif path.is_file():
        split = load_hdf5(path)
    else:
        raise FileNotFoundError(
            f"data must be 'synthetic', a folder, an HDF5 file or one of {', '.join((*IMAGES, *TISSUES))} with a path "
            f"after a colon, got {source!r}"
        )
    return name or path.name, split


def load(source: str, validation: int | None = None, test: int | None = None, images: int = 24) -> Data:
    """Load images as `load_all`; the last ones are for tests, those before for validation, an eighth each."""
    name, split = load_all(source, images)
    eighth = max(1, round(len(split) / 8))
    n_validation = eighth if validation is None else validation
    n_test = eighth if test is None else test
    n_train = len(split) - n_validation - n_test
    if min(n_train, n_validation, n_test) < 1:
        raise ValueError(
            f"{source} must hold images for training, validation and tests: got {len(split)} images, of which "
            f"{n_validation} for validation and {n_test} for tests"
        )
    parts = np.split(np.arange(len(split)), [n_train, n_train + n_validation])
    return Data(name, *(split.chosen(part.tolist()) for part in parts), parts[-1].tolist())


def fold_of(
    name: str, split: Split, folds: int, fold: int, validation: int | None = None, test: int | None = None
) -> Data:
    """Return a fold of a cross-validation: block `fold` for tests, the next one for validation, the rest to train on.

    The blocks follow the order of the images, so that neighbours stay together, and no group is divided. Of the blocks
    for validation and tests at most as many images are taken as is said, evenly spread.
    """
    groups = split.groups or list(range(len(split)))
    names = sorted(set(groups))
    if folds < 3 or len(names) < folds:
        raise ValueError(f"folds must be at least 3 and at most the {len(names)} groups of {name}, got {folds}")
    blocks = [
        [i for i, group in enumerate(groups) if group in set(part)]
        for part in (block.tolist() for block in np.array_split(np.array(names), folds))
    ]
    tested, validated = fold % folds, (fold + 1) % folds
    train = [i for number, block in enumerate(blocks) if number not in (tested, validated) for i in block]
    at_test, at_validation = evenly(blocks[tested], test), evenly(blocks[validated], validation)
    return Data(name, split.chosen(train), split.chosen(at_validation), split.chosen(at_test), at_test)


def separated(labels: npt.ArrayLike) -> Labels:
    """Put background between objects that touch: voxels that have a neighbour of another object become 0.

    What borders on background already stays as it is.
    """
    array = np.asarray(labels)
    return np.where(_touching(array), 0, array).astype(np.int32)


def with_border(labels: npt.ArrayLike) -> Labels:
    """Return labels to train on: background between objects that touch, and a label for every connected part."""
    return connected(separated(labels))


def with_moved_borders(labels: npt.ArrayLike, pixels: float, seed: int) -> Labels:
    """Return labels as a less careful hand draws them: every border is moved by some pixels, smoothly along its course.

    Each pixel takes its label from another place; how far away along an axis has a standard deviation of `pixels`.
    """
    array = np.asarray(labels, dtype=np.int32)
    rng = np.random.default_rng(seed)
    fields = np.stack([gaussian_filter(rng.standard_normal(array.shape), DRIFT) for _ in range(array.ndim)])
    offsets = fields * (pixels / fields.std())
    moved: Labels = map_coordinates(array, np.indices(array.shape) + offsets, order=0, mode="nearest")
    return moved


def touch(labels: npt.ArrayLike) -> bool:
    """Return whether any objects touch."""
    return bool(_touching(np.asarray(labels)).any())


def _touching(labels: npt.NDArray[np.integer]) -> npt.NDArray[np.bool_]:
    neighbours = generate_binary_structure(labels.ndim, 1)
    highest = maximum_filter(labels, footprint=neighbours)
    lowest = minimum_filter(np.where(labels > 0, labels, np.iinfo(labels.dtype).max), footprint=neighbours)
    return (labels > 0) & ((highest != labels) | (lowest != labels))


class Batches:
    """Random crops without an end, mirrored and transposed: images (B, C, crop, crop), labels (B, crop, crop)."""

    def __init__(
        self,
        data: Split,
        batch: int,
        crop: int,
        seed: int | Sequence[int],
        prepare: Callable[[Labels], Labels] = connected,  # labels of a crop to those that are trained on
    ) -> None:
        smallest = min(min(i.shape[1:]) for i in data.images)
        if crop < 32:
            raise ValueError(f"crop must be at least 32, got {crop}: the U-Net halves it four times")
        if crop > smallest:
            raise ValueError(f"crop must be at most the size of the images, {smallest}, got {crop}")
        self.data, self.batch, self.crop = data, batch, crop
        self.rng = np.random.default_rng(seed)
        self.prepare = prepare

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
        return np.ascontiguousarray(image * gain + offset, dtype=np.float32), self.prepare(labels)
