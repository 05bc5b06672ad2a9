"""The methods that benchmark_losses.py compares: what a network predicts, how it is warmed up, and what follows.

All are trained in two phases with an optimiser each, three quarters of the steps and the last quarter by default.
Methods of one start share the first phase, so that it is trained once and they differ in nothing but the second.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

import malis
from data import Labels, connected, with_border
from malis.malis_torch import AffinityLoss
from object_balance import balanced_malis
from tasks import NHOOD, Probabilities
from training import Phase

# Neighbours, and offsets of about the radius of the smallest objects and beyond: 4 and 9 pixels along each axis.
LONG_RANGE = np.concatenate([NHOOD, [[-4, 0], [0, -4], [-9, 0], [0, -9]]]).astype(np.int32)


@dataclass(frozen=True)
class Start:
    """What a network predicts, and the labels that it is trained on: all that is fixed with the first phase."""

    nhood: npt.NDArray[np.int32] | None  # None: the mask of all objects
    border: bool = False  # put background between objects that touch

    @property
    def channels(self) -> int:
        """Return the number of channels of the network."""
        return 1 if self.nhood is None else len(self.nhood)

    def affinities(self, predicted: Probabilities) -> npt.NDArray[np.float32]:
        """Return the affinities of the nearest neighbours, by which images are segmented."""
        if self.nhood is None:
            return malis.bmap_to_affgraph(1 - predicted[0], NHOOD)
        return predicted[: len(NHOOD)]


STARTS = {
    "mask": Start(None),
    "nearest": Start(NHOOD),
    "long range": Start(LONG_RANGE),
    "border": Start(NHOOD, border=True),
}


@dataclass(frozen=True)
class Method:
    """The second phase of a training."""

    name: str
    start: str
    malis: float = 0.0  # weight of MALIS
    connected: bool = True  # give the parts of an object that a crop has cut a label each
    balance: str = "pairs"  # what counts alike in MALIS: "pairs" of pixels, or "objects"
    mix: float | None = None  # weight of the cross entropy beside MALIS; None: that of the option --mix
    margin: float | None = None  # None: that of the option --margin
    pointwise: str | None = None  # None: the default of AffinityLoss
    average: float | None = None  # decay of a moving average of the weights of the second phase; None: the last weights

    def settings(self) -> dict[str, Any]:
        """Return what makes the method, for the log."""
        return {key: value for key, value in asdict(self).items() if key != "name" and value is not None}

    def where_nothing_touches(self) -> Method:
        """Return the method that does the same on labels that do not touch."""
        return replace(self, start="nearest") if STARTS[self.start].border else self

    def prepare(self) -> Callable[[Labels], Labels]:
        """Return what makes the labels that a crop is trained on of its true ones."""
        if STARTS[self.start].border:
            return with_border
        return connected if self.connected else np.ascontiguousarray

    def phases(self, steps: int, warmup: float, lr: float, mix: float) -> list[Phase]:
        """Return the two phases; the first one is that of the start."""
        first = round(steps * warmup)
        entropy = 1.0 if self.malis == 0 else mix if self.mix is None else self.mix
        return [
            Phase("warm-up", first, lr, malis=0, cross_entropy=1),
            Phase(self.name, steps - first, lr / 2, malis=self.malis, cross_entropy=entropy),
        ]

    def criterion(self, phase: Phase, margin: float) -> Callable[[torch.Tensor, torch.Tensor], torch.Tensor]:
        """Return the loss of a phase: (logits, labels) -> a scalar."""
        nhood = STARTS[self.start].nhood
        if nhood is None:
            entropy = torch.nn.functional.binary_cross_entropy_with_logits
            return lambda logits, labels: entropy(logits, (labels[:, None] > 0).to(logits))
        by_object = phase.malis > 0 and self.balance == "objects"
        margin = margin if self.margin is None else self.margin
        loss = AffinityLoss(
            nhood,
            malis=0.0 if by_object else phase.malis,
            cross_entropy=phase.cross_entropy,
            warmup=0,
            margin=margin,
            **({} if self.pointwise is None else {"pointwise": self.pointwise}),
        )
        if by_object:
            return lambda logits, labels: (
                phase.malis * balanced_malis(logits, labels, nhood, margin) + loss(logits, labels)
            )
        return loss


BASELINE = "BCE on affinities"
METHODS = (
    Method(BASELINE, "nearest"),
    Method("MALIS after BCE", "nearest", malis=1),
    Method("MALIS, labels not reconnected", "nearest", malis=1, connected=False),
    Method("MALIS, objects alike", "nearest", malis=1, balance="objects"),
    Method("MALIS, 0.2 BCE", "nearest", malis=1, mix=0.2),
    Method("MALIS, 0.2 BCE, margin 0.3", "nearest", malis=1, mix=0.2, margin=0.3),
    Method("MALIS, cross entropy", "nearest", malis=1, pointwise="cross_entropy"),
    Method("BCE, border", "border"),
    Method("MALIS, border", "border", malis=1),
    Method("MALIS, border, 0.2 BCE", "border", malis=1, mix=0.2),
    Method("MALIS, border, margin 0.2", "border", malis=1, margin=0.2),
    Method("MALIS, border, margin 0.3", "border", malis=1, margin=0.3),
    Method("MALIS, border, 0.2 BCE, margin 0.3", "border", malis=1, mix=0.2, margin=0.3),
    Method("MALIS, border, objects alike", "border", malis=1, balance="objects"),
    Method("MALIS, border, cross entropy", "border", malis=1, pointwise="cross_entropy"),
    Method("BCE, border, averaged", "border", average=0.98),
    Method("MALIS, border, averaged", "border", malis=1, average=0.98),
    Method("BCE, long range", "long range"),
    Method("MALIS, long range", "long range", malis=1),
    Method("cross entropy on the mask", "mask"),
)
