"""Tables and figures of benchmark_losses.py, from the lines of its log."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from data import Data
from malis.plot import label_colours
from resampling import Gain, gain

Run = dict[str, Any]


class Measure(NamedTuple):
    """A number of every test image of a run."""

    name: str
    of_run: Callable[[Run], list[float]]
    better: int  # 1: larger is better, -1: smaller


def _vi(image: dict[str, float]) -> float:
    return image["VI split"] + image["VI merge"]


def chosen(run: Run) -> list[dict[str, float]]:
    """Return the scores under the segmentation, plain or grown, that was better on the validation images."""
    scores: list[dict[str, float]] = run["grown" if run["grown validation"] > run["validation"] else "scores"]
    return scores


def validated(run: Run) -> float:
    """Return the object score of the validation images under that segmentation."""
    return float(max(run["grown validation"], run["validation"]))


MEASURES = (
    Measure("object score", lambda run: [image["object score"] for image in run["scores"]], 1),
    Measure("Rand F-score", lambda run: [image["Rand F-score"] for image in run["scores"]], 1),
    Measure("VOI", lambda run: [_vi(image) for image in run["scores"]], -1),
    Measure("area, object score", lambda run: run["areas"]["object score"], 1),
    Measure("area, Rand F-score", lambda run: run["areas"]["Rand F-score"], 1),
    Measure("object score, chosen", lambda run: [image["object score"] for image in chosen(run)], 1),
    Measure("Rand F-score, chosen", lambda run: [image["Rand F-score"] for image in chosen(run)], 1),
    Measure("VOI, chosen", lambda run: [_vi(image) for image in chosen(run)], -1),
)
FATES = ("found", "sharing a match", "unmatched", "outline off", "spurious predictions")


def of_method(runs: Sequence[Run], data: str, method: str) -> dict[int, Run]:
    """Return the runs of a method on a data set by seed."""
    return {run["seed"]: run for run in runs if run["data"] == data and run["method"] == method}


def methods_of(runs: Sequence[Run]) -> list[str]:
    """Return the methods that there are runs of, in their order."""
    return list(dict.fromkeys(run["method"] for run in runs))


def gain_of(runs: Sequence[Run], data: str, method: str, baseline: str, measure: Measure) -> Gain | None:
    """Return what a method gains over another one, larger is better, from the seeds that both have run."""
    mine, theirs = of_method(runs, data, method), of_method(runs, data, baseline)
    pairs = [
        (seed, image, measure.better * (a - b))
        for seed in sorted(set(mine) & set(theirs))
        for image, a, b in zip(
            mine[seed]["tested"], measure.of_run(mine[seed]), measure.of_run(theirs[seed]), strict=True
        )
    ]
    return gain(*(list(part) for part in zip(*pairs, strict=True))) if pairs else None


# ---------------------------------------------------------------------------------------------------------------------
# Tables
# ---------------------------------------------------------------------------------------------------------------------


def markdown(rows: Sequence[Sequence[str]]) -> str:
    """Format rows as a Markdown table; the first one is the head."""
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join([lines[0], "|---" + "|---:" * (len(rows[0]) - 1) + "|", *lines[1:]])


def mean_of(runs: Sequence[Run], data: str, method: str, measure: Measure) -> float:
    """Return the mean over seeds and images."""
    values = [value for run in of_method(runs, data, method).values() for value in measure.of_run(run)]
    return float(np.mean(values)) if values else float("nan")


def with_interval(result: Gain | None) -> str:
    """Format a gain; bold where its interval leaves out 0."""
    if result is None:
        return ""
    low, high = result.interval
    text = f"{result.mean:+.3f} ({low:+.3f} to {high:+.3f})"
    return f"**{text}**" if low > 0 or high < 0 else text


def tables(runs: Sequence[Run], data: str, baseline: str) -> str:
    """Return the scores, the gains, the fates of objects and the cost of a data set in Markdown."""
    names = [name for name in methods_of(runs) if of_method(runs, data, name)]
    scores: list[tuple[str, ...]] = [("method", "seeds", *(measure.name for measure in MEASURES))]
    gains: list[tuple[str, ...]] = [
        (f"gain over {baseline}", *(measure.name for measure in MEASURES), "effect size, object score")
    ]
    cost: list[tuple[str, ...]] = [("method", "ms per step", "of these in the loss", *FATES)]
    for name in names:
        mine = of_method(runs, data, name)
        means = [f"{mean_of(runs, data, name, measure):.3f}" for measure in MEASURES]
        scores.append((name, str(len(mine)), *means))
        seconds, in_malis = (
            1e3 * float(np.median([r[k] for r in mine.values()])) for k in ("seconds per step", "seconds in MALIS")
        )
        fates = np.mean([np.sum(run["fates"], axis=0) for run in mine.values()], axis=0)
        cost.append((name, f"{seconds:.0f}", f"{in_malis:.1f}", *(f"{count:.1f}" for count in fates)))
        if name != baseline:
            results = [gain_of(runs, data, name, baseline, measure) for measure in MEASURES]
            first = results[0]
            effect = (
                ""
                if first is None
                else f"{first.effect:+.2f} ({first.effect_interval[0]:+.2f} to {first.effect_interval[1]:+.2f})"
            )
            gains.append((name, *(with_interval(result) for result in results), effect))
    return f"### {data}\n\n" + "\n\n".join(markdown(rows) for rows in (scores, gains, cost))


def summary(runs: Sequence[Run], sets: Sequence[str], baseline: str) -> str:
    """Return the gain of every method over the baseline on every data set, one table for each measure."""
    parts = []
    for measure in MEASURES:
        others = [name for name in methods_of(runs) if name != baseline]
        rows = [(measure.name, baseline, *others)]
        for data in sets:
            gains = [with_interval(gain_of(runs, data, name, baseline, measure)) for name in others]
            rows.append((data, f"{mean_of(runs, data, baseline, measure):.3f}", *gains))
        parts.append(markdown(rows))
    return "\n\n".join(parts)


def leave_one_out(runs: Sequence[Run], sets: Sequence[str]) -> str:
    """Choose a method by the validation images of all other sets, and compare it with one chosen on the set itself."""
    names = [name for name in methods_of(runs) if all(of_method(runs, data, name) for data in sets)]
    if len(names) < 2 or len(sets) < 2:
        return ""
    on_validation = {
        (data, name): float(np.mean([validated(run) for run in of_method(runs, data, name).values()]))
        for data in sets
        for name in names
    }
    measure = next(m for m in MEASURES if m.name == "object score, chosen")
    rows = [("set", "chosen on the others", "object score", "chosen on this set", "object score", "lost")]
    for data in sets:
        others = [other for other in sets if other != data]
        general = max(names, key=lambda name: sum(on_validation[other, name] for other in others))
        tuned = max(names, key=lambda name: on_validation[data, name])
        a, b = (mean_of(runs, data, name, measure) for name in (general, tuned))
        rows.append((data, general, f"{a:.3f}", tuned, f"{b:.3f}", f"{b - a:+.3f}"))
    return markdown(rows)


# ---------------------------------------------------------------------------------------------------------------------
# Figures
# ---------------------------------------------------------------------------------------------------------------------


def draw_gains(file: Path, runs: Sequence[Run], sets: Sequence[str], baseline: str) -> None:
    """Save a figure of what every method gains over the baseline on every set, with intervals."""
    import matplotlib.pyplot as plt

    shown = [MEASURES[i] for i in (0, 1, 2, 3)]
    others = [name for name in methods_of(runs) if name != baseline]
    figure, axes = plt.subplots(
        1, len(shown), figsize=(12, 1.2 + 0.6 * len(sets)), sharey=True, layout="constrained", squeeze=False
    )
    for ax, measure in zip(axes[0], shown, strict=True):
        for number, name in enumerate(others):
            for row, data in enumerate(sets):
                result = gain_of(runs, data, name, baseline, measure)
                if result is not None:
                    at = row + 0.7 * (number + 0.5) / len(others) - 0.35
                    label = name if row == 0 else None
                    ax.plot(result.interval, (at, at), color=f"C{number}", linewidth=1.5)
                    ax.plot(result.mean, at, "o", color=f"C{number}", markersize=4, label=label)
        ax.axvline(0, color="black", linewidth=0.8)
        ax.set_title(measure.name + (", saved" if measure.better < 0 else ", gained"), fontsize=10)
        ax.grid(axis="x", alpha=0.3)
    axes[0, 0].set_yticks(range(len(sets)), sets)
    axes[0, 0].set_ylim(len(sets) - 0.5, -0.5)
    handles, names = axes[0, -1].get_legend_handles_labels()
    if handles:
        figure.legend(handles, names, loc="outside lower center", ncols=len(names), fontsize=8)
    figure.suptitle(f"against {baseline}: means over seeds and test images, intervals of 95 %", fontsize=11)
    figure.savefig(file, dpi=80)
    plt.close(figure)


def draw_segmentations(file: Path, data: Data, segmentations: dict[str, npt.NDArray[Any]]) -> None:
    """Save the first test image, its truth, and its segmentation by every method of seed 0."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(2, 3, figsize=(9, 6.4), layout="constrained")
    panels = list(axes.T.ravel())
    panels[0].imshow(data.test.images[0][0], cmap="gray")
    panels[0].set_title("image", fontsize=10)
    panels[1].imshow(label_colours(data.test.labels[0]), interpolation="nearest")
    panels[1].set_title("ground truth", fontsize=10)
    for ax, (name, seg) in zip(panels[2:], segmentations.items(), strict=False):
        ax.imshow(label_colours(seg), interpolation="nearest")
        ax.set_title(name, fontsize=10)
    for ax in panels:
        ax.set_axis_off()
    figure.suptitle(data.name, fontsize=11)
    figure.savefig(file, dpi=70)
    plt.close(figure)


