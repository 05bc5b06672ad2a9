"""Train a small U-Net with the MALIS loss, segment images it never saw, score them and save a picture.

python examples/pytorch_example.py                                  # packed organelles, generated
python examples/pytorch_example.py --data isbi2012 --loss malis     # a folder with image/ and label/
python examples/pytorch_example.py --help
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from monai.networks.nets import BasicUNet

from example_common import Batches, Image, Network, Progress, Task, phases, run, unet_features
from malis.malis_torch import MalisLoss


def train(args: argparse.Namespace, task: Task, image_channels: int, batches: Batches) -> Network:
    """Train the U-Net phase by phase."""
    if args.threads is not None:
        torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = BasicUNet(
        spatial_dims=2,
        in_channels=image_channels,
        out_channels=task.channels,
        features=unet_features(args.channels),
        norm="batch",
        upsample="nontrainable",  # transposed convolutions leave a checkerboard in the affinities
    ).to(device)
    print(f"U-Net with {sum(p.numel() for p in model.parameters()):,} parameters")

    malis_loss = MalisLoss(margin=args.margin, from_logits=True)
    known = torch.from_numpy(task.known((args.crop, args.crop))).to(device)

    def cross_entropy(logits: torch.Tensor, labels: npt.NDArray[np.int32]) -> torch.Tensor:
        target = torch.from_numpy(task.target(labels)).to(device)
        return torch.nn.functional.binary_cross_entropy_with_logits(logits, target, known.expand_as(target))

    seconds_in_malis = 0.0
    model.train()
    for phase in phases(args):
        optimizer = torch.optim.Adam(model.parameters(), 1.0)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, phase.learning_rate)
        with Progress(phase) as progress:
            for image, labels in batches.take(phase.steps):
                logits = model(torch.from_numpy(image).to(device))
                loss = torch.zeros((), device=device)
                if phase.malis > 0:
                    began = time.perf_counter()
                    loss = loss + phase.malis * malis_loss(torch.from_numpy(labels), logits)
                    seconds_in_malis += time.perf_counter() - began
                if phase.cross_entropy > 0:
                    loss = loss + phase.cross_entropy * cross_entropy(logits, labels)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                schedule.step()
                progress.step(loss.item())
    print(f"{seconds_in_malis:.1f} s of the training in the MALIS loss")

    model.eval()

    def network(image: Image) -> npt.NDArray[np.float32]:
        with torch.no_grad():
            return model(torch.from_numpy(image)[None].to(device))[0].cpu().numpy()

    return network


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    """Run the example; returns the threshold and the scores of the test images."""
    return run(__doc__.split("\n")[0], train, argv)


if __name__ == "__main__":
    main()
