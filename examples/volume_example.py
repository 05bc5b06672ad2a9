"""Train a 3-D U-Net with the MALIS loss, segment a volume it never saw in three ways, score and draw the segmentations.

python examples/volume_example.py                                         # packed neurites, generated
python examples/volume_example.py --data volume.npz --steps 20000         # arrays image and labels; HDF5 and Zarr, too
python examples/volume_example.py --data cremi:sample_A_20160501.hdf --anisotropic --crop 16 128 128 --device cuda
python examples/volume_example.py --help
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from monai.inferers import sliding_window_inference
from monai.networks.nets import DynUNet
from scipy.special import expit

import malis
from data import separated
from malis.malis_torch import AffinityLoss
from public_data import VOLUMES
from training import BORDER_HELP, Phase, Progress, phases, positive, share
from volume_data import Crops, Parts, load
from volume_scores import (
    NEAREST,
    SEGMENTERS,
    Affinities,
    Labels,
    choose,
    draw,
    large_objects,
    scores_of,
    skeletons_of,
    table,
    write_ome_zarr,
)

# ---------------------------------------------------------------------------------------------------------------------
# Network and loss
# ---------------------------------------------------------------------------------------------------------------------


def offsets(anisotropic: bool) -> npt.NDArray[np.int32]:
    """Return the nearest neighbours, and one far neighbour along each axis, which teaches the network to look around.

    The far ones lead about as far as a thin neurite is wide (Lee et al., arXiv:1706.00120, train with such).
    """
    far = np.diag([-2, -6, -6] if anisotropic else [-6, -6, -6])
    return np.concatenate([NEAREST, far]).astype(np.int32)


class UNet(DynUNet):
    """MONAI's U-Net of three levels; in anisotropic volumes the finest one sees sections one by one.

    All layers but the last may run in bfloat16. The logits stay in float32: MALIS orders the edges by their affinities,
    and among rounded ones most would be equal.
    """

    def __init__(self, channels: int, outputs: int, anisotropic: bool, bfloat16: bool = False) -> None:
        first = [1, 3, 3] if anisotropic else [3, 3, 3]
        halved = [1, 2, 2] if anisotropic else [2, 2, 2]
        super().__init__(
            spatial_dims=3,
            in_channels=1,
            out_channels=outputs,
            kernel_size=[first, [3, 3, 3], [3, 3, 3]],
            strides=[[1, 1, 1], halved, [2, 2, 2]],
            upsample_kernel_size=[halved, [2, 2, 2]],
            filters=[channels, 2 * channels, 4 * channels],
        )
        self.bfloat16 = bfloat16

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        with torch.autocast(image.device.type, torch.bfloat16, enabled=self.bfloat16):
            features = self.skip_layers(image)
        return self.output_block(features.float())


def criterion_of(phase: Phase, args: argparse.Namespace) -> AffinityLoss:
    """Return the loss of a phase: AffinityLoss, whose warm-up the phases are, each with an optimiser of its own."""
    return AffinityLoss(
        offsets(args.anisotropic),
        malis=phase.malis,
        cross_entropy=phase.cross_entropy,
        warmup=0,
        margin=args.margin,
        connect_labels=True,  # a crop cuts neurites into parts that nothing in the crop connects
    )


# ---------------------------------------------------------------------------------------------------------------------
# Training
# ---------------------------------------------------------------------------------------------------------------------

# What two runs must have in common for one to go on where the other has stopped.
_SAME = (
    "data",
    "names",
    "validation",
    "test",
    "anisotropic",
    "shape",
    "crop",
    "batch",
    "channels",
    "steps",
    "warmup",
    "lr",
    "mix",
    "margin",
    "loss",
    "border",
    "bfloat16",
    "seed",
)


def train(
    args: argparse.Namespace, plan: Sequence[Phase], model: UNet, crops: Crops, checkpoint: Path, begin: int = 0
) -> None:
    """Train phase by phase from step `begin`; every `args.checkpoint` steps all that is needed to go on is saved."""
    device = next(model.parameters()).device
    options = {name: getattr(args, name) for name in _SAME}
    done, state = 0, None
    if args.resume and checkpoint.exists():
        saved = torch.load(checkpoint, map_location=device, weights_only=True)
        changed = [name for name in _SAME if saved["options"][name] != options[name]]
        if changed:
            raise ValueError(
                f"--resume goes on with the options of {checkpoint}, got another --{changed[0]}: "
                f"{options[changed[0]]} in place of {saved['options'][changed[0]]}"
            )
        model.load_state_dict(saved["model"])
        done, state = saved["step"], saved["optimizer"]
        print(f"going on after step {done}")
    for phase in plan:
        end = begin + phase.steps
        if done >= end:
            begin = end
            continue
        criterion = criterion_of(phase, args)
        optimizer = torch.optim.Adam(model.parameters(), 1.0)
        if state is not None and done > begin:
            optimizer.load_state_dict(state)
        with Progress(phase) as progress:
            progress.bar.update(max(0, done - begin))
            for step, (images, labels) in enumerate(crops.take(max(begin, done), end), start=max(begin, done)):
                for group in optimizer.param_groups:
                    group["lr"] = phase.learning_rate(step - begin)
                model.train()
                loss = criterion(model(images.to(device)), labels.to(device))
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                progress.step(loss.item())
                if (step + 1) % args.checkpoint == 0 or step + 1 == end:
                    save(
                        checkpoint,
                        {
                            "options": options,
                            "step": step + 1,
                            "model": model.state_dict(),
                            "optimizer": optimizer.state_dict(),
                        },
                    )
        begin = end


def save(file: Path, state: dict[str, Any]) -> None:
    """Save a checkpoint, complete or not at all."""
    beside = file.with_suffix(".part")
    torch.save(state, beside)
    beside.replace(file)


def predict(
    model: torch.nn.Module, image: npt.NDArray[np.float32], crop: Sequence[int], batch: int, device: str = "cpu"
) -> Affinities:
    """Predict the affinities of the nearest neighbours in a volume of any size, window by window."""
    model.eval()
    with torch.no_grad():
        logits = sliding_window_inference(
            torch.from_numpy(image)[None, None],
            roi_size=crop,
            sw_batch_size=batch,
            predictor=lambda window: model(window)[:, : len(NEAREST)],
            overlap=0.5,
            mode="gaussian",  # the middle of a window counts most, where the network sees all around
            padding_mode="reflect" if all(2 * n > c for n, c in zip(image.shape, crop, strict=True)) else "replicate",
            sw_device=device,
            device="cpu",
            progress=True,
        )
    return np.ascontiguousarray(expit(logits[0].numpy()), dtype=np.float32)


# ---------------------------------------------------------------------------------------------------------------------
# The whole run
# ---------------------------------------------------------------------------------------------------------------------


def evaluate(
    args: argparse.Namespace, data: Parts, model: torch.nn.Module
) -> tuple[dict[str, Any], Affinities, dict[str, Labels]]:
    """Choose thresholds on the validation volume, score the test volume; return that, affinities and segmentations."""
    validation = predict(model, data.validation.image, args.crop, args.batch, args.device)
    test = predict(model, data.test.image, args.crop, args.batch, args.device)
    truth_of_validation = large_objects(data.validation.labels, args.min_size)
    truth = large_objects(data.test.labels, args.min_size)
    skeletons = skeletons_of(data.test.labels, data.voxel_size, args.min_size)
    rows: dict[str, dict[str, float]] = {}
    segmentations: dict[str, Labels] = {}
    chosen: dict[str, tuple[float, ...]] = {}
    on_validation: dict[str, float] = {}
    for segmenter in SEGMENTERS:
        thresholds, on_validation[segmenter.name] = choose(segmenter, validation, truth_of_validation, args.min_size)
        chosen[segmenter.name] = thresholds
        seg = segmentations[segmenter.name] = segmenter.segment(test, args.min_size, *thresholds)
        rows[segmenter.name] = scores_of(truth, seg, skeletons, args.min_size)
        print(
            f"{segmenter.name}: {', '.join(f'{t:g}' for t in thresholds)} "
            f"(VOI {on_validation[segmenter.name]:.3f} on the validation volume)"
        )
    max_erl = malis.metrics.skeleton_scores(skeletons, data.test.labels).max_erl
    print(table(rows))
    print(f"ERL in {data.unit or 'voxels'}; without an error it is {max_erl:.1f}")
    best = min(on_validation, key=lambda name: on_validation[name])
    result = {"thresholds": chosen, "validation": on_validation, "scores": rows, "max ERL": max_erl, "best": best}
    return result, test, segmentations


def report(args: argparse.Namespace, data: Parts, model: torch.nn.Module) -> dict[str, Any]:
    """Evaluate a network; save scores, pictures and OME-Zarr."""
    result, test, segmentations = evaluate(args, data, model)
    (args.output / "scores.json").write_text(json.dumps(result, indent=1))
    np.save(args.output / "affinities.npy", test)
    files = draw(args.output, data.test, test, segmentations, result["best"], data.voxel_size, data.unit)
    print(f"pictures: {', '.join(file.name for file in files)} in {args.output}")
    try:
        write_ome_zarr(args.output / "test.zarr", data.test, segmentations, data.voxel_size, data.unit)
        print(f"volumes: napari {args.output / 'test.zarr'}")
    except ImportError as error:  # zarr 3 needs Python 3.11
        print(f"no OME-Zarr: {error}")
    return result


def parser() -> argparse.ArgumentParser:
    """Return the options."""
    p = argparse.ArgumentParser(
        description=__doc__.split("\n")[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    p.add_argument(
        "--data",
        default="synthetic",
        help="'synthetic', an .npz, .h5 or .zarr file, or a public set: " + ", ".join(f"{n}:PATH" for n in VOLUMES),
    )
    p.add_argument("--names", nargs=2, metavar=("IMAGE", "LABELS"), help="arrays of the file (default: the usual ones)")
    p.add_argument("--voxel-size", nargs=3, type=float, metavar=("Z", "Y", "X"), help="in nm (default: of the file)")
    p.add_argument("--shape", nargs=3, type=positive, default=[48, 96, 96], help="of generated volumes")
    p.add_argument("--validation", type=share, default=0.2, help="share of the sections to choose thresholds on")
    p.add_argument("--test", type=share, default=0.2, help="share of the sections to score")
    p.add_argument("--anisotropic", action="store_true", help="for thick sections: kernels, offsets, transpositions")
    p.add_argument("--loss", choices=("malis", "affinity-bce"), default="malis")
    p.add_argument("--steps", type=positive, default=260)
    p.add_argument("--warmup", type=share, default=0.75, help="share of the steps with affinity BCE before MALIS")
    p.add_argument("--batch", type=positive, default=1)
    p.add_argument("--crop", nargs=3, type=positive, help="multiples of 4 (default: 24 24 24, 8 40 40 if anisotropic)")
    p.add_argument("--channels", type=positive, default=8, help="channels of the first level of the U-Net")
    p.add_argument("--lr", type=float, default=6e-3, help="highest learning rate; half of it for MALIS")
    p.add_argument("--mix", type=float, default=1.0, help="weight of the affinity BCE that stays beside MALIS")
    p.add_argument("--margin", type=float, default=0.1)
    p.add_argument("--min-size", type=positive, default=64, help="smaller objects are dropped, and not scored")
    p.add_argument("--checkpoint", type=positive, default=100, help="steps between checkpoints")
    p.add_argument("--resume", action="store_true", help="go on after the last checkpoint in the output folder")
    p.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    p.add_argument("--bfloat16", action="store_true", help="all layers but the last in bfloat16")
    p.add_argument("--border", action="store_true", help=BORDER_HELP)
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--threads", type=positive, help="threads of the framework and of malis (default: all)")
    p.add_argument("--output", type=Path, default=Path("volume_output"), help="the folder for all that is written")
    return p


def prepare(options: argparse.ArgumentParser, args: argparse.Namespace) -> tuple[Parts, Crops]:
    """Complete and check the options; return the data, and the crops to train on."""
    args.crop = list(args.crop or ([8, 40, 40] if args.anisotropic else [24, 24, 24]))
    if args.threads is not None:
        malis.set_num_threads(args.threads)
        torch.set_num_threads(args.threads)
    try:
        if any(n % 4 for n in args.crop):
            raise ValueError(f"--crop must be multiples of 4, which the U-Net halves twice, got {args.crop}")
        torch.device(args.device)
        data = load(
            args.data,
            names=args.names,
            voxel_size=args.voxel_size,
            shape=args.shape,
            anisotropic=args.anisotropic,
            shares=(args.validation, args.test),
        )
        for volume in data.train if args.border else []:
            volume.labels = separated(volume.labels)
        return data, Crops(data.train, args.crop, args.batch, args.seed, anisotropic=args.anisotropic)
    except (OSError, ValueError, RuntimeError) as error:
        options.error(str(error))


Network = Callable[[npt.NDArray[np.float32]], npt.NDArray[np.float32]]  # crops (B, 1, D, H, W) to logits


class OfArrays(torch.nn.Module):
    """A network of another framework, as `predict` takes it."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return torch.from_numpy(np.array(self.network(image.numpy())))


