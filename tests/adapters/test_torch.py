"""The PyTorch adapter: function and module, memory, devices; what all adapters promise is in test_conformance.py."""

from __future__ import annotations

import copy
import pickle
import re
import subprocess
import sys
import textwrap
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import malis
from cases import BAD_OPTIONS, OPTIONS
from frameworks import NEAREST, SHAPES, address, record_core_calls

torch = pytest.importorskip("torch", reason="torch not installed")

from malis.malis_torch import AffinityLoss, MalisLoss, malis_loss2d, malis_loss3d  # noqa: E402
from torch_cases import case, labels, masks, ndims, tie_free, value_and_grad  # noqa: E402

pytestmark = pytest.mark.usefixtures("one_thread_of_pytorch")
FUNCTIONS = {2: malis_loss2d, 3: malis_loss3d}


# ------------------------------------------------------------------------------------------- module and function
@ndims
@pytest.mark.parametrize("options", OPTIONS)
def test_module_equals_function(ndim: int, options: str) -> None:
    options = OPTIONS[options]
    seg, output = case(ndim)
    both = dict(zip(("edge_mask", "unlabelled_mask"), masks(ndim), strict=True))
    of_function = value_and_grad(lambda out: FUNCTIONS[ndim](seg, out, **both, **options, reduction="none"), output)
    of_module = value_and_grad(lambda out: MalisLoss(**options, reduction="none")(seg, out, **both), output)
    assert torch.equal(of_module[0], of_function[0])
    assert torch.equal(of_module[1], of_function[1])


@pytest.mark.parametrize("channel", [False, True])
def test_bfloat16_labels(channel: bool) -> None:
    seg, output = case(2)
    given = seg.bfloat16()
    assert MalisLoss()(given.unsqueeze(1) if channel else given, output) == MalisLoss()(seg, output)


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


@pytest.mark.parametrize("as_type", [np.asarray, torch.as_tensor, list, lambda n: np.asarray(n, np.float32)])
def test_types_of_neighbourhoods(as_type) -> None:
    nhood = [[-1, 0], [0, -1], [-3, 2], [0, 4]]
    seg = labels(2, SHAPES[2])
    output = tie_free((2, len(nhood), *SHAPES[2]))
    expected = malis.malis_loss(output.numpy(), seg.numpy(), nhood).loss.mean()
    assert malis_loss2d(seg, output, nhood=as_type(nhood)).item() == pytest.approx(expected, rel=1e-12)
    assert MalisLoss(as_type(nhood))(seg, output).item() == pytest.approx(expected, rel=1e-12)


def test_default_neighbourhood_follows_the_rank() -> None:
    loss = MalisLoss()
    for ndim in (2, 3):
        seg, output = case(ndim)
        assert loss(seg, output) == FUNCTIONS[ndim](seg, output, nhood=NEAREST[ndim])
    line = torch.tensor([[1, 1, 2]])
    assert loss(line, torch.tensor([[[0.0, 0.5, 0.6]]])).item() == pytest.approx(0.2**2 + 0.3**2)


