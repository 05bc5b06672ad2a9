"""The loss and its gradient on NumPy arrays."""

from __future__ import annotations

import functools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import malis
import oracle
from strategies import edge_masks, problems, unlabelled_masks

POINTWISE = ["squared_hinge", "cross_entropy"]
PAIR_FLAGS = ["constrain_positive", "constrain_negative", "ignore_background"]


@st.composite
def loss_options(draw):
    options = {
        "margin": draw(st.sampled_from([0.0, 0.1, 0.3, 0.5, 1.0])),
        "pos_loss_weight": draw(st.sampled_from([0.0, 0.2, 0.5, 1.0])),
        "normalize": draw(st.booleans()),
        "pointwise": draw(st.sampled_from(POINTWISE)),
    }
    return options | {name: draw(st.booleans()) for name in PAIR_FLAGS}


@given(problem=problems(bounded=True), options=loss_options(), data=st.data())
@settings(max_examples=300)
def test_against_oracle(problem, options, data):
    options["edge_mask"] = data.draw(st.none() | edge_masks(problem))
    options["unlabelled_mask"] = data.draw(st.none() | unlabelled_masks(problem))
    loss, grad = malis.malis_loss(*problem, **options)
    assert isinstance(loss, float)
    assert loss == pytest.approx(oracle.malis_loss(*problem, **options), rel=1e-12, abs=1e-14)
    assert grad.shape == problem.aff.shape
    assert grad.dtype == problem.aff.dtype


@given(problem=problems(), options=loss_options(), data=st.data())
@settings(max_examples=200)
def test_logits_against_oracle(problem, options, data):
    levels = st.sampled_from([-100.0, -16.2, -16.0, -3.0, -0.5, 0.0, 0.5, 3.0, 16.0, 16.2, 100.0])
    logits = data.draw(hnp.arrays(np.float64, problem.aff.shape, elements=levels))
    loss, grad = malis.malis_loss(logits, problem.seg, problem.nhood, from_logits=True, **options)
    expected = oracle.malis_loss(logits, problem.seg, problem.nhood, from_logits=True, **options)
    assert loss == pytest.approx(expected, rel=1e-9, abs=1e-14)
    assert np.isfinite(grad).all()


@given(problem=problems(max_voxels=16), options=loss_options(), data=st.data())
@settings(max_examples=80)
def test_gradient_is_that_of_finite_differences(problem, options, data):
    """Counts are constants of the derivative: without ties, small steps do not change the order."""
    size = problem.aff.size
    order = np.array(data.draw(st.permutations(range(size))))
    aff = (0.05 + 0.9 * (order + 0.5) / size).reshape(problem.aff.shape)
    from_logits = data.draw(st.booleans())
    if from_logits:
        aff = 4 * aff - 2
    options["edge_mask"] = data.draw(st.none() | edge_masks(problem))
    options["unlabelled_mask"] = data.draw(st.none() | unlabelled_masks(problem))
    options["from_logits"] = from_logits

    def loss_at(point):
        return malis.malis_loss(point, problem.seg, problem.nhood, **options).loss

    grad = malis.malis_loss(aff, problem.seg, problem.nhood, **options).grad
    step = 1e-6
    numeric = np.zeros_like(aff)
    for edge in np.ndindex(aff.shape):
        ahead, behind = aff.copy(), aff.copy()
        ahead[edge] += step
        behind[edge] -= step
        numeric[edge] = (loss_at(ahead) - loss_at(behind)) / (2 * step)
    scale = max(1.0, float(np.abs(grad).max()))
    np.testing.assert_allclose(grad, numeric, rtol=1e-5, atol=1e-6 * scale)


@given(problem=problems(bounded=True), options=loss_options())
def test_gradient_of_the_counts(problem, options):
    aff = 0.05 + 0.9 * problem.aff  # away from the end of the logarithm
    counts = malis.pairs(aff, problem.seg, problem.nhood, **{name: options[name] for name in PAIR_FLAGS})
    of_loss = {name: value for name, value in options.items() if name in oracle.LOSS_OPTIONS}
    expected = oracle.gradient_from_counts(aff, *counts, **of_loss)
    grad = malis.malis_loss(aff, problem.seg, problem.nhood, **options).grad
    np.testing.assert_allclose(grad, expected, rtol=1e-6, atol=1e-12)


