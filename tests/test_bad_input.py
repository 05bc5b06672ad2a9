"""Bad input: an error that names the argument, what it got and what it takes."""

from __future__ import annotations

import numpy as np
import pytest

import malis

NHOOD = malis.mknhood3d(1)
SHAPE = (4, 5, 6)
AFF = np.linspace(0, 1, 360).reshape(3, *SHAPE)
SEG = np.arange(120).reshape(SHAPE) % 4
BATCH_AFF, BATCH_SEG = np.stack([AFF, AFF]), np.stack([SEG, SEG])
TREE = malis.maximum_spanning_tree(AFF, NHOOD)
NODE1, NODE2 = (nodes.ravel() for nodes in malis.nodelist_from_shape(SHAPE, NHOOD))

# Segmentation takes the affinity graph of a ground truth as well.
NUMBERS_TAKEN = ("aff-integers", "aff-bool")


def changed(array, value, dtype=None):
    """A copy of an array in which one element is another."""
    array = array.astype(dtype or array.dtype)
    array.flat[7] = value
    return array


def raises(call, error, *fragments):
    with pytest.raises(error) as info:
        call()
    assert info.type is error
    message = str(info.value)
    for fragment in fragments:
        assert fragment in message, message


# ------------------------------------------------------------------- affinities, labels and neighbourhoods
# id: (arguments, error, parts of the message). The first part is the name of the argument.
VOLUMES = {
    "channels-missing": ((AFF[:2], SEG, NHOOD), ValueError, "aff", "3 offsets", "(2, 4, 5, 6)"),
    "channels-too-many": ((AFF, SEG, NHOOD[:2]), ValueError, "aff", "2 offsets", "(3, 4, 5, 6)"),
    "no-channel-axis": ((AFF[0], SEG, NHOOD), ValueError, "aff", "4 axes", "(4, 5, 6)"),
    "spatial-shape": ((AFF, SEG[:, :, 1:], NHOOD), ValueError, "aff", "(3, 4, 5, 5)", "(3, 4, 5, 6)"),
    "spatial-axes-swapped": ((AFF, SEG.transpose(2, 1, 0), NHOOD), ValueError, "aff", "(3, 6, 5, 4)"),
    "seg-flat": ((AFF, SEG.ravel(), NHOOD), ValueError, "seg", "3 axes", "(120,)"),
    "seg-with-channel": ((AFF, SEG[None, None], NHOOD), ValueError, "seg", "(1, 1, 4, 5, 6)"),
    "seg-of-one-number": ((AFF, 3, NHOOD), ValueError, "seg", "()"),
    "seg-empty": ((AFF, SEG[:0], NHOOD), ValueError, "seg", "empty", "(0, 5, 6)"),
    "seg-fractions": ((AFF, changed(SEG, 1.5, float), NHOOD), ValueError, "seg", "integer", "fractions"),
    "seg-nan": ((AFF, changed(SEG, np.nan, float), NHOOD), ValueError, "seg", "integer"),
    "seg-negative": ((AFF, changed(SEG, -3), NHOOD), ValueError, "seg", "at least 0", "-3"),
    "seg-negative-int8": ((AFF, changed(SEG, -128, np.int8), NHOOD), ValueError, "seg", "-128"),
    "seg-negative-float": ((AFF, changed(SEG, -3, float), NHOOD), ValueError, "seg", "at least 0", "-3"),
    "seg-complex": ((AFF, SEG.astype(complex), NHOOD), TypeError, "seg", "integer", "complex128"),
    "seg-text": ((AFF, SEG.astype(str), NHOOD), TypeError, "seg", "integer"),
    "seg-objects": ((AFF, SEG.astype(object), NHOOD), TypeError, "seg", "integer", "object"),
    "aff-nan": ((changed(AFF, np.nan), SEG, NHOOD), ValueError, "aff", "NaN", "7"),
    "aff-nan-float32": ((changed(AFF, np.nan, np.float32), SEG, NHOOD), ValueError, "aff", "NaN", "7"),
    "aff-nan-float16": ((changed(AFF, np.nan, np.float16), SEG, NHOOD), ValueError, "aff", "NaN", "7"),
    "aff-empty": ((AFF[:0], SEG, NHOOD), ValueError, "aff", "empty", "(0, 4, 5, 6)"),
    "aff-integers": ((AFF.astype(int), SEG, NHOOD), TypeError, "aff", "float32", "int64"),
    "aff-bool": ((AFF > 0.5, SEG, NHOOD), TypeError, "aff", "float32", "bool"),
    "aff-complex": ((AFF.astype(complex), SEG, NHOOD), TypeError, "aff", "float32", "complex128"),
    "aff-none": ((None, SEG, NHOOD), TypeError, "aff", "float32", "object"),
    "nhood-flat": ((AFF, SEG, NHOOD.ravel()), ValueError, "nhood", "(K, ndim)", "(9,)"),
    "nhood-empty": ((AFF, SEG, NHOOD[:0]), ValueError, "nhood", "(0, 3)"),
    "nhood-columns": ((AFF, SEG, NHOOD[:, :2]), ValueError, "2", "(4, 5, 6)"),
    "nhood-four-columns": ((AFF, SEG, np.ones((3, 4), int)), ValueError, "nhood", "ndim 1 to 3", "(3, 4)"),
    "nhood-fractions": ((AFF, SEG, NHOOD + 0.5), TypeError, "nhood", "integer", "float64"),
    "nhood-text": ((AFF, SEG, NHOOD.astype(str)), TypeError, "nhood", "integer"),
    "nhood-beyond-any-volume": ((AFF, SEG, NHOOD.astype(np.int64) * 2**62), ValueError, "nhood"),
}


