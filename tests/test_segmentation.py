"""Connected components and the maximin watershed, with and without seeds."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import malis
import oracle
from strategies import problems

ndimage = pytest.importorskip("scipy.ndimage")


def assert_components(seg, sizes, parts, size_thresh):
    """Components above the threshold are numbered by decreasing size, equal sizes by their first voxel."""
    kept = sorted((part for part in parts if len(part) > size_thresh), key=lambda part: (-len(part), min(part)))
    expected = np.zeros(seg.size, np.int64)
    for label, part in enumerate(kept, start=1):
        expected[list(part)] = label
    np.testing.assert_array_equal(seg.ravel(), expected)
    assert sizes.dtype == np.int64
    np.testing.assert_array_equal(sizes, np.bincount(expected, minlength=len(kept) + 1))


# ------------------------------------------------------------------------------------------- components
@given(
    problem=problems(),
    threshold=st.sampled_from([-np.inf, -1.0, 0.0, 0.25, 0.5, 1.0, 2.0, np.inf]),
    size_thresh=st.integers(0, 4),
)
@settings(max_examples=300)
def test_threshold(problem, threshold, size_thresh):
    seg, sizes = malis.affgraph_to_seg(problem.aff, problem.nhood, size_thresh, threshold=threshold)
    newer, _ = malis.affgraph_to_seg(problem.aff, problem.nhood, min_size=size_thresh + 1, threshold=threshold)
    np.testing.assert_array_equal(newer, seg)
    assert seg.dtype == np.int32
    assert seg.shape == problem.seg.shape
    parts = oracle.components(problem.aff >= threshold, problem.nhood)
    assert_components(seg, sizes, parts, size_thresh)


@given(problem=problems(), size_thresh=st.integers(0, 4))
def test_without_threshold(problem, size_thresh):
    seg, sizes = malis.affgraph_to_seg(problem.aff, problem.nhood, size_thresh)
    parts = oracle.components(np.abs(problem.aff) > 1e-5, problem.nhood)
    assert_components(seg, sizes, parts, size_thresh)


def test_by_hand():
    aff = [[0.0, 0.9, 0.2, 0.7, 0.8, 0.1]]
    seg, sizes = malis.affgraph_to_seg(aff, [[-1]], threshold=0.5)
    assert seg.tolist() == [2, 2, 1, 1, 1, 0]
    assert sizes.tolist() == [1, 3, 2]
    seg, sizes = malis.affgraph_to_seg(aff, [[-1]], size_thresh=2, threshold=0.5)
    assert seg.tolist() == [0, 0, 1, 1, 1, 0]
    assert sizes.tolist() == [3, 3]
    seg, sizes = malis.affgraph_to_seg(aff, [[-1]], size_thresh=0, threshold=0.5)
    assert seg.tolist() == [2, 2, 1, 1, 1, 3]
    assert sizes.tolist() == [0, 3, 2, 1]
    seg, sizes = malis.affgraph_to_seg(aff, [[-1]], size_thresh=10**30, threshold=0.5)
    assert seg.tolist() == [0] * 6
    assert sizes.tolist() == [6]


def test_small_affinities_without_threshold():
    """The bound of the old package: abs(aff) > 1e-5."""
    aff = np.array([[0, 2e-5, -2e-5, 1e-6, 1.0, -1e-6]])
    seg, _ = malis.affgraph_to_seg(aff, [[-1]])
    assert seg.tolist() == [1, 1, 1, 2, 2, 0]


@pytest.mark.parametrize("dtype", ["bool", "u1", "i2", "i4", "i8", "u8", "f2", "f4", "f8", ">f4", ">i4"])
def test_affinity_dtypes(dtype, rng):
    aff = rng.integers(0, 2, (3, 6, 7, 8))
    seg, sizes = malis.affgraph_to_seg(aff.astype(dtype), malis.mknhood3d(1))
    assert_components(seg, sizes, oracle.components(aff, malis.mknhood3d(1)), 1)
    strided = np.zeros((3, 12, 7, 16), dtype)[:, ::2, :, ::2]
    strided[...] = aff
    again, _ = malis.affgraph_to_seg(strided, malis.mknhood3d(1))
    np.testing.assert_array_equal(again, seg)


@pytest.mark.parametrize("shape", [(5000,), (300, 257), (48, 50, 53), (3, 200, 200), (200, 3, 200)])
@pytest.mark.parametrize("density", [0.3, 0.6, 0.9])
def test_larger_volumes_against_scipy(shape, density, rng):
    """Edges between foreground neighbours: the components that ndimage.label finds."""
    foreground = rng.random(shape) < density
    nhood = -np.eye(len(shape), dtype=int)
    aff = malis.seg_to_affgraph(foreground, nhood)
    labels, count = ndimage.label(foreground)
    expected = np.bincount(labels.ravel())[1:]
    for num_threads in 1, 2, 5:
        seg, sizes = malis.affgraph_to_seg(aff, nhood, 0, num_threads=num_threads)
        background = np.count_nonzero(~foreground)  # every background voxel is a component of its own
        assert len(sizes) - 1 == count + background
        seg, sizes = malis.affgraph_to_seg(aff, nhood, 1, num_threads=num_threads)
        np.testing.assert_array_equal(sizes[1:], np.sort(expected[expected > 1])[::-1])
        np.testing.assert_array_equal(sizes, np.bincount(seg.ravel()))
        large = seg > 0
        pairs = np.unique(np.stack([seg[large], labels[large]]), axis=1)
        assert pairs.shape[1] == len(sizes) - 1 == len(np.unique(pairs[1]))


@pytest.mark.parametrize("num_threads", [1, 2, 3, 8])
def test_larger_volume_with_long_offsets(num_threads, rng):
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    shape, n = (41, 43, 47), 41 * 43 * 47
    nhood = np.array([[1, 0, 0], [0, 0, -1], [-7, 3, 0], [25, 0, -9], [0, 40, 0], [-40, 0, 0]])
    aff = rng.random((len(nhood), *shape)).astype(np.float32)
    node1, node2 = oracle.fast_grid_nodes(shape, nhood)
    on = (aff.ravel() >= 0.875) & (node2 >= 0)
    graph = coo_matrix((np.ones(on.sum()), (node1[on], node2[on])), shape=(n, n))
    _, part = connected_components(graph, directed=False)
    _, first, part, part_sizes = np.unique(part, return_index=True, return_inverse=True, return_counts=True)
    order = np.lexsort((first, -part_sizes))
    number = np.empty(order.size, int)
    number[order] = np.arange(1, order.size + 1)
    number[part_sizes <= 3] = 0
    seg, sizes = malis.affgraph_to_seg(aff, nhood, 3, threshold=0.875, num_threads=num_threads)
    np.testing.assert_array_equal(seg.ravel(), number[part])
    np.testing.assert_array_equal(sizes, np.bincount(number[part]))


# --------------------------------------------------------------------------------------- small components
@given(
    problem=problems(),
    threshold=st.sampled_from([None, -np.inf, 0.0, 0.25, 0.5, 1.0, np.inf]),
    size_thresh=st.sampled_from([0, 1, 2, 3, 5, 100]),
)
@settings(max_examples=300)
def test_merge_small(problem, threshold, size_thresh):
    aff, nhood = problem.aff, problem.nhood
    seg, sizes = malis.affgraph_to_seg(aff, nhood, size_thresh, threshold=threshold, small="merge")
    connected = np.abs(aff) > 1e-5 if threshold is None else aff >= threshold
    parts = oracle.merge_small(aff, nhood, oracle.components(connected, nhood), size_thresh)
    assert_components(seg, sizes, parts, size_thresh)


def test_merge_small_by_hand():
    aff = [[0, 0.9, 0.4, 0.3, 0.8, 0.7, 0.1, 0.6]]
    seg, sizes = malis.affgraph_to_seg(aff, [[-1]], threshold=0.5, small="merge")
    assert seg.tolist() == [1, 1, 1, 2, 2, 2, 3, 3]
    assert sizes.tolist() == [0, 3, 3, 2]
    # The two at the end have the affinity 0.1 left; by then the first three are no longer small.
    seg, sizes = malis.affgraph_to_seg(aff, [[-1]], 2, threshold=0.5, small="merge")
    assert seg.tolist() == [2, 2, 2, 1, 1, 1, 1, 1]
    assert sizes.tolist() == [0, 5, 3]
    # What nothing connects stays small.
    seg, sizes = malis.affgraph_to_seg(np.ones((1, 2, 3)), [[0, -1]], 3, threshold=0.5, small="merge")
    assert seg.tolist() == [[0, 0, 0], [0, 0, 0]]
    assert sizes.tolist() == [6]


@pytest.mark.parametrize("min_size", [2, 10, 100, 1000])
def test_merge_small_against_felzenszwalb(min_size, rng):
    """Its second step alone: with a scale of 0 the first step joins nothing."""
    segmentation = pytest.importorskip("skimage.segmentation")
    image = rng.random((61, 67))
    expected = segmentation.felzenszwalb(image, scale=0, sigma=0, min_size=min_size)
    nhood = np.array([[0, 1], [1, 0], [1, 1], [-1, 1]])
    aff = np.zeros((4, *image.shape))
    for k, (y, x) in enumerate(nhood):
        shifted = np.roll(image, (-y, -x), (0, 1))
        aff[k] = -np.abs(image - shifted)  # those that leave the image do not exist
    for num_threads in 1, 3:
        seg, sizes = malis.affgraph_to_seg(
            aff, nhood, min_size - 1, threshold=np.inf, small="merge", num_threads=num_threads
        )
        assert sizes[0] == 0
        assert len(sizes) - 1 == expected.max() + 1
        pairs = np.unique(np.stack([seg.ravel(), expected.ravel()]), axis=1)
        assert pairs.shape[1] == len(sizes) - 1


@pytest.mark.parametrize("num_threads", [1, 2, 5])
def test_larger_merge_small(num_threads, rng):
    """Every result is a union of components; what was small has gone, and no large ones were joined."""
    shape, nhood = (40, 44, 48), malis.mknhood3d(1)
    aff = rng.random((3, *shape)).astype(np.float32)
    every, _ = malis.affgraph_to_seg(aff, nhood, 0, threshold=0.8)
    seg, sizes = malis.affgraph_to_seg(aff, nhood, 30, threshold=0.8, small="merge", num_threads=num_threads)
    alone, _ = malis.affgraph_to_seg(aff, nhood, 30, threshold=0.8, small="merge", num_threads=1)
    np.testing.assert_array_equal(seg, alone)
    np.testing.assert_array_equal(sizes, np.bincount(seg.ravel()))
    assert sizes[0] == 0
    assert sizes[1:].min() > 30
    union = np.unique(np.stack([every.ravel(), seg.ravel()]), axis=1)
    assert union.shape[1] == every.max()
    large = np.flatnonzero(np.bincount(every.ravel()) > 30)
    assert np.bincount(union[1][np.isin(union[0], large)]).max() == 1


@pytest.mark.parametrize("connectivity", [1, 2, 3])
def test_components_of_labels_as_others_find_them(connectivity, rng):
    """Voxels of one label that touch: scikit-image and cc3d number the same components."""
    measure = pytest.importorskip("skimage.measure")
    cc3d = pytest.importorskip("cc3d")
    labels = rng.integers(0, 4, (20, 23, 25))
    offsets = np.stack(np.meshgrid(*3 * [[-1, 0, 1]], indexing="ij"), axis=-1).reshape(-1, 3)[:13]
    nhood = offsets[np.abs(offsets).sum(axis=1) <= connectivity]
    seg, _ = malis.affgraph_to_seg(malis.seg_to_affgraph(labels, nhood), nhood, 0)
    of_skimage = measure.label(labels, background=0, connectivity=connectivity)
    neighbours = {1: 6, 2: 18, 3: 26}[connectivity]
    of_cc3d = cc3d.connected_components(labels.astype(np.uint8), connectivity=neighbours)
    foreground = labels > 0
    for other in of_skimage, of_cc3d:
        pairs = np.unique(np.stack([seg[foreground], other[foreground]]), axis=1)
        assert pairs.shape[1] == other.max() == len(np.unique(pairs[0]))
    # Small ones are those that these libraries remove.
    kept, _ = malis.affgraph_to_seg(malis.seg_to_affgraph(labels, nhood), nhood, 4)
    np.testing.assert_array_equal(kept > 0, cc3d.dust(of_cc3d, threshold=5, connectivity=neighbours) > 0)


# -------------------------------------------------------------------------------------------- watershed
@st.composite
def seeded_problems(draw):
    problem = draw(problems())
    seeds = draw(hnp.arrays(np.int64, problem.seg.shape, elements=st.sampled_from([0, 0, 0, 0, 1, 2, 7])))
    return problem, seeds


@given(problem_and_seeds=seeded_problems())
@settings(max_examples=300)
def test_watershed(problem_and_seeds):
    problem, seeds = problem_and_seeds
    seg, sizes = malis.watershed_from_affgraph(problem.aff, seeds, problem.nhood, 0)
    assert seg.dtype == seeds.dtype
    expected = oracle.watershed(problem.aff, seeds, problem.nhood)
    np.testing.assert_array_equal(seg, expected)
    assert sizes.dtype == np.int64
    np.testing.assert_array_equal(sizes, np.bincount(expected.ravel(), minlength=seeds.max() + 1))
    np.testing.assert_array_equal(oracle.tree_watershed(problem.aff, seeds, problem.nhood), expected)


@given(problem_and_seeds=seeded_problems(), data=st.data())
def test_watershed_at_a_threshold(problem_and_seeds, data):
    """By definition: the watershed of the affinities, where a path of edges that are strong enough leads to a seed."""
    problem, seeds = problem_and_seeds
    threshold = float(data.draw(st.sampled_from([*problem.aff.ravel()[:20].tolist(), -1.0, 0.5, np.inf])))
    seg, sizes = malis.watershed_from_affgraph(problem.aff, seeds, problem.nhood, min_size=0, threshold=threshold)
    parts, _ = malis.affgraph_to_seg(problem.aff, problem.nhood, min_size=0, threshold=threshold)
    reached = np.isin(parts, np.unique(parts[seeds > 0]))
    expected = np.where(reached, oracle.watershed(problem.aff, seeds, problem.nhood), 0)
    np.testing.assert_array_equal(seg, expected)
    np.testing.assert_array_equal(sizes, np.bincount(expected.ravel(), minlength=seeds.max() + 1))


@given(problem_and_seeds=seeded_problems(), size_thresh=st.integers(0, 6))
def test_watershed_drops_small_basins(problem_and_seeds, size_thresh):
    problem, seeds = problem_and_seeds
    seg, sizes = malis.watershed_from_affgraph(problem.aff, seeds, problem.nhood, size_thresh)
    newer, _ = malis.watershed_from_affgraph(problem.aff, seeds, problem.nhood, min_size=size_thresh + 1)
    np.testing.assert_array_equal(newer, seg)
    full = oracle.watershed(problem.aff, seeds, problem.nhood)
    expected = np.where(np.bincount(full.ravel())[full] > size_thresh, full, 0)
    np.testing.assert_array_equal(seg, expected)
    np.testing.assert_array_equal(sizes, np.bincount(expected.ravel(), minlength=seeds.max() + 1))


def test_watershed_by_hand():
    aff, seeds = [[0, 0.9, 0.8, 0.1, 0.7]], [7, 0, 0, 0, 3]
    seg, sizes = malis.watershed_from_affgraph(aff, seeds, [[-1]])
    assert seg.tolist() == [7, 7, 7, 3, 3]
    assert sizes.tolist() == [0, 0, 0, 2, 0, 0, 0, 3]


def test_watershed_at_the_seed_itself():
    """The published packages refuse these edges: a seed of one voxel never grows there."""
    seg, _ = malis.watershed_from_affgraph([[0, 0.9, 0.9]], [0, 5, 0], [[-1]])
    assert seg.tolist() == [5, 5, 5]


def test_watershed_takes_the_first_seed():
    # Voxel 1 hangs at 0 by 0.9, voxel 2 at 3 by 0.8; between them 0.85: voxel 2 follows its strongest edge.
    seg, _ = malis.watershed_from_affgraph([[0, 0.9, 0.85, 0.8]], [1, 0, 0, 2], [[-1]], 0)
    assert seg.tolist() == [1, 1, 1, 2]
    # Equal affinities: the edge of the smaller index comes first.
    seg, _ = malis.watershed_from_affgraph([[0, 0.5, 0.5]], [1, 0, 2], [[-1]], 0)
    assert seg.tolist() == [1, 1, 2]
    seg, _ = malis.watershed_from_affgraph([[0.5, 0.5, 0], [0, 0.5, 0.5]], [1, 0, 2], [[1], [-1]], 0)
    assert seg.tolist() == [1, 1, 2]


def test_watershed_without_seeds():
    seg, sizes = malis.watershed_from_affgraph([[0, 0.9, 0.9]], [0, 0, 0], [[-1]])
    assert seg.tolist() == [0, 0, 0]
    assert sizes.tolist() == [3]


def test_watershed_where_no_path_leads():
    seg, sizes = malis.watershed_from_affgraph(np.ones((1, 2, 3)), [[1, 0, 0], [0, 0, 0]], [[0, -1]])
    assert seg.tolist() == [[1, 1, 1], [0, 0, 0]]
    assert sizes.tolist() == [3, 3]


@pytest.mark.parametrize("dtype", ["u1", "i1", "u2", "i4", "u4", "i8", "u8"])
def test_watershed_keeps_the_dtype_of_seeds(dtype, rng):
    aff = rng.random((2, 9, 11))
    seeds = np.where(rng.random((9, 11)) < 0.1, rng.integers(1, 100, (9, 11)), 0)
    expected = oracle.watershed(aff, seeds, malis.mknhood2d(1))
    for order in "C", "F":
        seg, _ = malis.watershed_from_affgraph(aff, seeds.astype(dtype, order=order), malis.mknhood2d(1), 0)
        assert seg.dtype == dtype
        np.testing.assert_array_equal(seg, expected)


@pytest.mark.parametrize("ties", [True, False])
@pytest.mark.parametrize("num_threads", [1, 2, 5])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_larger_watershed(ties, num_threads, dtype, rng):
    shape = (40, 42, 44)
    nhood = np.concatenate([malis.mknhood3d(1), [[0, 5, -5], [-9, 0, 0]]])
    aff = rng.random((len(nhood), *shape)).astype(dtype)
    if ties:
        aff = np.round(aff * 10)
    seeds = np.where(rng.random(shape) < 0.002, rng.integers(1, 60, shape), 0)
    seg, sizes = malis.watershed_from_affgraph(aff, seeds, nhood, 0, num_threads=num_threads)
    expected = oracle.tree_watershed(aff, seeds, nhood)
    np.testing.assert_array_equal(seg, expected)
    np.testing.assert_array_equal(sizes, np.bincount(expected.ravel()))


# ----------------------------------------------------------------------------------------------- basins
@given(problem=problems(), threshold=st.sampled_from([-np.inf, 0.0, 0.25, 0.5, 1.0]), min_size=st.integers(0, 5))
@settings(max_examples=300)
def test_basins(problem, threshold, min_size):
    seg, sizes = malis.watershed_basins(problem.aff, problem.nhood, min_size=min_size, threshold=threshold)
    assert seg.dtype == np.int32
    assert seg.shape == problem.seg.shape
    assert_components(seg, sizes, oracle.basins(problem.aff, problem.nhood, threshold), max(0, min_size - 1))


def test_basins_by_hand():
    # Two maxima, one of them a plateau; the edge of 0.5 between them joins nothing.
    seg, sizes = malis.watershed_basins([[0, 0.8, 0.8, 0.5, 0.6, 0.9]], [[-1]])
    assert seg.tolist() == [1, 1, 1, 2, 2, 2]
    assert sizes.tolist() == [0, 3, 3]
    # A plateau of 0.5 beside a maximum is drained by it.
    seg, _ = malis.watershed_basins([[0, 0.5, 0.5, 0.9]], [[-1]])
    assert seg.tolist() == [1, 1, 1, 1]
    # Everything equal: one maximum.
    seg, _ = malis.watershed_basins(np.full((2, 5, 6), 0.5), malis.mknhood2d(1))
    assert np.all(seg == 1)
    # Below the threshold there are no edges; a clipped affinity connects all above it.
    seg, _ = malis.watershed_basins([[0, 0.8, 0.3, 0.6, 0.9]], [[-1]], threshold=0.5)
    assert seg.tolist() == [2, 2, 1, 1, 1]
    aff = np.array([[0, 0.95, 0.7, 0.9, 0.2, 0.3]])
    assert malis.watershed_basins(aff, [[-1]])[0].tolist() == [1, 1, 2, 2, 3, 3]
    assert malis.watershed_basins(np.minimum(aff, 0.7), [[-1]])[0].tolist() == [1, 1, 1, 1, 2, 2]


def grid_graph(shape, nhood):
    """Ends and indices of the edges that exist."""
    node1, node2 = oracle.fast_grid_nodes(shape, nhood)
    edges = np.flatnonzero((node2 >= 0) & (node1 != node2))
    return node1[edges], node2[edges], edges


def assert_same_partition(one, two):
    pairs = np.unique(np.stack([np.ravel(one), np.ravel(two)]), axis=1)
    assert pairs.shape[1] == len(np.unique(pairs[0])) == len(np.unique(pairs[1]))


@pytest.mark.parametrize("num_threads", [1, 2, 5])
@pytest.mark.parametrize(
    ("shape", "nhood"),
    [
        ((4000,), [[-1]]),
        ((90, 80), [[-1, 0], [0, -1]]),
        ((40, 42, 44), [[-1, 0, 0], [0, -1, 0], [0, 0, -1]]),
        ((40, 42, 44), [[-1, 0, 0], [0, -1, 0], [0, 0, 1], [0, 5, -5], [-9, 0, 0]]),
    ],
)
def test_basins_without_ties(shape, nhood, num_threads, rng):
    """Every voxel is joined to where its strongest edge leads: the drop of water principle, and Higra's watershed."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    aff = rng.permutation(len(nhood) * int(np.prod(shape))).astype(np.float64).reshape(len(nhood), *shape)
    seg, sizes = malis.watershed_basins(aff, nhood, min_size=1, num_threads=num_threads)
    np.testing.assert_array_equal(sizes, np.bincount(seg.ravel()))
    node1, node2, edges = grid_graph(shape, nhood)
    values = aff.ravel()[edges]
    target, best = np.empty(seg.size, np.int64), np.full(seg.size, -1.0)
    for one, two in ((node1, node2), (node2, node1)):
        for v, u, value in zip(one.tolist(), two.tolist(), values.tolist(), strict=True):
            if value > best[v]:
                best[v], target[v] = value, u
    graph = coo_matrix((np.ones(seg.size), (np.arange(seg.size), target)), shape=(seg.size, seg.size))
    assert_same_partition(seg, connected_components(graph, directed=False)[1])
    higra = pytest.importorskip("higra")
    graph = higra.UndirectedGraph(seg.size)
    graph.add_edges(node1, node2)
    assert_same_partition(seg, higra.labelisation_watershed(graph, -values))


