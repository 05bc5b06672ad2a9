"""Arrays that another thread changes during a call: results may be anything, or an error, but the process lives.

Every function runs in a process of its own, in which a thread overwrites what the function reads, again and again. The
core does not hold the lock of the interpreter while it computes, so the two really run at once.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from races import FUNCTIONS

CALLS = int(os.environ.get("MALIS_RACE_CALLS", "2000"))


@pytest.mark.slow
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("function", FUNCTIONS)
def test_arrays_that_change_during_a_call(function, threads):
    script = Path(__file__).with_name("races.py")
    process = subprocess.run(
        [sys.executable, str(script), function, str(CALLS // 2), str(threads)], capture_output=True, text=True
    )
    # A negative code is the signal that ended the process.
    assert process.returncode == 0, (process.returncode, process.stderr[-2000:])
