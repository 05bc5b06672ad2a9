r"""The MALIS loss for PyTorch: `malis_loss2d`, `malis_loss3d` and the module `MalisLoss`.

All three end in one custom operator, ``torch.ops.malis.loss``, which hands the tensors to `malis.malis_loss`
as they lie in memory and returns the loss of every sample with its gradient. Being an operator it is opaque
to ``torch.compile`` and ``torch.export``, and known to autograd, autocast and ``torch.func``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from malis import _checks
from malis.loss import POINTWISE, malis_loss
from malis.nhood import mknhood2d, mknhood3d

__all__ = ["MalisLoss", "malis_loss2d", "malis_loss3d"]

Nhood = tuple[tuple[int, ...], ...]

REDUCTIONS = ("mean", "sum", "none")
FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def _as_tuples(nhood: npt.ArrayLike) -> Nhood:
    return tuple(tuple(offset) for offset in _checks.as_nhood(nhood).tolist())


_NEAREST: dict[int, Nhood] = {1: ((-1,),), 2: _as_tuples(mknhood2d()), 3: _as_tuples(mknhood3d())}


class _Options(NamedTuple):
    """What the operator takes after the tensors and the neighbourhood, in its order."""

    margin: float
    pos_loss_weight: float
    normalize: bool
    pointwise: str
    from_logits: bool
    constrain_positive: bool
    constrain_negative: bool
    ignore_background: bool
    num_threads: int | None

    def checked(self) -> _Options:
        weight = _checks.as_real(self.pos_loss_weight, "pos_loss_weight")
        if not 0 <= weight <= 1:
            raise ValueError(f"pos_loss_weight must be within 0 and 1, got {self.pos_loss_weight!r}")
        return _Options(
            _checks.as_real(self.margin, "margin"),
            weight,
            _checks.as_flag(self.normalize, "normalize"),
            _checks.as_choice(self.pointwise, "pointwise", POINTWISE),
            _checks.as_flag(self.from_logits, "from_logits"),
            _checks.as_flag(self.constrain_positive, "constrain_positive"),
            _checks.as_flag(self.constrain_negative, "constrain_negative"),
            _checks.as_flag(self.ignore_background, "ignore_background"),
            _checks.as_threads(self.num_threads),
        )


# ----------------------------------------------------------------------------------------------- the operator
# Data that goes through the host cannot be part of a CUDA graph: PyTorch cuts the graph if it knows the tag.
_TAGS: dict[str, Any] = {"tags": (torch.Tag.cudagraph_unsafe,)} if hasattr(torch.Tag, "cudagraph_unsafe") else {}


def _compute_dtype(output: Tensor) -> torch.dtype:
    return torch.float64 if output.dtype == torch.float64 else torch.float32


def _as_numpy(tensor: Tensor | None) -> npt.NDArray[Any] | None:
    """Share the memory of a C-contiguous tensor on the host; copy any other."""
    return None if tensor is None else tensor.detach().contiguous().numpy(force=True)


@torch.library.custom_op(
    "malis::loss",
    mutates_args=(),
    schema="(Tensor output, Tensor seg_gt, Tensor? edge_mask, Tensor? unlabelled_mask, int[] nhood, "
    "float margin, float pos_loss_weight, bool normalize, str pointwise, bool from_logits, "
    "bool constrain_positive, bool constrain_negative, bool ignore_background, int? num_threads) "
    "-> (Tensor loss, Tensor grad)",
    **_TAGS,
)
def _loss(
    output: Tensor,
    seg_gt: Tensor,
    edge_mask: Tensor | None,
    unlabelled_mask: Tensor | None,
    nhood: Sequence[int],
    *options: Any,
) -> tuple[Tensor, Tensor]:
    """Loss of every sample and its derivative, both float32 where `output` has 16 bits.

    A 16-bit derivative would lose its small numbers before the gradient scaling of mixed precision, which
    comes with the upstream gradient, could save them.
    """
    dtype = _compute_dtype(output)
    sixteen_bits = seg_gt.is_floating_point() and seg_gt.element_size() == 2
    labels = seg_gt.float() if sixteen_bits else seg_gt  # NumPy has no bfloat16
    try:
        loss, grad = malis_loss(
            cast(npt.NDArray[Any], _as_numpy(output.to(dtype))),
            cast(npt.NDArray[Any], _as_numpy(labels)),
            np.asarray(nhood, dtype=np.int64).reshape(-1, output.dim() - 2),
            edge_mask=_as_numpy(edge_mask),
            unlabelled_mask=_as_numpy(unlabelled_mask),
            **_Options(*options)._asdict(),
        )
    except ValueError as error:
        # What is left to find is in the values, and the core calls their arrays aff and seg.
        message = str(error)
        for core_name, name in (("aff ", "output "), ("seg ", "seg_gt ")):
            if message.startswith(core_name):
                message = name + message[len(core_name) :]
        raise ValueError(message) from None
    losses = torch.from_numpy(np.asarray(loss)).to(dtype)  # before the device: some have no float64
    return losses.to(output.device), torch.from_numpy(grad).to(output.device)


@_loss.register_fake
def _(output: Tensor, *args: Any) -> tuple[Tensor, Tensor]:
    dtype = _compute_dtype(output)
    return output.new_empty(output.shape[:1], dtype=dtype), output.new_empty(output.shape, dtype=dtype)


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
    ctx.mark_non_differentiable(grad)
    ctx.set_materialize_grads(False)  # no zeros for `grad`, which is as large as the network's output
    ctx.save_for_backward(grad, inputs[0])


def _backward(ctx: Any, grad_loss: Tensor | None, _: Tensor | None) -> tuple[Tensor | None, ...]:
    grad = None if grad_loss is None else _ChainRule.apply(grad_loss, *ctx.saved_tensors)  # type: ignore[no-untyped-call]
    return (grad, *[None] * (4 + len(_Options._fields)))


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
    backward = staticmethod(_backward)

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], *args: Any) -> tuple[tuple[Tensor, ...], tuple[int, ...]]:
        return cast(tuple[tuple[Tensor, ...], tuple[int, ...]], _vmap_rule(_Loss.apply)(info, in_dims, *args))


# ------------------------------------------------------------------------------------------------- the checks
def _describe(tensor: Tensor) -> str:
    return f"a tensor of shape {tuple(tensor.shape)} and dtype {tensor.dtype}"


def _check_tensor(tensor: object, name: str) -> None:
    if not isinstance(tensor, Tensor):
        raise TypeError(f"{name} must be a torch.Tensor, got {type(tensor).__name__}")


def _check_output(output: Tensor, ndim: int | None, nhood: Nhood | None) -> Nhood:
    """Check the output on its own and return the neighbourhood that its channels stand for."""
    _check_tensor(output, "output")
    if ndim is None and nhood is not None:
        ndim = len(nhood[0])
    if ndim is None:
        if not 3 <= output.dim() <= 5:
            raise ValueError(f"output must have shape (B, K, *spatial) with 1 to 3 axes, got {_describe(output)}")
        ndim = output.dim() - 2
    if nhood is None:
        nhood = _NEAREST[ndim]
    if len(nhood[0]) != ndim:
        raise ValueError(f"nhood must have {ndim} columns, one for each spatial axis, got {len(nhood[0])}: {nhood}")
    if output.dim() != ndim + 2:
        axes = ("L", "H, W", "D, H, W")[ndim - 1]
        raise ValueError(f"output must have shape (B, K, {axes}), got {_describe(output)}")
    if output.dtype not in FLOATS:
        raise TypeError(f"output must have dtype float16, bfloat16, float32 or float64, got {_describe(output)}")
    if output.shape[1] != len(nhood):
        raise ValueError(
            f"output must have one channel for each of the {len(nhood)} offsets of nhood, got {_describe(output)}"
        )
    if output.numel() == 0:
        raise ValueError(f"output must not be empty, got {_describe(output)}")
    return nhood


def _without_channel(tensor: Tensor, name: str, output: Tensor) -> Tensor:
    """Check labels or a mask of voxels against the output and return them in shape ``(B, *spatial)``."""
    _check_tensor(tensor, name)
    flat = tensor.squeeze(1) if tensor.dim() == output.dim() and tensor.shape[1] == 1 else tensor
    batch, spatial = output.shape[0], tuple(output.shape[2:])
    if tuple(flat.shape) != (batch, *spatial):
        raise ValueError(
            f"{name} must have shape {(batch, *spatial)} or {(batch, 1, *spatial)} for an output of shape "
            f"{tuple(output.shape)}, got {_describe(tensor)}"
        )
    return flat


def _check_mask(mask: Tensor, name: str) -> None:
    _check_tensor(mask, name)
    if mask.dtype != torch.bool:
        raise TypeError(f"{name} must have dtype torch.bool, got {_describe(mask)}")


def _evaluate(
    ndim: int | None,
    seg_gt: Tensor,
    output: Tensor,
    edge_mask: Tensor | None,
    unlabelled_mask: Tensor | None,
    nhood: Nhood | None,
    options: _Options,
    reduction: str,
) -> Tensor:
    """Check shapes and dtypes, call the operator, reduce. The operator itself checks the values."""
    nhood = _check_output(output, ndim, nhood)
    labels = _without_channel(seg_gt, "seg_gt", output)
    if labels.dtype.is_complex:
        raise TypeError(f"seg_gt must hold integer labels, got {_describe(seg_gt)}")
    if edge_mask is not None:
        _check_mask(edge_mask, "edge_mask")
        if edge_mask.shape != output.shape:
            raise ValueError(
                f"edge_mask must have the shape of output, {tuple(output.shape)}, got {_describe(edge_mask)}"
            )
    if unlabelled_mask is not None:
        _check_mask(unlabelled_mask, "unlabelled_mask")
        unlabelled_mask = _without_channel(unlabelled_mask, "unlabelled_mask", output)
    _checks.as_choice(reduction, "reduction", REDUCTIONS)
    offsets = [step for offset in nhood for step in offset]
    function: Callable[..., tuple[Tensor, Tensor]] = _loss if torch.compiler.is_compiling() else _Loss.apply
    losses = function(output, labels.detach(), edge_mask, unlabelled_mask, offsets, *options)[0]
    if reduction == "none":
        return losses
    return losses.mean() if reduction == "mean" else losses.sum()


def _evaluate_function(
    ndim: int,
    seg_gt: Tensor,
    output: Tensor,
    edge_mask: Tensor | None,
    unlabelled_mask: Tensor | None,
    nhood: npt.ArrayLike | None,
    options: _Options,
    reduction: str,
) -> Tensor:
    if torch.compiler.is_compiling():
        # NumPy cannot be traced. The operator checks the options, too, when it runs.
        if nhood is not None and not isinstance(nhood, (tuple, list)):
            raise TypeError(
                "nhood must be a nested tuple or list of integers in a compiled function, which cannot look "
                "into an array; the module MalisLoss takes any"
            )
        offsets = None if nhood is None else tuple(tuple(offset) for offset in cast(Nhood, nhood))
    else:
        offsets = None if nhood is None else _as_tuples(nhood)
        options = options.checked()
    return _evaluate(ndim, seg_gt, output, edge_mask, unlabelled_mask, offsets, options, reduction)


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
        ``eps = 1e-7``; it has no margin.
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
    options = _Options(
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
    return _evaluate_function(2, seg_gt, output, edge_mask, unlabelled_mask, nhood, options, reduction)


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
    options = _Options(
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
    return _evaluate_function(3, seg_gt, output, edge_mask, unlabelled_mask, nhood, options, reduction)


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
        super().__init__()
        self.nhood = None if nhood is None else _as_tuples(nhood)
        options = _Options(
            margin,
            pos_loss_weight,
            normalize,
            pointwise,
            from_logits,
            constrain_positive,
            constrain_negative,
            ignore_background,
            num_threads,
        ).checked()
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
        options = _Options(*[getattr(self, name) for name in _Options._fields])
        return _evaluate(None, seg_gt, output, edge_mask, unlabelled_mask, self.nhood, options, self.reduction)

    def extra_repr(self) -> str:
        """List the options for ``print``."""
        names = ("nhood", *_Options._fields, "reduction")
        return ", ".join(f"{name}={getattr(self, name)!r}" for name in names)
