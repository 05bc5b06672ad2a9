"""The Keras adapter inside of Keras, on each backend: compile, fit, evaluate, save and load."""

from __future__ import annotations

import doctest
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import malis
from cases import BAD_OPTIONS
from frameworks import NEAREST, SHAPES, case, labels
from processes import backend_here

pytestmark = [
    pytest.mark.frameworks("keras-torch", "keras-tensorflow", "keras-jax"),
    pytest.mark.usefixtures("framework"),
]
BACKEND = backend_here()
if BACKEND:  # where tests are only collected, no backend is chosen
    import keras

    from malis.malis_keras import AffinityLoss, MalisLoss, malis_loss2d, malis_loss3d

    FUNCTIONS = {2: malis_loss2d, 3: malis_loss3d}
if BACKEND == "tensorflow":
    import tensorflow as tf

    tf.config.set_logical_device_configuration(
        tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 2
    )


@pytest.fixture(autouse=True)
def fresh():
    if not BACKEND:
        yield
        return
    keras.utils.set_random_seed(0)
    yield
    keras.config.set_dtype_policy("float32")
    keras.config.set_floatx("float32")
    keras.config.set_image_data_format("channels_last")


def data(ndim, batch=6, dtype="int32"):
    """Images whose grey tells the label, and labels; channels last."""
    seg = labels(batch, SHAPES[ndim])
    return (seg[..., None] - 1.5).astype("float32"), seg.astype(dtype)


def network(ndim, channels=None, activation="sigmoid", data_format="channels_last"):
    convolution = {2: keras.layers.Conv2D, 3: keras.layers.Conv3D}[ndim]
    spatial = (None,) * ndim
    options = {"padding": "same", "data_format": data_format}
    return keras.Sequential(
        [
            keras.Input((*spatial, 1) if data_format == "channels_last" else (1, *spatial)),
            convolution(8, 3, activation="relu", **options),
            convolution(channels or ndim, 3, **options),
            keras.layers.Activation(activation, dtype="float32" if activation == "sigmoid" else None),
        ]
    )


def expected(model, x, y, weights=None, **options):
    """Mean loss of a model's predictions, by the NumPy core."""
    aff = np.moveaxis(keras.ops.convert_to_numpy(model(x)).astype(np.float32), -1, 1)
    losses = malis.malis_loss(np.ascontiguousarray(aff), y, NEAREST[aff.shape[1]], **options).loss
    return np.mean(losses if weights is None else losses * weights)


# ------------------------------------------------------------------------------------------------ training
@pytest.mark.parametrize(("ndim", "as_class"), [(2, False), (3, True)], ids=["2d-function", "3d-class"])
def test_fit_and_evaluate(ndim, as_class):
    x, y = data(ndim)
    model = network(ndim)
    loss = MalisLoss() if as_class else FUNCTIONS[ndim]
    model.compile(keras.optimizers.Adam(0.03), loss=loss)
    before = model.evaluate(x, y, batch_size=6, verbose=0)
    assert before == pytest.approx(expected(model, x, y), rel=1e-5)
    history = model.fit(x, y if as_class else y[..., None], batch_size=4, epochs=15, verbose=0).history["loss"]
    assert history[-1] < 0.5 * history[0]
    after = model.evaluate(x, y, batch_size=4, verbose=0)  # the last batch is smaller
    assert after == pytest.approx(expected(model, x, y), rel=1e-5)
    assert after < 0.5 * before


def test_channels_first():
    seg, aff = case(2)
    core = malis.malis_loss(aff, seg, NEAREST[2]).loss
    keras.config.set_image_data_format("channels_first")
    for truth in (seg, seg[:, None]):
        np.testing.assert_allclose(keras.ops.convert_to_numpy(malis_loss2d(truth, aff)), core, rtol=1e-6)
        assert float(MalisLoss()(truth, aff)) == pytest.approx(core.mean(), rel=1e-6)
    loss = MalisLoss()
    keras.config.set_image_data_format("channels_last")
    assert float(loss(seg, aff)) == pytest.approx(core.mean(), rel=1e-6)  # as it was when the loss was made
    assert float(MalisLoss(data_format="channels_first")(seg, aff)) == pytest.approx(core.mean(), rel=1e-6)
    with pytest.raises(ValueError, match="y_pred must have one channel for each of the 2 offsets"):
        MalisLoss()(seg, aff)


