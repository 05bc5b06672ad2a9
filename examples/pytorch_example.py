"""Train a small U-Net with the MALIS loss, segment images it never saw, score them and save a picture.

python examples/pytorch_example.py                                  # packed organelles, generated
python examples/pytorch_example.py --data isbi2012 --loss malis     # a folder with image/ and label/
python examples/pytorch_example.py --help
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from monai.networks.nets import BasicUNet

from data import Batches, Image
from malis.malis_torch import MalisLoss
from tasks import Network, Task
from training import Progress, phases, run, unet_features


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
    seconds_in_malis: float
    loss: float


def train(
    args: argparse.Namespace,
    task: Task,
    image_channels: int,
    batches: Batches,
    *,
    bfloat16: bool = False,
    after_step: Callable[[Step, Network], None] = lambda step, network: None,
) -> Network:
    """Train the U-Net phase by phase."""
    if args.threads is not None:
        torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = UNet(image_channels, task.channels, args.channels, bfloat16).to(device)
    print(f"U-Net with {sum(p.numel() for p in model.parameters()):,} parameters")

    malis_loss = MalisLoss(margin=args.margin, from_logits=True)
    known = torch.from_numpy(task.known((args.crop, args.crop))).to(device)

    def cross_entropy(logits: torch.Tensor, labels: npt.NDArray[np.int32]) -> torch.Tensor:
        target = torch.from_numpy(task.target(labels)).to(device)
        return torch.nn.functional.binary_cross_entropy_with_logits(logits, target, known.expand_as(target))

    def network(image: Image) -> npt.NDArray[np.float32]:
        model.eval()
        with torch.no_grad():
            return model(torch.from_numpy(image)[None].to(device))[0].cpu().numpy()

    number, all_in_malis = 0, 0.0
    for phase in phases(args):
        optimizer = torch.optim.Adam(model.parameters(), 1.0)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, phase.learning_rate)
        with Progress(phase) as progress:
            for image, labels in batches.take(phase.steps):
                began, in_malis = time.perf_counter(), 0.0
                model.train()
                logits = model(torch.from_numpy(image).to(device))
                loss = torch.zeros((), device=device)
                if phase.malis > 0:
                    began_malis = time.perf_counter()
                    loss = loss + phase.malis * malis_loss(torch.from_numpy(labels), logits)
                    in_malis = time.perf_counter() - began_malis
                if phase.cross_entropy > 0:
                    loss = loss + phase.cross_entropy * cross_entropy(logits, labels)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                schedule.step()
                progress.step(loss.item())
                number, all_in_malis = number + 1, all_in_malis + in_malis
                after_step(Step(number, time.perf_counter() - began, in_malis, loss.item()), network)
    print(f"{all_in_malis:.1f} s of the training in the MALIS loss")
    return network


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    """Run the example; returns the threshold and the scores of the test images."""
    return run(__doc__.split("\n")[0], train, argv)


if __name__ == "__main__":
    main()
