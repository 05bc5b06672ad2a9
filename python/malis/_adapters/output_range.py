"""A warning for outputs that do not look like what `from_logits` says: the loss of such a training looks perfect.

Logits without ``from_logits=True`` are far above 1 and below 0, where the hinge has no loss and no gradient; affinities
with it are squeezed by one more sigmoid into 0.5 to 0.73. Either is an easy mistake that no shape or dtype shows.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import numpy.typing as npt

# So many values, spread over the output, tell nearly always; they take some microseconds.
_SAMPLES = 4096
_FEWEST = 64  # fewer logits may all be within 0 and 1 by chance

_warned: set[bool] = set()


def warn_of_range(output: npt.NDArray[Any], from_logits: bool, name: str) -> None:
    """Warn once per process, and once for each of the two mistakes."""
    if from_logits in _warned or output.size < _FEWEST:
        return
    values = output.ravel(order="K")
    step = max(1, values.size // _SAMPLES) | 1  # odd, so that it does not stay in one column
    low, high = _extent(values[::step])
    if from_logits:
        if not (low >= 0 and high <= 1):
            return
        low, high = _extent(values)
        if not (low >= 0 and high <= 1 and low < high):  # layers that begin with zeros give one value
            return
        advice = "affinities after a sigmoid need from_logits=False"
    else:
        if not (low < 0 or high > 1):  # also for NaN, which has an error of its own
            return
        advice = "logits need from_logits=True; affinities lie within 0 and 1"
    _warned.add(from_logits)
    warnings.warn(
        f"{name} holds values from {low:.3g} to {high:.3g}, with from_logits={from_logits}: {advice}", stacklevel=2
    )


def _extent(values: npt.NDArray[Any]) -> tuple[float, float]:
    return float(np.min(values)), float(np.max(values))
