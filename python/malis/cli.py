"""The command `malis`: segment, evaluate, curve, compare, demo."""

from __future__ import annotations

import copy
import enum
import math
import signal
import zipfile
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
import typer

import malis
from malis import _checks, _console, _inputs, _io, _large, _segment, metrics

app = typer.Typer(
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="From affinities to a segmentation you can trust. Arrays are read from .npy, .npz, .h5:/path, .tif and .zarr, "
    "and from folders of TIFF sections.",
)
_INTERRUPTED = 130


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
    cremi_score = "cremi_score"
    average_precision = "average_precision"


class By(str, enum.Enum):
    """How affinities are segmented where no seeds are given."""

    components = "components"
    watershed = "watershed"


class Ngff(str, enum.Enum):
    """Versions of OME-Zarr."""

    v05 = "0.5"
    v04 = "0.4"


class Axis(str, enum.Enum):
    """The axis that a volume is cut along for a picture."""

    z = "z"
    y = "y"
    x = "x"


Affinities = Annotated[str, typer.Argument(metavar="AFF", help="Affinities, one channel for each offset.")]
Truth = Annotated[str, typer.Argument(metavar="GT", help="Labels of the truth; 0 is background.")]
Nhood = Annotated[
    str | None,
    typer.Option(metavar="JSON", help="Offsets, such as '[[-1,0],[0,-1],[-9,0]]'.", show_default="nearest neighbours"),
]
ChannelAxis = Annotated[
    int | None,
    typer.Option(help="The axis of the channels of AFF.", show_default="as the file says, else the first"),
]
Axes = Annotated[
    str | None,
    typer.Option(
        metavar="LETTERS",
        help="A letter of tczyx for each axis of the first array, in the order of the file, such as czyx.",
        show_default="as the file says",
    ),
]
GtAxes = Annotated[
    str | None,
    typer.Option(metavar="LETTERS", help="The same for GT, such as zyx.", show_default="as the file says"),
]
MinSize = Annotated[int, typer.Option(min=0, metavar="VOXELS", help="Objects of fewer voxels are dropped.")]
IgnoreLabel = Annotated[
    int | None, typer.Option(metavar="LABEL", help="Voxels of GT with this label, such as -1, take part in no score.")
]
Dice = Annotated[float, typer.Option(min=0, max=1, help="Dice coefficient that a found object exceeds.")]
Force = Annotated[bool, typer.Option("--force", help="Replace what is there.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of text.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print errors alone, and JSON if asked for.")]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Say what was read, and how long each step took.")]
Threads = Annotated[int | None, typer.Option(min=1, help="Threads to use.", show_default="all")]
Memory = Annotated[
    str | None,
    typer.Option(
        metavar="SIZE",
        help="Memory to use, such as 8GB; a volume that needs more is segmented chunk by chunk.",
        show_default="that of the machine",
    ),
]
Workers = Annotated[
    int | None, typer.Option(min=1, help="Chunks to segment at a time.", show_default="the number of threads")
]
Scheduler = Annotated[
    str | None,
    typer.Option(metavar="ADDRESS", help="Segment chunk by chunk on a cluster of dask, such as tcp://host:8786."),
]
PictureAxis = Annotated[Axis, typer.Option("--axis", help="The axis that a volume is cut along.")]
Section = Annotated[int | None, typer.Option(help="The section of a volume to draw.", show_default="the middle one")]


@app.callback(invoke_without_command=True)
def _malis(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version and stop.")] = False,
) -> None:
    if version:
        print(f"malis {malis.__version__}")
    elif context.invoked_subcommand is None:
        print(context.get_help())


def _set_up(quiet: bool, verbose: bool, as_json: bool, threads: int | None) -> None:
    _console.choose(quiet=quiet, verbose=verbose, as_json=as_json)
    if threads is not None:
        malis.set_num_threads(threads)


