"""The names of the TuragaLab package: calls, dtypes and results, and how PyTorch Connectomics uses them."""

from __future__ import annotations

import inspect
import itertools
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import malis
import oracle
from strategies import TIED, problems

MISSING = np.uint64(2**64 - 1)


@pytest.mark.parametrize(
    ("function", "names"),
    [
        (malis.nodelist_like, ["shape", "nhood"]),
        (malis.malis_loss_weights, ["segTrue", "node1", "node2", "edgeWeight", "pos"]),
        (malis.connected_components, ["nVert", "node1", "node2", "edgeWeight", "sizeThreshold"]),
        (malis.connected_components_affgraph, ["aff", "nhood"]),
        (malis.marker_watershed, ["marker", "node1", "node2", "edgeWeight", "sizeThreshold"]),
        (malis.prune_and_renum, ["seg", "sizeThreshold"]),
        (malis.mk_cont_table, ["seg1", "seg2"]),
        (malis.rand_index, ["segTrue", "segEst"]),
        (malis.compute_V_rand_N2, ["segTrue", "segEst"]),
    ],
)
def test_names_of_the_arguments(function, names):
    """Callers may pass them as keywords."""
    assert list(inspect.signature(function).parameters) == names


# --------------------------------------------------------------------------------------- malis_loss_weights
@st.composite
def edge_lists(draw, max_nodes=10, max_edges=20):
    """Nodes and edges as the old package takes them; ends may lie outside of the graph."""
    n, m = draw(st.integers(1, max_nodes)), draw(st.integers(1, max_edges))
    end = st.one_of(st.integers(0, n - 1), st.sampled_from([n, n + 1, 2**32, 2**63, 2**64 - 1]))
    ends = hnp.arrays(np.uint64, m, elements=end)
    weights = hnp.arrays(np.float32, m, elements=st.sampled_from(TIED))
    labels = hnp.arrays(np.uint64, n, elements=st.integers(0, 3))
    return draw(labels), draw(ends), draw(ends), draw(weights)


def signed(nodes, count):
    """Nodes as the oracle takes them: -1 for whatever lies outside."""
    return np.where(nodes < count, nodes, MISSING).astype(np.int64)


@given(graph=edge_lists())
@settings(max_examples=300)
def test_loss_weights_against_oracle(graph):
    seg, node1, node2, weights = graph
    expected = oracle.edge_pairs(
        signed(node1, seg.size),
        signed(node2, seg.size),
        weights,
        seg,
        constrain_positive=False,
        constrain_negative=False,
    )
    for pos, want in zip((1, 0), expected, strict=True):
        counts = malis.malis_loss_weights(seg, node1, node2, weights, pos)
        assert counts.dtype == np.uint64
        np.testing.assert_array_equal(counts, want)


def test_loss_weights_by_hand():
    seg = np.array([1, 1, 2, 0, 2], np.uint64)
    node1 = np.array([0, 1, 2, 3, 4], np.uint64)
    node2 = np.array([1, 2, 3, 4, MISSING], np.uint64)
    weights = np.array([0.9, 0.2, 0.6, 0.5, 1.0], np.float32)
    # 0.9 joins 1 1; 0.6 joins 2 and background; 0.5 adds the other 2; 0.2 joins {1, 1} and {2, 2}.
    assert malis.malis_loss_weights(seg, node1, node2, weights, 1).tolist() == [1, 0, 0, 1, 0]
    assert malis.malis_loss_weights(seg, node1, node2, weights, 0).tolist() == [0, 4, 0, 0, 0]
    by_keyword = malis.malis_loss_weights(segTrue=seg, node1=node1, node2=node2, edgeWeight=weights, pos=True)
    assert by_keyword.tolist() == [1, 0, 0, 1, 0]


def test_loss_weights_of_equal_weights_in_edge_order():
    ones = np.ones(3, np.uint64)
    node1, node2 = np.array([0, 1, 0], np.uint64), np.array([1, 2, 2], np.uint64)
    assert malis.malis_loss_weights(ones, node1, node2, np.ones(3, np.float32), 1).tolist() == [1, 2, 0]


