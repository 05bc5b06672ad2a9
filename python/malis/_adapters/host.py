"""The loss of a batch of NumPy arrays, for adapters that call back into Python."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from malis._adapters.names import Names
from malis._options import Options
from malis.loss import batch_loss

_Array = npt.NDArray[Any]


def evaluate(
    output: _Array,
    labels: _Array,
    edge_mask: _Array | None,
    unlabelled_mask: _Array | None,
    *,
    nhood: npt.ArrayLike,
    options: Options,
    names: Names,
    channels_last: bool,
    scale: float,
    label_limit: int | None = None,
) -> tuple[_Array, _Array]:
    """Loss of every sample in the dtype of `output`, and its derivative times `scale` in the layout of `output`.

    `output` is float32 or float64. The memory of C-contiguous arrays is read where it lies.
    """
    if output.shape[0] == 0:  # a replica may get no sample of the last batch
        return np.zeros(0, output.dtype), np.zeros_like(output)
    with names.in_errors():
        check_limit(labels, label_limit)
        losses, grad = batch_loss(
            output,
            labels,
            nhood,
            edge_mask=edge_mask,
            unlabelled_mask=unlabelled_mask,
            channels_last=channels_last,
            scale=scale,
            **options.as_keywords(),
        )
    return np.asarray(losses).astype(output.dtype), grad


def check_limit(labels: _Array, limit: int | None) -> None:
    """Check that labels are below `limit`: larger ones were rounded when something turned them into floats."""
    largest = 0 if limit is None else labels.max(initial=0)
    if limit is not None and np.isfinite(largest) and largest >= limit:
        raise ValueError(
            f"seg must hold labels below {limit}, as its floating point dtype rounds larger ones, got {largest:.0f}"
        )
