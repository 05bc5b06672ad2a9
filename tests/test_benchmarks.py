"""The benchmarks run and check their results. Times are never asserted."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import json
import platform
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import malis

FOLDER = Path(__file__).resolve().parents[1] / "benchmarks"

pytest.importorskip("scipy", reason="the inputs of the benchmarks are made with scipy")

ROWS = {
    "loss", "loss_large", "growth", "pairs", "batch", "torch", "weights_pos", "weights_neg", "threads", "memory",
    "components", "connect_labels", "seg_to_affgraph", "curve", "worst_one_object", "worst_random_labels",
    "worst_all_affinities_equal", "worst_no_background", "worst_pure_noise_affinities", "worst_background_only",
    "worst_12_long_range_offsets",
    "edge_mask_all", "edge_mask_slab", "edge_mask_cube", "edge_mask_random", "unlabelled_slab", "unlabelled_cube",
    "edge_mask_slab_large", "edge_mask_cube_large", "unlabelled_slab_large", "unlabelled_cube_large",
    "background", "margin_0", "cross_entropy", "float64", "free_negative", "loss_2009", "spanning_tree", "rand_curve",
    "watershed", "nodes_pos", "nodes_neg", "nodes_step", "nodes_edge_pairs", "nodes_edge_pairs_2009",
    "growth_edge_mask_all", "growth_edge_mask_slab", "growth_edge_mask_cube", "growth_edge_mask_random",
    "growth_unlabelled_slab", "growth_unlabelled_cube", "growth_background", "growth_margin_0", "growth_cross_entropy",
    "growth_float64", "growth_free_negative", "growth_loss_2009", "growth_spanning_tree", "growth_rand_curve",
    "growth_watershed", "growth_nodes_pos", "growth_nodes_neg", "growth_nodes_edge_pairs",
    "growth_nodes_edge_pairs_2009", "growth_worst_random_labels",
    "threads_edge_mask_slab", "threads_edge_mask_cube", "threads_unlabelled_slab", "threads_unlabelled_cube",
    "threads_rand_curve", "threads_watershed",
}  # fmt: skip
ADAPTERS = {
    "torch": ["torch"],
    "tensorflow": ["tensorflow"],
    "jax": ["jax"],
    "keras-tensorflow": ["keras", "tensorflow"],
    "keras-torch": ["keras", "torch"],
    "keras-jax": ["keras", "jax"],
}
# What a row or a candidate of the comparison needs beyond NumPy and SciPy.
NEEDS = {"torch": "torch", "components": "cc3d", "connect_labels": "skimage"} | {
    key: "skimage" for key in ROWS if key.endswith("curve")
}
CANDIDATES = {
    "higra.bpt_canonical": "higra",
    "cc3d.color_connectivity_graph": "cc3d",
    "skimage.measure.label": "skimage",
}
ALWAYS = {
    "numpy.copy", "numpy.argsort", "malis.malis_loss", "malis.pairs", "malis.pairs (2009)", "malis.affgraph_to_seg",
    "scipy minimum_spanning_tree", "scipy connected_components", "malis.malis_loss, masked", "malis.rand_curve",
    "malis.watershed_from_affgraph",
}  # fmt: skip


def installed(package: str) -> bool:
    return importlib.util.find_spec(package) is not None


@pytest.fixture
def load(monkeypatch):
    """Import a module of the benchmarks, which are scripts and not a package, and forget it afterwards.

    The examples have modules of the same names.
    """
    names = [path.stem for path in FOLDER.glob("*.py")]
    others = {name: sys.modules.pop(name) for name in names if name in sys.modules}
    monkeypatch.syspath_prepend(str(FOLDER))
    yield importlib.import_module
    for name in names:
        sys.modules.pop(name, None)
    sys.modules.update(others)


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, cwd=FOLDER.parent)


@pytest.fixture
def benchmark(load, tmp_path, monkeypatch, capsys):
    """Run the quick benchmark in this process; returns the numbers, and what is printed."""
    threads = malis.get_num_threads()

    def benchmark(*arguments: str) -> tuple[dict[str, Any], str]:
        file = tmp_path / "numbers.json"
        options = ["--quick", "--json", str(file), "--plots", str(tmp_path), *arguments]
        monkeypatch.setattr(sys, "argv", ["run.py", *options])
        assert load("run").main() == 0
        return json.loads(file.read_text()), capsys.readouterr().out

    yield benchmark
    malis.set_num_threads(threads)


@pytest.mark.slow
def test_all_rows(benchmark):
    results, printed = benchmark("--sizes", "--adapters")
    rows = {row["key"]: row for row in results["rows"]}
    assert set(rows) == ROWS
    for key, row in rows.items():
        cells = [row["what"], "not measured" if row["value"] is None else f"{row['value']:.3g}"]
        assert all(cell in printed for cell in cells)
        assert "{" not in row["what"] + row["unit"]
        if key == "memory" and not Path("/proc/self/clear_refs").exists():
            assert row["value"] is None and "/proc" in row["note"]
        elif key in NEEDS and not installed(NEEDS[key]):
            assert row["value"] is None and "not installed" in row["note"]
            assert row["note"] in printed
        else:
            assert row["checked"], f"nothing was checked for {key}"
            assert np.isfinite(row["value"]) and row["value"] >= 0
    assert "The floor" in printed and "at 32^3; `malis_loss` takes" in printed
    assert "comparison" not in results and results["adapters"] == []


@pytest.mark.slow
def test_comparison_and_its_plots(benchmark, tmp_path):
    results, printed = benchmark("--rows", "--adapters")
    assert results["rows"] == []
    seconds, missing = results["comparison"]["seconds"], results["comparison"]["missing"]
    assert set(seconds) == ALWAYS | set(CANDIDATES)
    for candidate, points in seconds.items():
        if installed(CANDIDATES.get(candidate, "numpy")):
            assert set(points) == {"16", "24"}
        else:
            assert points == {}
            assert missing[f"{candidate}, 16^3"] in printed
    checked = " ".join(results["comparison"]["checked"])
    for candidate, package in CANDIDATES.items():
        assert (candidate in checked) == installed(package)
    if installed("matplotlib"):
        pictures = {path.stem for path in tmp_path.glob("*.png")}
        assert {"benchmark_time", "benchmark_growth", "benchmark_phases", "benchmark_threads"} <= pictures


def check_adapters(results: dict[str, Any], printed: str, wanted: set[str]) -> None:
    problems: dict[tuple[str, str], list[str]] = {}
    for m in results["adapters"]:
        problems.setdefault((m["framework"], m["layout"]), []).append(m["problem"])
        assert m["ratio"] == pytest.approx(m["seconds"] / m["numpy_seconds"])
        assert m["ratio"] > 0
    there = {name for name in wanted if all(map(installed, ADAPTERS[name]))}
    assert {framework for framework, _ in problems} == there
    assert len(results["missing_adapters"]) == len(wanted) - len(there)
    assert all(problem == ["32^3", "8 x 64^2"] for problem in problems.values())
    for framework in there - {"torch"}:
        assert (framework, "channels_last") in problems
    assert printed.count("Keras on") == 2 * sum(name.startswith("keras") for name in there) + sum(
        name.startswith("Keras") for name in results["missing_adapters"]
    )


@pytest.mark.slow
def test_rows_and_adapters_can_be_chosen(benchmark):
    results, printed = benchmark("--rows", "pairs", "batch", "--sizes", "--adapters", "torch")
    assert [row["key"] for row in results["rows"]] == ["pairs", "batch"]
    assert "comparison" not in results
    check_adapters(results, printed, {"torch"})


@pytest.mark.slow  # it imports every framework, three of them under Keras once more
def test_all_adapters(benchmark):
    results, printed = benchmark("--rows", "--sizes")
    check_adapters(results, printed, set(ADAPTERS))


def site() -> Path:
    """Return the folder that holds the package under test."""
    return Path(malis.__file__).resolve().parents[1]


def test_against_another_build(benchmark):
    results, printed = benchmark("--rows", "loss", "background", "memory", "--against", str(site()))
    assert [row["key"] for row in results["builds"]] == ["loss", "background"]
    for row in results["builds"]:
        assert row["ratio"] == pytest.approx(row["seconds"] / row["other_seconds"])
        assert f"| {row['key']} | {row['what']} |" in printed
    assert "rows" not in results


def test_wrong_results_of_another_build_are_noticed(tmp_path):
    shutil.copytree(site() / "malis", tmp_path / "malis")
    with (tmp_path / "malis" / "__init__.py").open("a") as file:
        file.write(
            "\nright = malis_loss\n"
            "def malis_loss(*args, **kwargs):\n"
            "    result = right(*args, **kwargs)\n"
            "    return result._replace(loss=2 * result.loss)\n"
        )
    finished = run(str(FOLDER / "run.py"), "--quick", "--rows", "loss", "--against", str(tmp_path))
    assert finished.returncode == 1
    assert re.search(rf"malis from {re.escape(str(tmp_path))}: loss .* by the formula", finished.stderr)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--docs", "--adapters", "torch"], "--docs takes whole tables"),
        (["--docs", "--against", "."], "do not go together"),
        (["--against", "no_such_folder"], "the folder that holds a built package malis, got no_such_folder"),
        (["--rows", "no_such_row"], "invalid choice"),
        (["--sizes", "8"], "--sizes must be at least 16"),
        (["--threads", "0"], "must be at least 1"),
    ],
)
def test_bad_options(options, message, load, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["run.py", *options])
    with pytest.raises(SystemExit) as stopped:
        load("run").arguments()
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err


def test_no_row_without_a_check(load):
    targets, calls = load("targets"), load("calls")
    row = {"key": "new", "group": "new", "what": "{small}", "limit": 1, "unit": "x"}
    with pytest.raises(ValueError, match="new: nothing checks the result of argsort"):
        targets.Target(**row, call=calls.argsort(), yardstick=calls.argsort())

    def check(volume, order):
        load("checks").require(order.size == volume[0].size, "not as many as voxels")

    wrong = replace(calls.argsort(), check=check)
    target = targets.Target(**row, call=wrong, yardstick=calls.argsort())
    with pytest.raises(load("checks").WrongResult, match="not as many as voxels"):
        load("measure").fill([target], targets.Sizes(16, 16, 32), threads=1, repetitions=1)


def test_documentation_is_rewritten_between_markers(load, tmp_path):
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- benchmark:targets -->\nold\n<!-- end of benchmark:targets -->\nafter\n")
    assert load("report").replace_blocks(page, {"targets": "| new \\1 |", "machine": "unused"})
    assert page.read_text() == (
        "before\n<!-- benchmark:targets -->\n| new \\1 |\n<!-- end of benchmark:targets -->\nafter\n"
    )


@pytest.mark.parametrize("page", ["docs/benchmarks.md"])
def test_documentation_has_the_markers(page):
    text = (FOLDER.parent / page).read_text()
    for block in ("machine", "targets", "remarks", "comparison", "missing", "adapters"):
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
    seeds = np.array([[0, 1, 0], [0, 2, 0]])
    nearest = malis.mknhood2d()
    checks.watershed(np.array([[1, 1, 1], [2, 2, 2]]), seeds, nearest)
    with pytest.raises(checks.WrongResult, match="own voxel"):
        checks.watershed(np.array([[1, 2, 1], [2, 2, 2]]), seeds, nearest)
    with pytest.raises(checks.WrongResult, match="without a label"):
        checks.watershed(np.array([[1, 1, 0], [2, 2, 2]]), seeds, nearest)
    with pytest.raises(checks.WrongResult, match="differ"):
        checks.watershed(np.array([[1, 1, 2], [2, 2, 1]]), seeds, nearest)
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


# ---------------------------------------------------------------------------------------------- the adapters
def test_wrong_adapters_are_noticed(load, monkeypatch):
    pytest.importorskip("torch")
    adapters, checks = load("adapters"), load("checks")
    make = adapters.CALLS["torch"]

    def wrong(change):
        def made(*args):
            call = make(*args)
            return lambda: change(*call())

        return made

    assert [m.layout for m in adapters._measure("torch", 16, 16, 1, 1)] == ["channels_first"] * 2
    monkeypatch.setitem(adapters.CALLS, "torch", wrong(lambda loss, grad: (1.001 * loss, grad)))
    with pytest.raises(checks.WrongResult, match=r"torch, channels_first: loss .*, malis_loss"):
        adapters._measure("torch", 16, 16, 1, 1)
    monkeypatch.setitem(adapters.CALLS, "torch", wrong(lambda loss, grad: (loss, grad.flip(1))))
    with pytest.raises(checks.WrongResult, match="another gradient"):
        adapters._measure("torch", 16, 16, 1, 1)


@pytest.mark.slow
def test_chunked_volumes():
    pytest.importorskip("dask.array")
    result = run("benchmarks/chunked.py", "--shape", "40", "40", "40", "--chunk", "20", "--repeat", "1")
    assert result.returncode == 0, result.stderr
    found = {}
    for line in result.stdout.splitlines()[1:]:
        stage, how = line[:16].strip(), line[17:].split()[0]
        found[stage, how] = ast.literal_eval(line[line.index("{") :])
    found["components, kept", "whole"] = found["components", "whole"]
    loss, loss_of_chunks = found.pop(("loss", "whole"))["loss"], found.pop(("loss", "chunks"))["loss"]
    assert loss_of_chunks == pytest.approx(loss, rel=1e-12)
    assert found["tree", "whole"] == {"edges": 40**3 - 1}
    stages = {stage for stage, _ in found} - {"reading"}
    assert {"components, kept", "segmentations", "watershed", "basins", "pairs", "curve"} < stages
    for stage in stages:
        whole, chunks = found[stage, "whole"], found[stage, "chunks"]
        assert whole == {name: value for name, value in chunks.items() if name in whole}
