"""Compare losses: the same U-Net, from the same weights, on the same batches, for the same number of steps.

python examples/benchmark_losses.py --data synthetic isbi2012      # generated, folders, HDF5 files: hours
python examples/benchmark_losses.py --quick                        # a minute, to see that it works

Every finished run is a line of runs.jsonl in the folder of the output: a second call repeats no run of the same
settings, and more seeds or data sets may follow. The tables, the figures and the tests are made from that file.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.stats import wilcoxon

import malis
from data import Batches, Data, Labels, Split, load
from malis import metrics
from malis.plot import label_colours
from pytorch_example import Step, train
from scores import THRESHOLDS, choose_threshold, grown
from tasks import MIN_SIZE, NHOOD, Network, components, probabilities, task_of
from training import positive, training_parser


@dataclass(frozen=True)
class Method:
    """A loss with its schedule."""

    name: str
    loss: str
    from_scratch: bool = False

    def settings(self, args: argparse.Namespace) -> dict[str, Any]:
        """Return the options that decide the result: runs of other settings are other runs."""
        names = ["images", "validation", "test", "steps", "batch", "crop", "channels", "lr", "bfloat16"]
        names += ["mix", "margin"] if self.loss == "malis" else []
        names += ["warmup"] if self.loss == "malis" and not self.from_scratch else []
        return {name: getattr(args, name) for name in names}

    def options(self, args: argparse.Namespace, seed: int) -> argparse.Namespace:
        """Return the options of a training run."""
        return argparse.Namespace(
            **{**vars(args), "loss": self.loss, "seed": seed, "warmup": 0.0 if self.from_scratch else args.warmup}
        )


METHODS = (
    Method("cross entropy on the mask", "cross-entropy"),
    Method("BCE on affinities", "affinity-bce"),
    Method("MALIS from scratch", "malis", from_scratch=True),
    Method("MALIS after BCE", "malis"),
)
OURS = METHODS[-1].name
SCORES = {
    "object score": "higher",
    "object recall": "higher",
    "Rand F-score": "higher",
    "Rand split": "higher",
    "Rand merge": "higher",
    "VI split": "lower",
    "VI merge": "lower",
    "adapted Rand error": "lower",
}
TESTED = ("object score", "Rand F-score")
CURVE_POINTS = 5
QUICK = {"steps": 150, "seeds": 2, "images": 8, "crop": 64, "channels": 8, "lr": 1e-2}

# ---------------------------------------------------------------------------------------------------------------------
# Runs
# ---------------------------------------------------------------------------------------------------------------------


def grow(affinities: npt.NDArray[np.float32], thresholds: tuple[float, float]) -> npt.NDArray[Any]:
    """Find objects at a high threshold, then let them grow, not into each other, along edges of a low threshold."""
    return grown(affinities, NHOOD, MIN_SIZE, *thresholds)


GROWN = [(high, low) for high in (0.6, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99) for low in (0.3, 0.5, 0.7) if low < high]


def choose_grown(affinities: list[npt.NDArray[np.float32]], split: Split) -> tuple[tuple[float, float], float]:
    """Return the thresholds of `GROWN` with the best mean object score, the middle of equals, and that score."""
    images = list(zip(affinities, split.labels, strict=True))
    scores = np.array(
        [
            np.mean([metrics.object_score(truth, grow(aff, thresholds), min_size=MIN_SIZE) for aff, truth in images])
            for thresholds in GROWN
        ]
    )
    best = np.flatnonzero(scores >= scores.max() - 1e-12)
    chosen = best[len(best) // 2]
    return GROWN[chosen], float(scores[chosen])


def scores_of(truth: Labels, seg: npt.NDArray[Any]) -> dict[str, float]:
    """Return every score of an image."""
    table = metrics.contingency_table(truth, seg)
    vi = metrics.variation_of_information(table=table)
    values = (*metrics.evaluate(min_size=MIN_SIZE, table=table), *vi, metrics.adapted_rand_error(table=table))
    return dict(zip(SCORES, values, strict=True))


def run_one(args: argparse.Namespace, data: Data, method: Method, seed: int, file: Path) -> dict[str, Any]:
    """Train, choose the thresholds on the validation images, score the test images, save their segmentations."""
    task = task_of(method.loss)
    batches = Batches(data.train, args.batch, args.crop, seed)
    steps: list[Step] = []
    curve: list[tuple[int, float]] = []
    points = {max(1, round(args.steps * i / CURVE_POINTS)) for i in range(1, CURVE_POINTS + 1)}

    def after_step(step: Step, network: Network) -> None:
        steps.append(step)
        if step.number in points:
            predictions = [task.affinities(probabilities(network, image)) for image in data.validation.images]
            curve.append((step.number, choose_threshold(predictions, data.validation, THRESHOLDS[::3])[1]))

    channels = data.train.images[0].shape[0]
    options = method.options(args, seed)
    network = train(options, task, channels, batches, bfloat16=args.bfloat16, after_step=after_step)

    validation, test = (
        [task.affinities(probabilities(network, image)) for image in part.images]
        for part in (data.validation, data.test)
    )
    threshold, best = choose_threshold(validation, data.validation)
    thresholds, best_grown = choose_grown(validation, data.validation)
    segmentations = [components(affinities, threshold) for affinities in test]
    file.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(file, *[seg.astype(np.uint16) for seg in segmentations])
    in_malis = [step.seconds_in_malis for step in steps if step.seconds_in_malis > 0]
    return {
        "threshold": threshold,
        "validation": best,
        "scores": [scores_of(truth, seg) for truth, seg in zip(data.test.labels, segmentations, strict=True)],
        "grown thresholds": thresholds,
        "grown validation": best_grown,
        "grown": [scores_of(truth, grow(aff, thresholds)) for truth, aff in zip(data.test.labels, test, strict=True)],
        "curve": curve,
        "losses": [round(float(np.mean([step.loss for step in part])), 5) for part in _parts(steps)],
        "seconds per step": float(np.median([step.seconds for step in steps])),
        "seconds in MALIS": float(np.median(in_malis)) if in_malis else 0.0,
    }


def _parts(steps: list[Step]) -> list[list[Step]]:
    length = max(1, len(steps) // 20)
    return [steps[at : at + length] for at in range(0, len(steps), length)]


def finished(file: Path) -> list[dict[str, Any]]:
    """Return the runs of former calls; a last line that was cut off does not count."""
    runs = []
    for line in file.read_text(encoding="utf-8").splitlines() if file.exists() else []:
        try:
            runs.append(json.loads(line))
        except json.JSONDecodeError:
            print(f"skipped a broken line of {file}", file=sys.stderr)
    return runs


def run_all(args: argparse.Namespace, sets: list[Data]) -> list[dict[str, Any]]:
    """Return the runs of all data sets, seeds and methods; those that are missing are made."""
    log = args.output / "runs.jsonl"
    log.parent.mkdir(parents=True, exist_ok=True)
    settings = {method.name: method.settings(args) for method in METHODS}
    known = {
        (run["data"], run["method"], run["seed"]): run
        for run in finished(log)
        if run["settings"] == settings.get(run["method"])
    }
    wanted = [(seed, data, method) for seed in range(args.seeds) for data in sets for method in METHODS]
    runs = []
    for number, (seed, data, method) in enumerate(wanted, 1):
        key = (data.name, method.name, seed)
        if key not in known:
            print(f"run {number} of {len(wanted)}: {data.name}, {method.name}, seed {seed}")
            head = {"data": data.name, "method": method.name, "seed": seed, "settings": settings[method.name]}
            known[key] = {**head, **run_one(args, data, method, seed, segmentations_of(args.output, *key))}
            with log.open("a", encoding="utf-8") as file:
                file.write(json.dumps(known[key]) + "\n")
        runs.append(known[key])
    return runs


def segmentations_of(folder: Path, data: str, method: str, seed: int) -> Path:
    """Return where the segmentations of the test images of a run are kept."""
    return folder / "segmentations" / f"{data}-{method.replace(' ', '-')}-{seed}.npz"


# ---------------------------------------------------------------------------------------------------------------------
# Tables
# ---------------------------------------------------------------------------------------------------------------------


def values(runs: list[dict[str, Any]], data: str, method: str, score: str, kind: str = "scores") -> Any:
    """Return a score of every seed and test image, shape (seeds, images)."""
    chosen = [run for run in runs if run["data"] == data and run["method"] == method]
    return np.array([[image[score] for image in run[kind]] for run in sorted(chosen, key=lambda run: run["seed"])])


def spread(array: npt.NDArray[np.float64]) -> str:
    """Format the mean over seeds and images and the standard deviation of the seeds."""
    seeds = array.mean(1)
    deviation = f" ± {seeds.std(ddof=1):.3f}" if len(seeds) > 1 else ""
    return f"{seeds.mean():.3f}{deviation}"


def p_value(difference: npt.NDArray[np.float64]) -> float:
    """Return the two-sided p-value of Wilcoxon's signed-rank test over pairs of a seed and an image."""
    return float(wilcoxon(difference.ravel()).pvalue) if difference.any() else 1.0


