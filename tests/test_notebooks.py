"""The notebooks run, are saved with what they show, and are small."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

FOLDER = Path(__file__).resolve().parents[1] / "docs" / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))


def test_there_are_notebooks():
    assert [path.name for path in NOTEBOOKS] == [
        "deciding_edges.ipynb",
        "postprocessing.ipynb",
        "training.ipynb",
        "volume.ipynb",
    ]


@pytest.mark.slow
@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.name)
def test_runs(notebook):
    pytest.importorskip("nbmake")
    command = [sys.executable, "-m", "pytest", "--nbmake", "--nbmake-timeout=300", "-p", "no:cacheprovider", "-q"]
    result = subprocess.run([*command, str(notebook)], capture_output=True, text=True, check=False, cwd=FOLDER)
    assert result.returncode == 0, result.stdout
    assert "1 passed" in result.stdout


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.name)
def test_is_saved_with_outputs(notebook):
    assert notebook.stat().st_size < 300_000
    cells = [cell for cell in json.loads(notebook.read_text())["cells"] if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))  # run from top to bottom
    outputs = [output for cell in cells for output in cell["outputs"]]
    assert not [output for output in outputs if output["output_type"] == "error"]
    assert not [output for output in outputs if output.get("name") == "stderr"]
    pictures = [output for output in outputs if "image/jpeg" in output.get("data", {})]
    assert len(pictures) >= 2


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.name)
def test_begins_with_the_installation(notebook):
    code = next(cell for cell in json.loads(notebook.read_text())["cells"] if cell["cell_type"] == "code")
    assert "find_spec" in "".join(code["source"])
    assert "%pip install" in "".join(code["source"])


def test_predictions_of_the_tutorial():
    path = FOLDER / "postprocessing.npz"
    assert path.stat().st_size < 200_000
    with np.load(path) as arrays:
        images, labels, affinities = (arrays[name] for name in ("images", "labels", "affinities"))
    assert images.shape == labels.shape == (3, 128, 128)
    assert affinities.shape == (3, 2, 128, 128)
    assert (affinities >= 0).all()
    assert (affinities <= 1).all()
