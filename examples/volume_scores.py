"""Three segmentations of predicted affinities, thresholds from a validation volume, scores, pictures, OME-Zarr."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage, sparse
from skimage.morphology import skeletonize

import malis
from malis import _io, metrics
from public_data import Volume
from scores import grown

Affinities = npt.NDArray[np.float32]  # (3, D, H, W), of the nearest neighbours
Labels = npt.NDArray[Any]  # (D, H, W)

NEAREST = malis.mknhood3d(1)
HIGH = (0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 0.999)
LOW = (0.02, 0.1, 0.3, 0.5, 0.7)
SCORES = ("VOI split", "VOI merge", "VOI", "adapted Rand error", "ERL", "object score")


# ---------------------------------------------------------------------------------------------------------------------
# Segmentations
# ---------------------------------------------------------------------------------------------------------------------


def by_threshold(aff: Affinities, min_size: int, high: float) -> Labels:
    """Segment into what edges of at least `high` connect; smaller components are background."""
    return malis.affgraph_to_seg(aff, NEAREST, min_size=min_size, threshold=high)[0]


def by_two_thresholds(aff: Affinities, min_size: int, high: float, low: float) -> Labels:
    """Let the components at `high` grow along edges of at least `low`, not into each other: ``segment --grow``."""
    return grown(aff, NEAREST, min_size, high, low)


def by_watershed(aff: Affinities, min_size: int, high: float) -> Labels:
    """Segment into the basins of the regional maxima; edges above `high` count as equal, so that a plateau is one."""
    return malis.watershed_basins(np.minimum(aff, np.float32(high)), NEAREST, min_size=min_size)[0]


@dataclass(frozen=True)
class Segmenter:
    """A way to segment, and the thresholds to choose from."""

    name: str
    segment: Callable[..., Labels]
    thresholds: tuple[tuple[float, ...], ...]


SEGMENTERS = (
    Segmenter("threshold", by_threshold, tuple((high,) for high in HIGH)),
    Segmenter("two thresholds", by_two_thresholds, tuple((h, l_) for h, l_ in itertools.product(HIGH, LOW) if l_ < h)),
    Segmenter("watershed", by_watershed, tuple((high,) for high in HIGH)),
)


def choose(segmenter: Segmenter, aff: Affinities, truth: Labels, min_size: int) -> tuple[tuple[float, ...], float]:
    """Return the thresholds with the lowest variation of information, and that."""
    found = [
        sum(metrics.variation_of_information(truth, segmenter.segment(aff, min_size, *thresholds)))
        for thresholds in segmenter.thresholds
    ]
    best = int(np.argmin(found))
    return segmenter.thresholds[best], float(found[best])


# ---------------------------------------------------------------------------------------------------------------------
# Scores
# ---------------------------------------------------------------------------------------------------------------------


def large_objects(labels: Labels, min_size: int) -> Labels:
    """Return labels in which objects of fewer voxels are background, where the scores of pairs say nothing."""
    return np.where(np.bincount(labels.ravel())[labels] >= min_size, labels, 0)


def skeletons_of(labels: Labels, voxel_size: tuple[float, ...], min_size: int) -> metrics.Skeletons:
    """Thin every object of at least `min_size` voxels to a tree of voxels (Lee et al. 1994, of scikit-image)."""
    nodes, edges, ids = [], [], []
    n_nodes = 0
    for number, box in _objects(labels):
        inside = labels[box] == number
        if inside.sum() < min_size:
            continue
        # Thinning needs background around the object, also where it leaves the volume.
        voxels = np.argwhere(skeletonize(np.pad(inside, 1))) - 1
        if len(voxels) == 0:
            continue
        nodes.append(voxels + [s.start for s in box])
        edges.append(n_nodes + _tree(voxels, voxel_size))
        ids.append(np.full(len(voxels), number))
        n_nodes += len(voxels)
    if not nodes:
        raise ValueError(f"labels must hold an object of at least {min_size} voxels to make skeletons of")
    return metrics.Skeletons(
        np.concatenate(nodes), np.concatenate(edges), np.concatenate(ids).astype(np.int64), voxel_size=voxel_size
    )


def _objects(labels: Labels) -> Iterator[tuple[int, tuple[slice, ...]]]:
    for number, box in enumerate(ndimage.find_objects(labels), start=1):
        if box is not None:
            yield number, box


def _tree(voxels: npt.NDArray[np.int64], voxel_size: tuple[float, ...]) -> npt.NDArray[np.int64]:
    """Join voxels that touch to a tree: three at a corner all touch each other, and would count some way twice."""
    from scipy.spatial import cKDTree

    pairs = cKDTree(voxels).query_pairs(1.8, output_type="ndarray")
    steps = (voxels[pairs[:, 0]] - voxels[pairs[:, 1]]) * np.asarray(voxel_size)
    graph = sparse.coo_matrix((np.sqrt((steps**2).sum(1)), tuple(pairs.T)), (len(voxels), len(voxels)))
    tree = sparse.csgraph.minimum_spanning_tree(graph).tocoo()
    return np.stack([tree.row, tree.col], axis=1).astype(np.int64)


def scores_of(truth: Labels, seg: Labels, skeletons: metrics.Skeletons, min_size: int) -> dict[str, float]:
    """Return every score; lengths in the unit of the voxel size."""
    table = metrics.contingency_table(truth, seg)
    split, merge = metrics.variation_of_information(table=table)
    values = (
        split,
        merge,
        split + merge,
        metrics.adapted_rand_error(table=table),
        metrics.skeleton_scores(skeletons, seg).erl,
        metrics.object_score(table=table, min_size=min_size),
    )
    return dict(zip(SCORES, map(float, values), strict=True))


def table(rows: Mapping[str, Mapping[str, float]]) -> str:
    """Format scores, a row for each segmentation."""
    cells = [("segmentation", *SCORES)]
    cells += [
        (name, *(f"{s[score]:.3f}" if score != "ERL" else f"{s[score]:.1f}" for score in SCORES))
        for name, s in rows.items()
    ]
    widths = [max(len(row[c]) for row in cells) for c in range(len(cells[0]))]
    lines = ["  ".join(cell.rjust(w) for cell, w in zip(row, widths, strict=True)) for row in cells]
    return "\n".join([lines[0], "-" * len(lines[0]), *lines[1:]])


# ---------------------------------------------------------------------------------------------------------------------
# Pictures and files
# ---------------------------------------------------------------------------------------------------------------------


def draw(
    folder: Path,
    test: Volume,
    aff: Affinities,
    segmentations: Mapping[str, Labels],
    best: str,
    voxel_size: tuple[float, ...],
    unit: str | None,
) -> list[Path]:
    """Save a section along each axis with affinities, the best segmentation and its errors; and a comparison of all."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    from malis import plot

    files = [folder / "sections.png"]
    extent = np.array(test.image.shape) * voxel_size
    heights = [extent[1] / extent[2], extent[0] / extent[2], extent[0] / extent[1]]
    figure, axes = plt.subplots(
        3,
        5,
        figsize=(16, 3.3 * sum(heights) + 2.2),
        layout="constrained",
        gridspec_kw={"height_ratios": [h + 0.2 for h in heights]},
    )
    for axis, row in zip("zyx", axes, strict=True):
        options: dict[str, Any] = {"axis": axis, "voxel_size": voxel_size, "unit": unit}
        plot.labels(np.zeros(test.image.shape, np.uint8), row[0], image=test.image, **options)
        row[0].set_title(f"image, across {axis}", fontsize="medium")
        plot.labels(test.labels, row[1], image=test.image, **options).set_title("ground truth", fontsize="medium")
        plot.affinities(aff, NEAREST, row[2], **options).set_title("affinities", fontsize="medium")
        plot.labels(segmentations[best], row[3], image=test.image, **options).set_title(best, fontsize="medium")
        plot.errors(test.labels, segmentations[best], row[4], image=test.image, **options)
        row[4].set_title("errors", fontsize="medium")
    figure.savefig(files[0], dpi=80, bbox_inches="tight")
    plt.close(figure)
    for axis in "zyx":
        files.append(folder / f"comparison-{axis}.png")
        figure = plot.comparison(
            test.labels, segmentations, image=test.image, axis=axis, voxel_size=voxel_size, unit=unit
        )
        figure.savefig(files[-1], dpi=80, bbox_inches="tight")
        plt.close(figure)
    return files


