r"""The MALIS loss for PyTorch: the recipe `AffinityLoss`, the module `MalisLoss`, `malis_loss2d` and `malis_loss3d`.

They work on any device, eagerly and in functions of ``torch.compile``, and are known to autograd, autocast,
``torch.export`` and ``torch.func``. The pairs are counted on the CPU.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from malis._adapters.missing import missing

try:
    import torch
except ModuleNotFoundError as error:
    raise missing(error, "torch", "torch") from None

import numpy.typing as npt
from torch import Tensor

from malis import _checks
from malis._adapters.affinity import DEFAULTS_OF_MALIS, HoldsRecipe, describes_recipe
from malis._adapters.affinity import NAMES as AFFINITY_NAMES
from malis._adapters.names import Names
from malis._adapters.settings import REDUCTIONS, Nhood, Settings, as_tuples
from malis._adapters.torch_affinity import losses as affinity_losses
from malis._adapters.torch_op import losses_of_samples
from malis._options import HoldsOptions, LossOptions, Options, takes

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["AffinityLoss", "MalisLoss", "malis_loss2d", "malis_loss3d"]


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


@describes_recipe
@takes(LossOptions, **DEFAULTS_OF_MALIS)
class AffinityLoss(HoldsRecipe, torch.nn.Module):
    r"""Cross entropy of affinities first, MALIS on top of it later: one loss to train with.

    The loss of one sample is

    .. math::

        L = c \cdot \mathrm{BCE} + m_t \cdot \mathrm{MALIS}

    with :math:`c` = `cross_entropy`, and :math:`m_t` = 0 for the first `warmup` training steps, `malis` from then on.
    BCE is the mean binary cross entropy over the edges of all channels whose truth is known and that do not leave the
    volume; MALIS is the loss of `MalisLoss` on the channels of `malis_offsets` [1]_.

    Parameters
    ----------
    nhood : array_like of int, shape (K, ndim)
        Offsets, one for each channel of the output; none twice. A zero offset decides nothing and is not trained.
    {recipe}
    reduction : {"mean", "sum", "none"}, optional
        What to do with the losses of the samples; "none" returns them in shape (B,).
    **options
        The options of MALIS, which `malis.malis_loss` explains; here `margin` is 0.1 and `from_logits` True by
        default.

    Attributes
    ----------
    step : Tensor of int64
        Number of calls in training mode so far, a buffer: it is saved and loaded with the ``state_dict``. Every call
        counts, also each of several within one step of the optimiser, as in gradient accumulation and deep
        supervision.
    parts : dict
        Of the last call, for logging: "cross_entropy" and "malis", detached, before their weights and only if they
        were computed, and "malis_weight".

    Raises
    ------
    ValueError, TypeError
        When it is made for options, when it is called for tensors.

    Notes
    -----
    Shape:

    - `output`: (B, K, \*spatial), with 1 to 3 spatial axes
    - `target`: labels (B, 1, \*spatial) or (B, \*spatial), or affinities (B, K, \*spatial)
    - `mask`: (B, 1, \*spatial), (B, \*spatial) or \*spatial for voxels, (B, K, \*spatial) for edges; axes of one
      broadcast
    - `gt_seg`: (B, 1, \*spatial) or (B, \*spatial)
    - the loss: a scalar, or (B,) with ``reduction="none"``

    With a warm-up or a ramp, ``torch.compile`` breaks the graph where the number of steps decides whether MALIS is
    computed; with ``warmup=0`` it does not.

    References
    ----------
    .. [1] J. Funke et al.: Large scale image segmentation with structured loss based deep learning for
       connectome reconstruction. IEEE TPAMI 41 (2019), 1669-1680.

    Examples
    --------
    >>> import torch
    >>> from malis.malis_torch import AffinityLoss
    >>> criterion = AffinityLoss([[-1, 0], [0, -1], [-9, 0], [0, -9]], warmup=1)
    >>> network = torch.nn.Conv2d(1, 4, kernel_size=3, padding=1)
    >>> labels = torch.randint(0, 5, (2, 1, 32, 32))
    >>> for _ in range(2):
    ...     loss = criterion(network(torch.rand(2, 1, 32, 32)), labels)
    ...     loss.backward()
    >>> sorted(criterion.parts)
    ['cross_entropy', 'malis', 'malis_weight']
    """

    reduction: str
    step: Tensor
    parts: dict[str, Tensor | float]

    def __init__(
        self,
        nhood: npt.ArrayLike,
        *,
        malis: float = 1.0,
        cross_entropy: float = 1.0,
        warmup: int = 900,
        ramp: int = 0,
        malis_offsets: npt.ArrayLike | None = None,
        balance: bool = False,
        target: str = "auto",
        warn: bool = True,
        reduction: str = "mean",
        **options: Unpack[LossOptions],
    ) -> None:
        super().__init__()
        self._hold_recipe(nhood, malis, cross_entropy, warmup, ramp, malis_offsets, balance, target, warn, options)
        self.reduction = _checks.as_choice(reduction, "reduction", REDUCTIONS)
        self.register_buffer("step", torch.zeros((), dtype=torch.int64))
        self.parts = {}

    def forward(
        self, output: Tensor, target: Tensor, mask: Tensor | None = None, *, gt_seg: Tensor | None = None
    ) -> Tensor:
        """Compute the loss; a call in training mode counts as a step.

        Parameters
        ----------
        output : Tensor, shape (B, K, *spatial)
            Logits of the affinities, or with ``from_logits=False`` the affinities.
        target : Tensor, shape (B, 1, *spatial), (B, *spatial) or (B, K, *spatial)
            Labels, or the affinity graph of the ground truth, whose objects are the connected components of the edges
            above 0.5. Values between 0 and 1 are taken as they are by the cross entropy.
        mask : Tensor, shape (B, 1, *spatial), (B, *spatial), *spatial or (B, K, *spatial), optional
            What is known, bool or 0 and 1. An edge is known where both its voxels are; a voxel that is not known takes
            part in no pair. With ``malis=0`` values between 0 and 1 are weights of the cross entropy; an edge has the
            product of those of its voxels.
        gt_seg : Tensor, shape (B, 1, *spatial) or (B, *spatial), optional
            With affinities as `target`: labels of the objects, in place of the connected components, so that the parts
            of an object that a crop has cut stay one. The cross entropy takes the affinities. An error with labels as
            `target`, which tell the objects themselves.

        Returns
        -------
        Tensor
            The loss, a scalar or of shape (B,).
        """
        recipe = self._held_recipe()
        weight = recipe.constant_weight()
        if weight is None:
            weight = recipe.weight_at(int(self.step))
        settings = Settings(
            None, self.nhood, self._held_options(), channels_last=False, names=AFFINITY_NAMES, warn=recipe.warn
        )
        losses = affinity_losses(settings, recipe, target, output, mask, weight, gt_seg)
        if self.training:
            self.step += 1
        parts: dict[str, Tensor | float] = {"malis_weight": weight}
        for name, part in (("cross_entropy", losses.cross_entropy), ("malis", losses.malis)):
            if part is not None:
                parts[name] = _reduced(part.detach(), self.reduction)
        self.parts = parts
        return _reduced(losses.total, self.reduction)

    def extra_repr(self) -> str:
        """List the options for ``print``."""
        return self._repr_of_options(**self._recipe_of(), reduction=self.reduction)


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
    return _reduced(losses, reduction)


def _reduced(losses: Tensor, reduction: str) -> Tensor:
    if reduction == "none":
        return losses
    return losses.mean() if reduction == "mean" else losses.sum()
