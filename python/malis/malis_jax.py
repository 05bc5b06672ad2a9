r"""The MALIS loss for JAX: `malis_loss`, `malis_loss2d` and `malis_loss3d`.

All three end in one custom call of XLA, registered through its foreign function interface: compiled code on the CPU
calls the C++ library directly, without Python, its lock, or a copy. On other platforms, whose memory the library
cannot read, the same call goes through ``jax.pure_callback``.

They work under ``jit``, ``grad``, ``value_and_grad`` and ``vmap`` (the mapped axis becomes part of the batch), and on
several devices: under ``shard_map`` and ``pmap`` every device evaluates its own samples. XLA's automatic partitioning
cannot see that the samples of a custom call are independent; it gathers the batch first.
"""

from __future__ import annotations

import functools
import re
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt

from malis import _checks, _core
from malis._adapter import CORE_NAMES, REDUCTIONS, Names, Nhood, Settings, Tensor, as_tuples
from malis._options import Options
from malis.loss import batch_loss

__all__ = ["malis_loss", "malis_loss2d", "malis_loss3d"]

_TARGET = "malis_loss"
jax.ffi.register_ffi_target(_TARGET, _core.xla_loss_handler(), platform="cpu")


class _Static(NamedTuple):
    """What a compiled function is compiled for."""

    nhood: Nhood
    options: Options
    names: Names
    label_limit: int  # labels from there on were rounded; 0: none
    edge_mask: bool
    unlabelled_mask: bool
    channels_last: bool = False
    scale: float = 1.0  # of the derivative


# ------------------------------------------------------------------------------------------------- the custom call
def _results(aff: Any, seg: Any, static: _Static) -> tuple[jax.ShapeDtypeStruct, jax.ShapeDtypeStruct]:
    batch = seg.shape[: seg.ndim - len(static.nhood[0])]
    struct: Any = jax.ShapeDtypeStruct
    return struct(batch, aff.dtype), struct(aff.shape, aff.dtype)


def _on_cpu(static: _Static, aff: Any, seg: Any, *masks: Any) -> Any:
    call = jax.ffi.ffi_call(_TARGET, _results(aff, seg, static), vmap_method="broadcast_all")
    options = static.options
    return call(
        aff,
        seg,
        *masks,
        ndim=np.int64(len(static.nhood[0])),
        nhood=np.asarray(static.nhood, np.int64).ravel(),
        channels_last=static.channels_last,
        edge_mask=static.edge_mask,
        unlabelled_mask=static.unlabelled_mask,
        margin=np.float64(options.margin),
        pos_loss_weight=np.float64(options.pos_loss_weight),
        normalize=options.normalize,
        pointwise=options.pointwise,
        from_logits=options.from_logits,
        scale=np.float64(static.scale),
        constrain_positive=options.constrain_positive,
        constrain_negative=options.constrain_negative,
        ignore_background=options.ignore_background,
        num_threads=np.int64(options.num_threads or 0),
        label_limit=np.int64(static.label_limit),
        name_of_aff=static.names.output,
        name_of_seg=static.names.labels,
    )


