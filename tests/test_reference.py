"""The results of the published packages, integer for integer."""

from __future__ import annotations

import numpy as np
import pytest

import malis
import oracle

PUBLISHED = [
    "cells2d",
    "cells2d_touching",
    "cells3d",
    "cells3d_long_range",
    "cells3d_touching",
    "one_object3d",
    "speckle3d",
]
TURAGALAB = ["turagalab/calls0", "turagalab/calls1"]

# Options of a pass, and the keys of its counts in the files; None: no such count was kept.
PASSES = [
    ({}, "pos", "neg"),
    ({"constrain_negative": False}, "pos", "neg_unrestricted"),
    ({"constrain_positive": False}, "pos_unconstrained", "neg"),
    (
        {"constrain_positive": False, "constrain_negative": False},
        "pos_unconstrained",
        "neg_unconstrained",
    ),
]


@pytest.mark.parametrize(("options", "pos_key", "neg_key"), PASSES)
@pytest.mark.parametrize("name", PUBLISHED)
def test_pairs(reference, name, options, pos_key, neg_key):
    data = reference(name)
    pos, neg = malis.pairs(data["aff"], data["seg"], data["nhood"], **options)
    assert pos.dtype == neg.dtype == np.int64
    np.testing.assert_array_equal(pos, data[pos_key])
    np.testing.assert_array_equal(neg, data[neg_key])


@pytest.mark.parametrize(("options", "pos_key", "neg_key"), PASSES)
@pytest.mark.parametrize("name", PUBLISHED)
def test_edge_pairs(reference, name, options, pos_key, neg_key):
    data = reference(name)
    node1, node2 = malis.nodelist_from_shape(data["seg"].shape, data["nhood"])
    pos, neg = malis.edge_pairs(node1, node2, data["aff"], data["seg"], **options)
    np.testing.assert_array_equal(pos, data[pos_key])
    np.testing.assert_array_equal(neg, data[neg_key])


@pytest.mark.parametrize(("options", "pos_key", "neg_key"), PASSES)
@pytest.mark.parametrize("name", PUBLISHED)
def test_tree_oracle(reference, name, options, pos_key, neg_key):
    data = reference(name)
    pos, neg = oracle.kruskal_pairs(data["aff"], data["seg"], data["nhood"], **options)
    np.testing.assert_array_equal(pos, data[pos_key])
    np.testing.assert_array_equal(neg, data[neg_key])


@pytest.mark.parametrize(("options", "pos_key", "neg_key"), PASSES)
@pytest.mark.parametrize("name", ["one_object3d", "speckle3d"])  # the closure over all pairs is cubic in time
def test_pairwise_oracle(reference, name, options, pos_key, neg_key):
    data = reference(name)
    pos, neg = oracle.pairs(data["aff"], data["seg"], data["nhood"], **options)
    np.testing.assert_array_equal(pos, data[pos_key])
    np.testing.assert_array_equal(neg, data[neg_key])


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("name", PUBLISHED)
def test_loss(reference, name, normalize):
    data = reference(name)
    expected = float(data["loss_normalized" if normalize else "loss_unnormalized"])
    loss = malis.malis_loss(data["aff"], data["seg"], data["nhood"], normalize=normalize).loss
    assert loss == pytest.approx(expected, rel=1e-9)
    of_oracle = oracle.loss_from_counts(data["aff"], data["pos"], data["neg"], normalize=normalize)
    assert of_oracle == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("name", PUBLISHED)
def test_malis_weights(reference, name):
    data = reference(name)
    for unrestrict_neg, neg_key in (False, "neg"), (True, "neg_unrestricted"):
        pos, neg = malis.malis_weights(
            data["aff"], data["affgraph"], data["seg"], data["nhood"], unrestrict_neg=unrestrict_neg
        )
        assert pos.dtype == neg.dtype == np.float32
        np.testing.assert_array_equal(pos, data["pos"].astype(np.float32))
        np.testing.assert_array_equal(neg, data[neg_key].astype(np.float32))


@pytest.mark.parametrize("name", PUBLISHED + TURAGALAB)
def test_seg_to_affgraph(reference, name):
    data = reference(name)
    np.testing.assert_array_equal(malis.seg_to_affgraph(data["seg"], data["nhood"]), data["affgraph"])


@pytest.mark.parametrize("name", PUBLISHED)
def test_threshold_components(reference, name):
    data = reference(name)
    expected = data["components"]
    seg, sizes = malis.affgraph_to_seg(data["aff"], data["nhood"], threshold=float(data["threshold"]))
    assert oracle.partition(seg) == oracle.partition(expected)
    np.testing.assert_array_equal(sizes, np.bincount(seg.ravel()))
    # The same edges as an affinity graph of zeros and ones, without a threshold.
    binary = (data["aff"] >= data["threshold"]).astype(np.int32)
    of_binary, _ = malis.affgraph_to_seg(binary, data["nhood"])
    np.testing.assert_array_equal(of_binary, seg)


@pytest.mark.parametrize("name", TURAGALAB)
def test_turagalab_calls(reference, name):
    data = reference(name)
    seg, nhood, aff = data["seg"], data["nhood"], data["aff"]

    node1, node2 = malis.nodelist_like(seg.shape, nhood)
    assert node1.dtype == node2.dtype == np.uint64
    np.testing.assert_array_equal(node1, data["node1"])
    np.testing.assert_array_equal(node2, data["node2"])

    for pos, key in (1, "pos"), (0, "neg"):
        counts = malis.malis_loss_weights(seg.ravel(), node1.ravel(), node2.ravel(), aff.ravel(), pos)
        assert counts.dtype == data[key].dtype
        np.testing.assert_array_equal(counts, data[key])

    components, sizes = malis.connected_components_affgraph(data["binary"], nhood)
    assert components.dtype == data["cc"].dtype
    assert sizes.dtype == data["cc_sizes"].dtype
    assert oracle.partition(components) == oracle.partition(data["cc"])
    np.testing.assert_array_equal(sizes, data["cc_sizes"])
    flat, flat_sizes = malis.connected_components(seg.size, node1.ravel(), node2.ravel(), data["binary"].ravel())
    assert oracle.partition(flat) == oracle.partition(data["cc"])
    np.testing.assert_array_equal(flat_sizes, data["cc_sizes"])

    np.testing.assert_allclose(malis.rand_index(seg, components), data["rand_index"], rtol=1e-12)
    np.testing.assert_allclose(malis.compute_V_rand_N2(seg, components), data["v_rand"], rtol=1e-12)