def markdown(rows: Sequence[Sequence[str]]) -> str:
    """Format rows as a Markdown table; the first one is the head."""
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join([lines[0], "|---" + "|---:" * (len(rows[0]) - 1) + "|", *lines[1:]])


def tables(runs: list[dict[str, Any]], data: str) -> str:
    """Return the scores, the cost and the tests of a data set in Markdown."""
    scores = [("loss", *SCORES, *(f"{score}, grown" for score in TESTED))]
    cost = [("loss", "ms per step", "of these in MALIS", "share")]
    tests = [(f"{OURS} against", *(f"{s}: {what}" for s in TESTED for what in ("gain", "p", "images won")))]
    for method in METHODS:
        columns = [spread(values(runs, data, method.name, score)) for score in SCORES]
        columns += [spread(values(runs, data, method.name, score, "grown")) for score in TESTED]
        scores.append((method.name, *columns))
        mine = [run for run in runs if run["data"] == data and run["method"] == method.name]
        step, part = (
            1e3 * float(np.median([run[k] for run in mine])) for k in ("seconds per step", "seconds in MALIS")
        )
        cost.append((method.name, f"{step:.0f}", f"{part:.1f}", f"{part / step:.1%}"))
        if method.name != OURS:
            row = [method.name]
            for score in TESTED:
                gain = values(runs, data, OURS, score) - values(runs, data, method.name, score)
                won = f"{int((gain.mean(0) > 0).sum())} of {gain.shape[1]}"
                row += [f"{gain.mean():+.3f}", f"{p_value(gain):.2g}", won]
            tests.append(tuple(row))
    return f"### {data}\n\n" + "\n\n".join(markdown(rows) for rows in (scores, tests, cost))


