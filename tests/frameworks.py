"""What the tests of the adapters share: the frameworks, what each needs, and the same small problems for all."""

from __future__ import annotations

import importlib.util
import os
import sys

import numpy as np
import pytest

import malis
from malis.loss import batch_loss

# Name: what has to be installed, and what has to be set before it is imported.
FRAMEWORKS = {
    "torch": (["torch"], {}),
    "tensorflow": (["tensorflow"], {}),
    "jax": (["jax"], {}),
    "keras-tensorflow": (["keras", "tensorflow"], {"KERAS_BACKEND": "tensorflow"}),
    "keras-torch": (["keras", "torch"], {"KERAS_BACKEND": "torch"}),
    "keras-jax": (["keras", "jax"], {"KERAS_BACKEND": "jax"}),
}
QUIET = {
    "TF_CPP_MIN_LOG_LEVEL": "3",
    "TF_ENABLE_ONEDNN_OPTS": "0",
    "JAX_PLATFORMS": "cpu",
    "CUDA_VISIBLE_DEVICES": "",
}

NEAREST = {2: malis.mknhood2d(), 3: malis.mknhood3d()}
SHAPES = {2: (14, 11), 3: (5, 7, 6)}


def missing(modules: list[str]) -> list[str]:
    return [name for name in modules if importlib.util.find_spec(name) is None]


def require(modules: list[str]) -> None:
    """Skip a test without these modules, but not where tests are run for everybody: there they must be installed."""
    absent = missing(modules)
    if absent and os.environ.get("CI"):
        raise ModuleNotFoundError(f"{', '.join(absent)} must be installed in CI")
    if absent:
        pytest.skip(f"{', '.join(absent)} not installed", allow_module_level=True)


# --------------------------------------------------------------------------------------------------- problems
def labels(batch: int, shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    """Blocky labels 0 to 3, so that objects touch, and some are in pieces."""
    rng = np.random.default_rng(seed)
    seg = rng.integers(0, 4, (batch, *[(n + 2) // 3 for n in shape]), dtype=np.int32)
    for axis, n in enumerate(shape, 1):
        seg = np.take(seg.repeat(3, axis), range(n), axis)
    return np.ascontiguousarray(seg)


def tie_free(shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    """Affinities strictly within 0 and 1, each one once in a sample; the first axis is that of the batch."""
    rng = np.random.default_rng(seed + 1)
    n = int(np.prod(shape[1:]))
    return np.stack([(rng.permutation(n).reshape(shape[1:]) + 1) / (n + 1) for _ in range(shape[0])])


def case(ndim: int, batch: int = 3, seed: int = 0, channels: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Labels and tie-free affinities, channels first, float32."""
    aff = tie_free((batch, channels or ndim, *SHAPES[ndim]), seed)
    return labels(batch, SHAPES[ndim], seed), aff.astype(np.float32)


def masks(ndim: int, batch: int = 3) -> tuple[np.ndarray, np.ndarray]:
    """Masks for the edges and the voxels of :func:`case`."""
    rng = np.random.default_rng(7)
    return rng.random((batch, ndim, *SHAPES[ndim])) > 0.2, rng.random((batch, *SHAPES[ndim])) > 0.8


# -------------------------------------------------------------------------------------------- calls of the core
def record_core_calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple]:
    """Record ``(aff, seg, options, result)`` of every evaluation of a batch, wherever an adapter asks for one."""
    calls: list[tuple] = []

    def recording(aff, seg, nhood, **options):
        result = batch_loss(aff, seg, nhood, **options)
        calls.append((aff, seg, options, result))
        return result

    for name, module in list(sys.modules.items()):
        if name.startswith("malis.") and vars(module).get("batch_loss") is batch_loss:
            monkeypatch.setattr(module, "batch_loss", recording)
    return calls


def address(array: np.ndarray) -> int:
    """Where the numbers of an array lie in memory."""
    return array.__array_interface__["data"][0]
