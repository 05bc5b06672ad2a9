"""The graph of tasks that joins the forests of chunks two by two."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from malis.malis_dask import _forests
from malis.malis_dask._chunks import ChunkGrid, Index
from malis.malis_dask._forests import Box, Edges, Forest, Solved
from malis.malis_dask._graph import Tasks

Finish = Callable[[str, Solved], Any]
"""Is called with the name of a box and how it was solved; returns what is kept of it beside its forest."""
Join = Callable[[str, Box, Any, Any, list[Any]], Any]
"""Is called with a box and its name, the forests of its two parts and the edges between them; returns a `Reduced`."""


class Reduced(NamedTuple):
    """What is computed of a box."""

    forest: Any
    crossing: dict[Index, Any]
    """Of a chunk, the edges that lead to others."""
    kept: Any


def reduce_forests(
    tasks: Tasks,
    grid: ChunkGrid,
    nhood: npt.NDArray[np.int64],
    solve_chunk: Callable[[Index], Any],
    join: Join,
) -> dict[str, Any]:
    """Make the tasks; `solve_chunk` returns the key of a `Reduced`.

    Returns the key of what is kept of every box, by its name; all boxes have been solved when these are computed.
    """
    forests: dict[Box, Any] = {}
    kept: dict[str, Any] = {}
    joined: dict[Index, dict[Index, list[Any]]] = {}
    for index in grid:
        key = solve_chunk(index)
        box = _forests.box_of_chunk(grid, index)
        forests[box] = tasks.call(_forest, key, name="forest")
        kept[_name(box)] = tasks.call(_kept, key, name="kept")
        for other in grid.crossings(index, nhood):
            edges = tasks.call(partial(_crossing, other), key, name="crossing")
            # Both ways: the edges between two boxes are found from the chunks of one of them.
            for here, there in ((index, other), (other, index)):
                joined.setdefault(here, {}).setdefault(there, []).append(edges)
    for first, second in _forests.pairs_of_boxes(grid):
        few, many = sorted((first, second), key=lambda box: len(box.chunks))
        between = [
            edges
            for index in few.chunks
            for other, keys in joined.get(index, {}).items()
            if other in many.chunks
            for edges in keys
        ]
        box = _forests.joined_boxes(first, second)
        joining = partial(join, _name(box), box)
        key = tasks.call(joining, forests.pop(first), forests.pop(second), between, name="join")
        forests[box] = tasks.call(_forest, key, name="forest")
        kept[_name(box)] = tasks.call(_kept, key, name="kept")
    return kept


def _name(box: Box) -> str:
    return "-".join(map(str, (*box.start, *box.stop)))


def _forest(solved: Reduced) -> Any:
    return solved.forest


def _kept(solved: Reduced) -> Any:
    return solved.kept


def _crossing(other: Index, solved: Reduced) -> Any:
    return solved.crossing[other]


def joined_by(shape: tuple[int, ...], nhood: npt.NDArray[np.int64], finish: Finish) -> Join:
    """Return how forests without counts are joined."""
    return partial(_join, shape, nhood, finish)


def _join(
    shape: tuple[int, ...],
    nhood: npt.NDArray[np.int64],
    finish: Finish,
    name: str,
    box: Box,
    first: Forest,
    second: Forest,
    between: list[Edges],
) -> Reduced:
    solved = _forests.join_forests(box, shape, nhood, first, second, between)
    return Reduced(solved.forest, {}, finish(name, solved))
