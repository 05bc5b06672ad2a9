"""Random arguments for every public function that takes arrays, and what has to hold for whatever comes back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from hypothesis import strategies as st

import malis

SHAPES = [(1,), (7,), (70,), (1, 1), (3, 5), (9, 17), (1, 1, 1), (2, 3, 4), (1, 6, 7), (4, 4, 70), (3, 33, 34)]
FLOATS = ["<f2", "<f4", "<f8", ">f4", ">f8"]
LABELS = ["?", "u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8", ">i4", ">u8", "f4", "f8", "f2"]
LAYOUTS = ["C", "F", "reversed", "strided", "unaligned"]
VALUES = ["uniform", "ties", "binary", "special", "equal", "logits"]
SEGS = ["blocks", "random", "one", "none", "each", "wild"]
THREADS = [None, 1, 2, 3, 64, 65_536]
ACCEPTED = (ValueError, TypeError, MemoryError)


def in_layout(array: np.ndarray, layout: str) -> np.ndarray:
    """The same values, laid out otherwise in memory."""
    if layout == "F":
        return np.asfortranarray(array)
    if layout == "reversed":
        return np.flip(np.flip(array).copy())
    if layout == "strided":
        wide = np.zeros((*array.shape[:-1], 2 * array.shape[-1]), array.dtype)
        wide[..., ::2] = array
        return wide[..., ::2]
    if layout == "unaligned":
        memory = np.zeros(array.nbytes + 1, np.uint8)
        shifted = memory[1:].view(array.dtype).reshape(array.shape)
        shifted[...] = array
        return shifted
    return array


def affinities(rng: np.random.Generator, shape: tuple[int, ...], kind: str, dtype: str) -> np.ndarray:
    if kind == "ties":
        values = rng.choice([0.0, -0.0, 0.25, 0.5, 1.0], shape)
    elif kind == "binary":
        values = rng.integers(0, 2, shape).astype(float)
    elif kind == "special":
        special = [0.0, 1.0, np.inf, -np.inf, 6e4, -1e-7, 0.3, 0.7, 1e-45] + ([np.nan] if rng.random() < 0.2 else [])
        values = rng.choice(special, shape)
    elif kind == "equal":
        values = np.full(shape, rng.random())
    elif kind == "logits":
        values = 20 * rng.standard_normal(shape)
    else:
        values = rng.random(shape)
    with np.errstate(over="ignore"):
        return values.astype(dtype)


def labels(rng: np.random.Generator, shape: tuple[int, ...], kind: str, dtype: str) -> np.ndarray:
    if kind == "blocks":
        values = np.add.outer(np.arange(shape[0]) // 3 * 5, np.arange(int(np.prod(shape[1:]))) // 4).reshape(shape) % 7
    elif kind == "random":
        values = rng.integers(0, 5, shape)
    elif kind == "each":
        values = np.arange(int(np.prod(shape))).reshape(shape)
    elif kind == "wild":
        values = rng.choice([0, 1, 2, 127, 200, 2**15, 2**31 - 1, 2**31, 2**62, -1 if rng.random() < 0.2 else 3], shape)
    else:
        values = np.full(shape, int(kind == "one"))
    with np.errstate(over="ignore", invalid="ignore"):
        return values.astype(dtype)


def offsets(rng: np.random.Generator, ndim: int, kind: str) -> np.ndarray:
    nearest = -np.eye(ndim, dtype=np.int64)
    if kind == "nearest":
        return nearest
    reach = {"near": 2, "far": 40, "beyond": 2**40}[kind]
    more = rng.integers(-reach, reach + 1, (int(rng.integers(1, 5)), ndim))
    return np.concatenate([nearest, more]) if rng.random() < 0.7 else more


class Problem:
    """Arguments that go together."""

    def __init__(self, draw: Callable[[Any], Any]) -> None:
        def choose(values: list[Any]) -> Any:
            return draw(st.sampled_from(values))

        self.rng = rng = np.random.default_rng(draw(st.integers(0, 2**64 - 1)))
        self.shape: tuple[int, ...] = choose(SHAPES)
        self.nhood = offsets(rng, len(self.shape), choose(["nearest", "near", "far", "beyond"]))
        whole = (len(self.nhood), *self.shape)
        self.aff = in_layout(affinities(rng, whole, choose(VALUES), choose(FLOATS)), choose(LAYOUTS))
        self.seg = in_layout(labels(rng, self.shape, choose(SEGS), choose(LABELS)), choose(LAYOUTS))
        self.threads = choose(THREADS)
        self.options: dict[str, Any] = {
            "constrain_positive": draw(st.booleans()),
            "constrain_negative": draw(st.booleans()),
            "ignore_background": draw(st.booleans()),
            "num_threads": self.threads,
        }
        # The memory of a mask may hold anything, as that of any array: bytes other than 0 and 1 are true.
        if draw(st.booleans()):
            mask = rng.integers(0, choose([2, 256]), whole, dtype=np.uint8).view(bool)
            self.options["edge_mask"] = in_layout(mask, choose(LAYOUTS))
        if draw(st.booleans()):
            self.options["unlabelled_mask"] = rng.integers(0, 2, self.shape).astype(bool)
        self.loss_options = self.options | {
            "margin": choose([0.3, 0.0, 1.0, -2.0, 1e6, -1e300, 0.5]),
            "pos_loss_weight": choose([0.5, 0.0, 1.0, 0.2]),
            "normalize": draw(st.booleans()),
            "pointwise": choose(["squared_hinge", "cross_entropy"]),
            "from_logits": draw(st.booleans()),
        }
        self.threshold = choose([0.5, 0.0, -np.inf, np.inf, 1.0, 1e-300])
        self.size = choose([0, 1, 5, 2**40])


def check_pairs(p: Problem) -> None:
    counts = malis.pairs(p.aff, p.seg, p.nhood, **p.options)
    for of_kind in counts:
        assert of_kind.shape == p.aff.shape
        assert of_kind.min() >= 0
    voxels = int(np.prod(p.shape))
    assert int(counts.pos.sum()) + int(counts.neg.sum()) <= voxels * (voxels - 1) * 2
    again = malis.pairs(
        np.ascontiguousarray(p.aff), np.ascontiguousarray(p.seg), p.nhood, **p.options | {"num_threads": 1}
    )
    assert (counts.pos == again.pos).all()
    assert (counts.neg == again.neg).all()


def check_loss(p: Problem) -> None:
    loss, grad = malis.malis_loss(p.aff, p.seg, p.nhood, **p.loss_options)
    assert np.isfinite(loss)
    assert loss >= 0
    assert grad.shape == p.aff.shape
    if p.aff.dtype.itemsize > 2:  # a gradient of counts may be too large for 16 bits
        assert np.isfinite(grad).all()


def check_batch(p: Problem) -> None:
    batch = {
        name: np.stack([p.loss_options[name]] * 2) for name in ("edge_mask", "unlabelled_mask") if name in p.options
    }
    loss, _ = malis.malis_loss(np.stack([p.aff] * 2), np.stack([p.seg] * 2), p.nhood, **p.loss_options | batch)
    assert loss[0] == loss[1] == malis.malis_loss(p.aff, p.seg, p.nhood, **p.loss_options).loss


def check_edge_pairs(p: Problem) -> None:
    node1, node2 = malis.nodelist_from_shape(p.shape, p.nhood)
    seg = np.ascontiguousarray(p.seg)
    counts = malis.edge_pairs(node1, node2, p.aff, seg, **p.options)
    if not (p.options["constrain_positive"] and p.options["constrain_negative"]) or "edge_mask" not in p.options:
        expected = malis.pairs(p.aff, p.seg, p.nhood, **p.options)
        assert (counts.pos == expected.pos).all()
        assert (counts.neg == expected.neg).all()


def check_any_graph(p: Problem) -> None:
    nodes, edges = int(np.prod(p.shape)), p.aff.size
    node1, node2 = p.rng.integers(-1, nodes, (2, edges))
    malis.edge_pairs(node1.reshape(p.aff.shape), node2.reshape(p.aff.shape), p.aff, p.seg, **p.options)
    flat = np.ascontiguousarray(p.aff).ravel()
    malis.connected_components(nodes, node1, node2, flat)
    malis.marker_watershed(np.ascontiguousarray(p.seg).ravel(), node1, node2, flat)
    malis.malis_loss_weights(np.ascontiguousarray(p.seg).ravel(), node1, node2, flat, int(p.rng.integers(2)))


def check_segmentations(p: Problem) -> None:
    for seg, sizes in (
        malis.affgraph_to_seg(p.aff, p.nhood, p.size, threshold=p.threshold, num_threads=p.threads),
        malis.affgraph_to_seg(p.aff, p.nhood, p.size, num_threads=p.threads),
        malis.affgraph_to_seg(p.aff, p.nhood, p.size, threshold=p.threshold, small="merge", num_threads=p.threads),
        malis.watershed_basins(p.aff, p.nhood, min_size=p.size, threshold=p.threshold, num_threads=p.threads),
        malis.connected_components_affgraph(p.aff, p.nhood),
    ):
        assert seg.shape == p.shape
        assert int(sizes.sum()) == seg.size or sizes.size == int(seg.max())
        assert 0 <= int(seg.min()) <= int(seg.max()) <= sizes.size


def check_watershed(p: Problem) -> None:
    result = malis.watershed_from_affgraph(p.aff, p.seg, p.nhood, p.size, num_threads=p.threads)
    assert result[0].shape == p.shape


def check_tree(p: Problem) -> None:
    tree = malis.maximum_spanning_tree(p.aff, p.nhood, num_threads=p.threads)
    assert len(tree.affinities) < int(np.prod(p.shape))
    for seg, sizes in malis.segment_tree(tree, [0.5, 0.0], min_size=p.size, num_threads=p.threads):
        assert int(sizes.sum()) == seg.size
    if np.isfinite(tree.affinities).all():
        malis.linkage(tree)
    # A tree is a tuple of arrays, which may hold anything.
    broken = p.rng.integers(-1, len(tree.node1) + 2, len(tree.node1)).astype(tree.node1.dtype)
    malis.linkage(tree._replace(node2=broken))
    malis.segment_tree(tree._replace(node1=broken), [0.5])


def check_curve(p: Problem) -> None:
    curve = malis.rand_curve(p.aff, p.seg, p.nhood, num_threads=p.threads)
    assert curve.thresholds.size <= p.aff.size
    assert len(curve.f_score) == curve.thresholds.size


def check_affgraph(p: Problem) -> None:
    graph = malis.seg_to_affgraph(p.seg, p.nhood, num_threads=p.threads)
    assert graph.shape == p.aff.shape
    assert set(np.unique(graph)) <= {0, 1}
    malis.affgraph_to_edgelist(p.aff, p.nhood)
    malis.bmap_to_affgraph(np.asarray(p.seg) > 1, p.nhood)


def check_metrics(p: Problem) -> None:
    other = np.roll(np.asarray(p.seg), 1)
    malis.metrics.object_score(p.seg, other, min_size=2)
    malis.rand_index(np.asarray(p.seg).ravel(), other.ravel())
    malis.compute_V_rand_N2(np.asarray(p.seg).ravel(), other.ravel())
    malis.prune_and_renum(np.asarray(p.seg).ravel())


def check_shapes(p: Problem) -> None:
    """Arguments that do not go together."""
    for function in malis.pairs, malis.malis_loss, malis.rand_curve:
        try:
            function(p.aff[:, ..., :-1] if p.shape[-1] > 1 else p.aff[:0], p.seg, p.nhood)
        except ValueError:
            continue
        raise AssertionError(f"{function.__name__} took shapes that do not go together")


FUNCTIONS = {name.removeprefix("check_"): check for name, check in list(globals().items()) if name.startswith("check_")}


def call(function: str, problem: Problem) -> bool:
    """Call a function; False where it raised one of the errors for which its arguments may be to blame."""
    try:
        FUNCTIONS[function](problem)
    except ACCEPTED as error:
        assert str(error), f"{function} raised an error without a message"
        # What pybind11 says where Python hands the core what it does not take: that is our mistake.
        assert "incompatible function arguments" not in str(error), error
        assert " positional argument" not in str(error) and "unexpected keyword" not in str(error), error
        return False
    return True