def run_with(
    train: Callable[[argparse.Namespace, Sequence[Phase], Crops], Network], argv: Sequence[str] | None = None
) -> dict[str, Any]:
    """Run the example of another framework, which trains a network and goes on after no interruption."""
    options = parser()
    args = options.parse_args(argv)
    if args.resume or args.bfloat16:
        options.error("--resume and --bfloat16 are of the PyTorch example")
    args.device = "cpu"  # where windows are put together; the framework computes where it likes
    data, crops = prepare(options, args)
    args.output.mkdir(parents=True, exist_ok=True)
    return report(args, data, OfArrays(train(args, phases(args), crops)))


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    """Run the example; returns the thresholds and the scores of the test volume."""
    options = parser()
    args = options.parse_args(argv)
    data, crops = prepare(options, args)
    device = torch.device(args.device)
    args.output.mkdir(parents=True, exist_ok=True)
    parts = (("train", data.train), ("validate", [data.validation]), ("test", [data.test]))
    shapes = "; ".join(
        f"{name} {' and '.join('x'.join(map(str, v.image.shape)) for v in volumes)}" for name, volumes in parts
    )
    print(f"{data.name}, voxels of {' x '.join(f'{s:g}' for s in data.voxel_size)} {data.unit or ''}: {shapes}")
    torch.manual_seed(args.seed)
    model = UNet(args.channels, len(offsets(args.anisotropic)), args.anisotropic, args.bfloat16).to(device)
    print(f"U-Net with {sum(p.numel() for p in model.parameters()):,} parameters, loss {args.loss}")
    try:
        train(args, phases(args), model, crops, args.output / "checkpoint.pt")
    except ValueError as error:
        if not args.resume:
            raise
        options.error(str(error))
    return report(args, data, model)


if __name__ == "__main__":
    main()
