"""Compare losses: the same U-Net, from the same weights, on the same batches, for the same number of steps.

python examples/benchmark_losses.py --data isbi2012-slices:PATH nuclei:PATH     # hours; public data, folders, HDF5
python examples/benchmark_losses.py --quick                                     # half a minute, on generated images

Seed s is a fold of a cross-validation over blocks of images: block s is tested, the next one chooses thresholds. Every
finished run is a line of runs.jsonl in the folder of the output, and every warm-up that methods share is kept there: a
second call repeats no run of the same settings, and more seeds, methods or data sets may follow.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

import malis
from benchmark_report import report
from data import Batches, Data, Labels, Split, evenly, fold_of, load_all, touch, with_moved_borders
from malis import metrics
from methods import BASELINE, METHODS, STARTS, Method, Start
from pytorch_example import Step, UNet, network_of, train_phase
from scores import THRESHOLDS, all_grown, choose_threshold, grown
from tasks import MIN_SIZE, NHOOD, Network, components, probabilities
from training import Phase, positive, training_parser

SCORES = (
    *("object score", "object recall", "Rand F-score", "Rand split", "Rand merge", "VI split", "VI merge"),
    "adapted Rand error",
)
EVEN_THRESHOLDS = tuple(np.linspace(0.05, 0.95, 19).round(2).tolist())  # of the area under the score
CURVE_POINTS = 4
QUICK: dict[str, Any] = {
    "steps": 100,
    "seeds": 2,
    "folds": 4,
    "images": 8,
    "crop": 64,
    "channels": 8,
    "lr": 1e-2,
    "validation": 1,
}
QUICK |= {"test": 1, "methods": ["BCE on affinities", "MALIS after BCE", "MALIS, border"]}

Affinities = npt.NDArray[np.float32]

# ---------------------------------------------------------------------------------------------------------------------
# Segmentation and scores
# ---------------------------------------------------------------------------------------------------------------------

# Of objects found at a high threshold that grow, not into each other, along edges of a low one.
GROWN = [(high, low) for high in (0.5, 0.7, 0.9, 0.97, 0.99) for low in (0.2, 0.5, 0.8) if low < high]


def choose_grown(affinities: list[Affinities], split: Split) -> tuple[tuple[float, float], float]:
    """Return the thresholds of `GROWN` with the best mean object score, the middle of equals, and that score."""
    scores = np.mean(
        [
            [metrics.object_score(truth, seg, min_size=MIN_SIZE) for seg in all_grown(aff, NHOOD, MIN_SIZE, GROWN)]
            for aff, truth in zip(affinities, split.labels, strict=True)
        ],
        axis=0,
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


def areas(affinities: list[Affinities], split: Split) -> dict[str, list[float]]:
    """Return for every image the mean of a score over all thresholds from 0.05 to 0.95: the area under its curve."""
    result = {}
    for name, score in (("object score", "object_score"), ("Rand F-score", "rand_f_score")):
        found = malis.find_threshold(
            affinities, split.labels, NHOOD, score=score, thresholds=EVEN_THRESHOLDS, min_size=MIN_SIZE
        )
        result[name] = np.nan_to_num(found.scores).mean(0).round(5).tolist()
    return result


def fates(truth: Labels, seg: npt.NDArray[Any]) -> tuple[int, ...]:
    """Return how many true objects have which of `FATES`, and how many predicted objects are no true one's match."""
    matches = metrics.match_objects(truth, seg, min_size=MIN_SIZE)
    matched, found = matches.pred_labels > 0, matches.found()
    parts = (found, matched & ~matches.unique, ~matched, matches.unique & ~found)
    spurious = matches.n_predicted - len(np.unique(matches.pred_labels[matched]))
    return (*(int(part.sum()) for part in parts), spurious)


# ---------------------------------------------------------------------------------------------------------------------
# Runs
# ---------------------------------------------------------------------------------------------------------------------

