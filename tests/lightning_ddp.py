"""A script that `test_integrations.py` runs: Lightning trains three steps, with one process or with two.

    python lightning_ddp.py DEVICES FOLDER

Every process writes what it saw: the loss averaged over processes, the gradients, and how many steps were counted.
"""

import sys
from pathlib import Path

import lightning
import numpy as np
import torch
from torch.utils.data import DataLoader, Subset, TensorDataset

import malis
from malis.malis_torch import AffinityLoss
from malis.synthetic import synthetic_image

NHOOD = malis.mknhood2d(1)
STEPS, WARMUP, BATCH = 3, 1, 4


class Segmenter(lightning.LightningModule):
    """A small network that remembers its losses and gradients."""

    data: TensorDataset

    def __init__(self) -> None:
        super().__init__()
        self.network = torch.nn.Sequential(
            torch.nn.Conv2d(1, 4, 5, padding=2), torch.nn.GELU(), torch.nn.Conv2d(4, len(NHOOD), 3, padding=1)
        )
        self.criterion = AffinityLoss(NHOOD, warmup=WARMUP)
        self.losses: list[float] = []
        self.gradients: list[np.ndarray] = []

    def training_step(self, batch: list[torch.Tensor], _: int) -> torch.Tensor:
        """Return the loss of this process's share of the batch."""
        images, labels = batch
        loss = self.criterion(self.network(images), labels)
        self.losses.append(float(self.all_gather(loss.detach().double()).mean()))
        return loss

    def on_after_backward(self) -> None:
        """Remember the gradients, which are averaged over processes by now."""
        self.gradients.append(np.concatenate([p.grad.numpy().ravel() for p in self.network.parameters()]))

    def train_dataloader(self) -> DataLoader:
        """Return the share of this process: the shares of a step make up the batch of one process."""
        rank, world = self.trainer.global_rank, self.trainer.world_size
        mine = Subset(self.data, range(rank, len(self.data), world))
        return DataLoader(mine, batch_size=BATCH // world, shuffle=False)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return the optimiser."""
        return torch.optim.SGD(self.parameters(), 0.1)


def main(devices: int, folder: Path) -> None:
    """Train, and write what this process saw."""
    torch.manual_seed(0)
    pairs = (synthetic_image(seed, 48) for seed in range(STEPS * BATCH))
    images, labels = (torch.from_numpy(np.stack(arrays)) for arrays in zip(*pairs, strict=True))
    model = Segmenter()
    model.data = TensorDataset(images, labels)
    trainer = lightning.Trainer(
        accelerator="cpu",
        devices=devices,
        strategy="ddp" if devices > 1 else "auto",
        max_steps=STEPS,
        use_distributed_sampler=False,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        default_root_dir=folder,
    )
    trainer.fit(model)
    np.savez(
        folder / f"{devices}-{trainer.global_rank}.npz",
        losses=model.losses,
        gradients=model.gradients,
        counted=int(model.criterion.step),
    )


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))
