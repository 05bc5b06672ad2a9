"""The benchmarks run and check their results. Times are never asserted."""

from __future__ import annotations

import importlib.util
import json
import platform
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

import malis

FOLDER = Path(__file__).resolve().parents[1] / "benchmarks"

pytest.importorskip("scipy", reason="the inputs of the benchmarks are made with scipy")

ROWS = {
    "loss", "loss_large", "growth", "pairs", "batch", "torch", "weights_pos", "weights_neg", "threads", "memory",
    "components", "seg_to_affgraph", "curve", "worst_one_object", "worst_random_labels",
    "worst_all_affinities_equal", "worst_no_background", "worst_pure_noise_affinities", "worst_background_only",
    "worst_12_long_range_offsets",
}  # fmt: skip
# What a row or a candidate of the comparison needs beyond NumPy and SciPy.
NEEDS = {"torch": "torch", "components": "cc3d", "curve": "skimage"}
CANDIDATES = {
    "higra.bpt_canonical": "higra",
    "cc3d.color_connectivity_graph": "cc3d",
    "skimage.measure.label": "skimage",
}
ALWAYS = {
    "numpy.copy", "numpy.argsort", "malis.malis_loss", "malis.pairs", "malis.pairs (2009)", "malis.affgraph_to_seg",
    "scipy minimum_spanning_tree", "scipy connected_components",
}  # fmt: skip


def installed(package: str) -> bool:
    return importlib.util.find_spec(package) is not None


@pytest.fixture
def load(monkeypatch):
    """Import a module of the benchmarks, which are scripts and not a package, and forget it afterwards."""
    before = set(sys.modules)
    monkeypatch.syspath_prepend(str(FOLDER))

    def load(name: str) -> ModuleType:
        return importlib.import_module(name)

    yield load
    for name in set(sys.modules) - before:
        if getattr(sys.modules[name], "__file__", None) and str(FOLDER) in str(sys.modules[name].__file__):
            del sys.modules[name]


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, cwd=FOLDER.parent)


def test_quick_run(tmp_path):
    finished = run(str(FOLDER / "run.py"), "--quick", "--json", str(tmp_path / "all.json"), "--plots", str(tmp_path))
    assert finished.returncode == 0, finished.stderr
    results = json.loads((tmp_path / "all.json").read_text())

    rows = {row["key"]: row for row in results["rows"]}
    assert set(rows) == ROWS
    for key, row in rows.items():
        cells = [row["what"], "not measured" if row["value"] is None else f"{row['value']:.3g}"]
        assert all(cell in finished.stdout for cell in cells)
        if key == "memory" and not Path("/proc/self/clear_refs").exists():
            assert row["value"] is None and "/proc" in row["note"]
        elif key in NEEDS and not installed(NEEDS[key]):
            assert row["value"] is None and "not installed" in row["note"]
            assert row["note"] in finished.stdout
        else:
            assert row["checked"], f"nothing was checked for {key}"
            assert np.isfinite(row["value"]) and row["value"] >= 0

    seconds, missing = results["comparison"]["seconds"], results["comparison"]["missing"]
    assert set(seconds) == ALWAYS | set(CANDIDATES)
    for candidate, points in seconds.items():
        if installed(CANDIDATES.get(candidate, "numpy")):
            assert set(points) == {"16", "24"}
        else:
            assert points == {}
            assert missing[f"{candidate}, 16^3"] in finished.stdout
    checked = " ".join(results["comparison"]["checked"])
    for candidate, package in CANDIDATES.items():
        assert (candidate in checked) == installed(package)

    if installed("matplotlib"):
        pictures = {path.stem for path in tmp_path.glob("*.png")}
        assert {"benchmark_time", "benchmark_phases", "benchmark_threads"} <= pictures


def test_rows_can_be_chosen(tmp_path):
    finished = run(
        str(FOLDER / "run.py"), "--quick", "--rows", "pairs", "--sizes", "--json", str(tmp_path / "pairs.json")
    )
    assert finished.returncode == 0, finished.stderr
    results = json.loads((tmp_path / "pairs.json").read_text())
    assert [row["key"] for row in results["rows"]] == ["pairs"]
    assert "comparison" not in results


def test_documentation_is_rewritten_between_markers(load, tmp_path):
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- benchmark:targets -->\nold\n<!-- end of benchmark:targets -->\nafter\n")
    assert load("run").replace_blocks(page, {"targets": "| new \\1 |", "machine": "unused"})
    assert page.read_text() == (
        "before\n<!-- benchmark:targets -->\n| new \\1 |\n<!-- end of benchmark:targets -->\nafter\n"
    )


@pytest.mark.parametrize("page", ["docs/benchmarks.md"])
def test_documentation_has_the_markers(page):
    text = (FOLDER.parent / page).read_text()
    for block in ("machine", "targets", "remarks", "comparison", "missing"):
        assert text.count(f"<!-- benchmark:{block} -->\n") == text.count(f"<!-- end of benchmark:{block} -->\n") == 1


