"""The command on volumes that exceed --memory: the same files as from the whole, whatever ends a run."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import malis

zarr = pytest.importorskip("zarr")
pytest.importorskip("dask.array")
typer = pytest.importorskip("typer")

from malis import _large, cli  # noqa: E402
from malis._io.zarr_store import CHUNK  # noqa: E402

OPTIONS = ["--threshold", "0.75", "--min-size", "5", "--quiet"]


@pytest.fixture
def small_chunks(monkeypatch):
    """Make volumes of some thousand voxels large, and their chunks small."""
    monkeypatch.setitem(CHUNK, 3, 16)
    monkeypatch.setitem(CHUNK, 2, 16)
    monkeypatch.setattr(_large, "_BASE_BYTES", 0)


@pytest.fixture
def affinities(tmp_path, rng) -> np.ndarray:
    aff = rng.integers(0, 256, (3, 20, 40, 35), dtype=np.uint8)
    array = zarr.create_array(str(tmp_path / "aff.zarr"), shape=aff.shape, dtype=aff.dtype, chunks=(3, 9, 20, 35))
    array[:] = aff
    array.attrs["resolution"] = [40.0, 8.0, 8.0]
    return aff


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def run(*arguments: object) -> int:
    return cli.run([*map(str, arguments)])


def test_chunks_make_the_file_that_the_whole_makes(tmp_path, affinities, small_chunks, monkeypatch):
    used = []
    segment = _large.segment
    monkeypatch.setattr(_large, "segment", lambda *args, **options: used.append(1) or segment(*args, **options))
    source = tmp_path / "aff.zarr"
    assert run("segment", source, "-o", tmp_path / "whole.zarr", *OPTIONS) == 0
    assert run("segment", source, "-o", tmp_path / "fits.zarr", *OPTIONS, "--memory", "1GB") == 0
    assert not used
    assert run("segment", source, "-o", tmp_path / "parts.zarr", *OPTIONS, "--memory", "600kB", "--workers", 1) == 0
    assert used
    assert files(tmp_path / "parts.zarr") == files(tmp_path / "whole.zarr") == files(tmp_path / "fits.zarr")
    expected, _ = malis.affgraph_to_seg(affinities, malis.mknhood3d(1), threshold=0.75, min_size=5)
    np.testing.assert_array_equal(zarr.open(tmp_path / "parts.zarr")["s0"][:], expected)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["aff.zarr", "fits.zarr", "parts.zarr", "whole.zarr"]


@pytest.mark.parametrize(
    "options",
    [["--threshold", "0.75", "--grow", "0.4"], ["--by", "watershed"], ["--by", "watershed", "--threshold", "0.5"]],
)
def test_watersheds(tmp_path, affinities, small_chunks, monkeypatch, options):
    source = tmp_path / "aff.zarr"
    arguments = [*options, "--min-size", "5", "--quiet"]
    assert run("segment", source, "-o", tmp_path / "whole.zarr", *arguments) == 0
    monkeypatch.setattr(_large, "bytes_in_memory", lambda *_: 2**40)
    used = []
    blocks = _large._write
    monkeypatch.setattr(_large, "_write", lambda *args: used.append(1) or blocks(*args))
    assert run("segment", source, "-o", tmp_path / "parts.zarr", *arguments, "--memory", "3MB", "--workers", 1) == 0
    assert len(used) > 1
    assert files(tmp_path / "parts.zarr") == files(tmp_path / "whole.zarr")


@pytest.mark.parametrize("dtype", ["u2", "i4", "i8", "f4", "?"])
@pytest.mark.parametrize("threshold", [[], ["--threshold", "0.6"]])
def test_seeds(tmp_path, rng, affinities, small_chunks, monkeypatch, dtype, threshold):
    shape = affinities.shape[1:]
    seeds = np.where(rng.random(shape) < 0.003, rng.integers(1, 50, shape), 0).astype(dtype)
    zarr.create_array(str(tmp_path / "seeds.zarr"), data=seeds, chunks=(7, 13, 11))
    arguments = ["segment", tmp_path / "aff.zarr", "--seeds", tmp_path / "seeds.zarr", *threshold, "--min-size", 40]
    assert run(*arguments, "-o", tmp_path / "whole.zarr", "--quiet") == 0
    monkeypatch.setattr(_large, "bytes_in_memory", lambda *_: 2**40)
    in_chunks = [*arguments, "-o", tmp_path / "parts.zarr", "--quiet", "--memory", "3MB", "--workers", 1]
    written, write = [], _large._write

    def stopped(image, array, part, name, labels):
        if len(written) == 2:
            raise KeyboardInterrupt
        written.append(name)
        write(image, array, part, name, labels)

    with monkeypatch.context() as patched:
        patched.setattr(_large, "_write", stopped)
        assert run(*in_chunks) == 130
    again = []
    monkeypatch.setattr(_large, "_write", lambda *args: again.append(args[3]) or write(*args))
    assert run(*in_chunks) == 0
    assert again and not set(again) & set(written)
    assert files(tmp_path / "parts.zarr") == files(tmp_path / "whole.zarr")
    expected, _ = malis.watershed_from_affgraph(
        affinities, seeds, malis.mknhood3d(1), min_size=40, threshold=float(threshold[1]) if threshold else -np.inf
    )
    found = zarr.open(tmp_path / "parts.zarr")["s0"]
    assert found.dtype.kind == "u" and found.dtype.itemsize == expected.dtype.itemsize
    np.testing.assert_array_equal(found[:], expected)


def test_other_seeds_begin_anew(tmp_path, rng, affinities, small_chunks, monkeypatch, capsys):
    def stop(*args: object) -> None:
        raise KeyboardInterrupt

    h5py = pytest.importorskip("h5py")
    monkeypatch.setattr(_large, "bytes_in_memory", lambda *_: 2**40)
    arguments = ["segment", tmp_path / "aff.zarr", "-o", tmp_path / "seg.zarr", "--memory", "3MB", "--workers", 1]
    arguments += ["--seeds", f"{tmp_path / 'seeds.h5'}:/seeds", "--min-size", 1]
    for number in (1, 2):
        with h5py.File(tmp_path / "seeds.h5", "w") as file:
            seeds = np.zeros(affinities.shape[1:], np.int32)
            seeds[number, 5, 6], seeds[-1, -1, -number] = number, 9
            file.create_dataset("seeds", data=seeds)
        with monkeypatch.context() as patched:
            if number == 1:
                patched.setattr(_large.Unfinished, "finish", stop)
            assert run(*arguments, "--json") == (130 if number == 1 else 0)
    # Of the labels that there are, not of all numbers up to the largest.
    assert json.loads(capsys.readouterr().out)["objects"] == 2
    expected, _ = malis.watershed_from_affgraph(affinities, seeds, malis.mknhood3d(1), min_size=1)
    np.testing.assert_array_equal(zarr.open(tmp_path / "seg.zarr")["s0"][:], expected)


def test_hdf5_with_the_channels_last_into_labels_of_an_image(tmp_path, affinities, small_chunks):
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "aff.h5", "w") as file:
        file.create_dataset("aff", data=np.moveaxis(affinities, 0, -1)[np.newaxis], chunks=(1, 5, 40, 7, 3))
    store = tmp_path / "image.zarr"
    zarr.open_group(str(store), mode="w").create_group("labels")
    options = [*OPTIONS, "--axes", "tzyxc", "--memory", "600kB", "--workers", 1]
    assert run("segment", f"{tmp_path / 'aff.h5'}:/aff", "-o", f"{store}/labels/cells", *options) == 0
    expected, _ = malis.affgraph_to_seg(affinities, malis.mknhood3d(1), threshold=0.75, min_size=5)
    group = zarr.open_group(str(store))
    np.testing.assert_array_equal(group["labels/cells/s0"][:], expected)
    assert group["labels"].attrs["ome"]["labels"] == ["cells"]
    assert not list(tmp_path.glob(".*"))


@pytest.mark.slow
def test_scales(tmp_path, rng, small_chunks):
    aff = rng.random((2, 600, 1030), dtype=np.float32)
    zarr.create_array(str(tmp_path / "aff.zarr"), data=aff, chunks=(2, 200, 200))
    assert run("segment", tmp_path / "aff.zarr", "-o", tmp_path / "whole.zarr", *OPTIONS) == 0
    memory = ["--memory", "8MB", "--workers", 2]
    assert run("segment", tmp_path / "aff.zarr", "-o", tmp_path / "parts.zarr", *OPTIONS, *memory) == 0
    found, expected = zarr.open(tmp_path / "parts.zarr"), zarr.open(tmp_path / "whole.zarr")
    assert sorted(found) == sorted(expected) == ["s0", "s1", "s2", "s3"]
    for scale in expected:
        np.testing.assert_array_equal(found[scale][:], expected[scale][:])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--memory", "large"], "--memory must be a size such as 8GB, got 'large'"),
        (["--memory", "-1GB"], "--memory must be a size such as 8GB"),
        (["--memory", "10kB"], "--memory must be at least"),
        (["--memory", "600kB", "--small", "merge"], "that cannot do --small merge"),
        (["--memory", "600kB", "--seeds", "seeds.npy"], "that cannot do --seeds that are no Zarr store or HDF5 file"),
        (["--memory", "6MB", "--seeds", "flat.zarr"], "must have one spatial shape, got (20, 40, 35) and (20, 40)"),
        (["--memory", "3MB", "--seeds", "negative.zarr"], "seeds must hold labels of at least 0, got -1"),
    ],
)
def test_what_is_refused(tmp_path, affinities, small_chunks, capsys, monkeypatch, options, message):
    monkeypatch.chdir(tmp_path)
    zarr.create_array("flat.zarr", data=np.zeros((20, 40), np.int32))
    zarr.create_array("negative.zarr", data=np.full((20, 40, 35), -1, np.int32))
    np.save("seeds.npy", np.ones((20, 40, 35), np.int32))
    monkeypatch.setattr(_large, "bytes_in_memory", lambda *_: 2**40)
    threshold = [] if "--seeds" in options else ["--threshold", "0.75"]
    arguments = ["segment", "aff.zarr", "-o", "seg.zarr", *threshold, "--workers", 1, *options]
    assert run(*arguments) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "seg.zarr").exists()


def test_other_outputs_and_inputs_that_are_read_as_a_whole(tmp_path, affinities, small_chunks, capsys):
    assert run("segment", tmp_path / "aff.zarr", "-o", tmp_path / "seg.npy", *OPTIONS, "--memory", "600kB") == 2
    assert "cannot do an output that is no Zarr store" in capsys.readouterr().err
    np.save(tmp_path / "aff.npy", affinities)
    run("segment", tmp_path / "aff.npy", "-o", tmp_path / "s.zarr", *OPTIONS, "--scheduler", "tcp://localhost:1")
    assert "aff.npy is read as a whole" in capsys.readouterr().err


def test_another_job_begins_anew(tmp_path, affinities, small_chunks, monkeypatch):
    def stop(*args: object) -> None:
        raise KeyboardInterrupt

    memory = ["--memory", "600kB", "--workers", 1]
    with monkeypatch.context() as patched:
        patched.setattr(_large, "_write_scale", stop)
        patched.setattr(_large, "_write_labels", stop)
        output = tmp_path / "seg.zarr"
        assert run("segment", tmp_path / "aff.zarr", "-o", output, *OPTIONS, *memory) == 130
    assert (tmp_path / ".seg.zarr.unfinished").is_dir() and not output.exists()
    other = ["--threshold", "0.5", "--min-size", "1", "--quiet"]
    assert run("segment", tmp_path / "aff.zarr", "-o", output, *other, *memory) == 0
    expected, _ = malis.affgraph_to_seg(affinities, malis.mknhood3d(1), threshold=0.5, min_size=1)
    np.testing.assert_array_equal(zarr.open(output)["s0"][:], expected)
    assert not list(tmp_path.glob(".*"))


SLOWLY = """
import sys, time
from malis import _large, cli
from malis._io.zarr_store import CHUNK
from malis.malis_dask import _components

