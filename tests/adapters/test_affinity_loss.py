"""`AffinityLoss`: the numbers are those of the formula, written here with NumPy, in every adapter."""

from __future__ import annotations

import numpy as np
import pytest

import malis
from faces import Adapter
from frameworks import SHAPES, labels, tie_free

NHOOD = {
    2: [[-1, 0], [0, -1], [-3, 0], [2, -3], [0, 0]],
    3: [[0, 0, -2], [-1, 0, 0], [0, -1, 0], [0, 0, -1]],
}
ndims = pytest.mark.parametrize("ndim", [2, 3], ids=["2d", "3d"])


def problem(ndim: int, batch: int = 3) -> tuple[np.ndarray, np.ndarray]:
    """Logits and labels."""
    aff = tie_free((batch, len(NHOOD[ndim]), *SHAPES[ndim]))
    return np.log(aff / (1 - aff)).astype(np.float32), labels(batch, SHAPES[ndim])


def graphs(seg: np.ndarray, nhood: list) -> np.ndarray:
    return np.stack([malis.seg_to_affgraph(s, nhood) for s in seg])


def known_edges(voxels: np.ndarray, nhood: list) -> np.ndarray:
    """Edges within the volume between two voxels that are known."""
    known = graphs(voxels.astype(np.int32), nhood).astype(bool)
    known[:, [k for k, offset in enumerate(nhood) if not any(offset)]] = False
    return known


def mean(each: np.ndarray, weights: np.ndarray) -> np.ndarray:
    axes = tuple(range(1, each.ndim))
    total = weights.sum(axes)
    return (each * weights).sum(axes) / np.where(total > 0, total, 1)


def cross_entropy(logits, truth, weights, balance=False):
    logits, truth = logits.astype(np.float64), truth.astype(np.float64)
    each = np.logaddexp(0, logits) - truth * logits
    if not balance:
        return mean(each, weights)
    kinds = [weights * (truth > 0.5), weights * (truth <= 0.5)]
    present = sum((w.sum(tuple(range(1, w.ndim))) > 0).astype(int) for w in kinds)
    return sum(mean(each, w) for w in kinds) / np.maximum(present, 1)


def by_formula(ndim, logits, seg, *, edges=None, voxels=None, chosen=None, balance=False, truth=None, **options):
    """BCE + MALIS of the direct neighbours with a margin of 0.1."""
    nhood = NHOOD[ndim]
    chosen = [k for k, o in enumerate(nhood) if np.abs(o).sum() == 1] if chosen is None else chosen
    known = known_edges(np.ones_like(seg) if voxels is None else voxels, nhood)
    known = known if edges is None else known & edges
    entropy = cross_entropy(logits, graphs(seg, nhood) if truth is None else truth, known, balance)
    loss, _ = malis.malis_loss(
        np.ascontiguousarray(logits[:, chosen]),
        seg if voxels is None else np.where(voxels, seg, 0),
        np.array(nhood)[chosen],
        edge_mask=None if voxels is None and edges is None else np.ascontiguousarray(known[:, chosen]),
        from_logits=True,
        **{"margin": 0.1, **options},
    )
    return entropy + loss


