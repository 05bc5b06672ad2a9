"""The command `malis`: segment, evaluate, curve, demo."""

from __future__ import annotations

import enum
import json
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskProgressColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

import malis
from malis import _checks, _io, metrics

app = typer.Typer(
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    help="From affinities to a segmentation you can trust. Arrays are read from .npy, .npz, .h5:/path, .tif and .zarr.",
)
_INTERRUPTED = 130
_out = Console(highlight=False, soft_wrap=True)
_err = Console(stderr=True, highlight=False)


# What is known of every threshold, in the order in which it is printed.
_CURVE = (
    "thresholds",
    "f_score",
    "precision",
    "recall",
    "true_positives",
    "false_positives",
    "rand_split",
    "rand_merge",
    "voi_split",
    "voi_merge",
)


class Small(str, enum.Enum):
    """What becomes of components that are too small."""

    drop = "drop"
    merge = "merge"


class Score(str, enum.Enum):
    """What `--threshold auto` optimises."""

    object_score = "object_score"
    object_recall = "object_recall"
    rand_f_score = "rand_f_score"
    adapted_rand_error = "adapted_rand_error"
    variation_of_information = "variation_of_information"


Affinities = Annotated[str, typer.Argument(metavar="AFF", help="Affinities, one channel for each offset.")]
Truth = Annotated[str, typer.Argument(metavar="GT", help="Labels of the truth; 0 is background.")]
Nhood = Annotated[
    str | None,
    typer.Option(metavar="JSON", help="Offsets, such as '[[-1,0],[0,-1],[-9,0]]'.", show_default="nearest neighbours"),
]
ChannelAxis = Annotated[
    int | None,
    typer.Option(help="The axis of the channels.", show_default="as the file says, else the first"),
]
Size = Annotated[int, typer.Option(min=0, help="Voxels of the smallest object.")]
Force = Annotated[bool, typer.Option("--force", help="Replace what is there.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]


@app.callback(invoke_without_command=True)
def _malis(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version and stop.")] = False,
) -> None:
    if version:
        _out.print(f"malis {malis.__version__}")
    elif context.invoked_subcommand is None:
        print(context.get_help())


@app.command()
def segment(
    aff: Affinities,
    output: Annotated[str, typer.Option("--output", "-o", metavar="SEG", help="Where to write the labels.")],
    threshold: Annotated[
        str, typer.Option(metavar="NUMBER|auto", help="Edges of at least so much connect; auto: the best for --gt.")
    ] = "0.5",
    gt: Annotated[str | None, typer.Option(metavar="GT", help="Labels of the truth, to choose and to score.")] = None,
    score: Annotated[Score, typer.Option(help="What auto optimises.")] = Score.object_score,
    size: Size = 64,
    small: Annotated[Small, typer.Option(help="What becomes of smaller components.")] = Small.drop,
    nhood: Nhood = None,
    channel_axis: ChannelAxis = None,
    force: Force = False,
) -> None:
    """Segment affinities into connected components and write the labels."""
    level = None if threshold == "auto" else _number(threshold)
    if level is None and gt is None:
        raise ValueError("--threshold auto needs the truth: --gt")
    _io.check_output(output, force=force, inputs=(aff, *([gt] if gt else [])))
    with _steps(4) as step:
        step("reading")
        affinities, offsets = _read_affinities(aff, nhood, channel_axis)
        truth = None if gt is None else _io.read_labels(gt).array
        step("choosing the threshold" if level is None else "checking")
        if truth is not None:
            _checks.check_volume(affinities, _checks.as_labels(truth, "GT"), "GT", offsets)
        if level is None:
            assert truth is not None
            level = malis.find_threshold(
                [affinities], [truth], offsets, score=score.value, size_thresh=max(0, size - 1)
            ).threshold
        step("segmenting")
        seg, sizes = malis.affgraph_to_seg(affinities, offsets, max(0, size - 1), threshold=level, small=small.value)
        step("writing")
        provenance = {
            "version": malis.__version__,
            "command": "segment",
            "affinities": aff,
            "gt": gt,
            "threshold": level,
            "options": {
                "threshold": threshold,
                "score": score.value,
                "size": size,
                "small": small.value,
                "nhood": offsets.tolist(),
                "channel_axis": channel_axis,
            },
        }
        _io.write_labels(output, seg, provenance, force=force)
    _out.print(f"{output}: {len(sizes) - 1} objects, threshold {level:.6g}")
    if truth is not None:
        _print_scores(_scores(seg, truth, size, 0.7), as_json=False)


@app.command()
def evaluate(
    seg: Annotated[str, typer.Argument(metavar="SEG", help="Labels to score; 0 is background.")],
    gt: Truth,
    size: Size = 64,
    dice: Annotated[float, typer.Option(min=0, max=1, help="Dice coefficient that a found object exceeds.")] = 0.7,
    as_json: AsJson = False,
) -> None:
    """Score labels against the truth.

    Unlabelled voxels of SEG are segments of one voxel for the Rand scores, as in
    SNEMI3D, and a single segment for the adapted Rand error and the variation
    of information, as in scikit-image.
    """
    with _steps(2) as step:
        step("reading")
        pred, truth = _io.read_labels(seg).array, _io.read_labels(gt).array
        step("scoring")
        scores = _scores(pred, truth, size, dice)
    _print_scores(scores, as_json)


@app.command()
def curve(
    aff: Affinities,
    gt: Truth,
    plot: Annotated[Path | None, typer.Option(metavar="PNG|PDF|SVG", help="Draw the curve.")] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="NPZ", help="Write every threshold with its scores.")
    ] = None,
    nhood: Nhood = None,
    channel_axis: ChannelAxis = None,
    as_json: AsJson = False,
    force: Force = False,
) -> None:
    """Score the segmentation at every threshold and print the best one by the F-score of pairs."""
    _check_file(plot, ("png", "pdf", "svg"), force)
    _check_file(output, ("npz",), force)
    with _steps(3) as step:
        step("reading")
        affinities, offsets = _read_affinities(aff, nhood, channel_axis)
        truth = _io.read_labels(gt).array
        step("scoring every threshold")
        result = malis.rand_curve(affinities, truth, offsets)
        if len(result.thresholds) == 0:
            raise ValueError(f"{aff} has no edge between two voxels")
        step("writing")
        if output is not None:
            arrays: dict[str, Any] = {name: getattr(result, name) for name in _CURVE}
            with _io.replacing(output, force=force) as temporary, temporary.open("wb") as file:
                np.savez_compressed(file, **arrays)
        if plot is not None:
            axes = _pyplot().subplots(figsize=(7, 4.5), layout="constrained")[1]
            malis.plot.rand_curve(result, axes)
            _save(axes.figure, plot, force)
    at = int(np.argmax(result.f_score))
    best = {name: getattr(result, name)[at].item() for name in _CURVE}
    _print_scores({"threshold": best.pop("thresholds"), **best}, as_json)


