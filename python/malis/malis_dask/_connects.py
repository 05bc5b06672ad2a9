"""Which affinities are high enough."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt


def connects(aff: npt.NDArray[Any], threshold: float | None) -> npt.NDArray[np.bool_]:
    """Which edges connect; as the core compares, in the precision of the affinities."""
    if threshold is None:
        return np.asarray(np.abs(aff) > aff.dtype.type(1e-5))
    with np.errstate(over="ignore"):  # what is beyond the precision is infinite
        return np.asarray(aff >= aff.dtype.type(threshold))