def test_by_hand():
    # 1 -0.5- 1 -0.4- 2: one positive pair at 0.5, two negative ones at 0.4.
    aff, seg, nhood = np.array([[0.0, 0.5, 0.4]]), [1, 1, 2], [[-1]]
    loss, grad = malis.malis_loss(aff, seg, nhood)
    assert loss == pytest.approx((1 - 0.3 - 0.5) ** 2 + (0.4 - 0.3) ** 2)
    np.testing.assert_allclose(grad, [[0, -2 * 0.2, 2 * 0.1]])
    loss, grad = malis.malis_loss(aff, seg, nhood, normalize=False, pos_loss_weight=0.25, margin=0)
    assert loss == pytest.approx(2 * (0.25 * 1 * 0.5**2 + 0.75 * 2 * 0.4**2))
    np.testing.assert_allclose(grad, [[0, -2 * 0.25 * 2 * 0.5, 2 * 0.75 * 2 * 2 * 0.4]])
    loss, grad = malis.malis_loss(aff, seg, nhood, pointwise="cross_entropy")
    assert loss == pytest.approx(-np.log(0.5) - np.log(0.6))
    np.testing.assert_allclose(grad, [[0, -1 / 0.5, 1 / 0.6]])


@pytest.mark.parametrize("constrain_positive", [True, False])
@pytest.mark.parametrize("constrain_negative", [True, False])
@pytest.mark.parametrize("ignore_background", [True, False])
def test_unlabelled_voxels_that_no_edge_joins(constrain_positive, constrain_negative, ignore_background, rng):
    """No edge is unknown there, and yet these voxels take no part in positive pairs."""
    problem = rng.random((2, 5, 6)), rng.integers(0, 3, (5, 6)), malis.mknhood2d(1)
    options = {
        "constrain_positive": constrain_positive,
        "constrain_negative": constrain_negative,
        "ignore_background": ignore_background,
        "unlabelled_mask": np.indices((5, 6)).sum(0) % 2 == 0,
    }
    loss, grad = malis.malis_loss(*problem, **options)
    assert loss == pytest.approx(oracle.malis_loss(*problem, **options), rel=1e-12)
    counts = malis.pairs(*problem, **options)
    np.testing.assert_allclose(grad, oracle.gradient_from_counts(problem[0], *counts), rtol=1e-6, atol=1e-12)


def test_margin_zero_is_the_loss_of_turagalab(rng):
    aff, seg, nhood = rng.random((3, 6, 7, 8)), rng.integers(0, 4, (6, 7, 8)), malis.mknhood3d(1)
    pos, neg = malis.pairs(aff, seg, nhood)
    expected = (pos / pos.sum() * (1 - aff) ** 2).sum() + (neg / neg.sum() * aff**2).sum()
    assert malis.malis_loss(aff, seg, nhood, margin=0).loss == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("pointwise", POINTWISE)
@pytest.mark.parametrize("normalize", [True, False])
def test_logits_are_affinities_after_the_sigmoid(pointwise, normalize, rng):
    logits, seg = rng.standard_normal((3, 6, 7, 8)) * 3, rng.integers(0, 4, (6, 7, 8))
    nhood, options = malis.mknhood3d(1), {"pointwise": pointwise, "normalize": normalize}
    sigmoid = 1 / (1 + np.exp(-logits))
    of_logits = malis.malis_loss(logits, seg, nhood, from_logits=True, **options)
    of_affinities = malis.malis_loss(sigmoid, seg, nhood, **options)
    assert of_logits.loss == pytest.approx(of_affinities.loss, rel=1e-12)
    np.testing.assert_allclose(of_logits.grad, of_affinities.grad * sigmoid * (1 - sigmoid), rtol=1e-9, atol=1e-15)


