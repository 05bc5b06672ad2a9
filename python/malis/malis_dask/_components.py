"""Components of a chunked volume: those of every chunk, and what joins them.

A chunk is segmented on its own. A component that reaches a face of the chunk is *open*: it may go on in another chunk.
What is neither open nor large enough is background from then on. What a chunk hands on is small: the labels along its
faces, for the edges that lead to other chunks, and the size and first voxel of every component that is left. Pairs of
labels that such an edge joins are the edges of the *face graph*, whose nodes are components of chunks; its connected
components are those of the volume. Labels of chunks are needed once more to be replaced by the final ones; they are
computed a second time, or kept in a folder.

                   chunk A                    chunk B
    read           block                      block
    label_chunk    Part: faces, components    Part: faces, components
    link                       pairs of labels of A and B
    close          components that go on or stay, pairs
    solve                      final labels of these
    relabel        labels                     labels
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from malis import _core
from malis.malis_dask._chunks import ChunkGrid, Crossing, Index
from malis.malis_dask._graph import Tasks
from malis.malis_dask._scratch import Scratch

Array = npt.NDArray[Any]
Integers = npt.NDArray[np.int64]
Face = tuple[Array, ...]
"""The labels of voxels along a face, 0 where nothing goes on; and what must be equal on both sides, if anything."""


class Labeller(Protocol):
    """How a chunk is segmented."""

    def faces(self, grid: ChunkGrid) -> dict[Index, Faces]:
        """Return which edges lead from every chunk to others, and from others to it."""

    def label(self, block: Array, faces: Faces, size_thresh: int) -> Labelled:
        """Find the components that are open or have more than so many voxels."""

    def leaving(self, block: Array, labels: Array, crossing: Any) -> Face:
        """Return the face of a chunk that edges whose affinities it holds leave through."""

    def entered(self, block: Array, labels: Array, crossing: Any) -> Face:
        """Return the face of a chunk that edges of another one lead to."""


class Faces(NamedTuple):
    """Which edges lead from a chunk to others, and from others to it, in groups that the labeller knows."""

    leaving: dict[Index, Sequence[Any]]
    entered: dict[Index, Sequence[Any]]


class Labelled(NamedTuple):
    """The components of a chunk that are open or large enough."""

    labels: Array
    """1..n in the order of their first voxels, 0 for all other voxels."""
    sizes: Integers
    """How many voxels every label has, 0 included."""
    first: Integers
    """The flat index in the chunk of the first voxel of every label from 1 on."""


class Part(NamedTuple):
    """What is known of the components of a chunk."""

    sizes: Integers
    """How many voxels every label of the chunk has, from 1 on."""
    first: Integers
    """The flat index in the volume of the first of these."""
    dropped: int
    """How many voxels of the chunk carry label 0."""
    leaving: dict[Index, Face]
    entered: dict[Index, Face]


class Closed(NamedTuple):
    """The components of a chunk that go on in others or are large enough, and the pairs that edges from it join."""

    labels: Integers
    sizes: Integers
    first: Integers
    dropped: int
    """How many voxels of the chunk are in no such component."""
    pairs: dict[Index, Integers]
    """For every chunk that edges lead to: labels here and there, shape ``(2, n)``."""


class Solved(NamedTuple):
    """The components of the volume."""

    final: list[Integers]
    """For every chunk the final labels of its closed components; 0 for what is too small."""
    labels: list[Integers]
    """Which labels of the chunk these are."""
    sizes: Integers
    """How many voxels every final label has, 0 included."""
    face_edges: int
    """How many edges the face graph had."""


@dataclass(frozen=True)
class Numbering:
    """Which components stay, and in which order they are numbered."""

    size_thresh: int
    """Components of at most so many voxels become 0."""
    by_size: bool
    """By decreasing size, equal sizes by their first voxels; or by their first voxels alone."""


def label_volume(
    array: Any, grid: ChunkGrid, labeller: Labeller, numbering: Numbering, scratch: Scratch | None
) -> tuple[Any, Integers]:
    """Segment a volume; returns the labels as a dask array of uint64, lazily, and how many voxels each has.

    `array` holds the affinities or labels in chunks of `grid`; leading axes have one chunk.
    """
    indices = list(grid)
    leading = (0,) * (array.ndim - len(grid.shape))
    blocks = {index: (array.name, *leading, *index) for index in indices}
    faces = labeller.faces(grid)
    first_pass = Tasks(array)
    parts = {}
    for index in indices:
        label = partial(label_chunk, grid, index, labeller, faces[index], numbering.size_thresh, scratch)
        if scratch is not None and scratch.has_part(index):
            parts[index] = first_pass.call(partial(scratch.read_part, index), name="read-part")
        else:
            parts[index] = first_pass.call(label, blocks[index], name="label-chunk")
    pairs = {
        (index, other): first_pass.call(
            link,
            first_pass.call(partial(_face, "leaving", other), parts[index], name="face"),
            first_pass.call(partial(_face, "entered", index), parts[other], name="face"),
            name="link",
        )
        for index in indices
        for other in faces[index].leaving
    }
    closed = []
    for index in indices:
        out, into = list(faces[index].leaving), list(faces[index].entered)
        table = first_pass.call(_table, parts[index], name="table")
        linked = [pairs[index, other] for other in out], [pairs[other, index] for other in into]
        closed.append(first_pass.call(partial(close, numbering.size_thresh, out), table, *linked, name="close"))
    solved: Solved = first_pass.compute(first_pass.call(partial(solve, indices, numbering), closed, name="solve"))
    second_pass = Tasks(array)
    keys = []
    for index, labels, final in zip(indices, solved.labels, solved.final, strict=True):
        if scratch is not None:
            keys.append(second_pass.call(partial(relabel_kept, index, scratch, labels, final), name="relabel"))
        else:
            again = partial(relabel, labeller, faces[index], numbering.size_thresh, labels, final)
            keys.append(second_pass.call(again, blocks[index], name="relabel"))
    return second_pass.array(keys, grid.chunks, np.uint64, "malis-labels"), solved.sizes


def faces_of_offsets(grid: ChunkGrid, nhood: npt.NDArray[np.int64]) -> dict[Index, Faces]:
    """Return the edges of a neighbourhood that cross faces, as `Crossing`."""
    leaving: dict[Index, dict[Index, list[Crossing]]] = {index: grid.crossings(index, nhood) for index in grid}
    faces = {index: Faces(dict(crossings), {}) for index, crossings in leaving.items()}
    for index, crossings in leaving.items():
        for other, through in crossings.items():
            faces[other].entered[index] = through
    return faces


def label_chunk(
    grid: ChunkGrid,
    index: Index,
    labeller: Labeller,
    faces: Faces,
    size_thresh: int,
    scratch: Scratch | None,
    block: Array,
) -> Part:
    """Segment a chunk, and collect what is known of its components."""
    labels, sizes, first = labeller.label(block, faces, size_thresh)
    leaving = {other: _joined(labeller.leaving, block, labels, through) for other, through in faces.leaving.items()}
    entered = {other: _joined(labeller.entered, block, labels, through) for other, through in faces.entered.items()}
    part = Part(sizes[1:], grid.flat(index, first), int(sizes[0]), leaving, entered)
    if scratch is not None:
        scratch.write(index, part, labels)
    return part


def _joined(face_of: Any, block: Array, labels: Array, through: Sequence[Any]) -> Face:
    faces = [face_of(block, labels, crossing) for crossing in through]
    return tuple(np.concatenate([part.ravel() for part in parts]) for parts in zip(*faces, strict=True))


def voxels_of_faces(shape: tuple[int, ...], faces: Faces) -> Integers:
    """Return the flat indices in a chunk of the voxels on its faces, which are given as `Crossing`."""
    boxes = [crossing.at for through in faces.leaving.values() for crossing in through]
    boxes += [crossing.to for through in faces.entered.values() for crossing in through]
    at = [np.ix_(*(np.arange(part.start, part.stop) for part in box)) for box in boxes]
    return np.concatenate([np.zeros(0, np.int64), *(np.ravel_multi_index(i, shape).ravel() for i in at)])


def keep_components(labels: Array, open_voxels: Integers, size_thresh: int) -> Labelled:
    """Keep the components that are open or large; `labels` has all, 1..n in the order of their first voxels, and 0."""
    sizes = np.bincount(labels.ravel(), minlength=1)
    wanted = sizes > size_thresh
    wanted[labels.ravel()[open_voxels]] = True
    wanted[0] = False
    number = np.zeros(len(sizes), np.uint32)
    kept = np.flatnonzero(wanted)
    number[kept] = np.arange(1, len(kept) + 1)
    first = first_voxels(labels, len(sizes))[kept]
    return Labelled(number[labels], np.concatenate([[labels.size - sizes[kept].sum()], sizes[kept]]), first)


def first_voxels(labels: Array, count: int) -> Integers:
    """Return the flat index of the first voxel of every label."""
    first = np.zeros(count, np.int64)
    flat = labels.ravel()
    # Of several values for one index NumPy keeps the last.
    first[flat[::-1]] = np.arange(flat.size - 1, -1, -1)
    return first


def _face(side: str, other: Index, part: Part) -> Face:
    face: Face = getattr(part, side)[other]
    return face


def _table(part: Part) -> Part:
    """Leave the faces out, so that their memory is free once they are linked."""
    return part._replace(leaving={}, entered={})


def link(leaving: Face, entered: Face) -> Integers:
    """Return the pairs of labels of two chunks that edges join, each once, shape ``(2, n)``."""
    joined = (leaving[0] != 0) & (entered[0] != 0)
    for here, there in zip(leaving[1:], entered[1:], strict=True):
        joined &= here == there
    # Both labels in one number: sorting these is far faster than sorting pairs. A chunk has fewer than 2**31 voxels.
    codes = np.unique((leaving[0][joined].astype(np.int64) << 32) | entered[0][joined].astype(np.int64))
    return np.stack([codes >> 32, codes & 0xFFFFFFFF])


def close(size_thresh: int, others: list[Index], part: Part, out: list[Integers], into: list[Integers]) -> Closed:
    """Drop the components that turn out to go on nowhere and are too small."""
    keep = part.sizes > size_thresh
    for linked in (*(pairs[0] for pairs in out), *(pairs[1] for pairs in into)):
        keep[linked - 1] = True
    return Closed(
        np.flatnonzero(keep) + 1,
        part.sizes[keep],
        part.first[keep],
        int(part.dropped + part.sizes[~keep].sum()),
        dict(zip(others, out, strict=True)),
    )


def solve(indices: list[Index], numbering: Numbering, closed: list[Closed]) -> Solved:
    """Solve the face graph and number the components of the volume."""
    base = np.concatenate([[0], np.cumsum([len(chunk.labels) for chunk in closed])])
    position = {index: i for i, index in enumerate(indices)}
    ends: list[list[Integers]] = [[], []]
    for i, chunk in enumerate(closed):
        for other, (here, there) in chunk.pairs.items():
            j = position[other]
            ends[0].append(base[i] + np.searchsorted(chunk.labels, here))
            ends[1].append(base[j] + np.searchsorted(closed[j].labels, there))
    node1, node2 = (np.concatenate([np.zeros(0, np.int64), *side]) for side in ends)
    nodes = int(base[-1])
    component = _core.edge_components(nodes, node1, node2, np.ones(len(node1), bool)) - 1
    count = int(component.max()) + 1 if nodes else 0
    sizes, first = np.zeros(count, np.int64), np.full(count, np.iinfo(np.int64).max)
    if nodes:
        np.add.at(sizes, component, np.concatenate([chunk.sizes for chunk in closed]))
        np.minimum.at(first, component, np.concatenate([chunk.first for chunk in closed]))
    large = np.flatnonzero(sizes > numbering.size_thresh)
    order = large[np.lexsort((first[large], -sizes[large]) if numbering.by_size else (first[large],))]
    number = np.zeros(count, np.int64)
    number[order] = np.arange(1, len(order) + 1)
    dropped = sum(chunk.dropped for chunk in closed) + int(sizes.sum() - sizes[order].sum())
    final = number[component]
    return Solved(
        np.split(final, base[1:-1]),
        [chunk.labels for chunk in closed],
        np.concatenate([[dropped], sizes[order]]),
        len(node1),
    )


def relabel(
    labeller: Labeller, faces: Faces, size_thresh: int, labels: Integers, final: Integers, block: Array
) -> npt.NDArray[np.uint64]:
    """Segment a chunk again, and give its components their final labels."""
    return _replaced(labeller.label(block, faces, size_thresh).labels, labels, final)


def relabel_kept(index: Index, scratch: Scratch, labels: Integers, final: Integers) -> npt.NDArray[np.uint64]:
    """Give the components of a chunk that was kept their final labels."""
    return _replaced(scratch.read_labels(index), labels, final)


# NumPy converts indices to 64 bits: so many at a time stay in the cache of a core.
_BLOCK = 2**15


def _replaced(found: Array, labels: Integers, final: Integers) -> npt.NDArray[np.uint64]:
    table = np.zeros(int(found.max()) + 1, np.uint64)
    table[labels] = final
    replaced = np.empty(found.shape, np.uint64)
    flat, out = found.ravel(), replaced.ravel()
    for begin in range(0, found.size, _BLOCK):
        block = slice(begin, begin + _BLOCK)
        # All labels are in the table; by default `take` would check that, and copy the block for it.
        np.take(table, flat[block], out=out[block], mode="clip")
    return replaced
