"""The JAX adapter: transformations, devices, sharding; what all adapters promise is in test_conformance.py."""

from __future__ import annotations

import functools
import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest

import malis
from frameworks import NEAREST, case, masks, require

require(["jax"])

import jax  # noqa: E402
import jax.export  # noqa: E402

from malis import malis_jax  # noqa: E402
from malis._adapters import jax_op  # noqa: E402
from malis._adapters.settings import as_tuples  # noqa: E402
from malis.malis_jax import malis_loss, malis_loss2d, malis_loss3d  # noqa: E402

FUNCTIONS = {2: malis_loss2d, 3: malis_loss3d}
ndims = pytest.mark.parametrize("ndim", [2, 3])


@ndims
def test_jit_grad_and_value_and_grad(ndim):
    seg, aff = case(ndim)
    core = malis.malis_loss(aff, seg, NEAREST[ndim])
    function = jax.value_and_grad(FUNCTIONS[ndim], argnums=1)
    for call in (function, jax.jit(function)):
        loss, grad = call(seg, aff)
        np.testing.assert_allclose(loss, core.loss.mean(), rtol=1e-6)
        np.testing.assert_allclose(grad, core.grad / 3, rtol=1e-6)
    np.testing.assert_array_equal(jax.jit(jax.grad(FUNCTIONS[ndim], argnums=1))(seg, aff), grad)


def test_single_samples_and_batches():
    seg, aff = case(3)
    core = malis.malis_loss(aff, seg, NEAREST[3])
    np.testing.assert_allclose(malis_loss(aff, seg, NEAREST[3]), core.loss, rtol=1e-6)
    one = malis_loss(aff[1], seg[1], NEAREST[3])
    assert one.shape == ()
    np.testing.assert_allclose(one, core.loss[1], rtol=1e-6)
    with pytest.raises(ValueError, match=r"aff must have one channel for each of the 3 offsets of nhood"):
        malis_loss(aff[1, :2], seg[1], NEAREST[3])
    with pytest.raises(ValueError, match=r"seg must have 3 axes as nhood has columns"):
        malis_loss(aff[1], seg, NEAREST[3])
    with pytest.raises(ValueError, match=r"seg must hold labels of at least 0, got -1"):
        malis_loss(aff[1], seg[1] - 1, NEAREST[3])


def test_masks_of_a_single_sample():
    seg, aff = case(2)
    edges, voxels = masks(2)
    core = malis.malis_loss(aff, seg, NEAREST[2], edge_mask=edges, unlabelled_mask=voxels)
    for b in range(3):
        loss = malis_loss(aff[b], seg[b], NEAREST[2], edges[b], voxels[b])
        np.testing.assert_allclose(loss, core.loss[b], rtol=1e-6)


# Where an argument comes from: NumPy, an array on a device, an argument of a function that is traced.
PLACES = ["numpy", "device", "traced"]


@pytest.mark.parametrize("masks_are", PLACES)
@pytest.mark.parametrize("output_is", PLACES)
@pytest.mark.parametrize("labels_are", PLACES)
def test_mixtures_of_places(labels_are, output_is, masks_are):
    seg, aff = case(2)
    edges, voxels = masks(2)
    core = malis.malis_loss(aff, seg, NEAREST[2], edge_mask=edges, unlabelled_mask=voxels)
    arguments = {"seg_gt": seg, "output": aff, "edge_mask": edges, "unlabelled_mask": voxels}
    places = dict(zip(arguments, (labels_are, output_is, masks_are, masks_are), strict=True))
    given = {name: a if places[name] == "numpy" else jax.device_put(a) for name, a in arguments.items()}
    traced = {name: given.pop(name) for name, place in places.items() if place == "traced"}

    def function(traced):
        return malis_loss2d(**given, **traced)

    np.testing.assert_allclose(jax.jit(function)(traced), core.loss.mean(), rtol=1e-6)
    # Of abstract arrays there are shapes and dtypes alone.
    result = jax.eval_shape(function, {name: jax.ShapeDtypeStruct(a.shape, a.dtype) for name, a in traced.items()})
    assert (result.shape, result.dtype) == ((), np.float32)
    if "output" in traced:
        grad = jax.jit(jax.grad(function, allow_int=True))(traced)["output"]
        np.testing.assert_allclose(grad, core.grad / 3, rtol=1e-6, atol=1e-9)


