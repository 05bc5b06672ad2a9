"""Training with the MALIS loss on several devices, with PyTorch's DistributedDataParallel, on generated images.

    torchrun --nproc-per-node 2 examples/distributed_example.py

Every process takes its share of each batch, on a GPU of its own where there are some, else on the CPU; gradients are
averaged. The loss is a mean over samples, so that the average of equal shares is the loss of the whole batch: the
number of processes does not change what is learned. `AffinityLoss` counts the steps of its warm-up in every process,
and so comes to the same number in all of them.
"""

import argparse
import os

import numpy as np
import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

import malis
from malis.malis_torch import AffinityLoss
from malis.synthetic import synthetic_image

NHOOD = malis.mknhood2d(1)


def network() -> torch.nn.Module:
    """Make a small network; it has no batch normalisation, which would look at the share of one process alone."""
    layers: list[torch.nn.Module] = [torch.nn.Conv2d(1, 24, 5, padding=2)]
    for dilation in (1, 2, 4):
        layers += [torch.nn.GELU(), torch.nn.Conv2d(24, 24, 3, padding=dilation, dilation=dilation)]
    return torch.nn.Sequential(*layers, torch.nn.GELU(), torch.nn.Conv2d(24, len(NHOOD), 1))


def main(steps: int, warmup: int, batch: int, size: int) -> None:
    """Train on sixteen images; the first process scores the result on another one."""
    rank, world = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    if batch % world:
        raise SystemExit(f"--batch must be a multiple of the number of processes, {world}, got {batch}")
    on_gpu = torch.cuda.is_available()
    device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0))) if on_gpu else torch.device("cpu")
    if world > 1:
        dist.init_process_group("nccl" if on_gpu else "gloo")
    images, labels = (np.stack(arrays) for arrays in zip(*(synthetic_image(s, size) for s in range(17)), strict=True))
    x, y = torch.from_numpy(images).to(device), torch.from_numpy(labels).to(device)

    torch.manual_seed(0)  # the same network, and the same batches, in all processes
    net = network().to(device)
    trained = DistributedDataParallel(net) if world > 1 else net
    criterion = AffinityLoss(NHOOD, warmup=warmup)
    optimizer = torch.optim.Adam(net.parameters(), lr=5e-3)
    for step in range(steps):
        chosen = torch.randperm(16)[:batch]
        mine = chosen[rank * batch // world : (rank + 1) * batch // world]
        loss = criterion(trained(x[mine]), y[mine])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        whole = loss.detach().double()
        if world > 1:
            dist.all_reduce(whole)
            whole /= world
        if rank == 0 and (step % 20 == 0 or step == steps - 1):
            print(
                f"step {step:3}, {'MALIS' if step >= warmup else 'cross entropy'}: loss {whole.item():.9f}", flush=True
            )

    if rank == 0:
        with torch.no_grad():
            predicted = net.eval()(x).sigmoid().cpu().numpy()
        threshold = malis.find_threshold(list(predicted[:16]), list(labels[:16]), NHOOD).threshold
        segmentation, _ = malis.affgraph_to_seg(predicted[16], NHOOD, threshold=threshold)
        scores = malis.metrics.evaluate(labels[16], segmentation)
        print(f"a new image: object score {scores.object_score:.2f}, Rand F-score {scores.rand_f_score:.2f}")
    if world > 1:
        dist.destroy_process_group()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--warmup", type=int, default=120, help="steps before MALIS takes part")
    parser.add_argument("--batch", type=int, default=4, help="images in a step, of all processes together")
    parser.add_argument("--size", type=int, default=128, help="height and width of the images")
    main(**vars(parser.parse_args()))
