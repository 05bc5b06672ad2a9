r"""The MALIS loss for TensorFlow: `malis_loss2d` and `malis_loss3d`.

Both end in a ``tf.custom_gradient`` around one call of `malis.malis_loss` for the whole batch. Eager tensors are read
where they lie; in a graph the call is a ``tf.numpy_function``, which does the same. The interpreter lock is released
while the pairs are counted, so the replicas of a distribution strategy do not wait for each other.

A function that XLA compiles (``jit_compile=True``) cannot call back into the host: TensorFlow has no supported way to
register a kernel of another package with its own copy of XLA, so tracing such a function is an error that says so.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from malis import _checks
from malis._adapter import REDUCTIONS, Checked, Names, Settings, Tensor, check_limit
from malis.loss import batch_loss

__all__ = ["malis_loss2d", "malis_loss3d"]

_Array = npt.NDArray[Any]


# ----------------------------------------------------------------------------------------------- on NumPy arrays
def _evaluate_arrays(
    settings: Settings,
    checked: Checked,
    output: _Array,
    labels: _Array,
    edge_mask: _Array | None,
    unlabelled_mask: _Array | None,
    expect_mean: bool,
) -> tuple[_Array, _Array]:
    """Loss of every sample, in the dtype of `output`, and the derivative of their mean or sum, in its layout."""
    if output.shape[0] == 0:  # a replica may get no sample of the last batch
        return np.zeros(0, output.dtype), np.zeros_like(output)
    try:
        check_limit(labels, checked.label_limit)
        loss, grad = batch_loss(
            output,
            labels,
            checked.nhood,
            edge_mask=edge_mask,
            unlabelled_mask=unlabelled_mask,
            channels_last=settings.channels_last,
            scale=1 / len(output) if expect_mean else 1.0,
            **settings.options._asdict(),
        )
    except ValueError as error:
        raise ValueError(settings.names.of_core(str(error))) from None
    return np.asarray(loss).astype(output.dtype), grad


# ----------------------------------------------------------------------------------------------------- on tensors
def _raise_under_xla() -> None:
    """Raise an error that helps, where XLA would later raise one that does not."""
    try:
        from tensorflow.python.ops import control_flow_util
    except ImportError:  # it is no public module, and this is no more than a better message
        return
    if control_flow_util.GraphOrParentsInXlaContext(tf.compat.v1.get_default_graph()):
        raise NotImplementedError(
            "the MALIS loss counts pairs on the host, which a function that XLA compiles for TensorFlow cannot call: "
            "compile the model with jit_compile=False (model.compile(..., jit_compile=False), or "
            "tf.function(jit_compile=False)); the network's own layers may be compiled"
        )


def _first_derivative_only(*_: Any) -> None:
    raise NotImplementedError(
        "the MALIS loss has a first derivative only: its pair counts are constants of the derivative, and a second "
        "derivative is not implemented"
    )


def _differentiable(function: Any, output: Any, expect_mean: bool) -> Any:
    """Losses of ``losses, grad = function(output)``, with `grad` as the derivative of their mean or sum."""

    @tf.custom_gradient  # type: ignore[untyped-decorator,unused-ignore]
    def losses_of(output: Any) -> Any:
        losses, grad = function(output)

        # `output` takes part so that a second derivative by it is an error, and not silently zero.
        @tf.custom_gradient  # type: ignore[untyped-decorator,unused-ignore]
        def chain_rule(upstream: Any, output: Any) -> Any:
            factor = upstream
            if expect_mean:
                factor = upstream / (1 / tf.cast(tf.shape(output)[0], upstream.dtype))
            per_sample = tf.reshape(factor, [-1] + [1] * (grad.shape.rank - 1))
            # Usually 1. A product would fill as much new memory as the network's output takes.
            as_expected = tf.reduce_all(tf.equal(factor, 1))
            return tf.cond(as_expected, lambda: grad, lambda: grad * per_sample), _first_derivative_only

        return losses, lambda upstream: chain_rule(upstream, output)

    return losses_of(output)


def losses_of_samples(
    settings: Settings, labels: Any, output: Any, edge_mask: Any, unlabelled_mask: Any, expect_mean: bool
) -> Any:
    """Check the tensors and compute the loss of every sample, shape (B,).

    With `expect_mean` the core's own gradient is that of the mean of the losses, else that of their sum. It is what
    the derivative of that needs; any other costs a product.
    """
    labels, output = tf.convert_to_tensor(labels), tf.convert_to_tensor(output)
    edge_mask, unlabelled_mask = (None if m is None else tf.convert_to_tensor(m) for m in (edge_mask, unlabelled_mask))
    checked = settings.check(
        _seen(output, settings.names.output),
        _seen(labels, settings.names.labels),
        None if edge_mask is None else _seen(edge_mask, "edge_mask"),
        None if unlabelled_mask is None else _seen(unlabelled_mask, "unlabelled_mask"),
    )
    if checked.labels_have_channel:
        labels = tf.squeeze(labels, settings.channel_axis())
    if labels.dtype.is_floating and labels.dtype.size == 2:
        labels = tf.cast(labels, tf.float32)  # NumPy has no bfloat16
    tensors = [tf.stop_gradient(labels)]
    if edge_mask is not None:
        tensors.append(edge_mask)
    if unlabelled_mask is not None:
        tensors.append(
            tf.squeeze(unlabelled_mask, settings.channel_axis()) if checked.mask_has_channel else unlabelled_mask
        )

    # float64 stays; 16 bits become 32, and so does their derivative, until the upstream gradient is multiplied in.
    dtype = tf.float64 if output.dtype == tf.float64 else tf.float32

    def evaluate(output: _Array, labels: _Array, *masks: _Array) -> tuple[_Array, _Array]:
        edges = masks[0] if edge_mask is not None else None
        voxels = masks[-1] if unlabelled_mask is not None else None
        return _evaluate_arrays(settings, checked, output, labels, edges, voxels, expect_mean)

    def function(output: Any) -> Any:
        if tf.executing_eagerly():
            return [tf.convert_to_tensor(a) for a in evaluate(*[np.asarray(t) for t in (output, *tensors)])]
        _raise_under_xla()
        losses, grad = tf.numpy_function(evaluate, [output, *tensors], [dtype, dtype], stateful=False)
        losses.set_shape(output.shape[:1])
        grad.set_shape(output.shape)
        return losses, grad

    return _differentiable(function, tf.cast(output, dtype), expect_mean)


def _seen(tensor: Any, name: str) -> Tensor:
    if tensor.shape.rank is None:
        raise ValueError(f"{name} must have a known number of axes, got a tensor of unknown shape")
    return Tensor(tuple(tensor.shape), tensor.dtype.name)


def _evaluate(
    ndim: int, seg_gt: Any, output: Any, edge_mask: Any, unlabelled_mask: Any, *, reduction: str, **others: Any
) -> Any:
    """`malis_loss2d` and `malis_loss3d`, of the arguments of which this takes all."""
    settings = Settings.of(ndim, Names(), others)
    _checks.as_choice(reduction, "reduction", REDUCTIONS)
    losses = losses_of_samples(settings, seg_gt, output, edge_mask, unlabelled_mask, reduction == "mean")
    if reduction == "none":
        return losses
    return tf.reduce_mean(losses) if reduction == "mean" else tf.reduce_sum(losses)


# -------------------------------------------------------------------------------------------- what users call
def malis_loss2d(
    seg_gt: Any,
    output: Any,
    edge_mask: Any = None,
    unlabelled_mask: Any = None,
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
    data_format: str = "channels_last",
) -> Any:
    r"""Compute the MALIS loss of a batch of 2-D affinity graphs.

    With the shares :math:`p_e` and :math:`q_e` of the pairs within objects and between objects that edge :math:`e`
    decides (see `malis.pairs`), the loss of one sample is

    .. math::

        L = 2 \Big( w \sum_e p_e \max(0, 1 - m - a_e)^2 + (1 - w) \sum_e q_e \max(0, a_e - m)^2 \Big)

    with affinities :math:`a`, margin :math:`m` and :math:`w` = `pos_loss_weight` [1]_ [2]_.

    Parameters
    ----------
    seg_gt : Tensor, shape (B, H, W) or (B, H, W, 1)
        Ground truth labels: any integer dtype or bool, or floats that hold integers; 0 is background.
    output : Tensor of float16, bfloat16, float32 or float64, shape (B, H, W, K)
        Affinities, for example of a sigmoid: ``output[b, y, x, k]`` belongs to the edge between pixel ``(y, x)`` and
        ``(y, x) + nhood[k]``. The batch may be unknown in a graph, and so may H and W.
    edge_mask : Tensor of bool, shape (B, H, W, K), optional
        False where the ground truth of an edge is unknown: such an edge is constrained in neither pass, and its
        counts are 0.
    unlabelled_mask : Tensor of bool, shape (B, H, W) or (B, H, W, 1), optional
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
    data_format : {"channels_last", "channels_first"}, optional
        With "channels_first" the shapes are (B, K, H, W) and (B, 1, H, W) or (B, H, W).

    Returns
    -------
    Tensor
        The loss, float64 for a float64 `output` and float32 for any other. Its gradient has the dtype of `output`.
        The labels get none, and there is no second derivative.

    Raises
    ------
    ValueError
        For shapes that do not go together, empty tensors, NaN, negative or fractional labels, options out of range.
        What depends on values becomes a ``tf.errors.InvalidArgumentError`` in a graph.
    TypeError
        For dtypes and options of another type.
    NotImplementedError
        In a function with ``jit_compile=True``, and for a second derivative.

    References
    ----------
    .. [1] S. C. Turaga, K. L. Briggman, M. Helmstaedter, W. Denk, H. S. Seung: Maximin affinity learning of image
       segmentation. NIPS 2009.
    .. [2] J. Funke et al.: Large scale image segmentation with structured loss based deep learning for connectome
       reconstruction. IEEE TPAMI 41 (2019), 1669-1680.

    Examples
    --------
    >>> import tensorflow as tf
    >>> from malis.malis_tensorflow import malis_loss2d
    >>> seg_gt = tf.constant([[[1, 1, 2, 2], [1, 1, 2, 2]]])
    >>> output = tf.Variable(tf.fill((1, 2, 4, 2), 0.5))
    >>> with tf.GradientTape() as tape:
    ...     loss = malis_loss2d(seg_gt, output)
    >>> round(float(loss), 4)
    0.08
    >>> tape.gradient(loss, output).shape
    TensorShape([1, 2, 4, 2])
    """
    return _evaluate(2, **locals())


def malis_loss3d(
    seg_gt: Any,
    output: Any,
    edge_mask: Any = None,
    unlabelled_mask: Any = None,
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
    data_format: str = "channels_last",
) -> Any:
    """Compute the MALIS loss of a batch of 3-D affinity graphs.

    The loss of one sample is that of `malis_loss2d` [1]_ [2]_.

    Parameters
    ----------
    seg_gt : Tensor, shape (B, D, H, W) or (B, D, H, W, 1)
        Ground truth labels: any integer dtype or bool, or floats that hold integers; 0 is background.
    output : Tensor of float16, bfloat16, float32 or float64, shape (B, D, H, W, K)
        Affinities: ``output[b, z, y, x, k]`` belongs to the edge between voxel ``(z, y, x)`` and
        ``(z, y, x) + nhood[k]``.
    edge_mask : Tensor of bool, shape (B, D, H, W, K), optional
        See `malis_loss2d`.
    unlabelled_mask : Tensor of bool, shape (B, D, H, W) or (B, D, H, W, 1), optional
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
    Tensor
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
    >>> import tensorflow as tf
    >>> from malis.malis_tensorflow import malis_loss3d
    >>> seg_gt = tf.ones((2, 4, 8, 8), tf.int64)
    >>> malis_loss3d(seg_gt, tf.fill((2, 4, 8, 8, 3), 0.5), reduction="none").numpy().round(4).tolist()
    [0.03999999910593033, 0.03999999910593033]
    """
    return _evaluate(3, **locals())
