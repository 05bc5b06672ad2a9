"""A few batches of `tests/fuzz`, so that it stays as it is; CI runs it for minutes, under sanitizers."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

FUZZ = Path(__file__).parent / "fuzz"


@pytest.mark.parametrize("subject", ["calls", "files"])
def test_fuzz(subject):
    command = [sys.executable, FUZZ, "--only", subject, "--batches", "1", "--examples", "60", "--seed", "20"]
    process = subprocess.run([*map(str, command)], capture_output=True, text=True)
    assert process.returncode == 0, process.stderr[-4000:]
    assert ": 0 batches failed" in process.stdout
    # Every function and reader has had arguments that it takes.
    done = {line.split()[1] for line in process.stdout.splitlines() if line.endswith("result")}
    assert len(done) == (12 if subject == "calls" else 1)


def test_failures_are_reported(tmp_path):
    """What fails is named with the command that repeats it."""
    script = f"""
import runpy, sys
sys.path.insert(0, {str(FUZZ)!r})
import calls
calls.FUNCTIONS = {{"bad": lambda problem: 1 / 0}}
sys.argv = [{str(FUZZ)!r}, "--batch", "calls", "--examples", "5", "--seed", "3"]
runpy.run_path({str(FUZZ)!r}, run_name="__main__")
"""
    process = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert process.returncode != 0
    assert "ZeroDivisionError" in process.stderr
