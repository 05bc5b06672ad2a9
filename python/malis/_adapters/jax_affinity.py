"""`AffinityLoss` on arrays of JAX."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from malis._adapters import array_affinity, jax_op
from malis._adapters.affinity import Recipe
from malis._adapters.array_affinity import Losses
from malis._adapters.settings import Settings, Tensor


class _Jax:
    """See `array_affinity.Ops`."""

    cast = staticmethod(lambda x, dtype: jnp.asarray(x).astype(dtype))
    roll = staticmethod(jnp.roll)
    arange = staticmethod(jnp.arange)
    reshape = staticmethod(jnp.reshape)
    squeeze = staticmethod(jnp.squeeze)
    stack = staticmethod(jnp.stack)
    full_like = staticmethod(jnp.full_like)
    where = staticmethod(lambda condition, a, b: jnp.where(condition, a, b))
    clip = staticmethod(jnp.clip)
    log = staticmethod(jnp.log)
    constant = staticmethod(jax.lax.stop_gradient)

    @staticmethod
    def seen(x: Any, name: str) -> Tensor:
        return Tensor(tuple(x.shape), jnp.dtype(x.dtype).name)

    @staticmethod
    def sizes(x: Any) -> Sequence[Any]:
        return tuple(x.shape)

    @staticmethod
    def broadcast(x: Any, sizes: Sequence[Any]) -> Any:
        return jnp.broadcast_to(x, tuple(sizes))

    @staticmethod
    def take(x: Any, channels: list[int], axis: int) -> Any:
        return jnp.take(x, jnp.asarray(channels), axis)

    @staticmethod
    def total(x: Any) -> Any:
        return x.sum(tuple(range(1, x.ndim)))

    @staticmethod
    def cross_entropy_of_logits(logits: Any, truth: Any) -> Any:
        return jax.nn.softplus(logits) - logits * truth

    @staticmethod
    def when(condition: Any, compute: Callable[[], Any], like: Any) -> Any:
        return jax.lax.cond(condition, compute, lambda: jnp.zeros_like(like))

    @staticmethod
    def on_host(function: Callable[..., Any], dtype: str, like: Any, *arrays: Any) -> Any:
        if not any(isinstance(array, jax.core.Tracer) for array in arrays):
            return jnp.asarray(function(*arrays))
        struct: Any = jax.ShapeDtypeStruct
        return jax.pure_callback(function, struct(like.shape, dtype), *arrays, vmap_method="broadcast_all")

    @staticmethod
    def losses_of_samples(settings: Settings, labels: Any, output: Any, edge_mask: Any) -> Any:
        return jax_op.losses_of_samples(settings, labels, output, edge_mask, None, expect_mean=True)


def losses(settings: Settings, recipe: Recipe, target: Any, output: Any, mask: Any, step: Any) -> Losses:
    """Compute the loss of every sample at a step."""
    names = settings.names
    labels, affinities, known = (
        None if value is None else jax_op.as_array(value, name)
        for value, name in ((target, names.labels), (output, names.output), (mask, "mask"))
    )
    return array_affinity.losses(_Jax(), settings, recipe, labels, affinities, known, step)
