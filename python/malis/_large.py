"""What the command does with affinities that do not fit into memory: chunk by chunk, in as many runs as it takes."""

from __future__ import annotations

import contextlib
import importlib.util
import itertools
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from malis import _inputs, _io
from malis._io import unfinished
from malis._io.unfinished import Unfinished
from malis._io.zarr_store import CHUNK
from malis._method import Method
from malis.threads import get_num_threads

# What Python, its libraries and dask's graph take, as measured with a graph of 1,000 chunks.
_BASE_BYTES = 300 * 2**20
# What a worker holds for each voxel of a chunk beside the affinities: of components their labels, numbering and what is
# written of them; of watersheds the forest of the chunk, as benchmarks/chunked.py shows.
_COMPONENTS_BYTES, _WATERSHED_BYTES, _BASINS_BYTES = 56, 210, 330
# Blocks that are read ahead, and memory that the system has not been given back.
_SPARE = 1.5


class Resources(NamedTuple):
    """What chunks are computed with."""

    memory: int | None
    """Bytes that all workers may take together, where the user has said so."""
    workers: int
    scheduler: str | None
    """The address of a scheduler of dask.distributed, or None: on threads."""

    @classmethod
    def of(cls, memory: str | None, workers: int | None, scheduler: str | None) -> Resources:
        """Check the options of the command."""
        return cls(None if memory is None else _parse_memory(memory), workers or get_num_threads(), scheduler)

    @property
    def bytes(self) -> int:
        """How much memory there is."""
        return physical_memory() if self.memory is None else self.memory


def _parse_memory(text: str) -> int:
    """Return the number of bytes that a text such as 8GB stands for."""
    from dask.utils import parse_bytes

    try:
        size = int(parse_bytes(text))
    except (ValueError, TypeError):
        size = 0
    if size <= 0:
        raise ValueError(f"--memory must be a size such as 8GB, got {text!r}")
    return size


