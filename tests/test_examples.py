"""The examples: data, targets, scores, and whole runs that are as small as they can be."""

from __future__ import annotations

import importlib
import itertools
import json
import os
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
from frameworks import FRAMEWORKS, QUIET, require

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
SIZE = 64
TINY = ["--steps", "6", "--batch", "2", "--crop", "32", "--channels", "4", "--threads", "1"]


def load_example(name):
    sys.path.insert(0, str(EXAMPLES))
    try:
        return importlib.import_module(name)
    finally:
        sys.path.remove(str(EXAMPLES))


data, tasks, scoring, training = (load_example(name) for name in ("data", "tasks", "scores", "training"))


@pytest.fixture(scope="module")
def drawn():
    """Six small synthetic images as 8-bit grey values, and their labels."""
    images, labels = zip(*(data.synthetic_image(seed, SIZE) for seed in range(6)), strict=True)
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
    image, labels = data.synthetic_image(0)
    assert image.shape == (1, 256, 256)
    assert image.dtype == np.float32
    assert labels.shape == (256, 256)
    sizes = np.bincount(labels.ravel())[1:]
    assert (sizes >= tasks.MIN_SIZE).sum() > 40
    assert 0.6 < (labels > 0).mean() < 0.9
    assert image[0][labels > 0].mean() < image[0][labels == 0].mean() - 1  # in standard deviations


def test_synthetic_objects_touch_and_their_affinities_separate_them():
    for seed in range(2):
        _, labels = data.synthetic_image(seed)
        affinities = malis.seg_to_affgraph(labels, tasks.NHOOD).astype(np.float32)
        seg, _ = malis.affgraph_to_seg(affinities, tasks.NHOOD, 0, threshold=0.5)
        assert same_partition(np.where(labels > 0, seg, 0), labels)
        # Many touch where their gap has faded, so that the mask of all of them is in few parts.
        parts = label(labels > 0, connectivity=1)
        assert parts.max() < labels.max() / 2
        touching = (malis.seg_to_affgraph(labels > 0, tasks.NHOOD) > 0) & (affinities == 0)
        assert 0.005 < touching.mean() < 0.1


# -------------------------------------------------------------------------------------------------------------- loading


def test_connected_labels():
    labels = np.array([[1, 1, 0, 1], [0, 0, 2, 1], [3, 2, 0, 0]])
    assert same_partition(data.connected(labels), np.array([[1, 1, 0, 2], [0, 0, 3, 2], [4, 5, 0, 0]]))
    with pytest.raises(ValueError, match=r"labels must have shape \(H, W\)"):
        data.connected(labels[0])


def test_normalized():
    image = np.random.default_rng(0).uniform(3, 9, (8, 7, 3))
    result = data.normalized(image)
    assert result.shape == (3, 8, 7)
    assert result.dtype == np.float32
    np.testing.assert_allclose(result.mean((1, 2)), 0, atol=1e-6)
    np.testing.assert_allclose(result.std((1, 2)), 1, atol=1e-5)
    assert np.isfinite(data.normalized(np.full((4, 4), 7))).all()


def test_folder_of_masks(folder, drawn):
    cells = data.load(str(folder), validation=1, test=2)
    assert (len(cells.train), len(cells.validation), len(cells.test)) == (3, 1, 2)
    loaded = [*cells.train.labels, *cells.validation.labels, *cells.test.labels]
    for truth, labels in zip(drawn[1], loaded, strict=True):
        assert same_partition(label(truth > 0, connectivity=1), labels)  # objects that touch are one in a mask
    np.testing.assert_allclose(cells.test.images[1], data.normalized(drawn[0][5]))
    assert cells.name == "cells"


def test_hdf5_file(hdf5, drawn):
    loaded = data.load(str(hdf5))
    assert (len(loaded.train), len(loaded.validation), len(loaded.test)) == (4, 1, 1)
    assert loaded.train.images[0].shape == (2, SIZE, SIZE)
    np.testing.assert_allclose(loaded.train.images[0][0], -loaded.train.images[0][1], atol=1e-5)
    assert same_partition(loaded.test.labels[0], drawn[1][5])


def test_parts_are_different_images():
    loaded = data.load("synthetic", images=4)
    parts = [*loaded.train.images, *loaded.validation.images, *loaded.test.images]
    assert len({part.tobytes() for part in parts}) == 4


def test_missing_data(tmp_path):
    with pytest.raises(FileNotFoundError, match="no_such_folder"):
        data.load(str(tmp_path / "no_such_folder"))
    with pytest.raises(FileNotFoundError, match="found none"):
        data.load(str(tmp_path))


def test_image_without_a_label(folder):
    (folder / "label" / "03.png").unlink()
    with pytest.raises(FileNotFoundError, match=r"03\.png"):
        data.load(str(folder))


def test_label_of_another_shape(folder):
    imsave(folder / "label" / "03.png", np.zeros((SIZE, SIZE + 1), np.uint8), check_contrast=False)
    with pytest.raises(ValueError, match=r"03\.png must have the shape"):
        data.load(str(folder))


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
        data.load(str(tmp_path / "bad.h5"))


def test_too_few_images(folder):
    with pytest.raises(ValueError, match="6 images, of which 3 for validation and 3 for tests"):
        data.load(str(folder), validation=3, test=3)


