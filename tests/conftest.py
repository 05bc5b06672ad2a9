from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, settings

REFERENCE = Path(__file__).resolve().parent / "reference"
# Real images are published by others and too large to keep in the repository: a folder beside the checkout holds them.
IMAGES = Path(__file__).resolve().parents[2] / "shared" / "data"

# Machines that run tests differ in speed, and tests assert results, never times.
settings.register_profile("malis", deadline=None, print_blob=True, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("malis")


@pytest.fixture(scope="session")
def reference() -> Callable[[str], dict[str, np.ndarray]]:
    """Load one file of the results that the published packages printed, see reference/README.md."""

    def load(name: str) -> dict[str, np.ndarray]:
        with np.load(REFERENCE / f"{name}.npz") as arrays:
            return {key: arrays[key] for key in arrays.files}

    return load


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of the public images and labels; without it, the tests that need real images are skipped."""
    if not IMAGES.is_dir():
        pytest.skip(f"no real images: {IMAGES} is not there")
    return IMAGES


@pytest.fixture
def rng(request: pytest.FixtureRequest) -> np.random.Generator:
    """Random numbers that differ between tests and are the same in every run."""
    return np.random.default_rng(list(request.node.nodeid.encode()))