@app.command()
def segment(
    aff: Affinities,
    output: Annotated[str, typer.Option("--output", "-o", metavar="SEG", help="Where to write the labels.")],
    threshold: Annotated[
        str | None,
        typer.Option(
            metavar="NUMBER|auto",
            help="Edges of at least so much connect; auto: the best for --gt.",
            show_default="0.5; none for watersheds",
        ),
    ] = None,
    grow: Annotated[
        float | None,
        typer.Option(metavar="LOW", help="Let the objects grow along edges of at least LOW, not into each other."),
    ] = None,
    by: Annotated[
        By, typer.Option(help="Connected components, or one basin for each regional maximum.")
    ] = By.components,
    seeds: Annotated[str | None, typer.Option(metavar="SEEDS", help="Labels to start a seeded watershed from.")] = None,
    gt: Annotated[str | None, typer.Option(metavar="GT", help="Labels of the truth, to choose and to score.")] = None,
    score: Annotated[Score, typer.Option(help="What auto optimises.")] = Score.object_score,
    min_size: MinSize = 64,
    ignore_label: IgnoreLabel = None,
    small: Annotated[Small, typer.Option(help="What becomes of smaller components.")] = Small.drop,
    nhood: Nhood = None,
    channel_axis: ChannelAxis = None,
    axes: Axes = None,
    gt_axes: GtAxes = None,
    ngff: Annotated[
        Ngff | None, typer.Option(help="The version of OME-Zarr to write.", show_default="that of the store, else 0.5")
    ] = None,
    memory: Memory = None,
    workers: Workers = None,
    scheduler: Scheduler = None,
    force: Force = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
    threads: Threads = None,
) -> None:
    """Segment affinities and write the labels.

    Connected components by default; with --grow they are seeds that grow along weaker edges; with --seeds every voxel
    gets the seed that the strongest edges lead to; --by watershed needs no seeds.

    A Zarr or HDF5 volume that exceeds --memory is segmented and written chunk by chunk, into a Zarr
    store; SEEDS are read from such files, too. A run goes on where it was stopped when it is started again.
    """
    _set_up(quiet, verbose, as_json, threads)
    options = _segment.Options(
        aff=aff,
        output=output,
        threshold=threshold,
        grow=grow,
        by=by.value,
        seeds=seeds,
        gt=gt,
        score=score.value,
        min_size=min_size,
        ignore_label=ignore_label,
        small="merge" if small is Small.merge else "drop",
        nhood=nhood,
        channel_axis=channel_axis,
        axes=axes,
        gt_axes=gt_axes,
        ngff=None if ngff is None else ngff.value,
        force=force,
    )
    result = _segment.run(options, _large.Resources.of(memory, workers, scheduler))
    scores = None if result.compared is None else _scores(*result.compared, min_size, 0.7, ignore_label)
    level = result.threshold
    _console.say(f"{output}: {result.objects} objects" + ("" if level is None else f", threshold {level:.6g}"))
    _print_scores(scores, {"output": output, "objects": result.objects, "threshold": level})


@app.command()
def evaluate(
    seg: Annotated[str, typer.Argument(metavar="SEG", help="Labels to score; 0 is background.")],
    gt: Truth,
    min_size: MinSize = 64,
    dice: Dice = 0.7,
    ignore_label: IgnoreLabel = None,
    axes: Axes = None,
    gt_axes: GtAxes = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
    threads: Threads = None,
) -> None:
    """Score labels against the truth.

    Unlabelled voxels of SEG are segments of one voxel for the Rand scores, as in
    SNEMI3D, and a single segment for the adapted Rand error and the variation
    of information, as in scikit-image. Scores of nothing are undefined.
    """
    _set_up(quiet, verbose, as_json, threads)
    with _console.steps(3) as step:
        step("reading SEG")
        pred = _inputs.read_labels(seg, "SEG", axes, step.tick)
        step("reading GT")
        truth = _inputs.read_labels(gt, "GT", gt_axes, step.tick, ignore_label)
        _inputs.check_shapes(seg, pred.shape, gt, truth.shape, "--axes or --gt-axes")
        step("scoring")
        scores = _scores(pred, truth, min_size, dice, ignore_label)
    _print_scores(scores)


@app.command()
def curve(
    aff: Affinities,
    gt: Truth,
    plot: Annotated[Path | None, typer.Option(metavar="PNG|PDF|SVG", help="Draw the curve.")] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="NPZ", help="Write every threshold with its scores.")
    ] = None,
    ignore_label: IgnoreLabel = None,
    nhood: Nhood = None,
    channel_axis: ChannelAxis = None,
    axes: Axes = None,
    gt_axes: GtAxes = None,
    force: Force = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
    threads: Threads = None,
) -> None:
    """Score the segmentation at every threshold and print the best one by the F-score of pairs."""
    _set_up(quiet, verbose, as_json, threads)
    _check_file(plot, ("png", "pdf", "svg"), force)
    _check_file(output, ("npz",), force)
    with _console.steps(4) as step:
        step("reading affinities")
        affinities, offsets, _ = _inputs.read_affinities(aff, nhood, channel_axis, axes, step.tick)
        step("reading the truth")
        truth = _inputs.read_labels(gt, "GT", gt_axes, step.tick, ignore_label)
        _inputs.check_shapes(aff, affinities.shape[1:], gt, truth.shape, "--gt-axes")
        _inputs.check_values(affinities, aff, {})
        step("scoring every threshold")
        result = malis.rand_curve(affinities, truth, offsets, ignore_label=ignore_label)
        if len(result.thresholds) == 0:
            raise ValueError(f"{aff} has no edge between two voxels")
        if result.foreground == 0:
            raise ValueError(f"{gt} has no object, so that there is nothing to score")
        step("writing")
        if output is not None:
            _write_curve(result, output, force)
        if plot is not None:
            axis = _pyplot().subplots(figsize=(7, 4.5), layout="constrained")[1]
            malis.plot.rand_curve(result, axis)
            _save(axis.figure, plot, force)
    chosen = result.at(result.best_threshold)
    best = {name: getattr(chosen, name)[0].item() for name in _CURVE}
    _print_scores({"threshold": best.pop("thresholds"), **best})


