r"""The MALIS loss for PyTorch: `malis_loss2d`, `malis_loss3d` and the module `MalisLoss`.

All three end in one custom operator, ``torch.ops.malis.loss``, which hands the tensors to `malis.malis_loss`
as they lie in memory and returns the loss of every sample with its gradient. Being an operator it is opaque
to ``torch.compile`` and ``torch.export``, and known to autograd, autocast and ``torch.func``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from malis import _adapter, _checks
from malis._adapter import REDUCTIONS, Names, Nhood, Settings, as_tuples, check_limit
from malis._options import Options
from malis.loss import batch_loss

__all__ = ["MalisLoss", "malis_loss2d", "malis_loss3d"]


# ----------------------------------------------------------------------------------------------- the operator
# Data that goes through the host cannot be part of a CUDA graph: PyTorch cuts the graph if it knows the tag.
_TAGS: dict[str, Any] = {"tags": (torch.Tag.cudagraph_unsafe,)} if hasattr(torch.Tag, "cudagraph_unsafe") else {}


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
    schema="(Tensor output, Tensor seg_gt, Tensor? edge_mask, Tensor? unlabelled_mask, int[] nhood, "
    "float margin, float pos_loss_weight, bool normalize, str pointwise, bool from_logits, "
    "bool constrain_positive, bool constrain_negative, bool ignore_background, int? num_threads, float scale) "
    "-> (Tensor loss, Tensor grad)",
    **_TAGS,
)
def _loss(
    output: Tensor,
    seg_gt: Tensor,
    edge_mask: Tensor | None,
    unlabelled_mask: Tensor | None,
    nhood: Sequence[int],
    *options_and_scale: Any,
) -> tuple[Tensor, Tensor]:
    """Loss of every sample, and its derivative times `scale`, both float32 where `output` has 16 bits.

    A 16-bit derivative would lose its small numbers before the gradient scaling of mixed precision, which
    comes with the upstream gradient, could save them.
    """
    dtype = _compute_dtype(output)
    channels_last = _has_channels_last(output)
    if channels_last:
        output = output.movedim(1, -1)
        edge_mask = None if edge_mask is None else edge_mask.movedim(1, -1)
    try:
        loss, grad = batch_loss(
            _as_numpy(output.to(dtype)),
            _labels_as_numpy(seg_gt),
            np.asarray(nhood, dtype=np.int64).reshape(-1, output.dim() - 2),
            edge_mask=None if edge_mask is None else _as_numpy(edge_mask),
            unlabelled_mask=None if unlabelled_mask is None else _as_numpy(unlabelled_mask),
            channels_last=channels_last,
            scale=options_and_scale[-1],
            **Options(*options_and_scale[:-1])._asdict(),
        )
    except ValueError as error:
        raise ValueError(Names().of_core(str(error))) from None
    losses = torch.from_numpy(np.asarray(loss)).to(dtype)  # before the device: some have no float64
    slopes = torch.from_numpy(grad)
    return losses.to(output.device), (slopes.movedim(-1, 1) if channels_last else slopes).to(output.device)


@_loss.register_fake
def _(output: Tensor, *args: Any) -> tuple[Tensor, Tensor]:
    dtype = _compute_dtype(output)
    last = _has_channels_last(output)
    grad = output.new_empty(output.movedim(1, -1).shape if last else output.shape, dtype=dtype)
    return output.new_empty(output.shape[:1], dtype=dtype), grad.movedim(-1, 1) if last else grad


class _ChainRule(torch.autograd.Function):
    """Multiply by the upstream gradient, in the dtype of the computation.

    `output` lends its dtype, and its place in the graph: whoever differentiates the result once more is told
    that this cannot be done instead of getting zeros.
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
        raise RuntimeError(
            "the MALIS loss has a first derivative only: its pair counts are constants of the derivative, "
            "and a second derivative is not implemented"
        )


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    _, grad = output
    ctx.scale = inputs[-1]
    ctx.mark_non_differentiable(grad)
    ctx.set_materialize_grads(False)  # no zeros for `grad`, which is as large as the network's output
    ctx.save_for_backward(grad, inputs[0])


