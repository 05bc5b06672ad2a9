"""What chunked volumes cost: processor time per voxel and peak memory, beside the functions in memory.

Usage: python benchmarks/chunked.py [--shape 256 256 256] [--chunk 128] [--repeat 3] [--skip whole ...]

A volume of touching cells with three affinities as uint8 is made in a temporary Zarr store. Every stage runs in a
process of its own, on one thread; the time is that of the processor from the end of the imports on, so that other
programs on the machine matter little.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import dask
import dask.array as da
import numpy as np
import zarr

import malis
from malis import malis_dask

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


def run_stage(stage: str, store: str, chunk: int, folder: str) -> dict[str, float]:
    """Run one stage; returns what it found."""
    malis.set_num_threads(1)
    nhood = malis.mknhood3d(1)
    stored = zarr.open_array(store, mode="r")
    options = {"threshold": THRESHOLD, "min_size": MIN_SIZE}
    out = Path(folder)
    seeds = da.from_array(zarr.open_array(str(out / "seeds.zarr"), mode="r")) if stage.endswith("watershed") else None
    if stage.startswith("whole"):
        aff = stored[:]
        if stage == "whole components":
            return {"objects": len(malis.affgraph_to_seg(aff, nhood, **options)[1]) - 1}
        if stage == "whole tree":
            return {"edges": len(malis.maximum_spanning_tree(aff, nhood).edges)}
        if stage == "whole watershed":
            return {"reached": int(malis.watershed_from_affgraph(aff, seeds.compute(), nhood)[1][1:].sum())}
        return {}
    with dask.config.set(scheduler="sync"):
        aff = da.from_array(stored, chunks=(3, chunk, chunk, chunk))
        if stage == "read":
            return {"sum": int(aff.map_blocks(lambda block: block.max(keepdims=True), dtype="u1").max().compute())}
        if stage.startswith("components"):
            scratch = out / "components" if stage == "components, kept" else None
            seg, sizes = malis_dask.affgraph_to_seg(aff, nhood, scratch=scratch, **options)
            largest = seg.map_blocks(lambda block: block.max(keepdims=True), dtype=np.uint64).max().compute()
            parts = sum(file.stat().st_size for file in (scratch or out).glob("part-*"))
            return {"objects": int(largest), "bytes of faces": parts, "same": int(largest) == len(sizes) - 1}
        if stage == "tree":
            tree = malis_dask.maximum_spanning_tree(aff, nhood, scratch=out / "tree")
            surfaces = sum(file.stat().st_size for file in (out / "tree").glob("chunk-*"))
            edges = tree.edges.map_blocks(lambda block: np.array([len(block)]), dtype=int, chunks=(1,)).sum().compute()
            return {"edges": int(edges), "bytes of faces": surfaces}
        assert stage == "watershed"
        seg, sizes = malis_dask.watershed_from_affgraph(aff, seeds, nhood)
        seg.map_blocks(lambda block: block.max(keepdims=True), dtype=seg.dtype).max().compute()
        return {"reached": int(sizes[1:].sum())}


STAGES = (
    "read",
    "whole",
    "whole components",
    "components",
    "components, kept",
    "whole tree",
    "tree",
    "whole watershed",
    "watershed",
)


def main() -> None:
    """Run all stages and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shape", type=int, nargs=3, default=[256, 256, 256])
    parser.add_argument("--chunk", type=int, default=128)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--skip", nargs="*", default=[], help="stages to leave out, by how their names begin")
    parser.add_argument("--stage", help=argparse.SUPPRESS)
    parser.add_argument("--folder", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.stage:
        begun = time.process_time()
        found = run_stage(options.stage, f"{options.folder}/aff.zarr", options.chunk, options.folder)
        print(json.dumps({"cpu": time.process_time() - begun, "peak": peak_memory(), **found}))
        return
    voxels = int(np.prod(options.shape))
    print(f"{options.shape} voxels in chunks of {options.chunk}^3; processor time of one thread, peak of the process")
    with tempfile.TemporaryDirectory() as folder:
        make(Path(folder, "aff.zarr"), tuple(options.shape))
        rng = np.random.default_rng(1)
        seeds = np.zeros(options.shape, np.int32)
        seeds.ravel()[rng.choice(voxels, voxels // 5000, replace=False)] = np.arange(1, voxels // 5000 + 1)
        zarr.create_array(f"{folder}/seeds.zarr", data=seeds, chunks=(64, 128, 128))
        del seeds
        for stage in STAGES:
            if stage.startswith(tuple(options.skip)):
                continue
            runs = []
            for _ in range(options.repeat):
                for kept in Path(folder).glob("[ct][or]*"):
                    subprocess.run(["rm", "-rf", str(kept)], check=True)
                command = [
                    sys.executable,
                    __file__,
                    "--stage",
                    stage,
                    "--folder",
                    folder,
                    "--chunk",
                    str(options.chunk),
                ]
                runs.append(json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout))
            cpu = np.median([run.pop("cpu") for run in runs])
            peak = max(run.pop("peak") for run in runs)
            print(f"{stage:18} {cpu / voxels * 1e9:7.1f} ns/voxel  {peak:7.0f} MiB  {runs[0]}", flush=True)


if __name__ == "__main__":
    main()