SHARED = (
    *("images", "validation", "test", "folds", "share", "move_borders"),
    *("steps", "warmup", "batch", "crop", "channels", "lr", "bfloat16"),
)


def settings_of(args: argparse.Namespace, method: Method) -> dict[str, Any]:
    """Return the options that decide the result: runs of other settings are other runs."""
    names = (*SHARED, "mix", "margin") if method.malis > 0 else SHARED
    return {name: getattr(args, name) for name in names} | method.settings()


def seconds_of(steps: list[Step]) -> tuple[float, float]:
    """Return the median time of a step, and of the loss in those steps that compute MALIS."""
    in_malis = [step.seconds_in_malis for step in steps if step.seconds_in_malis > 0]
    return float(np.median([step.seconds for step in steps])), float(np.median(in_malis)) if in_malis else 0.0


def affinities_of(model: UNet, start: Start, part: Split, device: torch.device) -> list[Affinities]:
    """Return the affinities of the nearest neighbours that a network predicts for images."""
    network: Network = network_of(model, device)
    return [np.ascontiguousarray(start.affinities(probabilities(network, image))) for image in part.images]


class Training:
    """The two phases of a method on a fold; the first one is trained once for all methods of a start."""

    def __init__(self, args: argparse.Namespace, data: Data, method: Method, seed: int) -> None:
        self.args, self.data, self.method, self.seed = args, data, method, seed
        self.start = STARTS[method.start]
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        torch.manual_seed(seed)
        channels = data.train.images[0].shape[0]
        self.model = UNet(channels, self.start.channels, args.channels, args.bfloat16).to(self.device)
        self.curve: list[tuple[int, float]] = []
        self.steps: list[Step] = []

    def affinities(self, part: Split) -> list[Affinities]:
        """Predict the affinities of images."""
        return affinities_of(self.model, self.start, part, self.device)

    def run(self) -> None:
        """Train both phases, or load the first one."""
        warmup, last = self.method.phases(self.args.steps, self.args.warmup, self.args.lr, self.args.mix)
        file = warmup_file(self.args.output, self.data.name, self.method.start, self.seed)
        settings = {name: getattr(self.args, name) for name in SHARED} | {"start": self.method.start}
        saved = torch.load(file, weights_only=True) if file.exists() else {}
        if saved.get("settings") == settings:
            self.model.load_state_dict(saved["model"])
            self.curve = [tuple(point) for point in saved["curve"]]
        else:
            # The labels of the first phase are the same for all methods of a start.
            prepare = Method("", self.method.start).prepare()
            self._train(warmup, [self.seed], prepare, first=1)
            save({"settings": settings, "model": self.model.state_dict(), "curve": self.curve}, file)
        self.steps = []
        self._train(last, [self.seed, 1], self.method.prepare(), first=warmup.steps + 1, average=self.method.average)

    def _train(
        self,
        phase: Phase,
        seed: list[int],
        prepare: Callable[[Labels], Labels],
        first: int,
        average: float | None = None,
    ) -> None:
        """Train for a phase; with `average` the network ends with a moving average of its weights of that decay."""
        args = self.args
        averaged = None if average is None else AveragedModel(self.model, multi_avg_fn=get_ema_multi_avg_fn(average))
        batches = Batches(self.data.train, args.batch, args.crop, seed, prepare)
        points = {max(1, round(args.steps * i / CURVE_POINTS)) for i in range(1, CURVE_POINTS + 1)}
        criterion = self.method.criterion(phase, args.margin)
        for step in train_phase(self.model, phase, criterion, batches, self.device, first):
            self.steps.append(step)
            if averaged is not None:
                averaged.update_parameters(self.model)
            if step.number in points and step.number < args.steps:
                self.curve.append((step.number, self._validate()))
        if averaged is not None:
            self.model.load_state_dict(averaged.module.state_dict())

    def _validate(self) -> float:
        validation = self.data.validation
        return choose_threshold(self.affinities(validation), validation, THRESHOLDS[::3])[1]


