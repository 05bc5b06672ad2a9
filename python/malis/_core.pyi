from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

__version__: str

_Array = npt.NDArray[Any]
_Int64 = npt.NDArray[np.int64]
_Float64 = npt.NDArray[np.float64]
_Mask = npt.NDArray[np.bool_] | None

class Pointwise:
    squared_hinge: ClassVar[Pointwise]
    cross_entropy: ClassVar[Pointwise]
    __members__: ClassVar[dict[str, Pointwise]]

def num_threads() -> int: ...
def set_num_threads(n: int) -> None: ...
def pair_counts(
    aff: _Array,
    seg: _Array,
    nhood: _Int64,
    *,
    edge_mask: _Mask,
    unlabelled_mask: _Mask,
    **options: Any,
) -> tuple[_Int64, _Int64]: ...
def malis_loss(
    aff: _Array,
    seg: _Array,
    nhood: _Int64,
    *,
    edge_mask: _Mask,
    unlabelled_mask: _Mask,
    channels_last: bool,
    scale: float = 1.0,
    **options: Any,
) -> tuple[_Float64, _Array]: ...
def pair_terms(aff: _Float64, **options: Any) -> tuple[_Float64, _Float64, _Float64, _Float64]: ...
def whole_numbers(values: _Array, *, num_threads: int | None) -> npt.NDArray[np.int32] | None: ...
def edge_pair_counts(
    node1: _Array,
    node2: _Array,
    weights: _Array,
    seg: _Array,
    *,
    edge_mask: _Mask,
    unlabelled_mask: _Mask,
    want_positive: bool,
    want_negative: bool,
    **options: Any,
) -> tuple[_Int64, _Int64]: ...
def seg_to_affgraph(seg: _Array, nhood: _Int64, *, num_threads: int | None) -> npt.NDArray[np.int32]: ...
def components(
    aff: _Array, nhood: _Int64, *, threshold: float | None, size_thresh: int, merge_small: bool, num_threads: int | None
) -> tuple[_Array, _Int64]: ...
def chunk_components(
    aff: _Array, nhood: _Int64, open: _Int64, *, threshold: float | None, size_thresh: int, num_threads: int | None
) -> tuple[_Array, _Int64, _Int64]: ...
def connect_labels(seg: _Array, nhood: _Int64, *, num_threads: int | None) -> _Array: ...
def watershed_basins(
    aff: _Array, nhood: _Int64, *, threshold: float, size_thresh: int, num_threads: int | None
) -> tuple[_Array, _Int64]: ...
def watershed(aff: _Array, seeds: _Array, nhood: _Int64, *, threshold: float, num_threads: int | None) -> _Array: ...
def edge_components(n: int, node1: _Array, node2: _Array, connected: npt.NDArray[np.bool_]) -> _Int64: ...
def edge_watershed(
    node1: _Array, node2: _Array, weights: _Array, seeds: _Array, *, num_threads: int | None
) -> _Array: ...
def rand_curve(
    aff: _Array, seg: _Array, nhood: _Int64, *, num_threads: int | None
) -> tuple[_Array, float, int, int, _Int64, _Int64, _Int64, _Float64, _Float64]: ...
def maximum_spanning_tree(
    aff: _Array, nhood: _Int64, *, num_threads: int | None
) -> tuple[_Int64, _Array, _Array, _Array]: ...
def segment_tree(
    shape: Sequence[int],
    affinities: _Array,
    node1: _Array,
    node2: _Array,
    thresholds: Sequence[float],
    *,
    size_thresh: int,
    num_threads: int | None,
) -> list[tuple[_Array, _Int64]]: ...
def linkage(nodes: int, affinities: _Array, node1: _Array, node2: _Array, *, highest: float) -> _Float64: ...
def smaller_sizes(nodes: int, affinities: _Array, node1: _Array, node2: _Array) -> _Array: ...
def large_components(
    nodes: int, affinities: _Array, node1: _Array, node2: _Array, thresholds: Sequence[float], min_size: int
) -> tuple[_Array, _Array, _Int64, _Int64, _Int64]: ...
def settle_edges(node1: _Array, node2: _Array, terminal: npt.NDArray[np.bool_]) -> npt.NDArray[np.uint8]: ...
def settle_counts(
    node1: _Array,
    node2: _Array,
    terminal: npt.NDArray[np.bool_],
    *,
    node: _Int64,
    label: _Int64,
    voxels: _Int64,
    unlabelled: int,
    foreground: int | None,
) -> tuple[npt.NDArray[np.uint8], _Int64, _Int64, _Int64, _Int64]: ...
def entropy_of_sizes(sizes: _Int64, foreground: int) -> tuple[int, float]: ...
def xla_loss_handler() -> Any: ...
