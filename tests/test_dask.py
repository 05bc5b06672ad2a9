"""Chunked volumes: for every chunking the results are those of the functions in memory."""

from __future__ import annotations

import doctest
import importlib
import os
import random
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import malis
from malis import metrics
from strategies import Problem, problems

dask = pytest.importorskip("dask")
da = pytest.importorskip("dask.array")
malis_dask = pytest.importorskip("malis.malis_dask")


@pytest.fixture(autouse=True)
def _in_this_thread():
    with dask.config.set(scheduler="sync"):
        yield


def cuts(length: int) -> st.SearchStrategy[tuple[int, ...]]:
    """Chunks of any lengths along one axis."""
    return st.sets(st.integers(1, max(1, length - 1))).map(
        lambda at: tuple(np.diff([0, *sorted(i for i in at if i < length), length]).tolist())
    )


def chunkings(shape: tuple[int, ...]) -> st.SearchStrategy[tuple[tuple[int, ...], ...]]:
    return st.tuples(*map(cuts, shape))


@st.composite
def chunked_problems(draw, **options) -> tuple[Problem, tuple[tuple[int, ...], ...]]:
    problem = draw(problems(max_voxels=40, **options))
    return problem, draw(chunkings(problem.seg.shape))


def chunked(array: np.ndarray, chunks: tuple[tuple[int, ...], ...]):
    leading = tuple((1,) * n for n in array.shape[: array.ndim - len(chunks)])
    return da.from_array(array, chunks=(*leading, *chunks))


def assert_same_segmentation(found, expected) -> None:
    seg, sizes = found
    assert seg.dtype == np.uint64 and sizes.dtype == np.int64
    np.testing.assert_array_equal(seg.compute(), expected[0])
    np.testing.assert_array_equal(sizes, expected[1])


@given(chunked_problems(), st.sampled_from([None, -1.0, 0.25, 0.5, 0.75, 2.0]), st.integers(0, 6))
def test_components_have_the_labels_of_those_in_memory(drawn, threshold, min_size):
    problem, chunks = drawn
    options = {"threshold": threshold, "min_size": min_size}
    found = malis_dask.affgraph_to_seg(chunked(problem.aff, chunks), problem.nhood, **options)
    assert found[0].chunks == chunks
    assert_same_segmentation(found, malis.affgraph_to_seg(problem.aff, problem.nhood, **options))


@given(chunked_problems(bounded=True), st.sampled_from(["u1", "f2", "f4", "?", "i4"]), st.data())
def test_affinities_of_any_dtype(drawn, dtype, data):
    problem, chunks = drawn
    aff = (problem.aff * 255 if dtype == "u1" else problem.aff).astype(dtype)
    # 0.7 has no exact form in any of them: both sides have to round it alike.
    threshold = data.draw(st.sampled_from([0.5, 0.7, 128 / 255, 191 / 255]))
    found = malis_dask.affgraph_to_seg(chunked(aff, chunks), problem.nhood, threshold=threshold)
    assert_same_segmentation(found, malis.affgraph_to_seg(aff, problem.nhood, threshold=threshold))


@pytest.mark.parametrize("chunks", [(16, 16, 16), (7, 20, 9), (3, 32, 32)])
def test_a_volume_of_cells(chunks, rng):
    nhood = np.concatenate([malis.mknhood3d(1), [[-9, 0, 0], [0, 5, -12]]])
    centres = rng.random((30, 3)) * 32
    voxels = np.stack(np.meshgrid(*[np.arange(32)] * 3, indexing="ij"), -1)
    cells = ((voxels[..., None, :] - centres) ** 2).sum(-1).argmin(-1) + 1
    aff = malis.seg_to_affgraph(cells, nhood) * 0.6 + rng.random((len(nhood), 32, 32, 32)) * 0.4
    aff = aff.astype(np.float32)
    expected = malis.affgraph_to_seg(aff, nhood, threshold=0.8, min_size=20)
    found = malis_dask.affgraph_to_seg(da.from_array(aff, chunks=(-1, *chunks)), nhood, threshold=0.8, min_size=20)
    assert len(expected[1]) > 10
    assert_same_segmentation(found, expected)


