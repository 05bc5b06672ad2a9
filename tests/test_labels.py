"""Connected parts of labels."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage.measure import label

import malis
from oracle import components


@pytest.mark.parametrize("shape", [(300,), (1,), (37, 150), (70, 3), (9, 17, 130), (40, 41, 67)])
@pytest.mark.parametrize("threads", [1, 2, 5])
def test_nearest_neighbours_as_scikit_image(shape, threads):
    rng = np.random.default_rng(sum(shape))
    seg = rng.integers(0, 3, shape)
    seg[seg > 0] += 1000
    expected = label(seg, background=0, connectivity=1)
    found = malis.connect_labels(seg, num_threads=threads)
    assert np.array_equal(found, expected)  # both number parts by their first voxels
    assert found.dtype == seg.dtype


@pytest.mark.parametrize("threads", [1, 3])
def test_large_volume_in_slabs(threads):
    rng = np.random.default_rng(5)
    coarse = rng.integers(0, 4, (12, 9, 11))
    seg = np.kron(coarse, np.ones((4, 13, 17), int)).astype(np.uint16)
    found = malis.connect_labels(seg, num_threads=threads)
    assert np.array_equal(found, label(seg, background=0, connectivity=1))


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_any_neighbourhood(data):
    shape = tuple(data.draw(st.lists(st.integers(1, 9), min_size=1, max_size=3)))
    offsets = st.lists(st.integers(-3, 3), min_size=len(shape), max_size=len(shape))
    nhood = np.array(data.draw(st.lists(offsets, min_size=1, max_size=4)))
    rng = np.random.default_rng(data.draw(st.integers(0, 999)))
    seg = rng.integers(0, 3, shape)
    found = malis.connect_labels(seg, nhood, num_threads=data.draw(st.integers(1, 3)))
    parts = components(malis.seg_to_affgraph(seg, nhood), nhood)
    expected = np.zeros(seg.size, int)
    objects = sorted(sorted(part) for part in parts if seg.ravel()[min(part)] != 0)
    for number, part in enumerate(objects, start=1):
        expected[part] = number
    assert np.array_equal(found.ravel(), expected)


def test_batches_are_numbered_sample_by_sample():
    seg = np.array([[[5, 0, 5]], [[7, 7, 0]]])
    assert malis.connect_labels(seg, malis.mknhood2d(1)).tolist() == [[[1, 0, 2]], [[1, 1, 0]]]
    assert malis.connect_labels(seg).tolist() == [[[1, 0, 2]], [[3, 3, 0]]]  # without nhood it is one volume


@pytest.mark.parametrize("dtype", ["uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64"])
def test_dtype_is_kept(dtype):
    seg = np.array([[9, 9, 0], [0, 0, 9]], dtype)
    found = malis.connect_labels(seg)
    assert found.dtype == dtype
    assert found.tolist() == [[1, 1, 0], [0, 0, 2]]


def test_bool_and_float_labels():
    assert malis.connect_labels([True, False, True]).tolist() == [1, 0, 2]
    assert malis.connect_labels([True, False, True]).dtype == np.int32
    found = malis.connect_labels(np.array([3.0, 0.0, 3.0], np.float32))
    assert found.dtype == np.float32
    assert found.tolist() == [1, 0, 2]


def test_more_parts_than_the_dtype_has_numbers():
    seg = np.tile(np.array([1, 0], np.uint8), 255)
    assert malis.connect_labels(seg).max() == 255
    with pytest.raises(ValueError, match="seg must have a dtype that holds the numbers of its 256 connected parts"):
        malis.connect_labels(np.tile(np.array([1, 0], np.uint8), 256))


@pytest.mark.parametrize(
    ("seg", "nhood", "error", "message"),
    [
        ([-1, 2], None, ValueError, "seg must hold labels of at least 0, got -1"),
        ([0.5, 2], None, ValueError, "seg must hold integer labels"),
        (["a"], None, TypeError, "seg must hold integer labels"),
        ([], None, ValueError, "seg must not be empty"),
        (np.ones((2, 2, 2, 2), int), None, ValueError, "nhood must be given for a batch"),
        (np.ones((2, 2), int), [[-1, 0, 0]], ValueError, "seg must have 3 axes"),
        ([1, 2], [[0.5]], TypeError, "nhood must hold integer offsets"),
    ],
)
def test_bad_input(seg, nhood, error, message):
    with pytest.raises(error, match=message):
        malis.connect_labels(seg, nhood)


def test_input_is_left_alone():
    seg = np.array([4, 0, 4])
    malis.connect_labels(seg)
    assert seg.tolist() == [4, 0, 4]