CHUNK[3] = 16
_large._BASE_BYTES = 0
print("begun", flush=True)
sys.exit(cli.run(sys.argv[1:]))
"""


@pytest.mark.slow
def test_a_run_that_is_killed_at_any_moment_goes_on(tmp_path, rng):
    aff = rng.integers(0, 256, (3, 64, 64, 64), dtype=np.uint8)
    zarr.create_array(str(tmp_path / "aff.zarr"), data=aff, chunks=(3, 32, 32, 32))
    output = tmp_path / "seg.zarr"
    command = [sys.executable, "-c", SLOWLY, "segment", str(tmp_path / "aff.zarr"), "-o", str(output), *OPTIONS]
    command += ["--memory", "1500kB", "--workers", "2"]
    moments = random.Random(1)
    states = set()
    for attempt in range(10):
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None and process.stdout.readline() == "begun\n"
            # Later and later, as on a machine that others use the first seconds may write nothing.
            time.sleep(moments.uniform(0.2, 2 + attempt))
            process.send_signal(signal.SIGKILL)
            process.wait()
        left = list(tmp_path.glob(".seg.zarr.unfinished/parts/part*")), list(tmp_path.glob(".seg.zarr.un*/written/*"))
        states.add(tuple(map(len, left)))
        if output.exists():
            break
    assert len(states) > 1
    if not output.exists():
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    expected, _ = malis.affgraph_to_seg(aff, malis.mknhood3d(1), threshold=0.75, min_size=5)
    np.testing.assert_array_equal(zarr.open(output)["s0"][:], expected)
    assert json.loads((output / "zarr.json").read_text())["attributes"]["ome"]["image-label"] is not None


def test_a_cluster(tmp_path, affinities, small_chunks):
    distributed = pytest.importorskip("distributed")
    with distributed.LocalCluster(
        n_workers=1, threads_per_worker=2, processes=False, dashboard_address=None
    ) as cluster:
        output = tmp_path / "seg.zarr"
        options = [*OPTIONS, "--scheduler", cluster.scheduler_address, "--memory", "1MB", "--workers", 2]
        assert run("segment", tmp_path / "aff.zarr", "-o", output, *options) == 0
    expected, _ = malis.affgraph_to_seg(affinities, malis.mknhood3d(1), threshold=0.75, min_size=5)
    np.testing.assert_array_equal(zarr.open(output)["s0"][:], expected)
