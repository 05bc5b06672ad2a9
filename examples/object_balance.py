"""MALIS in which every object counts alike, and not every pair of pixels.

The pairs within an object of n pixels are about n^2 / 2 of all, those between two objects are the product of their
sizes: large objects dominate. Here the pairs within each object have a weight of 1 together, and so have the pairs
between any two objects. Both follow from the definition of the counts: an edge within an object decides pairs of this
object alone, and once all edges within objects are contracted every object is one node of a graph, on which
`malis.edge_pairs` counts pairs of objects. That takes objects in one part each, as `malis.connect_labels` makes them.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch

import malis


def balanced_shares(
    affinities: npt.NDArray[Any], labels: npt.NDArray[Any], nhood: npt.ArrayLike
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Return what each edge has of all pairs within and between objects, of which each object has the same share.

    Parameters
    ----------
    affinities : ndarray of float, shape (K, *shape)
        Affinities, or logits: their order alone counts.
    labels : ndarray of int, shape (*shape)
        Objects, each in one part; 0 is background.
    nhood : array_like of int, shape (K, ndim)
        Offsets.

    Returns
    -------
    positive, negative : ndarray of float32, shape (K, *shape)
        Each sums to 1, or to 0 where there is no pair.
    """
    offsets = np.asarray(nhood)
    within = malis.pairs(affinities, labels, offsets).pos
    of_object = np.bincount(np.broadcast_to(labels, within.shape).ravel(), weights=within.ravel())
    positive = within / np.where(of_object > 0, of_object, 1)[labels]

    # Every object is a node, and so is every pixel of the background.
    n_objects = int(labels.max())
    background = labels == 0
    node = labels - 1
    node[background] = n_objects + np.arange(np.count_nonzero(background))
    node_labels = np.zeros(n_objects + np.count_nonzero(background), np.int32)
    node_labels[:n_objects] = np.arange(1, n_objects + 1)
    first, second = (  # an end outside is -1 and stays so
        np.where(ends < 0, -1, node.ravel()[ends]) for ends in malis.nodelist_from_shape(labels.shape, offsets)
    )
    negative = malis.edge_pairs(first, second, affinities, node_labels).neg
    return _shares(positive), _shares(negative)


def _shares(counts: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    return (counts / max(float(counts.sum()), 1e-12)).astype(np.float32)


def balanced_malis(logits: torch.Tensor, labels: torch.Tensor, nhood: npt.ArrayLike, margin: float) -> torch.Tensor:
    """Return the MALIS loss of a batch, (B, K, *shape) and (B, *shape), with shares of `balanced_shares`."""
    shares = [
        balanced_shares(of_sample, truth, nhood)
        for of_sample, truth in zip(logits.detach().float().numpy(force=True), labels.numpy(force=True), strict=True)
    ]
    positive, negative = (torch.from_numpy(np.stack(part)).to(logits.device) for part in zip(*shares, strict=True))
    aff = torch.sigmoid(logits)
    each = positive * (1 - margin - aff).clamp(min=0) ** 2 + negative * (aff - margin).clamp(min=0) ** 2
    return each.sum() / len(logits)
