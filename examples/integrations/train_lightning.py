"""Train in Lightning: `AffinityLoss` as a part of the module, its parts in the log, gradients accumulated.

The criterion is a submodule: the number of steps, which ends the warm-up, is saved and loaded with the checkpoint.
Every call counts as a step, also each of several before one step of the optimiser.
"""

import lightning
import numpy as np
import torch
from lightning.pytorch.loggers import CSVLogger
from torch.utils.data import DataLoader, TensorDataset

import malis
from malis.malis_torch import AffinityLoss
from malis.synthetic import synthetic_image

NHOOD = malis.mknhood2d(1)


class Segmenter(lightning.LightningModule):
    """A network that predicts affinities, and its loss."""

    def __init__(self, warmup: int) -> None:
        super().__init__()
        self.network = torch.nn.Sequential(
            torch.nn.Conv2d(1, 16, 7, padding=3), torch.nn.ReLU(), torch.nn.Conv2d(16, len(NHOOD), 7, padding=3)
        )
        self.criterion = AffinityLoss(NHOOD, warmup=warmup)

    def training_step(self, batch: list[torch.Tensor], _: int) -> torch.Tensor:
        """Return the loss of a batch of images and instance labels."""
        images, labels = batch
        loss = self.criterion(self.network(images), labels)
        self.log("loss", loss, prog_bar=True)
        # Before the warm-up ends there is no "malis" among them.
        self.log_dict({f"loss/{name}": part for name, part in self.criterion.parts.items()})
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return the optimiser."""
        return torch.optim.Adam(self.parameters(), 1e-2)


def main(steps: int = 20, warmup: int = 12, accumulate: int = 2, folder: str = "lightning_output") -> Segmenter:
    """Train for a number of steps of the optimiser, of which `warmup` are without MALIS."""
    lightning.seed_everything(0)
    images, labels = (np.stack(arrays) for arrays in zip(*(synthetic_image(s, 64) for s in range(8)), strict=True))
    loader = DataLoader(TensorDataset(torch.from_numpy(images), torch.from_numpy(labels)), batch_size=2, shuffle=True)
    model = Segmenter(warmup * accumulate)
    trainer = lightning.Trainer(
        max_steps=steps,
        accumulate_grad_batches=accumulate,
        logger=CSVLogger(folder),
        log_every_n_steps=1,
        default_root_dir=folder,
    )
    trainer.fit(model, loader)
    return model


if __name__ == "__main__":
    parts = main().criterion.parts
    print(", ".join(f"{name} {float(part):.4f}" for name, part in parts.items()))
