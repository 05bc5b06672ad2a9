"""Public sets in the layouts of their owners: tiny ones are written, and read back."""

from __future__ import annotations

import h5py
import numpy as np
import pytest
import tifffile
from skimage.io import imsave

from test_examples import load_example, same_partition

public_data, data = load_example("public_data"), load_example("data")


@pytest.fixture
def volume(rng):
    """Grey values and labels of a small volume."""
    image = rng.integers(0, 256, (5, 12, 16)).astype(np.uint8)
    return image, np.kron(rng.integers(0, 4, (5, 3, 4)), np.ones((1, 4, 4), np.int64))


def save(file, image):
    file.parent.mkdir(parents=True, exist_ok=True)
    imsave(file, image, check_contrast=False)


@pytest.mark.parametrize("padded", [False, True])
def test_cremi(tmp_path, volume, padded):
    image, labels = volume
    size, border = (40.0, 4.0, 4.0), (2, 3, 1) if padded else (0, 0, 0)
    ids = labels.astype(np.uint64)
    ids[0, 0, 0] = 2**64 - 1  # not annotated
    with h5py.File(tmp_path / "sample_A.hdf", "w") as file:
        raw = file.create_dataset("volumes/raw", data=np.pad(image, [(n, n) for n in border]))
        raw.attrs["resolution"] = size
        neurons = file.create_dataset("volumes/labels/neuron_ids", data=ids)
        neurons.attrs["resolution"] = size
        if padded:
            neurons.attrs["offset"] = np.multiply(border, size)
        file.create_dataset("volumes/labels/clefts", data=ids)
    loaded = public_data.load_cremi(tmp_path / "sample_A.hdf")
    np.testing.assert_array_equal(loaded.image, image)
    labels[0, 0, 0] = 0
    np.testing.assert_array_equal(loaded.labels, labels)
    assert loaded.voxel_size == size


@pytest.mark.parametrize("folders", [("", ""), ("image", "seg")])
def test_snemi3d(tmp_path, volume, folders):
    image, labels = volume
    for folder, name, array in zip(folders, ("train-input.tif", "train-labels.tif"), volume, strict=True):
        (tmp_path / folder).mkdir(exist_ok=True)
        tifffile.imwrite(tmp_path / folder / name, array.astype(np.uint8 if array is image else np.uint16))
    loaded = public_data.load_snemi3d(tmp_path)
    np.testing.assert_array_equal(loaded.image, image)
    np.testing.assert_array_equal(loaded.labels, labels)
    assert loaded.voxel_size == (30.0, 6.0, 6.0)


@pytest.mark.parametrize("transforms", [False, True])
def test_fib25_of_neuroproof(tmp_path, volume, transforms):
    image, labels = volume
    for z, section in enumerate(image):
        save(tmp_path / "grayscale_maps" / f"iso.{2600 + z}.png", section)
    with h5py.File(tmp_path / "groundtruth.h5", "w") as file:
        if transforms:  # supervoxels 11, 12, ... and the bodies they belong to
            file["stack"] = np.where(labels > 0, labels + 10, 0).astype(np.uint32)
            file["transforms"] = np.array([[0, 0], [11, 1], [12, 2], [13, 1]], np.uint64)
            labels = np.where(labels == 3, 1, labels)
        else:
            file["stack"] = labels.astype(np.uint32)
    loaded = public_data.load_fib25(tmp_path)
    np.testing.assert_array_equal(loaded.image, image)
    np.testing.assert_array_equal(loaded.labels, labels)
    assert loaded.voxel_size == (10.0, 10.0, 10.0)


def test_fib25_of_the_test_volumes(tmp_path, volume):
    for name, array in zip(("img_normalized.h5", "groundtruth_seg.h5"), volume, strict=True):
        with h5py.File(tmp_path / name, "w") as file:
            file["main"] = array
    loaded = public_data.load_fib25(tmp_path)
    np.testing.assert_array_equal(loaded.image, volume[0])
    np.testing.assert_array_equal(loaded.labels, volume[1])


