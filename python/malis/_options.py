"""The options that all forms of the loss share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from malis import _checks, _core

POINTWISE = ("squared_hinge", "cross_entropy")


class Options(NamedTuple):
    """The options of `malis.malis_loss` that are no arrays, in the order of the core."""

    margin: float = 0.3
    pos_loss_weight: float = 0.5
    normalize: bool = True
    pointwise: str = "squared_hinge"
    from_logits: bool = False
    constrain_positive: bool = True
    constrain_negative: bool = True
    ignore_background: bool = True
    num_threads: int | None = None

    @classmethod
    def of(cls, arguments: Mapping[str, Any]) -> Options:
        """Take the options out of a function's arguments, and check them."""
        return cls(*[arguments[name] for name in cls._fields]).checked()

    def checked(self) -> Options:
        """Check every option, and return them in their plain types."""
        weight = _checks.as_real(self.pos_loss_weight, "pos_loss_weight")
        if not 0 <= weight <= 1:
            raise ValueError(f"pos_loss_weight must be within 0 and 1, got {self.pos_loss_weight!r}")
        return Options(
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

    def for_core(self) -> dict[str, Any]:
        """Return the keyword arguments of ``_core.malis_loss``."""
        return {**self._asdict(), "pointwise": _core.Pointwise.__members__[self.pointwise]}
