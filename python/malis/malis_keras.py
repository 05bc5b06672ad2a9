r"""The MALIS loss for Keras 3: the recipe `AffinityLoss`, the class `MalisLoss`, `malis_loss2d` and `malis_loss3d`.

One module for the TensorFlow, PyTorch and JAX backends: it imports what is behind `malis.malis_tensorflow`,
`malis.malis_torch` or `malis.malis_jax`, whichever backend Keras uses, and nothing of the others.

All of them return one value for each sample, as Keras expects of a loss, so that its own `reduction`, `sample_weight`
and loss scaling mean what they say. They are registered as serialisable: where this module has been imported,
``keras.saving.load_model`` restores a compiled model without `custom_objects`.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from malis._adapters.missing import missing

try:
    import keras
except ModuleNotFoundError as error:
    raise missing(error, "keras", "keras") from None

import numpy.typing as npt

from malis import _checks
from malis._adapters.affinity import DEFAULTS_OF_MALIS, HoldsRecipe, describes_recipe
from malis._adapters.keras_steps import Steps
from malis._adapters.names import Names
from malis._adapters.settings import DATA_FORMATS, Settings
from malis._options import HoldsOptions, LossOptions, takes

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["AffinityLoss", "MalisLoss", "malis_loss2d", "malis_loss3d"]

_BACKENDS = ("tensorflow", "torch", "jax")
_NAMES = Names("y_true", "y_pred")


@keras.saving.register_keras_serializable(package="malis")  # type: ignore[untyped-decorator,unused-ignore]
@takes(LossOptions)
def malis_loss2d(
    y_true: Any,
    y_pred: Any,
    edge_mask: Any = None,
    unlabelled_mask: Any = None,
    *,
    nhood: npt.ArrayLike | None = None,
    data_format: str | None = None,
    **options: Unpack[LossOptions],
) -> Any:
    r"""Compute the MALIS loss of each 2-D affinity graph of a batch: ``model.compile(loss=malis_loss2d)``.

    With the shares :math:`p_e` and :math:`q_e` of the pairs within objects and between objects that edge :math:`e`
    decides (see `malis.pairs`), the loss of one sample is

    .. math::

        L = 2 \Big( w \sum_e p_e \max(0, 1 - m - a_e)^2 + (1 - w) \sum_e q_e \max(0, a_e - m)^2 \Big)

    with affinities :math:`a`, margin :math:`m` and :math:`w` = `pos_loss_weight` [1]_ [2]_. For other options in
    ``compile``, take `MalisLoss`.

    Parameters
    ----------
    y_true : tensor, shape (B, H, W) or (B, H, W, 1)
        Ground truth labels: any integer dtype or bool, or floats that hold integers; 0 is background. Keras turns
        labels into its float dtype before it calls a function of ``compile``, and float32 cannot tell labels beyond
        2**24 apart: such labels are an error. `MalisLoss` takes them as they are.
    y_pred : tensor of float16, bfloat16, float32 or float64, shape (B, H, W, K)
        Affinities, for example of a sigmoid: ``y_pred[b, y, x, k]`` belongs to the edge between pixel ``(y, x)`` and
        ``(y, x) + nhood[k]``.
    edge_mask : tensor of bool, shape (B, H, W, K), optional
        False where the ground truth of an edge is unknown: such an edge is constrained in neither pass, and its
        counts are 0.
    unlabelled_mask : tensor of bool, shape (B, H, W) or (B, H, W, 1), optional
        True where objects exist but carry no label: these pixels together count as one more object among the
        negative pairs, and edges between two of them are unknown.
    nhood : array_like of int, shape (K, 2), optional
        Offsets; by default ``mknhood2d(1)``, the nearest neighbours ``[[-1, 0], [0, -1]]``.
    data_format : {"channels_last", "channels_first"}, optional
        By default ``keras.config.image_data_format()``. With "channels_first" the shapes are (B, K, H, W) and
        (B, 1, H, W) or (B, H, W).
    **options
        The options of the loss, which `malis.malis_loss` explains.

    Returns
    -------
    tensor, shape (B,)
        The loss of each sample, float64 for a float64 `y_pred` and float32 for any other. Its gradient has the dtype
        of `y_pred`. The labels get none, and there is no second derivative.

    Raises
    ------
    ValueError
        For shapes that do not go together, empty tensors, NaN, negative or fractional labels, options out of range.
        What depends on values becomes an error of the backend in its compiled functions.
    TypeError
        For dtypes and options of another type.
    NotImplementedError
        With TensorFlow and ``jit_compile=True``: compile the model with ``jit_compile=False``.

    References
    ----------
    .. [1] S. C. Turaga, K. L. Briggman, M. Helmstaedter, W. Denk, H. S. Seung: Maximin affinity learning of image
       segmentation. NIPS 2009.
    .. [2] J. Funke et al.: Large scale image segmentation with structured loss based deep learning for connectome
       reconstruction. IEEE TPAMI 41 (2019), 1669-1680.

    Examples
    --------
    >>> import numpy as np
    >>> from malis.malis_keras import malis_loss2d
    >>> y_true = np.array([[[1, 1, 2, 2], [1, 1, 2, 2]]])
    >>> losses = malis_loss2d(y_true, np.full((1, 2, 4, 2), 0.5, np.float32))
    >>> tuple(losses.shape), round(float(losses[0]), 4)
    ((1,), 0.08)
    """
    return _evaluate(2, y_true, y_pred, edge_mask, unlabelled_mask, nhood, data_format, options)


@keras.saving.register_keras_serializable(package="malis")  # type: ignore[untyped-decorator,unused-ignore]
@takes(LossOptions)
def malis_loss3d(
    y_true: Any,
    y_pred: Any,
    edge_mask: Any = None,
    unlabelled_mask: Any = None,
    *,
    nhood: npt.ArrayLike | None = None,
    data_format: str | None = None,
    **options: Unpack[LossOptions],
) -> Any:
    """Compute the MALIS loss of each 3-D affinity graph of a batch: ``model.compile(loss=malis_loss3d)``.

    The loss of one sample is that of `malis_loss2d` [1]_ [2]_.

    Parameters
    ----------
    y_true : tensor, shape (B, D, H, W) or (B, D, H, W, 1)
        Ground truth labels, see `malis_loss2d`.
    y_pred : tensor of float16, bfloat16, float32 or float64, shape (B, D, H, W, K)
        Affinities: ``y_pred[b, z, y, x, k]`` belongs to the edge between voxel ``(z, y, x)`` and
        ``(z, y, x) + nhood[k]``.
    edge_mask : tensor of bool, shape (B, D, H, W, K), optional
        See `malis_loss2d`.
    unlabelled_mask : tensor of bool, shape (B, D, H, W) or (B, D, H, W, 1), optional
        See `malis_loss2d`.
    nhood : array_like of int, shape (K, 3), optional
        Offsets; by default ``mknhood3d(1)``, the nearest neighbours ``[[-1, 0, 0], [0, -1, 0], [0, 0, -1]]``.
    data_format : {"channels_last", "channels_first"}, optional
        By default ``keras.config.image_data_format()``. With "channels_first" the shapes are (B, K, D, H, W) and
        (B, 1, D, H, W) or (B, D, H, W).
    **options
        The options of the loss, which `malis.malis_loss` explains.

    Returns
    -------
    tensor, shape (B,)
        The loss of each sample; see `malis_loss2d`.

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
    >>> import numpy as np
    >>> from malis.malis_keras import malis_loss3d
    >>> losses = malis_loss3d(np.ones((2, 4, 8, 8)), np.full((2, 4, 8, 8, 3), 0.5, np.float32))
    >>> [round(float(loss), 4) for loss in losses]
    [0.04, 0.04]
    """
    return _evaluate(3, y_true, y_pred, edge_mask, unlabelled_mask, nhood, data_format, options)


@keras.saving.register_keras_serializable(package="malis")
@takes(LossOptions)
class MalisLoss(HoldsOptions, keras.losses.Loss):  # type: ignore[misc,unused-ignore]
    r"""The MALIS loss as a Keras loss: options once, then ``model.compile(loss=MalisLoss(...))``.

    The loss of one sample is

    .. math::

        L = 2 \Big( w \sum_e p_e \max(0, 1 - m - a_e)^2 + (1 - w) \sum_e q_e \max(0, a_e - m)^2 \Big)

    as in `malis_loss2d` [1]_ [2]_.

    Parameters
    ----------
    nhood : array_like of int, shape (K, ndim), optional
        Offsets. By default the nearest neighbours in as many axes as `y_pred` has: ``mknhood2d(1)`` or
        ``mknhood3d(1)``.
    data_format : {"channels_last", "channels_first"}, optional
        By default ``keras.config.image_data_format()``.
    reduction : optional
        As in all losses of Keras: "sum_over_batch_size" is the mean over the samples.
    name : str, optional
        Name of the loss.
    dtype : optional
        What Keras computes in: it converts `y_pred` to this dtype. By default ``keras.config.floatx()``, but at least
        float32; "float64" keeps float64.
    **options
        The options of the loss, which `malis.malis_loss` explains.

    Raises
    ------
    ValueError, TypeError
        When it is made for options, when it is called for tensors, as `malis_loss2d` does.

    References
    ----------
    .. [1] S. C. Turaga, K. L. Briggman, M. Helmstaedter, W. Denk, H. S. Seung: Maximin affinity learning of image
       segmentation. NIPS 2009.
    .. [2] J. Funke et al.: Large scale image segmentation with structured loss based deep learning for connectome
       reconstruction. IEEE TPAMI 41 (2019), 1669-1680.

    Examples
    --------
    >>> import keras, malis, numpy as np
    >>> from malis.malis_keras import MalisLoss
    >>> nhood = malis.mknhood2d(2)
    >>> model = keras.Sequential([keras.Input((None, None, 1)), keras.layers.Conv2D(len(nhood), 3, padding="same")])
    >>> model.compile("adam", loss=MalisLoss(nhood, from_logits=True))
    >>> labels = np.random.default_rng(0).integers(0, 5, (4, 16, 16))
    >>> history = model.fit(labels[..., None] / 5, labels, verbose=0)
    >>> sorted(history.history)
    ['loss']
    """

    def __init__(
        self,
        nhood: npt.ArrayLike | None = None,
        *,
        data_format: str | None = None,
        reduction: str | None = "sum_over_batch_size",
        name: str | None = "malis_loss",
        dtype: Any = None,
        **options: Unpack[LossOptions],
    ) -> None:
        settings = _settings(None, nhood, data_format, options)
        super().__init__(name=name, reduction=reduction, dtype=_dtype(dtype))
        self._hold(settings.nhood, settings.options)
        self.data_format = "channels_last" if settings.channels_last else "channels_first"

    def __call__(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> Any:
        """Compute the loss.

        Parameters
        ----------
        y_true : tensor, shape (B, *spatial) or (B, *spatial, 1)
            Ground truth labels, which keep their dtype.
        y_pred : tensor, shape (B, *spatial, K)
            Affinities, or logits with `from_logits`.
        sample_weight : tensor, shape (B,), optional
            Weight of each sample.

        Returns
        -------
        tensor
            The loss, a scalar or of shape (B,), as `reduction` says.
        """
        return _OneCall(self, y_true)((), y_pred, sample_weight)

    def call(self, y_true: Any, y_pred: Any) -> Any:
        """Compute the loss of each sample.

        Parameters
        ----------
        y_true : tensor, shape (B, *spatial) or (B, *spatial, 1)
            Ground truth labels.
        y_pred : tensor, shape (B, *spatial, K)
            Affinities, or logits with `from_logits`.

        Returns
        -------
        tensor, shape (B,)
            The losses, before `reduction`.
        """
        layout = self.data_format == "channels_last"
        settings = Settings(None, self.nhood, self._held_options(), layout, _NAMES, rounded_labels=True)
        return _losses_of_samples(settings, y_true, y_pred, None, None)

    def get_config(self) -> dict[str, Any]:
        """Return the options, in types that JSON knows."""
        others = {"data_format": self.data_format, "dtype": self.dtype}
        return {**super().get_config(), **self._configuration(), **others}


@keras.saving.register_keras_serializable(package="malis")
@describes_recipe
@takes(LossOptions, **DEFAULTS_OF_MALIS)
class AffinityLoss(HoldsRecipe, keras.losses.Loss):  # type: ignore[misc,unused-ignore]
    r"""Cross entropy of affinities first, MALIS on top of it later: ``model.compile(loss=AffinityLoss(nhood))``.

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
    step : int, optional
        Number of training steps so far: part of the configuration, so that a model that has been saved and loaded
        goes on where it was.
    data_format : {"channels_last", "channels_first"}, optional
        By default ``keras.config.image_data_format()``.
    reduction : optional
        As in all losses of Keras: "sum_over_batch_size" is the mean over the samples.
    name : str, optional
        Name of the loss.
    dtype : optional
        As of `MalisLoss`.
    **options
        The options of MALIS, which `malis.malis_loss` explains; here `margin` is 0.1 and `from_logits` True by
        default.

    Raises
    ------
    ValueError, TypeError, NotImplementedError
        When it is made for options, when it is called for tensors, as `malis_loss2d` does.

    Notes
    -----
    A call counts as a step where its output is differentiated; validation does not count.

    References
    ----------
    .. [1] J. Funke et al.: Large scale image segmentation with structured loss based deep learning for connectome
       reconstruction. IEEE TPAMI 41 (2019), 1669-1680.

    Examples
    --------
    >>> import keras, numpy as np
    >>> from malis.malis_keras import AffinityLoss
    >>> criterion = AffinityLoss([[-1, 0], [0, -1]], warmup=1, ignore_label=255)
    >>> model = keras.Sequential([keras.Input((None, None, 1)), keras.layers.Conv2D(2, 3, padding="same")])
    >>> model.compile("adam", loss=criterion)
    >>> labels = np.random.default_rng(0).integers(0, 5, (4, 16, 16))
    >>> history = model.fit(labels[..., None] / 5, labels, batch_size=2, verbose=0)
    >>> criterion.step
    2
    """

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
        step: int = 0,
        data_format: str | None = None,
        reduction: str | None = "sum_over_batch_size",
        name: str | None = "affinity_loss",
        dtype: Any = None,
        **options: Unpack[LossOptions],
    ) -> None:
        super().__init__(name=name, reduction=reduction, dtype=_dtype(dtype))
        self._hold_recipe(nhood, malis, cross_entropy, warmup, ramp, malis_offsets, balance, target, warn, options)
        self.data_format = _layout(data_format)
        self._steps = Steps(_checks.as_integer(step, "step", 0))

    @property
    def step(self) -> int:
        """Number of training steps so far."""
        return self._steps.value()

    @step.setter
    def step(self, value: int) -> None:
        self._steps.set(_checks.as_integer(value, "step", 0))

    def __call__(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> Any:
        """Compute the loss.

        Parameters
        ----------
        y_true : tensor, shape (B, *spatial), (B, *spatial, 1) or (B, *spatial, K)
            Labels, which keep their dtype, or the affinity graph of the ground truth.
        y_pred : tensor, shape (B, *spatial, K)
            Logits of the affinities, or with ``from_logits=False`` the affinities.
        sample_weight : tensor, shape (B,), optional
            Weight of each sample.

        Returns
        -------
        tensor
            The loss, a scalar or of shape (B,), as `reduction` says.
        """
        return _OneCall(self, y_true)((), y_pred, sample_weight)

    def call(self, y_true: Any, y_pred: Any, mask: Any = None) -> Any:
        """Compute the loss of each sample.

        Parameters
        ----------
        y_true : tensor, shape (B, *spatial), (B, *spatial, 1) or (B, *spatial, K)
            Labels, or the affinity graph of the ground truth.
        y_pred : tensor, shape (B, *spatial, K)
            Logits of the affinities, or with ``from_logits=False`` the affinities.
        mask : tensor, shape (B, *spatial), (B, *spatial, 1), *spatial or (B, *spatial, K), optional
            What is known, bool or 0 and 1; with ``malis=0`` also weights of the cross entropy from 0 to 1. For training
            loops of your own: Keras itself passes no mask to a loss.

        Returns
        -------
        tensor, shape (B,)
            The losses, before `reduction`.
        """
        backend = _backend()
        recipe = self._held_recipe()
        options, layout = self._held_options(), self.data_format == "channels_last"
        settings = Settings(None, self.nhood, options, layout, _NAMES, recipe.warn, rounded_labels=True)
        tensors = [y_true, y_pred, mask]
        if backend == "torch":
            tensors = [None if tensor is None else keras.ops.convert_to_tensor(tensor) for tensor in tensors]
        step = self._steps.next(tensors[1])
        if backend == "torch":
            step = recipe.weight_at(step)  # which the adapter of PyTorch takes
        adapter = importlib.import_module(f"malis._adapters.{backend}_affinity")
        return adapter.losses(settings, recipe, *tensors, step).total

    def get_config(self) -> dict[str, Any]:
        """Return the options and the step, in types that JSON knows."""
        others = {"data_format": self.data_format, "dtype": self.dtype, "step": self.step}
        return {**super().get_config(), **self._configuration(), **self._recipe_of(), **others}


class _OneCall(keras.losses.Loss):  # type: ignore[misc,unused-ignore]
    """One call of a loss, of which Keras sees the predictions alone: it would turn labels into its float dtype."""

    def __init__(self, loss: MalisLoss | AffinityLoss, labels: Any) -> None:
        super().__init__(name=loss.name, reduction=loss.reduction, dtype=loss.dtype)
        self._loss, self._labels = loss, labels

    def call(self, y_true: Any, y_pred: Any) -> Any:
        return self._loss.call(self._labels, y_pred)


def _evaluate(
    ndim: int,
    y_true: Any,
    y_pred: Any,
    edge_mask: Any,
    unlabelled_mask: Any,
    nhood: npt.ArrayLike | None,
    data_format: str | None,
    options: LossOptions,
) -> Any:
    """`malis_loss2d` and `malis_loss3d`, whose arguments this takes."""
    settings = _settings(ndim, nhood, data_format, options)
    return _losses_of_samples(settings, y_true, y_pred, edge_mask, unlabelled_mask)


def _settings(ndim: int | None, nhood: npt.ArrayLike | None, data_format: str | None, options: LossOptions) -> Settings:
    # Keras turns labels into its float dtype before it calls a function of ``compile``.
    return Settings.of(ndim, _NAMES, nhood, options, _layout(data_format))._replace(rounded_labels=True)


def _layout(data_format: str | None) -> str:
    layout = keras.config.image_data_format() if data_format is None else data_format
    return _checks.as_choice(layout, "data_format", DATA_FORMATS)


def _dtype(dtype: Any) -> Any:
    """Compute in float32 where Keras would take 16 bits."""
    return "float32" if dtype is None and keras.config.floatx() in ("float16", "bfloat16") else dtype


def _backend() -> str:
    backend = keras.backend.backend()
    if backend not in _BACKENDS:
        raise NotImplementedError(f"the MALIS loss runs on the Keras backends {', '.join(_BACKENDS)}, got {backend!r}")
    return str(backend)


def _losses_of_samples(settings: Settings, y_true: Any, y_pred: Any, edge_mask: Any, unlabelled_mask: Any) -> Any:
    backend = _backend()
    tensors = [y_true, y_pred, edge_mask, unlabelled_mask]
    if backend == "torch":  # the other adapters take arrays as well
        tensors = [None if tensor is None else keras.ops.convert_to_tensor(tensor) for tensor in tensors]
    adapter = importlib.import_module(f"malis._adapters.{backend}_op")
    return adapter.losses_of_samples(settings, *tensors, expect_mean=True)  # as is Keras' own default
