from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, settings

SHARED = Path(__file__).resolve().parents[2] / "shared"

# Machines that run tests differ in speed, and tests assert results, never times.
settings.register_profile("malis", deadline=None, print_blob=True, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("malis")


def _shared_folder(name: str) -> Path:
    folder = SHARED / name
    if not folder.is_dir():
        pytest.skip(f"{folder} is not there: it is kept next to a checkout, not in it")
    return folder


@pytest.fixture(scope="session")
def reference() -> Callable[[str], dict[str, np.ndarray]]:
    """Load one file of the results that the published packages printed."""
    folder = _shared_folder("reference")

    def load(name: str) -> dict[str, np.ndarray]:
        with np.load(folder / f"{name}.npz") as arrays:
            return {key: arrays[key] for key in arrays.files}

    return load


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of the public images and labels."""
    return _shared_folder("data")


@pytest.fixture
def rng(request: pytest.FixtureRequest) -> np.random.Generator:
    """Random numbers that differ between tests and are the same in every run."""
    return np.random.default_rng(list(request.node.nodeid.encode()))
