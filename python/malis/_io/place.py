"""Where an array lies: a path, with the name of the array after a colon where a file holds several."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

_FORMATS = ".npy, .npz, .h5, .hdf5, .tif, .tiff or .zarr"
_PLACE = re.compile(
    r"(?P<path>.*?\.(?P<suffix>npy|npz|h5|hdf5|tif|tiff|zarr))(?:(?::|(?<=\.zarr)[/\\])(?P<inner>.*))?", re.I
)
_HOLDS_MANY = ("npz", "h5", "hdf5", "zarr")


class Place(NamedTuple):
    """Where an array lies."""

    text: str
    """As the user wrote it."""
    path: Path
    """The file, or the folder of a Zarr store or of TIFF sections."""
    inner: str
    """The name of the array within, parts separated by slashes; empty where none is given."""
    suffix: str
    """The format: npy, npz, h5, hdf5, tif, tiff, zarr, or sections for a folder of TIFF files."""

    @property
    def parts(self) -> list[str]:
        """The parts of the name within."""
        return self.inner.split("/") if self.inner else []


def parse(text: str) -> Place:
    """Take a place apart; raises ValueError for what is no known format, and for names that leave the file."""
    found = _PLACE.fullmatch(text)
    if found is None:
        if text and Path(text).is_dir():
            return Place(text, Path(text), "", "sections")
        raise ValueError(
            f"{text!r} must end in {_FORMATS}, with the name of an array after a colon where it holds several, or be "
            "a folder of TIFF sections"
        )
    suffix, inner = found["suffix"].lower(), (found["inner"] or "").strip("/\\")
    if inner and suffix not in _HOLDS_MANY:
        raise ValueError(f"{text!r} must name a file alone: a .{suffix} file holds one array")
    parts = re.split(r"[/\\]+", inner)
    if "." in parts or ".." in parts:
        raise ValueError(f"{text!r} must name an array within {found['path']}: '.' and '..' are no names there")
    return Place(text, Path(found["path"]), "/".join(parts), suffix)