def test_isbi_images(shared_data):
    split = data.load_folder(shared_data / "isbi2012")
    assert len(split) == 24
    assert {image.shape for image in split.images} == {(1, 512, 512)}
    assert [int(labels.max()) for labels in split.labels[:3]] == [136, 130, 137]


# -------------------------------------------------------------------------------------------------------------- batches


def test_batches_keep_image_and_labels_together(drawn):
    # The mask itself as image: after mirroring, transposing and scaling it must still fit the labels.
    masks = [(labels > 0).astype(np.float32)[np.newaxis] for labels in drawn[1]]
    batches = data.Batches(data.Split(masks, drawn[1]), batch=5, crop=40, seed=1)
    seen = set()
    for images, labels in [*batches.take(3), *batches.take(2)]:
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
    split = data.Split([data.normalized(image) for image in drawn[0]], drawn[1])
    first, again, other = (next(data.Batches(split, 2, 32, seed).take(1)) for seed in (5, 5, 6))
    np.testing.assert_array_equal(first[0], again[0])
    np.testing.assert_array_equal(first[1], again[1])
    assert not np.array_equal(first[0], other[0])


def test_size_of_crops(drawn):
    split = data.Split([data.normalized(image) for image in drawn[0]], drawn[1])
    with pytest.raises(ValueError, match="crop must be at most the size of the images, 64, got 65"):
        data.Batches(split, 2, 65, 0)
    with pytest.raises(ValueError, match="crop must be at least 32, got 31"):
        data.Batches(split, 2, 31, 0)


# ---------------------------------------------------------------------------------------------------- tasks and scores


@pytest.mark.parametrize("loss", tasks.LOSSES)
def test_perfect_predictions_are_perfect_segmentations(loss, drawn):
    task = tasks.task_of(loss)
    labels = np.stack(drawn[1])
    targets = task.target(labels)
    assert targets.shape == (6, task.channels, SIZE, SIZE)
    assert targets.dtype == np.float32
    for target, truth in zip(targets, labels, strict=True):
        if loss == "cross-entropy":
            truth = label(truth > 0, connectivity=1)  # objects that touch are one in a mask
        large = np.where(np.bincount(truth.ravel())[truth] >= tasks.MIN_SIZE, truth, 0)
        assert same_partition(task.segment(target, 0.5), large)


def test_unknown_loss():
    with pytest.raises(ValueError, match="malis, affinity-bce, cross-entropy, got 'dice'"):
        tasks.task_of("dice")


def test_threshold_is_chosen_by_the_object_score():
    # Two objects with affinities of 0.9, joined by an edge of 0.6; a weak edge of 0.7 inside each of them.
    truth = np.repeat([[1, 2]], 20, axis=0).repeat(20, axis=1).astype(np.int32)
    aff = malis.seg_to_affgraph(truth, tasks.NHOOD).astype(np.float32) * 0.9
    aff[1, :, 20] = 0.6
    aff[0, 10] = 0.7
    threshold, score = scoring.choose_threshold([aff], data.Split([], [truth]))
    assert 0.6 < threshold <= 0.7
    assert score == 1


# ------------------------------------------------------------------------------------------------------------ training


def options(*args):
    return training.parser("").parse_args(args)


def test_phases_of_malis():
    warmup, malis_phase = training.phases(options("--steps", "100", "--warmup", "0.3", "--lr", "1e-2", "--mix", "0.2"))
    assert (warmup.steps, malis_phase.steps) == (30, 70)
    assert (warmup.malis, warmup.cross_entropy) == (0, 1)
    assert (malis_phase.malis, malis_phase.cross_entropy) == (1, 0.2)
    (only,) = training.phases(options("--warmup", "0"))
    assert only.malis == 1
    (only,) = training.phases(options("--loss", "cross-entropy", "--steps", "7"))
    assert (only.steps, only.malis, only.cross_entropy) == (7, 0, 1)


@pytest.mark.parametrize("steps", [10, 25, 100])
def test_learning_rates_are_one_cycle(steps):
    torch = pytest.importorskip("torch")
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], 1.0)
    cycle = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, steps, pct_start=0.2, cycle_momentum=False)
    expected = []
    for _ in range(steps):
        expected.append(cycle.get_last_lr()[0])
        optimizer.step()
        if len(expected) < steps:
            cycle.step()
    phase = training.Phase("", steps, 3e-3, 1, 0)
    np.testing.assert_allclose([phase.learning_rate(step) for step in range(steps)], expected, rtol=1e-6)


@pytest.mark.parametrize("steps", [1, 2, 3, 5, 6])
def test_learning_rates_of_few_steps(steps):
    phase = training.Phase("", steps, 1.0, 1, 0)
    rates = [phase.learning_rate(step) for step in range(steps + 1)]  # one more is asked for after the last step
    assert all(0 <= rate <= 1 for rate in rates)
    assert max(rates) > 0.5


@pytest.mark.parametrize("size", [(16, 32), (17, 31), (40, 50)])
def test_images_of_any_size_are_padded(size):
    seen = []

    def network(image):
        seen.append(image.shape)
        return np.stack([image[0], -image[0]])

    image = np.random.default_rng(0).standard_normal((1, *size)).astype(np.float32)
    predicted = tasks.probabilities(network, image)
    assert all(n % 16 == 0 for n in seen[0][1:])
    assert predicted.shape == (2, *size)
    assert predicted.dtype == np.float32
    assert predicted.flags.c_contiguous
    np.testing.assert_allclose(predicted[0], 1 / (1 + np.exp(-image[0])), rtol=1e-5)
    np.testing.assert_allclose(predicted.sum(0), 1, rtol=1e-5)


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


