"""Checks of arguments, shared by all functions: what they got, what they take, and no silent conversion."""

from __future__ import annotations

import operator
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from malis import _core

Array = npt.NDArray[Any]


class Described(Protocol):
    """What has a shape and a dtype."""

    @property
    def shape(self) -> tuple[int, ...]:
        """The lengths of the axes."""

    @property
    def dtype(self) -> Any:
        """The dtype."""


def describe(array: Described) -> str:
    """Shape and dtype of an array, for messages."""
    return f"an array of shape {array.shape} and dtype {array.dtype}"


def as_nhood(nhood: npt.ArrayLike, ndim: int | None = None) -> npt.NDArray[np.int64]:
    """Check a neighbourhood and return it as int64, shape ``(K, ndim)``."""
    array = np.asarray(nhood)
    if array.ndim != 2 or array.shape[0] < 1 or not 1 <= array.shape[1] <= 3:
        raise ValueError(f"nhood must have shape (K, ndim) with ndim 1 to 3, got {describe(array)}")
    if array.dtype.kind == "f" and np.all(np.isfinite(array)) and np.all(array == np.rint(array)):
        array = array.astype(np.int64)  # offsets that were computed as floats
    if array.dtype.kind not in "iu":
        raise TypeError(f"nhood must hold integer offsets, got {describe(array)}")
    if ndim is not None and array.shape[1] != ndim:
        raise ValueError(f"nhood must have {ndim} columns, one for each spatial axis, got {describe(array)}")
    if np.any(np.abs(array.astype(np.float64)) > 2**40):
        raise ValueError(f"nhood must hold offsets within a volume, got {array.tolist()}")
    return np.ascontiguousarray(array, dtype=np.int64)


def as_affinities(array: npt.ArrayLike, name: str, *, integers: bool = False) -> Array:
    """Check floating point numbers: float32 and float64 as they are, float16 as float32, C-contiguous.

    With `integers`, bool and integer arrays (affinity graphs of a ground truth) are taken as well, and bytes (uint8),
    which is how large predictions are stored, as 0..255 for 0..1.
    """
    aff = np.asarray(array)
    if aff.dtype == np.uint8 and integers:
        aff = bytes_as_affinities(aff)
    if aff.dtype.kind in "iub" and integers:
        exact = aff.dtype.kind == "b" or aff.dtype.itemsize <= 2
        aff = aff.astype(np.float32 if exact else np.float64)
    if aff.dtype.kind != "f" or aff.dtype.itemsize > 8:
        raise TypeError(f"{name} must have dtype float16, float32 or float64, got {describe(aff)}")
    if aff.size == 0:
        raise ValueError(f"{name} must not be empty, got {describe(aff)}")
    if aff.dtype.itemsize == 2:
        aff = aff.astype(np.float32)
    return contiguous(aff)


def as_stored_affinities(array: npt.ArrayLike, name: str) -> Array:
    """Check affinities for functions of the core that read bytes as they are: uint8 stays, the rest becomes floats."""
    aff = np.asarray(array)
    if aff.dtype == np.uint8 and aff.size > 0:
        return contiguous(aff)
    return as_affinities(aff, name, integers=True)