def save(content: dict[str, Any], file: Path) -> None:
    """Save a network, so that an interruption leaves the old file or the new one."""
    part = file.with_suffix(".part")
    part.parent.mkdir(parents=True, exist_ok=True)
    torch.save(content, part)
    part.replace(file)


def run_one(args: argparse.Namespace, data: Data, method: Method, seed: int) -> dict[str, Any]:
    """Train, choose thresholds on the validation images, score the test images; saves the network and segmentations."""
    training = Training(args, data, method, seed)
    training.run()
    save({"model": training.model.state_dict()}, network_file(args.output, data.name, method.name, seed))
    validation, test = training.affinities(data.validation), training.affinities(data.test)
    threshold, best = choose_threshold(validation, data.validation)
    thresholds, best_grown = choose_grown(validation, data.validation)
    segmentations = [components(affinities, threshold) for affinities in test]
    images = list(zip(data.test.labels, segmentations, strict=True))
    file = segmentations_of(args.output, data.name, method.name, seed)
    file.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(file, *[seg.astype(np.uint16) for seg in segmentations])
    seconds, in_malis = seconds_of(training.steps)
    return {
        "tested": data.tested,
        "threshold": threshold,
        "validation": best,
        "scores": [scores_of(truth, seg) for truth, seg in images],
        "fates": [fates(truth, seg) for truth, seg in images],
        "grown thresholds": thresholds,
        "grown validation": best_grown,
        "grown": [
            scores_of(truth, grown(aff, NHOOD, MIN_SIZE, *thresholds))
            for truth, aff in zip(data.test.labels, test, strict=True)
        ],
        "areas": areas(test, data.test),
        "curve": [*training.curve, (args.steps, best)],
        "loss": round(float(np.mean([step.loss for step in training.steps[-20:]])), 5),
        "seconds per step": seconds,
        "seconds in MALIS": in_malis,
    }


def finished(file: Path) -> list[dict[str, Any]]:
    """Return the runs of former calls; a last line that was cut off does not count."""
    runs = []
    for line in file.read_text(encoding="utf-8").splitlines() if file.exists() else []:
        try:
            runs.append(json.loads(line))
        except json.JSONDecodeError:
            print(f"skipped a broken line of {file}", file=sys.stderr)
    return runs


def known_runs(args: argparse.Namespace, methods: Sequence[Method]) -> dict[tuple[str, str, int], dict[str, Any]]:
    """Return the runs of former calls that have the settings of this one."""
    settings = {method.name: settings_of(args, method) for method in methods}
    return {
        (run["data"], run["method"], run["seed"]): run
        for run in finished(args.output / "runs.jsonl")
        if run["settings"] == settings.get(run["method"])
    }


def run_all(args: argparse.Namespace, sets: dict[str, list[Data]], methods: Sequence[Method]) -> list[dict[str, Any]]:
    """Return the runs of all seeds, data sets and methods; those that are missing are made."""
    args.output.mkdir(parents=True, exist_ok=True)
    known = known_runs(args, methods)
    wanted = [(seed, name, method) for seed in range(args.seeds) for name in sets for method in methods]
    for number, (seed, name, method) in enumerate(wanted, 1):
        key = (name, method.name, seed)
        if key not in known and args.make:
            data = sets[name][seed % args.folds]
            head = {"data": name, "method": method.name, "seed": seed, "settings": settings_of(args, method)}
            touching = any(touch(labels) for labels in data.train.labels)
            simplest = {m.name: m if touching else m.where_nothing_touches() for m in methods}
            same = simplest.pop(method.name)
            twins = [other for other, its in simplest.items() if its.settings() == same.settings()]
            twin = next((other for other in twins if (name, other, seed) in known), None)
            if twin is not None:
                known[key] = {**known[name, twin, seed], **head}
            else:
                print(f"run {number} of {len(wanted)}: {name}, {method.name}, seed {seed}", flush=True)
                known[key] = {**head, **run_one(args, data, same, seed)}
            with (args.output / "runs.jsonl").open("a", encoding="utf-8") as file:
                file.write(json.dumps(known[key]) + "\n")
    return [known[name, method.name, seed] for seed, name, method in wanted if (name, method.name, seed) in known]