@pytest.mark.parametrize("node_dtype", ["i4", "i8", "u4", "u8"])
@pytest.mark.parametrize("label_dtype", ["i4", "i8", "u8", "u1"])
@pytest.mark.parametrize("weight_dtype", ["f4", "f8"])
def test_dtypes_of_the_calls(node_dtype, label_dtype, weight_dtype, rng):
    node1, node2 = rng.integers(0, 30, (2, 90))
    node2[::7] = -1
    seg, weights = rng.integers(0, 4, 30), rng.permutation(90) / 128
    expected = oracle.edge_pairs(node1, node2, weights, seg, constrain_positive=False, constrain_negative=False)
    arrays = (
        seg.astype(label_dtype),
        node1.astype(node_dtype),
        node2.astype(node_dtype),
        weights.astype(weight_dtype),
    )
    for pos, want in zip((1, 0), expected, strict=True):
        np.testing.assert_array_equal(malis.malis_loss_weights(*arrays, pos), want)


# ------------------------------------------------------------------------------------------- components
def check_numbering(seg, sizes, parts, size_threshold):
    kept = [part for part in parts if len(part) > size_threshold]
    assert seg.dtype == np.uint64
    assert sizes.dtype == np.int64
    assert oracle.partition(seg) == set(map(frozenset, kept))
    assert sizes.tolist() == sorted(map(len, kept), reverse=True)
    assert np.bincount(seg.ravel().astype(np.int64), minlength=len(kept) + 1)[1:].tolist() == sizes.tolist()


@given(graph=edge_lists(), size_threshold=st.integers(0, 3))
@settings(max_examples=200)
def test_connected_components(graph, size_threshold):
    labels, node1, node2, weights = graph
    n = labels.size
    binary = (weights > 0.3).astype(np.int32)
    seg, sizes = malis.connected_components(n, node1, node2, binary, size_threshold)
    parts = oracle.edge_components(n, signed(node1, n), signed(node2, n), binary != 0)
    check_numbering(seg, sizes, parts, size_threshold)


@given(problem=problems())
def test_connected_components_affgraph(problem):
    aff = malis.seg_to_affgraph(problem.seg, problem.nhood)
    seg, sizes = malis.connected_components_affgraph(aff, problem.nhood)
    assert seg.shape == problem.seg.shape
    check_numbering(seg, sizes, oracle.components(aff, problem.nhood), 1)
    node1, node2 = malis.nodelist_like(problem.seg.shape, problem.nhood)
    flat, flat_sizes = malis.connected_components(seg.size, node1.ravel(), node2.ravel(), aff.ravel())
    np.testing.assert_array_equal(flat, seg.ravel())
    np.testing.assert_array_equal(flat_sizes, sizes)


@pytest.mark.parametrize("dtype", ["bool", "u1", "i4", "i8", "f4", "f8"])
def test_affgraph_dtypes(dtype, rng):
    aff = rng.integers(0, 2, (3, 5, 6, 7))
    seg, sizes = malis.connected_components_affgraph(aff.astype(dtype), malis.mknhood3d(1))
    check_numbering(seg, sizes, oracle.components(aff, malis.mknhood3d(1)), 1)


def test_everything_but_zero_connects():
    for aff in [[[0.0, 1e-30, -1.0, 0.0]]], [[[0, 7, -7, 0]]]:
        seg, sizes = malis.connected_components_affgraph(np.array(aff)[0], [[-1]])
        assert seg.tolist() == [1, 1, 1, 0]
        assert sizes.tolist() == [3]


def test_components_of_nothing():
    empty = np.zeros(0, np.uint64)
    seg, sizes = malis.connected_components(3, empty, empty, np.zeros(0, np.int32))
    assert seg.tolist() == [0, 0, 0]
    assert sizes.tolist() == []
    seg, sizes = malis.connected_components(3, empty, empty, np.zeros(0, np.int32), sizeThreshold=0)
    assert sorted(seg.tolist()) == [1, 2, 3]
    assert sizes.tolist() == [1, 1, 1]