@pytest.mark.parametrize(
    ("kind", "loss"),
    [
        ("synthetic", "malis"),
        ("folder", "malis"),
        ("hdf5", "malis"),
        ("folder", "affinity-bce"),
        ("folder", "cross-entropy"),
    ],
)
def test_whole_run(kind, loss, run_example, folder, hdf5, tmp_path, capsys):
    source = {"synthetic": "synthetic", "folder": str(folder), "hdf5": str(hdf5)}[kind]
    figure = tmp_path / "new" / "figure.png"
    extra = ["--images", "4"] if kind == "synthetic" else ["--test", "2"]
    result = run_example("--loss", loss, "--data", source, "--output", str(figure), *extra)

    n_test = 1 if kind == "synthetic" else 2
    assert len(result["scores"]) == n_test
    assert np.isfinite(result["scores"]).all()
    np.testing.assert_allclose(result["mean"], np.mean(result["scores"], axis=0))
    assert result["threshold"] in scoring.THRESHOLDS

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


@pytest.mark.usefixtures("run_example")  # restores the numbers of threads
def test_comparison_of_both_losses(folder, tmp_path, capsys):
    compare = load_example("compare_pytorch").main
    scores = compare([*TINY, "--data", str(folder), "--test", "2", "--output", str(tmp_path / "new" / "picture.jpg")])
    assert [name.partition(",")[0] for name in scores] == ["cross entropy"] * 2 + ["MALIS"] * 2
    assert all("cut at 0.5" in name for name in list(scores)[::2])
    assert all(np.shape(rows) == (2, 5) and np.isfinite(rows).all() for rows in scores.values())
    printed = capsys.readouterr().out
    for name, rows in scores.items():
        assert "  ".join(f"{score:.3f}".rjust(12) for score in rows[1][:1]) in printed[printed.index(name) :]
    assert matplotlib.image.imread(tmp_path / "new" / "picture.jpg").std() > 5
    with pytest.raises(SystemExit):
        compare([*TINY, "--data", "no_such_folder"])
    assert "no_such_folder" in capsys.readouterr().err.splitlines()[-1]


def test_runs_are_reproducible(run_example, folder, tmp_path):
    # The figures show the predicted affinities, which scores of so short a training would not tell apart.
    pictures = []
    for number, seed in enumerate(("1", "1", "2")):
        figure = tmp_path / f"{number}.png"
        run_example("--data", str(folder), "--steps", "12", "--lr", "1e-2", "--seed", seed, "--output", str(figure))
        pictures.append(matplotlib.image.imread(figure))
    np.testing.assert_array_equal(pictures[0], pictures[1])
    assert not np.array_equal(pictures[0], pictures[2])


@pytest.mark.slow  # the benchmark of losses and the minimal example train as well
def test_training_learns(run_example):
    # Even a tiny network has begun to tell objects apart after a few seconds, an untrained one has not.
    options = ["--images", "6", "--crop", "64", "--channels", "8", "--lr", "1e-2"]
    trained = run_example("--loss", "malis", "--steps", "300", *options)["mean"]
    untrained = run_example("--loss", "malis", "--steps", "1", *options)["mean"]
    assert trained.rand_f_score > untrained.rand_f_score + 0.1


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


def run_by_itself(framework, *args, cwd):
    """Run the example of a framework, or of a backend of Keras, in a process of its own."""
    modules, environment = FRAMEWORKS[framework]
    require([*modules, "flax", "optax"] if framework == "jax" else modules)
    name = {"torch": "pytorch"}.get(framework, framework.partition("-")[0])
    command = [sys.executable, str(EXAMPLES / f"{name}_example.py"), *args]
    environment = {**os.environ, **QUIET, **environment}
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=cwd, env=environment, timeout=600)


# Compiling a U-Net for a few steps takes most of a minute.
@pytest.mark.slow
@pytest.mark.parametrize(
    ("framework", "kind", "loss"),
    [
        ("keras-torch", "folder", "malis"),
        ("keras-torch", "hdf5", "malis"),
        ("keras-torch", "folder", "affinity-bce"),
        ("keras-tensorflow", "folder", "malis"),
        ("keras-jax", "folder", "malis"),
        ("jax", "hdf5", "malis"),
        ("jax", "folder", "cross-entropy"),
    ],
)
def test_whole_run_of_other_frameworks(framework, kind, loss, folder, hdf5, tmp_path):
    figure = tmp_path / "new" / "figure.png"
    source = {"folder": folder, "hdf5": hdf5}[kind]
    args = [*TINY, "--test", "2", "--loss", loss, "--data", str(source), "--output", str(figure)]
    result = run_by_itself(framework, *args, cwd=tmp_path)
    assert result.returncode == 0, result.stderr[-3000:]

    rows = [line.split() for line in result.stdout.splitlines()]
    assert ["image", "object", "score", "object", "recall", "Rand", "F-score", "Rand", "split", "Rand", "merge"] in rows
    scores = {row[0]: np.array(row[1:], float) for row in rows if len(row) == 6 and row[0] in ("0", "1", "mean")}
    np.testing.assert_allclose(scores["mean"], (scores["0"] + scores["1"]) / 2, atol=1e-3)
    assert matplotlib.image.imread(figure)[..., :3].std() > 0.05  # something is drawn
    assert "loss=0." in result.stderr
    assert ("MALIS" in result.stderr) == (loss == "malis")

    # A network of the size of MONAI's.
    nets = pytest.importorskip("monai.networks.nets")
    features, channels = training.unet_features(4), tasks.task_of(loss).channels
    monai = nets.BasicUNet(2, 2 if kind == "hdf5" else 1, channels, features, norm="batch", upsample="nontrainable")
    assert f"U-Net with {sum(p.numel() for p in monai.parameters()):,} parameters" in result.stdout


