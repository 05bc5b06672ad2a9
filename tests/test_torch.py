"""The PyTorch adapter: the numbers of the NumPy core, wherever PyTorch can take a loss."""

from __future__ import annotations

import copy
import itertools
import pickle
import re
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest

import malis

torch = pytest.importorskip("torch", reason="PyTorch is not installed")

from malis._adapters import host  # noqa: E402
from malis._options import Options  # noqa: E402
from malis.loss import batch_loss  # noqa: E402
from malis.malis_torch import MalisLoss, malis_loss2d, malis_loss3d  # noqa: E402

FUNCTIONS = {2: malis_loss2d, 3: malis_loss3d}
NEAREST = {2: malis.mknhood2d(), 3: malis.mknhood3d()}
SHAPES = {2: (14, 11), 3: (5, 7, 6)}

ndims = pytest.mark.parametrize("ndim", [2, 3])


@pytest.fixture(autouse=True)
def one_thread_of_pytorch():
    """Problems this small only wait for PyTorch's threads; those of malis are left alone."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def labels(batch: int, shape: tuple[int, ...], seed: int = 0) -> torch.Tensor:
    """Blocky labels 0 to 3, so that objects touch, and some are in pieces."""
    generator = torch.Generator().manual_seed(seed)
    seg = torch.randint(0, 4, (batch, *[(n + 2) // 3 for n in shape]), generator=generator)
    for axis in range(len(shape)):
        seg = seg.repeat_interleave(3, axis + 1).narrow(axis + 1, 0, shape[axis])
    return seg.contiguous()


def tie_free(shape: tuple[int, ...], seed: int = 0, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    """Affinities strictly within 0 and 1, each one once in a sample."""
    generator = torch.Generator().manual_seed(seed)
    n = int(np.prod(shape[1:]))
    values = [(torch.randperm(n, generator=generator) + 1).to(dtype) / (n + 1) for _ in range(shape[0])]
    return torch.stack(values).reshape(shape)


def case(ndim: int, batch: int = 3, dtype: torch.dtype = torch.float64, seed: int = 0):
    shape = SHAPES[ndim]
    return labels(batch, shape, seed), tie_free((batch, ndim, *shape), seed, dtype)


def masks(ndim: int, batch: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(7)
    edges = torch.rand((batch, ndim, *SHAPES[ndim]), generator=generator) > 0.2
    return edges, torch.rand((batch, *SHAPES[ndim]), generator=generator) > 0.8


def value_and_grad(loss_of, output: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    output = output.detach().clone().requires_grad_()
    loss = loss_of(output)
    return loss.detach(), torch.autograd.grad(loss.sum(), output)[0]


def core(seg: torch.Tensor, output: torch.Tensor, nhood, **options) -> tuple[torch.Tensor, torch.Tensor]:
    """Loss of each sample and its gradient, by `malis.malis_loss` on one sample after the other."""
    each = [
        malis.malis_loss(
            output[b].detach().numpy(),
            seg[b].numpy(),
            nhood,
            **{name: value[b].numpy() if torch.is_tensor(value) else value for name, value in options.items()},
        )
        for b in range(len(output))
    ]
    losses = torch.tensor([loss for loss, _ in each], dtype=torch.float64)
    return losses, torch.stack([torch.from_numpy(grad) for _, grad in each])


# ------------------------------------------------------------------------------------------------ the numbers
OPTIONS = [
    {},
    {"margin": 0.0},
    {"pos_loss_weight": 0.9, "normalize": False},
    {"pointwise": "cross_entropy"},
    {"from_logits": True},
    {"from_logits": True, "pointwise": "cross_entropy"},
    {"constrain_positive": False},
    {"constrain_negative": False},
    {"constrain_positive": False, "constrain_negative": False, "ignore_background": False},
]


@ndims
@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("masked", [False, True])
def test_equals_numpy_core(ndim: int, options: dict, masked: bool) -> None:
    seg, output = case(ndim)
    if options.get("from_logits"):
        output = torch.logit(output)
    both = dict(zip(("edge_mask", "unlabelled_mask"), masks(ndim), strict=True)) if masked else {}
    losses, grads = core(seg, output, NEAREST[ndim], **options, **both)
    assert losses.min() > 0
    for loss_of in (
        lambda out: FUNCTIONS[ndim](seg, out, **both, **options, reduction="none"),
        lambda out: MalisLoss(**options, reduction="none")(seg, out, **both),
    ):
        loss, grad = value_and_grad(loss_of, output)
        torch.testing.assert_close(loss, losses, rtol=1e-12, atol=0)
        torch.testing.assert_close(grad, grads, rtol=1e-12, atol=0)
        loss32, grad32 = value_and_grad(loss_of, output.float())
        assert loss32.dtype == grad32.dtype == torch.float32
        torch.testing.assert_close(loss32.double(), losses, rtol=1e-6, atol=1e-6)
        torch.testing.assert_close(grad32.double(), grads, rtol=1e-4, atol=1e-6 * float(grads.abs().max()))


def test_known_value() -> None:
    # Two objects of two pixels each, with affinities 0.9, 0.6 and 0.4 between the pixels.
    seg = torch.tensor([[[1, 1, 2, 2]]])
    output = torch.zeros(1, 2, 1, 4, dtype=torch.float64)
    output[0, 1, 0] = torch.tensor([0.0, 0.9, 0.6, 0.4], dtype=torch.float64)
    loss, grad = value_and_grad(lambda out: malis_loss2d(seg, out), output)
    assert loss.item() == pytest.approx(0.5 * (0.7 - 0.4) ** 2 + (0.6 - 0.3) ** 2, abs=1e-12)
    expected = torch.zeros_like(output)
    expected[0, 1, 0, 2], expected[0, 1, 0, 3] = 2 * (0.6 - 0.3), -(0.7 - 0.4)
    torch.testing.assert_close(grad, expected)


@ndims
def test_without_objects_the_loss_is_zero(ndim: int) -> None:
    seg, output = case(ndim)
    loss, grad = value_and_grad(lambda out: MalisLoss()(torch.zeros_like(seg), out), output)
    assert loss == 0
    assert not grad.any()


LABEL_DTYPES = ["uint8", "int8", "int16", "int32", "int64", "uint16", "uint32", "uint64"]
FLOAT_DTYPES = ["float16", "bfloat16", "float32", "float64"]


@ndims
@pytest.mark.parametrize("dtype", LABEL_DTYPES + FLOAT_DTYPES)
@pytest.mark.parametrize("channel", [False, True])
def test_labels_of_any_dtype_with_and_without_channel(ndim: int, dtype: str, channel: bool) -> None:
    seg, output = case(ndim)
    expected = core(seg, output, NEAREST[ndim])[0].mean()
    given = seg.to(getattr(torch, dtype))
    loss = MalisLoss()(given.unsqueeze(1) if channel else given, output)
    torch.testing.assert_close(loss, expected, rtol=1e-12, atol=0)


@ndims
def test_bool_labels(ndim: int) -> None:
    seg, output = case(ndim)
    torch.testing.assert_close(MalisLoss()(seg > 1, output), MalisLoss()((seg > 1).int(), output))
    assert MalisLoss()(seg > 1, output) != MalisLoss()(seg, output)


def test_float_labels_beyond_float32_integers_stay_apart() -> None:
    seg = torch.tensor([[[2**53 - 1, 2**53 - 2]]])
    output = torch.full((1, 2, 1, 2), 0.5, dtype=torch.float64)
    assert malis_loss2d(seg.double(), output) == malis_loss2d(seg, output) > 0


@ndims
def test_no_gradient_for_the_labels(ndim: int) -> None:
    seg, output = case(ndim)
    seg = seg.double().requires_grad_()
    output.requires_grad_()
    MalisLoss()(seg, output).backward()
    assert seg.grad is None
    assert output.grad.any()
    assert not MalisLoss()(seg, output.detach()).requires_grad


@ndims
def test_batch_equals_single_samples(ndim: int) -> None:
    seg, output = case(ndim, batch=5)
    edge_mask, unlabelled = masks(ndim, batch=5)
    loss_of = MalisLoss(reduction="none")
    loss, grad = value_and_grad(lambda out: loss_of(seg, out, edge_mask, unlabelled.unsqueeze(1)), output)
    assert loss.shape == (5,)
    assert loss.unique().numel() == 5
    for b in range(5):
        one = slice(b, b + 1)
        single, single_grad = value_and_grad(
            lambda out, one=one: loss_of(seg[one], out, edge_mask[one], unlabelled[one]), output[one]
        )
        assert torch.equal(single, loss[one])
        assert torch.equal(single_grad, grad[one])


@ndims
def test_reductions(ndim: int) -> None:
    seg, output = case(ndim)
    each, each_grad = value_and_grad(lambda out: FUNCTIONS[ndim](seg, out, reduction="none"), output)
    mean, mean_grad = value_and_grad(lambda out: FUNCTIONS[ndim](seg, out, reduction="mean"), output)
    total, total_grad = value_and_grad(lambda out: FUNCTIONS[ndim](seg, out, reduction="sum"), output)
    default = FUNCTIONS[ndim](seg, output)
    assert mean.shape == total.shape == ()
    torch.testing.assert_close(mean, each.sum() / 3)
    torch.testing.assert_close(total, each.sum())
    torch.testing.assert_close(default, mean)
    torch.testing.assert_close(total_grad, each_grad)
    torch.testing.assert_close(mean_grad, each_grad / 3)


def test_upstream_gradient_of_each_sample() -> None:
    seg, output = case(2)
    _, grad = value_and_grad(lambda out: malis_loss2d(seg, out, reduction="none"), output)
    weights = torch.tensor([0.0, -2.0, 3.0], dtype=torch.float64)
    _, weighted = value_and_grad(lambda out: malis_loss2d(seg, out, reduction="none") * weights, output)
    torch.testing.assert_close(weighted, grad * weights[:, None, None, None])


@pytest.mark.parametrize("as_type", [np.asarray, torch.as_tensor, list, lambda n: np.asarray(n, np.float32)])
@pytest.mark.parametrize("nhood", [[[-1, 0], [0, -1], [-3, 2], [0, 4]], malis.mknhood2d(2).tolist()], ids=str)
def test_neighbourhoods(as_type, nhood: list[list[int]]) -> None:
    seg = labels(2, SHAPES[2])
    output = tie_free((2, len(nhood), *SHAPES[2]))
    expected = core(seg, output, nhood)[0].mean()
    assert malis_loss2d(seg, output, nhood=as_type(nhood)) == expected
    assert MalisLoss(as_type(nhood))(seg, output) == expected


def test_neighbourhood_of_anisotropic_volumes() -> None:
    nhood = malis.mknhood3d_aniso()
    seg = labels(2, SHAPES[3])
    output = tie_free((2, len(nhood), *SHAPES[3]))
    expected = core(seg, output, nhood)[0].mean()
    assert malis_loss3d(seg, output, nhood=nhood) == MalisLoss(nhood)(seg, output) == expected


def test_default_neighbourhood_follows_the_rank() -> None:
    loss = MalisLoss()
    for ndim in (2, 3):
        seg, output = case(ndim)
        assert loss(seg, output) == FUNCTIONS[ndim](seg, output, nhood=NEAREST[ndim])
    line = torch.tensor([[1, 1, 2]])
    assert loss(line, torch.tensor([[[0.0, 0.5, 0.6]]])).item() == pytest.approx(0.2**2 + 0.3**2)


@ndims
def test_any_number_of_threads(ndim: int) -> None:
    seg, output = case(ndim, batch=5)
    results = [
        value_and_grad(lambda out, n=n: MalisLoss(num_threads=n, reduction="none")(seg, out), output)
        for n in (1, 2, 3, 16, None)
    ]
    for loss, grad in results[1:]:
        assert torch.equal(loss, results[0][0])
        assert torch.equal(grad, results[0][1])


# ------------------------------------------------------------------------------------------ memory and dtypes
@ndims
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_tensors_are_not_copied(ndim: int, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def spy(aff, seg, nhood, **options):
        seen.extend([aff, seg, options["edge_mask"], options["unlabelled_mask"]])
        return batch_loss(aff, seg, nhood, **options)

    monkeypatch.setattr(host, "batch_loss", spy)
    seg, output = case(ndim, dtype=dtype)
    tensors = (output.requires_grad_(), seg.unsqueeze(1), *masks(ndim))
    MalisLoss()(tensors[1], tensors[0], *tensors[2:]).backward()
    assert [array.ctypes.data for array in seen] == [tensor.data_ptr() for tensor in tensors]


def not_contiguous(tensor: torch.Tensor) -> list[torch.Tensor]:
    format_of = {4: torch.channels_last, 5: torch.channels_last_3d}[tensor.dim()]
    padded = torch.nn.functional.pad(tensor, (2, 3))
    return [
        tensor.to(memory_format=format_of),
        tensor.transpose(-1, -2).contiguous().transpose(-1, -2),
        padded[..., 2:-3],
    ]


@ndims
def test_layouts(ndim: int) -> None:
    seg, output = case(ndim)
    edge_mask, unlabelled = (mask.byte() for mask in masks(ndim))
    expected = value_and_grad(lambda out: MalisLoss()(seg, out, edge_mask.bool(), unlabelled.bool()), output)
    others = zip(
        *[not_contiguous(tensor) for tensor in (output, edge_mask, seg[:, None], unlabelled[:, None])],
        strict=True,
    )
    for out, edges, voxels, hidden in others:
        assert not out.is_contiguous()
        out = out.detach().requires_grad_()
        loss = MalisLoss()(voxels, out, edges.bool(), hidden.bool())
        loss.backward()
        assert torch.equal(loss.detach(), expected[0])
        assert torch.equal(out.grad, expected[1])


@ndims
@pytest.mark.parametrize("masked", [False, True])
def test_channels_last_are_not_copied(ndim: int, masked: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def spy(aff, *args, **options):
        if options["channels_last"]:
            seen.append(aff)
        return batch_loss(aff, *args, **options)

    monkeypatch.setattr(host, "batch_loss", spy)
    seg, output = case(ndim)
    both = masks(ndim) if masked else ()
    expected = value_and_grad(lambda out: MalisLoss()(seg, out, *both), output)
    last = output.to(memory_format={2: torch.channels_last, 3: torch.channels_last_3d}[ndim]).requires_grad_()
    loss = MalisLoss()(seg, last, *both)
    loss.backward()
    assert [array.ctypes.data for array in seen] == [last.data_ptr()]
    assert last.grad.stride() == last.stride()
    assert torch.equal(loss.detach(), expected[0])
    assert torch.equal(last.grad, expected[1])


def test_expanded_labels() -> None:
    seg, output = case(2)
    same = seg[:1].expand(3, *SHAPES[2])
    assert same.stride(0) == 0
    assert malis_loss2d(same, output) == malis_loss2d(same.contiguous(), output)


@ndims
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_16_bits_are_evaluated_in_float32(ndim: int, dtype: torch.dtype) -> None:
    seg, output = case(ndim, dtype=torch.float32)
    output = output.to(dtype)
    loss, grad = value_and_grad(lambda out: MalisLoss()(seg, out), output)
    loss32, grad32 = value_and_grad(lambda out: MalisLoss()(seg, out), output.float())
    assert loss.dtype == torch.float32
    assert torch.equal(loss, loss32)
    assert grad.dtype == dtype
    assert torch.equal(grad, grad32.to(dtype))


def test_gradient_scaling_saves_small_gradients() -> None:
    shape = (128, 128)  # 134 million pairs in one object
    seg, output = torch.ones(1, *shape, dtype=torch.uint8), tie_free((1, 2, *shape), dtype=torch.float32)
    _, grad = value_and_grad(lambda out: malis_loss2d(seg, out), output.half().float())
    _, scaled = value_and_grad(lambda out: malis_loss2d(seg, out) * 2.0**16, output.half())
    lost = (grad != 0) & (grad.half() == 0)
    assert lost.any()  # float16 cannot hold them, before they are scaled
    assert scaled[lost].all()
    assert torch.equal(scaled, (grad * 2.0**16).half())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    network = torch.nn.Conv2d(1, 2, 3, padding=1)
    seg, _ = case(2)
    image = torch.rand(3, 1, *SHAPES[2])
    with torch.autocast("cpu", dtype=dtype):
        output = network(image)
        loss = malis_loss2d(seg, output, from_logits=True)
    assert output.dtype == dtype
    assert loss.dtype == torch.float32
    assert torch.equal(loss, malis_loss2d(seg, output.float(), from_logits=True))
    loss.backward()
    assert network.weight.grad.dtype == torch.float32
    assert network.weight.grad.isfinite().all()
    assert network.weight.grad.any()


# --------------------------------------------------------------------------------------------------- autograd
@ndims
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_gradcheck(ndim: int, options: dict) -> None:
    shape = {2: (5, 6), 3: (3, 3, 4)}[ndim]
    seg = labels(2, shape, seed=3)
    output = tie_free((2, ndim, *shape), seed=1)
    if options.get("from_logits"):
        output = torch.logit(output)
    loss = MalisLoss(**options, reduction="none")
    assert torch.autograd.gradcheck(lambda out: loss(seg, out), output.requires_grad_())


def test_gradcheck_with_masks() -> None:
    seg, output = case(2, batch=1)
    edge_mask, unlabelled = masks(2, batch=1)
    loss = MalisLoss()
    assert torch.autograd.gradcheck(lambda out: loss(seg, out, edge_mask, unlabelled), output.requires_grad_())


def test_a_second_derivative_is_an_error() -> None:
    seg, output = case(2)
    output.requires_grad_()
    _, first = value_and_grad(lambda out: malis_loss2d(seg, out), output)
    (grad,) = torch.autograd.grad(malis_loss2d(seg, output), output, create_graph=True)
    assert torch.equal(grad.detach(), first)
    with pytest.raises(RuntimeError, match="first derivative only"):
        (grad**2).sum().backward()
    with pytest.raises(RuntimeError, match="first derivative only"):
        torch.func.grad(lambda out: torch.func.grad(lambda o: malis_loss2d(seg, o))(out).sum())(output)


def test_backward_twice_over_a_kept_graph() -> None:
    seg, output = case(2)
    output.requires_grad_()
    loss = malis_loss2d(seg, output)
    loss.backward(retain_graph=True)
    once = output.grad.clone()
    loss.backward()
    assert torch.equal(output.grad, 2 * once)


def test_gradient_of_the_core_is_handed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nothing is left to multiply with, no second array as large as the output is made."""
    grads = []

    def spy(*args, **options):
        result = batch_loss(*args, **options)
        grads.append(result.grad)
        return result

    monkeypatch.setattr(host, "batch_loss", spy)
    seg, output = case(2)
    output.requires_grad_()
    for reduction in ("mean", "sum"):
        output.grad = None
        malis_loss2d(seg, output, reduction=reduction).backward()
        assert output.grad.data_ptr() == grads[-1].ctypes.data
    once = output.grad.clone()
    output.grad = None
    (3 * malis_loss2d(seg, output, reduction="sum")).backward()
    assert torch.equal(output.grad, 3 * once)
    assert np.array_equal(grads[-1], once.numpy())


