"""The same face for all adapters: arrays with channels first in; losses, gradients and dtypes out.

A new framework is one class here, one line in ``ADAPTERS`` and one in ``frameworks.FRAMEWORKS``.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

Array = np.ndarray


def channels_first(a: Array) -> Array:
    return np.moveaxis(np.asarray(a), -1, 1)


def channels_last(a: Array) -> Array:
    return np.ascontiguousarray(np.moveaxis(np.asarray(a), 1, -1))


class Result(NamedTuple):
    """What an adapter answers for a batch."""

    losses: Array
    grad: Array  # of the weighted sum of the losses, by the affinities; channels first
    grad_dtype: str
    grad_of_labels: Array | None


class Adapter:
    """What the tests ask of a framework and of its module; subclasses fill in what differs."""

    module: str
    # How the functions call labels and affinities, in their signature and in messages.
    names = ("seg_gt", "output")
    channels_last = False
    # Whether the framework has 64-bit numbers without being told so.
    has_64_bits = True
    # Options that every call gets.
    every_call: dict[str, Any] = {"reduction": "none"}  # noqa: RUF012

    def tensor(self, a: Array) -> Any:
        raise NotImplementedError

    def cast(self, tensor: Any, dtype: str) -> Any:
        raise NotImplementedError

    def numpy(self, tensor: Any) -> Array:
        """The numbers of a tensor; bfloat16, which NumPy lacks, as float32."""
        raise NotImplementedError

    def differentiate(self, function: Callable, seg: Any, output: Any, weights: Any) -> tuple[Any, tuple[Any, Any]]:
        """The losses, and the gradients of their weighted sum by the labels and by the affinities."""
        raise NotImplementedError

    def layout(self, a: Array | None) -> Array | None:
        """An array with channels first, in the layout that the functions take."""
        return channels_last(a) if self.channels_last and a is not None else a

    def loss_of(self, ndim: int, *tensors: Any, **options: Any) -> Any:
        module = importlib.import_module(f"malis.{self.module}")
        return getattr(module, f"malis_loss{ndim}d")(*tensors, **self.every_call, **options)

    def call(
        self,
        ndim: int,
        seg: Array,
        aff: Array,
        edge_mask: Array | None = None,
        unlabelled_mask: Array | None = None,
        **options: Any,
    ) -> Array:
        """Losses, for arrays in the layout that the functions take."""
        tensors = [None if a is None else self.tensor(a) for a in (seg, aff, edge_mask, unlabelled_mask)]
        return self.numpy(self.loss_of(ndim, *tensors, **options))

    def evaluate(
        self,
        ndim: int,
        seg: Array,
        aff: Array,
        edge_mask: Array | None = None,
        unlabelled_mask: Array | None = None,
        *,
        dtype: str = "float32",
        weights: Any = None,
        **options: Any,
    ) -> Result:
        """Losses of a batch, and the gradients of their sum with these weights."""
        edges, voxels = (None if a is None else self.tensor(a) for a in (self.layout(edge_mask), unlabelled_mask))
        output = self.cast(self.tensor(self.layout(aff)), dtype)
        weights = self.tensor(np.ones(len(seg), np.float32) if weights is None else np.asarray(weights, np.float32))
        losses, (of_labels, of_output) = self.differentiate(
            lambda s, o: self.loss_of(ndim, s, o, edges, voxels, **options),
            self.tensor(seg.astype(np.float32)),
            output,
            weights,
        )
        grad = self.numpy(of_output)
        return Result(
            self.numpy(losses),
            channels_first(grad) if self.channels_last else grad,
            re.search(r"b?float\d+", str(of_output.dtype)).group(),
            None if of_labels is None else self.numpy(of_labels),
        )

    def affinity_loss(self, nhood: Any, step: int = 0, **options: Any) -> Callable:
        """`AffinityLoss` as a function (output, target, mask) -> losses of the samples, after so many steps."""
        raise NotImplementedError

    def evaluate_affinity_loss(
        self, nhood: Any, output: Array, target: Array, mask: Array | None = None, /, **options: Any
    ) -> tuple[Array, Array]:
        """Losses of a batch and the gradient of their sum, for arrays with channels first."""
        loss_of = self.affinity_loss(nhood, **options)
        target, mask = (
            None if a is None else self.tensor(self.layout(a) if a.ndim == output.ndim else a) for a in (target, mask)
        )
        losses, (_, grad) = self.differentiate(
            lambda _, out: loss_of(out, target, mask),
            self.tensor(np.zeros(1, np.float32)),
            self.tensor(self.layout(output)),
            self.tensor(np.ones(len(output), np.float32)),
        )
        grad = self.numpy(grad)
        return self.numpy(losses), channels_first(grad) if self.channels_last else grad


class Torch(Adapter):
    module = "malis_torch"

    def __init__(self) -> None:
        import torch

        torch.set_num_threads(1)  # problems this small only wait for PyTorch's threads
        self.torch = torch

    def affinity_loss(self, nhood, step=0, **options):
        from malis.malis_torch import AffinityLoss

        loss = AffinityLoss(nhood, reduction="none", **options)
        loss.step += step
        return loss

    def tensor(self, a):
        return self.torch.from_numpy(np.array(a))

    def cast(self, tensor, dtype):
        return tensor.to(getattr(self.torch, dtype))

    def numpy(self, tensor):
        return tensor.detach().float().numpy() if tensor.dtype == self.torch.bfloat16 else tensor.detach().numpy()

    def differentiate(self, function, seg, output, weights):
        seg.requires_grad_()
        output.requires_grad_()
        losses = function(seg, output)
        scaled = (losses * weights.to(losses.dtype)).sum()
        return losses, self.torch.autograd.grad(scaled, (seg, output), allow_unused=True)


class TensorFlow(Adapter):
    module = "malis_tensorflow"
    channels_last = True

    def __init__(self) -> None:
        import tensorflow as tf

        self.tf = tf

    def affinity_loss(self, nhood, step=0, **options):
        from malis.malis_tensorflow import AffinityLoss

        loss = AffinityLoss(nhood, reduction="none", **options)
        loss.step.assign(step)
        return loss

    def tensor(self, a):
        return self.tf.convert_to_tensor(a)

    def cast(self, tensor, dtype):
        return self.tf.cast(tensor, dtype)

    def numpy(self, tensor):
        return tensor.numpy().astype(np.float64 if tensor.dtype == self.tf.float64 else np.float32)

    def differentiate(self, function, seg, output, weights):
        with self.tf.GradientTape() as tape:
            tape.watch([seg, output])
            losses = function(seg, output)
            scaled = self.tf.reduce_sum(losses * self.tf.cast(weights, losses.dtype))
        return losses, tape.gradient(scaled, [seg, output])


class Jax(Adapter):
    module = "malis_jax"
    has_64_bits = False

    def __init__(self) -> None:
        import jax

        self.jax = jax

    def affinity_loss(self, nhood, step=0, **options):
        from malis.malis_jax import AffinityLoss

        loss = AffinityLoss(nhood, reduction="none", **options)
        return lambda output, target, mask=None: loss(output, target, mask, step=step)

    def tensor(self, a):
        return self.jax.numpy.asarray(a)

    def cast(self, tensor, dtype):
        return tensor.astype(dtype)

    def numpy(self, tensor):
        return np.asarray(tensor.astype("float32"))

    def differentiate(self, function, seg, output, weights):
        def scaled(seg, output):
            losses = function(seg, output)
            return (losses * weights).sum(), losses

        grads, losses = self.jax.grad(scaled, argnums=(0, 1), has_aux=True)(seg, output)
        return losses, grads


def of_keras(backend: type[Adapter]) -> type[Adapter]:
    """The adapter of Keras, which takes and returns tensors of its backend."""

    class Keras(backend):
        module = "malis_keras"
        names = ("y_true", "y_pred")
        channels_last = True
        every_call = {}  # noqa: RUF012  # its functions have no reduction

        def affinity_loss(self, nhood, step=0, **options):
            from malis.malis_keras import AffinityLoss

            loss = AffinityLoss(nhood, step=step, **options)
            return lambda output, target, mask=None: loss.call(target, output, mask)

    return Keras


ADAPTERS: dict[str, type[Adapter]] = {"torch": Torch, "tensorflow": TensorFlow, "jax": Jax}
ADAPTERS |= {f"keras-{name}": of_keras(backend) for name, backend in ADAPTERS.items()}
