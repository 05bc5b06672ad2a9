"""Pair counts against the definition, one option and one property after the other."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import malis
import oracle
from oracle import assert_counts
from strategies import edge_masks, problems, unlabelled_masks

FLAGS = ["constrain_positive", "constrain_negative", "ignore_background"]
ALL_FLAGS = [dict(zip(FLAGS, values, strict=True)) for values in itertools.product([True, False], repeat=3)]


# ------------------------------------------------------------------------------------ worked out by hand
CHAIN_NHOOD = [[-1]]


def test_chain_by_hand():
    # voxels   1 -0.9- 1 -0.4- 2 -0.7- 1 -0.5- 2     edge i joins voxel i - 1 and voxel i
    aff = np.array([[9, 0.9, 0.4, 0.7, 0.5]])
    seg = np.array([1, 1, 2, 1, 2])
    pos, neg = malis.pairs(aff, seg, CHAIN_NHOOD)
    # Only the first edge lies within an object; the fourth voxel is not joined to its object by any.
    assert pos.tolist() == [[0, 1, 0, 0, 0]]
    # {0,1} is contracted. 0.7: voxels 2 3 (1 pair). 0.5: 4 with 3 (1). 0.4: {1,1} with {2,1,2} (2 * 2).
    assert neg.tolist() == [[0, 0, 4, 1, 1]]
    pos, neg = malis.pairs(aff, seg, CHAIN_NHOOD, constrain_positive=False, constrain_negative=False)
    # 0.9 joins 1 1; 0.7 joins 2 1; 0.5 joins {2,1} and 2; 0.4 joins {1,1} and {2,1,2}.
    assert pos.tolist() == [[0, 1, 2, 0, 1]]
    assert neg.tolist() == [[0, 0, 4, 1, 1]]


def test_background_bridges_negative_pairs_only():
    aff = np.array([[0, 0.8, 0.6, 0.9]])
    seg = np.array([1, 0, 1, 2])
    pos, neg = malis.pairs(aff, seg, CHAIN_NHOOD)
    assert pos.sum() == 0
    # 0.9 joins 1 2 (1 pair), 0.8 joins 1 and background (0), 0.6 joins {1} and {1, 2} (1 pair).
    assert neg.tolist() == [[0, 0, 1, 1]]
    pos, neg = malis.pairs(aff, seg, CHAIN_NHOOD, ignore_background=False)
    assert pos.sum() == 0
    # 0.9: 1 2 (1). 0.8: 1 0 (1). 0.6: {1, 0} with {1, 2}: all but 1 1 (3).
    assert neg.tolist() == [[0, 1, 3, 1]]


def test_ties_follow_the_edge_index():
    # A triangle of one object and three equal affinities: the first two edges decide, the third nothing.
    aff = np.full((2, 3), 0.5)
    pos, neg = malis.pairs(aff, np.ones(3, int), [[-1], [-2]])
    assert pos.tolist() == [[0, 1, 2], [0, 0, 0]]
    assert neg.sum() == 0
    # With the offsets exchanged the long edge comes first.
    pos, _ = malis.pairs(aff, np.ones(3, int), [[-2], [-1]])
    assert pos.tolist() == [[0, 0, 1], [0, 2, 0]]


def test_the_two_zeros_are_one_affinity():
    aff = np.array([[0.0, -0.0, 0.0], [0.0, 0.0, 0.0]])
    for dtype in np.float32, np.float64:
        pos, _ = malis.pairs(aff.astype(dtype), np.ones(3, int), [[-1], [-2]])
        assert pos.tolist() == [[0, 1, 2], [0, 0, 0]]


def test_infinities_order_like_numbers():
    aff = np.array([[0, np.inf, -np.inf, 3e38]])
    for dtype in np.float32, np.float64:
        pos, _ = malis.pairs(aff.astype(dtype), np.ones(4, int), CHAIN_NHOOD)
        # inf: 0 1; 3e38: 2 3; -inf: {0,1} {2,3}
        assert pos.tolist() == [[0, 1, 4, 1]]


def test_unknown_edge_takes_part_but_does_not_count():
    # 1 -0.9- 2 -0.8- 1: the positive pair runs over two inter edges of unknown ground truth.
    aff = np.array([[0, 0.9, 0.8, 0.2]])
    seg = np.array([1, 2, 1, 1])
    known = np.array([[True, False, False, True]])
    pos, neg = malis.pairs(aff, seg, CHAIN_NHOOD, edge_mask=known)
    # The pair of the outer 1s is decided by the unknown 0.8 and lost; 0.2 joins the last 1 to two others.
    assert pos.tolist() == [[0, 0, 0, 2]]
    # {2, 3} is contracted. In the negative pass 0.9 decides one pair and 0.8 two; both are unknown.
    assert neg.sum() == 0
    pos, neg = malis.pairs(aff, seg, CHAIN_NHOOD)
    assert pos.tolist() == [[0, 0, 0, 1]]
    assert neg.tolist() == [[0, 1, 2, 0]]


def test_unlabelled_voxels_are_one_more_object():
    aff = np.array([[0, 0.9, 0.8, 0.7, 0.6]])
    seg = np.array([1, 1, 0, 0, 2])
    unlabelled = np.array([False, False, True, True, False])
    pos, neg = malis.pairs(aff, seg, CHAIN_NHOOD, unlabelled_mask=unlabelled)
    assert pos.tolist() == [[0, 1, 0, 0, 0]]
    # 0.8: {1,1} with ?: 2. 0.7 is unknown, its 2 pairs are lost. 0.6: 2 with {1,1,?,?}.
    assert neg.tolist() == [[0, 0, 2, 0, 4]]


def test_zero_offset_and_long_offset_decide_nothing():
    aff = np.array([[9.0, 9.0, 9.0], [9.0, 9.0, 9.0], [0.0, 0.5, 0.4], [9.0, 9.0, 9.0]])
    pos, neg = malis.pairs(aff, [1, 1, 2], [[0], [3], [-1], [-100]])
    assert pos.tolist() == [[0] * 3, [0] * 3, [0, 1, 0], [0] * 3]
    assert neg.tolist() == [[0] * 3, [0] * 3, [0, 0, 2], [0] * 3]


def test_no_object():
    aff = np.linspace(0, 1, 24).reshape(2, 3, 4)
    nhood = malis.mknhood2d(1)
    for seg in np.zeros((3, 4), int), np.zeros((3, 4), bool):
        pos, neg = malis.pairs(aff, seg, nhood)
        assert pos.shape == neg.shape == aff.shape
        assert not pos.any()
        assert not neg.any()
    pos, neg = malis.pairs(aff, np.zeros((3, 4), int), nhood, ignore_background=False)
    assert pos.sum() == 12 * 11 // 2
    assert not neg.any()


def test_single_voxel():
    for ndim in 1, 2, 3:
        shape = (1,) * ndim
        pos, neg = malis.pairs(np.full((ndim, *shape), 0.5), np.ones(shape, int), -np.eye(ndim, dtype=int))
        assert not pos.any()
        assert not neg.any()


# ------------------------------------------------------------------------------------------- definition
@pytest.mark.parametrize("masks", ["none", "edge", "unlabelled", "both"])
@pytest.mark.parametrize("flags", ALL_FLAGS, ids=lambda flags: "-".join(str(int(v)) for v in flags.values()))
@given(data=st.data())
@settings(max_examples=60)
def test_against_oracle(flags, masks, data):
    problem = data.draw(problems())
    options = dict(flags)
    if masks in ("edge", "both"):
        options["edge_mask"] = data.draw(edge_masks(problem))
    if masks in ("unlabelled", "both"):
        options["unlabelled_mask"] = data.draw(unlabelled_masks(problem))
    assert_counts(malis.pairs(*problem, **options), oracle.pairs(*problem, **options))


@given(problem=problems(max_voxels=12), data=st.data(), flags=st.sampled_from(ALL_FLAGS))
@settings(max_examples=150)
def test_tree_oracle_is_the_pairwise_oracle(problem, data, flags):
    """The oracle of the larger tests states the same as that of the small ones."""
    options = dict(flags)
    options["edge_mask"] = data.draw(st.none() | edge_masks(problem))
    options["unlabelled_mask"] = data.draw(st.none() | unlabelled_masks(problem))
    assert_counts(oracle.kruskal_pairs(*problem, **options), oracle.pairs(*problem, **options))


@given(problem=problems(), flags=st.sampled_from(ALL_FLAGS), data=st.data())
def test_masks_that_say_nothing(problem, flags, data):
    plain = malis.pairs(*problem, **flags)
    masks = {
        "edge_mask": np.ones(problem.aff.shape, bool),
        "unlabelled_mask": np.zeros(problem.seg.shape, bool),
    }
    for names in ["edge_mask"], ["unlabelled_mask"], ["edge_mask", "unlabelled_mask"]:
        assert_counts(malis.pairs(*problem, **flags, **{name: masks[name] for name in names}), plain)


@given(problem=problems(), flags=st.sampled_from(ALL_FLAGS))
def test_nothing_known(problem, flags):
    nothing = np.zeros(problem.aff.shape, bool)
    pos, neg = malis.pairs(*problem, **flags, edge_mask=nothing)
    assert not pos.any()
    assert not neg.any()


# ------------------------------------------------------------------------------------------- properties
INCREASING = {
    "affine": lambda a: 3 * a - 7,
    "cube": lambda a: a**3,
    "exp": np.exp,
    "logit": lambda a: np.log((a + 9) / (9 - a)),
    "arctan": np.arctan,
}


@pytest.mark.parametrize("name", INCREASING)
@given(problem=problems(), levels=st.data(), flags=st.sampled_from(ALL_FLAGS))
@settings(max_examples=50)
def test_increasing_maps_leave_the_counts(name, problem, levels, flags):
    size = problem.aff.size
    integers = levels.draw(st.lists(st.integers(-8, 8), min_size=size, max_size=size))
    aff = np.array(integers, dtype=np.float64).reshape(problem.aff.shape)
    counts = malis.pairs(aff, problem.seg, problem.nhood, **flags)
    mapped = INCREASING[name](aff)
    assert_counts(malis.pairs(mapped, problem.seg, problem.nhood, **flags), counts)
    assert_counts(malis.pairs(mapped.astype(np.float32), problem.seg, problem.nhood, **flags), counts)


@given(problem=problems(), flags=st.sampled_from(ALL_FLAGS))
def test_names_of_labels_do_not_matter(problem, flags):
    renamed = np.array([0, 2**62, 5, 2**40])[problem.seg]
    assert_counts(malis.pairs(problem.aff, renamed, problem.nhood, **flags), malis.pairs(*problem, **flags))


@given(problem=problems(max_dims=3), ignore_background=st.booleans())
def test_sums_of_connected_objects(problem, ignore_background):
    """With an edge between all neighbours the volume is connected, so every negative pair is decided."""
    ndim = problem.seg.ndim
    nhood = np.concatenate([-np.eye(ndim, dtype=int), problem.nhood])
    rng = np.random.default_rng(problem.seg.size)
    aff = rng.random((len(nhood), *problem.seg.shape))
    pos, neg = malis.pairs(aff, problem.seg, nhood, ignore_background=ignore_background)
    labels, sizes = np.unique(problem.seg, return_counts=True)
    if ignore_background:
        sizes = sizes[labels != 0]
    n = sizes.sum()
    assert neg.sum() == (n * n - (sizes**2).sum()) // 2
    unconstrained = malis.pairs(
        aff,
        problem.seg,
        nhood,
        constrain_positive=False,
        constrain_negative=False,
        ignore_background=ignore_background,
    )
    assert unconstrained.pos.sum() == (sizes * (sizes - 1)).sum() // 2
    assert unconstrained.neg.sum() == neg.sum()
    # Constrained, the pairs within the parts of an object that intra edges connect.
    intra = malis.seg_to_affgraph(problem.seg + (not ignore_background), nhood)
    parts = [part for part in oracle.components(intra, nhood) if len(part) > 1]
    assert pos.sum() == sum(len(part) * (len(part) - 1) // 2 for part in parts)


@given(problem=problems(), flags=st.sampled_from(ALL_FLAGS))
def test_an_edge_decides_in_the_tree_only(problem, flags):
    pos, neg = malis.pairs(*problem, **flags)
    for counts in pos, neg:
        assert (counts >= 0).all()
        assert np.count_nonzero(counts) < problem.seg.size


@given(problem=problems(), axis=st.integers(0, 2))
def test_mirrored_volume_without_ties(problem, axis):
    """Edge v -> v + o is edge v' -> v' - o of the mirrored volume."""
    axis %= problem.seg.ndim
    aff = np.random.default_rng(0).permutation(problem.aff.size).reshape(problem.aff.shape).astype(float)
    pos, neg = malis.pairs(aff, problem.seg, problem.nhood)
    nhood = problem.nhood.copy()
    nhood[:, axis] *= -1
    mirrored = malis.pairs(np.flip(aff, axis + 1), np.flip(problem.seg, axis), nhood)
    assert_counts(mirrored, (np.flip(pos, axis + 1), np.flip(neg, axis + 1)))


@given(problem=problems(min_dims=1, max_dims=2), flags=st.sampled_from(ALL_FLAGS))
def test_leading_axes_of_one_voxel(problem, flags):
    pos, neg = malis.pairs(*problem, **flags)
    nhood = np.insert(problem.nhood, 0, 0, axis=1)
    deeper = malis.pairs(problem.aff[:, None], problem.seg[None], nhood, **flags)
    assert_counts(deeper, (pos[:, None], neg[:, None]))


# ----------------------------------------------------------------------------------------- arrays taken
LABEL_DTYPES = ["bool", "i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", "f4", "f8", ">i4", ">u8"]


@pytest.mark.parametrize("dtype", LABEL_DTYPES)
def test_label_dtypes(dtype, rng):
    seg = rng.integers(0, 2 if dtype == "bool" else 4, (5, 6, 7))
    aff = rng.random((3, 5, 6, 7))
    expected = malis.pairs(aff, seg, malis.mknhood3d(1))
    assert_counts(malis.pairs(aff, seg.astype(dtype), malis.mknhood3d(1)), expected)


@pytest.mark.parametrize("dtype", ["i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8"])
@pytest.mark.parametrize("ignore_background", [True, False])
def test_largest_labels(dtype, ignore_background, rng):
    top = np.iinfo(dtype).max
    names = np.array([0, top, top - 1, top // 2, 1], dtype=dtype)
    small = rng.integers(0, len(names), (6, 9))
    aff = rng.random((2, 6, 9))
    nhood = malis.mknhood2d(1)
    masks = [None, rng.random((6, 9)) < 0.3]
    for unlabelled_mask in masks:
        options = {"ignore_background": ignore_background, "unlabelled_mask": unlabelled_mask}
        assert_counts(malis.pairs(aff, names[small], nhood, **options), malis.pairs(aff, small, nhood, **options))


def test_every_voxel_its_own_label(rng):
    aff = rng.random((3, 6, 7, 8))
    n = 6 * 7 * 8
    seg = rng.permutation(np.arange(n, dtype=np.uint64) * 10**15 + 1).reshape(6, 7, 8)
    pos, neg = malis.pairs(aff, seg, malis.mknhood3d(1))
    assert not pos.any()
    assert neg.sum() == n * (n - 1) // 2


@pytest.mark.parametrize("dtype", ["f2", ">f2", "f4", ">f4", "f8", ">f8"])
def test_affinity_dtypes(dtype, rng):
    aff = (rng.permutation(2 * 8 * 9) / 256).reshape(2, 8, 9)  # exact in 11 bits
    seg = rng.integers(0, 4, (8, 9))
    expected = oracle.kruskal_pairs(aff, seg, malis.mknhood2d(1))
    assert_counts(malis.pairs(aff.astype(dtype), seg, malis.mknhood2d(1)), expected)


def strided(array):
    """The same values in every second element of a larger array, last axis reversed."""
    large = np.zeros([2 * n for n in array.shape], array.dtype)
    view = large[tuple(slice(None, None, 2) for _ in array.shape)][..., ::-1]
    view[...] = array
    return view


def unaligned(array):
    data = bytearray(array.nbytes + 1)
    view = np.frombuffer(data, array.dtype, array.size, offset=1).reshape(array.shape)
    view[...] = array
    return view


def readonly(array):
    array = array.copy()
    array.flags.writeable = False
    return array


LAYOUTS = {
    "fortran": np.asfortranarray,
    "strided": strided,
    "unaligned": unaligned,
    "readonly": readonly,
    "list": lambda array: array.tolist(),
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_layouts(name, rng):
    aff = rng.random((3, 5, 6, 7))
    seg = rng.integers(0, 4, (5, 6, 7)).astype(np.int32)
    nhood = malis.mknhood3d(1)
    options = {"edge_mask": rng.random(aff.shape) < 0.7, "unlabelled_mask": rng.random(seg.shape) < 0.2}
    layout = LAYOUTS[name]
    got = malis.pairs(layout(aff), layout(seg), layout(nhood), **{key: layout(mask) for key, mask in options.items()})
    assert_counts(got, malis.pairs(aff, seg, nhood, **options))
    assert all(counts.flags.c_contiguous and counts.flags.writeable for counts in got)


@given(problem=problems(), data=st.data(), flags=st.sampled_from(ALL_FLAGS))
@settings(max_examples=50)
def test_arguments_are_not_changed(problem, data, flags):
    masks = {
        "edge_mask": data.draw(edge_masks(problem)),
        "unlabelled_mask": data.draw(unlabelled_masks(problem)),
    }
    before = [array.copy() for array in (*problem, *masks.values())]
    malis.pairs(*problem, **flags)
    malis.pairs(*problem, **flags, **masks)
    for array, copy in zip((*problem, *masks.values()), before, strict=True):
        np.testing.assert_array_equal(array, copy)


def test_masks_of_any_bytes(rng):
    """A view of other memory as bool may hold any bytes: all but 0 are true, as for NumPy."""
    shape = (6, 7, 8)
    aff, seg, nhood = rng.random((3, *shape)), rng.integers(0, 4, shape), malis.mknhood3d(1)
    edges, voxels = rng.integers(0, 5, aff.shape, dtype=np.uint8), rng.integers(0, 3, shape, dtype=np.uint8)
    odd = malis.pairs(aff, seg, nhood, edge_mask=edges.view(bool), unlabelled_mask=voxels.view(bool))
    np.testing.assert_array_equal(odd, malis.pairs(aff, seg, nhood, edge_mask=edges != 0, unlabelled_mask=voxels != 0))
