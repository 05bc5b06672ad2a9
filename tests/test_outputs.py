"""Outputs that are complete or not there at all: several writers, links, signals, kills and full disks."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import h5py
import numpy as np
import pytest

from malis import _io
from malis._io import replace

zarr = pytest.importorskip("zarr", minversion="3", reason="zarr 3 needs Python 3.11")
fcntl = pytest.importorskip("fcntl", reason="this system has no locks of files")

FORMATS = ["seg.npy", "seg.npz", "seg.h5:/labels", "seg.tif", "seg.zarr", "seg.zarr/labels/seg"]


@pytest.fixture
def seg(rng):
    return rng.integers(0, 70_000, (5, 6, 7)).astype(np.int32)


def write(place, seg, force=False):
    _io.write_labels(str(place), seg, {"version": "1.2"}, force=force)


def names_in(folder):
    return sorted(path.name for path in folder.iterdir())


def python(code, *args, **options):
    """Start Python on some lines of code."""
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code), *map(str, args)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


# ----------------------------------------------------------------------------------------------------- several writers

WRITER = """
    import sys, numpy as np
    from malis import _io
    place, value = sys.argv[1], int(sys.argv[2])
    seg = np.full((8, 40, 40), value, np.int32)
    print("ready", flush=True)
    sys.stdin.readline()
    for _ in range(3):
        _io.write_labels(place, seg, {}, force=True)
