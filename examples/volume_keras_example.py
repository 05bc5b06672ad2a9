"""Train a 3-D U-Net of Keras with the MALIS loss on the crops of volume_example.py, whose data and scores these are.

KERAS_BACKEND=torch python examples/volume_keras_example.py
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import layers

from keras_example import LearningRate, set_threads
from malis.malis_keras import AffinityLoss
from training import Phase, Progress
from volume_data import Crops
from volume_example import Network, offsets, run_with


def two_convolutions(x: Any, channels: int, kernel: tuple[int, ...]) -> Any:
    """Two convolutions, each with instance normalisation and LeakyReLU."""
    for _ in range(2):
        x = layers.Conv3D(channels, kernel, padding="same", use_bias=False)(x)
        x = layers.GroupNormalization(groups=-1, epsilon=1e-5)(x)
        x = layers.LeakyReLU(0.01)(x)
    return x


def unet(channels: int, outputs: int, anisotropic: bool) -> keras.Model:
    """Build a U-Net of three levels; in anisotropic volumes the finest one sees sections one by one."""
    first, halved = ((1, 3, 3), (1, 2, 2)) if anisotropic else ((3, 3, 3), (2, 2, 2))
    image = keras.Input((None, None, None, 1))
    fine = two_convolutions(image, channels, first)
    middle = two_convolutions(layers.MaxPooling3D(halved)(fine), 2 * channels, (3, 3, 3))
    x = two_convolutions(layers.MaxPooling3D(2)(middle), 4 * channels, (3, 3, 3))
    x = two_convolutions(layers.Concatenate()([middle, layers.UpSampling3D(2)(x)]), 2 * channels, (3, 3, 3))
    x = two_convolutions(layers.Concatenate()([fine, layers.UpSampling3D(halved)(x)]), channels, first)
    return keras.Model(image, layers.Conv3D(outputs, 1)(x))


def train(args: argparse.Namespace, plan: Sequence[Phase], crops: Crops) -> Network:
    """Train the U-Net phase by phase; returns it as a function from crops (B, 1, D, H, W) to logits (B, K, D, H, W)."""
    if args.threads is not None:
        set_threads(args.threads)
    keras.config.set_image_data_format("channels_last")
    keras.utils.set_random_seed(args.seed)
    nhood = offsets(args.anisotropic)
    model = unet(args.channels, len(nhood), args.anisotropic)
    begin = 0
    for phase in plan:
        weights = {"malis": phase.malis, "cross_entropy": phase.cross_entropy}
        loss = AffinityLoss(nhood, **weights, warmup=0, margin=args.margin, connect_labels=True)
        model.compile(keras.optimizers.Adam(LearningRate(phase)), loss=loss)
        batches = ((np.moveaxis(i.numpy(), 1, -1), s.numpy()[:, 0]) for i, s in crops.take(begin, begin + phase.steps))
        with Progress(phase) as progress:
            show = keras.callbacks.LambdaCallback(on_train_batch_end=lambda _, logs, p=progress: p.show(logs["loss"]))
            model.fit(batches, steps_per_epoch=phase.steps, shuffle=False, verbose=0, callbacks=[show])
        begin += phase.steps
    return lambda window: np.moveaxis(model.predict_on_batch(np.moveaxis(window, 1, -1)), -1, 1)


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    """Run the example; returns the thresholds and the scores of the test volume."""
    return run_with(train, argv)


if __name__ == "__main__":
    main()
