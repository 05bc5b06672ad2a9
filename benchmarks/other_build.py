"""Time the rows with this build of malis and with another one, in turn, each in a process of its own.

    python benchmarks/other_build.py FOLDER SIZES THREADS

is such a process. It imports malis from FOLDER and answers orders, a line of JSON each: `prepare` makes the call of a
row and checks its result, `time` calls it once and returns the seconds, `forget` drops what was prepared.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any

import checks
import malis
from measure import Inputs, groups_of, missing_package
from targets import TARGETS, Sizes, Target
from timing import alternate_timers, as_time, log, median, seconds_of


@dataclass(frozen=True)
class Compared:
    """A call with this build and with another one, in seconds."""

    key: str
    what: str
    seconds: float
    other_seconds: float
    limit: float | None

    @property
    def ratio(self) -> float:
        return self.seconds / self.other_seconds

    def cells(self) -> list[str]:
        limit = "" if self.limit is None else f"{self.limit:g}"
        met = "" if self.limit is None else "yes" if self.ratio <= self.limit else "**no**"
        return [
            self.key,
            self.what,
            as_time(self.seconds),
            as_time(self.other_seconds),
            f"{self.ratio:.3g}",
            limit,
            met,
        ]


HEADER = ["row", "call", "this build", "the other build", "ratio", "at most", "met"]


class Build:
    """A process with one build of malis."""

    def __init__(self, folder: Path, sizes: Sizes, threads: int) -> None:
        self.folder = folder
        path = os.pathsep.join([str(folder), *filter(None, [os.environ.get("PYTHONPATH")])])
        command = [sys.executable, __file__, str(folder), json.dumps(sizes), str(threads)]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": path}
        )

    def order(self, what: str, key: str = "") -> Any:
        assert self.process.stdin is not None and self.process.stdout is not None
        try:
            self.process.stdin.write(json.dumps([what, key]) + "\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            pass  # the process has ended: there is no answer
        answer = self.process.stdout.readline()
        if not answer:
            raise RuntimeError(f"the process with malis from {self.folder} has ended")
        result, wrong = json.loads(answer)
        if wrong:
            raise checks.WrongResult(f"malis from {self.folder}: {wrong}")
        return result

    def __enter__(self) -> Build:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()


def compare(
    targets: Sequence[Any], other: Path, sizes: Sizes, threads: int, repetitions: int
) -> tuple[list[Compared], dict[str, str]]:
    """Time the calls of the rows with both builds; also says which rows are left out, and why."""
    here = Path(malis.__file__).resolve().parents[1]
    texts = {size: sizes.text(size) for size in sizes._fields} | {"threads": str(threads)}
    found: list[Compared] = []
    missing = {t.key: missing_package(t.needs) for t in targets if isinstance(t, Target) and missing_package(t.needs)}
    timed = [t for t in targets if isinstance(t, Target) and t.key not in missing]
    with Build(here, sizes, threads) as this, Build(other, sizes, threads) as parent:
        for name, group in groups_of(timed).items():
            log(f"rows: {name}")
            # Several rows may have one call.
            keys = {target.call.label: target.key for target in group}
            for build in (this, parent):
                for key in keys.values():
                    build.order("prepare", key)
            timers = {
                f"{label} {side}": partial(build.order, "time", key)
                for label, key in keys.items()
                for side, build in (("here", this), ("there", parent))
            }
            times = alternate_timers(timers, repetitions)
            found += [
                Compared(
                    target.key,
                    target.what.format(**texts),
                    median(times, f"{target.call.label} here"),
                    median(times, f"{target.call.label} there"),
                    target.against,
                )
                for target in group
            ]
            for build in (this, parent):
                build.order("forget")
    return found, missing


def _serve(folder: Path, sizes: Sizes, threads: int) -> None:
    answers, sys.stdout = sys.stdout, sys.stderr  # whatever a library prints is no answer
    used = Path(malis.__file__).resolve().parents[1]
    if used != folder.resolve():
        sys.exit(f"Python imports malis from {used}, not from {folder}: is it installed in editable mode?")
    malis.set_num_threads(threads)
    inputs, functions = Inputs(sizes), {}
    for line in sys.stdin:
        what, key = json.loads(line)
        result, wrong = None, ""
        if what == "prepare":
            try:
                functions[key] = inputs.prepare(TARGETS[key].call)
            except checks.WrongResult as error:
                wrong = str(error)
        elif what == "time":
            result = seconds_of(functions[key])
        else:
            inputs, functions = Inputs(sizes), {}
        print(json.dumps([result, wrong]), file=answers, flush=True)


if __name__ == "__main__":
    _serve(Path(sys.argv[1]), Sizes(*json.loads(sys.argv[2])), int(sys.argv[3]))
