"""Measure malis against its targets and against what else there is; print the table, save the plots.

    python benchmarks/run.py                      the table of targets, the comparison, plots in build/benchmarks
    python benchmarks/run.py --quick              small sizes: does everything run, are all results right?
    python benchmarks/run.py --rows pairs batch --sizes --adapters    two rows of the table and nothing else
    python benchmarks/run.py --rows --sizes --adapters torch jax      two of the adapters and nothing else
    python benchmarks/run.py --docs               rewrite the tables and plots of docs/benchmarks.md and README.md

Every function runs in turn with its yardstick, in one process, and the table shows ratios of medians. Results are
checked before times are taken; a wrong one ends the run. Install what is compared with:
``pip install "malis-loss[benchmarks,torch,tensorflow,keras,jax]"``.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import re
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import adapters
import checks
import data
import memory
import numpy as np
import yardsticks
from timing import Times, alternate, as_time, available_memory, machine, median

import malis

ROOT = Path(__file__).resolve().parents[1]

Functions = dict[str, Callable[[], Any]]

# An alternative that takes longer is not run on the next larger volume.
TOO_SLOW_SECONDS = 90


@dataclass
class Row:
    """One line of the table of targets."""

    key: str
    what: str
    limit: float
    unit: str
    at_most: bool = True
    value: float | None = None
    measured: str = ""
    yardstick: str = ""
    checked: bool = False
    note: str = ""

    @property
    def met(self) -> bool | None:
        if self.value is None:
            return None
        return self.value <= self.limit if self.at_most else self.value >= self.limit

    def target(self) -> str:
        return f"{'at most' if self.at_most else 'at least'} {self.limit:g} {self.unit}"

    def cells(self, quick: bool) -> list[str]:
        if self.value is None:
            return [self.what, self.target(), "not measured", "", "", self.note]
        met = "-" if quick else "yes" if self.met else "**no**"
        return [self.what, self.target(), f"{self.value:.3g}", self.measured, self.yardstick, met]


HEADER = ["what", "target", "measured", "median", "median of the yardstick", "met"]
ARGSORT = "x `numpy.argsort`"


@dataclass(frozen=True)
class Sizes:
    small: int
    large: int
    image: int

    def cube(self, name: str) -> tuple[int, int, int]:
        n = getattr(self, name)
        return n, n, n


FULL, QUICK = Sizes(128, 256, 512), Sizes(32, 40, 64)


def rows_for(sizes: Sizes) -> list[Row]:
    """The targets, in the order of the table."""
    s, large, image = f"{sizes.small}^3", f"{sizes.large}^3", f"{sizes.image}^2"
    rows = [
        Row("loss", f"`malis_loss` (loss and gradient), {s}, 3 offsets", 0.25, ARGSORT),
        Row("loss_large", f"`malis_loss`, {large}, 3 offsets", 0.25, ARGSORT),
        Row("growth", f"`malis_loss`, {large}, 3 offsets", 10, f"x its own time at {s}"),
        Row("pairs", f"`pairs` (dense int64 counts), {s}", 0.5, ARGSORT),
        Row("batch", f"`malis_loss`, batch of 8 images of {image}, 2 offsets", 0.35, ARGSORT + " of the batch"),
        Row("torch", f"PyTorch `MalisLoss`, forward and backward, 2 x {s}", 0.5, ARGSORT + " of one sample"),
        Row("weights_pos", f"`malis_loss_weights` (drop-in), positive, {s}", 1.0, ARGSORT),
        Row("weights_neg", f"`malis_loss_weights` (drop-in), negative, {s}", 1.0, ARGSORT),
        Row("threads", f"`malis_loss`, {large}, 2 threads", 1.6, "x as fast as 1 thread", at_most=False),
        Row("memory", "peak memory of `malis_loss` beyond inputs and outputs", 16, "bytes per edge"),
        Row(
            "components",
            f"`affgraph_to_seg(aff, nhood, threshold={yardsticks.THRESHOLD})`, {large}",
            1.0,
            "x `cc3d.color_connectivity_graph`",
        ),
        Row("seg_to_affgraph", f"`seg_to_affgraph`, {large}", 1.5, "x `numpy.copyto` of its output"),
        Row("curve", f"`rand_curve` (all thresholds), {s}", 1.0, "x 10 thresholds, segmented and scored one by one"),
    ]
    for case in data.WORST:
        per_edge = " (time per edge)" if case == "12 long-range offsets" else ""
        rows.append(Row(worst_key(case), f"`malis_loss`, {s}, {case}{per_edge}", 4, "x the realistic case"))
    return rows


def worst_key(case: str) -> str:
    return "worst_" + re.sub(r"\W+", "_", case)


def log(message: str) -> None:
    print(message, file=sys.stderr, flush=True)


def installed(package: str) -> bool:
    return importlib.util.find_spec(package) is not None


# ------------------------------------------------------------------------------------------ the target table
class Table:
    """Fills the rows, group by group: what shares a volume shares its repetitions."""

    def __init__(self, sizes: Sizes, wanted: set[str], threads: int, repetitions: int) -> None:
        self.sizes, self.threads, self.repetitions = sizes, threads, repetitions
        self.rows = {row.key: row for row in rows_for(sizes) if row.key in wanted}
        self.lines: list[str] = []  # what is worth a sentence below the table
        self.threads_times: dict[str, dict[int, float]] = {}

    def has(self, *keys: str) -> bool:
        return any(key in self.rows for key in keys)

    def ratio(self, key: str, times: Times, name: str, yardstick: str, per: float = 1) -> None:
        """Fill a row with the ratio of two medians, each per so many units."""
        if key not in self.rows:
            return
        row = self.rows[key]
        own, other = median(times, name), median(times, yardstick)
        row.value = own / other / per if row.at_most else other / own
        row.measured, row.yardstick = as_time(own), as_time(other)

    def checked(self, *keys: str) -> None:
        for key in keys:
            if key in self.rows:
                self.rows[key].checked = True

    def fill(self) -> None:
        self.small()
        self.large()
        self.batch()
        self.torch()
        self.memory()
        self.worst()

    def small(self) -> None:
        if not self.has("loss", "pairs", "weights_pos", "weights_neg", "curve"):
            return
        seg, aff, nhood = data.realistic(self.sizes.cube("small"))
        log(f"{self.sizes.small}^3")
        functions: Functions = {"argsort": lambda: np.argsort(aff.ravel())}
        if self.has("loss"):
            functions["loss"] = lambda: malis.malis_loss(aff, seg, nhood)
            functions["floor"] = lambda: aff.copy()
            checks.loss(aff, seg, nhood, *malis.malis_loss(aff, seg, nhood))
        if self.has("pairs"):
            functions["pairs"] = lambda: malis.pairs(aff, seg, nhood)
        counts = malis.pairs(aff, seg, nhood)
        checks.pairs(seg, nhood, *counts)
        del counts
        self.checked("loss", "pairs")
        functions.update(self.drop_in(seg, aff, nhood))
        functions.update(self.curve(seg, aff, nhood))
        times = alternate(functions, self.repetitions)
        for key in ("loss", "pairs", "weights_pos", "weights_neg"):
            self.ratio(key, times, key, "argsort")
        if "sweep" in functions:
            self.ratio("curve", times, "curve", "sweep")
        if self.has("loss"):
            floor, own = median(times, "floor"), median(times, "loss")
            self.lines.append(
                f"The floor, reading the affinities and writing as many numbers to new memory once (`aff.copy()`), is "
                f"{as_time(floor)} at {self.sizes.small}^3; `malis_loss` takes {own / floor:.3g} times as long."
            )

    def drop_in(self, seg: np.ndarray, aff: np.ndarray, nhood: np.ndarray) -> Functions:
        """Both passes as projects written for the TuragaLab package call them."""
        functions: Functions = {}
        if not self.has("weights_pos", "weights_neg"):
            return functions
        node1, node2 = (nodes.ravel() for nodes in malis.nodelist_like(seg.shape, nhood))
        labels = seg.astype(np.uint64).ravel()
        truth = malis.seg_to_affgraph(seg, nhood).astype(np.float32)
        same, different = checks.number_of_pairs(seg)
        for key, pos, constrain, total in (
            ("weights_pos", 1, np.minimum, same),
            ("weights_neg", 0, np.maximum, different),
        ):
            if not self.has(key):
                continue
            weights = constrain(aff, truth).ravel()
            counts = malis.malis_loss_weights(labels, node1, node2, weights, pos)
            # The pass joins all voxels, so it counts all pairs.
            checks.require(int(counts.sum()) == total, f"malis_loss_weights counts {int(counts.sum())}, not {total}")
            self.checked(key)
            functions[key] = lambda weights=weights, pos=pos: malis.malis_loss_weights(
                labels, node1, node2, weights, pos
            )
        return functions

    def curve(self, seg: np.ndarray, aff: np.ndarray, nhood: np.ndarray) -> Functions:
        if not self.has("curve"):
            return {}
        if not installed("skimage"):
            self.rows["curve"].note = "skimage (scikit-image) is not installed"
            return {}
        sweep = yardsticks.threshold_sweep(aff, seg, nhood)
        checks.curve(malis.rand_curve(aff, seg, nhood), sweep())
        self.checked("curve")
        return {"curve": lambda: malis.rand_curve(aff, seg, nhood).f_score, "sweep": sweep}

    def large(self) -> None:
        if not self.has("loss_large", "growth", "threads", "components", "seg_to_affgraph"):
            return
        seg, aff, nhood = data.realistic(self.sizes.cube("large"))
        log(f"{self.sizes.large}^3")
        functions: Functions = {}
        if self.has("loss_large", "growth", "threads"):
            value, grad = malis.malis_loss(aff, seg, nhood)
            checks.loss(aff, seg, nhood, value, grad)
            alone, grad_alone = malis.malis_loss(aff, seg, nhood, num_threads=1)
            checks.require(value == alone and np.array_equal(grad, grad_alone), "1 thread changes the result")
            del grad, grad_alone
            self.checked("loss_large", "growth", "threads")
            functions["loss"] = lambda: malis.malis_loss(aff, seg, nhood)
        if self.has("loss_large"):
            functions["argsort"] = lambda: np.argsort(aff.ravel())
        if self.has("growth"):
            small_seg, small_aff, _ = data.realistic(self.sizes.cube("small"))
            functions["small"] = lambda: malis.malis_loss(small_aff, small_seg, nhood)
        if self.has("threads"):
            functions["one thread"] = lambda: malis.malis_loss(aff, seg, nhood, num_threads=1)
        if self.has("components"):
            functions.update(self.components(seg, aff, nhood))
        if self.has("seg_to_affgraph"):
            source = malis.seg_to_affgraph(seg, nhood)
            target = np.zeros_like(source)
            checks.require(np.array_equal(source, checks.truth(seg, nhood)), "seg_to_affgraph is wrong")
            self.checked("seg_to_affgraph")
            functions["seg_to_affgraph"] = lambda: malis.seg_to_affgraph(seg, nhood)
            functions["copyto"] = lambda: np.copyto(target, source)
            functions["copy"] = lambda: source.copy()
        if not functions:
            return
        times = alternate(functions, self.repetitions)
        if self.has("loss_large"):
            self.ratio("loss_large", times, "loss", "argsort")
        if self.has("growth"):
            self.ratio("growth", times, "loss", "small")
        if self.has("threads"):
            self.ratio("threads", times, "loss", "one thread")
            self.rows["threads"].what = self.rows["threads"].what.replace("2 threads", f"{self.threads} threads")
        if "cc3d" in functions:
            self.ratio("components", times, "components", "cc3d")
        if self.has("seg_to_affgraph"):
            self.ratio("seg_to_affgraph", times, "seg_to_affgraph", "copyto")
            fresh = median(times, "seg_to_affgraph") / median(times, "copy")
            self.lines.append(
                "`numpy.copyto` writes to memory that is there; `seg_to_affgraph` allocates its output. Against "
                f"`output.copy()`, which allocates as well, it takes {fresh:.3g} x the time."
            )

    def components(self, seg: np.ndarray, aff: np.ndarray, nhood: np.ndarray) -> Functions:
        if not installed("cc3d"):
            self.rows["components"].note = "cc3d (connected-components-3d) is not installed"
            return {}
        by_cc3d = yardsticks.cc3d_components(aff, seg, nhood)
        every_component = malis.affgraph_to_seg(aff, nhood, 0, threshold=yardsticks.THRESHOLD)[0]
        checks.same_partition(every_component, by_cc3d().T)
        default, sizes = malis.affgraph_to_seg(aff, nhood, threshold=yardsticks.THRESHOLD)
        singles = np.bincount(every_component.ravel())[every_component] == 1
        checks.same_partition(default, np.where(singles, 0, every_component))
        checks.require(np.array_equal(np.bincount(default.ravel()), sizes), "sizes are not those of the labels")
        self.checked("components")
        return {
            "components": lambda: malis.affgraph_to_seg(aff, nhood, threshold=yardsticks.THRESHOLD),
            "cc3d": by_cc3d,
        }

    def batch(self) -> None:
        if not self.has("batch"):
            return
        log("batch")
        n = self.sizes.image
        volumes = [data.realistic((n, n), seed=10 * i) for i in range(8)]
        seg, aff = (np.stack([volume[i] for volume in volumes]) for i in (0, 1))
        nhood = data.NEAREST_2D
        losses, grads = malis.malis_loss(aff, seg, nhood)
        for i in range(8):
            checks.loss(aff[i], seg[i], nhood, float(losses[i]), grads[i])
        self.checked("batch")
        functions: Functions = {
            "loss": lambda: malis.malis_loss(aff, seg, nhood),
            "argsort": lambda: np.argsort(aff.ravel()),
        }
        self.ratio("batch", alternate(functions, self.repetitions), "loss", "argsort")

    def torch(self) -> None:
        if not self.has("torch"):
            return
        if not installed("torch"):
            self.rows["torch"].note = "torch is not installed"
            return
        import torch

        from malis.malis_torch import MalisLoss

        log("PyTorch")
        torch.set_num_threads(self.threads)
        samples = [data.realistic(self.sizes.cube("small"), seed=10 * i) for i in range(2)]
        seg = torch.from_numpy(np.stack([sample[0] for sample in samples]))
        output = torch.from_numpy(np.stack([sample[1] for sample in samples])).requires_grad_()
        criterion = MalisLoss()

        def step() -> Any:
            output.grad = None
            loss = criterion(seg, output)
            loss.backward()
            return loss

        loss = float(step().detach())
        losses, grads = malis.malis_loss(output.detach().numpy(), seg.numpy(), data.NEAREST_3D)
        checks.require(abs(loss - losses.mean()) <= 1e-6 * loss, f"MalisLoss is {loss}, malis_loss {losses.mean()}")
        checks.require(np.allclose(output.grad.numpy(), grads / 2, rtol=1e-6, atol=1e-12), "gradients differ")
        del grads
        self.checked("torch")
        sample = samples[0][1]
        functions: Functions = {"step": step, "argsort": lambda: np.argsort(sample.ravel())}
        self.ratio("torch", alternate(functions, self.repetitions), "step", "argsort")

    def memory(self) -> None:
        if not self.has("memory"):
            return
        row = self.rows["memory"]
        found = []
        for n in (self.sizes.small, self.sizes.large):
            log(f"memory, {n}^3")
            volume = data.realistic((n, n, n))
            try:
                sizes = memory.measure(volume, ["malis.malis_loss"], self.threads)["malis.malis_loss"]
            except memory.NotMeasured as reason:
                row.note = str(reason)
                return
            # The system counts resident pages in batches, so a little may be missing.
            checks.require(sizes["peak"] + 2**21 >= sizes["output"], "a peak below the size of the output")
            found.append((max(0, sizes["peak"] - sizes["output"]) / volume[1].size, n))
        row.value = max(found)[0]
        row.measured = ", ".join(f"{per_edge:.3g} bytes at {n}^3" for per_edge, n in found)
        self.checked("memory")

    def worst(self) -> None:
        cases = [case for case in data.WORST if self.has(worst_key(case))]
        if not cases:
            return
        log("worst cases")
        shape = self.sizes.cube("small")
        volumes = {"realistic": data.realistic(shape), **{case: data.WORST[case](shape) for case in cases}}
        functions: Functions = {}
        for case, (seg, aff, nhood) in volumes.items():
            value, grad = malis.malis_loss(aff, seg, nhood)
            checks.loss(aff, seg, nhood, value, grad)
            functions[case] = lambda seg=seg, aff=aff, nhood=nhood: malis.malis_loss(aff, seg, nhood)
        times = alternate(functions, self.repetitions)
        for case in cases:
            edges = volumes[case][1].size / volumes["realistic"][1].size
            self.ratio(worst_key(case), times, case, "realistic", per=edges)
            self.checked(worst_key(case))


# ------------------------------------------------------------------------------------------- the comparison
def candidates_for(edges: int) -> tuple[list[yardsticks.Candidate], dict[str, str]]:
    """Choose the candidates that are installed and fit into memory; say why others are left out."""
    chosen: list[yardsticks.Candidate] = []
    missing = {}
    free = available_memory()
    for candidate in yardsticks.CANDIDATES:
        if candidate.package is not None and not installed(candidate.package):
            missing[candidate.label] = f"{candidate.package} is not installed"
            continue
        group = [*chosen, candidate]
        needed = edges * (sum(c.held for c in group) + max(c.peak for c in group))
        if free is not None and needed > 0.95 * free:
            missing[candidate.label] = f"{needed / 2**30:.0f} GiB may be needed, {free / 2**30:.0f} GiB are free"
            continue
        chosen = group
    return chosen, missing


def check_candidates(seg: np.ndarray, aff: np.ndarray, nhood: np.ndarray) -> list[str]:
    """Check on one small volume that all trees are the same tree, and all components the same components."""
    pos, neg = malis.pairs(aff, seg, nhood, constrain_positive=False, constrain_negative=False, ignore_background=False)
    # Every tree edge decides pairs when all voxels count.
    tree = np.flatnonzero((pos + neg).ravel())
    strengths = np.sort(aff.ravel()[tree])
    checks.require(tree.size == seg.size - 1, f"{tree.size} edges in the tree of {seg.size} voxels")
    done = ["malis.pairs: a tree"]
    if installed("higra"):
        import higra

        result = yardsticks.higra_bpt(aff, seg, nhood)()[0]
        edges = higra.get_attribute(result, "mst_edge_map")
        indices = np.flatnonzero(malis.nodelist_from_shape(seg.shape, nhood)[1].ravel() >= 0)
        checks.require(np.array_equal(np.sort(indices[edges]), tree), "Higra finds another tree")
        done.append("higra.bpt_canonical: the same edges")
    matrix = yardsticks.scipy_tree(aff, seg, nhood)()
    weights = np.sort((2 - matrix.data).astype(np.float32))
    checks.require(np.array_equal(weights, strengths), "SciPy finds a tree of another weight")
    done.append("scipy minimum_spanning_tree: the same weights")
    labels = malis.affgraph_to_seg(aff, nhood, 0, threshold=yardsticks.THRESHOLD)[0]
    found = yardsticks.scipy_components(aff, seg, nhood)()[1].reshape(seg.shape) + 1
    checks.same_partition(labels, found)
    done.append("scipy connected_components: the same components")
    if installed("cc3d"):
        checks.same_partition(labels, yardsticks.cc3d_components(aff, seg, nhood)().T)
        done.append("cc3d.color_connectivity_graph: the same components")
    if installed("skimage"):
        truth = malis.affgraph_to_seg(malis.seg_to_affgraph(seg, nhood), nhood, 0)[0]
        checks.same_partition(np.where(seg == 0, 0, truth), yardsticks.skimage_label(aff, seg, nhood)())
        done.append("skimage.measure.label: the same components of the labels")
    return done


def compare(sizes: Sequence[int], repetitions: int) -> dict[str, Any]:
    """Time all candidates on volumes of n^3 voxels; what is missing is said."""
    series: dict[str, dict[int, float]] = {candidate.label: {} for candidate in yardsticks.CANDIDATES}
    missing: dict[str, str] = {}
    checked: list[str] = []
    slow: dict[str, int] = {}
    for n in sorted(sizes):
        log(f"comparison, {n}^3")
        seg, aff, nhood = data.realistic((n, n, n))
        if not checked:
            checked = check_candidates(seg, aff, nhood)
        chosen, left_out = candidates_for(aff.size)
        left_out |= {label: f"it takes more than {TOO_SLOW_SECONDS} s at {m}^3" for label, m in slow.items()}
        missing |= {f"{label}, {n}^3": why for label, why in left_out.items()}
        calls = {c.label: c.make(aff, seg, nhood) for c in chosen if c.label not in slow}
        times = alternate(calls, repetitions)
        for label in calls:
            series[label][n] = median(times, label)
            if series[label][n] > TOO_SLOW_SECONDS:
                slow[label] = n
    return {"seconds": series, "missing": missing, "checked": checked}


def compare_memory(n: int, threads: int, quick: bool) -> dict[str, Any]:
    """Peak memory of all candidates on a volume of n^3 voxels, in bytes per edge."""
    volume = data.realistic((n, n, n))
    labels = [candidate.label for candidate in candidates_for(volume[1].size)[0] if candidate.group != "floor"]
    if quick:  # a new process for each takes its time
        labels = [label for label in labels if label.startswith(("malis.malis", "higra"))]
    log(f"memory of all, {n}^3")
    try:
        found = memory.measure(volume, labels, threads)
    except memory.NotMeasured as reason:
        return {"size": n, "missing": str(reason), "bytes_per_edge": {}}
    edges = volume[1].size
    per_edge = {
        label: {"output": sizes["output"] / edges, "beyond": max(0, sizes["peak"] - sizes["output"]) / edges}
        for label, sizes in found.items()
    }
    return {"size": n, "missing": "", "bytes_per_edge": per_edge}


def thread_scaling(n: int, most: int, repetitions: int) -> dict[str, Any]:
    """Time the functions of the core on 1 to `most` threads."""
    seg, aff, nhood = data.realistic((n, n, n))
    nothing = np.zeros_like(seg)
    calls = {
        "seg_to_affgraph": lambda threads: malis.seg_to_affgraph(seg, nhood, num_threads=threads),
        "affgraph_to_seg": lambda threads: malis.affgraph_to_seg(
            aff, nhood, threshold=yardsticks.THRESHOLD, num_threads=threads
        ),
        "malis_loss, no objects": lambda threads: malis.malis_loss(aff, nothing, nhood, num_threads=threads),
        "malis_loss": lambda threads: malis.malis_loss(aff, seg, nhood, num_threads=threads),
        "pairs": lambda threads: malis.pairs(aff, seg, nhood, num_threads=threads),
    }
    log(f"threads, {n}^3")
    counts = range(1, most + 1)
    functions: Functions = {
        f"{name}/{threads}": lambda call=call, threads=threads: call(threads)
        for threads in counts
        for name, call in calls.items()
    }
    functions["numpy.copy"] = lambda: aff.copy()
    functions["numpy.argsort"] = lambda: np.argsort(aff.ravel())
    times = alternate(functions, repetitions)
    return {
        "size": n,
        "seconds": {name: {threads: median(times, f"{name}/{threads}") for threads in counts} for name in calls},
        "yardsticks": {name: median(times, name) for name in ("numpy.copy", "numpy.argsort")},
    }


# ---------------------------------------------------------------------------------------------- the adapters
def compare_adapters(
    frameworks: Sequence[str], sizes: Sizes, threads: int, repetitions: int
) -> tuple[list[adapters.Measured], dict[str, str], dict[str, str]]:
    """Time the adapters against the NumPy call; also the versions of their frameworks, and what is missing."""
    found: list[adapters.Measured] = []
    versions: dict[str, str] = {}
    missing = {}
    for framework in frameworks:
        needed = [name for name in adapters.FRAMEWORKS[framework][0] if not installed(name)]
        if needed:
            missing[adapters.title(framework)] = f"{needed[0]} is not installed"
            continue
        log(f"adapter: {framework}")
        measured, used = adapters.measure(framework, sizes.small, sizes.image, threads, repetitions)
        found += measured
        versions |= used
    return found, versions, missing


# --------------------------------------------------------------------------------------------------- output
def markdown(header: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    rows = [list(header), ["---"] * len(header), *[list(line) for line in lines]]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def target_table(rows: Sequence[Row], quick: bool) -> str:
    return markdown(HEADER, [row.cells(quick) for row in rows])


def comparison_table(comparison: dict[str, Any]) -> str:
    seconds: dict[str, dict[int, float]] = comparison["seconds"]
    sizes = sorted({n for points in seconds.values() for n in points})
    lines = []
    for candidate in yardsticks.CANDIDATES:
        points = seconds[candidate.label]
        times = [as_time(points[n]) if n in points else "-" for n in sizes]
        lines.append([f"`{candidate.label}`", candidate.does, *times])
    return markdown(["function", "what it does", *[f"{n}^3" for n in sizes]], lines)


def machine_text(facts: dict[str, str], threads: int, repetitions: int) -> str:
    listed = ", ".join(f"{name} {value}" for name, value in facts.items())
    return f"Measured with {threads} threads, medians of {repetitions} alternating repetitions: {listed}."


def replace_blocks(path: Path, blocks: dict[str, str]) -> bool:
    """Write blocks between their markers ``<!-- benchmark:NAME -->`` and ``<!-- end of benchmark:NAME -->``."""
    text = before = path.read_text(encoding="utf-8")
    for name, block in blocks.items():
        pattern = rf"(<!-- benchmark:{name} -->\n).*?(<!-- end of benchmark:{name} -->)"
        text = re.sub(pattern, lambda m, block=block: f"{m[1]}{block}\n{m[2]}", text, flags=re.DOTALL)
    if text != before:
        path.write_text(text, encoding="utf-8")
    return text != before


def arguments() -> argparse.Namespace:
    keys = [row.key for row in rows_for(FULL)]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="small sizes, few repetitions: a test, no benchmark")
    parser.add_argument(
        "--rows", nargs="*", choices=[*keys, "worst"], metavar="ROW", help="only these: " + ", ".join(keys)
    )
    parser.add_argument("--sizes", nargs="*", type=int, metavar="N", help="sides of the volumes of the comparison")
    frameworks = list(adapters.FRAMEWORKS)
    parser.add_argument(
        "--adapters", nargs="*", choices=frameworks, metavar="ADAPTER", help="only these: " + ", ".join(frameworks)
    )
    parser.add_argument("--threads", type=int, default=2, help="threads of malis (2)")
    parser.add_argument("--repetitions", type=int, help="times every function is called (9; quick: 2)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all numbers to a file")
    parser.add_argument("--plots", type=Path, metavar="FOLDER", help="where plots are saved (build/benchmarks)")
    parser.add_argument("--docs", action="store_true", help="rewrite tables and plots of the documentation")
    options = parser.parse_args()
    if options.docs and (options.quick or options.rows or options.adapters):
        parser.error("--docs takes whole tables: without --quick, and --rows and --adapters name nothing")
    if options.threads < 1 or (options.repetitions is not None and options.repetitions < 1):
        parser.error("--threads and --repetitions must be at least 1")
    if options.sizes is not None and min(options.sizes, default=16) < 16:
        parser.error("--sizes must be at least 16: a cell has about 2,000 voxels")
    if options.rows is None:
        options.rows = keys
    elif "worst" in options.rows:
        options.rows += [key for key in keys if key.startswith("worst_")]
    if options.adapters is None:
        options.adapters = frameworks
    if options.sizes is None:
        options.sizes = [16, 24] if options.quick else [32, 64, 128, 256, 384]
    if options.repetitions is None:
        options.repetitions = 2 if options.quick else 9
    if options.plots is None:
        options.plots = ROOT / "docs" / "images" if options.docs else ROOT / "build" / "benchmarks"
    return options


def main() -> int:
    options = arguments()
    started = time.perf_counter()
    malis.set_num_threads(options.threads)
    facts = machine()
    sizes = QUICK if options.quick else FULL
    table = Table(sizes, set(options.rows), options.threads, options.repetitions)
    try:
        table.fill()
        results: dict[str, Any] = {"machine": facts, "threads": options.threads, "quick": options.quick}
        if options.sizes:
            results["comparison"] = compare(options.sizes, max(1, options.repetitions // 2))
            results["memory"] = compare_memory(sizes.small, options.threads, options.quick)
            results["scaling"] = thread_scaling(sizes.small, options.threads, options.repetitions)
        measured, versions, no_adapter = compare_adapters(options.adapters, sizes, options.threads, options.repetitions)
    except checks.WrongResult as error:
        log(f"wrong result, so there is nothing to report: {error}")
        return 1
    rows = list(table.rows.values())
    unchecked = [row.key for row in rows if row.value is not None and not row.checked]
    if unchecked:
        log(f"measured without a check of the result: {', '.join(unchecked)}")
        return 1
    results["rows"] = [{**asdict(row), "met": row.met} for row in rows]
    results["lines"] = table.lines
    results["adapters"] = [{**asdict(m), "ratio": m.ratio} for m in measured]
    results["missing_adapters"] = no_adapter

    where = machine_text(facts, options.threads, options.repetitions)
    if options.quick:
        print("Small sizes, few repetitions: the times below say nothing.\n")
    blocks = {}
    if rows or options.sizes:
        blocks["machine"] = where
    if rows:
        blocks["targets"] = target_table(rows, options.quick)
        blocks["remarks"] = "\n".join(f"- {line}" for line in table.lines)
    if "comparison" in results:
        blocks["comparison"] = comparison_table(results["comparison"])
        missing = results["comparison"]["missing"]
        blocks["missing"] = "\n".join(f"- {name} is left out: {why}" for name, why in missing.items())
    if measured:
        where = machine_text({**facts, **versions}, options.threads, options.repetitions)
        lines = [m.cells(options.quick) for m in measured]
        blocks["adapters"] = f"{where}\n\n{markdown(adapters.HEADER, lines)}"
    if no_adapter:
        blocks["missing adapters"] = "\n".join(f"- {name} is left out: {why}" for name, why in no_adapter.items())
    print("\n\n".join(block for block in blocks.values() if block))

    if options.sizes:
        if installed("matplotlib"):
            import plots

            for path in plots.save(results, options.plots):
                log(f"saved {path}")
        else:
            log("no plots: matplotlib is not installed")
    if options.json is not None:
        options.json.write_text(json.dumps(results, indent=1), encoding="utf-8")
    if options.docs:
        for path in (ROOT / "docs" / "benchmarks.md", ROOT / "README.md"):
            if replace_blocks(path, blocks):
                log(f"rewrote {path}")
    log(f"done in {time.perf_counter() - started:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
