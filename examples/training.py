"""What the training of every framework shares: the phases and their learning rates, the options, the whole run.

A framework's example is a function `train` for `run`: it builds a U-Net, trains it on `Batches` phase by phase, and
returns the network as a function from an image (C, H, W) to logits (channels of the task, H, W).
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

import malis
from data import Batches, connected, load, with_border
from public_data import IMAGES
from scores import report
from tasks import LOSSES, Network, Task, probabilities, task_of


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
    cross_entropy: float  # weight of the cross entropy

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
    p.add_argument("--mix", type=float, default=1.0, help="weight of the affinity BCE that stays beside MALIS")
    p.add_argument("--margin", type=float, default=0.1)
    p.add_argument("--threads", type=positive, help="threads of the framework and of malis (default: all)")
    return p


BORDER_HELP = "train with background between objects that touch: where labels leave none, as those of FIB-25"


def parser(description: str) -> argparse.ArgumentParser:
    """Return the options of an example that trains one network."""
    p = training_parser(description)
    p.add_argument("--loss", choices=LOSSES, default="malis")
    p.add_argument(
        "--data",
        default="synthetic",
        help="'synthetic', a folder with image/ and label/, an HDF5 file, or a public set: "
        + ", ".join(f"{name}:PATH" for name in IMAGES),
    )
    p.add_argument("--border", action="store_true", help=BORDER_HELP)
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
        batches = Batches(data.train, args.batch, args.crop, args.seed, with_border if args.border else connected)
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