def _through_host(static: _Static, aff: Any, seg: Any, *masks: Any) -> Any:
    def evaluate(*arrays: Any) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
        aff, seg, *masks = (np.asarray(array) for array in arrays)
        ndim = len(static.nhood[0])
        batch = seg.shape[: seg.ndim - ndim]
        flat = [array.reshape(-1, *array.shape[len(batch) :]) for array in (aff, seg, *masks)]
        if static.label_limit and seg.size and seg.max() >= static.label_limit:
            raise ValueError(
                f"{static.names.labels} must hold labels below {static.label_limit}, as its floating point dtype "
                "rounds larger ones"
            )
        try:
            losses, grad = batch_loss(
                flat[0],
                flat[1],
                static.nhood,
                edge_mask=flat[2] if static.edge_mask else None,
                unlabelled_mask=flat[-1] if static.unlabelled_mask else None,
                channels_last=static.channels_last,
                scale=static.scale,
                **static.options._asdict(),
            )
        except ValueError as error:
            raise ValueError(static.names.of_core(str(error))) from None
        return np.asarray(losses).reshape(batch).astype(aff.dtype), grad.reshape(aff.shape)

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
    raise NotImplementedError(
        "the MALIS loss has a first derivative only: its pair counts are constants of the derivative, and a second "
        "derivative is not implemented"
    )


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
def _as_array(value: Any, name: str) -> Any:
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

    With `expect_mean` the core's own gradient is that of the mean of the losses, else that of their sum. It is what
    the derivative of that needs; any other costs a product.
    """
    labels, output = _as_array(labels, settings.names.labels), _as_array(output, settings.names.output)
    masks: list[Any] = [
        None if mask is None else _as_array(mask, name)
        for mask, name in ((edge_mask, "edge_mask"), (unlabelled_mask, "unlabelled_mask"))
    ]
    checked = settings.check(_seen(output), _seen(labels), *[None if mask is None else _seen(mask) for mask in masks])
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
        checked.label_limit or 0,
        masks[0] is not None,
        masks[1] is not None,
        settings.channels_last,
        1 / len(aff) if expect_mean and isinstance(aff.shape[0], int) else 1.0,  # else a size of jax.export
    )
    return _losses(static, aff, jax.lax.stop_gradient(labels), *[mask for mask in masks if mask is not None])


def _evaluate(
    ndim: int, seg_gt: Any, output: Any, edge_mask: Any, unlabelled_mask: Any, *, reduction: str, **others: Any
) -> jax.Array:
    """`malis_loss2d` and `malis_loss3d`, of the arguments of which this takes all."""
    settings = Settings.of(ndim, Names(), others)
    _checks.as_choice(reduction, "reduction", REDUCTIONS)
    losses = losses_of_samples(settings, seg_gt, output, edge_mask, unlabelled_mask, reduction == "mean")
    if reduction != "none":
        losses = losses.mean() if reduction == "mean" else losses.sum()
    return cast(jax.Array, losses)


# ------------------------------------------------------------------------------------------------- what users call
def malis_loss(
    seg: npt.ArrayLike,
    aff: npt.ArrayLike,
    nhood: npt.ArrayLike,
    edge_mask: npt.ArrayLike | None = None,
    unlabelled_mask: npt.ArrayLike | None = None,
    *,
    margin: float = 0.3,
    pos_loss_weight: float = 0.5,
    normalize: bool = True,
    pointwise: str = "squared_hinge",
    from_logits: bool = False,
    constrain_positive: bool = True,
    constrain_negative: bool = True,
    ignore_background: bool = True,
    num_threads: int | None = None,
) -> jax.Array:
    r"""Compute the MALIS loss of an affinity graph in 1 to 3 dimensions, or of a batch of them.

    With the shares :math:`p_e` and :math:`q_e` of the pairs within objects and between objects that edge :math:`e`
    decides (see `malis.pairs`), the loss of one sample is

    .. math::

        L = 2 \Big( w \sum_e p_e \max(0, 1 - m - a_e)^2 + (1 - w) \sum_e q_e \max(0, a_e - m)^2 \Big)

    with affinities :math:`a`, margin :math:`m` and :math:`w` = `pos_loss_weight` [1]_ [2]_.

    Parameters
    ----------
    seg : array_like of int, shape `shape` or (B, *shape)
        Labels: any integer dtype or bool, or floats that hold integers; 0 is background.
    aff : array_like of float16, bfloat16, float32 or float64, shape (K, *shape) or (B, K, *shape)
        Affinities: ``aff[k, v]`` belongs to the edge between voxel ``v`` and ``v + nhood[k]``.
    nhood : array_like of int, shape (K, ndim)
        Offsets. They are part of the compiled code, so they have to be known when it is traced.
    edge_mask : array_like of bool, in the shape of `aff`, optional
        See `malis_loss2d`.
    unlabelled_mask : array_like of bool, in the shape of `seg`, optional
        See `malis_loss2d`.
    margin, pos_loss_weight, normalize, pointwise, from_logits : optional
        See `malis.malis_loss`.
    constrain_positive, constrain_negative, ignore_background, num_threads : optional
        See `malis.malis_loss`.

    Returns
    -------
    jax.Array
        The loss, a scalar, or of shape (B,) for a batch: float64 for a float64 `aff` and float32 for any other.

    Raises
    ------
    ValueError, TypeError, NotImplementedError
        As `malis_loss2d` does.

    References
    ----------
    .. [1] S. C. Turaga, K. L. Briggman, M. Helmstaedter, W. Denk, H. S. Seung: Maximin affinity learning of image
       segmentation. NIPS 2009.
    .. [2] J. Funke et al.: Large scale image segmentation with structured loss based deep learning for connectome
       reconstruction. IEEE TPAMI 41 (2019), 1669-1680.

    Examples
    --------
    >>> import jax, jax.numpy as jnp, numpy as np
    >>> from malis.malis_jax import malis_loss
    >>> aff = jnp.array([[0, 0.9, 0.8, 0.2, 0.6]])
    >>> seg = jnp.array([1, 1, 0, 2, 2])
    >>> loss, grad = jax.value_and_grad(malis_loss, argnums=1)(seg, aff, [[-1]])
    >>> round(float(loss), 4)
    0.005
    >>> np.asarray(grad).round(2).tolist() == [[0, 0, 0, 0, np.float32(-0.1)]]
    True
    """
    options = Options.of(locals())
    offsets = as_tuples(nhood)
    ndim = len(offsets[0])
    affinities, labels = _as_array(aff, "aff"), _as_array(seg, "seg")
    arrays = [labels, affinities, edge_mask, unlabelled_mask]
    single = affinities.ndim != ndim + 2
    if single:
        _checks.check_volume(affinities, labels, "seg", np.asarray(offsets))
        arrays = [None if a is None else jnp.expand_dims(_as_array(a, "a mask"), 0) for a in arrays]
    settings = Settings(ndim, offsets, options, channels_last=False, names=CORE_NAMES)
    labels, affinities, edge_mask, unlabelled_mask = arrays
    losses = losses_of_samples(settings, labels, affinities, edge_mask, unlabelled_mask, expect_mean=False)
    return cast(jax.Array, losses[0] if single else losses)


def malis_loss2d(
    seg_gt: npt.ArrayLike,
    output: npt.ArrayLike,
    edge_mask: npt.ArrayLike | None = None,
    unlabelled_mask: npt.ArrayLike | None = None,
    *,
    nhood: npt.ArrayLike | None = None,
    margin: float = 0.3,
    pos_loss_weight: float = 0.5,
    normalize: bool = True,
    pointwise: str = "squared_hinge",
    from_logits: bool = False,
    constrain_positive: bool = True,
    constrain_negative: bool = True,
    ignore_background: bool = True,
    reduction: str = "mean",
    num_threads: int | None = None,
    data_format: str = "channels_first",
) -> jax.Array:
    r"""Compute the MALIS loss of a batch of 2-D affinity graphs.

    With the shares :math:`p_e` and :math:`q_e` of the pairs within objects and between objects that edge :math:`e`
    decides (see `malis.pairs`), the loss of one sample is

    .. math::

        L = 2 \Big( w \sum_e p_e \max(0, 1 - m - a_e)^2 + (1 - w) \sum_e q_e \max(0, a_e - m)^2 \Big)

    with affinities :math:`a`, margin :math:`m` and :math:`w` = `pos_loss_weight` [1]_ [2]_.

    Parameters
    ----------
    seg_gt : array_like, shape (B, H, W) or (B, 1, H, W)
        Ground truth labels: any integer dtype or bool, or floats that hold integers; 0 is background.
    output : array_like of float16, bfloat16, float32 or float64, shape (B, K, H, W)
        Affinities, for example of a sigmoid: ``output[b, k, y, x]`` belongs to the edge between pixel ``(y, x)`` and
        ``(y, x) + nhood[k]``.
    edge_mask : array_like of bool, shape (B, K, H, W), optional
        False where the ground truth of an edge is unknown: such an edge is constrained in neither pass, and its
        counts are 0.
    unlabelled_mask : array_like of bool, shape (B, H, W) or (B, 1, H, W), optional
        True where objects exist but carry no label: these pixels together count as one more object among the
        negative pairs, and edges between two of them are unknown.
    nhood : array_like of int, shape (K, 2), optional
        Offsets; by default ``mknhood2d(1)``, the nearest neighbours ``[[-1, 0], [0, -1]]``.
    margin, pos_loss_weight, normalize, pointwise, from_logits : optional
        See `malis.malis_loss`.
    constrain_positive, constrain_negative, ignore_background, num_threads : optional
        See `malis.malis_loss`.
    reduction : {"mean", "sum", "none"}, optional
        What to do with the losses of the samples; "none" returns them in shape (B,).
    data_format : {"channels_first", "channels_last"}, optional
        With "channels_last" the shapes are (B, H, W, K) and (B, H, W, 1) or (B, H, W).

    Returns
    -------
    jax.Array
        The loss, float64 for a float64 `output` and float32 for any other. Its gradient has the dtype of `output`.
        The labels get none, and there is no second derivative.

    Raises
    ------
    ValueError
        For shapes that do not go together, empty tensors, NaN, negative or fractional labels, options out of range.
        What depends on values becomes a ``jax.errors.JaxRuntimeError`` in compiled code.
    TypeError
        For dtypes and options of another type.
    NotImplementedError
        For a second derivative.

    References
    ----------
    .. [1] S. C. Turaga, K. L. Briggman, M. Helmstaedter, W. Denk, H. S. Seung: Maximin affinity learning of image
       segmentation. NIPS 2009.
    .. [2] J. Funke et al.: Large scale image segmentation with structured loss based deep learning for connectome
       reconstruction. IEEE TPAMI 41 (2019), 1669-1680.

    Examples
    --------
    >>> import jax, jax.numpy as jnp, numpy as np
    >>> from malis.malis_jax import malis_loss2d
    >>> seg_gt = jnp.array([[[1, 1, 2, 2], [1, 1, 2, 2]]])
    >>> output = jnp.full((1, 2, 2, 4), 0.5)
    >>> loss, grad = jax.jit(jax.value_and_grad(malis_loss2d, argnums=1))(seg_gt, output)
    >>> round(float(loss), 4)
    0.08
    >>> grad.shape
    (1, 2, 2, 4)
    """
    return _evaluate(2, **locals())


def malis_loss3d(
    seg_gt: npt.ArrayLike,
    output: npt.ArrayLike,
    edge_mask: npt.ArrayLike | None = None,
    unlabelled_mask: npt.ArrayLike | None = None,
    *,
    nhood: npt.ArrayLike | None = None,
    margin: float = 0.3,
    pos_loss_weight: float = 0.5,
    normalize: bool = True,
    pointwise: str = "squared_hinge",
    from_logits: bool = False,
    constrain_positive: bool = True,
    constrain_negative: bool = True,
    ignore_background: bool = True,
    reduction: str = "mean",
    num_threads: int | None = None,
    data_format: str = "channels_first",
) -> jax.Array:
    """Compute the MALIS loss of a batch of 3-D affinity graphs.

    The loss of one sample is that of `malis_loss2d` [1]_ [2]_.

    Parameters
    ----------
    seg_gt : array_like, shape (B, D, H, W) or (B, 1, D, H, W)
        Ground truth labels: any integer dtype or bool, or floats that hold integers; 0 is background.
    output : array_like of float16, bfloat16, float32 or float64, shape (B, K, D, H, W)
        Affinities: ``output[b, k, z, y, x]`` belongs to the edge between voxel ``(z, y, x)`` and
        ``(z, y, x) + nhood[k]``.
    edge_mask : array_like of bool, shape (B, K, D, H, W), optional
        See `malis_loss2d`.
    unlabelled_mask : array_like of bool, shape (B, D, H, W) or (B, 1, D, H, W), optional
        See `malis_loss2d`.
    nhood : array_like of int, shape (K, 3), optional
        Offsets; by default ``mknhood3d(1)``, the nearest neighbours ``[[-1, 0, 0], [0, -1, 0], [0, 0, -1]]``.
    margin, pos_loss_weight, normalize, pointwise, from_logits : optional
        See `malis.malis_loss`.
    constrain_positive, constrain_negative, ignore_background, num_threads : optional
        See `malis.malis_loss`.
    reduction, data_format : optional
        See `malis_loss2d`.

    Returns
    -------
    jax.Array
        The loss, a scalar or of shape (B,); see `malis_loss2d`.

    Raises
    ------
    ValueError, TypeError, NotImplementedError
        As `malis_loss2d` does.

    References
    ----------
    .. [1] S. C. Turaga, K. L. Briggman, M. Helmstaedter, W. Denk, H. S. Seung: Maximin affinity learning of image
       segmentation. NIPS 2009.
    .. [2] J. Funke et al.: Large scale image segmentation with structured loss based deep learning for connectome
       reconstruction. IEEE TPAMI 41 (2019), 1669-1680.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> from malis.malis_jax import malis_loss3d
    >>> seg_gt = jnp.ones((2, 4, 8, 8), jnp.int32)
    >>> malis_loss3d(seg_gt, jnp.full((2, 3, 4, 8, 8), 0.5), reduction="none").round(4).tolist()
    [0.03999999910593033, 0.03999999910593033]
    """
    return _evaluate(3, **locals())
