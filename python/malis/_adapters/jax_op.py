"""The loss as a custom call of XLA.

Everything ends in one custom call, registered through XLA's foreign function interface: compiled code on the CPU calls
the C++ library directly, without Python, its lock, or a copy. On other platforms, whose memory the library cannot
read, the same call goes through ``jax.pure_callback``.
"""

from __future__ import annotations

import functools
import re
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt

from malis import _checks, _core
from malis._adapters import host
from malis._adapters.gradient import FIRST_DERIVATIVE_ONLY, expected_factor
from malis._adapters.names import Names
from malis._adapters.output_range import warn_of_range
from malis._adapters.settings import Nhood, Settings, Tensor
from malis._options import Options

_TARGET = "malis_loss"
jax.ffi.register_ffi_target(_TARGET, _core.xla_loss_handler(), platform="cpu")


class _Static(NamedTuple):
    """What a compiled function is compiled for."""

    nhood: Nhood
    options: Options
    names: Names
    label_limit: int | None  # labels must be below it, see `settings`
    edge_mask: bool
    unlabelled_mask: bool
    channels_last: bool = False
    scale: float = 1.0  # expected factor of the gradient, see `gradient`


# ------------------------------------------------------------------------------------------------- the custom call
def _results(aff: Any, seg: Any, static: _Static) -> tuple[jax.ShapeDtypeStruct, jax.ShapeDtypeStruct]:
    batch = seg.shape[: seg.ndim - len(static.nhood[0])]
    struct: Any = jax.ShapeDtypeStruct
    return struct(batch, aff.dtype), struct(aff.shape, aff.dtype)


def _attributes(options: Options) -> dict[str, Any]:
    """Options as attributes of the call, in the types that the library reads; one that is None is left out."""
    typed: dict[type, Any] = {float: np.float64, int: np.int64, bool: bool, str: str}
    return {name: typed[type(value)](value) for name, value in options._asdict().items() if value is not None}


def _on_cpu(static: _Static, aff: Any, seg: Any, *masks: Any) -> Any:
    call = jax.ffi.ffi_call(_TARGET, _results(aff, seg, static), vmap_method="broadcast_all")
    return call(
        aff,
        seg,
        *masks,
        ndim=np.int64(len(static.nhood[0])),
        nhood=np.asarray(static.nhood, np.int64).ravel(),
        channels_last=static.channels_last,
        edge_mask=static.edge_mask,
        unlabelled_mask=static.unlabelled_mask,
        scale=np.float64(static.scale),
        label_limit=np.int64(static.label_limit or 0),
        name_of_aff=static.names.output,
        name_of_seg=static.names.labels,
        **_attributes(static.options),
    )


def _through_host(static: _Static, aff: Any, seg: Any, *masks: Any) -> Any:
    def evaluate(*arrays: Any) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
        aff, seg, *masks = (np.asarray(array) for array in arrays)
        batch = seg.shape[: seg.ndim - len(static.nhood[0])]  # with the axes that vmap has put in front
        flat = [array.reshape(-1, *array.shape[len(batch) :]) for array in (aff, seg, *masks)]
        losses, grad = host.evaluate(
            flat[0],
            flat[1],
            flat[2] if static.edge_mask else None,
            flat[-1] if static.unlabelled_mask else None,
            nhood=static.nhood,
            options=static.options,
            names=static.names,
            channels_last=static.channels_last,
            scale=static.scale,
            label_limit=static.label_limit,
        )
        return losses.reshape(batch), grad.reshape(aff.shape)

    return jax.pure_callback(evaluate, _results(aff, seg, static), aff, seg, *masks, vmap_method="broadcast_all")


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _losses_and_grad(static: _Static, aff: Any, seg: Any, *masks: Any) -> Any:
    """Loss of every sample, and its derivative times ``static.scale``, which has none itself."""
    if _only_cpu():
        return _vary_as(aff, _on_cpu(static, aff, seg, *masks))
    results = jax.lax.platform_dependent(
        aff,
        seg,
        *masks,
        cpu=functools.partial(_on_cpu, static),
        default=functools.partial(_through_host, static),
    )
    return _vary_as(aff, results)


def _vary_as(aff: Any, results: Any) -> Any:
    """Tell `shard_map` that the results differ between the devices that the affinities differ between.

    It knows that of every operation but foreign ones, and has no such types in older versions of JAX.
    """
    lax: Any = jax.lax

    def axes_of(array: Any) -> tuple[str, ...]:
        aval = jax.typeof(array) if hasattr(jax, "typeof") else None
        return tuple(getattr(getattr(aval, "manual_axis_type", None), "varying", getattr(aval, "vma", ())))

    def varying(result: Any) -> Any:
        missing = tuple(axis for axis in axes if axis not in axes_of(result))
        if not missing:
            return result
        return lax.pcast(result, missing, to="varying") if hasattr(lax, "pcast") else lax.pvary(result, missing)

    axes = axes_of(aff)
    return tuple(varying(result) for result in results) if axes else results