@pytest.mark.slow
@given(chunked_problems(), st.integers(1, 40))
def test_the_spanning_tree_has_the_edges_of_that_in_memory(tmp_path_factory, drawn, chunk_edges):
    problem, chunks = drawn
    expected = malis.maximum_spanning_tree(problem.aff, problem.nhood)
    folder = tmp_path_factory.mktemp("scratch")
    for _ in range(2):  # the second time from what the first has left
        tree = malis_dask.maximum_spanning_tree(
            chunked(problem.aff, chunks), problem.nhood, scratch=folder, chunk_edges=chunk_edges
        )
        assert tree.shape == expected.shape
        for name in ("edges", "affinities", "node1", "node2"):
            assert getattr(tree, name).dtype == getattr(expected, name).dtype
            np.testing.assert_array_equal(getattr(tree, name).compute(), getattr(expected, name))


@pytest.mark.slow
@given(chunked_problems(), st.data(), st.integers(1, 40), st.integers(0, 5))
def test_segmentations_from_the_tree(tmp_path_factory, drawn, data, chunk_edges, min_size):
    problem, chunks = drawn
    levels = data.draw(st.lists(st.sampled_from([-np.inf, 0.0, 0.3, 0.5, 1.0, np.inf]), max_size=3))
    expected = malis.segment_tree(malis.maximum_spanning_tree(problem.aff, problem.nhood), levels, min_size=min_size)
    tree = malis_dask.maximum_spanning_tree(
        chunked(problem.aff, chunks),
        problem.nhood,
        scratch=tmp_path_factory.mktemp("tree"),
        chunk_edges=chunk_edges,
    )
    other = data.draw(chunkings(problem.seg.shape))
    found = malis_dask.segment_tree(
        tree, levels, scratch=tmp_path_factory.mktemp("edges"), chunks=other, min_size=min_size
    )
    assert len(found) == len(expected)
    for one, of_memory in zip(found, expected, strict=True):
        assert one[0].chunks == other
        assert_same_segmentation(one, of_memory)


def test_trees_that_are_none(tmp_path):
    tree = malis.maximum_spanning_tree([[0, 0.9, 0.2]], [[-1]])
    for change, message in (
        ({"node2": np.array([0, 3])}, "tree must join voxels 0 to 2, got 0 to 3"),
        ({"node1": np.array([1])}, "tree.node1 must have one axis, of the length of tree.affinities"),
        ({"affinities": np.array([0.5, np.nan])}, "tree.affinities must not contain NaN"),
    ):
        with pytest.raises(ValueError, match=message):
            malis_dask.segment_tree(tree._replace(**change), [0.5], scratch=tmp_path, chunks=2)
    with pytest.raises(ValueError, match="thresholds must be a sequence of numbers"):
        malis_dask.segment_tree(tree, 0.5, scratch=tmp_path)
    with pytest.raises(TypeError, match="tree must be a SpanningTree"):
        malis_dask.segment_tree(tuple(tree), [0.5], scratch=tmp_path)


@given(
    chunked_problems(),
    st.data(),
    st.integers(0, 4),
    st.sampled_from(["u1", "i4", "u8", "f4", "?"]),
    st.sampled_from([-np.inf, 0.0, 0.3, 0.5, 0.7, 1.0]),
)
def test_the_watershed_has_the_labels_of_that_in_memory(drawn, data, min_size, dtype, threshold):
    problem, chunks = drawn
    few = data.draw(st.integers(1, 3))
    seeds = np.where(np.arange(problem.seg.size).reshape(problem.seg.shape) % few == 0, problem.seg, 0).astype(dtype)
    other = data.draw(chunkings(seeds.shape))
    seg, sizes = malis_dask.watershed_from_affgraph(
        chunked(problem.aff, chunks), chunked(seeds, other), problem.nhood, min_size=min_size, threshold=threshold
    )
    expected, expected_sizes = malis.watershed_from_affgraph(
        problem.aff, seeds, problem.nhood, min_size=min_size, threshold=threshold
    )
    assert seg.chunks == chunks and seg.dtype == expected.dtype
    np.testing.assert_array_equal(seg.compute(), expected)
    np.testing.assert_array_equal(sizes, expected_sizes)


@given(chunked_problems(), st.integers(0, 4), st.sampled_from([-np.inf, 0.0, 0.3, 0.5, 0.7, 1.0, 2.0]))
def test_basins_are_those_in_memory(drawn, min_size, threshold):
    problem, chunks = drawn
    found = malis_dask.watershed_basins(
        chunked(problem.aff, chunks), problem.nhood, min_size=min_size, threshold=threshold
    )
    assert found[0].chunks == chunks
    expected = malis.watershed_basins(problem.aff, problem.nhood, min_size=min_size, threshold=threshold)
    assert_same_segmentation(found, expected)


