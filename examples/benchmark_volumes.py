"""Compare losses on volumes: the same 3-D U-Net, on the same crops, for the same number of steps.

python examples/benchmark_volumes.py --data volume.npz --border --steps 6000 --crop 48 48 48 --channels 16 --bfloat16

All options of volume_example.py hold, whose training, segmentations and scores these are; --border is for all methods.
Methods share the first phase. Every network is kept: a second call goes on where the first one was interrupted, and
adds further --methods. Scores are computed anew in each call.
"""

from __future__ import annotations

import argparse
import itertools
import json
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from malis import metrics
from methods import BASELINE, METHODS, Method
from public_data import Volume
from resampling import gain
from training import Phase
from volume_data import Crops, Parts
from volume_example import UNet, criterion_of, evaluate, offsets, parser, prepare, train
from volume_scores import SCORES, Labels, large_objects, skeletons_of

# Those that differ in the second phase alone, on the labels and offsets of volume_example.py.
CHOICES = {m.name: m for m in METHODS if m.start == "nearest" and m.connected and m.balance == "pairs"}
BLOCKS = 4  # along each axis within sections: the test volume in parts, which the intervals are from
CONTACTS = (0, 5, 20, 100)  # nodes of a skeleton that do not make a segment a merging one, as NISB reports


def trained(args: argparse.Namespace, method: Method, crops: Crops) -> tuple[UNet, Phase]:
    """Return the network of a method, and its second phase; what has been trained before is loaded."""
    torch.manual_seed(args.seed)
    model = UNet(args.channels, len(offsets(args.anisotropic)), args.anisotropic, args.bfloat16).to(args.device)
    warmup, last = method.phases(args.steps, args.warmup, args.lr, args.mix)
    options = argparse.Namespace(**vars(args) | {"loss": "warm-up", "resume": True})
    train(options, [warmup], model, crops, args.output / "warmup.pt")
    options.loss, options.margin = method.name, args.margin if method.margin is None else method.margin
    checkpoint = args.output / f"{method.name.replace(',', '').replace(' ', '-')}.pt"
    train(options, [last], model, crops, checkpoint, warmup.steps)
    return model, last


def cost(args: argparse.Namespace, method: Method, phase: Phase, model: UNet, crops: Crops) -> dict[str, float]:
    """Return the median seconds of a step, and of the loss with its gradient by the logits, over 15 steps."""
    margin = args.margin if method.margin is None else method.margin
    criterion = criterion_of(phase, argparse.Namespace(**vars(args) | {"margin": margin}))
    optimizer = torch.optim.Adam(model.parameters(), 0.0)  # the weights stay as they are
    model.train()
    whole, in_loss = [], []
    for images, labels in crops.take(0, 15):
        began = time.perf_counter()
        logits = model(images.to(args.device))
        began_loss = time.perf_counter()
        (gradient,) = torch.autograd.grad(criterion(logits, labels.to(args.device)), logits)
        in_loss.append(time.perf_counter() - began_loss)
        optimizer.zero_grad()
        logits.backward(gradient)
        optimizer.step()
        whole.append(time.perf_counter() - began)
    return {"seconds per step": float(np.median(whole)), "seconds in the loss": float(np.median(in_loss))}


def columns(volume: Labels) -> Iterator[Labels]:
    """Yield the blocks of a volume, through all of its sections."""
    for rows, parts in itertools.product(np.array_split(volume, BLOCKS, axis=1), range(BLOCKS)):
        yield np.array_split(rows, BLOCKS, axis=2)[parts]


def run_one(
    args: argparse.Namespace, method: Method, data: Parts, crops: Crops
) -> tuple[dict[str, Any], dict[str, Labels]]:
    """Train a method, or load it; return its scores and its segmentations of the test volume."""
    print(method.name)
    model, phase = trained(args, method, crops)
    result, _, segmentations = evaluate(args, data, model)
    truth = large_objects(data.test.labels, args.min_size)
    skeletons = skeletons_of(data.test.labels, data.voxel_size, args.min_size)
    result["ERL"] = {
        name: [metrics.skeleton_scores(skeletons, seg, merge_threshold=n).erl for n in CONTACTS]
        for name, seg in segmentations.items()
    }
    result["VOI of blocks"] = {
        name: [
            sum(metrics.variation_of_information(part, found))
            for part, found in zip(columns(truth), columns(seg), strict=True)
        ]
        for name, seg in segmentations.items()
    }
    return {"method": method.name, **result, **cost(args, method, phase, model, crops)}, segmentations


