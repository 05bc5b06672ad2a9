"""Time per loss call of the adapters against the NumPy call, each framework in a process of its own.

    python benchmarks/adapters.py FRAMEWORK SIZE IMAGE THREADS REPETITIONS

measures the adapter of one framework, on a volume of SIZE^3 and on 8 images of IMAGE^2, and prints JSON. A call is what
a training step needs: loss and gradient, by the framework's own differentiation, compiled where its users compile.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

import checks
import data
import malis
from timing import alternate, as_time, installed, log, median

LIMIT = 1.15  # x the NumPy call

# What has to be installed, and what has to be set before it is imported.
FRAMEWORKS: dict[str, tuple[list[str], dict[str, str]]] = {
    "torch": (["torch"], {}),
    "tensorflow": (["tensorflow"], {}),
    "jax": (["jax"], {}),
    "keras-tensorflow": (["keras", "tensorflow"], {"KERAS_BACKEND": "tensorflow"}),
    "keras-torch": (["keras", "torch"], {"KERAS_BACKEND": "torch"}),
    "keras-jax": (["keras", "jax"], {"KERAS_BACKEND": "jax"}),
}
QUIET = {"TF_CPP_MIN_LOG_LEVEL": "3", "TF_ENABLE_ONEDNN_OPTS": "0", "JAX_PLATFORMS": "cpu", "CUDA_VISIBLE_DEVICES": ""}


@dataclass(frozen=True)
class Measured:
    """An adapter on one input, and the NumPy call in the same process, in seconds."""

    framework: str
    layout: str
    problem: str
    seconds: float
    numpy_seconds: float

    @property
    def ratio(self) -> float:
        return self.seconds / self.numpy_seconds

    def cells(self, quick: bool) -> list[str]:
        met = "-" if quick else "yes" if self.ratio <= LIMIT else "**no**"
        times = [as_time(self.seconds), as_time(self.numpy_seconds)]
        return [title(self.framework), self.layout.replace("_", " "), self.problem, *times, f"{self.ratio:.3g}", met]


HEADER = ["adapter", "layout", "input", "median", "median of the NumPy call", "ratio", f"at most {LIMIT}"]


def title(framework: str) -> str:
    """Name an adapter as its users know it."""
    names = {"torch": "PyTorch", "tensorflow": "TensorFlow", "jax": "JAX"}
    library, _, backend = framework.partition("-")
    return f"Keras on {names[backend]}" if backend else names[library]


# ------------------------------------------------------------------------------------- one call of each framework
Call = Callable[[], tuple[Any, Any]]  # loss (the mean over the samples) and gradient, as the framework has them


def torch_call(labels: np.ndarray, output: np.ndarray, layout: str, keras_loss: Any = None) -> Call:
    import torch

    from malis.malis_torch import MalisLoss

    torch.set_num_threads(malis.get_num_threads())
    loss_of = keras_loss or MalisLoss()
    seg, aff = torch.from_numpy(labels), torch.from_numpy(output).requires_grad_()

    def call() -> tuple[Any, Any]:
        aff.grad = None
        loss = loss_of(seg, aff)
        loss.backward()
        return loss.detach(), aff.grad

    return call


def tensorflow_call(labels: np.ndarray, output: np.ndarray, layout: str, keras_loss: Any = None) -> Call:
    import tensorflow as tf

    from malis import malis_tensorflow

    functions = {2: malis_tensorflow.malis_loss2d, 3: malis_tensorflow.malis_loss3d}
    function = functions[labels.ndim - 1]
    seg, aff = tf.constant(labels), tf.constant(output)

    @tf.function
    def call(seg: Any, aff: Any) -> tuple[Any, Any]:
        loss = keras_loss(seg, aff) if keras_loss else function(seg, aff, data_format=layout)
        return loss, tf.gradients(loss, aff)[0]

    return lambda: call(seg, aff)


def jax_call(labels: np.ndarray, output: np.ndarray, layout: str, keras_loss: Any = None) -> Call:
    import jax

    from malis import malis_jax

    functions = {2: malis_jax.malis_loss2d, 3: malis_jax.malis_loss3d}
    function = functions[labels.ndim - 1]
    seg, aff = jax.numpy.asarray(labels), jax.numpy.asarray(output)

    @jax.jit
    def call(seg: Any, aff: Any) -> tuple[Any, Any]:
        def loss(aff: Any) -> Any:
            return keras_loss(seg, aff) if keras_loss else function(seg, aff, data_format=layout)

        return jax.value_and_grad(loss)(aff)

    return lambda: jax.block_until_ready(call(seg, aff))


CALLS = {"torch": torch_call, "tensorflow": tensorflow_call, "jax": jax_call}


def calls(framework: str, seg: np.ndarray, aff: np.ndarray) -> dict[str, Call]:
    """Return the calls of a framework, by the layout of the affinities."""
    library, _, backend = framework.partition("-")
    last = np.ascontiguousarray(np.moveaxis(aff, 1, -1))
    if backend:
        from malis.malis_keras import MalisLoss

        return {"channels_last": CALLS[backend](seg, last, "channels_last", MalisLoss())}
    make = CALLS[library]
    found = {"channels_first": make(seg, aff, "channels_first")}
    if library != "torch":
        found["channels_last"] = make(seg, last, "channels_last")
    return found


# ---------------------------------------------------------------------------------------------------- measuring
def _measure(framework: str, size: int, image: int, threads: int, repetitions: int) -> list[Measured]:
    """Check what the adapter returns, then time it in turn with the NumPy call."""
    malis.set_num_threads(threads)
    results = []
    for problem, shape, samples in ((f"{size}^3", (size,) * 3, 1), (f"8 x {image}^2", (image,) * 2, 8)):
        seg, aff, nhood = data.batch(shape, samples)
        functions: dict[str, Callable[[], Any]] = {
            "numpy": lambda aff=aff, seg=seg, nhood=nhood: malis.malis_loss(aff, seg, nhood)
        }
        for layout, call in calls(framework, seg, aff).items():
            loss, grad = (np.asarray(result) for result in call())
            grad = np.moveaxis(grad, -1, 1) if layout == "channels_last" else grad
            checks.mean_of_batch(f"{framework}, {layout}", float(loss), grad, aff, seg, nhood)
            functions[layout] = call
        times = alternate(functions, repetitions)
        results += [
            Measured(framework, layout, problem, median(times, layout), median(times, "numpy"))
            for layout in functions
            if layout != "numpy"
        ]
    return results


def measure(
    framework: str, size: int, image: int, threads: int, repetitions: int
) -> tuple[list[Measured], dict[str, str]]:
    """Measure one framework in a fresh process, which also tells its version."""
    arguments = [str(n) for n in (size, image, threads, repetitions)]
    command = [sys.executable, __file__, framework, *arguments]
    environment = {**os.environ, **QUIET, **FRAMEWORKS[framework][1]}
    run = subprocess.run(command, capture_output=True, text=True, env=environment)
    if run.returncode == 3:
        raise checks.WrongResult(run.stderr.strip().splitlines()[-1])
    if run.returncode != 0:
        raise RuntimeError(f"measuring {framework} failed:\n{run.stderr}")
    printed = json.loads(run.stdout.splitlines()[-1])
    return [Measured(**result) for result in printed["measured"]], printed["versions"]


def measure_all(
    frameworks: Sequence[str], size: int, image: int, threads: int, repetitions: int
) -> tuple[list[Measured], dict[str, str], dict[str, str]]:
    """Measure the frameworks that are installed; also returns their versions, and what is missing."""
    found: list[Measured] = []
    versions: dict[str, str] = {}
    missing = {}
    for framework in frameworks:
        needed = [name for name in FRAMEWORKS[framework][0] if not installed(name)]
        if needed:
            missing[title(framework)] = f"{needed[0]} is not installed"
            continue
        log(f"adapter: {framework}")
        measured, used = measure(framework, size, image, threads, repetitions)
        found += measured
        versions |= used
    return found, versions, missing


if __name__ == "__main__":
    try:
        found = _measure(sys.argv[1], *map(int, sys.argv[2:]))
    except checks.WrongResult as error:
        print(error, file=sys.stderr)
        sys.exit(3)
    versions = {name: sys.modules[name].__version__ for name in FRAMEWORKS[sys.argv[1]][0]}
    print(json.dumps({"measured": [asdict(result) for result in found], "versions": versions}))
