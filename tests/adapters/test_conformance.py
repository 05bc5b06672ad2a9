"""The same promises for all adapters: every test here runs for PyTorch, TensorFlow, JAX, and Keras on each of them.

``pytest -k torch-margin0`` picks a case. To add one, add a line to a table: here, or to those of ``cases.py``. What one
framework alone has, such as a compiler, is in the file of that framework.
"""

from __future__ import annotations

import importlib
import inspect
import sys

import numpy as np
import pytest

import malis
from cases import BAD_ARRAYS, BAD_OPTIONS, BAD_VALUES, OPTIONS, OUT, SEG
from faces import Adapter
from frameworks import NEAREST, case, masks

ndims = pytest.mark.parametrize("ndim", [2, 3], ids=["2d", "3d"])


def core(seg, aff, ndim, **options):
    """Losses and gradients of a batch, by the NumPy function."""
    return malis.malis_loss(aff, seg, options.pop("nhood", NEAREST[ndim]), **options)


# ------------------------------------------------------------------------------------------------ the numbers


@pytest.mark.parametrize("masked", [False, True], ids=["unmasked", "masked"])
@ndims
@pytest.mark.parametrize("options", OPTIONS)
def test_equals_numpy_core(adapter: Adapter, ndim, options, masked):
    options = OPTIONS[options]
    seg, aff = case(ndim)
    if options.get("from_logits"):
        aff = np.log(aff / (1 - aff))
    both = dict(zip(("edge_mask", "unlabelled_mask"), masks(ndim), strict=True)) if masked else {}
    for dtype, tolerance in (("float32", 1e-6), ("float64", 1e-12)):
        if dtype == "float64" and not adapter.has_64_bits:
            continue
        losses, grads = core(seg, aff.astype(dtype), ndim, **options, **both)
        assert losses.min() > 0
        result = adapter.evaluate(ndim, seg, aff, dtype=dtype, **options, **both)
        assert result.losses.shape == losses.shape
        assert result.grad_dtype == dtype
        np.testing.assert_allclose(result.losses, losses, rtol=tolerance, atol=1e-6 if dtype == "float32" else 0)
        np.testing.assert_allclose(result.grad, grads, rtol=tolerance, atol=tolerance * np.abs(grads).max())
        assert result.grad_of_labels is None or not result.grad_of_labels.any()  # JAX gives zeros


NEIGHBOURHOODS = {
    "long_range": (2, [[-1, 0], [0, -1], [-3, 2], [0, 4]]),
    "radius2": (2, malis.mknhood2d(2)),
    "anisotropic": (3, malis.mknhood3d_aniso()),
}


@pytest.mark.parametrize("nhood", NEIGHBOURHOODS)
def test_neighbourhoods(adapter: Adapter, nhood):
    ndim, nhood = NEIGHBOURHOODS[nhood]
    seg, aff = case(ndim, channels=len(nhood))
    result = adapter.evaluate(ndim, seg, aff, nhood=nhood)
    losses, grads = core(seg, aff, ndim, nhood=nhood)
    np.testing.assert_allclose(result.losses, losses, rtol=1e-6)
    np.testing.assert_allclose(result.grad, grads, rtol=1e-6, atol=1e-6 * np.abs(grads).max())


def test_known_value(adapter: Adapter):
    # Two objects of two pixels each, with affinities 0.9, 0.6 and 0.4 between the pixels.
    seg = np.array([[[1, 1, 2, 2]]])
    aff = np.array([[[[0, 0, 0, 0]], [[0, 0.9, 0.6, 0.4]]]], np.float32)
    result = adapter.evaluate(2, seg, aff)
    assert result.losses == pytest.approx(0.5 * (0.7 - 0.4) ** 2 + (0.6 - 0.3) ** 2, rel=1e-6)
    expected = np.zeros_like(aff)
    expected[0, 1, 0, 2], expected[0, 1, 0, 3] = 2 * (0.6 - 0.3), -(0.7 - 0.4)
    np.testing.assert_allclose(result.grad, expected, rtol=1e-6)


@ndims
def test_without_objects_the_loss_is_zero(adapter: Adapter, ndim):
    seg, aff = case(ndim)
    result = adapter.evaluate(ndim, np.zeros_like(seg), aff)
    assert not result.losses.any()
    assert not result.grad.any()