"""


def write_together(places):
    """Let one process for each place write labels, all at once; returns what they print on stderr."""
    runs = [python(WRITER, place, i + 1, stdin=subprocess.PIPE) for i, place in enumerate(places)]
    for run in runs:
        assert run.stdout.readline() == "ready\n"
    for run in runs:
        run.stdin.write("go\n")
        run.stdin.flush()
    return [run.communicate(timeout=120)[1] for run in runs]


def test_writers_of_one_hdf5_file_lose_nothing(tmp_path):
    path = tmp_path / "volume.h5"
    assert write_together([f"{path}:/labels/n{i}" for i in range(4)]) == [""] * 4
    with h5py.File(path) as file:
        assert [int(file[f"labels/n{i}"][0, 0, 0]) for i in range(4)] == [1, 2, 3, 4]
    assert names_in(tmp_path) == ["volume.h5"]


def test_writers_of_one_zarr_array(tmp_path):
    assert write_together([f"{tmp_path}/volume.zarr/labels/cells"] * 6) == [""] * 6
    array = zarr.open_array(str(tmp_path / "volume.zarr/labels/cells/s0"))[:]
    assert array.min() == array.max() in range(1, 7)
    assert names_in(tmp_path) == ["volume.zarr"]


def test_writers_of_one_zarr_store_are_all_listed(tmp_path):
    assert write_together([f"{tmp_path}/volume.zarr/labels/n{i}" for i in range(4)]) == [""] * 4
    listed = zarr.open_group(str(tmp_path / "volume.zarr/labels")).attrs["ome"]["labels"]
    assert sorted(listed) == ["n0", "n1", "n2", "n3"]


@pytest.mark.parametrize("name", FORMATS)
def test_a_lock_that_is_held_is_a_clear_error(name, tmp_path, seg, monkeypatch):
    monkeypatch.setattr(replace, "LOCK_SECONDS", 0.1)
    place = _io.parse(f"{tmp_path}/{name}")
    with (
        replace.locked(place.path),
        pytest.raises(BlockingIOError, match=f"{place.path.name} is being written by another run of malis"),
    ):
        write(place.text, seg)
    write(place.text, seg)


def test_an_hdf5_file_that_is_open_for_writing(tmp_path, seg):
    path = tmp_path / "volume.h5"
    code = "import h5py, sys; f = h5py.File(sys.argv[1], 'w'); f['a'] = 1; print('open', flush=True); input()"
    with python(code, path, stdin=subprocess.PIPE) as other:
        assert other.stdout.readline() == "open\n"
        with pytest.raises(BlockingIOError, match=r"volume\.h5 is open for writing in another program"):
            write(f"{path}:/labels", seg)
        other.communicate("\n", timeout=60)
    write(f"{path}:/labels", seg)
    with h5py.File(path) as file:
        assert sorted(file) == ["a", "labels"]


# --------------------------------------------------------------------------------------------------------------- links


@pytest.mark.parametrize(
    "name", ["a.zarr/..", "a.zarr/../b", "a.zarr:x/../../b", "a.zarr/./b", "a.npz:../b", "a.h5:/.."]
)
def test_names_stay_within_the_file(name, tmp_path, seg):
    write(tmp_path / "a.zarr/b", seg)
    before = sorted(str(path) for path in tmp_path.rglob("*"))
    for call in (lambda: write(f"{tmp_path}/{name}", seg, True), lambda: _io.read_labels(f"{tmp_path}/{name}")):
        with pytest.raises(ValueError, match=r"must name an array within .*'\.' and '\.\.' are no names there"):
            call()
    assert sorted(str(path) for path in tmp_path.rglob("*")) == before


def test_links_do_not_lead_out_of_a_store(tmp_path, seg):
    write(tmp_path / "a.zarr/b", seg)
    write(tmp_path / "other.zarr/b", seg)
    (tmp_path / "a.zarr/out").symlink_to(tmp_path / "other.zarr")
    for call in (
        lambda: write(tmp_path / "a.zarr/out/c", seg),
        lambda: write(tmp_path / "a.zarr/out", seg, True),
        lambda: _io.read_labels(f"{tmp_path}/a.zarr/out/b"),
    ):
        with pytest.raises(ValueError, match="leads out of"):
            call()
    assert sorted(zarr.open_group(str(tmp_path / "other.zarr"))) == ["b"]


@pytest.mark.parametrize("name", FORMATS)
def test_a_link_is_followed(name, tmp_path, seg):
    (tmp_path / "data").mkdir()
    (tmp_path / "links").mkdir()
    link = _io.parse(f"{tmp_path}/links/{name}")
    real = tmp_path / "data" / f"real{link.path.suffix}"
    write(f"{real}{name[len(link.path.name) :]}", seg)
    link.path.symlink_to(real)
    write(link.text, seg + 1, force=True)
    assert link.path.is_symlink()
    np.testing.assert_array_equal(_io.read_labels(link.text).array, seg + 1)
    assert (names_in(tmp_path / "data"), names_in(tmp_path / "links")) == ([real.name], [link.path.name])


@pytest.mark.parametrize("name", FORMATS)
def test_a_link_to_nothing_needs_force(name, tmp_path, seg):
    (tmp_path / "data").mkdir()
    link = _io.parse(f"{tmp_path}/{name}")
    link.path.symlink_to(tmp_path / "data" / link.path.name)
    for call in (lambda: write(link.text, seg), lambda: _io.check_output(link.text, force=False)):
        with pytest.raises(FileExistsError, match="which does not exist: --force writes there"):
            call()
    write(link.text, seg, force=True)
    assert link.path.is_symlink()
    np.testing.assert_array_equal(_io.read_labels(link.text).array, seg)
    (tmp_path / "data").rename(tmp_path / "gone")
    with pytest.raises(FileNotFoundError, match="is no folder"):
        write(link.text, seg, force=True)


# ------------------------------------------------------------------------------------------------- signals and kills

# The labels do not compress, so that writing them takes about a second.
SLOW = """
    import os, signal, sys, time, numpy as np, malis
    original = os.fsync
    os.fsync = lambda file: (time.sleep(1), original(file))  # a slow disk: the signal comes before the name is given
    signal.signal(signal.SIGINT, signal.default_int_handler)  # background jobs of a shell have it ignored
    def segment(*args, **options):
        print("segmented", flush=True)
        return np.random.default_rng(0).integers(0, 60000, (96, 320, 320)).astype(np.int32), np.zeros(3, np.int64)
    malis.affgraph_to_seg = segment
    np.save("aff.npy", np.ones((3, 4, 4, 4), np.float32))
    from malis.__main__ import main
    sys.exit(main(["segment", "aff.npy", "-o", sys.argv[1], "--force", "--quiet"]))
