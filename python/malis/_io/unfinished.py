"""Label images of Zarr that are written chunk by chunk, in as many runs as it takes.

A folder beside the store holds the image, and for each of its parts that is written a file that says so; what else a
run keeps may lie there, too. A run that is given the same job goes on; one with another job begins anew. The image gets
its name when it is complete.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from malis._io import zarr_store
from malis._io.errors import library
from malis._io.grid import Grid
from malis._io.place import Place
from malis._io.replace import followed, locked, naming_full_disks, put_folder

_JOB = "job.json"


class Unfinished(NamedTuple):
    """The folder of an image that is not complete."""

    folder: Path
    place: Place
    missing: int
    """How many parts of the name of the image lead to the outermost folder that is to be made."""
    version: str

    @property
    def scratch(self) -> Path:
        """A folder for what else is kept from run to run."""
        return self.folder / "parts"

    def scales(
        self, shape: tuple[int, ...], dtype: Any, grid: Grid, provenance: Mapping[str, Any]
    ) -> list[tuple[Path, tuple[int, ...]]]:
        """Make the image, or go on with that of an earlier run; returns the array of every scale and its factors."""
        image, created = self._root.joinpath(*self._below), self.folder / "created.json"
        if not created.exists() or not self._root.is_dir():
            shutil.rmtree(self._root, ignore_errors=True)
            for mark in self._mark("").iterdir():
                mark.unlink()
            self._root.mkdir(parents=True)
            zarr_store.make_groups(self._root, self._below, self.version)
            made = zarr_store.create(image, self.place, shape, dtype, grid, provenance, self.version)
            factors = [factor for _, factor in made]
            incomplete = created.with_suffix(".partial")
            incomplete.write_text(json.dumps(factors))
            os.replace(incomplete, created)
        return [(image / f"s{i}", tuple(factor)) for i, factor in enumerate(json.loads(created.read_text()))]

    def is_written(self, part: str) -> bool:
        """Whether a part of the image is complete."""
        return self._mark(part).exists()

    def written(self, part: str) -> None:
        """Note that a part of the image is complete."""
        self._mark(part).touch()

    def finish(self) -> None:
        """Give the image its name."""
        put_folder(self._root, self.place.path.joinpath(*self.place.parts[: self.missing]))
        zarr_store.list_labels(self.place, self.version)
        shutil.rmtree(self.folder, ignore_errors=True)

    def _mark(self, part: str) -> Path:
        return self.folder / "written" / part

    @property
    def _root(self) -> Path:
        return self.folder / f"image{self.place.path.suffix}"

    @property
    def _below(self) -> list[str]:
        return self.place.parts[self.missing :]


@contextlib.contextmanager
def going_on(place: Place, force: bool, version: str | None, job: Mapping[str, Any]) -> Iterator[Unfinished]:
    """Be the only run that writes an image, and go on with the folder of an earlier one of the same job."""
    library("zarr")
    store = followed(place.path)
    place = place._replace(path=store)
    missing = 0
    while missing < len(place.parts) and store.joinpath(*place.parts[:missing]).exists():
        missing += 1
    with locked(store, store.joinpath(*place.parts[:missing])), naming_full_disks(store):
        zarr_store.check_output(place, force, version)
        folder = store.with_name(".".join(["", store.name, *place.parts, "unfinished"]))
        text = json.dumps(job, sort_keys=True)
        file = folder / _JOB
        if not file.exists() or file.read_text() != text or not (folder / "written").is_dir():
            shutil.rmtree(folder, ignore_errors=True)
            (folder / "written").mkdir(parents=True)
            file.write_text(text)
        yield Unfinished(folder, place, missing, zarr_store.version_for(place, version))