FATES = ("found", "sharing a match", "unmatched", "outline off", "spurious predictions")


def fates(truth: Labels, seg: npt.NDArray[Any]) -> tuple[int, ...]:
    """Return how many true objects have which fate, and how many predicted objects are no true one's match."""
    matches = metrics.match_objects(truth, seg, min_size=MIN_SIZE)
    matched, found = matches.pred_labels > 0, matches.found()
    parts = (found, matched & ~matches.unique, ~matched, matches.unique & ~found)
    spurious = matches.n_predicted - len(np.unique(matches.pred_labels[matched]))
    return (*(int(part.sum()) for part in parts), spurious)


def fate_table(args: argparse.Namespace, data: Data) -> str:
    """Return what became of the objects of the test images, summed over these, in the mean over the seeds."""
    rows = [("loss", *FATES)]
    for method in METHODS:
        counts = []
        for seed in range(args.seeds):
            with np.load(segmentations_of(args.output, data.name, method.name, seed)) as file:
                segmentations = [file[f"arr_{i}"].astype(np.int64) for i in range(len(data.test))]
            images = zip(data.test.labels, segmentations, strict=True)
            counts.append(np.sum([fates(truth, seg) for truth, seg in images], axis=0))
        rows.append((method.name, *(f"{count:.1f}" for count in np.mean(counts, axis=0))))
    return markdown(rows)