def named_file(folder: Path, kind: str, data: str, name: str, seed: int, suffix: str) -> Path:
    """Return where something that belongs to a run is kept."""
    return folder / kind / f"{data}-{name.replace(',', '').replace(' ', '-')}-{seed}{suffix}"


def segmentations_of(folder: Path, data: str, method: str, seed: int) -> Path:
    """Return where the segmentations of the test images of a run are kept."""
    return named_file(folder, "segmentations", data, method, seed, ".npz")


def network_file(folder: Path, data: str, method: str, seed: int) -> Path:
    """Return where the network of a run is kept."""
    return named_file(folder, "networks", data, method, seed, ".pt")


def warmup_file(folder: Path, data: str, start: str, seed: int) -> Path:
    """Return where the network after the first phase is kept, which methods of one start share."""
    return named_file(folder, "warmups", data, start, seed, ".pt")


def with_poorer_training(data: Data, share: float, move_borders: float) -> Data:
    """Keep a share of the images to train on, at least one, evenly spread, and move the borders of their labels."""
    indices = list(range(len(data.train)))
    data.train = data.train.chosen(evenly(indices, max(1, round(len(indices) * share))))
    if move_borders:
        labels = data.train.labels
        data.train.labels = [with_moved_borders(truth, move_borders, seed) for seed, truth in enumerate(labels)]
    return data


def benchmark_parser() -> argparse.ArgumentParser:
    """Return the options."""
    options = training_parser(__doc__.split("\n")[0])
    names = [method.name for method in METHODS]
    options.set_defaults(images=32)
    options.add_argument("--data", nargs="+", default=["synthetic"], help="see pytorch_example.py --help")
    options.add_argument("--seeds", type=positive, default=5, help="number of seeds: 0, 1, ...")
    options.add_argument("--folds", type=positive, default=4, help="blocks of images, for the cross-validation")
    options.add_argument("--share", type=float, default=1.0, help="share of the images to train on that is used")
    options.add_argument(
        "--move-borders", type=float, default=0.0, metavar="PIXELS", help="move the borders of the labels to train on"
    )
    options.add_argument("--methods", nargs="+", default=names, choices=names, metavar="METHOD", help=f"of {names}")
    options.add_argument("--baseline", default=BASELINE, choices=names, metavar="METHOD", help="what gains are over")
    options.add_argument("--bfloat16", action="store_true", help="all layers but the last in bfloat16")
    options.add_argument("--no-runs", dest="make", action="store_false", help="only report the runs that there are")
    options.add_argument("--quick", action="store_true", help=f"other defaults, of half a minute: {QUICK}")
    options.add_argument("--output", type=Path, default=Path("benchmark_output"), help="folder of the results")
    return options


def main(argv: Sequence[str] | None = None) -> list[dict[str, Any]]:
    """Run what is missing, print and save the tables, save the figures; returns the runs."""
    options = benchmark_parser()
    if "--quick" in (sys.argv[1:] if argv is None else argv):
        options.set_defaults(**QUICK)
    args = options.parse_args(argv)
    if args.threads is not None:
        malis.set_num_threads(args.threads)
        torch.set_num_threads(args.threads)
    sets = {}
    try:
        for source in args.data:
            name, split = load_all(source, args.images)
            sets[name] = [
                with_poorer_training(
                    fold_of(name, split, args.folds, fold, args.validation, args.test), args.share, args.move_borders
                )
                for fold in range(args.folds)
            ]
            for data in sets[name]:
                Batches(data.train, args.batch, args.crop, seed=0)
    except (OSError, ValueError) as error:
        options.error(str(error))
    runs = run_all(args, sets, [method for method in METHODS if method.name in args.methods])
    report(args.output, sets, runs, partial(segmentations_of, args.output), args.baseline)
    return runs


if __name__ == "__main__":
    main()