# ------------------------------------------------------------------------------------------ memory and dtypes
@ndims
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_tensors_are_not_copied(ndim: int, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = record_core_calls(monkeypatch)
    seg, output = case(ndim, dtype=dtype)
    tensors = (output.requires_grad_(), seg.unsqueeze(1), *masks(ndim))
    MalisLoss()(tensors[1], tensors[0], *tensors[2:]).backward()
    ((aff, labels, options, _),) = calls
    arrays = (aff, labels, options["edge_mask"], options["unlabelled_mask"])
    assert [address(array) for array in arrays] == [tensor.data_ptr() for tensor in tensors]


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
    calls = record_core_calls(monkeypatch)
    seg, output = case(ndim)
    both = masks(ndim) if masked else ()
    expected = value_and_grad(lambda out: MalisLoss()(seg, out, *both), output)
    last = output.to(memory_format={2: torch.channels_last, 3: torch.channels_last_3d}[ndim]).requires_grad_()
    loss = MalisLoss()(seg, last, *both)
    loss.backward()
    assert [address(aff) for aff, _, options, _ in calls if options["channels_last"]] == [last.data_ptr()]
    assert last.grad.stride() == last.stride()
    assert torch.equal(loss.detach(), expected[0])
    assert torch.equal(last.grad, expected[1])


def test_expanded_labels() -> None:
    seg, output = case(2)
    same = seg[:1].expand(3, *SHAPES[2])
    assert same.stride(0) == 0
    assert malis_loss2d(same, output) == malis_loss2d(same.contiguous(), output)


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


# ---------------------------------------------------------------------------------------------------- devices
PLACES = ["cpu", "meta"] + (["cuda"] if torch.cuda.is_available() else [])


@pytest.mark.parametrize("masks_on", PLACES)
@pytest.mark.parametrize("labels_on", PLACES)
@pytest.mark.parametrize("output_on", PLACES)
def test_mixtures_of_devices(output_on: str, labels_on: str, masks_on: str) -> None:
    """Every mixture works, or raises where some of the tensors have no values."""
    seg, output = case(2)
    edges = torch.ones(output.shape, dtype=torch.bool)
    there = output.to(output_on).requires_grad_()
    arguments = seg.to(labels_on), there, edges.to(masks_on)
    if len({place == "meta" for place in (output_on, labels_on, masks_on)}) == 2:
        with pytest.raises(ValueError, match=r'must both hold values, or both lie on the device "meta", got .*meta'):
            malis_loss2d(*arguments)
        return
    loss = malis_loss2d(*arguments)
    loss.backward()
    assert loss.device.type == there.grad.device.type == output_on
    if output_on != "meta":
        assert loss.item() == pytest.approx(malis_loss2d(seg, output, edges).item(), rel=1e-6)


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
def test_training_lowers_the_loss() -> None:
    torch.manual_seed(0)
    seg, _ = case(2)
    network = torch.nn.Sequential(
        torch.nn.Conv2d(1, 16, 3, padding=1), torch.nn.ReLU(), torch.nn.Conv2d(16, 2, 3, padding=1)
    )
    image = seg[:, None].float() - 1.5  # the grey tells the label
    loss_of = MalisLoss(from_logits=True)
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
        "ignore_background=True, ignore_label=None, connect_labels=False, num_threads=2, reduction='sum')"
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

# What only tensors can have wrong; arrays in general are in BAD_ARRAYS of the conformance suite.
BAD_TENSORS = {
    # name: (seg_gt, output, edge_mask), error, message
    "seg-array": ((SEG.numpy(), OUT), TypeError, r"seg_gt must be a torch.Tensor, got ndarray"),
    "out-list": ((SEG, OUT.tolist()), TypeError, r"output must be a torch.Tensor, got list"),
    "edge_mask-array": ((SEG, OUT, OUT.numpy() > 0), TypeError, r"edge_mask must be a torch.Tensor, got ndarray"),
    "out-no-batch": ((SEG, OUT[0]), ValueError, r"output must have shape \(B, K, H, W\), got .*\(2, 4, 5\)"),
    "out-axes": (
        (SEG, OUT[..., None]),
        ValueError,
        r"output must have shape \(B, K, H, W\), got .*\(2, 2, 4, 5, 1\)",
    ),
    "out-channels": ((SEG, OUT[:, :1]), ValueError, r"one channel for each of the 2 offsets .*\(2, 1, 4, 5\)"),
    "out-long": ((SEG, OUT.long()), TypeError, r"output must have dtype float16.*torch.int64"),
    "out-nan": ((SEG, NAN), ValueError, r"output must not contain NaN"),
    "seg-channels": (
        (SEG.expand(2, 2, 4, 5), OUT),
        ValueError,
        r"seg_gt must have shape \(2, 4, 5\) or \(2, 1, 4, 5\) .*got .*\(2, 2, 4, 5\)",
    ),
    "seg-bfloat16": ((SEG.bfloat16() + 0.5, OUT), ValueError, r"seg_gt must hold integer labels, got fractions"),
    "edge_mask-float": ((SEG, OUT, OUT), TypeError, r"edge_mask must have dtype torch.bool, got .*float32"),
}


@pytest.mark.parametrize("bad", BAD_TENSORS)
def test_bad_tensors(bad: str) -> None:
    tensors, error, message = BAD_TENSORS[bad]
    with pytest.raises(error, match=message):
        malis_loss2d(*tensors)
    with pytest.raises(error, match=message):
        MalisLoss(malis.mknhood2d())(*tensors)


def test_bad_rank_without_a_neighbourhood() -> None:
    with pytest.raises(ValueError, match=r"output must have shape \(B, K, \*spatial\) with 1 to 3 axes"):
        MalisLoss()(SEG, OUT[None, None])
    with pytest.raises(ValueError, match=r"output must have shape \(B, K, D, H, W\), got .*\(2, 2, 4, 5\)"):
        malis_loss3d(SEG, OUT)


BAD_REDUCTIONS = {
    "reduction": (
        {"reduction": "average"},
        ValueError,
        r"reduction must be one of 'mean', 'sum', 'none', got 'average'",
    ),
    "reduction-none": ({"reduction": None}, TypeError, r"reduction must be one of 'mean', 'sum', 'none', got None"),
}


@pytest.mark.parametrize("bad", [*BAD_OPTIONS, *BAD_REDUCTIONS])
def test_bad_options(bad: str) -> None:
    options, error, message = {**BAD_OPTIONS, **BAD_REDUCTIONS}[bad]
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
    page = Path(__file__).parents[2] / "docs" / "pytorch.md"
    names: dict = {}
    for block in re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL):
        exec(compile(block, str(page), "exec"), names)
    assert names["losses"].shape == (3,)
    assert names["gradients"].shape == names["outputs"].shape
    assert names["sizes"].sum() == 64 * 64


