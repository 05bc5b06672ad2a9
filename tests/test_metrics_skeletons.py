"""Scores along skeletons: by hand, and the definition of funlib.evaluate and NISB written out edge by edge."""

from __future__ import annotations

import math

import networkx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from malis import metrics


def line(lengths, ids=1):
    """Make nodes in a row, one edge between neighbours."""
    nodes = np.arange(len(lengths) + 1)[:, None]
    edges = np.stack([nodes[:-1, 0], nodes[1:, 0]], axis=1)
    return metrics.Skeletons(nodes, edges, np.full(len(nodes), ids), lengths=lengths)


# The two skeletons in the tests of funlib.evaluate: of length 2 sqrt(2) and sqrt(2).
TWO = metrics.Skeletons(
    [[0, 0, 0], [1, 1, 0], [0, 1, 1], [1, 1, 1], [0, 0, 1]], [[0, 1], [1, 2], [3, 4]], [1, 1, 1, 2, 2]
)


@pytest.mark.parametrize(
    ("segments", "erl", "n_splits", "n_mergers"),
    [
        ([10, 10, 10, 20, 20], (8 + 2) / (3 * math.sqrt(2)), 0, 0),
        ([10, 10, 30, 20, 20], (2 + 2) / (3 * math.sqrt(2)), 1, 0),
        ([10, 10, 30, 20, 40], 2 / 3 * 0.5 * math.sqrt(2), 2, 0),
        ([10, 50, 30, 20, 40], 0, 3, 0),
        ([10, 10, 10, 10, 10], 0, 0, 2),
        ([10, 10, 0, 20, 20], (2 + 2) / (3 * math.sqrt(2)), 0, 0),
        ([0, 0, 0, 0, 0], 0, 0, 0),
        # The edge in the merging segment is lost, the one outside of it is not.
        ([10, 10, 7, 7, 7], (2 + 0) / (3 * math.sqrt(2)), 1, 2),
    ],
)
def test_by_hand(segments, erl, n_splits, n_mergers):
    scores = metrics.skeleton_scores(TWO, node_segments=segments)
    assert scores.erl == pytest.approx(erl)
    assert scores.max_erl == pytest.approx((8 + 2) / (3 * math.sqrt(2)))
    assert scores.nerl == pytest.approx(scores.erl / scores.max_erl)
    assert (scores.n_splits, scores.n_mergers) == (n_splits, n_mergers)
    assert sum(scores[5:]) == pytest.approx(3 * math.sqrt(2))


def test_kinds_of_edges_by_hand():
    skeletons = metrics.Skeletons(
        np.arange(8)[:, None],
        [[0, 1], [1, 2], [2, 3], [3, 4], [5, 6], [6, 7]],
        [1, 1, 1, 1, 1, 2, 2, 2],
        lengths=[1, 2, 4, 8, 16, 32],
    )
    scores = metrics.skeleton_scores(skeletons, [5, 5, 6, 6, 0, 6, 6, 9])
    assert scores.correct_length == 1
    assert scores.split_length == 2 + 32
    assert scores.merged_length == 4 + 16
    assert scores.omitted_length == 8
    assert scores.erl == 1**2 / 63
    assert scores.max_erl == (15**2 + 48**2) / 63


def test_merge_threshold_forgives_small_contacts():
    # Two nodes of skeleton 2 lie in the segment of skeleton 1.
    nodes = np.arange(10)[:, None]
    edges = [[i, i + 1] for i in range(9) if i != 4]
    skeletons = metrics.Skeletons(nodes, edges, [1] * 5 + [2] * 5)
    seg = [7] * 5 + [7, 7, 8, 8, 8]
    for threshold in (0, 1):
        assert metrics.skeleton_scores(skeletons, seg, merge_threshold=threshold)[:5] == (4 / 8, 4, 1 / 8, 1, 2)
    for threshold in (2, 4):
        assert metrics.skeleton_scores(skeletons, seg, merge_threshold=threshold)[:2] == ((16 + 4 + 1) / 8, 4)
        assert metrics.skeleton_scores(skeletons, seg, merge_threshold=threshold).n_mergers == 0


@st.composite
def labelled_skeletons(draw):
    """Skeletons of random trees, and a segment for every node."""
    n = draw(st.integers(1, 12))
    ids = np.array(draw(st.lists(st.integers(-1, 2), min_size=n, max_size=n)))
    edges = [(u, v) for u in range(n) for v in range(u) if ids[u] == ids[v] and draw(st.booleans())]
    lengths = [draw(st.integers(0, 8)) for _ in edges]
    segments = draw(st.lists(st.integers(0, 3), min_size=n, max_size=n))
    return metrics.Skeletons(np.zeros((n, 2)), edges, ids, lengths=lengths), np.array(segments)


