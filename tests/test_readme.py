"""What the README shows can be pasted into an empty file and run."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from frameworks import FRAMEWORKS, QUIET, require

README = Path(__file__).parents[1] / "README.md"
BLOCKS = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)


def run_block(imported: str, modules: list[str], environment: dict[str, str], folder: Path) -> str:
    """Run the block that imports something, in a file of its own; returns what it prints."""
    require(modules)
    (block,) = [block for block in BLOCKS if re.search(rf"^(import|from) {imported}\b", block, re.MULTILINE)]
    file = folder / "pasted.py"
    file.write_text(block, encoding="utf-8")
    result = subprocess.run(
        [sys.executable, str(file)],
        capture_output=True,
        text=True,
        check=False,
        cwd=folder,
        env={**os.environ, **QUIET, **environment},
        timeout=300,
    )
    assert result.returncode == 0, result.stderr[-3000:]
    return result.stdout


@pytest.mark.parametrize(
    "framework",
    ["keras-torch", *(pytest.param(name, marks=pytest.mark.slow) for name in ("keras-tensorflow", "keras-jax"))],
)
def test_keras_lines(framework, tmp_path):
    printed = run_block("malis.malis_keras", *FRAMEWORKS[framework], tmp_path)
    assert re.search(r"2/2.*loss: 0\.\d+", printed), printed  # both steps of `fit`


def test_lines_of_jax(tmp_path):
    run_block("malis.malis_jax", *FRAMEWORKS["jax"], tmp_path)


@pytest.mark.slow
def test_whole_loop(tmp_path):
    (block,) = [block for block in BLOCKS if "from malis.malis_torch" in block]
    assert len([line for line in block.splitlines() if line]) <= 20
    assert re.match(r"Scores\(object_score=", run_block("malis.malis_torch", ["torch", "scipy"], {}, tmp_path))


def test_lines_of_the_first_page(tmp_path):
    page = (README.parent / "docs" / "index.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    assert len([line for line in block.splitlines() if line]) <= 15
    require(["torch", "scipy"])
    (tmp_path / "pasted.py").write_text(block + "assert segmentation.shape == (64, 64)\n", encoding="utf-8")
    subprocess.run([sys.executable, "pasted.py"], check=True, cwd=tmp_path, env={**os.environ, **QUIET}, timeout=300)


def test_lines_on_arrays(tmp_path):
    run_block("malis$", ["scipy", "skimage"], {}, tmp_path)
