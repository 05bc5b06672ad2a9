"""What the adapters of TensorFlow, Keras and JAX share: options, and checks of shapes that may be unknown in part."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from malis import _checks
from malis.loss import POINTWISE
from malis.nhood import mknhood2d, mknhood3d

Nhood = tuple[tuple[int, ...], ...]
Shape = Sequence[int | None]  # None: not known before the graph runs

REDUCTIONS = ("mean", "sum", "none")
DATA_FORMATS = ("channels_first", "channels_last")
FLOATS = ("float16", "bfloat16", "float32", "float64")

# Labels that a framework has turned into floats are whole as long as the dtype can tell them apart.
LABEL_LIMITS = {"bfloat16": 2**8, "float16": 2**11, "float32": 2**24, "float64": 2**53}


def as_tuples(nhood: npt.ArrayLike) -> Nhood:
    """Check a neighbourhood and return it hashable."""
    return tuple(tuple(offset) for offset in _checks.as_nhood(nhood).tolist())


_NEAREST: dict[int, Nhood] = {1: ((-1,),), 2: as_tuples(mknhood2d()), 3: as_tuples(mknhood3d())}


class Options(NamedTuple):
    """The options of `malis.malis_loss` that are no arrays."""

    margin: float = 0.3
    pos_loss_weight: float = 0.5
    normalize: bool = True
    pointwise: str = "squared_hinge"
    from_logits: bool = False
    constrain_positive: bool = True
    constrain_negative: bool = True
    ignore_background: bool = True
    num_threads: int | None = None

    def checked(self) -> Options:
        """Check every option, and return them in their plain types."""
        weight = _checks.as_real(self.pos_loss_weight, "pos_loss_weight")
        if not 0 <= weight <= 1:
            raise ValueError(f"pos_loss_weight must be within 0 and 1, got {self.pos_loss_weight!r}")
        return Options(
            _checks.as_real(self.margin, "margin"),
            weight,
            _checks.as_flag(self.normalize, "normalize"),
            _checks.as_choice(self.pointwise, "pointwise", POINTWISE),
            _checks.as_flag(self.from_logits, "from_logits"),
            _checks.as_flag(self.constrain_positive, "constrain_positive"),
            _checks.as_flag(self.constrain_negative, "constrain_negative"),
            _checks.as_flag(self.ignore_background, "ignore_background"),
            _checks.as_threads(self.num_threads),
        )


class Names(NamedTuple):
    """What the user calls the labels and the affinities."""

    labels: str = "seg_gt"
    output: str = "output"

    def of_core(self, message: str) -> str:
        """Put these names into a message of the core, which calls its arrays seg and aff."""
        for core_name, name in (("aff ", self.output), ("seg ", self.labels)):
            if message.startswith(core_name):
                return f"{name} {message[len(core_name) :]}"
        return message


class Tensor(NamedTuple):
    """What is known about a tensor before the graph runs."""

    shape: Shape
    dtype: str

    def __str__(self) -> str:
        return f"a tensor of shape {tuple(self.shape)} and dtype {self.dtype}"


def _fits(shape: Shape, expected: Shape) -> bool:
    return len(shape) == len(expected) and all(
        n is None or m is None or n == m for n, m in zip(shape, expected, strict=True)
    )


def with_channel(shape: Shape, channels: int | None, channels_last: bool) -> Shape:
    """Shape ``(B, *spatial)`` with an axis for channels."""
    return (*shape, channels) if channels_last else (shape[0], channels, *shape[1:])


def check_output(output: Tensor, name: str, ndim: int | None, nhood: Nhood | None, channels_last: bool) -> Nhood:
    """Check affinities on their own and return the neighbourhood that their channels stand for."""
    if ndim is None and nhood is not None:
        ndim = len(nhood[0])
    if ndim is None:
        if not 3 <= len(output.shape) <= 5:
            axes = "(B, *spatial, K)" if channels_last else "(B, K, *spatial)"
            raise ValueError(f"{name} must have shape {axes} with 1 to 3 axes, got {output}")
        ndim = len(output.shape) - 2
    if nhood is None:
        nhood = _NEAREST[ndim]
    if len(nhood[0]) != ndim:
        raise ValueError(f"nhood must have {ndim} columns, one for each spatial axis, got {len(nhood[0])}: {nhood}")
    if len(output.shape) != ndim + 2:
        spatial = ("L", "H, W", "D, H, W")[ndim - 1]
        axes = f"(B, {spatial}, K)" if channels_last else f"(B, K, {spatial})"
        raise ValueError(f"{name} must have shape {axes}, got {output}")
    if output.dtype not in FLOATS:
        raise TypeError(f"{name} must have dtype float16, bfloat16, float32 or float64, got {output}")
    if output.shape[-1 if channels_last else 1] not in (None, len(nhood)):
        raise ValueError(f"{name} must have one channel for each of the {len(nhood)} offsets of nhood, got {output}")
    if 0 in output.shape:
        raise ValueError(f"{name} must not be empty, got {output}")
    return nhood


def spatial_of(output: Tensor, channels_last: bool) -> Shape:
    """Shape ``(B, *spatial)`` of affinities."""
    return output.shape[:-1] if channels_last else (output.shape[0], *output.shape[2:])


def has_channel(voxels: Tensor, name: str, output: Tensor, output_name: str, channels_last: bool) -> bool:
    """Check labels or a mask of voxels against the affinities and tell whether they have an axis for a channel."""
    shape = spatial_of(output, channels_last)
    single = with_channel(shape, 1, channels_last)
    for channel, expected in ((False, shape), (True, single)):
        if _fits(voxels.shape, expected):
            return channel
    raise ValueError(
        f"{name} must have shape {tuple(shape)} or {tuple(single)} for an {output_name} of shape "
        f"{tuple(output.shape)}, got {voxels}"
    )


def check_labels(labels: Tensor, name: str) -> None:
    """Check the dtype of labels."""
    if labels.dtype not in (*FLOATS, "bool") and not labels.dtype.startswith(("int", "uint")):
        raise TypeError(f"{name} must hold integer labels, got {labels}")


def check_mask(mask: Tensor, name: str) -> None:
    """Check the dtype of a mask."""
    if mask.dtype != "bool":
        raise TypeError(f"{name} must have dtype bool, got {mask}")


def check_edge_mask(mask: Tensor, name: str, output: Tensor, output_name: str) -> None:
    """Check a mask of edges against the affinities."""
    check_mask(mask, name)
    if not _fits(mask.shape, output.shape):
        raise ValueError(f"{name} must have the shape of {output_name}, {tuple(output.shape)}, got {mask}")


def as_integers(labels: _checks.Array, limit: int | None) -> _checks.Array:
    """Take floats that hold small integers as int32, in fewer passes than the core, which takes any.

    With a `limit`, labels from there on are an error: they were rounded when something turned them into floats.
    """
    if labels.dtype.kind != "f":
        return labels
    with np.errstate(invalid="ignore"):
        integers = labels.astype(np.int32)
    whole = np.array_equal(integers, labels)  # False for NaN and for what int32 cannot hold
    largest = integers.max(initial=0) if whole else labels.max(initial=0)
    if limit is not None and np.isfinite(largest) and largest >= limit:
        raise ValueError(
            f"seg must hold labels below {limit}, as its floating point dtype rounds larger ones, got {largest:.0f}"
        )
    return integers if whole else labels