def test_gradients_that_are_changed_in_place_spoil_no_other() -> None:
    seg, output = case(2)
    output.requires_grad_()
    loss = malis_loss2d(seg, output)
    loss.backward(retain_graph=True)
    once = output.grad.clone()
    output.grad.zero_()
    loss.backward(retain_graph=True)
    assert torch.equal(output.grad, once)
    output.grad.mul_(3)
    loss.backward()
    torch.testing.assert_close(output.grad, 4 * once)


@pytest.mark.parametrize("batch", [1, 3, 7])
def test_gradients_of_reduced_losses(batch: int) -> None:
    seg, output = case(2, batch)
    _, grads = value_and_grad(lambda out: malis_loss2d(seg, out, reduction="sum"), output)
    _, mean = value_and_grad(lambda out: malis_loss2d(seg, out), output)
    torch.testing.assert_close(mean, grads / batch)
    _, scaled = value_and_grad(lambda out: malis_loss2d(seg, out) * 2.0**15, output)
    torch.testing.assert_close(scaled, mean * 2.0**15)
    _, of_mapped = value_and_grad(lambda out: torch.vmap(malis_loss2d)(seg[None], out[None]).sum(), output)
    torch.testing.assert_close(of_mapped, mean)


def test_upstream_gradients_of_several_at_once() -> None:
    seg, output = case(2)
    output.requires_grad_()
    losses = malis_loss2d(seg, output, reduction="none")
    upstream = torch.cat([torch.eye(len(losses)), torch.ones(1, len(losses))])
    (together,) = torch.autograd.grad(losses, output, upstream, is_grads_batched=True, retain_graph=True)
    for vector, grad in zip(upstream, together, strict=True):
        (alone,) = torch.autograd.grad(losses, output, vector, retain_graph=True)
        torch.testing.assert_close(grad, alone)


