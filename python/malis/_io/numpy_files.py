"""NumPy's own files."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from malis._io.blocks import Array
from malis._io.errors import Unsuitable
from malis._io.place import Place
from malis._io.volume import Stored

PROVENANCE = "malis"


def read_npy(place: Place) -> Stored:
    """Read an .npy file; pickles are refused."""
    return Stored(_as_array(place, np.load(place.path, allow_pickle=False)))


def read_npz(place: Place) -> Stored:
    """Read one array of an .npz file; pickles are refused."""
    with np.load(place.path, allow_pickle=False) as arrays:
        name = choose(place, [name for name in arrays.files if name != PROVENANCE])
        return Stored(_as_array(place, arrays[name]))


def _as_array(place: Place, loaded: Any) -> Array:
    """Check what NumPy has read: a member of an .npz file that is no array is bytes, an archive is one of several."""
    if not isinstance(loaded, np.ndarray):
        raise Unsuitable(f"{place.text} holds no array")
    return loaded


def write_npy(path: Path, seg: Array) -> None:
    """Write an .npy file."""
    with path.open("wb") as file:
        np.save(file, seg)


def write_npz(path: Path, name: str, seg: Array, provenance: Mapping[str, Any]) -> None:
    """Write an .npz file that holds labels and where they come from.

    The archive is closed here: before version 2, NumPy leaves it open where its own function cannot finish, and Python
    then complains on standard error while it exits.
    """
    arrays = {name or "seg": np.asarray(seg), PROVENANCE: np.array(json.dumps(provenance))}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for member, array in arrays.items():
            with archive.open(f"{member}.npy", "w", force_zip64=True) as file:
                np.lib.format.write_array(file, array, allow_pickle=False)


def choose(place: Place, names: list[str]) -> str:
    """Return the name of the array to read: the one given, or the only one."""
    if place.inner in names or (not place.inner and len(names) == 1):
        return place.inner or names[0]
    if not names:
        raise Unsuitable(f"{place.path} holds no array")
    listed = ", ".join(sorted(names)[:10]) + (", ..." if len(names) > 10 else "")
    wanted = f"has no array {place.inner!r}" if place.inner else "holds several arrays: name one after a colon"
    raise Unsuitable(f"{place.path} {wanted}; it has {listed}")
