"""What is written opens in the programs that people look with, with its voxel size."""

from __future__ import annotations

import json

import h5py
import numpy as np
import pytest
import tifffile

from malis import _io
from malis._io import Grid

zarr = pytest.importorskip("zarr", minversion="3", reason="zarr 3 needs Python 3.11")

GRID = Grid((40.0, 4.0, 8.0), (200.0, 12.0, 0.0), "nanometer")
FORMATS = {"0.4": 2, "0.5": 3}


@pytest.fixture
def seg(rng):
    return np.kron(rng.integers(0, 9, (4, 10, 12)), np.ones((2, 32, 32), int)).astype(np.int32)


def write(place, seg, **options):
    _io.write_labels(str(place), seg, {"version": "1.2"}, force=False, **{"grid": GRID, **options})


def image_store(path, version, shape, scale=GRID.scale, translation=GRID.translation):
    """Write an OME-Zarr image as its specification says, by hand."""
    steps = [{"type": "scale", "scale": list(scale)}, {"type": "translation", "translation": list(translation)}]
    axes = [{"name": name, "type": "space", "unit": "nanometer"} for name in "zyx"]
    images = [{"axes": axes, "datasets": [{"path": "0", "coordinateTransformations": steps}], "name": "image"}]
    root = zarr.open_group(str(path), mode="w", zarr_format=FORMATS[version])
    image = np.add.outer(np.add.outer(np.arange(shape[0]), np.arange(shape[1])), np.arange(shape[2])).astype(np.uint8)
    root.create_array(
        "0", data=image, chunk_key_encoding={"name": "default", "separator": "/"} if version == "0.5" else None
    )
    if version == "0.4":
        root.attrs["multiscales"] = [{**images[0], "version": "0.4"}]
    else:
        root.attrs["ome"] = {"version": "0.5", "multiscales": images}


# ------------------------------------------------------------------------------------------------------------ OME-Zarr


@pytest.mark.parametrize("version", FORMATS)
def test_labels_are_an_ome_zarr_image_of_labels(version, tmp_path, seg):
    image_store(tmp_path / "a.zarr", version, seg.shape)
    write(tmp_path / "a.zarr/labels/cells", seg)
    root = zarr.open_group(str(tmp_path / "a.zarr"), mode="r")
    label = root["labels/cells"]
    attributes = dict(label.attrs) if version == "0.4" else label.attrs["ome"]
    listed = root["labels"].attrs if version == "0.4" else root["labels"].attrs["ome"]
    assert listed["labels"] == ["cells"]
    assert attributes["image-label"]["source"]["image"] == "../../"
    (image,) = attributes["multiscales"]
    assert [axis["name"] for axis in image["axes"]] == ["z", "y", "x"]
    assert {axis["unit"] for axis in image["axes"]} == {"nanometer"}
    for dataset in image["datasets"]:
        scale, translation = dataset["coordinateTransformations"]
        array = label[dataset["path"]]
        assert array.dtype == np.uint32
        factor = np.round(np.array(scale["scale"]) / GRID.scale).astype(int)
        np.testing.assert_array_equal(array[:], seg[tuple(slice(None, None, f) for f in factor)])
        assert translation["translation"] == list(GRID.translation)
    assert max(label[image["datasets"][-1]["path"]].shape) <= 256
    # Sections of 40 nm wait until pixels of 4 and 8 nm have caught up.
    assert len(image["datasets"]) == 3 and factor.tolist() == [1, 4, 2]


def test_version_on_request(tmp_path, seg):
    write(tmp_path / "a.zarr", seg, ngff="0.4")
    root = zarr.open_group(str(tmp_path / "a.zarr"), mode="r")
    assert root.metadata.zarr_format == 2
    assert root.attrs["multiscales"][0]["version"] == "0.4"
    write(tmp_path / "b.zarr", seg)
    assert zarr.open_group(str(tmp_path / "b.zarr"), mode="r").attrs["ome"]["version"] == "0.5"
    with pytest.raises(ValueError, match=r"a store of Zarr 3, which OME-Zarr 0\.4 is not written into"):
        write(tmp_path / "b.zarr/labels/x", seg, ngff="0.4")
    with pytest.raises(ValueError, match="--ngff is the version of OME-Zarr"):
        write(tmp_path / "b.tif", seg, ngff="0.4")