@pytest.mark.parametrize("function", [malis.pairs, malis.malis_loss])
@pytest.mark.parametrize("case", VOLUMES)
def test_volumes(function, case):
    arguments, error, *fragments = VOLUMES[case]
    if case == "nhood-columns" and function is malis.malis_loss:
        fragments = ["aff and seg", "samples", "(3, 4, 5, 6)", "(4, 5, 6)"]  # as a batch of images
    raises(lambda: function(*arguments), error, *fragments)


@pytest.mark.parametrize("case", [name for name in VOLUMES if name.startswith(("seg-n", "seg-f", "nhood-f"))])
def test_seg_to_affgraph(case):
    (_, seg, nhood), error, *fragments = VOLUMES[case]
    raises(lambda: malis.seg_to_affgraph(seg, nhood), error, *fragments)


@pytest.mark.parametrize(
    "case",
    [name for name in VOLUMES if name.startswith(("aff-", "nhood-")) and name not in NUMBERS_TAKEN],
)
@pytest.mark.parametrize(
    "function", [malis.affgraph_to_seg, malis.watershed_basins, malis.maximum_spanning_tree], ids=lambda f: f.__name__
)
def test_affinities_alone(function, case):
    (aff, _, nhood), error, *fragments = VOLUMES[case]
    if case == "nhood-columns":
        fragments = ["aff", "3 axes", "(3, 4, 5, 6)"]
    raises(lambda: function(aff, nhood), error, *fragments)


@pytest.mark.parametrize("case", [name for name in VOLUMES if name not in NUMBERS_TAKEN])
def test_rand_curve(case):
    arguments, error, *fragments = VOLUMES[case]
    raises(lambda: malis.rand_curve(*arguments), error, *fragments)


@pytest.mark.parametrize("case", [name for name in VOLUMES if name not in NUMBERS_TAKEN])
def test_watershed_from_affgraph(case):
    (aff, seeds, nhood), error, *fragments = VOLUMES[case]
    fragments = [fragment.replace("seg", "seeds") for fragment in fragments]
    raises(lambda: malis.watershed_from_affgraph(aff, seeds, nhood), error, *fragments)


