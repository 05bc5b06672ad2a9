"""What a network predicts for a loss, and the segmentation that follows from it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import expit

import malis
from data import Image

Probabilities = npt.NDArray[np.float32]  # (channels of the task, H, W)
Network = Callable[[Image], npt.NDArray[np.float32]]  # logits (channels of the task, H, W); H and W multiples of 16

LOSSES = ("malis", "affinity-bce", "cross-entropy")
NHOOD = malis.mknhood2d(1)
MIN_SIZE = 64  # smaller objects are dropped before scoring, as published


@dataclass(frozen=True)
class Task:
    """Targets and segmentations of a loss."""

    channels: int
    target: Callable[[npt.NDArray[np.int32]], npt.NDArray[np.float32]]  # (B, H, W) -> (B, channels, H, W)
    affinities: Callable[[Probabilities], npt.NDArray[np.float32]]  # (channels, H, W) -> (2, H, W)

    @property
    def of_mask(self) -> bool:
        """Whether the network predicts where objects are, and not affinities: there is no `AffinityLoss` for that."""
        return self.channels == 1

    def segment(self, probabilities: Probabilities, threshold: float) -> npt.NDArray[Any]:
        """Return the objects that probabilities above the threshold connect, as labels (H, W)."""
        return components(self.affinities(probabilities), threshold)


def components(affinities: npt.NDArray[np.float32], threshold: float) -> npt.NDArray[Any]:
    """Return what the edges of at least the threshold connect, as labels (H, W), without objects too small to score."""
    return malis.affgraph_to_seg(affinities, NHOOD, min_size=MIN_SIZE, threshold=threshold)[0]


def _affinity_target(labels: npt.NDArray[np.int32]) -> npt.NDArray[np.float32]:
    return np.stack([malis.seg_to_affgraph(i, NHOOD) for i in labels]).astype(np.float32)


def task_of(loss: str) -> Task:
    """Return affinities of the nearest neighbours, or the object mask for "cross-entropy"."""
    if loss not in LOSSES:
        raise ValueError(f"loss must be one of {', '.join(LOSSES)}, got {loss!r}")
    if loss == "cross-entropy":
        return Task(
            1,
            target=lambda labels: (labels[:, np.newaxis] > 0).astype(np.float32),
            affinities=lambda mask: malis.bmap_to_affgraph(1 - mask[0], NHOOD),
        )
    return Task(len(NHOOD), _affinity_target, affinities=lambda affinities: affinities)


def probabilities(network: Network, image: Image) -> Probabilities:
    """Predict an image of any size: the U-Net halves its input four times."""
    height, width = image.shape[1:]
    padded = np.pad(image, [(0, 0), (0, -height % 16), (0, -width % 16)], mode="reflect")
    return np.ascontiguousarray(expit(network(padded))[:, :height, :width], dtype=np.float32)
