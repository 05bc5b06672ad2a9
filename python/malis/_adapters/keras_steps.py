"""Count the training steps of a loss in Keras, which tells a loss neither the step nor whether it is training.

A call counts where its output is differentiated: what `evaluate` and the validation of `fit` compute is not.
"""

from __future__ import annotations

from typing import Any

import keras
import numpy as np


class Steps:
    """The number of training steps so far, where the backend can read it in its compiled functions."""

    def __init__(self, value: int) -> None:
        self._backend = keras.backend.backend()
        self._host = value
        # JAX compiles what a variable held when it was traced, unless the model knows the variable.
        self._variable = None if self._backend == "jax" else _variable(value)

    def value(self) -> int:
        """Return the number of steps."""
        return self._host if self._variable is None else int(keras.ops.convert_to_numpy(self._variable.value))

    def set(self, value: int) -> None:
        """Go on from another number of steps."""
        if self._variable is None:
            self._host = value
        else:
            self._variable.assign(value)

    def next(self, output: Any) -> Any:
        """Return the number of steps before this call, and count the call if its output is differentiated."""
        if self._variable is None:
            return self._next_in_jax(output)
        if self._backend == "torch":
            import torch

            step = self.value()
            if torch.is_grad_enabled():
                self.set(step + 1)
            return step
        step = keras.ops.convert_to_tensor(self._variable.value)
        if _has_tape():
            import tensorflow as tf

            step = tf.identity(step)
            self._variable.value.assign_add(1)
        return step

    def _next_in_jax(self, output: Any) -> Any:
        import jax
        from jax.experimental import io_callback

        def read() -> Any:
            return np.int32(self._host)

        def count() -> Any:
            self._host += 1
            return np.int32(self._host - 1)

        function = count if _is_differentiated_by_jax(output) else read
        if not isinstance(output, jax.core.Tracer):
            return int(function())
        struct: Any = jax.ShapeDtypeStruct
        return io_callback(function, struct((), np.int32))


def _variable(value: int) -> Any:
    # All replicas of a distribution strategy count the same steps.
    return keras.Variable(value, dtype="int32", trainable=False, name="step", aggregation="only_first_replica")


def _has_tape() -> bool:
    """Whether TensorFlow records what is computed, to differentiate it."""
    try:
        from tensorflow.python.eager import record
    except ImportError:  # it is no public module: without it every call counts
        return True
    return bool(record.could_possibly_record())


def _is_differentiated_by_jax(output: Any) -> bool:
    return type(output).__name__ in ("JVPTracer", "LinearizeTracer")
