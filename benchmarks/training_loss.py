"""What `AffinityLoss` costs in PyTorch beside its two parts: forward and backward on a batch of volumes.

    python benchmarks/training_loss.py [--size 128] [--threads 2] [--repetitions 9]

The yardstick is `MalisLoss` plus PyTorch's own binary cross entropy, with a target that lies ready and without an
ignored label. Calls alternate; the ratio is that of medians.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import numpy as np
import torch

import data
import malis
from malis.malis_torch import AffinityLoss, MalisLoss

LIMIT = 1.3  # x the yardstick
BATCH = 2


def seconds(loss_of: Callable[[torch.Tensor], torch.Tensor], logits: torch.Tensor) -> float:
    """Time one forward and backward."""
    output = logits.clone().requires_grad_()
    start = time.perf_counter()
    loss_of(output).backward()
    return time.perf_counter() - start


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description="What AffinityLoss costs beside its two parts.")
    parser.add_argument("--size", type=int, default=128, help="of the volumes, along each axis (128)")
    parser.add_argument("--threads", type=int, default=2, help="of PyTorch and malis (2)")
    parser.add_argument("--repetitions", type=int, default=9, help="calls of each (9)")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    malis.set_num_threads(options.threads)

    volumes = [data.realistic((options.size,) * 3) for _ in range(BATCH)]
    nhood = volumes[0][2]
    seg = np.stack([seg for seg, _, _ in volumes]).astype(np.int64)
    aff = np.clip(np.stack([aff for _, aff, _ in volumes]), 1e-4, 1 - 1e-4)
    logits = torch.from_numpy(np.log(aff / (1 - aff)).astype(np.float32))
    partly = seg.copy()
    partly[:, : options.size // 8] = 255  # a slab of which nothing is known
    labels, partly_known = torch.from_numpy(seg), torch.from_numpy(partly)
    target = torch.from_numpy(np.stack([malis.seg_to_affgraph(s, nhood) for s in seg])).float()

    malis_loss, entropy = MalisLoss(nhood, from_logits=True), torch.nn.BCEWithLogitsLoss()
    plain = AffinityLoss(nhood, malis=1.0, cross_entropy=0.2)
    whole = AffinityLoss(nhood, malis=1.0, cross_entropy=0.2, ignore_label=255, connect_labels=True)
    calls: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
        "MalisLoss + BCEWithLogitsLoss": lambda out: malis_loss(labels, out) + 0.2 * entropy(out, target),
        "AffinityLoss": lambda out: plain(out, labels),
        "AffinityLoss(ignore_label=255, connect_labels=True)": lambda out: whole(out, partly_known),
    }
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(options.repetitions + 1):
        for name, call in calls.items():
            times[name].append(seconds(call, logits))
    medians = {name: statistics.median(found[1:]) for name, found in times.items()}  # the first call warms up
    yardstick = next(iter(medians.values()))
    print(f"{BATCH} x {options.size}^3, {options.threads} threads; target: at most {LIMIT} x the first row\n")
    print("| forward and backward | ms | ratio |\n|---|---:|---:|")
    for name, median in medians.items():
        print(f"| `{name}` | {1000 * median:.0f} | {median / yardstick:.2f} x |")


if __name__ == "__main__":
    main()
