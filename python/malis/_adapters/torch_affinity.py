"""`AffinityLoss` on tensors of PyTorch: the truth of the edges, their cross entropy, and MALIS.

Masks and affinity graphs are looked at by custom operators, so that ``torch.compile`` sees no values.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, cast

import numpy as np
import torch
from torch import Tensor

from malis._adapters import affinity
from malis._adapters.affinity import SMALLEST_PROBABILITY, WEIGHTS_ARE_NOT_FOR_MALIS, Recipe
from malis._adapters.settings import Nhood, Settings
from malis._adapters.torch_op import as_seen, losses_of_samples
from malis.nhood import ends


class Losses(NamedTuple):
    """The parts of the loss of every sample, shape (B,)."""

    total: Tensor
    cross_entropy: Tensor | None
    malis: Tensor | None


class _Truth(NamedTuple):
    """Channels first."""

    labels: Tensor | None  # (B, *spatial), 0 where unknown; None: not needed
    edges: Tensor  # (B, K, *spatial): whether, or how surely, the ends of an edge belong together
    weights: Tensor  # (B, K, *spatial): bool, or what an edge counts in the cross entropy


def losses(
    settings: Settings,
    recipe: Recipe,
    target: Tensor,
    output: Tensor,
    mask: Tensor | None,
    weight: float,
    gt_seg: Tensor | None = None,
) -> Losses:
    """Compute the loss of every sample, with the weight that MALIS has at this step."""
    seen = None if mask is None else as_seen(mask, "mask")
    names = settings.names
    given = affinity.given(settings, recipe.target, as_seen(output, names.output), as_seen(target, names.labels), seen)
    if mask is not None:
        mask = _within_0_and_1(mask, "mask", binary=recipe.malis > 0)
    target = _within_0_and_1(target, names.labels, binary=False) if given.affinities else target.detach()
    if gt_seg is not None:
        if not given.affinities:
            raise ValueError(f"gt_seg needs affinities as {names.labels}: labels tell the objects themselves")
        settings = settings._replace(names=names._replace(labels="gt_seg"))
        if settings.check(as_seen(output, names.output), as_seen(gt_seg, "gt_seg"), None, None).labels_have_channel:
            gt_seg = gt_seg.squeeze(settings.channel_axis())
        gt_seg = gt_seg.detach()
    if settings.channels_last:
        output = output.movedim(-1, 1)
        target = target if target.dim() < output.dim() else target.movedim(-1, 1)
        mask = mask if mask is None or mask.dim() < output.dim() else mask.movedim(-1, 1)
        settings = settings._replace(channels_last=False)
    truth = _truth(settings, given, target, gt_seg, output, mask, weight > 0)
    total = output.new_zeros(output.shape[0], dtype=torch.float64 if output.dtype == torch.float64 else torch.float32)
    entropy = losses_of_malis = None
    if recipe.cross_entropy > 0:
        entropy = _cross_entropy(settings.options.from_logits, recipe.balance, output, truth)
        total = total + recipe.cross_entropy * entropy
    if weight > 0:
        losses_of_malis = _malis(settings, recipe, given.mask is not None, truth, output)
        total = total + weight * losses_of_malis
    return Losses(total, entropy, losses_of_malis)


# ---------------------------------------------------------------------------------------------------- the truth
def _truth(
    settings: Settings,
    given: affinity.Given,
    target: Tensor,
    gt_seg: Tensor | None,
    output: Tensor,
    mask: Tensor | None,
    needs_labels: bool,
) -> _Truth:
    spatial = output.shape[2:]
    if mask is not None:
        mask = mask.to(output.device)
        if given.mask == "voxels":
            mask = mask.squeeze(1) if given.mask_has_channel else mask
            mask = mask.expand(output.shape[0], *spatial)
        else:
            mask = mask.expand(output.shape)
    known = mask if given.mask == "voxels" else None
    labels, on_device = gt_seg, None
    if not given.affinities:
        labels = target.squeeze(1) if given.target_has_channel else target
    if labels is not None:
        options = settings.options
        ignore_label = affinity.label_in(as_seen(labels, "").dtype, options.ignore_label)
        labels = _comparable(labels)
        on_device = labels.to(output.device)
        if ignore_label is not None:
            carries_label = torch.ne(on_device, ignore_label - 2**64 if ignore_label >= 2**63 else ignore_label)
            known = carries_label if known is None else known * carries_label
        if mask is not None and given.mask == "voxels" and needs_labels:
            voxels = torch.ne(mask, 0).to(labels.device)
            labels = labels.masked_fill(~voxels, affinity.unknown_label(options))
    compared = None if given.affinities else on_device
    edges, weights = _of_voxels(settings.nhood or (), compared, known, output, settings.options.ignore_background)
    if given.affinities:
        edges = target.to(output.device)
    if mask is not None and given.mask == "edges":
        weights = weights * mask
    if labels is None and needs_labels:
        flat = [step for offset in settings.nhood or () for step in offset]
        labels = _labels_of_graph(target, (weights != 0).to(target.device), flat)
    return _Truth(labels, edges, weights)


def _comparable(labels: Tensor) -> Tensor:
    """Turn unsigned dtypes that PyTorch cannot compare into int64."""
    return labels.long() if labels.dtype in (torch.uint16, torch.uint32, torch.uint64) else labels


def _of_voxels(
    nhood: Nhood, labels: Tensor | None, known: Tensor | None, output: Tensor, ignore_background: bool
) -> tuple[Tensor, Tensor]:
    """Tell for every edge whether both ends carry one label, and what it counts: the product of both ends."""
    dtype = torch.bool if known is None else known.dtype
    weights = torch.zeros(output.shape, dtype=dtype, device=output.device)
    same = torch.zeros(output.shape if labels is not None else (0,), dtype=torch.bool, device=output.device)
    for k, offset in enumerate(nhood):
        both = ends(output.shape[2:], offset)
        if both is None or not any(offset):
            continue
        begin, end = ((slice(None), *slices) for slices in both)
        weights[:, k][begin] = True if known is None else known[begin] * known[end]
        if labels is not None:
            equal = labels[begin] == labels[end]
            same[:, k][begin] = equal & (labels[begin] != 0) if ignore_background else equal
    return same, weights


# ------------------------------------------------------------------------------------------------------ the parts
def _cross_entropy(from_logits: bool, balance: bool, output: Tensor, truth: _Truth) -> Tensor:
    """Weighted mean over the edges of every sample; 0 where none is known."""
    dtype = torch.float64 if output.dtype == torch.float64 else torch.float32
    with torch.autocast(output.device.type, enabled=False):
        output, edges = output.to(dtype), truth.edges.to(dtype)
        if from_logits:
            each = torch.nn.functional.binary_cross_entropy_with_logits(output, edges, reduction="none")
        else:
            inside = output.clamp(SMALLEST_PROBABILITY, 1 - SMALLEST_PROBABILITY)
            each = torch.nn.functional.binary_cross_entropy(inside, edges, reduction="none")
        weights = truth.weights.to(dtype)
        if not balance:
            sums, counts = _sums(each, weights)
            return sums / torch.where(counts > 0, counts, 1)
        positive = edges > 0.5
        means, present = output.new_zeros(()), output.new_zeros(())
        for of_kind in (positive, ~positive):
            sums, counts = _sums(each, weights * of_kind)
            means = means + sums / torch.where(counts > 0, counts, 1)
            present = present + (counts > 0)
        return means / present.clamp(min=1)


def _sums(each: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    axes = tuple(range(1, each.dim()))
    return (each * weights).sum(axes), weights.sum(axes)


def _malis(settings: Settings, recipe: Recipe, masked: bool, truth: _Truth, output: Tensor) -> Tensor:
    nhood = settings.nhood or ()
    channels = list(recipe.malis_channels)
    # Edges that leave the volume do not exist for MALIS, so a mask is needed only where something is unknown.
    edge_mask = truth.weights != 0 if masked else None
    if channels != list(range(len(nhood))):
        output = _take(output, channels)
        edge_mask = None if edge_mask is None else _take(edge_mask, channels)
    chosen = settings._replace(nhood=tuple(nhood[k] for k in channels))
    assert truth.labels is not None
    return losses_of_samples(chosen, truth.labels, output, edge_mask, None, expect_mean=True)


def _take(tensor: Tensor, channels: Sequence[int]) -> Tensor:
    """Choose channels: a view where they follow one another."""
    if list(channels) == list(range(channels[0], channels[0] + len(channels))):
        return tensor.narrow(1, channels[0], len(channels))
    return tensor[:, list(channels)]


# -------------------------------------------------------------------------------------- operators that see values
def _within_0_and_1(values: Tensor, name: str, binary: bool) -> Tensor:
    """Return the values, or raise an error that says which of them cannot be."""
    values = values.detach()
    if values.dtype == torch.bool:
        return values
    if torch.compiler.is_compiling():
        # The result is used, so that a compiler does not take the check for dead code.
        return cast(Tensor, _checked_copy(values, name, binary))
    _check_values(values, name, binary)
    return values


def _check_values(values: Tensor, name: str, binary: bool) -> None:
    inside = (values >= 0) & (values <= 1)
    if not bool(inside.all()):
        raise ValueError(f"{name} must hold values from 0 to 1, got {values[~inside][0].item():.6g}")
    if binary and values.dtype.is_floating_point:
        between = (values != 0) & (values != 1)
        if bool(between.any()):
            raise ValueError(WEIGHTS_ARE_NOT_FOR_MALIS.format(values[between][0].item()))


@torch.library.custom_op("malis::checked_copy", mutates_args=(), schema="(Tensor x, str name, bool binary) -> Tensor")
def _checked_copy(values: Tensor, name: str, binary: bool) -> Tensor:
    _check_values(values, name, binary)
    return values.clone(memory_format=torch.contiguous_format)


@_checked_copy.register_fake
def _(values: Tensor, name: str, binary: bool) -> Tensor:
    return torch.empty_like(values, memory_format=torch.contiguous_format)


@torch.library.custom_op(
    "malis::labels_of_graph", mutates_args=(), schema="(Tensor graph, Tensor known, int[] nhood) -> Tensor"
)
def _labels_of_graph(graph: Tensor, known: Tensor, nhood: Sequence[int]) -> Tensor:
    """Label the objects of affinity graphs: the connected components of the positive edges that are known."""
    offsets = np.asarray(nhood, dtype=np.int64).reshape(-1, graph.dim() - 2)
    graphs, masks = graph.float().numpy(force=True), known.numpy(force=True)
    segs = [affinity.labels_of_graph(aff, mask, offsets) for aff, mask in zip(graphs, masks, strict=True)]
    return torch.from_numpy(np.stack(segs)).to(graph.device)


@_labels_of_graph.register_fake
def _(graph: Tensor, known: Tensor, nhood: Sequence[int]) -> Tensor:
    return graph.new_empty((graph.shape[0], *graph.shape[2:]), dtype=torch.int32)