def test_abstract_arrays_outside_of_a_trace():
    seg, aff = case(2)
    abstract = jax.ShapeDtypeStruct(aff.shape, aff.dtype)
    with pytest.raises(TypeError, match="output must be an array of numbers"):
        malis_loss2d(seg, abstract)
    with pytest.raises(TypeError, match="seg_gt must be an array of numbers"):
        malis_loss2d(jax.ShapeDtypeStruct(seg.shape, seg.dtype), aff)


@pytest.mark.parametrize("in_axes", [(0, 0), (None, 0), (0, None), (0, 2)], ids=str)
def test_vmap(in_axes):
    seg, aff = case(2, batch=4)
    stacks = [
        stack[0] if axis is None else np.moveaxis(stack, 0, axis)
        for stack, axis in zip((seg, aff), in_axes, strict=True)
    ]
    core = [
        malis.malis_loss(aff[0 if in_axes[1] is None else i], seg[0 if in_axes[0] is None else i], NEAREST[2])
        for i in range(4)
    ]

    def loss_of(s, a):
        return malis_loss(a, s, NEAREST[2])

    losses = jax.vmap(loss_of, in_axes)(*stacks)
    np.testing.assert_allclose(losses, [loss for loss, _ in core], rtol=1e-6)
    grads = jax.jit(jax.vmap(jax.grad(loss_of, argnums=1), in_axes))(*stacks)
    np.testing.assert_allclose(grads, np.stack([grad for _, grad in core]), rtol=1e-6)


def test_order_of_earlier_versions():
    seg, aff = case(2)
    expected, grad = jax.value_and_grad(malis_loss)(aff[0], seg[0], NEAREST[2])
    with pytest.warns(DeprecationWarning, match=r"takes \(aff, seg, nhood\)"):
        assert malis_loss(seg[0], aff[0], NEAREST[2]) == expected
    with pytest.warns(DeprecationWarning, match=r"takes \(aff, seg, nhood\)"):
        old = jax.grad(malis_loss, argnums=1)(seg[0].astype(np.float32), aff[0], NEAREST[2])
    np.testing.assert_array_equal(old, grad)
    assert malis_loss(seg=seg[0], aff=aff[0], nhood=NEAREST[2]) == expected


def test_vmap_over_batches():
    seg, aff = case(2, batch=6)
    edges, voxels = masks(2, batch=6)
    core = malis.malis_loss(aff, seg, NEAREST[2], edge_mask=edges, unlabelled_mask=voxels)
    pairs = [a.reshape(2, 3, *a.shape[1:]) for a in (seg, aff, edges, voxels)]
    losses = jax.vmap(lambda *arrays: malis_loss2d(*arrays, reduction="none"))(*pairs)
    np.testing.assert_allclose(losses, core.loss.reshape(2, 3), rtol=1e-6)


@ndims
def test_channels_last(ndim):
    seg, aff = case(ndim)
    expected = jax.value_and_grad(FUNCTIONS[ndim], argnums=1)(seg, aff)
    function = jax.value_and_grad(lambda s, o: FUNCTIONS[ndim](s, o, data_format="channels_last"), argnums=1)
    loss, grad = jax.jit(function)(seg[..., None], np.moveaxis(aff, 1, -1))
    np.testing.assert_array_equal(loss, expected[0])
    np.testing.assert_array_equal(np.moveaxis(grad, -1, 1), expected[1])


def test_wrong_values_in_compiled_code():
    seg, aff = case(2)
    with pytest.raises(jax.errors.JaxRuntimeError, match="output must not contain NaN"):
        jax.block_until_ready(jax.jit(malis_loss2d)(seg, aff * np.nan))


def test_labels_that_jax_would_cut_are_an_error():
    seg, aff = case(2)
    with pytest.raises(ValueError, match="seg_gt must hold numbers up to 2147483647 while jax_enable_x64 is off"):
        malis_loss2d(seg.astype(np.int64) + 2**32, aff)


