"""What chunked volumes cost: processor time per voxel and peak memory, beside the functions in memory.

Usage: python benchmarks/chunked.py [--shape 256 256 256] [--chunk 128] [--repeat 3] [--stages tree ...]

A volume of touching cells with three affinities as uint8 is made in a temporary Zarr store. Every stage runs in a
process of its own, on one thread; the time is that of the processor from the end of the imports on, so that other
programs on the machine matter little.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import dask
import dask.array as da
import numpy as np
import zarr

import malis
from malis import malis_dask

with contextlib.suppress(ImportError):  # dask imports it, where there is one, when something is computed first
    import distributed  # noqa: F401

THRESHOLD, MIN_SIZE = 0.4, 64


def make(store: Path, shape: tuple[int, int, int], slab: int = 64) -> None:
    """Write cells: where a product of three waves has one sign, with weak edges near its zeros."""
    depth, height, width = shape
    rng = np.random.default_rng(0)
    array = zarr.create_array(str(store), shape=(3, *shape), dtype="u1", chunks=(3, 64, 128, 128))
    y, x = np.arange(-1, height)[:, None], np.arange(-1, width)
    wave = 2 * np.pi / 28
    for first in range(0, depth, slab):
        z = np.arange(first - 1, min(first + slab, depth))[:, None, None]
        field = np.sin(wave * z) * np.sin(wave * y + z / 60) * np.sin(wave * x - z / 80)
        here = field[1:, 1:, 1:]
        affinities = []
        for there in (field[:-1, 1:, 1:], field[1:, :-1, 1:], field[1:, 1:, :-1]):
            sure = np.clip(3 * np.minimum(here**2, there**2) + 0.25, 0, 1) * (here * there > 0)
            affinities.append((200 * sure + rng.integers(0, 50, here.shape)).astype("u1"))
        array[:, first : first + len(here)] = np.stack(affinities)


def peak_memory() -> float:
    """Return the largest memory of this process in MiB; what getrusage says includes the process that started it."""
    (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")]
    return int(line.split()[1]) / 1024


class Inputs(NamedTuple):
    """What a stage may read: affinities, seeds, and labels as a truth; arrays in memory or dask arrays."""

    aff: Any
    seeds: Any
    truth: Any
    folder: Path
    """Where a stage may leave what it keeps."""


NHOOD = malis.mknhood3d(1)
OPTIONS = {"threshold": THRESHOLD, "min_size": MIN_SIZE}
LEVELS = (0.3, 0.4, 0.5)


def largest(array: Any) -> Any:
    """Compute a dask array without keeping it; returns its largest value."""
    return array.map_blocks(lambda block: block.max(keepdims=True), dtype=array.dtype).max().compute()


def tree_of_chunks(inputs: Inputs) -> Any:
    """Compute the spanning tree of chunks."""
    return malis_dask.maximum_spanning_tree(inputs.aff, NHOOD, scratch=inputs.folder / "tree")


def components_in_chunks(inputs: Inputs, scratch: Path | None) -> dict[str, Any]:
    """Segment, with labels in a folder between the passes or without."""
    seg, sizes = malis_dask.affgraph_to_seg(inputs.aff, NHOOD, scratch=scratch, **OPTIONS)
    objects = int(largest(seg))
    parts = sum(file.stat().st_size for file in (scratch or inputs.folder).glob("part-*"))
    return {"objects": objects, "bytes of faces": parts, "same": objects == len(sizes) - 1}


def tree_in_chunks(inputs: Inputs) -> dict[str, Any]:
    """Compute the spanning tree and read all of it."""
    tree = tree_of_chunks(inputs)
    surfaces = sum(file.stat().st_size for file in (inputs.folder / "tree").glob("chunk-*"))
    edges = tree.edges.map_blocks(lambda block: np.array([len(block)]), dtype=int, chunks=(1,)).sum().compute()
    return {"edges": int(edges), "bytes of faces": surfaces}


def segmentations_in_chunks(inputs: Inputs) -> dict[str, Any]:
    """Segment at several thresholds from the spanning tree, which is computed as well."""
    found = malis_dask.segment_tree(
        tree_of_chunks(inputs), LEVELS, scratch=inputs.folder / "cut", chunks=inputs.aff.chunks[1:], min_size=MIN_SIZE
    )
    return {"objects": [int(largest(seg)) for seg, _ in found]}


def pairs_in_chunks(inputs: Inputs) -> dict[str, Any]:
    """Count pairs and read all counts."""
    pos, neg = malis_dask.pairs(inputs.aff, inputs.truth, NHOOD, scratch=inputs.folder / "counts")
    return {"pairs": [int(pos.sum().compute()), int(neg.sum().compute())]}


def loss_in_chunks(inputs: Inputs) -> dict[str, Any]:
    """Compute the loss and read all of the gradient."""
    loss, gradient = malis_dask.malis_loss(inputs.aff, inputs.truth, NHOOD, scratch=inputs.folder / "counts")
    largest(gradient)
    return {"loss": float(loss)}


WHOLE: dict[str, Callable[[Inputs], dict[str, Any]]] = {
    "reading": lambda inputs: {},
    "components": lambda inputs: {"objects": len(malis.affgraph_to_seg(inputs.aff, NHOOD, **OPTIONS)[1]) - 1},
    "tree": lambda inputs: {"edges": len(malis.maximum_spanning_tree(inputs.aff, NHOOD).edges)},
    "segmentations": lambda inputs: {
        "objects": [
            len(sizes) - 1
            for _, sizes in malis.segment_tree(
                malis.maximum_spanning_tree(inputs.aff, NHOOD), LEVELS, min_size=MIN_SIZE
            )
        ]
    },
    "watershed": lambda inputs: {
        "reached": int(malis.watershed_from_affgraph(inputs.aff, inputs.seeds, NHOOD)[1][1:].sum())
    },
    "basins": lambda inputs: {"objects": len(malis.watershed_basins(inputs.aff, NHOOD)[1]) - 1},
    "pairs": lambda inputs: {
        "pairs": [int(counts.sum()) for counts in malis.pairs(inputs.aff / np.float32(255), inputs.truth, NHOOD)]
    },
    "loss": lambda inputs: {"loss": malis.malis_loss(inputs.aff / np.float32(255), inputs.truth, NHOOD)[0]},
    "curve": lambda inputs: {"thresholds": len(malis.rand_curve(inputs.aff, inputs.truth, NHOOD).thresholds)},
}
CHUNKED: dict[str, Callable[[Inputs], dict[str, Any]]] = {
    "reading": lambda inputs: {"largest": int(largest(inputs.aff))},
    "components": lambda inputs: components_in_chunks(inputs, None),
    "components, kept": lambda inputs: components_in_chunks(inputs, inputs.folder / "components"),
    "tree": tree_in_chunks,
    "segmentations": segmentations_in_chunks,
    "watershed": lambda inputs: {"reached": watershed_in_chunks(inputs)},
    "basins": lambda inputs: {"objects": int(largest(malis_dask.watershed_basins(inputs.aff, NHOOD)[0]))},
    "pairs": pairs_in_chunks,
    "loss": loss_in_chunks,
    "curve": lambda inputs: {"thresholds": len(malis_dask.rand_curve(inputs.aff, inputs.truth, NHOOD).thresholds)},
}


def watershed_in_chunks(inputs: Inputs) -> int:
    """Flood from seeds; returns how many voxels these reach."""
    seg, sizes = malis_dask.watershed_from_affgraph(inputs.aff, inputs.seeds, NHOOD)
    largest(seg)
    return int(sizes[1:].sum())


def run_stage(stage: str, how: str, chunk: int, folder: Path) -> dict[str, Any]:
    """Run one stage; returns what it found."""
    malis.set_num_threads(1)
    stored = [zarr.open_array(str(folder / f"{name}.zarr"), mode="r") for name in ("aff", "seeds", "truth")]
    if how == "whole":
        needed = {"watershed": 1, "pairs": 2, "loss": 2, "curve": 2}.get(stage, 0)
        arrays = [array[:] if i in (0, needed) else None for i, array in enumerate(stored)]
        return WHOLE[stage](Inputs(*arrays, folder / "kept"))
    with dask.config.set(scheduler="sync"):
        chunks = [(3, chunk, chunk, chunk), (chunk,) * 3, (chunk,) * 3]
        arrays = [da.from_array(array, chunks=lengths) for array, lengths in zip(stored, chunks, strict=True)]
        if stage in ("pairs", "loss"):  # which take floats
            arrays[0] = arrays[0] / np.float32(255)
        return CHUNKED[stage](Inputs(*arrays, folder / "kept"))


def main() -> None:
    """Run all stages and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shape", type=int, nargs=3, default=[256, 256, 256])
    parser.add_argument("--chunk", type=int, default=128)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--stages", nargs="+", choices=list(CHUNKED), default=list(CHUNKED), metavar="STAGE")
    parser.add_argument("--stage", nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.stage:
        begun = time.process_time()
        found = run_stage(*options.stage, options.chunk, options.folder)
        print(json.dumps({"cpu": time.process_time() - begun, "peak": peak_memory(), **found}))
        return
    voxels = int(np.prod(options.shape))
    print(f"{options.shape} voxels in chunks of {options.chunk}^3; processor time of one thread, peak of the process")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_inputs(folder, tuple(options.shape))
        for stage in options.stages:
            for how in ("whole", "chunks"):
                if how == "whole" and stage not in WHOLE:
                    continue
                runs = [run_in_process(stage, how, options.chunk, folder) for _ in range(options.repeat)]
                cpu = np.median([run.pop("cpu") for run in runs])
                peak = max(run.pop("peak") for run in runs)
                print(f"{stage:16} {how:6} {cpu / voxels * 1e9:7.1f} ns/voxel  {peak:7.0f} MiB  {runs[0]}", flush=True)


def make_inputs(folder: Path, shape: tuple[int, int, int]) -> None:
    """Write affinities, seeds at random, and components as a truth."""
    make(folder / "aff.zarr", shape)
    rng = np.random.default_rng(1)
    seeds = np.zeros(shape, np.int32)
    few = seeds.size // 5000
    seeds.ravel()[rng.choice(seeds.size, few, replace=False)] = np.arange(1, few + 1)
    zarr.create_array(str(folder / "seeds.zarr"), data=seeds, chunks=(64, 128, 128))
    truth, _ = malis.affgraph_to_seg(zarr.open_array(str(folder / "aff.zarr"), mode="r")[:], NHOOD, **OPTIONS)
    zarr.create_array(str(folder / "truth.zarr"), data=truth, chunks=(64, 128, 128))


def run_in_process(stage: str, how: str, chunk: int, folder: Path) -> dict[str, Any]:
    """Run a stage in a process of its own, which starts with nothing kept."""
    shutil.rmtree(folder / "kept", ignore_errors=True)
    (folder / "kept").mkdir()
    command = [sys.executable, __file__, "--stage", stage, how, "--folder", str(folder), "--chunk", str(chunk)]
    found: dict[str, Any] = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    return found


if __name__ == "__main__":
    main()
