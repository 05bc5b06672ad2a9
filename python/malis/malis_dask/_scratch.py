"""A folder in which what is known of chunks lies between two passes, and from which a run that was stopped goes on.

Every file gets its name when it is complete, so that a file that is there can be relied on whatever ended the run.
"""

from __future__ import annotations

import json
import os
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from malis.malis_dask._chunks import Index
    from malis.malis_dask._components import Part

_JOB = "job.json"


@dataclass(frozen=True)
class Scratch:
    """The folder; workers on other machines have to see it under the same name."""

    folder: Path

    @classmethod
    def of(cls, folder: str | os.PathLike[str], job: dict[str, Any]) -> Scratch:
        """Make or go on with a folder; raises ValueError where it belongs to another job."""
        scratch = cls(Path(folder).absolute())
        scratch.folder.mkdir(parents=True, exist_ok=True)
        file = scratch.folder / _JOB
        text = json.dumps(job, sort_keys=True)
        if not file.exists():
            if any(scratch.folder.iterdir()):
                raise ValueError(f"scratch must be an empty folder, or one of the same job, got {folder}")
            _write(file, lambda target: target.write(text.encode()))
        elif file.read_text() != text:
            raise ValueError(f"scratch must be a folder of the same job, got {folder} of {file.read_text()}")
        return scratch

    def has_part(self, index: Index) -> bool:
        """Whether a chunk is finished. Labels are written before the part is."""
        return self._file("part", index, ".npz").exists()

    def write(self, index: Index, part: Part, labels: npt.NDArray[Any]) -> None:
        """Keep the labels of a chunk and what is known of its components."""
        arrays: dict[str, Any] = {
            "sizes": part.sizes,
            "first": part.first,
            "dropped": np.array(part.dropped),
        }
        for side in ("leaving", "entered"):
            for other, face in getattr(part, side).items():
                for i, values in enumerate(face):
                    arrays["_".join([side, *map(str, other), str(i)])] = values
        _write(self._file("labels", index, ".npy"), lambda target: np.save(target, labels))
        _write(self._file("part", index, ".npz"), lambda target: np.savez(target, **arrays))

    def read_part(self, index: Index) -> Part:
        """Read what is known of the components of a chunk."""
        from malis.malis_dask._components import Part

        faces: dict[str, dict[Index, list[Any]]] = {"leaving": {}, "entered": {}}
        with np.load(self._file("part", index, ".npz")) as arrays:
            for name in arrays.files:
                side, *numbers = name.split("_")
                if side in faces:
                    faces[side].setdefault(tuple(map(int, numbers[:-1])), []).append(arrays[name])
            return Part(
                arrays["sizes"],
                arrays["first"],
                int(arrays["dropped"]),
                {other: tuple(face) for other, face in faces["leaving"].items()},
                {other: tuple(face) for other, face in faces["entered"].items()},
            )

    def read_labels(self, index: Index) -> npt.NDArray[Any]:
        """Read the labels of a chunk."""
        labels: npt.NDArray[Any] = np.load(self._file("labels", index, ".npy"))
        return labels

    def has_arrays(self, name: str) -> bool:
        """Whether arrays were kept under a name."""
        return self._file(name, (), ".npz").exists()

    def write_arrays(self, name: str, arrays: dict[str, npt.NDArray[Any]]) -> None:
        """Keep small arrays."""
        _write(self._file(name, (), ".npz"), lambda target: np.savez(target, **arrays))  # type: ignore[arg-type]

    def read_arrays(self, name: str) -> dict[str, npt.NDArray[Any]]:
        """Read small arrays."""
        with np.load(self._file(name, (), ".npz")) as arrays:
            return {key: arrays[key] for key in arrays.files}

    def write_array(self, name: str, array: npt.NDArray[Any]) -> None:
        """Keep a large array."""
        _write(self._file(name, (), ".npy"), lambda target: np.save(target, array))

    def open_array(self, name: str) -> npt.NDArray[Any]:
        """Return a large array as it lies in its file; what is used of it is read."""
        array: npt.NDArray[Any] = np.load(self._file(name, (), ".npy"), mmap_mode="r")
        return array

    def read_columns(self, owner: int, table: str, *beside: str) -> list[npt.NDArray[Any]]:
        """Read the columns of a table whose first row, which increases, is `owner`; and the same part of others."""
        rows = self.open_array(table)
        begin, end = np.searchsorted(rows[0], [owner, owner + 1])
        return [np.array(rows[:, begin:end]), *(np.array(self.open_array(name)[begin:end]) for name in beside)]

    def _file(self, kind: str, index: Index, suffix: str) -> Path:
        return self.folder / f"{'-'.join([kind, *map(str, index)])}{suffix}"


def _write(file: Path, write: Any) -> None:
    """Write a file under another name first. It reaches the disk before it gets its own."""
    temporary = file.with_name(f".{file.name}.{uuid.uuid4().hex[:12]}")
    try:
        with temporary.open("wb") as target:
            write(target)
            target.flush()
            os.fsync(target.fileno())
        os.replace(temporary, file)
    finally:
        temporary.unlink(missing_ok=True)
