"""The same checks over all adapters: torch, TensorFlow, JAX, and Keras on each of them.

Every framework has a process of its own: started without ``MALIS_TEST_FRAMEWORK``, this file runs itself once for each.
"""

from __future__ import annotations

import importlib
import inspect
import re
import sys

import numpy as np
import pytest

import malis
from frameworks import CURRENT, FRAMEWORKS, NEAREST, case, masks, run_in_own_process
from malis._options import Options


def first(a):
    return np.moveaxis(np.asarray(a), -1, 1)


def last(a):
    return None if a is None else np.ascontiguousarray(np.moveaxis(np.asarray(a), 1, -1))


class Torch:
    """All adapters look the same from here: arrays with channels first in, losses and gradients out."""

    module, names, compiled_error = "malis_torch", ("seg_gt", "output"), None

    def __init__(self):
        import torch

        torch.set_num_threads(1)
        self.torch = torch

    def loss_of(self, ndim, seg, output, edge_mask, unlabelled_mask, **options):
        from malis import malis_torch

        function = {2: malis_torch.malis_loss2d, 3: malis_torch.malis_loss3d}[ndim]
        return function(seg, output, edge_mask, unlabelled_mask, reduction="none", **options)

    def tensor(self, a):
        return None if a is None else self.torch.from_numpy(np.array(a))

    layout = staticmethod(lambda a: None if a is None else np.asarray(a))
    back = staticmethod(np.asarray)

    def cast(self, tensor, dtype):
        return tensor.to(getattr(self.torch, dtype))

    def numpy(self, tensor):
        return tensor.detach().float().numpy() if tensor.dtype == self.torch.bfloat16 else tensor.detach().numpy()

    def call(self, ndim, seg, aff, edge_mask=None, unlabelled_mask=None, **options):
        """Losses, for arrays in the layout of the adapter."""
        arrays = [self.tensor(a) for a in (seg, aff, edge_mask, unlabelled_mask)]
        return self.numpy(self.loss_of(ndim, *arrays, **options))

    def evaluate(self, ndim, seg, aff, edge_mask=None, unlabelled_mask=None, dtype="float32", weights=None, **options):
        """Losses, gradient of their weighted sum by the affinities and its dtype, gradient by the labels."""
        edges, voxels = self.tensor(self.layout(edge_mask)), self.tensor(unlabelled_mask)
        output = self.cast(self.tensor(self.layout(aff)), dtype)
        segmentation = self.tensor(seg.astype(np.float32))
        weights = self.tensor(np.ones(len(seg), np.float32) if weights is None else np.asarray(weights, np.float32))
        losses, grads = self.differentiate(
            lambda s, o: self.loss_of(ndim, s, o, edges, voxels, **options), segmentation, output, weights
        )
        dtype_of = re.search(r"b?float\d+", str(grads[1].dtype)).group()
        of_labels = None if grads[0] is None else self.numpy(grads[0])
        return self.numpy(losses), self.back(self.numpy(grads[1])), dtype_of, of_labels

    def differentiate(self, function, seg, output, weights):
        seg.requires_grad_()
        output.requires_grad_()
        losses = function(seg, output)
        scaled = (losses * weights.to(losses.dtype)).sum()
        return losses, self.torch.autograd.grad(scaled, (seg, output), allow_unused=True)


class TensorFlow(Torch):
    module = "malis_tensorflow"

    def __init__(self):
        import tensorflow as tf

        self.tf = tf

    layout, back = staticmethod(last), staticmethod(first)

    def loss_of(self, ndim, seg, output, edge_mask, unlabelled_mask, **options):
        from malis import malis_tensorflow

        function = {2: malis_tensorflow.malis_loss2d, 3: malis_tensorflow.malis_loss3d}[ndim]
        return function(seg, output, edge_mask, unlabelled_mask, reduction="none", **options)

    def tensor(self, a):
        return None if a is None else self.tf.convert_to_tensor(a)

    def cast(self, tensor, dtype):
        return self.tf.cast(tensor, dtype)

    def numpy(self, tensor):
        return tensor.numpy().astype(np.float64 if tensor.dtype == self.tf.float64 else np.float32)

    def differentiate(self, function, seg, output, weights):
        with self.tf.GradientTape() as tape:
            tape.watch([seg, output])
            losses = function(seg, output)
            scaled = self.tf.reduce_sum(losses * self.tf.cast(weights, losses.dtype))
        return losses, tape.gradient(scaled, [seg, output])