@given(labelled_skeletons(), st.integers(0, 4))
def test_equals_the_definition(problem, merge_threshold):
    skeletons, segments = problem
    ids, segments = skeletons.ids.tolist(), segments.tolist()
    contacts = {}
    for pair in zip(ids, segments, strict=True):
        contacts[pair] = contacts.get(pair, 0) + 1
    beyond = [pair for pair, nodes in contacts.items() if nodes > merge_threshold]
    merging = {g for _, g in beyond if sum(g == other for _, other in beyond) > 1}
    in_merger = {s for s, g in beyond if g in merging}
    runs, lengths, kinds, splits = {}, {}, dict.fromkeys(("correct", "split", "merged", "omitted"), 0.0), 0
    for (u, v), length in zip(skeletons.edges.tolist(), skeletons.lengths.tolist(), strict=True):
        lengths[ids[u]] = lengths.get(ids[u], 0) + length
        if 0 in (segments[u], segments[v]):
            kind = "omitted"
        elif segments[u] != segments[v]:
            kind, splits = "split", splits + 1
        elif ids[u] in in_merger and segments[u] in merging:
            kind = "merged"
        else:
            kind = "correct"
            runs[ids[u], segments[u]] = runs.get((ids[u], segments[u]), 0) + length
        kinds[kind] += length
    scores = metrics.skeleton_scores(skeletons, node_segments=segments, merge_threshold=merge_threshold)
    assert scores.n_splits == splits
    assert scores.n_mergers == sum(g in merging and g != 0 for _, g in beyond)
    assert scores[5:] == pytest.approx(tuple(kinds.values()))
    total = sum(lengths.values())
    if total == 0:
        assert all(map(math.isnan, scores[:3]))
        return
    # Of every skeleton by its share of the length: the mean run length along it.
    erl = sum(
        lengths[s] / total * sum(run * run / lengths[s] for (t, _), run in runs.items() if t == s)
        for s in lengths
        if lengths[s]
    )
    max_erl = sum(length / total * length for length in lengths.values())
    assert scores[:3] == pytest.approx((erl, max_erl, erl / max_erl))


def test_labels_of_nodes_by_parts(rng):
    seg = rng.integers(0, 9, (7, 8, 9)).astype(np.uint16)
    nodes = rng.integers(0, (7, 8, 9), (50, 3))
    skeletons = metrics.Skeletons(nodes, [], np.zeros(50, int))
    whole = metrics.skeleton_segments(skeletons, seg)
    assert whole.tolist() == [seg[tuple(node)] for node in nodes]
    parts = [
        metrics.skeleton_segments(skeletons, seg[z : z + 3, y : y + 4], offset=[z, y, 0])
        for z in range(0, 7, 3)
        for y in range(0, 8, 4)
    ]
    np.testing.assert_array_equal(sum(parts), whole)
    huge = metrics.skeleton_segments(skeletons, seg.astype(np.uint64) + np.uint64(2**63))
    assert (huge - np.uint64(2**63)).tolist() == whole.tolist()
    # Fractions belong to the nearest voxel.
    near = metrics.Skeletons(nodes + 0.4, [], np.zeros(50, int))
    np.testing.assert_array_equal(metrics.skeleton_segments(near, seg), whole)


def test_lengths():
    assert metrics.Skeletons([[0, 0], [3, 4]], [[0, 1]], [1, 1]).lengths.tolist() == [5]
    assert metrics.Skeletons([[0, 0], [3, 4]], [[0, 1]], [1, 1], voxel_size=10).lengths.tolist() == [50]
    assert metrics.Skeletons([[0, 0], [3, 4]], [[0, 1]], [1, 1], voxel_size=[4, 1.25]).lengths.tolist() == [13]
    assert line([1, 2.5]).lengths.tolist() == [1, 2.5]
    assert repr(line([1, 2.5])) == "<Skeletons: 1 with 3 nodes, 2 edges, length 3.5>"