def _backward(ctx: Any, grad_loss: Tensor | None, _: Tensor | None) -> tuple[Tensor | None, ...]:
    if grad_loss is None:
        grad = None
    else:
        factor = grad_loss if ctx.scale == 1 else grad_loss / ctx.scale
        grad = _ChainRule.apply(factor, *ctx.saved_tensors)  # type: ignore[no-untyped-call]
    return (grad, *[None] * (5 + len(Options._fields)))


def _is_expected(grad_loss: Tensor, scale: float) -> bool:
    """Whether an upstream gradient is `scale`; False where that cannot be known, or not at once."""
    if grad_loss.device.type != "cpu" or torch.compiler.is_compiling():
        return False
    try:
        return bool((grad_loss / scale == 1).all())
    except RuntimeError:  # inside of vmap
        return False


def _vmap_rule(function: Callable[..., tuple[Tensor, Tensor]]) -> Callable[..., Any]:
    """Rule of `torch.vmap` for `function`: the vmapped axis becomes the outer part of the batch axis."""

    def rule(info: Any, in_dims: tuple[Any, ...], *args: Any) -> tuple[tuple[Tensor, ...], tuple[int, ...]]:
        def fold(tensor: Tensor | None, dim: int | None) -> Tensor | None:
            if tensor is None:
                return None
            stack = tensor.expand(info.batch_size, *tensor.shape) if dim is None else tensor.movedim(dim, 0)
            return stack.flatten(0, 1)

        tensors = [fold(tensor, dim) for tensor, dim in zip(args[:4], in_dims[:4], strict=True)]
        results = function(*tensors, *args[4:])
        return tuple(result.reshape(info.batch_size, -1, *result.shape[1:]) for result in results), (0, 0)

    return rule


_loss.register_autograd(_backward, setup_context=_setup_context)
if hasattr(torch.library, "register_vmap"):  # PyTorch 2.4 has none
    torch.library.register_vmap(_loss, _vmap_rule(_loss))


class _Loss(torch.autograd.Function):
    """The operator for eager mode: `torch.func.grad` does not take an operator's own autograd formula."""

    @staticmethod
    def forward(*args: Any) -> tuple[Tensor, Tensor]:
        return cast(tuple[Tensor, Tensor], _loss(*args))

    setup_context = staticmethod(_setup_context)

    @staticmethod
    def backward(ctx: Any, grad_loss: Tensor | None, grad_of_grad: Tensor | None) -> tuple[Tensor | None, ...]:
        if grad_loss is not None and not torch.is_grad_enabled() and _is_expected(grad_loss, ctx.scale):
            # The usual case. A product with 1 would fill as much new memory as the network's output takes.
            grad, output = ctx.saved_tensors
            return (grad.to(output.dtype), *[None] * (5 + len(Options._fields)))
        return _backward(ctx, grad_loss, grad_of_grad)

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], *args: Any) -> tuple[tuple[Tensor, ...], tuple[int, ...]]:
        return cast(tuple[tuple[Tensor, ...], tuple[int, ...]], _vmap_rule(_Loss.apply)(info, in_dims, *args))


# ------------------------------------------------------------------------------------------------- the checks
def _seen(tensor: object, name: str) -> _adapter.Tensor:
    if not isinstance(tensor, Tensor):
        raise TypeError(f"{name} must be a torch.Tensor, got {type(tensor).__name__}")
    return _adapter.Tensor(tuple(tensor.shape), str(tensor.dtype).removeprefix("torch."), "torch.")