@pytest.mark.parametrize("levels", [2, 5, 50])
def test_basins_of_plateaus_against_higra(levels, rng):
    """Equal affinities allow for several cuts, but all of them have the same maxima and the same weight."""
    higra = pytest.importorskip("higra")
    shape, nhood = (60, 70), malis.mknhood2d(1)
    aff = rng.integers(0, levels, (2, *shape)).astype(np.float32)
    seg, sizes = malis.watershed_basins(aff, nhood, min_size=1)
    node1, node2, edges = grid_graph(shape, nhood)
    values = aff.ravel()[edges]
    graph = higra.UndirectedGraph(seg.size)
    graph.add_edges(node1, node2)
    cut = higra.labelisation_watershed(graph, -values)
    assert len(np.unique(cut)) == len(sizes) - 1

    def weight_of_forest(labels):
        """Weight of a maximum spanning forest within the basins: the same for all cuts."""
        flat = labels.ravel()
        within = np.flatnonzero(flat[node1] == flat[node2])
        within = within[np.argsort(-values[within], kind="stable")]
        tree = within[oracle.spanning_tree(seg.size, node1[within], node2[within])]
        return values[tree].astype(np.float64).sum(), tree.size

    assert weight_of_forest(seg) == weight_of_forest(cut)


def test_arguments_are_not_changed(rng):
    aff, seeds = rng.random((2, 9, 11)), rng.integers(0, 3, (9, 11))
    nhood = malis.mknhood2d(1)
    before = [array.copy() for array in (aff, seeds, nhood)]
    for array in aff, seeds, nhood:
        array.flags.writeable = False
    malis.affgraph_to_seg(aff, nhood, threshold=0.5)
    malis.affgraph_to_seg(aff, nhood, 9, threshold=0.5, small="merge")
    malis.watershed_from_affgraph(aff, seeds, nhood, 5)
    malis.watershed_basins(aff, nhood)
    for array, copy in zip((aff, seeds, nhood), before, strict=True):
        np.testing.assert_array_equal(array, copy)