def _no_second_derivative(static: _Static, *_: Any) -> Any:
    raise NotImplementedError(FIRST_DERIVATIVE_ONLY)


_losses_and_grad.defvjp(_no_second_derivative, _no_second_derivative)


@functools.cache
def _only_cpu() -> bool:
    return all(device.platform == "cpu" for device in jax.devices())


_compiled = jax.jit(_losses_and_grad, static_argnums=0)


def _call(static: _Static, *arrays: Any) -> Any:
    if any(isinstance(array, jax.core.Tracer) for array in arrays):
        return _losses_and_grad(static, *arrays)
    try:  # outside of compiled functions, what is wrong with the values becomes the usual error, here
        results: Any = _compiled(static, *arrays)
        for result in results:
            result.block_until_ready()
        return results
    except (jax.errors.JaxRuntimeError, ValueError) as error:
        found = re.search(rf"\b({static.names.output}|{static.names.labels}) must .*", str(error))
        if found is None:
            raise
        raise ValueError(found.group()) from None


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _losses(static: _Static, aff: Any, seg: Any, *masks: Any) -> Any:
    return _call(static, aff, seg, *masks)[0]


def _forward(static: _Static, aff: Any, seg: Any, *masks: Any) -> Any:
    losses, grad = _call(static, aff, seg, *masks)
    return losses, grad


def _backward(static: _Static, grad: Any, upstream: Any) -> Any:
    factor = upstream / static.scale  # XLA knows it to be 1 where the mean is differentiated, and omits the product
    per_sample = factor.reshape(factor.shape + (1,) * (grad.ndim - factor.ndim))
    return (grad * per_sample, None, *[None] * (static.edge_mask + static.unlabelled_mask))


_losses.defvjp(_forward, _backward)


# ------------------------------------------------------------------------------------------------------ the checks
def as_array(value: Any, name: str) -> Any:
    """Take arrays of JAX as they are and turn others into one, if that loses nothing."""
    if isinstance(value, jax.Array):
        return value
    array = np.asarray(value)
    if array.dtype.kind not in "biuf" and array.dtype.name != "bfloat16":
        raise TypeError(f"{name} must be an array of numbers, got {_checks.describe(array)}")
    if array.dtype.kind in "iu" and array.dtype.itemsize == 8 and not _has_64_bits():
        largest = np.iinfo(np.int32).max if array.dtype.kind == "i" else np.iinfo(np.uint32).max
        if array.size and array.max() > largest:
            raise ValueError(
                f"{name} must hold numbers up to {largest} while jax_enable_x64 is off, as JAX cuts larger ones; "
                f"got {array.max()}"
            )
    return jnp.asarray(array)


def _has_64_bits() -> bool:
    return bool(jnp.zeros(0, int).dtype.itemsize == 8)


def _seen(array: Any) -> Tensor:
    return Tensor(tuple(array.shape), jnp.dtype(array.dtype).name)


def losses_of_samples(
    settings: Settings, labels: Any, output: Any, edge_mask: Any, unlabelled_mask: Any, expect_mean: bool
) -> Any:
    """Check the arrays and compute the loss of every sample, shape (B,).

    `expect_mean` tells whether the losses will be averaged or added, see `gradient`.
    """
    labels, output = as_array(labels, settings.names.labels), as_array(output, settings.names.output)
    masks: list[Any] = [
        None if mask is None else as_array(mask, name)
        for mask, name in ((edge_mask, "edge_mask"), (unlabelled_mask, "unlabelled_mask"))
    ]
    checked = settings.check(_seen(output), _seen(labels), *[None if mask is None else _seen(mask) for mask in masks])
    if settings.warn and _only_cpu() and not isinstance(output, jax.core.Tracer):
        warn_of_range(np.asarray(output.astype(jnp.float32)), settings.options.from_logits, settings.names.output)
    if checked.labels_have_channel:
        labels = jnp.squeeze(labels, settings.channel_axis())
    if checked.mask_has_channel:
        masks[1] = jnp.squeeze(masks[1], settings.channel_axis())
    if labels.dtype in (jnp.float16, jnp.bfloat16):
        labels = labels.astype(jnp.float32)
    # 16 bits become 32, and so does their derivative, until the upstream gradient is multiplied in.
    aff = output if output.dtype == jnp.float64 else output.astype(jnp.float32)
    static = _Static(
        checked.nhood,
        settings.options,
        settings.names,
        checked.label_limit,
        masks[0] is not None,
        masks[1] is not None,
        settings.channels_last,
        # jax.export may leave the number of samples open.
        expected_factor(len(aff), expect_mean) if isinstance(aff.shape[0], int) else 1.0,
    )
    return _losses(static, aff, jax.lax.stop_gradient(labels), *[mask for mask in masks if mask is not None])
