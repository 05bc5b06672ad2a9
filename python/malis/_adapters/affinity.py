"""What `AffinityLoss` is in every framework: its options, what its tensors may be, and which edges it compares.

The loss adds two parts. The cross entropy looks at every channel and gets the network to affinities; MALIS looks at the
connectivity that follows from the channels of `malis_offsets`, and joins in after a warm-up. A framework's module adds
what works on its tensors.
"""

from __future__ import annotations

import inspect
from typing import Any, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

from malis import _checks
from malis._adapters.names import Names
from malis._adapters.settings import FLOATS, Nhood, Settings, Shape, Tensor, as_tuples, fits
from malis._options import HoldsOptions, Options
from malis.segmentation import affgraph_to_seg

TARGETS = ("auto", "labels", "affinities")

# Probabilities are taken into the logarithm between this number and one minus it, as with ``pointwise="cross_entropy"``
# and in Keras. Logits need no bounds.
SMALLEST_PROBABILITY = 1e-7

WEIGHTS_ARE_NOT_FOR_MALIS = (
    "mask must hold 0 and 1, got {:.6g}: weights in between have no meaning for MALIS, which counts pairs; with "
    "malis=0 they weigh the cross entropy"
)


class Recipe(NamedTuple):
    """Options of `AffinityLoss` besides those of MALIS, as a value that can be compared and hashed."""

    malis: float
    cross_entropy: float
    warmup: int
    ramp: int
    malis_channels: tuple[int, ...]  # of the offsets that MALIS takes
    balance: bool
    target: str
    warn: bool

    def constant_weight(self) -> float | None:
        """Weight of MALIS if it is the same at every step."""
        if self.malis == 0:
            return 0.0
        return self.malis if self.warmup == 0 and self.ramp == 0 else None

    def weight_at(self, step: int) -> float:
        """Weight of MALIS after so many training steps."""
        if step < self.warmup:
            return 0.0
        return (
            self.malis if step - self.warmup >= self.ramp else self.malis * (step - self.warmup + 1) / (self.ramp + 1)
        )


# Options of MALIS that have another default here than in `malis.malis_loss`. With a margin of 0.3 nothing lifts the
# affinities within objects above 0.7, so that objects fall apart at higher thresholds. Over five seeds of seven tasks a
# margin of 0.1 and a cross entropy of weight 1 score highest in validation: docs/experiment.md, "One recipe".
DEFAULTS_OF_MALIS: dict[str, Any] = {"from_logits": True, "margin": 0.1}

_DESCRIPTIONS = """\
malis : float, optional
    Weight of MALIS after the warm-up.
cross_entropy : float, optional
    Weight of the cross entropy, at every step.
warmup : int, optional
    Training calls before MALIS takes part. Until then it is not computed. A network that has learnt nothing yet
    has no connectivity to correct, so give it most of its training: the default suits one of 1200 steps.
ramp : int, optional
    Training calls after the warm-up in which the weight of MALIS grows linearly to `malis`; 0 is a step.
malis_offsets : array_like of int, shape (M, ndim), optional
    The offsets among `nhood` that MALIS takes. By default those to direct neighbours, or all where these do not
    lead along every axis. MALIS should see the edges that later make the segmentation.
balance : bool, optional
    True: edges within and edges between objects count alike in the cross entropy, half and half in each sample.
target : {"auto", "labels", "affinities"}, optional
    What the target is. "auto" tells it from the shape: one channel or none are labels, K channels are
    affinities. For K = 1 the two cannot be told apart, and "auto" is an error.
warn : bool, optional
    False: no warning for outputs that do not look like what `from_logits` says."""

_Loss = TypeVar("_Loss", bound=type)


def describes_recipe(cls: _Loss) -> _Loss:
    """Put the descriptions of the recipe into the documentation of a class, at the line ``{recipe}``."""
    if cls.__doc__ is not None:  # python -OO
        # From Python 3.13 on docstrings come without their indentation.
        cls.__doc__ = inspect.cleandoc(cls.__doc__).replace("{recipe}", _DESCRIPTIONS)
    return cls


