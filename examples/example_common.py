"""What the examples share, whatever the framework: data, targets, phases of training, scores, the table and the figure.

A framework's example is a function `train` for `run`: it builds a U-Net, trains it on `Batches` phase by phase, and
returns the network as a function from an image (C, H, W) to logits (channels of the task, H, W).
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import expit
from skimage.io import imread
from skimage.measure import label
from tqdm import tqdm

import malis
from malis import metrics
from malis.synthetic import synthetic_image

Image = npt.NDArray[np.float32]  # (channels, H, W), about zero mean and unit variance
Labels = npt.NDArray[np.int32]  # (H, W), 0 is background
Probabilities = npt.NDArray[np.float32]  # (channels of the task, H, W)
Network = Callable[[Image], npt.NDArray[np.float32]]  # logits (channels of the task, H, W); H and W multiples of 16

LOSSES = ("malis", "affinity-bce", "cross-entropy")
NHOOD = malis.mknhood2d(1)
MIN_SIZE = 64  # smaller objects are dropped before scoring, as published
THRESHOLDS = (*np.linspace(0.05, 0.95, 19).tolist(), 0.97, 0.98, 0.99, 0.995, 0.999)


# ---------------------------------------------------------------------------------------------------------------------
# Data
# ---------------------------------------------------------------------------------------------------------------------


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
    """Load "synthetic" images, a folder or an HDF5 file; by default an eighth for validation, an eighth for tests."""
    path = Path(source)
    if source == "synthetic":
        drawn = [synthetic_image(seed) for seed in range(images)]
        split = Split([i for i, _ in drawn], [s for _, s in drawn])
    elif path.is_dir():
        split = load_folder(path)
    elif path.is_file():
        split = load_hdf5(path)
    else:
        raise FileNotFoundError(f"data must be 'synthetic', a folder or an HDF5 file, got {source!r}")
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
    return Data(path.name, *(Split(split.images[p], split.labels[p]) for p in parts))


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


# ---------------------------------------------------------------------------------------------------------------------
# Tasks: what a network predicts for a loss, and the segmentation that follows from it
# ---------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Task:
    """Targets and segmentations of a loss."""

    channels: int
    target: Callable[[npt.NDArray[np.int32]], npt.NDArray[np.float32]]  # (B, H, W) -> (B, channels, H, W)
    known: Callable[[tuple[int, int]], npt.NDArray[np.float32]]  # 1 where a target exists, (channels, H, W)
    affinities: Callable[[Probabilities], npt.NDArray[np.float32]]  # (channels, H, W) -> (2, H, W)

    def segment(self, probabilities: Probabilities, threshold: float) -> npt.NDArray[Any]:
        """Return the objects that probabilities above the threshold connect, as labels (H, W)."""
        return components(self.affinities(probabilities), threshold)


def components(affinities: npt.NDArray[np.float32], threshold: float) -> npt.NDArray[Any]:
    """Return what the edges of at least the threshold connect, as labels (H, W), without objects too small to score."""
    return malis.affgraph_to_seg(affinities, NHOOD, min_size=MIN_SIZE, threshold=threshold)[0]


def choose_threshold(
    affinities: list[npt.NDArray[np.float32]], split: Split, thresholds: Sequence[float] = THRESHOLDS
) -> tuple[float, float]:
    """Return the threshold with the best mean object score, and that score."""
    found = malis.find_threshold(affinities, split.labels, NHOOD, thresholds=thresholds, min_size=MIN_SIZE)
    return found.threshold, found.score


def _affinity_target(labels: npt.NDArray[np.int32]) -> npt.NDArray[np.float32]:
    return np.stack([malis.seg_to_affgraph(i, NHOOD) for i in labels]).astype(np.float32)


def _affinity_known(shape: tuple[int, int]) -> npt.NDArray[np.float32]:
    return malis.seg_to_affgraph(np.ones(shape, np.int32), NHOOD).astype(np.float32)


def task_of(loss: str) -> Task:
    """Return affinities of the nearest neighbours, or the object mask for "cross-entropy"."""
    if loss not in LOSSES:
        raise ValueError(f"loss must be one of {', '.join(LOSSES)}, got {loss!r}")
    if loss == "cross-entropy":
        return Task(
            1,
            target=lambda labels: (labels[:, np.newaxis] > 0).astype(np.float32),
            known=lambda shape: np.ones((1, *shape), np.float32),
            affinities=lambda mask: malis.bmap_to_affgraph(1 - mask[0], NHOOD),
        )
    return Task(len(NHOOD), _affinity_target, _affinity_known, affinities=lambda affinities: affinities)


# ---------------------------------------------------------------------------------------------------------------------
# The network and its training
# ---------------------------------------------------------------------------------------------------------------------


def unet_features(channels: int) -> tuple[int, ...]:
    """Return the channels of the five levels of the U-Net, and those before its last convolution."""
    return (channels, channels, 2 * channels, 4 * channels, 8 * channels, channels)


@dataclass(frozen=True)
class Phase:
    """A part of the training, with an optimiser of its own.

    Gradients of MALIS are of another size than those of a cross entropy, and Adam has to forget the old one.
    """

    name: str
    steps: int
    lr: float  # the highest learning rate
    malis: float  # weight of the MALIS loss
    cross_entropy: float  # weight of the cross entropy of `Task.target` where `Task.known`

    def learning_rate(self, step: int) -> float:
        """One cycle: for a fifth of the steps up from `lr` / 25, then down to nearly 0, both along a cosine."""
        top, last = 0.2 * self.steps - 1, max(1, self.steps - 1)
        lowest, share = (self.lr / 25, step / top) if step < top else (self.lr / 25e4, (last - step) / (last - top))
        return lowest + (self.lr - lowest) * (1 - math.cos(math.pi * share)) / 2


def phases(args: argparse.Namespace) -> list[Phase]:
    """Return the phases of the training: for MALIS, cross entropy warms the network up, and a little of it stays."""
    warmup = round(args.steps * args.warmup) if args.loss == "malis" else args.steps
    parts = [
        Phase("cross entropy", warmup, args.lr, malis=0, cross_entropy=1),
        Phase("MALIS", args.steps - warmup, args.lr / 2, malis=1, cross_entropy=args.mix),
    ]
    return [part for part in parts if part.steps > 0]


class Progress:
    """A bar that shows where a phase is, and the running mean of its loss."""

    def __init__(self, phase: Phase) -> None:
        self.bar = tqdm(total=phase.steps, desc=phase.name, unit="step", mininterval=0.5)
        self.mean: float | None = None

    def step(self, loss: float) -> None:
        """Go on by one step, and take its loss into the mean."""
        self.show(loss if self.mean is None else 0.95 * self.mean + 0.05 * loss)

    def show(self, mean: float) -> None:
        """Go on by one step, with a mean that the framework keeps."""
        self.mean = mean
        self.bar.set_postfix(loss=f"{mean:.4f}", refresh=False)
        self.bar.update()

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.close()


def probabilities(network: Network, image: Image) -> Probabilities:
    """Predict an image of any size: the U-Net halves its input four times."""
    height, width = image.shape[1:]
    padded = np.pad(image, [(0, 0), (0, -height % 16), (0, -width % 16)], mode="reflect")
    return np.ascontiguousarray(expit(network(padded))[:, :height, :width], dtype=np.float32)


# ---------------------------------------------------------------------------------------------------------------------
# Scores
# ---------------------------------------------------------------------------------------------------------------------


def table(scores: list[metrics.Scores]) -> str:
    """Format the scores of every test image and their mean."""
    names = ("object score", "object recall", "Rand F-score", "Rand split", "Rand merge")
    rows = [("image", *names)]
    rows += [(str(i), *(f"{s:.3f}" for s in row)) for i, row in enumerate(scores)]
    rows.append(("mean", *(f"{s:.3f}" for s in np.mean(np.array(scores), axis=0))))
    widths = [max(len(r[c]) for r in rows) for c in range(len(rows[0]))]
    lines = ["  ".join(cell.rjust(w) for cell, w in zip(row, widths, strict=True)) for row in rows]
    return "\n".join([lines[0], "-" * len(lines[0]), *lines[1:-1], "-" * len(lines[0]), lines[-1]])


def save_figure(
    file: Path,
    title: str,
    test: Split,
    predictions: list[Probabilities],
    segmentations: list[npt.NDArray[Any]],
    scores: list[metrics.Scores],
    rows: int = 2,
) -> None:
    """Save image, ground truth, prediction and segmentation of the first test images."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    from malis.plot import label_colours

    rows = min(rows, len(test))
    figure, axes = plt.subplots(rows, 4, figsize=(12, 3.15 * rows), squeeze=False, layout="constrained")
    for row, ax in enumerate(axes):
        predicted = "affinities (weakest)" if predictions[row].shape[0] > 1 else "probability of an object"
        ax[0].imshow(test.images[row][0], cmap="gray")
        ax[1].imshow(label_colours(test.labels[row]), interpolation="nearest")
        # The first row and column have no edge along one axis: shown as the others are.
        ax[2].imshow(predictions[row].min(0), cmap="gray", vmin=0, vmax=1)
        ax[3].imshow(label_colours(segmentations[row]), interpolation="nearest")
        titles = ("image", "ground truth", predicted, f"segmentation: object score {scores[row].object_score:.2f}")
        for a, text in zip(ax, titles, strict=True):
            a.set_title(text, fontsize=10)
            a.set_axis_off()
    figure.suptitle(title, fontsize=11)
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, dpi=80)
    plt.close(figure)