def bytes_as_affinities(aff: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """Return bytes as affinities: 0 is 0 and 255 is 1."""
    return np.divide(aff, np.float32(255), dtype=np.float32)


def contiguous(array: Array) -> Array:
    """Return the array itself where it is C-contiguous, aligned and of native byte order, else a copy."""
    if not array.dtype.isnative:
        array = array.astype(array.dtype.newbyteorder("="))
    return np.require(array, requirements=["C", "A"])


def as_labels(array: npt.ArrayLike, name: str, num_threads: int | None = None, *, for_core: bool = False) -> Array:
    """Check labels: any integer dtype or bool as they are, floats where they hold integers; at least 0.

    With `for_core` negative labels pass: the functions of the core that take `seg` refuse them, on all threads.
    """
    seg = np.asarray(array)
    if seg.size == 0:
        raise ValueError(f"{name} must not be empty, got {describe(seg)}")
    # Frameworks hand over floats, and nearly all hold 32-bit integers: one pass tells, and converts them.
    small = None
    if seg.dtype in (np.float32, np.float64):
        small = _core.whole_numbers(contiguous(seg), num_threads=num_threads)
    if small is not None:
        seg = small
    if seg.dtype.kind == "f":
        if not np.all(np.isfinite(seg)) or not np.all(seg == np.rint(seg)):
            raise ValueError(f"{name} must hold integer labels, got fractions or non-finite values in {describe(seg)}")
        if np.any(np.abs(seg.astype(np.float64)) >= 2.0**63):
            raise ValueError(f"{name} must hold labels below 2**63, got {describe(seg)}")
        seg = seg.astype(np.int64)
    if seg.dtype.kind == "b":
        seg = contiguous(seg).view(np.uint8)
    if seg.dtype.kind not in "iu":
        raise TypeError(f"{name} must hold integer labels, got {describe(seg)}")
    if not for_core and seg.dtype.kind == "i" and seg.min() < 0:
        raise ValueError(f"{name} must hold labels of at least 0, got {seg.min()}")
    return contiguous(seg)


def as_label(value: object, name: str) -> int:
    """Check one label: any integer, also a negative one."""
    try:
        return operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        raise TypeError(f"{name} must be an integer, got {value!r}") from None


def as_ignore_label(value: object) -> int | None:
    """Check a label to ignore: any integer of 64 bits, or None."""
    if value is None:
        return None
    label = as_label(value, "ignore_label")
    if not -(2**63) <= label < 2**63:
        raise ValueError(f"ignore_label must be an integer from -2**63 to 2**63 - 1, got {value!r}")
    return label


def as_truth(array: npt.ArrayLike, name: str, ignore_label: object) -> tuple[Array, npt.NDArray[np.bool_] | None]:
    """Check labels of a truth: voxels that carry `ignore_label` become 0; also returns where they are, None: nowhere.

    `ignore_label` is None or an integer, also a negative one.
    """
    if ignore_label is None:
        return as_labels(array, name), None
    label = as_label(ignore_label, "ignore_label")  # metrics take all labels of 64 bits, also unsigned ones
    seg = np.asarray(array)
    if seg.dtype.kind not in "iufb":
        return as_labels(seg, name), None  # refuses other dtypes
    ignored = np.asarray(seg == label)
    if not ignored.any():
        return as_labels(seg, name), None
    return as_labels(np.where(ignored, seg.dtype.type(0), seg), name), ignored


def as_mask(array: npt.ArrayLike | None, name: str, shape: tuple[int, ...]) -> npt.NDArray[np.bool_] | None:
    """Check a mask: bool, of the shape given."""
    if array is None:
        return None
    mask = np.asarray(array)
    if mask.dtype.kind != "b":
        raise TypeError(f"{name} must have dtype bool, got {describe(mask)}")
    if mask.shape != shape:
        raise ValueError(f"{name} must have shape {shape}, got {describe(mask)}")
    mask = contiguous(mask)
    # A bool array may be a view of memory whose bytes are neither 0 nor 1. NumPy takes these for true; in C++ reading
    # them as bool is undefined.
    bytes_of_mask = mask.view(np.uint8)
    return mask if bytes_of_mask.max(initial=0) <= 1 else bytes_of_mask != 0


def check_volume(aff: Array, seg: Array, seg_name: str, nhood: npt.NDArray[np.int64]) -> None:
    """Check that affinities ``(K, *shape)``, labels ``shape`` and a neighbourhood ``(K, ndim)`` go together."""
    offsets, ndim = nhood.shape
    if seg.ndim != ndim:
        raise ValueError(f"{seg_name} must have {ndim} axes as nhood has columns, got {describe(seg)}")
    check_channels(aff, nhood)
    if aff.shape[1:] != seg.shape:
        raise ValueError(
            f"aff must have shape {(offsets, *seg.shape)}, one channel of the shape of {seg_name} for each of the "
            f"{offsets} offsets of nhood, got {describe(aff)}"
        )


def check_order(aff: npt.ArrayLike, seg: npt.ArrayLike) -> None:
    """Tell a caller who has given labels and affinities in the wrong order, before their dtypes are an error."""
    first, second = np.asarray(aff), np.asarray(seg)
    if second.dtype.kind == "f" and second.ndim == first.ndim + 1 and first.ndim > 0:
        raise ValueError(
            f"aff and seg look swapped: aff is {describe(first)}, as labels are, and seg is {describe(second)}, as "
            "affinities are"
        )


def check_channels(aff: Array, nhood: npt.NDArray[np.int64]) -> None:
    """Check that affinities have shape ``(K, *shape)`` for a neighbourhood ``(K, ndim)``."""
    offsets, ndim = nhood.shape
    if aff.ndim != ndim + 1:
        raise ValueError(f"aff must have {ndim + 1} axes (K, *shape) for a {ndim}-D nhood, got {describe(aff)}")
    if aff.shape[0] != offsets:
        raise ValueError(f"aff must have one channel for each of the {offsets} offsets of nhood, got {describe(aff)}")


def as_flag(value: object, name: str) -> bool:
    """Check a boolean option."""
    if not isinstance(value, bool | np.bool_):
        raise TypeError(f"{name} must be True or False, got {value!r}")
    return bool(value)


def as_real(value: object, name: str) -> float:
    """Check a finite real number."""
    try:
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        raise TypeError(f"{name} must be a real number, got {value!r}") from None
    if isinstance(value, str) or not np.isfinite(number):
        raise (TypeError if isinstance(value, str) else ValueError)(f"{name} must be a finite number, got {value!r}")
    return number


def as_margin(value: object) -> float:
    """Check a margin. Beyond a million, nothing of an affinity is left in its float32 sum with the margin."""
    number = as_real(value, "margin")
    if abs(number) > 1e6:
        raise ValueError(f"margin must be within -1e6 and 1e6, got {value!r}")
    return number


def as_threshold(value: object, name: str) -> float:
    """Check a threshold of affinities: a number, which may be infinite."""
    try:
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        raise TypeError(f"{name} must be a real number, got {value!r}") from None
    if isinstance(value, str):
        raise TypeError(f"{name} must be a real number, got {value!r}")
    if np.isnan(number):
        raise ValueError(f"{name} must be a number, got NaN")
    return number


def as_reals(values: npt.ArrayLike, name: str) -> npt.NDArray[np.float64]:
    """Check a sequence of at least one finite real number."""
    array = np.asarray(values)
    if array.dtype.kind not in "iuf":
        raise TypeError(f"{name} must be a sequence of real numbers, got {values!r}")
    if array.ndim != 1 or array.size == 0 or not np.isfinite(array).all():
        raise ValueError(f"{name} must be a sequence of at least one finite number, got {values!r}")
    return array.astype(np.float64)


def as_integer(value: object, name: str, least: int) -> int:
    """Check an integer option that is at least `least`."""
    try:
        number = operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        raise TypeError(f"{name} must be an integer, got {value!r}") from None
    if number < least:
        raise ValueError(f"{name} must be an integer of at least {least}, got {value!r}")
    return number


def as_size(value: object, name: str) -> int:
    """Check a number of voxels; more than any volume has are as good as 2**62."""
    return min(as_integer(value, name, 0), 2**62)


def as_size_thresh(min_size: object, size_thresh: object = None) -> int:
    """Check how small an object may be, by either name; returns the largest number of voxels that is too small.

    `min_size` drops objects of fewer voxels. `size_thresh`, from the older packages, drops those of at most as many.
    """
    if size_thresh is not None:
        if min_size is not None:
            raise ValueError(f"size_thresh must not be given beside min_size, got {size_thresh!r} and {min_size!r}")
        return as_size(size_thresh, "size_thresh")
    return 1 if min_size is None else max(0, as_size(min_size, "min_size") - 1)


def as_threads(value: object) -> int | None:
    """Check a number of threads; None stands for the default."""
    return None if value is None else as_thread_count(value, "num_threads")


def as_thread_count(value: object, name: str) -> int:
    """Check a number of threads."""
    count = as_integer(value, name, 1)
    if count > 2**16:
        raise ValueError(f"{name} must be an integer from 1 to 65536, got {value!r}")
    return count


def as_choice(value: object, name: str, choices: tuple[str, ...]) -> str:
    """Check an option that is one of several words."""
    if not isinstance(value, str) or value not in choices:
        error = ValueError if isinstance(value, str) else TypeError
        raise error(f"{name} must be one of {', '.join(map(repr, choices))}, got {value!r}")
    return value
