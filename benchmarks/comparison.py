"""The comparison with other packages over sizes: time, peak memory, and the threads of malis alone."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np

import checks
import data
import malis
import memory
import yardsticks
from calls import Call
from timing import alternate, available_memory, installed, log, median

# An alternative that takes longer is not run on the next larger volume.
TOO_SLOW_SECONDS = 90


def batches_for(edges: int) -> tuple[list[list[yardsticks.Candidate]], dict[str, str]]:
    """Divide the candidates that are installed into batches that fit into memory; say why others are left out."""
    batches: list[list[yardsticks.Candidate]] = [[]]
    missing = {}
    free = available_memory()

    def needed(batch: Sequence[yardsticks.Candidate]) -> float:
        return edges * (sum(c.held for c in batch) + max(c.peak for c in batch))

    for candidate in yardsticks.CANDIDATES:
        if candidate.package is not None and not installed(candidate.package):
            missing[candidate.label] = f"{candidate.package} is not installed"
        elif free is None or needed([*batches[-1], candidate]) <= 0.95 * free:
            batches[-1].append(candidate)
        elif needed([candidate]) <= 0.95 * free:
            batches.append([candidate])
        else:
            needs = needed([candidate])
            missing[candidate.label] = f"{needs / 2**30:.0f} GiB may be needed, {free / 2**30:.0f} GiB are free"
    return batches, missing


def check_candidates(seg: np.ndarray, aff: np.ndarray, nhood: np.ndarray) -> list[str]:
    """Check on one small volume that all trees are the same tree, and all components the same components."""
    tree = checks.tree_of_all_edges(seg, aff, nhood)
    strengths = np.sort(aff.ravel()[tree])
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
    """Time all candidates on volumes of n^3 voxels, those that fit into memory in turn; say what is missing."""
    series: dict[str, dict[int, float]] = {candidate.label: {} for candidate in yardsticks.CANDIDATES}
    missing: dict[str, str] = {}
    checked: list[str] = []
    slow: dict[str, int] = {}
    for n in sorted(sizes):
        seg, aff, nhood = data.realistic((n, n, n))
        if not checked:
            checked = check_candidates(seg, aff, nhood)
        batches, left_out = batches_for(aff.size)
        left_out |= {label: f"it takes more than {TOO_SLOW_SECONDS} s at {m}^3" for label, m in slow.items()}
        missing |= {f"{label}, {n}^3": why for label, why in left_out.items()}
        for batch in batches:
            chosen = [candidate for candidate in batch if candidate.label not in slow]
            log(f"comparison, {n}^3: {', '.join(candidate.label for candidate in chosen)}")
            times = alternate({c.label: c.make(aff, seg, nhood) for c in chosen}, repetitions)
            for label in times:
                series[label][n] = median(times, label)
                if series[label][n] > TOO_SLOW_SECONDS:
                    slow[label] = n
    return {"seconds": series, "missing": missing, "checked": checked}


def compare_memory(n: int, threads: int, quick: bool) -> dict[str, Any]:
    """Peak memory of all candidates on a volume of n^3 voxels, in bytes per edge."""
    volume = data.realistic((n, n, n))
    candidates = itertools.chain.from_iterable(batches_for(volume[1].size)[0])
    labels = [candidate.label for candidate in candidates if candidate.group != "floor"]
    if quick:  # a new process for each takes its time
        labels = [label for label in labels if label in ("malis.malis_loss", "higra.bpt_canonical")]
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
    functions: dict[str, Call] = {
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
