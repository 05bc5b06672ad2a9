"""Maximin affinity learning of image segmentation: the MALIS loss, exact and fast.

`import malis` needs NumPy alone. The adapters for frameworks, `malis.malis_torch` and its siblings, `malis.plot` and
`malis.synthetic` are imported on their first use.
"""

from __future__ import annotations

import importlib
from typing import Any

from malis import metrics
from malis._core import __version__
from malis.affgraph import affgraph_to_edgelist, bmap_to_affgraph, nodelist_from_shape, seg_to_affgraph
from malis.compat import (
    compute_V_rand_N2,
    connected_components,
    connected_components_affgraph,
    malis_loss_op,
    malis_loss_weights,
    malis_weights,
    malis_weights_op,
    marker_watershed,
    mk_cont_table,
    nodelist_like,
    prune_and_renum,
    rand_index,
)
from malis.curve import RandCurve, rand_curve
from malis.labels import connect_labels
from malis.loss import MalisLoss, PairCounts, edge_pairs, malis_loss, pairs
from malis.nhood import mknhood2d, mknhood3d, mknhood3d_aniso
from malis.segmentation import affgraph_to_seg, watershed_basins, watershed_from_affgraph
from malis.threads import get_num_threads, set_num_threads
from malis.threshold import BestThreshold, find_threshold
from malis.tree import SpanningTree, linkage, maximum_spanning_tree, segment_tree

__all__ = [
    "BestThreshold",
    "MalisLoss",
    "PairCounts",
    "RandCurve",
    "SpanningTree",
    "__version__",
    "affgraph_to_edgelist",
    "affgraph_to_seg",
    "bmap_to_affgraph",
    "compute_V_rand_N2",
    "connect_labels",
    "connected_components",
    "connected_components_affgraph",
    "edge_pairs",
    "find_threshold",
    "get_num_threads",
    "linkage",
    "malis_loss",
    "malis_loss_op",
    "malis_loss_weights",
    "malis_weights",
    "malis_weights_op",
    "marker_watershed",
    "maximum_spanning_tree",
    "metrics",
    "mk_cont_table",
    "mknhood2d",
    "mknhood3d",
    "mknhood3d_aniso",
    "nodelist_from_shape",
    "nodelist_like",
    "pairs",
    "prune_and_renum",
    "rand_curve",
    "rand_index",
    "seg_to_affgraph",
    "segment_tree",
    "set_num_threads",
    "watershed_basins",
    "watershed_from_affgraph",
]

_SUBMODULES = ("malis_dask", "malis_jax", "malis_keras", "malis_tensorflow", "malis_torch", "plot", "synthetic")


def __getattr__(name: str) -> Any:
    if name in _SUBMODULES:
        return importlib.import_module(f"malis.{name}")
    raise AttributeError(f"module 'malis' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*__all__, *_SUBMODULES])
