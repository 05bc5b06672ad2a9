"""The smallest training with the MALIS loss in PyTorch, on generated images: copy it, and put in your own.

A network predicts for every pixel how sure it is that the pixel above and the pixel to the left belong to the same
object. It learns these affinities by a cross entropy first, and then by MALIS, which finds the edges that merge or
split objects. Objects are the connected components of the edges whose affinity is above a threshold.
"""

import numpy as np
import torch
from monai.networks.nets import BasicUNet

import malis
from malis.malis_torch import AffinityLoss
from malis.synthetic import synthetic_image

NHOOD = malis.mknhood2d(1)  # [[-1, 0], [0, -1]]: the network has one output channel for each offset


def main(steps: int = 400, warmup: int = 320, size: int = 128) -> malis.metrics.Scores:
    """Train on sixteen images, segment one that the network never saw, and return its scores."""
    images, labels = (np.stack(arrays) for arrays in zip(*(synthetic_image(s, size) for s in range(17)), strict=True))
    x, y = torch.from_numpy(images), torch.from_numpy(labels)  # (17, 1, H, W), (17, H, W)

    torch.manual_seed(0)
    features = (16, 16, 32, 64, 128, 16)
    net = BasicUNet(2, in_channels=1, out_channels=len(NHOOD), features=features, norm="batch", upsample="nontrainable")
    criterion = AffinityLoss(NHOOD, warmup=warmup)  # a part of the cross entropy stays beside MALIS
    optimizer = torch.optim.Adam(net.parameters())
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=5e-3, total_steps=steps)
    for step in range(steps):
        batch = torch.randperm(16)[:2]
        loss = criterion(net(x[batch]), y[batch])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if step % 40 == 0:
            print(f"step {step:3}, {'MALIS' if step >= warmup else 'cross entropy'}: loss {loss.item():.4f}")

    with torch.no_grad():
        predicted = net.eval()(x).sigmoid().numpy()
    threshold = malis.find_threshold(list(predicted[:16]), list(labels[:16]), NHOOD).threshold
    segmentation, _ = malis.affgraph_to_seg(predicted[16], NHOOD, threshold=threshold)
    scores = malis.metrics.evaluate(labels[16], segmentation)
    print(f"threshold {threshold:.2f}, a new image: object score {scores.object_score:.2f}, ", end="")
    print(f"Rand F-score {scores.rand_f_score:.2f}")
    return scores


if __name__ == "__main__":
    main()
