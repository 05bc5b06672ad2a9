"""The TensorFlow adapter: graphs, unknown shapes, strategies; what all adapters promise is in test_conformance.py."""

from __future__ import annotations

import numpy as np
import pytest

import malis
from frameworks import NEAREST, address, case, masks, record_core_calls, require

require(["tensorflow"])

import tensorflow as tf  # noqa: E402

from malis import malis_tensorflow  # noqa: E402
from malis.malis_tensorflow import malis_loss2d, malis_loss3d  # noqa: E402

FUNCTIONS = {2: malis_loss2d, 3: malis_loss3d}
ndims = pytest.mark.parametrize("ndim", [2, 3])
layouts = pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])


def tensors(ndim, data_format="channels_last", dtype=np.float32, batch=3):
    seg, aff = case(ndim, batch)
    aff = aff if data_format == "channels_first" else np.ascontiguousarray(np.moveaxis(aff, 1, -1))
    return tf.constant(seg), tf.constant(aff.astype(dtype))


def value_and_grad(function, output):
    with tf.GradientTape() as tape:
        tape.watch(output)
        loss = function(output)
    return loss, tape.gradient(loss, output)


@ndims
@layouts
def test_graph_equals_eager_equals_core(ndim, data_format):
    seg, aff = case(ndim)
    edges, voxels = masks(ndim)
    core = malis.malis_loss(aff, seg, NEAREST[ndim], edge_mask=edges, unlabelled_mask=voxels)
    labels, output = tensors(ndim, data_format)
    if data_format == "channels_last":
        edges = np.moveaxis(edges, 1, -1)

    def both(labels, output):
        return value_and_grad(
            lambda out: FUNCTIONS[ndim](labels, out, edges, voxels, data_format=data_format, reduction="sum"), output
        )

    for call in (both, tf.function(both)):
        loss, grad = call(labels, output)
        assert loss.shape == ()
        grad = grad.numpy() if data_format == "channels_first" else np.moveaxis(grad.numpy(), -1, 1)
        np.testing.assert_allclose(loss, core.loss.sum(), rtol=1e-6)
        np.testing.assert_allclose(grad, core.grad, rtol=1e-6)


def test_reductions():
    labels, output = tensors(2)
    each = malis_loss2d(labels, output, reduction="none")
    assert each.shape == (3,)
    np.testing.assert_allclose(malis_loss2d(labels, output), each.numpy().mean(), rtol=1e-6)
    np.testing.assert_allclose(malis_loss2d(labels, output, reduction="sum"), each.numpy().sum(), rtol=1e-6)
    with pytest.raises(ValueError, match="reduction must be one of 'mean', 'sum', 'none', got 'average'"):
        malis_loss2d(labels, output, reduction="average")
    with pytest.raises(ValueError, match="data_format must be one of 'channels_first', 'channels_last', got 'last'"):
        malis_loss2d(labels, output, data_format="last")


# Where an argument comes from: NumPy, a tensor, a variable, an argument of a function that is traced.
PLACES = ["numpy", "tensor", "variable", "traced"]


