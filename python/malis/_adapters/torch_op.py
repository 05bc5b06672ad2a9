"""The loss as an operator of PyTorch.

Everything ends in one custom operator, ``torch.ops.malis.loss``, which hands the tensors to the core as they lie in
memory and returns the loss of every sample with its gradient. Being an operator it is opaque to ``torch.compile`` and
``torch.export``, and known to autograd, autocast and ``torch.func``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from malis._adapters import settings as _settings
from malis._adapters.gradient import FIRST_DERIVATIVE_ONLY, expected_factor
from malis._adapters.host import check_limit, evaluate
from malis._adapters.names import Names
from malis._adapters.output_range import warn_of_range
from malis._adapters.settings import Settings
from malis._options import Options

# ----------------------------------------------------------------------------------------------- the operator
# Data that goes through the host cannot be part of a CUDA graph: PyTorch cuts the graph if it knows the tag.
_TAGS: dict[str, Any] = {"tags": (torch.Tag.cudagraph_unsafe,)} if hasattr(torch.Tag, "cudagraph_unsafe") else {}

_SCHEMA_TYPES = {float: "float", bool: "bool", str: "str", int: "int", int | None: "int?"}
_OPTIONS_IN_SCHEMA = ", ".join(f"{_SCHEMA_TYPES[type_]} {name}" for name, type_ in Options.__annotations__.items())


def _compute_dtype(output: Tensor) -> torch.dtype:
    return torch.float64 if output.dtype == torch.float64 else torch.float32


def _has_channels_last(output: Tensor) -> bool:
    """Whether `output` lies in memory with the channels last, as ``torch.channels_last`` and Keras have it."""
    return not output.is_contiguous() and output.movedim(1, -1).is_contiguous()


def _as_numpy(tensor: Tensor) -> npt.NDArray[Any]:
    """Share the memory of a C-contiguous tensor on the host; copy any other."""
    return tensor.detach().contiguous().numpy(force=True)


def _labels_as_numpy(labels: Tensor) -> npt.NDArray[Any]:
    sixteen_bits = labels.is_floating_point() and labels.element_size() == 2
    return _as_numpy(labels.float() if sixteen_bits else labels)  # NumPy has no bfloat16


@torch.library.custom_op(
    "malis::loss",
    mutates_args=(),
    schema="(Tensor output, Tensor seg_gt, Tensor? edge_mask, Tensor? unlabelled_mask, int[] nhood, *, float scale, "
    f"{_OPTIONS_IN_SCHEMA}) -> (Tensor loss, Tensor grad)",
    **_TAGS,
)
def _loss(
    output: Tensor,
    seg_gt: Tensor,
    edge_mask: Tensor | None,
    unlabelled_mask: Tensor | None,
    nhood: Sequence[int],
    *,
    scale: float,
    **options: Any,
) -> tuple[Tensor, Tensor]:
    """Loss of every sample, and its derivative times `scale`, both float32 where `output` has 16 bits.

    A 16-bit derivative would lose its small numbers before the gradient scaling of mixed precision, which comes with
    the upstream gradient, could save them.
    """
    dtype = _compute_dtype(output)
    channels_last = _has_channels_last(output)
    if channels_last:
        output = output.movedim(1, -1)
        edge_mask = None if edge_mask is None else edge_mask.movedim(1, -1)
    losses, grad = evaluate(
        _as_numpy(output.to(dtype)),
        _labels_as_numpy(seg_gt),
        None if edge_mask is None else _as_numpy(edge_mask),
        None if unlabelled_mask is None else _as_numpy(unlabelled_mask),
        nhood=np.asarray(nhood, dtype=np.int64).reshape(-1, output.dim() - 2),
        options=Options(**options),
        names=Names(),
        channels_last=channels_last,
        scale=scale,
    )
    slopes = torch.from_numpy(grad)
    slopes = slopes.movedim(-1, 1) if channels_last else slopes
    return torch.from_numpy(losses).to(output.device), slopes.to(output.device)


@_loss.register_fake
def _(output: Tensor, *args: Any, **options: Any) -> tuple[Tensor, Tensor]:
    dtype = _compute_dtype(output)
    last = _has_channels_last(output)
    grad = output.new_empty(output.movedim(1, -1).shape if last else output.shape, dtype=dtype)
    return output.new_empty(output.shape[:1], dtype=dtype), grad.movedim(-1, 1) if last else grad


# --------------------------------------------------------------------------------------------- its derivative
class _ChainRule(torch.autograd.Function):
    """Multiply by the upstream gradient, in the dtype of the computation.

    `output` lends its dtype, and its place in the graph: whoever differentiates the result once more is told that
    this cannot be done instead of getting zeros.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(grad_loss: Tensor, grad: Tensor, output: Tensor) -> Tensor:
        per_sample = grad_loss.reshape(-1, *[1] * (grad.dim() - 1))
        return (grad * per_sample).to(output.dtype)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, *_: Any) -> None:
        raise RuntimeError(FIRST_DERIVATIVE_ONLY)


