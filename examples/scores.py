"""Thresholds from validation images, scores of test images, the table and the figure."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

import malis
from data import Data, Image, Split
from malis import metrics
from tasks import MIN_SIZE, NHOOD, Probabilities, Task

THRESHOLDS = (*np.linspace(0.05, 0.95, 19).tolist(), 0.97, 0.98, 0.99, 0.995, 0.999)


def choose_threshold(
    affinities: list[npt.NDArray[np.float32]], split: Split, thresholds: Sequence[float] = THRESHOLDS
) -> tuple[float, float]:
    """Return the threshold with the best mean object score, and that score."""
    found = malis.find_threshold(affinities, split.labels, NHOOD, thresholds=thresholds, min_size=MIN_SIZE)
    return found.threshold, found.score


def grown(
    affinities: npt.NDArray[np.float32], nhood: npt.NDArray[np.int32], min_size: int, high: float, low: float
) -> npt.NDArray[Any]:
    """Let components at `high` grow along edges of at least `low`, not into each other, as ``malis segment --grow``."""
    return next(all_grown(affinities, nhood, min_size, [(high, low)]))


def all_grown(
    affinities: npt.NDArray[np.float32],
    nhood: npt.NDArray[np.int32],
    min_size: int,
    thresholds: Sequence[tuple[float, float]],
) -> Iterator[npt.NDArray[Any]]:
    """Yield what `grown` returns for every pair of thresholds; the objects of a high one are found once."""
    objects: dict[float, npt.NDArray[Any]] = {}
    for high, low in thresholds:
        if high not in objects:
            objects[high] = malis.affgraph_to_seg(affinities, nhood, min_size=min_size, threshold=high)[0]
        yield malis.watershed_from_affgraph(affinities, objects[high], nhood, min_size=0, threshold=low)[0]


def table(scores: list[metrics.Scores]) -> str:
    """Format the scores of every test image and their mean."""
    names = ("object score", "object recall", "Rand F-score", "Rand split", "Rand merge")
    rows = [("image", *names)]
    rows += [(str(i), *(f"{s:.3f}" for s in row)) for i, row in enumerate(scores)]
    rows.append(("mean", *(f"{s:.3f}" for s in np.mean(np.array(scores), axis=0))))
    widths = [max(len(r[c]) for r in rows) for c in range(len(rows[0]))]
    lines = ["  ".join(cell.rjust(w) for cell, w in zip(row, widths, strict=True)) for row in rows]
    return "\n".join([lines[0], "-" * len(lines[0]), *lines[1:-1], "-" * len(lines[0]), lines[-1]])


def save_figure(
    file: Path,
    title: str,
    test: Split,
    predictions: list[Probabilities],
    segmentations: list[npt.NDArray[Any]],
    scores: list[metrics.Scores],
    rows: int = 2,
) -> None:
    """Save image, ground truth, prediction and segmentation of the first test images."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    from malis.plot import label_colours

    rows = min(rows, len(test))
    figure, axes = plt.subplots(rows, 4, figsize=(12, 3.15 * rows), squeeze=False, layout="constrained")
    for row, ax in enumerate(axes):
        predicted = "affinities (weakest)" if predictions[row].shape[0] > 1 else "probability of an object"
        ax[0].imshow(test.images[row][0], cmap="gray")
        ax[1].imshow(label_colours(test.labels[row]), interpolation="nearest")
        # The first row and column have no edge along one axis: shown as the others are.
        ax[2].imshow(predictions[row].min(0), cmap="gray", vmin=0, vmax=1)
        ax[3].imshow(label_colours(segmentations[row]), interpolation="nearest")
        titles = ("image", "ground truth", predicted, f"segmentation: object score {scores[row].object_score:.2f}")
        for a, text in zip(ax, titles, strict=True):
            a.set_title(text, fontsize=10)
            a.set_axis_off()
    figure.suptitle(title, fontsize=11)
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, dpi=80)
    plt.close(figure)


def report(loss: str, data: Data, task: Task, predict: Callable[[Image], Probabilities], file: Path) -> dict[str, Any]:
    """Choose the threshold on the validation images, score the test images, print the table, save the figure."""
    threshold, best = choose_threshold([task.affinities(predict(i)) for i in data.validation.images], data.validation)
    print(f"threshold {threshold:.3f} (object score {best:.3f} on {len(data.validation)} validation images)")
    predictions = [predict(i) for i in data.test.images]
    segmentations = [task.segment(p, threshold) for p in predictions]
    scores = [
        metrics.evaluate(truth, seg, min_size=MIN_SIZE)
        for truth, seg in zip(data.test.labels, segmentations, strict=True)
    ]
    print(table(scores))
    mean = metrics.Scores(*np.mean(np.array(scores), axis=0).tolist())
    title = f"{data.name}, trained with {loss}: images the network never saw"
    save_figure(file, title, data.test, predictions, segmentations, scores)
    print(f"figure saved to {file}")
    return {"threshold": threshold, "scores": scores, "mean": mean}