def test_logits_beyond_the_precision_of_the_sigmoid():
    """In float32 the sigmoids of 20 and 30 are both 1; the order of the counts is that of the logits."""
    logits = np.array([[0, 30, 20], [0, 0, 25]], np.float32)
    seg, nhood = [1, 1, 1], [[-1], [-2]]
    pos, _ = malis.pairs(logits, seg, nhood)
    assert pos.tolist() == [[0, 1, 0], [0, 0, 2]]
    loss, grad = malis.malis_loss(-logits, seg, nhood, from_logits=True, pointwise="cross_entropy")
    # In reverse order, -20 decides two of three pairs and -25 one.
    pos, _ = malis.pairs(-logits, seg, nhood)
    assert loss == pytest.approx((pos * logits).sum() / pos.sum(), rel=1e-6)
    np.testing.assert_allclose(grad, -pos / pos.sum(), rtol=1e-6)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("sure", [20, 1e4, 1e30])
def test_a_wrong_logit_keeps_its_gradient_however_sure_it_is(dtype, sure):
    """As in binary_cross_entropy_with_logits: a slope of 1, not the 0 of a sigmoid that is clamped."""
    logits = np.array([[0, -sure, sure]], dtype)  # within object 1, and between objects 1 and 2
    loss, grad = malis.malis_loss(logits, [1, 1, 2], [[-1]], pointwise="cross_entropy", from_logits=True)
    assert loss == pytest.approx(2 * sure)
    np.testing.assert_allclose(grad, [[0, -1, 1]], rtol=1e-7)
    loss, grad = malis.malis_loss(-logits, [1, 1, 2], [[-1]], pointwise="cross_entropy", from_logits=True)
    assert 0 <= loss < 1e-8
    assert np.abs(grad).max() < 1e-8


@pytest.mark.parametrize("pointwise", POINTWISE)
def test_perfect_affinities(pointwise):
    seg = np.array([1, 1, 0, 2, 2, 2])
    nhood = [[-1]]
    aff = malis.seg_to_affgraph(seg, nhood).astype(np.float64)
    loss, grad = malis.malis_loss(aff, seg, nhood, pointwise=pointwise)
    assert loss == 0
    if pointwise == "squared_hinge":
        assert not grad.any()


def test_infinite_affinities_that_are_right():
    seg = np.array([1, 1, 0, 2, 2, 2])
    aff = np.where(malis.seg_to_affgraph(seg, [[-1]]), np.inf, -np.inf)
    for dtype in np.float32, np.float64:
        for options in {}, {"from_logits": True}:
            loss, grad = malis.malis_loss(aff.astype(dtype), seg, [[-1]], **options)
            assert loss == 0
            assert not grad.any()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("num_threads", [1, 2])
def test_infinite_affinities_that_are_wrong(dtype, num_threads):
    """The loss and its gradient are finite, or there is an error."""
    seg = np.array([1, 1, 0, 2, 2, 2])
    right = np.where(malis.seg_to_affgraph(seg, [[-1]]), np.inf, -np.inf).astype(dtype)
    wrong = -right
    for edge, value in ((4, -np.inf), (1, -np.inf)):
        aff = right.copy()
        aff[0, edge] = value
        for options in {}, {"normalize": False}, {"edge_mask": np.ones(aff.shape, bool)}:
            with pytest.raises(ValueError, match=f"aff must hold affinities of a finite .* at edge {edge}"):
                malis.malis_loss(aff, seg, [[-1]], num_threads=num_threads, margin=-1, **options)
        # One that has no part in the loss is no error.
        assert malis.malis_loss(aff, seg, [[-1]], pos_loss_weight=0).loss == 0
    for options in {}, {"pointwise": "cross_entropy"}:
        options = options | {"from_logits": True, "num_threads": num_threads}
        if options.get("pointwise"):
            with pytest.raises(ValueError, match="aff must hold affinities of a finite loss"):
                malis.malis_loss(wrong, seg, [[-1]], **options)
        else:
            loss, grad = malis.malis_loss(wrong, seg, [[-1]], **options)
            assert loss == pytest.approx(2 * 0.7**2)
            assert np.isfinite(grad).all()


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("value", [-np.inf, -1.0, -1e-3, 1.001, 2.0, np.inf])
def test_cross_entropy_takes_affinities_of_0_to_1(dtype, value):
    aff, seg, nhood = np.array([[0, 0.5, 0.4, 1]], dtype), [1, 1, 2, 2], [[-1]]
    options = {"pointwise": "cross_entropy"}
    assert np.isfinite(malis.malis_loss(aff, seg, nhood, **options).loss)
    aff[0, 2] = value
    with pytest.raises(ValueError, match=r"aff must hold values from 0 to 1, got .* at flat index 2"):
        malis.malis_loss(aff, seg, nhood, **options)
    if np.isfinite(value):
        assert np.isfinite(malis.malis_loss(aff, seg, nhood, from_logits=True, **options).loss)