@pytest.mark.parametrize("name", ["a.zarr", "a.h5:/x", "a.tif", "a.ome.tif"])
def test_voxel_sizes_are_read_again(name, tmp_path, seg):
    if name == "a.tif":
        seg = seg % 100
    write(tmp_path / name, seg)
    volume = _io.read_labels(f"{tmp_path}/{name}")
    np.testing.assert_array_equal(volume.array, seg)
    assert volume.grid.scale == pytest.approx(GRID.scale, rel=1e-6)
    assert volume.grid.unit == GRID.unit
    if "tif" not in name:
        assert volume.grid.translation == GRID.translation


def test_the_voxel_size_of_a_time_and_channel_image(tmp_path, rng):
    """Scale and translation of the multiscale image come after those of the data set."""
    root = zarr.open_group(str(tmp_path / "a.zarr"), mode="w")
    root.create_array("0", data=rng.random((1, 3, 4, 5, 6), np.float32))
    kinds = {"t": "time", "c": "channel"}
    axes = [
        {"name": n, "type": kinds.get(n, "space"), **({"unit": "micrometer"} if n in "zyx" else {})} for n in "tczyx"
    ]
    steps = [{"type": "scale", "scale": [1, 1, 4, 2, 2]}, {"type": "translation", "translation": [0, 0, 8, 0, 2]}]
    outer = [{"type": "scale", "scale": [9, 1, 0.5, 0.5, 0.5]}]
    datasets = [{"path": "0", "coordinateTransformations": steps}]
    root.attrs["ome"] = {
        "version": "0.5",
        "multiscales": [{"axes": axes, "datasets": datasets, "coordinateTransformations": outer}],
    }
    volume = _io.read_affinities(f"{tmp_path}/a.zarr")
    assert volume.array.shape == (3, 4, 5, 6)
    assert volume.grid == Grid((2.0, 1.0, 1.0), (4.0, 0.0, 1.0), "micrometer")


@pytest.mark.viewers
def test_ome_zarr_finds_the_labels(tmp_path, seg):
    reader = pytest.importorskip("ome_zarr.reader", reason="ome-zarr is not installed")
    from ome_zarr.io import parse_url

    for version in FORMATS:
        path = tmp_path / f"{version}.zarr"
        image_store(path, version, seg.shape)
        write(path / "labels/cells", seg)
        nodes = list(reader.Reader(parse_url(str(path)))())
        (label,) = [node for node in nodes if any(isinstance(spec, reader.Label) for spec in node.specs)]
        np.testing.assert_array_equal(np.asarray(label.data[0]), seg)
        (scale, translation) = label.metadata["coordinateTransformations"][0]
        assert scale["scale"] == list(GRID.scale)
        assert translation["translation"] == list(GRID.translation)


@pytest.mark.viewers
def test_the_metadata_keep_to_the_schema(tmp_path, seg):
    pytest.importorskip("ome_zarr_models", reason="ome-zarr-models is not installed")
    from ome_zarr_models.v04 import ImageLabel as Label04
    from ome_zarr_models.v05 import ImageLabel as Label05

    for version, model in (("0.4", Label04), ("0.5", Label05)):
        write(tmp_path / f"{version}.zarr", seg, ngff=version)
        model.from_zarr(zarr.open_group(str(tmp_path / f"{version}.zarr"), mode="r"))


@pytest.mark.viewers
def test_the_reader_of_napari_finds_image_and_labels(tmp_path, seg):
    plugin = pytest.importorskip("napari_ome_zarr", reason="napari-ome-zarr is not installed")
    for version in FORMATS:
        path = tmp_path / f"{version}.zarr"
        image_store(path, version, seg.shape)
        write(path / "labels/cells", seg)
        layers = plugin.napari_get_reader(str(path))(str(path))
        found = {kind: options for _, options, kind in layers}
        assert set(found) == {"image", "labels"}
        for options in found.values():
            assert tuple(options["scale"]) == GRID.scale
        # Version 0.10 of the plugin loses the translation of both.
        where = [np.asarray(getattr(options.get("affine"), "affine_matrix", 0)) for options in found.values()]
        np.testing.assert_array_equal(*where)


