"""Threads and memory: never more threads than cores, and fewer of them or a MemoryError where memory is short."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading

import numpy as np
import pytest

import malis

NHOOD = malis.mknhood3d(1)
LINUX = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="limits of a process are set as Linux has them")


def run(script: str, *arguments: object, **environment: str) -> object:
    """Run a script in a process of its own; what it prints last is JSON."""
    # NumPy's BLAS would take a thread, and memory, for every core.
    variables = os.environ | {"OPENBLAS_NUM_THREADS": "1"} | environment
    variables = {name: value for name, value in variables.items() if value or name != "OMP_NUM_THREADS"}
    process = subprocess.run(
        [sys.executable, "-c", script, *map(str, arguments)], env=variables, capture_output=True, text=True, timeout=300
    )
    assert process.returncode == 0, process.stderr
    return json.loads(process.stdout.splitlines()[-1])


def problem(side: int, labels: int = 4000) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(side)
    return rng.random((3, side, side, side), dtype=np.float32), rng.integers(0, labels, (side,) * 3, dtype=np.int32)


CORES = "import json, malis; print(json.dumps(malis.get_num_threads()))"


@LINUX
def test_default_number_of_threads():
    cores = len(os.sched_getaffinity(0))
    assert 1 <= run(CORES, OMP_NUM_THREADS="") <= cores
    assert run("import os; os.sched_setaffinity(0, [min(os.sched_getaffinity(0))]); " + CORES, OMP_NUM_THREADS="") == 1
    assert run(CORES, OMP_NUM_THREADS="1") == run(CORES, OMP_NUM_THREADS="1,4") == 1
    for nothing in "many", "0", "-3", "1000000":
        assert run(CORES, OMP_NUM_THREADS=nothing) == run(CORES, OMP_NUM_THREADS="")


@LINUX
def test_processes_that_torchrun_starts_share_the_cores():
    whole = run(CORES, OMP_NUM_THREADS="", LOCAL_WORLD_SIZE="1")
    assert run(CORES, OMP_NUM_THREADS="", LOCAL_WORLD_SIZE="2") == max(1, whole // 2)
    assert run(CORES, OMP_NUM_THREADS="", LOCAL_WORLD_SIZE="1000") == 1


@LINUX
@pytest.mark.parametrize("num_threads", [10_000, 65_536])
def test_no_more_threads_than_cores(num_threads):
    aff, seg = problem(64)
    expected = malis.pairs(aff, seg, NHOOD, num_threads=1)
    before, most, done = len(os.listdir("/proc/self/task")), 0, threading.Event()

    def watch():
        nonlocal most
        while not done.wait(1e-4):
            most = max(most, len(os.listdir("/proc/self/task")))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        counts = malis.pairs(aff, seg, NHOOD, num_threads=num_threads)
        malis.set_num_threads(num_threads)
        malis.rand_curve(aff, seg, NHOOD)
    finally:
        malis.set_num_threads(os.cpu_count() or 1)
        done.set()
        watcher.join()
    np.testing.assert_array_equal(counts, expected)
    # The watcher, and a team of which the caller is one.
    assert most <= before + 1 + len(os.sched_getaffinity(0)) - 1


MEMORY = """
import collections, json, os, resource, sys
import numpy as np, malis
rng = np.random.default_rng(int(sys.argv[2]))
aff, seg = rng.random((3, 48, 48, 48), dtype=np.float32), rng.integers(0, 4000, (48, 48, 48), dtype=np.int32)
nhood = malis.mknhood3d(1)
calls = [malis.pairs, malis.malis_loss, malis.rand_curve]
used = int(open("/proc/self/statm").read().split()[0]) * os.sysconf("SC_PAGE_SIZE")
ends = collections.Counter()
for run in range(int(sys.argv[1])):
    extra = int(rng.integers(0, 110 << 20))
    if (child := os.fork()) == 0:
        resource.setrlimit(resource.RLIMIT_AS, (used + extra, used + extra))
        try:
            calls[run % 3](aff, seg, nhood, num_threads=8)
        except MemoryError:
            os._exit(3)
        os._exit(0)
    ends[os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])] += 1
print(json.dumps(ends))
"""


@LINUX
def test_little_memory():
    """Whatever a process may still have: it computes, or there is a MemoryError."""
    ends = run(MEMORY, 45, 1)
    assert set(ends) == {"0", "3"}


THREAD_LIMIT = """
import json, os, resource
import numpy as np, malis
rng = np.random.default_rng(0)
aff, seg = rng.random((3, 64, 64, 64), dtype=np.float32), rng.integers(0, 40, (64, 64, 64))
expected = malis.pairs(aff, seg, malis.mknhood3d(1), num_threads=1)
if os.getuid() == 0:
    os.setuid(65534)  # the limit does not hold for root
resource.setrlimit(resource.RLIMIT_NPROC, (1, 1))
counts = malis.pairs(aff, seg, malis.mknhood3d(1), num_threads=8)
print(json.dumps(bool((counts.pos == expected.pos).all() and (counts.neg == expected.neg).all())))
"""


@LINUX
def test_no_thread_can_be_started():
    assert run(THREAD_LIMIT) is True