@pytest.mark.parametrize("dtype", ["u1", "f2", "f4", "f8"])
@pytest.mark.parametrize("levels", [3, 255])  # many plateaus, and few
def test_basins_of_a_volume_in_many_chunks(rng, dtype, levels):
    nhood = np.concatenate([malis.mknhood3d(1), [[-9, 0, 0], [0, 5, -12]]])
    values = rng.integers(0, levels, (len(nhood), 20, 21, 22))
    aff = values.astype(dtype) if dtype == "u1" else (values / levels).astype(dtype)
    found = malis_dask.watershed_basins(da.from_array(aff, chunks=(-1, 7, 6, 11)), nhood)
    assert_same_segmentation(found, malis.watershed_basins(aff, nhood))


@pytest.mark.parametrize("dtype", ["u1", "f4"])
def test_trees_of_a_volume_in_many_chunks(tmp_path, rng, dtype):
    nhood = np.concatenate([malis.mknhood3d(1), [[-9, 0, 0], [0, 5, -12]]])
    aff = (rng.random((len(nhood), 30, 31, 32)) * 255).astype(dtype)
    seeds = np.where(rng.random((30, 31, 32)) < 0.01, rng.integers(1, 50, (30, 31, 32)), 0)
    whole = da.from_array(aff, chunks=(-1, 10, 7, 16))
    tree = malis_dask.maximum_spanning_tree(whole, nhood, scratch=tmp_path, chunk_edges=1000)
    expected = malis.maximum_spanning_tree(aff, nhood)
    assert len(tree.edges.chunks[0]) > 20
    np.testing.assert_array_equal(tree.edges.compute(), expected.edges)
    np.testing.assert_array_equal(tree.affinities.compute(), expected.affinities)
    seg, sizes = malis_dask.watershed_from_affgraph(whole, da.from_array(seeds, chunks=20), nhood)
    flooded = malis.watershed_from_affgraph(aff, seeds, nhood)
    np.testing.assert_array_equal(seg.compute(), flooded[0])
    np.testing.assert_array_equal(sizes, flooded[1])
    objects, _ = malis_dask.affgraph_to_seg(whole, nhood, threshold=0.9 * aff.max() / (255 if dtype == "u1" else 1))
    low = 0.7 * aff.max() / (255 if dtype == "u1" else 1)
    grown, _ = malis_dask.watershed_from_affgraph(whole, objects, nhood, threshold=low)
    expected = malis.watershed_from_affgraph(aff, objects.compute(), nhood, threshold=low)[0]
    assert 0 < np.count_nonzero(expected == 0) < expected.size
    np.testing.assert_array_equal(grown.compute(), expected)


@given(chunked_problems(), st.booleans())
def test_connected_labels(drawn, nearest):
    problem, chunks = drawn
    nhood = None if nearest else problem.nhood
    found = malis_dask.connect_labels(chunked(problem.seg, chunks), nhood)
    assert found.chunks == chunks and found.dtype == np.uint64
    np.testing.assert_array_equal(found.compute(), malis.connect_labels(problem.seg, nhood))


def test_more_parts_than_the_dtype_has_numbers_for():
    seg = np.arange(1000, dtype=np.uint8) % 2
    found = malis_dask.connect_labels(da.from_array(seg, chunks=700)).compute()
    np.testing.assert_array_equal(found, malis.connect_labels(seg.astype(np.int64)))


@given(chunked_problems())
def test_affinity_graph_of_labels(drawn):
    problem, chunks = drawn
    found = malis_dask.seg_to_affgraph(chunked(problem.seg, chunks), problem.nhood)
    assert found.chunks == ((len(problem.nhood),), *chunks) and found.dtype == np.int32
    np.testing.assert_array_equal(found.compute(), malis.seg_to_affgraph(problem.seg, problem.nhood))


@given(chunked_problems(min_label=-1), st.data(), st.sampled_from([None, -1, 2]))
def test_scores_from_the_table_of_chunks(drawn, data, ignore_label):
    problem, chunks = drawn
    true, pred = problem.seg, np.roll(problem.seg, 1).clip(0)
    if ignore_label != -1:
        true = true.clip(0)
    other = data.draw(chunkings(true.shape))
    table = malis_dask.contingency_table(chunked(true, chunks), chunked(pred, other), ignore_label=ignore_label)
    expected = metrics.contingency_table(true, pred, ignore_label=ignore_label)
    for part in ("true_labels", "pred_labels", "true_index", "pred_index", "counts"):
        np.testing.assert_array_equal(getattr(table, part), getattr(expected, part))
    np.testing.assert_equal(metrics.evaluate(table=table, min_size=1), metrics.evaluate(table=expected, min_size=1))


