r"""The MALIS loss for TensorFlow: the recipe `AffinityLoss`, `malis_loss2d` and `malis_loss3d`.

They work eagerly, in a ``tf.function`` and under distribution strategies, on tensors whose batch and spatial axes may
be unknown. A function with ``jit_compile=True`` cannot call the loss; that is an error when it is traced.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from malis._adapters.missing import missing

try:
    import tensorflow as tf
except ModuleNotFoundError as error:
    raise missing(error, "tensorflow", "tensorflow") from None

import numpy.typing as npt

from malis import _checks
from malis._adapters.affinity import DEFAULTS_OF_MALIS, HoldsRecipe, describes_recipe
from malis._adapters.affinity import NAMES as AFFINITY_NAMES
from malis._adapters.names import Names
from malis._adapters.settings import DATA_FORMATS, REDUCTIONS, Settings
from malis._adapters.tensorflow_affinity import losses as affinity_losses
from malis._adapters.tensorflow_op import losses_of_samples
from malis._options import LossOptions, takes

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["AffinityLoss", "malis_loss2d", "malis_loss3d"]


@takes(LossOptions)
def malis_loss2d(
    seg_gt: Any,
    output: Any,
    edge_mask: Any = None,
    unlabelled_mask: Any = None,
    *,
    nhood: npt.ArrayLike | None = None,
    reduction: str = "mean",
    data_format: str = "channels_last",
    **options: Unpack[LossOptions],
) -> Any:
    r"""Compute the MALIS loss of a batch of 2-D affinity graphs.

    With the shares :math:`p_e` and :math:`q_e` of the pairs within objects and between objects that edge :math:`e`
    decides (see `malis.pairs`), the loss of one sample is

    .. math::

        L = 2 \Big( w \sum_e p_e \max(0, 1 - m - a_e)^2 + (1 - w) \sum_e q_e \max(0, a_e - m)^2 \Big)

    with affinities :math:`a`, margin :math:`m` and :math:`w` = `pos_loss_weight` [1]_ [2]_.

    Parameters
    ----------
    seg_gt : Tensor, shape (B, H, W) or (B, H, W, 1)
        Ground truth labels: any integer dtype or bool, or floats that hold integers; 0 is background.
    output : Tensor of float16, bfloat16, float32 or float64, shape (B, H, W, K)
        Affinities, for example of a sigmoid: ``output[b, y, x, k]`` belongs to the edge between pixel ``(y, x)`` and
        ``(y, x) + nhood[k]``. The batch may be unknown in a graph, and so may H and W.
    edge_mask : Tensor of bool, shape (B, H, W, K), optional
        False where the ground truth of an edge is unknown: such an edge is constrained in neither pass, and its
        counts are 0.
    unlabelled_mask : Tensor of bool, shape (B, H, W) or (B, H, W, 1), optional
        True where objects exist but carry no label: these pixels together count as one more object among the
        negative pairs, and edges between two of them are unknown.
    nhood : array_like of int, shape (K, 2), optional
        Offsets; by default ``mknhood2d(1)``, the nearest neighbours ``[[-1, 0], [0, -1]]``.
    reduction : {"mean", "sum", "none"}, optional
        What to do with the losses of the samples; "none" returns them in shape (B,).
    data_format : {"channels_last", "channels_first"}, optional
        With "channels_first" the shapes are (B, K, H, W) and (B, 1, H, W) or (B, H, W).
    **options
        The options of the loss, which `malis.malis_loss` explains.

    Returns
    -------
    Tensor
        The loss, float64 for a float64 `output` and float32 for any other. Its gradient has the dtype of `output`.
        The labels get none, and there is no second derivative.

    Raises
    ------
    ValueError
        For shapes that do not go together, empty tensors, NaN, negative or fractional labels, options out of range.
        What depends on values becomes a ``tf.errors.InvalidArgumentError`` in a graph.
    TypeError
        For dtypes and options of another type.
    NotImplementedError
        In a function with ``jit_compile=True``, and for a second derivative.

    References
    ----------
    .. [1] S. C. Turaga, K. L. Briggman, M. Helmstaedter, W. Denk, H. S. Seung: Maximin affinity learning of image
       segmentation. NIPS 2009.
    .. [2] J. Funke et al.: Large scale image segmentation with structured loss based deep learning for connectome
       reconstruction. IEEE TPAMI 41 (2019), 1669-1680.

    Examples
    --------
    >>> import tensorflow as tf
    >>> from malis.malis_tensorflow import malis_loss2d
    >>> seg_gt = tf.constant([[[1, 1, 2, 2], [1, 1, 2, 2]]])
    >>> output = tf.Variable(tf.fill((1, 2, 4, 2), 0.5))
    >>> with tf.GradientTape() as tape:
    ...     loss = malis_loss2d(seg_gt, output)
    >>> round(float(loss), 4)
    0.08
    >>> tape.gradient(loss, output).shape
    TensorShape([1, 2, 4, 2])
    """
    return _evaluate(2, seg_gt, output, edge_mask, unlabelled_mask, nhood, reduction, data_format, options)


@takes(LossOptions)
def malis_loss3d(
    seg_gt: Any,
    output: Any,
    edge_mask: Any = None,
    unlabelled_mask: Any = None,
    *,
    nhood: npt.ArrayLike | None = None,
    reduction: str = "mean",
    data_format: str = "channels_last",
    **options: Unpack[LossOptions],
) -> Any:
    """Compute the MALIS loss of a batch of 3-D affinity graphs.

    The loss of one sample is that of `malis_loss2d` [1]_ [2]_.

    Parameters
    ----------
    seg_gt : Tensor, shape (B, D, H, W) or (B, D, H, W, 1)
        Ground truth labels: any integer dtype or bool, or floats that hold integers; 0 is background.
    output : Tensor of float16, bfloat16, float32 or float64, shape (B, D, H, W, K)
        Affinities: ``output[b, z, y, x, k]`` belongs to the edge between voxel ``(z, y, x)`` and
        ``(z, y, x) + nhood[k]``.
    edge_mask : Tensor of bool, shape (B, D, H, W, K), optional
        See `malis_loss2d`.
    unlabelled_mask : Tensor of bool, shape (B, D, H, W) or (B, D, H, W, 1), optional
        See `malis_loss2d`.
    nhood : array_like of int, shape (K, 3), optional
        Offsets; by default ``mknhood3d(1)``, the nearest neighbours ``[[-1, 0, 0], [0, -1, 0], [0, 0, -1]]``.
    reduction, data_format : optional
        See `malis_loss2d`.
    **options
        The options of the loss, which `malis.malis_loss` explains.

    Returns
    -------
    Tensor
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
    >>> import tensorflow as tf
    >>> from malis.malis_tensorflow import malis_loss3d
    >>> seg_gt = tf.ones((2, 4, 8, 8), tf.int64)
    >>> malis_loss3d(seg_gt, tf.fill((2, 4, 8, 8, 3), 0.5), reduction="none").numpy().round(4).tolist()
    [0.03999999910593033, 0.03999999910593033]
    """
    return _evaluate(3, seg_gt, output, edge_mask, unlabelled_mask, nhood, reduction, data_format, options)


@describes_recipe
@takes(LossOptions, **DEFAULTS_OF_MALIS)
class AffinityLoss(HoldsRecipe, tf.Module):  # type: ignore[misc,unused-ignore]
    r"""Cross entropy of affinities first, MALIS on top of it later: one loss to train with.

    The loss of one sample is

    .. math::

        L = c \cdot \mathrm{BCE} + m_t \cdot \mathrm{MALIS}

    with :math:`c` = `cross_entropy`, and :math:`m_t` = 0 for the first `warmup` training steps, `malis` from then on.
    BCE is the mean binary cross entropy over the edges of all channels whose truth is known and that do not leave the
    volume; MALIS is the loss of `malis_loss2d` on the channels of `malis_offsets` [1]_.

    Parameters
    ----------
    nhood : array_like of int, shape (K, ndim)
        Offsets, one for each channel of the output; none twice. A zero offset decides nothing and is not trained.
    {recipe}
    reduction : {"mean", "sum", "none"}, optional
        What to do with the losses of the samples; "none" returns them in shape (B,).
    data_format : {"channels_last", "channels_first"}, optional
        With "channels_first" the shapes are (B, K, *spatial) and (B, 1, *spatial) or (B, *spatial).
    **options
        The options of MALIS, which `malis.malis_loss` explains; here `margin` is 0.1 and `from_logits` True by
        default.

    Attributes
    ----------
    step : tf.Variable of int64
        Number of training calls so far, which a ``tf.train.Checkpoint`` of this object saves.

    Raises
    ------
    ValueError, TypeError, NotImplementedError
        When it is made for options, when it is called for tensors, as `malis_loss2d` does.

    References
    ----------
    .. [1] J. Funke et al.: Large scale image segmentation with structured loss based deep learning for connectome
       reconstruction. IEEE TPAMI 41 (2019), 1669-1680.

    Examples
    --------
    >>> import tensorflow as tf
    >>> from malis.malis_tensorflow import AffinityLoss
    >>> criterion = AffinityLoss([[-1, 0], [0, -1]], warmup=1)
    >>> logits, labels = tf.zeros((1, 4, 4, 2)), tf.ones((1, 4, 4), tf.int32)
    >>> [round(float(criterion(logits, labels)), 4) for _ in range(2)]
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
        data_format: str = "channels_last",
        **options: Unpack[LossOptions],
    ) -> None:
        super().__init__(name="affinity_loss")
        self._hold_recipe(nhood, malis, cross_entropy, warmup, ramp, malis_offsets, balance, target, warn, options)
        self.reduction = _checks.as_choice(reduction, "reduction", REDUCTIONS)
        self.data_format = _checks.as_choice(data_format, "data_format", DATA_FORMATS)
        self.step = tf.Variable(0, trainable=False, dtype=tf.int64, name="step")

    def __call__(self, output: Any, target: Any, mask: Any = None, *, training: bool = True) -> Any:
        """Compute the loss.

        Parameters
        ----------
        output : Tensor, shape (B, *spatial, K)
            Logits of the affinities, or with ``from_logits=False`` the affinities.
        target : Tensor, shape (B, *spatial), (B, *spatial, 1) or (B, *spatial, K)
            Labels, or the affinity graph of the ground truth, whose objects are the connected components of the edges
            above 0.5.
        mask : Tensor, shape (B, *spatial), (B, *spatial, 1), *spatial or (B, *spatial, K), optional
            What is known, bool or 0 and 1; with ``malis=0`` also weights of the cross entropy from 0 to 1.
        training : bool, optional
            False: the call does not count as a step.

        Returns
        -------
        Tensor
            The loss, a scalar or of shape (B,).
        """
        return self.with_parts(output, target, mask, training=training)[0]

    def with_parts(
        self, output: Any, target: Any, mask: Any = None, *, training: bool = True
    ) -> tuple[Any, dict[str, Any]]:
        """Compute the loss, and its parts for logging.

        Parameters
        ----------
        output, target, mask, training
            As of a call.

        Returns
        -------
        loss : Tensor
            The loss, a scalar or of shape (B,).
        parts : dict of Tensor
            "cross_entropy" and "malis", before their weights, which are constants of the derivative, and
            "malis_weight". A part that is not computed is missing, or 0 where the step decides that.
        """
        recipe = self._held_recipe()
        settings = Settings(
            None, self.nhood, self._held_options(), self.data_format == "channels_last", AFFINITY_NAMES, recipe.warn
        )
        losses = affinity_losses(settings, recipe, target, output, mask, self.step)
        if training:
            self.step.assign_add(1)
        parts = {"cross_entropy": losses.cross_entropy, "malis": losses.malis}
        detached = {
            name: tf.stop_gradient(_reduced(part, self.reduction)) for name, part in parts.items() if part is not None
        }
        return _reduced(losses.total, self.reduction), {**detached, "malis_weight": tf.convert_to_tensor(losses.weight)}

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
) -> Any:
    """`malis_loss2d` and `malis_loss3d`, whose arguments this takes."""
    settings = Settings.of(ndim, Names(), nhood, options, data_format)
    _checks.as_choice(reduction, "reduction", REDUCTIONS)
    losses = losses_of_samples(settings, seg_gt, output, edge_mask, unlabelled_mask, expect_mean=reduction == "mean")
    return _reduced(losses, reduction)


def _reduced(losses: Any, reduction: str) -> Any:
    if reduction == "none":
        return losses
    total = tf.reduce_sum(losses)
    if reduction == "sum":
        return total
    # The mean over no samples, which a replica may get for the last batch, is 0 and not NaN.
    return tf.math.divide_no_nan(total, tf.cast(tf.size(losses), total.dtype))