def test_reductions_and_sample_weight():
    seg, aff = case(2)
    aff = np.ascontiguousarray(np.moveaxis(aff, 1, -1))
    each = keras.ops.convert_to_numpy(MalisLoss(reduction=None)(seg, aff))
    assert each.shape == (3,)
    weights = np.array([0.5, 0.0, 2.0], np.float32)
    assert float(MalisLoss()(seg, aff)) == pytest.approx(each.mean(), rel=1e-6)
    assert float(MalisLoss(reduction="sum")(seg, aff)) == pytest.approx(each.sum(), rel=1e-6)
    assert float(MalisLoss()(seg, aff, weights)) == pytest.approx((each * weights).mean(), rel=1e-6)
    x, y = data(2)
    model = network(2)
    model.compile("sgd", loss=malis_loss2d)
    weights = np.arange(6, dtype=np.float32)
    result = model.evaluate(x, y, sample_weight=weights, batch_size=6, verbose=0)
    assert result == pytest.approx(expected(model, x, y, weights), rel=1e-5)


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_mixed_precision(policy):
    keras.config.set_dtype_policy(policy)
    x, y = data(2)
    model = network(2, activation="linear")
    assert keras.backend.standardize_dtype(model(x).dtype) == policy.removeprefix("mixed_")
    model.compile(keras.optimizers.Adam(0.03), loss=MalisLoss(from_logits=True))
    assert model.evaluate(x, y, verbose=0) == pytest.approx(expected(model, x, y, from_logits=True), rel=1e-2)
    history = model.fit(x, y, batch_size=6, epochs=20, verbose=0).history["loss"]
    assert np.isfinite(history).all()
    assert history[-1] < 0.6 * history[0]


@pytest.mark.parametrize("floatx", ["float16", "bfloat16"])
def test_16_bit_floatx_does_not_round_labels(floatx):
    seg, aff = case(2)
    seg = seg + np.where(seg > 0, 5000, 0)
    aff = np.moveaxis(aff, 1, -1)
    full = float(MalisLoss()(seg, aff))
    keras.config.set_floatx(floatx)
    assert float(MalisLoss()(seg, aff)) == pytest.approx(full, rel=1e-6)


def test_labels_beyond_float32():
    x, y = data(2)
    seg, aff = case(2)
    aff = np.moveaxis(aff, 1, -1)
    exact = float(MalisLoss()(seg, aff))
    large = seg + np.where(seg > 0, 2**24, 0)  # float32 would merge neighbouring numbers
    assert float(MalisLoss()(large, aff)) == exact
    np.testing.assert_array_equal(malis_loss2d(large, aff), malis_loss2d(seg, aff))
    with pytest.raises(ValueError, match=r"y_true must hold labels below 16777216, as its floating point dtype"):
        MalisLoss()(large.astype(np.float32), aff)
    model = network(2)
    model.compile("sgd", loss=MalisLoss())
    before = expected(model, x, y)
    assert model.evaluate(x, y + np.where(y > 0, 2**24, 0), verbose=0) == pytest.approx(before, rel=1e-5)
    # Keras makes a loss of the function, and converts what that takes.
    model.compile("sgd", loss=malis_loss2d, run_eagerly=BACKEND != "jax")
    with pytest.raises(Exception, match=r"y_true must hold labels below 16777216, as its floating point dtype"):
        float(model.evaluate(x, y + np.where(y > 0, 2**24, 0), verbose=0))


@pytest.mark.parametrize("bad", BAD_OPTIONS)
def test_class_refuses_bad_options(bad):
    options, error, message = BAD_OPTIONS[bad]
    with pytest.raises(error, match=message):
        MalisLoss(**options)


def test_loss_is_a_loss_of_keras():
    """What Keras does around `call` still happens, though it does not see the labels."""
    seg, aff = case(2)
    aff = np.ascontiguousarray(np.moveaxis(aff, 1, -1))
    each = keras.ops.convert_to_numpy(MalisLoss(reduction=None)(seg, aff))
    weights = np.array([0.5, 0.0, 2.0], np.float32)
    assert float(MalisLoss()(seg.tolist(), aff)) == pytest.approx(each.mean(), rel=1e-6)
    assert float(MalisLoss()(y_true=seg, y_pred=aff, sample_weight=weights)) == pytest.approx(
        (each * weights).mean(), rel=1e-6
    )
    predictions = keras.ops.convert_to_tensor(aff)
    keras.src.backend.set_keras_mask(predictions, keras.ops.convert_to_tensor([True, False, True]))
    assert float(MalisLoss()(seg, predictions)) == pytest.approx(each[[0, 2]].mean(), rel=1e-6)
    wide = MalisLoss(dtype="float64", reduction=None)(seg, aff).dtype  # JAX has 64 bits only where it is told so
    assert keras.backend.standardize_dtype(wide) == ("float32" if BACKEND == "jax" else "float64")

    class Twice(MalisLoss):
        def call(self, y_true, y_pred):
            return 2 * super().call(y_true, y_pred)

    assert float(Twice()(seg, aff)) == pytest.approx(2 * each.mean(), rel=1e-6)


