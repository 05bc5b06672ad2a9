"""The terms of the MALIS loss, for counts that are given; the formula is in cpp/include/malis/pairs/loss.hpp.

The core adds them up while it counts. Counts of chunked volumes are complete only at the end, and are many.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from malis._options import Options

_EPS = 1e-7

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
        positive, negative = self._terms(aff)
        with np.errstate(over="ignore"):
            return _dot(pos, positive[0]), _dot(neg, negative[0])

    def slopes(self, aff: npt.NDArray[Any], pos: Integers, neg: Integers, weights: tuple[float, float]) -> Floats:
        """Return the derivatives of the loss by the affinities."""
        positive, negative = self._terms(aff)
        with np.errstate(over="ignore"):
            return _times(weights[0] * pos, positive[1]) + _times(weights[1] * neg, negative[1])

    def check_finite(self, values: Any) -> None:
        """Refuse a loss or gradient that is not finite."""
        if not np.all(np.isfinite(values)):
            raise ValueError("aff must hold affinities of a finite loss and gradient, got one whose loss is infinite")

    def check(self, aff: npt.NDArray[Any]) -> None:
        """Refuse affinities beyond 0 and 1 where their cross entropy is asked for."""
        options = self.options
        if options.pointwise == "cross_entropy" and not options.from_logits and not (aff.min() >= 0 and aff.max() <= 1):
            raise ValueError(f"aff must hold values from 0 to 1, got values from {aff.min()} to {aff.max()}")

    def _terms(self, aff: npt.NDArray[Any]) -> tuple[tuple[Floats, Floats], tuple[Floats, Floats]]:
        """Return value and slope of positive pairs, and of negative ones."""
        x = aff.astype(np.float64)
        with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
            if self.options.pointwise == "cross_entropy":
                if self.options.from_logits:
                    return (_softplus(-x), -_sigmoid(-x)), (_softplus(x), _sigmoid(x))
                return (
                    (-np.log(np.maximum(x, _EPS)), np.where(x > _EPS, -1 / x, 0)),
                    (-np.log(np.maximum(1 - x, _EPS)), np.where(1 - x > _EPS, 1 / (1 - x), 0)),
                )
            s = _sigmoid(x) if self.options.from_logits else x
            inner = s * (1 - s) if self.options.from_logits else np.ones_like(s)
            low = np.maximum(0, 1 - self.options.margin - s)
            high = np.maximum(0, s - self.options.margin)
            return (low**2, -2 * _times(low, inner)), (high**2, 2 * _times(high, inner))


def _sigmoid(x: Floats) -> Floats:
    return 1 / (1 + np.exp(-x))


def _softplus(x: Floats) -> Floats:
    return np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x)))


def _times(factor: npt.NDArray[Any], values: Floats) -> Floats:
    """Multiply, where nothing of anything is nothing."""
    with np.errstate(invalid="ignore"):
        return np.where((factor == 0) | (values == 0), 0.0, factor * values)


def _dot(counts: Integers, values: Floats) -> float:
    return float(_times(counts, values).sum())