# ---------------------------------------------------------------------------------------------------------------------
# Figures
# ---------------------------------------------------------------------------------------------------------------------


def draw(args: argparse.Namespace, sets: list[Data], runs: list[dict[str, Any]]) -> None:
    """Save the picture of the first test image under every loss, and the learning curves."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    for data in sets:
        figure, axes = plt.subplots(2, 3, figsize=(9, 6.4), layout="constrained")
        panels = list(axes.T.ravel())
        panels[0].imshow(data.test.images[0][0], cmap="gray")
        panels[0].set_title("image", fontsize=10)
        panels[1].imshow(label_colours(data.test.labels[0]), interpolation="nearest")
        panels[1].set_title("ground truth", fontsize=10)
        for ax, method in zip((panels[2], panels[4], panels[3], panels[5]), METHODS, strict=True):
            with np.load(segmentations_of(args.output, data.name, method.name, 0)) as file:
                ax.imshow(label_colours(file["arr_0"]), interpolation="nearest")
            score = values(runs, data.name, method.name, "object score")[0, 0]
            ax.set_title(f"{method.name}: {score:.2f}", fontsize=10)
        for ax in panels:
            ax.set_axis_off()
        figure.suptitle(f"{data.name}: a test image and its object score", fontsize=11)
        figure.savefig(args.output / f"segmentations-{data.name}.png", dpi=70)
        plt.close(figure)

        figure, ax = plt.subplots(figsize=(5.5, 3.6), layout="constrained")
        for method in METHODS:
            mine = [run["curve"] for run in runs if run["data"] == data.name and run["method"] == method.name]
            steps, scores = np.moveaxis(np.array(mine), -1, 0)
            (line,) = ax.plot(steps[0], scores.mean(0), marker="o", markersize=3, label=method.name)
            ax.fill_between(steps[0], scores.min(0), scores.max(0), color=line.get_color(), alpha=0.15, linewidth=0)
        ax.set(title=data.name, xlabel="steps", ylabel="object score of the validation images")
        ax.grid(alpha=0.3)
        ax.legend(fontsize=8)
        figure.savefig(args.output / f"curves-{data.name}.png", dpi=80)
        plt.close(figure)


def main(argv: Sequence[str] | None = None) -> list[dict[str, Any]]:
    """Run what is missing, print and save the tables, save the figures; returns the runs."""
    options = training_parser(__doc__.split("\n")[0])
    options.set_defaults(images=32)
    options.add_argument("--data", nargs="+", default=["synthetic"], help="'synthetic', folders or HDF5 files")
    options.add_argument("--seeds", type=positive, default=5, help="number of seeds: 0, 1, ...")
    options.add_argument("--bfloat16", action="store_true", help="all layers but the last in bfloat16")
    options.add_argument("--quick", action="store_true", help=f"other defaults, of about a minute: {QUICK}")
    options.add_argument("--output", type=Path, default=Path("benchmark_output"), help="folder of the results")
    if "--quick" in (sys.argv[1:] if argv is None else argv):
        options.set_defaults(**QUICK)
    args = options.parse_args(argv)
    if args.threads is not None:
        malis.set_num_threads(args.threads)
    try:
        sets = [load(source, args.validation, args.test, args.images) for source in args.data]
        for data in sets:
            Batches(data.train, args.batch, args.crop, seed=0)
    except (OSError, ValueError) as error:
        options.error(str(error))
    runs = run_all(args, sets)
    for data in sets:
        text = f"{tables(runs, data.name)}\n\n{fate_table(args, data)}"
        print(text)
        (args.output / f"{data.name}.md").write_text(text + "\n", encoding="utf-8")
    draw(args, sets, runs)
    print(f"tables and figures saved to {args.output}")
    return runs


if __name__ == "__main__":
    main()