def test_without_autograd() -> None:
    seg, output = case(2)
    expected = malis_loss2d(seg, output)
    with torch.no_grad():
        loss = malis_loss2d(seg, output.requires_grad_())
    assert not loss.requires_grad
    assert loss == expected
    with torch.inference_mode():
        assert malis_loss2d(seg, output * 1) == expected


# ---------------------------------------------------------------------------------- operator, compile, export
def arguments(ndim: int, masked: bool, dtype: torch.dtype, requires_grad: bool) -> tuple:
    seg, output = case(ndim, dtype=dtype)
    offsets = NEAREST[ndim].ravel().tolist()
    edge_mask, unlabelled = masks(ndim) if masked else (None, None)
    return (output.requires_grad_(requires_grad), seg, edge_mask, unlabelled, offsets)


KEYWORDS = {"scale": 1.0, **Options().as_keywords()}  # of the operator


@ndims
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16])
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("requires_grad", [False, True])
def test_opcheck(ndim: int, dtype: torch.dtype, masked: bool, requires_grad: bool) -> None:
    operator = torch.ops.malis.loss.default
    results = torch.library.opcheck(operator, arguments(ndim, masked, dtype, requires_grad), KEYWORDS)
    assert set(results.values()) == {"SUCCESS"}


def test_gradient_of_the_operator_itself() -> None:
    output, *rest = arguments(2, True, torch.float64, True)
    loss, grad = torch.ops.malis.loss(output, *rest, **KEYWORDS)
    assert not grad.requires_grad
    loss.sum().backward()
    assert torch.equal(output.grad, grad)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_fake_kernel_agrees_with_the_real_one(dtype: torch.dtype) -> None:
    contiguous, seg, *rest = arguments(3, False, dtype, False)
    for output in (contiguous, contiguous.to(memory_format=torch.channels_last_3d)):
        real = torch.ops.malis.loss(output, seg, *rest, **KEYWORDS)
        fake = torch.ops.malis.loss(output.to("meta"), seg.to("meta"), *rest, **KEYWORDS)
        for a, b in zip(real, fake, strict=True):
            assert b.device.type == "meta"
            assert (a.shape, a.dtype, a.stride()) == (b.shape, b.dtype, b.stride())


