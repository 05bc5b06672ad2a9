"""Fixtures of the adapter tests: ``framework`` and ``adapter``, which run a test in the process of its framework."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from faces import ADAPTERS, Adapter
from frameworks import FRAMEWORKS, require
from processes import FrameworkProcess, backend_here

PROCESSES = pytest.StashKey[dict[str, FrameworkProcess]]()


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a test that asks for ``framework`` once for each, or for those that its mark ``frameworks`` names."""
    if "framework" in metafunc.fixturenames:
        mark = metafunc.definition.get_closest_marker("frameworks")
        metafunc.parametrize("framework", mark.args if mark else list(FRAMEWORKS), indirect=True, scope="session")


@pytest.fixture(scope="session")
def framework(request: pytest.FixtureRequest) -> str:
    """Name of the framework that a test is about; the test runs in that framework's process."""
    require(FRAMEWORKS[request.param][0])
    return request.param


@pytest.fixture(scope="session")
def adapter(framework: str) -> Adapter | None:
    """The adapter of the framework, with the same face for all of them."""
    return ADAPTERS[framework]() if backend_here() else None


@pytest.fixture
def one_thread_of_pytorch() -> Iterator[None]:
    """Problems this small only wait for PyTorch's threads; those of malis are left alone."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def fresh_compiler() -> Iterator[None]:
    """No graphs that another test has compiled."""
    import torch

    torch.compiler.reset()
    yield
    torch.compiler.reset()


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Hand the body of a test to the process of its framework."""
    if backend_here() or "framework" not in pyfuncitem.fixturenames:
        return None  # it runs here
    backend = pyfuncitem.callspec.params["framework"].removeprefix("keras-")
    processes = pyfuncitem.config.stash.setdefault(PROCESSES, {})
    if backend not in processes or not processes[backend].alive():  # a test may have ended it
        asking = [item for item in pyfuncitem.session.items if "framework" in getattr(item, "fixturenames", ())]
        files = sorted({str(item.path) for item in asking})
        processes[backend] = FrameworkProcess(backend, files, pyfuncitem.config.rootpath)
    processes[backend].run(pyfuncitem.nodeid)
    return True


def pytest_unconfigure(config: pytest.Config) -> None:
    for process in config.stash.get(PROCESSES, {}).values():
        process.close()