def report(loss: str, data: Data, task: Task, predict: Callable[[Image], Probabilities], file: Path) -> dict[str, Any]:
    """Choose the threshold on the validation images, score the test images, print the table, save the figure."""
    threshold, best = choose_threshold([task.affinities(predict(i)) for i in data.validation.images], data.validation)
    print(f"threshold {threshold:.3f} (object score {best:.3f} on {len(data.validation)} validation images)")
    predictions = [predict(i) for i in data.test.images]
    segmentations = [task.segment(p, threshold) for p in predictions]
    scores = [
        metrics.evaluate(truth, seg, min_size=MIN_SIZE)
        for truth, seg in zip(data.test.labels, segmentations, strict=True)
    ]
    print(table(scores))
    mean = metrics.Scores(*np.mean(np.array(scores), axis=0).tolist())
    title = f"{data.name}, trained with {loss}: images the network never saw"
    save_figure(file, title, data.test, predictions, segmentations, scores)
    print(f"figure saved to {file}")
    return {"threshold": threshold, "scores": scores, "mean": mean}


# ---------------------------------------------------------------------------------------------------------------------
# Command line
# ---------------------------------------------------------------------------------------------------------------------


def positive(text: str) -> int:
    """Read an integer of at least 1 from the command line."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, got {text}")
    return value


def share(text: str) -> float:
    """Read a number within 0 and 1 from the command line."""
    value = float(text)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"must be within 0 and 1, got {text}")
    return value


def training_parser(description: str) -> argparse.ArgumentParser:
    """Return the options of data and training."""
    p = argparse.ArgumentParser(description=description, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    p.add_argument("--images", type=positive, default=24, help="number of synthetic images")
    p.add_argument("--validation", type=positive, help="number of validation images (default: an eighth)")
    p.add_argument("--test", type=positive, help="number of test images (default: an eighth)")
    p.add_argument("--steps", type=positive, default=1200)
    p.add_argument("--warmup", type=share, default=0.75, help="share of the steps with affinity BCE before MALIS")
    p.add_argument("--batch", type=positive, default=4)
    p.add_argument("--crop", type=positive, default=128)
    p.add_argument("--channels", type=positive, default=16, help="channels of the first level of the U-Net")
    p.add_argument("--lr", type=float, default=2e-3, help="highest learning rate; half of it for MALIS")
    p.add_argument("--mix", type=float, default=0.2, help="weight of the affinity BCE that stays beside MALIS")
    p.add_argument("--margin", type=float, default=0.3)
    p.add_argument("--threads", type=positive, help="threads of the framework and of malis (default: all)")
    return p


def parser(description: str) -> argparse.ArgumentParser:
    """Return the options of an example that trains one network."""
    p = training_parser(description)
    p.add_argument("--loss", choices=LOSSES, default="malis")
    p.add_argument("--data", default="synthetic", help="'synthetic', a folder with image/ and label/, or an HDF5 file")
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--output", type=Path, default=Path("example_output") / "example.png", help="the figure")
    return p


Train = Callable[[argparse.Namespace, Task, int, Batches], Network]  # options, task, channels of an image, batches


def run(description: str, train: Train, argv: Sequence[str] | None = None) -> dict[str, Any]:
    """Load the data, train, score and draw; returns the threshold, the scores of the test images, and the seconds."""
    options = parser(description)
    args = options.parse_args(argv)
    if args.threads is not None:
        malis.set_num_threads(args.threads)
    task = task_of(args.loss)
    try:
        data = load(args.data, args.validation, args.test, args.images)
        batches = Batches(data.train, args.batch, args.crop, args.seed)
    except (OSError, ValueError) as error:
        options.error(str(error))
    print(
        f"{data.name}: {len(data.train)} images to train on, {len(data.validation)} to validate, "
        f"{len(data.test)} to test; loss {args.loss}"
    )
    start = time.perf_counter()
    network = train(args, task, data.train.images[0].shape[0], batches)
    seconds = time.perf_counter() - start
    print(f"trained {args.steps} steps in {seconds:.0f} s")
    result = report(args.loss, data, task, lambda image: probabilities(network, image), args.output)
    return {**result, "seconds": seconds}
