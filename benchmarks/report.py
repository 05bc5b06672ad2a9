"""What is printed and written: Markdown tables, and their places in the documentation."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import adapters
import other_build
import yardsticks
from measure import Row
from timing import as_time

TARGETS_HEADER = ["what", "target", "measured", "median", "median of the yardstick", "met"]


def markdown(header: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    rows = [list(header), ["---"] * len(header), *[list(line) for line in lines]]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def bullets(lines: Sequence[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)


def left_out(missing: dict[str, str]) -> str:
    """List what was not measured, and why."""
    return bullets([f"{name} is left out: {why}" for name, why in missing.items()])


def _cells(row: Row, quick: bool) -> list[str]:
    target = f"{'at most' if row.at_most else 'at least'} {row.limit:g} {row.unit}"
    if row.value is None:
        return [row.what, target, "not measured", "", "", row.note]
    met = "-" if quick else "yes" if row.met else "**no**"
    user = "" if row.user is None else f" ({row.user:.3g} in user time)"
    return [row.what, target, f"{row.value:.3g}{user}", row.measured, row.yardstick, met]


def target_table(rows: Sequence[Row], quick: bool) -> str:
    return markdown(TARGETS_HEADER, [_cells(row, quick) for row in rows])


def comparison_table(comparison: dict[str, Any]) -> str:
    seconds: dict[str, dict[int, float]] = comparison["seconds"]
    sizes = sorted({n for points in seconds.values() for n in points})
    lines = []
    for candidate in yardsticks.CANDIDATES:
        points = seconds[candidate.label]
        times = [as_time(points[n]) if n in points else "-" for n in sizes]
        lines.append([f"`{candidate.label}`", candidate.does, *times])
    return markdown(["function", "what it does", *[f"{n}^3" for n in sizes]], lines)


def adapter_table(measured: Sequence[adapters.Measured], quick: bool) -> str:
    return markdown(adapters.HEADER, [m.cells(quick) for m in measured])


def other_build_table(compared: Sequence[other_build.Compared]) -> str:
    return markdown(other_build.HEADER, [row.cells() for row in compared])


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