# -------------------------------------------------------------------------------------------- watershed
@given(graph=edge_lists(), data=st.data(), size_threshold=st.integers(0, 3))
@settings(max_examples=200)
def test_marker_watershed(graph, data, size_threshold):
    labels, node1, node2, weights = graph
    n = labels.size
    marker = data.draw(hnp.arrays(np.uint64, n, elements=st.sampled_from([0, 0, 0, 3, 9, 2**40])))
    seg, sizes = malis.marker_watershed(marker, node1, node2, weights, size_threshold)
    connects = weights != 0
    full = oracle.edge_watershed(
        signed(node1, n)[connects], signed(node2, n)[connects], weights[connects], marker.astype(np.int64)
    )
    parts = [set(part) for part in oracle.partition(full)]
    check_numbering(seg, sizes, parts, size_threshold)


def test_marker_watershed_by_hand():
    marker = np.array([5, 0, 0, 0, 7, 0], np.uint64)
    node1, node2 = np.arange(5, dtype=np.uint64), np.arange(1, 6, dtype=np.uint64)
    weights = np.array([0.9, 0.8, 0.1, 0.7, 0.0], np.float32)
    seg, sizes = malis.marker_watershed(marker, node1, node2, weights)
    assert seg.tolist() == [1, 1, 1, 2, 2, 0]
    assert sizes.tolist() == [3, 2]


# --------------------------------------------------------------------------------------- prune and renumber
def test_prune_and_renum_by_hand():
    seg = np.array([4, 7, 7, 7, 4, 9, 0, 0, 0, 0], np.uint64)
    renumbered, sizes = malis.prune_and_renum(seg)
    # As in the old package, 0 is an identifier like any other.
    assert renumbered.tolist() == [3, 2, 2, 2, 3, 0, 1, 1, 1, 1]
    assert renumbered.dtype == np.uint64
    assert sizes.tolist() == [4, 3, 2]
    renumbered, sizes = malis.prune_and_renum(seg, sizeThreshold=3)
    assert renumbered.tolist() == [0, 0, 0, 0, 0, 0, 1, 1, 1, 1]
    assert sizes.tolist() == [4]
    renumbered, sizes = malis.prune_and_renum(seg, 0)
    assert renumbered.tolist() == [3, 2, 2, 2, 3, 4, 1, 1, 1, 1]
    assert sizes.tolist() == [4, 3, 2, 1]


@given(
    seg=hnp.arrays(np.uint64, hnp.array_shapes(max_dims=3, max_side=5), elements=st.sampled_from([0, 1, 2, 2**60])),
    size_threshold=st.integers(0, 5),
)
def test_prune_and_renum(seg, size_threshold):
    renumbered, sizes = malis.prune_and_renum(seg, size_threshold)
    assert renumbered.shape == seg.shape
    parts = [set(np.flatnonzero(seg == label).tolist()) for label in np.unique(seg)]
    check_numbering(renumbered, sizes, parts, size_threshold)


# ------------------------------------------------------------------------------------------------ scores
def test_contingency_table_by_hand():
    table = malis.mk_cont_table(np.array([0, 1, 1, 3], np.uint64), np.array([2, 0, 0, 2], np.uint64))
    assert table.dtype == np.float64
    assert table.tolist() == [[0, 0, 1], [2, 0, 0], [0, 0, 0], [0, 0, 1]]


SEGMENTATIONS = hnp.arrays(np.uint64, st.shared(st.integers(2, 14), key="n"), elements=st.integers(0, 3))


@given(seg_true=SEGMENTATIONS, seg_est=SEGMENTATIONS)
def test_rand_index_counts_pairs(seg_true, seg_est):
    inside = np.flatnonzero(seg_true)
    same = [(seg_true[i] == seg_true[j], seg_est[i] == seg_est[j]) for i, j in itertools.combinations(inside, 2)]
    both = sum(t and e for t, e in same)
    true, est = sum(t for t, _ in same), sum(e for _, e in same)

    def ratio(part, whole):
        return part / whole if whole else np.nan

    expected = [
        ratio(sum(t == e for t, e in same), len(same)),
        ratio(2 * both, true + est),
        ratio(both, true),
        ratio(both, est),
    ]
    np.testing.assert_allclose(malis.rand_index(seg_true, seg_est), expected, rtol=1e-12)


