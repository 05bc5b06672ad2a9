r"""The MALIS loss for PyTorch: `malis_loss2d`, `malis_loss3d` and the module `MalisLoss`.

They work on any device, eagerly and in functions of ``torch.compile``, and are known to autograd, autocast,
``torch.export`` and ``torch.func``. The pairs are counted on the CPU.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import numpy.typing as npt
import torch
from torch import Tensor

from malis import _checks
from malis._adapters.names import Names
from malis._adapters.settings import REDUCTIONS, Nhood, Settings, as_tuples
from malis._adapters.torch_op import losses_of_samples
from malis._options import HoldsOptions, LossOptions, Options, takes

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["MalisLoss", "malis_loss2d", "malis_loss3d"]


@takes(LossOptions)
def malis_loss2d(
    seg_gt: Tensor,
    output: Tensor,
    edge_mask: Tensor | None = None,
    unlabelled_mask: Tensor | None = None,
    *,
    nhood: npt.ArrayLike | None = None,
    reduction: str = "mean",
    **options: Unpack[LossOptions],
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
    reduction : {"mean", "sum", "none"}, optional
        What to do with the losses of the samples; "none" returns them in shape (B,).
    **options
        The options of the loss, which `malis.malis_loss` explains.

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
    return _evaluate(2, seg_gt, output, edge_mask, unlabelled_mask, nhood, reduction, options)


@takes(LossOptions)
def malis_loss3d(
    seg_gt: Tensor,
    output: Tensor,
    edge_mask: Tensor | None = None,
    unlabelled_mask: Tensor | None = None,
    *,
    nhood: npt.ArrayLike | None = None,
    reduction: str = "mean",
    **options: Unpack[LossOptions],
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
    reduction : {"mean", "sum", "none"}, optional
        See `malis_loss2d`.
    **options
        The options of the loss, which `malis.malis_loss` explains.

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
    return _evaluate(3, seg_gt, output, edge_mask, unlabelled_mask, nhood, reduction, options)


@takes(LossOptions)
class MalisLoss(HoldsOptions, torch.nn.Module):
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
    reduction : {"mean", "sum", "none"}, optional
        See `malis_loss2d`.
    **options
        The options of the loss, which `malis.malis_loss` explains.

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

    reduction: str

    def __init__(
        self,
        nhood: npt.ArrayLike | None = None,
        *,
        reduction: str = "mean",
        **options: Unpack[LossOptions],
    ) -> None:
        checked = Options.of(options)
        super().__init__()
        self._hold(None if nhood is None else as_tuples(nhood), checked)
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
        settings = Settings(None, self.nhood, self._held_options(), channels_last=False, names=Names())
        return _reduced_loss(settings, seg_gt, output, edge_mask, unlabelled_mask, self.reduction)

    def extra_repr(self) -> str:
        """List the options for ``print``."""
        return self._repr_of_options(reduction=self.reduction)


def _evaluate(
    ndim: int,
    seg_gt: Tensor,
    output: Tensor,
    edge_mask: Tensor | None,
    unlabelled_mask: Tensor | None,
    nhood: npt.ArrayLike | None,
    reduction: str,
    options: LossOptions,
) -> Tensor:
    """`malis_loss2d` and `malis_loss3d`, whose arguments this takes."""
    if torch.compiler.is_compiling():
        # NumPy cannot be traced. The operator checks the options, too, when it runs.
        if nhood is not None and not isinstance(nhood, (tuple, list)):
            raise TypeError(
                "nhood must be a nested tuple or list of integers in a compiled function, which cannot look "
                "into an array; the module MalisLoss takes any"
            )
        offsets = None if nhood is None else tuple(tuple(offset) for offset in cast(Nhood, nhood))
        settings = Settings(ndim, offsets, Options(**options), channels_last=False, names=Names())
    else:
        settings = Settings.of(ndim, Names(), nhood, options, "channels_first")
    return _reduced_loss(settings, seg_gt, output, edge_mask, unlabelled_mask, reduction)


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