HELP = ("--loss", "--data", "--steps", "--warmup", "--output")


def test_help(run_example, capsys):
    with pytest.raises(SystemExit) as stopped:
        run_example("--help")
    assert stopped.value.code == 0
    printed = capsys.readouterr().out
    assert all(option in printed for option in HELP)


@pytest.mark.slow
@pytest.mark.parametrize("framework", ["torch", "jax", "keras-torch"])
def test_command_line_help(framework, tmp_path):
    result = run_by_itself(framework, "--help", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert all(option in result.stdout for option in HELP)


# ------------------------------------------------------------------------------------------------ the minimal example


@pytest.fixture
def minimal():
    pytest.importorskip("torch")
    pytest.importorskip("monai")
    return load_example("minimal_pytorch").main


def test_minimal_example_runs_both_losses(minimal, capsys):
    scores = minimal(steps=2, warmup=1, size=64)
    assert np.isfinite(scores).all()
    assert "cross entropy: loss" in capsys.readouterr().out


@pytest.mark.slow
def test_minimal_example_learns(minimal):
    assert minimal().rand_f_score > minimal(steps=2).rand_f_score + 0.1


def test_minimal_example_stands_alone():
    text = (EXAMPLES / "minimal_pytorch.py").read_text()
    imported = {line.split()[1].partition(".")[0] for line in text.splitlines() if line.startswith(("import", "from"))}
    assert imported == {"numpy", "torch", "monai", "malis"}
    assert len(text.splitlines()) <= 55


# ------------------------------------------------------------------------------------------------- overlap on a GPU


def check_overlap(device):
    torch = pytest.importorskip("torch")
    from malis.malis_torch import AffinityLoss

    torch.manual_seed(0)
    network = torch.nn.Conv2d(1, 2, 3, padding=1).to(device)
    batches = [(torch.rand(2, 1, 24, 24), torch.randint(0, 4, (2, 24, 24))) for _ in range(3)]
    criterion = AffinityLoss(malis.mknhood2d(1), warmup=0)
    plain = [criterion(network(images.to(device)), labels) for images, labels in batches]
    (sum(plain) / len(batches)).backward()
    expected = [parameter.grad.clone() for parameter in network.parameters()]
    network.zero_grad()
    losses = load_example("overlap_pytorch").accumulate_gradients(network, criterion, batches)
    np.testing.assert_allclose(losses, [loss.item() for loss in plain], rtol=1e-6)
    for parameter, gradient in zip(network.parameters(), expected, strict=True):
        torch.testing.assert_close(parameter.grad, gradient, rtol=1e-5, atol=1e-7)


def test_overlap_has_the_gradient_of_plain_accumulation():
    check_overlap("cpu")


def test_overlap_on_a_gpu():
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("there is no CUDA device")
    check_overlap("cuda")


# ------------------------------------------------------------------------------------------------- benchmark of losses


@pytest.fixture
def comparison(monkeypatch, tmp_path):
    """Run the benchmark, smaller still than --quick, in a folder of its own; returns the function and the module."""
    torch = pytest.importorskip("torch")
    monkeypatch.chdir(tmp_path)
    threads, torch_threads = malis.get_num_threads(), torch.get_num_threads()
    module = load_example("benchmark_losses")
    options = [*TINY, "--quick", "--folds", "3", "--output", "out"]
    yield (lambda *args: module.main([*options, *args])), module
    malis.set_num_threads(threads)
    torch.set_num_threads(torch_threads)


@pytest.fixture
def touching(tmp_path, drawn):
    """Make an HDF5 file of small images, some of whose objects touch."""
    with h5py.File(tmp_path / "touching.h5", "w") as file:
        file["train"] = np.stack(drawn[0])[..., np.newaxis]
        file["groundtruth"] = np.stack(drawn[1])
    return tmp_path / "touching.h5"


def test_benchmark_of_losses(comparison, touching, tmp_path, capsys):
    run, module = comparison
    methods = [method.name for method in module.METHODS]
    first = run("--data", str(touching), "--seeds", "1", "--methods", *methods)
    assert [(r["data"], r["method"], r["seed"]) for r in first] == [("touching.h5", name, 0) for name in methods]
    for result in first:
        assert result["tested"] == [0]  # of the block 0, 1 only one image is taken
        assert set(result["scores"][0]) == set(result["grown"][0]) == set(module.SCORES)
        assert np.isfinite([list(image.values()) for image in result["scores"] + result["grown"]]).all()
        assert [step for step, _ in result["curve"]] == [2, 3, 4, 6]
        assert (result["seconds in MALIS"] > 0) == ("MALIS" in result["method"])
    log = tmp_path / "out" / "runs.jsonl"
    assert [json.loads(line) for line in log.read_text().splitlines()] == json.loads(json.dumps(first))
    for picture in ("segmentations-touching.h5.png", "curves.png", "gains.png"):
        assert matplotlib.image.imread(tmp_path / "out" / picture)[..., :3].std() > 0.05

    # The tables repeat what the log says.
    tables = (tmp_path / "out" / "tables.md").read_text()
    assert tables.strip() in capsys.readouterr().out
    for result in first:
        mean = np.mean([image["Rand F-score"] for image in result["scores"]])
        (row,) = [line for line in tables.splitlines() if line.startswith(f"| {result['method']} | 1 |")]
        assert float(row.split("|")[4]) == pytest.approx(mean, abs=1e-3)


def test_benchmark_makes_only_what_is_missing(comparison, touching, tmp_path, capsys):
    run, _ = comparison
    names = ["BCE on affinities", "MALIS after BCE"]
    first = run("--data", str(touching), "--seeds", "1", "--methods", *names)
    log, warmups = tmp_path / "out" / "runs.jsonl", tmp_path / "out" / "warmups"
    assert len(list(warmups.iterdir())) == 1  # both methods share it
    capsys.readouterr()

    # Also after a line that was cut off.
    with log.open("a") as file:
        file.write('{"data": "cel\n')
    second = run("--data", str(touching), "--seeds", "2", "--methods", *names)
    assert capsys.readouterr().out.count(", seed 1\n") == len(names)
    assert [r for r in second if r["seed"] == 0] == json.loads(json.dumps(first))
    assert [r["tested"] for r in second] == [[0], [0], [2], [2]]

    # After a kill in the last phase the warm-up is read, and the result is what it would have been.
    log.write_text("")
    again = run("--data", str(touching), "--seeds", "1", "--methods", *names)
    for before, after in zip(first, again, strict=True):
        for key in ("threshold", "scores", "grown", "areas", "curve", "loss"):
            assert after[key] == before[key]

    # Other settings are other runs, and --no-runs makes none.
    capsys.readouterr()
    assert run("--data", str(touching), "--seeds", "1", "--methods", *names, "--steps", "5", "--no-runs") == []
    run("--data", str(touching), "--seeds", "1", "--methods", *names, "--steps", "5")
    assert capsys.readouterr().out.count(", seed 0\n") == len(names)


def test_methods_without_touching_labels_are_not_run_twice(comparison, folder, capsys):
    run, _ = comparison
    one, two = run("--data", str(folder), "--seeds", "1", "--methods", "MALIS after BCE", "MALIS, border")
    assert capsys.readouterr().out.count(", seed 0\n") == 1
    assert one["scores"] == two["scores"] and one["settings"] != two["settings"]


def test_average_of_weights_is_between_those_of_the_second_phase(comparison, touching, tmp_path):
    run, module = comparison
    # Eight steps, the last two of which are the second phase.
    run("--data", str(touching), "--seeds", "1", "--methods", "BCE, border", "BCE, border, averaged", "--steps", "8")
    data = "touching.h5"
    start = module.torch.load(module.warmup_file(tmp_path / "out", data, "border", 0), weights_only=True)["model"]
    last, averaged = (
        module.torch.load(module.network_file(tmp_path / "out", data, name, 0), weights_only=True)["model"]
        for name in ("BCE, border", "BCE, border, averaged")
    )
    floats = [key for key in start if start[key].is_floating_point()]

    def distance(a, b):
        return sum(float((a[key] - b[key]).norm()) for key in floats)

    assert 0 < distance(averaged, start) < distance(last, start)
    assert 0 < distance(averaged, last) < distance(last, start)


def test_training_on_labels_with_moved_borders(comparison, touching, tmp_path):
    run, module = comparison
    options = ["--data", str(touching), "--seeds", "1", "--methods", "BCE, border", "MALIS, border"]
    plain = run(*options)
    moved = run(*options, "--move-borders", "2", "--baseline", "BCE, border")
    assert "gain over BCE, border" in (tmp_path / "out" / "tables.md").read_text()
    assert [r["settings"]["move_borders"] for r in plain + moved] == [0, 0, 2, 2]
    for before, after in zip(plain, moved, strict=True):
        assert before["tested"] == after["tested"] and before["loss"] != after["loss"]
    assert len(module.finished(tmp_path / "out" / "runs.jsonl")) == 4


@pytest.mark.parametrize("pixels", [1, 2])
def test_borders_move_by_pixels(pixels):
    truth = np.zeros((256, 256), np.int32)
    truth[:, 128:] = 1
    truth[:, 160:] = 2
    moved = data.with_moved_borders(truth, pixels, seed=0)
    np.testing.assert_array_equal(moved, data.with_moved_borders(truth, pixels, seed=0))
    for number, at in ((1, 128), (2, 160)):
        away = (moved >= number).argmax(axis=1) - at
        assert 0.6 * pixels < away.std() < 1.4 * pixels and abs(away.mean()) < 0.5 * pixels
        assert np.abs(np.diff(away)).max() <= 2  # the border is smooth along its course
    images = [np.zeros((1, 256, 256), np.float32)] * 4
    parts = data.fold_of("set", data.Split(images, [truth] * 4), 4, 0)
    poorer = load_example("benchmark_losses").with_poorer_training(parts, 0.5, pixels)
    assert len(poorer.train) == 1 and (poorer.train.labels[0] != truth).any()
    assert all((labels == truth).all() for labels in poorer.validation.labels + poorer.test.labels)


def test_deciding_edges_before_and_after(comparison, touching, tmp_path, capsys):
    run, _ = comparison
    edges = load_example("deciding_edges")
    options = ["--data", str(touching), "--seeds", "1", "--methods", "BCE on affinities", "MALIS after BCE"]
    run(*options)
    capsys.readouterr()
    options += [*TINY, "--folds", "3", "--images", "8", "--validation", "1", "--test", "1", "--output", "out"]
    table = edges.main(options)
    assert table in capsys.readouterr().out
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines()[2:]]
    assert [row[1] for row in rows] == ["after the warm-up", "BCE on affinities", "MALIS after BCE"]
    for row in rows:
        assert all(int(cell) >= 1 for cell in row[2:4]) and all(0 < float(cell) < 1 for cell in row[4:])
    assert len({tuple(row[4:]) for row in rows}) == 3
    assert matplotlib.image.imread(tmp_path / "out" / "deciding_edges.png")[..., :3].std() > 0.05
    with pytest.raises(SystemExit):
        edges.main([*options, "--methods", "BCE, border", "MALIS after BCE"])