def draw(file: Path, test: Volume, segmentations: dict[str, Labels]) -> None:
    """Save the middle section of the segmentations by every method."""
    import matplotlib

    matplotlib.use("Agg")
    from malis import plot

    figure = plot.comparison(test.labels, segmentations, image=test.image)
    for axes in figure.axes:
        axes.title.set_fontsize("x-small")  # names of methods are long
    figure.savefig(file, dpi=80, bbox_inches="tight")


def tables(results: Sequence[dict[str, Any]]) -> str:
    """Format every segmentation of every method: its scores, and what it saves in the VOI of blocks over the first."""
    head = ("method", "segmentation", "thresholds", *(s for s in SCORES if s != "ERL"))
    head += (*(f"ERL, {n}" for n in CONTACTS), "VOI of blocks saved")
    lines = [head, ("---",) * len(head)]
    for name in results[0]["scores"]:
        for result in results:
            blocks, first = (np.array(r["VOI of blocks"][name]) for r in (result, results[0]))
            saved = gain([0] * len(blocks), range(len(blocks)), first - blocks)
            lines.append(
                (
                    *(result["method"], name, ", ".join(f"{t:g}" for t in result["thresholds"][name])),
                    *(f"{value:.3f}" for score, value in result["scores"][name].items() if score != "ERL"),
                    *(f"{erl:.0f}" for erl in result["ERL"][name]),
                    f"{saved.mean:+.3f} ({saved.interval[0]:+.3f} to {saved.interval[1]:+.3f})",
                )
            )
    shares = [(r["method"], r["seconds in the loss"], r["seconds per step"]) for r in results]
    rows = ["| " + " | ".join(line) + " |" for line in lines]
    rows += ["", f"ERL without an error: {results[0]['max ERL']:.0f}"]
    rows += [
        f"{name}: loss and gradient {s:.4f} s of {whole:.3f} s a step, {s / whole:.1%}" for name, s, whole in shares
    ]
    return "\n".join(rows)


def table_of_seeds(runs: Sequence[Sequence[dict[str, Any]]]) -> str:
    """Format the scores of every segmentation of the methods that all runs have: their mean, lowest and highest."""
    found = [{result["method"]: result["scores"] for result in run} for run in runs]
    methods = [method for method in found[0] if all(method in run for run in found)]
    head = ("segmentation", "method", *SCORES)
    lines = [head, ("---",) * len(head)]
    for name, method in itertools.product(found[0][methods[0]], methods):
        values = np.array([[run[method][name][score] for score in SCORES] for run in found])
        spread = zip(values.mean(0), values.min(0), values.max(0), strict=True)
        digits = [0 if score == "ERL" else 3 for score in SCORES]
        cells = [f"{m:.{d}f} ({low:.{d}f} to {high:.{d}f})" for (m, low, high), d in zip(spread, digits, strict=True)]
        lines.append((name, method, *cells))
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def main(argv: Sequence[str] | None = None) -> list[dict[str, Any]]:
    """Train what is missing, print and save the tables, save the picture; returns the results."""
    options = parser()
    options.description = __doc__.split("\n")[0]
    options.add_argument(
        "--methods",
        nargs="+",
        choices=CHOICES,
        metavar="METHOD",
        default=[BASELINE, "MALIS after BCE"],
        help=f"of {list(CHOICES)}; the first one is what the others are compared with",
    )
    options.add_argument(
        "--beside",
        nargs="+",
        type=Path,
        default=[],
        metavar="DIR",
        help="outputs of the same call with other seeds: prints the mean, lowest and highest score as well",
    )
    options.set_defaults(output=Path("volume_benchmark"))
    args = options.parse_args(argv)
    data, crops = prepare(options, args)
    args.output.mkdir(parents=True, exist_ok=True)
    results, segmentations = zip(*(run_one(args, CHOICES[name], data, crops) for name in args.methods), strict=True)
    best = results[0]["best"]  # of the first method, in validation
    draw(
        args.output / "comparison.png",
        data.test,
        {name: found[best] for name, found in zip(args.methods, segmentations, strict=True)},
    )
    (args.output / "results.json").write_text(json.dumps(results, indent=1))
    (args.output / "tables.md").write_text(tables(results) + "\n")
    print(tables(results))
    if args.beside:
        others = [json.loads((folder / "results.json").read_text()) for folder in args.beside]
        print(f"\nOf {1 + len(others)} seeds, mean (lowest to highest):\n{table_of_seeds([results, *others])}")
    return list(results)


if __name__ == "__main__":
    main()
