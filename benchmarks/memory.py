"""Peak memory of one call, in a process of its own (Linux).

    python benchmarks/memory.py FOLDER CANDIDATE THREADS

reads ``aff.npy``, ``seg.npy`` and ``nhood.npy`` from FOLDER and prints, as JSON, the bytes by which the resident memory
rose at its peak during the call and how many of these are its output.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np


class NotMeasured(Exception):
    """The system does not tell what is needed."""


def _status(key: str) -> int:
    with open("/proc/self/status") as lines:
        for line in lines:
            if line.startswith(key + ":"):
                return 1024 * int(line.split()[1])
    raise NotMeasured(f"/proc/self/status has no {key}")


def _output_bytes(result: object) -> int:
    if isinstance(result, np.ndarray):
        return result.nbytes
    if isinstance(result, tuple):
        return sum(_output_bytes(item) for item in result)
    if hasattr(result, "indptr"):  # a sparse matrix
        return sum(_output_bytes(getattr(result, name)) for name in ("data", "indices", "indptr"))
    return 0


def _measure(folder: Path, candidate: str, threads: int) -> dict[str, int]:
    import data
    import malis
    import yardsticks

    malis.set_num_threads(threads)
    make = next(c.make for c in yardsticks.CANDIDATES if c.label == candidate)
    seg, aff, nhood = data.realistic((12, 12, 12))
    make(aff, seg, nhood)()  # loads what is loaded at the first call
    del seg, aff
    aff, seg, nhood = (np.load(folder / f"{name}.npy") for name in ("aff", "seg", "nhood"))
    call = make(aff, seg, nhood)
    # Give back what the preparation has freed, or the call could take it without being noticed. Not every C library
    # keeps something back, or has this call.
    with contextlib.suppress(AttributeError, OSError):
        ctypes.CDLL(None).malloc_trim(0)
    before = _status("VmRSS")
    with open("/proc/self/clear_refs", "w") as clear:
        clear.write("5")  # resets VmHWM, the highest VmRSS so far
    result = call()
    peak = _status("VmHWM")
    return {"peak": max(0, peak - before), "output": _output_bytes(result)}


def measure(volume: tuple[np.ndarray, np.ndarray, np.ndarray], candidates: list[str], threads: int) -> dict[str, dict]:
    """Return peak and output in bytes for every candidate, each run in a fresh process."""
    if not Path("/proc/self/clear_refs").exists():
        raise NotMeasured("peak memory is read from /proc/self, which this system does not have")
    seg, aff, nhood = volume
    results = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, array in (("aff", aff), ("seg", seg), ("nhood", nhood)):
            np.save(Path(folder) / f"{name}.npy", array)
        for candidate in candidates:
            command = [sys.executable, __file__, folder, candidate, str(threads)]
            run = subprocess.run(command, capture_output=True, text=True)
            if run.returncode != 0:
                raise RuntimeError(f"measuring the memory of {candidate} failed:\n{run.stderr}")
            results[candidate] = json.loads(run.stdout)
    return results


if __name__ == "__main__":
    try:
        print(json.dumps(_measure(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))))
    except NotMeasured as reason:
        sys.exit(str(reason))
