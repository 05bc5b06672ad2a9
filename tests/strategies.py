"""Hypothesis strategies for small affinity graphs."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

# Few values, so that ties are the rule; both zeros, which are equal, and both infinities.
TIED = [0.0, -0.0, 0.25, 0.5, 0.75, 1.0]
UNBOUNDED = [-np.inf, -3.5, -(2.0**-100), 0.0, -0.0, 2.0**-100, 2.0, np.inf]


class Problem(NamedTuple):
    aff: np.ndarray
    seg: np.ndarray
    nhood: np.ndarray


def shapes(max_voxels: int = 30, min_dims: int = 1, max_dims: int = 3) -> st.SearchStrategy[tuple[int, ...]]:
    sides = {1: 14, 2: 7, 3: 4}
    return st.integers(min_dims, max_dims).flatmap(
        lambda ndim: hnp.array_shapes(min_dims=ndim, max_dims=ndim, min_side=1, max_side=sides[ndim]).filter(
            lambda shape: int(np.prod(shape)) <= max_voxels
        )
    )


def neighbourhoods(ndim: int, max_offsets: int = 4, reach: int = 3) -> st.SearchStrategy[np.ndarray]:
    """Any offsets: near, long (also beyond the volume), forward, backward, zero, repeated."""
    nearest = -np.eye(ndim, dtype=np.int32)
    anything = hnp.arrays(
        np.int32, st.tuples(st.integers(1, max_offsets), st.just(ndim)), elements=st.integers(-reach, reach)
    )
    return st.one_of(
        st.just(nearest),
        anything.map(lambda offsets: np.concatenate([nearest, offsets])),
        anything,
    )


def weights(shape: Any, dtype: Any = None) -> st.SearchStrategy[np.ndarray]:
    """Affinities: full of ties, without any tie, or unbounded."""
    dtypes = st.sampled_from([np.float32, np.float64]) if dtype is None else st.just(dtype)

    def of_dtype(kind: Any) -> st.SearchStrategy[np.ndarray]:
        size = int(np.prod(shape))
        distinct = st.permutations(range(size)).map(
            lambda order: ((np.array(order) + 0.5) / size).astype(kind).reshape(shape)
        )
        return st.one_of(
            hnp.arrays(kind, shape, elements=st.sampled_from(TIED)),
            hnp.arrays(kind, shape, elements=st.sampled_from(UNBOUNDED)),
            distinct,
        )

    return dtypes.flatmap(of_dtype)


@st.composite
def problems(
    draw: st.DrawFn,
    *,
    max_voxels: int = 30,
    min_dims: int = 1,
    max_dims: int = 3,
    dtype: Any = None,
    bounded: bool = False,
    min_label: int = 0,
    max_label: int = 3,
) -> Problem:
    shape = draw(shapes(max_voxels, min_dims, max_dims))
    nhood = draw(neighbourhoods(len(shape)))
    aff_shape = (len(nhood), *shape)
    if bounded:
        aff = draw(hnp.arrays(dtype or np.float64, aff_shape, elements=st.sampled_from(TIED)))
    else:
        aff = draw(weights(aff_shape, dtype))
    seg = draw(hnp.arrays(np.int64, shape, elements=st.integers(min_label, max_label)))
    return Problem(aff, seg, nhood)


def edge_masks(problem: Problem) -> st.SearchStrategy[np.ndarray]:
    return hnp.arrays(bool, problem.aff.shape)


def unlabelled_masks(problem: Problem) -> st.SearchStrategy[np.ndarray]:
    return hnp.arrays(bool, problem.seg.shape)


@st.composite
def segmentations(draw, background=True):
    """Two label arrays of one shape with 1 to 3 axes."""
    shape = draw(hnp.array_shapes(min_dims=1, max_dims=3, max_side=6))
    labels = st.integers(0 if background else 1, 5)
    dtype = draw(st.sampled_from([np.uint8, np.int32, np.int64, np.uint64]))
    return draw(hnp.arrays(dtype, shape, elements=labels)), draw(hnp.arrays(dtype, shape, elements=labels))


def bars(*runs):
    """Make a 1-D segmentation of (label, length) runs."""
    return np.concatenate([np.full(length, label) for label, length in runs])