# ------------------------------------------------------------------------------------------------- options
OPTIONS = {
    "edge_mask-shape": (
        {"edge_mask": np.ones(SHAPE, bool)},
        ValueError,
        "edge_mask",
        "(3, 4, 5, 6)",
        "(4, 5, 6)",
    ),
    "edge_mask-dtype": ({"edge_mask": np.ones(AFF.shape)}, TypeError, "edge_mask", "bool", "float64"),
    "unlabelled_mask-shape": (
        {"unlabelled_mask": np.zeros(AFF.shape, bool)},
        ValueError,
        "unlabelled_mask",
        "(4, 5, 6)",
        "(3, 4, 5, 6)",
    ),
    "unlabelled_mask-dtype": (
        {"unlabelled_mask": np.zeros(SHAPE, np.uint8)},
        TypeError,
        "unlabelled_mask",
        "bool",
        "uint8",
    ),
    "constrain_positive": (
        {"constrain_positive": "yes"},
        TypeError,
        "constrain_positive",
        "True or False",
        "'yes'",
    ),
    "constrain_negative": ({"constrain_negative": 1}, TypeError, "constrain_negative", "True or False", "1"),
    "ignore_background": (
        {"ignore_background": None},
        TypeError,
        "ignore_background",
        "True or False",
        "None",
    ),
    "num_threads-zero": ({"num_threads": 0}, ValueError, "num_threads", "at least 1", "0"),
    "num_threads-negative": ({"num_threads": -4}, ValueError, "num_threads", "at least 1", "-4"),
    "num_threads-huge": ({"num_threads": 2**40}, ValueError, "num_threads", "65536", str(2**40)),
    "num_threads-fraction": ({"num_threads": 1.5}, TypeError, "num_threads", "integer", "1.5"),
}

LOSS_OPTIONS = {
    "pointwise": (
        {"pointwise": "hinge"},
        ValueError,
        "pointwise",
        "'squared_hinge', 'cross_entropy'",
        "'hinge'",
    ),
    "pointwise-type": ({"pointwise": 2}, TypeError, "pointwise", "'squared_hinge', 'cross_entropy'", "2"),
    "margin-nan": ({"margin": float("nan")}, ValueError, "margin", "finite", "nan"),
    "margin-infinite": ({"margin": float("inf")}, ValueError, "margin", "finite", "inf"),
    "margin-huge": ({"margin": -1e300}, ValueError, "margin", "within -1e6 and 1e6", "-1e+300"),
    "margin-text": ({"margin": "0.3"}, TypeError, "margin", "number", "'0.3'"),
    "margin-none": ({"margin": None}, TypeError, "margin", "number", "None"),
    "pos_loss_weight-above": ({"pos_loss_weight": 1.5}, ValueError, "pos_loss_weight", "0 and 1", "1.5"),
    "pos_loss_weight-below": ({"pos_loss_weight": -0.1}, ValueError, "pos_loss_weight", "0 and 1", "-0.1"),
    "pos_loss_weight-nan": ({"pos_loss_weight": float("nan")}, ValueError, "pos_loss_weight", "nan"),
    "normalize": ({"normalize": "no"}, TypeError, "normalize", "True or False", "'no'"),
    "from_logits": ({"from_logits": 0.5}, TypeError, "from_logits", "True or False", "0.5"),
}


@pytest.mark.parametrize("function", [malis.pairs, malis.malis_loss])
@pytest.mark.parametrize("case", OPTIONS)
def test_options(function, case):
    options, error, *fragments = OPTIONS[case]
    raises(lambda: function(AFF, SEG, NHOOD, **options), error, *fragments)


@pytest.mark.parametrize("case", LOSS_OPTIONS)
def test_options_of_the_loss(case):
    options, error, *fragments = LOSS_OPTIONS[case]
    raises(lambda: malis.malis_loss(AFF, SEG, NHOOD, **options), error, *fragments)


@pytest.mark.parametrize(
    "function", [malis.pairs, malis.malis_loss, malis.affgraph_to_seg, malis.malis_weights, malis.edge_pairs]
)
def test_unknown_option(function):
    with pytest.raises(TypeError, match="marign"):
        function(AFF, SEG, NHOOD, *[SEG] * (function is malis.edge_pairs), marign=0.3)


# ------------------------------------------------------------------------------------------------- batches
BATCHES = {
    "samples": ((BATCH_AFF, BATCH_SEG[:1], NHOOD), "samples", "(2, 3, 4, 5, 6)", "(1, 4, 5, 6)"),
    "seg-without-batch": ((BATCH_AFF, SEG, NHOOD), "aff", "(2, 3, 4, 5, 6)"),
    "aff-without-batch": ((AFF, BATCH_SEG, NHOOD), "seg", "(2, 4, 5, 6)"),
    "channels": ((BATCH_AFF[:, :2], BATCH_SEG, NHOOD), "aff", "3 offsets"),
    "spatial-shape": ((BATCH_AFF[..., :-1], BATCH_SEG, NHOOD), "aff", "(3, 4, 5, 6)"),
    "no-sample": ((BATCH_AFF[:0], BATCH_SEG[:0], NHOOD), "empty", "(0, "),
}


