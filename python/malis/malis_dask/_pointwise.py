"""The terms of the MALIS loss, for counts that are given.

The core adds them up while it counts. Counts of chunked volumes are complete only at the end, and are many.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from malis import _core
from malis._options import Options

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Terms:
    """What an edge adds to the loss for each of its pairs."""

    options: Options

    def weights(self, pos: int, neg: int) -> tuple[float, float]:
        """Return the factors of positive and of negative pairs, of which there are so many."""
        options = self.options

        def weight(of_pass: float, count: int) -> float:
            return 2 * of_pass * (1.0 if not options.normalize else 1 / count if count > 0 else 0.0)

        return weight(options.pos_loss_weight, pos), weight(1 - options.pos_loss_weight, neg)

    def sums(self, aff: npt.NDArray[Any], pos: Integers, neg: Integers) -> tuple[float, float]:
        """Return the sums of the terms of positive and of negative pairs."""
        positive, _, negative, _ = self._terms(aff)
        with np.errstate(over="ignore"):
            return _dot(pos, positive), _dot(neg, negative)

    def slopes(self, aff: npt.NDArray[Any], pos: Integers, neg: Integers, weights: tuple[float, float]) -> Floats:
        """Return the derivatives of the loss by the affinities."""
        _, positive, _, negative = self._terms(aff)
        with np.errstate(over="ignore"):
            return _times(weights[0] * pos, positive) + _times(weights[1] * neg, negative)

    def check_finite(self, values: Any) -> None:
        """Refuse a loss or gradient that is not finite."""
        if not np.all(np.isfinite(values)):
            raise ValueError("aff must hold affinities of a finite loss and gradient, got one whose loss is infinite")

    def check(self, aff: npt.NDArray[Any]) -> None:
        """Refuse affinities beyond 0 and 1 where their cross entropy is asked for."""
        options = self.options
        if options.pointwise == "cross_entropy" and not options.from_logits and not (aff.min() >= 0 and aff.max() <= 1):
            raise ValueError(f"aff must hold values from 0 to 1, got values from {aff.min()} to {aff.max()}")

    def _terms(self, aff: npt.NDArray[Any]) -> tuple[Floats, Floats, Floats, Floats]:
        """Return value and slope of positive pairs, then of negative ones."""
        return _core.pair_terms(np.ascontiguousarray(aff, np.float64), **self.options.for_core())


def _times(factor: npt.NDArray[Any], values: Floats) -> Floats:
    """Multiply, where nothing of anything is nothing."""
    with np.errstate(invalid="ignore"):
        return np.where((factor == 0) | (values == 0), 0.0, factor * values)


def _dot(counts: Integers, values: Floats) -> float:
    return float(_times(counts, values).sum())