def _keep(ctx: Any, output: Tensor, grad: Tensor, scale: float) -> None:
    """Keep what the backward pass needs."""
    ctx.scale = scale
    ctx.mark_non_differentiable(grad)
    ctx.set_materialize_grads(False)  # no zeros for `grad`, which is as large as the network's output
    ctx.save_for_backward(grad, output)


def _multiplied(ctx: Any, grad_loss: Tensor | None) -> Tensor | None:
    """Gradient by `output` for an upstream gradient."""
    if grad_loss is None:
        return None
    factor = grad_loss if ctx.scale == 1 else grad_loss / ctx.scale
    return cast(Tensor, _ChainRule.apply(factor, *ctx.saved_tensors))  # type: ignore[no-untyped-call]


def _is_expected(grad_loss: Tensor, scale: float) -> bool:
    """Whether an upstream gradient is `scale`; False where that cannot be known, or not at once."""
    if grad_loss.device.type != "cpu" or torch.compiler.is_compiling():
        return False
    try:
        return bool((grad_loss / scale == 1).all())
    except RuntimeError:  # inside of vmap
        return False


def _setup_context(ctx: Any, inputs: tuple[Any, ...], keyword_only_inputs: Any, output: tuple[Tensor, Tensor]) -> None:
    _keep(ctx, inputs[0], output[1], keyword_only_inputs["scale"])


def _backward(ctx: Any, grad_loss: Tensor | None, _: Tensor | None) -> tuple[Tensor | None, ...]:
    return (_multiplied(ctx, grad_loss), None, None, None, None)


_loss.register_autograd(_backward, setup_context=_setup_context)


def _vmap_rule(function: Callable[..., tuple[Tensor, Tensor]]) -> Callable[..., Any]:
    """Rule of `torch.vmap` for `function`: the vmapped axis becomes the outer part of the batch axis."""

    def rule(
        info: Any, in_dims: tuple[Any, ...], *args: Any, **options: Any
    ) -> tuple[tuple[Tensor, ...], tuple[int, ...]]:
        def fold(tensor: Tensor | None, dim: int | None) -> Tensor | None:
            if tensor is None:
                return None
            stack = tensor.expand(info.batch_size, *tensor.shape) if dim is None else tensor.movedim(dim, 0)
            return stack.flatten(0, 1)

        tensors = [fold(tensor, dim) for tensor, dim in zip(args[:4], in_dims[:4], strict=True)]
        results = function(*tensors, *args[4:], **options)
        return tuple(result.reshape(info.batch_size, -1, *result.shape[1:]) for result in results), (0, 0)

    return rule


if hasattr(torch.library, "register_vmap"):  # PyTorch 2.4 has none
    torch.library.register_vmap(_loss, _vmap_rule(_loss))