def _write_curve(result: malis.RandCurve, output: Path, force: bool) -> None:
    with (
        _io.replacing(output, force=force) as temporary,
        zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED) as archive,
    ):
        for name in _CURVE:
            # From a copy, which does not keep it: all of them may take ten times the memory of the affinities.
            with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
                np.lib.format.write_array(file, getattr(copy.copy(result), name), allow_pickle=False)


@app.command()
def compare(
    places: Annotated[
        list[str],
        typer.Argument(metavar="SEG... GT", help="Labels of one or more segmentations, and last those of the truth."),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="PNG", help="The picture.")] = Path(
        "malis_compare.png"
    ),
    image: Annotated[str | None, typer.Option(metavar="IMAGE", help="Grey values to draw over.")] = None,
    axis: PictureAxis = Axis.z,
    section: Section = None,
    min_size: MinSize = 64,
    dice: Dice = 0.7,
    force: Force = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
    threads: Threads = None,
) -> None:
    """Draw segmentations side by side, with where they split and merge objects of the truth, and print their scores."""
    _set_up(quiet, verbose, as_json, threads)
    if len(places) < 2:
        raise ValueError(f"compare takes at least one segmentation and the truth, got {' '.join(places)} alone")
    _check_file(output, ("png", "pdf", "svg"), force)
    *segs, gt = places
    with _console.steps(3) as step:
        step("reading")
        truth = _io.read_labels(gt, tick=step.tick)
        target = _checks.as_labels(truth.array, f"GT ({gt})")
        grey = None
        if image is not None:
            grey = _io.read_image(image).array
            _inputs.check_shapes(image, grey.shape, gt, target.shape, "another file")
        preds = []
        for place in segs:
            preds.append(_inputs.read_labels(place, "SEG", None, step.tick))
            _inputs.check_shapes(place, preds[-1].shape, gt, target.shape, "another file")
        step("scoring")
        scores = {place: _scores(pred, target, min_size, dice) for place, pred in zip(segs, preds, strict=True)}
        step("drawing")
        plt = _pyplot()
        malis.plot.comparison(
            target,
            dict(zip(segs, preds, strict=True)),
            image=grey,
            axis=axis.value,
            section=section,
            voxel_size=truth.grid.scale,
            unit=truth.grid.short_unit,
        )
        _save(plt.gcf(), output, force)
    _console.show_table(scores)
    _console.say(f"picture: {output}")
    _console.show_json({"picture": str(output), "scores": scores})