def test_edges_of_most_pairs():
    edges = load_example("deciding_edges")
    counts = np.array([[[0, 50, 1], [30, 2, 17]]])
    assert edges.edges_of_most(counts) == 3  # 50 and 30 are fewer than nine tenths of 100, with 17 they are more
    assert edges.edges_of_most(np.zeros_like(counts)) == 0
    assert edges.deciding_affinity(np.where(counts == 50, 1.0, 0.0), counts) == pytest.approx(0.5)


def test_methods_start_alike_and_see_the_same_crops(comparison, touching, monkeypatch):
    pytest.importorskip("torch")
    run, module = comparison
    seen = []

    def train_phase(model, phase, criterion, batches, device, first):
        crops = np.stack([image for image, _ in batches.take(3)])
        weights = {name: value.clone() for name, value in model.trunk.state_dict().items() if "upcat_4" not in name}
        seen.append((phase.steps, weights, crops))
        return iter([module.Step(first, 1.0, 0.0, 1.0)])

    monkeypatch.setattr(module, "train_phase", train_phase)
    names = ["BCE on affinities", "MALIS after BCE", "MALIS, border", "cross entropy on the mask"]
    run("--data", str(touching), "--seeds", "1", "--methods", *names)
    warmups, lasts = [s for s in seen if s[0] == 4], [s for s in seen if s[0] == 2]
    assert (len(warmups), len(lasts)) == (3, 4)
    for phases in (warmups, lasts):
        for _, weights, crops in phases:
            np.testing.assert_array_equal(crops, phases[0][2])
            assert all((value == phases[0][1][name]).all() for name, value in weights.items())
    assert not np.array_equal(warmups[0][2], lasts[0][2])


