"""The developer's commands, each in an environment of its own: ``nox -l`` lists them, ``nox -s NAME`` runs one.

Arguments after ``--`` go to the tool: ``nox -s tests -- tests/test_pairs.py -k ties``.
"""

from __future__ import annotations

from pathlib import Path

import nox
from packaging.requirements import Requirement

nox.needs_version = ">=2024.4.15"
nox.options.sessions = ["lint", "core"]
nox.options.reuse_existing_virtualenvs = True

PYPROJECT = nox.project.load_toml("pyproject.toml")
CONSTRAINTS = ("-c", ".ci/constraints.txt")


# What is tested together in its oldest versions, and by which tests; NumPy is as old as the others allow. The oldest
# Matplotlib warns with a newer pyparsing, and a newer numcodecs where crc32c is installed.
OLDEST = {
    "alone": (
        "numpy scipy matplotlib scikit-image pyparsing==3.0.9",
        "reference bad_input affgraph pairs loss metrics metrics_table plot synthetic",
    ),
    "command": (
        "numpy scipy matplotlib scikit-image pyparsing==3.0.9 typer rich h5py tifffile zarr numcodecs==0.16.1 dask "
        "distributed tqdm connected-components-3d",
        "io cli dask outputs plot predictions",
    ),
    "torch": ("numpy torch keras monai", "adapters"),
    "tensorflow": ("numpy tensorflow-cpu keras", "adapters"),
    "jax": ("numpy jax keras", "adapters"),
}


def tools(*names: str) -> list[str]:
    """Return those requirements of the extra ``dev`` that begin with a name."""
    return [wanted for wanted in PYPROJECT["project"]["optional-dependencies"]["dev"] if wanted.startswith(names)]


@nox.session
def tests(session: nox.Session) -> None:
    """Run all tests but the slow ones, with every framework; ``-- -m slow`` runs those."""
    session.install(*CONSTRAINTS, ".[test]")
    session.run("python", "-m", "pytest", *session.posargs)


@nox.session(python=["3.10", "3.11", "3.12", "3.13", "3.14"])
def numpy_alone(session: nox.Session) -> None:
    """Run the tests of a wheel with NumPy alone, on every Python that is at hand."""
    wheel = PYPROJECT["tool"]["cibuildwheel"]
    session.install(".", *wheel["test-requires"])
    session.run(*wheel["test-command"].split(), *session.posargs, env=wheel["test-environment"])


@nox.session(python="3.11", venv_backend="uv")
@nox.parametrize("together", list(OLDEST), ids=list(OLDEST))
def oldest(session: nox.Session, together: str) -> None:
    """Run tests with the oldest versions that pyproject.toml admits and that have a wheel; PyTorch's takes 5 GB."""
    packages, topics = OLDEST[together]
    project = PYPROJECT["project"]
    extras = project["optional-dependencies"].values()
    bounds = {Requirement(line).name: line for lines in [project["dependencies"], *extras] for line in lines}
    wanted = [bounds.get(name, name) for name in [*packages.split(), "pytest", "hypothesis"]]
    session.install("--resolution=lowest-direct", "--only-binary=:all:", *wanted)
    session.install("--no-deps", ".")
    session.run("uv", "pip", "list", external=True)
    tests = ["tests/adapters" if topic == "adapters" else f"tests/test_{topic}.py" for topic in topics.split()]
    # Where CI is set, a test fails without its framework instead of being skipped.
    session.run("python", "-m", "pytest", *tests, *session.posargs, env={"CI": ""})


@nox.session
def lint(session: nox.Session) -> None:
    """Check layout and mistakes of Python and layout of C++."""
    session.install(*tools("ruff", "clang-format"))
    session.run("ruff", "format", "--check", ".")
    session.run("ruff", "check", ".")
    sources = sorted(str(path) for folder in ("cpp", "benchmarks") for path in Path(folder).rglob("*.[ch]pp"))
    session.run("clang-format", "--dry-run", "--Werror", *sources)


@nox.session
def types(session: nox.Session) -> None:
    """Check the types of the package, against those of every framework."""
    session.install(*CONSTRAINTS, ".[test]", *tools("mypy"))
    session.run("mypy", *session.posargs)


@nox.session
def core(session: nox.Session) -> None:
    """Run the C++ tests; ``-- -DMALIS_SANITIZE=address,undefined`` runs them under sanitizers."""
    session.install(*tools("cmake", "ninja"))
    build = str(Path(session.create_tmp()).resolve() / "build")
    options = session.posargs or ["-DCMAKE_BUILD_TYPE=Release"]
    session.run("cmake", "-S", ".", "-B", build, "-G", "Ninja", "-DMALIS_TESTS=ON", *options)
    session.run("cmake", "--build", build)
    session.run("ctest", "--test-dir", build, "--output-on-failure")


@nox.session
def docs(session: nox.Session) -> None:
    """Build the documentation site in build/site, with warnings as errors; ``-- -b linkcheck`` follows its links."""
    session.install(*CONSTRAINTS, ".[docs]")
    session.run("python", "-m", "sphinx", "-W", "--keep-going", "-n", *session.posargs, "docs", "build/site")


@nox.session
def wheel(session: nox.Session) -> None:
    """Build the sdist, and a wheel from it, in dist/."""
    session.install("build", "twine")
    session.run("python", "-m", "build")
    session.run("python", "-m", "twine", "check", "--strict", *(str(path) for path in Path("dist").glob("*")))


@nox.session
def ci(session: nox.Session) -> None:
    """Check everything that has to hold before a change lands; makes an environment of its own."""
    session.run(".ci/run", external=True)