def test_steps_per_execution():
    x, y = data(2, batch=8)
    options = {} if BACKEND == "torch" else {"steps_per_execution": 2}  # PyTorch has one step only
    results = []
    for extra in ({}, options):
        keras.utils.set_random_seed(0)
        model = network(2)
        model.compile("sgd", loss=malis_loss2d, **extra)
        results.append(model.fit(x, y, batch_size=2, epochs=2, shuffle=False, verbose=0).history["loss"])
    np.testing.assert_allclose(results[1], results[0], rtol=1e-4)


def test_eager():
    x, y = data(2)
    model = network(2)
    model.compile("sgd", loss=malis_loss2d, run_eagerly=True)
    assert model.evaluate(x, y, verbose=0) == pytest.approx(expected(model, x, y), rel=1e-5)
    model.fit(x, y, verbose=0)
    with pytest.raises(ValueError, match="y_true must hold labels of at least 0, got -1"):
        model.evaluate(x, y - 1, verbose=0)


def test_wrong_values_in_compiled_steps_name_the_argument():
    x, y = data(2)
    model = network(2)
    model.compile("sgd", loss=malis_loss2d)
    with pytest.raises(Exception, match="y_true must hold labels of at least 0, got -1"):
        float(model.evaluate(x, y - 1, verbose=0))  # JAX tells when the number is read
    with pytest.raises(Exception, match="y_pred must have one channel for each of the 2 offsets"):
        wrong = network(2, channels=3)
        wrong.compile("sgd", loss=malis_loss2d)
        wrong.fit(x, y, verbose=0)


# --------------------------------------------------------------------------------------------------- saving
OPTIONS = {
    "nhood": [[-1, 0], [0, -1], [-3, 2]],
    "margin": 0.1,
    "pos_loss_weight": 0.7,
    "normalize": False,
    "pointwise": "cross_entropy",
    "from_logits": True,
    "constrain_positive": False,
    "constrain_negative": False,
    "ignore_background": False,
    "ignore_label": -1,
    "connect_labels": True,
    "num_threads": 1,
    "data_format": "channels_first",
    "reduction": "sum",
    "name": "splits_and_merges",
    "dtype": "float64",
}


def test_config():
    loss = MalisLoss(np.array(OPTIONS["nhood"]), **{k: v for k, v in OPTIONS.items() if k != "nhood"})
    assert loss.get_config() == OPTIONS
    assert MalisLoss.from_config(loss.get_config()).get_config() == OPTIONS
    other = keras.losses.deserialize(keras.losses.serialize(loss))
    assert type(other) is MalisLoss
    assert other.get_config() == OPTIONS
    assert MalisLoss().get_config() == MalisLoss.from_config(MalisLoss().get_config()).get_config()
    assert keras.losses.deserialize(keras.losses.serialize(malis_loss2d)) is malis_loss2d


LOAD = """
import sys, keras, numpy as np
import malis.malis_keras
model = keras.saving.load_model(sys.argv[1])
arrays = np.load(sys.argv[2])
print(model.evaluate(arrays["x"], arrays["y"], batch_size=6, verbose=0))
"""


@pytest.mark.slow
@pytest.mark.parametrize("as_class", [False, True])
def test_save_and_load_a_compiled_model(as_class, tmp_path):
    x, y = data(2)
    model = network(2)
    model.compile("adam", loss=MalisLoss(margin=0.1) if as_class else malis_loss2d)
    model.fit(x, y, verbose=0)
    file = tmp_path / "model.keras"
    model.save(file)
    value = model.evaluate(x, y, batch_size=6, verbose=0)
    loaded = keras.saving.load_model(file)
    assert loaded.evaluate(x, y, batch_size=6, verbose=0) == pytest.approx(value, rel=1e-5)
    loaded.fit(x, y, verbose=0)
    if as_class:
        assert loaded.loss.get_config() == model.loss.get_config()
        np.savez(tmp_path / "arrays.npz", x=x, y=y)
        command = [sys.executable, "-c", LOAD, str(file), str(tmp_path / "arrays.npz")]
        result = subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ)
        assert float(result.stdout) == pytest.approx(value, rel=1e-5), result.stderr


