"""The small problems of ``frameworks.py`` as tensors of PyTorch."""

from __future__ import annotations

import pytest

import frameworks
from frameworks import SHAPES

torch = pytest.importorskip("torch", reason="torch not installed")

ndims = pytest.mark.parametrize("ndim", [2, 3], ids=["2d", "3d"])


def labels(batch: int, shape: tuple[int, ...], seed: int = 0) -> torch.Tensor:
    return torch.from_numpy(frameworks.labels(batch, shape, seed)).long()


def tie_free(shape: tuple[int, ...], seed: int = 0, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.from_numpy(frameworks.tie_free(shape, seed)).to(dtype)


def case(ndim: int, batch: int = 3, dtype: torch.dtype = torch.float64, seed: int = 0):
    shape = SHAPES[ndim]
    return labels(batch, shape, seed), tie_free((batch, ndim, *shape), seed, dtype)


def masks(ndim: int, batch: int = 3) -> tuple[torch.Tensor, ...]:
    return tuple(map(torch.from_numpy, frameworks.masks(ndim, batch)))


def value_and_grad(loss_of, output: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    output = output.detach().clone().requires_grad_()
    loss = loss_of(output)
    return loss.detach(), torch.autograd.grad(loss.sum(), output)[0]