@pytest.mark.parametrize("case", BATCHES)
def test_batches(case):
    arguments, *fragments = BATCHES[case]
    raises(lambda: malis.malis_loss(*arguments), ValueError, *fragments)


def test_masks_of_batches():
    edges, voxels = np.ones(AFF.shape, bool), np.zeros(SHAPE, bool)
    call = malis.malis_loss
    raises(
        lambda: call(BATCH_AFF, BATCH_SEG, NHOOD, edge_mask=edges),
        *(ValueError, "edge_mask", "(2, 3, 4, 5, 6)", "(3, 4, 5, 6)"),
    )
    raises(
        lambda: call(BATCH_AFF, BATCH_SEG, NHOOD, unlabelled_mask=voxels),
        *(ValueError, "unlabelled_mask", "(2, 4, 5, 6)", "(4, 5, 6)"),
    )


def test_nan_in_one_sample():
    aff = BATCH_AFF.copy()
    aff[1, 0, 0, 0, 0] = np.nan
    for num_threads in 1, 2:
        raises(
            lambda n=num_threads: malis.malis_loss(aff, BATCH_SEG, NHOOD, num_threads=n),
            ValueError,
            "aff",
            "NaN",
        )


def test_pairs_takes_no_batch():
    raises(lambda: malis.pairs(BATCH_AFF, BATCH_SEG, NHOOD), ValueError, "seg", "3 axes", "(2, 4, 5, 6)")


def test_malis_weights():
    truth = malis.seg_to_affgraph(SEG, NHOOD)
    call = malis.malis_weights
    raises(lambda: call(AFF, truth[:2], SEG, NHOOD), ValueError, "affinity_gt", "(3, 4, 5, 6)", "(2, 4, 5, 6)")
    raises(lambda: call(AFF, truth, SEG, NHOOD, "yes"), TypeError, "unrestrict_neg", "True or False", "'yes'")
    raises(lambda: call(changed(AFF, np.nan), truth, SEG, NHOOD), ValueError, "NaN")


# --------------------------------------------------------------------------------------------- edge lists
W = AFF.ravel()
EDGES = {
    "node1-floats": ((NODE1 + 0.5, NODE2, W, SEG), {}, TypeError, "node1", "integer", "float64"),
    "node2-bools": ((NODE1, NODE2 > 0, W, SEG), {}, TypeError, "node2", "integer", "bool"),
    "node2-shape": ((NODE1, NODE2[1:], W, SEG), {}, ValueError, "node2", "(360,)", "(359,)"),
    "weights-shape": ((NODE1, NODE2, W[1:], SEG), {}, ValueError, "weights", "(360,)", "(359,)"),
    "weights-nan": ((NODE1, NODE2, changed(W, np.nan), SEG), {}, ValueError, "weights", "NaN", "7"),
    "weights-text": ((NODE1, NODE2, W.astype(str), SEG), {}, TypeError, "weights", "float32"),
    "node1-too-large": ((changed(NODE1, 120), NODE2, W, SEG), {}, ValueError, "node1", "119", "got 120", "7"),
    "node2-too-large": ((NODE1, changed(NODE2, 10**6), W, SEG), {}, ValueError, "node2", "119", "1000000"),
    "node1-negative": ((changed(NODE1, -2), NODE2, W, SEG), {}, ValueError, "node1", "-1", "got -2"),
    "node2-unsigned": (
        (NODE1.astype(np.uint64), changed(NODE2, 2**64 - 2, np.uint64), W, SEG),
        *({}, ValueError, "node2", str(2**64 - 2)),
    ),
    "seg-empty": ((NODE1, NODE2, W, SEG[:0]), {}, ValueError, "seg", "empty"),
    "seg-negative": ((NODE1, NODE2, W, changed(SEG, -1)), {}, ValueError, "seg", "at least 0", "-1"),
    "seg-fractions": ((NODE1, NODE2, W, changed(SEG, 0.5, float)), {}, ValueError, "seg", "fractions"),
    "edge_mask": ((NODE1, NODE2, W, SEG), {"edge_mask": np.ones(3, bool)}, ValueError, "edge_mask", "(3,)"),
    "unlabelled_mask": (
        (NODE1, NODE2, W, SEG),
        *({"unlabelled_mask": np.ones(120, bool)}, ValueError, "unlabelled_mask", "(4, 5, 6)", "(120,)"),
    ),
    "num_threads": ((NODE1, NODE2, W, SEG), {"num_threads": 0}, ValueError, "num_threads", "0"),
}