@given(seg_true=SEGMENTATIONS, seg_est=SEGMENTATIONS)
def test_v_rand_of_the_formula(seg_true, seg_est):
    inside = seg_true != 0
    if not inside.any():
        assert malis.compute_V_rand_N2(seg_true, seg_est) == (1, 1, 1)
        return
    p = np.zeros((4, 4))
    np.add.at(p, (seg_true[inside].astype(int), seg_est[inside].astype(int)), 1 / inside.sum())
    both, true, est = (p**2).sum(), (p.sum(axis=1) ** 2).sum(), (p.sum(axis=0) ** 2).sum()
    expected = [2 * both / (true + est), both / est, both / true]
    np.testing.assert_allclose(malis.compute_V_rand_N2(seg_true, seg_est), expected, rtol=1e-12)


def test_scores_of_equal_segmentations():
    seg = np.array([[1, 1, 2], [0, 3, 3]], np.uint64)
    assert malis.rand_index(seg, seg) == (1, 1, 1, 1)
    assert malis.compute_V_rand_N2(seg, seg) == (1, 1, 1)


# --------------------------------------------------------------------------- PyTorch Connectomics' calls
class ConnectomicsLoss:
    """What that library computes around the calls, for one batch: normalized weights of both passes."""

    def __init__(self, nhood):
        self.nhood = np.ascontiguousarray(nhood, dtype=np.int32)
        self.edges = {}

    def one_pass(self, pred, truth, seg, mask, pos):
        aff = pred.copy()
        fixed = truth == 1 - pos
        aff[fixed if mask is None else fixed & mask] = 1 - pos
        if seg.shape not in self.edges:
            self.edges[seg.shape] = malis.nodelist_like(seg.shape, self.nhood)
        node1, node2 = self.edges[seg.shape]
        weights = malis.malis_loss_weights(
            seg.astype(np.uint64).flatten(),
            node1.flatten(),
            node2.flatten(),
            aff.astype(np.float32).flatten(),
            pos,
        )
        weights = weights.reshape((-1, *seg.shape)).astype(np.float32, copy=False)
        weights[fixed] = 0
        if mask is not None:
            weights[~mask] = 0
        total = weights.sum(dtype=np.float64)
        return weights / np.float32(total) if total > 0 else weights

    def tasks(self, pred, target, mask):
        """One call for every sample and pass; labels are those that connected affinities give."""
        for b in range(len(pred)):
            truth = np.ascontiguousarray(target[b] > 0.5, dtype=np.int32)
            seg, _ = malis.connected_components_affgraph(truth, self.nhood)
            for pos in 0, 1:
                yield pred[b], truth, seg, None if mask is None else mask[b], pos


@pytest.mark.parametrize("masked", [False, True])
def test_pytorch_connectomics(masked, rng):
    loss = ConnectomicsLoss(malis.mknhood3d(1))
    batch, shape = 3, (14, 18, 20)
    blocks = rng.integers(0, 9, (batch, 4, 5, 5))
    seg = np.stack([np.kron(block, np.ones((4, 4, 4), int)) for block in blocks])[:, :14, :18, :20]
    target = np.stack([malis.seg_to_affgraph(sample, loss.nhood) for sample in seg]).astype(np.float32)
    noise = rng.random(target.shape).astype(np.float32)
    pred = np.clip(0.15 * target + 0.85 * noise, 1e-3, 1 - 1e-3).astype(np.float32)
    mask = rng.random(target.shape) < 0.9 if masked else None

    tasks = list(loss.tasks(pred, target, mask))
    serial = [loss.one_pass(*task) for task in tasks]
    with ThreadPoolExecutor(max_workers=6) as pool:
        threaded = list(pool.map(lambda task: loss.one_pass(*task), tasks * 3))
    for i, weights in enumerate(threaded):
        np.testing.assert_array_equal(weights, serial[i % len(tasks)])

    # The same weights from the counts of this library, for which the ends of the passes need no constants.
    for (sample, _, components, known, pos), weights in zip(tasks, serial, strict=True):
        assert components.shape == shape
        counts = malis.pairs(sample, components, loss.nhood, edge_mask=known)
        expected = counts.pos if pos else counts.neg
        np.testing.assert_allclose(weights, expected / max(expected.sum(), 1), rtol=1e-5)
        assert expected.sum() > 0