@pytest.mark.parametrize("pointwise", POINTWISE)
@pytest.mark.parametrize("normalize", [True, False])
def test_no_object(pointwise, normalize, rng):
    aff = rng.random((2, 5, 6))
    loss, grad = malis.malis_loss(
        aff, np.zeros((5, 6), int), malis.mknhood2d(1), pointwise=pointwise, normalize=normalize
    )
    assert loss == 0
    assert grad.shape == aff.shape
    assert not grad.any()


def test_one_kind_of_pairs_alone(rng):
    aff, nhood = rng.random((2, 5, 6)), malis.mknhood2d(1)
    one_object = np.ones((5, 6), int)
    assert malis.malis_loss(aff, one_object, nhood, pos_loss_weight=0).loss == 0
    assert malis.malis_loss(aff, one_object, nhood).loss == pytest.approx(
        oracle.malis_loss(aff, one_object, nhood), rel=1e-12
    )
    all_apart = np.arange(1, 31).reshape(5, 6)
    assert malis.malis_loss(aff, all_apart, nhood, pos_loss_weight=1).loss == 0
    assert malis.malis_loss(aff, all_apart, nhood).loss == pytest.approx(
        oracle.malis_loss(aff, all_apart, nhood), rel=1e-12
    )


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_dtype_of_the_gradient(dtype, rng):
    aff = rng.random((3, 6, 7, 8)).astype(dtype)
    seg, nhood = rng.integers(0, 4, (6, 7, 8)), malis.mknhood3d(1)
    loss, grad = malis.malis_loss(aff, seg, nhood)
    exact = malis.malis_loss(aff.astype(np.float64), seg, nhood)
    assert loss == pytest.approx(exact.loss, rel=1e-12)
    assert grad.dtype == dtype
    np.testing.assert_allclose(grad, exact.grad, rtol=8 * np.finfo(dtype).eps, atol=np.finfo(dtype).tiny)