def test_derivatives_that_there_are_not():
    seg, aff = case(2)

    def first(out):
        return jax.grad(malis_loss2d, argnums=1)(seg, out)

    for function in (jax.grad(lambda out: first(out).sum()), jax.jacrev(first), jax.jit(jax.jacrev(first))):
        with pytest.raises(NotImplementedError, match="first derivative only"):
            function(aff)
    with pytest.raises(TypeError, match="forward-mode"):
        jax.jvp(lambda out: malis_loss2d(seg, out), (aff,), (aff,))


def test_no_python_in_the_loop(monkeypatch):
    seg, aff = case(2)
    compiled = jax.jit(malis_loss2d)
    expected = compiled(seg, aff)
    text = compiled.lower(seg, aff).as_text()
    assert "@malis_loss" in text
    assert "callback" not in text
    for module, names in ((malis_jax, ("_evaluate", "losses_of_samples")), (jax_op, ("_losses", "_call"))):
        for name in names:
            monkeypatch.setattr(module, name, None)
    assert compiled(seg, aff) == expected


@pytest.mark.parametrize("batch", [1, 3, 4, 49])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_gradient_of_the_core_is_handed_on(batch, reduction):
    """Where nothing is left to multiply with, no second array as large as the output is made."""
    seg, aff = case(2, batch)
    function = functools.partial(malis_loss2d, reduction=reduction)
    compiled = jax.jit(jax.value_and_grad(function, argnums=1)).lower(seg, aff).compile()
    shape = re.escape(f"f32[{','.join(map(str, aff.shape))}]")
    made_by = set(re.findall(rf" = {shape}\S* ([\w-]+)\(", compiled.as_text()))
    assert made_by == {"parameter", "get-tuple-element"}
    core = malis.malis_loss(aff, seg, NEAREST[2])
    _, grad = compiled(seg, aff)
    np.testing.assert_allclose(grad, core.grad / (batch if reduction == "mean" else 1), rtol=1e-6)
    weights = np.arange(batch, dtype=np.float32)
    weighted = jax.jit(jax.grad(lambda o: 2**15 * (malis_loss2d(seg, o, reduction="none") * weights).mean()))(aff)
    np.testing.assert_allclose(weighted, core.grad * (2**15 / batch * weights)[:, None, None, None], rtol=1e-6)


def test_gradients_of_mapped_and_exported_means():
    seg, aff = case(2, batch=6)
    core = malis.malis_loss(aff, seg, NEAREST[2])
    pairs = [a.reshape(2, 3, *a.shape[1:]) for a in (seg, aff)]
    grads = jax.vmap(jax.grad(malis_loss2d, argnums=1))(*pairs)
    np.testing.assert_allclose(grads.reshape(aff.shape), core.grad / 3, rtol=1e-6)
    means = jax.grad(lambda o: jax.vmap(malis_loss2d)(pairs[0], o).mean())(pairs[1])
    np.testing.assert_allclose(means.reshape(aff.shape), core.grad / 6, rtol=1e-6)

    (batch,) = jax.export.symbolic_shape("batch")
    unknown = [jax.ShapeDtypeStruct((batch, *a.shape[1:]), a.dtype) for a in (seg, aff)]
    allowed = [jax.export.DisabledSafetyCheck.custom_call("malis_loss")]
    exported = jax.export.export(jax.jit(jax.grad(malis_loss2d, argnums=1)), disabled_checks=allowed)(*unknown)
    np.testing.assert_allclose(exported.call(seg, aff), core.grad / 6, rtol=1e-6, atol=1e-7)