def test_all_calls_from_a_thread_pool(rng):
    nhood = malis.mknhood3d(1)
    shape = (20, 20, 20)
    inputs = [(rng.integers(0, 6, shape), rng.random((3, *shape)).astype(np.float32)) for _ in range(8)]
    node1, node2 = (nodes.ravel() for nodes in malis.nodelist_like(shape, nhood))

    def work(item):
        seg, aff = item
        binary = malis.seg_to_affgraph(seg, nhood)
        labels = seg.ravel().astype(np.uint64)
        marker = np.where(np.arange(labels.size) % 97 == 0, labels, 0).astype(np.uint64)
        return [
            binary,
            *malis.connected_components_affgraph(binary, nhood),
            *malis.connected_components(seg.size, node1, node2, binary.ravel()),
            *malis.marker_watershed(marker, node1, node2, aff.ravel()),
            malis.malis_loss_weights(labels, node1, node2, aff.ravel(), 0),
            malis.malis_loss_weights(labels, node1, node2, aff.ravel(), 1),
            *malis.pairs(aff, seg, nhood),
            malis.malis_loss(aff, seg, nhood).grad,
        ]

    serial = [work(item) for item in inputs]
    with ThreadPoolExecutor(max_workers=8) as pool:
        threaded = list(pool.map(work, inputs))
    for results, expected in zip(threaded, serial, strict=True):
        for got, want in zip(results, expected, strict=True):
            np.testing.assert_array_equal(got, want)


# ------------------------------------------------------------------------------------- the ops for training scripts
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("framework", ["numpy", "torch", "tensorflow"])
def test_loss_op_is_the_loss_without_margin(framework, masked):
    rng = np.random.default_rng(0)
    nhood, shape = malis.mknhood3d(), (5, 6, 7)
    seg = rng.integers(0, 4, shape)
    affs = rng.random((3, *shape), dtype=np.float32)
    known, labelled = (rng.random(affs.shape) > 0.2).astype(np.float32), (rng.random(shape) > 0.1).astype(np.uint8)
    masks = {"edge_mask": known > 0, "unlabelled_mask": labelled == 0} if masked else {}
    # As the old documentation asks: 0 between labelled and unlabelled voxels.
    truth = malis.seg_to_affgraph(np.where(labelled, seg, 0) if masked else seg, nhood)
    expected, grad = malis.malis_loss(affs, seg, nhood, margin=0, **masks)
    given = (truth, seg, *((known, labelled) if masked else ()))
    if framework == "numpy":
        loss = malis.malis_loss_op(affs, *given[:2], nhood, *given[2:])
    elif framework == "torch":
        torch = pytest.importorskip("torch")
        tensor = torch.from_numpy(affs).requires_grad_()
        arrays = [torch.from_numpy(a) for a in given]
        loss = malis.malis_loss_op(tensor, *arrays[:2], nhood, *arrays[2:], name="loss")
        (of_op,) = torch.autograd.grad(loss, tensor)
        loss = loss.item()
    else:
        tf = pytest.importorskip("tensorflow")
        tensor = tf.Variable(affs)

        @tf.function
        def loss_of():
            with tf.GradientTape() as tape:
                loss = malis.malis_loss_op(tensor, *given[:2], nhood, *given[2:])
            return loss, tape.gradient(loss, tensor)

        loss, of_op = loss_of()
    assert float(loss) == pytest.approx(expected, rel=1e-5)
    if framework != "numpy":
        np.testing.assert_allclose(of_op, grad, rtol=1e-4, atol=1e-7)
