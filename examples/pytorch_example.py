"""Train a small U-Net with the MALIS loss, segment images it never saw, score them and save a picture.

python examples/pytorch_example.py                                  # packed organelles, generated
python examples/pytorch_example.py --data isbi2012 --loss malis     # a folder with image/ and label/
python examples/pytorch_example.py --help
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from monai.networks.nets import BasicUNet
from tqdm import tqdm

import malis
from example_common import Batches, Image, Probabilities, load, parser, report, task_of
from malis.malis_torch import MalisLoss


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    """Run the example; returns the threshold and the scores of the test images."""
    options = parser(__doc__.split("\n")[0])
    args = options.parse_args(argv)
    if args.threads is not None:
        torch.set_num_threads(args.threads)
        malis.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    task = task_of(args.loss)
    try:
        data = load(args.data, args.validation, args.test, args.images)
        batches = iter(Batches(data.train, args.batch, args.crop, args.seed))
    except (OSError, ValueError) as error:
        options.error(str(error))
    print(
        f"{data.name}: {len(data.train)} images to train on, {len(data.validation)} to validate, "
        f"{len(data.test)} to test; loss {args.loss}"
    )

    c = args.channels
    model = BasicUNet(
        spatial_dims=2,
        in_channels=data.train.images[0].shape[0],
        out_channels=task.channels,
        features=(c, c, 2 * c, 4 * c, 8 * c, c),
        norm="batch",
        upsample="nontrainable",  # transposed convolutions leave a checkerboard in the affinities
    ).to(device)

    def cross_entropy(logits: torch.Tensor, labels: npt.NDArray[np.int32]) -> torch.Tensor:
        target = torch.from_numpy(task.target(labels)).to(device)
        return torch.nn.functional.binary_cross_entropy_with_logits(logits, target, known.expand_as(target))

    warmup = round(args.steps * args.warmup) if args.loss == "malis" else args.steps
    malis_loss = MalisLoss(margin=args.margin, from_logits=True)
    known = torch.from_numpy(task.known((args.crop, args.crop))).to(device)
    start = time.perf_counter()
    seconds_in_malis = 0.0
    running: float | None = None
    model.train()
    # Each phase has its own optimiser: gradients of MALIS are of another size, and Adam has to forget the old one.
    for phase, steps, lr in (("cross entropy", warmup, args.lr), ("MALIS", args.steps - warmup, args.lr / 2)):
        if steps == 0:
            continue
        optimizer = torch.optim.Adam(model.parameters(), lr)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, total_steps=max(2, steps), pct_start=0.2)
        progress = tqdm(itertools.islice(batches, steps), total=steps, desc=phase, unit="step", mininterval=0.5)
        for image, labels in progress:
            logits = model(torch.from_numpy(image).to(device))
            if phase == "MALIS":
                began = time.perf_counter()
                loss = malis_loss(torch.from_numpy(labels), logits)
                seconds_in_malis += time.perf_counter() - began
                if args.mix > 0:
                    loss = loss + args.mix * cross_entropy(logits, labels)
            else:
                loss = cross_entropy(logits, labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            running = loss.item() if running is None else 0.95 * running + 0.05 * loss.item()
            progress.set_postfix(loss=f"{running:.4f}", refresh=False)
        running = None
    seconds = time.perf_counter() - start
    print(f"trained {args.steps} steps in {seconds:.0f} s, of which {seconds_in_malis:.1f} s in the MALIS loss")

    model.eval()

    def predict(image: Image) -> Probabilities:
        # The U-Net halves its input four times.
        pad = [(0, 0), *((0, -n % 16) for n in image.shape[1:])]
        padded = torch.from_numpy(np.pad(image, pad, mode="reflect"))[None].to(device)
        with torch.no_grad():
            probabilities = torch.sigmoid(model(padded))[0].cpu().numpy()
        return np.ascontiguousarray(probabilities[:, : image.shape[1], : image.shape[2]])

    return {**report(args.loss, data, task, predict, args.output), "seconds": seconds}


if __name__ == "__main__":
    main()
