"""The command: what it computes, prints, writes, and how it refuses."""

from __future__ import annotations

import importlib.metadata
import io
import json
import os
import signal
import subprocess
import sys
import time

import h5py
import matplotlib.image
import numpy as np
import pytest
import rich.console
import skimage.metrics
import tifffile

import malis
from malis import metrics
from malis.__main__ import main
from malis.synthetic import synthetic_affinities, synthetic_image

zarr = pytest.importorskip("zarr", minversion="3", reason="zarr 3 needs Python 3.11")
NHOOD = malis.mknhood2d(1)


@pytest.fixture(scope="module")
def cells():
    _, labels = synthetic_image(1, 96)
    return labels, synthetic_affinities(labels, NHOOD, 1)


@pytest.fixture
def folder(tmp_path, monkeypatch, cells):
    """A folder with the affinities and the truth, in which the command runs."""
    labels, aff = cells
    np.save(tmp_path / "gt.npy", labels)
    np.save(tmp_path / "aff.npy", aff)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def refused(capsys, folder):
    """Run the command, which must exit with 2, print one line on stderr, and write nothing; returns that line."""

    def run(*args):
        before = sorted(str(path) for path in folder.rglob("*"))
        capsys.readouterr()
        assert main(list(map(str, args))) == 2
        printed = capsys.readouterr()
        assert printed.out == ""
        (line,) = printed.err.splitlines()
        assert line.startswith("malis: ")
        assert sorted(str(path) for path in folder.rglob("*")) == before
        return line

    return run


def printed_scores(text):
    """Return the rows of a table as printed."""
    rows = [line.rsplit(maxsplit=1) for line in text.splitlines() if len(line.rsplit(maxsplit=1)) == 2]
    return {name.strip(): value for name, value in rows}


# ------------------------------------------------------------------------------------------------------------ segment


@pytest.mark.parametrize(
    "output", ["seg.npy", "seg.npz", "seg.h5:/a/seg", "seg.tif", "seg.zarr", "seg.zarr/labels/seg"]
)
def test_segment(output, folder, cells, capsys):
    _, aff = cells
    assert main(["segment", "aff.npy", "-o", output, "--threshold", "0.8", "--min-size", "30"]) == 0
    expected, sizes = malis.affgraph_to_seg(aff, NHOOD, 29, threshold=0.8)
    assert sizes[1:].min() >= 30
    assert capsys.readouterr().out == f"{output}: {len(sizes) - 1} objects, threshold 0.8\n"
    read = {
        "seg.npy": lambda: np.load("seg.npy"),
        "seg.npz": lambda: np.load("seg.npz")["seg"],
        "seg.h5:/a/seg": lambda: h5py.File("seg.h5")["a/seg"][:],
        "seg.tif": lambda: tifffile.imread("seg.tif"),
        "seg.zarr": lambda: zarr.open_group("seg.zarr")["s0"][:],
        "seg.zarr/labels/seg": lambda: zarr.open_group("seg.zarr")["labels/seg/s0"][:],
    }
    np.testing.assert_array_equal(read[output](), expected)


def test_provenance(folder):
    assert main(["segment", "aff.npy", "-o", "seg.zarr", "--gt", "gt.npy", "--threshold", "auto"]) == 0
    note = zarr.open_group("seg.zarr").attrs["malis"]
    assert note["version"] == malis.__version__
    assert (note["command"], note["affinities"], note["gt"]) == ("segment", "aff.npy", "gt.npy")
    assert note["options"] == {
        "threshold": "auto",
        "grow": None,
        "by": "components",
        "seeds": None,
        "score": "object_score",
        "min_size": 64,
        "ignore_label": None,
        "small": "drop",
        "nhood": [[-1, 0], [0, -1]],
        "channel_axis": None,
        "axes": None,
    }
    seg, _ = malis.affgraph_to_seg(np.load("aff.npy"), NHOOD, 63, threshold=note["threshold"])
    np.testing.assert_array_equal(zarr.open_group("seg.zarr")["s0"][:], seg)


@pytest.mark.parametrize("score", ["object_score", "rand_f_score", "variation_of_information"])
def test_auto_finds_the_threshold(score, folder, cells, capsys):
    labels, aff = cells
    args = ["--threshold", "auto", "--gt", "gt.npy", "--score", score, "--min-size", "20"]
    assert main(["segment", "aff.npy", "-o", "seg.npy", *args]) == 0
    found = malis.find_threshold([aff], [labels], NHOOD, score=score, min_size=20)
    seg = malis.affgraph_to_seg(aff, NHOOD, 19, threshold=found.threshold)[0]
    np.testing.assert_array_equal(np.load("seg.npy"), seg)
    out = capsys.readouterr().out
    assert f"threshold {found.threshold:.6g}" in out
    assert printed_scores(out)["object score"] == f"{metrics.object_score(labels, seg, min_size=20):.4f}"


