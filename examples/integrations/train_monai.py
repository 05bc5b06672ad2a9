"""Train with MONAI's SupervisedTrainer: dictionaries of images and labels, transforms, `AffinityLoss`, a checkpoint.

The trainer calls the loss with the prediction and the labels. The checkpoint holds the criterion besides the network,
for the number of steps, which ends the warm-up.
"""

import numpy as np
import torch
from monai.data import DataLoader, Dataset
from monai.engines import SupervisedTrainer
from monai.handlers import CheckpointSaver, StatsHandler
from monai.networks.nets import BasicUNet
from monai.transforms import Compose, EnsureTyped, RandFlipd, RandSpatialCropd
from monai.utils import set_determinism

import malis
from malis.malis_torch import AffinityLoss
from malis.synthetic import synthetic_image

NHOOD = malis.mknhood2d(1)


def main(epochs: int = 6, warmup: int = 16, folder: str = "monai_output") -> AffinityLoss:
    """Train for epochs of four steps; returns the criterion."""
    set_determinism(0)
    samples = [synthetic_image(seed, 96) for seed in range(8)]
    transforms = Compose(
        [
            EnsureTyped(["image", "label"]),
            RandSpatialCropd(["image", "label"], (64, 64), random_size=False),
            RandFlipd(["image", "label"], prob=0.5, spatial_axis=0),
        ]
    )
    # With an axis for the channel, as MONAI's transforms take it: (1, H, W).
    data = Dataset([{"image": image, "label": labels[np.newaxis]} for image, labels in samples], transforms)
    network = BasicUNet(2, 1, len(NHOOD), features=(8, 8, 16, 16, 32, 8), norm="batch", upsample="nontrainable")
    # A crop may cut an object in two: the pieces are objects of their own.
    criterion = AffinityLoss(NHOOD, warmup=warmup, connect_labels=True)
    optimizer = torch.optim.Adam(network.parameters(), 5e-3)
    saved = {"network": network, "criterion": criterion, "optimizer": optimizer}
    trainer = SupervisedTrainer(
        device=torch.device("cpu"),
        max_epochs=epochs,
        train_data_loader=DataLoader(data, batch_size=2, shuffle=True),
        network=network,
        optimizer=optimizer,
        loss_function=criterion,
        train_handlers=[
            StatsHandler(name="loss", tag_name="loss", output_transform=lambda output: output[0]["loss"]),
            CheckpointSaver(save_dir=folder, save_dict=saved, save_final=True, final_filename="last.pt"),
        ],
    )
    trainer.run()
    return criterion


if __name__ == "__main__":
    parts = main().parts
    print(", ".join(f"{name} {float(part):.4f}" for name, part in parts.items()))
