"""Files: every format, OME-Zarr axes, outputs that are complete or not there at all."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import h5py
import numpy as np
import pytest
import tifffile

from malis import _io

zarr = pytest.importorskip("zarr", minversion="3", reason="zarr 3 needs Python 3.11")

PROVENANCE = {"version": "1.2", "options": {"threshold": 0.5, "nhood": [[-1, 0]]}}
OUTPUTS = [
    "seg.npy",
    "seg.npz",
    "seg.npz:cells",
    "seg.h5:/labels",
    "seg.hdf5:volumes/labels/seg",
    "seg.tif",
    "seg.TIFF",
    "seg.zarr",
    "seg.zarr/labels/seg",
    "seg.zarr:labels",
]


def provenance_of(place):
    """Read the attributes with the library of the format itself."""
    path, inner = place.path, place.inner
    if place.suffix == "npz":
        return json.loads(str(np.load(path)["malis"]))
    if place.suffix in ("h5", "hdf5"):
        with h5py.File(path) as file:
            return json.loads(file[inner].attrs["malis"])
    if place.suffix == "zarr":
        return dict(zarr.open_group(str(path), mode="r", path=inner or None).attrs)["malis"]
    with tifffile.TiffFile(path) as file:
        if file.is_ome:
            description = tifffile.xml2dict(file.ome_metadata)["OME"]["Image"]["Description"]
            return json.loads(description)["malis"]
        return json.loads(file.imagej_metadata["Info"])["malis"]


@pytest.fixture
def seg(rng):
    return rng.integers(0, 70_000, (5, 6, 7)).astype(np.int32)


def write(place, seg, force=False):
    _io.write_labels(str(place), seg, PROVENANCE, force=force)


def files_in(folder):
    return sorted(path.name for path in folder.iterdir())


# -------------------------------------------------------------------------------------------------------- round trips


@pytest.mark.parametrize("name", OUTPUTS)
@pytest.mark.parametrize("dtype", [np.int32, np.int64])
@pytest.mark.parametrize("ndim", [2, 3])
def test_round_trip(name, dtype, ndim, tmp_path, seg):
    seg = seg[0].astype(dtype) if ndim == 2 else seg.astype(dtype)
    place = f"{tmp_path}/{name}"
    write(place, seg)
    read = _io.read_labels(place).array
    assert read.dtype.kind == "u"  # viewers take signed integers for an image
    np.testing.assert_array_equal(read, seg)
    if not name.endswith(".npy"):
        assert provenance_of(_io.parse(place)) == PROVENANCE
    assert files_in(tmp_path) == [Path(name.partition(":")[0].partition("/")[0]).name]


@pytest.mark.parametrize("name", ["seg.npz:cells", "seg.h5:/labels", "seg.zarr:cells"])
def test_the_only_array_needs_no_name(name, tmp_path, seg):
    write(f"{tmp_path}/{name}", seg)
    np.testing.assert_array_equal(_io.read_labels(f"{tmp_path}/{name.partition(':')[0]}").array, seg)


def test_labels_of_tiff_and_zarr_name_their_axes(tmp_path, seg):
    write(tmp_path / "seg.tif", seg)
    with tifffile.TiffFile(tmp_path / "seg.tif") as file:
        assert file.series[0].axes == "ZYX"
    write(tmp_path / "seg.zarr", seg[0])
    assert zarr.open_array(str(tmp_path / "seg.zarr/s0")).metadata.dimension_names == ("y", "x")


@pytest.mark.parametrize("name", ["a.npy", "a.npz:x", "a.h5:x", "a.zarr:x", "a.zarr"])
def test_names_of_folders_may_hold_anything(name, tmp_path, seg):
    folder = tmp_path / "day 1: h5.zarr.old"
    folder.mkdir()
    write(folder / name, seg)
    np.testing.assert_array_equal(_io.read_labels(str(folder / name)).array, seg)


@pytest.mark.parametrize(
    ("text", "path", "inner"),
    [
        ("a.zarr/b/c.zarr/d", "a.zarr", "b/c.zarr/d"),
        ("a.h5:/volumes/seg.npy", "a.h5", "volumes/seg.npy"),
        ("C:\\data\\a.h5:/seg", "C:\\data\\a.h5", "seg"),
        ("a.zarr/", "a.zarr", ""),
        ("x.tif.d/a.OME.TIFF", "x.tif.d/a.OME.TIFF", ""),
    ],
)
def test_places(text, path, inner):
    place = _io.parse(text)
    assert (str(place.path), place.inner) == (path, inner)


@pytest.mark.parametrize("text", ["seg", "seg.png", "seg.h5x", "", "seg.zar"])
def test_unknown_formats(text):
    with pytest.raises(ValueError, match=r"must end in \.npy, \.npz"):
        _io.parse(text)


def test_one_array_has_no_name():
    with pytest.raises(ValueError, match=r"a \.tif file holds one array"):
        _io.parse("seg.tif:labels")


# ----------------------------------------------------------------------------------------------------- existing files


@pytest.mark.parametrize("name", OUTPUTS)
def test_nothing_is_replaced_without_force(name, tmp_path, seg):
    place = f"{tmp_path}/{name}"
    write(place, seg)
    before = provenance_of(_io.parse(place)) if not name.endswith("npy") else None
    for call in (lambda: write(place, seg + 1), lambda: _io.check_output(place, force=False)):
        with pytest.raises(FileExistsError, match="exists: --force replaces it"):
            call()
    np.testing.assert_array_equal(_io.read_labels(place).array, seg)
    if before is not None:
        assert provenance_of(_io.parse(place)) == before
    write(place, seg[:3, :2] + 1, force=True)
    np.testing.assert_array_equal(_io.read_labels(place).array, seg[:3, :2] + 1)
    assert len(files_in(tmp_path)) == 1


def test_hdf5_files_keep_what_else_they_hold(tmp_path, seg):
    path = tmp_path / "volume.h5"
    with h5py.File(path, "w") as file:
        file["raw"] = np.arange(10)
        file["raw"].attrs["unit"] = "nm"
        file["groups/a/b"] = 3
    write(f"{path}:/groups/a/labels", seg)
    write(f"{path}:/groups/a/labels", seg + 1, force=True)
    with h5py.File(path) as file:
        assert file["raw"][:].tolist() == list(range(10))
        assert file["raw"].attrs["unit"] == "nm"
        assert file["groups/a/b"][()] == 3
        np.testing.assert_array_equal(file["groups/a/labels"][:], seg + 1)
        assert file["groups/a/labels"].compression == "gzip"
    assert files_in(tmp_path) == ["volume.h5"]


@pytest.mark.parametrize("zarr_format", [2, 3])
@pytest.mark.parametrize("consolidated", [False, True])
def test_zarr_stores_keep_what_else_they_hold(zarr_format, consolidated, tmp_path, seg):
    path = tmp_path / "volume.zarr"
    root = zarr.open_group(str(path), mode="w", zarr_format=zarr_format)
    root.attrs["lab"] = "here"
    root.create_array("raw", data=np.arange(10))
    if consolidated:
        zarr.consolidate_metadata(str(path))
    write(f"{path}/labels/deep/seg", seg)
    write(f"{path}/labels/deep/seg", seg + 1, force=True)
    root = zarr.open_group(str(path), mode="r")
    assert root.attrs["lab"] == "here"
    assert root["raw"][:].tolist() == list(range(10))
    np.testing.assert_array_equal(root["labels/deep/seg/s0"][:], seg + 1)
    assert root["labels/deep/seg"].metadata.zarr_format == zarr_format
    assert list(root["labels/deep"]) == ["seg"]
    assert (root.metadata.consolidated_metadata is not None) == consolidated


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ("volume.h5", "must name a data set after a colon"),
        ("volume.h5:/labels", "is a group: name a data set"),
        ("volume.h5:/raw/seg", "lies within a data set"),
        ("volume.zarr", "is a group: name labels"),
        ("volume.zarr/labels", "is a group: name labels"),
        ("volume.zarr/raw/seg", "lies within an array"),
        ("missing/seg.npy", "missing is no folder"),
        ("missing/seg.zarr", "missing is no folder"),
        ("folder.npy", "is a folder"),
        ("folder.h5:/seg", "is a folder"),
    ],
)
@pytest.mark.parametrize("force", [False, True])
def test_places_that_cannot_be_written(place, message, force, tmp_path, seg):
    with h5py.File(tmp_path / "volume.h5", "w") as file:
        file["raw"], file["labels/a"] = [1, 2], [3]
    root = zarr.open_group(str(tmp_path / "volume.zarr"), mode="w")
    root.create_array("raw", data=np.arange(10))
    root.create_array("labels/a", data=np.arange(10))
    (tmp_path / "folder.npy").mkdir()
    (tmp_path / "folder.h5").mkdir()
    before = sorted(str(path) for path in tmp_path.rglob("*"))
    for call in (
        lambda: _io.check_output(f"{tmp_path}/{place}", force=force),
        lambda: write(tmp_path / place, seg, force),
    ):
        with pytest.raises((ValueError, OSError), match=message):
            call()
    assert sorted(str(path) for path in tmp_path.rglob("*")) == before


def test_an_input_is_no_output(tmp_path):
    with pytest.raises(ValueError, match="is an input"):
        _io.check_output(f"{tmp_path}/a.npy", force=True, inputs=(f"{tmp_path}/./a.npy",))
    with pytest.raises(ValueError, match="is an input"):
        _io.check_output(f"{tmp_path}/a.npz:seg", force=True, inputs=(f"{tmp_path}/a.npz:aff",))
    _io.check_output(f"{tmp_path}/a.h5:seg", force=True, inputs=(f"{tmp_path}/a.h5:aff",))


# ------------------------------------------------------------------------------------------------------- interruptions

STOPPED = {
    "seg.npy": "numpy.save",
    "seg.npz": "numpy.lib.format.write_array",
    "seg.tif": "tifffile.imwrite",
    "seg.h5:/labels": "h5py.Group.create_dataset",
    "seg.zarr": "zarr.create_array",
    "seg.zarr/labels/seg": "zarr.create_array",
}


@pytest.mark.parametrize("name", STOPPED)
@pytest.mark.parametrize("existing", [False, True])
@pytest.mark.parametrize("moment", ["while the data are written", "before the name is given"])
@pytest.mark.parametrize("error", [OSError("disk full"), KeyboardInterrupt()])
def test_an_interrupted_run_leaves_no_half_file(name, existing, moment, error, tmp_path, seg, monkeypatch):
    place = f"{tmp_path}/{name}"
    if existing:
        write(place, seg)
    before = files_in(tmp_path)

    final = _io.parse(place).path
    if existing and "/" in name.partition(".zarr")[2]:
        final = final / _io.parse(place).inner

    failed = []

    def unless_final(function):
        def call(source, target):
            if Path(target) == final and not failed:
                failed.append(target)
                raise error
            return function(source, target)

        return call

    with monkeypatch.context() as patch:
        if moment == "before the name is given":
            patch.setattr("os.replace", unless_final(os.replace))
            patch.setattr("pathlib.Path.rename", unless_final(Path.rename))
        else:
            function = STOPPED[name]
            module, _, attribute = function.rpartition(".")
            original = h5py.Group.create_dataset if "h5py" in function else getattr(sys.modules[module], attribute)

            def half(*args, **kwargs):
                original(*args, **kwargs)
                raise error

            patch.setattr(function, half)
        with pytest.raises(type(error)):
            write(place, seg + 1, force=True)
    assert files_in(tmp_path) == before
    if existing:
        np.testing.assert_array_equal(_io.read_labels(place).array, seg)


def test_what_another_program_wrote_meanwhile_is_kept(tmp_path):
    path = tmp_path / "picture.png"
    with pytest.raises(FileExistsError), _io.replacing(path, force=False) as temporary:
        temporary.write_bytes(b"ours")
        path.write_bytes(b"theirs")
    assert path.read_bytes() == b"theirs"
    assert files_in(tmp_path) == ["picture.png"]


# --------------------------------------------------------------------------------------------------------------- axes


def save_ome_zarr(path, array, names, version, scales=2):
    """Write an image as the specifications 0.4 and 0.5 say, by hand."""
    kinds = {"c": "channel", "t": "time"}
    multiscales = [
        {
            "axes": [{"name": name, "type": kinds.get(name, "space")} for name in names],
            "datasets": [
                {"path": f"s{i}", "coordinateTransformations": [{"type": "scale", "scale": [1.0] * len(names)}]}
                for i in range(scales)
            ],
        }
    ]
    root = zarr.open_group(str(path), mode="w", zarr_format=2 if version == "0.4" else 3)
    for i in range(scales):
        root.create_array(f"s{i}", data=array[..., :: 2**i])
    if version == "0.4":
        root.attrs["multiscales"] = [{"version": "0.4", **multiscales[0]}]
    else:
        root.attrs["ome"] = {"version": "0.5", "multiscales": multiscales}


@pytest.mark.parametrize("version", ["0.4", "0.5"])
@pytest.mark.parametrize("names", ["czyx", "zcyx", "tczyx", "yxc", "cyx", "zyxc", "ctzyx"])
@pytest.mark.parametrize("inner", ["", "/s0"])
def test_channels_of_ome_zarr(version, names, inner, tmp_path, rng):
    length = {"c": 2, "t": 1, "z": 3, "y": 4, "x": 6}
    aff = rng.random([length[name] for name in names], np.float32)
    save_ome_zarr(tmp_path / "aff.zarr", aff, names, version)
    spatial = [name for name in "zyx" if name in names]
    expected = np.einsum(f"{names}->tc{''.join(spatial)}" if "t" in names else f"{names}->c{''.join(spatial)}", aff)
    expected = expected[0] if "t" in names else expected
    np.testing.assert_array_equal(_io.read_affinities(f"{tmp_path}/aff.zarr{inner}").array, expected)


def test_scale_of_choice(tmp_path, rng):
    aff = rng.random((2, 4, 6), np.float32)
    save_ome_zarr(tmp_path / "aff.zarr", aff.transpose(1, 0, 2), "ycx", "0.5")
    np.testing.assert_array_equal(_io.read_affinities(f"{tmp_path}/aff.zarr/s1").array, aff[..., ::2])


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_labels_of_ome_zarr(version, tmp_path, seg):
    save_ome_zarr(tmp_path / "seg.zarr", seg[None, None], "tczyx", version)
    np.testing.assert_array_equal(_io.read_labels(f"{tmp_path}/seg.zarr").array, seg)


def test_labels_beside_an_image(tmp_path, seg):
    save_ome_zarr(tmp_path / "image.zarr", seg, "zyx", "0.5")
    save_ome_zarr(tmp_path / "image.zarr/labels/cells", seg + 1, "zyx", "0.5")
    np.testing.assert_array_equal(_io.read_labels(f"{tmp_path}/image.zarr/labels/cells").array, seg + 1)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ("zyx", "has the axes z, y, x and none of channels"),
        ("tcyx", "must hold one time point, got 3"),
        ("ccyx", "its axes must differ"),
    ],
)
def test_unsuitable_axes_of_affinities(names, message, tmp_path):
    save_ome_zarr(tmp_path / "aff.zarr", np.zeros((3, 2, 4, 6)[: len(names)], np.float32), names, "0.5")
    with pytest.raises(ValueError, match=message):
        _io.read_affinities(f"{tmp_path}/aff.zarr")


def test_several_channels_are_no_labels(tmp_path, seg):
    save_ome_zarr(tmp_path / "seg.zarr", seg, "cyx", "0.5")
    with pytest.raises(ValueError, match="must hold one channel of labels, got 5"):
        _io.read_labels(f"{tmp_path}/seg.zarr")


def test_old_ome_zarr(tmp_path):
    root = zarr.open_group(str(tmp_path / "aff.zarr"), mode="w", zarr_format=2)
    root.create_array("0", data=np.zeros((1, 2, 1, 4, 4)))
    root.attrs["multiscales"] = [{"version": "0.1", "datasets": [{"path": "0"}]}]
    with pytest.raises(ValueError, match=r"name no axes: versions 0\.4 and 0\.5"):
        _io.read_affinities(f"{tmp_path}/aff.zarr")


@pytest.mark.parametrize(("axes", "order"), [("CYX", (0, 1, 2)), ("YXC", (2, 0, 1))])
def test_channels_of_tiff(axes, order, tmp_path, rng):
    array = rng.random((2, 5, 6), np.float32) if axes == "CYX" else rng.random((5, 6, 2), np.float32)
    tifffile.imwrite(tmp_path / "aff.tif", array, metadata={"axes": axes}, photometric="minisblack")
    np.testing.assert_array_equal(_io.read_affinities(f"{tmp_path}/aff.tif").array, array.transpose(order))


def test_tiff_of_imagej_and_ome(tmp_path, rng):
    aff = rng.random((4, 3, 5, 6), np.float32)  # (Z, C, Y, X)
    tifffile.imwrite(tmp_path / "imagej.tif", aff, imagej=True, metadata={"axes": "ZCYX"})
    tifffile.imwrite(tmp_path / "image.ome.tif", aff, metadata={"axes": "ZCYX"}, photometric="minisblack")
    for name in ("imagej.tif", "image.ome.tif"):
        np.testing.assert_array_equal(_io.read_affinities(f"{tmp_path}/{name}").array, aff.swapaxes(0, 1))


@pytest.mark.parametrize("n_pages", [3, 120])
@pytest.mark.parametrize("bigtiff", [False, True])
def test_tiff_whose_pages_go_round_in_a_circle(bigtiff, n_pages, tmp_path):
    path = tmp_path / "a.tif"
    pages = np.zeros((n_pages, 4, 5), np.uint8)
    with tifffile.TiffWriter(path, bigtiff=bigtiff) as file:
        for page in pages:
            file.write(page, contiguous=False, metadata=None)
    np.testing.assert_array_equal(_io.read_labels(str(path)).array, pages)
    with tifffile.TiffFile(path) as file:
        last, back, layout = file.pages[n_pages - 1], file.pages[1].offset, file.tiff
    data = bytearray(path.read_bytes())
    link = last.offset + layout.tagnosize + len(last.tags) * layout.tagsize
    data[link : link + layout.offsetsize] = back.to_bytes(layout.offsetsize, "little")
    path.write_bytes(data)
    with pytest.raises(ValueError, match=r"a\.tif is damaged: its pages go round in a circle"):
        _io.read_labels(str(path))


def test_tiff_that_says_to_be_larger_than_it_can_be(tmp_path):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, np.ones((4, 5), np.uint8), metadata=None)
    with tifffile.TiffFile(path) as file:
        places = [file.pages[0].tags[name].valueoffset for name in ("ImageLength", "ImageWidth")]
    data = bytearray(path.read_bytes())
    for at in places:
        data[at : at + 4] = (60000).to_bytes(4, "little")
    path.write_bytes(data)
    with pytest.raises(ValueError, match=r"a\.tif is damaged: it says to hold shape \(60000, 60000\) in \d+ bytes"):
        _io.read_labels(str(path))


def test_too_little_memory_names_the_file(tmp_path, seg, monkeypatch):
    write(tmp_path / "a.tif", seg)

    def fail(*arguments):
        raise MemoryError

    monkeypatch.setattr(tifffile.TiffPageSeries, "asarray", fail)
    monkeypatch.setattr(tifffile.TiffPage, "asarray", fail)
    with pytest.raises(MemoryError, match=r"a\.tif does not fit into memory$"):
        _io.read_labels(f"{tmp_path}/a.tif")


def test_tiff_without_axes(tmp_path, rng):
    aff = rng.random((2, 5, 6), np.float32)
    tifffile.imwrite(tmp_path / "aff.tif", aff, photometric="minisblack")
    np.testing.assert_array_equal(_io.read_affinities(f"{tmp_path}/aff.tif").array, aff)


def test_channel_axis_of_the_caller(tmp_path, rng):
    aff = rng.random((5, 6, 2), np.float32)
    np.save(tmp_path / "aff.npy", aff)
    for axis in (-1, 2):
        np.testing.assert_array_equal(_io.read_affinities(f"{tmp_path}/aff.npy", axis).array, np.moveaxis(aff, -1, 0))
    np.testing.assert_array_equal(_io.read_affinities(f"{tmp_path}/aff.npy").array, aff)
    for axis in (3, -4):
        with pytest.raises(ValueError, match=f"has 3 axes, got the channel axis {axis}"):
            _io.read_affinities(f"{tmp_path}/aff.npy", axis)
    save_ome_zarr(tmp_path / "aff.zarr", aff, "zyx", "0.5")
    np.testing.assert_array_equal(_io.read_affinities(f"{tmp_path}/aff.zarr", -1).array, np.moveaxis(aff, -1, 0))


# -------------------------------------------------------------------------------------------------------- bad files


def test_files_with_several_arrays(tmp_path):
    np.savez(tmp_path / "a.npz", aff=[1], seg=[2])
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["aff"], file["volumes/seg"] = [1], [2]
    root = zarr.open_group(str(tmp_path / "a.zarr"), mode="w")
    root.create_array("aff", data=np.arange(1))
    root.create_array("seg", data=np.arange(2))
    for name, listed in (("a.npz", "aff, seg"), ("a.h5", "aff, volumes/seg"), ("a.zarr", "aff, seg")):
        with pytest.raises(ValueError, match=f"name .*{listed}"):
            _io.read_labels(f"{tmp_path}/{name}")
    for name in ("a.npz:raw", "a.h5:/raw", "a.h5:/volumes"):
        with pytest.raises(ValueError, match="has no array"):
            _io.read_labels(f"{tmp_path}/{name}")
    with pytest.raises(FileNotFoundError, match="raw"):
        _io.read_labels(f"{tmp_path}/a.zarr/raw")
    assert _io.read_labels(f"{tmp_path}/a.h5:/volumes/seg").array.tolist() == [2]


def test_empty_containers(tmp_path):
    np.savez(tmp_path / "a.npz")
    h5py.File(tmp_path / "a.h5", "w").close()
    for name in ("a.npz", "a.h5"):
        with pytest.raises(ValueError, match="holds no array"):
            _io.read_labels(f"{tmp_path}/{name}")
    zarr.open_group(str(tmp_path / "a.zarr"), mode="w")
    with pytest.raises(ValueError, match="it holds no array"):
        _io.read_labels(f"{tmp_path}/a.zarr")


@pytest.mark.parametrize("name", ["a.npy", "a.npz", "a.h5", "a.tif", "a.zarr"])
def test_missing_and_damaged_files(name, tmp_path, seg):
    with pytest.raises(FileNotFoundError, match=f"{name} does not exist"):
        _io.read_labels(f"{tmp_path}/{name}")
    write(f"{tmp_path}/{name}" + (":/seg" if name == "a.h5" else ""), seg)
    victim = tmp_path / name if name != "a.zarr" else tmp_path / "a.zarr" / "zarr.json"
    victim.write_bytes(victim.read_bytes()[:40])
    with pytest.raises((ValueError, OSError)):
        _io.read_labels(f"{tmp_path}/{name}")


def test_pickles_are_not_read(tmp_path):
    np.save(tmp_path / "a.npy", np.array([{}]), allow_pickle=True)
    with pytest.raises(ValueError, match="allow_pickle"):
        _io.read_labels(f"{tmp_path}/a.npy")


def test_folder_of_sections(tmp_path, rng):
    folder = tmp_path / "stack"
    folder.mkdir()
    volume = rng.integers(0, 100, (11, 4, 5)).astype(np.uint16)
    for z, section in enumerate(volume):
        tifffile.imwrite(folder / f"slice_{z}.tif", section)  # slice_10 comes after slice_9
    np.testing.assert_array_equal(_io.read_labels(str(folder)).array, volume)
    tifffile.imwrite(folder / "slice_4.tif", volume[:, :, 0])
    with pytest.raises(ValueError, match=r"slice_4\.tif must be like slice_0\.tif, of shape \(4, 5\)"):
        _io.read_labels(str(folder))
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"must hold the sections of a volume as \.tif files, got none"):
        _io.read_labels(str(tmp_path / "empty"))
    with pytest.raises(IsADirectoryError, match="is a folder: name a file"):
        write(folder, volume)


def test_affinities_in_sections(tmp_path, rng):
    aff = rng.random((3, 6, 4, 5), np.float32)
    for z in range(6):
        tifffile.imwrite(tmp_path / f"{z}.tif", aff[:, z], photometric="minisblack", metadata={"axes": "CYX"})
    np.testing.assert_array_equal(_io.read_affinities(str(tmp_path)).array, aff)


@pytest.mark.parametrize("letters", ["TYX", "CYX"])
def test_sections_that_are_called_time_or_channels(letters, tmp_path, rng):
    volume = rng.integers(0, 100, (3, 4, 5)).astype(np.uint16)
    tifffile.imwrite(tmp_path / "a.tif", volume, imagej=True, metadata={"axes": letters})
    with pytest.raises(
        ValueError, match=f"got 3 along its axes {letters.lower()}: if these are sections, say --axes zyx"
    ):
        _io.read_labels(f"{tmp_path}/a.tif")
    np.testing.assert_array_equal(_io.read_labels(f"{tmp_path}/a.tif", axes="zyx").array, volume)
    np.testing.assert_array_equal(_io.read_labels(f"{tmp_path}/a.tif", axes="XYZ").array, volume.T)


@pytest.mark.parametrize("axes", ["zy", "zzx", "abc", ""])
def test_bad_axes(axes, tmp_path, seg):
    write(tmp_path / "a.npy", seg)
    with pytest.raises(ValueError, match=r"--axes must name the 3 axes of .*a\.npy, shape \(5, 6, 7\)"):
        _io.read_labels(f"{tmp_path}/a.npy", axes=axes)


def test_axes_of_ilastik(tmp_path, rng):
    aff = rng.random((4, 5, 6, 2), np.float32)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["exported_data"] = aff
        file["exported_data"].attrs["axistags"] = json.dumps({"axes": [{"key": key} for key in "zyxc"]})
    np.testing.assert_array_equal(_io.read_affinities(f"{tmp_path}/a.h5").array, np.moveaxis(aff, -1, 0))


def test_nested_groups_are_listed(tmp_path):
    root = zarr.open_group(str(tmp_path / "a.zarr"), mode="w")
    root.create_array("volumes/raw", data=np.arange(3))
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["volumes/raw"], file["volumes/labels/ids"] = [1], [2]
    np.testing.assert_array_equal(_io.read_labels(f"{tmp_path}/a.zarr").array, np.arange(3))  # the only one
    root.create_array("volumes/labels/ids", data=np.arange(3))
    save_ome_zarr(tmp_path / "a.zarr/image", np.zeros((4, 4), np.uint8), "yx", "0.5")
    for name in ("a.zarr", "a.zarr/none", "a.h5", "a.h5:/none"):
        listed = "volumes/labels/ids, volumes/raw"
        with pytest.raises((ValueError, FileNotFoundError), match=listed) as caught:
            _io.read_labels(f"{tmp_path}/{name}")
        assert name.partition("/")[0].partition(":")[0] in str(caught.value)
        if "zarr" in name:
            assert "it has image, volumes" in str(caught.value)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.h5", b"no HDF5", r"a\.h5 cannot be read as a HDF5 file: .*file signature not found"),
        ("a.tif", b"no TIFF at all", r"a\.tif cannot be read as a TIFF file: "),
        ("a.npy", b"no array", r"a\.npy cannot be read as a NumPy file: "),
        ("a.npz", b"no zip", r"a\.npz cannot be read as a NumPy file: "),
    ],
)
def test_messages_name_file_and_format(name, content, message, tmp_path):
    (tmp_path / name).write_bytes(content)
    with pytest.raises((ValueError, OSError), match=message):
        _io.read_labels(f"{tmp_path}/{name}")


def test_messages_about_zarr_stores(tmp_path, seg):
    (tmp_path / "a.zarr").mkdir()
    with pytest.raises(ValueError, match=r"a\.zarr is no Zarr store: it has neither zarr\.json"):
        _io.read_labels(f"{tmp_path}/a.zarr")
    write(tmp_path / "b.zarr/x", seg)
    with pytest.raises(FileNotFoundError, match=r"b\.zarr has no array 'y'; it has x"):
        _io.read_labels(f"{tmp_path}/b.zarr/y")


WITHOUT_LIBRARIES = """
import sys
for name in ("h5py", "tifffile", "zarr"):
    sys.modules[name] = None  # "import h5py" raises ImportError