def test_folds_keep_groups_and_neighbours_together():
    images = [np.full((1, 2, 2), i, np.float32) for i in range(8)]
    labels = [np.full((2, 2), i, np.int32) for i in range(8)]
    split = data.Split(images, labels, [0, 0, 1, 2, 2, 2, 3, 4])
    tested = []
    for fold in range(4):
        parts = data.fold_of("set", split, 4, fold)
        ids = [[int(image[0, 0, 0]) for image in part.images] for part in (parts.train, parts.validation, parts.test)]
        assert sorted(itertools.chain(*ids)) == list(range(8))
        groups = [{split.groups[i] for i in part} for part in ids]
        assert not (groups[0] & groups[1] or groups[0] & groups[2] or groups[1] & groups[2])
        assert parts.tested == ids[2] == list(range(min(ids[2]), max(ids[2]) + 1))
        tested += ids[2]
    assert sorted(tested) == list(range(8))
    few = data.fold_of("set", split, 3, 0, validation=1, test=2)
    assert (len(few.validation), few.tested) == (1, [0, 1])
    for folds in (2, 6):
        with pytest.raises(ValueError, match=f"at most the 5 groups of set, got {folds}"):
            data.fold_of("set", split, folds, 0)


def test_separated_labels():
    labels = np.array([[1, 1, 2, 2, 0, 3], [1, 1, 2, 2, 0, 3], [4, 4, 4, 0, 0, 3]])
    expected = [[1, 0, 0, 2, 0, 3], [0, 0, 0, 2, 0, 3], [0, 0, 0, 0, 0, 3]]
    np.testing.assert_array_equal(data.separated(labels), expected)
    assert data.touch(labels) and not data.touch(np.where(labels == 3, 3, 0))
    np.testing.assert_array_equal(data.separated(np.array([[[1]], [[2]], [[2]]])), [[[0]], [[0]], [[2]]])


