"""A volume that does not fit its memory, segmented by the command: time, peak memory, equality, and what kills do.

    python benchmarks/large_volume.py make --shape 512 1024 1024 --folder /scratch/large
    python benchmarks/large_volume.py run --folder /scratch/large --memory 2GB --workers 2
    python benchmarks/large_volume.py check --folder /scratch/large      # needs 6 bytes a voxel
    python benchmarks/large_volume.py kill --folder /scratch/large --times 10
    python benchmarks/large_volume.py scale --folder /scratch/large --plot docs/images/scale.png

`make` writes a Zarr store of three affinities as uint8. `run` samples the memory of the command and of all processes
that it starts. `check` compares with connected-components-3d on the connectivity graph of the whole volume, `kill` ends
the command by SIGKILL at random moments and starts it again, and compares all files with those of `run`. `scale` runs
an eighth, a quarter, half and all of the volume, with one worker and with two.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import zarr

from chunked import make

LEVEL = 105  # bytes of at least so much connect
MIN_SIZE = 64
SLAB = 64
SAMPLES_PER_SECOND = 20


def command(source: Path, output: Path, memory: str, workers: int) -> list[str]:
    """Return the command; its threshold lies between two bytes, so that no rounding is in question."""
    options = ["--threshold", str((LEVEL - 0.5) / 255), "--min-size", str(MIN_SIZE)]
    options += ["--memory", memory, "--workers", str(workers), "--quiet", "--force"]
    return [sys.executable, "-m", "malis", "segment", str(source), "-o", str(output), *options]


def sample(process: psutil.Process) -> tuple[int, float]:
    """Return bytes of memory and seconds of processor time of a process and of all that it has started."""
    memory, cpu = 0, 0.0
    for each in [process, *process.children(recursive=True)]:
        try:
            times = each.cpu_times()
            memory += each.memory_info().rss
            cpu += times.user + times.system
        except psutil.NoSuchProcess:
            pass
    return memory, cpu


def measure(arguments: list[str]) -> dict[str, float]:
    """Run a command and watch it."""
    begun = time.perf_counter()
    peak, cpu = 0, 0.0
    # One thread in each chunk: the workers are the threads.
    with subprocess.Popen(arguments, env={**os.environ, "OMP_NUM_THREADS": "1"}) as run:
        process = psutil.Process(run.pid)
        while run.poll() is None:
            try:
                memory, cpu = sample(process)
            except psutil.NoSuchProcess:
                break
            peak = max(peak, memory)
            time.sleep(1 / SAMPLES_PER_SECOND)
    if run.returncode:
        raise SystemExit(f"the command failed: {run.returncode}")
    return {"wall": time.perf_counter() - begun, "cpu": cpu, "peak MiB": peak / 2**20}


def load() -> list[float]:
    """Return how many programs wanted a core during the last 1, 5 and 15 minutes."""
    return [round(value, 1) for value in os.getloadavg()]


def report(name: str, found: dict[str, Any]) -> None:
    """Print what was found as a line of JSON."""
    print(json.dumps({"stage": name, **found, "load": load()}), flush=True)


def check(source: Path, output: Path) -> dict[str, int]:
    """Compare the labels with those of cc3d, sorted by size, number for number."""
    import cc3d

    aff = zarr.open_array(str(source), mode="r")
    shape = aff.shape[1:]
    # One bit for each of six neighbours; cc3d's x is the last axis: bits 0 and 1 lead to +x and -x, then y, then z.
    graph = np.zeros(shape, np.uint8)
    for z in range(0, shape[0], SLAB):
        part: Any = aff[:, z : z + SLAB]
        slab = graph[z : z + SLAB]
        for axis, channel in enumerate(part >= LEVEL):
            forward, backward = np.uint8(1 << 2 * (2 - axis)), np.uint8(2 << 2 * (2 - axis))
            slab |= channel * backward
            if axis == 0:
                first = max(0, 1 - z)
                graph[z + first - 1 : z + len(slab) - 1] |= channel[first:] * forward
            else:
                leads = tuple(slice(1, None) if i == axis else slice(None) for i in range(3))
                enters = tuple(slice(None, -1) if i == axis else slice(None) for i in range(3))
                slab[enters] |= channel[leads] * forward
    # The edges of the first voxels along an axis leave the volume.
    for axis in range(3):
        first_plane: Any = tuple(slice(0, 1) if i == axis else slice(None) for i in range(3))
        graph[first_plane] &= np.uint8(255 ^ (2 << 2 * (2 - axis)))
    labels = cc3d.color_connectivity_graph(graph.T, connectivity=6).T
    del graph
    count = int(labels.max()) + 1
    sizes, first = np.zeros(count, np.int64), np.full(count, labels.size)
    for z in range(shape[0]):
        found, at, voxels = np.unique(labels[z], return_index=True, return_counts=True)
        sizes[found] += voxels
        first[found] = np.minimum(first[found], at + z * labels[z].size)
    large = np.flatnonzero(sizes >= MIN_SIZE)
    number = np.zeros(count, np.uint64)
    number[large[np.lexsort((first[large], -sizes[large]))]] = np.arange(1, len(large) + 1)
    segmented = zarr.open_array(str(output / "s0"), mode="r")
    wrong = 0
    for z in range(0, shape[0], SLAB):
        wrong += int(np.count_nonzero(number[labels[z : z + SLAB]] != segmented[z : z + SLAB]))
    return {"voxels": labels.size, "components": count, "objects": len(large), "voxels that differ": wrong}


def different_files(first: Path, second: Path) -> list[str]:
    """Return which files of two folders are not the same."""
    names = [sorted(p.relative_to(folder) for p in folder.rglob("*") if p.is_file()) for folder in (first, second)]
    missing = set(names[0]) ^ set(names[1])
    both = set(names[0]) & set(names[1])
    return sorted(map(str, missing)) + [str(n) for n in both if (first / n).read_bytes() != (second / n).read_bytes()]


def kill(arguments: list[str], times: int, within: float, seed: int) -> dict[str, Any]:
    """End the command by SIGKILL at random moments, at most `within` seconds each, and at last let it finish."""
    moments = random.Random(seed)
    killed = []
    while len(killed) < times:
        moment = moments.uniform(0, within)
        with subprocess.Popen(arguments, env={**os.environ, "OMP_NUM_THREADS": "1"}, start_new_session=True) as run:
            try:
                run.wait(moment)
                break  # it was done before
            except subprocess.TimeoutExpired:
                os.killpg(run.pid, signal.SIGKILL)
                killed.append(round(moment, 2))
    return {"killed after": killed, **measure(arguments)}


def scale(folder: Path, memory: str, plot: Path | None) -> None:
    """Run parts of the volume with one and two workers."""
    whole = zarr.open_array(str(folder / "aff.zarr"), mode="r").shape[1:]
    rows = []
    for parts in (8, 4, 2, 1):
        shape, left = list(whole), parts
        while left > 1:
            axis = int(np.argmax(shape))
            shape[axis] //= 2
            left //= 2
        source = folder / ("aff.zarr" if parts == 1 else "part.zarr")
        if parts > 1:
            make(source, tuple(shape))
        for workers in (1, 2):
            found = measure(command(source, folder / "part-seg.zarr", memory, workers))
            rows.append({"voxels": int(np.prod(shape)), "workers": workers, **found})
            report("scale", rows[-1])
            shutil.rmtree(folder / "part-seg.zarr")
        if parts > 1:
            shutil.rmtree(source)
    if plot is not None:
        draw(rows, plot)


def draw(rows: list[dict[str, Any]], file: Path) -> None:
    """Draw time and memory against the number of voxels."""
    from plots import BLUE, LOOK, VERMILION, plt

    with plt.rc_context(LOOK):
        figure, (times, memory) = plt.subplots(1, 2, figsize=(8, 3))
        for workers, color in ((1, VERMILION), (2, BLUE)):
            own = [row for row in rows if row["workers"] == workers]
            voxels = [row["voxels"] / 1e6 for row in own]
            label = f"{workers} worker{'s' * (workers > 1)}"
            times.plot(voxels, [row["wall"] for row in own], "o-", color=color, label=f"{label}, wall")
            times.plot(voxels, [row["cpu"] for row in own], "x:", color=color, label=f"{label}, processor")
            memory.plot(voxels, [row["peak MiB"] for row in own], "o-", color=color, label=label)
        for axes, name in ((times, "seconds"), (memory, "peak memory of all processes, MiB")):
            axes.set_xlabel("million voxels")
            axes.set_ylabel(name)
            axes.set_xlim(left=0)
            axes.set_ylim(bottom=0)
            axes.legend(frameon=False)
        figure.tight_layout()
        figure.savefig(file)


def main() -> None:
    """Run one stage."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("stage", choices=["make", "run", "check", "kill", "scale"])
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--shape", type=int, nargs=3, default=[512, 1024, 1024])
    parser.add_argument("--memory", default="2GB")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--times", type=int, default=10)
    parser.add_argument("--within", type=float, default=20, help="kill within so many seconds from each start")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--plot", type=Path)
    options = parser.parse_args()
    source, output = options.folder / "aff.zarr", options.folder / "seg.zarr"
    if options.stage == "make":
        options.folder.mkdir(parents=True, exist_ok=True)
        make(source, tuple(options.shape))
        report("make", {"shape": options.shape, "bytes": sum(f.stat().st_size for f in source.rglob("*"))})
    elif options.stage == "run":
        report("run", measure(command(source, output, options.memory, options.workers)))
    elif options.stage == "check":
        report("check", check(source, output))
    elif options.stage == "kill":
        again = options.folder / "again.zarr"
        found = kill(
            command(source, again, options.memory, options.workers), options.times, options.within, options.seed
        )
        report("kill", {**found, "files that differ": different_files(output, again)})
        shutil.rmtree(again)
    else:
        scale(options.folder, options.memory, options.plot)


if __name__ == "__main__":
    main()
