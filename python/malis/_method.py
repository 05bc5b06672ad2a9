"""How the command segments affinities, in memory or chunk by chunk."""

from __future__ import annotations

import math
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt


class Functions(Protocol):
    """The functions of `malis`, or those of the same names in `malis.malis_dask`."""

    affgraph_to_seg: Any
    watershed_basins: Any
    watershed_from_affgraph: Any


class Method(NamedTuple):
    """How affinities become labels."""

    threshold: float | None
    """Of the edges that connect; None: watersheds take all edges."""
    grow: float | None
    """Components grow along edges of at least this affinity."""
    basins: bool
    """Basins of a watershed without seeds, not components."""
    min_size: int

    def segment(
        self, functions: Functions, aff: Any, nhood: npt.NDArray[np.int64], seeds: Any, **of_components: Any
    ) -> tuple[Any, npt.NDArray[np.int64]]:
        """Return the labels and how many voxels each has; with `seeds`, where these are not None, by a watershed."""
        every = -math.inf if self.threshold is None else self.threshold
        if seeds is not None:
            seg, sizes = functions.watershed_from_affgraph(aff, seeds, nhood, min_size=self.min_size, threshold=every)
        elif self.basins:
            seg, sizes = functions.watershed_basins(aff, nhood, min_size=self.min_size, threshold=every)
        else:
            seg, sizes = functions.affgraph_to_seg(
                aff, nhood, threshold=self.threshold, min_size=self.min_size, **of_components
            )
            if self.grow is not None:
                seg, sizes = functions.watershed_from_affgraph(aff, seg, nhood, min_size=0, threshold=self.grow)
        return seg, sizes
