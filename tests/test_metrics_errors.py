"""Error maps: worked out by hand, and the definition written out voxel by voxel."""

from __future__ import annotations

import numpy as np
from hypothesis import given

from malis import metrics
from strategies import bars, segmentations


def test_error_map_by_hand():
    # Object 1 in halves of 60 and 40; 2 and 3 in one predicted object, more of it 2; a piece of 4 sticks to object 5.
    true = bars((1, 100), (2, 60), (3, 40), (4, 50), (5, 60), (0, 20), (6, 10))
    pred = bars((11, 60), (12, 40), (13, 100), (14, 30), (15, 80), (16, 20), (0, 10))
    kinds = metrics.VoxelError
    expected = bars(
        (kinds.NONE, 60),
        (kinds.SPLIT, 40),
        (kinds.NONE, 60),
        (kinds.MERGED, 40),
        (kinds.NONE, 30),
        (kinds.SPLIT_AND_MERGED, 20),
        (kinds.NONE, 60),
        (kinds.SPURIOUS, 20),
        (kinds.MISSED, 10),
    )
    errors = metrics.error_map(true.reshape(2, -1), pred.reshape(2, -1))
    assert errors.dtype == np.uint8
    assert errors.shape == (2, 170)
    np.testing.assert_array_equal(errors.ravel(), expected)


def largest_partner(pairs):
    """Return for every first label the second one that most pairs have, the lowest of equal ones."""
    return {
        a: min({b for x, b in pairs if x == a}, key=lambda b: (-pairs.count((a, b)), b)) for a in {a for a, _ in pairs}
    }


@given(segmentations())
def test_error_map_equals_the_definition(pair):
    true, pred = (seg.ravel().tolist() for seg in pair)
    both = [(t, p) for t, p in zip(true, pred, strict=True) if t and p]
    cover, owner = largest_partner(both), largest_partner([(p, t) for t, p in both])
    for t, p, error in zip(true, pred, metrics.error_map(*pair).ravel().tolist(), strict=True):
        if t and p:
            assert (error in (3, 5)) == (cover[t] != p)
            assert (error in (4, 5)) == (owner[p] != t)
            assert error in (0, 3, 4, 5)
        else:
            assert error == (1 if t else 2 if p else 0)


@given(segmentations())
def test_a_perfect_segmentation_has_no_errors(pair):
    true, _ = pair
    assert not metrics.error_map(true, np.where(true > 0, true + 7, 0)).any()
