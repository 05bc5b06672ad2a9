"""Settings of an adapter, and the checks of tensors, whose shapes may be unknown in part.

Only shapes and dtypes are checked here, which are known before a graph runs. The core checks the values.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy.typing as npt

from malis import _checks
from malis._adapters.names import Names
from malis._options import LossOptions, Options
from malis.nhood import mknhood2d, mknhood3d

Nhood = tuple[tuple[int, ...], ...]
Shape = Sequence[int | None]  # None: not known before the graph runs

REDUCTIONS = ("mean", "sum", "none")
DATA_FORMATS = ("channels_first", "channels_last")
FLOATS = ("float16", "bfloat16", "float32", "float64")

# Below these numbers a floating point dtype holds every integer. From there on it rounds, so that two objects whose
# labels a framework has turned into floats may have become one.
LABEL_LIMITS = {"bfloat16": 2**8, "float16": 2**11, "float32": 2**24, "float64": 2**53}


def as_tuples(nhood: npt.ArrayLike) -> Nhood:
    """Check a neighbourhood and return it hashable."""
    return tuple(tuple(offset) for offset in _checks.as_nhood(nhood).tolist())


_NEAREST: dict[int, Nhood] = {1: ((-1,),), 2: as_tuples(mknhood2d()), 3: as_tuples(mknhood3d())}


class Tensor(NamedTuple):
    """What is known about a tensor before the graph runs."""

    shape: Shape
    dtype: str
    prefix: str = ""  # what the framework writes before the names of dtypes

    def __str__(self) -> str:
        return f"a tensor of shape {tuple(self.shape)} and dtype {self.prefix}{self.dtype}"


def fits(shape: Shape, expected: Shape) -> bool:
    """Whether a shape may be the expected one, as far as both are known."""
    return len(shape) == len(expected) and all(
        n is None or m is None or n == m for n, m in zip(shape, expected, strict=True)
    )


class Checked(NamedTuple):
    """What an adapter has to know about tensors that go together."""

    nhood: Nhood
    labels_have_channel: bool
    mask_has_channel: bool
    label_limit: int | None  # labels must be below it, as their dtype rounds larger ones; None: any are taken


class Settings(NamedTuple):
    """What an adapter is told besides the tensors."""

    ndim: int | None  # None: that of the neighbourhood, or of the output
    nhood: Nhood | None  # None: the nearest neighbours
    options: Options
    channels_last: bool
    names: Names
    warn: bool = True  # of outputs that do not look like what `from_logits` says
    rounded_labels: bool = False  # the framework made floats of integer labels: those that this rounds are an error

    @classmethod
    def of(
        cls,
        ndim: int | None,
        names: Names,
        nhood: npt.ArrayLike | None,
        options: LossOptions,
        data_format: str,
    ) -> Settings:
        """Check what a user gave, and take it as settings."""
        offsets = None if nhood is None else as_tuples(nhood)
        layout = _checks.as_choice(data_format, "data_format", DATA_FORMATS)
        return cls(ndim, offsets, Options.of(options), layout == "channels_last", names)

    # A method and no property: the compiler of PyTorch 2.4 does not know properties of named tuples.
    def channel_axis(self) -> int:
        """Axis of the channels in affinities."""
        return -1 if self.channels_last else 1

    def check(
        self, output: Tensor, labels: Tensor, edge_mask: Tensor | None, unlabelled_mask: Tensor | None
    ) -> Checked:
        """Check shapes and dtypes. The core checks the values."""
        nhood = self.check_output(output, labels)
        if labels.dtype not in (*FLOATS, "bool") and not labels.dtype.startswith(("int", "uint")):
            raise TypeError(f"{self.names.labels} must hold integer labels, got {labels}")
        labels_have_channel = self._has_channel(labels, self.names.labels, output)
        if edge_mask is not None:
            _check_mask(edge_mask, "edge_mask")
            if not fits(edge_mask.shape, output.shape):
                expected = f"the shape of {self.names.output}, {tuple(output.shape)}"
                raise ValueError(f"edge_mask must have {expected}, got {edge_mask}")
        mask_has_channel = False
        if unlabelled_mask is not None:
            _check_mask(unlabelled_mask, "unlabelled_mask")
            mask_has_channel = self._has_channel(unlabelled_mask, "unlabelled_mask", output)
        limit = LABEL_LIMITS.get(labels.dtype) if self.rounded_labels else None
        return Checked(nhood, labels_have_channel, mask_has_channel, limit)

    def check_output(self, output: Tensor, labels: Tensor) -> Nhood:
        """Check affinities and return the neighbourhood that their channels stand for.

        The labels are looked at to tell whether a caller has given the two in the wrong order.
        """
        if self._look_swapped(output, labels):
            raise ValueError(
                f"{self.names.output} and {self.names.labels} look swapped: {self.names.output} is {output}, as labels "
                f"are, and {self.names.labels} is {labels}, as affinities are"
            )
        name, ndim, nhood = self.names.output, self.ndim, self.nhood
        if ndim is None and nhood is not None:
            ndim = len(nhood[0])
        if ndim is None:
            if not 3 <= len(output.shape) <= 5:
                axes = "(B, *spatial, K)" if self.channels_last else "(B, K, *spatial)"
                raise ValueError(f"{name} must have shape {axes} with 1 to 3 axes, got {output}")
            ndim = len(output.shape) - 2
        if nhood is None:
            nhood = _NEAREST[ndim]
        if len(nhood[0]) != ndim:
            raise ValueError(f"nhood must have {ndim} columns, one for each spatial axis, got {len(nhood[0])}: {nhood}")
        if len(output.shape) != ndim + 2:
            spatial = ("L", "H, W", "D, H, W")[ndim - 1]
            axes = f"(B, {spatial}, K)" if self.channels_last else f"(B, K, {spatial})"
            raise ValueError(f"{name} must have shape {axes}, got {output}")
        if output.dtype not in FLOATS:
            raise TypeError(f"{name} must have dtype float16, bfloat16, float32 or float64, got {output}")
        if output.shape[self.channel_axis()] not in (None, len(nhood)):
            raise ValueError(
                f"{name} must have one channel for each of the {len(nhood)} offsets of nhood, got {output}"
            )
        if 0 in output.shape:
            raise ValueError(f"{name} must not be empty, got {output}")
        return nhood

    def _look_swapped(self, output: Tensor, labels: Tensor) -> bool:
        """Whether affinities lie where labels belong, and labels where affinities belong."""
        if labels.dtype not in FLOATS or len(labels.shape) < 3:
            return False
        channels = labels.shape[self.channel_axis()]
        if channels is None or (self.nhood is not None and channels != len(self.nhood)):
            return False
        shapes = [self.without_channel(labels.shape), self.with_one_channel(labels.shape)]
        if output.dtype not in FLOATS:
            return any(fits(output.shape, shape) for shape in (*shapes, labels.shape))
        return channels > 1 and any(fits(output.shape, shape) for shape in shapes)

    def without_channel(self, shape: Shape) -> tuple[int | None, ...]:
        """Shape of the labels for affinities of a shape."""
        batch, *others = shape
        return (batch, *(others[:-1] if self.channels_last else others[1:]))

    def with_one_channel(self, shape: Shape) -> tuple[int | None, ...]:
        """Shape of the labels for affinities of a shape, with an axis for the channel."""
        batch, *spatial = self.without_channel(shape)
        return (batch, *spatial, 1) if self.channels_last else (batch, 1, *spatial)

    def _has_channel(self, voxels: Tensor, name: str, output: Tensor) -> bool:
        """Check labels or a mask of voxels against the affinities and tell whether they have an axis for a channel."""
        without, single = self.without_channel(output.shape), self.with_one_channel(output.shape)
        for channel, expected in ((False, without), (True, single)):
            if fits(voxels.shape, expected):
                return channel
        raise ValueError(
            f"{name} must have shape {without} or {single} for an {self.names.output} of shape "
            f"{tuple(output.shape)}, got {voxels}"
        )


def _check_mask(mask: Tensor, name: str) -> None:
    if mask.dtype != "bool":
        raise TypeError(f"{name} must have dtype {mask.prefix}bool, got {mask}")