def losses_of_samples(
    settings: Settings,
    labels: Tensor,
    output: Tensor,
    edge_mask: Tensor | None,
    unlabelled_mask: Tensor | None,
    expect_mean: bool,
) -> Tensor:
    """Check the tensors and compute the loss of every sample, shape (B,). The operator itself checks the values.

    With `expect_mean` the operator's own gradient is that of the mean of the losses, else that of their sum. It is
    what a backward pass of that needs; any other costs a product.
    """
    checked = settings.check(
        _seen(output, settings.names.output),
        _seen(labels, settings.names.labels),
        None if edge_mask is None else _seen(edge_mask, "edge_mask"),
        None if unlabelled_mask is None else _seen(unlabelled_mask, "unlabelled_mask"),
    )
    labels = labels.detach()
    if checked.labels_have_channel:
        labels = labels.squeeze(settings.channel_axis())
    if unlabelled_mask is not None and checked.mask_has_channel:
        unlabelled_mask = unlabelled_mask.squeeze(settings.channel_axis())
    if settings.channels_last:
        output = output.movedim(-1, 1)
        edge_mask = None if edge_mask is None else edge_mask.movedim(-1, 1)
    offsets = [step for offset in checked.nhood for step in offset]
    # A compiled function may have a batch size that is not known yet, and multiplies without an array of its own.
    scale = 1 / output.shape[0] if expect_mean and not torch.compiler.is_compiling() else 1.0
    arguments = output, labels, edge_mask, unlabelled_mask, offsets, *settings.options, scale
    if torch.compiler.is_compiling():
        return cast(Tensor, _loss(*arguments)[0])
    try:
        if checked.label_limit is not None:
            check_limit(_labels_as_numpy(labels), checked.label_limit)
        losses = _Loss.apply(*arguments)[0]  # type: ignore[no-untyped-call]
    except ValueError as error:
        names = settings.names
        raise ValueError(names.renamed(names.of_core(str(error)), Names())) from None
    return cast(Tensor, losses)


def _reduced_loss(
    settings: Settings,
    seg_gt: Tensor,
    output: Tensor,
    edge_mask: Tensor | None,
    unlabelled_mask: Tensor | None,
    reduction: str,
) -> Tensor:
    _checks.as_choice(reduction, "reduction", REDUCTIONS)
    losses = losses_of_samples(settings, seg_gt, output, edge_mask, unlabelled_mask, reduction == "mean")
    if reduction == "none":
        return losses
    return losses.mean() if reduction == "mean" else losses.sum()


def _evaluate(
    ndim: int,
    seg_gt: Tensor,
    output: Tensor,
    edge_mask: Tensor | None,
    unlabelled_mask: Tensor | None,
    nhood: npt.ArrayLike | None,
    options: Options,
    reduction: str,
) -> Tensor:
    """`malis_loss2d` and `malis_loss3d`."""
    if torch.compiler.is_compiling():
        # NumPy cannot be traced. The operator checks the options, too, when it runs.
        if nhood is not None and not isinstance(nhood, (tuple, list)):
            raise TypeError(
                "nhood must be a nested tuple or list of integers in a compiled function, which cannot look "
                "into an array; the module MalisLoss takes any"
            )
        offsets = None if nhood is None else tuple(tuple(offset) for offset in cast(Nhood, nhood))
    else:
        offsets = None if nhood is None else as_tuples(nhood)
        options = options.checked()
    settings = Settings(ndim, offsets, options, channels_last=False, names=Names())
    return _reduced_loss(settings, seg_gt, output, edge_mask, unlabelled_mask, reduction)