def test_truth_alone_scores(folder, capsys):
    assert main(["segment", "aff.npy", "-o", "seg.npy", "--threshold", "0.7", "--gt", "gt.npy"]) == 0
    segmented = printed_scores(capsys.readouterr().out)
    assert main(["evaluate", "seg.npy", "gt.npy"]) == 0
    assert printed_scores(capsys.readouterr().out).items() <= segmented.items()


def test_small_components_are_merged(folder, cells):
    _, aff = cells
    assert main(["segment", "aff.npy", "-o", "seg.npy", "--small", "merge", "--threshold", "0.9"]) == 0
    expected, _ = malis.affgraph_to_seg(aff, NHOOD, 63, threshold=0.9, small="merge")
    assert (expected > 0).all()
    np.testing.assert_array_equal(np.load("seg.npy"), expected)


def test_offsets_and_channels_last(folder, cells):
    labels, _ = cells
    nhood = [[0, -1], [-1, 0], [-3, 2]]
    aff = synthetic_affinities(labels, nhood, 7)
    np.save("last.npy", np.moveaxis(aff, 0, -1))
    assert main(["segment", "last.npy", "-o", "seg.npy", "--channel-axis", "-1", "--nhood", json.dumps(nhood)]) == 0
    np.testing.assert_array_equal(np.load("seg.npy"), malis.affgraph_to_seg(aff, nhood, 63, threshold=0.5)[0])


def test_volumes_and_bytes(folder, rng):
    truth = np.kron(rng.integers(0, 3, (2, 3, 3)), np.ones((5, 6, 7), int))
    nhood = malis.mknhood3d(1)
    aff = (255 * malis.seg_to_affgraph(truth, nhood)).astype(np.uint8)
    tifffile.imwrite("aff.tif", aff.swapaxes(0, 1), imagej=True, metadata={"axes": "ZCYX"})
    with h5py.File("volume.h5", "w") as file:
        file["truth"] = truth.astype(np.uint64)
    assert main(["segment", "aff.tif", "-o", "volume.h5:/seg", "--threshold", "0.5", "--gt", "volume.h5:/truth"]) == 0
    with h5py.File("volume.h5") as file:
        expected = malis.affgraph_to_seg(aff.astype(np.float32) / 255, nhood, 63, threshold=0.5)[0]
        np.testing.assert_array_equal(file["seg"][:], expected)
        assert file["truth"].shape == truth.shape


def test_force(folder, refused, cells):
    assert main(["segment", "aff.npy", "-o", "seg.npy"]) == 0
    before = np.load("seg.npy")
    assert "seg.npy exists: --force replaces it" in refused("segment", "aff.npy", "-o", "seg.npy", "--threshold", "0.9")
    np.testing.assert_array_equal(np.load("seg.npy"), before)
    assert main(["segment", "aff.npy", "-o", "seg.npy", "--threshold", "0.9", "--force"]) == 0
    assert not np.array_equal(np.load("seg.npy"), before)


# ---------------------------------------------------------------------------------------------------------- segmenters


def test_objects_grow_along_weaker_edges(folder, cells):
    _, aff = cells
    assert main(["segment", "aff.npy", "-o", "seg.npy", "--threshold", "0.9", "--grow", "0.5", "--min-size", "20"]) == 0
    grown = np.load("seg.npy")
    seeds, _ = malis.affgraph_to_seg(aff, NHOOD, 19, threshold=0.9)
    assert (grown[seeds > 0] == seeds[seeds > 0]).all()
    assert np.count_nonzero(grown) > np.count_nonzero(seeds)
    # By definition: a watershed on what is left without the edges that are too weak.
    assert (grown == strong_watershed(aff, seeds, 0.5)).all()


def strong_watershed(aff, seeds, low):
    """The seeded watershed without edges below `low`: one that no seed reaches stays background."""
    part, _ = malis.affgraph_to_seg(aff, NHOOD, 0, threshold=low)
    seg, _ = malis.watershed_from_affgraph(aff, seeds, NHOOD, 0)
    return np.where(np.isin(part, np.unique(part[seeds > 0])), seg, 0)


