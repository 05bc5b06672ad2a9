"""Train with the Trainer of Hugging Face's transformers: the model computes its own `AffinityLoss`.

The criterion is a submodule, so that the number of steps, which ends the warm-up, is saved and loaded with the model.
Every call counts as a step, also each of several before one step of the optimiser.
"""

import numpy as np
import torch
from torch.utils.data import Dataset
from transformers import Trainer, TrainingArguments, set_seed

import malis
from malis.malis_torch import AffinityLoss
from malis.synthetic import synthetic_image

NHOOD = malis.mknhood2d(1)


class Images(Dataset):
    """Images and instance labels, by the names of the model's arguments."""

    def __init__(self, number: int) -> None:
        self.samples = [synthetic_image(seed, 64) for seed in range(number)]

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, at: int) -> dict[str, np.ndarray]:
        image, labels = self.samples[at]
        return {"pixel_values": image, "labels": labels}


class Segmenter(torch.nn.Module):
    """A network that predicts affinities, and returns their loss where it is given labels."""

    def __init__(self, warmup: int) -> None:
        super().__init__()
        self.network = torch.nn.Sequential(
            torch.nn.Conv2d(1, 16, 7, padding=3), torch.nn.ReLU(), torch.nn.Conv2d(16, len(NHOOD), 7, padding=3)
        )
        self.criterion = AffinityLoss(NHOOD, warmup=warmup)

    def forward(self, pixel_values: torch.Tensor, labels: torch.Tensor | None = None) -> dict[str, torch.Tensor]:
        """Return logits, and the loss."""
        logits = self.network(pixel_values)
        return {"logits": logits} if labels is None else {"loss": self.criterion(logits, labels), "logits": logits}


class SegmenterTrainer(Trainer):
    """A trainer that writes the parts of the last loss into its log."""

    def log(self, logs: dict[str, float], *others: float) -> None:
        """Extend the entry of this step."""
        parts = {name: float(part) for name, part in self.model.criterion.parts.items()}
        super().log({**logs, **parts}, *others)


def main(steps: int = 20, warmup: int = 12, accumulate: int = 2, folder: str = "huggingface_output") -> Trainer:
    """Train for a number of steps of the optimiser, of which `warmup` are without MALIS."""
    set_seed(0)
    trainer = SegmenterTrainer(
        model=Segmenter(warmup * accumulate),
        args=TrainingArguments(
            folder,
            max_steps=steps,
            per_device_train_batch_size=2,
            gradient_accumulation_steps=accumulate,
            learning_rate=1e-2,
            logging_steps=1,
            save_steps=steps,
            report_to="none",
            use_cpu=not torch.cuda.is_available(),
        ),
        train_dataset=Images(8),
    )
    trainer.train()
    return trainer


if __name__ == "__main__":
    parts = main().model.criterion.parts
    print(", ".join(f"{name} {float(part):.4f}" for name, part in parts.items()))