# -------------------------------------------------------------------------------------------- what users call
def malis_loss2d(
    seg_gt: Tensor,
    output: Tensor,
    edge_mask: Tensor | None = None,
    unlabelled_mask: Tensor | None = None,
    *,
    nhood: npt.ArrayLike | None = None,
    margin: float = 0.3,
    pos_loss_weight: float = 0.5,
    normalize: bool = True,
    pointwise: str = "squared_hinge",
    from_logits: bool = False,
    constrain_positive: bool = True,
    constrain_negative: bool = True,
    ignore_background: bool = True,
    reduction: str = "mean",
    num_threads: int | None = None,
) -> Tensor:
    r"""Compute the MALIS loss of a batch of 2-D affinity graphs.

    An edge that joins two components, taken in order of decreasing affinity, decides all the pixel pairs that
    it connects: :math:`p_e` is its share of the pairs within an object, :math:`q_e` its share of the pairs
    between objects (see `malis.pairs`). The loss of one sample is

    .. math::

        L = 2 \Big( w \sum_e p_e \max(0, 1 - m - a_e)^2 + (1 - w) \sum_e q_e \max(0, a_e - m)^2 \Big)

    with affinities :math:`a`, margin :math:`m` and :math:`w` = `pos_loss_weight` [1]_ [2]_.

    Parameters
    ----------
    seg_gt : Tensor, shape (B, 1, H, W) or (B, H, W)
        Ground truth labels: any integer dtype or bool, or floats that hold integers; 0 is background. On any
        device: they are needed on the host.
    output : Tensor of float16, bfloat16, float32 or float64, shape (B, K, H, W)
        Affinities, for example of a sigmoid: ``output[b, k, y, x]`` belongs to the edge between pixel
        ``(y, x)`` and ``(y, x) + nhood[k]``.
    edge_mask : Tensor of bool, shape (B, K, H, W), optional
        False where the ground truth of an edge is unknown: such an edge is constrained in neither pass, and
        its counts are 0.
    unlabelled_mask : Tensor of bool, shape (B, 1, H, W) or (B, H, W), optional
        True where objects exist but carry no label: these pixels together count as one more object among the
        negative pairs, and edges between two of them are unknown.
    nhood : array_like of int, shape (K, 2), optional
        Offsets; by default ``mknhood2d(1)``, the nearest neighbours ``[[-1, 0], [0, -1]]``.
    margin : float, optional
        Affinities above ``1 - margin`` (positive) or below ``margin`` (negative) are good enough.
    pos_loss_weight : float, optional
        Weight :math:`w` of the positive pairs, 0 to 1.
    normalize : bool, optional
        False: :math:`p` and :math:`q` are the counts themselves.
    pointwise : {"squared_hinge", "cross_entropy"}, optional
        "cross_entropy" replaces the two squares by ``-log(max(a, eps))`` and ``-log(max(1 - a, eps))`` with
        ``eps = 1e-7``, of affinities from 0 to 1; of logits, by ``log(1 + exp(-z))`` and ``log(1 + exp(z))``, so that
        one that is wrong keeps its gradient however sure it is. It has no margin.
    from_logits : bool, optional
        `output` holds logits: the loss is that of their sigmoid. Their order is the order of the affinities,
        finer than the sigmoid can hold it.
    constrain_positive, constrain_negative : bool, optional
        False: that pass takes all edges by their own affinity. Both False is the algorithm of 2009 [1]_.
    ignore_background : bool, optional
        False lets label 0 count as one more object.
    reduction : {"mean", "sum", "none"}, optional
        What to do with the losses of the samples; "none" returns them in shape (B,).
    num_threads : int, optional
        Threads to use; by default as set by `malis.set_num_threads`. The result does not depend on it.

    Returns
    -------
    Tensor
        The loss, float64 for a float64 `output` and float32 for any other, on the device of `output`. Its
        gradient has the dtype of `output`. The labels get none, and there is no second derivative.

    Raises
    ------
    ValueError
        For shapes that do not go together, empty tensors, NaN, negative or fractional labels, options out of
        range.
    TypeError
        For dtypes and options of another type.

    References
    ----------
    .. [1] S. C. Turaga, K. L. Briggman, M. Helmstaedter, W. Denk, H. S. Seung: Maximin affinity learning of
       image segmentation. NIPS 2009.
    .. [2] J. Funke et al.: Large scale image segmentation with structured loss based deep learning for
       connectome reconstruction. IEEE TPAMI 41 (2019), 1669-1680.

    Examples
    --------
    >>> import torch
    >>> from malis.malis_torch import malis_loss2d
    >>> seg_gt = torch.tensor([[[1, 1, 2, 2], [1, 1, 2, 2]]])
    >>> output = torch.full((1, 2, 2, 4), 0.5, requires_grad=True)
    >>> loss = malis_loss2d(seg_gt, output)
    >>> loss
    tensor(0.0800, grad_fn=<MeanBackward0>)
    >>> loss.backward()
    >>> output.grad.shape
    torch.Size([1, 2, 2, 4])
    """
    options = Options(
        margin,
        pos_loss_weight,
        normalize,
        pointwise,
        from_logits,
        constrain_positive,
        constrain_negative,
        ignore_background,
        num_threads,
    )
    return _evaluate(2, seg_gt, output, edge_mask, unlabelled_mask, nhood, options, reduction)


