"""Tasks of a dask graph, written down one by one: what they call, and which results they are called with."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence
from typing import Any

import dask.array as da
import numpy as np
import numpy.typing as npt
from dask.delayed import Delayed
from dask.highlevelgraph import HighLevelGraph


class Tasks:
    """A layer of a graph that calls functions with chunks of dask arrays and with results of each other.

    dask.delayed would make a layer of its own for every call, which for thousands of chunks costs more than the work.
    """

    def __init__(self, *arrays: Any) -> None:
        self._arrays = arrays
        self._prefix = f"malis-{uuid.uuid4().hex[:12]}"
        self._tasks: dict[Any, Any] = {}

    def call(self, function: Callable[..., Any], *results: Any, name: str) -> Any:
        """Call a function with results, named by their keys (or lists of keys); returns the key of what it returns."""
        key = (f"{name}-{self._prefix}", len(self._tasks))
        self._tasks[key] = (function, *results)
        return key

    def reduce(self, function: Callable[[Any, Any], Any], keys: Sequence[Any], *, name: str) -> Any:
        """Join results two by two, neighbours first, until one is left; returns its key."""
        left = list(keys)
        while len(left) > 1:
            joined = [self.call(function, left[i], left[i + 1], name=name) for i in range(0, len(left) - 1, 2)]
            left = joined + left[2 * len(joined) :]
        return left[0]

    def compute(self, key: Any) -> Any:
        """Compute a result with the scheduler that dask has been told to use."""
        name = f"{self._prefix}-result"
        graph = HighLevelGraph.from_collections(name, self._tasks, dependencies=self._arrays)
        return Delayed(key, graph, layer=name).compute()

    def array(self, keys: Sequence[Any], chunks: tuple[tuple[int, ...], ...], dtype: npt.DTypeLike, name: str) -> Any:
        """Return the dask array whose chunks, in C-order, are the results of the keys."""
        layer = f"{name}-{self._prefix}"
        counts = tuple(map(len, chunks))
        renamed = {key: (layer, *index) for key, index in zip(keys, np.ndindex(*counts), strict=True)}
        tasks = {renamed.get(key, key): task for key, task in self._tasks.items()}
        graph = HighLevelGraph.from_collections(layer, tasks, dependencies=self._arrays)
        return da.Array(graph, layer, chunks, dtype=dtype)