def test_borders_are_put_into_the_crops_that_are_trained_on(run_example, hdf5, drawn, monkeypatch, tmp_path):
    assert any(data.touch(labels) for labels in drawn[1])
    seen, train = {}, load_example("pytorch_example").train
    for border in ([], ["--border"]):

        def spy(args, task, channels, batches, border=bool(border)):
            seen[border] = [(images, labels) for images, labels in batches.take(4)]
            return train(args, task, channels, batches)

        monkeypatch.setattr(load_example("pytorch_example"), "train", spy)
        run_example("--data", str(hdf5), "--output", str(tmp_path / "a.png"), *border)
    for (images, plain), (same_images, bordered) in zip(seen[False], seen[True], strict=True):
        np.testing.assert_array_equal(images, same_images)
        for one, other in zip(plain, bordered, strict=True):
            np.testing.assert_array_equal(other > 0, data.separated(one) > 0)
            assert not data.touch(other)
    assert any(data.touch(labels) for _, batch in seen[False] for labels in batch)


def test_shares_of_objects_by_their_definition(rng):
    module = load_example("object_balance")
    for _ in range(5):
        labels = data.connected(np.kron(rng.integers(0, 4, (3, 3)), np.ones((3, 3), int)))
        aff = rng.permutation(2 * labels.size).reshape(2, *labels.shape).astype(np.float32)
        plain = malis.pairs(aff, labels, tasks.NHOOD)
        counts, shares = _shares_by_brute_force(aff, labels)
        for found, share, count, pairs in zip(
            module.balanced_shares(aff, labels, tasks.NHOOD), shares, counts, plain, strict=True
        ):
            np.testing.assert_array_equal(count, pairs)
            np.testing.assert_allclose(found, share / max(share.sum(), 1e-12), atol=1e-7)


def _shares_by_brute_force(aff, labels):
    """Return what each edge decides, counted in pairs of pixels and in shares of objects and pairs of objects.

    Kruskal's algorithm on sets of pixels: the edges within objects first, the others after them.
    """
    width, flat = labels.shape[1], labels.ravel()
    sizes = np.bincount(flat)
    edges = [(v, v - width) for v in range(width, labels.size)]
    edges += [(labels.size + v, v - 1) for v in range(labels.size) if v % width]
    within = {e: flat[e % labels.size] == flat[v] != 0 for e, v in edges}
    part_of = {v: {v} for v in range(labels.size)}
    counts, shares = np.zeros((2, 2, aff.size))
    for e, v in sorted(edges, key=lambda edge: (not within[edge[0]], -aff.flat[edge[0]])):
        one, other = part_of[e % labels.size], part_of[v]
        if one is other:
            continue
        kind = 0 if within[e] else 1
        for a, b in itertools.product(flat[list(one)], flat[list(other)]):
            if a and b and (a == b) == within[e]:
                counts[kind, e] += 1
                shares[kind, e] += 1 / (sizes[a] * sizes[b] if kind else sizes[a] * (sizes[a] - 1) / 2)
        union = one | other
        part_of.update(dict.fromkeys(union, union))
    return counts.reshape(2, *aff.shape), shares.reshape(2, *aff.shape)


def test_balanced_loss_has_the_gradient_of_its_formula(rng):
    torch = pytest.importorskip("torch")
    module = load_example("object_balance")
    labels = torch.from_numpy(np.stack([data.connected(rng.integers(0, 3, (6, 6))) for _ in range(2)]))
    logits = torch.from_numpy(rng.normal(size=(2, 2, 6, 6)).astype(np.float32)).requires_grad_()
    loss = module.balanced_malis(logits, labels, tasks.NHOOD, 0.3)
    loss.backward()
    aff = 1 / (1 + np.exp(-logits.detach().numpy().astype(float)))
    expected, slope = 0.0, np.zeros_like(aff)
    for i in range(2):
        p, q = module.balanced_shares(logits[i].detach().numpy(), labels[i].numpy(), tasks.NHOOD)
        up, down = np.maximum(0, 0.7 - aff[i]), np.maximum(0, aff[i] - 0.3)
        expected += ((p * up**2).sum() + (q * down**2).sum()) / 2
        slope[i] = (-2 * p * up + 2 * q * down) / 2 * aff[i] * (1 - aff[i])
    assert loss.item() == pytest.approx(expected, rel=1e-5)
    np.testing.assert_allclose(logits.grad.numpy(), slope, atol=1e-6)


def test_growing_objects():
    # Two objects whose cores are strong, each with a weak rim; a third one that is weak all over; a gap between all.
    truth = np.zeros((24, 60), np.int32)
    for number, at in enumerate((1, 21, 41), 1):
        truth[2:22, at : at + 18] = number
    strength = np.where(
        truth == 3, 0.6, 0.6 + 0.35 * (np.minimum.reduce([np.roll(truth, s, a) for s in (3, -3) for a in (0, 1)]) > 0)
    )
    aff = (malis.seg_to_affgraph(truth, tasks.NHOOD) * strength).astype(np.float32)
    assert same_partition(scoring.grown(aff, tasks.NHOOD, 64, 0.9, 0.5), np.where(truth == 3, 0, truth))
    assert not scoring.grown(aff, tasks.NHOOD, 64, 0.99, 0.5).any()
    pairs = [(0.9, 0.5), (0.9, 0.99), (0.99, 0.5), (0.5, 0.4)]
    for seg, pair in zip(scoring.all_grown(aff, tasks.NHOOD, 64, pairs), pairs, strict=True):
        np.testing.assert_array_equal(seg, scoring.grown(aff, tasks.NHOOD, 64, *pair))


