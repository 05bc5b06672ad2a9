"""The tissues of the experiment: tiny archives are written, and read back."""

from __future__ import annotations

import numpy as np
import pytest
from skimage.io import imsave

from test_examples import load_example

tissue_data, data = load_example("tissue_data"), load_example("data")


@pytest.fixture
def stack(rng):
    """Grey values and labels of five images; every object is a square of 4 x 4."""
    image = rng.integers(0, 256, (5, 16, 24)).astype(np.uint8)
    return image, np.kron(rng.integers(0, 4, (5, 4, 6)), np.ones((1, 4, 4), np.int64)).astype(np.uint16)


@pytest.mark.parametrize("name", ["nuclei", "fib25-sections"])
def test_stacks(tmp_path, stack, name):
    np.savez(tmp_path / "stack.npz", image=stack[0], label=stack[1])
    pairs, groups = tissue_data.load_tissue(name, tmp_path / "stack.npz", 3)
    assert groups == [0, 1, 3]  # evenly spread
    for (image, labels), at in zip(pairs, groups, strict=True):
        np.testing.assert_array_equal(image, stack[0][at])
        np.testing.assert_array_equal(labels, stack[1][at])
    loaded_name, split = data.load_all(f"{name}:{tmp_path / 'stack.npz'}", 3)
    assert (loaded_name, len(split), split.groups) == (name, 3, groups)
    np.testing.assert_array_equal(split.labels[2], data.connected(stack[1][3]))
    np.savez(tmp_path / "other.npz", image=stack[0])
    with pytest.raises(ValueError, match=r"must hold image and label, got \['image'\]"):
        tissue_data.load_tissue(name, tmp_path / "other.npz", 3)


def test_slices(tmp_path, stack):
    for kind, arrays in (("image", stack[0]), ("label", (stack[1] > 0).astype(np.uint8) * 255)):
        (tmp_path / kind).mkdir()
        for number, array in enumerate(arrays):
            imsave(tmp_path / kind / f"{number:02}.png", array, check_contrast=False)
    pairs, groups = tissue_data.load_tissue("isbi2012-slices", tmp_path, 9)
    assert groups == list(range(5))
    np.testing.assert_array_equal(np.stack([image for image, _ in pairs]), stack[0])
    with pytest.raises(FileNotFoundError, match="found none"):
        tissue_data.load_tissue("isbi2012-slices", tmp_path / "image", 9)


@pytest.mark.parametrize("kind", ["neurites", "mitochondria"])
def test_sections_in_half_of_their_resolution(tmp_path, kind):
    image = np.arange(2 * 6 * 8).reshape(2, 6, 8).astype(np.uint8)
    labels = np.ones((2, 6, 8), np.uint16)
    labels[:, :, 5:] = 2
    labels[:, 2, :3] = 0  # a border of one pixel stays one
    np.savez(tmp_path / "sections.npz", image=image, **{kind: labels})
    pairs, groups = tissue_data.load_tissue(f"vnc2-{kind}", tmp_path / "sections.npz", 9)
    assert groups == [0, 1]
    np.testing.assert_array_equal(pairs[0][0], image[0].reshape(3, 2, 4, 2).mean((1, 3)))
    np.testing.assert_array_equal(pairs[1][1], [[1, 1, 0, 2], [0, 0, 0, 2], [1, 1, 0, 2]])


def test_images_of_different_sizes(tmp_path, stack):
    arrays = {f"image{i:02}": image[: 8 + i] for i, image in enumerate(stack[0])}
    arrays |= {f"label{i:02}": labels[: 8 + i] for i, labels in enumerate(stack[1])}
    np.savez(tmp_path / "cornea.npz", **arrays)
    pairs, groups = tissue_data.load_tissue("cornea", tmp_path / "cornea.npz", 9)
    assert [labels.shape for _, labels in pairs] == [(8 + i, 24) for i in range(5)]
    assert groups == list(range(5))
    np.savez(tmp_path / "none.npz", label00=stack[1][0])
    with pytest.raises(ValueError, match="found no image"):
        tissue_data.load_tissue("cornea", tmp_path / "none.npz", 9)


def test_axons_are_scaled_alike_and_grouped_by_animal(tmp_path, stack):
    for name in ("sub-rat1_a", "sub-rat3_a", "sub-rat3_b", "sub-rat4_a"):
        np.savez(tmp_path / f"{name}.npz", image=stack[0][0], label=stack[1][0])
    pairs, groups = tissue_data.load_tissue("axons", tmp_path, 9)
    assert groups == [0, 1, 1, 2]
    assert [image.shape for image, _ in pairs] == [(16, 24), *[(9, 13)] * 3]  # 0.18 and 0.1 micrometers per pixel
    for image, labels in pairs:
        assert image.shape == labels.shape
        assert set(np.unique(labels)) <= set(np.unique(stack[1][0]))
    np.savez(tmp_path / "sub-cat1_a.npz", image=stack[0][0], label=stack[1][0])
    with pytest.raises(ValueError, match="must begin with one of sub-rat1"):
        tissue_data.load_tissue("axons", tmp_path, 9)


@pytest.mark.parametrize(
    ("name", "where", "images"),
    [
        ("isbi2012-slices", "isbi2012", 24),
        ("vnc2-mitochondria", "vnc/sections00-13.npz", 14),
        ("cornea", "cornea/images20.npz", 20),
        ("axons", "axons", 6),
    ],
)
def test_real_tissues(shared_data, name, where, images):
    _, split = data.load_all(f"{name}:{shared_data / where}", 24)
    assert len(split) == images
    for fold in range(4):
        parts = data.fold_of(name, split, 4, fold)
        assert min(len(parts.train), len(parts.validation), len(parts.test)) >= 1