def malis_loss3d(
    seg_gt: Tensor,
    output: Tensor,
    edge_mask: Tensor | None = None,
    unlabelled_mask: Tensor | None = None,
    *,
    nhood: npt.ArrayLike | None = None,
    margin: float = 0.3,
    pos_loss_weight: float = 0.5,
    normalize: bool = True,
    pointwise: str = "squared_hinge",
    from_logits: bool = False,
    constrain_positive: bool = True,
    constrain_negative: bool = True,
    ignore_background: bool = True,
    reduction: str = "mean",
    num_threads: int | None = None,
) -> Tensor:
    r"""Compute the MALIS loss of a batch of 3-D affinity graphs.

    The loss of one sample is

    .. math::

        L = 2 \Big( w \sum_e p_e \max(0, 1 - m - a_e)^2 + (1 - w) \sum_e q_e \max(0, a_e - m)^2 \Big)

    as in `malis_loss2d` [1]_ [2]_.

    Parameters
    ----------
    seg_gt : Tensor, shape (B, 1, D, H, W) or (B, D, H, W)
        Ground truth labels: any integer dtype or bool, or floats that hold integers; 0 is background.
    output : Tensor of float16, bfloat16, float32 or float64, shape (B, K, D, H, W)
        Affinities: ``output[b, k, z, y, x]`` belongs to the edge between voxel ``(z, y, x)`` and
        ``(z, y, x) + nhood[k]``.
    edge_mask : Tensor of bool, shape (B, K, D, H, W), optional
        See `malis_loss2d`.
    unlabelled_mask : Tensor of bool, shape (B, 1, D, H, W) or (B, D, H, W), optional
        See `malis_loss2d`.
    nhood : array_like of int, shape (K, 3), optional
        Offsets; by default ``mknhood3d(1)``, the nearest neighbours ``[[-1, 0, 0], [0, -1, 0], [0, 0, -1]]``.
    margin, pos_loss_weight, normalize, pointwise, from_logits : optional
        See `malis_loss2d`.
    constrain_positive, constrain_negative, ignore_background, reduction, num_threads : optional
        See `malis_loss2d`.

    Returns
    -------
    Tensor
        The loss, a scalar or of shape (B,); see `malis_loss2d`.

    Raises
    ------
    ValueError, TypeError
        As `malis_loss2d` does.

    References
    ----------
    .. [1] S. C. Turaga, K. L. Briggman, M. Helmstaedter, W. Denk, H. S. Seung: Maximin affinity learning of
       image segmentation. NIPS 2009.
    .. [2] J. Funke et al.: Large scale image segmentation with structured loss based deep learning for
       connectome reconstruction. IEEE TPAMI 41 (2019), 1669-1680.

    Examples
    --------
    >>> import torch
    >>> from malis.malis_torch import malis_loss3d
    >>> seg_gt = torch.ones(2, 1, 4, 8, 8, dtype=torch.int64)
    >>> malis_loss3d(seg_gt, torch.full((2, 3, 4, 8, 8), 0.5), reduction="none")
    tensor([0.0400, 0.0400])
    """
    options = Options(
        margin,
        pos_loss_weight,
        normalize,
        pointwise,
        from_logits,
        constrain_positive,
        constrain_negative,
        ignore_background,
        num_threads,
    )
    return _evaluate(3, seg_gt, output, edge_mask, unlabelled_mask, nhood, options, reduction)


