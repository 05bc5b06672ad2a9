"""The PyTorch adapter under what PyTorch does to functions: autograd, compile, export, vmap and torch.func."""

from __future__ import annotations

import itertools
import shutil
import sys

import numpy as np
import pytest

from cases import OPTIONS
from frameworks import NEAREST, SHAPES, address, record_core_calls

torch = pytest.importorskip("torch", reason="torch not installed")

from malis._options import Options  # noqa: E402
from malis.malis_torch import MalisLoss, malis_loss2d, malis_loss3d  # noqa: E402
from torch_cases import case, labels, masks, ndims, tie_free, value_and_grad  # noqa: E402

pytestmark = pytest.mark.usefixtures("one_thread_of_pytorch")
FUNCTIONS = {2: malis_loss2d, 3: malis_loss3d}


# --------------------------------------------------------------------------------------------------- autograd
@ndims
@pytest.mark.parametrize("options", OPTIONS)
def test_gradcheck(ndim: int, options: str) -> None:
    options = OPTIONS[options]
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
    calls = record_core_calls(monkeypatch)
    seg, output = case(2)
    output.requires_grad_()
    for reduction in ("mean", "sum"):
        output.grad = None
        malis_loss2d(seg, output, reduction=reduction).backward()
        assert output.grad.data_ptr() == address(calls[-1][3].grad)
    once = output.grad.clone()
    output.grad = None
    (3 * malis_loss2d(seg, output, reduction="sum")).backward()
    assert torch.equal(output.grad, 3 * once)
    assert np.array_equal(calls[-1][3].grad, once.numpy())


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


@pytest.mark.slow
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
