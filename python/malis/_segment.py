"""What `malis segment` does: checks how its options go together, segments, writes the labels."""

from __future__ import annotations

import dataclasses
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

import malis
from malis import _checks, _console, _inputs, _io, _large
from malis._method import Method


@dataclasses.dataclass(frozen=True)
class Options:
    """The options of the command, as given."""

    aff: str
    output: str
    threshold: str | None
    grow: float | None
    by: str
    seeds: str | None
    gt: str | None
    score: str
    min_size: int
    ignore_label: int | None
    small: Literal["drop", "merge"]
    nhood: str | None
    channel_axis: int | None
    axes: str | None
    gt_axes: str | None
    ngff: str | None
    force: bool

    @property
    def watershed(self) -> bool:
        """Whether objects are the basins of a watershed, not connected components."""
        return self.by == "watershed" or self.seeds is not None

    @property
    def level(self) -> float | None:
        """The threshold as a number; None where it is to be chosen, or where there is none."""
        if self.threshold == "auto" or (self.threshold is None and self.watershed):
            return None
        text = self.threshold or "0.5"
        try:
            return _checks.as_threshold(float(text), "--threshold")
        except ValueError:
            raise ValueError(f"--threshold must be a number or auto, got {text!r}") from None

    def check(self) -> None:
        """Raise where options do not go together."""
        if self.seeds is not None and self.by == "watershed":
            raise ValueError("--seeds starts a seeded watershed, --by watershed one without seeds: give one of them")
        if self.watershed and self.threshold == "auto":
            raise ValueError("--threshold auto chooses for connected components: leave out --seeds and --by watershed")
        if self.watershed and self.small == "merge":
            raise ValueError("--small merge joins connected components: leave out --seeds and --by watershed")
        if self.grow is not None and self.watershed:
            raise ValueError("--grow lets connected components grow: leave out --seeds and --by watershed")
        if self.grow is not None and self.small == "merge":
            raise ValueError("--grow starts from components that are large enough: leave out --small merge")
        level = self.level
        if self.grow is not None and level is not None and self.grow > level:
            raise ValueError(f"--grow must be at most the threshold {level:g}, got {self.grow}")
        if self.threshold == "auto" and self.gt is None:
            raise ValueError("--threshold auto needs the truth: --gt")

    def need_of_whole(self) -> list[str]:
        """Name the options that cannot be had chunk by chunk."""
        whole = {
            "--gt": self.gt is not None,
            "--seeds that are no Zarr store or HDF5 file": self.seeds is not None
            and _io.parse(self.seeds).suffix not in _io.IN_PARTS,
            "--small merge": self.small == "merge",
            "an output that is no Zarr store": _io.parse(self.output).suffix != "zarr",
        }
        return [name for name, given in whole.items() if given]

    def method(self, threshold: float | None) -> Method:
        """Return how affinities become labels; `threshold` is the one that was given or chosen."""
        return Method(threshold, self.grow, self.by == "watershed", self.min_size)

    def provenance(self, threshold: float | None, offsets: npt.NDArray[np.int64]) -> dict[str, Any]:
        """Return what is written beside the labels: how they came about."""
        names = ("threshold", "grow", "by", "seeds", "score", "min_size", "ignore_label", "small")
        return {
            "version": malis.__version__,
            "command": "segment",
            "affinities": self.aff,
            "gt": self.gt,
            "threshold": threshold,
            "options": {
                **{name: getattr(self, name) for name in names},
                "nhood": offsets.tolist(),
                "channel_axis": self.channel_axis,
                "axes": self.axes,
            },
        }


class Result(NamedTuple):
    """What was written."""

    objects: int
    threshold: float | None
    compared: tuple[npt.NDArray[Any], npt.NDArray[Any]] | None = None
    """The labels and those of the truth, where there is one."""


def run(options: Options, resources: _large.Resources) -> Result:
    """Segment, chunk by chunk where there is not enough memory for the whole."""
    options.check()
    inputs = tuple(place for place in (options.aff, options.gt, options.seeds) if place is not None)
    _io.check_output(options.output, force=options.force, inputs=inputs, ngff=options.ngff)
    whole = options.need_of_whole()
    with _large.opened(options.aff, options.channel_axis, options.axes, resources, whole) as volume:
        if volume is not None:
            return _in_chunks(options, volume, resources)
    return _in_memory(options, len(inputs))


def _in_chunks(options: Options, volume: _io.Volume, resources: _large.Resources) -> Result:
    threshold = options.level
    offsets = _inputs.check_affinities(volume.array, volume.grid, options.aff, options.nhood, options.axes)
    with _console.steps(2) as step:
        objects = _large.segment(
            volume,
            offsets,
            options.aff,
            options.output,
            resources,
            method=options.method(threshold),
            seeds=options.seeds,
            provenance=options.provenance(threshold, offsets),
            force=options.force,
            ngff=options.ngff,
            step=step,
        )
    return Result(objects, threshold)


def _in_memory(options: Options, inputs: int) -> Result:
    threshold = options.level
    with _console.steps(inputs + 3) as step:
        step("reading affinities")
        affinities, offsets, grid = _inputs.read_affinities(
            options.aff, options.nhood, options.channel_axis, options.axes, step.tick
        )
        truth = seeds = None
        if options.gt is not None:
            step("reading the truth")
            truth = _inputs.read_labels(options.gt, "GT", options.gt_axes, step.tick, options.ignore_label)
            _inputs.check_shapes(options.aff, affinities.shape[1:], options.gt, truth.shape, "--gt-axes")
        if options.seeds is not None:
            step("reading seeds")
            seeds = _inputs.read_labels(options.seeds, "SEEDS", None, step.tick)
            _inputs.check_shapes(options.aff, affinities.shape[1:], options.seeds, seeds.shape, "another file")
        step("choosing the threshold" if options.threshold == "auto" else "checking")
        _inputs.check_values(affinities, options.aff, {"--threshold": threshold, "--grow": options.grow})
        values = _checks.as_stored_affinities(affinities, "AFF")
        del affinities
        if options.threshold == "auto":
            assert truth is not None
            threshold = malis.find_threshold(
                [values],
                [truth],
                offsets,
                score=options.score,
                min_size=options.min_size,
                ignore_label=options.ignore_label,
                progress=step.tick,
            ).threshold
        step("segmenting")
        seg, _ = options.method(threshold).segment(malis, values, offsets, seeds, small=options.small)
        del values
        objects = int(np.count_nonzero(np.bincount(seg.ravel())[1:]))
        step("writing")
        _io.write_labels(
            options.output,
            seg,
            options.provenance(threshold, offsets),
            force=options.force,
            grid=grid,
            ngff=options.ngff,
            tick=step.tick,
        )
    return Result(objects, threshold, None if truth is None else (seg, truth))