class HoldsRecipe(HoldsOptions):
    """What an `AffinityLoss` keeps: neighbourhood, recipe and options of MALIS, each as an attribute of its name."""

    nhood: Nhood
    malis: float
    cross_entropy: float
    warmup: int
    ramp: int
    malis_offsets: Nhood
    balance: bool
    target: str
    warn: bool

    def _hold_recipe(
        self,
        nhood: npt.ArrayLike,
        malis: float,
        cross_entropy: float,
        warmup: int,
        ramp: int,
        malis_offsets: npt.ArrayLike | None,
        balance: bool,
        target: str,
        warn: bool,
        options: Any,
    ) -> None:
        """Check what the constructor was given, and set the attributes."""
        self._hold(as_tuples(nhood), Options.of({**DEFAULTS_OF_MALIS, **options}))
        self.malis, self.cross_entropy = _weight(malis, "malis"), _weight(cross_entropy, "cross_entropy")
        self.warmup = _checks.as_integer(warmup, "warmup", 0)
        self.ramp = _checks.as_integer(ramp, "ramp", 0)
        self.malis_offsets = _nearest(self.nhood) if malis_offsets is None else as_tuples(malis_offsets)
        self.balance = _checks.as_flag(balance, "balance")
        self.target = _checks.as_choice(target, "target", TARGETS)
        self.warn = _checks.as_flag(warn, "warn")
        for name, offsets in (("nhood", self.nhood), ("malis_offsets", self.malis_offsets)):
            for k, offset in enumerate(offsets):
                if offset in offsets[:k]:
                    raise ValueError(f"{name} must not repeat an offset, got {list(offset)} twice")
        for offset in self.malis_offsets:
            if offset not in self.nhood:
                raise ValueError(
                    f"malis_offsets must be among those of nhood, {list(map(list, self.nhood))}, got {list(offset)}"
                )
        if self.cross_entropy == 0 and (self.malis == 0 or self.warmup > 0):
            raise ValueError(
                "cross_entropy must be above 0 during a warm-up, as nothing else is trained then: "
                "give warmup=0 to train with MALIS alone"
                if self.malis > 0
                else "malis and cross_entropy must not both be 0"
            )

    def _held_recipe(self) -> Recipe:
        """Return the recipe as it is now: a user may have set an attribute."""
        channels = tuple(self.nhood.index(offset) for offset in self.malis_offsets)
        return Recipe(
            self.malis, self.cross_entropy, self.warmup, self.ramp, channels, self.balance, self.target, self.warn
        )

    def _recipe_of(self) -> dict[str, Any]:
        """Return the recipe as keyword arguments, in types that JSON knows."""
        return {
            "malis": self.malis,
            "cross_entropy": self.cross_entropy,
            "warmup": self.warmup,
            "ramp": self.ramp,
            "malis_offsets": [list(offset) for offset in self.malis_offsets],
            "balance": self.balance,
            "target": self.target,
            "warn": self.warn,
        }


def _weight(value: object, name: str) -> float:
    weight = _checks.as_real(value, name)
    if weight < 0:
        raise ValueError(f"{name} must be at least 0, got {value!r}")
    return weight


def _nearest(nhood: Nhood) -> Nhood:
    """Return the offsets to direct neighbours, or all where these do not lead along every axis."""
    unit = tuple(offset for offset in nhood if sum(map(abs, offset)) == 1)
    reached = {axis for offset in unit for axis, step in enumerate(offset) if step}
    return unit if len(reached) == len(nhood[0]) else nhood


class Given(NamedTuple):
    """What the tensors of a call are."""

    affinities: bool  # the target is an affinity graph, not labels
    target_has_channel: bool  # of labels
    mask: str | None  # "voxels", "edges", or None
    mask_has_channel: bool  # of voxels