def test_watershed_with_and_without_seeds(folder, cells):
    labels, aff = cells
    seeds = np.where(labels % 2 == 0, labels, 0)
    np.save("seeds.npy", seeds)
    assert main(["segment", "aff.npy", "-o", "seeded.npy", "--seeds", "seeds.npy", "--min-size", "1"]) == 0
    np.testing.assert_array_equal(np.load("seeded.npy"), malis.watershed_from_affgraph(aff, seeds, NHOOD, 0)[0])
    args = ["--seeds", "seeds.npy", "--min-size", "1", "--threshold", "0.9"]
    assert main(["segment", "aff.npy", "-o", "strong.npy", *args]) == 0
    np.testing.assert_array_equal(np.load("strong.npy"), strong_watershed(aff, seeds, 0.9))
    assert main(["segment", "aff.npy", "-o", "basins.npy", "--by", "watershed", "--min-size", "2"]) == 0
    np.testing.assert_array_equal(np.load("basins.npy"), malis.watershed_basins(aff, NHOOD, min_size=2)[0])
    assert (
        main(["segment", "aff.npy", "-o", "low.npy", "--by", "watershed", "--threshold", "0.7", "--min-size", "2"]) == 0
    )
    np.testing.assert_array_equal(np.load("low.npy"), malis.watershed_basins(aff, NHOOD, threshold=0.7)[0])


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--seeds", "gt.npy", "--by", "watershed"], "give one of them"),
        (["--by", "watershed", "--threshold", "auto", "--gt", "gt.npy"], "auto chooses for connected components"),
        (["--seeds", "gt.npy", "--small", "merge"], "--small merge joins connected components"),
        (["--grow", "0.5", "--by", "watershed"], "--grow lets connected components grow"),
        (["--grow", "0.5", "--small", "merge"], "--grow starts from components that are large enough"),
        (["--grow", "0.9", "--threshold", "0.5"], "--grow must be at most the threshold 0.5, got 0.9"),
    ],
)
def test_options_that_do_not_go_together(args, message, refused):
    assert message in refused("segment", "aff.npy", "-o", "seg.npy", *args)


# --------------------------------------------------------------------------------------------------------------- bytes


def test_bytes_are_affinities_of_0_to_1(folder, cells, capsys):
    labels, aff = cells
    coarse = np.rint(255 * aff).astype(np.uint8)
    as_float = coarse.astype(np.float32) / 255
    np.save("bytes.npy", coarse)
    np.save("float.npy", as_float)
    for args in (
        ["segment", "AFF", "-o", "OUT", "--threshold", "0.8"],
        ["segment", "AFF", "-o", "OUT", "--threshold", "auto", "--gt", "gt.npy"],
        ["segment", "AFF", "-o", "OUT", "--by", "watershed"],
        ["curve", "AFF", "gt.npy", "--json"],
    ):
        results = []
        for name in ("bytes", "float"):
            swapped = {"AFF": f"{name}.npy", "OUT": f"seg_{name}.npy"}
            assert main([swapped.get(arg, arg) for arg in args] + (["--force"] if "OUT" in args else [])) == 0
            results.append(capsys.readouterr().out.replace(f"seg_{name}", "seg"))
        assert results[0] == results[1]
        if "OUT" in args:
            np.testing.assert_array_equal(np.load("seg_bytes.npy"), np.load("seg_float.npy"))
    for threshold in (0, 1 / 255, 0.3, 77 / 255, 0.5, 1.0):
        expected, _ = malis.affgraph_to_seg(as_float, NHOOD, threshold=threshold)
        np.testing.assert_array_equal(malis.affgraph_to_seg(coarse, NHOOD, threshold=threshold)[0], expected)
    np.testing.assert_array_equal(
        malis.maximum_spanning_tree(coarse, NHOOD).affinities, malis.maximum_spanning_tree(as_float, NHOOD).affinities
    )
    assert malis.rand_curve(coarse, labels, NHOOD).thresholds.max() <= 1


# --------------------------------------------------------------------------------------------------- what is printed


def test_a_threshold_outside_the_range_warns(folder, cells, capsys):
    _, aff = cells
    np.save("bytes.npy", np.rint(255 * aff).astype(np.uint8))
    np.save("logits.npy", 10 * (aff - 0.5))
    for name, threshold, message in (
        ("bytes.npy", "128", "--threshold 128 connects no edge: the affinities of bytes.npy lie between 0 and"),
        ("aff.npy", "-1", "--threshold -1 connects every edge: the affinities of aff.npy lie between"),
        ("logits.npy", "7", "--threshold 7 connects no edge: the affinities of logits.npy lie between -5 and"),
    ):
        assert main(["segment", name, "-o", "seg.npy", "--threshold", threshold, "--force"]) == 0
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith(f"malis: warning: {message}")
    assert "bytes of 0 to 255" not in line
    assert main(["segment", "aff.npy", "-o", "seg.npy", "--threshold", "-1", "--force", "--quiet"]) == 0
    assert capsys.readouterr() == ("", "")


