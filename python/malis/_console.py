"""What the command prints: results on stdout; progress, details and warnings on stderr."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TaskProgressColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

_out = Console(highlight=False, soft_wrap=True)
_err = Console(stderr=True, highlight=False, soft_wrap=True)


class _Chosen:
    """What --quiet, --verbose and --json chose; set at the beginning of every command."""

    quiet = False
    verbose = False
    as_json = False


def choose(*, quiet: bool, verbose: bool, as_json: bool) -> None:
    """Set what is printed."""
    if quiet and verbose:
        raise ValueError("--quiet and --verbose: give one of them")
    _Chosen.quiet, _Chosen.verbose, _Chosen.as_json = quiet, verbose, as_json


def say(text: str) -> None:
    """Print a line of the result, for people."""
    if not (_Chosen.quiet or _Chosen.as_json):
        _out.print(text, markup=False)


def detail(text: str) -> None:
    """Print what only --verbose shows."""
    if _Chosen.verbose:
        _err.print(f"malis: {text}", markup=False)


def warn(text: str) -> None:
    """Print what is probably a mistake."""
    if not _Chosen.quiet:
        _err.print(f"malis: warning: {' '.join(text.split())}", markup=False)


def show_json(values: Mapping[str, Any]) -> None:
    """Print the result for scripts; a number that is none (NaN) is null, as JSON has no other word for it."""
    if _Chosen.as_json:
        print(json.dumps(_plain(values)))


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _plain(entry) for name, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(entry) for entry in value]
    return None if isinstance(value, float) and value != value else value


def _text(score: float) -> str:
    if score != score:
        return "undefined"
    return str(score) if isinstance(score, int) else f"{score:.4f}"


def show_table(columns: Mapping[str, Mapping[str, float]]) -> None:
    """Print scores, one column for each segmentation."""
    if _Chosen.quiet or _Chosen.as_json:
        return
    several = len(columns) > 1
    table = Table("score", box=None, pad_edge=False, show_header=several)
    for name in columns:
        table.add_column(name, justify="right" if several else "left")
    for score in next(iter(columns.values())):
        values = [column[score] for column in columns.values()]
        table.add_row(score.replace("_", " "), *map(_text, values))
    _out.print(table)


class Steps:
    """The bar of a command: one step after the other, each with its own progress where it is known."""

    def __init__(self, progress: Progress, task: TaskID, total: int) -> None:
        self._progress, self._task, self._total = progress, task, total
        self._number, self._name, self._begun = 0, "", 0.0

    def __call__(self, description: str) -> None:
        """Begin a step; until `tick` is called the bar moves without saying how far."""
        self._end()
        self._number += 1
        self._name, self._begun = description, time.perf_counter()
        text = f"{self._number}/{self._total} {description}"
        self._progress.reset(self._task, description=text, total=None)

    def tick(self, done: float) -> None:
        """Say which share of the step is done."""
        self._progress.update(self._task, total=1.0, completed=done)

    def _end(self) -> None:
        if self._name:
            detail(f"{self._name} took {time.perf_counter() - self._begun:.2f} s")
        self._name = ""


@contextmanager
def steps(total: int) -> Iterator[Steps]:
    """Show a bar; only where somebody watches."""
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TimeElapsedColumn(),
    )
    hidden = _Chosen.quiet or not _err.is_terminal
    with Progress(*columns, console=_err, transient=True, disable=hidden) as progress:
        step = Steps(progress, progress.add_task("", total=None), total)
        yield step
        step._end()


def fail(message: str, status: int) -> int:
    """Print why the command ends; returns its exit status."""
    print(f"malis: {' '.join(message.split())}", file=sys.stderr)
    return status
