"""What MALIS does to the edges that decide: before and after the second phase, on a test image of every set.

python examples/deciding_edges.py --data isbi2012-slices:PATH nuclei:PATH <the options of benchmark_losses.py>

Reads the networks that benchmark_losses.py has kept of the last seed, and trains nothing. Prints how many edges decide
nine tenths of the pairs of the test images, and the affinity of the deciding edge in the mean over pairs: 1 within and
0 between objects would leave no error at any threshold.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import numpy.typing as npt
import torch

import malis
from benchmark_losses import Affinities, affinities_of, benchmark_parser, network_file, warmup_file
from benchmark_report import markdown
from data import Split, fold_of, load_all
from malis import PairCounts
from methods import METHODS, STARTS, Method
from pytorch_example import UNet
from tasks import NHOOD

SIDE = 128  # pixels of the part of an image that is drawn
MOST = 60  # edges of each kind that are drawn
SHARE = 0.9  # of the pairs that "most" are


def predicted(file: Path, method: Method, split: Split, args: Any) -> list[Affinities]:
    """Return the affinities that a network predicts which benchmark_losses.py has kept."""
    if not file.exists():
        raise FileNotFoundError(
            f"there is no network {file}: benchmark_losses.py has not trained {method.name} on this set"
        )
    start = STARTS[method.start]
    model = UNet(split.images[0].shape[0], start.channels, args.channels, args.bfloat16)
    model.load_state_dict(torch.load(file, weights_only=True)["model"])
    return affinities_of(model, start, split, torch.device("cpu"))


def edges_of_most(counts: npt.NDArray[np.int64]) -> int:
    """Return how few edges decide `SHARE` of the pairs."""
    sums = np.cumsum(np.sort(counts, axis=None)[::-1])
    return int(np.searchsorted(sums, SHARE * sums[-1])) + 1 if sums[-1] else 0


def deciding_affinity(affinities: Affinities, counts: npt.NDArray[np.int64]) -> float:
    """Return the affinity of the deciding edge in the mean over pairs."""
    return float((affinities * (counts / max(1, int(counts.sum())))).sum())


def row(images: Sequence[tuple[Affinities, PairCounts]]) -> list[str]:
    """Return the cells of a network: medians of numbers of edges, and means of affinities, over images."""
    numbers = [np.median([edges_of_most(counts[kind]) for _, counts in images]) for kind in (0, 1)]
    means = [np.mean([deciding_affinity(aff, counts[kind]) for aff, counts in images]) for kind in (0, 1)]
    return [*(f"{number:.0f}" for number in numbers), *(f"{mean:.3f}" for mean in means)]


def costliest(counts: PairCounts) -> tuple[slice, slice]:
    """Return the part of an image around the edge that decides most pairs of different objects."""
    _, *at = np.unravel_index(int(np.argmax(counts.neg)), counts.neg.shape)
    starts = (int(np.clip(i - SIDE // 2, 0, max(0, n - SIDE))) for i, n in zip(at, counts.neg.shape[1:], strict=True))
    y, x = (slice(start, start + SIDE) for start in starts)
    return y, x


def draw(
    ax: Any, title: str, image: npt.NDArray[np.float32], affinities: Affinities, labels: npt.NDArray[np.int32]
) -> None:
    """Draw a part of an image with the edges that decide its pairs."""
    counts = malis.pairs(np.ascontiguousarray(affinities), np.ascontiguousarray(labels), NHOOD)
    malis.plot.deciding_edges(counts, NHOOD, ax, image=image, most=MOST)
    within, between = (deciding_affinity(affinities, kind) for kind in counts)
    ax.contour(labels > 0, [0.5], colors="white", linewidths=0.4)
    ax.set_title(f"{title}: within {within:.2f}, between {between:.2f}", fontsize=8)
    ax.get_legend().remove()


def main(argv: Sequence[str] | None = None) -> str:
    """Print the table and save the figure; returns the table."""
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    options = benchmark_parser()
    args = options.parse_args(argv)
    seed = args.seeds - 1
    chosen = [method for method in METHODS if method.name in args.methods]
    if len({method.start for method in chosen}) > 1:
        options.error(f"methods must share their warm-up, got {args.methods}")
    figure, axes = plt.subplots(
        len(args.data),
        1 + len(chosen),
        figsize=(3 * (1 + len(chosen)), 3.2 * len(args.data) + 0.6),
        layout="constrained",
        squeeze=False,
    )
    rows = [["set", "network", "edges of most positive pairs", "of most negative pairs", "affinity within", "between"]]
    for source, line in zip(args.data, axes, strict=True):
        name, split = load_all(source, args.images)
        test = fold_of(name, split, args.folds, seed % args.folds, args.validation, args.test).test
        before = predicted(warmup_file(args.output, name, chosen[0].start, seed), chosen[0], test, args)
        networks = {"after the warm-up": before}
        for method in chosen:
            networks[method.name] = predicted(network_file(args.output, name, method.name, seed), method, test, args)
        part = None
        for ax, (title, affinities) in zip(line, networks.items(), strict=True):
            counts = [malis.pairs(aff, truth, NHOOD) for aff, truth in zip(affinities, test.labels, strict=True)]
            rows.append([name, title, *row(list(zip(affinities, counts, strict=True)))])
            part = part or costliest(counts[0])
            draw(ax, title, test.images[0][0][part], affinities[0][(slice(None), *part)], test.labels[0][part])
        line[0].text(-0.04, 0.5, name, rotation=90, ha="right", va="center", transform=line[0].transAxes)
    figure.suptitle(
        f"The {MOST} edges that decide most pairs within objects (blue) and most pairs of different objects (orange),\n"
        "larger for more pairs; above each, the affinity of the deciding edge in the mean over pairs",
        fontsize=10,
    )
    file = args.output / "deciding_edges.png"
    figure.savefig(file, dpi=60)
    plt.close(figure)
    print(f"{markdown(rows)}\nfigure saved to {file}")
    return markdown(rows)


if __name__ == "__main__":
    main()