@pytest.mark.parametrize("masks_are", PLACES)
@pytest.mark.parametrize("output_is", PLACES)
@pytest.mark.parametrize("labels_are", PLACES)
def test_mixtures_of_places(labels_are, output_is, masks_are):
    labels, output = (tensor.numpy() for tensor in tensors(2))
    edges, voxels = masks(2)
    core = malis.malis_loss(np.moveaxis(output, -1, 1), labels, NEAREST[2], edge_mask=edges, unlabelled_mask=voxels)
    arguments = {
        "seg_gt": labels,
        "output": output,
        "edge_mask": np.moveaxis(edges, 1, -1),
        "unlabelled_mask": voxels,
    }
    places = dict(zip(arguments, (labels_are, output_is, masks_are, masks_are), strict=True))
    make = {"numpy": np.asarray, "tensor": tf.constant, "variable": tf.Variable, "traced": tf.constant}
    given = {name: make[places[name]](a) for name, a in arguments.items()}
    traced = {name: given.pop(name) for name, place in places.items() if place == "traced"}

    def function(traced):
        with tf.GradientTape() as tape:
            tape.watch(
                [a for a in (given | traced).values() if not isinstance(a, np.ndarray) and a.dtype == tf.float32]
            )
            loss = malis_loss2d(**given, **traced, reduction="sum")
        result = (given | traced)["output"]
        return loss, None if isinstance(result, np.ndarray) else tape.gradient(loss, result)

    for call in (function, tf.function(function)):
        loss, grad = call(traced)
        np.testing.assert_allclose(loss, core.loss.sum(), rtol=1e-6)
        if output_is != "numpy":
            np.testing.assert_allclose(np.moveaxis(grad.numpy(), -1, 1), core.grad, rtol=1e-6)


@ndims
def test_unknown_shapes(ndim):
    traces = []

    @tf.function(
        input_signature=[
            tf.TensorSpec([None] * (ndim + 1), tf.int32),
            tf.TensorSpec([None] * (ndim + 1) + [ndim], tf.float32),
        ]
    )
    def function(labels, output):
        losses = FUNCTIONS[ndim](labels, output, reduction="none")
        (grad,) = tf.gradients(losses, output)
        traces.append((losses.shape.as_list(), grad.shape.as_list()))
        return losses, grad

    for batch in (3, 1, 5):
        labels, output = tensors(ndim, batch=batch)
        losses, grad = function(labels, output)
        expected = value_and_grad(lambda out, labels=labels: FUNCTIONS[ndim](labels, out, reduction="none"), output)
        np.testing.assert_array_equal(losses, expected[0])
        np.testing.assert_array_equal(grad, expected[1])
    assert traces == [([None], [None] * (ndim + 1) + [ndim])]


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_no_samples(reduction):
    """As a replica may get it of the last batch."""

    @tf.function(input_signature=[tf.TensorSpec([None, 14, 11], tf.int32), tf.TensorSpec([None, 14, 11, 2])])
    def function(labels, output):
        return value_and_grad(lambda out: malis_loss2d(labels, out, reduction=reduction), output)

    labels, output = tensors(2)
    losses, grad = function(labels[:0], output[:0])
    assert losses.shape == ((0,) if reduction == "none" else ())
    assert not losses.numpy().any()  # 0, where the mean of nothing would be NaN
    assert grad.shape == output[:0].shape
    losses, grad = function(labels, output)
    assert grad.numpy().any()


def test_static_shapes_are_set():
    labels, output = tensors(2)

    @tf.function
    def function(labels, output):
        losses = malis_loss2d(labels, output, reduction="none")
        assert losses.shape == (3,)
        assert tf.gradients(losses, output)[0].shape == output.shape
        return losses

    function(labels, output)


def test_unknown_number_of_axes():
    function = tf.function(malis_loss2d, input_signature=[tf.TensorSpec(None, tf.int32), tf.TensorSpec(None)])
    with pytest.raises(ValueError, match="output must have a known number of axes"):
        function(*tensors(2))


def test_shapes_are_checked_when_a_graph_is_made():
    labels, output = tensors(2)
    with pytest.raises(ValueError, match=r"seg_gt must have shape \(3, 14, 11\) or \(3, 14, 11, 1\) for an output"):
        tf.function(malis_loss2d)(labels[:, :-1], output)


def test_values_are_checked_when_it_runs():
    labels, output = tensors(2)
    function = tf.function(malis_loss2d)
    with pytest.raises(tf.errors.InvalidArgumentError, match="seg_gt must hold labels of at least 0, got -1"):
        function(labels - 1, output)
    with pytest.raises(tf.errors.InvalidArgumentError, match="output must not contain NaN"):
        function(labels, output * np.nan)