COMMANDS = {
    "segment": ["segment", "aff.npy", "-o", "seg.npy", "--gt", "gt.npy"],
    "evaluate": ["evaluate", "gt.npy", "gt.npy"],
    "curve": ["curve", "aff.npy", "gt.npy"],
    "compare": ["compare", "gt.npy", "gt.npy"],
    "demo": ["demo"],
}


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_prints_json_or_nothing(name, folder, capsys):
    assert main([*COMMANDS[name], "--json"]) == 0
    printed = capsys.readouterr()
    assert printed.err == ""
    result = json.loads(printed.out)
    scores = result["scores"]["gt.npy"] if name == "compare" else result
    assert {"rand_split", "voi_merge"} < set(scores)
    force = [] if name in ("evaluate", "curve") else ["--force"]
    assert main([*COMMANDS[name], "--quiet", *force]) == 0
    assert capsys.readouterr() == ("", "")
    assert main([*COMMANDS[name], "--verbose", *force]) == 0
    assert " took " in capsys.readouterr().err
    threads = malis.get_num_threads()
    assert main([*COMMANDS[name], "--threads", "1", *force]) == 0
    assert malis.get_num_threads() == threads


def test_json_of_segment(folder, capsys):
    assert main(["segment", "aff.npy", "-o", "seg.npy", "--threshold", "0.8", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result == {"output": "seg.npy", "objects": int(np.load("seg.npy").max()), "threshold": 0.8}


def test_verbose_says_what_was_read(folder, cells, capsys):
    with h5py.File("volume.h5", "w") as file:
        file["aff"] = cells[1]
        file["aff"].attrs["resolution"] = (4.0, 8.0)
    assert main(["segment", "volume.h5:/aff", "-o", "seg.npy", "--verbose"]) == 0
    err = capsys.readouterr().err
    assert "volume.h5:/aff: shape (2, 96, 96), float32, voxels of 4 x 8 nm" in err
    assert "affinities from" in err
    assert main(["segment", "volume.h5:/aff", "-o", "b.npy", "--verbose", "--quiet"]) == 2


def test_threads_are_used(folder, monkeypatch):
    used = []
    original = malis.affgraph_to_seg
    monkeypatch.setattr(
        "malis.affgraph_to_seg",
        lambda *args, **options: used.append(malis.get_num_threads()) or original(*args, **options),
    )
    assert main(["segment", "aff.npy", "-o", "seg.npy", "--threads", "3"]) == 0
    assert used == [3]


def test_progress_moves(folder, monkeypatch):
    """Reading says how far it is, block by block."""
    monkeypatch.setattr("malis._io.blocks._BLOCK_BYTES", 2**12)
    with h5py.File("volume.h5", "w") as file:
        file.create_dataset("aff", data=np.load("aff.npy"), chunks=(1, 8, 96))
    seen = []
    monkeypatch.setattr("malis._console.Steps.tick", lambda self, done: seen.append(done))
    assert main(["segment", "volume.h5:/aff", "-o", "seg.npy"]) == 0
    assert len(seen) > 5
    assert seen == sorted(seen)
    assert seen[-1] == 1


def test_a_bar_is_drawn_where_somebody_watches(folder, monkeypatch):
    stream = io.StringIO()
    console = rich.console.Console(file=stream, force_terminal=True, width=100)
    monkeypatch.setattr("malis._console._err", console)
    assert main(["segment", "aff.npy", "-o", "seg.npy"]) == 0
    assert "reading affinities" in stream.getvalue() or "writing" in stream.getvalue()


@pytest.mark.parametrize("name", ["", *COMMANDS])
def test_short_help(name, capsys):
    assert main([*([name] if name else []), "-h"]) == 0
    assert "--help" in capsys.readouterr().out


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_shell_completion(shell):
    environment = {
        **os.environ,
        "_MALIS_COMPLETE": f"complete_{shell}",
        "COMP_WORDS": "malis segment --thr",
        "COMP_CWORD": "2",
        "_TYPER_COMPLETE_ARGS": "malis segment --thr",
        "_TYPER_COMPLETE_FISH_ACTION": "get-args",
    }
    code = "import sys; from malis.__main__ import main; sys.exit(main())"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, env=environment)
    assert "--threshold" in result.stdout
    assert "--threads" in result.stdout


# ---------------------------------------------------------------------------------------------------------------- axes


def test_axes_of_the_caller(folder, cells, capsys):
    labels, aff = cells
    volume = np.stack([labels, labels, labels])
    tifffile.imwrite("gt.tif", volume.astype(np.uint16), imagej=True, metadata={"axes": "TYX"})
    np.save("seg3.npy", volume)
    assert main(["evaluate", "seg3.npy", "gt.tif"]) == 2
    assert "gt.tif must hold one time point, got 3 along its axes tyx" in capsys.readouterr().err
    assert main(["evaluate", "seg3.npy", "gt.tif", "--gt-axes", "zyx", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["rand_f_score"] == 1
    np.save("last.npy", np.moveaxis(aff, 0, -1))
    assert main(["segment", "last.npy", "-o", "seg.npy", "--axes", "yxc"]) == 0
    np.testing.assert_array_equal(np.load("seg.npy"), malis.affgraph_to_seg(aff, NHOOD, 63, threshold=0.5)[0])


def test_the_voxel_size_goes_with_the_labels(folder, cells):
    with h5py.File("volume.h5", "w") as file:
        file["aff"] = cells[1]
        file["aff"].attrs["resolution"] = (4.0, 8.0)
        file["aff"].attrs["offset"] = (40.0, 0.0)
    assert main(["segment", "volume.h5:/aff", "-o", "volume.h5:/seg"]) == 0
    assert main(["segment", "volume.h5:/aff", "-o", "seg.zarr", "--ngff", "0.4"]) == 0
    with h5py.File("volume.h5") as file:
        assert file["seg"].attrs["resolution"].tolist() == [4.0, 8.0]
        assert file["seg"].attrs["offset"].tolist() == [40.0, 0.0]
    steps = zarr.open_group("seg.zarr").attrs["multiscales"][0]["datasets"][0]["coordinateTransformations"]
    assert steps == [{"type": "scale", "scale": [4.0, 8.0]}, {"type": "translation", "translation": [40.0, 0.0]}]


def test_the_truth_is_checked_before_anything_is_written(refused, folder):
    np.save("negative.npy", np.full((96, 96), -1))
    assert "GT (negative.npy) must hold labels" in refused(
        "segment", "aff.npy", "-o", "seg.npy", "--gt", "negative.npy"
    )


# ----------------------------------------------------------------------------------------------------------- evaluate


def test_evaluate(folder, cells, capsys):
    labels, aff = cells
    pred = malis.affgraph_to_seg(aff, NHOOD, 30, threshold=0.8)[0]
    tifffile.imwrite("seg.tif", pred)
    assert main(["evaluate", "seg.tif", "gt.npy", "--min-size", "40", "--dice", "0.9", "--json"]) == 0
    scores = json.loads(capsys.readouterr().out)
    expected = metrics.evaluate(labels, pred, min_size=40, dice_threshold=0.9)._asdict()
    assert {name: scores[name] for name in expected} == expected
    assert 0 < scores["object_score"] < 1
    assert scores["adapted_rand_error"] == pytest.approx(skimage.metrics.adapted_rand_error(labels, pred)[0])
    voi = skimage.metrics.variation_of_information(labels[labels > 0], pred[labels > 0])
    assert (scores["voi_split"], scores["voi_merge"]) == pytest.approx(tuple(voi))
    assert main(["evaluate", "seg.tif", "gt.npy", "--min-size", "40", "--dice", "0.9"]) == 0
    printed = printed_scores(capsys.readouterr().out)
    shown = {name: str(value) if isinstance(value, int) else f"{value:.4f}" for name, value in scores.items()}
    assert printed == {name.replace("_", " "): value for name, value in shown.items()}
    assert scores["cremi_score"] == metrics.cremi_score(labels, pred).score
    assert scores["average_precision"] == metrics.average_precision(labels, pred, min_size=40).mean


def test_evaluate_counts_objects(folder, capsys):
    # Of three true objects of at least 64 pixels one is found, one missed, one split; small ones on both sides.
    truth, seg = np.zeros((40, 40), int), np.zeros((40, 40), int)
    truth[:10, :10], truth[:10, 20:30], truth[20:30, :20], truth[39, :5], truth[39, 6:11] = 1, 2, 3, 4, 5
    seg[:10, :9], seg[20:30, :10], seg[20:30, 10:20], seg[39, :5] = 7, 8, 9, 10
    np.save("truth.npy", truth)
    np.save("seg.npy", seg)
    expected = {
        "true objects": "3",
        "predicted objects": "3",
        "found objects": "1",
        "too small true objects": "2",
        "too small predicted objects": "1",
        "object score": "0.3333",
    }
    assert main(["evaluate", "seg.npy", "truth.npy"]) == 0
    assert expected.items() <= printed_scores(capsys.readouterr().out).items()
    assert main(["evaluate", "seg.npy", "truth.npy", "--min-size", "1"]) == 0
    printed = printed_scores(capsys.readouterr().out)
    assert (printed["true objects"], printed["found objects"], printed["too small true objects"]) == ("5", "2", "0")
    # `segment --gt` prints the same of what it wrote.
    np.save("all.npy", malis.seg_to_affgraph(seg, NHOOD).astype(np.float32))
    assert main(["segment", "all.npy", "-o", "again.npy", "--gt", "truth.npy"]) == 0
    printed = printed_scores(capsys.readouterr().out)
    assert {**expected, "too small predicted objects": "0"}.items() <= printed.items()


def test_nothing_counted_is_no_score(folder, capsys):
    truth, nothing = np.zeros((40, 40), int), np.zeros((40, 40), int)
    truth[::10, :9] = np.arange(1, 5)[:, None]  # four objects of 9 pixels
    np.save("truth.npy", truth)
    np.save("nothing.npy", nothing)
    assert main(["evaluate", "nothing.npy", "truth.npy"]) == 0
    printed = capsys.readouterr()
    scores = printed_scores(printed.out)
    assert scores["object score"] == scores["object recall"] == scores["average precision"] == "undefined"
    assert scores["too small true objects"] == "4"
    assert "no object of at least 64 voxels on either side" in printed.err
    assert "4 true and 0 predicted ones are smaller" in printed.err
    assert main(["evaluate", "nothing.npy", "truth.npy", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["object_score"] is None
    # Everything missed is 0.
    assert main(["evaluate", "nothing.npy", "truth.npy", "--min-size", "5"]) == 0
    printed = capsys.readouterr()
    assert printed_scores(printed.out)["object score"] == "0.0000"
    assert printed.err == ""
    assert main(["evaluate", "truth.npy", "nothing.npy", "--min-size", "5"]) == 0
    printed = capsys.readouterr()
    assert printed_scores(printed.out)["rand f score"] == "undefined"
    assert "the truth has no object" in printed.err


def test_ignored_label(folder, cells, capsys):
    labels, aff = cells
    masked = labels.astype(np.int16)
    masked[:, 50:] = -1
    np.save("masked.npy", masked)
    options = ["--ignore-label", "-1", "--json"]
    args = ["segment", "aff.npy", "-o", "seg.npy", "--threshold", "auto", "--gt", "masked.npy", "--min-size", "20"]
    assert main([*args, *options]) == 0
    segmented = json.loads(capsys.readouterr().out)
    found = malis.find_threshold([aff], [masked], NHOOD, min_size=20, ignore_label=-1)
    assert segmented["threshold"] == found.threshold
    assert segmented["object_score"] == found.score
    seg = np.load("seg.npy")
    assert main(["evaluate", "seg.npy", "masked.npy", "--min-size", "20", *options]) == 0
    scores = json.loads(capsys.readouterr().out)
    assert scores.items() <= segmented.items()
    left = metrics.evaluate(labels[:, :50], seg[:, :50], min_size=20)._asdict()
    assert {name: scores[name] for name in left} == left
    assert main(["curve", "aff.npy", "masked.npy", *options]) == 0
    best = json.loads(capsys.readouterr().out)
    assert best["f_score"] == malis.rand_curve(aff, masked, NHOOD, ignore_label=-1).f_score.max()


# -------------------------------------------------------------------------------------------------------------- curve


def test_curve(folder, cells, capsys):
    labels, aff = cells
    assert main(["curve", "aff.npy", "gt.npy", "--plot", "curve.png", "-o", "curve.npz", "--json"]) == 0
    curve = malis.rand_curve(aff, labels, NHOOD)
    best = json.loads(capsys.readouterr().out)
    assert best["threshold"] == curve.best_threshold
    assert best["f_score"] == curve.f_score.max()
    at = np.flatnonzero(curve.thresholds == curve.best_threshold)[0]
    assert best["true_positives"] == curve.true_positives[at]
    assert best["voi_split"] == curve.voi_split[at]
    with np.load("curve.npz") as written:
        assert {"thresholds", "f_score", "rand_split", "voi_merge"} < set(written)
        for name, values in written.items():
            np.testing.assert_array_equal(values, getattr(curve, name))
    assert matplotlib.image.imread("curve.png")[..., :3].std() > 0.05
    assert main(["curve", "aff.npy", "gt.npy"]) == 0
    assert printed_scores(capsys.readouterr().out)["threshold"] == f"{curve.best_threshold:.4f}"


@pytest.mark.parametrize("kind", ["pdf", "svg"])
def test_drawings(kind, folder):
    assert main(["curve", "aff.npy", "gt.npy", "--plot", f"curve.{kind}"]) == 0
    assert (folder / f"curve.{kind}").stat().st_size > 5000


# ------------------------------------------------------------------------------------------------------------ compare


def test_compare(folder, cells, capsys):
    labels, aff = cells
    for name, threshold in (("a.npy", 0.6), ("b.npy", 0.9)):
        np.save(name, malis.affgraph_to_seg(aff, NHOOD, 30, threshold=threshold)[0])
    np.save("image.npy", labels % 7)
    assert main(["compare", "a.npy", "b.npy", "gt.npy", "--image", "image.npy", "--min-size", "30", "-o", "c.png"]) == 0
    assert matplotlib.image.imread("c.png")[..., :3].std() > 0.1
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert rows[0] == ["score", "a.npy", "b.npy"]
    assert main(["compare", "a.npy", "b.npy", "gt.npy", "--min-size", "30", "-o", "c.png", "--force", "--json"]) == 0
    scores = json.loads(capsys.readouterr().out)["scores"]
    for name in ("a.npy", "b.npy"):
        expected = metrics.evaluate(labels, np.load(name), min_size=30)._asdict()
        assert {score: scores[name][score] for score in expected} == expected
    (f_scores,) = [row[-2:] for row in rows if row[:3] == ["rand", "f", "score"]]
    assert f_scores == [f"{scores[name]['rand_f_score']:.4f}" for name in ("a.npy", "b.npy")]


def test_compare_cuts_along_any_axis(folder, cells, refused):
    volume = np.stack([cells[0]] * 4)
    np.save("volume.npy", volume)
    sizes = []
    for axis in "zyx":
        assert main(["compare", "volume.npy", "volume.npy", "-o", f"{axis}.png", "--axis", axis]) == 0
        sizes.append(matplotlib.image.imread(f"{axis}.png").shape)
    assert sizes[0] != sizes[1] == sizes[2]
    args = ["compare", "volume.npy", "volume.npy", "-o", "d.png"]
    assert "section must be one of 0 to 3 along z" in refused(*args, "--section", "4")
    assert "at least one segmentation and the truth" in refused("compare", "gt.npy")
    assert "volume.npy and gt.npy must have one spatial shape" in refused("compare", "volume.npy", "gt.npy")


# --------------------------------------------------------------------------------------------------------------- demo


def test_demo(folder, capsys):
    assert main(["demo", "--seed", "3"]) == 0
    picture = matplotlib.image.imread("malis_demo.png")
    assert picture.shape[1] == 1200
    assert picture[..., :3].std() > 0.1
    scores = printed_scores(capsys.readouterr().out)
    assert 0.7 < float(scores["object score"]) < 1
    assert main(["demo", "--seed", "4", "-o", "other.png"]) == 0
    assert printed_scores(capsys.readouterr().out)["object score"] != scores["object score"]


# ---------------------------------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["cut", "aff.npy"], "No such command 'cut'"),
        (["segment"], "Missing argument"),
        (["segment", "aff.npy"], "Missing option '--output'"),
        (["segment", "aff.npy", "-o", "seg.npy", "--min-size", "-1"], "--min-size"),
        (["segment", "aff.npy", "-o", "seg.npy", "--score", "dice"], "--score"),
        (["segment", "aff.npy", "-o", "seg.npy", "--colour", "red"], "--colour"),
        (
            ["segment", "aff.npy", "-o", "seg.npy", "--threshold", "high"],
            "--threshold must be a number or auto, got 'high'",
        ),
        (["segment", "aff.npy", "-o", "seg.npy", "--threshold", "nan"], "--threshold must be a number or auto"),
        (["segment", "aff.npy", "-o", "seg.npy", "--threshold", "auto"], "needs the truth: --gt"),
        (["segment", "none.npy", "-o", "seg.npy"], "none.npy does not exist"),
        (["segment", "aff.npy", "-o", "seg.png"], "'seg.png' must end in .npy"),
        (["segment", "aff.npy", "-o", "none/seg.npy"], "none is no folder"),
        (["segment", "aff.npy", "-o", "aff.npy", "--force"], "aff.npy is an input"),
        (["segment", "aff.npy", "-o", "gt.npy", "--force", "--gt", "gt.npy"], "gt.npy is an input"),
        (["segment", "gt.npy", "-o", "seg.npy"], "one channel for each of 1 to 3 spatial axes"),
        (
            ["segment", "aff.npy", "-o", "seg.npy", "--nhood", "[[-1,0]]"],
            "one channel for each of the 1 offsets of --nhood and 2 spatial axes, got an array of shape (2, 96, 96) "
            "and dtype float32 in aff.npy: --channel-axis says",
        ),
        (["segment", "aff.npy", "-o", "seg.npy", "--nhood", "[-1,0]"], "--nhood must be a list of offsets"),
        (["segment", "aff.npy", "-o", "seg.npy", "--nhood", "nearest"], "--nhood must be a list of offsets"),
        (["segment", "aff.npy", "-o", "seg.npy", "--channel-axis", "5"], "has 3 axes, got the channel axis 5"),
        (["segment", "nan.npy", "-o", "seg.npy"], "nan.npy must hold numbers, got NaN in channel 1 at voxel [0, 3]"),
        (["segment", "text.npy", "-o", "seg.npy"], "AFF must have dtype"),
        (
            ["segment", "aff.npy", "-o", "seg.npy", "--gt", "other.npy"],
            "aff.npy and other.npy must have one spatial shape, got (96, 96) and (3, 4): --gt-axes",
        ),
        (["segment", "broken.npy", "-o", "seg.npy"], "broken.npy cannot be read as a NumPy file"),
        (
            ["evaluate", "gt.npy", "other.npy"],
            "gt.npy and other.npy must have one spatial shape, got (96, 96) and (3, 4)",
        ),
        (["evaluate", "gt.npy", "gt.npy", "--dice", "2"], "--dice"),
        (["evaluate", "gt.npy", "gt.npy", "--ignore-label", "none"], "--ignore-label"),
        (
            ["evaluate", "gt.npy", "negative.npy", "--ignore-label", "-2"],
            "GT (negative.npy) must hold labels of at least",
        ),
        (["curve", "aff.npy", "negative.npy", "--ignore-label", "-1"], "negative.npy has no object"),
        (["evaluate", "negative.npy", "gt.npy"], "SEG (negative.npy) must hold labels of at least 0, got -1"),
        (["curve", "aff.npy", "gt.npy", "--plot", "curve.gif"], "curve.gif must end in .png or .pdf or .svg"),
        (["curve", "aff.npy", "gt.npy", "--plot", "there.png"], "there.png exists"),
        (["curve", "aff.npy", "gt.npy", "-o", "curve.csv"], "curve.csv must end in .npz"),
        (["curve", "point.npy", "one.npy"], "has no edge between two voxels"),
        (["demo", "-o", "there.png"], "there.png exists: --force replaces it"),
        (["demo", "--seed", "-1"], "--seed"),
    ],
)
def test_bad_input_exits_with_2_and_one_line(args, message, refused, folder):
    np.save("other.npy", np.ones((3, 4), int))
    np.save("negative.npy", np.full((96, 96), -1))
    np.save("nan.npy", np.where(np.arange(24).reshape(2, 3, 4) == 15, np.nan, 0.5))
    np.save("text.npy", np.array([["a"]]))
    np.save("point.npy", np.ones((2, 1, 1)))
    np.save("one.npy", np.ones((1, 1), int))
    (folder / "broken.npy").write_bytes(b"\x93NUMPY\x01\x00")
    (folder / "there.png").write_bytes(b"")
    assert message in refused(*args)


def test_an_error_of_the_program_is_not_hidden(folder, monkeypatch):
    monkeypatch.setattr("malis.affgraph_to_seg", lambda *args, **options: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        main(["segment", "aff.npy", "-o", "seg.npy"])


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted(number, folder):
    """The data are being written when the signal comes; nothing of them is left."""
    code = (
        "import signal, sys, time, numpy as np\n"
        # A shell starts its background jobs with this signal ignored, and they pass it on to theirs.
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "def save(file, array):\n"
        "    file.write(b'half'); file.flush(); print('writing', flush=True); time.sleep(60)\n"
        "np.save = save\n"
        "from malis.__main__ import main\n"
        "sys.exit(main(['segment', 'aff.npy', '-o', 'seg.npy']))"
    )
    before = sorted(os.listdir())
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as run:
        assert run.stdout.readline() == "writing\n"
        assert len(os.listdir()) == len(before) + 2  # the half file and its lock
        time.sleep(0.1)
        run.send_signal(number)
        out, err = run.communicate(timeout=60)
    assert (run.returncode, out, err) == (130, "", "malis: interrupted\n")
    assert sorted(os.listdir()) == before


# ------------------------------------------------------------------------------------------------------------ package


def test_help(capsys):
    assert main([]) == 0
    whole = capsys.readouterr().out
    for name in ("segment", "evaluate", "curve", "compare", "demo"):
        assert name in whole
        assert main([name, "--help"]) == 0
        assert "--" in capsys.readouterr().out


def test_version(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"malis {malis.__version__}\n"


def test_is_installed_as_a_command():
    (command,) = importlib.metadata.distribution("malis-loss").entry_points.select(name="malis")
    assert command.load() is main


def test_as_a_module():
    result = subprocess.run([sys.executable, "-m", "malis", "--version"], capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout) == (0, f"malis {malis.__version__}\n")


@pytest.mark.parametrize("missing", ["typer", "rich"])
def test_without_the_extra(missing):
    code = f"import sys; sys.modules[{missing!r}] = None; from malis.__main__ import main; sys.exit(main(['demo']))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 2
    assert result.stderr.splitlines() == [f"malis: the command needs {missing}: pip install {missing}"]
