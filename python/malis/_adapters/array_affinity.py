"""`AffinityLoss` for frameworks whose arrays cannot be written to, JAX and TensorFlow: the same steps for both.

The axes may have sizes that only the running graph knows, so edges are found by rolling the labels and by comparing
positions with the size of each axis, and not by slices.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np

from malis._adapters import affinity
from malis._adapters.affinity import SMALLEST_PROBABILITY, Recipe
from malis._adapters.settings import Settings, Tensor


class Ops(Protocol):
    """What is needed of a framework."""

    def seen(self, x: Any, name: str) -> Tensor: ...
    def sizes(self, x: Any) -> Sequence[Any]: ...
    def cast(self, x: Any, dtype: str) -> Any: ...
    def roll(self, x: Any, shifts: list[int], axes: list[int]) -> Any: ...
    def arange(self, n: Any) -> Any: ...
    def reshape(self, x: Any, shape: Sequence[Any]) -> Any: ...
    def broadcast(self, x: Any, sizes: Sequence[Any]) -> Any: ...
    def squeeze(self, x: Any, axis: int) -> Any: ...
    def stack(self, xs: list[Any], axis: int) -> Any: ...
    def take(self, x: Any, channels: list[int], axis: int) -> Any: ...
    def full_like(self, x: Any, value: int) -> Any: ...
    def where(self, condition: Any, a: Any, b: Any) -> Any: ...
    def total(self, x: Any) -> Any: ...
    def clip(self, x: Any, low: float, high: float) -> Any: ...
    def log(self, x: Any) -> Any: ...
    def cross_entropy_of_logits(self, logits: Any, truth: Any) -> Any: ...
    def constant(self, x: Any) -> Any: ...
    def when(self, condition: Any, compute: Callable[[], Any], like: Any) -> Any: ...
    def on_host(self, function: Callable[..., Any], dtype: str, like: Any, *arrays: Any) -> Any: ...
    def losses_of_samples(self, settings: Settings, labels: Any, output: Any, edge_mask: Any) -> Any: ...


class Losses(NamedTuple):
    """The parts of the loss of every sample, shape (B,), and the weight of MALIS."""

    total: Any
    cross_entropy: Any
    malis: Any
    weight: Any


def losses(ops: Ops, settings: Settings, recipe: Recipe, target: Any, output: Any, mask: Any, step: Any) -> Losses:
    """Compute the loss of every sample at a step, an integer or a scalar of the framework."""
    seen = None if mask is None else ops.seen(mask, "mask")
    names = settings.names
    given = affinity.given(
        settings, recipe.target, ops.seen(output, names.output), ops.seen(target, names.labels), seen
    )
    target = ops.constant(target)
    if mask is not None:
        mask = _checked(ops, ops.constant(mask), "mask", binary=recipe.malis > 0)
    if given.affinities:
        target = _checked(ops, target, names.labels, binary=False)
    dtype = "float64" if ops.seen(output, names.output).dtype == "float64" else "float32"
    truth = _Truth.of(ops, settings, given, target, output, mask, dtype)
    total = entropy = losses_of_malis = None
    if recipe.cross_entropy > 0:
        entropy = _cross_entropy(ops, settings.options.from_logits, recipe.balance, ops.cast(output, dtype), truth)
        total = recipe.cross_entropy * entropy
    weight = weight_at(ops, recipe, step, dtype)
    if isinstance(weight, float):
        if weight > 0:
            losses_of_malis = _malis(ops, settings, recipe, given, truth, target, output)
    else:
        like = ops.total(ops.cast(output, dtype)) if entropy is None else entropy
        losses_of_malis = ops.when(
            weight > 0, lambda: _malis(ops, settings, recipe, given, truth, target, output), like
        )
    if losses_of_malis is not None:
        total = weight * losses_of_malis + (0 if total is None else total)
    return Losses(total, entropy, losses_of_malis, weight)


def weight_at(ops: Ops, recipe: Recipe, step: Any, dtype: str = "float32") -> Any:
    """Weight of MALIS: a float where it is known, else a scalar of the framework."""
    constant = recipe.constant_weight()
    if constant is not None:
        return constant
    if isinstance(step, (int, np.integer)):
        return recipe.weight_at(int(step))
    past = ops.cast(step, dtype) - recipe.warmup
    share = ops.clip((past + 1) / (recipe.ramp + 1), 0.0, 1.0)
    return ops.where(past >= 0, recipe.malis * share, 0 * share)


class _Truth(NamedTuple):
    """In the layout of the output."""

    labels: Any  # (B, *spatial), None for a target of affinities
    edges: Any  # (B, K, *spatial): whether, or how surely, the ends of an edge belong together
    weights: Any  # (B, K, *spatial): what an edge counts in the cross entropy

    @classmethod
    def of(
        cls, ops: Ops, settings: Settings, given: affinity.Given, target: Any, output: Any, mask: Any, dtype: str
    ) -> _Truth:
        axis = settings.channel_axis()
        sizes = list(ops.sizes(output))
        del sizes[axis]
        voxels = None
        if given.mask == "voxels":
            mask = ops.broadcast(ops.squeeze(mask, axis) if given.mask_has_channel else mask, sizes)
            voxels = ops.cast(mask, dtype)
        labels, edges = None, target
        if not given.affinities:
            labels = ops.squeeze(target, axis) if given.target_has_channel else target
            ignored = affinity.label_in(ops.seen(labels, "").dtype, settings.options.ignore_label)
            if ignored is not None:
                known = ops.cast(labels != ops.full_like(labels, ignored), dtype)
                voxels = known if voxels is None else voxels * known
        truths, weights = [], []
        for offset in settings.nhood or ():
            inside = ops.cast(_inside(ops, sizes[1:], offset), dtype)
            shifts, axes = [-step for step in offset], list(range(1, len(offset) + 1))
            weights.append(
                ops.broadcast(inside, sizes) if voxels is None else inside * voxels * ops.roll(voxels, shifts, axes)
            )
            if labels is not None:
                same = labels == ops.roll(labels, shifts, axes)
                if settings.options.ignore_background:
                    same &= labels != ops.full_like(labels, 0)
                truths.append(same)
        if labels is not None:
            edges = ops.stack(truths, axis)
            if given.mask == "voxels":  # takes part in no pair, as background does not
                unknown = ops.full_like(labels, affinity.unknown_label(settings.options))
                labels = ops.where(ops.cast(mask, "bool"), labels, unknown)
        all_weights = ops.stack(weights, axis)
        if given.mask == "edges":
            all_weights = all_weights * ops.cast(mask, dtype)
        return cls(labels, ops.cast(edges, dtype), all_weights)


def _inside(ops: Ops, sizes: Sequence[Any], offset: tuple[int, ...]) -> Any:
    """Whether the edge of an offset that begins at a voxel ends in the volume; nowhere for a zero offset."""
    inside: Any = any(offset)
    for axis, step in enumerate(offset):
        ends = ops.arange(sizes[axis]) + step
        shape = [1] * (len(sizes) + 1)
        shape[axis + 1] = -1
        inside = ops.reshape((ends >= 0) & (ends < sizes[axis]), shape) & inside
    return inside


def _checked(ops: Ops, values: Any, name: str, binary: bool) -> Any:
    seen = ops.seen(values, name)
    if seen.dtype == "bool":
        return values
    values = ops.cast(values, seen.dtype if seen.dtype in ("float32", "float64") else "float32")

    def check(array: Any) -> Any:
        affinity.check_values(np.asarray(array), name, binary)
        return array

    return ops.on_host(check, ops.seen(values, name).dtype, values, values)


def _cross_entropy(ops: Ops, from_logits: bool, balance: bool, output: Any, truth: _Truth) -> Any:
    """Weighted mean over the edges of every sample; 0 where none is known."""
    if from_logits:
        each = ops.cross_entropy_of_logits(output, truth.edges)
    else:
        inside = ops.clip(output, SMALLEST_PROBABILITY, 1 - SMALLEST_PROBABILITY)
        each = -(truth.edges * ops.log(inside) + (1 - truth.edges) * ops.log(1 - inside))
    if not balance:
        return _mean(ops, each, truth.weights)[0]
    positive = truth.edges > 0.5
    zero = 0 * truth.weights
    of_positive, has_positive = _mean(ops, each, ops.where(positive, truth.weights, zero))
    of_negative, has_negative = _mean(ops, each, ops.where(positive, zero, truth.weights))
    return (of_positive + of_negative) / ops.clip(has_positive + has_negative, 1.0, 2.0)


def _mean(ops: Ops, each: Any, weights: Any) -> tuple[Any, Any]:
    """Weighted mean of every sample, and 1 where there is any weight, else 0."""
    counts = ops.total(weights)
    some = ops.where(counts > 0, counts, counts + 1)
    return ops.total(each * weights) / some, ops.where(counts > 0, counts / some, counts)


def _malis(
    ops: Ops, settings: Settings, recipe: Recipe, given: affinity.Given, truth: _Truth, target: Any, output: Any
) -> Any:
    nhood, axis = settings.nhood or (), settings.channel_axis()
    channels = list(recipe.malis_channels)
    labels = truth.labels
    if labels is None:
        labels = _labels_of_graphs(ops, settings, target, truth.weights)
    edge_mask = None if given.mask is None else truth.weights != 0
    if channels != list(range(len(nhood))):
        output = ops.take(output, channels, axis)
        edge_mask = None if edge_mask is None else ops.take(edge_mask, channels, axis)
    chosen = settings._replace(nhood=tuple(nhood[k] for k in channels))
    return ops.losses_of_samples(chosen, labels, output, edge_mask)


def _labels_of_graphs(ops: Ops, settings: Settings, target: Any, weights: Any) -> Any:
    axis = settings.channel_axis()
    offsets = np.asarray(settings.nhood, dtype=np.int64)

    def label(graphs: Any, weights: Any) -> Any:
        graphs, known = (np.moveaxis(np.asarray(a), axis, -offsets.shape[1] - 1) for a in (graphs, weights))
        batch = graphs.shape[: -offsets.shape[1] - 1]  # with the axes that vmap has put in front
        flat = [a.reshape(-1, *a.shape[len(batch) :]) for a in (graphs, known)]
        segs = [affinity.labels_of_graph(graph, mask != 0, offsets) for graph, mask in zip(*flat, strict=True)]
        return np.stack(segs).reshape(*batch, *segs[0].shape)

    single = ops.take(ops.cast(target, "int32"), [0], axis)
    return ops.on_host(label, "int32", ops.squeeze(single, axis), ops.cast(target, "float32"), weights)