"""


def wait_for_partial(folder):
    until = time.monotonic() + 60
    while not any(".partial" in path.name for path in folder.iterdir()):
        assert time.monotonic() < until
        time.sleep(0.002)


@pytest.mark.parametrize(
    ("name", "number", "delay"),
    [(name, signal.SIGTERM, 0.0) for name in FORMATS]
    # The same exception ends a run after either signal: one format tells.
    + [("seg.h5:/labels", signal.SIGINT, 0.0)]
    # .npy and TIFF are written faster than that.
    + [(name, signal.SIGTERM, 0.15) for name in ("seg.npz", "seg.h5:/labels", "seg.zarr")],
)
def test_a_signal_leaves_nothing(name, number, delay, tmp_path):
    with python(SLOW, name, cwd=tmp_path) as run:
        assert run.stdout.readline() == "segmented\n"
        wait_for_partial(tmp_path)
        time.sleep(delay)
        run.send_signal(number)
        _, err = run.communicate(timeout=60)
    assert (run.returncode, err) == (130, "malis: interrupted\n")
    assert names_in(tmp_path) == ["aff.npy"]


@pytest.mark.parametrize("name", FORMATS)
def test_what_a_kill_leaves_is_removed_by_the_next_run(name, tmp_path, seg):
    with python(SLOW, name, cwd=tmp_path) as run:
        assert run.stdout.readline() == "segmented\n"
        wait_for_partial(tmp_path)
        run.kill()
        run.communicate(timeout=60)
    path = _io.parse(name).path
    assert not (tmp_path / path).exists()
    assert any(".partial" in left for left in names_in(tmp_path))
    write(tmp_path / "other.npy", seg)
    assert names_in(tmp_path) == ["aff.npy", "other.npy"]


def test_a_run_does_not_remove_what_another_is_writing(tmp_path, seg):
    with replace.replacing(tmp_path / "a.npy", force=False) as temporary:
        temporary.write_bytes(b"half")
        write(tmp_path / "b.npy", seg)
        assert temporary.exists()
        np.save(temporary, seg)
    assert names_in(tmp_path) == ["a.npy", "b.npy"]


def test_a_kill_while_a_folder_is_replaced_loses_nothing(tmp_path, seg):
    """The old folder has made place and the new one is not yet there."""
    write(tmp_path / "a.zarr/labels/cells", seg)
    code = """
        import os, signal, sys, numpy as np
        from pathlib import Path
        from malis import _io
        original = Path.rename
        def rename(source, target):
            if "partial" in source.name:
                os.kill(os.getpid(), signal.SIGKILL)
            return original(source, target)
        Path.rename = rename
        _io.write_labels(sys.argv[1], np.ones((2, 2), np.int32), {}, force=True)
    """
    with python(code, tmp_path / "a.zarr/labels/cells") as run:
        run.communicate(timeout=60)
    assert run.returncode == -signal.SIGKILL
    assert not (tmp_path / "a.zarr/labels/cells").exists()
    write(tmp_path / "b.npy", seg)
    np.testing.assert_array_equal(_io.read_labels(f"{tmp_path}/a.zarr/labels/cells").array, seg)
    assert names_in(tmp_path) == ["a.zarr", "b.npy"]
    assert names_in(tmp_path / "a.zarr/labels") == ["cells", "zarr.json"]


# ---------------------------------------------------------------------------------------------------------- full disks


@pytest.fixture
def small_disk(tmp_path):
    """A disk of one megabyte."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk)]
    try:
        subprocess.run(mount, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("mounting a small disk needs root")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


FILL = """
    import sys, numpy as np
    from malis import _io
    seg = np.random.default_rng(0).integers(0, 60000, (8, 300, 300)).astype(np.int32)
    try:
        _io.write_labels(sys.argv[1], seg, {}, force=True)
    except OSError as error:
        print(error)
"""


@pytest.mark.parametrize("name", [*FORMATS, "seg.hdf5:/labels"])
def test_a_full_disk_is_an_error(name, small_disk):
    place = _io.parse(f"{small_disk}/{name}")
    if place.suffix == "hdf5":  # one that exists, and keeps what it holds
        with h5py.File(place.path, "w") as file:
            file["raw"] = np.arange(1000)
    before = names_in(small_disk)
    with python(FILL, place.text) as run:
        out, err = run.communicate(timeout=120)
    assert (run.returncode, err) == (0, "")
    assert f"{place.path.name} does not fit: no space left on the disk" in out
    assert names_in(small_disk) == before
    if place.suffix == "hdf5":
        with h5py.File(place.path) as file:
            assert file["raw"][999] == 999


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_cannot_be_written_to(tmp_path, seg):
    folder = Path(tmp_path / "locked")
    folder.mkdir(mode=0o500)
    with pytest.raises(PermissionError, match="locked cannot be written to"):
        _io.check_output(f"{folder}/seg.npy", force=False)