def test_from_networkx():
    graph = networkx.Graph()
    for node, position in {"a": (0, 0, 0), "b": (0, 0, 4), "c": (3, 0, 4)}.items():
        graph.add_node(node, id=17, index_position=position)
    graph.add_edge("c", "b")
    graph.add_edge("a", "b")
    skeletons = metrics.Skeletons.from_networkx(graph, voxel_size=(9, 9, 20))
    assert skeletons.ids.tolist() == [17, 17, 17]
    assert sorted(skeletons.lengths.tolist()) == [27, 80]
    seg = np.ones((4, 1, 5), int)
    assert metrics.skeleton_scores(skeletons, seg).erl == 107
    with pytest.raises(ValueError, match="graph must have the attribute 'skeleton' at every node"):
        metrics.Skeletons.from_networkx(graph, id="skeleton")


NODES, EDGES, IDS = [[0, 0], [0, 1], [2, 2]], [[0, 1]], [1, 1, 2]


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"nodes": [0, 1, 2]}, ValueError, r"nodes must have shape \(n, ndim\)"),
        ({"nodes": []}, ValueError, "nodes"),
        ({"nodes": [[0, np.nan]] * 3}, ValueError, "nodes must hold finite"),
        ({"nodes": [["a", "b"]] * 3}, TypeError, "nodes"),
        ({"ids": [1, 1]}, ValueError, r"ids must have shape \(3,\)"),
        ({"ids": [1.0, 1.0, 2.0]}, TypeError, "ids must hold integers"),
        ({"edges": [[0, 3]]}, ValueError, "edges must hold nodes from 0 to 2, got 0 to 3"),
        ({"edges": [[-1, 0]]}, ValueError, "edges must hold nodes"),
        ({"edges": [[0, 2]]}, ValueError, r"edges must join nodes of one skeleton, got \[1, 2\] at edge 0"),
        ({"edges": [[0, 1, 2]]}, ValueError, r"edges must have shape \(1, 2\)"),
        ({"edges": [[0.0, 1.0]]}, TypeError, "edges"),
        ({"voxel_size": (1, 2, 3)}, ValueError, "voxel_size.*2 axes"),
        ({"voxel_size": 0}, ValueError, "voxel_size must be positive"),
        ({"voxel_size": "nm"}, TypeError, "voxel_size"),
        ({"lengths": [1, 2]}, ValueError, r"lengths must have shape \(1,\)"),
        ({"lengths": [-1]}, ValueError, "lengths"),
        ({"lengths": [np.inf]}, ValueError, "lengths"),
        ({"lengths": ["1"]}, TypeError, "lengths"),
    ],
)
def test_bad_skeletons(change, error, message):
    arguments = {"nodes": NODES, "edges": EDGES, "ids": IDS, **change}
    with pytest.raises(error, match=message):
        metrics.Skeletons(arguments.pop("nodes"), arguments.pop("edges"), arguments.pop("ids"), **arguments)


SKELETONS, SEG = metrics.Skeletons(NODES, EDGES, IDS), np.ones((3, 3), int)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: metrics.skeleton_scores([NODES, EDGES], SEG), TypeError, "skeletons must be Skeletons, got list"),
        (lambda: metrics.skeleton_scores(SKELETONS), TypeError, "either seg_pred must be given"),
        (lambda: metrics.skeleton_scores(SKELETONS, SEG, node_segments=[1, 1, 1]), TypeError, "either seg_pred"),
        (lambda: metrics.skeleton_scores(SKELETONS, SEG, merge_threshold=-1), ValueError, "merge_threshold"),
        (lambda: metrics.skeleton_scores(SKELETONS, SEG, merge_threshold=0.5), TypeError, "merge_threshold"),
        (lambda: metrics.skeleton_scores(SKELETONS, node_segments=[1, 1]), ValueError, r"node_segments.*\(3,\)"),
        (lambda: metrics.skeleton_scores(SKELETONS, node_segments=[1, 1, -1]), ValueError, "node_segments"),
        (lambda: metrics.skeleton_segments(SKELETONS, -SEG), ValueError, "seg_pred"),
        (lambda: metrics.skeleton_segments(SKELETONS, SEG[0]), ValueError, "seg_pred must have 2 axes"),
        (lambda: metrics.skeleton_segments(SKELETONS, SEG[:2]), ValueError, r"node 2 at \[2, 2\].*offset"),
        (lambda: metrics.skeleton_segments(SKELETONS, SEG, offset=[0]), ValueError, "offset"),
        (lambda: metrics.skeleton_segments(SKELETONS, SEG, offset=[0.5, 0]), TypeError, "offset"),
    ],
)
def test_bad_calls(call, error, message):
    with pytest.raises(error, match=message):
        call()
