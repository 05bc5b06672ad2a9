"""Pair counts and the MALIS loss of chunked volumes."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import dask.array as da
import numpy as np
import numpy.typing as npt

from malis import _checks
from malis._options import LossOptions, Options, PairOptions, of_pairs, takes
from malis.loss import MalisLoss, PairCounts
from malis.malis_dask import _arguments, _counts
from malis.malis_dask._chunks import ChunkGrid, Index
from malis.malis_dask._counts import Counted, CountedForest, Counting, Truth
from malis.malis_dask._forests import Box
from malis.malis_dask._graph import Tasks
from malis.malis_dask._pointwise import Terms
from malis.malis_dask._reduction import Reduced, reduce_forests
from malis.malis_dask._scratch import Scratch
from malis.malis_dask.labels import connect_labels

if TYPE_CHECKING:
    from typing_extensions import Unpack

Integers = npt.NDArray[np.int64]


@takes(PairOptions, num_threads=1)
def pairs(
    aff: Any,
    seg: Any,
    nhood: npt.ArrayLike,
    *,
    scratch: str | os.PathLike[str],
    edge_mask: Any = None,
    unlabelled_mask: Any = None,
    **options: Unpack[PairOptions],
) -> PairCounts:
    """Count the pairs that the edges of a chunked volume decide: `malis.pairs` of any size of volume.

    The counts are those of `malis.pairs`, number for number. The forests of chunks are joined two by two, as in
    `maximum_spanning_tree`; that happens in this call. An edge whose two sides are known completely gets its counts and
    is put aside. What two parts of the volume hand on is their surface, and of every object or component that reaches
    it the parts that it is joined of: about 60 bytes a voxel of the objects that are cut by the surface of a part. No
    task holds more than two such parts. Where one object goes through the whole volume the last task holds all of it.

    Parameters
    ----------
    aff : dask.array.Array, shape (K, *shape)
        Affinities, see `affgraph_to_seg`.
    seg : dask.array.Array of int, shape `shape`
        Labels below 2**63; 0 is background.
    nhood : array_like of int, shape (K, ndim)
        Offsets; they may lead further than a chunk.
    scratch : path
        A folder for the counts: 32 bytes for each edge that decides pairs, of which there are fewer than foreground
        voxels. The result reads from it, so keep it as long.
    edge_mask : dask.array.Array of bool, shape (K, *shape), optional
        False where the ground truth of an edge is unknown, see `malis.pairs`.
    unlabelled_mask : dask.array.Array of bool, shape `shape`, optional
        True where objects exist but carry no label, see `malis.pairs`.
    **options
        The options of counting; `malis._options.Options` describes them.

    Returns
    -------
    malis.PairCounts
        ``pos`` and ``neg``, dask arrays of int64 in the shape and spatial chunks of `aff`.

    Raises
    ------
    ValueError
        For shapes that do not go together, empty or unknown ones, NaN, negative or fractional labels, 2**32 or more
        foreground voxels, a folder `scratch` of other arguments.
    TypeError
        For dtypes and options of another type.

    Examples
    --------
    >>> import tempfile
    >>> import dask.array as da
    >>> from malis import malis_dask
    >>> aff = da.from_array([[0, 0.9, 0.8, 0.2, 0.3]], chunks=(1, 2))
    >>> seg = da.from_array([1, 1, 1, 0, 2], chunks=2)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     pos, neg = malis_dask.pairs(aff, seg, [[-1]], scratch=folder)
    ...     pos.compute(), neg.compute()
    (array([[0, 1, 2, 0, 0]]), array([[0, 0, 0, 3, 0]]))
    """
    checked = of_pairs({"num_threads": 1, **options})
    volume = Volume.of(aff, seg, nhood, edge_mask, unlabelled_mask, checked)
    kept = Scratch.of(scratch, {**volume.job(), **checked, "num_threads": None, "pairs": True})
    names, _ = _count(volume, kept, None)
    arrays = []
    for row in (_POSITIVE, _NEGATIVE):
        tasks = Tasks()
        keys = [
            tasks.call(
                partial(_counts_of_chunk, kept, names, volume.grid, index, len(volume.nhood), row), name="counts"
            )
            for index in volume.grid
        ]
        arrays.append(tasks.array(keys, ((len(volume.nhood),), *volume.grid.chunks), np.int64, "malis-pairs"))
    return PairCounts(*arrays)


@takes(LossOptions, num_threads=1)
def malis_loss(
    aff: Any,
    seg: Any,
    nhood: npt.ArrayLike,
    *,
    scratch: str | os.PathLike[str],
    edge_mask: Any = None,
    unlabelled_mask: Any = None,
    **options: Unpack[LossOptions],
) -> MalisLoss:
    """Compute the MALIS loss of a chunked volume and its gradient: `malis.malis_loss` of any size of volume.

    The pairs are counted as in `pairs`, in this call; the gradient is computed chunk by chunk when it is asked for.

    Parameters
    ----------
    aff : dask.array.Array of float, shape (K, *shape)
        Affinities, see `malis.malis_loss`; there are no batches.
    seg : dask.array.Array of int, shape `shape`
        Labels below 2**63; 0 is background.
    nhood : array_like of int, shape (K, ndim)
        Offsets; they may lead further than a chunk.
    scratch : path
        A folder for the counts, see `pairs`. The gradient reads from it, so keep it as long.
    edge_mask : dask.array.Array of bool, shape (K, *shape), optional
        See `malis.pairs`.
    unlabelled_mask : dask.array.Array of bool, shape `shape`, optional
        See `malis.pairs`.
    **options
        The options of the loss; `malis._options.Options` describes them.

    Returns
    -------
    malis.MalisLoss
        ``loss``, a float, and ``grad``, a dask array in the shape, spatial chunks and dtype of `aff`. Counts are exact;
        the sums of the loss are added up in another order than in memory, so its last digits may differ.

    Raises
    ------
    ValueError
        As `malis.malis_loss`, and as `pairs`.
    TypeError
        For dtypes and options of another type.

    Examples
    --------
    >>> import tempfile
    >>> import dask.array as da
    >>> from malis import malis_dask
    >>> aff = da.from_array([[0, 0.9, 0.8, 0.2, 0.6]], chunks=(1, 2))
    >>> seg = da.from_array([1, 1, 0, 2, 2], chunks=2)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     loss, grad = malis_dask.malis_loss(aff, seg, [[-1]], scratch=folder)
    ...     round(loss, 4), grad.compute().round(2)
    (0.005, array([[ 0. ,  0. ,  0. ,  0. , -0.1]]))
    """
    checked = Options.of({"num_threads": 1, **options})
    of_counting = {name: getattr(checked, name) for name in PairOptions.__annotations__}
    labels = _arguments.as_chunked_labels(seg, "seg")
    if checked.connect_labels:
        labels = _connected(labels, unlabelled_mask, checked)
    volume = Volume.of(aff, labels, nhood, edge_mask, unlabelled_mask, of_counting)
    if volume.aff.dtype.kind != "f":
        raise TypeError(f"aff must have dtype float16, float32 or float64, got {_checks.describe(volume.aff)}")
    job = {**volume.job(), **checked.as_keywords(), "num_threads": None, "loss": True}
    kept = Scratch.of(scratch, job)
    terms = Terms(checked)
    names, totals = _count(volume, kept, terms)
    weights = terms.weights(totals.pos, totals.neg)
    loss = float(weights[0] * totals.of_pos + weights[1] * totals.of_neg)
    terms.check_finite(loss)
    tasks = Tasks(volume.aff)
    keys = [
        tasks.call(
            partial(_gradient_of_chunk, kept, names, volume.grid, index, terms, weights),
            (volume.aff.name, 0, *index),
            name="gradient",
        )
        for index in volume.grid
    ]
    chunks = ((len(volume.nhood),), *volume.grid.chunks)
    return MalisLoss(loss, tasks.array(keys, chunks, volume.aff.dtype, "malis-gradient"))


def _connected(seg: Any, unlabelled_mask: Any, options: Options) -> Any:
    """Give every connected part of a label its own; ignored voxels keep theirs, unlabelled ones have none."""
    # Where background is an object its parts are, too: so that it has a label, all go up by one.
    objects = seg if options.ignore_background else seg.astype(np.int64) + 1
    ignored = np.False_ if options.ignore_label is None else seg == options.ignore_label
    apart = ignored if unlabelled_mask is None else ignored | _arguments.as_chunked(unlabelled_mask, "unlabelled_mask")
    if options.ignore_label is None and unlabelled_mask is None:
        return connect_labels(objects, num_threads=options.num_threads)
    parts = connect_labels(da.where(apart, 0, objects), num_threads=options.num_threads).astype(np.int64)
    if options.ignore_label is None:
        return parts
    # Parts are numbered from 1 on, among which the ignored label is left out. What else is in no part, background or
    # unlabelled, must not get it either: where 0 is ignored these are unlabelled voxels, whose label is not read.
    apart_as = 1 if options.ignore_label == 0 else 0
    numbers = da.where(parts == 0, apart_as, parts + (parts >= max(1, options.ignore_label)))
    return da.where(ignored, options.ignore_label, numbers)


@dataclass(frozen=True)
class Volume:
    """The arguments of counting."""

    aff: Any
    seg: Any
    edge_mask: Any
    unlabelled_mask: Any
    nhood: Integers
    grid: ChunkGrid
    options: dict[str, Any]

    @classmethod
    def of(
        cls, aff: Any, seg: Any, nhood: npt.ArrayLike, edge_mask: Any, unlabelled_mask: Any, options: dict[str, Any]
    ) -> Volume:
        """Check the arguments, and bring all arrays into the chunks of the affinities."""
        offsets = _checks.as_nhood(nhood)
        affinities = _arguments.as_chunked_affinities(aff, offsets)
        labels = _arguments.as_chunked_labels(seg, "seg")
        _arguments.check_axes(labels, "seg", offsets)
        grid = _arguments.grid_of(affinities.chunks[1:])
        if labels.shape != grid.shape:
            raise ValueError(f"seg must have shape {grid.shape}, got {_checks.describe(labels)}")
        masks: list[Any] = []
        for mask, name, shape in (
            (edge_mask, "edge_mask", affinities.shape),
            (unlabelled_mask, "unlabelled_mask", grid.shape),
        ):
            chunked = None if mask is None else _arguments.as_chunked(mask, name)
            if chunked is not None and chunked.dtype.kind != "b":
                raise TypeError(f"{name} must have dtype bool, got {_checks.describe(chunked)}")
            if chunked is not None and chunked.shape != shape:
                raise ValueError(f"{name} must have shape {shape}, got {_checks.describe(chunked)}")
            chunks = (((len(offsets),), *grid.chunks), grid.chunks)[len(masks)]
            masks.append(None if chunked is None else chunked.rechunk(chunks))
        return cls(affinities, labels.rechunk(grid.chunks), masks[0], masks[1], offsets, grid, options)

    def job(self) -> dict[str, Any]:
        """Return what a folder has to be of."""
        masks = [mask is not None for mask in (self.edge_mask, self.unlabelled_mask)]
        return {
            "chunks": self.grid.chunks,
            "dtype": str(self.aff.dtype),
            "nhood": self.nhood.tolist(),
            "masks": masks,
        }

    def arrays(self) -> list[Any]:
        """Return the arrays that there are."""
        return [array for array in (self.aff, self.seg, self.edge_mask, self.unlabelled_mask) if array is not None]

    def blocks(self, index: Index) -> list[Any]:
        """Return the keys of the chunks at an index, None where there is no array."""
        arrays = (self.aff, self.seg, self.edge_mask, self.unlabelled_mask)
        leading = ((0,), (), (0,), ())
        return [None if a is None else (a.name, *first, *index) for a, first in zip(arrays, leading, strict=True)]


@dataclass
class _Totals:
    """Sums over the edges of a part of the volume."""

    pos: int = 0
    neg: int = 0
    of_pos: float = 0.0
    """Of the terms of positive pairs."""
    of_neg: float = 0.0
    foreground: int = 0
    """Voxels of the part's chunks."""

    def __add__(self, other: _Totals) -> _Totals:
        return _Totals(*(getattr(self, name) + getattr(other, name) for name in self.__dataclass_fields__))