def draw_curves(file: Path, runs: Sequence[Run], sets: Sequence[str]) -> None:
    """Save the object score of the validation images over the steps, in the mean over seeds."""
    import matplotlib.pyplot as plt

    columns = min(4, len(sets))
    rows = -(-len(sets) // columns)
    figure, axes = plt.subplots(
        rows, columns, figsize=(3.1 * columns, 2.6 * rows + 0.5), layout="constrained", squeeze=False
    )
    for ax in axes.ravel()[len(sets) :]:
        ax.set_axis_off()
    for ax, data in zip(axes.ravel(), sets, strict=False):
        for name in methods_of(runs):
            curves = [run["curve"] for run in of_method(runs, data, name).values()]
            if curves:
                steps, scores = np.moveaxis(np.array(curves), -1, 0)
                ax.plot(steps[0], scores.mean(0), marker="o", markersize=3, label=name)
        ax.set_title(data, fontsize=10)
        ax.grid(alpha=0.3)
    figure.supxlabel("steps", fontsize=9)
    figure.supylabel("object score of the validation images", fontsize=9)
    handles, names = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside upper center", ncols=min(3, len(names)), fontsize=8)
    figure.savefig(file, dpi=80)
    plt.close(figure)


def report(
    output: Path,
    sets: dict[str, list[Data]],
    runs: Sequence[Run],
    file_of: Callable[[str, str, int], Path],
    baseline: str,
) -> None:
    """Print and save the tables, save the figures; `file_of` tells where segmentations of a run are."""
    import matplotlib

    matplotlib.use("Agg")
    names = [name for name in sets if any(run["data"] == name for run in runs)]
    if not names:
        print("there is no run of these settings")
        return
    parts = [tables(runs, name, baseline) for name in names]
    parts += [
        "### All sets\n\n" + summary(runs, names, baseline),
        "### Chosen on the other sets\n\n" + leave_one_out(runs, names),
    ]
    text = "\n\n".join(parts)
    print(text)
    (output / "tables.md").write_text(text + "\n", encoding="utf-8")
    draw_gains(output / "gains.png", runs, names, baseline)
    draw_curves(output / "curves.png", runs, names)
    for name in names:
        segmentations = {}
        for method in methods_of(runs):
            of_seed_0 = of_method(runs, name, method).get(0)
            if of_seed_0 is not None and file_of(name, method, 0).exists():
                with np.load(file_of(name, method, 0)) as file:
                    score = of_seed_0["scores"][0]["object score"]
                    segmentations[f"{method}: {score:.2f}"] = file["arr_0"].astype(np.int64)
        draw_segmentations(output / f"segmentations-{name}.png", sets[name][0], segmentations)
    print(f"tables and figures saved to {output}")
