"""Train a small U-Net of Flax with the MALIS loss in JAX, segment images it never saw, score them and save a picture.

python examples/jax_example.py                                  # packed organelles, generated
python examples/jax_example.py --data isbi2012 --loss malis     # a folder with image/ and label/
python examples/jax_example.py --help
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
import optax
from flax import linen as nn

from data import Batches, Image
from malis.malis_jax import AffinityLoss
from tasks import NHOOD, Network, Task
from training import Phase, Progress, phases, run, unet_features

# As in the other examples, whose layers begin with these by default.
KERNEL = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")


class TwoConvolutions(nn.Module):
    """Two convolutions, each with batch normalisation and LeakyReLU."""

    channels: int

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        for _ in range(2):
            x = nn.Conv(self.channels, (3, 3), kernel_init=KERNEL)(x)
            x = nn.BatchNorm(use_running_average=not train, momentum=0.9, epsilon=1e-5)(x)
            x = nn.leaky_relu(x, 0.1)
        return x


class UNet(nn.Module):
    """The U-Net of the PyTorch example, MONAI's BasicUNet, with channels last."""

    features: tuple[int, ...]
    channels: int

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        *levels, last = self.features
        skipped = []
        for channels in levels:
            x = nn.max_pool(x, (2, 2), (2, 2)) if skipped else x
            x = TwoConvolutions(channels)(x, train)
            skipped.append(x)
        skipped.pop()
        while skipped:
            skip = skipped.pop()
            if skipped:
                x = nn.Conv(x.shape[-1] // 2, (1, 1), kernel_init=KERNEL)(x)
            # Transposed convolutions leave a checkerboard in the affinities.
            x = jax.image.resize(x, (*skip.shape[:3], x.shape[-1]), "bilinear")
            x = jnp.concatenate([skip, x], axis=-1)
            x = TwoConvolutions(skip.shape[-1] if skipped else last)(x, train)
        return nn.Conv(self.channels, (1, 1), kernel_init=KERNEL)(x)


def criterion_of(task: Task, phase: Phase, margin: float) -> Callable[[jax.Array, jax.Array], jax.Array]:
    """Return the loss of a phase: (logits, labels) -> a scalar."""
    if task.of_mask:
        return lambda logits, labels: optax.sigmoid_binary_cross_entropy(logits, labels[..., None] > 0).mean()
    # The phases are the warm-up, each with an optimiser of its own; in one phase AffinityLoss takes the step.
    weights = {"malis": phase.malis, "cross_entropy": phase.cross_entropy}
    return AffinityLoss(NHOOD, **weights, warmup=0, margin=margin, data_format="channels_last")


def training_step(model: UNet, criterion: Callable[..., jax.Array], optimizer: optax.GradientTransformation) -> Any:
    """Compile a step of a phase: (parameters, statistics, moments), a batch -> the same, and the loss."""

    def loss_of(params: Any, stats: Any, images: Any, labels: Any) -> Any:
        variables = {"params": params, "batch_stats": stats}
        logits, updated = model.apply(variables, images, train=True, mutable=["batch_stats"])
        return criterion(logits, labels), updated["batch_stats"]

    @jax.jit
    def step(state: Any, *batch: Any) -> Any:
        params, stats, moments = state
        (loss, stats), grad = jax.value_and_grad(loss_of, has_aux=True)(params, stats, *batch)
        updates, moments = optimizer.update(grad, moments)
        return (optax.apply_updates(params, updates), stats, moments), loss

    return step


def train(args: argparse.Namespace, task: Task, image_channels: int, batches: Batches) -> Network:
    """Train the U-Net phase by phase."""
    if args.threads is not None:
        os.environ["NPROC"] = str(args.threads)  # XLA reads it when the first array is made
    model = UNet(unet_features(args.channels), task.channels)
    image = jnp.zeros((1, args.crop, args.crop, image_channels))
    variables = jax.jit(model.init, static_argnames="train")(jax.random.key(args.seed), image, train=False)
    params, stats = variables["params"], variables["batch_stats"]
    print(f"U-Net with {sum(p.size for p in jax.tree.leaves(params)):,} parameters")

    for phase in phases(args):
        rates = jnp.array([phase.learning_rate(step) for step in range(phase.steps)])
        optimizer = optax.adam(rates.__getitem__)
        step = training_step(model, criterion_of(task, phase, args.margin), optimizer)
        state = params, stats, optimizer.init(params)
        with Progress(phase) as progress:
            for images, labels in batches.take(phase.steps):
                state, loss = step(state, np.moveaxis(images, 1, -1), labels)
                progress.step(float(loss))
        params, stats, _ = state

    trained = jax.jit(lambda images: model.apply({"params": params, "batch_stats": stats}, images, train=False))

    def network(image: Image) -> npt.NDArray[np.float32]:
        return np.moveaxis(trained(np.moveaxis(image, 0, -1)[np.newaxis])[0], -1, 0)

    return network


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    """Run the example; returns the threshold and the scores of the test images."""
    return run(__doc__.split("\n")[0], train, argv)


if __name__ == "__main__":
    main()