@ndims
def test_batch_equals_single_samples(adapter: Adapter, ndim):
    seg, aff = case(ndim, batch=4)
    edges, voxels = masks(ndim, batch=4)
    together = adapter.evaluate(ndim, seg, aff, edges, voxels)
    assert len(set(together.losses.tolist())) == 4
    for b in range(4):
        one = slice(b, b + 1)
        single = adapter.evaluate(ndim, seg[one], aff[one], edges[one], voxels[one])
        assert single.losses == together.losses[one]
        assert np.array_equal(single.grad, together.grad[one])


@ndims
def test_any_number_of_threads(adapter: Adapter, ndim):
    seg, aff = case(ndim, batch=5)
    one, *others = (adapter.evaluate(ndim, seg, aff, num_threads=n) for n in (1, 2, 3, 16, None))
    for other in others:
        assert np.array_equal(other.losses, one.losses)
        assert np.array_equal(other.grad, one.grad)


def test_a_wrong_logit_keeps_its_gradient(adapter: Adapter):
    # Within object 1, and between objects 1 and 2; as sure as can be, and wrong.
    seg, aff = np.array([[[1, 1, 2]]]), np.zeros((1, 2, 1, 3), np.float32)
    aff[0, 1, 0] = [0, -1e4, 1e4]
    result = adapter.evaluate(2, seg, aff, pointwise="cross_entropy", from_logits=True)
    np.testing.assert_allclose(result.losses, [2e4], rtol=1e-6)
    np.testing.assert_allclose(result.grad[0, 1, 0], [0, -1, 1], rtol=1e-6)


# Among them what a sum and a mean hand down, for which adapters need no product, and what is so for some samples.
UPSTREAM = {
    "sum": [1, 1, 1],
    "mean": [1 / 3, 1 / 3, 1 / 3],
    "any": [0, -2, 3],
    "sum_of_some": [1, 1, 2],
    "mean_of_some": [1 / 3, 1 / 3, 1],
    "loss_scale": [2**15, 2**15, 2**15],
}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("weights", UPSTREAM)
def test_upstream_gradient_of_each_sample(adapter: Adapter, weights, dtype):
    weights = UPSTREAM[weights]
    seg, aff = case(2)
    losses, grads = core(seg, aff, 2)
    result = adapter.evaluate(2, seg, aff, dtype=dtype, weights=weights)
    np.testing.assert_allclose(result.losses, losses, rtol=1e-6)
    np.testing.assert_allclose(result.grad, grads * np.array(weights)[:, None, None, None], rtol=1e-6)


@ndims
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_16_bits_are_evaluated_in_float32(adapter: Adapter, ndim, dtype):
    seg, aff = case(ndim)
    rounded = np.asarray(adapter.numpy(adapter.cast(adapter.tensor(aff), dtype)), np.float32)
    assert not np.array_equal(rounded, aff)
    losses, grads = core(seg, rounded, ndim)
    # As a loss scaler does: the small numbers survive, as the factor comes before the rounding.
    result = adapter.evaluate(ndim, seg, aff, dtype=dtype, weights=[1024.0] * 3)
    np.testing.assert_allclose(result.losses, losses, rtol=1e-6)
    assert result.grad_dtype == dtype
    np.testing.assert_allclose(result.grad / 1024, grads, rtol=2**-7, atol=1e-9)
    for weight in (1.0, 1 / 3):  # as a sum and a mean do
        result = adapter.evaluate(ndim, seg, aff, dtype=dtype, weights=[weight] * 3)
        assert result.grad_dtype == dtype
        np.testing.assert_allclose(result.grad, weight * grads, rtol=2**-7, atol=1e-7)


LABEL_DTYPES = ["bool", "uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64"]
LABEL_DTYPES += ["float16", "float32", "float64"]


@pytest.mark.parametrize("channel", [False, True], ids=["no_channel", "channel"])
@pytest.mark.parametrize("dtype", LABEL_DTYPES)
@pytest.mark.filterwarnings("ignore:Explicitly requested dtype:UserWarning")  # JAX makes 32 bits of 64
def test_labels_of_any_dtype_with_and_without_channel(adapter: Adapter, dtype, channel):
    seg, aff = case(2)
    given = (seg > 1 if dtype == "bool" else seg).astype(dtype)
    losses = core(given.astype(np.int32), aff, 2).loss
    if channel:
        given = adapter.layout(given[:, None])
    np.testing.assert_allclose(adapter.call(2, given, adapter.layout(aff)), losses, rtol=1e-6)


