"""Train a small U-Net with the MALIS loss, segment images it never saw, score them and save a picture.

python examples/pytorch_example.py                                  # packed organelles, generated
python examples/pytorch_example.py --data isbi2012 --loss malis     # a folder with image/ and label/
python examples/pytorch_example.py --help
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from monai.networks.nets import BasicUNet

from data import Batches, Image
from malis.malis_torch import AffinityLoss
from tasks import NHOOD, Network, Task
from training import Phase, Progress, phases, run, unet_features


class UNet(torch.nn.Module):
    """MONAI's U-Net; all layers but the last may run in bfloat16, which halves the time on a CPU that knows it.

    The logits stay in float32: MALIS orders the edges by their affinities, and among rounded ones most would be equal.
    """

    def __init__(self, in_channels: int, out_channels: int, channels: int, bfloat16: bool) -> None:
        super().__init__()
        features = unet_features(channels)
        self.trunk = BasicUNet(
            spatial_dims=2,
            in_channels=in_channels,
            out_channels=out_channels,
            features=features,
            norm="batch",
            upsample="nontrainable",  # transposed convolutions leave a checkerboard in the affinities
        ).to(memory_format=torch.channels_last)
        self.head, self.trunk.final_conv = self.trunk.final_conv, torch.nn.Identity()
        self.bfloat16 = bfloat16

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        with torch.autocast(image.device.type, torch.bfloat16, enabled=self.bfloat16):
            features = self.trunk(image.contiguous(memory_format=torch.channels_last))
        return self.head(features.float())


class Step(NamedTuple):
    """What is known after a step of the training."""

    number: int  # from 1
    seconds: float  # of this step
    seconds_in_malis: float  # in the loss, while MALIS is a part of it
    loss: float


def criterion_of(task: Task, phase: Phase, margin: float) -> Callable[[torch.Tensor, torch.Tensor], torch.Tensor]:
    """Return the loss of a phase: (logits, labels) -> a scalar."""
    if task.of_mask:
        entropy = torch.nn.functional.binary_cross_entropy_with_logits
        return lambda logits, labels: entropy(logits, (labels[:, None] > 0).to(logits))
    # The phases are the warm-up, each with an optimiser of its own; in one phase AffinityLoss counts the steps itself.
    return AffinityLoss(NHOOD, malis=phase.malis, cross_entropy=phase.cross_entropy, warmup=0, margin=margin)


def network_of(model: UNet, device: torch.device) -> Network:
    """Return a model as a function of arrays, to be called between steps of the training, too."""

    def network(image: Image) -> npt.NDArray[np.float32]:
        model.eval()
        with torch.no_grad():
            return model(torch.from_numpy(image)[None].to(device))[0].cpu().numpy()

    return network


def train_phase(
    model: UNet,
    phase: Phase,
    criterion: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
    batches: Batches,
    device: torch.device,
    first: int = 1,
) -> Iterator[Step]:
    """Train for a phase with an optimiser of its own; yield what is known after every step, numbered from `first`."""
    optimizer = torch.optim.Adam(model.parameters(), 1.0)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, phase.learning_rate)
    with Progress(phase) as progress:
        for number, (image, labels) in enumerate(batches.take(phase.steps), first):
            began, in_malis = time.perf_counter(), 0.0
            model.train()
            logits = model(torch.from_numpy(image).to(device))
            began_loss = time.perf_counter()
            loss = criterion(logits, torch.from_numpy(labels))
            if phase.malis > 0:
                in_malis = time.perf_counter() - began_loss
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            progress.step(loss.item())
            yield Step(number, time.perf_counter() - began, in_malis, loss.item())


def train(args: argparse.Namespace, task: Task, image_channels: int, batches: Batches) -> Network:
    """Train the U-Net phase by phase."""
    if args.threads is not None:
        torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = UNet(image_channels, task.channels, args.channels, bfloat16=False).to(device)
    print(f"U-Net with {sum(p.numel() for p in model.parameters()):,} parameters")
    in_malis = 0.0
    for phase in phases(args):
        steps = train_phase(model, phase, criterion_of(task, phase, args.margin), batches, device)
        in_malis += sum(step.seconds_in_malis for step in steps)
    print(f"{in_malis:.1f} s of the training in the loss with MALIS")
    return network_of(model, device)


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    """Run the example; returns the threshold and the scores of the test images."""
    return run(__doc__.split("\n")[0], train, argv)


if __name__ == "__main__":
    main()