@pytest.fixture
def fresh_compiler():
    torch.compiler.reset()
    yield
    torch.compiler.reset()


@ndims
@pytest.mark.usefixtures("fresh_compiler")
def test_compile_module(ndim: int) -> None:
    loss_of = MalisLoss(NEAREST[ndim], from_logits=True)
    compiled = torch.compile(loss_of, fullgraph=True, backend="aot_eager")
    seg, output = case(ndim)
    both = masks(ndim)
    for extra in ((), both):
        expected = value_and_grad(lambda out, extra=extra: loss_of(seg, out, *extra), output)
        result = value_and_grad(lambda out, extra=extra: compiled(seg, out, *extra), output)
        torch.testing.assert_close(result, expected)


@pytest.mark.usefixtures("fresh_compiler")
def test_compile_with_a_dynamic_batch() -> None:
    graphs = []

    def counting(graph, inputs):
        graphs.append(graph)
        return graph.forward

    def loss_of(seg, logits):
        return malis_loss2d(seg, logits.sigmoid(), nhood=[[-1, 0], [0, -1]], margin=0.1, reduction="none")

    compiled = torch.compile(loss_of, fullgraph=True, backend=counting, dynamic=True)
    for batch in (3, 5, 8, 4):
        seg, output = case(2, batch=batch)
        expected = value_and_grad(lambda out, seg=seg: loss_of(seg, out), output)
        result = value_and_grad(lambda out, seg=seg: compiled(seg, out), output)
        assert torch.equal(result[0], expected[0])
        assert torch.equal(result[1], expected[1])
    assert len(graphs) == 1