def test_threshold_compares_as_numpy_does():
    aff = np.array([[0, 0.7, 0.1]], np.float32)
    seg, _ = malis.affgraph_to_seg(aff, [[-1]], threshold=0.7)
    assert seg.tolist() == [1, 1, 0]
    assert (aff >= 0.7).tolist() == [[False, True, False]]


# ------------------------------------------------------------------------------------------------- bytes
SEGMENTERS = {
    "components": lambda aff, nhood, t, seeds: malis.affgraph_to_seg(aff, nhood, threshold=t),
    "without threshold": lambda aff, nhood, t, seeds: malis.affgraph_to_seg(aff, nhood),
    "merge": lambda aff, nhood, t, seeds: malis.affgraph_to_seg(aff, nhood, min_size=4, threshold=t, small="merge"),
    "basins": lambda aff, nhood, t, seeds: malis.watershed_basins(aff, nhood, threshold=t),
    "all basins": lambda aff, nhood, t, seeds: malis.watershed_basins(aff, nhood),
    "seeded": lambda aff, nhood, t, seeds: malis.watershed_from_affgraph(aff, seeds, nhood),
    "tree": lambda aff, nhood, t, seeds: malis.maximum_spanning_tree(aff, nhood)[:-1],
    "curve": lambda aff, nhood, t, seeds: malis.rand_curve(aff, seeds, nhood)[:],
}