@pytest.mark.parametrize("case", EDGES)
def test_edge_pairs(case):
    arguments, options, error, *fragments = EDGES[case]
    raises(lambda: malis.edge_pairs(*arguments, **options), error, *fragments)


# --------------------------------------------------------------------------------- the other functions
BMAP = np.zeros(SHAPE, int)
N1, N2, LABELS = NODE1.astype(np.uint64), NODE2.astype(np.uint64), SEG.ravel().astype(np.uint64)
OTHERS = {
    "threshold-nan": (
        lambda: malis.affgraph_to_seg(AFF, NHOOD, threshold=np.nan),
        ValueError,
        "threshold",
        "NaN",
    ),
    "threshold-text": (
        lambda: malis.affgraph_to_seg(AFF, NHOOD, threshold="x"),
        TypeError,
        "threshold",
        "'x'",
    ),
    "small-word": (lambda: malis.affgraph_to_seg(AFF, NHOOD, small="keep"), ValueError, "small", "'merge'", "'keep'"),
    "small-flag": (lambda: malis.affgraph_to_seg(AFF, NHOOD, small=True), TypeError, "small", "'drop'", "True"),
    "basins-threshold-nan": (
        lambda: malis.watershed_basins(AFF, NHOOD, threshold=np.nan),
        *(ValueError, "threshold", "NaN"),
    ),
    "basins-threshold-none": (
        lambda: malis.watershed_basins(AFF, NHOOD, threshold=None),
        *(TypeError, "threshold", "None"),
    ),
    "basins-min_size": (
        lambda: malis.watershed_basins(AFF, NHOOD, min_size=-1),
        *(ValueError, "min_size", "-1"),
    ),
    "curve-num_threads": (
        lambda: malis.rand_curve(AFF, SEG, NHOOD, num_threads=0),
        *(ValueError, "num_threads", "0"),
    ),
    "tree-num_threads": (
        lambda: malis.maximum_spanning_tree(AFF, NHOOD, num_threads=1.5),
        *(TypeError, "num_threads", "1.5"),
    ),
    "segment_tree-tuple": (lambda: malis.segment_tree(tuple(TREE), [0.5]), TypeError, "tree", "SpanningTree", "tuple"),
    "segment_tree-one-number": (lambda: malis.segment_tree(TREE, 0.5), ValueError, "thresholds", "sequence", "0.5"),
    "segment_tree-nan": (lambda: malis.segment_tree(TREE, [0.5, np.nan]), ValueError, "thresholds", "NaN"),
    "segment_tree-text": (lambda: malis.segment_tree(TREE, ["0.5"]), TypeError, "thresholds", "'0.5'"),
    "segment_tree-none": (lambda: malis.segment_tree(TREE, [None]), TypeError, "thresholds", "None"),
    "segment_tree-min_size": (lambda: malis.segment_tree(TREE, [0.5], min_size=-1), ValueError, "min_size", "-1"),
    "segment_tree-num_threads": (
        lambda: malis.segment_tree(TREE, [0.5], num_threads=0),
        *(ValueError, "num_threads", "0"),
    ),
    "segment_tree-shape": (
        lambda: malis.segment_tree(TREE._replace(shape=(4, 5, 5)), [0.5]),
        *(ValueError, "tree", "119", "100"),
    ),
    "segment_tree-shape-empty": (
        lambda: malis.segment_tree(TREE._replace(shape=(4, 0, 5)), [0.5]),
        *(ValueError, "tree.shape", "0"),
    ),
    "segment_tree-lengths": (
        lambda: malis.segment_tree(TREE._replace(node1=TREE.node1[1:]), [0.5]),
        *(ValueError, "tree.node1", "(119,)", "(118,)"),
    ),
    "segment_tree-dtypes": (
        lambda: malis.segment_tree(TREE._replace(node2=TREE.node2.astype(np.int64)), [0.5]),
        *(TypeError, "tree.node2", "int64"),
    ),
    "segment_tree-integers": (
        lambda: malis.segment_tree(TREE._replace(affinities=TREE.affinities.astype(int)), [0.5]),
        *(TypeError, "tree.affinities", "int64"),
    ),
    "segment_tree-order": (
        lambda: malis.segment_tree(TREE._replace(affinities=TREE.affinities[::-1]), [0.5]),
        *(ValueError, "tree", "never increase", "at edge 1"),
    ),
    "segment_tree-outside": (
        lambda: malis.segment_tree(TREE._replace(node1=changed(TREE.node1, 120)), [0.5]),
        *(ValueError, "tree", "0 to 119", "120", "at edge 7"),
    ),
    "segment_tree-negative": (
        lambda: malis.segment_tree(TREE._replace(node2=changed(TREE.node2, -1)), [0.5]),
        *(ValueError, "tree", "0 to 119", "-1", "at edge 7"),
    ),
    "linkage-array": (lambda: malis.linkage(TREE.affinities), TypeError, "tree", "SpanningTree", "ndarray"),
    "linkage-cycle": (lambda: malis.linkage(TREE._replace(node1=TREE.node2)), ValueError, "tree", "cycle"),
    "linkage-highest": (lambda: malis.linkage(TREE, highest=0.5), ValueError, "highest", "1.0", "0.5"),
    "linkage-highest-nan": (lambda: malis.linkage(TREE, highest=np.nan), ValueError, "highest", "nan"),
    "linkage-highest-text": (lambda: malis.linkage(TREE, highest="1"), TypeError, "highest", "'1'"),
    "size_thresh-negative": (lambda: malis.affgraph_to_seg(AFF, NHOOD, -1), ValueError, "size_thresh", "-1"),
    "size_thresh-fraction": (lambda: malis.affgraph_to_seg(AFF, NHOOD, 1.5), TypeError, "size_thresh", "1.5"),
    "min_size-negative": (lambda: malis.affgraph_to_seg(AFF, NHOOD, min_size=-1), ValueError, "min_size", "-1"),
    "min_size-fraction": (lambda: malis.affgraph_to_seg(AFF, NHOOD, min_size=1.5), TypeError, "min_size", "1.5"),
    "min_size-and-size_thresh": (
        lambda: malis.affgraph_to_seg(AFF, NHOOD, 3, min_size=4),
        *(ValueError, "size_thresh", "min_size", "3", "4"),
    ),
    "watershed-min_size": (
        lambda: malis.watershed_from_affgraph(AFF, SEG, NHOOD, min_size=-1),
        *(ValueError, "min_size", "-1"),
    ),
    "watershed-size_thresh": (
        lambda: malis.watershed_from_affgraph(AFF, SEG, NHOOD, -1),
        *(ValueError, "size_thresh", "-1"),
    ),
    "watershed-threshold-nan": (
        lambda: malis.watershed_from_affgraph(AFF, SEG, NHOOD, threshold=float("nan")),
        *(ValueError, "threshold", "NaN"),
    ),
    "watershed-threshold-text": (
        lambda: malis.watershed_from_affgraph(AFF, SEG, NHOOD, threshold="0.5"),
        *(TypeError, "threshold", "0.5"),
    ),
    "watershed-huge-seed": (
        lambda: malis.watershed_from_affgraph(AFF, SEG * 2**40, NHOOD),
        *(ValueError, "seeds", "2**27", str(3 * 2**40)),
    ),
    "bmap-above-1": (lambda: malis.bmap_to_affgraph(BMAP + 2, NHOOD), ValueError, "bmap", "0 and 1", "2"),
    "bmap-negative": (lambda: malis.bmap_to_affgraph(BMAP - 1, NHOOD), ValueError, "bmap", "0 and 1", "-1"),
    "bmap-nan": (lambda: malis.bmap_to_affgraph(BMAP + np.nan, NHOOD), ValueError, "bmap", "nan"),
    "bmap-empty": (lambda: malis.bmap_to_affgraph(BMAP[:0], NHOOD), ValueError, "bmap", "empty"),
    "bmap-text": (lambda: malis.bmap_to_affgraph(BMAP.astype(str), NHOOD), TypeError, "bmap"),
    "bmap-long-offset": (lambda: malis.bmap_to_affgraph(BMAP, 2 * NHOOD), ValueError, "nhood", "-2"),
    "bmap-columns": (lambda: malis.bmap_to_affgraph(BMAP[0], NHOOD), ValueError, "nhood", "2", "(3, 3)"),
    "shape-zero": (lambda: malis.nodelist_from_shape((4, 0, 6), NHOOD), ValueError, "shape", "0"),
    "shape-fraction": (lambda: malis.nodelist_from_shape((4, 5.5, 6), NHOOD), TypeError, "shape", "5.5"),
    "shape-axes": (lambda: malis.nodelist_from_shape((4, 5), NHOOD), ValueError, "nhood", "2", "(3, 3)"),
    "nodelist_like-zero": (lambda: malis.nodelist_like((4, -1, 6), NHOOD), ValueError, "shape", "-1"),
    "nodelist_like-axes": (lambda: malis.nodelist_like((4, 5), NHOOD), ValueError, "nhood", "(3, 3)"),
    "edgelist-channels": (lambda: malis.affgraph_to_edgelist(AFF[:2], NHOOD), ValueError, "aff", "3 offsets"),
    "edgelist-axes": (lambda: malis.affgraph_to_edgelist(AFF[0], NHOOD), ValueError, "aff", "4 axes"),
    "seg_to_affgraph-axes": (
        lambda: malis.seg_to_affgraph(SEG[0], NHOOD),
        ValueError,
        "seg",
        "3 axes",
        "(5, 6)",
    ),
    "seg_to_affgraph-threads": (
        lambda: malis.seg_to_affgraph(SEG, NHOOD, num_threads=0),
        *(ValueError, "num_threads", "0"),
    ),
    "set_num_threads-zero": (lambda: malis.set_num_threads(0), ValueError, "n must", "at least 1", "0"),
    "set_num_threads-huge": (lambda: malis.set_num_threads(2**40), ValueError, "n must", "65536", str(2**40)),
    "set_num_threads-text": (lambda: malis.set_num_threads("4"), TypeError, "n must", "integer", "'4'"),
    "mknhood2d-small": (lambda: malis.mknhood2d(0.5), ValueError, "radius", "at least 1", "0.5"),
    "mknhood3d-nan": (lambda: malis.mknhood3d(float("nan")), ValueError, "radius", "finite", "nan"),
    "mknhood3d-infinite": (lambda: malis.mknhood3d(float("inf")), ValueError, "radius", "finite", "inf"),
    "mknhood3d-text": (lambda: malis.mknhood3d("1"), TypeError, "radius", "number", "'1'"),
    "mknhood3d_aniso": (lambda: malis.mknhood3d_aniso(1, -1), ValueError, "radiusxy_zminus1", "-1"),
    "weights-segTrue-axes": (
        lambda: malis.malis_loss_weights(SEG, N1, N2, W, 1),
        *(ValueError, "segTrue", "one axis", "(4, 5, 6)"),
    ),
    "weights-node1-axes": (
        lambda: malis.malis_loss_weights(LABELS, N1.reshape(3, -1), N2, W, 1),
        *(ValueError, "node1", "one axis", "(3, 120)"),
    ),
    "weights-node2-shape": (
        lambda: malis.malis_loss_weights(LABELS, N1, N2[1:], W, 1),
        *(ValueError, "node2", "(360,)", "(359,)"),
    ),
    "weights-edgeWeight-shape": (
        lambda: malis.malis_loss_weights(LABELS, N1, N2, W[1:], 1),
        *(ValueError, "edgeWeight", "(360,)", "(359,)"),
    ),
    "weights-nan": (
        lambda: malis.malis_loss_weights(LABELS, N1, N2, changed(W, np.nan), 1),
        *(ValueError, "edgeWeight", "NaN"),
    ),
    "weights-pos": (lambda: malis.malis_loss_weights(LABELS, N1, N2, W, 2), ValueError, "pos", "0 or 1", "2"),
    "weights-nodes": (
        lambda: malis.malis_loss_weights(LABELS, N1 / 2, N2, W, 1),
        *(TypeError, "node1", "integer", "float64"),
    ),
    "components-nVert": (lambda: malis.connected_components(-1, N1, N2, W), ValueError, "nVert", "-1"),
    "components-nVert-type": (lambda: malis.connected_components(2.5, N1, N2, W), TypeError, "nVert", "2.5"),
    "components-sizeThreshold": (
        lambda: malis.connected_components(120, N1, N2, W, -1),
        *(ValueError, "sizeThreshold", "-1"),
    ),
    "components-nan": (
        lambda: malis.connected_components(120, N1, N2, changed(W, np.nan)),
        *(ValueError, "edgeWeight", "NaN"),
    ),
    "affgraph-channels": (
        lambda: malis.connected_components_affgraph(AFF[:2], NHOOD),
        *(ValueError, "aff", "3 offsets", "(2, 4, 5, 6)"),
    ),
    "affgraph-empty": (
        lambda: malis.connected_components_affgraph(AFF[:, :0], NHOOD),
        *(ValueError, "aff", "empty", "(3, 0, 5, 6)"),
    ),
    "affgraph-nan": (
        lambda: malis.connected_components_affgraph(changed(AFF, np.nan), NHOOD),
        *(ValueError, "aff", "NaN"),
    ),
    "affgraph-text": (
        lambda: malis.connected_components_affgraph(AFF.astype(str), NHOOD),
        *(TypeError, "aff"),
    ),
    "marker-axes": (
        lambda: malis.marker_watershed(SEG, N1, N2, W),
        *(ValueError, "marker", "one axis", "(4, 5, 6)"),
    ),
    "marker-negative": (
        lambda: malis.marker_watershed(SEG.ravel() - 1, N1, N2, W),
        *(ValueError, "marker", "at least 0", "-1"),
    ),
    "marker-sizeThreshold": (
        lambda: malis.marker_watershed(LABELS, N1, N2, W, 0.5),
        *(TypeError, "sizeThreshold", "0.5"),
    ),
    "prune-floats": (lambda: malis.prune_and_renum(W), TypeError, "seg", "integer", "float64"),
    "table-shapes": (lambda: malis.mk_cont_table([0, 1], [0, 1, 2]), ValueError, "seg2", "seg1", "(2,)", "(3,)"),
    "table-empty": (lambda: malis.mk_cont_table([], []), ValueError, "seg1", "empty", "(0,)"),
    "table-negative": (lambda: malis.mk_cont_table([0, 1], [0, -1]), ValueError, "seg2", "at least 0", "-1"),
    "rand-shapes": (lambda: malis.rand_index([0, 1], [0, 1, 2]), ValueError, "segEst", "segTrue", "(2,)", "(3,)"),
    "rand-negative": (lambda: malis.rand_index([0, 1], [0, -1]), ValueError, "segEst", "at least 0", "-1"),
    "v_rand-shapes": (lambda: malis.compute_V_rand_N2([0], [0, 1]), ValueError, "segEst", "segTrue", "(1,)", "(2,)"),
    "v_rand-fractions": (lambda: malis.compute_V_rand_N2([0, 1], [0, 0.5]), ValueError, "segEst", "integer"),
}


@pytest.mark.parametrize("case", OTHERS)
def test_others(case):
    call, error, *fragments = OTHERS[case]
    raises(call, error, *fragments)


def test_nothing_is_changed_by_a_refused_call():
    before = malis.get_num_threads()
    raises(lambda: malis.set_num_threads(-1), ValueError, "-1")
    assert malis.get_num_threads() == before


def test_swapped_arguments():
    raises(lambda: malis.pairs(SEG, AFF, NHOOD), ValueError, "aff and seg look swapped")
    raises(lambda: malis.malis_loss(SEG, AFF, NHOOD), ValueError, "aff and seg look swapped")
    raises(lambda: malis.malis_loss(SEG[None], AFF[None], NHOOD), ValueError, "aff and seg look swapped")
