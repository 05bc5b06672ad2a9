"""What ``import malis`` needs and offers."""

from __future__ import annotations

import doctest
import importlib
import importlib.metadata
import re
import subprocess
import sys
from pathlib import Path

import pytest

import malis
from frameworks import require

PUBLIC = [
    "pairs",
    "malis_loss",
    "edge_pairs",
    "malis_weights",
    "PairCounts",
    "MalisLoss",
    "mknhood2d",
    "mknhood3d",
    "mknhood3d_aniso",
    "seg_to_affgraph",
    "bmap_to_affgraph",
    "affgraph_to_seg",
    "watershed_from_affgraph",
    "find_threshold",
    "watershed_basins",
    "rand_curve",
    "RandCurve",
    "maximum_spanning_tree",
    "SpanningTree",
    "segment_tree",
    "linkage",
    "affgraph_to_edgelist",
    "nodelist_from_shape",
    "set_num_threads",
    "get_num_threads",
    "nodelist_like",
    "malis_loss_weights",
    "malis_loss_op",
    "malis_weights_op",
    "connected_components",
    "connected_components_affgraph",
    "marker_watershed",
    "prune_and_renum",
    "mk_cont_table",
    "rand_index",
    "compute_V_rand_N2",
]

NUMPY_ALONE = ["affgraph", "compat", "curve", "loss", "nhood", "segmentation", "threads", "threshold", "tree"]

# Everything that some part of the package or of its examples uses, and that a user may not have.
OPTIONAL = [
    "torch",
    "tensorflow",
    "keras",
    "jax",
    "jaxlib",
    "flax",
    "monai",
    "scipy",
    "skimage",
    "sklearn",
    "matplotlib",
    "h5py",
    "tqdm",
    "dask",
    "zarr",
    "tifffile",
    "typer",
    "rich",
    "PIL",
    "cc3d",
    "numba",
    "pandas",
]

IMPORT_ALONE = f"""
import sys
for name in {OPTIONAL!r}:
    sys.modules[name] = None  # "import name" raises ImportError
before = set(sys.modules)
import numpy as np
of_numpy = set(sys.modules)
import malis
roots = {{name.partition(".")[0] for name in set(sys.modules) - of_numpy}}
foreign = roots - set(sys.stdlib_module_names) - {{"malis", "numpy"}}
assert not foreign, foreign

nhood = malis.mknhood2d(1)
seg = np.array([[1, 1, 2], [1, 0, 2]])
aff = malis.seg_to_affgraph(seg, nhood).astype(np.float32)
assert malis.pairs(aff, seg, nhood).pos.sum() == 3 + 1
assert malis.malis_loss(aff, seg, nhood).loss == 0
assert malis.affgraph_to_seg(aff, nhood)[1].tolist() == [1, 3, 2]
assert malis.watershed_from_affgraph(aff, seg, nhood)[1].tolist() == [0, 4, 2]
assert malis.watershed_basins(aff, nhood)[1].tolist() == [0, 4, 2]
assert malis.rand_curve(aff, seg, nhood).best_threshold == 1
assert malis.segment_tree(malis.maximum_spanning_tree(aff, nhood), [0.5])[0][1].tolist() == [1, 3, 2]
assert malis.rand_index(seg, seg) == (1, 1, 1, 1)
assert malis.mk_cont_table(seg, seg).tolist() == [[1, 0, 0], [0, 3, 0], [0, 0, 2]]
node1, node2 = malis.nodelist_like(seg.shape, nhood)
assert malis.connected_components_affgraph(aff, nhood)[1].tolist() == [3, 2]
"""


def run_python(code):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)


@pytest.mark.parametrize("framework", ["torch", "tensorflow", "keras", "jax", "dask"])
def test_an_adapter_without_its_framework_names_the_extra(framework):
    code = f"""
import importlib.abc, sys
class Without(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name == {framework!r}:
            raise ModuleNotFoundError("No module named " + name, name=name)
sys.meta_path.insert(0, Without())
try:
    import malis.malis_{framework}
except ModuleNotFoundError as error:
    assert "malis-loss[{framework}]" in str(error) and error.name == {framework!r}, error
else:
    raise AssertionError
"""
    result = run_python(code)
    assert result.returncode == 0, result.stderr


def test_import_needs_numpy_alone():
    result = run_python(IMPORT_ALONE)
    assert result.returncode == 0, result.stderr


KERAS_WITHOUT_BACKEND = """
import sys
sys.modules["jax"] = sys.modules["tensorflow"] = sys.modules["torch"] = None
import malis
try:
    malis.malis_keras
except ImportError:
    print("needs a backend")
"""


def test_keras_is_imported_by_its_module_alone():
    require(["keras"])
    result = run_python(KERAS_WITHOUT_BACKEND)
    assert result.stdout.strip() == "needs a backend", result.stderr


def test_version():
    assert malis.__version__ == importlib.metadata.version("malis-loss")


CHECKOUT = Path(__file__).resolve().parents[1]


# The version stands in pyproject.toml; what cites or packages malis has to repeat it.
@pytest.mark.parametrize(
    ("file", "line"), [("CITATION.cff", r"^version: (\S+)$"), ("recipe/recipe.yaml", r'^  version: "(\S+)"$')]
)
def test_version_elsewhere(file, line):
    if not (CHECKOUT / file).is_file():
        pytest.skip("needs a checkout")
    declared = re.search(r'^version = "(\S+)"$', (CHECKOUT / "pyproject.toml").read_text(encoding="utf-8"), re.M)
    repeated = re.search(line, (CHECKOUT / file).read_text(encoding="utf-8"), re.M)
    assert repeated[1] == declared[1]


@pytest.mark.parametrize("name", PUBLIC)
def test_public_name(name):
    assert name in malis.__all__
    assert name in dir(malis)
    value = getattr(malis, name)
    assert callable(value)
    assert value.__doc__


def test_all_names_exist():
    assert len(set(malis.__all__)) == len(malis.__all__)
    for name in malis.__all__:
        assert hasattr(malis, name)


def test_unknown_name():
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = malis.no_such_name


@pytest.fixture
def thread_setting():
    before = malis.get_num_threads()
    yield
    malis.set_num_threads(before)


@pytest.mark.parametrize("name", NUMPY_ALONE)
def test_examples_of_the_documentation(name, thread_setting):
    if name == "compat":  # the example of malis_loss_op is in PyTorch
        require(["torch"])
    module = importlib.import_module(f"malis.{name}")
    failed, tried = doctest.testmod(module, verbose=False)
    assert tried > 0
    assert failed == 0


@pytest.mark.parametrize("name", [name for name in PUBLIC if name[0].islower()])
def test_every_function_has_an_example(name):
    assert ">>>" in getattr(malis, name).__doc__