# --------------------------------------------------------------------------------------------------- AffinityLoss
LONG = [[-1, 0], [0, -1], [-3, 0]]


def logits_and_labels(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(2, 3, 14, 11, generator=generator), labels(2, (14, 11))


def test_affinity_loss_counts_training_calls() -> None:
    logits, seg = logits_and_labels()
    criterion = AffinityLoss(LONG, warmup=2)
    criterion.eval()
    criterion(logits, seg)
    assert criterion.step == 0
    criterion.train()
    computed = []
    for _ in range(4):
        criterion(logits, seg)
        computed.append("malis" in criterion.parts)
    assert computed == [False, False, True, True]
    assert criterion.step == 4
    again = AffinityLoss(LONG, warmup=2)
    again.load_state_dict(criterion.state_dict())
    assert again.step == 4
    assert again(logits, seg) == criterion(logits, seg)
    assert copy.deepcopy(criterion)(logits, seg) == criterion(logits, seg)


def test_affinity_loss_does_not_count_pairs_before_it_needs_them(monkeypatch) -> None:
    calls = record_core_calls(monkeypatch)
    logits, seg = logits_and_labels()
    criterion = AffinityLoss(LONG, warmup=2)
    for expected in (0, 0, 1, 2):
        criterion(logits, seg)
        assert len(calls) == expected


def test_parts_of_the_affinity_loss() -> None:
    logits, seg = logits_and_labels()
    criterion = AffinityLoss(LONG, malis=2.0, cross_entropy=0.5, warmup=0, ramp=1)
    for weight in (1.0, 2.0):
        loss = criterion(logits.requires_grad_(), seg)
        parts = criterion.parts
        assert parts["malis_weight"] == weight
        assert not parts["malis"].requires_grad
        torch.testing.assert_close(loss.detach(), weight * parts["malis"] + 0.5 * parts["cross_entropy"])


def test_affinity_loss_in_deep_supervision() -> None:
    losses = pytest.importorskip("monai.losses")
    logits, seg = logits_and_labels()
    levels = [logits, logits[..., ::2, ::2].contiguous()]
    target = seg[:, None].float()  # PyTorch resizes floats
    criterion = AffinityLoss(LONG, warmup=0)
    result = losses.DeepSupervisionLoss(criterion)(levels, target)
    small = torch.nn.functional.interpolate(target, size=(7, 6), mode="nearest-exact")
    torch.testing.assert_close(result, criterion(logits, target) + 0.5 * criterion(levels[1], small))


def graph_of(seg: torch.Tensor) -> torch.Tensor:
    return torch.stack([torch.from_numpy(malis.seg_to_affgraph(s.numpy(), LONG)) for s in seg]).float()


def test_objects_beside_a_graph() -> None:
    logits, seg = logits_and_labels()
    graph = graph_of(seg)
    edges = torch.rand(logits.shape, generator=torch.Generator().manual_seed(1)) > 0.2
    voxels = torch.rand(seg.shape, generator=torch.Generator().manual_seed(2)) > 0.2
    for mask in (None, voxels, voxels[:, None].float(), edges):
        results = []
        # Labels in all layouts and dtypes give the loss of the labels alone; the components of the graph are others.
        for target, gt_seg in ((seg, None), (graph, seg), (graph, seg[:, None].float()), (graph, None)):
            criterion = AffinityLoss(LONG, warmup=0)
            output = logits.clone().requires_grad_()
            criterion(output, target, mask, gt_seg=gt_seg).backward()
            results.append((criterion.parts["cross_entropy"], criterion.parts["malis"], output.grad))
        for result in results[1:3]:
            torch.testing.assert_close(result, results[0])
        torch.testing.assert_close(results[3][0], results[0][0])
        assert results[3][1] != results[0][1]


def test_objects_beside_a_graph_that_says_otherwise() -> None:
    logits, seg = logits_and_labels()
    others = graph_of(torch.ones_like(seg))
    criterion = AffinityLoss(LONG, warmup=0)
    criterion(logits, others, gt_seg=seg)
    entropy = torch.nn.functional.binary_cross_entropy_with_logits(logits, others, others, reduction="sum")
    torch.testing.assert_close(criterion.parts["cross_entropy"], entropy / others.sum())  # all edges of the volume
    torch.testing.assert_close(
        criterion.parts["malis"], malis_loss2d(seg, logits[:, :2], from_logits=True, margin=0.1), rtol=1e-6, atol=0
    )


def test_unknown_objects_beside_a_graph() -> None:
    logits, seg = logits_and_labels()
    graph, unknown = graph_of(seg), seg.clone()
    unknown[..., 3:6] = -1
    output = logits.clone().requires_grad_()
    criterion = AffinityLoss(LONG, warmup=0, ignore_label=-1)
    criterion(output, graph, gt_seg=unknown).backward()
    assert not output.grad[..., 3:6].any()
    assert output.grad[:, 0, 1:, :3].all()
    torch.testing.assert_close(criterion.parts, parts_of(criterion, logits, unknown))
    with pytest.raises(ValueError, match="gt_seg must hold labels of at least 0, got -1; with ignore_label=-1"):
        AffinityLoss(LONG, warmup=0)(logits, graph, gt_seg=unknown)


def parts_of(criterion: AffinityLoss, *arguments: torch.Tensor) -> dict:
    criterion(*arguments)
    return criterion.parts


@pytest.mark.parametrize("objects", [False, True], ids=["components", "objects"])
@pytest.mark.parametrize("masked", [False, True], ids=["unmasked", "masked"])
def test_loss_of_pytorch_connectomics(objects: bool, masked: bool) -> None:
    # With margin 0: squares, weighted by the share of the pairs that an edge decides in each pass, in which the edges
    # of the other kind are set to what the truth says.
    logits, seg = logits_and_labels()
    graph = graph_of(seg)
    mask = torch.ones_like(graph)
    if masked:
        seg, mask[:, :, :, 4:6] = seg.clone(), 0
        seg[..., 4:6] = 0  # no positive edge is masked, so that the components are the same with and without the mask
        graph = graph_of(seg)
    affinities = logits.sigmoid()
    expected = 0.0
    for aff, truth, known, labels_ in zip(affinities, graph.numpy() > 0.5, mask.numpy() > 0, seg.numpy(), strict=True):
        components, _ = malis.connected_components_affgraph(truth.astype(np.int32), LONG)
        node1, node2 = malis.nodelist_like(labels_.shape, np.array(LONG))
        for positive in (0, 1):
            other = truth == (1 - positive)
            weights = np.where(other & known, 1 - positive, aff.numpy()).astype(np.float32).ravel()
            nodes = (labels_ if objects else components).astype(np.uint64).ravel()
            pairs = malis.malis_loss_weights(nodes, node1.ravel(), node2.ravel(), weights, positive)
            pairs = np.where(other | ~known, 0, pairs.reshape(truth.shape))
            expected += (pairs / pairs.sum() * (aff.numpy() - truth) ** 2).sum()
    criterion = AffinityLoss(LONG, warmup=0, cross_entropy=0, margin=0, malis_offsets=LONG, reduction="sum")
    loss = criterion(logits, graph, mask=mask if masked else None, gt_seg=seg[:, None].float() if objects else None)
    assert loss == pytest.approx(expected, rel=1e-5)


def test_bad_objects_beside_a_graph() -> None:
    logits, seg = logits_and_labels()
    criterion = AffinityLoss(LONG, warmup=0)
    with pytest.raises(ValueError, match="gt_seg needs affinities as target: labels tell the objects themselves"):
        criterion(logits, seg, gt_seg=seg)
    for bad, error, message in (
        (seg[:1], ValueError, r"gt_seg must have shape \(2, 14, 11\) or \(2, 1, 14, 11\)"),
        (seg.to(torch.complex64), TypeError, "gt_seg must hold integer labels"),
        (seg + 0.5, ValueError, "gt_seg must hold integer labels, got fractions"),
    ):
        with pytest.raises(error, match=message):
            criterion(logits, graph_of(seg), gt_seg=bad)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_affinity_loss_of_16_bits(dtype: torch.dtype) -> None:
    logits, seg = logits_and_labels()
    criterion = AffinityLoss(LONG, warmup=0)
    rounded = logits.to(dtype).requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = criterion(rounded, seg)
        inside = AffinityLoss(LONG, warmup=0, from_logits=False)(rounded.detach().sigmoid(), seg)
    assert loss.dtype == inside.dtype == torch.float32
    assert loss == criterion(rounded.float(), seg)
    loss.backward()
    assert rounded.grad.dtype == dtype
    assert torch.isfinite(rounded.grad).all()


@pytest.mark.slow
@pytest.mark.usefixtures("fresh_compiler")
def test_compiled_affinity_loss() -> None:
    logits, seg = logits_and_labels()
    mask = torch.ones(2, 1, 14, 11)
    mask[..., :4] = 0
    graph = graph_of(seg)
    eager = AffinityLoss(LONG, warmup=0)
    compiled = torch.compile(AffinityLoss(LONG, warmup=0), fullgraph=True, backend="aot_eager")
    for arguments in ((seg,), (seg, mask), (graph, mask)):
        torch.testing.assert_close(compiled(logits, *arguments), eager(logits, *arguments))
    torch.testing.assert_close(compiled(logits, graph, mask, gt_seg=seg), eager(logits, graph, mask, gt_seg=seg))
    assert compiled.step == 4
    with pytest.raises(ValueError, match=r"mask must hold 0 and 1, got 0.5"):
        compiled(logits, seg, mask / 2)
    with pytest.raises(ValueError, match="target must hold values from 0 to 1, got 2"):
        compiled(logits, graph * 2)
    # With a warm-up the graph breaks, and the numbers are the same.
    compiled = torch.compile(AffinityLoss(LONG, warmup=1), backend="aot_eager")
    eager = AffinityLoss(LONG, warmup=1)
    for _ in range(3):
        torch.testing.assert_close(compiled(logits, seg), eager(logits, seg))


# -------------------------------------------------------------------------------------------------- the warning
@pytest.fixture
def no_warning_yet() -> Iterator[None]:
    from malis._adapters import output_range

    before = set(output_range._warned)
    output_range._warned.clear()
    yield
    output_range._warned.update(before)


@pytest.mark.usefixtures("no_warning_yet")
def test_one_warning_for_outputs_that_are_no_affinities() -> None:
    logits, seg = logits_and_labels()
    with pytest.warns(UserWarning, match=r"output holds values from -.*from_logits=True"):
        malis_loss2d(seg, logits, nhood=LONG)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        malis_loss2d(seg, logits, nhood=LONG)
    with pytest.warns(UserWarning, match=r"output holds values from 0.*need from_logits=False"):
        AffinityLoss(LONG, warmup=0)(logits.sigmoid(), seg)


@pytest.mark.usefixtures("no_warning_yet")
def test_no_warning_where_there_is_no_reason() -> None:
    logits, seg = logits_and_labels()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        malis_loss2d(seg, logits.sigmoid(), nhood=LONG)
        malis_loss2d(seg, logits, nhood=LONG, from_logits=True)
        malis_loss2d(seg, torch.zeros_like(logits), nhood=LONG, from_logits=True)
        AffinityLoss(LONG, warmup=0, warn=False)(logits.sigmoid(), seg)
        AffinityLoss(LONG, warmup=0, warn=False, from_logits=False)(logits, seg)
