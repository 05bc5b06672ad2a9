"""Measure malis against its targets and against what else there is; print the table, save the plots.

    python benchmarks/run.py                      the table of targets, the comparison, plots in build/benchmarks
    python benchmarks/run.py --quick              small sizes: does everything run, are all results right?
    python benchmarks/run.py --rows pairs masks --sizes --adapters    a row and a group of rows, and nothing else
    python benchmarks/run.py --rows --sizes --adapters torch jax      two of the adapters and nothing else
    python benchmarks/run.py --rows loss --against ../parent/python   a row's call against another build of malis
    python benchmarks/run.py --docs               rewrite the tables and plots of docs/benchmarks.md and README.md

Every function runs in turn with its yardstick, in one process, and the table shows ratios of medians. Results are
checked before times are taken; a wrong one ends the run. Install what is compared with:
``pip install "malis-loss[benchmarks,torch,tensorflow,keras,jax]"``.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import adapters
import checks
import comparison
import malis
import measure
import other_build
import report
from targets import FULL, QUICK, TARGETS, Sizes
from timing import installed, log, machine

ROOT = Path(__file__).resolve().parents[1]


def arguments() -> argparse.Namespace:
    groups = sorted({target.group for target in TARGETS.values()})
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="small sizes, few repetitions: a test, no benchmark")
    parser.add_argument(
        "--rows",
        nargs="*",
        choices=sorted({*TARGETS, *groups}),
        metavar="ROW",
        help=f"only these rows ({', '.join(TARGETS)}), or all of a group ({', '.join(map(repr, groups))})",
    )
    parser.add_argument(
        "--against",
        type=Path,
        metavar="FOLDER",
        help="time the calls of the rows against another build, the package malis in this folder, and do nothing else",
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
    if options.against is not None and options.docs:
        parser.error("--docs and --against do not go together")
    if options.against is not None and not (options.against / "malis" / "__init__.py").exists():
        parser.error(f"--against takes the folder that holds a built package malis, got {options.against}")
    wanted = [*TARGETS, *groups] if options.rows is None else options.rows
    options.targets = [t for key, t in TARGETS.items() if key in wanted or t.group in wanted]
    if options.adapters is None:
        options.adapters = frameworks
    if options.sizes is None:
        options.sizes = [16, 24] if options.quick else [32, 64, 128, 256, 384]
    if options.repetitions is None:
        options.repetitions = 2 if options.quick else 9
    if options.plots is None:
        options.plots = ROOT / "docs" / "images" if options.docs else ROOT / "build" / "benchmarks"
    return options


def measured_rows(options: argparse.Namespace, sizes: Sizes) -> tuple[dict[str, Any], dict[str, str]]:
    """Fill the table of targets; returns the numbers, and the blocks of text."""
    rows, remarks = measure.fill(options.targets, sizes, options.threads, options.repetitions)
    results = {"rows": [{**asdict(row), "met": row.met} for row in rows], "lines": remarks}
    if not rows:
        return results, {}
    return results, {"targets": report.target_table(rows, options.quick), "remarks": report.bullets(remarks)}


def measured_sizes(options: argparse.Namespace, sizes: Sizes) -> tuple[dict[str, Any], dict[str, str]]:
    """Compare with other packages, over the sizes of the volume."""
    if not options.sizes:
        return {}, {}
    results = {
        "comparison": comparison.compare(options.sizes, max(1, options.repetitions // 2)),
        "memory": comparison.compare_memory(sizes.small, options.threads, options.quick),
        "scaling": comparison.thread_scaling(sizes.small, options.threads, options.repetitions),
    }
    return results, {
        "comparison": report.comparison_table(results["comparison"]),
        "missing": report.left_out(results["comparison"]["missing"]),
    }


def measured_adapters(
    options: argparse.Namespace, sizes: Sizes, facts: dict[str, str]
) -> tuple[dict[str, Any], dict[str, str]]:
    """Compare the adapters with the NumPy call."""
    found, versions, missing = adapters.measure_all(
        options.adapters, sizes.small, sizes.image, options.threads, options.repetitions
    )
    results = {"adapters": [{**asdict(m), "ratio": m.ratio} for m in found], "missing_adapters": missing}
    blocks = {}
    if found:
        where = report.machine_text({**facts, **versions}, options.threads, options.repetitions)
        blocks["adapters"] = f"{where}\n\n{report.adapter_table(found, options.quick)}"
    if missing:
        blocks["missing adapters"] = report.left_out(missing)
    return results, blocks


def measured_builds(options: argparse.Namespace, sizes: Sizes) -> tuple[dict[str, Any], dict[str, str]]:
    """Compare this build with another one."""
    found, missing = other_build.compare(options.targets, options.against, sizes, options.threads, options.repetitions)
    results = {"builds": [{**asdict(row), "ratio": row.ratio} for row in found], "missing": missing}
    return results, {"builds": report.other_build_table(found), "missing": report.left_out(missing)}


def save_plots(results: dict[str, Any], folder: Path) -> None:
    if not installed("matplotlib"):
        log("no plots: matplotlib is not installed")
        return
    import plots

    for path in plots.save(results, folder):
        log(f"saved {path}")


def main() -> int:
    options = arguments()
    started = time.perf_counter()
    malis.set_num_threads(options.threads)
    facts = machine()
    sizes = QUICK if options.quick else FULL
    results: dict[str, Any] = {"machine": facts, "threads": options.threads, "quick": options.quick}
    blocks: dict[str, str] = {}
    if options.against is not None:
        parts = [lambda: measured_builds(options, sizes)]
    else:
        parts = [
            lambda: measured_rows(options, sizes),
            lambda: measured_sizes(options, sizes),
            lambda: measured_adapters(options, sizes, facts),
        ]
    if options.targets or options.sizes:
        blocks["machine"] = report.machine_text(facts, options.threads, options.repetitions)
    try:
        for part in parts:
            numbers, text = part()
            results |= numbers
            blocks |= text
    except checks.WrongResult as error:
        log(f"wrong result, so there is nothing to report: {error}")
        return 1

    if options.quick:
        print("Small sizes, few repetitions: the times below say nothing.\n")
    print("\n\n".join(block for block in blocks.values() if block))
    if "comparison" in results:
        save_plots(results, options.plots)
    if options.json is not None:
        options.json.write_text(json.dumps(results, indent=1), encoding="utf-8")
    if options.docs:
        for path in (ROOT / "docs" / "benchmarks.md", ROOT / "README.md"):
            if report.replace_blocks(path, blocks):
                log(f"rewrote {path}")
    log(f"done in {time.perf_counter() - started:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