@app.command()
def demo(
    output: Annotated[Path, typer.Option("--output", "-o", metavar="PNG", help="The picture.")] = Path(
        "malis_demo.png"
    ),
    seed: Annotated[int, typer.Option(min=0, help="Another seed draws other cells.")] = 0,
    force: Force = False,
) -> None:
    """Draw cells and noisy affinities, choose the threshold, segment, score, and save a picture; a few seconds."""
    _check_file(output, ("png", "pdf", "svg"), force)
    from malis.synthetic import synthetic_affinities, synthetic_image

    nhood, size = malis.mknhood2d(1), 64
    with _steps(5) as step:
        step("drawing cells")
        drawn = [synthetic_image(2 * seed + i) for i in range(2)]
        (_, other), (image, truth) = drawn
        affs = [synthetic_affinities(labels, nhood, 2 * seed + i) for i, (_, labels) in enumerate(drawn)]
        step("scoring every threshold")
        result = malis.rand_curve(affs[0], other, nhood)
        step("choosing the threshold")
        found = malis.find_threshold(affs[:1], [other], nhood, size_thresh=size - 1)
        step("segmenting")
        seg, _ = malis.affgraph_to_seg(affs[1], nhood, size - 1, threshold=found.threshold)
        step("drawing")
        figure, axes = _pyplot().subplots(2, 3, figsize=(12, 8.9), layout="constrained")
        malis.plot.labels(truth, axes[0, 0], image=image[0]).set_title("image and truth", fontsize="medium")
        malis.plot.affinities(affs[1], nhood, axes[0, 1])
        malis.plot.deciding_edges(malis.pairs(affs[1], truth, nhood), nhood, axes[0, 2], image=image[0])
        malis.plot.rand_curve(result, axes[1, 0], threshold=found.threshold)
        malis.plot.labels(seg, axes[1, 1])
        malis.plot.errors(truth, seg, axes[1, 2])
        _save(figure, output, force)
    _out.print(f"threshold {found.threshold:.3f}: object score {found.score:.3f} on the image it was chosen on")
    _print_scores(_scores(seg, truth, size, 0.7), as_json=False)
    _out.print(f"picture: {output}")


