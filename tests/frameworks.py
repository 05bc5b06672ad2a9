"""What the tests of the frameworks share: one process for each, and the same small problems."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import malis

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
CURRENT = os.environ.get("MALIS_TEST_FRAMEWORK")

NEAREST = {2: malis.mknhood2d(), 3: malis.mknhood3d()}
SHAPES = {2: (14, 11), 3: (5, 7, 6)}


def require(modules: list[str]) -> None:
    """Skip a test without these modules, but not where tests are run for everybody: there they must be installed."""
    missing = [name for name in modules if importlib.util.find_spec(name) is None]
    if missing and os.environ.get("CI"):
        raise ModuleNotFoundError(f"{', '.join(missing)} must be installed in CI")
    if missing:
        pytest.skip(f"{', '.join(missing)} not installed", allow_module_level=True)


def run_in_own_process(file: str, framework: str) -> None:
    """Run the tests of a file in a process that imports one framework alone."""
    modules, environment = FRAMEWORKS[framework]
    require(modules)
    command = [
        sys.executable,
        "-m",
        "pytest",
        file,
        "-q",
        "-x",
        "-p",
        "no:cacheprovider",
        "-p",
        "no:xdist",
        "--tb=short",
    ]
    result = subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
        cwd=Path(file).parents[1],
        env={**os.environ, **QUIET, **environment, "MALIS_TEST_FRAMEWORK": framework},
    )
    assert result.returncode == 0, result.stdout + result.stderr[-3000:]
    assert " passed" in result.stdout
    assert "skipped" not in result.stdout, result.stdout


def labels(batch: int, shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    """Blocky labels 0 to 3, so that objects touch, and some are in pieces."""
    rng = np.random.default_rng(seed)
    seg = rng.integers(0, 4, (batch, *[(n + 2) // 3 for n in shape]), dtype=np.int32)
    for axis, n in enumerate(shape, 1):
        seg = np.take(seg.repeat(3, axis), range(n), axis)
    return np.ascontiguousarray(seg)


def case(ndim: int, batch: int = 3, seed: int = 0, channels: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Labels, and affinities strictly within 0 and 1, each one once in a sample, channels first, float32."""
    rng = np.random.default_rng(seed + 1)
    shape = (channels or ndim, *SHAPES[ndim])
    n = int(np.prod(shape))
    aff = np.stack([(rng.permutation(n).reshape(shape) + 1) / (n + 1) for _ in range(batch)])
    return labels(batch, SHAPES[ndim], seed), aff.astype(np.float32)


def masks(ndim: int, batch: int = 3) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(7)
    return rng.random((batch, ndim, *SHAPES[ndim])) > 0.2, rng.random((batch, *SHAPES[ndim])) > 0.8
