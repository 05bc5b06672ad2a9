"""The example of volumes: crops, segmentations, skeletons, files, going on after an interruption, whole runs."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import h5py
import matplotlib.image
import numpy as np
import pytest

import malis
from malis import _io, metrics
from test_examples import EXAMPLES, QUIET, load_example, same_partition

torch = pytest.importorskip("torch")
pytest.importorskip("monai")

example, volume_data, scoring = (load_example(name) for name in ("volume_example", "volume_data", "volume_scores"))
Volume = load_example("public_data").Volume
TINY = ["--steps", "4", "--crop", "16", "16", "16", "--channels", "2", "--threads", "1", "--shape", "24", "32", "32"]


@pytest.fixture(scope="module")
def drawn():
    image, labels = volume_data.synthetic_volume(1, (24, 32, 32))
    return Volume(image[0], labels, (10.0, 10.0, 10.0))


@pytest.fixture(autouse=True)
def _threads():
    before = malis.get_num_threads(), torch.get_num_threads()
    yield
    malis.set_num_threads(before[0])
    torch.set_num_threads(before[1])


# -------------------------------------------------------------------------------------------------------------- loading


@pytest.mark.parametrize("kind", ["npz", "h5", "zarr"])
def test_files_of_image_and_labels(kind, drawn, tmp_path):
    path = tmp_path / f"volume.{kind}"
    if kind == "npz":
        np.savez(path, image=drawn.image, label=drawn.labels, voxel_size=np.array([40, 4, 4]))
    elif kind == "h5":
        with h5py.File(path, "w") as file:
            file["raw"], file["labels"] = drawn.image, drawn.labels
            file["raw"].attrs["resolution"] = (40.0, 4.0, 4.0)
    else:
        zarr = pytest.importorskip("zarr", minversion="3")
        root = zarr.open_group(str(path), mode="w")
        root.create_array("image", data=drawn.image)
        root.create_array("labels", data=drawn.labels)
    parts = volume_data.load(str(path), shares=(0.25, 0.25))
    assert parts.name == "volume"
    assert [len(v.image) for v in (*parts.train, parts.validation, parts.test)] == [12, 6, 6]
    assert same_partition(parts.test.labels, malis.connect_labels(drawn.labels[18:]))
    np.testing.assert_allclose(parts.test.image, volume_data.normalized(drawn.image[18:]), rtol=1e-5)
    assert parts.voxel_size == ((1.0, 1.0, 1.0) if kind == "zarr" else (40.0, 4.0, 4.0))
    assert volume_data.load(str(path), voxel_size=[30, 6, 6]).voxel_size == (30.0, 6.0, 6.0)


def test_public_volumes(drawn, tmp_path):
    with h5py.File(tmp_path / "sample.hdf", "w") as file:
        file["volumes/raw"] = drawn.image
        file["volumes/labels/neuron_ids"] = drawn.labels.astype(np.uint64)
    parts = volume_data.load(f"cremi:{tmp_path}/sample.hdf")
    assert parts.name == "cremi"
    assert parts.voxel_size == (40.0, 4.0, 4.0)
    assert sum(v.labels.shape[0] for v in (*parts.train, parts.validation, parts.test)) == 24


def test_images_are_no_volumes(tmp_path):
    with pytest.raises(ValueError, match=r"isbi2012 is a set of images, which pytorch_example\.py takes"):
        volume_data.load(f"isbi2012:{tmp_path}")


def test_generated_parts_are_different_volumes():
    parts = volume_data.load("synthetic", shape=(16, 24, 24), anisotropic=True)
    volumes = [*parts.train, parts.validation, parts.test]
    assert len({v.image.tobytes() for v in volumes}) == 4
    assert parts.voxel_size == (40.0, 10.0, 10.0)
    assert parts.unit == "nm"


def test_real_volume(shared_data):
    parts = volume_data.load(str(shared_data / "gala" / "train.npz"))
    assert parts.train[0].image.shape == (30, 100, 200)
    assert parts.test.labels.max() > 20


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"image": (8, 8, 8)}, "must hold an array labels or label"),
        ({"image": (8, 8, 8), "labels": (8, 8, 9)}, r"must have one shape \(D, H, W\)"),
        ({"image": (2, 8, 8), "labels": (2, 8, 8)}, "must hold sections for every part"),
    ],
)
def test_bad_files(arrays, message, tmp_path):
    np.savez(tmp_path / "bad.npz", **{name: np.ones(shape, np.uint8) for name, shape in arrays.items()})
    with pytest.raises(ValueError, match=message):
        volume_data.load(str(tmp_path / "bad.npz"))


# ---------------------------------------------------------------------------------------------------------------- crops


@pytest.mark.parametrize("anisotropic", [False, True])
def test_crops_keep_image_and_labels_together(anisotropic, drawn):
    bright = Volume(np.where(drawn.labels > 0, 10, 0).astype(np.float32), drawn.labels)
    crop = (8, 16, 16) if anisotropic else (16, 16, 16)
    crops = volume_data.Crops([bright], crop, batch=2, seed=0, anisotropic=anisotropic)
    missing, seen, agreed = 0, set(), []
    for images, labels in crops.take(0, 12):
        assert images.shape == labels.shape == (2, 1, *crop)
        for image, truth in zip(images.numpy()[:, 0], labels.numpy()[:, 0], strict=True):
            assert np.isin(truth, drawn.labels).all()
            seen.add(truth.tobytes())
            agreed.append(((image > 5) == (truth > 0)).mean())
            missing += any(plane.std() < 1 for axis in range(3) for plane in np.moveaxis(image, axis, 0))
    assert np.median(agreed) > 0.95
    assert min(agreed) > 0.6  # two sections of eight may be missing
    assert len(seen) == 24
    assert missing > 0


def test_batches_are_the_same_whenever_they_are_asked_for(drawn):
    first, again, other = (volume_data.Crops([drawn, drawn], (16, 16, 16), 1, seed) for seed in (3, 3, 4))
    whole = list(first.take(0, 5))
    for (image, labels), (image_again, labels_again) in zip(whole[3:], again.take(3, 5), strict=True):
        torch.testing.assert_close(image, image_again, rtol=0, atol=0)
        torch.testing.assert_close(labels, labels_again, rtol=0, atol=0)
    assert not torch.equal(next(other.take(0, 1))[0], whole[0][0])


def test_size_of_crops(drawn):
    with pytest.raises(ValueError, match=r"crop must fit into the volumes, \(24, 32, 32\)"):
        volume_data.Crops([drawn], (16, 40, 40), 1, 0, anisotropic=True)
    with pytest.raises(ValueError, match="crop must have axes of one length"):
        volume_data.Crops([drawn], (8, 16, 16), 1, 0)


# --------------------------------------------------------------------------------------------- segmentations and scores


def test_perfect_affinities_are_perfect_segmentations(drawn):
    aff = 0.9 * malis.seg_to_affgraph(drawn.labels, scoring.NEAREST).astype(np.float32)
    large = np.where(np.bincount(drawn.labels.ravel())[drawn.labels] >= 64, drawn.labels, 0)
    for segmenter in scoring.SEGMENTERS:
        thresholds, voi = scoring.choose(segmenter, aff, drawn.labels, 64)
        assert voi < 0.1
        seg = segmenter.segment(aff, 64, *thresholds)
        # The watershed gives membranes to some basin: there the truth says nothing.
        assert same_partition(np.where(drawn.labels > 0, seg, 0), large)


def test_objects_grow_along_weak_edges_only():
    # Two strong cores in a row with a weak rim each, a gap between the rims, and a third core that is too small.
    aff = np.zeros((3, 1, 1, 16), np.float32)
    aff[2, 0, 0, 1:] = [0.9, 0.9, 0.6, 0.6, 0.2, 0.6, 0.9, 0.9, 0.9, 0.3, 0.9, 0.1, 0.6, 0.6, 0.6]
    seg = scoring.by_two_thresholds(aff, 3, 0.8, 0.5)[0, 0]
    assert same_partition(seg, np.array([1, 1, 1, 1, 1, 2, 2, 2, 2, 2, 0, 0, 0, 0, 0, 0]))


def test_skeletons_are_trees_along_the_objects():
    labels = np.zeros((9, 30, 30), np.int32)
    labels[3:6, 3:27, 3:6] = 2  # an L
    labels[3:6, 24:27, 3:27] = 2
    labels[3:6, 3:6, 15:29] = 5
    labels[8, 0, 0] = 7  # too small
    skeletons = scoring.skeletons_of(labels, (2.0, 1.0, 1.0), 10)
    assert np.unique(skeletons.ids).tolist() == [2, 5]
    for number, length in ((2, 42), (5, 11)):
        nodes = (skeletons.ids == number).sum()
        mine = skeletons.ids[skeletons.edges[:, 0]] == number
        assert mine.sum() == nodes - 1
        assert skeletons.lengths[mine].sum() == pytest.approx(length, abs=4)
        at = skeletons.nodes[skeletons.ids == number].astype(int)
        assert (labels[tuple(at.T)] == number).all()
    assert metrics.skeleton_scores(skeletons, labels).nerl == 1
    with pytest.raises(ValueError, match="must hold an object of at least 10 voxels"):
        scoring.skeletons_of(np.zeros((4, 4, 4), np.int32), (1.0, 1.0, 1.0), 10)


def test_scores_of_the_truth(drawn):
    skeletons = scoring.skeletons_of(drawn.labels, (10.0, 10.0, 10.0), 64)
    perfect = scoring.scores_of(drawn.labels, drawn.labels, skeletons, 64)
    assert perfect["VOI"] == pytest.approx(0, abs=1e-9)
    assert perfect["adapted Rand error"] == pytest.approx(0, abs=1e-9)
    assert perfect["object score"] == 1
    merged = scoring.scores_of(drawn.labels, (drawn.labels > 0).astype(int), skeletons, 64)
    assert merged["VOI merge"] > 1
    assert merged["VOI split"] == pytest.approx(0, abs=1e-9)
    assert merged["ERL"] == 0 < perfect["ERL"]


def test_ome_zarr(drawn, tmp_path):
    zarr = pytest.importorskip("zarr", minversion="3")
    store = tmp_path / "test.zarr"
    scoring.write_ome_zarr(store, drawn, {"two thresholds": drawn.labels}, (40.0, 4.0, 4.0), "nm")
    scoring.write_ome_zarr(store, drawn, {"two thresholds": drawn.labels}, (40.0, 4.0, 4.0), "nm")  # replaces it
    image = _io.read_image(str(store))
    assert image.array.dtype == np.uint8
    assert image.grid.scale == (40.0, 4.0, 4.0)
    assert image.grid.unit == "nanometer"
    assert np.corrcoef(image.array.ravel(), drawn.image.ravel())[0, 1] > 0.99
    labels = _io.read_labels(f"{store}/labels/two_thresholds")
    np.testing.assert_array_equal(labels.array, drawn.labels)
    assert labels.grid.scale == (40.0, 4.0, 4.0)
    root = zarr.open_group(str(store), mode="r")
    assert sorted(root["labels"].attrs["ome"]["labels"]) == ["ground_truth", "two_thresholds"]
    assert root["labels/two_thresholds"].attrs["ome"]["image-label"]["source"]["image"] == "../../"


@pytest.mark.viewers
def test_the_store_keeps_to_the_schema_and_its_labels_are_found(drawn, tmp_path):
    models = pytest.importorskip("ome_zarr_models.v05", reason="ome-zarr-models is not installed")
    reader = pytest.importorskip("ome_zarr.reader", reason="ome-zarr is not installed")
    from ome_zarr.io import parse_url

    zarr = pytest.importorskip("zarr", minversion="3", reason="zarr 3 needs Python 3.11")
    store = tmp_path / "a.zarr"
    scoring.write_ome_zarr(store, drawn, {"seg": drawn.labels}, (40.0, 4.0, 4.0), "nm")
    models.Image.from_zarr(zarr.open_group(str(store), mode="r"))
    nodes = list(reader.Reader(parse_url(str(store)))())
    labels = [node for node in nodes if any(isinstance(spec, reader.Label) for spec in node.specs)]
    assert len(labels) == 2  # the truth and the segmentation
    for node in labels:
        np.testing.assert_array_equal(np.asarray(node.data[0]), drawn.labels)


# ------------------------------------------------------------------------------------------------------------- training


def options(*args):
    parsed = example.parser().parse_args([*TINY, "--checkpoint", "1", *args])
    parsed.anisotropic = False
    return parsed


def weights_after(args, crops, file):
    torch.manual_seed(0)
    model = example.UNet(args.channels, 6, False)
    example.train(args, load_example("training").phases(args), model, crops, file)
    return model.state_dict()


class Interrupted(volume_data.Crops):
    """Crops that end after some batches as if someone had pressed Ctrl-C."""

    last = 1

    def take(self, begin, end):
        for number, batch in enumerate(super().take(begin, end), start=begin):
            if number == self.last:
                raise KeyboardInterrupt
            yield batch


@pytest.mark.parametrize("border", [False, True])
def test_borders_are_put_into_what_is_trained_on_alone(border, monkeypatch, tmp_path):
    touch, seen = load_example("data").touch, {}
    parts = volume_data.load("synthetic", shape=(24, 32, 32))
    for volume in (*parts.train, parts.validation, parts.test):
        volume.labels[:, :16], volume.labels[:, 16:] = 1, 2

    def report(args, data, model):
        seen["scored"] = [data.validation, data.test]

    def train(args, plan, model, crops, checkpoint):
        seen["trained"] = [sample["labels"][0].numpy() for sample in crops.samples]

    monkeypatch.setattr(example, "load", lambda *args, **kwargs: parts)
    monkeypatch.setattr(example, "train", train)
    monkeypatch.setattr(example, "report", report)
    example.main([*TINY, "--output", str(tmp_path), *(["--border"] if border else [])])
    assert all(touch(labels) != border for labels in seen["trained"])
    assert all(touch(volume.labels) for volume in seen["scored"])


@pytest.mark.parametrize("last", [1, 3])  # in the warm-up, and just as MALIS begins
def test_an_interrupted_training_goes_on(last, drawn, tmp_path):
    make = ([drawn], (16, 16, 16), 1, 0)
    whole = weights_after(options(), volume_data.Crops(*make), tmp_path / "whole.pt")
    crops = Interrupted(*make)
    crops.last = last
    with pytest.raises(KeyboardInterrupt):
        weights_after(options(), crops, tmp_path / "checkpoint.pt")
    resumed = weights_after(options("--resume"), volume_data.Crops(*make), tmp_path / "checkpoint.pt")
    for name, value in whole.items():
        torch.testing.assert_close(value, resumed[name], rtol=1e-4, atol=1e-6)
    with pytest.raises(ValueError, match="got another --lr"):
        weights_after(options("--resume", "--lr", "1"), volume_data.Crops(*make), tmp_path / "checkpoint.pt")


@pytest.mark.parametrize("anisotropic", [False, True])
def test_affinities_of_volumes_of_any_size(anisotropic, rng):
    model = example.UNet(2, len(example.offsets(anisotropic)), anisotropic)
    crop = (4, 16, 16) if anisotropic else (16, 16, 16)
    aff = example.predict(model, rng.standard_normal((7, 21, 40)).astype(np.float32), crop, 2)
    assert aff.shape == (3, 7, 21, 40)
    assert aff.dtype == np.float32
    assert ((aff > 0) & (aff < 1)).all()


def test_sections_are_seen_one_by_one_in_anisotropic_volumes():
    kernels = {
        anisotropic: {
            m.kernel_size for m in example.UNet(2, 6, anisotropic).modules() if isinstance(m, torch.nn.Conv3d)
        }
        for anisotropic in (False, True)
    }
    assert kernels == {False: {(1, 1, 1), (3, 3, 3)}, True: {(1, 1, 1), (1, 3, 3), (3, 3, 3)}}


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--data", "no_such_file.npz"], "no_such_file.npz"),
        (["--crop", "18", "18", "18"], "must be multiples of 4"),
        (["--crop", "32", "32", "32"], "crop must fit into the volumes"),
        (["--device", "abacus"], "abacus"),
        (["--loss", "dice"], "invalid choice"),
    ],
)
def test_bad_options_exit_with_one_line(args, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stopped:
        example.main([*TINY, "--shape", "16", "24", "24", *args])
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "volume_output").exists()


# ---------------------------------------------------------------------------------------------------------- whole runs


@pytest.mark.slow  # most of it is drawing
@pytest.mark.parametrize("kind", ["synthetic", "anisotropic", "file"])
def test_whole_run(kind, drawn, tmp_path, capsys):
    pytest.importorskip("zarr", minversion="3")
    args = [*TINY, "--output", str(tmp_path / "out")]
    if kind == "anisotropic":
        args += ["--anisotropic", "--crop", "4", "16", "16"]
    if kind == "file":
        np.savez(tmp_path / "cells.npz", raw=drawn.image, truth=drawn.labels)
        args += ["--data", str(tmp_path / "cells.npz"), "--names", "raw", "truth", "--crop", "12", "12", "12"]
    result = example.main(args)
    assert set(result["scores"]) == {segmenter.name for segmenter in scoring.SEGMENTERS}
    assert result["best"] in result["scores"]
    printed, progress = capsys.readouterr()
    for name, scores in result["scores"].items():
        assert set(scores) == set(scoring.SCORES)
        assert np.isfinite([scores[score] for score in scoring.SCORES if score != "object score"]).all()
        assert any(
            line.split()[-5:-4] == [f"{scores['VOI merge']:.3f}"] for line in printed.splitlines() if name in line
        )
    assert "loss=" in progress
    assert "MALIS" in progress
    assert json.loads((tmp_path / "out" / "scores.json").read_text())["scores"] == result["scores"]
    for name in ("sections", "comparison-z", "comparison-y", "comparison-x"):
        assert matplotlib.image.imread(tmp_path / "out" / f"{name}.png")[..., :3].std() > 0.05
    # What is written is what the command segments.
    aff = np.load(tmp_path / "out" / "affinities.npy")
    (high,) = result["thresholds"]["threshold"]
    written = _io.read_labels(str(tmp_path / "out" / "test.zarr" / "labels" / "threshold"))
    np.testing.assert_array_equal(
        written.array, malis.affgraph_to_seg(aff, scoring.NEAREST, min_size=64, threshold=high)[0]
    )


@pytest.mark.slow
def test_runs_are_reproducible(tmp_path):
    pytest.importorskip("zarr", minversion="3")
    for name, seed in (("a", "1"), ("b", "1"), ("c", "2")):
        example.main([*TINY, "--seed", seed, "--output", str(tmp_path / name)])
    first, again, other = (np.load(tmp_path / name / "affinities.npy") for name in "abc")
    np.testing.assert_array_equal(first, again)
    assert not np.allclose(first, other)


# ----------------------------------------------------------------------------------------------------------- benchmark


def test_blocks_are_all_of_a_volume(rng):
    volume = rng.integers(0, 1000, (3, 10, 9))
    blocks = list(load_example("benchmark_volumes").columns(volume))
    assert len(blocks) == 16
    np.testing.assert_array_equal(np.sort(np.concatenate([b.ravel() for b in blocks])), np.sort(volume.ravel()))


def test_table_of_seeds():
    benchmark = load_example("benchmark_volumes")

    def run(shift, *methods):
        scores = dict.fromkeys(benchmark.SCORES, 0.5 + shift)
        return [{"method": method, "scores": {"watershed": scores}} for method in methods]

    table = benchmark.table_of_seeds([run(0.1, "BCE", "MALIS"), run(0.0, "BCE", "MALIS"), run(0.2, "BCE")])
    assert table.count("0.600 (0.500 to 0.700)") == len(benchmark.SCORES) - 1
    assert "1 (0 to 1)" in table  # the ERL, in nm
    assert "MALIS" not in table  # which one seed lacks


def test_methods_differ_in_the_second_phase_alone(tmp_path, capsys):
    args = [*TINY, "--output", str(tmp_path), "--border"]
    benchmark = load_example("benchmark_volumes").main
    results = benchmark(args)
    saved = {file.stem: torch.load(file, weights_only=True) for file in tmp_path.glob("*.pt")}
    assert {name: state["step"] for name, state in saved.items()} == {
        "warmup": 3,
        "BCE-on-affinities": 4,
        "MALIS-after-BCE": 4,
    }
    weights = {name: torch.cat([w.ravel() for w in state["model"].values()]) for name, state in saved.items()}
    assert not torch.equal(weights["BCE-on-affinities"], weights["MALIS-after-BCE"])
    for name in ("BCE-on-affinities", "MALIS-after-BCE"):  # one step of Adam away
        assert 0 < (weights[name] - weights["warmup"]).abs().max() < 1e-2

    for result in results:
        assert 0 < result["seconds in the loss"] < result["seconds per step"]
        for name, erl in result["ERL"].items():
            assert erl[0] == pytest.approx(result["scores"][name]["ERL"])
    table = (tmp_path / "tables.md").read_text()
    assert table in capsys.readouterr().out
    assert matplotlib.image.imread(tmp_path / "comparison.png")[..., :3].std() > 0.05
    first, second, *_ = [line for line in table.splitlines() if "| watershed |" in line]
    assert first.startswith("| BCE on affinities") and "+0.000 (+0.000 to +0.000)" in first
    assert f"| {results[1]['scores']['watershed']['VOI']:.3f} |" in second

    again = benchmark(args)  # trains nothing
    assert capsys.readouterr().out.count("going on after step") == 4
    assert [r["scores"] for r in again] == [r["scores"] for r in results]


# --------------------------------------------------------------------------------------------------- other frameworks


@pytest.mark.slow  # compiling a U-Net for a few steps takes most of a minute
@pytest.mark.parametrize("anisotropic", [False, True])
@pytest.mark.parametrize(("name", "backend"), [("volume_keras", "torch"), ("volume_jax", "")])
def test_whole_run_of_other_frameworks(name, backend, anisotropic, tmp_path):
    for module in ("keras",) if backend else ("jax", "flax", "optax"):
        pytest.importorskip(module)
    pytest.importorskip("zarr", minversion="3")
    args = [*TINY, *(["--anisotropic", "--crop", "4", "16", "16"] if anisotropic else []), "--output", str(tmp_path)]
    command = [sys.executable, str(EXAMPLES / f"{name}_example.py"), *args]
    environment = {**os.environ, **QUIET, **({"KERAS_BACKEND": backend} if backend else {})}
    run = subprocess.run(command, capture_output=True, text=True, check=False, env=environment, timeout=600)
    assert run.returncode == 0, run.stderr[-3000:]
    assert "MALIS" in run.stderr
    assert "loss=0." in run.stderr
    scores = json.loads((tmp_path / "scores.json").read_text())["scores"]
    assert set(scores) == {segmenter.name for segmenter in scoring.SEGMENTERS}
    aff = np.load(tmp_path / "affinities.npy")
    assert aff.shape == (3, 12, 32, 32)
    assert aff.std() > 0
