"""The loss as an operation of TensorFlow.

Everything ends in a ``tf.custom_gradient`` around one call of the core for the whole batch. Eager tensors are read
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

from malis._adapters import host
from malis._adapters.gradient import FIRST_DERIVATIVE_ONLY, expected_factor
from malis._adapters.output_range import warn_of_range
from malis._adapters.settings import Settings, Tensor

_Array = npt.NDArray[Any]


def raise_under_xla() -> None:
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
    raise NotImplementedError(FIRST_DERIVATIVE_ONLY)


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
            as_expected = tf.reduce_all(tf.equal(factor, 1))
            return tf.cond(as_expected, lambda: grad, lambda: grad * per_sample), _first_derivative_only

        return losses, lambda upstream: chain_rule(upstream, output)

    return losses_of(output)


def losses_of_samples(
    settings: Settings, labels: Any, output: Any, edge_mask: Any, unlabelled_mask: Any, expect_mean: bool
) -> Any:
    """Check the tensors and compute the loss of every sample, shape (B,).

    `expect_mean` tells whether the losses will be averaged or added, see `gradient`.
    """
    labels, output = tf.convert_to_tensor(labels), tf.convert_to_tensor(output)
    edge_mask, unlabelled_mask = (None if m is None else tf.convert_to_tensor(m) for m in (edge_mask, unlabelled_mask))
    checked = settings.check(
        as_seen(output, settings.names.output),
        as_seen(labels, settings.names.labels),
        None if edge_mask is None else as_seen(edge_mask, "edge_mask"),
        None if unlabelled_mask is None else as_seen(unlabelled_mask, "unlabelled_mask"),
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
        if settings.warn:
            warn_of_range(output, settings.options.from_logits, settings.names.output)
        return host.evaluate(
            output,
            labels,
            edges,
            voxels,
            nhood=checked.nhood,
            options=settings.options,
            names=settings.names,
            channels_last=settings.channels_last,
            scale=expected_factor(max(len(output), 1), expect_mean),
            label_limit=checked.label_limit,
        )

    def function(output: Any) -> Any:
        if tf.executing_eagerly():
            return [tf.convert_to_tensor(a) for a in evaluate(*[np.asarray(t) for t in (output, *tensors)])]
        raise_under_xla()
        losses, grad = tf.numpy_function(evaluate, [output, *tensors], [dtype, dtype], stateful=False)
        losses.set_shape(output.shape[:1])
        grad.set_shape(output.shape)
        return losses, grad

    return _differentiable(function, tf.cast(output, dtype), expect_mean)


def as_seen(tensor: Any, name: str) -> Tensor:
    """Shape and dtype of a tensor, for the checks."""
    if tensor.shape.rank is None:
        raise ValueError(f"{name} must have a known number of axes, got a tensor of unknown shape")
    return Tensor(tuple(tensor.shape), tensor.dtype.name)