def test_isbi2012(tmp_path, volume):
    image, labels = volume
    tifffile.imwrite(tmp_path / "train-volume.tif", image)
    tifffile.imwrite(tmp_path / "train-labels.tif", np.where(labels > 0, 255, 0).astype(np.uint8))
    sections = public_data.load_isbi2012(tmp_path)
    assert len(sections) == 5
    for (section, mask), grey, truth in zip(sections, image, labels, strict=True):
        np.testing.assert_array_equal(section, grey)
        np.testing.assert_array_equal(mask, truth > 0)
    loaded = data.load(f"isbi2012:{tmp_path}", validation=1, test=1)
    assert loaded.name == "isbi2012"
    assert (len(loaded.train), len(loaded.test)) == (3, 1)
    assert same_partition(loaded.test.labels[0], data.connected(labels[4] > 0))


def test_dsb2018(tmp_path, volume):
    image, labels = volume
    for grey, truth, name in zip(image, labels, "abcde", strict=True):
        colours = np.dstack([grey, grey, grey, np.full_like(grey, 255)])
        save(tmp_path / name / "images" / f"{name}.png", colours)
        for number in np.unique(truth)[1:]:
            save(tmp_path / name / "masks" / f"{number}.png", np.where(truth == number, 255, 0).astype(np.uint8))
    loaded = public_data.load_dsb2018(tmp_path)
    assert len(loaded) == 5
    for (grey, found), expected, truth in zip(loaded, image, labels, strict=True):
        np.testing.assert_array_equal(grey, expected)
        assert same_partition(found, truth)


def test_drosophila_vnc(tmp_path, volume, rng):
    image, _ = volume
    kinds = rng.choice([0, 32, 64, 96, 128, 159, 191, 223, 255], image.shape).astype(np.uint8)
    for z, (section, labels) in enumerate(zip(image, kinds, strict=True)):
        (tmp_path / "raw").mkdir(exist_ok=True)
        tifffile.imwrite(tmp_path / "raw" / f"{z:02}.tif", section)
        save(tmp_path / "labels" / f"labels{z:08}.png", labels)
    for load, inside in (
        (public_data.load_vnc_neurites, (kinds == 159) | (kinds == 191) | (kinds == 255)),
        (public_data.load_vnc_mitochondria, kinds == 191),
    ):
        loaded = load(tmp_path)
        np.testing.assert_array_equal(np.stack([section for section, _ in loaded]), image)
        np.testing.assert_array_equal(np.stack([mask for _, mask in loaded]), inside)
    (tmp_path / "raw" / "04.tif").unlink()
    with pytest.raises(ValueError, match="as many images as labels, got 4 and 5"):
        public_data.load_vnc_neurites(tmp_path)


@pytest.mark.parametrize("name", [*public_data.VOLUMES, *public_data.IMAGES])
def test_missing_files_are_named(tmp_path, name):
    load = {**public_data.VOLUMES, **public_data.IMAGES}[name]
    with pytest.raises(FileNotFoundError, match=str(tmp_path)):
        load(tmp_path / "no_such_folder" if name == "dsb2018" else tmp_path / "none")
    if name not in ("cremi",):
        with pytest.raises(FileNotFoundError, match=str(tmp_path)):
            load(tmp_path)


def test_files_of_another_layout(tmp_path, volume):
    with h5py.File(tmp_path / "other.hdf", "w") as file:
        file["raw"] = volume[0]
    with pytest.raises(ValueError, match=r"must hold volumes/raw, .*got \['raw'\]"):
        public_data.load_cremi(tmp_path / "other.hdf")
    with pytest.raises(ValueError, match=r"must have one shape \(D, H, W\)"):
        public_data.Volume(volume[0], volume[1][1:])


def test_volumes_are_no_images():
    with pytest.raises(ValueError, match=r"cremi is a set of volumes, which volume_example\.py takes"):
        data.load("cremi:sample_A.hdf")