# ------------------------------------------------------------------------------------------------- the module
def test_options_and_their_defaults_are_those_of_the_core(adapter: Adapter):
    module = importlib.import_module(f"malis.{adapter.module}")
    public = [getattr(module, name) for name in module.__all__ if name != "AffinityLoss"]
    assert len(public) >= 2
    options = {
        name: option.default
        for name, option in inspect.signature(malis.malis_loss).parameters.items()
        if option.kind is inspect.Parameter.KEYWORD_ONLY and not name.endswith("_mask")
    }
    assert "margin" in options
    for function in public:
        parameters = inspect.signature(function).parameters
        for name, default in options.items():
            assert parameters[name].default == default
            assert parameters[name].kind is inspect.Parameter.KEYWORD_ONLY


def test_options_of_the_recipe_are_those_of_the_core(adapter: Adapter):
    module = importlib.import_module(f"malis.{adapter.module}")
    parameters = inspect.signature(module.AffinityLoss).parameters
    others = {"from_logits": True, "margin": 0.1}
    for name, option in inspect.signature(malis.malis_loss).parameters.items():
        if option.kind is inspect.Parameter.KEYWORD_ONLY and not name.endswith("_mask"):
            assert parameters[name].default == others.get(name, option.default)
    assert "{recipe}" not in module.AffinityLoss.__doc__
    for name in ("warmup", "malis_offsets", "margin"):
        assert f"\n{name} : " in module.AffinityLoss.__doc__


def test_no_other_adapter_is_imported(adapter: Adapter, framework):
    adapter.call(2, *(adapter.layout(a) if a.ndim == 4 else a for a in case(2)))
    assert f"malis.{adapter.module}" in sys.modules
    # One process has both adapters of a backend.
    others = {"torch", "tensorflow", "jax"} - {framework.removeprefix("keras-")}
    modules = [name for name in sys.modules if name.startswith("malis.")]
    assert not [name for name in modules if any(other in name for other in others)]


def test_training_lowers_the_loss(adapter: Adapter):
    seg, _ = case(2)
    logits = np.random.default_rng(0).standard_normal((3, 2, *seg.shape[1:])).astype(np.float32)
    history = []
    for _ in range(80):
        result = adapter.evaluate(2, seg, logits, from_logits=True)
        history.append(result.losses.sum())
        logits -= 5 * result.grad
    assert history[-1] < 0.5 * history[0]


# -------------------------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize("bad", BAD_ARRAYS)
def test_bad_arrays(adapter: Adapter, bad):
    (seg, output, *both), error, message = BAD_ARRAYS[bad]
    edge_mask, unlabelled_mask = [*both, None, None][:2]
    message = message.replace("{seg}", adapter.names[0]).replace("{out}", adapter.names[1])
    with pytest.raises(error, match=message) as caught:
        adapter.call(2, seg, adapter.layout(output), adapter.layout(edge_mask), unlabelled_mask)
    assert str(caught.value).startswith(message.split(" ")[0])


@pytest.mark.parametrize("bad", BAD_VALUES)
def test_values_without_a_finite_loss(adapter: Adapter, bad):
    output, options, error, message = BAD_VALUES[bad]
    with pytest.raises(error, match=message.replace("{out}", adapter.names[1])):
        adapter.call(2, SEG, adapter.layout(output), **options)


@pytest.mark.parametrize("bad", BAD_OPTIONS)
def test_bad_options(adapter: Adapter, bad):
    options, error, message = BAD_OPTIONS[bad]
    with pytest.raises(error, match=message):
        adapter.call(2, SEG, adapter.layout(OUT), **options)


def test_swapped_arguments(adapter: Adapter):
    affinities = adapter.layout(OUT)
    for labels in (SEG, SEG.astype(np.float32), adapter.layout(SEG[:, None])):
        with pytest.raises(ValueError, match=f"{adapter.names[1]} and {adapter.names[0]} look swapped"):
            adapter.call(2, affinities, labels)


def test_neighbourhood_of_another_rank(adapter: Adapter):
    with pytest.raises(ValueError, match="nhood must have 2 columns, one for each spatial axis, got 3"):
        adapter.call(2, SEG, adapter.layout(OUT), nhood=malis.mknhood3d())