@pytest.mark.usefixtures("fresh_compiler")
@pytest.mark.skipif(
    sys.platform == "win32" or not any(map(shutil.which, ("g++", "clang++", "c++"))),
    reason="Inductor needs a C++ compiler",
)
def test_compile_with_inductor() -> None:
    torch.manual_seed(0)
    network = torch.nn.Conv2d(1, 2, 3, padding=1).double()
    loss = MalisLoss()

    def step(seg, image):
        return loss(seg, network(image).sigmoid())

    seg, _ = case(2)
    image = torch.rand(3, 1, *SHAPES[2], dtype=torch.float64)
    for memory_format in (torch.contiguous_format, torch.channels_last):
        network, image = network.to(memory_format=memory_format), image.to(memory_format=memory_format)
        expected = step(seg, image)
        (expected_grad,) = torch.autograd.grad(expected, network.weight)
        result = torch.compile(step, fullgraph=True)(seg, image)
        (grad,) = torch.autograd.grad(result, network.weight)
        torch.testing.assert_close(result, expected)
        torch.testing.assert_close(grad, expected_grad)


@pytest.mark.usefixtures("fresh_compiler")
def test_values_are_checked_in_compiled_code() -> None:
    seg, output = case(2)
    compiled = torch.compile(MalisLoss(), fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(seg, output), MalisLoss()(seg, output))
    broken = output.clone()
    broken[1, 0, 2, 3] = float("nan")
    with pytest.raises(ValueError, match="output must not contain NaN"):
        compiled(seg, broken)
    with pytest.raises(ValueError, match=r"seg_gt must hold labels of at least 0, got -1"):
        compiled(seg - 1, output)
    options = torch.compile(
        lambda seg, out: malis_loss2d(seg, out, pointwise="hinge"), fullgraph=True, backend="aot_eager"
    )
    with pytest.raises(ValueError, match="pointwise must be one of"):
        options(seg, output)


@pytest.mark.usefixtures("fresh_compiler")
def test_arrays_of_offsets_in_compiled_functions() -> None:
    from torch._dynamo.exc import Unsupported

    seg, output = case(2)
    nhood = np.array([[-1, 0], [0, -2]])

    def loss_of(seg, out):
        return malis_loss2d(seg, out, nhood=nhood)

    # They cannot be traced: one graph is refused, otherwise this part runs in eager mode.
    with pytest.raises(Unsupported):
        torch.compile(loss_of, fullgraph=True, backend="eager")(seg, output)
    torch.compiler.reset()
    assert torch.compile(loss_of, backend="eager")(seg, output) == loss_of(seg, output)
    torch.compiler.reset()
    module = torch.compile(MalisLoss(nhood), fullgraph=True, backend="eager")
    assert module(seg, output) == loss_of(seg, output)


def test_export() -> None:
    seg, output = case(2)
    program = torch.export.export(MalisLoss(), (seg, output))
    assert any(node.target is torch.ops.malis.loss.default for node in program.graph.nodes)
    seg, output = case(2, seed=5)
    assert program.module()(seg, output) == MalisLoss()(seg, output)


# ---------------------------------------------------------------------------------------- function transforms
@pytest.mark.parametrize("in_dims", [(0, 0), (1, 0), (0, 2), (None, 0), (0, None), (-1, -1)], ids=str)
def test_vmap(in_dims: tuple[int | None, int | None]) -> None:
    segs = torch.stack([labels(3, SHAPES[2], seed) for seed in range(4)])
    outputs = torch.stack([tie_free((3, 2, *SHAPES[2]), seed) for seed in range(4)])
    arguments = [
        stack[0] if dim is None else stack.movedim(0, dim) for stack, dim in zip((segs, outputs), in_dims, strict=True)
    ]
    losses = torch.func.vmap(lambda s, o: malis_loss2d(s, o, reduction="none"), in_dims)(*arguments)
    for i in range(4):
        seg = segs[0 if in_dims[0] is None else i]
        output = outputs[0 if in_dims[1] is None else i]
        assert torch.equal(losses[i], malis_loss2d(seg, output, reduction="none"))


