"""One process for each framework, in which the tests of its adapters run.

Keras has one backend for the life of a process, and an adapter has to work without the other frameworks at its side.
So a test that asks for the fixture ``framework`` is set up by the pytest that the user started, and its body runs in a
process of that framework: a second pytest over the same files, which is sent the ids of tests, runs each of them as
pytest runs any test, and answers with the outcome. PyTorch and Keras on PyTorch share a process, and so on: three for
the six adapters.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
import tempfile
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from frameworks import QUIET

BACKEND = "MALIS_TESTS_BACKEND"
SECONDS_FOR_A_TEST = 600


def backend_here() -> str | None:
    """The framework that this process is for: "torch", "tensorflow" or "jax"; None in the one that users start."""
    return os.environ.get(BACKEND)


class FrameworkProcess:
    """The side that asks."""

    def __init__(self, backend: str, files: list[str], root: Path) -> None:
        self.output = tempfile.NamedTemporaryFile(mode="r", prefix=f"malis-tests-{backend}-", errors="replace")  # noqa: SIM115
        context = multiprocessing.get_context("spawn")
        self.connection, other_end = context.Pipe()
        arguments = (backend, files, root, other_end, self.output.name)
        self.process = context.Process(target=serve, args=arguments, daemon=True)
        self.process.start()
        other_end.close()  # so that reading fails when the process ends

    def alive(self) -> bool:
        return self.process.is_alive()

    def run(self, test: str) -> None:
        """Run a test there; returns where it passed, and fails or skips here where it did so."""
        outcome, text = self._answer(test)
        if outcome == "failed":
            pytest.fail(text, pytrace=False)
        if outcome == "skipped":
            pytest.skip(text.removeprefix("Skipped: "))

    def _answer(self, test: str) -> tuple[str, str]:
        try:
            self.connection.send(test)
            if self.connection.poll(SECONDS_FOR_A_TEST):
                return self.connection.recv()
            problem = f"gave no answer in {SECONDS_FOR_A_TEST} s"
        except (EOFError, OSError):
            self.process.join(60)
            problem = f"ended with status {self.process.exitcode}"
        self.process.kill()
        self.process.join()
        return "failed", f"the process of the framework {problem}:\n{self.output.read()[-5000:]}"

    def close(self) -> None:
        self.connection.close()  # ends its loop
        self.process.join(60)
        self.process.kill()
        self.output.close()


def serve(backend: str, files: list[str], root: Path, connection: Connection, output: str) -> None:
    """What the process of a framework does."""
    settings = {BACKEND: backend, "KERAS_BACKEND": backend}
    os.environ.update({**QUIET, **settings, "PYTEST_ADDOPTS": ""})  # such as the name of a report, which has one writer
    file = os.open(output, os.O_WRONLY)
    os.dup2(file, 1)
    os.dup2(file, 2)
    os.chdir(root)
    sys.exit(pytest.main([*files, "-o", "addopts=", "-p", "no:cacheprovider", "-p", "no:xdist"], [Server(connection)]))


class Server:
    """A plugin that runs the tests that it is asked for, in place of all that were collected."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.reports: list[pytest.TestReport] = []

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        items = {item.nodeid: item for item in session.items}
        while True:
            try:
                item = items[self.connection.recv()]
            except EOFError:
                return True
            self.reports.clear()
            item.config.hook.pytest_runtest_protocol(item=item, nextitem=None)
            self.connection.send(self.outcome())

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self.reports.append(report)

    def outcome(self) -> tuple[str, str]:
        for report in self.reports:
            if report.failed:
                return "failed", report.longreprtext
            if report.skipped:
                return "skipped", str(report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr)
        return "passed", ""