class Jax(Torch):
    module = "malis_jax"

    def __init__(self):
        import jax

        self.jax = jax

    def loss_of(self, ndim, seg, output, edge_mask, unlabelled_mask, **options):
        from malis import malis_jax

        function = {2: malis_jax.malis_loss2d, 3: malis_jax.malis_loss3d}[ndim]
        return function(seg, output, edge_mask, unlabelled_mask, reduction="none", **options)

    def tensor(self, a):
        return None if a is None else self.jax.numpy.asarray(a)

    def cast(self, tensor, dtype):
        return tensor.astype(dtype)

    def numpy(self, tensor):
        return np.asarray(tensor.astype("float32"))

    def differentiate(self, function, seg, output, weights):
        grads = self.jax.grad(lambda s, o: (function(s, o) * weights).sum(), argnums=(0, 1))(seg, output)
        return function(seg, output), grads


def of_keras(base):
    class Keras(base):
        module, names = "malis_keras", ("y_true", "y_pred")
        layout, back = staticmethod(last), staticmethod(first)

        def loss_of(self, ndim, seg, output, edge_mask, unlabelled_mask, **options):
            from malis import malis_keras

            function = {2: malis_keras.malis_loss2d, 3: malis_keras.malis_loss3d}[ndim]
            return function(seg, output, edge_mask, unlabelled_mask, **options)

    return Keras


ADAPTERS = {"torch": Torch, "tensorflow": TensorFlow, "jax": Jax}
ADAPTERS |= {f"keras-{name}": of_keras(adapter) for name, adapter in ADAPTERS.items()}

if CURRENT is None:

    @pytest.mark.parametrize("framework", FRAMEWORKS)
    def test_framework(framework):
        run_in_own_process(__file__, framework)