@pytest.mark.slow
def test_the_page_for_users_runs():
    page = Path(__file__).parents[2] / "docs" / "keras.md"
    names: dict = {}
    for block in re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL):
        exec(compile(block, str(page), "exec"), names)
    assert len(names["history"].history["loss"]) == 2
    assert names["sizes"].sum() == 64 * 64


def test_examples_of_the_documentation():
    failed, tried = doctest.testmod(sys.modules["malis.malis_keras"])
    assert tried > 10
    assert failed == 0


# ----------------------------------------------------------------------------------------- one backend alone
@pytest.mark.frameworks("keras-tensorflow")
def test_tf_data_with_an_unknown_batch():
    x, y = data(2)
    dataset = tf.data.Dataset.from_tensor_slices((x, y)).batch(4)  # 4, then 2
    assert dataset.element_spec[0].shape[0] is None
    model = network(2)
    model.compile("sgd", loss=malis_loss2d)
    assert model.evaluate(dataset, verbose=0) == pytest.approx(expected(model, x, y), rel=1e-5)
    model.fit(dataset.repeat(), steps_per_epoch=4, epochs=2, verbose=0)


@pytest.mark.frameworks("keras-tensorflow")
def test_mirrored_strategy():
    x, y = data(2)
    results = []
    for devices in (["CPU:0"], ["CPU:0", "CPU:1"]):
        keras.utils.set_random_seed(0)
        strategy = tf.distribute.MirroredStrategy(devices)
        assert strategy.num_replicas_in_sync == len(devices)
        with strategy.scope():
            model = network(2)
            model.compile("sgd", loss=MalisLoss())
        before = model.get_weights()
        model.fit(tf.data.Dataset.from_tensor_slices((x, y)).batch(6), epochs=2, verbose=0)
        results.append(model.get_weights())
        assert not np.array_equal(before[0], results[-1][0])
    for one, two in zip(*results, strict=True):
        np.testing.assert_allclose(two, one, rtol=1e-4, atol=1e-6)


@pytest.mark.frameworks("keras-tensorflow")
def test_loss_gradient_and_steps_of_two_replicas_are_those_of_one():
    x, y = data(2)
    results = []
    for devices in (["CPU:0"], ["CPU:0", "CPU:1"]):
        keras.utils.set_random_seed(0)
        strategy = tf.distribute.MirroredStrategy(devices)
        with strategy.scope():
            model = network(2)
            criterion = AffinityLoss(NEAREST[2], warmup=1, from_logits=False)

        def step(batch, model=model, criterion=criterion):
            with tf.GradientTape() as tape:
                # Keras divides the mean of a share by the number of replicas, which add up their gradients.
                loss = tf.reduce_sum(criterion(batch[1], model(batch[0])))
            return loss, tape.gradient(loss, model.trainable_variables)

        dataset = strategy.experimental_distribute_dataset(tf.data.Dataset.from_tensor_slices((x, y)).batch(6))
        (batch,) = dataset
        values = []
        for _ in range(3):  # the first is the warm-up
            losses, gradients = strategy.run(step, (batch,))
            values.append(float(strategy.reduce("sum", losses, axis=None)))
            last = [np.asarray(strategy.reduce("sum", g, axis=None)) for g in gradients]
        results.append((values, last, criterion.get_config()["step"]))
    (one, gradients, steps), (both, of_both, steps_of_both) = results
    assert one[1] != one[0] and one[2] == pytest.approx(one[1], abs=1e-6)
    assert steps == steps_of_both == 3
    np.testing.assert_allclose(both, one, rtol=0, atol=1e-6)
    for first, second in zip(gradients, of_both, strict=True):
        np.testing.assert_allclose(second, first, rtol=0, atol=1e-6)


@pytest.mark.frameworks("keras-tensorflow")
def test_jit_compile_is_an_error_that_says_what_to_do():
    x, y = data(2)
    model = network(2)
    model.compile("sgd", loss=malis_loss2d, jit_compile=True)
    with pytest.raises(NotImplementedError, match="jit_compile=False"):
        model.fit(x, y, verbose=0)
    model.compile("sgd", loss=malis_loss2d)  # "auto" is False on the CPU
    model.fit(x, y, verbose=0)


@pytest.mark.frameworks("keras-jax")
def test_jit_compile():
    x, y = data(2)
    values = []
    for jit_compile in (True, False):
        keras.utils.set_random_seed(0)
        model = network(2)
        model.compile("sgd", loss=malis_loss2d, jit_compile=jit_compile)
        values.append(model.fit(x, y, epochs=2, verbose=0).history["loss"])
    np.testing.assert_allclose(values[0], values[1], rtol=1e-5)