@layouts
def test_float64_stays_float64(data_format):
    labels, output = tensors(2, data_format, np.float64)
    loss, grad = value_and_grad(lambda out: malis_loss2d(labels, out, data_format=data_format), output)
    assert loss.dtype == grad.dtype == tf.float64
    seg, aff = case(2)
    expected = malis.malis_loss(aff.astype(np.float64), seg, NEAREST[2])
    np.testing.assert_allclose(loss, expected.loss.mean(), rtol=1e-14)


def test_tensors_are_not_copied(monkeypatch):
    calls = record_core_calls(monkeypatch)
    labels, output = tensors(2, "channels_first")
    expected = tuple(address(np.asarray(tensor)) for tensor in (output, labels))
    malis_loss2d(labels, output, data_format="channels_first")
    tf.function(malis_loss2d)(labels, output, data_format="channels_first")
    assert [(address(aff), address(seg)) for aff, seg, *_ in calls] == [expected, expected]


@pytest.mark.parametrize("batch", [1, 3, 4, 7])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_gradients_of_reduced_losses(batch, reduction):
    labels, output = tensors(2, "channels_first", batch=batch)
    seg, aff = case(2, batch)
    grads = malis.malis_loss(aff, seg, NEAREST[2]).grad / (batch if reduction == "mean" else 1)
    weights = tf.cast(tf.range(batch), tf.float32)

    def twice(output):
        """The gradient of a loss, as it is and scaled, from one evaluation, and that of weighted losses."""
        with tf.GradientTape(persistent=True) as tape:
            tape.watch(output)
            loss = malis_loss2d(labels, output, data_format="channels_first", reduction=reduction)
            scaled = loss * 2.0**15
            weighted = malis_loss2d(labels, output, data_format="channels_first", reduction="none") * weights
        again = tape.gradient(loss, output)
        tape.gradient(scaled + loss, output)
        return [tape.gradient(target, output) for target in (loss, scaled, weighted)], again

    for function in (twice, tf.function(twice)):
        (grad, scaled, weighted), again = function(output)
        np.testing.assert_array_equal(grad, again)
        np.testing.assert_allclose(grad, grads, rtol=1e-6)
        np.testing.assert_allclose(scaled, grads * 2.0**15, rtol=1e-6)
        each = np.arange(batch)[:, None, None, None] * (batch if reduction == "mean" else 1)
        np.testing.assert_allclose(weighted, grads * each, rtol=1e-6)


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_gradient_of_the_core_is_handed_on(monkeypatch, reduction):
    """Where nothing is left to multiply with, no second array as large as the output is made."""
    calls = record_core_calls(monkeypatch)
    labels, output = tensors(2)

    @tf.function
    def function(labels, output):
        return value_and_grad(lambda out: malis_loss2d(labels, out, reduction=reduction), output)

    _, grad = function(labels, output)
    assert address(np.asarray(grad)) == address(calls[-1][3].grad)


def test_a_second_derivative_is_an_error():
    labels, output = tensors(2)

    def second(output):
        with tf.GradientTape() as outer:
            outer.watch(output)
            _, grad = value_and_grad(lambda out: malis_loss2d(labels, out), output)
        return outer.gradient(grad, output)

    for function in (second, tf.function(second)):
        with pytest.raises(NotImplementedError, match="first derivative only"):
            function(output)


def test_jit_compile_is_an_error_that_says_what_to_do():
    labels, output = tensors(2)
    with pytest.raises(NotImplementedError, match=r"jit_compile=False"):
        tf.function(malis_loss2d, jit_compile=True)(labels, output)

    @tf.function(jit_compile=True)
    def network(x):
        return tf.sigmoid(x)

    @tf.function
    def step(labels, x):
        return malis_loss2d(labels, network(x))

    assert step(labels, output) > 0  # the layers may be compiled


def test_examples_of_the_documentation():
    import doctest

    failed, tried = doctest.testmod(malis_tensorflow)
    assert tried > 5
    assert failed == 0
