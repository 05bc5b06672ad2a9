"""Segmentations, spanning trees, affinity graphs and scores of volumes that do not fit into memory, on dask arrays.

Functions have the names, arguments and results of those in `malis`, for volumes in any chunks; what is volume-sized is
a dask array. They run on dask's threads, or on the cluster of the `dask.distributed` client that is in use.
"""

from malis._adapters.missing import missing

try:
    import dask.array  # noqa: F401
except ModuleNotFoundError as error:
    raise missing(error, "dask", "dask") from None

from malis.malis_dask.affgraph import seg_to_affgraph
from malis.malis_dask.basins import watershed_basins
from malis.malis_dask.curve import rand_curve
from malis.malis_dask.labels import connect_labels
from malis.malis_dask.loss import malis_loss, pairs
from malis.malis_dask.scores import contingency_table
from malis.malis_dask.segmentation import affgraph_to_seg
from malis.malis_dask.tree import maximum_spanning_tree
from malis.malis_dask.tree_segments import segment_tree
from malis.malis_dask.watershed import watershed_from_affgraph

__all__ = [
    "affgraph_to_seg",
    "connect_labels",
    "contingency_table",
    "malis_loss",
    "maximum_spanning_tree",
    "pairs",
    "rand_curve",
    "seg_to_affgraph",
    "segment_tree",
    "watershed_basins",
    "watershed_from_affgraph",
]
