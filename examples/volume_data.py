"""The volumes of `volume_example.py`: generated, from files or public sets, in parts, and augmented crops of them."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from monai import transforms

import malis
from malis import _io
from malis.synthetic import synthetic_volume
from public_data import IMAGES, VOLUMES, Volume, named

# The names under which files of several arrays are searched for an image and for labels.
IMAGE_NAMES = ("image", "raw", "volumes/raw")
LABEL_NAMES = ("labels", "label", "volumes/labels/neuron_ids")
# Voxels of generated volumes in nanometers: as FIB-SEM makes them, and as sections that are cut have them.
SYNTHETIC = {False: (10.0, 10.0, 10.0), True: (40.0, 10.0, 10.0)}


@dataclass
class Parts:
    """A data set in three parts that share no voxel."""

    name: str
    train: list[Volume]
    validation: Volume
    test: Volume
    voxel_size: tuple[float, ...]  # in nanometers, or of cubes of 1 where nothing is known

    @property
    def unit(self) -> str | None:
        return None if self.voxel_size == (1.0, 1.0, 1.0) else "nm"


def load(
    source: str,
    *,
    names: Sequence[str] | None = None,
    voxel_size: Sequence[float] | None = None,
    shape: Sequence[int] = (48, 96, 96),
    anisotropic: bool = False,
    shares: tuple[float, float] = (0.2, 0.2),
) -> Parts:
    """Load "synthetic", NAME:PATH of a public set, or a file of an image and labels.

    Sections of one volume are divided along the first axis: for training, for validation, for tests, as `shares` says
    of the last two. Generated volumes have one of each, and two to train on.
    """
    if source == "synthetic":
        size = SYNTHETIC[anisotropic]
        small = (max(8, shape[0] // 2), *shape[1:])
        drawn = [synthetic_volume(seed, s, size) for seed, s in enumerate((shape, shape, small, small))]
        volumes = [Volume(image[0], labels, size) for image, labels in drawn]
        return Parts("synthetic", volumes[:2], volumes[2], volumes[3], tuple(voxel_size or size))
    name, path = named(source)
    if name in IMAGES:
        raise ValueError(f"{name} is a set of images, which pytorch_example.py takes, got {source!r}")
    volume = VOLUMES[name](path) if name else load_file(source, names)
    depth = len(volume.image)
    n_validation, n_test = (max(1, round(depth * share)) for share in shares)
    if depth - n_validation - n_test < 1:
        raise ValueError(f"{source} must hold sections for every part, got {depth} sections and the shares {shares}")
    begins = [0, depth - n_validation - n_test, depth - n_test, depth]
    parts = [
        Volume(
            normalized(volume.image[begin:end]),
            malis.connect_labels(volume.labels[begin:end]).astype(np.int32),  # a neurite that is cut is two
            volume.voxel_size,
        )
        for begin, end in itertools.pairwise(begins)
    ]
    size = tuple(float(s) for s in voxel_size or volume.voxel_size or (1.0, 1.0, 1.0))
    return Parts(name or path.stem, parts[:1], parts[1], parts[2], size)


def load_file(source: str, names: Sequence[str] | None = None) -> Volume:
    """Load an image and labels from one .npz, HDF5 or Zarr file, with the voxel size that it tells."""
    path = Path(source)
    if not path.exists():
        raise FileNotFoundError(
            f"data must be 'synthetic', a file or one of {', '.join(VOLUMES)} with a path after a colon, got {source!r}"
        )
    found = _arrays(path)
    image, labels = names or (_first(path, found, IMAGE_NAMES), _first(path, found, LABEL_NAMES))
    raw, truth = _io.read_image(f"{path}:{image}"), _io.read_labels(f"{path}:{labels}")
    size = raw.grid.in_nanometers().scale or truth.grid.in_nanometers().scale
    if size is None and "voxel_size" in found and path.suffix == ".npz":
        with np.load(path, allow_pickle=False) as arrays:
            size = tuple(arrays["voxel_size"].astype(float).tolist())
    return Volume(raw.array, truth.array, size)


def _arrays(path: Path) -> Any:
    """Return what can be asked which arrays a file holds."""
    if path.suffix == ".npz":
        with np.load(path, allow_pickle=False) as arrays:
            return set(arrays.files)
    if path.suffix == ".zarr":
        import zarr

        return zarr.open_group(str(path), mode="r")
    if path.suffix in (".h5", ".hdf5"):
        import h5py

        with h5py.File(path) as file:
            return {name for name in (*IMAGE_NAMES, *LABEL_NAMES) if name in file}
    raise ValueError(f"data must be a file that ends in .npz, .h5, .hdf5 or .zarr, got {path}")


def _first(path: Path, found: Any, candidates: Sequence[str]) -> str:
    for name in candidates:
        if name in found:
            return name
    raise ValueError(f"{path} must hold an array {' or '.join(candidates)}; other names are taken with --names")


def normalized(image: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    """Return grey values with zero mean and unit variance."""
    values = image.astype(np.float32)
    return (values - values.mean()) / max(float(values.std()), 1e-6)


class Crops:
    """Augmented crops: batch ``n`` is the same whenever it is asked for, so that a training can go on where it stopped.

    Every crop is flipped and transposed at random, along all axes or, of anisotropic volumes, within sections; its
    contrast and brightness change, noise is added, it may be blurred, and sections go missing.
    """

    def __init__(
        self, volumes: list[Volume], crop: Sequence[int], batch: int, seed: int, *, anisotropic: bool = False
    ) -> None:
        smallest = np.min([volume.image.shape for volume in volumes], axis=0)
        if (np.array(crop) > smallest).any():
            raise ValueError(f"crop must fit into the volumes, {tuple(smallest.tolist())}, got {tuple(crop)}")
        planes = [(1, 2)] if anisotropic else [(1, 2), (0, 1), (0, 2)]
        for one, other in planes:
            if crop[one] != crop[other]:
                raise ValueError(f"crop must have axes of one length where it is transposed, got {tuple(crop)}")
        self.samples = [
            {"image": torch.from_numpy(v.image)[None], "labels": torch.from_numpy(v.labels)[None]} for v in volumes
        ]
        self.weights = np.array([v.image.size for v in volumes], float)
        self.batch, self.seed = batch, seed
        both = ("image", "labels")
        self.augment: Callable[[Any], Any] = transforms.Compose(
            [
                transforms.RandSpatialCropd(both, crop, random_size=False),
                # Sections go missing before axes change places: real ones do along the first axis alone.
                transforms.RandCoarseDropoutd(
                    "image", holes=1, max_holes=2, spatial_size=(1, -1, -1), fill_value=0.0, prob=0.3
                ),
                *(transforms.RandFlipd(both, prob=0.5, spatial_axis=axis) for axis in range(3)),
                *(transforms.RandRotate90d(both, prob=0.5, max_k=1, spatial_axes=plane) for plane in planes),
                transforms.RandGaussianSmoothd("image", sigma_x=(0, 0.3), prob=0.1),
                transforms.RandScaleIntensityd("image", factors=0.2, prob=0.5),
                transforms.RandShiftIntensityd("image", offsets=0.2, prob=0.5),
                transforms.RandGaussianNoised("image", std=0.2, prob=0.3),
                transforms.ToTensord(both, track_meta=False),
            ]
        )

    def take(self, begin: int, end: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Yield batches `begin` to `end`: images (B, 1, *crop), labels (B, 1, *crop)."""
        for number in range(begin, end):
            rng = np.random.default_rng([self.seed, number])
            crops = []
            for at in rng.choice(len(self.samples), self.batch, p=self.weights / self.weights.sum()):
                self.augment.set_random_state(int(rng.integers(2**31)))
                crops.append(self.augment(self.samples[at]))
            yield torch.stack([c["image"] for c in crops]).contiguous(), torch.stack([c["labels"] for c in crops])
