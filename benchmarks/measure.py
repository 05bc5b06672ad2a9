"""Fill the table of targets: build the inputs of a group of rows, check the calls, time them in turn."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import checks
import data
import memory
from calls import Call, Timed
from targets import MemoryTarget, Sizes, Target
from timing import Times, alternate, as_time, installed, log, median, user_seconds_of

MIB = 2**20


@dataclass
class Row:
    """What was measured for a target."""

    key: str
    what: str
    limit: float
    unit: str
    at_most: bool
    value: float | None = None
    user: float | None = None  # the same of the processor time without that of the system, where it is asked for
    measured: str = ""
    yardstick: str = ""
    checked: bool = False
    note: str = ""

    @property
    def met(self) -> bool | None:
        if self.value is None:
            return None
        return self.value <= self.limit if self.at_most else self.value >= self.limit


def missing_package(needs: str) -> str:
    """Say that what a row needs is not installed; empty where it is, or where nothing is needed."""
    return f"{needs} is not installed" if needs and not installed(needs.split()[0]) else ""


class Inputs:
    """The volumes of a group of rows: each is built when it is asked for, once."""

    def __init__(self, sizes: Sizes) -> None:
        self.sizes = sizes
        self.built: dict[tuple[str, str], data.Volume] = {}

    def of(self, call: Timed) -> data.Volume:
        key = call.kind, call.size
        if key not in self.built:
            log(f"input: {call.kind}, {self.sizes.text(call.size)}")
            self.built[key] = data.KINDS[call.kind](self.sizes.shape(call.size))
        return self.built[key]

    def prepare(self, call: Timed) -> Call:
        """Make the call, and check what it returns."""
        volume = self.of(call)
        function = call.make(volume)
        if call.check is not None:
            call.check(volume, function())
        return function


def groups_of(targets: Iterable[Any]) -> dict[str, list[Any]]:
    """Sort targets into the groups that are measured together."""
    groups: dict[str, list[Any]] = {}
    for target in targets:
        groups.setdefault(target.group, []).append(target)
    return groups


def fill(
    targets: Sequence[Target | MemoryTarget], sizes: Sizes, threads: int, repetitions: int
) -> tuple[list[Row], list[str]]:
    """Measure the targets; returns their rows in the same order, and what is worth a sentence below the table."""
    texts = {size: sizes.text(size) for size in sizes._fields} | {"threads": str(threads)}
    rows = {t.key: Row(t.key, t.what.format(**texts), t.limit, t.unit.format(**texts), t.at_most) for t in targets}
    remarks: list[str] = []
    for name, group in groups_of(targets).items():
        log(f"rows: {name}")
        timed = [target for target in group if isinstance(target, Target)]
        remarks += _fill_group(timed, rows, Inputs(sizes), texts, repetitions)
        for target in group:
            if isinstance(target, MemoryTarget):
                _fill_memory(target, rows[target.key], sizes, threads)
    return list(rows.values()), remarks


def _fill_group(
    targets: Sequence[Target], rows: dict[str, Row], inputs: Inputs, texts: dict[str, str], repetitions: int
) -> list[str]:
    functions: dict[str, Call] = {}
    measured = []
    for target in targets:
        row = rows[target.key]
        row.note = missing_package(target.needs)
        if row.note:
            continue
        for call in (target.call, target.yardstick, *([target.remark.call] if target.remark else [])):
            if call.label not in functions:
                functions[call.label] = inputs.prepare(call)
        row.checked = True
        measured.append(target)
    times = alternate(functions, repetitions)
    for target in measured:
        row = rows[target.key]
        _fill_row(row, target, times, inputs)
        if target.user_time:
            own, other = (user_seconds_of(functions[call.label]) for call in (target.call, target.yardstick))
            row.user = own / other
    return [_sentence(target, times, texts) for target in measured if target.remark is not None]


def _fill_row(row: Row, target: Target, times: Times, inputs: Inputs) -> None:
    own, other = median(times, target.call.label), median(times, target.yardstick.label)
    row.value = own / other if target.at_most else other / own
    if target.per_edge:
        row.value *= inputs.of(target.yardstick)[1].size / inputs.of(target.call)[1].size
    row.measured, row.yardstick = as_time(own), as_time(other)


def _sentence(target: Target, times: Times, texts: dict[str, str]) -> str:
    assert target.remark is not None
    own, other = median(times, target.call.label), median(times, target.remark.call.label)
    return target.remark.text.format(other=as_time(other), ratio=own / other, **texts)


def _fill_memory(target: MemoryTarget, row: Row, sizes: Sizes, threads: int) -> None:
    found = []
    for size in ("small", "large"):
        volume = data.realistic(sizes.shape(size))
        try:
            sizes_in_bytes = memory.measure(volume, [target.candidate], threads)[target.candidate]
        except memory.NotMeasured as reason:
            row.note = str(reason)
            return
        # The system counts resident pages in batches, so a little may be missing.
        enough = sizes_in_bytes["peak"] + 2 * MIB >= sizes_in_bytes["output"]
        checks.require(enough, "a peak below the size of the output")
        beyond = max(0, sizes_in_bytes["peak"] - sizes_in_bytes["output"])
        found.append((beyond / volume[1].size, sizes.text(size)))
    row.value = max(found)[0]
    row.measured = ", ".join(f"{per_edge:.3g} bytes at {size}" for per_edge, size in found)
    row.checked = True
