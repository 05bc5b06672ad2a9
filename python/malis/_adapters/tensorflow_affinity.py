"""`AffinityLoss` on tensors of TensorFlow."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from malis._adapters import array_affinity, tensorflow_op
from malis._adapters.affinity import Recipe
from malis._adapters.array_affinity import Losses
from malis._adapters.settings import Settings


class _TensorFlow:
    """See `array_affinity.Ops`."""

    seen = staticmethod(tensorflow_op.as_seen)
    cast = staticmethod(tf.cast)
    roll = staticmethod(tf.roll)
    arange = staticmethod(tf.range)
    reshape = staticmethod(tf.reshape)
    broadcast = staticmethod(tf.broadcast_to)
    squeeze = staticmethod(tf.squeeze)
    stack = staticmethod(tf.stack)
    where = staticmethod(tf.where)
    clip = staticmethod(tf.clip_by_value)
    log = staticmethod(tf.math.log)
    constant = staticmethod(tf.stop_gradient)

    @staticmethod
    def sizes(x: Any) -> Sequence[Any]:
        known, running = x.shape.as_list(), tf.shape(x)
        return [running[axis] if n is None else n for axis, n in enumerate(known)]

    @staticmethod
    def full_like(x: Any, value: int) -> Any:
        return tf.fill(tf.shape(x), tf.constant(value, x.dtype) if x.dtype != tf.bool else tf.constant(bool(value)))

    @staticmethod
    def take(x: Any, channels: list[int], axis: int) -> Any:
        return tf.gather(x, channels, axis=axis)

    @staticmethod
    def total(x: Any) -> Any:
        return tf.reduce_sum(x, axis=list(range(1, x.shape.rank)))

    @staticmethod
    def cross_entropy_of_logits(logits: Any, truth: Any) -> Any:
        return tf.nn.sigmoid_cross_entropy_with_logits(labels=truth, logits=logits)

    @staticmethod
    def when(condition: Any, compute: Callable[[], Any], like: Any) -> Any:
        return tf.cond(condition, compute, lambda: tf.zeros_like(like))

    @staticmethod
    def on_host(function: Callable[..., Any], dtype: str, like: Any, *arrays: Any) -> Any:
        if tf.executing_eagerly():
            return tf.convert_to_tensor(function(*[np.asarray(array) for array in arrays]))
        tensorflow_op.raise_under_xla()
        result = tf.numpy_function(function, arrays, tf.as_dtype(dtype), stateful=False)
        result.set_shape(like.shape)
        return result

    @staticmethod
    def losses_of_samples(settings: Settings, labels: Any, output: Any, edge_mask: Any) -> Any:
        return tensorflow_op.losses_of_samples(settings, labels, output, edge_mask, None, expect_mean=True)


def losses(settings: Settings, recipe: Recipe, target: Any, output: Any, mask: Any, step: Any) -> Losses:
    """Compute the loss of every sample at a step."""
    labels, affinities, known = (
        None if value is None else tf.convert_to_tensor(value) for value in (target, output, mask)
    )
    return array_affinity.losses(_TensorFlow(), settings, recipe, labels, affinities, known, step)
