"""Counts, losses and curves of chunked volumes are those of the functions in memory, for every chunking."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import malis
from strategies import edge_masks, problems, unlabelled_masks

dask = pytest.importorskip("dask")
da = pytest.importorskip("dask.array")
malis_dask = pytest.importorskip("malis.malis_dask")

from test_dask import chunked, chunked_problems, chunkings  # noqa: E402

FLAGS = ("constrain_positive", "constrain_negative", "ignore_background")


@pytest.fixture(autouse=True)
def _in_this_thread():
    with dask.config.set(scheduler="sync"):
        yield


@st.composite
def masked_problems(draw, **options):
    """A problem, chunks of its affinities, of its labels and of its masks, and the options of counting."""
    problem = draw(problems(max_voxels=40, **options))
    chunks = [draw(chunkings(problem.seg.shape)) for _ in range(3)]
    flags = {name: draw(st.booleans()) for name in FLAGS}
    masks = {}
    if draw(st.booleans()):
        masks["edge_mask"] = draw(edge_masks(problem))
    if draw(st.booleans()):
        masks["unlabelled_mask"] = draw(unlabelled_masks(problem))
    flags["ignore_label"] = draw(st.sampled_from([None, None, 0, 1, 2] if flags["ignore_background"] else [None, 1]))
    return problem, chunks, masks, flags


def arguments(problem, chunks, masks):
    """The arguments in chunks, each array in others."""
    return (
        chunked(problem.aff, chunks[0]),
        chunked(problem.seg, chunks[1]),
        problem.nhood,
    ), {name: chunked(mask, chunks[2]) for name, mask in masks.items()}


@pytest.mark.slow
@given(masked_problems())
@settings(max_examples=200)
def test_counts(tmp_path_factory, drawn):
    problem, chunks, masks, options = drawn
    expected = malis.pairs(*problem, **masks, **options)
    args, chunked_masks = arguments(problem, chunks, masks)
    found = malis_dask.pairs(*args, **chunked_masks, **options, scratch=tmp_path_factory.mktemp("scratch"))
    for counts, of_memory in zip(found, expected, strict=True):
        assert counts.chunks[1:] == chunks[0] and counts.dtype == np.int64
        np.testing.assert_array_equal(counts.compute(), of_memory)


@pytest.mark.slow
@given(
    masked_problems(bounded=True),
    st.sampled_from(["squared_hinge", "cross_entropy"]),
    st.booleans(),
    st.booleans(),
    st.booleans(),
    st.sampled_from([0.0, 0.25, 1.0]),
    st.sampled_from(["f2", "f4", "f8"]),
)
@settings(max_examples=50)
def test_losses(tmp_path_factory, drawn, pointwise, from_logits, normalize, connect_labels, weight, dtype):
    problem, chunks, masks, options = drawn
    options = {
        **options,
        "pointwise": pointwise,
        "from_logits": from_logits,
        "normalize": normalize,
        "connect_labels": connect_labels,
        "pos_loss_weight": weight,
    }
    problem = problem._replace(aff=problem.aff.astype(dtype))
    expected = malis.malis_loss(*problem, **masks, **options)
    args, chunked_masks = arguments(problem, chunks, masks)
    loss, grad = malis_dask.malis_loss(*args, **chunked_masks, **options, scratch=tmp_path_factory.mktemp("scratch"))
    assert isinstance(loss, float) and grad.dtype == expected.grad.dtype and grad.chunks[1:] == chunks[0]
    np.testing.assert_allclose(loss, expected.loss, rtol=1e-6)
    np.testing.assert_allclose(grad.compute(), expected.grad, rtol=1e-3 if dtype == "f2" else 1e-6, atol=1e-7)


def test_unlabelled_voxels_are_not_ignored_where_zero_is(tmp_path):
    """Found by the test above: connected parts gave unlabelled voxels the label 0."""
    aff, seg, unlabelled = np.full((1, 4), 0.5), np.array([1, 1, 0, 2]), np.array([True, False, False, False])
    options = {"connect_labels": True, "ignore_label": 0, "normalize": False}
    expected = malis.malis_loss(aff, seg, [[-1]], unlabelled_mask=unlabelled, **options)
    assert expected.loss > 0
    args = (da.from_array(aff, chunks=2), da.from_array(seg, chunks=2), [[-1]])
    mask = da.from_array(unlabelled, chunks=2)
    loss, grad = malis_dask.malis_loss(*args, unlabelled_mask=mask, **options, scratch=tmp_path)
    assert loss == pytest.approx(expected.loss)
    np.testing.assert_allclose(grad.compute(), expected.grad)


def assert_same_curve(found, expected) -> None:
    for name in ("thresholds", "true_positives", "false_positives", "precision", "recall", "f_score"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))
        assert getattr(found, name).dtype == getattr(expected, name).dtype
    for name in ("rand_split", "rand_merge", "voi_split", "voi_merge"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))
    for name in ("best_threshold", "true_pairs", "foreground"):
        assert getattr(found, name) == getattr(expected, name)


@pytest.mark.slow
@given(chunked_problems(min_label=-1), st.data(), st.sampled_from([None, -1, 0, 2]), st.booleans())
@settings(max_examples=50)
def test_curves(drawn, data, ignore_label, as_bytes):
    problem, chunks = drawn
    seg = problem.seg if ignore_label == -1 else problem.seg.clip(0)
    aff = problem.aff
    if as_bytes:
        aff = np.random.default_rng(0).integers(0, 4, aff.shape, dtype=np.uint8)
    found = malis_dask.rand_curve(
        chunked(aff, chunks), chunked(seg, data.draw(chunkings(seg.shape))), problem.nhood, ignore_label=ignore_label
    )
    assert_same_curve(found, malis.rand_curve(aff, seg, problem.nhood, ignore_label=ignore_label))


@pytest.fixture
def cells(rng):
    """Cells, and affinities that tell them apart but for noise."""
    nhood = np.concatenate([malis.mknhood3d(1), [[-9, 0, 0], [0, 5, -12]]])
    shape = (28, 29, 30)
    centres = rng.random((30, 3)) * 30
    voxels = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), -1)
    seg = ((voxels[..., None, :] - centres) ** 2).sum(-1).argmin(-1)
    aff = malis.seg_to_affgraph(seg, nhood) * 0.3 + rng.random((len(nhood), *shape)) * 0.7
    return aff, seg, nhood


@pytest.mark.parametrize("dtype", ["u1", "f4", "f8"])
def test_a_volume_of_cells_in_many_chunks(tmp_path, cells, dtype):
    aff, seg, nhood = cells
    aff = (aff * 255).astype(dtype) if dtype == "u1" else aff.astype(dtype)
    chunks = ((10, 18), (7, 7, 15), (16, 14))
    args = (chunked(aff, chunks), da.from_array(seg, chunks=9), nhood)
    assert_same_curve(malis_dask.rand_curve(*args), malis.rand_curve(aff, seg, nhood))
    whole = malis_dask.pairs(*args, scratch=tmp_path / "pairs") if dtype != "u1" else None
    if whole is not None:
        expected = malis.pairs(aff, seg, nhood)
        assert expected.pos.sum() > 10**6 and expected.neg.sum() > 10**6
        np.testing.assert_array_equal(whole.pos.compute(), expected.pos)
        np.testing.assert_array_equal(whole.neg.compute(), expected.neg)


def test_on_threads(tmp_path, cells):
    aff, seg, nhood = cells
    with dask.config.set(scheduler="threads", num_workers=2):
        loss, grad = malis_dask.malis_loss(
            da.from_array(aff, chunks=(-1, 10, 10, 10)), da.from_array(seg, chunks=10), nhood, scratch=tmp_path
        )
        expected = malis.malis_loss(aff, seg, nhood)
        np.testing.assert_allclose(loss, expected.loss, rtol=1e-9)
        np.testing.assert_allclose(grad.compute(), expected.grad, rtol=1e-9)


def test_what_is_handed_on_is_the_surface(cells):
    """Objects that lie within a part of the volume are not handed on, nor is background."""
    from malis.malis_dask import _counts
    from malis.malis_dask._chunks import ChunkGrid

    aff, seg, nhood = cells
    nhood, aff = nhood[:3], aff[:3]
    counting = _counts.Counting(ChunkGrid(((28,), (29,), (30, 1))), nhood, _counts.Pass(True, True, True))
    far = np.where(np.isin(seg, np.unique(seg[..., -1])), 0, seg)
    objects = np.where(far == 0, _counts.NOTHING, far)
    forest, counted = counting.chunk((0, 0, 0), aff, objects, None)
    assert len(counted.edge) > 10000
    assert len(forest.open.edge) + len(forest.entries.node) < 3 * len(forest.voxels) == 3 * 28 * 29


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"aff": np.zeros((3, 4, 4))}, "aff must have one channel for each of the 2 offsets"),
        ({"aff": np.full((2, 4, 4), np.nan)}, "aff must not contain NaN"),
        ({"seg": np.full((4, 4), -2)}, "seg must hold labels of at least 0, got -2"),
        ({"seg": np.ones((4, 5), int)}, "seg must have shape"),
        ({"seg": np.full((4, 4), 2**63, np.uint64)}, "seg must hold labels below 2[*][*]63"),
        ({"edge_mask": np.ones((2, 4, 5), bool)}, "edge_mask must have shape"),
        ({"unlabelled_mask": np.ones((4, 4), int)}, "unlabelled_mask must have dtype bool"),
        ({"ignore_label": 0.5}, "ignore_label must be an integer"),
        ({"margin": 3}, "unexpected keyword argument 'margin'"),
    ],
)
def test_what_is_refused(tmp_path, change, message):
    values = {"aff": np.zeros((2, 4, 4)), "seg": np.ones((4, 4), int), **change}
    values = {name: da.from_array(v, chunks=2) if isinstance(v, np.ndarray) else v for name, v in values.items()}
    with pytest.raises((ValueError, TypeError), match=message):
        malis_dask.pairs(nhood=malis.mknhood2d(1), scratch=tmp_path, **values)


def test_losses_that_are_not_finite(tmp_path):
    aff = np.array([[0, 1.5, np.inf]])
    args = (da.from_array(aff, chunks=2), da.from_array(np.array([1, 1, 2]), chunks=2), [[-1]])
    with pytest.raises(ValueError, match="aff must hold values from 0 to 1, got values from"):
        malis_dask.malis_loss(*args, pointwise="cross_entropy", scratch=tmp_path / "a")
    with pytest.raises(ValueError, match="aff must hold affinities of a finite loss"):
        malis_dask.malis_loss(*args, scratch=tmp_path / "b")