def test_through_the_host_as_on_other_platforms():
    seg, aff = case(3)
    edges, voxels = masks(3)
    options = jax_op.Options()
    for both in ((), (edges, voxels)):
        static = jax_op._Static(as_tuples(NEAREST[3]), options, jax_op.Names(), None, bool(both), bool(both))
        on_cpu = jax.jit(jax_op._on_cpu, static_argnums=0)(static, aff, seg, *both)
        through_host = jax.jit(jax_op._through_host, static_argnums=0)(static, aff, seg, *both)
        for one, two in zip(on_cpu, through_host, strict=True):
            np.testing.assert_array_equal(one, two)
    mapped = jax.vmap(lambda a: jax_op._through_host(static, a, seg, edges, voxels)[0])(aff[None])
    np.testing.assert_array_equal(mapped[0], on_cpu[0])
    last = [np.moveaxis(a, 1, -1) for a in (aff, edges)]
    for call in (jax_op._on_cpu, jax_op._through_host):
        static = static._replace(channels_last=True)
        losses, grad = jax.jit(call, static_argnums=0)(static, last[0], seg, last[1], voxels)
        np.testing.assert_array_equal(losses, on_cpu[0])
        np.testing.assert_array_equal(np.moveaxis(grad, -1, 1), on_cpu[1])


SEVERAL_DEVICES = """
    import importlib, jax, numpy as np, malis
    from functools import partial
    from jax.sharding import Mesh, NamedSharding, PartitionSpec as P
    from frameworks import NEAREST, case
    from malis.malis_jax import malis_loss2d

    assert jax.device_count() == 2
    seg, aff = case(2, batch=4)
    core = malis.malis_loss(aff, seg, NEAREST[2])
    halves = [a.reshape(2, 2, *a.shape[1:]) for a in (seg, aff)]
    each = partial(malis_loss2d, reduction="none")
    losses = jax.pmap(each)(*halves)
    np.testing.assert_allclose(losses.reshape(-1), core.loss, rtol=1e-6)
    grads = jax.pmap(jax.grad(lambda o, s: each(s, o).sum()))(halves[1], halves[0])
    np.testing.assert_allclose(grads.reshape(aff.shape), core.grad, rtol=1e-6)

    # A sharded batch, partitioned by XLA, and by the user, when every device counts its own samples.
    sharding = NamedSharding(Mesh(np.array(jax.devices()), ("batch",)), P("batch"))
    labels, output = jax.device_put((seg, aff), sharding)
    # JAX 0.6.0 and older have it elsewhere.
    shard_map = getattr(jax, "shard_map", None) or importlib.import_module("jax.experimental.shard_map").shard_map
    mapped = shard_map(each, mesh=sharding.mesh, in_specs=P("batch"), out_specs=P("batch"))
    for function, gathers in ((each, True), (mapped, False)):
        step = jax.jit(jax.value_and_grad(lambda o, s, function=function: function(s, o).mean()))
        compiled = step.lower(output, labels).compile()
        assert ("all-gather" in compiled.as_text()) is gathers
        loss, grad = compiled(output, labels)
        np.testing.assert_allclose(loss, core.loss.mean(), rtol=1e-6)
        np.testing.assert_allclose(grad, core.grad / 4, rtol=1e-6)

    jax.config.update("jax_enable_x64", True)
    wide = aff.astype(np.float64)
    loss, grad = jax.value_and_grad(malis_loss2d, argnums=1)(seg.astype(np.int64) + 2**40 * (seg > 0), wide)
    assert loss.dtype == grad.dtype == np.float64
    np.testing.assert_allclose(loss, malis.malis_loss(wide, seg, NEAREST[2]).loss.mean(), rtol=1e-14)
    print("done")
"""


def test_several_devices_and_64_bits():
    environment = {
        **os.environ,
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": "--xla_force_host_platform_device_count=2",
        "PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[1]), *sys.path]),
    }
    command = [sys.executable, "-c", textwrap.dedent(SEVERAL_DEVICES)]
    result = subprocess.run(command, capture_output=True, text=True, check=False, env=environment, timeout=300)
    assert result.stdout.strip() == "done", result.stderr


@pytest.mark.slow
def test_the_page_for_users_runs():
    page = Path(__file__).parents[2] / "docs" / "jax.md"
    names: dict = {}
    for block in re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL):
        exec(compile(block, str(page), "exec"), names)
    assert names["losses"].shape == (4,)
    assert names["history"][-1] < names["history"][0]
    assert names["sizes"].sum() == 64 * 64


def test_examples_of_the_documentation():
    import doctest

    failed, tried = doctest.testmod(malis_jax)
    assert tried > 10
    assert failed == 0