def masks(ndim: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(3)
    return {
        "voxels": rng.random((3, *SHAPES[ndim])) > 0.2,
        "edges": rng.random((3, len(NHOOD[ndim]), *SHAPES[ndim])) > 0.2,
    }


@ndims
def test_labels(adapter: Adapter, ndim):
    logits, seg = problem(ndim)
    for target in (seg, seg[:, None], seg.astype(np.float32)):
        losses, _ = adapter.evaluate_affinity_loss(NHOOD[ndim], logits, target, warmup=0)
        np.testing.assert_allclose(losses, by_formula(ndim, logits, seg), rtol=1e-6)


@ndims
@pytest.mark.parametrize("dtype", ["bool", "uint8", "float32"])
@pytest.mark.parametrize("kind", ["voxels", "edges"])
def test_masks(adapter: Adapter, ndim, kind, dtype):
    logits, seg = problem(ndim)
    mask = masks(ndim)[kind]
    expected = by_formula(ndim, logits, seg, **{kind: mask})
    given = mask.astype(dtype)
    for shaped in (given, given[:, None]) if kind == "voxels" else (given,):
        losses, _ = adapter.evaluate_affinity_loss(NHOOD[ndim], logits, seg, shaped, warmup=0)
        np.testing.assert_allclose(losses, expected, rtol=1e-6)


@ndims
def test_masks_that_broadcast(adapter: Adapter, ndim):
    logits, seg = problem(ndim)
    nhood, (voxels, edges) = NHOOD[ndim], masks(ndim).values()
    axes = (0, *range(2, 2 + ndim))
    for mask, known in (
        (voxels[0], {"voxels": voxels[:1]}),  # the same voxels in every sample
        (voxels[:1], {"voxels": voxels[:1]}),
        (voxels[:1, None], {"voxels": voxels[:1]}),
        (edges[:1], {"edges": edges[:1]}),
        (edges.all(axes, keepdims=True), {"edges": edges.all(axes, keepdims=True)}),  # whole channels
    ):
        ((kind, small),) = known.items()
        full = np.broadcast_to(small, seg.shape if kind == "voxels" else logits.shape)
        losses, _ = adapter.evaluate_affinity_loss(nhood, logits, seg, mask, warmup=0)
        np.testing.assert_allclose(losses, by_formula(ndim, logits, seg, **{kind: full}), rtol=1e-6)
        graph = graphs(seg, nhood).astype(np.float32)
        both = [adapter.evaluate_affinity_loss(nhood, logits, graph, m, warmup=0)[0] for m in (mask, full)]
        np.testing.assert_allclose(*both, rtol=1e-6)


@ndims
@pytest.mark.parametrize("dtype", ["bool", "uint8", "float32"])
def test_affinity_graphs_as_target(adapter: Adapter, ndim, dtype):
    logits, seg = problem(ndim)
    nhood, edges = NHOOD[ndim], masks(ndim)["edges"]
    truth = graphs(seg, nhood)
    for mask in (None, edges):
        positive = truth.astype(bool) if mask is None else truth.astype(bool) & mask & known_edges(seg * 0 + 1, nhood)
        objects = np.stack([malis.affgraph_to_seg(graph, nhood)[0] for graph in positive])
        losses, _ = adapter.evaluate_affinity_loss(nhood, logits, truth.astype(dtype), mask, warmup=0)
        np.testing.assert_allclose(losses, by_formula(ndim, logits, objects, edges=mask, truth=truth), rtol=1e-6)


def test_options(adapter: Adapter):
    logits, seg = problem(2)
    edges = masks(2)["edges"]

    def check(expected, mask=None, **options):
        losses, _ = adapter.evaluate_affinity_loss(NHOOD[2], logits, seg, mask, warmup=0, **options)
        np.testing.assert_allclose(losses, expected, rtol=2e-6)

    check(by_formula(2, logits, seg, balance=True, edges=edges), edges, balance=True)
    check(by_formula(2, logits, seg, chosen=[2, 0]), malis_offsets=[[-3, 0], [-1, 0]])
    check(by_formula(2, logits, seg, margin=0.2, pos_loss_weight=0.8), margin=0.2, pos_loss_weight=0.8)
    both = by_formula(2, logits, seg)
    entropy = cross_entropy(logits, graphs(seg, NHOOD[2]), known_edges(np.ones_like(seg), NHOOD[2]))
    check(entropy, malis=0, cross_entropy=1)
    check(both - entropy, cross_entropy=0)
    check(3 * (both - entropy) + 0.2 * entropy, malis=3, cross_entropy=0.2)
    affinities = (1 / (1 + np.exp(-logits.astype(np.float64)))).astype(np.float32)
    losses, _ = adapter.evaluate_affinity_loss(NHOOD[2], affinities, seg, warmup=0, from_logits=False)
    np.testing.assert_allclose(losses, both, rtol=1e-5)


def test_balance_where_only_one_kind_of_edge_is_known(adapter: Adapter):
    logits, seg = problem(2)
    options = {"malis": 0, "cross_entropy": 1, "balance": True}
    losses, grad = adapter.evaluate_affinity_loss(NHOOD[2], logits, np.zeros_like(seg), **options)
    known = known_edges(np.ones_like(seg), NHOOD[2])
    np.testing.assert_allclose(losses, cross_entropy(logits, np.zeros_like(logits), known), rtol=1e-6)
    assert np.isfinite(grad).all()


def test_weights_of_the_cross_entropy(adapter: Adapter):
    logits, seg = problem(2)
    weights = np.random.default_rng(0).random(logits.shape).astype(np.float32)
    known = known_edges(np.ones_like(seg), NHOOD[2])
    expected = cross_entropy(logits, graphs(seg, NHOOD[2]), known * weights)
    losses, _ = adapter.evaluate_affinity_loss(NHOOD[2], logits, seg, weights, malis=0, cross_entropy=1)
    np.testing.assert_allclose(losses, expected, rtol=2e-6)
    with pytest.raises(ValueError, match=r"mask must hold 0 and 1, got 0.*malis=0"):
        adapter.evaluate_affinity_loss(NHOOD[2], logits, seg, weights)


def test_steps(adapter: Adapter):
    logits, seg = problem(2)
    both = by_formula(2, logits, seg)
    entropy = cross_entropy(logits, graphs(seg, NHOOD[2]), known_edges(np.ones_like(seg), NHOOD[2]))
    of_malis = both - entropy
    for step, weight in {0: 0, 1: 0, 2: 0.25, 4: 0.75, 5: 1, 1000: 1}.items():
        losses, _ = adapter.evaluate_affinity_loss(NHOOD[2], logits, seg, warmup=2, ramp=3, step=step)
        np.testing.assert_allclose(losses, entropy + weight * of_malis, rtol=2e-6)
    for step, expected in {899: entropy, 900: both}.items():
        losses, _ = adapter.evaluate_affinity_loss(NHOOD[2], logits, seg, step=step)
        np.testing.assert_allclose(losses, expected, rtol=1e-6)


@ndims
def test_unknown_edges_have_no_gradient(adapter: Adapter, ndim):
    logits, seg = problem(ndim)
    voxels = np.ones(seg.shape, bool)
    voxels[..., 2:5] = False
    _, grad = adapter.evaluate_affinity_loss(NHOOD[ndim], logits, seg, voxels, warmup=0)
    unknown = ~known_edges(voxels, NHOOD[ndim])
    assert not grad[unknown].any()
    assert grad[~unknown].all()  # the cross entropy has one everywhere


@ndims
@pytest.mark.parametrize(("dtype", "label"), [("uint8", 255), ("int32", -1), ("float32", -1), ("int16", 2)])
def test_ignore_label(adapter: Adapter, ndim, dtype, label):
    logits, seg = problem(ndim)
    voxels = masks(ndim)["voxels"] if label != 2 else seg != 2
    target = np.where(voxels, seg, label).astype(dtype)
    losses, grad = adapter.evaluate_affinity_loss(NHOOD[ndim], logits, target, warmup=0, ignore_label=label)
    np.testing.assert_allclose(losses, by_formula(ndim, logits, seg, voxels=voxels), rtol=1e-6)
    assert not grad[~known_edges(voxels, NHOOD[ndim])].any()
    # Together with a mask, and with one for all voxels.
    more = masks(ndim)["edges"]
    losses, _ = adapter.evaluate_affinity_loss(NHOOD[ndim], logits, target, more, warmup=0, ignore_label=label)
    np.testing.assert_allclose(losses, by_formula(ndim, logits, seg, voxels=voxels, edges=more), rtol=1e-6)
    nothing, grad = adapter.evaluate_affinity_loss(
        NHOOD[ndim], logits, np.full_like(target, label), warmup=0, ignore_label=label
    )
    assert not nothing.any()
    assert not grad.any()


def test_ignore_label_that_the_dtype_does_not_have(adapter: Adapter):
    logits, seg = problem(2)
    target = np.where(seg == 3, 255, seg).astype(np.uint8)
    losses, _ = adapter.evaluate_affinity_loss(NHOOD[2], logits, target, warmup=0, ignore_label=-1)
    np.testing.assert_allclose(losses, by_formula(2, logits, seg), rtol=1e-6)


def test_connect_labels(adapter: Adapter):
    logits, seg = problem(2)
    connected = malis.connect_labels(seg, [[-1, 0], [0, -1]])
    assert connected.max() > seg.max()
    losses, _ = adapter.evaluate_affinity_loss(NHOOD[2], logits, seg, warmup=0, connect_labels=True)
    # The cross entropy takes the labels as they are.
    expected = by_formula(2, logits, connected, truth=graphs(seg, NHOOD[2]))
    np.testing.assert_allclose(losses, expected, rtol=1e-6)


def test_background_as_an_object(adapter: Adapter):
    logits, seg = problem(2)
    voxels = masks(2)["voxels"]
    options = {"warmup": 0, "ignore_background": False}
    with pytest.raises(ValueError, match="mask for voxels needs ignore_label with ignore_background=False"):
        adapter.evaluate_affinity_loss(NHOOD[2], logits, seg, voxels, **options)
    losses, _ = adapter.evaluate_affinity_loss(NHOOD[2], logits, seg, voxels, **options, ignore_label=9)
    np.testing.assert_allclose(losses, by_formula(2, logits, seg + 1, voxels=voxels), rtol=1e-6)


def test_nothing_known(adapter: Adapter):
    logits, seg = problem(2)
    for mask in (np.zeros(seg.shape, bool), np.zeros(logits.shape, np.float32)):
        for balance in (False, True):
            losses, grad = adapter.evaluate_affinity_loss(NHOOD[2], logits, seg, mask, warmup=0, balance=balance)
            assert not losses.any()
            assert not grad.any()


LOGITS = np.linspace(-3, 3, 2 * 5 * 14 * 11).reshape(2, 5, 14, 11).astype(np.float32)
SEG = labels(2, (14, 11))
ONE = LOGITS[:, :1]
# target, mask, options, error, message
BAD = {
    "nhood-repeats": (SEG, None, {"nhood": [[-1, 0], [0, -1], [-1, 0]]}, ValueError, "nhood must not repeat an offset"),
    "malis_offsets": (
        SEG,
        None,
        {"malis_offsets": [[-5, 0]]},
        ValueError,
        "malis_offsets must be among those of nhood",
    ),
    "weight": (SEG, None, {"malis": -1}, ValueError, "malis must be at least 0, got -1"),
    "no-part": (SEG, None, {"malis": 0, "cross_entropy": 0}, ValueError, "malis and cross_entropy must not both be 0"),
    "idle": (
        SEG,
        None,
        {"cross_entropy": 0, "warmup": 5},
        ValueError,
        "cross_entropy must be above 0 during a warm-up",
    ),
    "warmup": (SEG, None, {"warmup": 0.5}, TypeError, "warmup must be an integer, got 0.5"),
    "target-word": (SEG, None, {"target": "graph"}, ValueError, "target must be one of 'auto', 'labels', 'affinities'"),
    "target-shape": (SEG[..., :4], None, {}, ValueError, "{target} must have shape"),
    "target-kind": (SEG, None, {"target": "affinities"}, ValueError, "{target} must have the shape of {output}"),
    "target-values": (LOGITS, None, {}, ValueError, "{target} must hold values from 0 to 1, got -3"),
    "mask-shape": (SEG, LOGITS[:, :2] > 0, {}, ValueError, "mask must have shape"),
    "mask-values": (SEG, LOGITS, {}, ValueError, "mask must hold values from 0 to 1, got -3"),
    "mask-nan": (SEG, LOGITS * np.float32("nan"), {}, ValueError, "mask must hold values from 0 to 1, got nan"),
    "mask-complex": (SEG, LOGITS * np.complex64(1), {}, TypeError, "mask must hold numbers from 0 to 1 or bool"),
}


@pytest.mark.parametrize("bad", BAD)
def test_bad_input(adapter: Adapter, bad):
    target, mask, options, error, message = BAD[bad]
    options = {"nhood": NHOOD[2], "warmup": 0, **options}
    names = adapter.names if "keras" in adapter.module else ("target", "output")
    message = message.replace("{target}", names[0]).replace("{output}", names[1])
    with pytest.raises(error, match=message):
        adapter.evaluate_affinity_loss(options.pop("nhood"), LOGITS, target, mask, **options)


def test_one_channel_may_be_labels_or_affinities(adapter: Adapter):
    truth = (SEG[:, None] > 1).astype(np.int32)
    with pytest.raises(ValueError, match=r'say which, with target="labels" or target="affinities"'):
        adapter.evaluate_affinity_loss([[0, -1]], ONE, truth)
    losses = [
        adapter.evaluate_affinity_loss([[0, -1]], ONE, truth, target=kind, warmup=0)[0]
        for kind in ("labels", "affinities")
    ]
    assert (losses[0] != losses[1]).any()


def test_swapped(adapter: Adapter):
    names = adapter.names if "keras" in adapter.module else ("target", "output")
    with pytest.raises(ValueError, match=f"{names[1]} and {names[0]} look swapped"):
        adapter.affinity_loss(NHOOD[2])(adapter.tensor(SEG), adapter.tensor(adapter.layout(LOGITS)))
