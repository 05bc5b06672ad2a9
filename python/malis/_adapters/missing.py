"""What to say where a framework is not installed."""

from __future__ import annotations


def missing(error: ModuleNotFoundError, framework: str, extra: str) -> ModuleNotFoundError:
    """Return an error that says which extra to install; the same error if it is not the framework that is missing."""
    if error.name != framework:
        return error
    return ModuleNotFoundError(
        f"malis.malis_{extra} needs {framework}, which is not installed: python -m pip install 'malis-loss[{extra}]'",
        name=framework,
    )