_EDGE, _POSITIVE, _NEGATIVE = range(1, 4)
"""The rows of an array of counts below the first, which is the chunk of an edge; it is sorted by chunk and edge."""


def _count(volume: Volume, kept: Scratch, terms: Terms | None) -> tuple[list[str], _Totals]:
    """Count all pairs; returns the names under which the counts are kept, and their sums."""
    options = volume.options
    if options["ignore_label"] == 0 and not options["ignore_background"]:
        raise ValueError("ignore_label must not be 0 where ignore_background is False, got 0")
    truth = Truth(options["ignore_background"], options["ignore_label"])
    unknown = volume.edge_mask is not None or volume.unlabelled_mask is not None or options["ignore_label"] is not None
    tasks = Tasks(*volume.arrays())
    results = []
    for number, of in enumerate(_counts.passes(options["constrain_positive"], options["constrain_negative"], unknown)):
        counting = Counting(volume.grid, volume.nhood, of, options["num_threads"])
        put_aside = partial(_put_aside, kept, volume.grid, terms, f"pass{number}")
        results += reduce_counts(tasks, volume, counting, truth, put_aside, None if terms is None else terms.check)
    found: list[tuple[str, _Totals]] = tasks.compute(tasks.call(list, results, name="totals"))
    totals = _Totals()
    for _, part in found:
        totals += part
    _counts.check_foreground(totals.foreground // (number + 1))
    return [name for name, _ in found], totals


def reduce_counts(
    tasks: Tasks,
    volume: Volume,
    counting: Counting,
    truth: Truth,
    finish: Callable[[str, Counted, int], Any],
    check: Callable[[npt.NDArray[Any]], None] | None = None,
) -> list[Any]:
    """Make the tasks of one pass; returns the keys of what `finish` returns of all boxes."""
    grid, nhood = volume.grid, volume.nhood

    def solve_chunk(index: Index) -> Any:
        solve = partial(_solve_chunk, counting, truth, index, grid.crossings(index, nhood), finish, check)
        return tasks.call(solve, *volume.blocks(index), name="count-chunk")

    return list(reduce_forests(tasks, grid, nhood, solve_chunk, partial(_join, counting, finish)).values())


def _solve_chunk(
    counting: Counting,
    truth: Truth,
    index: Index,
    crossings: Any,
    finish: Callable[[str, Counted, int], Any],
    check: Callable[[npt.NDArray[Any]], None] | None,
    block: npt.NDArray[Any],
    seg: npt.NDArray[Any],
    edge_mask: npt.NDArray[np.bool_] | None,
    unlabelled_mask: npt.NDArray[np.bool_] | None,
) -> Reduced:
    aff = _checks.as_affinities(block, "aff", integers=True)
    if check is not None:
        check(aff)
    objects = truth.objects(seg, unlabelled_mask)
    forest, counted = counting.chunk(index, aff, objects, edge_mask)
    crossing = _counts.crossing_edges(counting.grid, index, crossings, aff, edge_mask)
    foreground = int(np.count_nonzero((objects >= 0) | (objects == _counts.UNLABELLED)))
    return Reduced(forest, crossing, finish(f"chunk-{'-'.join(map(str, index))}", counted, foreground))


def _join(
    counting: Counting,
    finish: Callable[[str, Counted, int], Any],
    name: str,
    box: Box,
    first: CountedForest,
    second: CountedForest,
    between: list[_counts.Edges],
) -> Reduced:
    forest, counted = counting.join(box, first, second, between)
    return Reduced(forest, {}, finish(f"box-{name}", counted, 0))


def _put_aside(
    kept: Scratch, grid: ChunkGrid, terms: Terms | None, prefix: str, name: str, counted: Counted, foreground: int
) -> tuple[str, _Totals]:
    """Keep the counts of a box, sorted by the chunks that hold the edges."""
    chunk = grid.owners(counted.edge % grid.voxels)
    rows = np.stack([chunk, counted.edge, counted.pos, counted.neg])
    kept.write_array(f"{prefix}-{name}", rows[:, np.lexsort((counted.edge, chunk))])
    totals = _Totals(sum(counted.pos.tolist()), sum(counted.neg.tolist()), foreground=foreground)
    if terms is not None:
        totals.of_pos, totals.of_neg = terms.sums(counted.affinity, counted.pos, counted.neg)
    return f"{prefix}-{name}", totals


def _rows_of_chunk(kept: Scratch, names: list[str], grid: ChunkGrid, index: Index) -> Integers:
    """Return the counts of the edges of a chunk, wherever they were settled, by their indices in the chunk."""
    number = int(np.ravel_multi_index(index, grid.counts))
    parts = (kept.read_columns(number, name)[0] for name in names)
    found = np.concatenate([np.zeros((4, 0), np.int64), *parts], axis=1)
    channel, voxel = np.divmod(found[_EDGE], grid.voxels)
    found[_EDGE] = channel * math.prod(grid.size(index)) + grid.within(index, voxel)
    return found


def _counts_of_chunk(
    kept: Scratch, names: list[str], grid: ChunkGrid, index: Index, channels: int, row: int
) -> Integers:
    rows = _rows_of_chunk(kept, names, grid, index)
    counts = np.zeros((channels, *grid.size(index)), np.int64)
    np.add.at(counts.ravel(), rows[_EDGE], rows[row])
    return counts


def _gradient_of_chunk(
    kept: Scratch,
    names: list[str],
    grid: ChunkGrid,
    index: Index,
    terms: Terms,
    weights: tuple[float, float],
    block: npt.NDArray[Any],
) -> npt.NDArray[Any]:
    aff = _checks.as_affinities(block, "aff")
    rows = _rows_of_chunk(kept, names, grid, index)
    grad = np.zeros(aff.shape, aff.dtype)
    edges = rows[_EDGE]
    slopes = terms.slopes(aff.ravel()[edges], rows[_POSITIVE], rows[_NEGATIVE], weights)
    terms.check_finite(slopes.astype(aff.dtype))
    np.add.at(grad.ravel(), edges, slopes.astype(aff.dtype))
    return grad.astype(block.dtype, copy=False)