def test_arrays_that_dask_makes_chunks_of(tmp_path):
    zarr = pytest.importorskip("zarr")
    aff = np.random.default_rng(0).random((2, 9, 9), dtype=np.float32)
    stored = zarr.create_array(str(tmp_path / "aff.zarr"), shape=aff.shape, dtype=aff.dtype, chunks=(1, 4, 5))
    stored[:] = aff
    nhood = malis.mknhood2d(1)
    for source in (aff, stored):
        found = malis_dask.affgraph_to_seg(source, nhood, threshold=0.5)
        assert_same_segmentation(found, malis.affgraph_to_seg(aff, nhood, threshold=0.5))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"aff": np.zeros((3, 4, 4))}, "aff must have one channel for each of the 2 offsets"),
        ({"aff": np.zeros((2, 4, 4, 4))}, "aff must have 3 axes"),
        ({"aff": np.zeros((2, 0, 4))}, "aff must not be empty"),
        ({"aff": np.zeros((2, 4, 4), complex)}, "aff must have dtype"),
        ({"aff": np.full((2, 4, 4), np.nan)}, "aff must not contain NaN"),
        ({"threshold": np.nan}, "threshold must be a number"),
        ({"min_size": -1}, "min_size must be an integer of at least 0"),
        ({"min_size": 2, "size_thresh": 1}, "size_thresh must not be given beside min_size"),
        ({"num_threads": 0}, "num_threads must be an integer of at least 1"),
    ],
)
def test_what_is_refused(change, message):
    arguments = {"aff": np.zeros((2, 4, 4)), "nhood": malis.mknhood2d(1), **change}
    arguments["aff"] = da.from_array(arguments["aff"], chunks=2)
    with pytest.raises((ValueError, TypeError), match=message):
        malis_dask.affgraph_to_seg(**arguments)


def test_what_is_refused_of_labels():
    seg = da.from_array(np.array([[1, 2], [3, -4]]), chunks=1)
    with pytest.raises(ValueError, match="seg must have 3 axes"):
        malis_dask.connect_labels(seg, malis.mknhood3d(1))
    with pytest.raises(ValueError, match="seg must hold labels of at least 0, got -4"):
        malis_dask.connect_labels(seg)
    with pytest.raises(ValueError, match="seg must hold labels of at least 0, got -4"):
        malis_dask.seg_to_affgraph(seg, malis.mknhood2d(1)).compute()
    with pytest.raises(ValueError, match="seg_pred must have the shape of seg_true"):
        malis_dask.contingency_table(seg, seg[:1])
    aff = da.zeros((2, 2, 2), chunks=1)
    for labels, message in ((-1, "seeds must hold labels of at least 0"), (2**27 + 1, "at most 2[*][*]27")):
        with pytest.raises(ValueError, match=message):
            malis_dask.watershed_from_affgraph(aff, da.from_array(np.full((2, 2), labels)), malis.mknhood2d(1))
    with pytest.raises(ValueError, match="seeds must have shape"):
        malis_dask.watershed_from_affgraph(aff, da.zeros((2, 3), int), malis.mknhood2d(1))
    with pytest.raises(ValueError, match="known shape"):
        malis_dask.connect_labels(seg[seg > 1])


@given(chunked_problems())
@settings(max_examples=20)
def test_labels_of_chunks_kept_in_a_folder(tmp_path_factory, drawn):
    problem, chunks = drawn
    folder = tmp_path_factory.mktemp("scratch")
    aff = chunked(problem.aff, chunks)
    expected = malis.affgraph_to_seg(problem.aff, problem.nhood, threshold=0.5)
    for _ in range(2):
        found = malis_dask.affgraph_to_seg(aff, problem.nhood, threshold=0.5, scratch=folder)
        assert_same_segmentation(found, expected)
    parts = malis.connect_labels(problem.seg, problem.nhood)
    with pytest.raises(ValueError, match="scratch must be a folder of the same job"):
        malis_dask.connect_labels(chunked(problem.seg, chunks), problem.nhood, scratch=folder)
    folder = tmp_path_factory.mktemp("scratch")
    found = malis_dask.connect_labels(chunked(problem.seg, chunks), problem.nhood, scratch=folder)
    np.testing.assert_array_equal(found.compute(), parts)