def write_ome_zarr(
    store: Path, test: Volume, segmentations: Mapping[str, Labels], voxel_size: tuple[float, ...], unit: str | None
) -> None:
    """Write the image as OME-Zarr, with the truth and the segmentations as its labels: ``napari STORE`` shows all."""
    from malis._io import ngff
    from malis._io.errors import library

    zarr = library("zarr")

    grid = _io.Grid(voxel_size, None, "nanometer" if unit == "nm" else None)
    low, high = np.percentile(test.image, (0.1, 99.9))
    grey = np.clip((test.image - low) / max(high - low, 1e-6) * 255, 0, 255).astype(np.uint8)
    metadata = ngff.label_metadata([(1, 1, 1)], grid, "0.5", "image", None)["multiscales"]
    metadata[0].pop("type")  # says how coarser scales were made, and there is none
    root = zarr.open_group(
        str(store), mode="w", zarr_format=3, attributes=ngff.with_metadata({}, "0.5", {"multiscales": metadata})
    )
    root.create_array("s0", data=grey, chunks=tuple(min(128, n) for n in grey.shape), dimension_names=list("zyx"))
    for name, seg in {"ground truth": test.labels, **segmentations}.items():
        place = f"{store}/labels/{name.replace(' ', '_')}"
        _io.write_labels(place, np.ascontiguousarray(seg), {"version": malis.__version__}, force=True, grid=grid)