def assert_same_as_float(stored, nhood, threshold, seeds):
    as_float = stored.astype(np.float32) / np.float32(255)
    for name, segment in SEGMENTERS.items():
        pairs = zip(segment(stored, nhood, threshold, seeds), segment(as_float, nhood, threshold, seeds), strict=True)
        for found, expected in pairs:
            np.testing.assert_array_equal(found, expected, err_msg=name)
            assert getattr(found, "dtype", None) == getattr(expected, "dtype", None), name


@given(problem=problems(), seed=st.integers(0, 999), byte=st.integers(0, 255), above=st.sampled_from([-np.inf, 0, 2]))
@settings(max_examples=100)
def test_bytes_as_their_values_in_float(problem, seed, byte, above):
    rng = np.random.default_rng(seed)
    stored = rng.choice(np.array([0, 1, 128, byte, 255], np.uint8), problem.aff.shape)
    threshold = np.nextafter(np.float32(byte) / np.float32(255), np.float32(above))
    assert_same_as_float(stored, problem.nhood, float(threshold), problem.seg)


@pytest.mark.parametrize("shape", [(40, 45, 70), (190, 333), (70000,)])
def test_bytes_of_volumes_in_blocks(shape):
    rng = np.random.default_rng(0)
    nhood = np.concatenate([-np.eye(len(shape), dtype=int), np.full((1, len(shape)), 3)])
    stored = rng.integers(0, 256, (len(nhood), *shape), dtype=np.uint8)
    assert_same_as_float(stored, nhood, 0.9, np.where(rng.random(shape) < 0.05, rng.integers(1, 9, shape), 0))