def physical_memory() -> int:
    """Return how many bytes of memory the machine has."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # Windows
        return 2**62


def bytes_in_memory(shape: Sequence[int], dtype: np.dtype[Any]) -> int:
    """Return about how much segmenting affinities as a whole takes: they, a copy as floats, labels and parents."""
    copied = 0 if dtype in (np.float32, np.float64) else 4
    return math.prod(shape) * (dtype.itemsize + copied) + 16 * math.prod(shape[1:])


@contextlib.contextmanager
def opened(
    text: str, channel_axis: int | None, axes: str | None, resources: Resources, whole: list[str]
) -> Iterator[_io.Volume | None]:
    """Open affinities that are to be segmented chunk by chunk; None where they are to be read as a whole.

    `whole` names the options that need the whole. That they do is an error where the user has asked for chunks.
    """
    asked = resources.memory is not None or resources.scheduler is not None
    options = "--scheduler" if resources.scheduler is not None else "--memory"
    if resources.scheduler is None and _io.parse(text).suffix not in _io.IN_PARTS:
        yield None
        return
    if not asked and (whole or importlib.util.find_spec("dask") is None):
        yield None
        return
    with _io.open_affinities(text, channel_axis, axes) as volume:
        needed = bytes_in_memory(volume.array.shape, volume.array.dtype)
        if resources.scheduler is None and needed <= resources.bytes:
            yield None
            return
        if whole:
            raise ValueError(
                f"{options} segments chunk by chunk, as {text} needs about {needed / 1e9:.2g} GB in memory, "
                f"and that cannot do {', '.join(whole)}"
            )
        yield volume


def chunk_shape(
    shape: Sequence[int], channels: int, dtype: np.dtype[Any], voxel_bytes: int, resources: Resources
) -> tuple[int, ...]:
    """Return the shape of the chunks that are computed: of whole chunks that are written, as large as memory allows."""
    unit = [min(CHUNK[len(shape)], n) for n in shape]
    each = channels * (dtype.itemsize + 4) + voxel_bytes
    voxels = (resources.bytes - _BASE_BYTES) / resources.workers / _SPARE / each
    if math.prod(unit) > voxels:
        least = _BASE_BYTES + math.prod(unit) * resources.workers * _SPARE * each
        raise ValueError(
            f"--memory must be at least {least / 1e6:.0f}MB for {resources.workers} workers, got "
            f"{resources.bytes / 1e6:.0f}MB"
        )
    chunk = unit.copy()
    while True:
        # The shortest axis first: compact chunks have small faces.
        for axis in sorted(range(len(shape)), key=lambda axis: (chunk[axis], -axis)):
            larger = [min(2 * c, n) if i == axis else c for i, (c, n) in enumerate(zip(chunk, shape, strict=True))]
            if chunk[axis] < shape[axis] and math.prod(larger) <= voxels:
                chunk = larger
                break
        else:
            return tuple(-(-c // u) * u if c < n else n for c, u, n in zip(chunk, unit, shape, strict=True))


def segment(
    volume: _io.Volume,
    nhood: npt.NDArray[np.int64],
    text: str,
    output: str,
    resources: Resources,
    *,
    method: Method,
    seeds: str | None,
    provenance: Mapping[str, Any],
    force: bool,
    ngff: str | None,
    step: Any,
) -> int:
    """Segment affinities and write the labels; returns how many objects there are."""
    from malis import malis_dask

    affinities, shape = volume.array, volume.array.shape[1:]
    with _opened_seeds(seeds, text, shape) as marked:
        chunk = chunk_shape(shape, len(affinities), affinities.dtype, _voxel_bytes(method, marked), resources)
        job = {"provenance": dict(provenance), "input": _fingerprint(affinities, text), "chunk": chunk, "ngff": ngff}
        if seeds is not None and marked is not None:
            job["seeds"] = _fingerprint(marked, seeds)
        with unfinished.going_on(_io.parse(output), force, ngff, job) as image, _computing(resources, step.tick):
            step("segmenting chunks")
            aff = affinities.in_chunks((len(affinities), *chunk))
            of_seeds = None if marked is None else marked.in_chunks(chunk)
            seg, sizes = method.segment(malis_dask, aff, nhood, of_seeds, scratch=image.scratch)
            step("writing")
            dtype = _dtype_of_file(seg, sizes, seeds is not None)
            scales = image.scales(shape, dtype, volume.grid, provenance)
            _write_labels(image, seg.astype(dtype), scales[0][0], chunk)
            for (finer, factor), (coarser, further) in itertools.pairwise(scales):
                _write_scale(image, finer, coarser, tuple(f // g for f, g in zip(further, factor, strict=True)), chunk)
            image.finish()
    return int(np.count_nonzero(sizes[1:]))


@contextlib.contextmanager
def _opened_seeds(text: str | None, affinities: str, shape: tuple[int, ...]) -> Iterator[_io.Unread | None]:
    """Open the labels of seeds, where there are any, and check that they have the shape of the affinities."""
    if text is None:
        yield None
        return
    with _io.open_labels(text) as volume:
        _inputs.check_shapes(affinities, shape, text, volume.array.shape, "another file")
        yield volume.array


def _dtype_of_file(seg: Any, sizes: npt.NDArray[np.int64], seeded: bool) -> np.dtype[Any]:
    """Return the dtype of the labels that are written: that of seeds, unsigned, or the narrowest for numbers 1..n."""
    if seeded:
        return np.dtype(f"u{seg.dtype.itemsize}")
    return np.dtype(np.uint32 if len(sizes) <= 2**32 else np.uint64)


def _voxel_bytes(method: Method, seeds: _io.Unread | None) -> int:
    """Return how many bytes a worker holds for each voxel of its chunk, beside the affinities."""
    if method.basins:
        return _BASINS_BYTES
    if seeds is not None:
        return _WATERSHED_BYTES + seeds.dtype.itemsize
    return _COMPONENTS_BYTES if method.grow is None else _WATERSHED_BYTES


def _fingerprint(affinities: _io.Unread, text: str) -> Any:
    """Return what tells whether the affinities are those of an earlier run."""
    path = _io.parse(text).path
    return [str(path.resolve()), path.stat().st_mtime_ns, affinities.shape, str(affinities.dtype)]


@contextlib.contextmanager
def _computing(resources: Resources, tick: Callable[[float], None]) -> Iterator[None]:
    """Let dask compute on the cluster, and say how far it is."""
    import dask

    if resources.scheduler is not None:
        try:
            from distributed import Client
        except ModuleNotFoundError as error:
            raise ImportError("--scheduler needs distributed: pip install distributed") from error
        with Client(resources.scheduler):
            yield
        return
    with dask.config.set(scheduler="threads", num_workers=resources.workers), _progress(tick):
        yield


def _progress(tick: Callable[[float], None]) -> Any:
    from dask.callbacks import Callback

    def after_task(key: Any, result: Any, graph: Any, state: Mapping[str, Any], worker: Any) -> None:
        done = len(state["finished"])
        tick(done / max(1, done + sum(len(state[name]) for name in ("ready", "waiting", "running"))))

    return Callback(posttask=after_task)


def _blocks(shape: Sequence[int], chunk: Sequence[int]) -> Iterator[tuple[tuple[int, ...], tuple[slice, ...]]]:
    counts = [-(-n // c) for n, c in zip(shape, chunk, strict=True)]
    for index in itertools.product(*map(range, counts)):
        yield index, tuple(slice(i * c, min(n, (i + 1) * c)) for i, c, n in zip(index, chunk, shape, strict=True))


def _part(array: Path, index: Sequence[int]) -> str:
    return "-".join([array.name, *map(str, index)])


def _write_labels(image: Unfinished, seg: Any, array: Path, chunk: tuple[int, ...]) -> None:
    """Write the labels, but for what an earlier run has written."""
    from malis.malis_dask._graph import Tasks

    tasks = Tasks(seg)
    keys = []
    for index, part in _blocks(seg.shape, chunk):
        name = _part(array, index)
        if not image.is_written(name):
            keys.append(tasks.call(partial(_write, image, array, part, name), (seg.name, *index), name="write"))
    tasks.compute(tasks.call(len, keys, name="written"))


def _write_scale(
    image: Unfinished, finer: Path, coarser: Path, factor: tuple[int, ...], chunk: tuple[int, ...]
) -> None:
    """Write a coarser scale, but for what an earlier run has written: every n-th voxel of the finer one."""
    import zarr

    from malis.malis_dask._graph import Tasks

    tasks = Tasks()
    keys = []
    shape = zarr.open_array(str(coarser), mode="r").shape
    # Chunks of the coarser scale that together read no more than a chunk that was computed.
    unit = [min(CHUNK[len(shape)], n) for n in shape]
    block = [max(u, c // f // u * u) for u, c, f in zip(unit, chunk, factor, strict=True)]
    for index, part in _blocks(shape, block):
        name = _part(coarser, index)
        if not image.is_written(name):
            coarsen = partial(_coarsen, image, finer, coarser, factor, part, name)
            keys.append(tasks.call(coarsen, name="coarsen"))
    tasks.compute(tasks.call(len, keys, name="written"))


def _write(image: Unfinished, array: Path, part: tuple[slice, ...], name: str, labels: npt.NDArray[Any]) -> None:
    import zarr

    zarr.open_array(str(array), mode="r+")[part] = labels
    image.written(name)


def _coarsen(
    image: Unfinished, finer: Path, coarser: Path, factor: tuple[int, ...], part: tuple[slice, ...], name: str
) -> None:
    import zarr

    within = tuple(slice(p.start * f, p.stop * f, f) for p, f in zip(part, factor, strict=True))
    whole = tuple(slice(w.start, w.stop) for w in within)
    labels: Any = zarr.open_array(str(finer), mode="r")[whole]
    _write(image, coarser, part, name, labels[tuple(slice(None, None, f) for f in factor)])