class _Loss(torch.autograd.Function):
    """The operator for eager mode: `torch.func.grad` does not take an operator's own autograd formula."""

    @staticmethod
    def forward(
        output: Tensor,
        seg_gt: Tensor,
        edge_mask: Tensor | None,
        unlabelled_mask: Tensor | None,
        nhood: Sequence[int],
        scale: float,
        options: Options,
    ) -> tuple[Tensor, Tensor]:
        result = _loss(output, seg_gt, edge_mask, unlabelled_mask, nhood, scale=scale, **options.as_keywords())
        return cast(tuple[Tensor, Tensor], result)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        _keep(ctx, inputs[0], output[1], inputs[5])

    @staticmethod
    def backward(ctx: Any, grad_loss: Tensor | None, _: Tensor | None) -> tuple[Tensor | None, ...]:
        if grad_loss is not None and not torch.is_grad_enabled() and _is_expected(grad_loss, ctx.scale):
            grad, output = ctx.saved_tensors
            return (grad.to(output.dtype), *[None] * 6)
        return (_multiplied(ctx, grad_loss), *[None] * 6)

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], *args: Any) -> tuple[tuple[Tensor, ...], tuple[int, ...]]:
        return cast(tuple[tuple[Tensor, ...], tuple[int, ...]], _vmap_rule(_Loss.apply)(info, in_dims, *args))


# ------------------------------------------------------------------------------------------------- the checks
def as_seen(tensor: object, name: str) -> _settings.Tensor:
    """Shape and dtype of a tensor, for the checks."""
    if not isinstance(tensor, Tensor):
        raise TypeError(f"{name} must be a torch.Tensor, got {type(tensor).__name__}")
    return _settings.Tensor(tuple(tensor.shape), str(tensor.dtype).removeprefix("torch."), "torch.")


def _check_devices(name: str, output: Tensor, others: Sequence[tuple[str, Tensor | None]]) -> None:
    """Check that all tensors have values or none has.

    On whatever device values lie, they are read there. The device "meta" has none: PyTorch would take the operator for
    one without values as soon as one tensor lies there, and return memory that nothing was written to.
    """
    for other_name, other in others:
        if other is not None and (other.device.type == "meta") != (output.device.type == "meta"):
            raise ValueError(
                f'{other_name} and {name} must both hold values, or both lie on the device "meta", got {other.device} '
                f"and {output.device}"
            )


def _warn_of_range(output: Tensor, settings: Settings) -> None:
    output = output.detach()
    try:
        values = (output.float() if output.dtype == torch.bfloat16 else output).numpy()
    except RuntimeError:  # inside of vmap
        return
    warn_of_range(values, settings.options.from_logits, settings.names.output)


def losses_of_samples(
    settings: Settings,
    labels: Tensor,
    output: Tensor,
    edge_mask: Tensor | None,
    unlabelled_mask: Tensor | None,
    expect_mean: bool,
) -> Tensor:
    """Check the tensors and compute the loss of every sample, shape (B,). The operator itself checks the values.

    `expect_mean` tells whether the losses will be averaged or added, see `gradient`.
    """
    checked = settings.check(
        as_seen(output, settings.names.output),
        as_seen(labels, settings.names.labels),
        None if edge_mask is None else as_seen(edge_mask, "edge_mask"),
        None if unlabelled_mask is None else as_seen(unlabelled_mask, "unlabelled_mask"),
    )
    others = ((settings.names.labels, labels), ("edge_mask", edge_mask), ("unlabelled_mask", unlabelled_mask))
    _check_devices(settings.names.output, output, others)
    labels = labels.detach()
    if checked.labels_have_channel:
        labels = labels.squeeze(settings.channel_axis())
    if unlabelled_mask is not None and checked.mask_has_channel:
        unlabelled_mask = unlabelled_mask.squeeze(settings.channel_axis())
    if settings.channels_last:
        output = output.movedim(-1, 1)
        edge_mask = None if edge_mask is None else edge_mask.movedim(-1, 1)
    offsets = [step for offset in checked.nhood for step in offset]
    tensors = output, labels, edge_mask, unlabelled_mask
    if torch.compiler.is_compiling():
        # The batch size may not be known yet, and a compiled function multiplies without an array of its own.
        return cast(Tensor, _loss(*tensors, offsets, scale=1.0, **settings.options.as_keywords())[0])
    if settings.warn and output.device.type == "cpu":  # on other devices it would have to wait for them
        _warn_of_range(output, settings)
    scale = expected_factor(output.shape[0], expect_mean)
    with settings.names.in_errors():
        if checked.label_limit is not None:
            check_limit(_labels_as_numpy(labels), checked.label_limit)
        with settings.names.in_errors(Names()):  # the names under which the operator reports
            losses = _Loss.apply(*tensors, offsets, scale, settings.options)[0]  # type: ignore[no-untyped-call]
    return cast(Tensor, losses)