else:
    ndims = pytest.mark.parametrize("ndim", [2, 3])

    @pytest.fixture(scope="module")
    def adapter():
        return ADAPTERS[CURRENT]()

    def core(seg, aff, ndim, **options):
        result = malis.malis_loss(aff, seg, options.pop("nhood", NEAREST[ndim]), **options)
        return result.loss, result.grad

    OPTIONS = [
        {},
        {"margin": 0.0},
        {"pos_loss_weight": 0.9, "normalize": False},
        {"pointwise": "cross_entropy"},
        {"from_logits": True},
        {"from_logits": True, "pointwise": "cross_entropy"},
        {"constrain_positive": False},
        {"constrain_negative": False},
        {"constrain_positive": False, "constrain_negative": False, "ignore_background": False, "num_threads": 1},
    ]

    @ndims
    @pytest.mark.parametrize("masked", [False, True])
    @pytest.mark.parametrize("options", OPTIONS, ids=str)
    def test_equals_numpy_core(adapter, ndim, options, masked):
        seg, aff = case(ndim)
        if options.get("from_logits"):
            aff = np.log(aff / (1 - aff))
        both = dict(zip(("edge_mask", "unlabelled_mask"), masks(ndim), strict=True)) if masked else {}
        losses, grads = core(seg, aff, ndim, **options, **both)
        loss, grad, dtype, of_labels = adapter.evaluate(ndim, seg, aff, **options, **both)
        assert losses.min() > 0
        assert loss.shape == losses.shape
        assert dtype == "float32"
        np.testing.assert_allclose(loss, losses, rtol=1e-6, atol=1e-6)
        np.testing.assert_allclose(grad, grads, rtol=1e-6, atol=1e-6 * np.abs(grads).max())
        assert of_labels is None or not of_labels.any()  # JAX gives zeros

    def test_neighbourhoods(adapter):
        for nhood in ([[-1, 0], [0, -1], [-3, 2], [0, 4]], malis.mknhood2d(2)):
            seg, aff = case(2, channels=len(nhood))
            loss, grad, *_ = adapter.evaluate(2, seg, aff, nhood=nhood)
            losses, grads = core(seg, aff, 2, nhood=nhood)
            np.testing.assert_allclose(loss, losses, rtol=1e-6)
            np.testing.assert_allclose(grad, grads, rtol=1e-6)

    @ndims
    def test_batch_equals_single_samples(adapter, ndim):
        seg, aff = case(ndim, batch=4)
        edges, voxels = masks(ndim, batch=4)
        loss, grad, *_ = adapter.evaluate(ndim, seg, aff, edges, voxels)
        assert len(set(loss.tolist())) == 4
        for b in range(4):
            one = slice(b, b + 1)
            single, single_grad, *_ = adapter.evaluate(ndim, seg[one], aff[one], edges[one], voxels[one])
            assert single == loss[one]
            assert np.array_equal(single_grad, grad[one])

    # Among them what a sum and a mean hand down, for which adapters need no product, and what is so for some samples.
    @pytest.mark.parametrize("weights", [[1] * 3, [1 / 3] * 3, [0, -2, 3], [1, 1, 2], [1 / 3, 1 / 3, 1], [2**15] * 3])
    @pytest.mark.parametrize("dtype", ["float32", "float64"])
    def test_upstream_gradient_of_each_sample(adapter, weights, dtype):
        seg, aff = case(2)
        losses, grads = core(seg, aff, 2)
        loss, grad, *_ = adapter.evaluate(2, seg, aff, dtype=dtype, weights=weights)
        np.testing.assert_allclose(loss, losses, rtol=1e-6)
        np.testing.assert_allclose(grad, grads * np.array(weights)[:, None, None, None], rtol=1e-6)

    @ndims
    @pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
    def test_16_bits_are_evaluated_in_float32(adapter, ndim, dtype):
        seg, aff = case(ndim)
        rounded = np.asarray(adapter.numpy(adapter.cast(adapter.tensor(aff), dtype)), np.float32)
        assert not np.array_equal(rounded, aff)
        losses, grads = core(seg, rounded, ndim)
        # As a loss scaler does: the small numbers survive, as the factor comes before the rounding.
        loss, grad, grad_dtype, _ = adapter.evaluate(ndim, seg, aff, dtype=dtype, weights=[1024.0] * 3)
        np.testing.assert_allclose(loss, losses, rtol=1e-6)
        assert grad_dtype == dtype
        np.testing.assert_allclose(grad / 1024, grads, rtol=2**-7, atol=1e-9)
        for weight in (1.0, 1 / 3):  # as a sum and a mean do
            _, grad, grad_dtype, _ = adapter.evaluate(ndim, seg, aff, dtype=dtype, weights=[weight] * 3)
            assert grad_dtype == dtype
            np.testing.assert_allclose(grad, weight * grads, rtol=2**-7, atol=1e-7)

    @pytest.mark.parametrize("dtype", ["uint8", "int8", "uint16", "int16", "uint32", "int32", "int64", "float32"])
    @pytest.mark.parametrize("channel", [False, True])
    def test_labels_of_any_dtype_with_and_without_channel(adapter, dtype, channel):
        seg, aff = case(2)
        given = seg.astype(dtype)
        if channel:
            given = adapter.layout(given[:, None])
        np.testing.assert_allclose(adapter.call(2, given, adapter.layout(aff)), core(seg, aff, 2)[0], rtol=1e-6)

    def test_bool_labels(adapter):
        seg, aff = case(2)
        loss = adapter.call(2, seg > 1, adapter.layout(aff))
        np.testing.assert_allclose(loss, core((seg > 1).astype(np.uint8), aff, 2)[0], rtol=1e-6)

    def test_options_and_their_defaults_are_those_of_the_core(adapter):
        module = importlib.import_module(f"malis.{adapter.module}")
        public = [getattr(module, name) for name in module.__all__]
        assert len(public) >= 2
        for function in public:
            parameters = inspect.signature(function).parameters
            expected = inspect.signature(malis.malis_loss).parameters
            for name in Options._fields:
                assert parameters[name].default == expected[name].default == Options._field_defaults[name]
                assert parameters[name].kind is inspect.Parameter.KEYWORD_ONLY

    def test_training_lowers_the_loss(adapter):
        seg, _ = case(2)
        logits = np.random.default_rng(0).standard_normal((3, 2, *seg.shape[1:])).astype(np.float32)
        history = []
        for _ in range(80):
            loss, grad, *_ = adapter.evaluate(2, seg, logits, from_logits=True)
            history.append(loss.sum())
            logits -= 5 * grad
        assert history[-1] < 0.5 * history[0]

    def test_no_other_adapter_is_imported(adapter):
        adapter.call(2, *(adapter.layout(a) if a.ndim == 4 else a for a in case(2)))
        imported = {name for name in sys.modules if name.startswith("malis.malis_") or name.endswith("_op")}
        imported = {name for name in imported if name.startswith("malis.")}
        backend = CURRENT.removeprefix("keras-")
        assert imported == {f"malis.{adapter.module}", f"malis._adapters.{backend}_op"}

    # -------------------------------------------------------------------------------------------- bad input
    SEG = np.ones((2, 4, 5), np.int32)
    OUT = np.full((2, 2, 4, 5), 0.5, np.float32)
    NAN = OUT.copy()
    NAN[1, 0, 2, 3] = np.nan

    BAD_ARRAYS = [
        # seg, output, edge_mask, unlabelled_mask, error, message with {seg} and {out} for the names of the arguments
        (SEG, OUT[0], None, None, ValueError, r"{out} must have shape \(B, .*\), got .*\(\d, \d, \d\)"),
        (SEG, OUT[:, :1], None, None, ValueError, r"{out} must have one channel for each of the 2 offsets of nhood"),
        (SEG[:0], OUT[:0], None, None, ValueError, r"{out} must not be empty"),
        (
            SEG,
            OUT.astype(np.int32),
            None,
            None,
            TypeError,
            r"{out} must have dtype float16, bfloat16, float32 or .*int32",
        ),
        (SEG, NAN, None, None, ValueError, r"{out} must not contain NaN"),
        (SEG[:1], OUT, None, None, ValueError, r"{seg} must have shape \(2, 4, 5\) or .* got .*\(1, 4, 5\)"),
        (SEG[..., :4], OUT, None, None, ValueError, r"{seg} must have shape .* got .*\(2, 4, 4\)"),
        (SEG - 3, OUT, None, None, ValueError, r"{seg} must hold labels of at least 0, got -2"),
        (SEG - np.float32(3), OUT, None, None, ValueError, r"{seg} must hold labels of at least 0, got -2"),
        (SEG + np.float32(0.5), OUT, None, None, ValueError, r"{seg} must hold integer labels, got fractions"),
        (SEG * np.float32("nan"), OUT, None, None, ValueError, r"{seg} must hold integer labels, got .*non-finite"),
        (SEG * np.float32("inf"), OUT, None, None, ValueError, r"{seg} must hold integer labels, got .*non-finite"),
        (SEG * np.complex64(1), OUT, None, None, TypeError, r"{seg} must hold integer labels.*complex"),
        (SEG, OUT, OUT, None, TypeError, r"edge_mask must have dtype .*bool, got .*float32"),
        (SEG, OUT, OUT[:1] > 0, None, ValueError, r"edge_mask must have the shape of {out}, .*got"),
        (SEG, OUT, None, SEG, TypeError, r"unlabelled_mask must have dtype .*bool, got .*int32"),
        (SEG, OUT, None, SEG[:1] > 0, ValueError, r"unlabelled_mask must have shape \(2, 4, 5\) or"),
    ]

    @pytest.mark.parametrize("seg, output, edge_mask, unlabelled_mask, error, message", BAD_ARRAYS)
    def test_bad_arrays(adapter, seg, output, edge_mask, unlabelled_mask, error, message):
        message = message.replace("{seg}", adapter.names[0]).replace("{out}", adapter.names[1])
        with pytest.raises(error, match=message) as caught:
            adapter.call(2, seg, adapter.layout(output), adapter.layout(edge_mask), unlabelled_mask)
        assert str(caught.value).startswith(message.split(" ")[0])

    BAD_OPTIONS = [
        ({"nhood": [-1, 0]}, ValueError, r"nhood must have shape \(K, ndim\)"),
        ({"nhood": [[-1, 0.5], [0, 1]]}, TypeError, r"nhood must hold integer offsets"),
        ({"nhood": malis.mknhood3d()}, ValueError, r"nhood must have 2 columns, one for each spatial axis, got 3"),
        ({"margin": "wide"}, TypeError, r"margin must be a real number, got 'wide'"),
        ({"margin": float("nan")}, ValueError, r"margin must be a finite number, got nan"),
        ({"pos_loss_weight": 1.5}, ValueError, r"pos_loss_weight must be within 0 and 1, got 1.5"),
        ({"normalize": "yes"}, TypeError, r"normalize must be True or False, got 'yes'"),
        ({"pointwise": "hinge"}, ValueError, r"pointwise must be one of 'squared_hinge', 'cross_entropy', got 'hinge'"),
        ({"from_logits": None}, TypeError, r"from_logits must be True or False, got None"),
        ({"constrain_positive": 1}, TypeError, r"constrain_positive must be True or False, got 1"),
        ({"constrain_negative": 0}, TypeError, r"constrain_negative must be True or False, got 0"),
        ({"ignore_background": "no"}, TypeError, r"ignore_background must be True or False, got 'no'"),
        ({"num_threads": 0}, ValueError, r"num_threads must be an integer of at least 1, got 0"),
        ({"num_threads": 1.5}, TypeError, r"num_threads must be an integer, got 1.5"),
        ({"size_average": True}, TypeError, r"size_average"),
    ]

    @pytest.mark.parametrize("options, error, message", BAD_OPTIONS, ids=str)
    def test_bad_options(adapter, options, error, message):
        with pytest.raises(error, match=message):
            adapter.call(2, SEG, adapter.layout(OUT), **options)
