"""What goes wrong with files, and the libraries of the formats."""

from __future__ import annotations

import importlib
from typing import Any


class Unsuitable(ValueError):
    """The file is in order, but does not hold what was asked for."""


def library(name: str) -> Any:
    """Import the library of a format; its absence says what to install."""
    try:
        module: Any = importlib.import_module(name)
    except ImportError as error:
        raise ImportError(f"this format needs {name}: pip install {name}") from error
    if name == "zarr" and not hasattr(module, "create_array"):
        raise ImportError(f"this format needs zarr 3 and Python 3.11, got zarr {module.__version__}")
    return module
