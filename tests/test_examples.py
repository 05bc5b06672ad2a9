"""The examples: data, targets, scores, and whole runs that are as small as they can be."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path

import h5py
import matplotlib.image
import numpy as np
import pytest
from skimage.io import imsave
from skimage.measure import label

import malis

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
SIZE = 64
TINY = ["--steps", "6", "--batch", "2", "--crop", "32", "--channels", "4", "--threads", "1"]


def load_example(name):
    sys.path.insert(0, str(EXAMPLES))
    try:
        return importlib.import_module(name)
    finally:
        sys.path.remove(str(EXAMPLES))


common = load_example("example_common")


@pytest.fixture(scope="module")
def drawn():
    """Six small synthetic images as 8-bit grey values, and their labels."""
    images, labels = zip(*(common.synthetic_image(seed, SIZE) for seed in range(6)), strict=True)
    grey = [np.clip(image[0] * 40 + 128, 0, 255).astype(np.uint8) for image in images]
    return grey, list(labels)


@pytest.fixture
def folder(tmp_path, drawn):
    """Make a folder of images and masks: 255 inside an object, 0 between objects."""
    for kind in ("image", "label"):
        (tmp_path / "cells" / kind).mkdir(parents=True)
    for i, (image, labels) in enumerate(zip(*drawn, strict=True)):
        imsave(tmp_path / "cells" / "image" / f"{i:02}.png", image, check_contrast=False)
        imsave(tmp_path / "cells" / "label" / f"{i:02}.png", np.where(labels > 0, 255, 0).astype(np.uint8))
    return tmp_path / "cells"


@pytest.fixture
def hdf5(tmp_path, drawn):
    """Make an HDF5 file of images with two channels and their instance labels."""
    grey, labels = (np.stack(arrays) for arrays in drawn)
    with h5py.File(tmp_path / "cells.h5", "w") as file:
        file["train"] = np.stack([grey, 255 - grey], axis=-1)
        file["groundtruth"] = labels
    return tmp_path / "cells.h5"


def same_partition(a, b):
    """Whether two label arrays are equal up to a renaming of labels that keeps 0."""
    pairs = {(x, y) for x, y in zip(a.ravel().tolist(), b.ravel().tolist(), strict=True)}
    return all(bool(x) == bool(y) for x, y in pairs) and len(pairs) == len({x for x, _ in pairs}) == len(
        {y for _, y in pairs}
    )


# ------------------------------------------------------------------------------------------------ synthetic organelles


def test_synthetic_images_are_packed_dark_objects():
    image, labels = common.synthetic_image(0)
    assert image.shape == (1, 256, 256)
    assert image.dtype == np.float32
    assert labels.shape == (256, 256)
    sizes = np.bincount(labels.ravel())[1:]
    assert (sizes >= common.MIN_SIZE).sum() > 50
    assert 0.6 < (labels > 0).mean() < 0.9
    assert image[0][labels > 0].mean() < image[0][labels == 0].mean() - 1  # in standard deviations


def test_a_mask_of_synthetic_objects_separates_them():
    # Cross entropy on the mask is a fair rival: the components of the true mask are the objects.
    for seed in range(3):
        _, labels = common.synthetic_image(seed)
        assert same_partition(label(labels > 0, connectivity=1), labels)


# -------------------------------------------------------------------------------------------------------------- loading


def test_connected_labels():
    labels = np.array([[1, 1, 0, 1], [0, 0, 2, 1], [3, 2, 0, 0]])
    assert same_partition(common.connected(labels), np.array([[1, 1, 0, 2], [0, 0, 3, 2], [4, 5, 0, 0]]))
    with pytest.raises(ValueError, match=r"labels must have shape \(H, W\)"):
        common.connected(labels[0])


def test_normalized():
    image = np.random.default_rng(0).uniform(3, 9, (8, 7, 3))
    result = common.normalized(image)
    assert result.shape == (3, 8, 7)
    assert result.dtype == np.float32
    np.testing.assert_allclose(result.mean((1, 2)), 0, atol=1e-6)
    np.testing.assert_allclose(result.std((1, 2)), 1, atol=1e-5)
    assert np.isfinite(common.normalized(np.full((4, 4), 7))).all()


def test_folder_of_masks(folder, drawn):
    data = common.load(str(folder), validation=1, test=2)
    assert (len(data.train), len(data.validation), len(data.test)) == (3, 1, 2)
    loaded = [*data.train.labels, *data.validation.labels, *data.test.labels]
    for truth, labels in zip(drawn[1], loaded, strict=True):
        assert same_partition(truth, labels)
    np.testing.assert_allclose(data.test.images[1], common.normalized(drawn[0][5]))
    assert data.name == "cells"


def test_hdf5_file(hdf5, drawn):
    data = common.load(str(hdf5))
    assert (len(data.train), len(data.validation), len(data.test)) == (4, 1, 1)
    assert data.train.images[0].shape == (2, SIZE, SIZE)
    np.testing.assert_allclose(data.train.images[0][0], -data.train.images[0][1], atol=1e-5)
    assert same_partition(data.test.labels[0], drawn[1][5])


def test_parts_are_different_images():
    data = common.load("synthetic", images=8)
    parts = [*data.train.images, *data.validation.images, *data.test.images]
    assert len({part.tobytes() for part in parts}) == 8


def test_missing_data(tmp_path):
    with pytest.raises(FileNotFoundError, match="no_such_folder"):
        common.load(str(tmp_path / "no_such_folder"))
    with pytest.raises(FileNotFoundError, match="found none"):
        common.load(str(tmp_path))


def test_image_without_a_label(folder):
    (folder / "label" / "03.png").unlink()
    with pytest.raises(FileNotFoundError, match=r"03\.png"):
        common.load(str(folder))


def test_label_of_another_shape(folder):
    imsave(folder / "label" / "03.png", np.zeros((SIZE, SIZE + 1), np.uint8), check_contrast=False)
    with pytest.raises(ValueError, match=r"03\.png must have the shape"):
        common.load(str(folder))


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ({"train": (4, 8, 8, 1)}, r"'groundtruth', got \['train'\]"),
        ({"train": (4, 8, 8, 1), "groundtruth": (4, 8, 9)}, r"\(4, 8, 8, 1\) and \(4, 8, 9\)"),
        ({"train": (4, 8, 8), "groundtruth": (4, 8, 8)}, r"must hold train \(n, H, W, C\)"),
    ],
)
def test_bad_hdf5_files(tmp_path, names, message):
    with h5py.File(tmp_path / "bad.h5", "w") as file:
        for name, shape in names.items():
            file[name] = np.zeros(shape, np.uint8)
    with pytest.raises(ValueError, match=message):
        common.load(str(tmp_path / "bad.h5"))


def test_too_few_images(folder):
    with pytest.raises(ValueError, match="6 images, of which 3 for validation and 3 for tests"):
        common.load(str(folder), validation=3, test=3)


def test_isbi_images(shared_data):
    split = common.load_folder(shared_data / "isbi2012")
    assert len(split) == 24
    assert {image.shape for image in split.images} == {(1, 512, 512)}
    assert [int(labels.max()) for labels in split.labels[:3]] == [136, 130, 137]


# -------------------------------------------------------------------------------------------------------------- batches


def test_batches_keep_image_and_labels_together(drawn):
    # The mask itself as image: after mirroring, transposing and scaling it must still fit the labels.
    masks = [(labels > 0).astype(np.float32)[np.newaxis] for labels in drawn[1]]
    batches = iter(common.Batches(common.Split(masks, drawn[1]), batch=5, crop=40, seed=1))
    seen = set()
    for _ in range(5):
        images, labels = next(batches)
        assert images.shape == (5, 1, 40, 40)
        assert labels.shape == (5, 40, 40)
        assert images.dtype == np.float32
        for image, truth in zip(images, labels, strict=True):
            inside, outside = np.unique(image[0][truth > 0]), np.unique(image[0][truth == 0])
            assert len(inside) == len(outside) == 1
            assert inside[0] > outside[0]
            assert same_partition(truth, label(truth, connectivity=1))  # a crop may cut an object in two
            seen.add(truth.tobytes())
    assert len(seen) == 25


def test_batches_are_reproducible(drawn):
    split = common.Split([common.normalized(image) for image in drawn[0]], drawn[1])
    first, again, other = (next(iter(common.Batches(split, 2, 32, seed))) for seed in (5, 5, 6))
    np.testing.assert_array_equal(first[0], again[0])
    np.testing.assert_array_equal(first[1], again[1])
    assert not np.array_equal(first[0], other[0])


def test_size_of_crops(drawn):
    split = common.Split([common.normalized(image) for image in drawn[0]], drawn[1])
    with pytest.raises(ValueError, match="crop must be at most the size of the images, 64, got 65"):
        common.Batches(split, 2, 65, 0)
    with pytest.raises(ValueError, match="crop must be at least 32, got 31"):
        common.Batches(split, 2, 31, 0)


# ---------------------------------------------------------------------------------------------------- tasks and scores


@pytest.mark.parametrize("loss", common.LOSSES)
def test_perfect_predictions_are_perfect_segmentations(loss, drawn):
    task = common.task_of(loss)
    labels = np.stack(drawn[1])
    targets = task.target(labels)
    assert targets.shape == (6, task.channels, SIZE, SIZE)
    assert targets.dtype == np.float32
    assert not targets[:, task.known((SIZE, SIZE)) == 0].any()
    for target, truth in zip(targets, labels, strict=True):
        large = np.where(np.bincount(truth.ravel())[truth] >= common.MIN_SIZE, truth, 0)
        assert same_partition(task.segment(target, 0.5), large)


def test_affinity_targets_have_no_edge_over_the_border():
    known = common.task_of("malis").known((3, 4))
    assert known.sum() == 2 * 4 + 3 * 3
    np.testing.assert_array_equal(common.task_of("cross-entropy").known((3, 4)), np.ones((1, 3, 4)))


def test_unknown_loss():
    with pytest.raises(ValueError, match="malis, affinity-bce, cross-entropy, got 'dice'"):
        common.task_of("dice")


def test_threshold_is_chosen_by_the_object_score():
    # Two objects with affinities of 0.9, joined by an edge of 0.6; a weak edge of 0.7 inside each of them.
    truth = np.repeat([[1, 2]], 20, axis=0).repeat(20, axis=1).astype(np.int32)
    aff = malis.seg_to_affgraph(truth, common.NHOOD).astype(np.float32) * 0.9
    aff[1, :, 20] = 0.6
    aff[0, 10] = 0.7
    threshold, score = common.choose_threshold(common.task_of("malis"), [aff], [truth])
    assert 0.6 < threshold <= 0.7
    assert score == 1


# ---------------------------------------------------------------------------------------------------------- whole runs


@pytest.fixture
def run_example(tmp_path, monkeypatch):
    """Run an example in a folder of its own; returns its result."""
    monkeypatch.chdir(tmp_path)
    threads = malis.get_num_threads()
    torch = pytest.importorskip("torch")
    torch_threads = torch.get_num_threads()
    yield lambda *args: load_example("pytorch_example").main([*TINY, *args])
    malis.set_num_threads(threads)
    torch.set_num_threads(torch_threads)


@pytest.mark.parametrize("loss", common.LOSSES)
@pytest.mark.parametrize("kind", ["synthetic", "folder", "hdf5"])
def test_whole_run(kind, loss, run_example, folder, hdf5, tmp_path, capsys):
    source = {"synthetic": "synthetic", "folder": str(folder), "hdf5": str(hdf5)}[kind]
    figure = tmp_path / "new" / "figure.png"
    extra = ["--images", "4"] if kind == "synthetic" else ["--test", "2"]
    result = run_example("--loss", loss, "--data", source, "--output", str(figure), *extra)

    n_test = 1 if kind == "synthetic" else 2
    assert len(result["scores"]) == n_test
    assert np.isfinite(result["scores"]).all()
    np.testing.assert_allclose(result["mean"], np.mean(result["scores"], axis=0))
    assert result["threshold"] in common.THRESHOLDS

    picture = matplotlib.image.imread(figure)
    assert picture.ndim == 3
    assert picture[..., :3].std() > 0.05  # something is drawn

    printed, progress = capsys.readouterr()
    rows = [line.split() for line in printed.splitlines()]
    assert ["image", "object", "score", "object", "recall", "Rand", "F-score", "Rand", "split", "Rand", "merge"] in rows
    assert ["mean", *(f"{score:.3f}" for score in result["mean"])] in rows
    assert ["0", *(f"{score:.3f}" for score in result["scores"][0])] in rows
    assert "loss=" in progress
    assert ("MALIS" in progress) == (loss == "malis")


def test_runs_are_reproducible(run_example, folder):
    first, again, other = (
        run_example("--data", str(folder), "--steps", "20", "--seed", seed) for seed in ("1", "1", "2")
    )
    assert first["scores"] == again["scores"]
    assert first["scores"] != other["scores"]


def test_training_learns(run_example):
    # Even a tiny network finds some objects after a few seconds, an untrained one finds none.
    options = ["--images", "6", "--crop", "64", "--channels", "8", "--lr", "1e-2"]
    trained = run_example("--loss", "malis", "--steps", "80", *options)["mean"]
    untrained = run_example("--loss", "malis", "--steps", "1", *options)["mean"]
    assert trained.object_recall > untrained.object_recall + 0.1


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--data", "no_such_folder"], "no_such_folder"),
        (["--images", "2"], "must hold images for training, validation and tests"),
        (["--images", "3", "--crop", "300"], "crop must be at most the size of the images, 256, got 300"),
        (["--loss", "dice"], "invalid choice"),
        (["--warmup", "1.5"], "must be within 0 and 1"),
        (["--steps", "0"], "must be at least 1"),
    ],
)
def test_bad_options_exit_with_one_line(args, message, run_example, capsys):
    with pytest.raises(SystemExit) as stopped:
        run_example(*args)
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err.splitlines()[-1]


def test_command_line_help():
    command = [sys.executable, str(EXAMPLES / "pytorch_example.py"), "--help"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    for option in ("--loss", "--data", "--steps", "--warmup", "--output"):
        assert option in result.stdout
