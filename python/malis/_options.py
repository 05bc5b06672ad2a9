"""The options that all forms of the loss share. A new one is written here, and in no other Python file.

`Options` gives each option its type, default, description and check, `LossOptions` its type as a keyword argument, and
`HoldsOptions` the attribute of a loss that is an object. A function that passes options on declares::

    @takes(LossOptions)
    def malis_loss(aff, seg, nhood, **options: Unpack[LossOptions]):

Type checkers read this as one keyword argument for each option, and `takes` puts the same into the signature and the
documentation that ``help`` shows.
"""

import inspect
import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypedDict, TypeVar, cast

from malis import _checks, _core

POINTWISE = ("squared_hinge", "cross_entropy")


class Options(NamedTuple):
    """Options of the loss, all of them, as a value that can be compared and hashed.

    Parameters
    ----------
    margin : float, optional
        Affinities above ``1 - margin`` (positive) or below ``margin`` (negative) are good enough. -1e6 to 1e6.
    pos_loss_weight : float, optional
        Weight :math:`w` of the positive pairs, 0 to 1.
    normalize : bool, optional
        False: :math:`p` and :math:`q` are the counts themselves.
    pointwise : {"squared_hinge", "cross_entropy"}, optional
        "cross_entropy" replaces the two squares by ``-log(max(a, eps))`` and ``-log(max(1 - a, eps))`` with
        ``eps = 1e-7``, of affinities from 0 to 1; of logits, by ``log(1 + exp(-z))`` and ``log(1 + exp(z))``, so that
        one that is wrong keeps its gradient however sure it is. It has no margin.
    from_logits : bool, optional
        The affinities are given as logits: the loss is that of their sigmoid, the gradient that by the logits. The
        counts are the same, as the sigmoid is strictly increasing.
    constrain_positive : bool, optional
        False: the positive pass takes all edges by their own affinity. Both passes without constraint are the
        algorithm of 2009.
    constrain_negative : bool, optional
        False: the negative pass takes all edges by their own affinity.
    ignore_background : bool, optional
        False lets label 0 count as one more object.
    ignore_label : int, optional
        Label of voxels of which nothing is known, for example 255 or -1: they are in no pair, and the truth of every
        edge that touches one is unknown, as with `edge_mask`. Such a voxel may still connect what lies beside it.
    connect_labels : bool, optional
        True: every part of a label that nearest neighbours connect is an object of its own, as `malis.connect_labels`
        makes it; a crop then has more objects, and their parts are to be kept apart. False: parts that no edges within
        the object connect ask nothing of each other.
    num_threads : int, optional
        Threads to use; by default as set by `malis.set_num_threads`. The result does not depend on it.
    """

    margin: float = 0.3
    pos_loss_weight: float = 0.5
    normalize: bool = True
    pointwise: str = "squared_hinge"
    from_logits: bool = False
    constrain_positive: bool = True
    constrain_negative: bool = True
    ignore_background: bool = True
    ignore_label: int | None = None
    connect_labels: bool = False
    num_threads: int | None = None

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> "Options":
        """Check the options that a caller gave, and fill in the defaults of the others."""
        _refuse_others(given, cls._fields)
        return cls(**given).checked()

    def checked(self) -> "Options":
        """Check every option, and return them in their plain types."""
        weight = _checks.as_real(self.pos_loss_weight, "pos_loss_weight")
        if not 0 <= weight <= 1:
            raise ValueError(f"pos_loss_weight must be within 0 and 1, got {self.pos_loss_weight!r}")
        return Options(
            margin=_checks.as_margin(self.margin),
            pos_loss_weight=weight,
            normalize=_checks.as_flag(self.normalize, "normalize"),
            pointwise=_checks.as_choice(self.pointwise, "pointwise", POINTWISE),
            from_logits=_checks.as_flag(self.from_logits, "from_logits"),
            constrain_positive=_checks.as_flag(self.constrain_positive, "constrain_positive"),
            constrain_negative=_checks.as_flag(self.constrain_negative, "constrain_negative"),
            ignore_background=_checks.as_flag(self.ignore_background, "ignore_background"),
            ignore_label=_checks.as_ignore_label(self.ignore_label),
            connect_labels=_checks.as_flag(self.connect_labels, "connect_labels"),
            num_threads=_checks.as_threads(self.num_threads),
        )

    def as_keywords(self) -> "LossOptions":
        """Return the options as keyword arguments."""
        return cast("LossOptions", dict(zip(Options._fields, self, strict=True)))

    def for_core(self) -> dict[str, Any]:
        """Return the keyword arguments of ``_core.malis_loss``."""
        return {**self.as_keywords(), "pointwise": _core.Pointwise.__members__[self.pointwise]}


