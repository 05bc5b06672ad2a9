"""The table of targets. A row is added here, in `TARGETS`, and nowhere else.

Each row says what is called, what it is compared with, and how many times as long it may take. In the text of a row,
{small}, {large}, {image} and {threads} stand for the sizes and the number of threads of a run.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import calls
import data
import yardsticks
from calls import Timed

ARGSORT = "x `numpy.argsort`"
PLAIN = "x plain `malis_loss`"


class Sizes(NamedTuple):
    """Sides of the volumes and images of a run."""

    small: int
    large: int
    image: int

    def shape(self, size: str) -> tuple[int, ...]:
        side: int = getattr(self, size)
        return (side,) * (2 if size == "image" else 3)

    def text(self, size: str) -> str:
        side, *others = self.shape(size)
        return f"{side}^{1 + len(others)}"


FULL, QUICK = Sizes(128, 256, 512), Sizes(32, 40, 64)


class Remark(NamedTuple):
    """A sentence below the table, with {other}, the median of a further call, and {ratio}, that of the row to it."""

    call: Timed
    text: str


@dataclass(frozen=True, kw_only=True)
class Target:
    """One row: the median of `call` is compared with the median of `yardstick`.

    Rows of one group are measured together: their calls take turns, and what stands in several rows is timed once.
    """

    key: str
    group: str
    what: str
    limit: float
    unit: str
    call: Timed
    yardstick: Timed
    at_most: bool = True  # else `limit` is how many times as fast as the yardstick the call has to be
    per_edge: bool = False  # compare the times per edge
    user_time: bool = False  # also compare the processor time without that of the system
    against: float | None = None  # with --against: at most so many times the time of the other build
    needs: str = ""  # import name of a package, and in brackets what it is called where it is installed from
    remark: Remark | None = None

    def __post_init__(self) -> None:
        if self.call.check is None:
            raise ValueError(f"{self.key}: nothing checks the result of {self.call.name}")


@dataclass(frozen=True, kw_only=True)
class MemoryTarget:
    """A row on peak memory, read in processes of its own at both sizes of a volume."""

    key: str
    group: str
    what: str
    limit: float
    unit: str
    candidate: str  # label of one of yardsticks.CANDIDATES
    at_most: bool = True


def _worst_key(case: str) -> str:
    return "worst_" + re.sub(r"\W+", "_", case)


# Objects of scattered voxels make one tree of the whole volume, out of cache; all else is to stay near the usual case.
_WORST_LIMITS = {"random labels": 5.0}

LOSS = Target(
    key="loss",
    group="small",
    what="`malis_loss` (loss and gradient), {small}, 3 offsets",
    limit=0.25,
    unit=ARGSORT,
    call=calls.loss(),
    yardstick=calls.argsort(),
    against=0.75,
    remark=Remark(
        calls.copy_of_affinities(),
        "The floor, reading the affinities and writing as many numbers to new memory once (`aff.copy()`), is "
        "{other} at {small}; `malis_loss` takes {ratio:.3g} times as long.",
    ),
)

WORST = {
    case: Target(
        key=_worst_key(case),
        group="worst",
        what=f"`malis_loss`, {{small}}, {case}" + (" (time per edge)" if case == "12 long-range offsets" else ""),
        limit=_WORST_LIMITS.get(case, 4),
        unit="x the realistic case",
        call=calls.loss().on(kind=case),
        yardstick=calls.loss(),
        per_edge=True,
    )
    for case in data.WORST
}

BASIC: list[Target | MemoryTarget] = [
    LOSS,
    Target(
        key="loss_large",
        group="large",
        what="`malis_loss`, {large}, 3 offsets",
        limit=0.25,
        unit=ARGSORT,
        call=calls.loss().on(size="large"),
        yardstick=calls.argsort().on(size="large"),
    ),
    Target(
        key="pairs",
        group="small",
        what="`pairs` (dense int64 counts), {small}",
        limit=0.5,
        unit=ARGSORT,
        call=calls.pairs(),
        yardstick=calls.argsort(),
    ),
    Target(
        key="batch",
        group="batch",
        what="`malis_loss`, batch of 8 images of {image}, 2 offsets",
        limit=0.35,
        unit=ARGSORT + " of the batch",
        call=calls.loss().on(kind="eight samples", size="image"),
        yardstick=calls.argsort().on(kind="eight samples", size="image"),
    ),
    Target(
        key="torch",
        group="two samples",
        what="PyTorch `MalisLoss`, forward and backward, 2 x {small}",
        limit=0.5,
        unit=ARGSORT + " of one sample",
        call=calls.torch_step(),
        yardstick=calls.argsort_of_one_sample(),
        needs="torch",
    ),
    Target(
        key="weights_pos",
        group="small",
        what="`malis_loss_weights` (drop-in), positive, {small}",
        limit=1.0,
        unit=ARGSORT,
        call=calls.loss_weights(1),
        yardstick=calls.argsort(),
    ),
    Target(
        key="weights_neg",
        group="small",
        what="`malis_loss_weights` (drop-in), negative, {small}",
        limit=1.0,
        unit=ARGSORT,
        call=calls.loss_weights(0),
        yardstick=calls.argsort(),
    ),
    MemoryTarget(
        key="memory",
        group="memory",
        what="peak memory of `malis_loss` beyond inputs and outputs",
        limit=16,
        unit="bytes per edge",
        candidate="malis.malis_loss",
    ),
    Target(
        key="components",
        group="large",
        what=f"`affgraph_to_seg(aff, nhood, threshold={yardsticks.THRESHOLD})`, {{large}}",
        limit=1.0,
        unit="x `cc3d.color_connectivity_graph`",
        call=calls.components().on(size="large"),
        yardstick=calls.cc3d_components().on(size="large"),
        needs="cc3d (connected-components-3d)",
    ),
    Target(
        key="connect_labels",
        group="large",
        what="`connect_labels`, {large}",
        limit=0.33,
        unit="x `skimage.measure.label`",
        call=calls.connect_labels().on(size="large"),
        yardstick=calls.skimage_label().on(size="large"),
        needs="skimage (scikit-image)",
    ),
    Target(
        key="seg_to_affgraph",
        group="large",
        what="`seg_to_affgraph`, {large}",
        limit=1.5,
        unit="x `numpy.copyto` of its output",
        call=calls.seg_to_affgraph().on(size="large"),
        yardstick=calls.copyto_of_true_affinities().on(size="large"),
        remark=Remark(
            calls.copy_of_true_affinities().on(size="large"),
            "`numpy.copyto` writes to memory that is there; `seg_to_affgraph` allocates its output. Against "
            "`output.copy()`, which allocates as well, it takes {ratio:.3g} x the time.",
        ),
    ),
    Target(
        key="curve",
        group="small",
        what="`rand_curve` (all thresholds), {small}",
        limit=1.0,
        unit="x 10 thresholds, segmented and scored one by one",
        call=calls.rand_curve(),
        yardstick=calls.threshold_sweep(),
        needs="skimage (scikit-image)",
    ),
    *WORST.values(),
]


def _plain(key: str, group: str, what: str, limit: float, call: Timed, **more: object) -> Target:
    """Compare a call with the plain `malis_loss` of the same size."""
    yardstick = calls.loss().on(size=call.size)
    what = f"{what}, {{{call.size}}}"
    return Target(key=key, group=group, what=what, limit=limit, unit=PLAIN, call=call, yardstick=yardstick, **more)  # type: ignore[arg-type]


# Ground truth is sparse, crops are padded, labels are ignored: masks are what a training passes at every step.
TOGETHER = {
    "edge_mask_slab": ("`edge_mask`, an eighth of the volume False", {"edge_mask": data.all_but_a_slab}),
    "edge_mask_cube": ("`edge_mask`, a cube False", {"edge_mask": data.all_but_a_cube}),
    "unlabelled_slab": ("`unlabelled_mask`, an eighth of the volume True", {"unlabelled_mask": data.slab}),
    "unlabelled_cube": ("`unlabelled_mask`, a cube True", {"unlabelled_mask": data.cube}),
}
MASKS = [
    _plain("edge_mask_all", "masks", "`edge_mask`, all True", 1.15, calls.loss(edge_mask=data.all_known)),
    *(_plain(key, "masks", what, 1.5, calls.loss(**mask)) for key, (what, mask) in TOGETHER.items()),
    _plain("edge_mask_random", "masks", "`edge_mask`, 10 % False at random", 4, calls.loss(edge_mask=data.nine_tenths)),
    *(
        _plain(f"{key}_large", "large masks", what, 1.5, calls.loss(**mask).on(size="large"))
        for key, (what, mask) in TOGETHER.items()
    ),
]

OPTIONS = [
    _plain("background", "options", "`ignore_background=False`", 1.6, calls.loss(ignore_background=False)),
    _plain("margin_0", "options", "`margin=0`", 1.6, calls.loss(margin=0.0)),
    _plain("cross_entropy", "options", '`pointwise="cross_entropy"`', 1.6, calls.loss(pointwise="cross_entropy")),
    _plain("float64", "options", "float64 affinities", 1.6, calls.loss().on(kind="float64")),
    _plain("free_negative", "unconstrained", "`constrain_negative=False`", 3, calls.loss(constrain_negative=False)),
    _plain(
        "loss_2009",
        "unconstrained",
        "`constrain_positive=False, constrain_negative=False` (2009)",
        3,
        calls.loss(constrain_positive=False, constrain_negative=False),
    ),
    _plain("spanning_tree", "unconstrained", "`maximum_spanning_tree`", 3, calls.spanning_tree()),
    _plain("rand_curve", "segmentation", "`rand_curve`", 5, calls.rand_curve(), needs="skimage (scikit-image)"),
    _plain("watershed", "segmentation", "`watershed_from_affgraph`, a seed for each object", 2.5, calls.watershed()),
]

NODE_LISTS = [
    _plain("nodes_pos", "node lists", "`malis_loss_weights`, positive, nodes of the volume", 3, calls.loss_weights(1)),
    _plain("nodes_neg", "node lists", "`malis_loss_weights`, negative, nodes of the volume", 3, calls.loss_weights(0)),
    _plain(
        "nodes_step",
        "node lists",
        "`malis_loss_weights`, the four calls of a step on two volumes",
        12,
        calls.loss_weights_of_batch(),
        against=0.2,
    ),
    _plain("nodes_edge_pairs", "node lists", "`edge_pairs`, nodes of the volume", 3, calls.edge_pairs()),
    _plain(
        "nodes_edge_pairs_2009",
        "node lists",
        "`edge_pairs`, nodes of the volume, both constraints off",
        3,
        calls.edge_pairs(constrain_positive=False, constrain_negative=False),
    ),
]


def _growth(target: Target, group: str, key: str | None = None) -> Target:
    """Compare the call of a row with itself: the large volume with the small one."""
    return Target(
        key=key or f"growth_{target.key}",
        group=group,
        what=target.what.replace("{small}", "{large}"),
        limit=9,
        unit="x its own time at {small}",
        call=target.call.on(size="large"),
        yardstick=target.call,
        user_time=True,
        needs=target.needs,
    )


GROWTH = [
    _growth(LOSS, "large", "growth"),
    *(_growth(target, "large masks") for target in MASKS if target.call.size == "small"),
    *(_growth(target, f"large {target.group}") for target in OPTIONS),
    # The four calls of a step are those of the rows before, on two volumes.
    *(_growth(target, "large node lists") for target in NODE_LISTS if target.key != "nodes_step"),
    _growth(WORST["random labels"], "large worst"),
]


def _threads(key: str, group: str, what: str, call: Callable[..., Timed], needs: str = "") -> Target:
    """Compare a call on the threads of the run with the same one on one thread."""
    return Target(
        key=key,
        group=group,
        what=f"{what}, {{large}}, {{threads}} threads",
        limit=1.8,
        unit="x as fast as 1 thread",
        at_most=False,
        call=call().on(size="large"),
        yardstick=call(num_threads=1).on(size="large"),
        needs=needs,
    )


THREADS = [
    _threads("threads", "large", "`malis_loss`", calls.loss),
    *(
        _threads(f"threads_{key}", "large masks", f"`malis_loss`, {what}", partial(calls.loss, **mask))
        for key, (what, mask) in TOGETHER.items()
    ),
    _threads("threads_rand_curve", "large segmentation", "`rand_curve`", calls.rand_curve, "skimage (scikit-image)"),
    _threads("threads_watershed", "large segmentation", "`watershed_from_affgraph`", calls.watershed),
]

TARGETS: dict[str, Target | MemoryTarget] = {
    target.key: target for target in (*BASIC, *MASKS, *OPTIONS, *NODE_LISTS, *GROWTH, *THREADS)
}
