"""Damaged files for every reader: an array, or an error that names the file; nothing runs, nothing hangs."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import tifffile
import zarr
from hypothesis import strategies as st

from malis import _io

VALUES = np.arange(5 * 6 * 7, dtype=np.uint16).reshape(5, 6, 7) % 300
FORMATS = ["npy", "npz", "h5", "tif", "zarr"]
# What an error of a damaged file may be; the command prints it in one line.
ACCEPTED = (ValueError, OSError, TypeError, MemoryError, ImportError)


def write(path: Path) -> None:
    """A small file with everything in it that our readers look at."""
    if path.suffix == ".npy":
        np.save(path, VALUES)
    elif path.suffix == ".npz":
        np.savez_compressed(path, seg=VALUES)
    elif path.suffix == ".h5":
        with h5py.File(path, "w") as file:
            file.create_dataset("volumes/labels", data=VALUES, chunks=True, compression="gzip")
    elif path.suffix == ".tif":
        tifffile.imwrite(path, VALUES, metadata={"axes": "ZYX"}, compression="zlib")
    else:
        group = zarr.open_group(path, mode="w")
        group.create_array("0", data=VALUES, chunks=(4, 4, 4))
        axes = [{"name": name, "type": "space"} for name in "zyx"]
        group.attrs["multiscales"] = [{"version": "0.4", "axes": axes, "datasets": [{"path": "0"}]}]


def mutate(data: bytes, rng: np.random.Generator) -> bytes:
    """Flipped bits, overwritten numbers, cut, repeated and moved pieces."""
    changed = bytearray(data)
    for _ in range(int(rng.integers(1, 5))):
        if not changed:
            break
        at, kind = int(rng.integers(len(changed))), int(rng.integers(6))
        if kind == 0:
            changed[at] ^= 1 << int(rng.integers(8))
        elif kind == 1:
            changed[at] = int(rng.choice([0, 1, 127, 128, 255]))
        elif kind == 2:
            del changed[at:]
        elif kind == 3:
            changed[at : at + 8] = int(rng.choice([0, 2**31, 2**32 - 1, 2**63 - 1])).to_bytes(8, "little")
        elif kind == 4:
            end = at + int(rng.integers(1, 64))
            changed[at:at] = changed[at:end]
        else:
            del changed[at : at + int(rng.integers(1, 16))]
    return bytes(changed)


def mutate_json(text: bytes, rng: np.random.Generator) -> bytes:
    """Metadata that are JSON still, with another value at one place."""
    document = json.loads(text)
    places: list[tuple[Any, Any]] = []

    def collect(node: Any) -> None:
        for key in list(node) if isinstance(node, dict) else range(len(node)) if isinstance(node, list) else ():
            places.append((node, key))
            collect(node[key])

    collect(document)
    strange = [None, -1, 0, 2**40, 1.5, "", "../..", "/etc/passwd", [], {}, [[]], True, "0/../../x", float("nan")]
    if places:
        node, key = places[int(rng.integers(len(places)))]
        node[key] = strange[int(rng.integers(len(strange)))]
    return json.dumps(document).encode()


class Files:
    """One good file of each format, from which damaged ones are made."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="malis_fuzz_")
        self.good = Path(self._folder.name) / "good"
        self.bad = Path(self._folder.name) / "bad"
        self.good.mkdir()
        for suffix in FORMATS:
            write(self.good / f"seg.{suffix}")

    def close(self) -> None:
        self._folder.cleanup()

    def damaged(self, suffix: str, rng: np.random.Generator) -> Path:
        """A copy of the good file with some damage."""
        shutil.rmtree(self.bad, ignore_errors=True)
        self.bad.mkdir()
        good, bad = self.good / f"seg.{suffix}", self.bad / f"seg.{suffix}"
        if good.is_file():
            bad.write_bytes(mutate(good.read_bytes(), rng))
            return bad
        shutil.copytree(good, bad)
        files = sorted(path for path in bad.rglob("*") if path.is_file())
        file = files[int(rng.integers(len(files)))]
        data = file.read_bytes()
        if file.suffix == ".json" and rng.random() < 0.7:
            file.write_bytes(mutate_json(data, rng))
        elif rng.random() < 0.1:
            file.unlink()
        else:
            file.write_bytes(mutate(data, rng))
        return bad


def call(files: Files, draw: Callable[[Any], Any]) -> bool:
    """Read a damaged file; False where it raised an error for which the file may be to blame."""
    rng = np.random.default_rng(draw(st.integers(0, 2**64 - 1)))
    path = files.damaged(draw(st.sampled_from(FORMATS)), rng)
    before = sorted(map(str, path.parent.rglob("*")))
    try:
        array = (_io.read_labels if draw(st.booleans()) else _io.read_affinities)(str(path))
    except ACCEPTED as error:
        assert str(error), f"{path} raised an error without a message"
        result = False
    else:
        assert isinstance(array, np.ndarray)
        assert array.nbytes < 2**30
        result = True
    assert sorted(map(str, path.parent.rglob("*"))) == before, "reading has written files"
    return result
