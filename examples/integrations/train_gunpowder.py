"""Train with gunpowder: a pipeline from arrays to batches, AddAffinities, and a Train node with `AffinityLoss`.

The criterion is a part of the model: the checkpoints of the Train node hold the model and the optimiser alone, and the
number of steps, which ends the warm-up, has to be in them. The model's output are logits.
"""

import gunpowder as gp
import numpy as np
import torch
from funlib.persistence import Array

from malis.malis_torch import AffinityLoss
from malis.synthetic import synthetic_image

NHOOD = [[-1, 0], [0, -1], [-9, 0], [0, -9]]
CROP = gp.Coordinate(64, 64)


class Model(torch.nn.Module):
    """A network that predicts affinities, and its loss."""

    def __init__(self, warmup: int) -> None:
        super().__init__()
        self.network = torch.nn.Sequential(
            torch.nn.Conv2d(1, 16, 7, padding=3), torch.nn.ReLU(), torch.nn.Conv2d(16, len(NHOOD), 7, padding=3)
        )
        self.criterion = AffinityLoss(NHOOD, warmup=warmup)

    def forward(self, raw: torch.Tensor) -> torch.Tensor:
        """Return logits (B, K, H, W)."""
        return self.network(raw)


def main(steps: int = 24, warmup: int = 16, checkpoint: str = "gunpowder_model") -> tuple[Model, list[float]]:
    """Train for a number of steps, going on after the last checkpoint; returns the model and the losses."""
    names = ("RAW", "LABELS", "KNOWN", "AFFINITIES", "MASK", "OUTPUT")
    raw, labels, known, affinities, mask, output = (gp.ArrayKey(name) for name in names)
    image, truth = synthetic_image(0, 256)
    annotated = np.ones(truth.shape, np.uint8)
    annotated[:, :64] = 0  # nobody has annotated these columns
    sources = tuple(
        gp.ArraySource(key, Array(array, voxel_size=(1, 1)), interpolatable=key == raw)
        for key, array in ((raw, image[0]), (labels, truth.astype(np.uint64)), (known, annotated))
    )
    model = Model(warmup)
    pipeline = (
        sources
        + gp.MergeProvider()
        + gp.RandomLocation()
        + gp.AddAffinities(NHOOD, labels, affinities, labels_mask=known, affinities_mask=mask)
        + gp.Unsqueeze([raw])
        + gp.Stack(4)
        + gp.torch.Train(
            model,
            model.criterion,
            torch.optim.Adam(model.parameters(), 1e-2),
            inputs={"raw": raw},
            outputs={0: output},
            loss_inputs={"output": output, "target": affinities, "mask": mask},
            checkpoint_basename=checkpoint,
            save_every=steps,
        )
    )
    request = gp.BatchRequest()
    for key in (raw, affinities, mask, output):
        request[key] = gp.ArraySpec(gp.Roi((0, 0), CROP))
    with gp.build(pipeline):
        losses = [float(pipeline.request_batch(request).loss) for _ in range(steps)]
    return model, losses


if __name__ == "__main__":
    parts = main()[0].criterion.parts
    print(", ".join(f"{name} {float(part):.4f}" for name, part in parts.items()))