def test_realistic_input(load):
    seg, aff, nhood = load("data").realistic((48, 48, 48))
    assert seg.dtype == np.int32 and aff.dtype == np.float32
    sizes = np.bincount(load("data").cells((48, 48, 48), background=False).ravel())
    assert sizes[0] == 0 and 1900 < sizes[1:].mean() < 2200
    # One voxel of background between any two cells, and not more than that.
    foreground = np.pad(seg, 1)
    for axis in range(3):
        ahead = np.roll(foreground, -1, axis)
        assert not np.any((foreground != ahead) & (foreground != 0) & (ahead != 0))
    assert 0.1 < np.mean(seg == 0) < 0.35
    truth = malis.seg_to_affgraph(seg, nhood) != 0
    assert aff.min() == 0 and aff.max() == 1
    assert abs(aff[truth].mean() - 0.8) < 0.02 and abs(aff[~truth].mean() - 0.2) < 0.02


def test_wrong_results_are_noticed(load):
    checks, data = load("checks"), load("data")
    seg, aff, nhood = data.realistic((16, 16, 16))
    pos, neg = malis.pairs(aff, seg, nhood)
    checks.pairs(seg, nhood, pos, neg)
    one_off = neg.copy()
    one_off[np.unravel_index(np.argmax(neg), neg.shape)] -= 1
    with pytest.raises(checks.WrongResult, match="negative pairs"):
        checks.pairs(seg, nhood, pos, one_off)
    with pytest.raises(checks.WrongResult):
        checks.pairs(seg, nhood, pos[::-1], neg)

    loss, grad = malis.malis_loss(aff, seg, nhood)
    checks.loss(aff, seg, nhood, loss, grad)
    with pytest.raises(checks.WrongResult, match="by the formula"):
        checks.loss(aff, seg, nhood, 1.001 * loss, grad)
    with pytest.raises(checks.WrongResult, match="gradient"):
        checks.loss(aff, seg, nhood, loss, -grad)
    with pytest.raises(checks.WrongResult, match="decide nothing"):
        checks.loss(aff, seg, nhood, loss, np.where((pos == 0) & (neg == 0), np.float32(1e-3), grad))

    first = np.array([1, 1, 2, 0, 3])
    checks.same_partition(first, np.array([5, 5, 1, 2, 3]))
    for merged_or_split in ([5, 5, 5, 2, 3], [5, 4, 1, 2, 3], [5, 5, 1, 2, 2]):
        with pytest.raises(checks.WrongResult, match="differ"):
            checks.same_partition(first, np.array(merged_or_split))


@pytest.mark.parametrize("axis_sign", [-1, 1])
def test_connectivity_graph_of_cc3d(load, rng, axis_sign):
    cc3d = pytest.importorskip("cc3d", reason="cc3d (connected-components-3d) is not installed")
    seg = rng.integers(1, 3, (4, 5, 6)).astype(np.int32)
    nhood = axis_sign * np.eye(3, dtype=int)
    graph = load("yardsticks").connectivity_graph(malis.seg_to_affgraph(seg, nhood), nhood, 0.5)
    # cc3d's own graph of an image, which lets everybody out of the volume.
    own = cc3d.voxel_connectivity_graph(np.asfortranarray(seg.T), connectivity=6)
    inside = np.full(graph.shape, 63, np.uint8)
    for axis, (ahead, behind) in enumerate(((1, 2), (4, 8), (16, 32))):
        np.moveaxis(inside, axis, 0)[-1] -= ahead
        np.moveaxis(inside, axis, 0)[0] -= behind
    np.testing.assert_array_equal(graph, own & inside)


# ----------------------------------------------------------------------------------- the guard of instructions
def test_more_instructions_are_noticed(load, capsys):
    guard = load("instructions")
    stored = {"compiler": "gcc 12", "instructions_per_edge": {"loss": 100.0, "pairs": 50.0}}
    assert guard.compare(stored, {"loss": 114.0, "pairs": 50.0}, "gcc 12") == []
    (slower,) = guard.compare(stored, {"loss": 116.0, "pairs": 50.0}, "gcc 12")
    assert slower.startswith("loss takes 1.16 x")
    assert guard.compare(stored, {"loss": 139.0, "pairs": 50.0}, "gcc 14") == []
    assert len(guard.compare(stored, {"loss": 141.0, "pairs": 71.0}, "gcc 14")) == 2
    (unknown,) = guard.compare(stored, {"components": 1.0}, "gcc 12")
    assert "no stored count" in unknown
    capsys.readouterr()
    assert guard.compare(stored, {"loss": 80.0}, "gcc 12") == []
    assert "faster" in capsys.readouterr().out


def test_stored_instructions(load):
    guard = load("instructions")
    stored = json.loads(guard.STORED.read_text())
    assert set(stored["instructions_per_edge"]) == set(guard.WHAT)
    assert all(count > 0 for count in stored["instructions_per_edge"].values())
    assert stored["compiler"] and stored["machine"]


def test_guard_says_what_it_cannot_count(load, monkeypatch, capsys):
    guard = load("instructions")
    stored = json.loads(guard.STORED.read_text())
    monkeypatch.setattr(platform, "machine", lambda: stored["machine"])
    monkeypatch.setenv("CXX", "no-such-compiler")
    monkeypatch.setattr(sys, "argv", ["instructions.py"])
    assert guard.main() == 0
    assert "no C++ compiler 'no-such-compiler'" in capsys.readouterr().out
    monkeypatch.setattr(sys, "argv", ["instructions.py", "--strict"])
    assert guard.main() == 2