def test_vmap_twice_with_masks() -> None:
    segs = torch.stack([labels(6, SHAPES[2], seed) for seed in range(4)]).unflatten(1, (3, 2))
    outputs = torch.stack([tie_free((6, 2, *SHAPES[2]), seed) for seed in range(4)]).unflatten(1, (3, 2))
    edges, unlabelled = (mask.unflatten(0, (3, 2)) for mask in masks(2, batch=6))
    twice = torch.func.vmap(torch.func.vmap(malis_loss2d), (0, 0, None, None))
    losses = twice(segs, outputs, edges, unlabelled)
    for i, j in itertools.product(range(4), range(3)):
        assert losses[i, j] == malis_loss2d(segs[i, j], outputs[i, j], edges[j], unlabelled[j])


def test_vmap_of_the_operator() -> None:
    output, seg, *rest = arguments(2, False, torch.float64, False)
    outputs, segs = output.unsqueeze(1), seg.unsqueeze(1)
    loss, grad = torch.func.vmap(lambda o, s: torch.ops.malis.loss(o, s, *rest, **KEYWORDS))(outputs, segs)
    expected = torch.ops.malis.loss(output, seg, *rest, **KEYWORDS)
    assert torch.equal(loss[:, 0], expected[0])
    assert torch.equal(grad[:, 0], expected[1])


def test_func_grad() -> None:
    seg, output = case(2)
    _, expected = value_and_grad(lambda out: malis_loss2d(seg, out), output)
    grad, loss = torch.func.grad_and_value(malis_loss2d, argnums=1)(seg, output)
    assert torch.equal(grad, expected)
    assert torch.equal(loss, malis_loss2d(seg, output))


def test_func_grad_and_vmap_in_either_order() -> None:
    segs = torch.stack([labels(2, SHAPES[2], seed) for seed in range(4)])
    outputs = torch.stack([tie_free((2, 2, *SHAPES[2]), seed) for seed in range(4)])
    expected = torch.stack(
        [value_and_grad(lambda o, s=s: malis_loss2d(s, o), o)[1] for s, o in zip(segs, outputs, strict=True)]
    )
    inside = torch.func.vmap(torch.func.grad(malis_loss2d, argnums=1))(segs, outputs)
    outside = torch.func.grad(lambda o: torch.func.vmap(malis_loss2d)(segs, o).sum())(outputs)
    assert torch.equal(inside, expected)
    assert torch.equal(outside, expected)


def test_jacrev() -> None:
    seg, output = case(2)
    _, grad = value_and_grad(lambda out: malis_loss2d(seg, out, reduction="none"), output)
    jacobian = torch.func.jacrev(lambda out: malis_loss2d(seg, out, reduction="none"))(output)
    expected = torch.zeros_like(jacobian)
    for b in range(3):
        expected[b, b] = grad[b]
    assert torch.equal(jacobian, expected)


# ---------------------------------------------------------------------------------------------------- devices
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@ndims
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("labels_on", ["cpu", "cuda"])
def test_cuda(ndim: int, dtype: torch.dtype, labels_on: str) -> None:
    seg, output = case(ndim)
    output = output.to(dtype)
    both = masks(ndim)
    expected = value_and_grad(lambda out: MalisLoss()(seg, out, *both), output)
    there = [mask.to(labels_on) for mask in both]
    loss, grad = value_and_grad(lambda out: MalisLoss()(seg.to(labels_on), out, *there), output.cuda())
    assert loss.device.type == grad.device.type == "cuda"
    assert grad.dtype == dtype
    torch.testing.assert_close(loss.cpu(), expected[0])
    torch.testing.assert_close(grad.cpu(), expected[1])


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.usefixtures("fresh_compiler")
@pytest.mark.parametrize("mode", ["default", "reduce-overhead"])
def test_cuda_compiled(mode: str) -> None:
    pytest.importorskip("triton", reason="Inductor needs Triton")
    compiled = torch.compile(lambda s, o: malis_loss2d(s, o.sigmoid()), fullgraph=True, mode=mode)
    for seed in range(4):
        seg, output = case(2, dtype=torch.float32, seed=seed)
        expected = value_and_grad(lambda out, seg=seg: malis_loss2d(seg, out.sigmoid()), output)
        result = value_and_grad(lambda out, seg=seg: compiled(seg.cuda(), out), output.cuda())
        torch.testing.assert_close(result[0].cpu(), expected[0])
        torch.testing.assert_close(result[1].cpu(), expected[1])


@pytest.mark.skipif(not torch.backends.mps.is_available(), reason="no MPS device")
def test_mps() -> None:
    seg, output = case(2, dtype=torch.float32)
    expected = value_and_grad(lambda out: malis_loss2d(seg, out), output)
    loss, grad = value_and_grad(lambda out: malis_loss2d(seg.to("mps"), out), output.to("mps"))
    torch.testing.assert_close(loss.cpu(), expected[0])
    torch.testing.assert_close(grad.cpu(), expected[1])


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="worker processes are forked on Linux only")
def test_in_forked_data_loader_workers() -> None:
    # Another process, so that the threads of other libraries that this one has loaded are not forked along.
    script = """
        import torch
        from malis.malis_torch import MalisLoss

        torch.manual_seed(0)
        segs = torch.randint(0, 5, (6, 2, 40, 40))
        outputs = torch.rand(6, 2, 2, 40, 40)
        loss = MalisLoss(num_threads=4, reduction="none")

        class Losses(torch.utils.data.Dataset):
            def __len__(self):
                return len(segs)

            def __getitem__(self, i):
                output = outputs[i].clone().requires_grad_()
                value = loss(segs[i], output)
                return value.detach(), torch.autograd.grad(value.sum(), output)[0]

        expected = [Losses()[i] for i in range(6)]  # with threads, before the fork
        loader = torch.utils.data.DataLoader(
            Losses(), batch_size=None, num_workers=2, timeout=60, multiprocessing_context="fork"
        )
        for result, (value, grad) in zip(loader, expected, strict=True):
            assert torch.equal(result[0], value) and torch.equal(result[1], grad)
        print("done")
    """
    run = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, timeout=300)
    assert run.stdout.strip() == "done", run.stderr