def test_a_folder_of_something_else_is_left_alone(tmp_path):
    (tmp_path / "thesis.tex").write_text("")
    with pytest.raises(ValueError, match="scratch must be an empty folder"):
        malis_dask.affgraph_to_seg(da.zeros((1, 4)), [[-1]], scratch=tmp_path)


def test_chunks_that_are_finished_are_not_segmented_again(tmp_path, rng):
    aff = rng.random((1, 12), dtype=np.float32)
    read = []

    def reading(block, block_info=None):
        read.append(block_info[0]["chunk-location"][1])
        if len(read) == 3:
            raise KeyboardInterrupt
        return block

    source = da.from_array(aff, chunks=(1, 3))
    counted = source.map_blocks(reading, meta=np.empty((0, 0), np.float32))
    with pytest.raises(KeyboardInterrupt):
        malis_dask.affgraph_to_seg(counted, [[-1]], threshold=0.5, scratch=tmp_path)
    first = read.copy()
    found = malis_dask.affgraph_to_seg(counted, [[-1]], threshold=0.5, scratch=tmp_path)
    assert_same_segmentation(found, malis.affgraph_to_seg(aff, [[-1]], threshold=0.5))
    # The chunk that the interruption came in is read twice, every other one once.
    assert sorted(first + read[3:]) == sorted([0, 1, 2, 3, first[-1]])


KILLED = """
import sys
import dask
import dask.array as da
import numpy as np
from malis import malis_dask

aff = np.load(sys.argv[1])
with dask.config.set(scheduler="threads", num_workers=2):
    print("begun", flush=True)
    seg, sizes = malis_dask.affgraph_to_seg(
        da.from_array(aff, chunks=(-1, 4, 8, 8)), -np.eye(3, dtype=int), threshold=0.5, scratch=sys.argv[2]
    )
    np.savez(sys.argv[3], seg=seg.compute(), sizes=sizes)
"""


@pytest.mark.slow
def test_a_run_that_is_killed_goes_on(tmp_path, rng):
    aff = rng.random((3, 32, 32, 32), dtype=np.float32)
    np.save(tmp_path / "aff.npy", aff)
    arguments = [sys.executable, "-c", KILLED, *(str(tmp_path / name) for name in ("aff.npy", "scratch", "out.npz"))]
    moments = random.Random(0)
    kills = 0
    for _ in range(4):
        with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) as run:
            assert run.stdout is not None and run.stdout.readline() == "begun\n"
            time.sleep(moments.uniform(0, 0.5))
            run.send_signal(signal.SIGKILL)
            kills += run.wait() == -signal.SIGKILL
    assert kills > 0
    subprocess.run(arguments, check=True, capture_output=True)
    seg, sizes = malis.affgraph_to_seg(aff, -np.eye(3, dtype=int), threshold=0.5)
    with np.load(tmp_path / "out.npz") as found:
        np.testing.assert_array_equal(found["seg"], seg)
        np.testing.assert_array_equal(found["sizes"], sizes)


@pytest.mark.slow
def test_a_cluster_that_loses_a_worker(tmp_path, rng):
    distributed = pytest.importorskip("distributed")
    aff = rng.random((3, 40, 40, 40), dtype=np.float32)
    nhood = malis.mknhood3d(1)
    with (
        dask.config.set(scheduler=None),
        distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster,
        distributed.Client(cluster),
    ):
        dead = tmp_path / "dead"

        def die_once(block, block_info=None):
            if block_info[0]["chunk-location"] == (0, 2, 2, 2) and not dead.exists():
                dead.touch()
                os._exit(1)
            return block

        source = da.from_array(aff, chunks=(-1, 10, 10, 10)).map_blocks(die_once, meta=np.empty((0,) * 4, np.float32))
        seg, sizes = malis_dask.affgraph_to_seg(source, nhood, threshold=0.5)
        expected = malis.affgraph_to_seg(aff, nhood, threshold=0.5)
        np.testing.assert_array_equal(seg.compute(), expected[0])
        np.testing.assert_array_equal(sizes, expected[1])
        assert dead.exists()


@pytest.mark.parametrize(
    "name",
    ["affgraph", "basins", "curve", "labels", "loss", "scores", "segmentation", "tree", "tree_segments", "watershed"],
)
def test_examples_of_the_documentation(name):
    failed, tried = doctest.testmod(importlib.import_module(f"malis.malis_dask.{name}"), verbose=False)
    assert tried > 0
    assert failed == 0
