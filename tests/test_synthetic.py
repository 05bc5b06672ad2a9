"""Generated images, labels and affinities."""

from __future__ import annotations

import doctest
import subprocess
import sys

import numpy as np
import pytest
from skimage.measure import label

import malis
from malis import synthetic

NHOOD = malis.mknhood2d(1)


def test_images_are_reproducible():
    image, labels = synthetic.synthetic_image(3, 64)
    again, labels_again = synthetic.synthetic_image(3, 64)
    np.testing.assert_array_equal(image, again)
    np.testing.assert_array_equal(labels, labels_again)
    other, _ = synthetic.synthetic_image(4, 64)
    assert not np.array_equal(image, other)


@pytest.mark.parametrize("size", [32, 64, 200])
def test_form_of_images(size):
    image, labels = synthetic.synthetic_image(0, size)
    assert image.shape == (1, size, size)
    assert image.dtype == np.float32
    assert labels.shape == (size, size)
    assert labels.dtype == np.int32
    assert image.mean() == pytest.approx(0, abs=1e-3)
    assert image.std() == pytest.approx(1, abs=1e-5)
    # Every label once, and every object connected.
    assert np.unique(labels).tolist() == list(range(labels.max() + 1))
    assert label(labels, background=0, connectivity=1).max() == labels.max()


@pytest.mark.parametrize("seed", range(3))
def test_affinities_need_a_threshold_that_is_chosen_well(seed):
    _, labels = synthetic.synthetic_image(seed, 128)
    aff = synthetic.synthetic_affinities(labels, NHOOD, seed)
    assert aff.dtype == np.float32
    assert aff.shape == (2, 128, 128)
    assert (aff > 0).all()
    assert (aff < 1).all()
    np.testing.assert_array_equal(aff, synthetic.synthetic_affinities(labels, NHOOD, seed))
    curve = malis.rand_curve(aff, labels, NHOOD)
    assert 0.75 < curve.f_score.max() < 1
    assert curve.f_score[np.searchsorted(-curve.thresholds, -0.2)] < curve.f_score.max() - 0.3


def test_affinities_without_noise_are_the_truth():
    _, labels = synthetic.synthetic_image(0, 64)
    nhood = np.concatenate([NHOOD, [[-9, 0]]])
    aff = synthetic.synthetic_affinities(labels, nhood, 0, noise=0)
    truth = malis.seg_to_affgraph(labels, nhood) > 0
    assert (aff > 0.5)[truth].mean() > 0.95
    assert (aff < 0.5)[~truth].mean() > 0.95


def test_affinities_of_volumes(rng):
    labels = np.repeat(np.repeat(rng.integers(0, 3, (2, 4, 4)), 4, axis=1), 4, axis=2)
    aff = synthetic.synthetic_affinities(labels, malis.mknhood3d(1), 5)
    assert aff.shape == (3, 2, 16, 16)
    assert np.isfinite(synthetic.synthetic_affinities([[1]], NHOOD, 0)).all()


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((-1,), ValueError, "seed"),
        ((0.5,), TypeError, "seed"),
        ((0, 31), ValueError, "size"),
        ((0, 2.5), TypeError, "size"),
    ],
)
def test_bad_options_of_images(arguments, error, message):
    with pytest.raises(error, match=message):
        synthetic.synthetic_image(*arguments)


@pytest.mark.parametrize(
    ("labels", "seed", "noise", "error", "message"),
    [
        ([[1, -1]], 0, 1.0, ValueError, "seg"),
        ([1, 1], 0, 1.0, ValueError, "seg"),
        ([[1, 1]], -1, 1.0, ValueError, "seed"),
        ([[1, 1]], 0, -1.0, ValueError, "noise"),
        ([[1, 1]], 0, "much", TypeError, "noise"),
    ],
)
def test_bad_options_of_affinities(labels, seed, noise, error, message):
    with pytest.raises(error, match=message):
        synthetic.synthetic_affinities(labels, NHOOD, seed, noise)


@pytest.mark.parametrize(("shape", "voxel_size"), [((24, 48, 40), (1, 1, 1)), ((12, 48, 40), (50.0, 10.0, 10.0))])
def test_volumes_are_packed_neurites(shape, voxel_size):
    image, labels = synthetic.synthetic_volume(3, shape, voxel_size)
    assert image.shape == (1, *shape)
    assert image.dtype == np.float32
    assert image.mean() == pytest.approx(0, abs=1e-3)
    assert image.std() == pytest.approx(1, abs=1e-5)
    assert labels.shape == shape
    assert labels.dtype == np.int32
    assert np.unique(labels).tolist() == list(range(labels.max() + 1))
    assert label(labels, background=0, connectivity=1).max() == labels.max() > 5
    assert 0.6 < (labels > 0).mean() < 0.95
    assert image[0][labels > 0].mean() > image[0][labels == 0].mean() + 0.5  # in standard deviations
    # Somewhere a membrane has faded, and two neurites touch.
    nhood = malis.mknhood3d(1)
    touching = (malis.seg_to_affgraph(labels > 0, nhood) > 0) & (malis.seg_to_affgraph(labels, nhood) == 0)
    assert touching.any()
    # One section at least is missing: nothing is seen of its membranes.
    contrast = [section.std() for section in image[0]]
    assert min(contrast) < 0.5 * np.median(contrast)


def test_volumes_are_reproducible():
    image, labels = synthetic.synthetic_volume(3, (8, 24, 24))
    again, labels_again = synthetic.synthetic_volume(3, (8, 24, 24))
    np.testing.assert_array_equal(image, again)
    np.testing.assert_array_equal(labels, labels_again)
    assert not np.array_equal(labels, synthetic.synthetic_volume(4, (8, 24, 24))[1])


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((-1,), ValueError, "seed"),
        ((0, (7, 32, 32)), ValueError, "shape"),
        ((0, (32, 32)), ValueError, "shape and voxel_size must have three axes"),
        ((0, (8.5, 32, 32)), TypeError, "shape"),
        ((0, (8, 32, 32), (1, 0, 1)), ValueError, "voxel_size must be positive"),
        ((0, (8, 32, 32), "abc"), TypeError, "voxel_size"),
    ],
)
def test_bad_options_of_volumes(arguments, error, message):
    with pytest.raises(error, match=message):
        synthetic.synthetic_volume(*arguments)


WITHOUT_SCIPY = """
import sys
sys.modules["scipy"] = sys.modules["scipy.ndimage"] = None  # "import scipy" raises ImportError
import malis
from malis.synthetic import synthetic_affinities, synthetic_image, synthetic_volume
calls = ((synthetic_image, (0,)), (synthetic_volume, (0,)), (synthetic_affinities, ([[1]], [[-1, 0]], 0)))
for function, arguments in calls:
    try:
        function(*arguments)
    except ImportError as error:
        assert "pip install scipy" in str(error), error
    else:
        raise AssertionError("no ImportError")
"""


def test_without_scipy():
    result = subprocess.run([sys.executable, "-c", WITHOUT_SCIPY], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


def test_examples_of_the_documentation():
    failed, tried = doctest.testmod(synthetic)
    assert tried >= 6
    assert failed == 0