class PairOptions(TypedDict, total=False):
    """The options of counting pairs, as keyword arguments; `Options` describes them."""

    constrain_positive: bool
    constrain_negative: bool
    ignore_background: bool
    ignore_label: int | None
    num_threads: int | None


class LossOptions(PairOptions, total=False):
    """The options of the loss, as keyword arguments; `Options` describes them."""

    margin: float
    pos_loss_weight: float
    normalize: bool
    pointwise: str
    from_logits: bool
    connect_labels: bool


class HoldsOptions:
    """What a loss that is an object keeps: a neighbourhood and the options, each as an attribute of its name.

    A framework's class inherits from this and adds its own call. Plain attributes are what `pickle`, `copy` and the
    saving functions of the frameworks store. A loss stored before an option existed gets its default.
    """

    nhood: tuple[tuple[int, ...], ...] | None
    margin: float
    pos_loss_weight: float
    normalize: bool
    pointwise: str
    from_logits: bool
    constrain_positive: bool
    constrain_negative: bool
    ignore_background: bool
    ignore_label: int | None
    connect_labels: bool
    num_threads: int | None

    def _hold(self, nhood: tuple[tuple[int, ...], ...] | None, options: Options) -> None:
        """Set the attributes."""
        self.nhood = nhood
        for name, value in options.as_keywords().items():
            setattr(self, name, value)

    def _held_options(self) -> Options:
        """Return the options as they are now: a user may have set an attribute."""
        values: dict[str, Any] = {name: getattr(self, name, Options._field_defaults[name]) for name in Options._fields}
        return Options(**values)

    def _configuration(self) -> dict[str, Any]:
        """Return what the constructor has to be given to make this loss again, in types that JSON knows."""
        nhood = None if self.nhood is None else [list(offset) for offset in self.nhood]
        return {"nhood": nhood, **self._held_options().as_keywords()}

    def _repr_of_options(self, **others: object) -> str:
        """List the neighbourhood, the options and `others` as keyword arguments."""
        values = {"nhood": self.nhood, **self._held_options().as_keywords(), **others}
        return ", ".join(f"{name}={value!r}" for name, value in values.items())


def of_pairs(given: PairOptions) -> dict[str, Any]:
    """Check the options of counting pairs, and return all of them as keyword arguments of the core."""
    names = _names(PairOptions)
    _refuse_others(given, names)
    options = Options(**given).checked()
    return {name: getattr(options, name) for name in names}


def _names(kind: type) -> tuple[str, ...]:
    """Return the names of the options in a `TypedDict`, in the order of `Options`."""
    return tuple(name for name in Options._fields if name in kind.__annotations__)


def _refuse_others(given: Mapping[str, Any], names: tuple[str, ...]) -> None:
    for name in given:
        if name not in names:
            raise TypeError(f"got an unexpected keyword argument {name!r}; the options are {', '.join(names)}")


_Target = TypeVar("_Target", bound=Callable[..., Any])


def takes(kind: type, **other_defaults: Any) -> Callable[[_Target], _Target]:
    """Show the options of `kind` one by one in the signature and the documentation of a function or a class.

    `other_defaults` are those of the function where they are not the usual ones.

    The function, or the constructor of the class, takes them as ``**options``, and the docstring has a parameter
    ``**options``. What is decorated is returned itself, not wrapped, so that compilers of frameworks see nothing
    unusual.
    """

    def show(target: _Target) -> _Target:
        function: Any = vars(target)["__init__"] if isinstance(target, type) else target
        names = _names(kind)
        types = {name: inspect.formatannotation(Options.__annotations__[name]) for name in names}
        signature = inspect.signature(function)
        *others, options = signature.parameters.values()
        shown = [
            inspect.Parameter(
                name,
                inspect.Parameter.KEYWORD_ONLY,
                default=other_defaults.get(name, Options._field_defaults[name]),
                annotation=types[name],
            )
            for name in names
        ]
        function.__signature__ = signature.replace(parameters=[*others, *shown])
        del function.__annotations__[options.name]
        function.__annotations__.update(types)
        target.__doc__ = _with_descriptions(target.__doc__, names)
        return target

    return show


def _with_descriptions(documentation: str | None, names: tuple[str, ...]) -> str | None:
    """Replace the parameter ``**options`` of a docstring by the description of each option."""
    if documentation is None:  # python -OO
        return None
    entries = {
        entry[1]: entry[0]
        for entry in re.finditer(r"^(\w+) : .*(?:\n    .*)*", inspect.cleandoc(Options.__doc__ or ""), re.MULTILINE)
    }

    def described(match: re.Match[str]) -> str:
        lines = "\n".join(entries[name] for name in names).split("\n")
        return "".join(f"{match[1]}{line}\n" for line in lines)

    return re.sub(r"^( *)\*\*options\b.*\n(?:\1 +.*\n)*", described, documentation, flags=re.MULTILINE)
