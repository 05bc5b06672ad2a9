"""Intervals of differences between methods, for scores of several seeds and images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

SAMPLES = 4000


class Gain(NamedTuple):
    """A mean difference and its size in standard deviations, both with intervals of 95 %."""

    mean: float
    interval: tuple[float, float]
    effect: float
    effect_interval: tuple[float, float]


def gain(seeds: Sequence[int], images: Sequence[int], differences: npt.ArrayLike) -> Gain:
    """Estimate a mean difference from pairs of scores, of which each belongs to a seed and an image.

    Pairs of one seed share a network, and pairs of one image share what is hard about it: neither is independent.
    Seeds and images are therefore drawn anew, each with replacement, and a pair counts as often as both of its own were
    drawn (the pigeonhole bootstrap of Owen, Annals of Applied Statistics 2007). Few seeds give intervals that are too
    narrow.

    Parameters
    ----------
    seeds, images : sequence of int, length n
        The seed and the image of each pair.
    differences : array_like of float, shape (n,)
        The score with a method minus that with the other one.

    Returns
    -------
    Gain
        The effect is the mean over the standard deviation of the differences, 0 where all of these are equal.
    """
    values = np.asarray(differences, float)
    rng = np.random.default_rng(0)
    drawn = _draws(rng, seeds) * _draws(rng, images)
    drawn = drawn[drawn.sum(1) > 0]
    means, effects = _moments(values, drawn)
    (mean,), (effect,) = _moments(values, np.ones((1, len(values))))
    return Gain(float(mean), _interval(means), float(effect), _interval(effects))


def _draws(rng: np.random.Generator, clusters: Sequence[int]) -> npt.NDArray[Any]:
    """Return how often the cluster of each pair is drawn in each sample, shape (SAMPLES, n)."""
    names, of_pair = np.unique(np.asarray(clusters), return_inverse=True)
    return rng.multinomial(len(names), np.full(len(names), 1 / len(names)), SAMPLES)[:, of_pair]


def _moments(values: npt.NDArray[Any], weights: npt.NDArray[Any]) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    sums = weights.sum(1)
    means = weights @ values / sums
    variances = np.maximum(weights @ values**2 / sums - means**2, 0)
    deviations = np.sqrt(variances)
    effects = np.divide(means, deviations, out=np.zeros_like(means), where=deviations > 1e-9)
    return means, effects


def _interval(samples: npt.NDArray[Any]) -> tuple[float, float]:
    low, high = np.percentile(samples, [2.5, 97.5])
    return float(low), float(high)
