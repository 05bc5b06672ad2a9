"""Train a small U-Net of Keras with the MALIS loss, segment images it never saw, score them and save a picture.

KERAS_BACKEND=torch python examples/keras_example.py                # packed organelles, generated
KERAS_BACKEND=jax python examples/keras_example.py --data isbi2012  # a folder with image/ and label/
KERAS_BACKEND=tensorflow python examples/keras_example.py --help
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator, Sequence
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
from keras import layers

from data import Batches, Image
from malis.malis_keras import AffinityLoss
from tasks import NHOOD, Network, Task
from training import Phase, Progress, phases, run, unet_features


def set_threads(threads: int) -> None:
    """Tell the backend how many threads to take, before it starts any."""
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        tf.config.threading.set_intra_op_parallelism_threads(threads)
    elif keras.backend.backend() == "torch":
        import torch

        torch.set_num_threads(threads)
    else:
        os.environ["NPROC"] = str(threads)  # XLA reads it when the first array is made


def convolution(x: Any, channels: int, size: int) -> Any:
    # The kernels begin as those of the PyTorch example.
    kernel = keras.initializers.VarianceScaling(1 / 3, "fan_in", "uniform")
    return layers.Conv2D(channels, size, padding="same", kernel_initializer=kernel)(x)


def two_convolutions(x: Any, channels: int) -> Any:
    """Two convolutions, each with batch normalisation and LeakyReLU."""
    for _ in range(2):
        x = convolution(x, channels, 3)
        x = layers.BatchNormalization(momentum=0.9, epsilon=1e-5)(x)
        x = layers.LeakyReLU(0.1)(x)
    return x


def unet(image_channels: int, features: tuple[int, ...], channels: int) -> keras.Model:
    """Build the U-Net of the PyTorch example, MONAI's BasicUNet, with channels last."""
    *levels, last = features
    image = x = keras.Input((None, None, image_channels))
    skipped = []
    for level in levels:
        x = layers.MaxPooling2D()(x) if skipped else x
        x = two_convolutions(x, level)
        skipped.append(x)
    skipped.pop()
    while skipped:
        skip = skipped.pop()
        if skipped:
            x = convolution(x, x.shape[-1] // 2, 1)
        # Transposed convolutions leave a checkerboard in the affinities.
        x = layers.UpSampling2D(interpolation="bilinear")(x)
        x = layers.Concatenate()([skip, x])
        x = two_convolutions(x, skip.shape[-1] if skipped else last)
    return keras.Model(image, convolution(x, channels, 1))


class LearningRate(keras.optimizers.schedules.LearningRateSchedule):
    """The learning rate of every step of a phase."""

    def __init__(self, phase: Phase) -> None:
        self.rates = np.array([phase.learning_rate(step) for step in range(phase.steps)], np.float32)

    def __call__(self, step: Any) -> Any:
        return keras.ops.take(self.rates, keras.ops.cast(step, "int32"))


def criterion_of(task: Task, phase: Phase, margin: float) -> keras.losses.Loss:
    """Return the loss of a phase."""
    if task.of_mask:
        return keras.losses.BinaryCrossentropy(from_logits=True)
    # The phases are the warm-up, each with an optimiser of its own; in one phase AffinityLoss counts the steps itself.
    return AffinityLoss(NHOOD, malis=phase.malis, cross_entropy=phase.cross_entropy, warmup=0, margin=margin)


def train_phase(model: keras.Model, phase: Phase, task: Task, batches: Batches, margin: float) -> None:
    """Compile the loss of a phase with an optimiser of its own, and fit."""
    model.compile(keras.optimizers.Adam(LearningRate(phase)), loss=criterion_of(task, phase, margin))

    def samples() -> Iterator[tuple[npt.NDArray[np.float32], npt.NDArray[Any]]]:
        for images, labels in batches.take(phase.steps):
            truth = (labels[..., None] > 0).astype(np.float32) if task.of_mask else labels
            yield np.moveaxis(images, 1, -1), truth

    with Progress(phase) as progress:
        show = keras.callbacks.LambdaCallback(on_train_batch_end=lambda _, logs: progress.show(logs["loss"]))
        model.fit(samples(), steps_per_epoch=phase.steps, shuffle=False, verbose=0, callbacks=[show])


def train(args: argparse.Namespace, task: Task, image_channels: int, batches: Batches) -> Network:
    """Train the U-Net phase by phase."""
    if args.threads is not None:
        set_threads(args.threads)
    keras.config.set_image_data_format("channels_last")
    keras.utils.set_random_seed(args.seed)
    model = unet(image_channels, unet_features(args.channels), task.channels)
    print(f"U-Net with {sum(int(np.prod(v.shape)) for v in model.trainable_variables):,} parameters")
    for phase in phases(args):
        train_phase(model, phase, task, batches, args.margin)

    def network(image: Image) -> npt.NDArray[np.float32]:
        return np.moveaxis(model.predict_on_batch(np.moveaxis(image, 0, -1)[np.newaxis])[0], -1, 0)

    return network


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    """Run the example; returns the threshold and the scores of the test images."""
    return run(__doc__.split("\n")[0], train, argv)


if __name__ == "__main__":
    main()
