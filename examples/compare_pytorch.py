"""Train the same U-Net with cross entropy and with MALIS, and draw what both make of an image they never saw.

python examples/compare_pytorch.py                        # packed organelles, generated: two trainings
python examples/compare_pytorch.py --data isbi2012        # a folder with image/ and label/

Both predict affinities, which are cut at 0.5, and at the threshold that is best for the validation images. A single
seed tells little about which loss is better: for that there is benchmark_losses.py.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import matplotlib

import malis
from data import Batches, load
from malis import metrics
from pytorch_example import train
from scores import choose_threshold, table
from tasks import MIN_SIZE, components, probabilities, task_of
from training import training_parser

LOSSES = {"cross entropy": "affinity-bce", "MALIS": "malis"}
UNCHOSEN = 0.5


def main(argv: Sequence[str] | None = None) -> dict[str, list[metrics.Scores]]:
    """Train with both losses, print the scores of the test images, save the figure; returns the scores."""
    options = training_parser(__doc__.split("\n")[0])
    options.add_argument("--data", default="synthetic", help="'synthetic', a folder with image/ and label/, or HDF5")
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--output", type=Path, default=Path("example_output") / "comparison.png", help="the figure")
    args = options.parse_args(argv)
    if args.threads is not None:
        malis.set_num_threads(args.threads)
    try:
        data = load(args.data, args.validation, args.test, args.images)
        Batches(data.train, args.batch, args.crop, args.seed)
    except (OSError, ValueError) as error:
        options.error(str(error))
    scores, first = {}, {}
    for name, loss in LOSSES.items():
        print(f"\n{name}")
        batches = Batches(data.train, args.batch, args.crop, args.seed)
        named = argparse.Namespace(**vars(args), loss=loss)
        network = train(named, task_of(loss), data.train.images[0].shape[0], batches)
        validation, test = (
            [probabilities(network, image) for image in part.images] for part in (data.validation, data.test)
        )
        best, _ = choose_threshold(validation, data.validation)
        for cut, threshold in (("cut at", UNCHOSEN), ("best cut,", best)):
            found = [components(affinities, threshold) for affinities in test]
            title = f"{name}, {cut} {threshold:.3g}"
            scores[title] = [
                metrics.evaluate(truth, seg, min_size=MIN_SIZE)
                for truth, seg in zip(data.test.labels, found, strict=True)
            ]
            first[f"{title}\nobject score {scores[title][0].object_score:.2f}"] = found[0]
            print(f"\n{title}\n{table(scores[title])}")

    matplotlib.use("Agg")
    figure = malis.plot.comparison(data.test.labels[0], first, image=data.test.images[0][0])
    args.output.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(args.output, dpi=60, bbox_inches="tight")
    print(f"figure saved to {args.output}")
    return scores


if __name__ == "__main__":
    main()