# --------------------------------------------------------------------------------------------------------- TIFF, HDF5


def test_imagej_opens_labels(tmp_path, seg):
    write(tmp_path / "a.tif", seg)
    with tifffile.TiffFile(tmp_path / "a.tif") as file:
        assert file.is_imagej and file.series[0].axes == "ZYX" and file.series[0].dtype == np.uint16
        assert (file.imagej_metadata["unit"], file.imagej_metadata["spacing"]) == ("nm", 40.0)
        assert [tag.value[0] / tag.value[1] for tag in map(file.pages[0].tags.get, ("XResolution", "YResolution"))] == [
            pytest.approx(1 / 8),
            pytest.approx(1 / 4),
        ]
        assert json.loads(file.imagej_metadata["Info"])["malis"] == {"version": "1.2"}


@pytest.mark.parametrize("name", ["a.ome.tif", "a.tif"])
def test_ome_tiff(name, tmp_path, seg):
    many = seg if name == "a.ome.tif" else seg + 70_000  # more than the 16 bits of ImageJ hold
    write(tmp_path / name, many)
    with tifffile.TiffFile(tmp_path / name) as file:
        assert file.is_ome and file.series[0].axes == "ZYX"
        pixels = tifffile.xml2dict(file.ome_metadata)["OME"]["Image"]["Pixels"]
        assert [pixels[f"PhysicalSize{axis}"] for axis in "ZYX"] == [40.0, 4.0, 8.0]
        assert {pixels[f"PhysicalSize{axis}Unit"] for axis in "ZYX"} == {"nm"}
        np.testing.assert_array_equal(file.asarray(), many)


def test_labels_that_tiff_does_not_hold(tmp_path):
    with pytest.raises(ValueError, match=r"a\.tif cannot hold labels of 2\*\*32 and more"):
        write(tmp_path / "a.tif", np.full((2, 2, 2), 2**40))


def test_hdf5_as_cremi_has_it(tmp_path, seg):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["volumes/affs"] = np.zeros((3, 2, 4, 4), np.float32)
        file["volumes/affs"].attrs["resolution"] = (40.0, 4.0, 4.0)
        file["volumes/affs"].attrs["offset"] = (80, 0, 400)
    grid = _io.read_affinities(f"{tmp_path}/a.h5").grid
    assert grid == Grid((40.0, 4.0, 4.0), (80.0, 0.0, 400.0), "nanometer")
    write(f"{tmp_path}/a.h5:/volumes/labels", seg, grid=Grid((0.04, 0.004, 0.004), (1.0, 0.0, 0.0), "micrometer"))
    with h5py.File(tmp_path / "a.h5") as file:
        labels = file["volumes/labels"]
        assert labels.attrs["resolution"].tolist() == [40.0, 4.0, 4.0]
        assert labels.attrs["offset"].tolist() == [1000.0, 0.0, 0.0]
        assert [dimension.label for dimension in labels.dims] == ["z", "y", "x"]
        assert labels.dtype == np.uint32


@pytest.mark.viewers
@pytest.mark.parametrize("name", ["a.zarr", "a.h5:/x", "a.tif", "a.npy"])
def test_neuroglancer_sees_a_segmentation(name, tmp_path, seg):
    neuroglancer = pytest.importorskip("neuroglancer", reason="neuroglancer is not installed")
    write(tmp_path / name, seg)
    space = neuroglancer.CoordinateSpace(names=["z", "y", "x"], units="nm", scales=GRID.scale)
    opened = {
        "a.zarr": lambda: zarr.open_group(str(tmp_path / "a.zarr"), mode="r")["s0"],
        "a.h5:/x": lambda: h5py.File(tmp_path / "a.h5")["x"],
        "a.tif": lambda: tifffile.imread(tmp_path / "a.tif"),
        "a.npy": lambda: np.load(tmp_path / "a.npy"),
    }
    volume = neuroglancer.LocalVolume(opened[name](), space)
    assert volume.volume_type == "segmentation"


def test_without_a_voxel_size_none_is_made_up(tmp_path, seg):
    for name in ("a.h5:/x", "a.tif", "a.ome.tif"):
        write(tmp_path / name, seg, grid=None)
        assert _io.read_labels(f"{tmp_path}/{name}").grid == Grid()