def test_every_byte_and_every_threshold():
    stored = np.arange(256, dtype=np.uint8)[None]
    as_float = stored[0].astype(np.float32) / np.float32(255)
    for value in as_float:
        for threshold in (np.nextafter(value, np.float32(-1)), value, np.nextafter(value, np.float32(2))):
            seg, _ = malis.affgraph_to_seg(stored, [[-1]], threshold=threshold)
            connected = np.flatnonzero(as_float[1:] >= threshold)  # edge v joins v - 1 and v
            assert np.count_nonzero(seg) == (len(connected) + 1 if len(connected) else 0)
    assert not malis.affgraph_to_seg(stored, [[-1]], threshold=np.inf)[0].any()
    assert malis.affgraph_to_seg(stored, [[-1]])[0].all()  # a byte of 1 is well above 1e-5


def test_bytes_are_read_in_place():
    # Where they lie: arrays that are not contiguous are copied as bytes.
    stored = np.random.default_rng(1).integers(0, 256, (2, 9, 18), dtype=np.uint8)
    from malis import _checks

    assert _checks.as_stored_affinities(stored, "aff") is stored
    assert _checks.as_stored_affinities(stored[:, :, ::2], "aff").dtype == np.uint8
    nhood = malis.mknhood2d(1)
    found, _ = malis.affgraph_to_seg(stored[:, :, ::2], nhood, threshold=0.5)
    expected, _ = malis.affgraph_to_seg(stored[:, :, ::2].astype(np.float32) / 255, nhood, threshold=0.5)
    np.testing.assert_array_equal(found, expected)