# --------------------------------------------------------------------------------------------------- training
@pytest.mark.parametrize("ndim", [2, 3])
@pytest.mark.parametrize("from_logits", [False, True])
def test_training_lowers_the_loss(ndim: int, from_logits: bool) -> None:
    torch.manual_seed(0)
    seg, _ = case(ndim)
    convolution = {2: torch.nn.Conv2d, 3: torch.nn.Conv3d}[ndim]
    layers = [convolution(1, 16, 3, padding=1), torch.nn.ReLU(), convolution(16, ndim, 3, padding=1)]
    network = torch.nn.Sequential(*layers, *([] if from_logits else [torch.nn.Sigmoid()]))
    image = seg[:, None].float() - 1.5  # the grey tells the label
    loss_of = MalisLoss(from_logits=from_logits)
    optimizer = torch.optim.Adam(network.parameters(), lr=0.02)
    history = []
    for _ in range(60):
        optimizer.zero_grad()
        loss = loss_of(seg, network(image))
        loss.backward()
        optimizer.step()
        history.append(loss.item())
    assert max(history[-5:]) < 0.2 * history[0]


# ----------------------------------------------------------------------------------------------------- module
@pytest.fixture
def module() -> MalisLoss:
    return MalisLoss([[-1, 0], [0, -2]], margin=0.2, pointwise="cross_entropy", reduction="sum", num_threads=2)


def test_module_survives_pickling_and_copies(module: MalisLoss) -> None:
    seg, output = case(2)
    for other in (pickle.loads(pickle.dumps(module)), copy.deepcopy(module), copy.copy(module)):
        assert repr(other) == repr(module)
        assert other(seg, output) == module(seg, output)


def test_module_has_no_state(module: MalisLoss) -> None:
    assert module.state_dict() == {}
    assert list(module.parameters()) == list(module.buffers()) == []
    module.load_state_dict({})
    parent = torch.nn.ModuleDict({"network": torch.nn.Conv2d(1, 2, 1), "loss": module})
    assert set(parent.state_dict()) == {"network.weight", "network.bias"}


def test_module_repr(module: MalisLoss) -> None:
    assert repr(module) == (
        "MalisLoss(nhood=((-1, 0), (0, -2)), margin=0.2, pos_loss_weight=0.5, normalize=True, "
        "pointwise='cross_entropy', from_logits=False, constrain_positive=True, constrain_negative=True, "
        "ignore_background=True, num_threads=2, reduction='sum')"
    )


def test_module_options_can_change() -> None:
    seg, output = case(2)
    module = MalisLoss()
    module.margin = 0.1
    assert module(seg, output) == malis_loss2d(seg, output, margin=0.1) != malis_loss2d(seg, output)
    module.margin = float("inf")
    with pytest.raises(ValueError, match="margin must be a finite number, got inf"):
        module(seg, output)


def test_module_follows_to_and_train(module: MalisLoss) -> None:
    seg, output = case(2)
    expected = module(seg, output)
    assert module.double().half().eval().train()(seg, output) == expected


# -------------------------------------------------------------------------------------------------- bad input
SEG = torch.ones(2, 1, 4, 5, dtype=torch.int64)
OUT = torch.full((2, 2, 4, 5), 0.5)
NAN = OUT.clone()
NAN[1, 0, 2, 3] = float("nan")