def test_fates_of_objects():
    truth, seg = np.zeros((10, 90), np.int32), np.zeros((10, 90), np.int32)
    for number, at in enumerate((5, 20, 35, 50, 65), 1):
        truth[:, at : at + 10] = number
    seg[:, 5:15] = 1
    seg[:, 20:45] = 2  # two objects in one
    seg[:, 53:70] = 3  # most of the fourth, and as much besides
    seg[:, 65:70] = 0  # half of the fifth is nowhere, and half below the size that counts
    seg[:, 70:75] = 4
    seg[:, 78:88] = 5  # nothing true
    module = load_example("benchmark_losses")
    assert module.fates(truth, seg) == (1, 2, 1, 1, 1)
    assert module.fates(truth, truth) == (5, 0, 0, 0, 0)


# ---------------------------------------------------------------------------------------------------------- intervals


def test_intervals_cover_the_truth(rng):
    # Differences of 0.3 with deviations of seeds, of images and of pairs: about 95 of 100 intervals hold 0.3.
    gain = load_example("resampling").gain
    seeds, images = (part.ravel() for part in np.meshgrid(range(8), range(12), indexing="ij"))
    covered, naive = 0, 0
    for _ in range(100):
        values = 0.3 + rng.normal(size=8)[seeds] + rng.normal(size=12)[images] + rng.normal(size=96)
        low, high = gain(seeds, images, values).interval
        covered += low < 0.3 < high
        naive += abs(values.mean() - 0.3) < 1.96 * values.std() / np.sqrt(96)
    assert covered >= 85
    assert naive < 75  # pairs are not independent: as if they were, the interval is too narrow


def test_gain_of_equal_differences():
    result = load_example("resampling").gain([0, 0, 1, 1], [0, 1, 0, 1], [0.25] * 4)
    assert result == (0.25, (0.25, 0.25), 0, (0, 0))
    # Folds: every image belongs to one seed.
    low, high = load_example("resampling").gain([0, 0, 1, 1], [0, 1, 2, 3], [1, 1, 3, 3]).interval
    assert (low, high) == (1, 3)


def test_a_method_is_chosen_without_the_set_it_is_tested_on():
    module = load_example("benchmark_report")
    runs = []
    for name, scores in {"one": (0.9, 0.9, 0.1), "two": (0.8, 0.8, 0.9)}.items():
        for set_, score in zip("abc", scores, strict=True):
            images = [{"object score": score - 0.05, "Rand F-score": 0.0, "VI split": 0.0, "VI merge": 0.0}]
            runs.append({"data": set_, "method": name, "seed": 0, "validation": score, "grown validation": 0.0})
            runs[-1] |= {"scores": images, "grown": [], "tested": [0]}
    rows = [line.split(" | ") for line in module.leave_one_out(runs, "abc").splitlines()[2:]]
    assert [(row[1], row[3]) for row in rows] == [("two", "one"), ("two", "one"), ("one", "two")]
    assert rows[2][5].startswith("+0.800")


# ------------------------------------------------------------------------------------------------ several processes


@pytest.mark.slow
def test_two_processes_learn_what_one_does():
    pytest.importorskip("torch")
    script = str(EXAMPLES / "distributed_example.py")
    options = ["--steps", "3", "--warmup", "1", "--size", "64"]
    losses = []
    for launcher in ([], ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]):
        command = [sys.executable, *launcher, script, *options]
        environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
        result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=300)
        assert result.returncode == 0, result.stderr[-2000:]
        losses.append([float(line.split()[-1]) for line in result.stdout.splitlines() if ": loss" in line])
        assert "step   2, MALIS" in result.stdout and "object score" in result.stdout
    assert len(losses[0]) == 2
    assert losses[1] == pytest.approx(losses[0], abs=1e-6)


# ------------------------------------------------------------------------------------------------------ sites of errors


def test_edges_that_join_merged_objects():
    sites = load_example("error_sites")
    truth = np.zeros((30, 40), int)
    truth[2:12, 2:12], truth[2:12, 15:25], truth[2:12, 25:35] = 1, 2, 3
    truth[16:28, 2:12] = 4
    seg = (truth > 0).astype(int)
    seg[5:8, 12:15] = 1  # a neck of three pixels joins the first two; ten edges lie between 2 and 3
    seg[16:28, 2:12] = 2
    assert sorted(sites.joining_edges(truth, seg)) == [3, 10, 13]
    seg[6, 13] = 0
    assert sorted(sites.joining_edges(truth, seg)) == [2, 10, 12]
    truth[5:8, 12:15] = 9  # too small to be an object
    assert sorted(sites.joining_edges(truth, seg)) == [2, 10, 12]
    assert list(sites.joining_edges(truth, truth)) == []


def test_shares_that_are_split_off():
    sites = load_example("error_sites")
    truth = np.zeros((20, 40), int)
    truth[:, :20], truth[:, 20:] = 1, 2
    seg = truth.copy()
    seg[15:, :20] = 3
    seg[0, 20:] = 4  # too small
    assert list(sites.split_shares(truth, seg)) == [pytest.approx(0.25)]
    assert sites.row([(truth, seg)]) == ["0.0", "", "", "1.0", "25%"]
