"""Train a 3-D U-Net of Flax with MALIS in JAX on the crops of volume_example.py, whose data and scores these are.

python examples/volume_jax_example.py
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn

from malis.malis_jax import AffinityLoss
from training import Phase, Progress
from volume_data import Crops
from volume_example import Network, offsets, run_with


class TwoConvolutions(nn.Module):
    """Two convolutions, each with instance normalisation and LeakyReLU."""

    channels: int
    kernel: tuple[int, ...]

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        for _ in range(2):
            x = nn.Conv(self.channels, self.kernel, use_bias=False)(x)
            x = nn.leaky_relu(nn.InstanceNorm(epsilon=1e-5)(x), 0.01)
        return x


class UNet(nn.Module):
    """A U-Net of three levels; in anisotropic volumes the finest one sees sections one by one."""

    channels: int
    outputs: int
    anisotropic: bool

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        first, halved = ((1, 3, 3), (1, 2, 2)) if self.anisotropic else ((3, 3, 3), (2, 2, 2))
        fine = TwoConvolutions(self.channels, first)(x)
        middle = TwoConvolutions(2 * self.channels, (3, 3, 3))(nn.max_pool(fine, halved, halved))
        x = TwoConvolutions(4 * self.channels, (3, 3, 3))(nn.max_pool(middle, (2, 2, 2), (2, 2, 2)))
        for skip, kernel in ((middle, (3, 3, 3)), (fine, first)):
            x = jax.image.resize(x, (*skip.shape[:-1], x.shape[-1]), "nearest")
            x = TwoConvolutions(skip.shape[-1], kernel)(jnp.concatenate([skip, x], axis=-1))
        return nn.Conv(self.outputs, (1, 1, 1))(x)


def train(args: argparse.Namespace, plan: Sequence[Phase], crops: Crops) -> Network:
    """Train the U-Net phase by phase; returns it as a function from crops (B, 1, D, H, W) to logits (B, K, D, H, W)."""
    if args.threads is not None:
        os.environ["NPROC"] = str(args.threads)  # XLA reads it when the first array is made
    nhood = offsets(args.anisotropic)
    model = UNet(args.channels, len(nhood), args.anisotropic)
    params = jax.jit(model.init)(jax.random.key(args.seed), jnp.zeros((1, *args.crop, 1)))
    begin = 0
    for phase in plan:
        weights = {"malis": phase.malis, "cross_entropy": phase.cross_entropy}
        criterion = AffinityLoss(
            nhood, **weights, warmup=0, margin=args.margin, connect_labels=True, data_format="channels_last"
        )
        rates = jnp.array([phase.learning_rate(step) for step in range(phase.steps)])
        optimizer = optax.adam(rates.__getitem__)
        moments = optimizer.init(params)

        @jax.jit
        def step(params: Any, moments: Any, images: Any, labels: Any, criterion=criterion, optimizer=optimizer) -> Any:
            loss, grad = jax.value_and_grad(lambda p: criterion(model.apply(p, images), labels))(params)
            updates, moments = optimizer.update(grad, moments)
            return optax.apply_updates(params, updates), moments, loss

        with Progress(phase) as progress:
            for images, labels in crops.take(begin, begin + phase.steps):
                params, moments, loss = step(params, moments, np.moveaxis(images.numpy(), 1, -1), labels.numpy()[:, 0])
                progress.step(float(loss))
        begin += phase.steps
    trained = jax.jit(model.apply)
    return lambda window: np.moveaxis(np.asarray(trained(params, np.moveaxis(window, 1, -1))), -1, 1)


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    """Run the example; returns the thresholds and the scores of the test volume."""
    return run_with(train, argv)


if __name__ == "__main__":
    main()