BAD_TENSORS = [
    # seg_gt, output, edge_mask, unlabelled_mask, error, message
    (SEG.numpy(), OUT, None, None, TypeError, r"seg_gt must be a torch.Tensor, got ndarray"),
    (SEG, OUT.tolist(), None, None, TypeError, r"output must be a torch.Tensor, got list"),
    (SEG, OUT[0], None, None, ValueError, r"output must have shape \(B, K, H, W\), got .*\(2, 4, 5\)"),
    (
        SEG,
        OUT[..., None],
        None,
        None,
        ValueError,
        r"output must have shape \(B, K, H, W\), got .*\(2, 2, 4, 5, 1\)",
    ),
    (SEG, OUT[:, :1], None, None, ValueError, r"one channel for each of the 2 offsets .*\(2, 1, 4, 5\)"),
    (SEG, OUT[:0], None, None, ValueError, r"output must not be empty, got .*\(0, 2, 4, 5\)"),
    (SEG[..., :0], OUT[..., :0], None, None, ValueError, r"output must not be empty, got .*\(2, 2, 4, 0\)"),
    (SEG, OUT.long(), None, None, TypeError, r"output must have dtype float16.*torch.int64"),
    (SEG, OUT.cfloat(), None, None, TypeError, r"output must have dtype float16.*torch.complex64"),
    (SEG, NAN, None, None, ValueError, r"output must not contain NaN"),
    (
        SEG[:1],
        OUT,
        None,
        None,
        ValueError,
        r"seg_gt must have shape \(2, 4, 5\) or \(2, 1, 4, 5\) .*\(1, 1, 4, 5\)",
    ),
    (
        SEG[..., :4],
        OUT,
        None,
        None,
        ValueError,
        r"seg_gt must have shape .*\(2, 2, 4, 5\), got .*\(2, 1, 4, 4\)",
    ),
    (SEG.expand(2, 2, 4, 5), OUT, None, None, ValueError, r"seg_gt must have shape .*got .*\(2, 2, 4, 5\)"),
    (SEG[0, 0], OUT, None, None, ValueError, r"seg_gt must have shape .*got .*\(4, 5\)"),
    (SEG - 3, OUT, None, None, ValueError, r"seg_gt must hold labels of at least 0, got -2"),
    (SEG.double() - 3, OUT, None, None, ValueError, r"seg_gt must hold labels of at least 0, got -2"),
    (SEG + 0.5, OUT, None, None, ValueError, r"seg_gt must hold integer labels, got fractions"),
    (SEG.bfloat16() + 0.5, OUT, None, None, ValueError, r"seg_gt must hold integer labels, got fractions"),
    (SEG * float("nan"), OUT, None, None, ValueError, r"seg_gt must hold integer labels, got .*non-finite"),
    (SEG * float("inf"), OUT, None, None, ValueError, r"seg_gt must hold integer labels, got .*non-finite"),
    (SEG.cfloat(), OUT, None, None, TypeError, r"seg_gt must hold integer labels, got .*complex64"),
    (SEG, OUT, OUT, None, TypeError, r"edge_mask must have dtype torch.bool, got .*float32"),
    (SEG, OUT, OUT.numpy() > 0, None, TypeError, r"edge_mask must be a torch.Tensor, got ndarray"),
    (
        SEG,
        OUT,
        OUT[:1] > 0,
        None,
        ValueError,
        r"edge_mask must have the shape of output, .*got .*\(1, 2, 4, 5\)",
    ),
    (SEG, OUT, None, SEG, TypeError, r"unlabelled_mask must have dtype torch.bool, got .*int64"),
    (SEG, OUT, None, SEG[:1] > 0, ValueError, r"unlabelled_mask must have shape \(2, 4, 5\) or"),
    (SEG, OUT, None, OUT > 0, ValueError, r"unlabelled_mask must have shape \(2, 4, 5\) or"),
]


@pytest.mark.parametrize("seg, output, edge_mask, unlabelled_mask, error, message", BAD_TENSORS)
def test_bad_tensors(seg, output, edge_mask, unlabelled_mask, error, message) -> None:
    with pytest.raises(error, match=message):
        malis_loss2d(seg, output, edge_mask, unlabelled_mask)
    with pytest.raises(error, match=message):
        MalisLoss(malis.mknhood2d())(seg, output, edge_mask, unlabelled_mask)


def test_bad_rank_without_a_neighbourhood() -> None:
    with pytest.raises(ValueError, match=r"output must have shape \(B, K, \*spatial\) with 1 to 3 axes"):
        MalisLoss()(SEG, OUT[None, None])
    with pytest.raises(ValueError, match=r"output must have shape \(B, K, D, H, W\), got .*\(2, 2, 4, 5\)"):
        malis_loss3d(SEG, OUT)


BAD_OPTIONS = [
    ({"nhood": [-1, 0]}, ValueError, r"nhood must have shape \(K, ndim\)"),
    ({"nhood": [[-1, 0.5], [0, 1]]}, TypeError, r"nhood must hold integer offsets"),
    ({"margin": "wide"}, TypeError, r"margin must be a real number, got 'wide'"),
    ({"margin": float("nan")}, ValueError, r"margin must be a finite number, got nan"),
    ({"pos_loss_weight": 1.5}, ValueError, r"pos_loss_weight must be within 0 and 1, got 1.5"),
    ({"normalize": "yes"}, TypeError, r"normalize must be True or False, got 'yes'"),
    (
        {"pointwise": "hinge"},
        ValueError,
        r"pointwise must be one of 'squared_hinge', 'cross_entropy', got 'hinge'",
    ),
    ({"from_logits": None}, TypeError, r"from_logits must be True or False, got None"),
    ({"constrain_positive": 1}, TypeError, r"constrain_positive must be True or False, got 1"),
    ({"constrain_negative": 0}, TypeError, r"constrain_negative must be True or False, got 0"),
    ({"ignore_background": "no"}, TypeError, r"ignore_background must be True or False, got 'no'"),
    ({"reduction": "average"}, ValueError, r"reduction must be one of 'mean', 'sum', 'none', got 'average'"),
    ({"reduction": None}, TypeError, r"reduction must be one of 'mean', 'sum', 'none', got None"),
    ({"num_threads": 0}, ValueError, r"num_threads must be an integer of at least 1, got 0"),
    ({"num_threads": 1.5}, TypeError, r"num_threads must be an integer, got 1.5"),
    ({"size_average": True}, TypeError, r"size_average"),
]


@pytest.mark.parametrize("options, error, message", BAD_OPTIONS, ids=str)
def test_bad_options(options: dict, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        malis_loss2d(SEG, OUT, **options)
    with pytest.raises(error, match=message):
        MalisLoss(**options)


def test_neighbourhood_of_another_rank() -> None:
    with pytest.raises(ValueError, match=r"nhood must have 2 columns, one for each spatial axis, got 3"):
        malis_loss2d(SEG, OUT, nhood=malis.mknhood3d())
    with pytest.raises(ValueError, match=r"output must have shape \(B, K, D, H, W\), got .*\(2, 2, 4, 5\)"):
        MalisLoss(malis.mknhood3d())(SEG, OUT)


# ----------------------------------------------------------------------------------------- documentation
def test_the_page_for_users_runs() -> None:
    pytest.importorskip("skimage", reason="the page labels connected components with scikit-image")
    page = Path(__file__).parents[1] / "docs" / "pytorch.md"
    names: dict = {}
    for block in re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL):
        exec(compile(block, str(page), "exec"), names)
    assert names["losses"].shape == (3,)
    assert names["gradients"].shape == names["outputs"].shape
    assert names["sizes"].sum() == 64 * 64
