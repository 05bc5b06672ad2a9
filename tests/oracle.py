"""Slow, independent statements of what malis computes, for small problems.

Nothing here shares an algorithm with the library: there is no union-find in :func:`pairs` or
:func:`watershed`.  They work on the *minimax rank* of two nodes, the definition itself:

    Put the edges in order (decreasing affinity, then increasing edge index) and number them.
    rank(u, v) is the smallest r such that the edges numbered 0..r connect u and v.
    The edge numbered rank(u, v) is the one that decides the pair (u, v).

which a Floyd-Warshall closure over (min, max) gives in O(n^3) for every pair of nodes at once.

:func:`kruskal_pairs` states the same counts in another way that reaches a few hundred thousand edges
(SciPy's spanning tree over the edge numbers, then dictionaries of label counts); the tests compare it with
:func:`pairs` first and then use it where the library takes other code paths for large problems.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest

NEVER = np.iinfo(np.int32).max
CONTRACTED = -1


# ---------------------------------------------------------------------------------------------- graphs
def grid_nodes(shape: tuple[int, ...], nhood: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both ends of every edge of a grid, flat, in the order of the edge index; -1 marks a missing end."""
    shape = tuple(shape)
    nhood = np.asarray(nhood).reshape(-1, len(shape))
    voxels = np.indices(shape).reshape(len(shape), -1)
    n = voxels.shape[1]
    node1 = np.tile(np.arange(n), len(nhood))
    node2 = np.full(len(nhood) * n, -1)
    for k, offset in enumerate(nhood):
        for v in range(n):
            target = [int(x) + int(o) for x, o in zip(voxels[:, v], offset, strict=True)]
            if all(0 <= t < s for t, s in zip(target, shape, strict=True)):
                flat = 0
                for t, s in zip(target, shape, strict=True):
                    flat = flat * s + t
                node2[k * n + v] = flat
    return node1, node2


