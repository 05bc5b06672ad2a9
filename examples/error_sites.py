"""What the errors of the experiment are: through how many edges objects are merged, and how large the split parts are.

python examples/error_sites.py --data isbi2012-slices:PATH nuclei:PATH <the options of benchmark_losses.py>

Reads the segmentations that benchmark_losses.py has kept, and trains nothing; methods that lack a seed are left out. An
edge is a pair of neighbouring pixels of one segment, whatever its affinity: this is how wide the neck of a merge is.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage, sparse

from benchmark_losses import benchmark_parser, segmentations_of
from benchmark_report import markdown
from data import fold_of, load_all
from tasks import MIN_SIZE

Labels = npt.NDArray[Any]


def parts_of(truth: Labels, seg: Labels) -> tuple[Labels, Labels, Labels]:
    """Return true labels, segments, and their common pixels: the parts of an object that are large enough to score."""
    pairs, sizes = np.unique(np.stack([truth.ravel(), seg.ravel()]), axis=1, return_counts=True)
    kept = (pairs > 0).all(0) & (sizes >= MIN_SIZE)
    return pairs[0, kept], pairs[1, kept], sizes[kept]


def joining_edges(truth: Labels, seg: Labels) -> Iterator[int]:
    """Yield for every object that shares its segment how many edges, at least, join it to the other ones.

    That is the smallest cut between the object and the others in the segment: with so many edges fewer, no path would
    lead from one to the other. It is a maximum flow from the object to the others through the background between.
    """
    objects, segments, _ = parts_of(truth, seg)
    boxes = ndimage.find_objects(seg)
    for segment in np.unique(segments):
        own = objects[segments == segment]
        if len(own) < 2:
            continue
        box = boxes[segment - 1]
        inside, labels = seg[box] == segment, truth[box]
        pixels = np.where(inside, 2 + np.arange(inside.size).reshape(inside.shape), -1)
        for number in own:
            # Node 0 is the object, node 1 all the others; what is too small to score passes as background.
            nodes = np.where(inside & np.isin(labels, own), (labels != number).astype(int), pixels)
            yield _cut(nodes)


def _cut(nodes: npt.NDArray[np.int64]) -> int:
    """Return how many edges between neighbours separate node 0 from node 1; negative nodes are outside."""
    sides = [(nodes[1:], nodes[:-1]), (nodes[:, 1:], nodes[:, :-1])]
    one, other = (np.concatenate([pair[i].ravel() for pair in sides]) for i in (0, 1))
    kept = (one >= 0) & (other >= 0) & (one != other)
    _, ends = np.unique(np.concatenate([[0, 1], one[kept], other[kept]]), return_inverse=True)
    start, end = np.split(ends[2:], 2)
    both = np.concatenate([start, end]), np.concatenate([end, start])
    graph = sparse.csr_matrix((np.ones(2 * len(start), np.int32), both), (ends.max() + 1,) * 2)
    return int(sparse.csgraph.maximum_flow(graph, 0, 1).flow_value)


def split_shares(truth: Labels, seg: Labels) -> Iterator[float]:
    """Yield for every object in several segments what share of its parts is outside of the largest one."""
    objects, _, sizes = parts_of(truth, seg)
    for number in np.unique(objects):
        own = sizes[objects == number]
        if len(own) > 1:
            yield 1 - own.max() / own.sum()


def row(images: Sequence[tuple[Labels, Labels]]) -> list[str]:
    """Return the cells of a method on a set."""
    edges = list(itertools.chain.from_iterable(joining_edges(truth, seg) for truth, seg in images))
    shares = list(itertools.chain.from_iterable(split_shares(truth, seg) for truth, seg in images))
    cells = [f"{len(edges) / len(images):.1f}"]
    cells += [f"{np.median(edges):.0f}", f"{np.mean(np.array(edges) <= 3):.0%}"] if edges else ["", ""]
    cells += [f"{len(shares) / len(images):.1f}", f"{np.median(shares):.0%}" if shares else ""]
    return cells


def main(argv: Sequence[str] | None = None) -> str:
    """Print the table; returns it."""
    args = benchmark_parser().parse_args(argv)
    rows = [["set", "method", "merged objects", "edges that join", "at most 3", "split objects", "share split off"]]
    for source in args.data:
        name, split = load_all(source, args.images)
        for method in args.methods:
            files = [segmentations_of(args.output, name, method, seed) for seed in range(args.seeds)]
            if not all(file.exists() for file in files):
                continue
            images: list[tuple[Labels, Labels]] = []
            for seed, file in enumerate(files):
                data = fold_of(name, split, args.folds, seed % args.folds, args.validation, args.test)
                with np.load(file) as found:
                    segs = [found[key].astype(np.int64) for key in found.files]
                images += zip(data.test.labels, segs, strict=True)
            rows.append([name, method, *row(images)])
    print(markdown(rows))
    return markdown(rows)


if __name__ == "__main__":
    main()
