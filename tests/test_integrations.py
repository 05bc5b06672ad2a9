"""The scripts of examples/integrations: training with the real gunpowder, Lightning, MONAI, Keras and transformers."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import malis
from frameworks import require

pytestmark = pytest.mark.integrations
SCRIPTS = Path(__file__).resolve().parents[1] / "examples" / "integrations"
WARMUP, STEPS = 12, 20  # of Lightning and transformers, which take the gradients of two batches in each
SINGLE_WARMUP, SINGLE_STEPS = 16, 24  # of the others


def run(name: str, expression: str, folder: Path, calls: int = 1) -> Any:
    """Call `main` of a script in a process of its own; returns an expression of the `result` of each call."""
    body = [f"result = {name}.main()", f"values.append({expression})"]
    lines = ["import json", f"import {name}", "values = []", *body * calls, "print(json.dumps(values))"]
    path = os.pathsep.join(filter(None, [str(SCRIPTS), os.environ.get("PYTHONPATH")]))
    result = subprocess.run(
        [sys.executable, "-c", "\n".join(lines)],
        capture_output=True,
        text=True,
        check=False,
        cwd=folder,
        env={**os.environ, "PYTHONPATH": path, "SINGLE_BACKEND": "torch", "OMP_NUM_THREADS": "1"},
        timeout=300,
    )
    assert result.returncode == 0, result.stderr[-3000:]
    values = json.loads(result.stdout.strip().splitlines()[-1])
    return values if calls > 1 else values[0]


def falls(values: list[float]) -> bool:
    return np.mean(values[-3:]) < 0.9 * values[0]


def test_lightning(tmp_path: Path) -> None:
    require(["lightning", "torch"])
    import torch

    assert run("train_lightning", "int(result.criterion.step)", tmp_path) == 2 * STEPS
    (log,) = tmp_path.rglob("metrics.csv")
    rows = list(csv.DictReader(log.open()))
    assert len(rows) == STEPS
    assert [bool(row["loss/malis"]) for row in rows] == [False] * WARMUP + [True] * (STEPS - WARMUP)
    assert falls([float(row["loss/cross_entropy"]) for row in rows[:WARMUP]])
    (checkpoint,) = tmp_path.rglob("*.ckpt")
    assert torch.load(checkpoint, weights_only=False)["state_dict"]["criterion.step"] == 2 * STEPS


def test_two_processes_of_lightning_learn_what_one_does(tmp_path: Path) -> None:
    require(["lightning", "torch"])
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    for devices in ("1", "2"):
        command = [sys.executable, str(Path(__file__).with_name("lightning_ddp.py")), devices, str(tmp_path)]
        result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=300)
        assert result.returncode == 0, result.stderr[-3000:]
    (one, *two) = (np.load(tmp_path / f"{name}.npz") for name in ("1-0", "2-0", "2-1"))
    assert one["counted"] == len(one["losses"]) == 3
    for rank in two:
        assert rank["counted"] == one["counted"]
        np.testing.assert_allclose(rank["losses"], one["losses"], rtol=0, atol=1e-6)
        np.testing.assert_allclose(rank["gradients"], one["gradients"], rtol=0, atol=1e-6)
    assert np.abs(one["gradients"]).max() > 1e-3


def test_monai(tmp_path: Path) -> None:
    require(["monai", "ignite", "torch"])
    import torch

    parts = run("train_monai", "{name: float(part) for name, part in result.parts.items()}", tmp_path)
    assert set(parts) == {"cross_entropy", "malis", "malis_weight"}
    assert parts["cross_entropy"] < 0.65  # that of chance is 0.69
    checkpoint = torch.load(next(tmp_path.rglob("last.pt")), weights_only=False)
    assert checkpoint["criterion"]["step"] == SINGLE_STEPS


def test_keras(tmp_path: Path) -> None:
    require(["keras", "torch"])
    config, losses = run("train_keras", "[result[0].loss.get_config(), result[1]]", tmp_path)
    assert (config["warmup"], config["step"]) == (SINGLE_WARMUP, SINGLE_STEPS)
    before, after = losses[: SINGLE_WARMUP // 4], losses[SINGLE_WARMUP // 4 :]
    assert max(before) < min(after)  # MALIS comes on top
    assert before[-1] < before[0]


def test_transformers(tmp_path: Path) -> None:
    require(["transformers", "accelerate"])
    from safetensors.torch import load_file

    history = run("train_huggingface", "result.state.log_history", tmp_path)
    steps = [entry for entry in history if "loss" in entry]
    assert ["malis" in entry for entry in steps] == [False] * WARMUP + [True] * (STEPS - WARMUP)
    assert falls([entry["cross_entropy"] for entry in steps[:WARMUP]])
    (file,) = tmp_path.rglob("model.safetensors")
    assert load_file(file)["criterion.step"] == 2 * STEPS


def test_gunpowder(tmp_path: Path) -> None:
    require(["gunpowder"])
    first, second = run("train_gunpowder", "[int(result[0].criterion.step), result[1]]", tmp_path, calls=2)
    step, losses = first
    assert step == len(losses) == SINGLE_STEPS
    assert falls(losses[:SINGLE_WARMUP])
    assert max(losses[:SINGLE_WARMUP]) < min(losses[SINGLE_WARMUP:])  # MALIS comes on top
    # The second call goes on after the checkpoint, beyond the warm-up.
    step, more = second
    assert (step, len(more)) == (2 * SINGLE_STEPS, SINGLE_STEPS)
    assert min(more) > max(losses[:SINGLE_WARMUP])


def test_offsets_of_gunpowder() -> None:
    require(["gunpowder"])
    from gunpowder.nodes.add_affinities import seg_to_affgraph

    seg = np.random.default_rng(0).integers(0, 4, (9, 8, 7)).astype(np.int32)
    nhood = [[-1, 0, 0], [0, 1, 0], [0, 0, -3], [2, -3, 1]]
    np.testing.assert_array_equal(seg_to_affgraph(seg, nhood), malis.seg_to_affgraph(seg, nhood))