def fast_grid_nodes(shape: tuple[int, ...], nhood: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """:func:`grid_nodes` without the loop over voxels."""
    shape = tuple(shape)
    nhood = np.asarray(nhood).reshape(-1, len(shape))
    voxels = np.indices(shape).reshape(len(shape), -1)
    n = voxels.shape[1]
    limits = np.asarray(shape)[:, None]
    node2 = []
    for offset in nhood:
        target = voxels + offset.astype(np.int64)[:, None]
        inside = ((target >= 0) & (target < limits)).all(axis=0)
        flat = np.full(n, -1)
        flat[inside] = np.ravel_multi_index(tuple(target[:, inside]), shape)
        node2.append(flat)
    return np.tile(np.arange(n), len(nhood)), np.concatenate(node2)


def edge_order(weights: np.ndarray) -> np.ndarray:
    """Edge indices by decreasing weight, equal weights by increasing index."""
    weights = np.asarray(weights).ravel()
    if weights.dtype == np.float16:
        weights = weights.astype(np.float32)
    return np.array(sorted(range(weights.size), key=lambda e: (-weights[e].item(), e)), dtype=np.int64)


def minimax_ranks(n: int, node1: np.ndarray, node2: np.ndarray, rank: np.ndarray) -> np.ndarray:
    """(n, n) array: the smallest r such that the edges of rank <= r connect two nodes.

    ``rank`` holds one number per edge: ``NEVER`` leaves the edge out, ``CONTRACTED`` lets it connect from
    the beginning without deciding anything.
    """
    closure = np.full((n, n), NEVER, dtype=np.int32)
    for a, b, r in zip(node1.tolist(), node2.tolist(), rank.tolist(), strict=True):
        if a >= 0 and b >= 0 and a != b and r < closure[a, b]:
            closure[a, b] = closure[b, a] = r
    np.fill_diagonal(closure, CONTRACTED)
    for through in range(n):
        np.minimum(closure, np.maximum(closure[:, through, None], closure[None, through, :]), out=closure)
    return closure


# ------------------------------------------------------------------------------------------ pair counts
class _Problem:
    """What the definition says about nodes and edges, before any order comes into it."""

    def __init__(self, node1, node2, seg, edge_mask, unlabelled_mask, ignore_background):
        seg = np.asarray(seg).ravel()
        self.n = seg.size
        # Objects as small consecutive numbers, -1 for voxels that belong to none: any label dtype works.
        names: dict[object, int] = {}
        objects = []
        unlabelled = np.zeros(self.n, bool) if unlabelled_mask is None else np.asarray(unlabelled_mask).ravel()
        for label, unknown in zip(seg.tolist(), unlabelled.tolist(), strict=True):
            label = int(label)
            if unknown:
                objects.append(names.setdefault("unlabelled", len(names)))
            elif label == 0 and ignore_background:
                objects.append(-1)
            else:
                objects.append(names.setdefault(label, len(names)))
        self.object = np.array(objects, dtype=np.int64)
        self.unlabelled = unlabelled.astype(bool)

        self.exists = (node1 >= 0) & (node2 >= 0)
        a, b = np.where(self.exists, node1, 0), np.where(self.exists, node2, 0)
        self.a, self.b = a, b
        unknown = self.unlabelled[a] & self.unlabelled[b]
        if edge_mask is not None:
            unknown = unknown | ~np.asarray(edge_mask, bool).ravel()
        self.unknown = unknown & self.exists
        same = (self.object[a] == self.object[b]) & (self.object[a] >= 0)
        self.intra = same & ~unknown & self.exists
        self.inter = ~same & ~unknown & self.exists

    def takes_part(self, positive: bool, constrained: bool) -> tuple[np.ndarray, np.ndarray]:
        """(edges that follow in order, edges contracted before)."""
        nothing = np.zeros_like(self.exists)
        if not constrained:
            return self.exists, nothing
        if positive:
            return self.intra | self.unknown, nothing
        return self.inter | self.unknown, self.intra


def edge_pairs(
    node1: np.ndarray,
    node2: np.ndarray,
    weights: np.ndarray,
    seg: np.ndarray,
    *,
    constrain_positive: bool = True,
    constrain_negative: bool = True,
    edge_mask: np.ndarray | None = None,
    unlabelled_mask: np.ndarray | None = None,
    ignore_background: bool = True,
) -> tuple[np.ndarray, np.ndarray]:
    """Positive and negative counts of an explicit graph; an end of -1 marks a missing edge."""
    node1, node2 = np.asarray(node1).ravel(), np.asarray(node2).ravel()
    problem = _Problem(node1, node2, seg, edge_mask, unlabelled_mask, ignore_background)
    order = edge_order(weights)
    own_rank = np.empty(order.size, dtype=np.int64)
    own_rank[order] = np.arange(order.size)

    first, second = np.triu_indices(problem.n, 1)
    one, two = problem.object[first], problem.object[second]
    both = (one >= 0) & (two >= 0)
    positive = both & (one == two) & ~problem.unlabelled[first]
    negative = both & (one != two)

    results = []
    for is_positive, constrained, counted in (
        (True, constrain_positive, positive),
        (False, constrain_negative, negative),
    ):
        follow, contracted = problem.takes_part(is_positive, constrained)
        rank = np.where(contracted, CONTRACTED, np.where(follow, own_rank, NEVER))
        deciding = minimax_ranks(problem.n, node1, node2, rank)[first, second][counted]
        deciding = deciding[(deciding != NEVER) & (deciding != CONTRACTED)]
        counts = np.zeros(order.size, dtype=np.int64)
        np.add.at(counts, order[deciding], 1)
        counts[problem.unknown] = 0
        results.append(counts.reshape(np.shape(weights)))
    return results[0], results[1]


def pairs(aff: np.ndarray, seg: np.ndarray, nhood: np.ndarray, **options) -> tuple[np.ndarray, np.ndarray]:
    """Positive and negative counts of an affinity graph, every pair looked at on its own."""
    aff = np.asarray(aff)
    return edge_pairs(*grid_nodes(aff.shape[1:], nhood), aff, seg, **options)


def kruskal_edge_pairs(
    node1: np.ndarray,
    node2: np.ndarray,
    weights: np.ndarray,
    seg: np.ndarray,
    *,
    constrain_positive: bool = True,
    constrain_negative: bool = True,
    edge_mask: np.ndarray | None = None,
    unlabelled_mask: np.ndarray | None = None,
    ignore_background: bool = True,
) -> tuple[np.ndarray, np.ndarray]:
    """:func:`edge_pairs` for graphs of up to about a million edges."""
    node1, node2 = np.asarray(node1).ravel(), np.asarray(node2).ravel()
    problem = _Problem(node1, node2, seg, edge_mask, unlabelled_mask, ignore_background)
    order = np.argsort(-np.asarray(weights, dtype=np.float64).ravel(), kind="stable")
    results = []
    for is_positive, constrained in ((True, constrain_positive), (False, constrain_negative)):
        follow, contracted = problem.takes_part(is_positive, constrained)
        sequence = np.concatenate([np.flatnonzero(contracted), order[follow[order]]])
        counts = np.zeros(order.size, dtype=np.int64)
        _count_along_tree(problem, sequence, is_positive, counts)
        counts[contracted | problem.unknown] = 0
        results.append(counts.reshape(np.shape(weights)))
    return results[0], results[1]


def kruskal_pairs(aff: np.ndarray, seg: np.ndarray, nhood: np.ndarray, **options) -> tuple[np.ndarray, np.ndarray]:
    """:func:`pairs` for volumes of up to about a hundred thousand voxels."""
    aff = np.asarray(aff)
    return kruskal_edge_pairs(*fast_grid_nodes(aff.shape[1:], nhood), aff, seg, **options)


def spanning_tree(n: int, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Positions, increasing, of the edges that Kruskal's algorithm takes when it reads them in this order."""
    # Without SciPy, which malis itself does not need, the problems that are too large for the definition are skipped.
    sparse = pytest.importorskip("scipy.sparse")
    csgraph = pytest.importorskip("scipy.sparse.csgraph")
    low, high = np.minimum(a, b), np.maximum(a, b)
    position = np.arange(low.size)
    keep = low != high
    low, high, position = low[keep], high[keep], position[keep]
    # Parallel edges would be summed by the sparse matrix: only the first of each pair of nodes can matter.
    _, first = np.unique(low.astype(np.int64) * n + high, return_index=True)
    low, high, position = low[first], high[first], position[first]
    graph = sparse.coo_matrix((position + 1.0, (low, high)), shape=(n, n)).tocsr()
    return np.sort(csgraph.minimum_spanning_tree(graph).data.astype(np.int64) - 1)


def _count_along_tree(problem: _Problem, sequence: np.ndarray, positive: bool, counts: np.ndarray) -> None:
    tree = sequence[spanning_tree(problem.n, problem.a[sequence], problem.b[sequence])]
    # How many voxels of each object a component holds; plain dictionaries, as this loop is what the tests wait for.
    counted = problem.object >= 0
    if positive:
        counted &= ~problem.unlabelled
    members: list[dict[int, int] | None] = [
        {obj: 1} if counts_here else {}
        for obj, counts_here in zip(problem.object.tolist(), counted.tolist(), strict=True)
    ]
    total = counted.astype(int).tolist()
    parent = list(range(problem.n))

    def find(v: int) -> int:
        while parent[v] != v:
            parent[v] = parent[parent[v]]
            v = parent[v]
        return v

    for e, a, b in zip(tree.tolist(), problem.a[tree].tolist(), problem.b[tree].tolist(), strict=True):
        u, v = find(a), find(b)
        small, large = (u, v) if len(members[u]) <= len(members[v]) else (v, u)
        few, many = members[small], members[large]
        alike = 0
        for obj, count in few.items():
            of_large = many.get(obj, 0)
            alike += count * of_large
            many[obj] = of_large + count
        counts[e] = alike if positive else total[small] * total[large] - alike
        total[large] += total[small]
        members[small] = None
        parent[small] = large


def assert_counts(counts: tuple[np.ndarray, np.ndarray], expected: tuple[np.ndarray, np.ndarray]) -> None:
    """Positive and negative counts of every edge are equal, integer for integer."""
    for got, want, name in zip(counts, expected, ("pos", "neg"), strict=True):
        assert got.dtype == np.int64
        np.testing.assert_array_equal(got, want, err_msg=name)


# ------------------------------------------------------------------------------------------------- loss
def _sigmoid(x: np.ndarray) -> np.ndarray:
    shrinking = np.exp(-np.abs(x))
    return np.where(x >= 0, 1, shrinking) / (1 + shrinking)


def loss_from_counts(
    aff: np.ndarray,
    pos: np.ndarray,
    neg: np.ndarray,
    *,
    margin: float = 0.3,
    pos_loss_weight: float = 0.5,
    normalize: bool = True,
    pointwise: str = "squared_hinge",
    from_logits: bool = False,
) -> float:
    """The formula of the loss, term by term, summed without rounding error."""
    eps = 1e-7
    value = np.asarray(aff, dtype=np.float64)
    of_logits = from_logits and pointwise == "cross_entropy"
    if from_logits and not of_logits:
        value = _sigmoid(value)
    total_pos = int(pos.sum()) if normalize else 1
    total_neg = int(neg.sum()) if normalize else 1
    terms = []
    for a, n_pos, n_neg in zip(value.ravel().tolist(), pos.ravel().tolist(), neg.ravel().tolist(), strict=True):
        if pointwise == "squared_hinge":
            on_pos, on_neg = max(0.0, 1 - margin - a) ** 2, max(0.0, a - margin) ** 2
        elif of_logits:
            on_pos, on_neg = float(np.logaddexp(0, -a)), float(np.logaddexp(0, a))
        else:
            on_pos, on_neg = -math.log(max(a, eps)), -math.log(max(1 - a, eps))
        if n_pos:
            terms.append(2 * pos_loss_weight * (n_pos / total_pos) * on_pos)
        if n_neg:
            terms.append(2 * (1 - pos_loss_weight) * (n_neg / total_neg) * on_neg)
    return math.fsum(terms)


def gradient_from_counts(
    aff: np.ndarray,
    pos: np.ndarray,
    neg: np.ndarray,
    *,
    margin: float = 0.3,
    pos_loss_weight: float = 0.5,
    normalize: bool = True,
    pointwise: str = "squared_hinge",
    from_logits: bool = False,
) -> np.ndarray:
    """Derivative of :func:`loss_from_counts` by the affinities (or logits), the counts held fixed."""
    value = np.asarray(aff, dtype=np.float64)
    inner = np.ones_like(value)
    of_logits = from_logits and pointwise == "cross_entropy"
    if from_logits:
        value = _sigmoid(value)
        inner = value * (1 - value)
    if pointwise == "squared_hinge":
        on_pos, on_neg = -2 * np.maximum(0, 1 - margin - value), 2 * np.maximum(0, value - margin)
    elif of_logits:
        on_pos, on_neg, inner = value - 1, value, np.ones_like(value)
    else:
        on_pos, on_neg = -1 / value, 1 / (1 - value)
    p = pos / max(int(pos.sum()), 1) if normalize else pos
    q = neg / max(int(neg.sum()), 1) if normalize else neg
    return 2 * inner * (pos_loss_weight * p * on_pos + (1 - pos_loss_weight) * q * on_neg)


LOSS_OPTIONS = ("margin", "pos_loss_weight", "normalize", "pointwise", "from_logits")


def malis_loss(
    aff: np.ndarray,
    seg: np.ndarray,
    nhood: np.ndarray,
    *,
    count: Callable[..., tuple[np.ndarray, np.ndarray]] = pairs,
    **options,
) -> float:
    """Loss of one sample, from the brute-force counts."""
    of_loss = {name: options.pop(name) for name in LOSS_OPTIONS if name in options}
    pos, neg = count(aff, seg, nhood, **options)
    return loss_from_counts(aff, pos, neg, **of_loss)


# ----------------------------------------------------------------------------------------- segmentation
def components(connected: np.ndarray, nhood: np.ndarray) -> list[set[int]]:
    """Connected components of the grid under a (K, *shape) array of booleans, as sets of flat indices."""
    connected = np.asarray(connected, dtype=bool)
    node1, node2 = grid_nodes(connected.shape[1:], nhood)
    return edge_components(int(np.prod(connected.shape[1:])), node1, node2, connected.ravel())


def edge_components(n: int, node1: np.ndarray, node2: np.ndarray, connected: np.ndarray) -> list[set[int]]:
    """Connected components of an explicit graph, as sets of nodes, by their smallest node."""
    neighbours: list[set[int]] = [set() for _ in range(n)]
    for a, b, on in zip(node1.tolist(), node2.tolist(), connected.tolist(), strict=True):
        if on and 0 <= a < n and 0 <= b < n:
            neighbours[a].add(b)
            neighbours[b].add(a)
    found: list[set[int]] = []
    seen: set[int] = set()
    for start in range(n):
        if start in seen:
            continue
        part, frontier = {start}, {start}
        while frontier:
            frontier = set().union(*(neighbours[v] for v in frontier)) - part
            part |= frontier
        seen |= part
        found.append(part)
    return found


def partition(labels: np.ndarray) -> set[frozenset[int]]:
    """The non-zero labels as a set of sets of flat indices."""
    flat = np.asarray(labels).ravel()
    return {frozenset(np.flatnonzero(flat == label).tolist()) for label in np.unique(flat) if label != 0}


def edge_watershed(node1: np.ndarray, node2: np.ndarray, weights: np.ndarray, seeds: np.ndarray) -> np.ndarray:
    """Seeded maximin watershed of an explicit graph; nodes that no seed reaches stay 0.

    A node that is no seed is first joined to a seed by the edge of its smallest minimax rank to any seed;
    it then carries what the far end of that edge carries, whose own rank to a seed is smaller.
    """
    node1, node2 = np.asarray(node1).ravel(), np.asarray(node2).ravel()
    seeds = np.asarray(seeds).ravel()
    order = edge_order(weights)
    rank = np.empty(order.size, dtype=np.int64)
    rank[order] = np.arange(order.size)
    closure = minimax_ranks(seeds.size, node1, node2, rank)
    is_seed = seeds != 0
    labels = seeds.copy()
    if not is_seed.any():
        return labels
    joined = closure[:, is_seed].min(axis=1)
    for v in np.argsort(joined, kind="stable").tolist():
        if is_seed[v] or joined[v] == NEVER:
            continue
        e = order[joined[v]]
        a, b = int(node1[e]), int(node2[e])
        far = b if closure[v, a] < joined[v] else a
        labels[v] = labels[far]
    return labels


def watershed(aff: np.ndarray, seeds: np.ndarray, nhood: np.ndarray) -> np.ndarray:
    """Seeded maximin watershed of an affinity graph, with the labels of the seeds."""
    aff = np.asarray(aff)
    labels = edge_watershed(*grid_nodes(aff.shape[1:], nhood), aff, seeds)
    return labels.reshape(np.shape(seeds))


def tree_watershed(aff: np.ndarray, seeds: np.ndarray, nhood: np.ndarray) -> np.ndarray:
    """:func:`watershed` for volumes of up to about a hundred thousand voxels.

    With all seeds taken as one node, a spanning tree is a forest of trees that hang at one seed voxel each.
    """
    sparse = pytest.importorskip("scipy.sparse")
    csgraph = pytest.importorskip("scipy.sparse.csgraph")
    aff, labels = np.asarray(aff), np.asarray(seeds).ravel()
    node1, node2 = fast_grid_nodes(aff.shape[1:], nhood)
    order = np.argsort(-aff.astype(np.float64).ravel(), kind="stable")
    order = order[node2[order] >= 0]
    a, b = node1[order], node2[order]
    is_seed = labels != 0
    merged = np.arange(labels.size)
    merged[is_seed] = labels.size
    tree = spanning_tree(labels.size + 1, merged[a], merged[b])
    graph = sparse.coo_matrix((np.ones(tree.size), (a[tree], b[tree])), shape=(labels.size, labels.size))
    _, part = csgraph.connected_components(graph, directed=False)
    label_of_part = np.zeros(part.max() + 1, labels.dtype)
    label_of_part[part[is_seed]] = labels[is_seed]
    return label_of_part[part].reshape(np.shape(seeds))


# ------------------------------------------------------------------------------- segmentation without seeds
def existing_edges(shape: tuple[int, ...], nhood: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Edge indices and both ends of the edges between two different voxels of the volume."""
    node1, node2 = grid_nodes(shape, nhood)
    edges = np.flatnonzero((node2 >= 0) & (node1 != node2))
    return edges, node1[edges], node2[edges]


def merge_small(aff: np.ndarray, nhood: np.ndarray, parts: list[set[int]], size_thresh: int) -> list[set[int]]:
    """Join components over all edges in order, where one of two has at most so many voxels."""
    edges, node1, node2 = existing_edges(aff.shape[1:], nhood)
    ends = dict(zip(edges.tolist(), zip(node1.tolist(), node2.tolist(), strict=True), strict=True))
    part_of = {v: part for part in map(set, parts) for v in part}
    for e in edge_order(aff).tolist():
        if e not in ends:
            continue
        one, two = (part_of[v] for v in ends[e])
        if one is not two and min(len(one), len(two)) <= size_thresh:
            one |= two
            part_of.update(dict.fromkeys(two, one))
    return list({id(part): part for part in part_of.values()}.values())


def basins(aff: np.ndarray, nhood: np.ndarray, threshold: float = -np.inf) -> list[set[int]]:
    """The seeded watershed from the regional maxima of the edges of at least the threshold."""
    shape = aff.shape[1:]
    n = int(np.prod(shape))
    edges, node1, node2 = existing_edges(shape, nhood)
    strong = aff.ravel()[edges] >= threshold
    edges, node1, node2 = edges[strong], node1[strong], node2[strong]
    values = aff.ravel()[edges]
    strongest = np.full(n, -np.inf)
    np.maximum.at(strongest, node1, values)
    np.maximum.at(strongest, node2, values)
    flat = (values == strongest[node1]) & (values == strongest[node2])
    plateaus = edge_components(n, node1[flat], node2[flat], np.ones(np.count_nonzero(flat), bool))
    # A plateau from which an edge of its own affinity leads to a stronger one is no maximum.
    drained = set(node1[(values == strongest[node1]) & (values < strongest[node2])].tolist())
    drained |= set(node2[(values == strongest[node2]) & (values < strongest[node1])].tolist())
    seeds = np.zeros(n, np.int64)
    for number, plateau in enumerate(plateaus, start=1):
        if not plateau & drained:
            seeds[list(plateau)] = number
    labels = edge_watershed(node1, node2, values, seeds)
    return [set(np.flatnonzero(labels == label).tolist()) for label in np.unique(labels)]