class MalisLoss(torch.nn.Module):
    r"""The MALIS loss as a module: options once, then ``loss(seg_gt, output)``.

    The loss of one sample is

    .. math::

        L = 2 \Big( w \sum_e p_e \max(0, 1 - m - a_e)^2 + (1 - w) \sum_e q_e \max(0, a_e - m)^2 \Big)

    as in `malis_loss2d` [1]_ [2]_. The module has no parameters and no buffers.

    Parameters
    ----------
    nhood : array_like of int, shape (K, ndim), optional
        Offsets. By default the nearest neighbours in as many axes as `output` has: ``mknhood2d(1)`` or
        ``mknhood3d(1)``.
    margin, pos_loss_weight, normalize, pointwise, from_logits : optional
        See `malis_loss2d`.
    constrain_positive, constrain_negative, ignore_background, reduction, num_threads : optional
        See `malis_loss2d`.

    Raises
    ------
    ValueError, TypeError
        When it is made for options, when it is called for tensors, as `malis_loss2d` does.

    Notes
    -----
    Shape:

    - `seg_gt`: (B, 1, \*spatial) or (B, \*spatial)
    - `output`: (B, K, \*spatial), with 1 to 3 spatial axes
    - `edge_mask`: (B, K, \*spatial)
    - `unlabelled_mask`: (B, 1, \*spatial) or (B, \*spatial)
    - the loss: a scalar, or (B,) with ``reduction="none"``

    References
    ----------
    .. [1] S. C. Turaga, K. L. Briggman, M. Helmstaedter, W. Denk, H. S. Seung: Maximin affinity learning of
       image segmentation. NIPS 2009.
    .. [2] J. Funke et al.: Large scale image segmentation with structured loss based deep learning for
       connectome reconstruction. IEEE TPAMI 41 (2019), 1669-1680.

    Examples
    --------
    >>> import malis, torch
    >>> from malis.malis_torch import MalisLoss
    >>> criterion = MalisLoss(nhood=malis.mknhood3d_aniso(1, 1), from_logits=True)
    >>> network = torch.nn.Conv3d(1, 7, kernel_size=3, padding=1)
    >>> image = torch.randn(2, 1, 8, 16, 16)
    >>> seg_gt = torch.randint(0, 5, (2, 1, 8, 16, 16))
    >>> loss = criterion(seg_gt, network(image))
    >>> loss.backward()
    """

    nhood: Nhood | None
    margin: float
    pos_loss_weight: float
    normalize: bool
    pointwise: str
    from_logits: bool
    constrain_positive: bool
    constrain_negative: bool
    ignore_background: bool
    num_threads: int | None
    reduction: str

    def __init__(
        self,
        nhood: npt.ArrayLike | None = None,
        *,
        margin: float = 0.3,
        pos_loss_weight: float = 0.5,
        normalize: bool = True,
        pointwise: str = "squared_hinge",
        from_logits: bool = False,
        constrain_positive: bool = True,
        constrain_negative: bool = True,
        ignore_background: bool = True,
        reduction: str = "mean",
        num_threads: int | None = None,
    ) -> None:
        options = Options.of(locals())
        super().__init__()
        self.nhood = None if nhood is None else as_tuples(nhood)
        for name, value in options._asdict().items():
            setattr(self, name, value)
        self.reduction = _checks.as_choice(reduction, "reduction", REDUCTIONS)

    def forward(
        self,
        seg_gt: Tensor,
        output: Tensor,
        edge_mask: Tensor | None = None,
        unlabelled_mask: Tensor | None = None,
    ) -> Tensor:
        """Compute the loss.

        Parameters
        ----------
        seg_gt : Tensor, shape (B, 1, *spatial) or (B, *spatial)
            Ground truth labels.
        output : Tensor, shape (B, K, *spatial)
            Affinities, or logits with `from_logits`.
        edge_mask : Tensor of bool, shape (B, K, *spatial), optional
            False where the ground truth of an edge is unknown.
        unlabelled_mask : Tensor of bool, shape (B, 1, *spatial) or (B, *spatial), optional
            True where objects exist but carry no label.

        Returns
        -------
        Tensor
            The loss, a scalar or of shape (B,).
        """
        options = Options(*[getattr(self, name) for name in Options._fields])
        settings = Settings(None, self.nhood, options, channels_last=False, names=Names())
        return _reduced_loss(settings, seg_gt, output, edge_mask, unlabelled_mask, self.reduction)

    def extra_repr(self) -> str:
        """List the options for ``print``."""
        names = ("nhood", *Options._fields, "reduction")
        return ", ".join(f"{name}={getattr(self, name)!r}" for name in names)
