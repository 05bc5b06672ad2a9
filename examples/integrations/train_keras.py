"""Train with Keras' fit: `AffinityLoss` as the loss of a compiled model, saved with it.

KERAS_BACKEND=torch python train_keras.py, or jax, or tensorflow.
"""

import keras
import numpy as np

import malis
from malis.malis_keras import AffinityLoss
from malis.synthetic import synthetic_image

NHOOD = malis.mknhood2d(1)


def main(epochs: int = 6, warmup: int = 16, file: str = "keras_output.keras") -> tuple[keras.Model, list[float]]:
    """Train for epochs of four steps; returns the model, loaded from the file it was saved to, and the losses."""
    images, labels = (np.stack(arrays) for arrays in zip(*(synthetic_image(s, 64) for s in range(8)), strict=True))
    model = keras.Sequential(
        [
            keras.Input((None, None, 1)),
            keras.layers.Conv2D(16, 7, padding="same", activation="relu"),
            keras.layers.Conv2D(len(NHOOD), 7, padding="same"),  # no activation: the loss takes logits
        ]
    )
    model.compile(keras.optimizers.Adam(1e-2), loss=AffinityLoss(NHOOD, warmup=warmup))
    history = model.fit(np.moveaxis(images, 1, -1), labels, batch_size=2, epochs=epochs, verbose=2)
    model.save(file)
    return keras.saving.load_model(file), history.history["loss"]


if __name__ == "__main__":
    print(main()[0].loss.get_config())