def run(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status. Bad input gives 2 and one line."""
    # An interrupted run takes its temporary files along: SIGTERM ends it as Ctrl-C does.
    before = signal.signal(signal.SIGTERM, _interrupt)
    try:
        status = app(args=None if argv is None else list(argv), prog_name="malis", standalone_mode=False)
        if status == _INTERRUPTED:  # what newer versions of Typer make of Ctrl-C, older ones raise Abort
            raise KeyboardInterrupt
        return 0
    except (KeyboardInterrupt, typer.Abort):
        return _fail("interrupted", _INTERRUPTED)
    except MemoryError as error:
        return _fail(f"not enough memory: {error}", 2)
    except (ValueError, TypeError, OSError, ImportError) as error:
        return _fail(str(error), 2)
    except Exception as error:
        if not hasattr(error, "format_message"):  # an error of the command line, as Typer and Click raise it
            raise
        return _fail(error.format_message(), 2)
    finally:
        signal.signal(signal.SIGTERM, before)


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _fail(message: str, status: int) -> int:
    print(f"malis: {' '.join(message.split())}", file=sys.stderr)
    return status


def _number(text: str) -> float:
    try:
        return _checks.as_threshold(float(text), "--threshold")
    except ValueError:
        raise ValueError(f"--threshold must be a number or auto, got {text!r}") from None


def _read_affinities(
    text: str, nhood: str | None, channel_axis: int | None
) -> tuple[npt.NDArray[Any], npt.NDArray[np.int64]]:
    """Read affinities and the offsets of their channels, and check that they go together."""
    affinities = _checks.as_affinities(_io.read_affinities(text, channel_axis).array, "AFF", integers=True)
    ndim = affinities.ndim - 1
    if nhood is None:
        if not 1 <= ndim <= 3 or len(affinities) != ndim:
            raise ValueError(
                f"AFF must have one channel for each of 1 to 3 spatial axes, or --nhood must give its offsets; "
                f"got {_checks.describe(affinities)}"
            )
        return affinities, _checks.as_nhood(-np.eye(ndim, dtype=np.int64))
    try:
        offsets = _checks.as_nhood(json.loads(nhood))
    except (json.JSONDecodeError, ValueError, TypeError) as error:
        raise ValueError(f"--nhood must be a list of offsets such as [[-1,0],[0,-1]], got {nhood!r}: {error}") from None
    _checks.check_channels(affinities, offsets)
    return affinities, offsets


def _scores(seg: npt.NDArray[Any], truth: npt.NDArray[Any], size: int, dice: float) -> dict[str, float]:
    table = metrics.contingency_table(truth, seg)
    scores: dict[str, float] = metrics.evaluate(min_size=size, dice_threshold=dice, table=table)._asdict()
    scores["adapted_rand_error"] = metrics.adapted_rand_error(table=table)
    voi = metrics.variation_of_information(table=table)
    return {**scores, "voi_split": voi.split, "voi_merge": voi.merge}


def _print_scores(scores: dict[str, float], as_json: bool) -> None:
    if as_json:
        print(json.dumps(scores))
        return
    table = Table("score", "value", box=None, pad_edge=False, show_header=False)
    for name, value in scores.items():
        table.add_row(name.replace("_", " "), str(value) if isinstance(value, int) else f"{value:.4f}")
    _out.print(table)


def _check_file(path: Path | None, suffixes: tuple[str, ...], force: bool) -> None:
    if path is None:
        return
    if path.suffix.lower().lstrip(".") not in suffixes:
        raise ValueError(f"{path} must end in {' or '.join('.' + suffix for suffix in suffixes)}")
    _io.check_file(path, force=force)


def _pyplot() -> Any:
    """Return pyplot; pictures are saved, never shown."""
    malis.plot  # noqa: B018  its message says what is missing
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot

    return matplotlib.pyplot


def _save(figure: Any, path: Path, force: bool) -> None:
    with _io.replacing(path, force=force) as temporary:
        figure.savefig(temporary, dpi=100)
    _pyplot().close(figure)


@contextmanager
def _steps(total: int) -> Iterator[Any]:
    """Show a bar that advances from step to step; only where somebody watches."""
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=_err, transient=True, disable=not _err.is_terminal) as progress:
        task = progress.add_task("", total=total)
        done = 0

        def step(description: str) -> None:
            nonlocal done
            progress.update(task, description=description, completed=done)
            done += 1

        yield step