import numpy as np
from malis import _io
_io.write_labels("seg.npz", np.ones((2, 2), np.int32), {}, force=False)
assert _io.read_labels("seg.npz").array.sum() == 4
for name in ("seg.h5:/a", "seg.tif", "seg.zarr"):
    try:
        _io.write_labels(name, np.ones((2, 2), np.int32), {}, force=False)
    except ImportError as error:
        assert "pip install " in str(error), error
    else:
        raise AssertionError("no ImportError")
"""


def test_old_zarr_is_refused(monkeypatch, tmp_path, seg):
    monkeypatch.delattr(zarr, "create_array")
    with pytest.raises(ImportError, match=r"needs zarr 3 and Python 3\.11, got zarr"):
        write(tmp_path / "seg.zarr", seg)


def test_without_libraries(tmp_path):
    result = subprocess.run(
        [sys.executable, "-c", WITHOUT_LIBRARIES], capture_output=True, text=True, check=False, cwd=tmp_path
    )
    assert result.returncode == 0, result.stderr
    assert files_in(tmp_path) == ["seg.npz"]


def test_what_is_no_array(tmp_path):
    """NumPy returns members of a .npz file that are no arrays as bytes, and an archive by another name as such."""
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as file:
        file.writestr("seg", b"no array")
    (tmp_path / "b.npy").write_bytes((tmp_path / "a.npz").read_bytes())
    for name in "a.npz", "b.npy":
        for read in _io.read_labels, _io.read_affinities:
            with pytest.raises(ValueError, match=f"{name} holds no array"):
                read(str(tmp_path / name))