def given(settings: Settings, kind: str, output: Tensor, target: Tensor, mask: Tensor | None) -> Given:
    """Tell from shapes and dtypes what target and mask are, and check that they fit to the output."""
    names = settings.names
    settings.check_output(output, target)
    affinities = _is_affinities(settings, kind, output, target)
    target_has_channel = False
    if affinities:
        if target.dtype not in (*FLOATS, "bool") and not target.dtype.startswith(("int", "uint")):
            raise TypeError(f"{names.labels} must hold affinities, got {target}")
    else:
        target_has_channel = settings.check(output, target, None, None).labels_have_channel
    if mask is None:
        return Given(affinities, target_has_channel, None, False)
    if mask.dtype not in (*FLOATS, "bool") and not mask.dtype.startswith(("int", "uint")):
        raise TypeError(f"mask must hold numbers from 0 to 1 or bool, got {mask}")
    per_voxel = settings.without_channel(output.shape)
    if _broadcasts(mask.shape, per_voxel) or _broadcasts(mask.shape, per_voxel[1:]):
        return Given(affinities, target_has_channel, "voxels", False)
    if _broadcasts(mask.shape, output.shape):
        channels = mask.shape[settings.channel_axis()]
        return Given(affinities, target_has_channel, "voxels" if channels == 1 else "edges", channels == 1)
    raise ValueError(
        f"mask must have shape {per_voxel}, {settings.with_one_channel(output.shape)} or {per_voxel[1:]}, one value "
        f"for each voxel, or {tuple(output.shape)}, one for each edge, or broadcast to one of them, got {mask}"
    )


def _is_affinities(settings: Settings, kind: str, output: Tensor, target: Tensor) -> bool:
    """Tell whether the target is an affinity graph; raise where it may be labels as well."""
    name = settings.names.labels
    like_output = fits(target.shape, output.shape)
    if kind == "labels":
        return False
    if kind == "affinities":
        if not like_output:
            raise ValueError(
                f"{name} must have the shape of {settings.names.output}, {tuple(output.shape)}, got {target}"
            )
        return True
    if not like_output:
        return False
    if output.shape[settings.channel_axis()] in (1, None):
        raise ValueError(
            f"{name} of shape {tuple(target.shape)} may be labels or affinities for an {settings.names.output} of "
            f'shape {tuple(output.shape)}: say which, with target="labels" or target="affinities"'
        )
    return True


def _broadcasts(shape: Shape, expected: Shape) -> bool:
    return len(shape) == len(expected) and all(
        n in (1, None) or m is None or n == m for n, m in zip(shape, expected, strict=True)
    )


def label_in(dtype: str, label: int | None) -> int | None:
    """Return a label if a dtype has it; it is in no voxel otherwise, and a comparison might wrap it round."""
    if label is None or dtype in FLOATS:
        return label
    if dtype == "bool":
        return label if label in (0, 1) else None
    bits = int(dtype.removeprefix("u").removeprefix("int"))
    lowest = 0 if dtype.startswith("u") else -(2 ** (bits - 1))
    return label if lowest <= label < lowest + 2**bits else None


def unknown_label(options: Options) -> int:
    """Return the label for voxels that a mask calls unknown: one that is in no pair."""
    if options.ignore_background:
        return 0
    if options.ignore_label is None:
        raise ValueError(
            "mask for voxels needs ignore_label with ignore_background=False: a label that voxels of which nothing is "
            "known can be given"
        )
    return options.ignore_label


def check_values(values: npt.NDArray[Any], name: str, binary: bool) -> None:
    """Check that a mask or an affinity graph holds values from 0 to 1, with `binary` only these two."""
    inside = (values >= 0) & (values <= 1)
    if not inside.all():
        raise ValueError(f"{name} must hold values from 0 to 1, got {values[~inside][0]:.6g}")
    between = (values != 0) & (values != 1)
    if binary and between.any():
        raise ValueError(WEIGHTS_ARE_NOT_FOR_MALIS.format(values[between][0]))


def labels_of_graph(
    graph: npt.NDArray[Any], known: npt.NDArray[np.bool_], nhood: npt.NDArray[np.int64]
) -> npt.NDArray[np.int32]:
    """Label the objects of the affinity graph of a ground truth: the components of its known positive edges."""
    seg, _ = affgraph_to_seg((graph > 0.5) & known, nhood, threshold=0.5)
    return seg.astype(np.int32, copy=False)


NAMES = Names("target", "output")