# ---------------------------------------------------------------------------------------------- batches
@pytest.mark.parametrize("samples", [1, 2, 3, 5])
@pytest.mark.parametrize("shape", [(40,), (12, 13), (6, 7, 8)])
def test_batch_is_its_samples(samples, shape, rng):
    ndim = len(shape)
    nhood = np.concatenate([-np.eye(ndim, dtype=int), 3 * np.eye(ndim, dtype=int)])
    aff = rng.random((samples, len(nhood), *shape)).astype(np.float32)
    seg = rng.integers(0, 4, (samples, *shape))
    seg[samples // 2] = 0  # a sample without an object
    masks = {"edge_mask": rng.random(aff.shape) < 0.8, "unlabelled_mask": rng.random(seg.shape) < 0.1}
    for names in [], ["edge_mask"], ["unlabelled_mask"], ["edge_mask", "unlabelled_mask"]:
        options = {name: masks[name] for name in names}
        for num_threads in 1, 2, 3:
            loss, grad = malis.malis_loss(aff, seg, nhood, **options, num_threads=num_threads)
            assert loss.shape == (samples,)
            assert loss.dtype == np.float64
            assert grad.shape == aff.shape
            for b in range(samples):
                of_sample = {name: mask[b] for name, mask in options.items()}
                single = malis.malis_loss(aff[b], seg[b], nhood, **of_sample)
                assert loss[b] == single.loss
                np.testing.assert_array_equal(grad[b], single.grad)


def test_batch_of_2d_images_is_not_a_volume(rng):
    """Two equal images: were the batch a third axis, labels would join across it."""
    aff, seg = rng.random((1, 2, 9, 9)), rng.integers(0, 3, (1, 9, 9))
    single = malis.malis_loss(aff[0], seg[0], malis.mknhood2d(1))
    loss, grad = malis.malis_loss(
        np.repeat(aff, 2, axis=0), np.repeat(seg, 2, axis=0), malis.mknhood2d(1), normalize=True
    )
    assert loss.tolist() == [single.loss] * 2
    np.testing.assert_array_equal(grad, [single.grad] * 2)


# --------------------------------------------------------------------------------------- larger volumes
@functools.cache
def larger_volume(constrained, dtype):
    """A volume and the counts of the oracle, which takes its time."""
    rng, shape = np.random.default_rng(40), (40, 40, 40)
    blocks = rng.integers(0, 90, (8, 8, 8))  # label 0: background; one label in several places
    seg = np.kron(blocks, np.ones((5, 5, 5), int))
    nhood = np.concatenate([malis.mknhood3d(1), [[0, 0, 4], [0, -7, 0]]])
    aff = rng.uniform(0.01, 0.99, (len(nhood), *shape)).astype(dtype)
    flags = {"constrain_positive": constrained, "constrain_negative": constrained}
    return aff, seg, nhood, flags, *oracle.kruskal_pairs(aff, seg, nhood, **flags)


@pytest.mark.parametrize("pointwise", POINTWISE)
@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("constrained", [True, False])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_larger_volume(pointwise, normalize, constrained, dtype):
    aff, seg, nhood, flags, pos, neg = larger_volume(constrained, dtype)
    options = {"pointwise": pointwise, "normalize": normalize}
    loss, grad = malis.malis_loss(aff, seg, nhood, **flags, **options, num_threads=1)
    assert loss == pytest.approx(oracle.loss_from_counts(aff, pos, neg, **options), rel=1e-10)
    # Both kinds of pairs may meet at one edge and cancel: the rounding error is that of the two parts.
    of_pos = oracle.gradient_from_counts(aff, pos, np.zeros_like(neg), **options)
    of_neg = oracle.gradient_from_counts(aff, np.zeros_like(pos), neg, **options)
    error = np.abs(grad - (of_pos + of_neg))
    assert (error <= 8 * np.finfo(dtype).eps * (np.abs(of_pos) + np.abs(of_neg))).all()
    for num_threads in 2, 5:
        again = malis.malis_loss(aff, seg, nhood, **flags, **options, num_threads=num_threads)
        assert again.loss == loss
        np.testing.assert_array_equal(again.grad, grad)


def test_one_object_of_most_voxels_on_any_number_of_threads(rng):
    """Several threads work on the large object, and sums of floating point numbers are the same all the same."""
    seg = np.kron(rng.integers(0, 30, (9, 9, 9)), np.ones((8, 8, 8), int))
    seg[1:-1, 1:-1, 1:-1] = 30
    assert (seg == 30).sum() > 2**18
    aff = rng.random((3, *seg.shape)).astype(np.float32)
    one = malis.malis_loss(aff, seg, malis.mknhood3d(1), num_threads=1)
    assert one.loss == pytest.approx(oracle.malis_loss(aff, seg, malis.mknhood3d(1), count=malis.pairs), rel=1e-10)
    for num_threads in 2, 5:
        many = malis.malis_loss(aff, seg, malis.mknhood3d(1), num_threads=num_threads)
        assert many.loss == one.loss
        np.testing.assert_array_equal(many.grad, one.grad)


@given(problem=problems(bounded=True), options=loss_options(), data=st.data())
@settings(max_examples=40)
def test_arguments_are_not_changed(problem, options, data):
    options["edge_mask"] = data.draw(edge_masks(problem))
    options["unlabelled_mask"] = data.draw(unlabelled_masks(problem))
    arrays = [*problem, options["edge_mask"], options["unlabelled_mask"]]
    before = [array.copy() for array in arrays]
    for array in arrays:
        array.flags.writeable = False
    malis.malis_loss(*problem, **options)
    for array, copy in zip(arrays, before, strict=True):
        np.testing.assert_array_equal(array, copy)
