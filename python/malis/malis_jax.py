r"""The MALIS loss for JAX: the recipe `AffinityLoss`, `malis_loss`, `malis_loss2d` and `malis_loss3d`.

They work under ``jit``, ``grad``, ``value_and_grad`` and ``vmap`` (the mapped axis becomes part of the batch), and on
several devices: under ``shard_map`` and ``pmap`` every device evaluates its own samples. XLA's automatic partitioning
cannot see that the samples of a custom call are independent; it gathers the batch first.

In compiled code on the CPU the loss is one call of the C++ library, without Python and without a copy of the arrays.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any, cast

from malis._adapters.missing import missing

try:
    import jax
except ModuleNotFoundError as error:
    raise missing(error, "jax", "jax") from None

import jax.numpy as jnp
import numpy as np
import numpy.typing as npt

from malis import _checks
from malis._adapters.affinity import DEFAULTS_OF_MALIS, HoldsRecipe, describes_recipe
from malis._adapters.affinity import NAMES as AFFINITY_NAMES
from malis._adapters.jax_affinity import losses as affinity_losses
from malis._adapters.jax_op import as_array, losses_of_samples
from malis._adapters.names import CORE_NAMES, Names
from malis._adapters.settings import DATA_FORMATS, REDUCTIONS, Settings, as_tuples
from malis._options import LossOptions, Options, takes

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["AffinityLoss", "malis_loss", "malis_loss2d", "malis_loss3d"]


@takes(LossOptions)
def malis_loss(
    aff: npt.ArrayLike,
    seg: npt.ArrayLike,
    nhood: npt.ArrayLike,
    edge_mask: npt.ArrayLike | None = None,
    unlabelled_mask: npt.ArrayLike | None = None,
    **options: Unpack[LossOptions],
) -> jax.Array:
    r"""Compute the MALIS loss of an affinity graph in 1 to 3 dimensions, or of a batch of them.

    With the shares :math:`p_e` and :math:`q_e` of the pairs within objects and between objects that edge :math:`e`
    decides (see `malis.pairs`), the loss of one sample is

    .. math::

        L = 2 \Big( w \sum_e p_e \max(0, 1 - m - a_e)^2 + (1 - w) \sum_e q_e \max(0, a_e - m)^2 \Big)

    with affinities :math:`a`, margin :math:`m` and :math:`w` = `pos_loss_weight` [1]_ [2]_.

    Parameters
    ----------
    aff : array_like of float16, bfloat16, float32 or float64, shape (K, *shape) or (B, K, *shape)
        Affinities: ``aff[k, v]`` belongs to the edge between voxel ``v`` and ``v + nhood[k]``.
    seg : array_like of int, shape `shape` or (B, *shape)
        Labels: any integer dtype or bool, or floats that hold integers; 0 is background.
    nhood : array_like of int, shape (K, ndim)
        Offsets. They are part of the compiled code, so they have to be known when it is traced.
    edge_mask : array_like of bool, in the shape of `aff`, optional
        See `malis_loss2d`.
    unlabelled_mask : array_like of bool, in the shape of `seg`, optional
        See `malis_loss2d`.
    **options
        The options of the loss, which `malis.malis_loss` explains.

    Returns
    -------
    jax.Array
        The loss, a scalar, or of shape (B,) for a batch: float64 for a float64 `aff` and float32 for any other.

    Raises
    ------
    ValueError, TypeError, NotImplementedError
        As `malis_loss2d` does.

    Warns
    -----
    DeprecationWarning
        For the arguments in the order of earlier versions, `seg` before `aff`.

    References
    ----------
    .. [1] S. C. Turaga, K. L. Briggman, M. Helmstaedter, W. Denk, H. S. Seung: Maximin affinity learning of image
       segmentation. NIPS 2009.
    .. [2] J. Funke et al.: Large scale image segmentation with structured loss based deep learning for connectome
       reconstruction. IEEE TPAMI 41 (2019), 1669-1680.

    Examples
    --------
    >>> import jax, jax.numpy as jnp, numpy as np
    >>> from malis.malis_jax import malis_loss
    >>> aff = jnp.array([[0, 0.9, 0.8, 0.2, 0.6]])
    >>> seg = jnp.array([1, 1, 0, 2, 2])
    >>> loss, grad = jax.value_and_grad(malis_loss)(aff, seg, [[-1]])
    >>> round(float(loss), 4)
    0.005
    >>> np.asarray(grad).round(2).tolist() == [[0, 0, 0, 0, np.float32(-0.1)]]
    True
    """
    checked = Options.of(options)
    offsets = as_tuples(nhood)
    ndim = len(offsets[0])
    if np.ndim(seg) == np.ndim(aff) + 1:  # `aff` has the axis of the channels
        warnings.warn(
            "malis_jax.malis_loss takes (aff, seg, nhood), in the order of malis.malis_loss; the order (seg, aff, "
            "nhood) is deprecated and will be an error",
            DeprecationWarning,
            stacklevel=2,
        )
        aff, seg = seg, aff
    affinities, labels = as_array(aff, "aff"), as_array(seg, "seg")
    arrays = [labels, affinities, edge_mask, unlabelled_mask]
    single = affinities.ndim != ndim + 2
    if single:
        _checks.check_volume(affinities, labels, "seg", np.asarray(offsets))
        arrays = [None if a is None else jnp.expand_dims(as_array(a, "a mask"), 0) for a in arrays]
    settings = Settings(ndim, offsets, checked, channels_last=False, names=CORE_NAMES)
    labels, affinities, edge_mask, unlabelled_mask = arrays
    losses = losses_of_samples(settings, labels, affinities, edge_mask, unlabelled_mask, expect_mean=False)
    return cast(jax.Array, losses[0] if single else losses)


@takes(LossOptions)
def malis_loss2d(
    seg_gt: npt.ArrayLike,
    output: npt.ArrayLike,
    edge_mask: npt.ArrayLike | None = None,
    unlabelled_mask: npt.ArrayLike | None = None,
    *,
    nhood: npt.ArrayLike | None = None,
    reduction: str = "mean",
    data_format: str = "channels_first",
    **options: Unpack[LossOptions],
) -> jax.Array:
    r"""Compute the MALIS loss of a batch of 2-D affinity graphs.

    With the shares :math:`p_e` and :math:`q_e` of the pairs within objects and between objects that edge :math:`e`
    decides (see `malis.pairs`), the loss of one sample is

    .. math::

        L = 2 \Big( w \sum_e p_e \max(0, 1 - m - a_e)^2 + (1 - w) \sum_e q_e \max(0, a_e - m)^2 \Big)

    with affinities :math:`a`, margin :math:`m` and :math:`w` = `pos_loss_weight` [1]_ [2]_.

    Parameters
    ----------
    seg_gt : array_like, shape (B, H, W) or (B, 1, H, W)
        Ground truth labels: any integer dtype or bool, or floats that hold integers; 0 is background.
    output : array_like of float16, bfloat16, float32 or float64, shape (B, K, H, W)
        Affinities, for example of a sigmoid: ``output[b, k, y, x]`` belongs to the edge between pixel ``(y, x)`` and
        ``(y, x) + nhood[k]``.
    edge_mask : array_like of bool, shape (B, K, H, W), optional
        False where the ground truth of an edge is unknown: such an edge is constrained in neither pass, and its
        counts are 0.
    unlabelled_mask : array_like of bool, shape (B, H, W) or (B, 1, H, W), optional
        True where objects exist but carry no label: these pixels together count as one more object among the
        negative pairs, and edges between two of them are unknown.
    nhood : array_like of int, shape (K, 2), optional
        Offsets; by default ``mknhood2d(1)``, the nearest neighbours ``[[-1, 0], [0, -1]]``.
    reduction : {"mean", "sum", "none"}, optional
        What to do with the losses of the samples; "none" returns them in shape (B,).
    data_format : {"channels_first", "channels_last"}, optional
        With "channels_last" the shapes are (B, H, W, K) and (B, H, W, 1) or (B, H, W).
    **options
        The options of the loss, which `malis.malis_loss` explains.

    Returns
    -------
    jax.Array
        The loss, float64 for a float64 `output` and float32 for any other. Its gradient has the dtype of `output`.
        The labels get none, and there is no second derivative.

    Raises
    ------
    ValueError
        For shapes that do not go together, empty tensors, NaN, negative or fractional labels, options out of range.
        What depends on values becomes a ``jax.errors.JaxRuntimeError`` in compiled code.
    TypeError
        For dtypes and options of another type.
    NotImplementedError
        For a second derivative.

    References
    ----------
    .. [1] S. C. Turaga, K. L. Briggman, M. Helmstaedter, W. Denk, H. S. Seung: Maximin affinity learning of image
       segmentation. NIPS 2009.
    .. [2] J. Funke et al.: Large scale image segmentation with structured loss based deep learning for connectome
       reconstruction. IEEE TPAMI 41 (2019), 1669-1680.

    Examples
    --------
    >>> import jax, jax.numpy as jnp, numpy as np
    >>> from malis.malis_jax import malis_loss2d
    >>> seg_gt = jnp.array([[[1, 1, 2, 2], [1, 1, 2, 2]]])
    >>> output = jnp.full((1, 2, 2, 4), 0.5)
    >>> loss, grad = jax.jit(jax.value_and_grad(malis_loss2d, argnums=1))(seg_gt, output)
    >>> round(float(loss), 4)
    0.08
    >>> grad.shape
    (1, 2, 2, 4)
    """
    return _evaluate(2, seg_gt, output, edge_mask, unlabelled_mask, nhood, reduction, data_format, options)


@takes(LossOptions)
def malis_loss3d(
    seg_gt: npt.ArrayLike,
    output: npt.ArrayLike,
    edge_mask: npt.ArrayLike | None = None,
    unlabelled_mask: npt.ArrayLike | None = None,
    *,
    nhood: npt.ArrayLike | None = None,
    reduction: str = "mean",
    data_format: str = "channels_first",
    **options: Unpack[LossOptions],
) -> jax.Array:
    """Compute the MALIS loss of a batch of 3-D affinity graphs.

    The loss of one sample is that of `malis_loss2d` [1]_ [2]_.

    Parameters
    ----------
    seg_gt : array_like, shape (B, D, H, W) or (B, 1, D, H, W)
        Ground truth labels: any integer dtype or bool, or floats that hold integers; 0 is background.
    output : array_like of float16, bfloat16, float32 or float64, shape (B, K, D, H, W)
        Affinities: ``output[b, k, z, y, x]`` belongs to the edge between voxel ``(z, y, x)`` and
        ``(z, y, x) + nhood[k]``.
    edge_mask : array_like of bool, shape (B, K, D, H, W), optional
        See `malis_loss2d`.
    unlabelled_mask : array_like of bool, shape (B, D, H, W) or (B, 1, D, H, W), optional
        See `malis_loss2d`.
    nhood : array_like of int, shape (K, 3), optional
        Offsets; by default ``mknhood3d(1)``, the nearest neighbours ``[[-1, 0, 0], [0, -1, 0], [0, 0, -1]]``.
    reduction, data_format : optional
        See `malis_loss2d`.
    **options
        The options of the loss, which `malis.malis_loss` explains.

    Returns
    -------
    jax.Array
        The loss, a scalar or of shape (B,); see `malis_loss2d`.

    Raises
    ------
    ValueError, TypeError, NotImplementedError
        As `malis_loss2d` does.

    References
    ----------
    .. [1] S. C. Turaga, K. L. Briggman, M. Helmstaedter, W. Denk, H. S. Seung: Maximin affinity learning of image
       segmentation. NIPS 2009.
    .. [2] J. Funke et al.: Large scale image segmentation with structured loss based deep learning for connectome
       reconstruction. IEEE TPAMI 41 (2019), 1669-1680.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> from malis.malis_jax import malis_loss3d
    >>> seg_gt = jnp.ones((2, 4, 8, 8), jnp.int32)
    >>> malis_loss3d(seg_gt, jnp.full((2, 3, 4, 8, 8), 0.5), reduction="none").round(4).tolist()
    [0.03999999910593033, 0.03999999910593033]
    """
    return _evaluate(3, seg_gt, output, edge_mask, unlabelled_mask, nhood, reduction, data_format, options)


@describes_recipe
@takes(LossOptions, **DEFAULTS_OF_MALIS)
class AffinityLoss(HoldsRecipe):
    r"""Cross entropy of affinities first, MALIS on top of it later: one loss to train with.

    The loss of one sample is

    .. math::

        L = c \cdot \mathrm{BCE} + m_t \cdot \mathrm{MALIS}

    with :math:`c` = `cross_entropy`, and :math:`m_t` = 0 for the first `warmup` training steps, `malis` from then on.
    BCE is the mean binary cross entropy over the edges of all channels whose truth is known and that do not leave the
    volume; MALIS is the loss of `malis_loss` on the channels of `malis_offsets` [1]_.

    Parameters
    ----------
    nhood : array_like of int, shape (K, ndim)
        Offsets, one for each channel of the output; none twice. A zero offset decides nothing and is not trained.
    {recipe}
    reduction : {"mean", "sum", "none"}, optional
        What to do with the losses of the samples; "none" returns them in shape (B,).
    data_format : {"channels_first", "channels_last"}, optional
        With "channels_last" the shapes are (B, *spatial, K) and (B, *spatial, 1) or (B, *spatial).
    **options
        The options of MALIS, which `malis.malis_loss` explains; here `margin` is 0.1 and `from_logits` True by
        default.

    Raises
    ------
    ValueError, TypeError
        When it is made for options, when it is called for arrays. What depends on values becomes a
        ``jax.errors.JaxRuntimeError`` in compiled code.

    Notes
    -----
    It keeps no state: the number of training steps so far is an argument, which may be traced. MALIS is not computed
    while its weight is 0.

    References
    ----------
    .. [1] J. Funke et al.: Large scale image segmentation with structured loss based deep learning for connectome
       reconstruction. IEEE TPAMI 41 (2019), 1669-1680.

    Examples
    --------
    >>> import jax, jax.numpy as jnp
    >>> from malis.malis_jax import AffinityLoss
    >>> criterion = AffinityLoss([[-1, 0], [0, -1]], warmup=100)
    >>> logits, labels = jnp.zeros((1, 2, 4, 4)), jnp.ones((1, 4, 4), int)
    >>> [round(float(jax.jit(criterion)(logits, labels, step=step)), 4) for step in (0, 100)]
    [0.6931, 0.8531]
    """

    reduction: str
    data_format: str

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
        data_format: str = "channels_first",
        **options: Unpack[LossOptions],
    ) -> None:
        self._hold_recipe(nhood, malis, cross_entropy, warmup, ramp, malis_offsets, balance, target, warn, options)
        self.reduction = _checks.as_choice(reduction, "reduction", REDUCTIONS)
        self.data_format = _checks.as_choice(data_format, "data_format", DATA_FORMATS)

    def __call__(
        self,
        output: npt.ArrayLike,
        target: npt.ArrayLike,
        mask: npt.ArrayLike | None = None,
        *,
        step: int | jax.Array | None = None,
    ) -> jax.Array:
        """Compute the loss.

        Parameters
        ----------
        output : array_like, shape (B, K, *spatial)
            Logits of the affinities, or with ``from_logits=False`` the affinities.
        target : array_like, shape (B, *spatial), (B, 1, *spatial) or (B, K, *spatial)
            Labels, or the affinity graph of the ground truth, whose objects are the connected components of the edges
            above 0.5.
        mask : array_like, shape (B, *spatial), (B, 1, *spatial), *spatial or (B, K, *spatial), optional
            What is known, bool or 0 and 1; with ``malis=0`` also weights of the cross entropy from 0 to 1.
        step : int or scalar array of int
            Number of training steps so far. It may be left out without a warm-up and a ramp.

        Returns
        -------
        jax.Array
            The loss, a scalar or of shape (B,).
        """
        return self.with_parts(output, target, mask, step=step)[0]

    def with_parts(
        self,
        output: npt.ArrayLike,
        target: npt.ArrayLike,
        mask: npt.ArrayLike | None = None,
        *,
        step: int | jax.Array | None = None,
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Compute the loss, and its parts for logging: ``jax.value_and_grad(criterion.with_parts, has_aux=True)``.

        Parameters
        ----------
        output, target, mask, step
            As of a call.

        Returns
        -------
        loss : jax.Array
            The loss, a scalar or of shape (B,).
        parts : dict of jax.Array
            "cross_entropy" and "malis", before their weights, which are constants of the derivative, and
            "malis_weight". A part that is not computed is missing, or 0 where a traced step decides that.
        """
        recipe = self._held_recipe()
        if step is None and recipe.constant_weight() is None:
            raise TypeError("step must be given, the number of training steps so far, as there is a warm-up or a ramp")
        settings = Settings(
            None, self.nhood, self._held_options(), self.data_format == "channels_last", AFFINITY_NAMES, recipe.warn
        )
        losses = affinity_losses(settings, recipe, target, output, mask, step)
        parts = {"cross_entropy": losses.cross_entropy, "malis": losses.malis}
        detached = {
            name: jax.lax.stop_gradient(_reduced(part, self.reduction))
            for name, part in parts.items()
            if part is not None
        }
        return _reduced(losses.total, self.reduction), {**detached, "malis_weight": jnp.asarray(losses.weight)}

    def __repr__(self) -> str:
        options = self._repr_of_options(**self._recipe_of(), reduction=self.reduction, data_format=self.data_format)
        return f"AffinityLoss({options})"


def _evaluate(
    ndim: int,
    seg_gt: Any,
    output: Any,
    edge_mask: Any,
    unlabelled_mask: Any,
    nhood: npt.ArrayLike | None,
    reduction: str,
    data_format: str,
    options: LossOptions,
) -> jax.Array:
    """`malis_loss2d` and `malis_loss3d`, whose arguments this takes."""
    settings = Settings.of(ndim, Names(), nhood, options, data_format)
    _checks.as_choice(reduction, "reduction", REDUCTIONS)
    losses = losses_of_samples(settings, seg_gt, output, edge_mask, unlabelled_mask, expect_mean=reduction == "mean")
    return _reduced(losses, reduction)


def _reduced(losses: Any, reduction: str) -> jax.Array:
    if reduction != "none":
        losses = losses.mean() if reduction == "mean" else losses.sum()
    return cast(jax.Array, losses)