@app.command()
def demo(
    output: Annotated[Path, typer.Option("--output", "-o", metavar="PNG", help="The picture.")] = Path(
        "malis_demo.png"
    ),
    seed: Annotated[int, typer.Option(min=0, help="Another seed draws other cells.")] = 0,
    force: Force = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
    threads: Threads = None,
) -> None:
    """Draw cells and noisy affinities, choose the threshold, segment, score, and save a picture; a few seconds."""
    _set_up(quiet, verbose, as_json, threads)
    _check_file(output, ("png", "pdf", "svg"), force)
    from malis.synthetic import synthetic_affinities, synthetic_image

    nhood, min_size = malis.mknhood2d(1), 64
    with _console.steps(5) as step:
        step("drawing cells")
        drawn = [synthetic_image(2 * seed + i) for i in range(2)]
        (_, other), (image, truth) = drawn
        affs = [synthetic_affinities(labels, nhood, 2 * seed + i) for i, (_, labels) in enumerate(drawn)]
        step("scoring every threshold")
        result = malis.rand_curve(affs[0], other, nhood)
        step("choosing the threshold")
        found = malis.find_threshold(affs[:1], [other], nhood, min_size=min_size)
        step("segmenting")
        seg, _ = malis.affgraph_to_seg(affs[1], nhood, min_size=min_size, threshold=found.threshold)
        step("drawing")
        figure, axes = _pyplot().subplots(2, 3, figsize=(12, 8.9), layout="constrained")
        malis.plot.labels(truth, axes[0, 0], image=image[0]).set_title("image and truth", fontsize="medium")
        malis.plot.affinities(affs[1], nhood, axes[0, 1])
        malis.plot.deciding_edges(malis.pairs(affs[1], truth, nhood), nhood, axes[0, 2], image=image[0])
        malis.plot.rand_curve(result, axes[1, 0], threshold=found.threshold, chosen_by="object score")
        malis.plot.labels(seg, axes[1, 1])
        malis.plot.errors(truth, seg, axes[1, 2])
        _save(figure, output, force)
    _console.say(f"threshold {found.threshold:.3f}: object score {found.score:.3f} on the image it was chosen on")
    _print_scores(
        _scores(seg, truth, min_size, 0.7),
        {"threshold": found.threshold, "score_where_chosen": found.score, "picture": str(output)},
    )
    _console.say(f"picture: {output}")


def run(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status. Bad input gives 2 and one line."""
    # An interrupted run takes its temporary files along: SIGTERM ends it as Ctrl-C does.
    before, threads = signal.signal(signal.SIGTERM, _interrupt), malis.get_num_threads()
    try:
        status = app(args=None if argv is None else list(argv), prog_name="malis", standalone_mode=False)
        if status == _INTERRUPTED:  # what newer versions of Typer make of Ctrl-C, older ones raise Abort
            raise KeyboardInterrupt
        return 0
    except (KeyboardInterrupt, typer.Abort):
        return _console.fail("interrupted", _INTERRUPTED)
    except MemoryError as error:
        return _console.fail(f"not enough memory: {error}", 2)
    except (ValueError, TypeError, OSError, ImportError) as error:
        return _console.fail(str(error), 2)
    except Exception as error:
        if not hasattr(error, "format_message"):  # an error of the command line, as Typer and Click raise it
            raise
        return _console.fail(error.format_message(), 2)
    finally:
        signal.signal(signal.SIGTERM, before)
        malis.set_num_threads(threads)


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


# ---------------------------------------------------------------------------------------------------------------------
# Scores and pictures
# ---------------------------------------------------------------------------------------------------------------------


def _scores(
    seg: npt.NDArray[Any], truth: npt.NDArray[Any], min_size: int, dice: float, ignore_label: int | None = None
) -> dict[str, float]:
    """Count objects and compute all scores; warn of those that are undefined."""
    table = metrics.contingency_table(truth, seg, ignore_label=ignore_label)
    matches = metrics.match_objects(table=table, min_size=min_size)
    scores: dict[str, float] = {
        "true_objects": matches.n_true,
        "predicted_objects": matches.n_predicted,
        "found_objects": int(np.count_nonzero(matches.found(dice))),
        "too_small_true_objects": matches.n_true_small,
        "too_small_predicted_objects": matches.n_predicted_small,
        **metrics.evaluate(min_size=min_size, dice_threshold=dice, table=table)._asdict(),
        "average_precision": metrics.average_precision(min_size=min_size, table=table).mean,
        "adapted_rand_error": metrics.adapted_rand_error(table=table),
    }
    cremi = metrics.cremi_score(table=table)
    scores.update(voi_split=cremi.voi_split, voi_merge=cremi.voi_merge, cremi_score=cremi.score)
    if matches.n_true == matches.n_predicted == 0:
        _console.warn(
            f"no object of at least {min_size} voxels on either side: the scores of objects are undefined "
            f"({matches.n_true_small} true and {matches.n_predicted_small} predicted ones are smaller)"
        )
    if math.isnan(cremi.score):
        _console.warn("the truth has no object: the scores of pairs and voxels are undefined")
    return scores


def _print_scores(scores: dict[str, float] | None, beside: dict[str, Any] | None = None) -> None:
    """Print scores as a table, or, with what else there is to say, as JSON."""
    if scores is not None:
        _console.show_table({"value": scores})
    _console.show_json({**(beside or {}), **(scores or {})})


def _check_file(path: Path | None, suffixes: tuple[str, ...], force: bool) -> None:
    if path is None:
        return
    if path.suffix.lower().lstrip(".") not in suffixes:
        raise ValueError(f"{path} must end in {' or '.join('.' + suffix for suffix in suffixes)}")
    _io.check_link(path, force=force)
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
