"""The options of the loss: each stands once, and every function shows it."""

from __future__ import annotations

import inspect
import typing

import pytest

import malis
from malis._options import HoldsOptions, LossOptions, Options, PairOptions


def test_the_lists_of_options_agree():
    types = dict(Options.__annotations__)
    assert typing.get_type_hints(LossOptions) == types
    held = dict(typing.get_type_hints(HoldsOptions))
    held.pop("nhood")
    assert held == types


@pytest.mark.parametrize("function", [malis.pairs, malis.edge_pairs, malis.malis_loss])
def test_signature_and_help_show_every_option(function):
    kind = LossOptions if function is malis.malis_loss else PairOptions
    parameters = inspect.signature(function).parameters
    assert "options" not in parameters
    assert "**options" not in function.__doc__
    for name in Options._fields:
        assert (name in parameters) == (name in kind.__annotations__)
        if name in parameters:
            assert parameters[name].default == Options._field_defaults[name]
            assert f"{name} : " in function.__doc__
    assert (
        typing.get_type_hints(function, None, {"npt": __import__("numpy.typing").typing})["num_threads"] == int | None
    )


def test_options_of_the_loss_are_none_of_counting():
    with pytest.raises(TypeError, match="unexpected keyword argument 'margin'; the options are constrain_positive"):
        malis.pairs([[0.5, 0.5]], [1, 1], [[-1]], margin=0.3)
